"""Workers and the spawner die at every point; no request is lost, done twice or left hanging."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import re
import select
import signal
import stat
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import procaio
from conftest import descriptors, eventually, kill, open_files
from hostile import HEADER, SETUP
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

NOT_BEGUN = ("claimed", "taken")
UNKNOWN = "called"
FINISHED = ("done", "published", "signalled")
DEADLY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS)
NAMES = [f"entry-{n:03}-{'x' * 60}" for n in range(600)]  # about 50 KiB: more than one step


class Tree:
    """A directory to work in, and descriptors that are open in it."""

    def __init__(self, path: Path, directories: Path) -> None:
        """Make the files and open them."""
        self.path = path
        self.few, self.many = directories / "few", directories / "many"
        self.data = bytes(range(256)) * 16
        self._opened: list[int] = []
        (path / "data").write_bytes(self.data)
        (path / "empty").mkdir()
        self.reading = self.open("data", os.O_RDONLY)
        self.writing = self.open("written", os.O_RDWR | os.O_CREAT)
        self.appending = self.open("appended", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.closing = self.open("data", os.O_RDONLY)
        (path / "large").write_bytes(self.data * 40)
        (path / "link").symlink_to("data")

    def open(self, name: str, flags: int) -> int:
        """A descriptor that is closed with the tree."""
        fd = os.open(self.path / name, flags, 0o600)
        self._opened.append(fd)
        return fd

    def has_closing(self) -> bool:
        """Whether that one is still open, and not another file under its number."""
        return is_open(self.closing) and os.path.sameopenfile(self.closing, self.reading)

    def close(self) -> None:
        """Close what is still open."""
        for fd in self._opened:
            with contextlib.suppress(OSError):
                os.close(fd)

    def content(self, name: str) -> bytes:
        """What a file holds by now."""
        return (self.path / name).read_bytes()


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two directories that nobody writes to: `few` is read in one step, `many` in several."""
    path = tmp_path_factory.mktemp("directories")
    for directory, names in (("few", NAMES[:5]), ("many", NAMES)):
        (path / directory).mkdir()
        for name in names:
            (path / directory / name).touch()
    return path


@pytest.fixture
def tree(tmp_path: Path, directories: Path) -> Iterator[Tree]:
    made = Tree(tmp_path, directories)
    yield made
    made.close()


class Operation(NamedTuple):
    """One operation, whether it may be done twice, and how to see how often it was done."""

    submit: Callable[[Tree, procaio.Pool], procaio.Request[Any]]
    repeatable: bool
    right: Callable[[Tree, Any], bool] = lambda _, result: result == 0
    times_done: Callable[[Tree], int] | None = None


def take_file(tree: Tree, handle: Any) -> bool:
    with handle:
        return os.read(handle.fileno(), 10) == tree.data[:10]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


OPERATIONS = {
    "read at an offset": Operation(
        lambda t, p: procaio.aio_read(t.reading, 100, 50, pool=p),
        True,
        lambda t, result: result == t.data[100:150],
    ),
    "read at the position": Operation(
        lambda t, p: procaio.aio_read(t.reading, None, 50, pool=p),
        False,
        lambda t, result: result == t.data[:50],
        lambda t: os.lseek(t.reading, 0, os.SEEK_CUR) // 50,
    ),
    "read of more than a block": Operation(
        lambda t, p: procaio.aio_read(t.reading, 0, 16 << 20, pool=p),
        True,
        lambda t, result: result == t.data,
    ),
    "write at an offset": Operation(
        lambda t, p: procaio.aio_write(t.writing, 7, None, b"word", pool=p),
        True,
        lambda t, result: result == 4 and t.content("written") == bytes(7) + b"word",
    ),
    "write at the end": Operation(
        lambda t, p: procaio.aio_write(t.appending, 0, None, b"word", pool=p),
        False,
        lambda _, result: result == 4,
        lambda t: len(t.content("appended")) // 4,
    ),
    "write at the position": Operation(
        lambda t, p: procaio.aio_write(t.writing, None, None, b"word", pool=p),
        False,
        lambda _, result: result == 4,
        lambda t: len(t.content("written")) // 4,
    ),
    "open": Operation(
        lambda t, p: procaio.aio_open(t.path / "data", pool=p), False, take_file, None
    ),
    "close": Operation(
        lambda t, p: procaio.aio_close(t.closing, pool=p),
        False,
        times_done=lambda t: not t.has_closing(),
    ),
    "stat": Operation(
        lambda t, p: procaio.aio_stat(t.path / "data", pool=p),
        True,
        lambda t, result: result == os.stat(t.path / "data"),
    ),
    "lstat": Operation(
        lambda t, p: procaio.aio_lstat(t.path / "data", pool=p),
        True,
        lambda t, result: result == os.lstat(t.path / "data"),
    ),
    "fstat": Operation(
        lambda t, p: procaio.aio_stat(t.reading, pool=p),
        True,
        lambda t, result: result == os.fstat(t.reading),
    ),
    "statvfs": Operation(
        lambda t, p: procaio.aio_statvfs(t.path, pool=p),
        True,
        lambda t, result: result.f_namemax == os.statvfs(t.path).f_namemax,
    ),
    "unlink": Operation(
        lambda t, p: procaio.aio_unlink(t.path / "data", pool=p),
        False,
        times_done=lambda t: not (t.path / "data").exists(),
    ),
    "mkdir": Operation(
        lambda t, p: procaio.aio_mkdir(t.path / "made", pool=p),
        False,
        times_done=lambda t: (t.path / "made").exists(),
    ),
    "mkdirs": Operation(
        lambda t, p: procaio.aio_mkdirs(t.path / "made" / "in it", pool=p),
        False,
        times_done=lambda t: (t.path / "made" / "in it").exists(),
    ),
    "mkdirs of what may exist": Operation(
        lambda t, p: procaio.aio_mkdirs(t.path / "made" / "in it", exist_ok=True, pool=p),
        True,
        lambda t, result: result == 0 and (t.path / "made" / "in it").exists(),
    ),
    "rmtree": Operation(
        lambda t, p: procaio.aio_rmtree(t.path / "empty", pool=p),
        True,
        lambda t, _: not (t.path / "empty").exists(),
    ),
    "copytree": Operation(
        lambda t, p: procaio.aio_copytree(t.few, t.path / "made", pool=p),
        True,
        lambda t, _: sorted(os.listdir(t.path / "made")) == NAMES[:5],
    ),
    "rmdir": Operation(
        lambda t, p: procaio.aio_rmdir(t.path / "empty", pool=p),
        False,
        times_done=lambda t: not (t.path / "empty").exists(),
    ),
    "rename": Operation(
        lambda t, p: procaio.aio_rename(t.path / "data", t.path / "moved", pool=p),
        False,
        times_done=lambda t: (t.path / "moved").exists() and not (t.path / "data").exists(),
    ),
    "readdir": Operation(
        lambda t, p: procaio.aio_readdir(t.few, pool=p),
        True,
        lambda _, result: sorted(result) == NAMES[:5],
    ),
    "readdir in steps": Operation(
        lambda t, p: procaio.aio_readdir(t.many, pool=p),
        True,
        lambda _, result: sorted(result) == NAMES,
    ),
    "fsync": Operation(lambda t, p: procaio.aio_fsync(t.writing, pool=p), False),
    "fdatasync": Operation(lambda t, p: procaio.aio_fdatasync(t.writing, pool=p), False),
    "sync": Operation(lambda _, p: procaio.aio_sync(pool=p), True),
    "sync_file_range": Operation(
        lambda t, p: procaio.aio_sync_file_range(t.writing, 0, 0, 2, pool=p), False
    ),
    "pathsync": Operation(lambda t, p: procaio.aio_pathsync(t.path, pool=p), False),
    "load": Operation(
        lambda t, p: procaio.aio_load(t.path / "data", pool=p),
        True,
        lambda t, result: result == t.data,
    ),
    "load_many": Operation(
        lambda t, p: procaio.aio_load_many([t.path / "data", t.path / "large"], pool=p),
        True,
        lambda t, result: result == [t.data, t.data * 40],
    ),
    "stat_many": Operation(
        lambda t, p: procaio.aio_stat_many([t.path / "data", t.few], pool=p),
        True,
        lambda t, result: result == [os.stat(t.path / "data"), os.stat(t.few)],
    ),
    "read_many": Operation(
        lambda t, p: procaio.aio_read_many(t.reading, [100, 0], 50, pool=p),
        True,
        lambda t, result: result == [t.data[100:150], t.data[:50]],
    ),
    "load in steps": Operation(
        lambda t, p: procaio.aio_load(t.path / "large", pool=p),
        True,
        lambda t, result: result == t.data * 40,
    ),
    "load into a bytearray": Operation(
        lambda t, p: procaio.aio_load(t.path / "large", bytearray(9), pool=p),
        True,
        lambda t, result: result == len(t.data) * 40,
    ),
    "sendfile": Operation(
        lambda t, p: procaio.aio_sendfile(t.writing, t.reading, 100, 50, pool=p),
        False,
        lambda _, result: result == 50,
        lambda t: len(t.content("written")) // 50,
    ),
    "sendfile that copies": Operation(
        lambda t, p: procaio.aio_sendfile(t.appending, t.reading, None, 50, pool=p),
        False,
        lambda _, result: result == 50,
        lambda t: len(t.content("appended")) // 50,
    ),
    "readahead": Operation(lambda t, p: procaio.aio_readahead(t.reading, 0, 100, pool=p), True),
    "truncate": Operation(
        lambda t, p: procaio.aio_truncate(t.path / "data", 5, pool=p),
        True,
        lambda t, result: result == 0 and t.content("data") == t.data[:5],
    ),
    "ftruncate": Operation(
        lambda t, p: procaio.aio_truncate(t.writing, 5, pool=p),
        True,
        lambda t, result: result == 0 and t.content("written") == bytes(5),
    ),
    "chmod": Operation(
        lambda t, p: procaio.aio_chmod(t.path / "data", 0o604, pool=p),
        True,
        lambda t, result: result == 0 and os.stat(t.path / "data").st_mode & 0o777 == 0o604,
    ),
    "fchmod": Operation(
        lambda t, p: procaio.aio_chmod(t.reading, 0o604, pool=p),
        True,
        lambda t, result: result == 0 and os.fstat(t.reading).st_mode & 0o777 == 0o604,
    ),
    "chown": Operation(
        lambda t, p: procaio.aio_chown(t.path / "data", os.getuid(), os.getgid(), pool=p), True
    ),
    "fchown": Operation(lambda t, p: procaio.aio_chown(t.reading, None, None, pool=p), True),
    "utime": Operation(
        lambda t, p: procaio.aio_utime(t.path / "data", ns=(1, 2), pool=p),
        True,
        lambda t, result: result == 0 and os.stat(t.path / "data").st_mtime_ns == 2,
    ),
    "futime": Operation(
        lambda t, p: procaio.aio_utime(t.reading, ns=(1, 2), pool=p),
        True,
        lambda t, result: result == 0 and os.fstat(t.reading).st_mtime_ns == 2,
    ),
    "mknod": Operation(
        lambda t, p: procaio.aio_mknod(t.path / "made", stat.S_IFIFO | 0o600, pool=p),
        False,
        times_done=lambda t: (t.path / "made").is_fifo(),
    ),
    "link": Operation(
        lambda t, p: procaio.aio_link(t.path / "data", t.path / "made", pool=p),
        False,
        times_done=lambda t: os.stat(t.path / "data").st_nlink - 1,
    ),
    "symlink": Operation(
        lambda t, p: procaio.aio_symlink("data", t.path / "made", pool=p),
        False,
        times_done=lambda t: (t.path / "made").is_symlink(),
    ),
    "readlink": Operation(
        lambda t, p: procaio.aio_readlink(t.path / "link", pool=p),
        True,
        lambda _, result: result == "data",
    ),
    "copy": Operation(
        lambda t, p: procaio.aio_copy(t.path / "data", t.path / "made", pool=p),
        True,
        lambda t, result: result == 0 and t.content("made") == t.data,
    ),
    "move": Operation(
        lambda t, p: procaio.aio_move(t.path / "data", t.path / "made", pool=p),
        False,
        times_done=lambda t: (t.path / "made").exists() and not (t.path / "data").exists(),
    ),
    "nop": Operation(lambda _, p: procaio.aio_nop(pool=p), True, lambda _, result: result is None),
    "busy": Operation(
        lambda _, p: procaio.aio_busy(0.001, pool=p), True, lambda _, result: result is None
    ),
}


def ended(pool: procaio.Pool, requests: list[procaio.Request[Any]]) -> None:
    """Poll, as a program does, until every one of them is done."""
    for request in requests:
        with contextlib.suppress(OSError):
            request.wait(timeout=30)
    assert {request.state for request in requests} == {"done"}


def shared_in_use(pool: procaio.Pool) -> int:
    return pool._snapshot()["shared_used"]


def check_death(tree: Tree, operation: Operation, point: str, signal_number: int) -> None:
    """A worker dies over it: what comes of it, and what is left, is as `operation` says."""
    calls = []
    with procaio.Pool(at_once=False) as pool:
        procaio.aio_nop(pool=pool).wait()
        before = set(open_files())
        testing.arm(pool, point, signal_number)
        request = operation.submit(tree, pool)
        request.cb(lambda *result: calls.append(result))
        ended(pool, [request])
        eventually(lambda: pool._sleep(0) or pool.statistics().worker_deaths == 1, "the burial")
        pool.flush()
        statistics = pool.statistics()

        assert len(calls) == 1
        begun_in_vain = point == UNKNOWN and not operation.repeatable
        if begun_in_vain:
            assert isinstance(request.error, procaio.WorkerDied)
            assert request.error.errno == errno.EIO
        else:
            assert request.error is None
            assert operation.right(tree, request.wait())
        if operation.times_done:
            assert operation.times_done(tree) == 1
        rerun = not begun_in_vain and point not in FINISHED
        assert (statistics.rerun, statistics.died) == (int(rerun), int(begun_in_vain))
        assert shared_in_use(pool) == 0

        del request
        procaio.aio_nop(pool=pool).wait()  # somebody has taken the dead one's place
        if not tree.has_closing():
            before.discard(tree.closing)
        assert set(open_files()) == before


def one_of(signals: Sequence[int], *names: str) -> int:
    """Another one for each name and each point, so that all pairs are met."""
    return signals[sum(map(len, names)) % len(signals)]


@pytest.mark.parametrize("point", [p for p in testing.FAULT_POINTS if p != "sleeping"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_worker_dies_over_an_operation_which_ends_once_and_is_never_repeated_silently(
    tree: Tree, name: str, point: str
) -> None:
    """What had not begun or may be done twice succeeds; else WorkerDied says: nobody knows."""
    check_death(tree, OPERATIONS[name], point, one_of(DEADLY, name, point))


def test_worker_dies_error_names_the_path(tree: Tree, workers: procaio.Pool) -> None:
    """WorkerDied carries the caller's own path object, and no traceback of an earlier raise."""
    testing.arm(workers, "called")
    path = tree.path / "data"
    request = procaio.aio_unlink(path, pool=workers)
    with pytest.raises(procaio.WorkerDied) as caught:
        request.wait()
    assert caught.value.filename is path
    assert caught.value is not request.error


@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_worker_dies_among_64_requests_and_the_others_do_not_notice(
    tree: Tree, workers: procaio.Pool, point: str
) -> None:
    """Wherever a worker dies, every other request in flight gives what it would have given."""
    procaio.aio_nop(pool=workers).wait()
    testing.arm(workers, point, after=5)
    requests = [procaio.aio_read(tree.reading, 32 * n, 32, pool=workers) for n in range(64)]
    assert [r.wait(timeout=30) for r in requests] == [
        tree.data[32 * n : 32 * n + 32] for n in range(64)
    ]
    eventually(
        lambda: (
            procaio.aio_nop(pool=workers).wait() is None and workers.statistics().worker_deaths == 1
        ),
        "a worker passes the point for the sixth time",
    )
    assert workers.statistics().died == 0
    assert shared_in_use(workers) == 0


@pytest.mark.parametrize("first", ["open", "readdir", "readdir in steps"])
def test_worker_dies_with_an_open_file_and_only_that_is_closed(
    tree: Tree, workers: procaio.Pool, first: str
) -> None:
    """The orphan is closed; what others open meanwhile, of the same file too, stays open."""
    path = tree.path / "data"
    procaio.aio_nop(pool=workers).wait()
    before = set(open_files())
    for round_ in range(20):
        testing.arm(workers, "called", after=round_)
        opened: list[procaio.Request[Any]] = []
        for n in range(40):
            opened.append(procaio.aio_open(path, pool=workers))
            if n % 4 == 0:
                opened.append(OPERATIONS[first].submit(tree, workers))
            workers.poll_cb()
            for request in opened[: n // 2]:  # numbers are used again while the hunt goes on
                if isinstance(request.result, procaio.FileHandle):
                    request.result.close()
        ended(workers, opened)
        for request in opened:
            if isinstance(request.result, procaio.FileHandle) and not request.result.closed:
                assert take_file(tree, request.result)
            elif isinstance(request.result, list):
                assert len(request.result) in {5, 600}
        eventually(
            lambda: procaio.aio_nop(pool=workers).wait() is None and set(open_files()) == before,
            "the orphan is closed",
        )
    assert workers.statistics().worker_deaths == 20


def test_worker_of_one_pool_dies_and_descriptors_of_another_pool_stay(
    tree: Tree, workers: procaio.Pool
) -> None:
    """The descriptor table is one: what another pool has on its way is no orphan."""
    with procaio.Pool() as other:
        waiting = [procaio.aio_open(tree.path / "data", pool=other) for _ in range(20)]
        eventually(lambda: other.npending() == 20, "they are executed, and not taken over")
        testing.arm(workers, "called")
        with pytest.raises(procaio.WorkerDied):
            procaio.aio_open(tree.path / "data", pool=workers).wait()
        procaio.aio_nop(pool=workers).wait()
        assert all(take_file(tree, request.wait()) for request in waiting)
        data = os.fspath(tree.path / "data")
        eventually(
            lambda: (
                workers.poll_cb() == 0 and sum(what == data for what in descriptors().values()) == 2
            ),
            "the orphan is closed: two are the tree's own",
        )


def test_directory_read_in_steps_leaves_numbers_of_others_alone(
    tree: Tree, workers: procaio.Pool
) -> None:
    """The number of a directory is free once it was closed; nobody closes it a second time."""
    opened: list[procaio.Request[Any]] = []
    for _ in range(30):
        directory = procaio.aio_readdir(tree.many, pool=workers)
        files = [procaio.aio_open(tree.path / "data", pool=workers) for _ in range(10)]
        assert sorted(directory.wait()) == NAMES
        opened += files
    ended(workers, opened)
    assert all(take_file(tree, request.result) for request in opened)


def test_program_own_descriptor_with_o_async_survives_the_hunt(
    tree: Tree, workers: procaio.Pool
) -> None:
    """The mark of a worker's descriptor is not mistaken for signal-driven I/O of the program."""
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)
        testing.arm(workers, "called")
        with pytest.raises(procaio.WorkerDied):
            procaio.aio_open(tree.path / "data", pool=workers).wait()
        procaio.aio_nop(pool=workers).wait()
        assert is_open(reader)
    finally:
        os.close(reader)
        os.close(writer)


# -- dying again and again -------------------------------------------------------------------------


def test_request_that_kills_every_worker_ends_after_the_third_death(
    tree: Tree, workers: procaio.Pool
) -> None:
    """A poisonous request is run at most three times, and then says so."""
    testing.arm(workers, "taken", always=True)
    with pytest.raises(procaio.WorkerDied):
        procaio.aio_stat(tree.path, pool=workers).wait(timeout=30)
    statistics = workers.statistics()
    assert (statistics.worker_deaths, statistics.rerun, statistics.died) == (3, 2, 1)
    testing.disarm(workers)
    assert procaio.aio_stat(tree.path, pool=workers).wait() == os.stat(tree.path)


def test_workers_that_die_again_and_again_are_replaced_ever_more_slowly(
    tree: Tree, workers: procaio.Pool
) -> None:
    """The pauses grow, so a broken machine is not kept busy forking; then all is well again."""
    workers.max_parallel(1)
    testing.arm(workers, "taken", always=True)
    requests = [procaio.aio_stat(tree.path, pool=workers) for _ in range(4)]
    deaths: list[float] = []

    def watch() -> bool:
        workers.poll_cb()
        if workers.statistics().worker_deaths > len(deaths):
            deaths.append(time.monotonic())
        return all(request.state == "done" for request in requests)

    with pytest.warns(procaio.CrashLoopWarning):
        eventually(watch, "all of them end")
    assert {type(request.error) for request in requests} == {procaio.WorkerDied}
    assert len(deaths) == 12
    pauses = [deaths[n] - deaths[n - 1] for n in range(1, len(deaths))]
    assert pauses[-1] > 0.06, "the pause before the twelfth is 64 ms"
    testing.disarm(workers)
    assert procaio.aio_stat(tree.path, pool=workers).wait(timeout=10) == os.stat(tree.path)


def test_worker_killed_asleep_with_one_allowed_and_requests_queued_is_replaced(
    tree: Tree, workers: procaio.Pool
) -> None:
    """A bell that rings for a dead sleeper is not lost."""
    workers.max_parallel(1)
    for _ in range(10):
        procaio.aio_nop(pool=workers).wait()
        eventually(lambda: workers.statistics().workers[0].state == "sleep", "it goes to sleep")
        pid = workers.statistics().workers[0].pid
        kill(pid)
        requests = [procaio.aio_read(tree.reading, n, 1, pool=workers) for n in range(200)]
        assert [r.wait(timeout=30) for r in requests] == [bytes([n]) for n in range(200)]
        eventually(lambda: workers.poll_cb() == 0 and workers.nworkers() == 1, "one lives")
        assert workers.statistics().workers[0].pid != pid
    assert workers.statistics().worker_deaths == 10


def test_worker_killed_while_its_request_blocks_frees_nothing_but_its_own(
    tree: Tree, workers: procaio.Pool, gate: Any
) -> None:
    """A read at the position that hangs ends with its worker; those of other workers go on."""
    held = gate.hold(workers, 3)
    running = [w for w in workers.statistics().workers if w.operation == "read"]
    assert len(running) == 3
    kill(running[0].pid)
    eventually(lambda: workers.poll_cb() == 0 and workers.nreqs() == 2, "one ends")
    gate.open(2)
    ended(workers, held)
    assert sorted(type(r.error).__name__ for r in held) == ["NoneType", "NoneType", "WorkerDied"]


# -- the spawner -----------------------------------------------------------------------------------


def test_spawner_killed_is_replaced_and_requests_go_on(tree: Tree, workers: procaio.Pool) -> None:
    """Killing the spawner costs no request; a new one takes its place."""
    pids = set()
    for _ in range(10):
        requests = [procaio.aio_read(tree.reading, n, 1, pool=workers) for n in range(100)]
        pids.add(workers.statistics().spawner_pid)
        kill(workers.statistics().spawner_pid)
        assert [r.wait(timeout=30) for r in requests] == [bytes([n]) for n in range(100)]
        deaths = len(pids)
        eventually(
            lambda: workers.poll_cb() == 0 and workers.statistics().spawner_deaths == deaths,  # noqa: B023
            "the burial",
        )
    assert len(pids) == 10
    assert workers.statistics().died == 0


def test_spawner_dies_and_what_the_program_reads_of_it_stays_open(workers: procaio.Pool) -> None:
    """Only what the spawner itself was reading is closed after its death."""
    procaio.aio_nop(pool=workers).wait()
    pid = workers.statistics().spawner_pid
    with contextlib.ExitStack() as files:
        opened = [
            files.enter_context(open(f"/proc/{pid}/{name}", "rb"))
            for name in ("maps", "fdinfo/0", "stat")
        ]
        kill(pid)
        eventually(
            lambda: workers.poll_cb() == 0 and workers.statistics().spawner_deaths == 1,
            "the spawner is buried",
        )
        for file in opened:
            os.fstat(file.fileno())


def test_spawner_dies_and_what_it_read_of_a_worker_is_closed_though_that_was_buried_before(
    workers: procaio.Pool,
) -> None:
    """It looks at workers that get nothing done. A descriptor opened here stands for its own."""
    procaio.aio_nop(pool=workers).wait()
    snapshot = workers.statistics()
    pids = [os.getpid(), snapshot.workers[0].pid]
    (own, left) = (os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_DSYNC) for pid in pids)
    kill(snapshot.workers[0].pid)
    eventually(
        lambda: workers.poll_cb() == 0 and workers.statistics().worker_deaths == 1, "the burial"
    )
    os.fstat(left)
    kill(snapshot.spawner_pid)
    eventually(
        lambda: workers.poll_cb() == 0 and workers.statistics().spawner_deaths == 1, "the burial"
    )
    os.close(own)
    assert descriptors().get(left) != f"/proc/{pids[1]}/stat"


def test_spawner_and_all_workers_killed_and_requests_go_on(
    tree: Tree, workers: procaio.Pool
) -> None:
    """Nobody is left, and still every request ends."""
    for round_ in range(5):
        procaio.aio_nop(pool=workers).wait()
        snapshot = workers.statistics()
        victims = [snapshot.spawner_pid, *(worker.pid for worker in snapshot.workers)]
        for pid in victims if round_ % 2 else reversed(victims):
            kill(pid)
        requests = [procaio.aio_read(tree.reading, n, 1, pool=workers) for n in range(100)]
        assert [r.wait(timeout=30) for r in requests] == [bytes([n]) for n in range(100)]


def test_spawner_killed_while_it_makes_workers_loses_none_of_them(
    tree: Tree, workers: procaio.Pool
) -> None:
    """A worker on its way into life is found, or was never born; its number is not lost."""
    workers.max_parallel(2)
    for _ in range(60):
        request = procaio.aio_stat(tree.path, pool=workers)  # a worker is about to be made
        kill(workers.statistics().spawner_pid)
        assert request.wait(timeout=30) == os.stat(tree.path)
        for worker in workers.statistics().workers:
            kill(worker.pid)
    requests = [procaio.aio_busy(0.01, pool=workers) for _ in range(10)]
    ended(workers, requests)
    assert workers.nworkers() <= 2


PERMIT_COUNT, PERMITS = SETUP["permit_count"], HEADER["permits"]
NOBODY = 0


class Permits:
    """The words that say who may run, of the only pool that is open."""

    def __init__(self) -> None:
        """Find the segment: its third word is its own descriptor."""
        shared = [fd for fd, what in descriptors().items() if re.match("/dev/shm/|/memfd:", what)]
        (self._fd,) = (fd for fd in shared if os.pread(fd, 4, 8) == struct.pack("i", fd))
        (count,) = struct.unpack("I", os.pread(self._fd, 4, PERMIT_COUNT))
        self._words = f"{count}I"

    def holders(self) -> set[int]:
        """Worker numbers + 1, and NOBODY."""
        size = struct.calcsize(self._words)
        return set(struct.unpack(self._words, os.pread(self._fd, size, PERMITS)))

    def give_all_to(self, worker: int) -> None:
        """Nobody else may run."""
        count = struct.calcsize(self._words) // 4
        os.pwrite(self._fd, struct.pack(self._words, *[worker + 1] * count), PERMITS)


@pytest.mark.parametrize("victim", ["worker", "spawner"])
def test_permits_that_the_dead_took_for_a_vacant_number_come_back(
    workers: procaio.Pool, victim: str
) -> None:
    """Who dies while it wakes a worker that is buried meanwhile leaves a permit that nobody has."""
    procaio.aio_nop(pool=workers).wait()
    permits = Permits()
    eventually(lambda: permits.holders() == {NOBODY}, "the worker sleeps")
    permits.give_all_to(100)
    snapshot = workers.statistics()
    kill(snapshot.spawner_pid if victim == "spawner" else snapshot.workers[0].pid)
    eventually(lambda: workers.poll_cb() == 0 and permits.holders() == {NOBODY}, "they come back")
    procaio.aio_nop(pool=workers).wait(timeout=30)


def test_permits_of_a_sleeper_that_nobody_has_rung_are_used(workers: procaio.Pool) -> None:
    """Who wakes a worker may be stopped when it has given it a permit: the monitor rings for it."""
    procaio.aio_nop(pool=workers).wait()
    permits = Permits()
    eventually(lambda: permits.holders() == {NOBODY}, "the worker sleeps")
    permits.give_all_to(workers.statistics().workers[0].number)
    request = procaio.aio_nop(pool=workers)
    eventually(lambda: workers.poll_cb() <= 0 and request.state == "done", "the request ends")


# -- an event loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["worker", "spawner"])
def test_death_is_noticed_by_a_loop_that_only_watches_the_descriptor(
    workers: procaio.Pool, gate: Any, victim: str
) -> None:
    """The pool's descriptor becomes readable when somebody dies: a loop needs no timer."""
    (held,) = gate.hold(workers)
    while select.select([workers.poll_fileno()], [], [], 0)[0]:
        workers.poll_cb()
    statistics = workers.statistics()
    busy = next(w.pid for w in statistics.workers if w.operation)
    kill(busy if victim == "worker" else statistics.spawner_pid)
    assert select.select([workers.poll_fileno()], [], [], 10)[0]
    if victim == "spawner":
        eventually(
            lambda: workers.poll_cb() == 0 and workers.statistics().spawner_deaths == 1,
            "the burial",
        )
        gate.open()
    while held.state != "done":
        assert select.select([workers.poll_fileno()], [], [], 10)[0]
        workers.poll_cb()
    assert (held.error is None) == (victim == "spawner")


# -- everything at once ----------------------------------------------------------------------------


class Storm:
    """A thread that kills a random child of the pool every few milliseconds."""

    def __init__(self, pool: procaio.Pool, seed: int, with_spawner: bool) -> None:
        """Nobody is killed before the storm is entered."""
        self.kills = 0
        self._pool, self._random, self._spawner = pool, random.Random(seed), with_spawner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(self._random.uniform(0.001, 0.006)):
            statistics = self._pool.statistics()
            pids = [worker.pid for worker in statistics.workers]
            if self._spawner and self._random.random() < 0.2:
                pids = [statistics.spawner_pid]
            pids = [pid for pid in pids if pid > 0]
            if pids:
                kill(self._random.choice(pids), self._random.choice(DEADLY))
                self.kills += 1

    def __enter__(self) -> Storm:  # noqa: PYI034 - not subclassed
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        """End it."""
        self._stop.set()
        self._thread.join()


class Mixture:
    """Requests of many kinds, each of which checks its own result."""

    def __init__(self, tree: Tree, pool: procaio.Pool, seed: int) -> None:
        """Nothing is made yet."""
        self.tree, self.pool, self.random = tree, pool, random.Random(seed)
        self.path = tree.path / "data"
        self.inode = os.stat(self.path).st_ino
        self.ends = 0
        self.wrong: list[object] = []
        self.appended: dict[int, bool] = {}
        """By number: whether the request reported success."""

    def make(self, number: int) -> None:
        """One more, of any kind."""
        tree, pool, at = self.tree, self.pool, self.random.randrange(3000)
        word = b"%08d" % number
        kinds: list[tuple[Callable[[], procaio.Request[Any]], Callable[[Any], bool]]] = [
            (
                lambda: procaio.aio_read(tree.reading, at, 32, pool=pool),
                lambda result: result == tree.data[at : at + 32],
            ),
            (
                lambda: procaio.aio_read(tree.reading, 0, 300_000, pool=pool),
                lambda result: result == tree.data,
            ),
            (
                lambda: procaio.aio_stat(self.path, pool=pool),
                lambda result: result.st_ino == self.inode,
            ),
            (lambda: procaio.aio_open(self.path, pool=pool), lambda r: take_file(tree, r)),
            (
                lambda: procaio.aio_readdir(tree.few, pool=pool),
                lambda result: sorted(result) == NAMES[:5],
            ),
            (
                lambda: procaio.aio_readdir(tree.many, pool=pool),
                lambda result: sorted(result) == NAMES,
            ),
            (
                lambda: procaio.aio_write(tree.appending, 0, None, word, pool=pool),
                lambda result: result == 8,
            ),
        ]
        kind = self.random.randrange(len(kinds))
        submit, right = kinds[kind]
        request = submit()

        def check(result: object) -> None:
            self.ends += 1
            error = request.error
            if kind == len(kinds) - 1:
                self.appended[number] = error is None
            if isinstance(error, procaio.WorkerDied):
                return
            if error is not None or not right(result):
                self.wrong.append((kind, error, result))

        request.cb(check)


@pytest.mark.parametrize("with_spawner", [False, True], ids=["workers", "and the spawner"])
@pytest.mark.parametrize("count", [6000, pytest.param(60000, marks=pytest.mark.slow)])
def test_storm_of_deaths_leaves_every_result_right_and_nothing_behind(
    tree: Tree, workers: procaio.Pool, with_spawner: bool, count: int
) -> None:
    """Thousands of mixed requests while somebody is killed every few milliseconds."""
    before = set(open_files())
    mixture = Mixture(tree, workers, count)
    with procaio.Buffer(64, pool=workers), Storm(workers, count, with_spawner) as storm:
        for number in range(count):
            mixture.make(number)
            while workers.nreqs() > 100:
                workers.poll()
        workers.flush()
    assert storm.kills > 20
    assert mixture.wrong == []
    assert mixture.ends == count

    found = tree.content("appended")
    written = [int(found[i : i + 8]) for i in range(0, len(found), 8)]
    assert len(written) == len(set(written)), "something was appended twice"
    reported = {number for number, success in mixture.appended.items() if success}
    assert reported <= set(written) <= set(mixture.appended)
    eventually(
        lambda: procaio.aio_nop(pool=workers).wait() is None and set(open_files()) == before,
        "only what was there before is open",
    )
    assert shared_in_use(workers) == 0
