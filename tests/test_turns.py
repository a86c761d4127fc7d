"""A turn of asyncio's loop: what it delivers and steps, for how long, and in whose context."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from asyncio_loops import LOOPS, runner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from conftest import Gate


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """asyncio.run, with each kind of loop."""
    return runner(request.param)


class Turns:
    """How many turns the loop has that runs."""

    def __init__(self) -> None:
        self.count = 0

    async def __aenter__(self) -> Turns:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        self._counting = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._counting.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1


# -- tasks that a turn steps itself ----------------------------------------------------------------


def scheduled_by(prepare: Callable[[Any], object], pool: procaio.Pool) -> int:
    """How many calls a loop is asked for while tasks await a hundred requests."""
    loop = asyncio.new_event_loop()
    prepare(loop)
    calls, call_soon = 0, loop.call_soon

    def counting(callback: Any, *args: Any, context: Any = None) -> Any:
        nonlocal calls
        calls += 1
        return call_soon(callback, *args, context=context)

    async def one() -> None:
        for _ in range(25):
            await procaio.aio_nop(pool=pool)

    async def main() -> int:
        tasks = [loop.create_task(one()) for _ in range(4)]
        await asyncio.sleep(0)
        loop.call_soon = counting
        await asyncio.wait(tasks)
        return calls

    try:
        return loop.run_until_complete(asyncio.wait_for(main(), 60))
    finally:
        loop.close()


def test_loop_need_not_call_tasks_whose_requests_have_ended(pool: procaio.Pool) -> None:
    """But for what the tasks' ends call, and where the loop is to measure or can be run twice."""
    assert scheduled_by(lambda _: None, pool) < 50
    assert scheduled_by(lambda loop: loop.set_debug(True), pool) >= 100
    assert scheduled_by(lambda loop: setattr(loop, "_nest_patched", True), pool) >= 100


def test_tasks_that_never_sleep_leave_the_loop_time_for_others(
    pool: procaio.Pool, run: Any
) -> None:
    """A turn steps some of them, and then the loop has a turn of its own."""

    async def one() -> None:
        for _ in range(50):
            await procaio.aio_nop(pool=pool)

    async def main() -> None:
        async with Turns() as turns:
            await asyncio.gather(*(one() for _ in range(64)))
        assert turns.count >= 50 * 64 / 32

    run(main())


def test_task_that_awaits_one_after_the_other_leaves_the_loop_time_for_others(
    workers: procaio.Pool, run: Any
) -> None:
    """The next result may be there before the turn ends, but a turn is not long."""

    async def main() -> None:
        async with Turns() as turns:
            for _ in range(3000):
                await procaio.aio_nop(pool=workers)
        assert turns.count >= 3000 / 200

    run(main())


def test_each_task_of_a_turn_has_its_own_context(pool: procaio.Pool, run: Any) -> None:
    name = contextvars.ContextVar("name", default="nobody's")

    async def one(number: int) -> None:
        for step in range(5):
            name.set(f"{number} {step}")
            await procaio.aio_nop(pool=pool)
            assert name.get() == f"{number} {step}"

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    run(main())


# -- naps: nobody rings while several workers are at work ------------------------------------------


async def load(path: Path, pool: procaio.Pool, times: int) -> None:
    """Again and again."""
    for _ in range(times):
        assert len(await procaio.aio_load(path, pool=pool)) == 65536


def test_loop_that_naps_while_workers_are_at_work_misses_nothing(
    workers: procaio.Pool, run: Any, data_file: Path
) -> None:
    async def main() -> None:
        await asyncio.gather(*(load(data_file, workers, 10) for _ in range(200)))

    run(main())
    assert workers.statistics().completed == 2000


def test_loop_sleeps_while_every_worker_hangs_however_much_waits_for_them(
    run: Any, gate: Gate, data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in the lanes would be work enough for one nap after the other."""
    turns, on_readable = 0, procaio.Pool._on_readable

    def counting(pool: procaio.Pool) -> None:
        nonlocal turns
        turns += 1
        on_readable(pool)

    async def main() -> None:
        with procaio.Pool(workers=2, at_once=False) as pool:
            await asyncio.gather(*(load(data_file, pool, 5) for _ in range(100)))
            held = gate.hold(pool, 2)
            loads = [asyncio.ensure_future(load(data_file, pool, 1)) for _ in range(400)]
            await asyncio.sleep(0)
            pool._on_readable()  # as it would be called for a result that came just before
            before = turns
            await asyncio.sleep(0.1)
            awakenings = turns - before
            gate.open(2)
            await asyncio.gather(*held, *loads)
            assert awakenings < 20

    monkeypatch.setattr(procaio.Pool, "_on_readable", counting)
    run(main())


# -- results that are at hand ----------------------------------------------------------------------


async def after_a_turn(pool: procaio.Pool) -> list[str]:
    """A list to which the loop adds an entry as soon as it has its next turn."""
    await procaio.aio_nop(pool=pool)
    turned: list[str] = []
    asyncio.get_running_loop().call_soon(turned.append, "turn")
    return turned


@pytest.fixture
def cached(data_file: Path) -> Iterator[int]:
    """A descriptor of a file that is in the cache."""
    fd = os.open(data_file, os.O_RDONLY)
    os.pread(fd, 65536, 0)
    yield fd
    os.close(fd)


def test_what_was_done_at_once_is_awaited_without_a_turn_of_the_loop(run: Any, cached: int) -> None:
    async def main() -> None:
        with procaio.Pool() as pool:
            turned = await after_a_turn(pool)
            assert await procaio.aio_read(cached, 100, 50, pool=pool) == os.pread(cached, 50, 100)
            assert (turned, pool.nreqs(), pool.npending()) == ([], 0, 0)
            assert pool.statistics().completed == 2

    run(main())


def test_reads_that_are_done_at_once_leave_the_loop_time_for_others(run: Any, cached: int) -> None:
    """However many one task awaits, or many do."""

    async def read(pool: procaio.Pool, times: int) -> None:
        for _ in range(times):
            assert len(await procaio.aio_read(cached, 0, 100, pool=pool)) == 100

    async def main() -> None:
        with procaio.Pool() as pool:
            async with Turns() as turns:
                await read(pool, 1000)
            assert turns.count >= 1000 // 32
            async with Turns() as turns:
                await asyncio.gather(*(read(pool, 20) for _ in range(50)))
            assert turns.count >= 1000 // 64

    run(main())


def test_callback_of_an_earlier_request_comes_before_what_is_at_hand(run: Any, cached: int) -> None:
    """Results are delivered in order of priority, then first come first served (B5)."""

    async def main() -> None:
        seen: list[str] = []
        with procaio.Pool() as pool:
            await after_a_turn(pool)
            procaio.aio_read(cached, 0, 100, lambda _: seen.append("earlier"), pool=pool)
            await procaio.aio_read(cached, 0, 100, pool=pool)
            assert seen == ["earlier"]
            await after_a_turn(pool)
            procaio.aio_read(cached, 0, 100, lambda _: seen.append("later"), pri=-1, pool=pool)
            await procaio.aio_read(cached, 0, 100, pool=pool)
            assert seen == ["earlier"]
            await procaio.aio_nop(pri=-2, pool=pool)
            assert seen == ["earlier", "later"]

    run(main())


def test_what_is_at_hand_calls_back_and_leaves_its_group_as_ever(run: Any, cached: int) -> None:
    """Callbacks run in poll_cb, and not where a task awaits (A2)."""

    async def main() -> None:
        seen: list[bytes] = []
        with procaio.Pool() as pool:
            await after_a_turn(pool)
            request = procaio.aio_read(cached, 0, 100, seen.append, pool=pool)
            request.__await__()
            assert (request.state, seen) == ("pending", [])
            await request
            assert seen == [os.pread(cached, 100, 0)]
            await after_a_turn(pool)
            group = procaio.aio_group(pool=pool)
            (request,) = group.add(procaio.aio_read(cached, 0, 100, pool=pool))
            request.__await__()
            assert request.state == "pending"
            await group

    run(main())


def test_callback_has_not_the_context_of_whoever_awaited_first(
    pool: procaio.Pool, run: Any
) -> None:
    """Which would be kept as long as the pool is, with all that is in it."""

    class Session:
        """What a task has in its context."""

    name: contextvars.ContextVar[Session | None] = contextvars.ContextVar("name", default=None)

    async def first() -> weakref.ref[Session]:
        session = Session()
        name.set(session)
        await procaio.aio_nop(pool=pool)
        return weakref.ref(session)

    async def main() -> None:
        session = await asyncio.create_task(first())
        seen: list[object] = []
        await procaio.aio_nop(lambda: seen.append(name.get()), pool=pool)
        gc.collect()
        assert (seen, session()) == ([None], None)

    run(main())


def test_callback_has_the_context_of_who_attached_the_pool(pool: procaio.Pool, run: Any) -> None:
    """Libraries keep there which event loop it is (anyio), whoever has awaited before."""
    name = contextvars.ContextVar("name", default="nobody's")

    async def main() -> None:
        await procaio.aio_nop(pool=pool)
        name.set("attached")
        with procaio.attach(pool=pool):
            name.set("later")
            seen: list[str] = []
            await procaio.aio_nop(lambda: seen.append(name.get()), pool=pool)
        assert seen == ["attached"]

    run(main())


@pytest.mark.parametrize("is_attached", [True, False])
def test_callback_may_use_anyio(pool: procaio.Pool, run: Any, *, is_attached: bool) -> None:
    """Which asks in what kind of loop it is, and a callback is in no task."""
    anyio = pytest.importorskip("anyio")

    async def main() -> None:
        if is_attached:
            procaio.attach(pool=pool)
        else:
            await procaio.aio_nop(pool=pool)
        events: list[Any] = []
        request = procaio.aio_nop(lambda: events.append(anyio.Event()), pool=pool)
        async with anyio.create_task_group() as group:
            procaio.aio_nop(lambda: group.start_soon(anyio.sleep, 0), pool=pool)
            await request
            events[0].set()
            await procaio.aio_nop(pool=pool)

    run(main())


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_task_that_ends_the_program_takes_no_result_from_others(
    pool: procaio.Pool, end: type[BaseException]
) -> None:
    """It leaves the loop at once; those that were to go on in the same turn do so in the next."""
    ended: list[int] = []

    async def one(number: int) -> None:
        await procaio.aio_nop(pool=pool)
        ended.append(number)
        if number == 3:
            raise end

    loop = asyncio.new_event_loop()
    tasks = [loop.create_task(one(number)) for number in range(8)]
    with pytest.raises(end):
        loop.run_until_complete(asyncio.wait_for(asyncio.wait(tasks), 60))
    assert 3 in ended
    loop.run_until_complete(asyncio.wait_for(asyncio.wait(tasks), 60))
    assert ended == list(range(8))
    with pytest.raises(end):
        tasks[3].result()
    loop.close()


def test_task_may_wait_poll_and_close_the_pool_in_the_turn_that_steps_it(run: Any) -> None:
    """By then the turn has delivered all it was to."""
    with procaio.Pool() as pool:

        async def one(number: int) -> int:
            await procaio.aio_nop(pool=pool)
            if number == 0:
                assert procaio.aio_stat("/", pool=pool).wait() == os.stat("/")
                pool.flush()
                pool.close()
            return number

        async def main() -> None:
            assert await asyncio.gather(*(one(n) for n in range(8))) == list(range(8))

        run(main())
