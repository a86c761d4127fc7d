"""The stat family: exactly what os says, of every kind of file (rule F1)."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

import pytest

import procaio

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate


# -- dir_fd ----------------------------------------------------------------------------------------


class Directory:
    """A descriptor that is closed when nobody has it any more."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_DIRECTORY)

    def fileno(self) -> int:
        """For whoever uses it."""
        return self._fd

    def __del__(self) -> None:
        os.close(self._fd)


def test_dir_fd_object_stays_open_until_the_request_is_done(
    workers: procaio.Pool, gate: Gate, tmp_path: Path
) -> None:
    """An object given as dir_fd is kept alive like a file: its number is not reused underneath."""
    (tmp_path / "name").touch()
    workers.min_parallel(1)
    workers.max_parallel(1)
    held = gate.hold(workers)
    one, other = Directory(tmp_path), Directory(tmp_path)
    rename = procaio.aio_rename("name", "new", src_dir_fd=one, dst_dir_fd=other, pool=workers)
    status = procaio.aio_stat("new", dir_fd=one, pool=workers)
    alive = weakref.ref(one), weakref.ref(other)
    del one, other
    assert None not in {reference() for reference in alive}
    gate.open()
    assert rename.wait() == 0
    assert status.wait() == os.stat(tmp_path / "new")
    assert [reference() for reference in alive] == [None, None]
    assert held[0].wait() == b"x"


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["stat", "statvfs"])
def test_stat_of_a_bad_descriptor_names_it_like_os(pool: procaio.Pool, function: str) -> None:
    """The OSError of a descriptor carries it as the file name, as that of os.stat does."""
    with pytest.raises(OSError) as expected:
        getattr(os, function)(99999)
    with pytest.raises(OSError) as raised:
        getattr(procaio, f"aio_{function}")(99999, pool=pool).wait()
    assert str(raised.value) == str(expected.value)
    assert raised.value.filename == expected.value.filename == 99999
