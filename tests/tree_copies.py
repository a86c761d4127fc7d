"""What the tests of aio_copytree share: trees to copy, and what there is to say of copies."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

import trees

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import procaio

NOTHING: frozenset[bytes] = frozenset()


def make_original(top: Path) -> Path:
    """What is to be copied; links of it lead to `outside`, beside it."""
    trees.make(os.fsencode(top), {**trees.ODD, b"absolute": b"/"})
    (top / "a" / "b" / "file").write_bytes(b"content" * 1000)
    (top / "new\nline").write_bytes(b"line")
    return top


@contextlib.contextmanager
def that_stays(path: Path) -> Iterator[Path]:
    """What must be after the block as it was before."""
    trees.make(os.fsencode(path), {b"file": None, b"dir": {b"file": None}})
    before = trees.picture(path)
    yield path
    assert trees.picture(path) == before


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What is to be copied."""
    return make_original(tmp_path / "tree")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """What nobody may touch."""
    with that_stays(tmp_path / "outside") as path:
        yield path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A name for the copy."""
    return tmp_path / "copy"


def missing(src: Path | bytes, dst: Path | bytes, told: frozenset[bytes] = NOTHING) -> set[bytes]:
    """What has no copy; everything else that is no directory must equal its original. Only `told`
    symlinks may lack their attributes: nobody knows whose a symlink was before it has them.
    """
    wanted, got = trees.picture(src), trees.picture(dst) if os.path.lexists(dst) else {}
    assert got.keys() <= wanted.keys()
    for name, (mode, *rest) in got.items():
        if name in told and mode.startswith("0o12"):
            assert rest[4] == wanted[name][5]
        elif not mode.startswith("0o4"):
            assert (mode, *rest[:-2]) == wanted[name][:-2], name
    return wanted.keys() - got.keys()


def whole_or_told(request: procaio.Group, src: Path, dst: Path) -> set[int]:
    """What is there equals its original, what is missing is told; which errors were."""
    progress = request.progress
    told = frozenset(
        os.path.relpath(path, os.fsencode(top))
        for path, _ in progress.failures
        for top in (src, dst)
    )
    for name in missing(src, dst, told):
        parts = name.split(b"/")
        ways = {b"/".join(parts[:count]) for count in range(1, len(parts) + 1)}
        assert told & (ways | {b"."}), name
    assert (request.error is None) == (progress.failed == 0)
    if request.error is None:
        assert trees.picture(dst) == trees.picture(src)
    return {number for _, number in progress.failures}
