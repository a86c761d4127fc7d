"""Syncing and reading ahead (rules J1, E6, I12)."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import open_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# linux/fs.h
WAIT_BEFORE, WRITE, WAIT_AFTER = 1, 2, 4

unprivileged = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")


@pytest.fixture
def pipe() -> Iterator[int]:
    """The end that is read; the other one stays open."""
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


def failure(call: Callable[[], object]) -> OSError:
    """The error that it must raise."""
    with pytest.raises(OSError) as raised:
        call()
    return raised.value


# -- sync ------------------------------------------------------------------------------------------


def test_sync_yields_0(pool: procaio.Pool) -> None:
    """Like every function; it cannot fail."""
    answers: list[int] = []
    assert procaio.aio_sync(answers.append, pool=pool).wait() == 0
    assert procaio.aio_sync(pool=pool, pri=2).wait() == 0
    assert answers == [0]


# -- pathsync --------------------------------------------------------------------------------------


def test_pathsync_of_files_directories_and_special_files(
    pool: procaio.Pool, data_file: Path
) -> None:
    """By every kind of path; directories too (I12); nothing stays open."""
    (data_file.parent / "link").symlink_to("data")
    before = open_files()
    for path in (data_file, str(data_file), os.fsencode(data_file), data_file.with_name("link"),
                 data_file.parent, "/", f"{data_file.parent}{'/' * 3000}data"):  # fmt: skip
        answers: list[int] = []
        assert procaio.aio_pathsync(path, answers.append, pool=pool).wait() == 0
        assert answers == [0]
    assert open_files() == before
    with procaio.aio_open(data_file.parent, os.O_DIRECTORY, pool=pool).wait() as top:
        assert procaio.aio_pathsync("data", dir_fd=top, pool=pool).wait() == 0
        assert procaio.aio_pathsync(b".", dir_fd=top.fileno(), pool=pool).wait() == 0


def test_pathsync_does_not_wait_for_the_other_end_of_a_fifo(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """It fails with what fsync says of it."""
    os.mkfifo(tmp_path / "fifo")
    request = procaio.aio_pathsync(tmp_path / "fifo", pool=pool)
    assert failure(request.wait).errno == errno.EINVAL


@unprivileged
@pytest.mark.parametrize("mode", [0o200, 0o400, 0])
def test_pathsync_of_a_file_that_may_be_written_only(data_file: Path, mode: int) -> None:
    """What may be read or written can be synced; the rest is EACCES."""
    data_file.chmod(mode)
    data_file.parent.chmod(0o755)
    os.chown(data_file, 65_534, 65_534)
    top = os.open(data_file.parent, os.O_DIRECTORY)
    with procaio.Pool(inline=True) as inline:  # workers keep the rights they were born with
        os.setresuid(-1, 65_534, 0)
        try:
            request = procaio.aio_pathsync("data", dir_fd=top, pool=inline)
            inline.flush()
        finally:
            os.setresuid(-1, 0, 0)
            os.close(top)
    assert request.errno == (0 if mode else errno.EACCES)


def test_pathsync_of_what_cannot_be_opened_fails_like_open(
    pool: procaio.Pool, data_file: Path
) -> None:
    """With the path itself in the error."""
    data_file.with_name("loop").symlink_to("loop")
    before = open_files()
    for name in ("no", "data/x", "loop", "x" * 300):
        path = data_file.with_name(name) if "/" not in name else data_file / "x"
        expected = failure(lambda path=path: os.open(path, os.O_RDONLY))
        answers: list[int] = []
        raised = failure(procaio.aio_pathsync(path, answers.append, pool=pool).wait)
        assert (raised.errno, answers) == (expected.errno, [-1])
        assert raised.filename is path
    assert open_files() == before


# -- sync_file_range -------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", range(8))
def test_sync_file_range_takes_every_combination_of_flags(
    pool: procaio.Pool, fd: int, flags: int
) -> None:
    """Of a part of the file, and of all of it from an offset on (nbytes 0)."""
    os.pwrite(fd, b"changed", 100)
    answers: list[int] = []
    for offset, nbytes in ((0, 0), (100, 7), (4096, 4096), (1 << 40, 1)):
        request = procaio.aio_sync_file_range(fd, offset, nbytes, flags, answers.append, pool=pool)
        assert request.wait() == 0
    assert answers == [0] * 4


def test_sync_file_range_takes_handles_and_file_objects(
    pool: procaio.Pool, data_file: Path
) -> None:
    with open(data_file, "rb") as file, procaio.aio_open(data_file, pool=pool).wait() as handle:
        for target in (file, handle):
            assert procaio.aio_sync_file_range(target, 0, 9, WRITE, pool=pool).wait() == 0


def test_sync_file_range_fails_where_the_system_does(
    pool: procaio.Pool, fd: int, pipe: int
) -> None:
    """Unknown flags, pipes, ranges beyond what there is, descriptors that are not open."""
    for target, arguments, expected in (
        (fd, (0, 0, 8), errno.EINVAL),
        (fd, (0, 0, WAIT_BEFORE | 1 << 20), errno.EINVAL),
        (fd, (2**63 - 1, 2, WRITE), errno.EINVAL),
        (pipe, (0, 0, WRITE), errno.ESPIPE),
        (-1, (0, 0, WRITE | WAIT_AFTER), errno.EBADF),
    ):
        answers: list[int] = []
        request = procaio.aio_sync_file_range(target, *arguments, answers.append, pool=pool)
        pool.flush()
        assert (request.errno, answers) == (expected, [-1])


# -- readahead -------------------------------------------------------------------------------------


@pytest.mark.parametrize("range_", [(0, 65_536), (0, 0), (100, 7), (1 << 40, 5), (0, 2**63 - 1)])
def test_readahead_yields_0_and_leaves_the_position_alone(
    pool: procaio.Pool, fd: int, range_: tuple[int, int]
) -> None:
    """Beyond the end too."""
    os.lseek(fd, 5, os.SEEK_SET)
    answers: list[int] = []
    assert procaio.aio_readahead(fd, *range_, answers.append, pool=pool).wait() == 0
    assert answers == [0]
    assert os.lseek(fd, 0, os.SEEK_CUR) == 5


def test_readahead_of_what_the_system_refuses_reads_it(pool: procaio.Pool) -> None:
    """It does not fail where reading is possible: devices, files of /proc and /sys (E6)."""
    for path in ("/dev/zero", "/dev/null", "/proc/self/status", "/sys/kernel/notes"):
        with procaio.aio_open(path, pool=pool).wait() as handle:
            for range_ in ((0, 0), (0, 100_000), (3, 1)):
                assert procaio.aio_readahead(handle, *range_, pool=pool).wait() == 0


def test_readahead_of_what_cannot_be_read_fails_as_reading_does(
    pool: procaio.Pool, tmp_path: Path, pipe: int
) -> None:
    """Pipes at an offset, directories, files that are only written, what is not open."""
    writing = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    directory = os.open(tmp_path, os.O_DIRECTORY)
    for number in (pipe, writing, directory, -1):
        expected = failure(lambda number=number: os.pread(number, 9, 0))
        raised = failure(procaio.aio_readahead(number, 0, 9, pool=pool).wait)
        assert raised.errno == expected.errno
    os.close(writing)
    os.close(directory)


def test_readahead_of_a_handle_names_its_file(pool: procaio.Pool, tmp_path: Path) -> None:
    path = pathlib.Path(tmp_path)
    with procaio.aio_open(path, os.O_DIRECTORY, pool=pool).wait() as handle:
        raised = failure(procaio.aio_readahead(handle, 0, 9, pool=pool).wait)
    assert raised.filename is path


@pytest.mark.parametrize("function", [procaio.aio_readahead, procaio.aio_sync_file_range])
def test_wrong_ranges_raise_in_the_call(
    pool: procaio.Pool, fd: int, function: Callable[..., Any]
) -> None:
    """Negative ones, None, and what is no integer (A5)."""
    flags = (0,) if function is procaio.aio_sync_file_range else ()
    for wrong, kind in ((-1, ValueError), (2**63, ValueError), (None, TypeError), (1.5, TypeError),
                        ("1", TypeError)):  # fmt: skip
        for range_ in ((wrong, 1), (1, wrong)):
            with pytest.raises(kind):
                function(fd, *range_, *flags, pool=pool)
    assert pool.statistics().submitted == 0
