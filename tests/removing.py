"""What the tests of aio_rmtree share: what is to be removed, and what must stay."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import trees

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """What is to be removed; beside it stands what must stay."""
    top = tmp_path / "tree"
    trees.make(os.fsencode(top), trees.ODD)
    trees.make(os.fsencode(tmp_path / "outside"), {b"file": None, b"dir": {b"file": None}})
    yield top
    if top.is_dir() and not top.is_symlink():
        trees.remove(top)


@pytest.fixture
def outside(tree: Path) -> Iterator[Path]:
    """What must be after the test as it was before."""
    path = tree.with_name("outside")
    before = trees.content(path)
    yield path
    assert trees.content(path) == before
