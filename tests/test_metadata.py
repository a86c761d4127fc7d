"""The stat family: exactly what os says, of every kind of file (rule F1)."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import pickle
import socket
import stat
import weakref
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import errno_of

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


# -- stat ------------------------------------------------------------------------------------------


def everything(root: Path) -> list[str]:
    """A file of every kind that can be made, and some of the system's own."""
    (root / "file").write_bytes(b"x" * 12345)
    (root / "empty").touch(0o4711)
    (root / "dir").mkdir(0o1750)
    (root / "link").symlink_to("file")
    (root / "dirlink").symlink_to("dir")
    (root / "dangling").symlink_to("nowhere")
    os.link(root / "file", root / "hard")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    with open(root / "sparse", "wb") as file:
        file.truncate(1 << 40)
    os.utime(root / "empty", ns=(-(10**18), 4 * 10**18 + 7))
    os.utime(root / "dir", ns=(1, 999_999_999))
    (root / "ünïcode \n name").touch()
    with open(os.fsencode(root) + b"/not utf-8 \xff\xfe", "wb"):
        pass
    with contextlib.suppress(OSError):
        os.mknod(root / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        os.chown(root / "file", 12345, 54321)
    names = [os.path.join(root, name) for name in os.listdir(root)]
    return [*names, "/", "/dev/null", "/dev/zero", "/proc/self", "/proc/self/exe", "/sys", "/tmp"]


def attributes(status: os.stat_result) -> dict[str, object]:
    """All that os.stat_result has to tell, and how it prints."""
    found: dict[str, object] = {
        name: getattr(status, name) for name in dir(status) if name.startswith("st_")
    }
    return found | {"tuple": tuple(status), "repr": repr(status), "type": type(status)}


@pytest.mark.parametrize("function", ["stat", "lstat"])
def test_stat_is_exactly_that_of_os(pool: procaio.Pool, tmp_path: Path, function: str) -> None:
    """Every attribute of every kind of file; stat follows links, lstat does not (F1)."""
    ours, theirs = getattr(procaio, f"aio_{function}"), getattr(os, function)
    paths = everything(tmp_path)
    for path in paths:
        failure = errno_of(lambda path=path: theirs(path))
        assert errno_of(lambda path=path: ours(path, pool=pool).wait()) == failure
        if failure:
            continue
        expected = attributes(theirs(path))
        if path.startswith("/proc"):  # made anew at every look
            assert set(attributes(ours(path, pool=pool).wait())) == set(expected)
            continue
        for spelling in (path, os.fsencode(path), pathlib.Path(path)):
            assert attributes(ours(spelling, pool=pool).wait()) == expected
    assert len(paths) > 18


def test_stat_of_descriptors_is_that_of_os(pool: procaio.Pool, tmp_path: Path) -> None:
    """Both functions are fstat for an int, a FileHandle, or anything with fileno() (F1)."""
    for path in everything(tmp_path):
        try:
            number = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            continue
        for function in (procaio.aio_stat, procaio.aio_lstat):
            assert attributes(function(number, pool=pool).wait()) == attributes(os.fstat(number))
        os.close(number)
    with open(tmp_path / "file", "rb") as file:
        assert procaio.aio_stat(file, pool=pool).wait() == os.stat(tmp_path / "file")
    with procaio.aio_open(tmp_path / "file", pool=pool).wait() as handle:
        assert procaio.aio_lstat(handle, pool=pool).wait() == os.stat(tmp_path / "file")
    one, other = os.pipe()
    assert attributes(procaio.aio_stat(one, pool=pool).wait()) == attributes(os.stat(one))
    os.close(one)
    os.close(other)


def test_stat_with_a_descriptor_and_dir_fd_raises(pool: procaio.Pool) -> None:
    """As os.stat says: it makes no sense."""
    with pytest.raises(ValueError, match="dir_fd"):
        procaio.aio_stat(0, dir_fd=0, pool=pool)
    assert procaio.aio_stat(0, dir_fd=None, pool=pool).wait() == os.fstat(0)


def test_stat_result_of_a_request_pickles_and_compares(pool: procaio.Pool) -> None:
    """It is os.stat_result itself, not something like it."""
    status = procaio.aio_stat("/", pool=pool).wait()
    assert pickle.loads(pickle.dumps(status)) == os.stat("/")


# -- statvfs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/proc", "/dev/shm", "/sys"])
def test_statvfs_is_that_of_os(pool: procaio.Pool, path: str) -> None:
    """All 11 fields; those that others may change at any time are compared where they agree."""

    def fields(status: os.statvfs_result) -> dict[str, int]:
        found = {name: getattr(status, name) for name in dir(status) if name.startswith("f_")}
        busy = {"f_bfree", "f_bavail", "f_ffree", "f_favail"}
        return {name: found[name] for name in found if name not in busy}

    with procaio.aio_open(path, os.O_DIRECTORY, pool=pool).wait() as handle:
        for given in (path, path.encode(), pathlib.Path(path), handle, handle.fileno()):
            status = procaio.aio_statvfs(given, pool=pool).wait()
            assert type(status) is os.statvfs_result
            assert len(fields(status)) == 7
            assert fields(status) == fields(os.statvfs(path))
            assert status.f_bavail <= status.f_bfree <= status.f_blocks


# -- names -----------------------------------------------------------------------------------------


def test_names_are_made_moved_and_removed(pool: procaio.Pool, tmp_path: Path) -> None:
    """mkdir, rename, unlink, rmdir, by path and relative to directories: 0, and it has happened."""
    with procaio.aio_open(tmp_path, os.O_DIRECTORY, pool=pool).wait() as top:
        assert procaio.aio_mkdir("dir", dir_fd=top, pool=pool).wait() == 0
        assert procaio.aio_mkdir(str(tmp_path / "other"), 0o700, pool=pool).wait() == 0
        (tmp_path / "dir" / "file").touch()
        with procaio.aio_open("dir", os.O_DIRECTORY, dir_fd=top, pool=pool).wait() as low:
            move = procaio.aio_rename(
                "file", b"moved", src_dir_fd=low, dst_dir_fd=top.fileno(), pool=pool
            )
            assert move.wait() == 0
        assert sorted(os.listdir(tmp_path)) == ["dir", "moved", "other"]
        assert procaio.aio_unlink("moved", dir_fd=top, pool=pool).wait() == 0
        assert procaio.aio_rmdir("dir", dir_fd=top, pool=pool).wait() == 0
    assert procaio.aio_rmdir(tmp_path / "other", pool=pool).wait() == 0
    assert os.listdir(tmp_path) == []


def test_rename_replaces_the_target(pool: procaio.Pool, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    assert procaio.aio_rename(tmp_path / "new", tmp_path / "old", pool=pool).wait() == 0
    assert (tmp_path / "old").read_text() == "new"


@pytest.mark.parametrize("mode", [None, 0o777, 0o700, 0o1777, 0])
def test_mkdir_takes_mode_and_umask(pool: procaio.Pool, tmp_path: Path, mode: int | None) -> None:
    """Default 0777, less the umask, as os.mkdir does it."""
    mask = os.umask(0o022)
    arguments = () if mode is None else (mode,)
    try:
        os.mkdir(tmp_path / "theirs", *arguments)
        procaio.aio_mkdir(tmp_path / "ours", *arguments, pool=pool).wait()
    finally:
        os.umask(mask)
    assert os.stat(tmp_path / "ours").st_mode == os.stat(tmp_path / "theirs").st_mode


@pytest.mark.parametrize("length", [100, 190, 191, 192, 193, 255, 1000, 4000, 4095, 4096, 9000])
def test_paths_of_any_length_arrive_whole(pool: procaio.Pool, tmp_path: Path, length: int) -> None:
    """Short ones lie in the slot, long ones in the arena; too long ones fail as ever."""
    path = str(tmp_path) + "/" * (length - len(str(tmp_path)) - 4) + "name"
    (tmp_path / "name").touch()
    expected = errno_of(lambda: os.stat(path))
    assert expected == (errno.ENAMETOOLONG if len(path) >= 4096 else 0)
    for call in (
        lambda: procaio.aio_stat(path, pool=pool),
        lambda: procaio.aio_rename(path, path, pool=pool),
        lambda: procaio.aio_rename(path, tmp_path / "name", pool=pool),
        lambda: procaio.aio_unlink(path.encode(), pool=pool),
    ):
        assert errno_of(lambda call=call: call().wait()) == expected
    assert (tmp_path / "name").exists() == bool(expected)
