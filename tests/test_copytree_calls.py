"""aio_copytree as a call: arguments, in groups, awaited, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

import procaio
import trees
from conftest import switching_often
from tree_copies import copy, tree

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["copy", "tree"]  # fixtures


# -- arguments, members, loops ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (5, "x"),
        ("x", None),
        ("a\0b", "x"),
        ("x", b"a\0b"),
        (("x",), "x"),
        ("x", ("x",)),
        ("x", "y", 5),
        ((None, "x", "y"), "x"),
        (("no fd", "x"), "x"),
        ("x", (2**40, "x")),
    ],
)
def test_wrong_arguments_raise_and_leave_the_priority(
    pool: procaio.Pool, arguments: tuple[Any, ...]
) -> None:
    """Nothing is queued (A5, A6)."""
    procaio.aioreq_pri(3)
    with pytest.raises((TypeError, ValueError)):
        procaio.aio_copytree(*arguments, pool=pool)
    assert (procaio.aioreq_pri(0), pool.nreqs()) == (3, 0)


def test_closed_pool_refuses_it(tree: Path, copy: Path) -> None:
    pool = procaio.Pool()
    pool.close()
    with pytest.raises(procaio.PoolClosed):
        procaio.aio_copytree(tree, copy, pool=pool)


def test_all_members_have_its_priority_and_the_programs_own_is_left_alone(
    pool: procaio.Pool, tree: Path, tmp_path: Path
) -> None:
    """B6; the priority of the program's next request outlasts the steps that are made meanwhile."""
    os.link(tree / "new\nline", tree / "again")
    procaio.aioreq_pri(2)
    request = procaio.aio_copytree(tree, tmp_path / "x" / "y" / "copy", pool=pool)
    assert procaio.aioreq_pri(-3) == 0
    seen = set()
    while request.state != "done":
        seen |= {member.pri for member in request}
        pool.poll()
    assert request.wait() == 0
    assert (request.pri, seen) == (2, {2})
    assert procaio.aioreq_pri(0) == -3


@pytest.mark.parametrize("least", [1, 200])
@pytest.mark.parametrize("same", [False, True])
def test_members_are_never_more_than_256(
    workers: procaio.Pool, tmp_path: Path, copy: Path, least: int, *, same: bool
) -> None:
    """However many entries there are, names of one file or not, and workers are wanted (I11)."""
    trees.make(os.fsencode(tmp_path / "tree"), {b"%d" % n: {b"f": None} for n in range(300)})
    for number in range(1, 300 * same):
        (tmp_path / "tree" / f"{number}" / "f").unlink()
        os.link(tmp_path / "tree" / "0" / "f", tmp_path / "tree" / f"{number}" / "f")
    workers.min_parallel(least)
    request = procaio.aio_copytree(tmp_path / "tree", copy, pool=workers)
    most = 0
    while request.state != "done":
        most = max(most, len(request))
        assert workers.nreqs() <= len(request) + 1
        workers.poll()
    assert request.wait() == 0
    assert 4 <= most <= 256


def test_progress_only_grows_and_is_right_in_the_end(
    pool: procaio.Pool, tmp_path: Path, copy: Path
) -> None:
    """Bytes count while a file is being copied; the directory that is taken up has its path."""
    top = tmp_path / "tree"
    trees.make(os.fsencode(top), {b"%d" % n: {b"f": None, b"g": None} for n in range(20)})
    for number in range(20):
        (top / f"{number}" / "f").write_bytes(b"x" * 300_000)
        (top / f"{number}" / "g").write_bytes(b"x" * number)
    request = procaio.aio_copytree(str(top), copy, pool=pool)
    progress = request.progress
    last = (0, 0, 0)
    while request.state != "done":
        now = (progress.files, progress.dirs, progress.bytes)
        assert all(a <= b for a, b in zip(last, now, strict=True))
        assert progress.current.startswith(os.fsencode(top))
        last = now
        pool.poll()
    assert request.wait() == 0
    assert (progress.files, progress.dirs, progress.bytes) == (40, 21, 6_000_190)
    assert (progress.failed, progress.failures) == (0, [])


def test_is_a_member_of_other_groups(pool: procaio.Pool, tree: Path, tmp_path: Path) -> None:
    """The outer one ends after it, and cancels it with itself (L3)."""
    ended: list[str] = []
    outer = procaio.aio_group(lambda: ended.append("outer"), pool=pool)
    outer.add(procaio.aio_copytree(tree, tmp_path / "1", lambda _: ended.append("copy"), pool=pool))
    outer.wait()
    pool.flush()
    assert ended == ["copy", "outer"]
    assert trees.picture(tmp_path / "1") == trees.picture(tree)

    outer = procaio.aio_group(lambda: ended.append("never"), pool=pool)
    outer.add(
        procaio.aio_copytree(tree, tmp_path / "2", lambda _: ended.append("never"), pool=pool)
    )
    outer.cancel()
    pool.flush()
    assert ended == ["copy", "outer"]


def test_without_its_members_it_has_failed(workers: procaio.Pool, tree: Path, copy: Path) -> None:
    """cancel_subs() ends it (L5), but nobody takes it for success."""
    workers.max_parallel(0)
    answers: list[int] = []
    request = procaio.aio_copytree(tree, copy, answers.append, pool=workers)
    request.cancel_subs()
    assert trees.failed(request)[0] == errno.ECANCELED
    assert answers == [-1]
    assert not copy.exists()


def test_while_another_thread_polls_it_begins_as_well(
    pool: procaio.Pool, tree: Path, tmp_path: Path
) -> None:
    """The other thread must not take the group for empty before its first member is there."""
    os.link(tree / "new\nline", tree / "a" / "b" / "again")
    wrong: list[object] = []
    procaio.on_callback_error(lambda *what: wrong.append(what))
    with switching_often(), trees.Busy(pool.poll_cb):
        for number in range(6):
            request = procaio.aio_copytree(tree, tmp_path / f"{number}", pool=pool)
            assert request.wait(timeout=30) == 0
    for number in range(6):
        assert trees.picture(tmp_path / f"{number}") == trees.picture(tree)
    assert wrong == []


def test_many_at_the_same_time_each_make_their_own(
    pool: procaio.Pool, tree: Path, tmp_path: Path
) -> None:
    """And two to the same place, where directories may exist, make one copy."""
    requests = [
        procaio.aio_copytree(tree, tmp_path / f"{n // 2}", dirs_exist_ok=True, pool=pool)
        for n in range(20)
    ]
    for request in requests:
        with contextlib.suppress(OSError):
            request.wait(timeout=60)
        # One removes what the other has begun to write, and is told of when it comes back.
        assert {number for _, number in request.progress.failures} <= {errno.EAGAIN}
    for number in range(10):
        request = procaio.aio_copytree(tree, tmp_path / f"{number}", dirs_exist_ok=True, pool=pool)
        assert request.wait(timeout=60) == 0
        assert trees.picture(tmp_path / f"{number}") == trees.picture(tree)


def test_pool_that_is_closed_lets_it_come_to_its_end(
    pool: procaio.Pool, tree: Path, copy: Path
) -> None:
    """close() waits for what is outstanding."""
    answers: list[int] = []
    procaio.aio_copytree(tree, copy, answers.append, pool=pool)
    pool.close()
    assert answers == [0]
    assert trees.picture(copy) == trees.picture(tree)


def test_exception_in_the_callback_goes_to_the_hook(
    pool: procaio.Pool, tree: Path, copy: Path
) -> None:
    seen: list[object] = []
    procaio.on_callback_error(lambda error, request: seen.append((str(error), request)))

    def callback(status: int) -> None:
        raise ArithmeticError(status)

    request = procaio.aio_copytree(tree, copy, callback, pool=pool)
    pool.flush()
    assert seen == [("0", request)]


def test_can_be_awaited(tree: Path, copy: Path) -> None:
    """As anything else; a failure is raised."""

    async def main() -> None:
        assert await procaio.aio_copytree(tree, copy) == 0
        with pytest.raises(FileExistsError):
            await procaio.aio_copytree(tree, copy)

    asyncio.run(main())
