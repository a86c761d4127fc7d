"""aio_copytree where trees are large, change meanwhile, or are given up, and where workers die."""

from __future__ import annotations

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
from tree_copies import copy, missing, outside, tree, whole_or_told

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["copy", "outside", "tree"]  # fixtures

AT_POINTS = [point for point in testing.FAULT_POINTS if point != "sleeping"]


# -- size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_depth_takes_few_descriptors(pool: procaio.Pool, tmp_path: Path, levels: int) -> None:
    """Thousands of levels (I11), far deeper than any path is long."""
    trees.make_deep(tmp_path / "tree", levels)
    before = len(os.listdir("/proc/self/fd"))
    request = procaio.aio_copytree(tmp_path / "tree", tmp_path / "copy", pool=pool)
    most = trees.peak_of_descriptors(pool, request)
    try:
        assert request.wait() == 0
        assert (request.progress.dirs, request.progress.files) == (levels + 1, levels)
        assert most - before <= 60 + levels // 25
    finally:
        trees.remove(tmp_path / "tree")
        trees.remove(tmp_path / "copy")


@pytest.mark.slow
def test_directory_of_100000_files(pool: procaio.Pool, tmp_path: Path, copy: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(100_000):
        os.mknod(top / f"{number}")
    request = procaio.aio_copytree(top, copy, pool=pool)
    assert request.wait() == 0
    assert request.progress.files == 100_000
    assert len(os.listdir(copy)) == 100_000


@pytest.mark.parametrize("count", [3000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_directory_of_many_directories(
    pool: procaio.Pool, tmp_path: Path, copy: Path, count: int
) -> None:
    """More of them than one step tells; descriptors do not grow with their number."""
    top = tmp_path / "tree"
    trees.make(os.fsencode(top), trees.many_directories(count))
    before = len(os.listdir("/proc/self/fd"))
    request = procaio.aio_copytree(top, copy, pool=pool)
    assert trees.peak_of_descriptors(pool, request) - before <= 80
    assert request.wait() == 0
    assert request.progress.dirs == count + 1
    assert sorted(os.listdir(copy)) == sorted(os.listdir(top))


def test_files_of_several_names_keep_no_descriptors(
    pool: procaio.Pool, tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their first copies, however many, are found again from the top, also deep down."""
    monkeypatch.setattr("procaio._trees.LEVELS_OF_AN_ANCHOR", 2)
    top = tmp_path / "tree"
    shape = {b"a": {b"b": {b"c": {b"d": {b"f": None}}, b"e": {}}}}
    trees.make(os.fsencode(top), {b"%d" % number: shape for number in range(300)})
    for number in range(300):
        place = top / f"{number}" / "a" / "b"
        for name in ("g", "c/g", "c/d/g", "e/g"):
            os.link(place / "c" / "d" / "f", place / name)
    before = len(os.listdir("/proc/self/fd"))
    request = procaio.aio_copytree(top, copy, pool=pool)
    assert trees.peak_of_descriptors(pool, request) - before <= 300
    assert request.wait() == 0
    assert trees.picture(copy) == trees.picture(top)


@pytest.mark.parametrize("taken", [0, 20])
def test_few_descriptors_are_enough(tmp_path: Path, taken: int) -> None:
    """With a limit of 64 members wait for each other, deep down and for files of several names."""
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(20):
        trees.make_deep(top / f"{number}", 100)
        for level in (1, 70):
            place = top / f"{number}" / "/".join("d" * level)
            os.link(place / "file", place / "again")
            os.link(place / "file", place.parent / "and again")
    assert run_python(trees.SCARCE, taken, "aio_copytree", top, tmp_path / "copy") == "done\n"
    assert trees.picture(tmp_path / "copy") == trees.picture(top)


def test_no_descriptors_at_all_is_told(tmp_path: Path) -> None:
    """EMFILE is an answer; nothing hangs."""
    trees.make_deep(tmp_path / "tree", 10)
    answer = run_python(trees.SCARCE, "all", "aio_copytree", tmp_path / "tree", tmp_path / "copy")
    assert answer.startswith(f"{errno.EMFILE} ")


# -- others at work in the trees -------------------------------------------------------------------


# argv: errno of openat2, top, outside, which side, rounds, pool
RACE = (
    trees.NO_OPENAT2
    + """
import contextlib, ctypes, itertools, os, shutil, threading, procaio
libc = ctypes.CDLL(None)
top, outside = sys.argv[2], sys.argv[3]
side, rounds = sys.argv[4], int(sys.argv[5])
pool = procaio.Pool(inline=sys.argv[6] == "inline")
src, dst = os.path.join(top, "src"), os.path.join(top, "dst")
swaps, stop, pause = 0, False, threading.Lock()

def swap(tree, *names):
    "A directory in the tree trades places with a link; the way to it is no link."
    global swaps
    above = os.open(tree, os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            os.close(above)
            above = inner
        last, link = os.fsencode(names[-1]), os.fsencode(top + "/link")
        swaps += libc.renameat2(above, last, -100, link, 2) == 0
    finally:
        os.close(above)

def work():
    n = 0
    while not stop:
        n += 1
        with pause, contextlib.suppress(OSError):
            for _ in range(2):
                swap(src if side == "src" else dst, *("d", "e", "f")[: n % 3 + 1])

def fill():
    for name in ("d/e/f/g", "d/x", "d/e/y", "d/e/f/dir"):
        os.makedirs(os.path.join(src, name), exist_ok=True)
        for n in range(8):
            with open(os.path.join(src, name, f"{n}"), "w") as file:
                file.write("inside")

fill()
os.symlink(outside, top + "/link")
thread = threading.Thread(target=work)
thread.start()
seen = set()
try:
    for n in itertools.count():
        if n >= rounds and swaps > rounds:
            break
        if n % 3 == 0:
            with pause:
                shutil.rmtree(dst, ignore_errors=True)
        with contextlib.suppress(OSError):
            procaio.aio_copytree(src, dst, dirs_exist_ok=True, pool=pool).wait(timeout=60)
        with pause:
            for where, dirs, files in os.walk(top):
                for name in files:
                    with open(os.path.join(where, name)) as file:
                        seen.add(file.read())
finally:
    stop = True
    thread.join()
pool.close()
assert "inside" in seen, seen
print("secret" in seen)
"""
)


@pytest.mark.parametrize("side", ["src", "dst"])
@pytest.mark.parametrize("openat2", [0, errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("how", ["workers", "inline"])
@pytest.mark.parametrize("rounds", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_races_do_not_lead_out_of_the_trees(
    tmp_path: Path, side: str, openat2: int, how: str, rounds: int
) -> None:
    """Directories trade places with symlinks that lead out, all the time: nothing from outside is
    copied, and nothing outside is changed. Also where openat2 is not known, or forbidden.
    """
    outside, top = tmp_path / "outside", tmp_path / "top"
    top.mkdir()
    shape: trees.Shape = {b"%d" % n: None for n in range(8)}
    shape |= {name: dict(shape) for name in (b"d", b"e", b"f", b"g", b"x", b"y", b"dir")}
    shape[b"e"] = dict(shape)
    trees.make(os.fsencode(outside), shape)
    for path in outside.rglob("*"):
        if path.is_file():
            path.write_text("secret")
    before = trees.picture(outside)
    answer = run_python(RACE, openat2, top, outside, side, rounds, how)
    assert trees.picture(outside) == before
    assert answer == "False\n"


def test_without_openat2_it_is_the_same(tree: Path, copy: Path, outside: Path) -> None:
    """And deep trees too."""
    trees.make_deep(tree / "deep", 200)
    code = trees.NO_OPENAT2 + "import procaio; print(procaio.aio_copytree(*sys.argv[2:]).wait())"
    assert run_python(code, errno.ENOSYS, tree, copy) == "0\n"
    assert trees.picture(copy) == trees.picture(tree)


# -- cancelled -------------------------------------------------------------------------------------


def test_cancelled_at_any_moment_it_ends(
    pool: procaio.Pool, tmp_path: Path, tree: Path, outside: Path
) -> None:
    """The callback is not called, flush() returns, no descriptor is left; of files there are whole
    ones only.
    """
    procaio.aio_nop(pool=pool).wait()
    randomly = random.Random(7)
    for number in range(15):
        (tree / f"{number}").mkdir()
        (tree / f"{number}" / "large").write_bytes(randomly.randbytes(300_000))
        (tree / f"{number}" / "out").symlink_to(outside)
        os.link(tree / f"{number}" / "large", tree / "a" / f"{number}")

    answers: list[int] = []
    copy = tmp_path / "copy"
    for _ in range(40):
        request = procaio.aio_copytree(tree, copy, answers.append, pool=pool)
        for _ in range(randomly.randrange(60)):
            pool.poll_cb()
        was_done = request.state in {"done", "pending"}
        request.cancel()
        pool.flush()
        if not was_done:
            assert request.state == "cancelled"
            assert answers == []
            missing(tree, copy)
        answers.clear()
        assert pool.nreqs() == 0
        trees.remove(copy)
    request = None  # type: ignore[assignment]

    all_closed(pool, tmp_path, set())


def test_cancelled_task_cancels_it(tmp_path: Path) -> None:
    """And nothing is left to be done when the loop ends."""
    trees.make_deep(tmp_path / "tree", 1500)

    src, dst = tmp_path / "tree", tmp_path / "copy"
    trees.wait_in_a_task_that_is_cancelled(lambda pool: procaio.aio_copytree(src, dst, pool=pool))
    trees.remove(tmp_path / "tree")
    trees.remove(tmp_path / "copy")


# -- dying workers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_worker_dies_and_the_copy_is_whole(tmp_path: Path, point: str) -> None:
    """At every point, over every step; the callback comes once."""
    src = tmp_path / "src"
    trees.make(
        os.fsencode(src),
        {b"a" * 200: {b"b" * 200: {b"c": {b"f": None}}}, b"d": {b"f": None, b"l": b"x"}},
    )
    (src / "d" / "f").write_bytes(b"content")
    os.link(src / "d" / "f", src / "again")
    for after in range(20):
        dst = tmp_path / f"{after}"
        answers: list[int] = []
        with procaio.Pool(at_once=False) as pool:
            pool.max_parallel(2)
            testing.arm(pool, point, after=after)
            request = procaio.aio_copytree(src, dst, answers.append, pool=pool)
            assert request.wait(timeout=60) == 0
            pool.flush()
            testing.disarm(pool)
        assert answers == [0]
        assert whole_or_told(request, src, dst) == set()


@pytest.mark.parametrize("point", ["claimed", "taken", "called"])
def test_workers_that_always_die_end_it_with_an_error(
    workers: procaio.Pool, tree: Path, copy: Path, point: str
) -> None:
    """It does not hang, and afterwards all can be copied."""
    testing.arm(workers, point, always=True)
    answers: list[int] = []
    request = procaio.aio_copytree(tree, copy, answers.append, pool=workers)
    assert trees.failed(request)[0] == errno.EIO
    assert answers == [-1]
    testing.disarm(workers)
    request = procaio.aio_copytree(tree, copy, dirs_exist_ok=True, pool=workers)
    assert request.wait(timeout=60) == 0
    assert trees.picture(copy) == trees.picture(tree)


def test_workers_killed_all_the_time_do_not_stop_it(
    workers: procaio.Pool, tmp_path: Path, copy: Path
) -> None:
    """What is there is whole, what is not was told; a second request copies the rest."""
    top = tmp_path / "tree"
    trees.make(
        os.fsencode(top),
        {b"%d" % n: {b"%d" % m: {b"f": None, b"x": b"y"} for m in range(10)} for n in range(20)},
    )
    for place in top.rglob("f"):
        place.write_bytes(os.fsencode(place) * 100)
    procaio.aio_nop(pool=workers).wait()
    before = len(descriptors())

    with trees.killing(workers):
        request = procaio.aio_copytree(top, copy, pool=workers)
        with contextlib.suppress(OSError):
            request.wait(timeout=90)
    assert whole_or_told(request, top, copy) <= {errno.EIO}
    request = procaio.aio_copytree(top, copy, dirs_exist_ok=True, pool=workers)
    assert request.wait(timeout=60) == 0
    assert trees.picture(copy) == trees.picture(top)
    eventually(
        lambda: procaio.aio_nop(pool=workers).wait() is None and len(descriptors()) <= before + 10,
        "orphans are closed",
    )


def test_forked_child_leaves_it_to_its_parent(pool: procaio.Pool, tree: Path, copy: Path) -> None:
    """The child's copy is dead; the parent's goes on (P1)."""
    request = procaio.aio_copytree(tree, copy, pool=pool)
    assert is_dead_in_child(request)
    assert request.wait() == 0


# -- anything --------------------------------------------------------------------------------------


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    trees.SHAPES,
    st.lists(st.sampled_from(["poll", "kill", "cancel", "wait", "vanish"]), max_size=8),
    st.integers(0, 20),
)
@example({b"a": {}}, ["kill", "kill", "kill", "kill", "kill"], 0)
def test_whatever_happens_what_is_there_is_whole(
    tmp_path: Path, shape: trees.Shape, events: list[str], after: int
) -> None:
    """Any tree and any order of deaths, cancels and losses: each file of the copy equals its
    original, what is missing was told, cancelled, or not there any more; the original stays.
    """
    src, dst = tmp_path / "src", tmp_path / "dst"
    trees.remove(src)
    trees.remove(dst)
    trees.make(os.fsencode(src), shape)
    files = sorted(path for path in src.rglob("*") if path.is_file() and not path.is_symlink())
    for path in files:
        path.write_bytes(os.fsencode(path) * 1000)
    if files:
        os.link(files[0], src / "again")
    before = trees.picture(src)
    vanished = tmp_path / "vanished"
    lost = cancelled = False
    with procaio.Pool(at_once=False) as pool:
        request = procaio.aio_copytree(src, dst, pool=pool)
        for event in events:
            if event == "kill":
                testing.arm(pool, random.Random(after).choice(testing.FAULT_POINTS), after=after)
            elif event == "cancel":
                cancelled = cancelled or request.state != "done"
                request.cancel()
            elif event == "vanish" and files and not vanished.exists():
                files[-1].rename(vanished)
                lost = True
            else:
                pool.poll() if event == "wait" else pool.poll_cb()
        pool.flush()
        testing.disarm(pool)
    if lost:
        vanished.rename(files[-1])
    if cancelled or lost:
        missing(src, dst)
    else:
        assert whole_or_told(request, src, dst) <= {errno.EIO}
    assert trees.picture(src).keys() == before.keys()
