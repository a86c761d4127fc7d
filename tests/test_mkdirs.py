"""aio_mkdirs: what os.makedirs makes, and what it says."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import procaio
import trees
from conftest import errno_of
from copying import needs_root
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTS = st.sampled_from(
    [
        "a",
        "b",
        "dir",
        "file",
        "link",
        "dangling",
        "to file",
        "loop",
        ".",
        "..",
        "n" * 255,
        "n" * 256,
    ]
)
WAYS = st.lists(st.tuples(PARTS, st.sampled_from(["/", "/", "/", "//"])), max_size=6).map(
    lambda parts: "".join(name + slash for name, slash in parts)
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with one of everything in it."""
    fill(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def fill(path: Path) -> None:
    """One of everything."""
    trees.make(
        os.fsencode(path),
        {b"dir": {b"a": {}}, b"file": None, b"link": b"dir", b"dangling": b"nowhere",
         b"to file": b"file", b"loop": b"loop"},
    )  # fmt: skip


@contextlib.contextmanager
def at(path: Path) -> Iterator[None]:
    """The working directory in the block."""
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def modes(path: Path) -> dict[bytes, int]:
    """What there is, and with which permissions."""
    return {name: os.lstat(os.path.join(os.fsencode(path), name)).st_mode
            for name in trees.content(path)}  # fmt: skip


# -- like os.makedirs ------------------------------------------------------------------------------


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    way=WAYS,
    cut=st.booleans(),
    mode=st.none() | st.sampled_from([0o777, 0o700, 0, 0o1755, 0o2750, 0o7777]),
    umask=st.sampled_from([0o022, 0, 0o777, 0o027]),
    exist_ok=st.booleans(),
)
@example(way="a/b/", cut=True, mode=None, umask=0o022, exist_ok=False)
@example(way="a/./", cut=True, mode=None, umask=0o022, exist_ok=False)
@example(way="a/b/./", cut=False, mode=0o700, umask=0o022, exist_ok=False)
@example(way="dir/./", cut=True, mode=None, umask=0o022, exist_ok=False)
@example(way="dir/../", cut=True, mode=None, umask=0o022, exist_ok=True)
@example(way="a/../b/", cut=True, mode=None, umask=0o022, exist_ok=False)
@example(way="a/./../b/./", cut=True, mode=None, umask=0o022, exist_ok=False)
@example(way="dangling/./", cut=True, mode=None, umask=0o022, exist_ok=True)
@example(way="a/a/../../file/./", cut=False, mode=None, umask=0o022, exist_ok=False)
@example(way="loop/./", cut=True, mode=None, umask=0o022, exist_ok=False)
@example(way="", cut=True, mode=None, umask=0o022, exist_ok=True)
def test_does_what_os_makedirs_does(
    tmp_path: Path,
    pool: procaio.Pool,
    way: str,
    mode: int | None,
    umask: int,
    *,
    cut: bool,
    exist_ok: bool,
) -> None:
    """The same directories with the same permissions, and the same error."""
    path = way.rstrip("/") if cut else way
    more = {} if mode is None else {"mode": mode}
    results: list[tuple[object, ...]] = []
    for name in ("os", "procaio"):
        top = tmp_path / name
        if top.exists():
            shutil.rmtree(top)
        inside = top.joinpath(*"123456")  # no way leads out of the top
        inside.parent.mkdir(parents=True)
        fill(inside)
        before = os.umask(umask)
        try:
            with at(inside):
                if name == "os":
                    result = errno_of(lambda: os.makedirs(path, exist_ok=exist_ok, **more))
                else:
                    request = procaio.aio_mkdirs(path, exist_ok=exist_ok, pool=pool, **more)
                    result = errno_of(request.wait)
        finally:
            os.umask(before)
        results.append((result, os.path.isdir(f"{inside}/{path}"), modes(top)))
    if results[0][:2] == (0, False):  # os says so of "x/." if x is a file, or a symlink to nowhere
        assert results[1][0] in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}
        results = [result[1:] for result in results]
    assert results[0] == results[1]


def test_makes_what_is_missing_and_tells_if_nothing_was(pool: procaio.Pool, here: Path) -> None:
    """-1 for the callback, and the error names the path as it was given."""
    answers: list[int] = []
    path = here / "x" / "y" / "z"
    assert procaio.aio_mkdirs(path, 0o750, answers.append, pool=pool).wait() == 0
    assert path.stat().st_mode & 0o777 == 0o750
    request = procaio.aio_mkdirs(path, callback=answers.append, pool=pool)
    with pytest.raises(FileExistsError) as caught:
        request.wait()
    assert caught.value.filename is path
    assert procaio.aio_mkdirs(path, exist_ok=True, pool=pool).wait() == 0
    assert path.stat().st_mode & 0o777 == 0o750, "what is there keeps its permissions"
    pool.flush()
    assert answers == [0, -1]


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("file", errno.EEXIST),
        ("file/x", errno.ENOTDIR),
        ("file/x/y", errno.ENOTDIR),
        ("to file/x/y", errno.ENOTDIR),
        ("dangling", errno.EEXIST),
        ("dangling/x/y", errno.ENOENT),
        ("loop", errno.EEXIST),
        ("loop/x", errno.ELOOP),
        ("", errno.ENOENT),
    ],
)
def test_what_is_in_the_way_is_told_and_stays(
    pool: procaio.Pool, here: Path, path: str, number: int
) -> None:
    """Also if directories may exist: these are none."""
    before = trees.content(here)
    for exist_ok in (False, True):
        assert errno_of(procaio.aio_mkdirs(path, exist_ok=exist_ok, pool=pool).wait) == number
    assert trees.content(here) == before


def test_symlinks_to_directories_are_directories(pool: procaio.Pool, here: Path) -> None:
    assert procaio.aio_mkdirs("link/x/../y", pool=pool).wait() == 0
    assert sorted(os.listdir(here / "dir")) == ["a", "x", "y"]
    assert procaio.aio_mkdirs("link", exist_ok=True, pool=pool).wait() == 0
    assert (here / "link").is_symlink()


@pytest.mark.parametrize("path", ["x/y", b"x/y", "x//y///", b"./x/y/"])
def test_takes_a_directory_to_begin_from(pool: procaio.Pool, here: Path, path: str | bytes) -> None:
    """As dir_fd, or in a tuple with the path; an absolute path needs none."""
    with procaio.aio_wd("dir", pool=pool).wait() as wd:
        assert procaio.aio_mkdirs(path, dir_fd=wd, pool=pool).wait() == 0
        assert (here / "dir" / "x" / "y").is_dir()
        assert procaio.aio_mkdirs((wd, path), 0o700, exist_ok=True, pool=pool).wait() == 0
        assert procaio.aio_mkdirs(here / "z" / "z", dir_fd=wd.fileno(), pool=pool).wait() == 0
    assert sorted(os.listdir(here / "z")) == ["z"]
    assert errno_of(procaio.aio_mkdirs("x/y", dir_fd=-5, pool=pool).wait) == errno.EBADF


def test_directory_that_was_removed_gets_none(pool: procaio.Pool, here: Path) -> None:
    (here / "gone").mkdir()
    with at(here / "gone"):
        (here / "gone").rmdir()
        for path in ("x", "x/y", "./x/y"):
            assert errno_of(procaio.aio_mkdirs(path, pool=pool).wait) == errno.ENOENT


def test_path_that_is_too_long_is_enametoolong_and_makes_nothing(
    pool: procaio.Pool, here: Path
) -> None:
    """The longest that is not makes all of its directories."""
    before = trees.content(here)
    for path in ("new/" * 1024, "x" * 4096, "new/" * 100_000, "n" * 255 + "/" + "n" * 256):
        assert errno_of(procaio.aio_mkdirs(path, pool=pool).wait) == errno.ENAMETOOLONG
        trees.remove(here / ("n" * 255))
    assert trees.content(here) == before
    assert procaio.aio_mkdirs("new/" * 1023 + "abc", pool=pool).wait() == 0
    removal = procaio.aio_rmtree("new", pool=pool)
    assert removal.wait() == 0
    assert removal.progress.dirs == 1024


@needs_root
def test_directory_that_may_not_be_written_gets_none(here: Path) -> None:
    """EACCES; what is there already is no matter of rights."""
    here.parent.parent.chmod(0o755)
    here.parent.chmod(0o755)
    with procaio.Pool(inline=True) as pool, trees.as_nobody():
        assert errno_of(procaio.aio_mkdirs("dir/x/y", pool=pool).wait) == errno.EACCES
        assert procaio.aio_mkdirs("dir/a", exist_ok=True, pool=pool).wait() == 0
    assert os.listdir("dir") == ["a"]


@pytest.mark.parametrize("exist_ok", [False, True])
def test_many_at_the_same_time_do_not_fail_over_each_other(
    pool: procaio.Pool, here: Path, *, exist_ok: bool
) -> None:
    """Each of them comes upon what others are making; one is the first."""
    for number in range(20):
        path = f"{number}/a/b/c/d"
        requests = [procaio.aio_mkdirs(path, exist_ok=exist_ok, pool=pool) for _ in range(8)]
        below = procaio.aio_mkdirs(f"{number}/a/b/x/y", pool=pool)
        outcomes = sorted(errno_of(request.wait) for request in requests)
        assert outcomes == ([0] * 8 if exist_ok else [0] + [errno.EEXIST] * 7)
        assert below.wait() == 0
        assert (here / f"{number}" / "a" / "b" / "x" / "y").is_dir()


def test_others_who_remove_it_meanwhile_do_not_hang_it(pool: procaio.Pool, here: Path) -> None:
    """It succeeds, or says that something has vanished."""

    def remove() -> None:
        for path in ("x/y/z", "x/y", "x"):
            (here / path).rmdir()

    (here / "x" / "y" / "z").mkdir(parents=True)
    outcomes = set()
    with trees.Busy(remove):
        for _ in range(300):
            request = procaio.aio_mkdirs("x/y/z/end", exist_ok=True, pool=pool)
            outcomes.add(errno_of(request.wait))
            with contextlib.suppress(OSError):
                (here / "x" / "y" / "z" / "end").rmdir()
    assert outcomes <= {0, errno.ENOENT}


@pytest.mark.parametrize("exist_ok", [False, True])
@pytest.mark.parametrize("point", [p for p in testing.FAULT_POINTS if p != "sleeping"])
def test_worker_dies_and_the_directories_are_there(
    workers: procaio.Pool, here: Path, point: str, *, exist_ok: bool
) -> None:
    """It is done again if directories may exist; else nobody knows who has made them."""
    testing.arm(workers, point)
    request = procaio.aio_mkdirs("x/y/z", 0o700, exist_ok=exist_ok, pool=workers)
    if point == "called" and not exist_ok:
        with pytest.raises(procaio.WorkerDied):
            request.wait()
    else:
        assert request.wait() == 0
    assert (here / "x" / "y" / "z").stat().st_mode & 0o777 == 0o700


def test_workers_killed_all_the_time_lose_none(workers: procaio.Pool, here: Path) -> None:
    """Or say so."""
    procaio.aio_nop(pool=workers).wait()

    with trees.killing(workers):
        requests = [
            procaio.aio_mkdirs(f"{n % 20}/b/c/{n}", exist_ok=True, pool=workers) for n in range(150)
        ]
        outcomes = [errno_of(lambda r=request: r.wait(timeout=60)) for request in requests]
    assert set(outcomes) <= {0, errno.EIO}
    for number, result in enumerate(outcomes):
        assert result or (here / f"{number % 20}" / "b" / "c" / f"{number}").is_dir()


def test_cancelled_before_it_begins_it_makes_nothing(workers: procaio.Pool, here: Path) -> None:
    before = trees.content(here)
    workers.max_parallel(0)
    request = procaio.aio_mkdirs("x/y/z", pool=workers)
    request.cancel()
    workers.max_parallel(2)
    workers.flush()
    assert trees.content(here) == before
