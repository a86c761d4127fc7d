"""await in asyncio (and uvloop): no set-up, any number of loops, nothing leaks when cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from asyncio_loops import LOOPS, runner
from conftest import descriptors, eventually, run_fine

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from conftest import Gate


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """asyncio.run, with each kind of loop."""
    return runner(request.param)


# -- await -----------------------------------------------------------------------------------------


def test_await_gives_the_value_or_raises(pool: procaio.Pool, run: Any, data_file: Path) -> None:
    """What wait() gives; the OSError with its path; None for what yields nothing."""

    async def main() -> None:
        assert await procaio.aio_stat(data_file, pool=pool) == os.stat(data_file)
        assert await procaio.aio_nop(pool=pool) is None
        with await procaio.aio_open(data_file, pool=pool) as handle:
            assert len(await procaio.aio_read(handle, 0, 10**6, pool=pool)) == 65536
        assert await procaio.aio_readdirx(data_file.parent, 0, pool=pool) == (["data"], 0)
        with pytest.raises(FileNotFoundError) as raised:
            await procaio.aio_stat("/no", pool=pool)
        assert raised.value.filename == "/no"

    run(main())


def test_await_does_not_hold_the_loop_up(workers: procaio.Pool, run: Any, gate: Gate) -> None:
    """While one task waits, others go on."""

    async def main() -> None:
        waiting = asyncio.ensure_future(procaio.aio_read(gate.fd, None, 1, pool=workers))
        for _ in range(20):
            await procaio.aio_nop(pool=workers)
        assert not waiting.done()
        gate.open()
        assert await waiting == b"x"

    run(main())


def test_await_of_a_finished_request_gives_its_value_at_once(pool: procaio.Pool, run: Any) -> None:
    """Awaited twice, or after the callback: always the same value, or a new exception."""
    request, failed = procaio.aio_stat("/", pool=pool), procaio.aio_stat("/no", pool=pool)
    pool.flush()

    async def main() -> None:
        assert await request is await request is request.result
        errors = []
        for _ in range(2):
            with pytest.raises(FileNotFoundError) as raised:
                await failed
            errors.append(raised.value)
        assert errors[0] is not errors[1]

    run(main())


def test_await_of_a_cancelled_request_raises(pool: procaio.Pool, run: Any) -> None:
    async def main() -> None:
        request = procaio.aio_nop(pool=pool)
        request.cancel()
        for _ in range(2):
            with pytest.raises(procaio.RequestCancelled):
                await request

    run(main())


def test_several_tasks_await_one_request(workers: procaio.Pool, run: Any, gate: Gate) -> None:
    """Each gets the value, in the order in which they came; the callback runs first."""
    order: list[object] = []

    async def waiter(request: procaio.Request[bytes], number: int) -> None:
        order.append((number, await request))

    async def main() -> None:
        (held,) = gate.hold(workers)
        held.cb(order.append)
        tasks = [asyncio.ensure_future(waiter(held, number)) for number in range(5)]
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(*tasks)

    run(main())
    assert order == [b"x", *((number, b"x") for number in range(5))]


def test_gather_runs_requests_side_by_side(pool: procaio.Pool, run: Any, data_file: Path) -> None:
    """Requests are awaitables like others, failures included."""

    async def main() -> None:
        with await procaio.aio_open(data_file, pool=pool) as handle:
            blocks = await asyncio.gather(
                *(procaio.aio_read(handle, n * 16, 16, pool=pool) for n in range(300)),
                procaio.aio_stat("/no", pool=pool),
                return_exceptions=True,
            )
        assert blocks[:-1] == [n.to_bytes(16, "big") for n in range(300)]
        assert isinstance(blocks[-1], FileNotFoundError)

    run(main())


@pytest.mark.skipif(not hasattr(asyncio, "TaskGroup"), reason="from Python 3.11 on")
def test_task_group_cancels_the_others_on_a_failure(
    workers: procaio.Pool, run: Any, gate: Gate
) -> None:
    async def fail() -> None:
        await procaio.aio_stat("/no", pool=workers)

    async def wait_for(request: procaio.Request[bytes]) -> None:
        await request

    async def main() -> None:
        (held,) = gate.hold(workers)
        with pytest.raises(BaseException) as raised:  # noqa: PT012 - 3.10 has no except*
            async with asyncio.TaskGroup() as group:
                group.create_task(wait_for(held))
                group.create_task(fail())
        assert [type(error) for error in raised.value.exceptions] == [FileNotFoundError]
        assert held.state == "cancelled"
        gate.open()

    run(main())
    workers.flush()


@pytest.mark.skipif(not hasattr(asyncio, "timeout"), reason="from Python 3.11 on")
def test_timeout_cancels_the_request_and_no_more(
    workers: procaio.Pool, run: Any, gate: Gate
) -> None:
    """asyncio.timeout() around one await, and around a whole task group."""

    async def main() -> None:
        held, other = gate.hold(workers, 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await held
        assert held.state == "cancelled"
        async with asyncio.timeout(60) as scope:
            gate.open(2)
            assert await other == b"x"
        assert not scope.expired()

    run(main())
    workers.flush()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="from Python 3.12 on")
def test_eager_tasks_begin_at_once_and_go_on_in_the_loop(pool: procaio.Pool, run: Any) -> None:
    """What has ended already never leaves the caller's turn; everything else is a task as ever."""
    ended = procaio.aio_stat("/", pool=pool)
    pool.flush()

    async def stat(request: procaio.Request[os.stat_result]) -> os.stat_result:
        return await request

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def eager(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
            return asyncio.Task(coroutine, loop=loop, eager_start=True)

        assert eager(stat(ended)).done()
        tasks = [eager(stat(procaio.aio_stat("/", pool=pool))) for _ in range(50)]
        assert not any(task.done() for task in tasks)
        assert set(await asyncio.gather(*tasks)) == {os.stat("/")}
        late = eager(stat(procaio.aio_stat("/no", pool=pool)))
        with pytest.raises(FileNotFoundError):
            await late

    run(main())


def test_await_without_a_running_loop_tells_what_to_do(pool: procaio.Pool) -> None:
    """RuntimeError naming the alternatives; the request is unharmed."""
    request = procaio.aio_busy(0, pool=pool)

    async def main() -> None:
        await request

    coroutine = main()
    with pytest.raises(RuntimeError, match=r"\.wait\(\)"):
        coroutine.send(None)
    assert request.wait() is None


def test_callback_sees_the_same_as_the_task(pool: procaio.Pool, run: Any) -> None:
    """A request may have a callback and be awaited."""
    seen: list[object] = []

    async def main() -> None:
        status = await procaio.aio_stat("/", seen.append, pool=pool)
        assert seen == [status]

    run(main())


def test_task_in_another_thread_goes_on_after_the_callback(
    workers: procaio.Pool, gate: Gate
) -> None:
    """Also where its loop has every chance to run while the callback does."""
    (held,) = gate.hold(workers)
    order: list[str] = []
    awaiting, delivering, turned = threading.Event(), threading.Event(), threading.Event()

    def callback(_: bytes) -> None:
        order.append("begin")
        delivering.set()
        assert turned.wait(20)
        order.append("end")

    async def task() -> None:
        await held
        order.append("task")

    async def main() -> None:
        waiting = asyncio.ensure_future(task())
        await asyncio.sleep(0)
        awaiting.set()
        assert delivering.wait(20)  # the loop is held up: the other thread delivers
        for _ in range(20):
            await asyncio.sleep(0)
        turned.set()
        await waiting

    held.cb(callback)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(asyncio.run, main())
        assert awaiting.wait(20)
        gate.open()
        workers.flush()
        running.result(20)
    assert order == ["begin", "end", "task"]


def test_context_of_the_task_is_kept(pool: procaio.Pool, run: Any) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def task(number: int) -> None:
        variable.set(number)
        await procaio.aio_busy(0.001, pool=pool)
        assert variable.get() == number

    async def main() -> None:
        await asyncio.gather(*(task(number) for number in range(10)))

    run(main())


# -- cancelling ------------------------------------------------------------------------------------


def test_wait_for_that_times_out_cancels_the_request(
    workers: procaio.Pool, run: Any, gate: Gate
) -> None:
    """The builtin timeout of asyncio works; what runs, runs on and is thrown away (L1)."""

    async def main() -> procaio.Request[bytes]:
        (held,) = gate.hold(workers)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(held, 0.01)
        assert held.state == "cancelled"
        gate.open()
        return held

    held = run(main())
    workers.flush()
    assert held.result is None


def test_cancelled_task_takes_its_ready_request_back(
    workers: procaio.Pool, run: Any, gate: Gate, tmp_path: Path
) -> None:
    """Nobody else waits for it: it is never executed."""
    workers.max_parallel(1)

    async def main() -> None:
        gate.hold(workers)
        request = procaio.aio_mkdir(tmp_path / "no", pool=workers)
        task = asyncio.ensure_future(request)
        await asyncio.sleep(0)
        task.cancel("because")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert request.state == "cancelled"
        gate.open()
        await procaio.aio_nop(pool=workers)

    run(main())
    assert os.listdir(tmp_path) == ["gate"]


def test_cancelled_task_still_closes_what_it_was_closing(
    workers: procaio.Pool, run: Any, gate: Gate, data_file: Path
) -> None:
    """`finally: await aio_close(...)` leaves nothing open, also if it is cancelled there itself."""
    workers.max_parallel(1)
    numbers: list[int] = []

    async def main() -> None:
        handle = await procaio.aio_open(data_file, pool=workers)
        number = os.open(data_file, os.O_RDONLY)
        numbers.extend((handle.fileno(), number))
        gate.hold(workers)
        requests = [procaio.aio_close(each, pool=workers) for each in (handle, number)]
        closing = [asyncio.ensure_future(request) for request in requests]
        await asyncio.sleep(0)
        for task in closing:
            task.cancel()
        await asyncio.wait(closing)
        assert all(task.cancelled() for task in closing)
        assert [request.state for request in requests] == ["ready", "ready"]
        assert handle.closed
        gate.open()
        await procaio.aio_nop(pool=workers)
        assert [request.state for request in requests] == ["done", "done"]

    run(main())
    assert set(numbers) & set(descriptors()) == set()


def test_cancelled_task_leaves_a_request_that_others_want(
    workers: procaio.Pool, run: Any, gate: Gate
) -> None:
    """Another task, or a callback, still gets the result."""
    seen: list[bytes] = []

    async def main() -> None:
        first, second = gate.hold(workers, 2)
        second.cb(seen.append)
        tasks = [asyncio.ensure_future(request) for request in (first, first, second)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.wait([tasks[0], tasks[2]])
        assert (first.state, second.state) == ("execute", "execute")
        gate.open(2)
        assert await tasks[1] == b"x"
        await second

    run(main())
    assert seen == [b"x"]


def test_descriptor_that_arrives_after_the_cancelling_is_closed(
    workers: procaio.Pool, run: Any, tmp_path: Path
) -> None:
    """Cancelling a task that awaits aio_open leaks nothing, whenever it comes."""
    os.mkfifo(tmp_path / "fifo")
    before = descriptors()

    async def main() -> None:
        opening = asyncio.ensure_future(procaio.aio_open(tmp_path / "fifo", pool=workers))
        await asyncio.sleep(0)
        eventually(lambda: workers.statistics().queued[0] == 0, "it is taken")
        opening.cancel()
        await asyncio.wait([opening])
        with await procaio.aio_open(tmp_path / "fifo", os.O_RDWR, pool=workers):
            while workers.nreqs():
                await procaio.aio_nop(pool=workers)

    run(main())

    def fifos() -> list[str]:
        new = [what for number, what in descriptors().items() if before.get(number) != what]
        return [what for what in new if "fifo" in what]

    eventually(lambda: not fifos(), "a worker has closed it")


def test_descriptor_that_was_delivered_to_a_cancelled_task_is_closed(
    pool: procaio.Pool, run: Any, data_file: Path
) -> None:
    """Between the result and the task's next step there is a moment; nothing leaks in it either."""

    async def opener() -> None:
        with await procaio.aio_open(data_file, pool=pool, pri=1):
            pytest.fail("the task was cancelled")

    async def main() -> None:
        task = asyncio.ensure_future(opener())
        await asyncio.sleep(0)
        end = procaio.aio_nop(task.cancel, pool=pool, pri=-1)
        eventually(lambda: pool.npending() == 2, "both are executed")
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        await end

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(main())
        gc.collect()
    assert caught == [], "the program could not have closed it"


def test_descriptor_delivered_to_a_cancelled_task_and_kept_by_the_program_stays_open(
    pool: procaio.Pool, run: Any, data_file: Path
) -> None:
    """Whoever holds the request can still use what it yielded."""
    requests = []

    async def opener() -> None:
        requests.append(procaio.aio_open(data_file, pool=pool, pri=1))
        await requests[0]

    async def main() -> None:
        task = asyncio.ensure_future(opener())
        await asyncio.sleep(0)
        procaio.aio_nop(task.cancel, pool=pool, pri=-1)
        eventually(lambda: pool.npending() == 2, "both are executed")
        with contextlib.suppress(asyncio.CancelledError):
            await task

    run(main())
    gc.collect()
    with requests[0].result as handle:
        assert os.read(handle.fileno(), 16) == data_file.read_bytes()[:16]


# -- loops -----------------------------------------------------------------------------------------


def test_many_loops_one_after_the_other_leave_nothing(pool: procaio.Pool) -> None:
    """asyncio.run attaches the pool, and the closed loop is forgotten."""

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        await procaio.aio_nop(pool=pool)
        return weakref.ref(asyncio.get_running_loop())

    asyncio.run(main())
    before = len(descriptors())
    loops = [asyncio.run(main()) for _ in range(50)]
    assert len(descriptors()) == before
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1


def test_two_loops_in_two_threads_use_one_pool(pool: procaio.Pool) -> None:
    """Whichever loop delivers, each task is woken in its own thread."""
    together = threading.Barrier(2)

    async def main() -> bool:
        together.wait()
        thread = threading.get_ident()
        for n in range(300):
            status = await procaio.aio_stat("/", pool=pool)
            assert status.st_ino == os.stat("/").st_ino, n
            assert threading.get_ident() == thread
        return True

    with ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(asyncio.run, main()) for _ in range(2)]
        assert [future.result(60) for future in futures] == [True, True]


def test_request_awaited_in_one_loop_and_waited_for_in_another_thread(
    workers: procaio.Pool, gate: Gate
) -> None:
    (held,) = gate.hold(workers)

    async def main() -> bytes:
        return await held

    with ThreadPoolExecutor(3) as executor:
        futures = [executor.submit(asyncio.run, main()) for _ in range(2)]
        futures.append(executor.submit(held.wait))
        gate.open()
        assert [future.result(60) for future in futures] == [b"x"] * 3


def test_threads_that_wait_beside_a_loop_are_woken_when_they_are_to_be() -> None:
    """The loop looks at the same descriptor, and must not take away what was to wake a thread: it
    would sleep until it looks by itself, for a second, a hundred times and more.
    """
    run_fine("""
        import asyncio, threading, procaio
        from concurrent.futures import ThreadPoolExecutor
        def wait():
            for _ in range(400):
                procaio.aio_stat("/").wait()
        async def task():
            while not over.is_set():
                await procaio.aio_stat("/")
        async def main():
            loop = asyncio.get_running_loop()
            tasks = [asyncio.create_task(task()) for _ in range(3)]
            await asyncio.gather(*(loop.run_in_executor(executor, wait) for _ in range(3)))
            over.set()
            await asyncio.gather(*tasks)
        over, executor = threading.Event(), ThreadPoolExecutor(3)
        asyncio.run(main())
        print("fine")
    """)


def test_debug_mode_finds_nothing_to_complain_about(
    pool: procaio.Pool, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """No call from a wrong thread, no task that was never retrieved."""

    async def main() -> None:
        await asyncio.gather(*(procaio.aio_nop(pool=pool) for _ in range(20)))
        with pytest.raises(OSError, match="No such file"):
            await procaio.aio_stat("/no", pool=pool)

    run(main(), debug=True)
    assert [r for r in caplog.records if "took" not in r.getMessage()] == []


def test_pool_made_and_closed_inside_a_loop(run: Any) -> None:
    """close() detaches from the loop; the next pool attaches again."""

    async def main() -> None:
        for inline in (False, True, False):
            with procaio.Pool(inline=inline) as pool:
                late = procaio.aio_nop(pool=pool)
                await procaio.aio_nop(pool=pool)
            assert late.state == "done"
            await late

    run(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_callback_leaves_the_loop(
    pool: procaio.Pool, kind: type[BaseException]
) -> None:
    """As from any callback of asyncio's; the pool goes on in the next loop (A14)."""

    def interrupt() -> None:
        raise kind

    async def main() -> None:
        await procaio.aio_nop(pool=pool)  # from here on the loop delivers
        procaio.aio_nop(interrupt, pool=pool)
        await asyncio.wait_for(asyncio.Event().wait(), 60)

    with pytest.raises(kind):
        asyncio.run(main())

    async def after() -> None:
        await procaio.aio_nop(pool=pool)

    asyncio.run(after())


@pytest.mark.better
def test_exception_in_a_callback_does_not_disturb_the_loop(pool: procaio.Pool, run: Any) -> None:
    caught: list[object] = []
    procaio.on_callback_error(lambda error, _request: caught.append(type(error)))

    async def main() -> None:
        assert await procaio.aio_nop(lambda: 1 / 0, pool=pool) is None

    run(main())
    assert caught == [ZeroDivisionError]


def test_references_of_awaited_requests_go(pool: procaio.Pool, run: Any) -> None:
    """Nothing holds a request once it was awaited, and no cycle needs the collector."""

    async def main() -> None:
        request = procaio.aio_nop(pool=pool)
        await request
        alive = weakref.ref(request)
        del request
        await asyncio.sleep(0)  # the loop still has the handle that woke this task
        assert alive() is None

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_an_attachment_that_ends_leaves_those_who_await_alone(pool: procaio.Pool) -> None:
    """Only what it has attached itself is detached."""

    async def main() -> None:
        with procaio.attach(pool=pool):
            workers = pool.max_parallel(0)
            waiting = asyncio.ensure_future(until(procaio.aio_stat("/", pool=pool)))
            await asyncio.sleep(0)
        pool.min_parallel(workers)
        assert await waiting == os.stat("/")

    async def until(request: procaio.Request[os.stat_result]) -> os.stat_result:
        return await request

    asyncio.run(asyncio.wait_for(main(), 60))
