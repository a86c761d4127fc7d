"""
Deadlines and abort(): whatever state a request is in, it ends when it must, and only that one.

A deadline is kept when the program polls, so one that has passed at once (timeout=0) lets a test
bring about the state first. Workers that stop themselves at a fault point stay in that state.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import procaio
from conftest import eventually, has_stopped, in_child, kill, open_files, succeeds
from ending import LATER, Force, deadlines, nobody_was_hurt, works
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Gate, MemoryGate

EXECUTING = ("claimed", "taken", "called")
DONE = ("done", "published", "signalled")
SLOTS = 2048


def only_worker(pool: procaio.Pool) -> int:
    """Start the pool's worker; gives its pid. It has passed all points when this returns."""
    pool.max_parallel(1)
    procaio.aio_nop(pool=pool).wait()
    eventually(lambda: pool.statistics().workers[0].state == "sleep", "the worker sleeps")
    (worker,) = pool.statistics().workers
    return worker.pid


# -- every state -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, SLOTS + 100], ids=["lane", "overflow"])
def test_request_that_no_worker_has_ends_and_the_others_stay(
    workers: procaio.Pool, tmp_path: Path, force: Force, before: int
) -> None:
    workers.max_parallel(0)
    others = [procaio.aio_nop(pool=workers) for _ in range(before)]
    calls: list[object] = []
    path = tmp_path / "made"
    request = procaio.aio_mkdir(path, 0o777, calls.append, pool=workers, **force.keywords)
    last = procaio.aio_nop(pool=workers)
    assert request.state == "ready"
    assert force.end(request).filename is path
    assert calls == [-1]
    assert workers.nready() == before + 1
    workers.min_parallel(1)
    workers.flush()
    assert {other.errno for other in [*others, last]} == {0}
    assert not path.exists()
    assert workers.statistics().aborted == 0


def test_request_in_a_system_call_ends_with_its_worker_which_is_replaced(
    workers: procaio.Pool, gate: Gate, force: Force
) -> None:
    workers.max_parallel(1)
    for count in range(1, 4):
        (held,) = gate.hold(workers, **force.keywords)
        force.end(held)
        assert works(workers)
        assert workers.statistics().aborted == count
    assert nobody_was_hurt(workers)


@pytest.mark.parametrize("point", EXECUTING)
def test_request_of_a_worker_that_has_stopped_ends(
    workers: procaio.Pool, tmp_path: Path, force: Force, point: str
) -> None:
    """Before its call, or when it has made it but not said so: then it may have been made."""
    pid = only_worker(workers)
    testing.arm(workers, point, signal.SIGSTOP)
    request = procaio.aio_mkdir(tmp_path / "made", pool=workers, **force.keywords)
    eventually(lambda: has_stopped(pid), "the worker stops")
    assert request.state == "execute"
    force.end(request)
    assert (tmp_path / "made").exists() == (point == "called")
    assert works(workers)
    assert workers.statistics().aborted == 1
    assert nobody_was_hurt(workers)


@pytest.mark.parametrize("point", DONE)
def test_request_that_is_done_gives_its_result_whatever_has_passed(
    workers: procaio.Pool, tmp_path: Path, point: str
) -> None:
    """Its worker has stopped before it could say so: then it waits for that one."""
    pid = only_worker(workers)
    testing.arm(workers, point, signal.SIGSTOP)
    request = procaio.aio_mkdir(tmp_path / "made", pool=workers, timeout=0)
    eventually(lambda: has_stopped(pid), "the worker stops")
    assert request.state == "pending"
    assert not request.abort()
    workers.poll_cb()
    kill(pid, signal.SIGCONT)
    assert request.wait(timeout=30) == 0
    assert workers.statistics().aborted == 0


def test_sleeping_worker_that_has_stopped_does_not_keep_requests(
    workers: procaio.Pool, force: Force
) -> None:
    pid = only_worker(workers)
    kill(pid, signal.SIGSTOP)
    eventually(lambda: has_stopped(pid), "the worker stops")
    request = procaio.aio_nop(pool=workers, **force.keywords)
    force.end(request)
    kill(pid, signal.SIGCONT)
    assert works(workers)
    assert workers.statistics().aborted == 0


def test_request_that_has_ended_is_left_alone(pool: procaio.Pool, tmp_path: Path) -> None:
    """Executed and not polled, pending, in its own callback, and done."""
    answers: list[object] = []
    request = procaio.aio_stat(tmp_path, pool=pool, timeout=0 if pool.nworkers() else LATER)
    request.cb(lambda result: answers.extend([request.abort(), result]))
    eventually(lambda: request.state == "pending", "it is executed")
    assert not request.abort()
    assert pool.npending() == 1
    assert not request.abort()
    assert request.wait() == os.stat(tmp_path)
    assert not request.abort()
    assert answers == [False, os.stat(tmp_path)]
    assert deadlines(pool) == 0


def test_read_that_was_done_at_once_is_left_alone(fd: int) -> None:
    with procaio.Pool() as pool:
        request = procaio.aio_read(fd, 0, 10, pool=pool, timeout=0)
        assert request.state == "pending"
        assert not request.abort()
        assert request.wait() == os.pread(fd, 10, 0)


@pytest.mark.parametrize("first", ["cancel", "force"])
def test_request_that_is_cancelled_too_has_no_callback(
    workers: procaio.Pool, gate: Gate, force: Force, first: str
) -> None:
    """Both together end its worker, and nobody is told."""
    calls: list[object] = []
    (held,) = gate.hold(workers, **force.keywords)
    held.cb(calls.append)
    if first == "cancel":
        held.cancel()
    force.apply(held)
    if first == "force":
        workers.poll_cb()
        held.cancel()
    workers.flush()
    assert (held.state, held.errno, calls) == ("cancelled", 0, [])
    with pytest.raises(procaio.RequestCancelled):
        held.wait()
    assert works(workers)


def test_abort_counts_once(workers: procaio.Pool, gate: Gate) -> None:
    calls: list[object] = []
    (held,) = gate.hold(workers, timeout=LATER)
    held.cb(calls.append)
    assert held.abort()
    assert not held.abort()
    workers.flush()
    assert (calls, held.errno, deadlines(workers)) == ([None], errno.ECANCELED, 0)


def test_dead_request_is_left_alone(workers: procaio.Pool, gate: Gate) -> None:
    """In a forked child, and when its pool is closed."""
    (held,) = gate.hold(workers, timeout=LATER)

    def look() -> None:
        assert not held.abort()
        assert held.state == "dead"
        assert procaio.aio_nop(pool=workers, timeout=LATER).wait() is None
        assert deadlines(workers) == 0
        workers.close()

    assert succeeds(in_child(look))
    assert (held.state, deadlines(workers)) == ("execute", 1)
    gate.open()
    assert held.wait() == b"x"
    workers.close()
    assert not held.abort()


def test_pool_that_is_closed_with_a_deadline_to_come_forgets_it(gate: Gate) -> None:
    pool = procaio.Pool()
    (held,) = gate.hold(pool, timeout=LATER)
    pool._close(0)
    assert held.errno == errno.ECANCELED
    assert held.error
    assert held.error.strerror == os.strerror(errno.ECANCELED)


# -- steps -----------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A directory and a file that take several steps."""
    directory = tmp_path / "large"
    directory.mkdir()
    for number in range(600):
        (directory / f"{number:03}-{'x' * 60}").touch()
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    return directory


STEPS: dict[str, Callable[..., procaio.Request[Any]]] = {
    "readdir": procaio.aio_readdir,
    "load": lambda path, **more: procaio.aio_load(path.with_name("file"), **more),
}


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("where", ["in the first", "between", "ready", "in the second"])
def test_request_of_several_steps_ends_and_leaves_nothing_open(
    workers: procaio.Pool, large: Path, force: Force, kind: str, where: str
) -> None:
    pid = only_worker(workers)
    before = open_files()
    points = {"in the first": "called", "between": "signalled", "ready": "published"}
    testing.arm(workers, points.get(where, "taken"), signal.SIGSTOP, after=where == "in the second")
    keywords = force.keywords if where in {"in the first", "between"} else {}
    request = STEPS[kind](large, pool=workers, **keywords)
    if where == "in the second":
        eventually(lambda: workers.poll_cb() == 0 and has_stopped(pid), "the second step begins")
    else:
        eventually(lambda: has_stopped(pid), "the worker stops")
    if where == "ready":
        eventually(lambda: workers.poll_cb() == 0 and request.state == "ready", "it goes on")
    if keywords:
        force.end(request)
    else:
        Force("abort", errno.ECANCELED).end(request)
    testing.disarm(workers)
    kill(pid, signal.SIGCONT)
    eventually(lambda: works(workers) and open_files() == before, "what it had open is closed")
    assert workers._snapshot()["shared_used"] == 0


@pytest.mark.parametrize("how", ["abort", "cancel"])
def test_step_that_is_ended_is_not_closed_twice(
    workers: procaio.Pool, large: Path, tmp_path: Path, how: str
) -> None:
    """Another pool's worker dies while it is pending: its descriptor is no orphan by then."""
    pid = only_worker(workers)
    testing.arm(workers, "published", signal.SIGSTOP)
    request = procaio.aio_readdir(large, pool=workers)
    eventually(lambda: has_stopped(pid), "the worker stops")
    eventually(lambda: workers.npending() == 0 and request.state == "ready", "it goes on")
    assert getattr(request, how)()
    os.mkfifo(tmp_path / "fifo")
    with procaio.Pool() as other:
        opening = procaio.aio_open(tmp_path / "fifo", os.O_RDONLY, pool=other)
        eventually(lambda: opening.state == "execute", "a worker opens")
        kill(next(worker.pid for worker in other.statistics().workers if worker.operation))
        with pytest.raises(procaio.WorkerDied):
            opening.wait(timeout=30)
        mine = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        kill(pid, signal.SIGCONT)
        workers.flush()
        for fd in mine:
            os.close(fd)  # raises if it is closed already


# -- what it works on ------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["queued", "claimed", "taken"])
def test_close_that_has_not_begun_leaves_the_file_open(
    workers: procaio.Pool, data_file: Path, force: Force, point: str
) -> None:
    pid = only_worker(workers)
    handle = procaio.aio_open(data_file, pool=workers).wait()
    with handle:
        if point == "queued":
            workers.max_parallel(0)
        else:
            testing.arm(workers, point, signal.SIGSTOP)
        request = procaio.aio_close(handle, pool=workers, **force.keywords)
        assert handle.closed
        if point != "queued":
            eventually(lambda: has_stopped(pid), "the worker stops")
        force.end(request)
        assert not handle.closed
        assert os.read(handle.fileno(), 16) == data_file.read_bytes()[:16]
        workers.min_parallel(1)


def test_open_that_was_not_reported_leaves_no_descriptor(
    workers: procaio.Pool, data_file: Path, force: Force
) -> None:
    """What the worker has opened is closed, and nothing of the program's own."""
    pid = only_worker(workers)
    mine = os.open(data_file, os.O_RDONLY)
    before = open_files()
    testing.arm(workers, "called", signal.SIGSTOP)
    request = procaio.aio_open(data_file, pool=workers, **force.keywords)
    eventually(lambda: has_stopped(pid), "the worker stops")
    assert len(open_files()) == len(before) + 1
    force.end(request)
    eventually(lambda: works(workers) and open_files() == before, "it is closed")
    assert os.fstat(mine)
    os.close(mine)


@pytest.mark.parametrize("kind", ["Buffer", "bytearray", "array", "bytes"])
def test_read_that_ends_leaves_its_target_as_it_was_and_usable(
    workers: procaio.Pool, gate: Gate, force: Force, kind: str
) -> None:
    before = bytes(range(16))
    buffer = procaio.Buffer(16, pool=workers)
    memoryview(buffer)[:] = before
    targets = {
        "Buffer": buffer,
        "bytearray": bytearray(before),
        "array": np.frombuffer(bytearray(before), np.uint8),
    }
    target: Any = targets.get(kind)
    data = () if target is None else (target,)
    request = procaio.aio_read(gate.fd, None, 4, *data, pool=workers, **force.keywords)
    eventually(lambda: request.state == "execute", "a worker reads")
    force.end(request)
    assert target is None or bytes(target) == before
    if kind == "bytearray":
        target.append(1)
    memoryview(buffer)[:4] = b"next"
    buffer.release()
    eventually(
        lambda: workers.poll_cb() == 0 and workers._snapshot()["shared_used"] == 0,
        "the worker is dead, and what it was lent is back",
    )


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_write_that_ends_gives_its_memory_back(
    workers: procaio.Pool, force: Force, size: int
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, bytes(1 << 16)):
            pass
    os.set_blocking(writing, True)
    data = b"x" * size
    request = procaio.aio_write(writing, None, None, data, pool=workers, **force.keywords)
    eventually(lambda: request.state == "execute", "a worker writes")
    force.end(request)
    assert workers._snapshot()["shared_used"] == 0
    os.close(reading)
    os.close(writing)


def test_memory_request_ends_while_its_thread_goes_on(
    workers: procaio.Pool, memory_gate: MemoryGate, force: Force
) -> None:
    """Nothing can end a thread: what it touches is held until it has ended, the request is not."""
    calls: list[object] = []
    (held,) = memory_gate.hold(workers, **force.keywords)
    held.cb(calls.append)
    force.end(held)
    assert calls == [-1]
    assert workers.nreqs() == 0
    with pytest.raises(BufferError):
        memory_gate.memory.close()
    memory_gate.open()

    def is_free() -> bool:
        workers.poll_cb()
        with contextlib.suppress(BufferError):
            memory_gate.memory.close()
        return memory_gate.memory.closed

    gc.collect()
    eventually(is_free, "the thread has ended, and nobody holds the memory")


def test_memory_request_that_no_thread_has_begun_ends(workers: procaio.Pool, force: Force) -> None:
    workers.max_parallel(0)
    memory = bytearray(100)
    request = procaio.aio_mtouch(memory, pool=workers, **force.keywords)
    force.end(request)
    memory.append(1)


def test_pool_without_workers_finishes_what_it_has_begun(gate: Gate, fd: int) -> None:
    """The program itself executes it, and nobody can end that; others poll meanwhile."""
    with procaio.Pool(inline=True) as pool:
        procaio.aio_read(fd, 0, 1, pool=pool).wait()  # there is shared memory from here on
        made: list[procaio.Request[Any]] = []

        def read() -> None:
            made.append(procaio.aio_read(gate.fd, None, 1, pool=pool, timeout=0))

        thread = threading.Thread(target=read)
        thread.start()
        eventually(lambda: pool.nreqs() == 1, "the thread reads")
        group = procaio.aio_group(pool=pool)
        assert group.abort()
        for _ in range(3):
            pool.poll_cb()
        assert (group.state, pool.nreqs(), made) == ("done", 1, [])
        gate.open()
        thread.join()
        assert made[0].wait() == b"x"
        assert pool.nreqs() == 0


# -- groups and composites -------------------------------------------------------------------------


def test_group_ends_after_its_members_have_and_they_are_told_first(
    workers: procaio.Pool, gate: Gate, force: Force
) -> None:
    """Members fail with ECANCELED, the group with its own; what was done keeps its result."""
    log: list[tuple[object, ...]] = []

    def tell(name: str) -> Callable[..., None]:
        return lambda *values: log.append((name, values, procaio.errno()))

    done = procaio.aio_nop(pool=workers)
    done.wait()
    group = procaio.aio_group(tell("group"), pool=workers, **force.keywords)
    group.result("never seen")
    inner = procaio.aio_group(tell("inner"), pool=workers)
    group.add(done, inner)
    member, nested = gate.hold(workers, 2)
    group.add(member)
    inner.add(nested)
    member.cb(tell("member"))
    nested.cb(tell("nested"))
    force.end(group)
    told = {name: number for name, _, number in log}
    assert [name for name, *_ in log].index("nested") < [name for name, *_ in log].index("inner")
    assert log[-1][0] == "group"
    assert told == {
        "group": force.errno,
        "inner": errno.ECANCELED,
        "member": errno.ECANCELED,
        "nested": errno.ECANCELED,
    }
    assert group.result is not None
    assert done.errno == 0


def test_group_that_ends_is_fed_no_more_and_takes_late_members_with_it(
    workers: procaio.Pool, gate: Gate, force: Force
) -> None:
    made: list[procaio.Request[Any]] = []

    def feeder(group: procaio.Group) -> None:
        made.append(procaio.aio_read(gate.fd, None, 1, pool=workers))
        group.add(made[-1])

    late: list[procaio.Request[Any]] = []

    def add_one(_: object) -> None:
        late.append(procaio.aio_read(gate.fd, None, 1, pool=workers))
        group.add(late[0])

    group = procaio.aio_group(pool=workers, **force.keywords)
    group.limit(2)
    group.feed(feeder)
    made[0].cb(add_one)
    force.end(group)
    assert len(made) == 2
    assert {request.errno for request in (*made, *late)} == {errno.ECANCELED}
    with pytest.raises(RuntimeError, match="done"):
        group.add(procaio.aio_nop(pool=workers))
    workers.flush()


def test_group_aborted_by_its_own_feeder_ends(workers: procaio.Pool) -> None:
    def feeder(group: procaio.Group) -> None:
        calls.append(group.abort())
        group.add(procaio.aio_nop(pool=workers))

    calls: list[bool] = []
    group = procaio.aio_group(pool=workers)
    group.feed(feeder)
    with pytest.raises(OSError, match="aborted"):
        group.wait(timeout=30)
    assert calls == [True]


def test_empty_group_and_paused_one_end(pool: procaio.Pool, force: Force) -> None:
    """One that nothing would ever end."""
    group = procaio.aio_group(pool=pool, **force.keywords)
    force.end(group)
    paused = procaio.aio_group(pool=pool, **force.keywords)
    paused.feed(lambda group: group.add(procaio.aio_nop(pool=pool)) and group.limit(0))
    pool.poll_cb()
    if force.how == "abort":
        force.apply(paused)
    force.error_of(paused)


COMPOSITES: dict[str, Callable[..., procaio.Group]] = {
    "scandir": procaio.aio_scandir,
    "rmtree": procaio.aio_rmtree,
    "copytree": lambda path, **more: procaio.aio_copytree(path, path.with_name("copy"), **more),
}


@pytest.mark.parametrize("kind", COMPOSITES)
@pytest.mark.parametrize("after", [0, 1, 3])
def test_composite_request_ends_with_its_steps(
    workers: procaio.Pool, tmp_path: Path, kind: str, after: int
) -> None:
    """In whatever step it is, a worker that hangs does not keep it."""
    top = tmp_path / "top"
    for number in range(3):
        (top / str(number)).mkdir(parents=True)
        (top / str(number) / "file").write_bytes(b"content")
    pid = only_worker(workers)
    before = open_files()
    testing.arm(workers, "taken", signal.SIGSTOP, after=after)
    group = COMPOSITES[kind](top, pool=workers)
    calls: list[object] = []
    group.cb(lambda *values: calls.append((values, procaio.errno())))
    eventually(lambda: workers.poll_cb() == 0 and (has_stopped(pid) or bool(calls)), "it stops")
    if not calls:
        assert group.abort()
        with pytest.raises(OSError, match="aborted") as raised:
            group.wait(timeout=30)
        assert raised.value.filename == top
        expected = (None, None) if kind == "scandir" else (-1,)
        assert calls == [(expected, errno.ECANCELED)]
    del group
    testing.disarm(workers)
    eventually(lambda: works(workers) and open_files() == before, "what it had open is closed")
    assert workers.nreqs() == 0


@pytest.mark.parametrize("kind", COMPOSITES)
def test_composite_request_has_a_deadline(pool: procaio.Pool, tmp_path: Path, kind: str) -> None:
    """It has passed: then it is in vain, and the program's other threads do not matter."""
    (tmp_path / "top").mkdir()
    group = COMPOSITES[kind](tmp_path / "top", pool=pool, timeout=0)
    with pytest.raises(TimeoutError, match="in time") as raised:
        group.wait(timeout=30)
    assert raised.value.filename == tmp_path / "top"
    assert deadlines(pool) == 0
