"""The descriptor of a directory that takes several steps to list."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import procaio
from conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_listing_a_large_directory_closes_no_descriptor_of_others(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """Its descriptor is closed once: by then another file may have the number."""
    names = {f"{number:0200}" for number in range(1000)}
    for name in names:
        (tmp_path / name).touch()
    request = procaio.aio_readdir(tmp_path, pool=pool)
    eventually(lambda: pool.npending() == 1, "the directory is listed")

    files = [os.open(tmp_path / name, os.O_RDONLY) for name in sorted(names)[:8]]
    assert set(request.wait()) == names
    for fd in files:
        os.close(fd)  # OSError if it was closed already
