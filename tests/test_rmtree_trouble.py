"""aio_rmtree where trees are large, change meanwhile, or are given up, and where workers die."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import procaio
import trees
from conftest import descriptors, eventually, is_dead_in_child
from copying import all_closed
from procaio import testing
from programs import run_python
from removing import outside, tree

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["outside", "tree"]  # fixtures


# -- size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_depth_takes_few_descriptors(pool: procaio.Pool, tmp_path: Path, levels: int) -> None:
    """Thousands of levels (I11), far deeper than any path is long."""
    trees.make_deep(tmp_path / "tree", levels)
    before = len(os.listdir("/proc/self/fd"))
    request = procaio.aio_rmtree(tmp_path / "tree", pool=pool)
    most = trees.peak_of_descriptors(pool, request)
    assert request.wait() == 0
    assert (request.progress.dirs, request.progress.files) == (levels + 1, levels)
    assert most - before <= 30 + levels // 50
    assert os.listdir(tmp_path) == []


def test_depth_of_long_names_takes_few_descriptors(pool: procaio.Pool, tmp_path: Path) -> None:
    """Ways are cut before they are too long for the system."""
    trees.make_deep(tmp_path / "tree", 300, "n" * 255)
    before = len(os.listdir("/proc/self/fd"))
    request = procaio.aio_rmtree(tmp_path / "tree", pool=pool)
    assert trees.peak_of_descriptors(pool, request) - before <= 100
    assert request.wait() == 0


@pytest.mark.slow
def test_directory_of_100000_files(pool: procaio.Pool, tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(100_000):
        os.mknod(top / f"{number}")
    request = procaio.aio_rmtree(top, pool=pool)
    assert request.wait() == 0
    assert request.progress.files == 100_000
    assert not top.exists()


@pytest.mark.parametrize("count", [3000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_directory_of_many_directories(pool: procaio.Pool, tmp_path: Path, count: int) -> None:
    """More of them than one step tells; descriptors do not grow with their number."""
    top = tmp_path / "tree"
    trees.make(os.fsencode(top), trees.many_directories(count))
    before = len(os.listdir("/proc/self/fd"))
    request = procaio.aio_rmtree(top, pool=pool)
    assert trees.peak_of_descriptors(pool, request) - before <= 40
    assert request.wait() == 0
    assert request.progress.dirs == count + 1


@pytest.mark.parametrize("taken", [0, 20])
def test_few_descriptors_are_enough(tmp_path: Path, taken: int) -> None:
    """With a limit of 64 members wait for each other."""
    for number in range(20):
        trees.make_deep(tmp_path / f"{number}", 100)
        (tmp_path / f"{number}").rename(tmp_path / f"x{number}")
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(20):
        (tmp_path / f"x{number}").rename(top / f"{number}")
    assert run_python(trees.SCARCE, taken, "aio_rmtree", top) == "done\n"
    assert not top.exists()


def test_no_descriptors_at_all_is_told(tmp_path: Path) -> None:
    """EMFILE is an answer; nothing hangs, and the rest can be removed afterwards."""
    trees.make_deep(tmp_path / "tree", 10)
    answer = run_python(trees.SCARCE, "all", "aio_rmtree", tmp_path / "tree")
    assert answer.startswith(f"{errno.EMFILE} ")


# -- others at work in the tree --------------------------------------------------------------------


def test_files_that_are_put_in_meanwhile_go_or_are_reported(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """It does not go on for ever: it gives up with ENOTEMPTY."""
    numbers = iter(range(1 << 40))
    outcomes = set()
    for round_ in range(20):
        top = tmp_path / f"tree{round_}"
        trees.make(os.fsencode(top), {b"d": {b"e": {}}, b"f": {}})

        def put_in(top: Path = top) -> None:
            place = random.choice(["d", "d/e", "f", "."])
            os.mknod(top / place / f"{next(numbers)}")

        with trees.Busy(put_in):
            request = procaio.aio_rmtree(top, pool=pool)
            try:
                outcomes.add(request.wait(timeout=60))
            except OSError as error:
                outcomes.add(error.errno)
        if request.error is None:
            assert not top.exists()
        else:
            assert request.progress.failures
            trees.remove(top)
    assert outcomes <= {0, errno.ENOTEMPTY}


RACE = (
    trees.NO_OPENAT2
    + """
import ctypes, os, threading, procaio
from procaio._core import _empty
libc = ctypes.CDLL(None)
top, outside = os.fsencode(sys.argv[2]), os.fsencode(sys.argv[3])
kind, rounds = sys.argv[4], int(sys.argv[5])
pool = procaio.Pool(inline=sys.argv[6] == "inline")
swaps = 0
stop = False

def swap(*names):
    "What is in the tree trades places with the link; the way to it is no link."
    global swaps
    above = os.open(os.path.dirname(top), os.O_DIRECTORY)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            os.close(above)
            above = inner
        swaps += libc.renameat2(above, names[-1], -100, top + b".link", 2) == 0
    except OSError:
        pass
    finally:
        os.close(above)

def work():
    n = 0
    name = os.path.basename(top)
    while not stop:
        n += 1
        if kind == "top":
            swap(name)
        else:
            way = (b"d", b"e", b"f")[: n % 3 + 1]
            if kind == "link":
                swap(name, *way)
                swap(name, *way)
            else:
                place = os.path.join(top, *way)
                libc.rename(place, outside + b"/moved")
                libc.rename(outside + b"/moved", place)

thread = threading.Thread(target=work)
thread.start()
count = 0
while count < rounds or (swaps <= rounds and kind != "move"):
    count += 1
    os.path.lexists(top + b".link") or os.symlink(outside, top + b".link")
    for name in (b"d/e/f/g", b"d/x", b"d/e/y", b"d/e/f/dir"):
        try:
            os.makedirs(os.path.join(top, name), exist_ok=True)
            for n in range(10):
                os.mknod(os.path.join(top, name, b"%d" % n))
        except OSError:
            pass
    try:
        procaio.aio_rmtree(top, pool=pool).wait(timeout=60)
    except OSError:
        pass
stop = True
thread.join()
pool.close()
"""
)


@pytest.mark.parametrize("kind", ["link", "top", "move"])
@pytest.mark.parametrize("openat2", [0, errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("how", ["workers", "inline"])
@pytest.mark.parametrize("rounds", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_races_do_not_lead_out_of_the_tree(
    tmp_path: Path, kind: str, openat2: int, how: str, rounds: int
) -> None:
    """Directories trade places with symlinks that lead out, or are moved out and back, all the
    time: outside nothing is missing. Also where openat2 is not known, or forbidden.
    """
    outside = tmp_path / "outside"
    shape: trees.Shape = {b"%d" % n: None for n in range(50)}
    shape |= {name: dict(shape) for name in (b"d", b"e", b"f", b"g", b"x")}
    shape[b"d"] = dict(shape)
    trees.make(os.fsencode(outside), shape)
    before = trees.content(outside)
    run_python(RACE, openat2, tmp_path / "tree", outside, kind, rounds, how)
    # Those that fill the tree get out of it themselves, and add something.
    assert before.items() <= trees.content(outside).items()


def test_without_openat2_it_is_the_same(tree: Path, outside: Path) -> None:
    """And deep trees too."""
    trees.make_deep(tree / "deep", 400)
    (tree / "empty" / "link").symlink_to(outside)
    code = trees.NO_OPENAT2 + "import procaio; print(procaio.aio_rmtree(sys.argv[2]).wait())"
    assert run_python(code, errno.ENOSYS, tree) == "0\n"
    assert not tree.exists()


# -- cancelled -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_cancelled_at_any_moment_it_ends(
    pool: procaio.Pool, tmp_path: Path, tree: Path, outside: Path, rounds: int
) -> None:
    """The callback is not called, flush() returns, no descriptor is left."""
    procaio.aio_nop(pool=pool).wait()
    randomly = random.Random(7)

    answers: list[int] = []
    for round_ in range(rounds):
        top = tmp_path / f"{round_}"
        if round_ % 10 == 0:
            trees.make_deep(top, 200)
        else:
            trees.make(
                os.fsencode(top),
                {b"%d" % n: {b"f": None, b"out": os.fsencode(outside)} for n in range(50)},
            )
        request = procaio.aio_rmtree(top, answers.append, pool=pool)
        for _ in range(randomly.randrange(0, 30)):
            pool.poll_cb()
        was_done = request.state in {"done", "pending"}
        request.cancel()
        pool.flush()
        if not was_done:
            assert request.state == "cancelled"
            assert answers == []
        answers.clear()
        assert pool.nreqs() == 0
        request = None  # type: ignore[assignment]
        if top.exists():
            trees.remove(top)

    all_closed(pool, tmp_path, set())


def test_cancelled_task_cancels_it(tmp_path: Path) -> None:
    """And nothing is left to be done when the loop ends."""
    trees.make_deep(tmp_path / "tree", 1500)

    top = tmp_path / "tree"
    trees.wait_in_a_task_that_is_cancelled(lambda pool: procaio.aio_rmtree(top, pool=pool))
    trees.remove(tmp_path / "tree")


def test_can_be_awaited(tree: Path) -> None:
    """As anything else; a failure is raised."""

    async def main() -> None:
        assert await procaio.aio_rmtree(tree) == 0
        with pytest.raises(FileNotFoundError):
            await procaio.aio_rmtree(tree)

    asyncio.run(main())


# -- dying workers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_worker_dies_and_the_tree_is_gone_all_the_same(
    tmp_path: Path, tree: Path, outside: Path, point: str
) -> None:
    """At every point, over every step; the callback comes once."""
    for after in range(12):
        top = tmp_path / "victim"
        trees.make(
            os.fsencode(top),
            {b"a" * 200: {b"b" * 200: {b"c": {b"f": None}}}, b"d": {b"f": None}, b"e": {}},
        )
        answers: list[int] = []
        with procaio.Pool(at_once=False) as pool:
            pool.max_parallel(2)
            testing.arm(pool, point, after=after)
            request = procaio.aio_rmtree(top, answers.append, pool=pool)
            assert request.wait(timeout=60) == 0, request.progress.failures
            pool.flush()
            testing.disarm(pool)
        assert answers == [0]
        assert not top.exists()
        assert request.progress.failed == 0
        assert request.progress.dirs == 6


def test_worker_dies_over_the_top_alone(workers: procaio.Pool, tmp_path: Path) -> None:
    """An empty directory that a dead worker has removed was there; one that never was, was not."""
    for after in range(3):
        (tmp_path / "empty").mkdir()
        testing.arm(workers, "called", after=after)
        assert procaio.aio_rmtree(tmp_path / "empty", pool=workers).wait(timeout=60) == 0
        testing.arm(workers, "called", after=after)
        with pytest.raises(FileNotFoundError):
            procaio.aio_rmtree(tmp_path / "empty", pool=workers).wait(timeout=60)


@pytest.mark.parametrize("point", ["claimed", "taken", "called"])
def test_workers_that_always_die_end_it_with_an_error(
    workers: procaio.Pool, tree: Path, outside: Path, point: str
) -> None:
    """It does not hang."""
    testing.arm(workers, point, always=True)
    answers: list[int] = []
    request = procaio.aio_rmtree(tree, answers.append, pool=workers)
    assert trees.failed(request)[0] == errno.EIO
    assert answers == [-1]
    testing.disarm(workers)
    with contextlib.suppress(FileNotFoundError):
        procaio.aio_rmtree(tree, pool=workers).wait(timeout=60)
    assert not tree.exists()


def test_workers_killed_all_the_time_do_not_stop_it(
    workers: procaio.Pool, tmp_path: Path, tree: Path, outside: Path
) -> None:
    """Steps that were run three times in vain are told; a second request removes the rest."""
    top = tmp_path / "victim"
    trees.make(
        os.fsencode(top),
        {
            b"%d" % n: {b"%d" % m: {b"f": None, b"out": os.fsencode(outside)} for m in range(20)}
            for n in range(60)
        },
    )
    procaio.aio_nop(pool=workers).wait()
    before = len(descriptors())

    with trees.killing(workers):
        request = procaio.aio_rmtree(top, pool=workers)
        with contextlib.suppress(OSError):
            request.wait(timeout=90)
    with contextlib.suppress(FileNotFoundError):
        procaio.aio_rmtree(top, pool=workers).wait(timeout=60)
    assert not top.exists()
    assert {number for _, number in request.progress.failures} <= {errno.EIO, errno.ENOTEMPTY}
    eventually(
        lambda: procaio.aio_nop(pool=workers).wait() is None and len(descriptors()) <= before + 10,
        "orphans are closed",
    )


def test_forked_child_leaves_it_to_its_parent(pool: procaio.Pool, tree: Path) -> None:
    """The child's copy is dead; the parent's goes on (P1)."""
    request = procaio.aio_rmtree(tree, pool=pool)
    assert is_dead_in_child(request)
    assert request.wait() == 0


# -- anything --------------------------------------------------------------------------------------


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    trees.SHAPES,
    st.lists(st.sampled_from(["poll", "kill", "cancel", "wait"]), max_size=8),
    st.integers(0, 20),
)
@example({b"a": {}}, ["kill", "kill", "kill", "kill", "kill"], 0)
def test_whatever_happens_only_the_tree_shrinks(
    tmp_path: Path, shape: trees.Shape, events: list[str], after: int
) -> None:
    """Any tree and any order of deaths and cancels: what is left was there before, nothing outside
    has changed, and without a cancel it is what the failures explain.
    """
    top, outside = tmp_path / "top", tmp_path / "outside"
    for path in (top, outside):
        if path.exists():
            trees.remove(path)
    trees.make(os.fsencode(outside), {b"a": {b"b": None}, b"b": None})
    trees.make(os.fsencode(top), shape)
    (top / "to outside").symlink_to(outside)
    before, stays = trees.content(top), trees.content(outside)
    cancelled = False
    with procaio.Pool(at_once=False) as pool:
        request = procaio.aio_rmtree(top, pool=pool)
        for event in events:
            if event == "poll":
                pool.poll()
            elif event == "kill":
                testing.arm(pool, random.Random(after).choice(testing.FAULT_POINTS), after=after)
            elif event == "cancel":
                cancelled = cancelled or request.state != "done"
                request.cancel()
            else:
                pool.poll_cb()
        pool.flush()
        testing.disarm(pool)
    assert trees.content(outside) == stays
    if cancelled:
        after_ = trees.content(top) if top.exists() else {}
        assert after_.items() <= before.items()
    elif request.error is None:
        assert not top.exists()
        assert request.progress.failures == []
    else:
        assert request.progress.failures
