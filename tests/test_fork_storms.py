"""Forks of every kind while a pool is at work: the parent loses nothing, children begin anew."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import descriptors, eventually, in_child, succeeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

THREADS = 16


class Load:
    """Threads that make requests all the time, and check every result."""

    def __init__(self, pool: procaio.Pool, directory: Path, threads: int = THREADS) -> None:
        """Start them."""
        self._pool, self._directory = pool, directory
        self._rounds = [0] * threads
        self._stop = False
        self._wrong: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        path, pool = self._directory / f"load{number}", self._pool
        try:
            with open(path, "w+b") as file:
                while not self._stop:
                    data = b"%d/%d " % (number, self._rounds[number]) * 100
                    assert procaio.aio_write(file, 0, None, data, pool=pool).wait(60) == len(data)
                    got = procaio.aio_read(file, 0, len(data), pool=pool)
                    status = procaio.aio_stat(path, pool=pool, timeout=60)
                    assert got.wait(60) == data
                    assert status.wait(60).st_ino == os.stat(path).st_ino
                    self._rounds[number] += 1
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            self._wrong.append(error)

    def everybody_goes_on(self) -> None:
        """Each of them has had results after this was called."""
        before = list(self._rounds)
        eventually(
            lambda: (
                bool(self._wrong)
                or all(now > then for now, then in zip(self._rounds, before, strict=True))
            ),
            "every thread gets results",
        )
        assert self._wrong == []

    def end(self) -> None:
        """Let them come to their end."""
        self._stop = True
        for thread in self._threads:
            thread.join(60)
        assert self._wrong == []


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """The default pool, with 16 threads that use it."""
    made = Load(procaio.default_pool(), tmp_path)
    yield made
    made.end()


def use(path: Path, pool: procaio.Pool | None = None) -> None:
    """What a child does with its own pool."""
    assert procaio.aio_load(path, pool=pool).wait(60) == path.read_bytes()
    assert procaio.aio_stat(path, pool=pool, timeout=60).wait(60).st_size == 65536


def leave(path: Path) -> None:
    """What one does that has nothing to do with it."""


def nested(path: Path) -> None:
    """A child of the child, and one of that."""
    assert succeeds(in_child(lambda: (use(path), succeeds(in_child(lambda: use(path))))))
    use(path)


def close(path: Path) -> None:
    """A child that cleans up."""
    procaio.close()
    use(path)
    procaio.close()


# -- under load ------------------------------------------------------------------------------------


def test_children_forked_under_load_have_pools_of_their_own(load: Load, data_file: Path) -> None:
    """16 threads go on in the parent, and every child does its own requests, or none."""
    for _ in range(3):
        pids = [in_child(lambda work=work: work(data_file)) for work in (use, leave, nested, close)]
        load.everybody_goes_on()
        assert all(map(succeeds, pids))


def test_programs_started_under_load_inherit_nothing(load: Load, data_file: Path) -> None:
    """Subprocess in all its forms, posix_spawn: no descriptor of a pool is open there."""
    names = "[os.path.realpath(f'/proc/self/fd/{n}') for n in range(200)]"
    look = f"import os; print(*{names})"
    command = [sys.executable, "-I", "-S", "-c", look]
    for options in (
        {},
        {"preexec_fn": os.setpgrp},
        {"close_fds": False},
        {"start_new_session": True, "pass_fds": (1,)},
    ):
        told = subprocess.run(command, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload]
        assert "procaio" not in told.stdout
        assert "anon_inode" not in told.stdout
        assert "/dev/shm" not in told.stdout
        load.everybody_goes_on()
    refuse = f"import os, sys; sys.exit(any('anon_inode' in name for name in {names}))"
    pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", "-c", refuse], os.environ)
    assert succeeds(pid)
    load.everybody_goes_on()


def test_forkpty_under_load(load: Load, data_file: Path) -> None:
    """A child on a terminal of its own is a child like any other."""
    pid, terminal = os.forkpty()
    if pid == 0:
        try:
            use(data_file)
            os._exit(7)
        finally:
            os._exit(1)
    load.everybody_goes_on()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    os.close(terminal)


PROCESSES = """
import concurrent.futures, multiprocessing, os, sys, threading
import procaio

def size(path):
    return procaio.aio_stat(path).wait(60).st_size

def main(method, paths):
    done = []
    def load():
        while not done:
            assert size(paths[0]) == 65536
    threads = [threading.Thread(target=load) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        use_processes(multiprocessing.get_context(method), paths)
    finally:
        done.append(True)
        for thread in threads:
            thread.join()

def use_processes(context, paths):
    with context.Pool(2) as pool:
        assert pool.map(size, paths) == [65536] * 20
        pool.close()
        pool.join()
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(size, paths)) == [65536] * 20
    process = context.Process(target=size, args=paths[:1])
    process.start()
    process.join()
    assert process.exitcode == 0

if __name__ == "__main__":
    main(sys.argv[1], [sys.argv[2]] * 20)
    print("fine")
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_use_procaio_while_their_parent_is_busy(
    data_file: Path, tmp_path: Path, method: str
) -> None:
    """Pool, ProcessPoolExecutor and Process, however they are started."""
    (tmp_path / "program.py").write_text(PROCESSES)
    command = [sys.executable, os.fspath(tmp_path / "program.py"), method, os.fspath(data_file)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (told.stdout, told.returncode) == ("fine\n", 0), told.stderr
    assert "Traceback" not in told.stderr


# -- at odd moments --------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["start", "close"])
def test_forks_while_another_thread_starts_and_closes_pools(data_file: Path, moment: str) -> None:
    """Whatever the thread was in the middle of, the child has pools, and ends."""
    done = threading.Event()
    pools: list[procaio.Pool] = []
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            while not done.is_set():
                pool = procaio.Pool(workers=2)
                pools[:] = [pool]
                procaio.aio_nop(pool=pool)
                if moment == "close":
                    procaio.aio_busy(0.001, pool=pool).wait(60)
                pool.close()
        except BaseException as error:  # noqa: BLE001 - told below
            wrong.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        eventually(lambda: bool(pools), "a pool")

        def child() -> None:
            pool = pools[0]
            if not pool.closed:
                use(data_file, pool)
                pool.close()
            use(data_file)
            procaio.close()

        pids = [in_child(child) for _ in range(12)]
        assert [succeeds(pid) for pid in pids] == [True] * 12
    finally:
        done.set()
        thread.join(60)
    assert wrong == []


def test_fork_in_a_feeder(workers: procaio.Pool, data_file: Path) -> None:
    """The child leaves the feeder with a group that is dead; the parent's is fed on."""
    parent, pids = os.getpid(), []
    left = list(range(9))

    def feed(group: procaio.Group) -> None:
        if len(left) == 5 and not pids:
            pids.append(os.fork())
        if left and (os.getpid() == parent or pids):
            left.pop()
            request = procaio.aio_stat(data_file, pool=workers)
            if os.getpid() == parent:
                group.add(request)

    group = procaio.aio_group(pool=workers)
    group.limit(2)
    try:
        group.feed(feed)
        group.wait(60)
        left_in_the_child = os.getpid() != parent
        if left_in_the_child:
            os._exit(3)
    except procaio.PoolClosed:
        if os.getpid() != parent:
            use(data_file, workers)
            os._exit(0 if group.state == "dead" else 2)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert left == []
    assert group.state == "done"
    assert succeeds(pids[0])


@pytest.mark.parametrize("work", [use, leave, close])
def test_fork_while_trees_are_copied_and_removed(
    tmp_path: Path, data_file: Path, work: Callable[[Path], None]
) -> None:
    """The parent's composites go on to their end; the child has nothing of them."""
    for name in range(40):
        inner = tmp_path / "tree" / str(name)
        inner.mkdir(parents=True)
        for number in range(5):
            (inner / str(number)).write_bytes(b"%d" % number)
    copying = procaio.aio_copytree(tmp_path / "tree", tmp_path / "copy")
    pids = []
    while copying.state != "done":
        if len(pids) < 4:
            pids.append(in_child(lambda: work(data_file)))
        procaio.poll()
    removing = procaio.aio_rmtree(tmp_path / "tree")

    def look() -> None:
        work(data_file)
        assert removing.state == "dead"

    pids.append(in_child(look))
    assert (copying.wait(), removing.wait(60)) == (0, 0)
    assert all(map(succeeds, pids))
    assert not (tmp_path / "tree").exists()
    copied = {path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert copied == {b"0", b"1", b"2", b"3", b"4"}


# -- each process has its own ----------------------------------------------------------------------


@pytest.fixture
def busy_child(gate: Any, workers: procaio.Pool, data_file: Path) -> Iterator[Callable[[], None]]:
    """A child that polls its pool for as long as the test wants, with deadlines of its own."""
    ready, tell = os.pipe()
    stop, end = os.pipe()
    pids = []

    def work() -> None:
        told = False
        while not select.select([stop], [], [], 0)[0]:
            select.select([workers.poll_fileno()], [], [], 0)
            workers.poll_cb()
            late = procaio.aio_busy(30, pool=workers, timeout=0.001)
            workers.flush()
            assert late.errno == errno.ETIMEDOUT
            if not told:
                told = bool(os.write(tell, b"x"))

    def start() -> None:
        pids.append(in_child(work))
        os.read(ready, 1)

    yield start
    os.write(end, b"x" * len(pids))
    for fd in (ready, tell, stop, end):
        os.close(fd)
    assert all(map(succeeds, pids))


def test_deadlines_of_the_parent_are_not_the_child_s(
    workers: procaio.Pool, gate: Any, busy_child: Callable[[], None]
) -> None:
    """A timer that was set before the fork rings in the parent, though the child polls, too."""
    held = gate.hold(workers, 3)
    late = [procaio.aio_busy(30, pool=workers, timeout=0.5) for _ in range(3)]
    busy_child()
    while not all(request.state == "done" for request in late):
        assert select.select([workers.poll_fileno()], [], [], 30)[0]
        workers.poll_cb()
    assert [request.errno for request in late] == [errno.ETIMEDOUT] * 3
    assert workers.statistics().aborted == 3
    gate.open(3)
    assert [request.wait(60) for request in held] == [b"x"] * 3


def test_results_of_the_parent_are_not_taken_by_the_child(
    workers: procaio.Pool, gate: Any, busy_child: Callable[[], None]
) -> None:
    """Each bell rings where it was asked for: a program that just watches the number goes on."""
    held = gate.hold(workers, 4)
    number = workers.poll_fileno()
    busy_child()
    for count in range(4):
        gate.open()
        while sum(request.state == "done" for request in held) <= count:
            assert select.select([number], [], [], 30)[0]
            workers.poll_cb()
    assert [request.result for request in held] == [b"x"] * 4


@pytest.mark.parametrize("what", ["abort", "cancel", "close", "kill its own workers"])
def test_child_can_do_nothing_to_requests_of_the_parent(
    workers: procaio.Pool, gate: Any, data_file: Path, what: str
) -> None:
    """A worker is not killed, and a request not taken back, by a copy of the request."""
    held = gate.hold(workers, 2)
    queued = procaio.aio_stat(data_file, pool=workers, timeout=60)
    pids = [worker.pid for worker in workers.statistics().workers]

    def work() -> None:
        for request in (*held, queued):
            if what == "abort":
                request.abort()
            elif what == "cancel":
                request.cancel()
        if what == "close":
            workers.close()
        if what == "kill its own workers":
            for _ in range(3):
                late = procaio.aio_busy(30, pool=workers)
                eventually(lambda late=late: late.state == "execute", "it runs")
                late.abort()
                workers.flush()
                assert late.errno == errno.ECANCELED
        assert all(request.state == "dead" for request in (*held, queued))

    assert succeeds(in_child(work))
    assert set(pids) <= {worker.pid for worker in workers.statistics().workers}
    gate.open(2)
    assert [request.wait(60) for request in held] == [b"x"] * 2
    assert queued.wait(60) == os.stat(data_file)


def test_child_that_lives_on_keeps_nothing_of_a_pool_that_ends(
    gate: Any, data_file: Path, tmp_path: Path
) -> None:
    """close() in the parent ends, and what it had open is open nowhere."""
    stop, end = os.pipe()
    pool = procaio.Pool()
    held = gate.hold(pool, 2)
    number = pool.poll_fileno()

    def work() -> None:
        left = {
            fd: what
            for fd, what in descriptors().items()
            if "/dev/shm/" in what or "memfd:" in what
        }
        assert left == {}
        os.read(stop, 1)

    pids = [in_child(work) for _ in range(3)]
    gate.open(2)
    pool.close()
    assert [request.result for request in held] == [b"x"] * 2
    assert number not in descriptors()
    os.write(end, b"xxx")
    assert all(map(succeeds, pids))
    os.close(stop)
    os.close(end)
