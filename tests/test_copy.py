"""Copying a file: what comes out, and that nothing goes wrong half way (I2, I4, I5, I7)."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import stat
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
from conftest import Gate, eventually, kill
from copying import (
    AS_NOBODY,
    all_closed,
    attributes,
    entry,
    executing,
    failure,
    holes,
    is_dead,
    killed_at,
    mounted,
    needs_root,
)
from procaio import _core, testing
from programs import X86, run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AT_POINTS = [point for point in testing.FAULT_POINTS if point != "sleeping"]
OLD = b"what was there before"
UNREADABLE = "/proc/self/mem"  # it opens, and the first read is EIO


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A name in a directory of its own."""
    (tmp_path / "alone").mkdir()
    return tmp_path / "alone" / "copy"


@pytest.fixture(params=["new", "old"])
def there(request: pytest.FixtureRequest, target: Path) -> Path:
    """The same, without and with a file of that name."""
    if request.param == "old":
        target.write_bytes(OLD)
    return target


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    with mounted(tmp_path / "small", "tmpfs", options="size=1m") as path:
        yield path


# -- what comes out: I2, I5 ------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("mode", [0o4755, 0o2711, 0o6444, 0o1600, 0o640, 0o400, 0])
def test_copy_is_what_cp_p_makes_of_it(
    pool: procaio.Pool, data_file: Path, there: Path, mode: int
) -> None:
    """Owner, permissions with set-user-ID, times to the nanosecond (I2)."""
    os.chown(data_file, 1234, 2345)
    data_file.chmod(mode)
    os.utime(data_file, ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    before = attributes(data_file)
    answers: list[int] = []
    assert procaio.aio_copy(data_file, there, answers.append, pool=pool).wait() == 0
    assert answers == [0]
    assert attributes(there) == before
    assert there.read_bytes() == data_file.read_bytes()
    os.utime(data_file, ns=before[:3:-1])
    subprocess.run(["cp", "-p", data_file, there.with_name("cp")], check=True)
    assert attributes(there.with_name("cp"))[:5] == before[:5]


@given(
    pieces=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9000)), max_size=5),
    rest=st.integers(0, 300_000),
    mode=st.integers(0, 0o777),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_copy_of_any_small_file_is_that_of_cp_p(
    pool: procaio.Pool, target: Path, pieces: list[tuple[int, int]], rest: int, mode: int
) -> None:
    """Data where there are data, holes where there are holes (I5)."""
    source = target.with_name("source")
    with contextlib.suppress(FileNotFoundError):
        source.unlink()
    with open(source, "wb") as file:
        for block, size in pieces:
            file.seek(4096 * block)
            file.write(os.urandom(size))
        file.seek(0, os.SEEK_END)
        file.truncate(file.tell() + rest)
    source.chmod(mode | 0o400)
    os.utime(source, ns=(2**60, 2**60 + len(pieces)))
    assert procaio.aio_copy(source, target, pool=pool).wait() == 0
    theirs = target.with_name("cp")
    subprocess.run(["cp", "-p", source, theirs], check=True)
    assert target.read_bytes() == theirs.read_bytes() == source.read_bytes()
    assert attributes(target)[:5] == attributes(theirs)[:5]
    assert holes(target) == holes(source)
    target.unlink()
    theirs.unlink()


def test_copy_of_a_sparse_file_of_3_gib_is_sparse(pool: procaio.Pool, target: Path) -> None:
    """Its holes take neither time nor space (I5)."""
    source = target.with_name("source")
    with open(source, "wb") as file:
        for at in (0, 1 << 30, (2 << 30) + 12345):
            file.seek(at)
            file.write(b"here is something")
        file.truncate(3 << 30)
    request = procaio.aio_copy(source, target, pool=pool)
    assert request.wait() == 0
    assert request.copied == os.stat(target).st_size == 3 << 30
    assert os.stat(target).st_blocks < 1000
    assert holes(target) == holes(source)
    with open(target, "rb") as file:
        file.seek((2 << 30) + 12345)
        assert file.read(18) == b"here is something\0"


def test_copy_of_a_file_without_a_size_goes_to_its_end(pool: procaio.Pool, target: Path) -> None:
    """Files of /proc say 0; an empty file is empty (I5)."""
    for name in ("/proc/version", "/proc/filesystems"):
        with open(name, "rb") as file:
            expected = file.read()
        assert procaio.aio_copy(name, target, pool=pool).wait() == 0
        assert target.read_bytes() == expected != b""
    target.with_name("empty").touch()
    assert procaio.aio_copy(target.with_name("empty"), target, pool=pool).wait() == 0
    assert target.read_bytes() == b""


def test_copy_writes_over_a_longer_file(pool: procaio.Pool, data_file: Path, target: Path) -> None:
    """Which stays the same file: its other names have the new content."""
    target.write_bytes(bytes(1 << 20))
    os.link(target, target.with_name("other"))
    assert procaio.aio_copy(data_file, target, pool=pool).wait() == 0
    assert target.with_name("other").read_bytes() == data_file.read_bytes()


def test_copy_in_the_middle_is_for_nobody_but_its_owner(
    workers: procaio.Pool, gate: Gate, target: Path
) -> None:
    """Mode 0200 first, whatever the umask and the source say (I2)."""
    gate.path.chmod(0o666)
    request = procaio.aio_copy(gate.path, target, pool=workers)
    gate.open(100)
    eventually(lambda: request.copied == 100, "it is in the middle")
    assert stat.S_IMODE(target.stat().st_mode) == 0o200
    gate.close()
    assert request.wait() == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o666
    assert target.read_bytes() == b"x" * 100


@needs_root
def test_copy_of_somebody_elses_file_gets_no_set_user_id(data_file: Path, target: Path) -> None:
    """Where the owner cannot be kept, set-user-ID would mean another one (I2)."""
    data_file.chmod(0o6755)
    data_file.parent.chmod(0o755)
    target.parent.chmod(0o777)
    assert run_python(AS_NOBODY, "aio_copy", "data", "alone/copy", cwd=data_file.parent) == "0\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert target.read_bytes() == data_file.read_bytes()


ACCESS_LIST = "system.posix_acl_access"


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """An access list as the system takes it, of (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_copy_takes_the_users_attributes_and_the_access_list(
    pool: procaio.Pool, data_file: Path, target: Path
) -> None:
    """Large ones too; a list that the directory gives to new files does not stay."""
    nobody = 2**32 - 1
    listed = access_list(
        (1, 6, nobody), (2, 4, 1234), (4, 4, nobody), (16, 4, nobody), (32, 0, nobody)
    )
    try:
        os.setxattr(data_file, "user.one", b"\0value")
        os.setxattr(data_file, "user.large", b"v" * 3000)
        os.setxattr(data_file, "user.empty", b"")
        os.setxattr(target.parent, "system.posix_acl_default", listed)
    except OSError as error:
        pytest.skip(f"no attributes here: {error}")
    assert procaio.aio_copy(data_file, target, pool=pool).wait() == 0
    assert {name: os.getxattr(target, name) for name in os.listxattr(target)} == {
        "user.one": b"\0value", "user.large": b"v" * 3000, "user.empty": b"",
    }  # fmt: skip
    assert target.stat().st_mode == data_file.stat().st_mode
    os.setxattr(data_file, ACCESS_LIST, listed)
    data_file.chmod(0o640)
    assert procaio.aio_copy(data_file, target, pool=pool).wait() == 0
    assert os.getxattr(target, ACCESS_LIST) == os.getxattr(data_file, ACCESS_LIST)
    assert target.stat().st_mode == data_file.stat().st_mode


def test_copy_to_what_is_no_file_gives_it_the_content_alone(
    workers: procaio.Pool, gate: Gate, data_file: Path
) -> None:
    """A FIFO keeps its permissions and times; on a failure it is not removed."""
    data_file.write_bytes(b"some")
    data_file.chmod(0o755)
    before = attributes(gate.path)
    assert procaio.aio_copy(data_file, gate.path, pool=workers).wait() == 0
    assert os.read(gate.fd, 100) == b"some"
    assert attributes(gate.path)[:3] == before[:3]
    error = failure(procaio.aio_copy(UNREADABLE, gate.path, pool=workers).wait)
    assert error.errno == errno.EIO
    assert gate.path.is_fifo()


def test_copy_relative_to_directories(pool: procaio.Pool, data_file: Path, target: Path) -> None:
    """src_dir_fd and dst_dir_fd, each for its own name, and (directory, path)."""
    data = data_file.read_bytes()
    top, low = (
        procaio.aio_wd(path, pool=pool).wait() for path in (data_file.parent, target.parent)
    )
    with top, low:
        keywords: dict[str, Any] = {"src_dir_fd": top, "dst_dir_fd": low.fileno(), "pool": pool}
        assert procaio.aio_copy("data", b"one", **keywords).wait() == 0
        assert procaio.aio_copy("data", "two", follow_symlinks=False, **keywords).wait() == 0
        assert procaio.aio_copy((low, "one"), (top, "three"), pool=pool).wait() == 0
    for path in (target.with_name("one"), target.with_name("two"), data_file.with_name("three")):
        assert path.read_bytes() == data


def test_copy_of_long_paths(pool: procaio.Pool, data_file: Path, target: Path) -> None:
    """Of any length that the system takes."""
    for length in (90, 191, 192, 1000, 4094):
        names = [
            f"{path.parent}{'/' * (length - len(str(path.parent)) - len(path.name))}{path.name}"
            for path in (data_file, target)
        ]
        assert procaio.aio_copy(*names, pool=pool).wait() == 0
        assert target.read_bytes() == data_file.read_bytes()
        error = failure(procaio.aio_copy(UNREADABLE, names[1], pool=pool).wait)
        assert (error.errno, target.exists()) == (errno.EIO, False)


# -- onto itself: I7 -------------------------------------------------------------------------------


@pytest.mark.better
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("name", ["data", "../{}/./data", "hard", "link"])
def test_copy_onto_itself_is_refused_and_destroys_nothing(
    pool: procaio.Pool, data_file: Path, name: str, follow: bool
) -> None:
    """By the same name, another spelling, a hard link or a symlink: EINVAL (I7)."""
    data, before = data_file.read_bytes(), attributes(data_file)
    os.link(data_file, data_file.with_name("hard"))
    data_file.with_name("link").symlink_to("data")
    other = f"{data_file.parent}/{name.format(data_file.parent.name)}"
    for pair in ((data_file, other), (other, data_file)):
        request = procaio.aio_copy(*pair, follow_symlinks=follow, pool=pool)
        if name == "link" and not follow:
            assert request.wait() == 0  # the link is another file
            break
        error = failure(request.wait)
        assert (error.errno, error.filename, error.filename2) == (errno.EINVAL, *pair)
    assert data_file.read_bytes() == data
    assert attributes(data_file)[:5] == before[:5]


# -- errors: I4 ------------------------------------------------------------------------------------


def test_copy_that_cannot_begin_touches_nothing(
    pool: procaio.Pool, data_file: Path, there: Path
) -> None:
    """No source, or a directory on either side: the old file stays, a new one is not made (I4)."""
    before = {path.name: path.read_bytes() for path in there.parent.iterdir()}
    (there.parent.parent / "inner").mkdir()
    for source, target, number in (
        (there.with_name("no"), there, errno.ENOENT),
        (there.parent, there, errno.EISDIR),
        (data_file, there.parent, errno.EISDIR),
        (data_file, there.parent / "no" / "x", errno.ENOENT),
        (data_file, data_file / "x", errno.ENOTDIR),
        (data_file, there.parent / ("x" * 256), errno.ENAMETOOLONG),
        (data_file, "", errno.ENOENT),
        ("", there, errno.ENOENT),
    ):
        for follow in (True, False):
            answers: list[int] = []
            error = failure(
                procaio.aio_copy(
                    source, target, answers.append, follow_symlinks=follow, pool=pool
                ).wait
            )
            assert (error.errno, error.filename, error.filename2) == (number, source, target)
            assert answers == [-1]
    assert {path.name: path.read_bytes() for path in there.parent.iterdir()} == before


@pytest.mark.better
@pytest.mark.parametrize("follow", [True, False])
def test_copy_whose_source_cannot_be_read_leaves_no_part(
    pool: procaio.Pool, there: Path, follow: bool
) -> None:
    """EIO is told as it is (I4)."""
    error = failure(procaio.aio_copy(UNREADABLE, there, follow_symlinks=follow, pool=pool).wait)
    assert (error.errno, error.filename) == (errno.EIO, UNREADABLE)
    assert list(there.parent.iterdir()) == []


@pytest.mark.better
@pytest.mark.parametrize("exists", [False, True])
def test_copy_to_a_disk_that_is_full_in_the_middle_leaves_no_part(
    pool: procaio.Pool, tmp_path: Path, small: Path, exists: bool
) -> None:
    """ENOSPC, the space is free again, and the source is as it was (I4)."""
    source, target = tmp_path / "source", small / "copy"
    source.write_bytes(os.urandom(3 << 20))
    if exists:
        target.write_bytes(OLD)
    request = procaio.aio_copy(source, target, pool=pool)
    assert failure(request.wait).errno == errno.ENOSPC
    assert 0 <= request.copied < 3 << 20
    assert list(small.iterdir()) == []
    assert os.statvfs(small).f_bfree == os.statvfs(small).f_blocks
    assert source.stat().st_size == 3 << 20


def test_copy_beyond_the_size_limit_leaves_no_part(data_file: Path, there: Path) -> None:
    """EFBIG, and no dead worker (I4)."""
    program = """
        import resource, sys, procaio
        with procaio.Pool() as pool:
            pool.max_parallel(1)
            procaio.aio_nop(pool=pool).wait()
            for worker in pool.statistics().workers:
                resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (10_000, 10_000))
            try:
                procaio.aio_copy(sys.argv[1], sys.argv[2], pool=pool).wait()
            except OSError as error:
                print(error.errno, pool.statistics().worker_deaths)
    """
    assert run_python(program, data_file, there) == f"{errno.EFBIG} 0\n"
    assert list(there.parent.iterdir()) == []


@needs_root
def test_copy_that_is_not_permitted_touches_nothing(data_file: Path, there: Path) -> None:
    """Of a source that may not be read, and to a file or directory that may not be written (I4)."""
    data_file.parent.chmod(0o755)
    existed = there.exists()
    for mode, directory_mode, number in (
        (0o644, 0o755, errno.EACCES), (0o600, 0o777, errno.EACCES), (0o644, 0o777, 0)
    ):  # fmt: skip
        data_file.chmod(mode)
        there.parent.chmod(directory_mode)
        if not number and existed:
            there.unlink()
        answer = run_python(AS_NOBODY, "aio_copy", "data", "alone/copy", cwd=data_file.parent)
        assert answer == (f"{number} True True\n" if number else "0\n")
        if number:
            assert there.exists() == existed
            assert not existed or there.read_bytes() == OLD


@needs_root
def test_copy_part_that_cannot_be_removed_is_emptied(target: Path) -> None:
    """The directory may not be written, the file may: nothing of either content stays (I4)."""
    target.write_bytes(OLD)
    target.chmod(0o666)
    target.parent.chmod(0o755)
    answer = run_python(AS_NOBODY, "aio_copy", UNREADABLE, target.name, cwd=target.parent)
    assert answer == f"{errno.EIO} True True\n"
    assert target.read_bytes() == b""


@pytest.mark.parametrize("leads", ["somewhere", "nowhere"])
def test_copy_through_a_symlink_writes_what_it_leads_to(
    pool: procaio.Pool, data_file: Path, target: Path, leads: str
) -> None:
    """Which is created if need be, and removed on a failure; the symlink stays (I4)."""
    real, link = target.with_name("real"), target.with_name("link")
    target.with_name("far").symlink_to("real")
    link.symlink_to(target.with_name("far"))
    if leads == "somewhere":
        real.write_bytes(OLD)
    assert procaio.aio_copy(data_file, link, pool=pool).wait() == 0
    assert real.read_bytes() == data_file.read_bytes()
    if leads == "nowhere":
        real.unlink()
    assert failure(procaio.aio_copy(UNREADABLE, link, pool=pool).wait).errno == errno.EIO
    assert link.is_symlink()
    assert not os.path.lexists(real)


# -- cancel ----------------------------------------------------------------------------------------


def in_the_middle(pool: procaio.Pool, gate: Gate, target: Path, **keywords: Any) -> Any:
    """A copy that has written something and waits for more, exactly as long as the test wants."""
    request = procaio.aio_copy(gate.path, target, pool=pool, **keywords)
    gate.open(5)
    eventually(lambda: request.copied == 5, "it is in the middle")
    assert target.read_bytes() == b"x" * 5
    return request


def test_copy_cancelled_in_the_middle_leaves_no_part(
    workers: procaio.Pool, gate: Gate, there: Path
) -> None:
    """And flush() waits until it has gone (I4)."""
    request = in_the_middle(workers, gate, there, callback=pytest.fail)
    assert not request.cancel()
    assert workers.nreqs() == 1
    gate.open()
    workers.flush()
    assert list(there.parent.iterdir()) == []
    assert (request.state, request.errno) == ("cancelled", 0)
    with pytest.raises(procaio.RequestCancelled):
        request.wait()


def large(path: Path) -> Path:
    """A file of 256 MiB, whose copy takes a while."""
    piece = os.urandom(1 << 20)
    with open(path, "wb") as file:
        file.writelines(piece for _ in range(256))
    return path


def test_copy_of_a_large_file_cancelled_in_the_middle_ends_early(
    workers: procaio.Pool, target: Path
) -> None:
    """It looks now and then; what there is by then goes."""
    source = large(target.with_name("source"))
    for _ in range(20):
        request = procaio.aio_copy(source, target, pool=workers)
        eventually(lambda: request.copied > 0, "it is in the middle")  # noqa: B023
        request.cancel()
        workers.flush()
        if not target.exists():
            break
        assert target.stat().st_size == source.stat().st_size  # it was too late
        target.unlink()
    assert 0 < request.copied < source.stat().st_size
    assert list(target.parent.iterdir()) == [source]


def test_copy_cancelled_before_it_begins_touches_nothing(
    workers: procaio.Pool, gate: Gate, data_file: Path, there: Path
) -> None:
    """The same as with every request (L1)."""
    before = {path.name: path.read_bytes() for path in there.parent.iterdir()}
    workers.max_parallel(1)
    (held,) = gate.hold(workers)
    request = procaio.aio_copy(data_file, there, pool=workers)
    assert request.cancel()
    gate.open()
    held.wait()
    workers.flush()
    assert {path.name: path.read_bytes() for path in there.parent.iterdir()} == before


# -- whatever dies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("link", [False, True])
def test_copy_of_what_cannot_be_read_again_leaves_no_part_when_its_worker_is_killed(
    workers: procaio.Pool, gate: Gate, there: Path, *, cancelled: bool, link: bool
) -> None:
    """What came from a FIFO is gone with it, so it is not repeated: WorkerDied."""
    name = there
    if link:
        name = there.with_name("link")
        name.symlink_to(there.name)
    request = in_the_middle(workers, gate, name)
    kill(executing(workers))
    if cancelled:
        request.cancel()
        workers.flush()
    else:
        assert isinstance(failure(request.wait), procaio.WorkerDied)
        assert (request.errno, request.copied) == (errno.EIO, 0)
    assert not os.path.lexists(there)
    assert os.path.lexists(name) == link
    assert workers.statistics().rerun == 0
    all_closed(workers, there.parent, set())


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("point", AT_POINTS)
def test_copy_worker_dies_at_every_point_and_the_copy_is_whole_or_not_there(
    workers: procaio.Pool,
    data_file: Path,
    there: Path,
    point: str,
    *,
    follow: bool,
    cancelled: bool,
) -> None:
    """Not begun or begun, it is done by another worker, if anybody wants it."""
    data = data_file.read_bytes()
    procaio.aio_nop(pool=workers).wait()
    (worker,) = workers.statistics().workers
    testing.arm(workers, point)
    request = procaio.aio_copy(data_file, there, follow_symlinks=follow, pool=workers)
    if cancelled:
        eventually(lambda: is_dead(worker.pid), "the worker dies")
        request.cancel()
        workers.flush()
        content = there.read_bytes() if there.exists() else None
        assert content in {data, OLD, None}
        assert [path.name for path in there.parent.iterdir()] == [there.name] * (
            content is not None
        )
    else:
        assert request.wait() == 0
        assert attributes(there)[:5] == attributes(data_file)[:5]
        assert there.read_bytes() == data
    assert data_file.read_bytes() == data


STEPS = [
    "openat", "reopen", "ftruncate", "ioctl", "lseek", "copy_file_range", "utimensat",
    "fremovexattr", "flistxattr", "fchownat", "fchmod",
]  # fmt: skip


@X86
@pytest.mark.parametrize("step", STEPS)
def test_copy_that_kills_each_worker_at_a_system_call_leaves_no_part(
    data_file: Path, there: Path, step: str
) -> None:
    """Three workers try, a fourth one removes what there is."""
    data, existed = data_file.read_bytes(), there.exists()
    result = killed_at(step, "aio_copy", data_file, there)
    assert data_file.read_bytes() == data
    if result == ["0", "0"]:  # it does not come by there
        assert (step, existed) in {("reopen", False), ("ftruncate", False)}
        assert there.read_bytes() == data
    else:
        assert result == ["WorkerDied", "3"]
        untouched = existed and step in {"openat", "reopen"}
        assert there.exists() == untouched
        assert not untouched or there.read_bytes() == OLD


def is_asleep(pid: int) -> bool:
    """It has nothing to do at the moment."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("waits", ["in a slot", "for a slot"])
def test_copy_cancelled_while_its_part_waits_to_be_removed_leaves_no_part(
    workers: procaio.Pool, gate: Gate, there: Path, waits: str
) -> None:
    """It is cancelled, but it goes to a worker all the same."""
    workers.max_parallel(1)
    request = in_the_middle(workers, gate, there)
    pid, spawner = executing(workers), workers.statistics().spawner_pid
    # It has entered the worker into the pool's set by now, and looks only now and then.
    eventually(lambda: is_asleep(spawner), "the spawner is done with the worker")
    kill(spawner, signal.SIGSTOP)  # nobody takes the dead one's place
    try:
        if waits == "for a slot":
            for _ in range(4000):
                procaio.aio_nop(pri=4, pool=workers)
        kill(pid)
        eventually(
            lambda: workers._sleep(0) or workers.statistics().worker_deaths == 1, "the burial"
        )
        assert request.state == "ready"
        assert not request.cancel()
        assert not request.cancel()
        assert there.exists()
    finally:
        kill(spawner, signal.SIGCONT)
    workers.flush()
    assert list(there.parent.iterdir()) == []
    assert request.state == "cancelled"


def test_copy_whose_part_kills_whoever_removes_it_ends(target: Path) -> None:
    """Nobody tries a fourth time: WorkerDied all the same."""
    program = """
        import sys, procaio
        from procaio import testing
        with procaio.Pool() as pool:
            procaio.aio_nop(pool=pool).wait()
            request = procaio.aio_copy(sys.argv[1], sys.argv[2], pool=pool)
            while request.copied == 0:
                pass
            testing.arm(pool, "taken", always=True)
            pid, = [w.pid for w in pool.statistics().workers if w.state == "execute"]
            __import__("os").kill(pid, 9)
            try:
                request.wait()
            except procaio.WorkerDied:
                print(pool.statistics().worker_deaths >= 4, pool.statistics().died)
            testing.disarm(pool)
    """
    fifo = target.with_name("fifo")
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR)
    os.write(fd, b"some")
    assert run_python(program, fifo, target) == "True 1\n"
    os.close(fd)
    assert target.read_bytes() == b"some"


def test_copy_whose_worker_is_killed_in_the_middle_is_done_again(
    workers: procaio.Pool, target: Path
) -> None:
    """By another one, from the beginning; the program does not notice."""
    source = large(target.with_name("source"))
    rng = random.Random(5)
    for _ in range(20):
        if rng.random() < 0.5:
            target.write_bytes(OLD)
        request = procaio.aio_copy(source, target, pool=workers)
        eventually(lambda: request.copied > 0, "it is in the middle")  # noqa: B023
        for worker in workers.statistics().workers:
            kill(worker.pid, signal.SIGKILL)
        assert request.wait() == 0
        assert target.stat().st_size == request.copied == 256 << 20
        if workers.statistics().rerun > 1:
            break
    assert workers.statistics().rerun > 0
    subprocess.run(["cmp", source, target], check=True)
    all_closed(workers, target.parent, set())


def test_copy_whose_worker_is_killed_and_whose_source_is_gone_leaves_no_part(
    workers: procaio.Pool, target: Path
) -> None:
    """The next worker fails before it has come to the destination, and removes what there is."""
    source = target.with_name("source")
    for _ in range(20):
        with open(source, "wb") as file:
            for _ in range(64):
                file.write(os.urandom(1 << 20))
        request = procaio.aio_copy(source, target, pool=workers)
        eventually(lambda: request.copied > 0, "it is in the middle")  # noqa: B023
        source.unlink()
        for worker in workers.statistics().workers:
            kill(worker.pid, signal.SIGKILL)
        try:
            assert request.wait() == 0  # it had just ended
        except FileNotFoundError:
            break
        target.unlink()
    assert request.errno == errno.ENOENT
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("how", ["exit", "killed"])
def test_copy_under_way_when_the_pool_ends_leaves_no_part(there: Path, how: str) -> None:
    """The program itself removes it, also when a dead worker's copy waits for another one."""
    program = """
        import os, sys, procaio
        how, fifo, target = sys.argv[1:]
        pool = procaio.Pool()
        pool.exit_timeout(0.05)
        request = procaio.aio_copy(fifo, target, pool=pool)
        while request.copied != 4:
            pass
        if how == "killed":
            worker, = [w.pid for w in pool.statistics().workers if w.state == "execute"]
            pool._arm_fault(2, 19, -(2**31))  # the next one stops before it begins
            os.kill(worker, 9)
            while pool.statistics().worker_deaths == 0:
                pool.poll_cb()
        print("in the middle")
    """
    fifo = there.parent.parent / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDWR)
    os.write(fd, b"some")
    assert run_python(program, how, fifo, there) == "in the middle\n"
    os.close(fd)
    assert list(there.parent.iterdir()) == []


# -- as it is: follow_symlinks=False ---------------------------------------------------------------


KINDS = ["file", "link", "fifo", "socket", "device"]


@needs_root
@pytest.mark.parametrize("there", [None, *KINDS])
@pytest.mark.parametrize("kind", KINDS)
def test_copy_without_following_makes_an_entry_like_the_source(
    pool: procaio.Pool, target: Path, kind: str, there: str | None
) -> None:
    """Of whatever kind, and in place of whatever kind; what was there gets nothing of it."""
    source, led_to = target.with_name("source"), target.with_name("what it says")
    led_to.write_bytes(OLD)
    entry(kind, source)
    if there:
        entry(there, target)
    if kind != "link":
        source.chmod(0o6751)
    os.chown(source, 1234, 2345, follow_symlinks=False)
    if kind != "link":
        source.chmod(0o6751)
    os.utime(source, ns=(2**60, 2**60 + 1), follow_symlinks=False)
    before = attributes(source)
    assert procaio.aio_copy(source, target, follow_symlinks=False, pool=pool).wait() == 0
    assert attributes(target) == before
    assert os.lstat(target).st_rdev == os.lstat(source).st_rdev
    if kind == "link":
        assert os.readlink(target) == "what it says"
    if kind == "file":
        assert target.read_bytes() == b"content"
    assert led_to.read_bytes() == OLD


def test_copy_without_following_replaces_a_file_of_several_names(
    pool: procaio.Pool, data_file: Path, target: Path
) -> None:
    """Its other names keep what they hold."""
    target.write_bytes(OLD)
    os.link(target, target.with_name("other"))
    assert procaio.aio_copy(data_file, target, follow_symlinks=False, pool=pool).wait() == 0
    assert target.read_bytes() == data_file.read_bytes()
    assert target.with_name("other").read_bytes() == OLD


def test_copy_without_following_does_not_wait_for_a_fifo(
    workers: procaio.Pool, data_file: Path, target: Path
) -> None:
    """Neither as source nor as destination."""
    os.mkfifo(target)
    assert procaio.aio_copy(target, target.with_name("other"), follow_symlinks=False,
                            pool=workers).wait(timeout=30) == 0  # fmt: skip
    assert target.with_name("other").is_fifo()
    assert procaio.aio_copy(data_file, target, follow_symlinks=False,
                            pool=workers).wait(timeout=30) == 0  # fmt: skip
    assert target.read_bytes() == data_file.read_bytes()


@pytest.mark.parametrize("kind", ["link", "fifo", "socket"])
def test_copy_without_following_onto_itself_destroys_nothing(
    pool: procaio.Pool, target: Path, kind: str
) -> None:
    """A symlink itself, a FIFO (I7)."""
    entry(kind, target)
    before = os.lstat(target)
    error = failure(procaio.aio_copy(target, target, follow_symlinks=False, pool=pool).wait)
    assert error.errno == errno.EINVAL
    assert os.lstat(target).st_ino == before.st_ino


# -- how far it is ---------------------------------------------------------------------------------


def test_copied_tells_how_far_a_copy_is(workers: procaio.Pool, gate: Gate, target: Path) -> None:
    """Nothing before, more and more while it runs, and all of it afterwards."""
    request = procaio.aio_copy(gate.path, target, pool=workers)
    assert request.copied == 0
    for count in (10, 20, 30):
        gate.open(10)
        eventually(lambda count=count: request.copied == count, "it is copied")
    gate.close()
    assert request.wait() == 0
    assert request.copied == 30
    workers.close()
    assert request.copied == 30


def test_copied_is_0_for_what_copies_nothing(pool: procaio.Pool, data_file: Path, fd: int) -> None:
    requests: list[procaio.Request[Any]] = [
        procaio.aio_read(fd, 0, 100, pool=pool),
        procaio.aio_load(data_file, pool=pool),
        procaio.aio_truncate(fd, 70_000, pool=pool),
        procaio.aio_nop(pool=pool),
        procaio.aio_group(pool=pool),
        procaio.aio_copy(data_file.with_name("no"), data_file.with_name("x"), pool=pool),
    ]
    pool.flush()
    assert [request.copied for request in requests] == [0] * 6
    with pytest.raises(AttributeError):
        requests[0].copied = 3  # type: ignore[misc]


def test_copied_in_a_forked_child_is_0(workers: procaio.Pool, gate: Gate, target: Path) -> None:
    """The request is the parent's."""
    request = in_the_middle(workers, gate, target)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if request.copied == 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    gate.close()
    assert request.wait() == 0
    assert request.copied == 5


# -- an entry of a tree ----------------------------------------------------------------------------


def test_copy_entry_yields_the_size_or_tells_of_a_file_of_several_names(
    pool: procaio.Pool, data_file: Path, target: Path
) -> None:
    """With several names nothing is done, if links are to be told; the rest is copied."""
    answers: list[object] = []
    copy: Callable[..., Any] = _core._copy_entry
    assert copy(data_file, target, True, answers.append, pool=pool).wait() == 65536
    assert target.read_bytes() == data_file.read_bytes()
    os.link(data_file, data_file.with_name("second"))
    target.unlink()
    status = data_file.stat()
    told = (status.st_dev, status.st_ino)
    assert copy(data_file, target, True, answers.append, pool=pool).wait() == told
    assert not target.exists()
    assert copy(data_file, target, tell_links=False, pool=pool).wait() == 65536
    link = data_file.with_name("link")
    link.symlink_to("data")
    os.link(link, data_file.with_name("link2"), follow_symlinks=False)
    status = os.lstat(link)
    assert copy(link, target, True, pool=pool).wait() == (status.st_dev, status.st_ino)
    assert copy(link, target, False, pool=pool).wait() == 0
    assert os.readlink(target) == "data"
    failure(copy(target.parent, target, True, answers.append, pool=pool).wait)
    assert answers == [65536, told, -1]
    names = [f"{path.parent}{'/' * 300}{path.name}" for path in (data_file, target)]
    assert copy(*names, True, pool=pool).wait() == told


@pytest.mark.parametrize("point", AT_POINTS)
def test_copy_entry_tells_the_same_when_its_worker_dies(
    workers: procaio.Pool, data_file: Path, target: Path, point: str
) -> None:
    """Its paths are in the slot again when it is run again."""
    procaio.aio_nop(pool=workers).wait()
    testing.arm(workers, point)
    assert _core._copy_entry(data_file, target, True, pool=workers).wait() == 65536
    os.link(data_file, data_file.with_name("second"))
    testing.arm(workers, point)
    status = data_file.stat()
    told = (status.st_dev, status.st_ino)
    assert _core._copy_entry(data_file, target, True, pool=workers).wait() == told
    eventually(lambda: workers._sleep(0) or workers.statistics().worker_deaths == 2, "the burial")
