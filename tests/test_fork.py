"""os.fork() and multiprocessing: the parent goes on, the child begins anew (rules P1 to P3)."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import select
import signal
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import descriptors, eventually, in_child, succeeds

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

LARGE = 9 << 20  # more than a block of the shared segments: it has a segment of its own


@pytest.fixture(params=["default pool", "own pool"])
def used(request: pytest.FixtureRequest, data_file: Path) -> Any:
    """A pool that has done something already: the default one, or another."""
    with procaio.Pool() if request.param == "own pool" else procaio.default_pool() as pool:
        procaio.aio_stat(data_file, pool=pool).wait()
        yield pool


def test_parent_goes_on_with_every_request(used: procaio.Pool, gate: Any, data_file: Path) -> None:
    """What was made before the fork ends exactly once, in the parent."""
    calls: list[str] = []
    held = gate.hold(used, 2)
    for request in held:
        request.cb(lambda _: calls.append("held"))
    queued = [
        procaio.aio_stat(data_file, lambda _: calls.append("stat"), pool=used) for _ in range(5)
    ]
    pid = in_child(lambda: (procaio.aio_nop(pool=used).wait(), used.flush()))
    gate.open(2)
    assert succeeds(pid)
    used.flush()
    assert sorted(calls) == ["held", "held", *["stat"] * 5]
    assert [r.result for r in held + queued] == [b"x", b"x", *[os.stat(data_file)] * 5]


def test_child_has_its_own_pool_under_the_same_number(used: procaio.Pool, data_file: Path) -> None:
    """The child's first request starts processes of its own; poll_fileno keeps its number."""
    number, parents = used.poll_fileno(), used.statistics()

    def work() -> None:
        assert used.nreqs() == used.nworkers() == 0
        request = procaio.aio_stat(data_file, pool=used)
        assert used.poll_fileno() == number
        assert select.select([number], [], [], 20)[0]
        while request.state != "done":
            used.poll_cb()
        assert request.result == os.stat(data_file)
        mine = used.statistics()
        assert mine.spawner_pid != parents.spawner_pid
        assert {w.pid for w in mine.workers}.isdisjoint({w.pid for w in parents.workers})
        used.close()

    assert succeeds(in_child(work))
    assert procaio.aio_stat(data_file, pool=used).wait() == os.stat(data_file)
    assert used.statistics().spawner_pid == parents.spawner_pid


def test_request_of_the_parent_is_dead_in_the_child(used: procaio.Pool, gate: Any) -> None:
    """It says so, waiting raises PoolClosed, and its callback is not called."""
    calls: list[int] = []
    (held,) = gate.hold(used)
    held.cb(lambda _: calls.append(os.getpid()))
    pending = procaio.aio_nop(pool=used)
    eventually(lambda: used.npending() == 1, "it is executed")

    def check() -> None:
        for request in (held, pending):
            assert request.state == "dead"
            assert "dead" in repr(request)
            assert not request.cancel()
            with pytest.raises(procaio.PoolClosed):
                request.wait()
            with pytest.raises(procaio.PoolClosed):
                asyncio.run(waited(request))

    def work() -> None:
        check()
        procaio.aio_nop(pool=used).wait()
        check()
        assert calls == []

    pid = in_child(work)
    gate.open()
    assert succeeds(pid)
    assert held.wait() == b"x"
    assert pending.wait() is None
    assert calls == [os.getpid()]


async def waited(request: procaio.Request[Any]) -> Any:
    """The request's value, as a task gets it."""
    return await request


def test_child_that_never_uses_the_pool_holds_nothing_up(
    used: procaio.Pool, gate: Any, tmp_path: Path
) -> None:
    """It ends at once, and nothing of the parent's pool is open in it."""
    held = gate.hold(used)
    reader, writer = os.pipe()
    os.mkfifo(tmp_path / "end")
    shared = used.statistics().shared_bytes

    def work() -> None:
        left = [what for what in descriptors().values() if what.startswith("anon_inode:[pidfd")]
        left += [what for what in descriptors().values() if "/dev/shm/" in what]
        assert left == []
        os.read(reader, 1)

    pid = in_child(work)
    with procaio.Buffer(LARGE, pool=used):
        assert used.statistics().shared_bytes > shared
    gate.open()
    assert held[0].wait() == b"x"
    used.close()
    os.write(writer, b"x")
    assert succeeds(pid)
    os.close(reader)
    os.close(writer)


def test_child_that_ends_normally_without_using_the_pool_starts_none(used: procaio.Pool) -> None:
    """At its exit the child closes what is not there; it makes no pool for that."""
    held = procaio.aio_busy(0.2, pool=used)
    source = used._begin
    used._begin = lambda: os._exit(3)  # type: ignore[method-assign] # it would be called to reopen
    try:

        def work() -> None:
            used._close(used.exit_timeout())
            assert used.closed
            with pytest.raises(procaio.PoolClosed):
                procaio.aio_nop(pool=used)

        assert succeeds(in_child(work))
    finally:
        used._begin = source  # type: ignore[method-assign]
    assert held.wait() is None


def test_fork_in_a_forked_child(used: procaio.Pool, data_file: Path) -> None:
    """Every generation has its own pool, whether the one before used it or not."""
    number = used.poll_fileno()

    def use() -> None:
        assert procaio.aio_stat(data_file, pool=used).wait() == os.stat(data_file)
        assert used.poll_fileno() == number

    def child_that_uses() -> None:
        use()
        assert succeeds(in_child(use))
        use()
        used.close()

    def child_that_does_not() -> None:
        assert succeeds(in_child(use))

    assert succeeds(in_child(child_that_uses))
    assert succeeds(in_child(child_that_does_not))
    use()


@pytest.mark.parametrize("size", [100, LARGE])
def test_buffer_of_the_parent_is_harmless_in_the_child(
    used: procaio.Pool, data_file: Path, size: int
) -> None:
    """The child may look at it, write to it and release it: the parent's content stays."""
    with procaio.Buffer(size, pool=used) as buffer, open(data_file, "rb") as file:
        memoryview(buffer)[:] = b"p" * size

        def work(first: str) -> None:
            if first == "use":
                procaio.aio_nop(pool=used).wait()
            memoryview(buffer)[:] = b"c" * size
            others = [procaio.Buffer(size, pool=used) for _ in range(3)]
            buffer.release()
            for other in others:
                assert procaio.aio_read(file, 0, 100, other, pool=used).wait() == 100
                assert other[:100] == data_file.read_bytes()[:100]
            assert procaio.Buffer(size, pool=used)[:] == bytes(size)

        assert succeeds(in_child(lambda: work("use")))
        assert succeeds(in_child(lambda: work("release")))
        assert bytes(buffer) == b"p" * size
        assert procaio.aio_read(file, 0, 100, buffer, pool=used).wait() == 100
        assert buffer[:100] == data_file.read_bytes()[:100]


@pytest.mark.parametrize("size", [100, LARGE])
def test_buffer_of_a_closed_pool_is_harmless_in_the_child(size: int) -> None:
    """A Buffer that has outlived its pool is a copy in the child, like any other."""
    with procaio.Pool() as pool:
        buffer = procaio.Buffer(size, pool)
    memoryview(buffer)[:] = b"p" * size

    def work() -> None:
        memoryview(buffer)[:] = b"c" * size
        buffer.release()

    assert succeeds(in_child(work))
    assert bytes(buffer) == b"p" * size


@pytest.mark.parametrize(
    "how", ["held", "held, and the child has a pool", "held by the pool alone"]
)
def test_large_request_in_flight_is_untouched_by_a_child_that_drops_it(
    used: procaio.Pool, gate: Any, how: str
) -> None:
    """Freeing the parent's request in the child does not give up the memory that it reads into."""
    results: list[bytes] = []
    requests = [procaio.aio_read(gate.fd, None, LARGE, results.append, pool=used)]
    eventually(lambda: requests[0].state == "execute", "it runs")
    if how == "held by the pool alone":
        requests.clear()

    def work() -> None:
        if how == "held, and the child has a pool":
            procaio.aio_nop(pool=used).wait()
        requests.clear()
        gc.collect()
        with procaio.Buffer(LARGE, pool=used) as buffer:
            assert buffer[:] == bytes(LARGE)

    assert succeeds(in_child(work))
    gate.open(60000)
    used.flush()
    assert results == [b"x" * 60000]


def test_descriptors_on_their_way_do_not_leak_into_the_child(
    used: procaio.Pool, tmp_path: Path
) -> None:
    """What a worker has opened and the parent has not yet taken over is not the child's."""
    (tmp_path / "there").touch()
    request = procaio.aio_open(tmp_path / "there", pool=used)
    eventually(lambda: used.npending() == 1, "it is open")
    path = os.fspath(tmp_path / "there")
    assert path in descriptors().values()

    def work() -> None:
        assert path not in descriptors().values()

    assert succeeds(in_child(work))
    with request.wait() as handle:
        assert os.fstat(handle.fileno()).st_size == 0


def test_fork_in_a_callback(used: procaio.Pool, data_file: Path) -> None:
    """The child comes out of poll_cb() with no request left; the parent goes on delivering."""
    parent, pids = os.getpid(), []

    def fork(_: object) -> None:
        pids.append(os.fork())
        if pids[-1] == 0:
            signal.alarm(60)

    requests = [procaio.aio_stat(data_file, fork, pool=used)]
    requests += [procaio.aio_stat(data_file, pool=used) for _ in range(9)]
    try:
        while used.nreqs():
            used.poll()
        if os.getpid() != parent:
            states = [request.state for request in requests]
            fresh = procaio.aio_stat(data_file, pool=used).wait()
            right = states == ["done", *["dead"] * 9] and fresh == os.stat(data_file)
            os._exit(0 if right else 2)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert [request.state for request in requests] == ["done"] * 10
    assert succeeds(pids[0])


def test_asyncio_in_parent_and_child(used: procaio.Pool, data_file: Path) -> None:
    """Each has a loop of its own, on the same number, before and after the fork."""

    async def some() -> list[Any]:
        return await asyncio.gather(
            *(waited(procaio.aio_stat(data_file, pool=used)) for _ in range(20))
        )

    expected = [os.stat(data_file)] * 20
    assert asyncio.run(some()) == expected

    def work() -> None:
        assert asyncio.run(some()) == expected

    pid = in_child(work)
    assert asyncio.run(some()) == expected
    assert succeeds(pid)


def _size(path: str) -> int:
    return procaio.aio_stat(path).wait().st_size


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_use_pools_of_their_own(data_file: Path, method: str) -> None:
    """A Process of multiprocessing does I/O through procaio, however it was started."""
    assert _size(os.fspath(data_file)) == 65536
    context = multiprocessing.get_context(method)
    running = [context.Process(target=_check_size, args=(str(data_file),)) for _ in range(2)]
    for process in running:
        process.start()
    assert _size(os.fspath(data_file)) == 65536
    for process in running:
        process.join(60)
        assert process.exitcode == 0
        process.close()
    if method != "fork":
        _stop_helpers(method)


def _check_size(path: str) -> None:
    os._exit(0 if _size(path) == 65536 else 1)


def _stop_helpers(method: str) -> None:
    """There are processes of multiprocessing itself; the look at what is left would find them."""
    from multiprocessing import forkserver, resource_tracker  # noqa: PLC0415 - only here

    if method == "forkserver":
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
