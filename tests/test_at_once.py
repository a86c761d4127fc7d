"""What cannot block is done at once, in the program; everything else goes to a worker as always."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import os
import platform
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from conftest import Gate

LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "overlay"}
LOADING = {"ext2", "ext3", "ext4", "xfs", "btrfs"}
BLOCKING: dict[Callable[..., Any], Callable[..., os.stat_result]] = {
    procaio.aio_stat: os.stat,
    procaio.aio_lstat: os.lstat,
}
BOTH = pytest.mark.parametrize("look", BLOCKING)


def taken(pool: procaio.Pool) -> int:
    """How many requests workers have executed, or are executing."""
    return sum(worker.taken for worker in pool.statistics().workers)


@pytest.fixture
def fd(fd: int) -> int:
    """The data file, in a file system that can say what is in the cache."""
    try:
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("this file system does not know RWF_NOWAIT")
    return fd


@pytest.fixture
def fresh() -> Iterator[procaio.Pool]:
    """A pool as it is made without any settings."""
    with procaio.Pool() as made:
        yield made


def test_cached_read_needs_no_worker(fresh: procaio.Pool, fd: int) -> None:
    """It is pending when the call returns, counts in nreqs, and ends in poll_cb (A1)."""
    seen: list[bytes] = []
    os.pread(fd, 4096, 8192)
    request = procaio.aio_read(fd, 8192, 4096, seen.append, pool=fresh)
    assert (request.state, request.result, seen) == ("pending", None, [])
    assert (fresh.nreqs(), fresh.npending(), fresh.nready()) == (1, 1, 0)
    assert fresh.poll_cb() == 0
    assert seen == [os.pread(fd, 4096, 8192)] == [request.result]
    assert (request.state, fresh.nreqs()) == ("done", 0)
    assert fresh.statistics().workers == ()


def test_cached_read_into_a_buffer_needs_no_copy_and_no_worker(
    fresh: procaio.Pool, fd: int
) -> None:
    with procaio.Buffer(8192, fresh) as buffer:
        assert procaio.aio_read(fd, 16, 100, buffer, 4000, pool=fresh).wait() == 100
        assert buffer[4000:4100] == os.pread(fd, 100, 16)
        assert buffer[:4000] + buffer[4100:] == bytes(8092)
    assert fresh.statistics().workers == ()


@pytest.mark.parametrize(
    ("offset", "length", "data"),
    [
        (None, 100, None),  # the position moves, and must not twice
        (0, 17 << 10, None),  # copying it takes longer than handing it over
        (65536 - 50, 100, None),  # the end of the file, or of what is in the cache?
        (65536, 10, None),
        (0, 100, bytearray(5)),  # changes when the request is done, not before
        (0, 0, None),
    ],
)
def test_other_reads_go_to_a_worker_with_the_same_result(
    fresh: procaio.Pool, fd: int, offset: int | None, length: int, data: Any
) -> None:
    request = procaio.aio_read(fd, offset, length, data, pool=fresh)
    expected = os.pread(fd, length, offset or 0)
    if data is None:
        assert request.wait() == expected
    else:
        assert request.wait() == len(expected)
        assert data == expected
    assert fresh.nworkers() > 0


def test_what_is_not_in_the_cache_goes_to_a_worker(fresh: procaio.Pool, fd: int) -> None:
    """The kernel refuses it, so nothing blocks."""
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    request = procaio.aio_read(fd, 32768, 4096, pool=fresh)
    assert request.wait() == os.pread(fd, 4096, 32768)
    if fresh.nworkers() == 0:
        pytest.skip("this file system keeps its pages")


def test_direct_reads_wait_for_the_disk_so_a_worker_does(
    fresh: procaio.Pool, data_file: Path
) -> None:
    """O_DIRECT goes past the cache."""
    try:
        fd = os.open(data_file, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        pytest.skip("this file system knows no O_DIRECT")
    os.fsync(fd)  # or the kernel would have to write the pages first, and refuse
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with procaio.Buffer(4096, fresh) as buffer:
        assert procaio.aio_read(fd, 4096, 4096, buffer, pool=fresh).wait() == 4096
        assert buffer[:] == data_file.read_bytes()[4096:8192]
    os.close(fd)
    assert fresh.nworkers() > 0


@pytest.mark.parametrize("how", ["awaited", "waited for"])
def test_descriptor_that_goes_past_the_cache_from_now_on_is_for_a_worker(
    fresh: procaio.Pool, fd: int, data_file: Path, how: str
) -> None:
    """Though it has been read at once before, or another one had its number."""
    os.fsync(fd)
    try:
        direct = os.open(data_file, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        pytest.skip("this file system knows no O_DIRECT")

    async def read(buffer: procaio.Buffer) -> None:
        assert await procaio.aio_read(fd, 4096, 4096, buffer, pool=fresh) == 4096

    async def read_before_and_after() -> None:
        for _ in range(4):
            await read(buffer)
        if fresh.nworkers() > 0:
            pytest.skip("this file system keeps nothing in its cache")
        os.dup2(direct, fd)
        await read(buffer)

    with procaio.Buffer(4096, fresh) as buffer:
        if how == "awaited":
            asyncio.run(read_before_and_after())
        else:
            for _ in range(2):
                assert procaio.aio_read(fd, 4096, 4096, buffer, pool=fresh).wait() == 4096
            if fresh.nworkers() > 0:
                pytest.skip("this file system keeps nothing in its cache")
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
            assert procaio.aio_read(fd, 4096, 4096, buffer, pool=fresh).wait() == 4096
        assert buffer[:] == data_file.read_bytes()[4096:8192]
    os.close(direct)
    assert fresh.nworkers() > 0


def test_failure_is_that_of_a_worker(fresh: procaio.Pool, tmp_path: Path) -> None:
    """With errno, and file name."""
    opening = procaio.aio_open(tmp_path / "w", os.O_WRONLY | os.O_CREAT, pool=fresh)
    with opening.wait() as handle, pytest.raises(OSError, match="Bad file descriptor") as raised:
        procaio.aio_read(handle, 0, 10, pool=fresh).wait()
    assert (raised.value.errno, raised.value.filename) == (errno.EBADF, tmp_path / "w")


@pytest.mark.parametrize("how", ["at first", "later"])
def test_it_can_be_switched_off(fd: int, how: str) -> None:
    with procaio.Pool(at_once=how != "at first") as pool:
        assert pool.at_once(False) is (how == "later")
        assert pool.at_once() is False
        procaio.aio_read(fd, 0, 10, pool=pool).wait()
        procaio.aio_stat("/", pool=pool).wait()
        procaio.aio_lstat(__file__, pool=pool).wait()
        assert taken(pool) == 3
        assert pool.at_once(True) is False


def test_cancelled_after_it_was_done_calls_nothing(fresh: procaio.Pool, fd: int) -> None:
    """As one that a worker has executed (L1)."""
    seen: list[bytes] = []
    request = procaio.aio_read(fd, 0, 10, seen.append, pool=fresh)
    assert request.cancel() is False
    fresh.flush()
    assert (seen, request.state, request.result) == ([], "cancelled", None)


def test_nothing_runs_while_no_worker_is_allowed(fresh: procaio.Pool, fd: int) -> None:
    """O3: requests queue until the number is raised."""
    fresh.max_parallel(0)
    request = procaio.aio_read(fd, 0, 10, pool=fresh)
    assert request.state == "ready"
    fresh.min_parallel(1)
    assert request.wait() == os.pread(fd, 10, 0)


def test_one_worker_is_not_overtaken(fresh: procaio.Pool, fd: int, gate: Gate) -> None:
    """Whoever allows only one relies on the order."""
    fresh.max_parallel(1)
    gate.hold(fresh)
    write = procaio.aio_write(fd, 0, None, b"written first", pool=fresh)
    read = procaio.aio_read(fd, 0, 13, pool=fresh)
    assert (write.state, read.state) == ("ready", "ready")
    gate.open()
    assert read.wait() == b"written first"


@pytest.mark.parametrize(("pri", "state"), [(0, "ready"), (1, "pending"), (2, "pending")])
def test_higher_priorities_are_not_overtaken(fd: int, gate: Gate, pri: int, state: str) -> None:
    """B5: what waits with a higher one is begun first; a lower one is no reason to wait."""
    with procaio.Pool(workers=2) as pool:
        gate.hold(pool, 2)
        waiting = procaio.aio_nop(pool=pool, pri=1)
        read = procaio.aio_read(fd, 0, 10, pool=pool, pri=pri)
        assert (waiting.state, read.state) == ("ready", state)
        gate.open(2)


def test_with_many_outstanding_the_workers_share_the_work(fresh: procaio.Pool, fd: int) -> None:
    """And every result is right."""
    left = iter(range(20000))
    wrong: list[int] = []
    data = os.pread(fd, 65536, 0)

    def next_one() -> None:
        number = next(left, None)
        if number is not None:
            offset = number * 16 % 61440
            procaio.aio_read(
                fd,
                offset,
                4096,
                lambda got: (
                    (wrong.append(number) if got != data[offset : offset + 4096] else None)
                    or next_one()
                ),
                pool=fresh,
            )

    for _ in range(64):
        next_one()
    fresh.flush()
    assert wrong == []
    assert 0 < taken(fresh) < 20000


def test_calls_that_hang_do_not_keep_others_from_being_done_at_once(
    fresh: procaio.Pool, fd: int, gate: Gate
) -> None:
    """Not even when no worker is left: they would have to wait for those that hang."""
    gate.hold(fresh, 8)
    for number in range(100):
        assert procaio.aio_read(fd, number, 10, pool=fresh).wait(20) == os.pread(fd, 10, number)
    assert taken(fresh) == 8
    gate.open(8)


# -- names ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def working_in(directory: Path) -> Iterator[None]:
    """Within the block names are looked up there."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def mounted(path: str) -> tuple[str, set[str]]:
    """What is mounted where the path leads: its kind, and its options."""
    found, longest = ("", ""), -1
    for line in Path("/proc/self/mounts").read_text().splitlines():
        where, kind, options = line.split()[1:4]
        if Path(path).is_relative_to(where) and len(where) >= longest:
            found, longest = (kind, options), len(where)
    return found[0], set(found[1].split(","))


def link(path: Path, target: object) -> None:
    """Make a symlink whose file system need not write down, so soon, that it was followed."""
    path.symlink_to(str(target))
    made_ns = os.lstat(path).st_mtime_ns
    os.utime(path, ns=(made_ns + 10**12, made_ns), follow_symlinks=False)


def need_links_in_memory(tree: Path) -> None:
    """An overlay asks what lies below where a symlink leads."""
    if mounted(str(tree))[0] == "overlay":
        pytest.skip("symlinks are not followed at once here")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory where the names are in the kernel's memory, if it looks them up there."""
    release = [int(number) for number in platform.release().split("-")[0].split(".")[:2]]
    if release < [6, 8] or mounted(str(tmp_path))[0] not in LOCAL:
        pytest.skip("names are not looked up at once here")
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "file").chmod(0o640)
    os.utime(tmp_path / "file", ns=(-1_000_000_001, 1_234_567_890_123_456_789))
    os.link(tmp_path / "file", tmp_path / "directory" / "other name")
    link(tmp_path / "link", "file")
    (tmp_path / "loose").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as made, working_in(tmp_path):
        made.bind("socket")
    return tmp_path


@BOTH
@pytest.mark.parametrize(
    "name", ["file", "directory", "directory/other name", "link", "fifo", "socket"]
)
@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_cached_name_needs_no_worker(
    fresh: procaio.Pool,
    tree: Path,
    look: Callable[..., Any],
    name: str,
    kind: Callable[[str], Any],
) -> None:
    """Nothing is opened either: a FIFO would wait, and a socket cannot be."""
    if name == "link" and look is procaio.aio_stat:
        need_links_in_memory(tree)
    path = kind(str(tree / name))
    expected = BLOCKING[look](path)
    seen: list[os.stat_result] = []
    request = look(path, seen.append, pool=fresh)
    assert (request.state, request.result, seen) == ("pending", None, [])
    assert (fresh.nreqs(), fresh.npending(), fresh.nready()) == (1, 1, 0)
    fresh.flush()
    (st,) = seen
    assert all(
        getattr(st, field) == getattr(expected, field) for field in dir(st) if "st_" in field
    )
    assert fresh.statistics().workers == ()


@BOTH
def test_with_many_names_outstanding_the_workers_share_the_work(
    fresh: procaio.Pool, tree: Path, look: Callable[..., Any]
) -> None:
    """And every result is right."""
    names = ["file", "directory", "link", "fifo", "socket"] * 4000
    left = iter(names)
    inodes = {name: BLOCKING[look](tree / name).st_ino for name in names[:5]}
    wrong: list[str] = []

    def next_one() -> None:
        name = next(left, None)
        if name is not None:
            look(str(tree / name), functools.partial(ended, name), pool=fresh)

    def ended(name: str, st: os.stat_result) -> None:
        if st.st_ino != inodes[name]:
            wrong.append(name)
        next_one()

    for _ in range(64):
        next_one()
    fresh.flush()
    assert wrong == []
    assert 0 < taken(fresh) < len(names)


@BOTH
def test_name_in_a_directory_that_is_open_needs_no_worker(
    fresh: procaio.Pool,
    tree: Path,
    look: Callable[..., Any],
) -> None:
    need_links_in_memory(tree)
    directory = os.open(tree, os.O_RDONLY)
    assert look("link", dir_fd=directory, pool=fresh).wait() == BLOCKING[look](tree / "link")
    os.close(directory)
    with working_in(tree):
        assert look("link", pool=fresh).wait() == BLOCKING[look]("link")
    assert fresh.statistics().workers == ()


@pytest.mark.parametrize(
    ("name", "number"),
    [("nowhere", errno.ENOENT), ("file/below", errno.ENOTDIR), ("loose", errno.ENOENT)],
)
def test_name_that_is_not_there_fails_as_ever(
    fresh: procaio.Pool, tree: Path, name: str, number: int
) -> None:
    seen: list[tuple[int, object]] = []
    request = procaio.aio_stat(
        tree / name, lambda st: seen.append((procaio.errno(), st)), pool=fresh
    )
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        request.wait()
    assert (raised.value.errno, raised.value.filename) == (number, tree / name)
    assert seen == [(number, None)]


@BOTH
@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "directory/", "directory/..", "file/below", "x" * 256, "y/" * 3000]
)
def test_other_names_go_to_a_worker_with_the_same_result(
    fresh: procaio.Pool,
    tree: Path,
    look: Callable[..., Any],
    name: str,
) -> None:
    """What `.` and its like are is told by the file system, and that may be a server's."""

    def outcome(call: Callable[[str], os.stat_result]) -> tuple[int | None, os.stat_result | None]:
        try:
            return None, call(name)
        except OSError as error:
            return error.errno, None

    with working_in(tree):
        assert outcome(lambda path: look(path, pool=fresh).wait()) == outcome(BLOCKING[look])
    assert taken(fresh) == 1


def test_names_on_another_file_system_need_no_worker_but_where_it_is_mounted(
    fresh: procaio.Pool, tree: Path
) -> None:
    """Nobody asks for that one's name, so the file system itself would be asked."""
    if not os.path.ismount("/dev/shm") or mounted("/dev/shm")[0] not in LOCAL:
        pytest.skip("nothing is mounted at /dev/shm")
    need_links_in_memory(tree)
    path = Path(f"/dev/shm/{tree.parent.name}-{tree.name}")
    path.write_bytes(b"content")
    link(tree / "far", path)
    link(tree / "way", path.parent)
    try:
        assert procaio.aio_stat(path, pool=fresh).wait() == os.stat(path)
        assert procaio.aio_stat(tree / "way" / path.name, pool=fresh).wait() == os.stat(path)
        assert fresh.statistics().workers == ()
        assert procaio.aio_stat("/dev/shm", pool=fresh).wait() == os.stat("/dev/shm")
        assert procaio.aio_stat(tree / "far", pool=fresh).wait() == os.stat(path)
        assert taken(fresh) == 2
    finally:
        path.unlink()


def test_names_of_a_file_system_that_is_not_known_go_to_a_worker(fresh: procaio.Pool) -> None:
    assert procaio.aio_stat("/proc/version", pool=fresh).wait() == os.stat("/proc/version")
    assert taken(fresh) == 1


def test_program_without_a_descriptor_left_asks_a_worker(fresh: procaio.Pool, tree: Path) -> None:
    fresh.min_parallel(1)
    procaio.aio_nop(pool=fresh).wait()
    free = os.open("/dev/null", os.O_RDONLY)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    os.close(free)
    kept = []
    try:
        with contextlib.suppress(OSError):
            while True:
                kept.append(os.open("/dev/null", os.O_RDONLY))
        before = taken(fresh)
        assert procaio.aio_stat(tree / "file", pool=fresh).wait().st_size == 7
        assert taken(fresh) == before + 1
    finally:
        for fd in kept:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_name_is_looked_up_after_what_one_worker_was_to_do_before(
    fresh: procaio.Pool, tree: Path, gate: Gate
) -> None:
    fresh.max_parallel(1)
    gate.hold(fresh)
    renamed = procaio.aio_rename(tree / "file", tree / "new", pool=fresh)
    found = procaio.aio_stat(tree / "file", pool=fresh)
    assert (renamed.state, found.state) == ("ready", "ready")
    gate.open()
    with pytest.raises(FileNotFoundError):
        found.wait()


# -- loads ---------------------------------------------------------------------------------------


def note_access(path: Path) -> None:
    """Let the file system have nothing to note when it is read."""
    now_ns = time.time_ns()
    os.utime(path, ns=(now_ns + 10**12, now_ns))


@pytest.fixture
def small(tree: Path) -> Path:
    """A small file in the cache, which has been read since it was written."""
    kind, options = mounted(str(tree))
    if kind not in LOADING or "strictatime" in options:
        pytest.skip("files are not loaded at once here")
    path = tree / "small"
    path.write_bytes(os.urandom(4096))
    note_access(path)
    return path


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
@pytest.mark.parametrize("name", ["small", "a link"])
def test_small_file_in_the_cache_is_loaded_at_once(
    fresh: procaio.Pool, small: Path, name: str, kind: Callable[[str], Any]
) -> None:
    link(small.parent / "a link", "small")
    seen: list[bytes] = []
    request = procaio.aio_load(kind(str(small.parent / name)), seen.append, pool=fresh)
    assert (request.state, request.result, seen) == ("pending", None, [])
    fresh.flush()
    assert seen == [small.read_bytes()] == [request.result]
    assert fresh.statistics().workers == ()


def test_file_in_a_directory_that_is_open_is_loaded_at_once(
    fresh: procaio.Pool, small: Path
) -> None:
    directory = os.open(small.parent, os.O_RDONLY)
    assert procaio.aio_load("small", dir_fd=directory, pool=fresh).wait() == small.read_bytes()
    os.close(directory)
    assert fresh.statistics().workers == ()


def test_load_of_a_missing_file_fails_at_once(fresh: procaio.Pool, small: Path) -> None:
    nowhere = small.with_name("nowhere")
    assert not nowhere.exists()
    with pytest.raises(FileNotFoundError, match="nowhere") as raised:
        procaio.aio_load(nowhere, pool=fresh).wait()
    assert raised.value.filename == nowhere
    assert fresh.statistics().workers == ()


def test_load_leaves_no_descriptor(fresh: procaio.Pool, small: Path) -> None:
    procaio.aio_load(small, pool=fresh).wait()
    before = os.listdir("/proc/self/fd")
    procaio.aio_load(small, pool=fresh).wait()
    procaio.aio_load(small, pool=fresh).cancel()
    fresh.flush()
    assert set(os.listdir("/proc/self/fd")) <= set(before)
    assert fresh.statistics().workers == ()


@pytest.mark.parametrize("size", [0, (16 << 10) - 1, 16 << 10, 100_000])
def test_load_of_any_size_gives_all_of_it(fresh: procaio.Pool, small: Path, size: int) -> None:
    """Empty ones may have more to read, and to copy large ones takes longer than to hand over."""
    small.write_bytes(os.urandom(size))
    note_access(small)
    assert procaio.aio_load(small, pool=fresh).wait() == small.read_bytes()
    assert taken(fresh) == (0 if 0 < size < 16 << 10 else 1 if size < 65536 else 2)


def test_file_system_that_must_note_the_access_is_asked_by_a_worker(
    fresh: procaio.Pool, small: Path
) -> None:
    """It may wait for its journal. After that there is nothing to note (mount(8), relatime)."""

    def is_loaded_at_once() -> bool:
        before = taken(fresh)
        assert procaio.aio_load(small, pool=fresh).wait() == small.read_bytes()
        return taken(fresh) == before

    os.utime(small, (0, 0))
    small.read_bytes()
    if os.stat(small).st_atime == 0:
        pytest.skip("this file system notes no access")
    os.utime(small, (0, 0))
    assert not is_loaded_at_once()
    eventually(is_loaded_at_once, "the time of access is later than that of the change")


def test_loads_are_for_workers_when_there_are_several(fresh: procaio.Pool, small: Path) -> None:
    """Handing them over is quicker, if nobody has to be woken for one only."""
    requests = [procaio.aio_load(small, pool=fresh) for _ in range(10)]
    assert [request.wait() for request in requests] == [small.read_bytes()] * 10
    assert taken(fresh) == 9


@pytest.mark.parametrize(("offset", "length"), [(4000, 50), (-4000, 50), (0, 50), (5, 0)])
def test_load_of_a_part_is_for_a_worker(
    fresh: procaio.Pool, small: Path, offset: int, length: int
) -> None:
    begin = offset % 4096
    expected = small.read_bytes()[begin : begin + length if length else None]
    assert procaio.aio_slurp(small, offset, length, pool=fresh).wait() == expected
    assert taken(fresh) == 1


def test_load_into_a_bytearray_is_for_a_worker(fresh: procaio.Pool, small: Path) -> None:
    """It changes when the request is done, not before."""
    data = bytearray(b"old")
    request = procaio.aio_load(small, data, pool=fresh)
    assert data == b"old"
    assert request.wait() == 4096
    assert data == small.read_bytes()
    assert taken(fresh) == 1


def test_fifo_is_opened_by_a_worker_only(fresh: procaio.Pool, small: Path) -> None:
    """Its writer would go on, with nobody there to read."""
    fifo = small.with_name("fifo")
    with subprocess.Popen(["sh", "-c", f"exec 3>'{fifo}'; printf 'all of it' >&3"]) as writer:
        state = Path(f"/proc/{writer.pid}/stat")
        eventually(lambda: state.read_text().split(") ")[1][0] == "S", "it waits for a reader")
        assert procaio.aio_load(fifo, pool=fresh).wait(20) == b"all of it"
    assert writer.returncode == 0
    assert taken(fresh) == 1


@pytest.mark.parametrize(("name", "number"), [("directory", errno.EISDIR), ("socket", errno.ENXIO)])
def test_load_of_what_cannot_be_loaded_fails_in_a_worker(
    fresh: procaio.Pool, small: Path, name: str, number: int
) -> None:
    with pytest.raises(OSError, match=os.strerror(number)):
        procaio.aio_load(small.with_name(name), pool=fresh).wait()
    assert taken(fresh) == 1


@pytest.mark.parametrize("path", ["/dev/null", "/proc/version"])
def test_files_of_the_system_are_loaded_by_a_worker(fresh: procaio.Pool, path: str) -> None:
    assert procaio.aio_load(path, pool=fresh).wait() == Path(path).read_bytes()
    assert taken(fresh) == 1


def test_worker_waits_for_whoever_has_a_lease_on_the_file(fresh: procaio.Pool, small: Path) -> None:
    """open(2), O_NONBLOCK."""
    handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
    with small.open("r+b") as holder:
        try:
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            request = procaio.aio_load(small, pool=fresh)
            eventually(lambda: request.state == "execute", "a worker waits for the lease")
            fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            assert request.wait() == small.read_bytes()
        finally:
            signal.signal(signal.SIGIO, handler)


@pytest.mark.parametrize("part", [False, True])
def test_file_that_is_not_all_in_the_cache_is_loaded_by_a_worker(
    fresh: procaio.Pool, small: Path, *, part: bool
) -> None:
    data = os.urandom(12288)
    small.write_bytes(data)
    note_access(small)
    fd = os.open(small, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    if part:
        os.pread(fd, 4096, 0)
    os.close(fd)
    assert procaio.aio_load(small, pool=fresh).wait() == data
    assert taken(fresh) == 1


# -- a server ------------------------------------------------------------------------------------


@pytest.fixture
def server(
    slowfs: ModuleType, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """What serves a file system, and where that is mounted: with a directory and two files."""
    source, mount = tmp_path / "source", tmp_path / "mount"
    (source / "directory").mkdir(parents=True)
    (source / "file").write_bytes(os.urandom(65536))
    (source / "small").write_bytes(b"content")
    note_access(source / "small")
    mount.mkdir()
    process = subprocess.Popen(
        [slowfs.PROGRAM, source, mount, "-o", f"remember={getattr(request, 'param', 0)}"],
        stdout=subprocess.PIPE,
    )
    try:
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process, mount
            process.terminate()
    finally:
        process.kill()
        slowfs.unmount(mount)


def stop(process: subprocess.Popen[bytes]) -> None:
    """None of its threads answers any more when this returns."""

    def has_stopped() -> bool:
        tasks = Path(f"/proc/{process.pid}/task").iterdir()
        return all((task / "stat").read_text().rpartition(") ")[2][0] == "T" for task in tasks)

    process.send_signal(signal.SIGSTOP)
    eventually(has_stopped, "the server has stopped")


def test_names_on_a_server_go_to_a_worker_though_it_is_stopped(
    fresh: procaio.Pool, server: tuple[subprocess.Popen[bytes], Path]
) -> None:
    """Where it is mounted, a name on it, a name in an open directory, and `.`."""
    process, mount = server
    os.stat(mount / "directory")
    directory = os.open(mount, os.O_RDONLY)
    stop(process)
    requests = [
        procaio.aio_stat(mount, pool=fresh),
        procaio.aio_lstat(mount, pool=fresh),
        procaio.aio_stat(mount / "directory", pool=fresh),
        procaio.aio_lstat("directory", dir_fd=directory, pool=fresh),
        procaio.aio_stat(".", dir_fd=directory, pool=fresh),
    ]
    eventually(lambda: all(r.state == "execute" for r in requests), "they wait in workers")
    process.send_signal(signal.SIGCONT)
    sizes = [request.wait().st_ino for request in requests]
    assert sizes == [
        os.stat(mount / name).st_ino for name in (".", ".", "directory", "directory", ".")
    ]
    os.close(directory)


@pytest.mark.parametrize("server", [0, 3600], indirect=True, ids=["forgotten", "remembered"])
def test_files_of_a_server_are_loaded_by_a_worker_though_it_is_stopped(
    fresh: procaio.Pool, server: tuple[subprocess.Popen[bytes], Path]
) -> None:
    """Even if the kernel remembers their names and attributes."""
    process, mount = server
    assert (mount / "small").read_bytes() == b"content"
    stop(process)
    request = procaio.aio_load(mount / "small", pool=fresh)
    eventually(lambda: request.state == "execute", "it waits in a worker")
    process.send_signal(signal.SIGCONT)
    assert request.wait() == b"content"


def test_loop_goes_on_while_reads_wait_for_a_server_that_is_stopped(
    fresh: procaio.Pool, server: tuple[subprocess.Popen[bytes], Path]
) -> None:
    """What is not in the cache never blocks the program."""
    process, mount = server
    fd = os.open(mount / "file", os.O_RDONLY)

    async def main() -> list[bytes]:
        stop(process)
        requests = [procaio.aio_read(fd, n * 4096, 4096, pool=fresh) for n in range(4)]
        reading = asyncio.gather(*requests)
        turns, end = 0, time.monotonic() + 20
        try:
            while turns < 50 or any(request.state != "execute" for request in requests):
                assert time.monotonic() < end, (requests, fresh.statistics())
                await asyncio.sleep(0.001)
                turns += 1
        finally:  # or closing the file would wait for ever
            process.send_signal(signal.SIGCONT)
        return await reading

    try:
        assert b"".join(asyncio.run(main())) == os.pread(fd, 4 * 4096, 0)
    finally:
        os.close(fd)
