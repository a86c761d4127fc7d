"""Modes, owners, sizes and special files: as os sets them (rules F4, F9, A13)."""

from __future__ import annotations

import errno
import os
import pathlib
import stat
from typing import TYPE_CHECKING, Any

import pytest

import procaio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file, and a symlink to it beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    path.chmod(0o640)
    (tmp_path / "link").symlink_to("file")
    return path


def targets(pool: procaio.Pool, path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every way to say which file is meant, with the keywords for it."""
    for spelling in (path, str(path), os.fsencode(path), path.with_name("link")):
        yield spelling, {}
    with open(path, "r+b") as opened, procaio.aio_open(path, os.O_RDWR, pool=pool).wait() as handle:
        for descriptor in (opened, handle, handle.fileno()):
            yield descriptor, {}
    with procaio.aio_open(path.parent, os.O_DIRECTORY, pool=pool).wait() as top:
        for dir_fd in (top, top.fileno()):
            yield path.name, {"dir_fd": dir_fd}


def expected_errno(call: Callable[..., object], target: Any, *arguments: object) -> int:
    """The errno of os; to which -1 is no descriptor, but as good as no file at all."""
    if target == -1:
        return errno.EBADF
    return failure(lambda: call(target, *arguments)).errno or -1


def failure(call: Callable[[], object]) -> OSError:
    """The error that it must raise."""
    with pytest.raises(OSError) as raised:
        call()
    return raised.value


# -- chmod -----------------------------------------------------------------------------------------


def test_chmod_sets_the_permissions(pool: procaio.Pool, file: Path) -> None:
    """By every kind of path and descriptor (F9); 0 to the callback."""
    for n, (target, keywords) in enumerate(targets(pool, file)):
        answers: list[int] = []
        request = procaio.aio_chmod(target, 0o600 + n, answers.append, pool=pool, **keywords)
        assert request.wait() == 0
        assert answers == [0]
        assert stat.S_IMODE(os.stat(file).st_mode) == 0o600 + n


@pytest.mark.parametrize("mode", [0, 0o7777, 0o4711, 0o2755, 0o1777, 0o100644, 0xFFFF_FFFF, -1])
def test_chmod_takes_the_bits_that_os_takes(pool: procaio.Pool, file: Path, mode: int) -> None:
    """Setuid, setgid and sticky too; those that are no permissions do not count."""
    os.chmod(file, mode if mode < 2**31 else -1)
    expected = os.stat(file).st_mode
    os.chmod(file, 0o640)
    assert procaio.aio_chmod(file, mode, pool=pool).wait() == 0
    assert os.stat(file).st_mode == expected


def test_chmod_does_not_look_at_the_umask(pool: procaio.Pool, file: Path) -> None:
    mask = os.umask(0o777)
    try:
        assert procaio.aio_chmod(file, 0o777, pool=pool).wait() == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o777


def test_chmod_of_a_symlink_itself_is_not_supported(pool: procaio.Pool, file: Path) -> None:
    """It has no permissions on Linux; of anything else follow_symlinks makes no difference."""
    link = file.with_name("link")
    error = failure(procaio.aio_chmod(link, 0o600, follow_symlinks=False, pool=pool).wait)
    assert (error.errno, error.filename) == (errno.EOPNOTSUPP, link)
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o640
    assert procaio.aio_chmod(file, 0o604, follow_symlinks=False, pool=pool).wait() == 0
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o604


# -- chown -----------------------------------------------------------------------------------------


@needs_root
def test_chown_sets_owner_and_group(pool: procaio.Pool, file: Path) -> None:
    """By every kind of path and descriptor (F9)."""
    for n, (target, keywords) in enumerate(targets(pool, file)):
        request = procaio.aio_chown(target, 1000 + n, 2000 + n, pool=pool, **keywords)
        assert request.wait() == 0
        status = os.stat(file)
        assert (status.st_uid, status.st_gid) == (1000 + n, 2000 + n)


@needs_root
@pytest.mark.parametrize("leave", [None, -1])
def test_chown_leaves_what_is_none_or_minus_one(
    pool: procaio.Pool, file: Path, leave: int | None
) -> None:
    """Owner, group, and both (F4)."""
    os.chown(file, 12, 34)
    for arguments, expected in (
        ((leave, leave), (12, 34)), ((56, leave), (56, 34)), ((leave, 78), (56, 78)),
        ((0, 2**32 - 2), (0, 2**32 - 2)),
    ):  # fmt: skip
        assert procaio.aio_chown(file, *arguments, pool=pool).wait() == 0
        status = os.stat(file)
        assert (status.st_uid, status.st_gid) == expected


def test_chown_of_nothing_needs_no_right(pool: procaio.Pool, file: Path) -> None:
    """Whoever runs the tests may leave both as they are (F4)."""
    before = os.stat(file)
    assert procaio.aio_chown(file, None, -1, pool=pool).wait() == 0
    assert procaio.aio_chown(file, before.st_uid, before.st_gid, pool=pool).wait() == 0
    after = os.stat(file)
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


@needs_root
def test_chown_of_a_symlink_itself(pool: procaio.Pool, file: Path) -> None:
    """follow_symlinks as os.chown has it: the default is to follow."""
    link = file.with_name("link")
    assert procaio.aio_chown(link, 11, 22, follow_symlinks=False, pool=pool).wait() == 0
    assert (os.lstat(link).st_uid, os.lstat(link).st_gid) == (11, 22)
    assert (os.stat(link).st_uid, os.stat(link).st_gid) == (os.geteuid(), os.getegid())
    assert procaio.aio_chown(link, 33, 44, follow_symlinks=True, pool=pool).wait() == 0
    assert (os.lstat(link).st_uid, os.stat(link).st_uid) == (11, 33)


@pytest.mark.parametrize("wrong", [-2, 2**32 - 1, 2**32, 2**70, "root", 1.0, b"0"])
def test_wrong_owners_raise_in_the_call(pool: procaio.Pool, file: Path, wrong: Any) -> None:
    """What cannot be one; the largest number of all means "leave it" to the system (A5)."""
    for arguments in ((wrong, 0), (0, wrong)):
        with pytest.raises((TypeError, ValueError)):
            procaio.aio_chown(file, *arguments, pool=pool)
    assert pool.statistics().submitted == 0


# -- truncate --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 3, 10, 11, 100_000, 1 << 40])
def test_truncate_cuts_and_extends(pool: procaio.Pool, file: Path, size: int) -> None:
    """To exactly that size, by path or descriptor; what is added is a hole of zeros (F9)."""
    for target, keywords in targets(pool, file):
        if keywords:
            continue  # os.truncate has no dir_fd either
        file.write_bytes(b"0123456789")
        assert procaio.aio_truncate(target, size, pool=pool).wait() == 0
        assert os.stat(file).st_size == size
        with open(file, "rb") as opened:
            assert opened.read(20) == b"0123456789"[:size] + bytes(max(0, min(size, 20) - 10))
    assert os.stat(file).st_blocks * 512 < 1 << 20


def test_truncate_leaves_the_position_alone(pool: procaio.Pool, file: Path) -> None:
    with open(file, "r+b", buffering=0) as opened:
        opened.seek(7)
        assert procaio.aio_truncate(opened, 2, pool=pool).wait() == 0
        assert opened.tell() == 7


@pytest.mark.parametrize("wrong", [-1, 2**63, None, 1.5, "1"])
def test_wrong_sizes_raise_in_the_call(pool: procaio.Pool, file: Path, wrong: Any) -> None:
    """A negative one too (A5)."""
    with pytest.raises((TypeError, ValueError)):
        procaio.aio_truncate(file, wrong, pool=pool)
    assert pool.statistics().submitted == 0


def test_truncate_fails_like_that_of_os(pool: procaio.Pool, file: Path) -> None:
    """The same errno; and the file's name, also where os leaves it out."""
    reading, (end, other) = os.open(file, os.O_RDONLY), os.pipe()
    names = (".", "no", "file/x", "x" * 300)
    for target in (*(file.parent / name for name in names), reading, end, other, -1):
        expected = expected_errno(os.truncate, target, 3)
        raised = failure(procaio.aio_truncate(target, 3, pool=pool).wait)
        assert (raised.errno, raised.filename) == (expected, target)
    for number in (reading, end, other):
        os.close(number)


# -- mknod -----------------------------------------------------------------------------------------


def kind_of(path: Path) -> tuple[int, int]:
    """Mode and device."""
    status = os.lstat(path)
    return status.st_mode, status.st_rdev


@pytest.mark.parametrize("mode", [None, 0o644, stat.S_IFREG | 0o4755, stat.S_IFIFO | 0o777,
                                  stat.S_IFSOCK | 0o600, stat.S_IFREG])  # fmt: skip
def test_mknod_makes_what_os_makes(pool: procaio.Pool, tmp_path: Path, mode: int | None) -> None:
    """FIFOs, sockets and plain files, their permissions less the umask (A13)."""
    arguments = () if mode is None else (mode,)
    mask = os.umask(0o026)
    try:
        os.mknod(tmp_path / "theirs", *arguments)
        assert procaio.aio_mknod(tmp_path / "ours", *arguments, pool=pool).wait() == 0
    finally:
        os.umask(mask)
    assert kind_of(tmp_path / "ours") == kind_of(tmp_path / "theirs")


def test_mknod_of_a_fifo_makes_one_that_works(workers: procaio.Pool, tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    assert procaio.aio_mknod(path, stat.S_IFIFO | 0o600, pool=workers).wait() == 0
    load = procaio.aio_load(path, pool=workers)
    path.write_bytes(b"through")
    assert load.wait() == b"through"


def test_mknod_relative_to_a_directory(pool: procaio.Pool, tmp_path: Path) -> None:
    with procaio.aio_open(tmp_path, os.O_DIRECTORY, pool=pool).wait() as top:
        for name, dir_fd in (("one", top), (b"two", top.fileno())):
            request = procaio.aio_mknod(name, stat.S_IFIFO | 0o600, dir_fd=dir_fd, pool=pool)
            assert request.wait() == 0
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


@needs_root
@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
@pytest.mark.parametrize("device", [(1, 3), (0xFFF, 0xFFFFF), (259, 70_000)])
def test_mknod_makes_devices(
    pool: procaio.Pool, tmp_path: Path, kind: int, device: tuple[int, int]
) -> None:
    """With the number that os.makedev gives."""
    number = os.makedev(*device)
    try:
        os.mknod(tmp_path / "theirs", kind | 0o600, number)
    except PermissionError:
        pytest.skip("devices cannot be made here")
    request = procaio.aio_mknod(tmp_path / "ours", kind | 0o600, number, pool=pool)
    assert request.wait() == 0
    assert kind_of(tmp_path / "ours") == kind_of(tmp_path / "theirs")


def test_mknod_fails_like_that_of_os(pool: procaio.Pool, file: Path) -> None:
    """The same errno; and the name, which os leaves out."""
    for name, mode in (
        ("file", 0o600), ("link", 0o600), ("no/file", 0o600), ("x" * 300, 0o600),
        ("dir", stat.S_IFDIR | 0o700), ("symlink", stat.S_IFLNK | 0o700), ("odd", 0o170_600),
    ):  # fmt: skip
        path = file.parent / name
        expected = failure(lambda path=path, mode=mode: os.mknod(path, mode))
        raised = failure(procaio.aio_mknod(path, mode, pool=pool).wait)
        assert raised.errno == expected.errno
        assert raised.filename is path


@pytest.mark.parametrize("wrong", [-1, 2**64, "1", 1.5])
def test_wrong_devices_raise_in_the_call(pool: procaio.Pool, tmp_path: Path, wrong: Any) -> None:
    """A number that no device has (A5)."""
    with pytest.raises((TypeError, ValueError)):
        procaio.aio_mknod(tmp_path / "device", 0o600, wrong, pool=pool)
    assert os.listdir(tmp_path) == []


# -- in common -------------------------------------------------------------------------------------

CALLS: dict[str, tuple[int, ...]] = {"chmod": (0o600,), "chown": (-1, -1), "truncate": (3,)}


@pytest.mark.parametrize("name", CALLS)
def test_change_of_what_is_not_there_fails_like_os(
    pool: procaio.Pool, file: Path, name: str
) -> None:
    """Paths and descriptors: errno, and the caller's own object as the file name."""
    ours, theirs = getattr(procaio, f"aio_{name}"), getattr(os, name)
    (file.parent / "loop").symlink_to("loop")
    for target in (
        *(file.parent / missing for missing in ("no", "file/x", "loop", "x" * 300)),
        pathlib.PurePath("/proc/self/no"), b"", 99_999, -1, -100,
    ):  # fmt: skip
        expected = expected_errno(theirs, target, *CALLS[name])
        answers: list[int] = []
        request = ours(target, *CALLS[name], answers.append, pool=pool)
        raised = failure(request.wait)
        assert (raised.errno, answers) == (expected, [-1])
        assert raised.filename is target


@pytest.mark.parametrize("name", ["chmod", "chown"])
def test_change_of_a_descriptor_takes_neither_dir_fd_nor_follow_symlinks(
    pool: procaio.Pool, fd: int, name: str
) -> None:
    """It makes no sense."""
    ours = getattr(procaio, f"aio_{name}")
    for keywords in ({"dir_fd": 0}, {"follow_symlinks": False}):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            ours(fd, *CALLS[name], pool=pool, **keywords)
    assert ours(fd, *CALLS[name], dir_fd=None, follow_symlinks=True, pool=pool).wait() == 0
