"""aio_scandir: the names in a directory, in two: those of directories, and all others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

import procaio
import trees
from conftest import descriptors, eventually, is_dead_in_child, switching_often
from procaio import _core, testing
from trees import Busy, as_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def told_by_os(path: str | bytes | Path) -> tuple[list[Any], list[Any]]:
    """What os.scandir says, sorted."""
    with os.scandir(path) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    dirs = sorted(name for name, is_dir in found if is_dir)
    return dirs, sorted(name for name, is_dir in found if not is_dir)


def in_order(found: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any]]:
    return sorted(found[0]), sorted(found[1])


@pytest.fixture(params=["types", "hidden"])
def types(request: pytest.FixtureRequest) -> Iterator[str]:
    """A file system that tells the types of entries, and one that does not."""
    with testing.hidden_types() if request.param == "hidden" else contextlib.nullcontext():
        yield request.param


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One of everything that a directory may contain."""
    top = tmp_path / "directory"
    trees.make(
        os.fsencode(top),
        {
            b"d": {b"inner": {}, b"file": None},
            b"d.d": {},
            b".hidden dir": {},
            b".hidden": None,
            b"...": None,
            b"file.c": None,
            b"file": None,
            b"new\nline": None,
            b"\xff\xfe": {},
            b"\xfe": None,
            b"n" * 255: {},
            b"m" * 255: None,
            b"to d": b"d",
            b"to file": b"file",
            b"dangling": b"nowhere",
            b"loop": b"loop",
            b"up": b"..",
        },
    )
    os.mkfifo(top / "fifo")
    here = os.open(top, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:  # its address may not be long
        listener.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    return top


def many(tmp_path: Path, count: int) -> Path:
    """A directory in which every tenth name is a directory's; the others are of symlinks."""
    top = tmp_path / "many"
    top.mkdir()
    fd = os.open(top, os.O_DIRECTORY)
    for number in range(count):
        if number % 10 == 3:
            os.mkdir(f"{number}", dir_fd=fd)
        elif number % 10 == 6:
            os.symlink("3", f"{number}.link", dir_fd=fd)
        else:
            os.symlink("nowhere", f"{number}", dir_fd=fd)
    os.close(fd)
    return top


# -- what it yields --------------------------------------------------------------------------------


@pytest.mark.usefixtures("types")
def test_example_of_the_reference(pool: procaio.Pool, directory: Path) -> None:
    """Two lists of names for the callback, and a tuple of them from wait()."""
    seen: list[tuple[list[str], list[str]]] = []

    def callback(dirs: list[str], nondirs: list[str]) -> None:
        seen.append((dirs, nondirs))

    request = procaio.aio_scandir(directory, 0, callback, pool=pool)
    assert in_order(request.wait()) == told_by_os(directory)
    pool.flush()
    assert seen == [request.wait()]
    dirs, nondirs = seen[0]
    assert {"d", "d.d", ".hidden dir", "\udcff\udcfe"} < set(dirs)
    assert {"to d", "up", "dangling", "loop", "fifo", "socket"} < set(nondirs)


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize("form", [str, os.fsencode, Path, "{}/".format, "{}///.".format])
def test_takes_every_kind_of_path(
    pool: procaio.Pool, directory: Path, form: Callable[[Path], Any], monkeypatch: Any
) -> None:
    """Names are bytes if the path is."""
    expected = told_by_os(form(directory))
    assert in_order(procaio.aio_scandir(form(directory), pool=pool).wait()) == expected
    monkeypatch.chdir(directory.parent)
    relative = form(Path(directory.name))
    assert in_order(procaio.aio_scandir(relative, pool=pool).wait()) == expected


@pytest.mark.usefixtures("types")
def test_takes_a_directory_to_begin_from(pool: procaio.Pool, directory: Path) -> None:
    """As dir_fd, or in a tuple with the path; what an absolute path says is not changed by it."""
    names = told_by_os(directory)
    packed = told_by_os(os.fsencode(directory))
    with procaio.aio_wd(directory.parent, pool=pool).wait() as wd:
        for arguments, keywords, expected in (
            (((wd, "directory"),), {}, names),
            (((wd.fileno(), b"directory"),), {}, packed),
            (("directory",), {"dir_fd": wd.fileno()}, names),
            ((Path("directory"),), {"dir_fd": wd}, names),
            ((directory,), {"dir_fd": wd}, names),
        ):
            request = procaio.aio_scandir(*arguments, pool=pool, **keywords)
            assert in_order(request.wait()) == expected


def test_symlink_to_a_directory_is_looked_into(pool: procaio.Pool, directory: Path) -> None:
    """As by os.scandir: it is entries that are not followed."""
    found = procaio.aio_scandir(directory / "to d", pool=pool).wait()
    assert in_order(found) == (["inner"], ["file"])


@pytest.mark.usefixtures("types")
def test_empty_directory_yields_two_empty_lists(pool: procaio.Pool, tmp_path: Path) -> None:
    assert procaio.aio_scandir(tmp_path, pool=pool).wait() == ([], [])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trees.SHAPES)
@pytest.mark.usefixtures("types")
def test_any_directory_is_as_os_scandir_tells_it(
    pool: procaio.Pool, tmp_path: Path, shape: trees.Shape
) -> None:
    top = os.fsencode(tmp_path / "top")
    trees.make(top, shape)
    try:
        for path in (top, os.fsdecode(top)):
            assert in_order(procaio.aio_scandir(path, pool=pool).wait()) == told_by_os(path)
    finally:
        trees.remove(top)


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize("count", [2500, pytest.param(100_000, marks=pytest.mark.slow)])
def test_large_directory_is_told_as_a_whole(pool: procaio.Pool, tmp_path: Path, count: int) -> None:
    """It takes several steps, and none of its names is lost or told twice between them (G1)."""
    top = many(tmp_path, count)
    assert in_order(procaio.aio_scandir(top, pool=pool).wait(timeout=60)) == told_by_os(top)


def test_all_systems_directories_are_told(pool: procaio.Pool) -> None:
    """What has link counts of its own kind, or none: proc, sysfs, devices."""
    for path in ("/proc/self", "/proc/self/fdinfo/..", "/sys", "/sys/kernel", "/dev", "/"):
        with testing.hidden_types():
            assert in_order(procaio.aio_scandir(path, pool=pool).wait()) == told_by_os(path)


# -- what cannot be listed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("missing", errno.ENOENT),
        ("", errno.ENOENT),
        ("dangling", errno.ENOENT),
        ("file", errno.ENOTDIR),
        ("file/", errno.ENOTDIR),
        ("fifo", errno.ENOTDIR),
        ("to file", errno.ENOTDIR),
        ("loop", errno.ELOOP),
        ("n" * 256, errno.ENAMETOOLONG),
        ("x/" * 2500, errno.ENAMETOOLONG),
    ],
)
def test_failure_is_that_of_os_scandir(
    pool: procaio.Pool, directory: Path, name: str, number: int, monkeypatch: Any
) -> None:
    """(None, None) for the callback (H1), and the path itself in the error."""
    monkeypatch.chdir(directory)
    with pytest.raises(OSError) as expected:
        os.scandir(name) if name else os.scandir(Path(name).joinpath("missing"))
    assert expected.value.errno == number
    answers: list[object] = []
    request = procaio.aio_scandir(
        name, lambda *values: answers.append((values, procaio.errno())), pool=pool
    )
    with pytest.raises(OSError) as caught:
        request.wait()
    assert (caught.value.errno, caught.value.filename) == (number, name)
    assert caught.value.filename is name
    pool.flush()
    assert answers == [((None, None), number)]


@as_root
@pytest.mark.usefixtures("types")
def test_directory_without_permission(tmp_path: Path) -> None:
    """Not readable: EACCES. Readable and no more: types are told as far as they can be known."""
    trees.make(os.fsencode(tmp_path / "closed"), {b"d": {}, b"f": None})
    (tmp_path / "closed").chmod(0o300)
    top = os.open(tmp_path, os.O_DIRECTORY)
    os.fchmod(top, 0o755)
    try:
        with procaio.Pool(inline=True) as pool:
            with trees.as_nobody():
                request = procaio.aio_scandir("closed", dir_fd=top, pool=pool)
            with pytest.raises(PermissionError):
                request.wait()
            (tmp_path / "closed").chmod(0o755)
            (tmp_path / "closed" / "d").chmod(0)
            with trees.as_nobody():
                request = procaio.aio_scandir("closed", dir_fd=top, pool=pool)
                pool.flush()
            assert request.wait() == (["d"], ["f"])
    finally:
        os.close(top)


@pytest.mark.parametrize(
    "arguments",
    [
        (5,),
        (None,),
        ("a\0b",),
        (("x",),),
        (("x", "y", "z"),),
        ((None, "x", "y"),),
        (("no fd", "x"),),
        ((2**40, "x"),),
        ("x", "y"),
        ("x", 1.5),
        ("x", None),
        ("x", 0, 5),
        ("x", print, print),
    ],
)
def test_wrong_arguments_raise_and_leave_the_priority(
    pool: procaio.Pool, arguments: tuple[Any, ...]
) -> None:
    """Nothing is queued (A5, A6)."""
    procaio.aioreq_pri(3)
    with pytest.raises((TypeError, ValueError)):
        procaio.aio_scandir(*arguments, pool=pool)
    assert (procaio.aioreq_pri(0), pool.nreqs()) == (3, 0)


def test_closed_pool_refuses_it(tmp_path: Path) -> None:
    pool = procaio.Pool()
    pool.close()
    with pytest.raises(procaio.PoolClosed):
        procaio.aio_scandir(tmp_path, pool=pool)


def test_directory_that_is_closed_meanwhile_is_a_bad_descriptor(
    pool: procaio.Pool, directory: Path
) -> None:
    """With and without a step under way the request fails; nothing hangs."""
    wd = procaio.aio_wd(directory.parent, pool=pool).wait()
    wd.close()
    with pytest.raises(ValueError, match="closed"):
        procaio.aio_scandir("directory", dir_fd=wd, pool=pool)
    with pytest.raises(OSError) as caught:
        procaio.aio_scandir("directory", dir_fd=1_000_000, pool=pool).wait()
    assert caught.value.errno == errno.EBADF
    assert pool.nreqs() == 0


# -- its members -----------------------------------------------------------------------------------


class Index:
    """An integer that is no int."""

    def __index__(self) -> int:
        """Three of them."""
        return 3


@pytest.mark.parametrize(
    ("maxreq", "bound"),
    [(0, 4), (-1, 4), (-(2**70), 4), (1, 1), (2, 2), (True, 1), (300, 256), (2**70, 256)],
)
def test_maxreq_bounds_the_members_in_flight(
    workers: procaio.Pool, tmp_path: Path, maxreq: int, bound: int
) -> None:
    """The rest of a directory, and the types of names, are asked for at the same time (H2)."""
    top = many(tmp_path, 1600)
    with testing.hidden_types():
        request = procaio.aio_scandir(top, maxreq, pool=workers)
        most = 0
        while request.state != "done":
            most = max(most, len(request))
            assert workers.nreqs() <= len(request) + 1
            workers.max_poll_reqs(1)
            workers.poll()
        workers.max_poll_reqs(0)
    assert in_order(request.wait()) == told_by_os(top)
    assert 1 <= most <= bound


def test_maxreq_is_anything_that_counts(pool: procaio.Pool, directory: Path) -> None:
    """As every other number of the interface."""
    found = procaio.aio_scandir(directory, Index(), pool=pool).wait()
    assert in_order(found) == told_by_os(directory)


@pytest.fixture
def looks_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """No listing has the time to look at an entry, as on a slow file system."""
    monkeypatch.setattr("procaio._trees._list", partial(trees.without_looks, _core._list))


@pytest.mark.usefixtures("looks_take_long")
@pytest.mark.parametrize("maxreq", [0, 1, 7])
def test_types_that_no_listing_has_found_are_asked_for(
    pool: procaio.Pool, tmp_path: Path, directory: Path, maxreq: int
) -> None:
    """By `maxreq` members at a time."""
    for top in (directory, many(tmp_path, 1000)):
        request = procaio.aio_scandir(top, maxreq, pool=pool)
        most = 0
        while request.state != "done":
            most = max(most, len(request))
            pool.max_poll_reqs(1)
            pool.poll()
        pool.max_poll_reqs(0)
        assert in_order(request.wait()) == told_by_os(top)
        assert in_order(procaio.aio_scandir(bytes(top), pool=pool).wait()) == told_by_os(bytes(top))
    assert most == (maxreq or 4)


@pytest.mark.usefixtures("looks_take_long")
def test_entry_that_vanishes_before_it_is_looked_at_is_no_directory(
    pool: procaio.Pool, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told with all others, and is no error."""
    expected = told_by_os(directory)
    types = _core._types

    def vanishing(*arguments: Any, **keywords: Any) -> object:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(directory / "d.d")
            os.unlink(directory / "file")
        return types(*arguments, **keywords)

    monkeypatch.setattr("procaio._trees._types", vanishing)
    dirs, nondirs = in_order(procaio.aio_scandir(directory, pool=pool).wait())
    expected[0].remove("d.d")
    assert (dirs, nondirs) == (expected[0], sorted([*expected[1], "d.d"]))


@pytest.mark.usefixtures("types")
def test_others_at_work_in_the_directory_do_not_matter(pool: procaio.Pool, tmp_path: Path) -> None:
    """What is there all the time is told, rightly; what comes and goes may be."""
    top = many(tmp_path, 300)
    expected = told_by_os(top)
    numbers = iter(range(1 << 40))

    def come_and_go() -> None:
        path = top / f"come {next(numbers)}"
        path.mkdir()
        path.rmdir()

    with Busy(come_and_go):
        for _ in range(50):
            dirs, nondirs = in_order(procaio.aio_scandir(top, pool=pool).wait(timeout=60))
            stay = [name for name in nondirs if not name.startswith("come")]
            assert ([name for name in dirs if not name.startswith("come")], stay) == expected


@pytest.mark.usefixtures("looks_take_long")
def test_all_members_have_its_priority_and_the_programs_own_is_left_alone(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """B6; the priority of the program's next request outlasts the steps that are made meanwhile."""
    top = many(tmp_path, 500)
    procaio.aioreq_pri(2)
    request = procaio.aio_scandir(top, pool=pool)
    assert procaio.aioreq_pri(-3) == 0
    seen = set()
    while request.state != "done":
        seen |= {member.pri for member in request}
        pool.poll()
    assert (request.pri, seen) == (2, {2})
    assert procaio.aioreq_pri(0) == -3
    procaio.aioreq_pri(1)
    request = procaio.aio_scandir(top, pri=-4, pool=pool)
    assert (request.pri, {member.pri for member in request}) == (-4, {-4})
    assert procaio.aioreq_pri(0) == 0
    request.wait()


def test_is_a_member_of_other_groups(pool: procaio.Pool, directory: Path) -> None:
    """The outer one ends after it, and cancels it with itself (L3)."""
    ended: list[str] = []
    outer = procaio.aio_group(lambda: ended.append("outer"), pool=pool)
    outer.add(procaio.aio_scandir(directory, lambda *_: ended.append("inner"), pool=pool))
    outer.wait()
    pool.flush()
    assert ended == ["inner", "outer"]

    outer = procaio.aio_group(lambda: ended.append("never"), pool=pool)
    inner = procaio.aio_scandir(directory, lambda *_: ended.append("never"), pool=pool)
    outer.add(inner)
    outer.cancel()
    pool.flush()
    assert (ended, inner.state) == (["inner", "outer"], "cancelled")


def test_without_its_members_it_has_failed(workers: procaio.Pool, directory: Path) -> None:
    """cancel_subs() ends it (L5), but nobody takes it for an empty directory."""
    workers.max_parallel(0)
    answers: list[object] = []
    request = procaio.aio_scandir(directory, lambda *values: answers.append(values), pool=workers)
    request.cancel_subs()
    with pytest.raises(OSError) as caught:
        request.wait()
    assert caught.value.errno == errno.ECANCELED
    workers.flush()
    assert answers == [(None, None)]


def test_exception_in_the_callback_goes_to_the_hook(pool: procaio.Pool, directory: Path) -> None:
    seen: list[object] = []
    procaio.on_callback_error(lambda error, request: seen.append((str(error), request)))

    def callback(dirs: list[str], _: list[str]) -> None:
        raise ArithmeticError(len(dirs))

    request = procaio.aio_scandir(directory / "d", callback, pool=pool)
    pool.flush()
    assert seen == [("1", request)]
    assert request.wait() == (["inner"], ["file"])


@pytest.mark.usefixtures("looks_take_long")
def test_pool_that_is_closed_lets_it_come_to_its_end(pool: procaio.Pool, tmp_path: Path) -> None:
    """close() waits for what is outstanding."""
    top = many(tmp_path, 500)
    answers: list[tuple[list[str], list[str]]] = []
    procaio.aio_scandir(top, lambda *values: answers.append(values), pool=pool)
    pool.poll()
    pool.close()
    assert [in_order(answer) for answer in answers] == [told_by_os(top)]


@pytest.mark.usefixtures("looks_take_long")
def test_while_another_thread_polls_it_is_the_same(pool: procaio.Pool, tmp_path: Path) -> None:
    """Members' callbacks in two threads lose nothing."""
    top = many(tmp_path, 300)
    expected = told_by_os(top)
    wrong: list[object] = []
    procaio.on_callback_error(lambda *what: wrong.append(what))
    with switching_often(), Busy(pool.poll_cb):
        for _ in range(2):
            request = procaio.aio_scandir(top, pool=pool)
            assert in_order(request.wait(timeout=30)) == expected
    assert wrong == []


def test_forked_child_leaves_it_to_its_parent(pool: procaio.Pool, directory: Path) -> None:
    """The child's copy is dead; the parent's goes on (P1)."""
    request = procaio.aio_scandir(directory, pool=pool)
    assert is_dead_in_child(request)
    assert in_order(request.wait()) == told_by_os(directory)


# -- cancelled -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("looks_take_long")
def test_cancelled_at_any_moment_it_ends(pool: procaio.Pool, tmp_path: Path) -> None:
    """The callback is not called, flush() returns, no descriptor is left."""
    top = many(tmp_path, 300)
    procaio.aio_nop(pool=pool).wait()
    randomly = random.Random(7)
    answers: list[object] = []
    ends = set()
    for _ in range(100):
        request = procaio.aio_scandir(top, lambda *_: answers.append(1), pool=pool)
        pool.max_poll_reqs(1)
        for _ in range(randomly.randrange(0, 12)):
            pool.poll()
        pool.max_poll_reqs(0)
        was_done = request.state == "done"
        if randomly.random() < 0.3:
            request.cancel_subs()
            ends.add("members")
            pool.flush()
            assert len(answers) == 1
        else:
            request.cancel()
            pool.flush()
            assert len(answers) == was_done
            assert request.state == ("done" if was_done else "cancelled")
            ends.add(request.state)
        answers.clear()
        assert pool.nreqs() == 0
        request = None  # type: ignore[assignment]
    assert ends >= {"members", "cancelled"}

    def nothing_is_left() -> bool:
        """What was with a worker when it was cancelled has come back, too."""
        procaio.aio_nop(pool=pool).wait()
        return not any(str(tmp_path) in what for what in descriptors().values())

    eventually(nothing_is_left, "descriptors of cancelled requests are closed")


def test_can_be_awaited_and_cancelled_with_its_task(directory: Path, gate: Any) -> None:
    """As anything else; a failure is raised."""

    async def main() -> None:
        assert in_order(await procaio.aio_scandir(directory)) == told_by_os(directory)
        with pytest.raises(FileNotFoundError):
            await procaio.aio_scandir(directory / "missing")
        with procaio.Pool(1) as pool:
            held = gate.hold(pool)
            request = procaio.aio_scandir(directory, pool=pool)
            task = asyncio.ensure_future(asyncio.wait_for(request, 1000))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert request.state == "cancelled"
            gate.open()
            await held[0]

    asyncio.run(main())


# -- dying workers ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_worker_dies_and_the_names_are_told_all_the_same(
    tmp_path: Path, directory: Path, point: str
) -> None:
    """At every point, over every step; the callback comes once."""
    large = many(tmp_path, 1600)
    expected = {path: told_by_os(path) for path in (directory, large)}
    for after in (0, 2):
        for path, names in expected.items():
            answers: list[object] = []
            with procaio.Pool(at_once=False) as pool:
                pool.max_parallel(2)
                testing.arm(pool, point, after=after)
                request = procaio.aio_scandir(
                    path, lambda *seen, answers=answers: answers.append(seen), pool=pool
                )
                assert in_order(request.wait(timeout=60)) == names
                pool.flush()
                testing.disarm(pool)
            assert answers == [request.wait()]


@pytest.mark.usefixtures("looks_take_long")
@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_worker_dies_over_types_and_they_are_found_all_the_same(
    directory: Path, point: str
) -> None:
    """Looking twice is the same as looking once."""
    for after in range(3):
        with procaio.Pool(at_once=False) as pool:
            pool.max_parallel(1)
            testing.arm(pool, point, after=after)
            request = procaio.aio_scandir(directory, pool=pool)
            assert in_order(request.wait(timeout=60)) == told_by_os(directory)
            testing.disarm(pool)


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize("point", ["claimed", "taken", "called"])
def test_workers_that_always_die_end_it_with_an_error(
    workers: procaio.Pool, directory: Path, point: str
) -> None:
    """It does not hang, and what a dead worker had opened is closed."""
    testing.arm(workers, point, always=True)
    answers: list[object] = []
    request = procaio.aio_scandir(directory, lambda *values: answers.append(values), pool=workers)
    with pytest.raises(OSError) as caught:
        request.wait(timeout=60)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, directory)
    workers.flush()
    assert answers == [(None, None)]
    testing.disarm(workers)
    assert in_order(procaio.aio_scandir(directory, pool=workers).wait()) == told_by_os(directory)


def test_workers_killed_all_the_time_do_not_change_it(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """Either it tells everything, or that a worker has died three times over it."""
    top = many(tmp_path, 1000)
    expected = told_by_os(top)
    procaio.aio_nop(pool=workers).wait()
    before = len(descriptors())

    told = 0
    with trees.killing(workers), testing.hidden_types():
        for _ in range(15):
            request = procaio.aio_scandir(top, pool=workers)
            with contextlib.suppress(OSError):
                assert in_order(request.wait(timeout=60)) == expected
                told += 1
            assert request.error is None or request.error.errno == errno.EIO
    assert told
    assert workers.statistics().worker_deaths > 0
    eventually(
        lambda: procaio.aio_nop(pool=workers).wait() is None and len(descriptors()) <= before + 10,
        "orphans are closed",
    )
