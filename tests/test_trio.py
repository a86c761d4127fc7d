"""await in trio, and in anyio on both of its back ends."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import descriptors, eventually, run_fine

trio: Any = pytest.importorskip("trio")
trio_testing: Any = pytest.importorskip("trio.testing")
anyio: Any = pytest.importorskip("anyio")

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate


async def wait_for(request: procaio.Request[Any]) -> Any:
    """What a nursery can start."""
    return await request


# -- await -----------------------------------------------------------------------------------------


def test_await_gives_the_value_or_raises(pool: procaio.Pool, data_file: Path) -> None:
    async def main() -> None:
        assert await procaio.aio_stat(data_file, pool=pool) == os.stat(data_file)
        with await procaio.aio_open(data_file, pool=pool) as handle:
            assert len(await procaio.aio_read(handle, 0, 10**6, pool=pool)) == 65536
        with pytest.raises(FileNotFoundError) as raised:
            await procaio.aio_stat("/no", pool=pool)
        assert raised.value.filename == "/no"

    trio.run(main)


def test_every_await_is_a_checkpoint(pool: procaio.Pool) -> None:
    """Also of a request that has ended already: others get their turn, and cancelling works."""
    request = procaio.aio_nop(pool=pool)
    pool.flush()

    async def main() -> None:
        with trio_testing.assert_checkpoints():
            await request
        with trio_testing.assert_checkpoints():
            await procaio.aio_nop(pool=pool)
        with trio.CancelScope() as scope:
            scope.cancel()
            await request
            pytest.fail("it was cancelled")
        assert scope.cancelled_caught

    trio.run(main)


def test_many_tasks_of_a_nursery_wait_at_the_same_time(pool: procaio.Pool, data_file: Path) -> None:
    blocks: dict[int, bytes] = {}

    async def read(handle: procaio.FileHandle, number: int) -> None:
        blocks[number] = await procaio.aio_read(handle, 16 * number, 16, pool=pool)

    async def main() -> None:
        with await procaio.aio_open(data_file, pool=pool) as handle:
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(read, handle, number)

    trio.run(main)
    assert blocks == {number: number.to_bytes(16, "big") for number in range(300)}


def test_failure_in_a_nursery_cancels_the_requests_of_the_others(
    workers: procaio.Pool, gate: Gate
) -> None:
    (held,) = gate.hold(workers)

    async def main() -> None:
        with pytest.raises(BaseException) as raised:  # noqa: PT012 - a group, or the error
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for, held)
                nursery.start_soon(wait_for, procaio.aio_stat("/no", pool=workers))
        error: Any = raised.value
        assert [type(each) for each in error.exceptions] == [FileNotFoundError]
        assert held.state == "cancelled"
        gate.open()

    trio.run(main)
    workers.flush()


# -- cancelling ------------------------------------------------------------------------------------


def test_scope_that_ends_takes_the_request_back(
    workers: procaio.Pool, gate: Gate, tmp_path: Path
) -> None:
    """What no worker had taken is never run."""
    workers.max_parallel(1)
    gate.hold(workers)

    async def main() -> None:
        with trio.move_on_after(0.001) as scope:
            await procaio.aio_mkdir(tmp_path / "never", pool=workers)
        assert scope.cancelled_caught
        gate.open()
        await procaio.aio_nop(pool=workers)

    trio.run(main)
    assert os.listdir(tmp_path) == ["gate"]


def test_shielded_task_gets_its_value(workers: procaio.Pool, gate: Gate) -> None:
    """A clean-up may await what closes and removes."""
    (held,) = gate.hold(workers)
    got: list[object] = []

    async def clean_up() -> None:
        with trio.CancelScope(shield=True):
            got.append(await held)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clean_up)
            await trio_testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            gate.open()

    trio.run(main)
    assert got == [b"x"]


def test_cancelled_task_leaves_a_request_that_others_want(
    workers: procaio.Pool, gate: Gate
) -> None:
    (held,) = gate.hold(workers)
    got: list[object] = []

    async def other() -> None:
        got.append(await held)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await trio_testing.wait_all_tasks_blocked()
            with trio.move_on_after(0.001):
                await held
            assert held.state == "execute"
            gate.open()

    trio.run(main)
    assert got == [b"x"]


@pytest.mark.parametrize("library", ["trio", "anyio-asyncio", "anyio-trio"])
def test_descriptor_just_delivered_to_a_cancelled_task_is_not_lost(
    workers: procaio.Pool, data_file: Path, library: str
) -> None:
    """Another thread delivers it, then the scope is cancelled, before the task has its turn."""

    async def opener(scope: Any, opened: list[int]) -> None:
        with scope, await procaio.aio_open(data_file, pool=workers) as handle:
            opened.append(handle.fileno())
            await checkpoint()

    async def checkpoint() -> None:
        await (trio.lowlevel.checkpoint() if library == "trio" else anyio.sleep(0))

    async def main() -> None:
        scope = trio.CancelScope() if library == "trio" else anyio.CancelScope()
        group = trio.open_nursery() if library == "trio" else anyio.create_task_group()
        opened: list[int] = []
        async with group as nursery:
            nursery.start_soon(opener, scope, opened)
            while not workers.nreqs():
                await checkpoint()
            with ThreadPoolExecutor(1) as executor:  # the loop has no turn meanwhile
                executor.submit(workers.flush).result()
            scope.cancel()
        assert workers.nreqs() == 0

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if library == "trio":
            trio.run(main)
        else:
            anyio.run(main, backend=library.partition("-")[2])
        gc.collect()
    assert caught == []
    assert str(data_file) not in descriptors().values()


def test_descriptor_that_arrives_after_the_cancelling_is_closed(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")

    async def main() -> None:
        with trio.CancelScope() as scope:
            opening = procaio.aio_open(tmp_path / "fifo", pool=workers)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait_for, opening)
                eventually(lambda: opening.state == "execute", "it is taken")
                await trio_testing.wait_all_tasks_blocked()
                scope.cancel()
        with await procaio.aio_open(tmp_path / "fifo", os.O_RDWR, pool=workers):
            while workers.nreqs():
                await procaio.aio_nop(pool=workers)

    trio.run(main)
    eventually(
        lambda: not any("fifo" in what for what in descriptors().values()), "a worker closes it"
    )


# -- runs ------------------------------------------------------------------------------------------


def test_runs_in_several_threads_share_a_pool(pool: procaio.Pool) -> None:
    """Each task goes on in its own thread."""
    together = threading.Barrier(3)

    async def main() -> bool:
        together.wait(20)
        thread = threading.get_ident()
        for _ in range(100):
            await procaio.aio_nop(pool=pool)
            assert threading.get_ident() == thread
        return True

    with ThreadPoolExecutor(3) as executor:
        futures = [executor.submit(trio.run, main) for _ in range(2)]
        futures.append(executor.submit(asyncio.run, main()))
        assert [future.result(60) for future in futures] == [True] * 3


def test_pool_closed_while_it_is_watched_and_made_anew() -> None:
    """By the run itself, and by another thread."""

    async def main() -> None:
        for number in range(4):
            with procaio.Pool(1) as pool:
                assert await procaio.aio_stat("/", pool=pool) == os.stat("/")
                if number % 2:
                    await trio.to_thread.run_sync(pool.close)
            await trio_testing.wait_all_tasks_blocked()

    trio.run(main)


def test_request_of_one_run_is_awaited_in_another(workers: procaio.Pool, gate: Gate) -> None:
    (held,) = gate.hold(workers)

    async def give_up() -> None:
        with trio.move_on_after(0.001):
            await trio.lowlevel.checkpoint()
            await procaio.aio_nop(pool=workers)

    trio.run(give_up)
    gate.open()
    assert trio.run(wait_for, held) == b"x"


def test_system_task_that_is_shielded_gets_its_value_at_the_end_of_the_run(
    workers: procaio.Pool, gate: Gate
) -> None:
    """What watches the pool ends with the run, but not before those that wait."""
    (held,) = gate.hold(workers)
    got: list[object] = []

    async def last() -> None:
        with trio.CancelScope(shield=True):
            got.append(await held)
            got.append(await procaio.aio_stat("/", pool=workers))

    async def main() -> None:
        trio.lowlevel.spawn_system_task(last)
        await procaio.aio_nop(pool=workers)
        await trio_testing.wait_all_tasks_blocked()
        gate.open()

    trio.run(main)
    assert got == [b"x", os.stat("/")]


def test_mock_clock_is_not_moved_by_io_unless_it_jumps_by_itself(pool: procaio.Pool) -> None:
    """Nothing of ours sleeps by the clock of the run."""
    clock = trio_testing.MockClock()

    async def main() -> float:
        for _ in range(20):
            await procaio.aio_nop(pool=pool)
        return float(trio.current_time())

    begin = clock.current_time()
    assert trio.run(main, clock=clock) == begin


def test_autojump_takes_io_for_idleness(workers: procaio.Pool, gate: Gate) -> None:
    """It knows of no I/O that is outstanding, so a timeout that is mocked comes at once."""
    (held,) = gate.hold(workers)

    async def main() -> None:
        with trio.move_on_after(3600) as scope:
            await held
        assert scope.cancelled_caught
        gate.open()

    trio.run(main, clock=trio_testing.MockClock(autojump_threshold=0))
    workers.flush()


def test_what_watches_is_not_seen_by_wait_all_tasks_blocked(pool: procaio.Pool) -> None:
    async def main() -> None:
        await procaio.aio_nop(pool=pool)
        with trio.fail_after(20):
            await trio_testing.wait_all_tasks_blocked()

    trio.run(main)


def test_run_within_a_task_of_asyncio_is_what_steps_its_tasks() -> None:
    """As in a notebook, whose cells are run by a task; and the other way about."""
    run_fine("""
        import asyncio, os, procaio, trio

        async def stat():
            return await procaio.aio_stat("/") == os.stat("/")

        async def cell():
            await procaio.aio_nop()
            return trio.run(stat)

        async def other_cell():
            await procaio.aio_nop()
            return asyncio.run(stat())

        assert asyncio.run(cell())
        assert trio.run(other_cell)
        print("fine")
    """)


# -- anyio -----------------------------------------------------------------------------------------


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each of anyio's."""
    return str(request.param)


def test_anyio_task_group_and_timeouts(workers: procaio.Pool, gate: Gate, backend: str) -> None:
    (held,) = gate.hold(workers)
    got: list[object] = []

    async def stat() -> None:
        got.append(await procaio.aio_stat("/", pool=workers))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(stat)
        with anyio.move_on_after(0.001) as scope:
            await held
        assert scope.cancelled_caught
        assert held.state == "cancelled"
        with pytest.raises(TimeoutError), anyio.fail_after(0.001):
            await procaio.aio_read(gate.fd, None, 1, pool=workers)
        with anyio.CancelScope(shield=True):
            gate.open(2)
            await procaio.aio_nop(pool=workers)

    anyio.run(main, backend=backend)
    assert got == [os.stat("/")] * 50
    workers.flush()


def test_anyio_threads_wait_beside_the_loop(pool: procaio.Pool, backend: str) -> None:
    """In a worker thread of anyio's there is no loop, and wait() is what one uses."""

    async def main() -> None:
        request = procaio.aio_stat("/", pool=pool)
        by_thread = await anyio.to_thread.run_sync(procaio.aio_stat("/", pool=pool).wait)
        assert await request == by_thread

    anyio.run(main, backend=backend)
