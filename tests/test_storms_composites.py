"""Composite requests whose steps kill every worker that takes them."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually
from copying import killed_at
from procaio import _copytree, _core, testing
from programs import X86

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMPOSITES: dict[str, Callable[[Path, procaio.Pool], procaio.Request[Any]]] = {
    "scandir": lambda top, p: procaio.aio_scandir(top / "tree", pool=p),
    "rmtree": lambda top, p: procaio.aio_rmtree(top / "tree", pool=p),
    "copytree": lambda top, p: procaio.aio_copytree(top / "tree", top / "copy", pool=p),
}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """With a tree of one file in it."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    return tmp_path


@pytest.mark.parametrize("point", ["taken", "called"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_composite_request_says_that_workers_died_over_it(
    workers: procaio.Pool, top: Path, name: str, point: str
) -> None:
    """As a single request does: WorkerDied, with the caller's path."""
    testing.arm(workers, point, always=True)
    request = COMPOSITES[name](top, workers)
    with pytest.raises(procaio.WorkerDied) as caught:
        request.wait(timeout=60)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, top / "tree")
    assert isinstance(request.error, procaio.WorkerDied)


def test_error_of_a_composite_request_that_no_worker_has_died_over_is_its_own(
    workers: procaio.Pool, top: Path
) -> None:
    """EIO and a death are told apart, also of requests that end in each other's callbacks."""
    testing.arm(workers, "called", always=True)
    seen = []

    def died(_: object) -> None:
        assert _core._worker_died()
        testing.disarm(workers)
        later = procaio.aio_rmtree(top / "no such", pool=workers)
        with pytest.raises(FileNotFoundError):
            later.wait()
        seen.append((procaio.errno(), _core._worker_died(), type(later.error)))

    procaio.aio_rmtree(top / "tree", died, pool=workers)
    workers.flush()
    assert seen == [(errno.EIO, True, FileNotFoundError)]
    assert not _core._worker_died()


# -- what must not be there yet --------------------------------------------------------------------


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], None]], None]:
    """Do something each time before a copy of a tree makes a request of some kind."""

    def let(name: str, do: Callable[[], None]) -> None:
        real = getattr(_copytree, name)

        def made(*arguments: Any, **more: Any) -> Any:
            do()
            return real(*arguments, **more)

        monkeypatch.setattr(_copytree, name, made)

    return let


@pytest.fixture
def pool() -> Iterator[procaio.Pool]:
    """One worker at a time: it is known who gets where."""
    with procaio.Pool(1, at_once=False) as made:
        yield made


def deaths(pool: procaio.Pool) -> int:
    return pool.statistics().worker_deaths


def test_top_of_a_copy_is_made_again_after_the_death_of_its_worker(
    pool: procaio.Pool, top: Path, before: Any
) -> None:
    """What the dead one has made is known by its look."""
    before("_make_directory", lambda: testing.arm(pool, "called"))
    assert procaio.aio_copytree(top / "tree", top / "copy", pool=pool).wait(timeout=60) == 0
    assert (deaths(pool), os.listdir(top / "copy")) == (1, ["file"])


@pytest.mark.parametrize("content", [[], ["other"]])
def test_top_that_was_there_is_left_alone_also_when_workers_die(
    pool: procaio.Pool, top: Path, before: Any, content: list[str]
) -> None:
    """Whoever has made it, though it may look like one of a dead worker's."""
    (top / "copy").mkdir(0o700)
    for name in content:
        (top / "copy" / name).touch()
    inode = os.stat(top / "copy").st_ino
    before("_make_directory", lambda: testing.arm(pool, "called"))
    with pytest.raises(FileExistsError):
        procaio.aio_copytree(top / "tree", top / "copy", pool=pool).wait(timeout=60)
    assert (deaths(pool), os.listdir(top / "copy")) == (1, content)
    assert os.stat(top / "copy").st_ino == inode


@X86
def test_top_that_was_there_is_not_taken_for_what_a_dead_worker_may_have_made(top: Path) -> None:
    """It is seen before anything is made: nobody comes to the call that would kill him."""
    (top / "copy").mkdir(0o700)
    assert killed_at("mkdirat", "aio_copytree", top / "tree", top / "copy") == [
        "FileExistsError",
        "0",
    ]
    assert killed_at("mkdirat", "aio_copytree", top / "tree", top / "other") == ["WorkerDied", "3"]
    assert sorted(os.listdir(top)) == ["copy", "tree"]


def test_top_over_which_three_workers_died_is_not_left(
    pool: procaio.Pool, top: Path, before: Any
) -> None:
    """The next one removes it, and may die, too, as may those that close what it had open."""
    before("_make_directory", lambda: testing.arm(pool, "called", always=True))
    request = procaio.aio_copytree(top / "tree", top / "copy", pool=pool)
    with pytest.raises(procaio.WorkerDied):
        request.wait(timeout=60)
    assert deaths(pool) >= 4
    assert os.listdir(top) == ["tree"]


@pytest.mark.parametrize("in_the_way", [False, True])
def test_top_that_is_aborted_while_it_is_made_is_not_left(
    pool: procaio.Pool, top: Path, before: Any, in_the_way: bool
) -> None:
    """Unless it is somebody else's by now."""
    before("_make_directory", lambda: testing.arm(pool, "called", signal.SIGSTOP))
    request = procaio.aio_copytree(top / "tree", top / "copy", pool=pool)
    eventually(lambda: pool.poll_cb() == 0 and (top / "copy").exists(), "it is made")
    if in_the_way:
        (top / "copy" / "other").touch()
    request.abort()
    with pytest.raises(OSError):
        request.wait(timeout=60)
    eventually(lambda: (top / "copy").exists() == in_the_way, "it is removed, or not")
    pool.close()
    assert (top / "copy").exists() == in_the_way


@pytest.fixture
def two_names(top: Path) -> Path:
    """The file of the tree has two."""
    os.link(top / "tree" / "file", top / "tree" / "again")
    return top


@pytest.mark.parametrize("may_exist", [False, True])
@pytest.mark.parametrize("dead", [1, 2])
def test_other_name_is_made_again_after_the_death_of_its_worker(
    pool: procaio.Pool, two_names: Path, before: Any, may_exist: bool, dead: int
) -> None:
    """If it is there by then, and of the same file, it is done."""
    copy = two_names / "copy"
    before("aio_link", lambda: deaths(pool) < dead and testing.arm(pool, "called"))
    request = procaio.aio_copytree(two_names / "tree", copy, dirs_exist_ok=may_exist, pool=pool)
    assert request.wait(timeout=60) == 0
    assert deaths(pool) == dead
    assert os.path.samefile(copy / "file", copy / "again")
    assert (request.progress.files, request.progress.failed) == (2, 0)


def test_other_name_over_which_three_workers_died_is_told_and_the_rest_is_there(
    pool: procaio.Pool, two_names: Path, before: Any
) -> None:
    """WorkerDied names that entry, and `progress` has its errno."""
    copy = two_names / "copy"
    before("aio_link", lambda: testing.arm(pool, "called"))
    request = procaio.aio_copytree(two_names / "tree", copy, pool=pool)
    with pytest.raises(procaio.WorkerDied) as caught:
        request.wait(timeout=60)
    ((path, number),) = request.progress.failures
    assert number == errno.EIO
    assert os.fsencode(caught.value.filename) == path
    assert os.path.dirname(path) == os.fsencode(two_names / "tree")
    assert (deaths(pool), request.progress.dirs) == (3, 1)


def test_other_name_that_somebody_else_has_taken_meanwhile_is_in_the_way(
    pool: procaio.Pool, two_names: Path, before: Any
) -> None:
    """It is not overwritten, and not taken for the copy's own."""
    copy = two_names / "copy"

    def link() -> None:
        if deaths(pool) == 0:
            testing.arm(pool, "called")
            return
        names = {name for name in os.listdir(copy) if os.stat(copy / name).st_nlink == 2}
        assert names == {"file", "again"}
        for name in names - first:
            os.replace(two_names / "other", copy / name)

    (two_names / "other").write_bytes(b"other")
    first: set[str] = set()
    before("aio_link", lambda: (first or first.update(os.listdir(copy)), link()))
    request = procaio.aio_copytree(two_names / "tree", copy, pool=pool)
    with pytest.raises(FileExistsError):
        request.wait(timeout=60)
    (other,) = {"file", "again"} - first
    assert (copy / other).read_bytes() == b"other"
