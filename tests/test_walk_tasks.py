"""aio_walk: several at a time, in tasks, loops and threads, and walks that are given up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

import procaio
import trees
from conftest import eventually, switching_often
from trees import Busy
from walking import (
    Given,
    broad,
    directories_open,
    eventually_quiet,
    make_tree,
    run,
    walk,
    walk_of_os,
    walked,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


# -- several of them -------------------------------------------------------------------------------


def test_one_walk_is_one_tasks_at_a_time(workers: procaio.Pool, tree: Path, gate: Any) -> None:
    """The second one gets a RuntimeError, the first one is not disturbed."""

    async def main() -> None:
        workers.max_parallel(1)
        held = gate.hold(workers)
        walk_ = procaio.aio_walk(tree, pool=workers)
        first = asyncio.ensure_future(walk(walk_))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await walk_.__anext__()
        gate.open()
        assert await first == walk_of_os(tree)
        await held[0]

    run(main())


def test_directory_that_takes_too_long_is_an_error(
    workers: procaio.Pool, tree: Path, gate: Any
) -> None:
    """A TimeoutError for `onerror`, with its path; it is passed over."""
    errors: list[OSError] = []

    async def main() -> None:
        workers.max_parallel(1)
        held = gate.hold(workers)
        top = procaio.aio_walk(tree, onerror=errors.append, timeout=0.02, pool=workers)
        assert await walk(top) == []
        gate.open()
        for request in held:
            await request

    run(main())
    assert [(type(error), error.filename) for error in errors] == [(TimeoutError, str(tree))]


def test_two_tasks_may_take_turns(pool: procaio.Pool, tmp_path: Path) -> None:
    """What is waited for in one task may be given to another afterwards."""
    top = broad(tmp_path / "tree", 50)

    async def main() -> None:
        walk = procaio.aio_walk(top, pool=pool)
        lock = asyncio.Lock()
        given_: list[Any] = []

        async def take() -> None:
            while True:
                async with lock:
                    try:
                        given_.append((await walk.__anext__())[0])
                    except StopAsyncIteration:
                        return

        await asyncio.gather(*(take() for _ in range(3)))
        assert sorted(given_) == sorted(path for path, _, _ in os.walk(top))

    run(main())


def test_many_in_one_loop_do_not_disturb_each_other(pool: procaio.Pool, tree: Path) -> None:
    async def main() -> None:
        walks = [walk(procaio.aio_walk(tree, pool=pool)) for _ in range(20)]
        expected = walk_of_os(tree)
        assert all(found == expected for found in await asyncio.gather(*walks))

    run(main())


def test_loops_in_several_threads_walk_with_one_pool(pool: procaio.Pool, tmp_path: Path) -> None:
    """Whoever polls takes the answers of all of them."""
    top = broad(tmp_path / "tree", 60, 3)
    expected = walk_of_os(top)
    found: list[list[Given]] = []
    threads = [
        threading.Thread(target=lambda: found.append(walked(top, pool=pool))) for _ in range(3)
    ]
    with switching_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [expected] * 3


def test_while_another_thread_polls_it_is_the_same(pool: procaio.Pool, tmp_path: Path) -> None:
    """No directory is asked for twice, none is lost."""
    top = broad(tmp_path / "tree", 60, 3)
    expected = walk_of_os(top)
    wrong: list[object] = []
    procaio.on_callback_error(lambda *what: wrong.append(what))
    with switching_often(), Busy(pool.poll_cb):
        for _ in range(4):
            submitted = pool.statistics().submitted
            assert walked(top, pool=pool) == expected
            assert pool.statistics().submitted - submitted < 500
    assert wrong == []


# -- given up --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("directories", [0, 1, 5, 100])
def test_walk_that_is_given_up_leaves_nothing(
    pool: procaio.Pool, tmp_path: Path, directories: int
) -> None:
    """No descriptor, no request, no warning; nothing more is asked for."""
    top = broad(tmp_path / "tree", 300, 3)
    trees.make_deep(top / "deep", 100)
    procaio.aio_nop(pool=pool).wait()

    async def main() -> None:
        walk = procaio.aio_walk(top, pool=pool)
        for _ in range(directories):
            await walk.__anext__()
        submitted = pool.statistics().submitted
        del walk
        gc.collect()
        while pool.nreqs():
            pool.poll()
        assert pool.statistics().submitted == submitted

    run(main())

    def nothing_is_left() -> bool:
        """What was with a worker has come back, too."""
        procaio.aio_nop(pool=pool).wait()
        gc.collect()
        return directories_open(tmp_path) == []

    eventually(nothing_is_left, "descriptors are closed")


@pytest.mark.filterwarnings("error")
def test_break_in_the_middle_leaves_nothing(pool: procaio.Pool, tmp_path: Path) -> None:
    """Also when the loop ends with it, and a second one goes on with the rest."""
    top = broad(tmp_path / "tree", 100, 3)
    expected = walk_of_os(top)

    async def begin(walk: procaio.aio_walk[Any]) -> list[Given]:
        found = []
        async for path, dirs, files in walk:
            dirs.sort()
            found.append((path, list(dirs), sorted(files)))
            if len(found) == 10:
                break
        return found

    walk_ = procaio.aio_walk(top, pool=pool)
    assert run(begin(walk_)) == expected[:10]
    assert run(walk(walk_)) == expected[10:]
    run(begin(procaio.aio_walk(top, pool=pool)))
    pool.flush()
    gc.collect()
    assert pool.nreqs() == 0
    eventually(lambda: directories_open(tmp_path) == [], "descriptors are closed")


@pytest.mark.parametrize("directories", [0, 1, 20])
def test_cancelled_task_ends_the_walk(
    workers: procaio.Pool, tmp_path: Path, directories: int
) -> None:
    """As it ends a generator: what comes after it lacks no directory without a word."""
    top = broad(tmp_path / "tree", 300, 3)

    async def main() -> None:
        walk_ = procaio.aio_walk(top, pool=workers)
        for _ in range(directories):
            await walk_.__anext__()
        workers.max_parallel(0)
        task = asyncio.ensure_future(walk(walk_))
        for _ in range(1000):  # what is known already is given
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(StopAsyncIteration):
            await walk_.__anext__()
        workers.min_parallel(4)
        await eventually_quiet(workers)

    run(main())
    gc.collect()
    eventually(lambda: directories_open(tmp_path) == [], "descriptors are closed")


@pytest.mark.filterwarnings("error")
def test_cancelled_at_any_moment_it_leaves_nothing(pool: procaio.Pool, tmp_path: Path) -> None:
    """Whatever it waits for."""
    top = broad(tmp_path / "tree", 60, 2)
    trees.make_deep(top / "deep", 200)
    randomly = random.Random(3)

    async def main() -> None:
        for _ in range(40):
            task = asyncio.ensure_future(walk(procaio.aio_walk(top, pool=pool)))
            for _ in range(randomly.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    run(main())
    pool.flush()
    gc.collect()
    assert pool.nreqs() == 0
    eventually(
        lambda: procaio.aio_nop(pool=pool).wait() is None and directories_open(tmp_path) == [],
        "descriptors are closed",
    )


def test_pool_that_is_closed_in_the_middle_ends_the_walk(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """With an error that says so; nothing hangs, nothing comes out of nowhere."""
    top = broad(tmp_path / "tree", 400, 2)
    wrong: list[object] = []
    procaio.on_callback_error(lambda *what: wrong.append(what))

    async def main() -> None:
        walk = procaio.aio_walk(top, pool=pool)
        await walk.__anext__()
        pool.close()
        with pytest.raises(procaio.PoolClosed):
            async for _ in walk:
                pass
        with pytest.raises(StopAsyncIteration):
            await walk.__anext__()

    run(main())
    assert wrong == []
    gc.collect()
    assert directories_open(tmp_path) == []
