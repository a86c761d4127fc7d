"""aio_walk: what os.walk gives, in the same order, while workers list what comes next."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
import trees
from procaio import _core, _walk, testing
from programs import FILTER, run_python
from trees import Busy, as_root
from walking import (
    Given,
    broad,
    by_name,
    directories_open,
    eventually_quiet,
    make_tree,
    run,
    walk,
    walk_of_os,
    walked,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

MOST_SECTIONS = 63  # of directories that come with one above them: workers/calls_tree.c


@pytest.fixture(params=["types", "hidden"])
def types(request: pytest.FixtureRequest) -> Iterator[str]:
    """A file system that tells the types of entries, and one that does not."""
    with testing.hidden_types() if request.param == "hidden" else contextlib.nullcontext():
        yield request.param


@pytest.fixture
def looks_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """No listing has the time to look at an entry, as on a slow file system."""
    monkeypatch.setattr("procaio._walk._list", partial(trees.without_looks, _core._list))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


# -- what it gives ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize("followlinks", [False, True])
@pytest.mark.parametrize("topdown", [True, False])
@pytest.mark.parametrize("form", [str, os.fsencode, Path, "{}/".format])
def test_gives_what_os_walk_does(
    pool: procaio.Pool, tree: Path, form: Callable[[Path], Any], topdown: bool, followlinks: bool
) -> None:
    """Names of all kinds, symlinks that are followed or are not, absolute and relative paths."""
    for top in (form(tree), form(Path(os.path.relpath(tree)))):
        how = {"topdown": topdown, "followlinks": followlinks}
        expected = walk_of_os(top, **how)
        found = walked(top, pool=pool, **how)
        assert found == expected if topdown else sorted(found) == sorted(expected)


def test_is_called_like_os_walk(tree: Path) -> None:
    """By position and by name; the default pool is used."""
    errors: list[OSError] = []
    expected = walk_of_os(tree, followlinks=True)
    assert run(walk(procaio.aio_walk(tree, True, errors.append, True))) == expected
    assert sorted(run(walk(procaio.aio_walk(tree, topdown=False)))) == sorted(walk_of_os(tree))


def is_below(directory: Any, path: Any) -> bool:
    return bool(os.path.commonpath([directory, path]) == directory != path)


@pytest.mark.usefixtures("types")
def test_bottom_up_a_directory_comes_after_those_in_it(pool: procaio.Pool, tree: Path) -> None:
    """And right after the last one of them."""
    given_ = [path for path, _, _ in walked(os.fspath(tree), topdown=False, pool=pool)]
    for number, path in enumerate(given_):
        below = [n for n, other in enumerate(given_) if is_below(path, other)]
        assert below == list(range(number - len(below), number))


def bounded(levels: int) -> Callable[..., None]:
    """Go so deep, and not to the root: what links lead to may contain them."""

    def edit(path: bytes, dirs: list[bytes]) -> None:
        dirs.sort()
        if path.count(b"/") >= levels:
            dirs.clear()
        dirs[:] = [name for name in dirs if not leads_away(os.path.join(path, name))]

    return edit


def leads_away(path: bytes) -> bool:
    """To the root, itself or by other links: what is there changes all the time."""
    return os.path.islink(path) and os.path.realpath(path) == b"/"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trees.SHAPES, st.booleans(), st.booleans())
@pytest.mark.usefixtures("types")
def test_any_tree_is_walked_as_os_walk_does(
    pool: procaio.Pool, tmp_path: Path, shape: trees.Shape, topdown: bool, followlinks: bool
) -> None:
    """With links that lead upwards, to each other and to nothing."""
    followlinks = followlinks and topdown  # else nothing could stop it
    top = os.fsencode(tmp_path / "top")
    how = {"topdown": topdown, "followlinks": followlinks}
    trees.make(top, shape)
    try:
        for path in (top, os.fsdecode(top)) if not followlinks else (top,):
            edit = bounded(path.count(b"/") + 3) if followlinks else by_name
            expected = walk_of_os(path, edit, **how)
            found = walked(path, edit, pool=pool, **how)
            assert found == expected if topdown else sorted(found) == sorted(expected)
    finally:
        trees.remove(top)


@pytest.mark.usefixtures("looks_take_long")
@pytest.mark.parametrize("followlinks", [False, True])
def test_types_that_no_listing_has_found_are_asked_for(
    pool: procaio.Pool, tree: Path, followlinks: bool
) -> None:
    """It gives the same."""
    broad(tree / "broad", 300)
    (tree / "broad" / "link").symlink_to("../a")
    expected = walk_of_os(tree, followlinks=followlinks)
    assert walked(tree, followlinks=followlinks, pool=pool) == expected


@pytest.mark.usefixtures("looks_take_long")
def test_types_are_asked_for_by_few_requests_at_a_time(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """However large a directory is, others' requests are not kept waiting for long."""
    top = tmp_path / "large"
    top.mkdir()
    for number in range(1500):
        os.symlink("nowhere", top / f"{number}")
    most = 0
    types = _core._types

    def asking(*arguments: Any, **keywords: Any) -> object:
        nonlocal most
        request = types(*arguments, **keywords)
        most = max(most, workers.nreqs())
        return request

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procaio._walk._types", asking)
        assert walked(top, pool=workers) == walk_of_os(top)
    assert 1 < most <= _walk.MOST_ASKED


# -- the names of directories, changed by the program ----------------------------------------------


def removing(path: str, dirs: list[str]) -> None:
    dirs[:] = [name for name in sorted(dirs) if name != "a" and "n" not in name]


def clearing(path: str, dirs: list[str]) -> None:
    dirs.sort()
    if path.endswith("a"):
        dirs.clear()


def reversing(path: str, dirs: list[str]) -> None:
    dirs.sort(reverse=True)


def repeating(path: str, dirs: list[str]) -> None:
    dirs.sort()
    dirs += dirs[:1]


def adding_links(path: str, dirs: list[str]) -> None:
    dirs.sort()
    if path.endswith("/b"):
        dirs += ["dangling", "to file", "missing"]
    if path.endswith("tree"):
        dirs += ["loop", "file", "a/b", "empty/."]


def adding_new(path: str, dirs: list[str]) -> None:
    dirs.sort()
    with contextlib.suppress(FileExistsError):
        if path.endswith("empty"):
            os.makedirs(os.path.join(path, "made", "just now"))
            os.symlink("made", os.path.join(path, "linked"))
            dirs += ["made", "linked"]


@pytest.mark.parametrize("followlinks", [False, True])
@pytest.mark.parametrize(
    "edit", [removing, clearing, reversing, repeating, adding_links, adding_new]
)
def test_changed_names_have_the_effect_of_os_walks(
    pool: procaio.Pool, tree: Path, edit: Callable[..., None], followlinks: bool
) -> None:
    """Removed, in another order, twice, and some that were not there."""
    copy = shutil.copytree(tree, tree.parent / "copy" / "tree", symlinks=True)
    errors: list[tuple[Any, Any]] = []
    expected_errors: list[tuple[Any, Any]] = []

    def note(errors: list[tuple[Any, Any]], top: Path) -> Callable[[OSError], object]:
        return lambda error: errors.append((error.errno, os.path.relpath(error.filename, top)))

    def below(top: Path, found: list[Given]) -> list[Given]:
        return [(os.path.relpath(path, top), dirs, files) for path, dirs, files in found]

    how: dict[str, Any] = {"followlinks": followlinks}
    expected = walk_of_os(os.fspath(copy), edit, onerror=note(expected_errors, copy), **how)
    found = walked(os.fspath(tree), edit, onerror=note(errors, tree), pool=pool, **how)
    assert below(tree, found) == below(copy, expected)
    assert errors == expected_errors


def test_bottom_up_changed_names_have_no_effect(pool: procaio.Pool, tree: Path) -> None:
    def clear(_: object, dirs: list[str]) -> None:
        dirs.clear()

    expected = sorted(walk_of_os(tree, clear, topdown=False))
    assert sorted(walked(tree, clear, topdown=False, pool=pool)) == expected


def test_names_that_are_taken_out_late_do_no_harm(pool: procaio.Pool, tree: Path) -> None:
    """Of a directory that is being gone through."""
    seen: list[list[str]] = []

    def late(_: str, dirs: list[str]) -> None:
        seen.append(dirs)
        for earlier in seen:
            earlier.clear() if len(seen) == 4 else earlier.sort()

    given_ = [path for path, _, _ in walked(tree, late, pool=pool)]
    assert len(given_) == len(set(given_)) >= 4


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False))
def test_names_taken_out_at_random_are_not_gone_into(
    pool: procaio.Pool, tmp_path: Path, randomly: random.Random
) -> None:
    """And the order of those left is kept, whatever was listed before they were taken out."""
    top = tmp_path / "tree"
    if not top.exists():
        broad(top, 12, 5)
    kept: dict[Any, list[str]] = {}

    def first(path: Any, dirs: list[str]) -> None:
        names = sorted(dirs)
        dirs[:] = kept[path] = randomly.sample(names, randomly.randrange(len(names) + 1))

    def again(path: Any, dirs: list[str]) -> None:
        dirs[:] = kept[path]

    expected = walk_of_os(top, first)
    assert walked(top, again, pool=pool) == expected


def test_names_that_were_taken_out_do_not_keep_it_from_looking_ahead(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """What was listed and is not wanted makes room for what comes next, to the end."""
    top = broad(tmp_path / "tree", 200, 4)
    ahead = []

    async def main() -> None:
        walk = procaio.aio_walk(os.fspath(top), pool=workers)
        async for path, dirs, _ in walk:
            if path != os.fspath(top):
                while workers.nreqs():  # what was asked for is known when it is taken out
                    await procaio.aio_nop(pool=workers)
                dirs.clear()
                ahead.append(walk._ahead)
        assert (walk._ahead, walk._asked) == (0, 0)

    run(main())
    assert min(ahead[:100]) > 4  # more than what is in that one


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["missing", "", "file", "file/", "b/dangling", "b/to file", "loop", "x" * 256]
)
def test_error_of_the_top_is_told_and_nothing_given(
    pool: procaio.Pool, tree: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only to onerror, as os.walk does."""
    monkeypatch.chdir(tree)
    errors: list[OSError] = []
    expected: list[OSError] = []
    assert walk_of_os(name, onerror=expected.append) == []
    assert walked(name, onerror=errors.append, pool=pool) == []
    assert walked(name, pool=pool) == []
    [error], [told] = errors, expected
    assert (error.errno, error.filename, type(error)) == (told.errno, told.filename, type(told))


@pytest.mark.parametrize("wrong", [None, 5, "a\0b", b"\0", ("a",), object()])
def test_wrong_arguments_raise_at_the_call(pool: procaio.Pool, wrong: Any) -> None:
    """Nothing is queued, and the priority stays (A5)."""
    procaio.aioreq_pri(3)
    with pytest.raises((TypeError, ValueError)):
        procaio.aio_walk(wrong, pool=pool)
    with pytest.raises((TypeError, ValueError)):
        procaio.aio_walk("x", pri=wrong if wrong is not None else "x", pool=pool) if (
            wrong != 5
        ) else procaio.aio_walk("x", pool=5)  # type: ignore[arg-type]
    assert (procaio.aioreq_pri(0), pool.nreqs()) == (3, 0)


@as_root
@pytest.mark.usefixtures("types")
def test_directory_without_permission_is_passed_over(tree: Path) -> None:
    """The error names it as the walk would; all else is given."""
    os.chmod(tree.parent, 0o777)
    for path in (tree / "a" / "b", tree / "empty"):
        path.chmod(0)
    here = os.open(tree.parent, os.O_DIRECTORY)
    errors: list[OSError] = []
    back = os.open(".", os.O_DIRECTORY)
    os.fchdir(here)
    try:
        with procaio.Pool(inline=True) as pool, trees.as_nobody():
            found = walked("tree", onerror=errors.append, pool=pool)
            expected = walk_of_os("tree")
    finally:
        os.fchdir(back)
        os.close(back)
        os.close(here)
    assert found == expected
    assert [(error.errno, error.filename) for error in errors] == [
        (errno.EACCES, "tree/a/b"),
        (errno.EACCES, "tree/empty"),
    ]
    assert all(isinstance(error, PermissionError) for error in errors)


@pytest.mark.parametrize("topdown", [True, False])
def test_what_onerror_raises_ends_the_walk(pool: procaio.Pool, tree: Path, topdown: bool) -> None:
    """It goes up, and nothing more is given; what was listed ahead is dropped."""

    def give_up(error: OSError) -> None:
        raise LookupError(error.filename)

    async def main() -> None:
        walk_ = procaio.aio_walk(tree if topdown else tree / "x", topdown, give_up, pool=pool)
        if topdown:
            _, dirs, _ = await walk_.__anext__()
            dirs.insert(0, "missing")
        with pytest.raises(LookupError):
            await walk(walk_)
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await walk_.__anext__()
        await eventually_quiet(pool)
        gc.collect()
        assert directories_open(tree) == []

    run(main())


def test_directories_that_are_removed_meanwhile_are_told_or_given(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """As os.walk would: ENOENT. What is not removed is given once."""
    top = broad(tmp_path / "tree", 100, 2)
    errors: list[OSError] = []
    given_: list[str] = []

    async def main() -> None:
        async for path, dirs, _ in procaio.aio_walk(
            os.fspath(top), onerror=errors.append, pool=pool
        ):
            given_.append(path)
            if len(given_) == 10:
                for name in dirs[50:] or os.listdir(top)[50:]:
                    shutil.rmtree(os.path.join(top, name), ignore_errors=True)

    run(main())
    assert len(set(given_)) == len(given_)
    assert {error.errno for error in errors} <= {errno.ENOENT}
    there = {path for path, _, _ in os.walk(top)}
    assert there <= set(given_)
    assert not there & {error.filename for error in errors}


def test_tree_that_others_change_does_not_stop_it(pool: procaio.Pool, tmp_path: Path) -> None:
    """What stays is given once, what comes and goes perhaps; the only error is that it is gone."""
    top = broad(tmp_path / "tree", 40, 3)
    stays = [path for path, _, _ in walk_of_os(os.fspath(top))]
    errors: list[OSError] = []

    def come_and_go() -> None:
        os.makedirs(top / "7" / "come" / "go")
        shutil.rmtree(top / "7" / "come", ignore_errors=True)

    with Busy(come_and_go):
        for _ in range(10):
            given_ = [
                path
                for path, _, _ in walked(os.fspath(top), onerror=errors.append, pool=pool)
                if "come" not in path
            ]
            assert given_ == stays
    assert {error.errno for error in errors} <= {errno.ENOENT}


@pytest.mark.parametrize("openat2", [0, errno.ENOSYS])
def test_symlink_that_takes_a_directorys_place_does_not_lead_out(
    tmp_path: Path, openat2: int
) -> None:
    """However often they trade places, nothing of what is outside is given."""
    outside = broad(tmp_path / "outside", 5, 5)
    (outside / "secret").mkdir()
    broad(tmp_path / "tree", 20, 5)
    (tmp_path / "link").symlink_to(outside)
    code = (
        FILTER
        + """
import asyncio, os, sys, threading, procaio
if sys.argv[2] != "0":
    refuse(OPENAT2, int(sys.argv[2]))
libc = ctypes.CDLL(None)
top = sys.argv[1]
stop, swaps = False, 0

def work():
    global swaps
    while not stop:
        for name in range(20):
            way = os.fsencode(f"{top}/tree/{name}")
            libc.renameat2(-100, way, -100, os.fsencode(top + "/link"), 2)
            swaps += 1
            libc.renameat2(-100, way, -100, os.fsencode(top + "/link"), 2)

async def main():
    for _ in range(20):
        async for path, dirs, files in procaio.aio_walk(top + "/tree"):
            assert "secret" not in dirs, path

thread = threading.Thread(target=work)
thread.start()
try:
    asyncio.run(main())
finally:
    stop = True
    thread.join()
procaio.close()
print(swaps > 100)
""".replace("OPENAT2", str(trees.OPENAT2))
    )
    assert run_python(code, tmp_path, openat2) == "True\n"


# -- size ------------------------------------------------------------------------------------------


async def peak(walk: procaio.aio_walk[Any]) -> tuple[int, int, int]:
    """How many directories and files it gives, and how many descriptors that takes at most."""
    dirs = files = most = 0
    async for _, _, names in walk:
        dirs += 1
        files += len(names)
        if dirs % 16 == 1:
            most = max(most, len(os.listdir("/proc/self/fd")))
    return dirs, files, most


@pytest.mark.parametrize("topdown", [True, False])
@pytest.mark.parametrize("levels", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_depth_takes_few_descriptors(
    pool: procaio.Pool, tmp_path: Path, levels: int, topdown: bool
) -> None:
    """Deeper than any path is long."""
    trees.make_deep(tmp_path / "tree", levels)
    try:
        before = len(os.listdir("/proc/self/fd"))
        dirs, files, most = run(peak(procaio.aio_walk(tmp_path / "tree", topdown, pool=pool)))
        assert (dirs, files) == (levels + 1, levels)
        assert most - before <= 40 + levels // 50
    finally:
        trees.remove(tmp_path / "tree")


def test_large_directories_that_are_listed_ahead_take_few_descriptors(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """Each is more than one step tells, and stays open until its turn, unless too many do."""
    top = tmp_path / "tree"
    file = tmp_path / "file"
    file.touch()
    for number in range(80):
        directory = top / f"{number}"
        directory.mkdir(parents=True)
        for name in range(150):
            os.link(file, directory / f"{name:0250}")
    before = len(os.listdir("/proc/self/fd"))
    dirs, files, most = run(peak(procaio.aio_walk(top, pool=pool)))
    assert (dirs, files) == (81, 12_000)
    assert most - before <= 56  # those held, and those that have just been answered


@pytest.mark.parametrize("topdown", [True, False])
def test_what_comes_next_is_found_without_looking_through_all_levels(
    pool: procaio.Pool, tmp_path: Path, topdown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work grows with the depth, not with its square."""
    below = procaio.aio_walk._below
    looks = 0

    def looking(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return below(*arguments)

    monkeypatch.setattr(procaio.aio_walk, "_below", looking)
    trees.make_deep(tmp_path / "tree", 600)
    try:
        run(peak(procaio.aio_walk(tmp_path / "tree", topdown, pool=pool)))
        assert looks < 600 * (MOST_SECTIONS + 3)
    finally:
        trees.remove(tmp_path / "tree")


@pytest.mark.parametrize("name", ["n" * 255, "\u00e4" * 127, "\U0001f333" * 63, "\udcff" * 255])
@pytest.mark.parametrize("form", [str, os.fsencode])
def test_depth_of_long_names(
    pool: procaio.Pool, tmp_path: Path, name: str, form: Callable[[Path], Any]
) -> None:
    """Ways are cut before they are too long for the system, whatever a character takes."""
    errors: list[OSError] = []
    trees.make_deep(tmp_path / "tree", 60, name)
    try:
        dirs, files, _ = run(
            peak(procaio.aio_walk(form(tmp_path / "tree"), True, errors.append, pool=pool))
        )
        assert (dirs, files, errors) == (61, 60, [])
    finally:
        trees.remove(tmp_path / "tree")


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_directory_of_many_directories(pool: procaio.Pool, tmp_path: Path, count: int) -> None:
    """More than one step tells; descriptors do not grow with their number."""
    top = tmp_path / "tree"
    trees.make(os.fsencode(top), trees.many_directories(count))
    before = len(os.listdir("/proc/self/fd"))
    dirs, _, most = run(peak(procaio.aio_walk(top, pool=pool)))
    assert dirs == count + 1
    assert most - before <= 60
    assert walked(top, pool=pool) == walk_of_os(top)


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_directory_of_many_files(pool: procaio.Pool, tmp_path: Path, count: int) -> None:
    """It takes several steps, and none of its names is lost or given twice between them."""
    top = tmp_path / "tree"
    (top / "large").mkdir(parents=True)
    for number in range(count):
        os.symlink("nowhere", top / "large" / f"{number}")
    (top / "large" / "directory" / "inner").mkdir(parents=True)
    (top / "large" / "link").symlink_to("directory")
    for followlinks in (False, True):
        expected = walk_of_os(top, followlinks=followlinks)
        assert walked(top, followlinks=followlinks, pool=pool) == expected


SCARCE = """
import asyncio, os, resource, sys, procaio
procaio.aio_nop().wait()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

async def main():
    count = 0
    def failed(error):
        print(error)
    async for _ in procaio.aio_walk(sys.argv[1], onerror=failed):
        count += 1
    print(count)

asyncio.run(main())
procaio.close()
"""


def test_few_descriptors_are_enough(tmp_path: Path) -> None:
    """With a limit of 64, deep and broad trees."""
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(10):
        trees.make_deep(top / f"{number}", 150)
    broad(top / "broad", 300)
    expected = sum(1 for _ in os.walk(top))
    assert run_python(SCARCE, top) == f"{expected}\n"


SHORTAGE = """
import asyncio, os, resource, sys, procaio
pool = procaio.Pool(inline=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

async def main():
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    def failed(error):
        print(error.errno, error.filename)
    walk = procaio.aio_walk(sys.argv[1], onerror=failed, pool=pool)
    lasts = sys.argv[2] == "lasts"
    for fd in () if lasts else taken:
        os.close(fd)
    print(sum([1 async for _ in walk]))
    for fd in taken if lasts else ():
        os.close(fd)

async def with_loop():
    await asyncio.sleep(0)
    await procaio.aio_nop(pool=pool)  # what waiting takes is open
    await main()

asyncio.run(with_loop())
pool.close()
"""


@pytest.mark.parametrize("lasts", ["lasts", "ends"])
def test_top_that_found_no_descriptor_is_asked_for_again_as_the_top(
    tmp_path: Path, lasts: str
) -> None:
    """It is a path like any other, and may be a symlink."""
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    top = tmp_path / "link"
    top.symlink_to("tree")
    expected = f"{errno.EMFILE} {top}\n0\n" if lasts == "lasts" else "2\n"
    assert run_python(SHORTAGE, top, lasts) == expected


# -- what is asked for -----------------------------------------------------------------------------


def test_walk_that_is_not_advanced_asks_for_so_much_and_no_more(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """A bounded number of requests at a time, and of directories in all."""
    top = broad(tmp_path / "tree", 600, 3)
    submitted = workers.statistics().submitted
    most = 0

    async def main() -> None:
        nonlocal most
        walk = procaio.aio_walk(top, pool=workers)
        await walk.__anext__()
        while workers.nreqs():
            most = max(most, workers.nreqs())
            workers.poll()
        assert 0 < walk._ahead < _walk.AHEAD + _walk.MOST_ASKED * (MOST_SECTIONS + 1)
        assert walk._asked == 0

    run(main())
    assert most <= _walk.MOST_ASKED + 1
    assert workers.statistics().submitted - submitted <= _walk.AHEAD + _walk.MOST_ASKED


def test_workers_list_ahead(workers: procaio.Pool, tmp_path: Path) -> None:
    """While the program looks at one directory those that come next become known."""
    top = broad(tmp_path / "tree", 100)

    async def main() -> None:
        walk = procaio.aio_walk(top, pool=workers)
        await walk.__anext__()
        workers.flush()
        submitted = workers.statistics().submitted
        for _ in range(20):
            await walk.__anext__()
        assert workers.statistics().submitted - submitted < 20

    run(main())


@pytest.mark.usefixtures("looks_take_long")
@pytest.mark.parametrize("how", ["aioreq_pri", "pri"])
def test_all_requests_have_its_priority_and_the_programs_own_is_left_alone(
    pool: procaio.Pool, tree: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B6; with the loop's turn that is waited for, too."""
    broad(tree / "broad", 200)
    seen: list[int] = []
    for name in ("_list", "_types", "aio_nop"):
        monkeypatch.setattr(_walk, name, partial(noting, seen, getattr(_walk, name)))

    async def main() -> None:
        if how == "pri":
            walk = procaio.aio_walk(tree, pri=2, pool=pool)
        else:
            procaio.aioreq_pri(2)
            walk = procaio.aio_walk(tree, pool=pool)
        assert procaio.aioreq_pri(-3) == 0
        async for _ in walk:
            assert procaio.aioreq_pri() == -3
        assert procaio.aioreq_pri(0) == -3

    run(main())
    assert set(seen) == {2}
    assert len(seen) > 200


def noting(seen: list[int], function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    request = function(*arguments, **more)
    seen.append(request.pri)
    return request


@pytest.mark.parametrize("topdown", [True, False])
@pytest.mark.parametrize("kind", ["deep", "broad"])
def test_the_loop_is_not_kept_busy(
    pool: procaio.Pool, tmp_path: Path, kind: str, topdown: bool
) -> None:
    """Others in it run at least once in so many directories, however many are known."""
    if kind == "deep":
        trees.make_deep(tmp_path / "tree", 400)
    else:
        broad(tmp_path / "tree", 400)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        in_a_row = most = 0

        def tick() -> None:
            nonlocal in_a_row, ticking
            in_a_row = 0
            ticking = loop.call_soon(tick)

        ticking = loop.call_soon(tick)
        async for _ in procaio.aio_walk(tmp_path / "tree", topdown, pool=pool):
            in_a_row += 1
            most = max(most, in_a_row)
        ticking.cancel()
        return most

    try:
        assert run(main()) <= _walk.GIVEN_IN_A_ROW
    finally:
        trees.remove(tmp_path / "tree")


# -- dying workers ---------------------------------------------------------------------------------


def die_at(point: str, tree: Path, moments: int, workers: int) -> None:
    """Walk as often as there are moments, and let a worker die at another one each time."""
    expected = walk_of_os(tree)
    for after in range(moments):
        with procaio.Pool(at_once=False) as pool:
            pool.max_parallel(workers)
            testing.arm(pool, point, after=after)
            assert walked(tree, pool=pool) == expected
            testing.disarm(pool)


@pytest.mark.usefixtures("types")
@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_worker_dies_and_the_walk_is_the_same(tmp_path: Path, tree: Path, point: str) -> None:
    """At every point, over every step."""
    broad(tree / "z", 30, 2)
    die_at(point, tree, moments=4, workers=2)


@pytest.mark.usefixtures("looks_take_long")
@pytest.mark.parametrize("point", ["taken", "called", "done"])
def test_worker_dies_over_types_and_the_walk_is_the_same(tree: Path, point: str) -> None:
    die_at(point, tree, moments=6, workers=1)


def test_workers_that_always_die_are_an_error_of_the_top(workers: procaio.Pool, tree: Path) -> None:
    """Told to onerror, with its path."""
    errors: list[OSError] = []
    testing.arm(workers, "called", always=True)
    assert walked(tree, onerror=errors.append, pool=workers) == []
    testing.disarm(workers)
    [error] = errors
    assert isinstance(error, procaio.WorkerDied)
    assert (error.errno, error.filename) == (errno.EIO, os.fspath(tree))
    assert walked(tree, pool=workers) == walk_of_os(tree)


def test_workers_killed_all_the_time_lose_no_directory(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """Each is given, or told as one over which workers have died."""
    top = broad(tmp_path / "tree", 100, 3)
    expected = {path for path, _, _ in os.walk(top)}
    procaio.aio_nop(pool=workers).wait()

    with trees.killing(workers):
        for _ in range(5):
            errors: list[OSError] = []
            given_ = [path for path, _, _ in walked(top, onerror=errors.append, pool=workers)]
            failed = [error.filename for error in errors]
            assert len(given_) == len(set(given_))
            assert not set(given_) & set(failed)
            left = {path for path in expected if not any(is_below(up, path) for up in failed)}
            assert set(given_) | set(failed) == left
            assert {error.errno for error in errors} <= {errno.EIO}
    assert workers.statistics().worker_deaths > 0
