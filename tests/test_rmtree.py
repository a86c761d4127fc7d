"""aio_rmtree: everything goes that can, nothing outside is touched, and the rest is told."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import procaio
import trees
from conftest import switching_often
from programs import run_python
from removing import outside, tree
from trees import as_root

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["outside", "tree"]  # fixtures


# -- what it is asked for --------------------------------------------------------------------------


def test_removes_a_tree_with_names_and_files_of_all_kinds(
    pool: procaio.Pool, tree: Path, outside: Path
) -> None:
    """It yields 0, once, and the progress has counted everything."""
    os.mkfifo(tree / "fifo")
    answers: list[int] = []
    request = procaio.aio_rmtree(tree, answers.append, pool=pool)
    assert request.wait() == 0
    pool.flush()
    assert answers == [0]
    assert request.error is None
    progress = request.progress
    assert (progress.files, progress.dirs, progress.failed) == (10, 8, 0)
    assert (progress.failures, progress.bytes) == ([], 0)
    assert os.listdir(tree.parent) == ["outside"]


@pytest.mark.parametrize("form", [str, os.fsencode, Path, "{}/".format, "{}///".format])
def test_takes_every_kind_of_path(
    pool: procaio.Pool, tree: Path, form: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute and relative ones; slashes behind it say no more than it does."""
    assert procaio.aio_rmtree(form(tree), pool=pool).wait() == 0
    assert not tree.exists()
    monkeypatch.chdir(tree.parent)
    os.mkdir("tree")
    assert procaio.aio_rmtree(form(Path("tree")), pool=pool).wait() == 0
    assert not tree.exists()


def test_takes_a_directory_to_begin_from(pool: procaio.Pool, tree: Path) -> None:
    """As dir_fd, or in a tuple with the path."""
    with procaio.aio_wd(tree.parent, pool=pool).wait() as wd:
        assert procaio.aio_rmtree((wd, "tree/a/b"), pool=pool).wait() == 0
        assert not (tree / "a" / "b").exists()
        assert procaio.aio_rmtree("tree/a", dir_fd=wd.fileno(), pool=pool).wait() == 0
        assert not (tree / "a").exists()
        assert procaio.aio_rmtree(b"tree", dir_fd=wd, pool=pool).wait() == 0
    assert not tree.exists()


def begun(pool: procaio.Pool, path: str | Path) -> procaio.Group:
    """A removal that has found its tree, and is not at its end."""
    request = procaio.aio_rmtree(path, pool=pool)
    while request.progress.files == 0:
        pool.poll_cb()
    assert request.state == "execute"
    return request


def many(path: Path) -> Path:
    trees.make(os.fsencode(path), {b"%d" % n: {b"f": None} for n in range(200)})
    return path


def test_tree_that_gets_the_name_of_the_one_that_is_removed_stays(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """The one that was given is emptied, wherever it is now; its name is somebody else's."""
    given, other = many(tmp_path / "given"), many(tmp_path / "other")
    before = trees.content(other)
    request = begun(pool, given)
    given.rename(tmp_path / "elsewhere")
    other.rename(given)
    number, failures = trees.failed(request)
    assert number == errno.ENOTEMPTY
    assert failures == [(os.fsencode(given), errno.ENOTEMPTY)]
    assert trees.content(given) == before
    assert trees.content(tmp_path / "elsewhere") == {}


def test_tree_that_is_renamed_meanwhile_is_emptied_and_told(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """What is left of it has a name that nobody has given."""
    request = begun(pool, many(tmp_path / "given"))
    (tmp_path / "given").rename(tmp_path / "elsewhere")
    assert trees.failed(request)[0] == errno.ESTALE
    assert trees.content(tmp_path / "elsewhere") == {}


def test_relative_path_is_meant_where_the_program_was(
    pool: procaio.Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it goes meanwhile."""
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        many(tmp_path / place / "tree")
    before = trees.content(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "here")
    request = begun(pool, "tree")
    monkeypatch.chdir(tmp_path / "there")
    assert request.wait() == 0
    assert os.listdir(tmp_path / "here") == []
    assert trees.content(tmp_path / "there") == before


@as_root
def test_directory_above_that_cannot_be_read_does_not_matter(tmp_path: Path) -> None:
    """To remove what is in it takes other rights."""
    above = tmp_path / "above"
    above.mkdir()
    for path, _, _ in os.walk(many(above / "tree")):
        os.chown(path, trees.NOBODY, -1)
    os.chown(above, trees.NOBODY, -1)
    os.chmod(above, 0o300)
    os.chmod(tmp_path, 0o711)
    here = os.open(tmp_path, os.O_PATH)
    with procaio.Pool(inline=True) as pool, trees.as_nobody():
        assert procaio.aio_rmtree("above/tree", dir_fd=here, pool=pool).wait() == 0
    os.close(here)
    assert os.listdir(above) == []


def test_error_names_the_path_and_not_the_directory_it_begins_from(
    pool: procaio.Pool, tree: Path
) -> None:
    """Of a tuple the path in it, as it was given."""
    with procaio.aio_wd(tree, pool=pool).wait() as wd:
        with pytest.raises(FileNotFoundError) as caught:
            procaio.aio_rmtree((wd, "missing"), pool=pool).wait()
        assert caught.value.filename == "missing"
        with pytest.raises(FileNotFoundError) as caught:
            procaio.aio_copytree((wd, b"missing"), (wd, "x"), pool=pool).wait()
        assert caught.value.filename == b"missing"


def test_directory_that_is_closed_meanwhile_is_a_bad_descriptor_or_not_needed_any_more(
    pool: procaio.Pool, tree: Path
) -> None:
    """It is looked at once, in the beginning. The request does not hang, and no exception comes out
    of nowhere.
    """
    answers: list[int] = []
    wd = procaio.aio_wd(tree.parent, pool=pool).wait()
    request = procaio.aio_rmtree("tree", answers.append, dir_fd=wd, pool=pool)
    wd.close()
    pool.flush()
    number = request.error.errno if request.error else 0
    assert (answers, number) in [([-1], errno.EBADF), ([0], 0)]
    assert tree.exists() == (answers == [-1])


@pytest.mark.parametrize("name", ["missing", "", "missing/x", "missing/"])
def test_what_is_not_there_is_enoent(
    pool: procaio.Pool, tree: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the path itself in the error, and -1 for the callback."""
    monkeypatch.chdir(tree)
    before = trees.content(tree)
    answers: list[tuple[int, int]] = []
    request = procaio.aio_rmtree(
        name, lambda status: answers.append((status, procaio.errno())), pool=pool
    )
    with pytest.raises(FileNotFoundError) as caught:
        request.wait()
    assert caught.value.filename is name
    assert isinstance(request.error, FileNotFoundError)
    pool.flush()
    assert answers == [(-1, errno.ENOENT)]
    assert trees.content(tree) == before


@pytest.mark.better
@pytest.mark.parametrize("name", ["file", "file/", "file/x", "link", "link/", "link//", "loop"])
def test_what_is_no_directory_is_enotdir_and_stays(
    pool: procaio.Pool, tree: Path, outside: Path, name: str
) -> None:
    """A file (I9), and a symlink to a directory, whose target is untouched (I10)."""
    (tree / "file").touch()
    (tree / "link").symlink_to(outside)
    before = trees.content(tree)
    number, failures = trees.failed(procaio.aio_rmtree(f"{tree}/{name}", pool=pool))
    assert number == errno.ENOTDIR
    assert [what[1] for what in failures] == [errno.ENOTDIR]
    assert trees.content(tree) == before


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (".", errno.EINVAL),
        ("..", errno.EINVAL),
        ("./", errno.EINVAL),
        ("tree/..", errno.EINVAL),
        ("tree/../", errno.EINVAL),
        ("tree/.", errno.EINVAL),
        (b"tree/a/..", errno.EINVAL),
        ("/", errno.EBUSY),
        ("//", errno.EBUSY),
        (b"///", errno.EBUSY),
    ],
)
def test_what_could_not_be_removed_in_the_end_is_not_begun(
    workers: procaio.Pool,
    tree: Path,
    path: Any,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No member is made: this is tried where nothing could run."""
    monkeypatch.chdir(tree.parent)
    workers.max_parallel(0)
    answers: list[int] = []
    request = procaio.aio_rmtree(path, answers.append, pool=workers)
    assert (len(request), workers.nreqs()) == (0, 1)
    assert trees.failed(request)[0] == number
    assert answers == [-1]


@pytest.mark.parametrize(
    "arguments",
    [
        (5,),
        (None,),
        ("a\0b",),
        (("x",),),
        ("x", 5),
        ((None, "x", "y"),),
        (("no fd", "x"),),
        ((2**40, "x"),),
    ],
)
def test_wrong_arguments_raise_and_leave_the_priority(
    pool: procaio.Pool, arguments: tuple[Any, ...]
) -> None:
    """Nothing is queued (A5, A6)."""
    procaio.aioreq_pri(3)
    with pytest.raises((TypeError, ValueError)):
        procaio.aio_rmtree(*arguments, pool=pool)
    assert (procaio.aioreq_pri(0), pool.nreqs()) == (3, 0)


def test_closed_pool_refuses_it(tree: Path) -> None:
    pool = procaio.Pool()
    pool.close()
    with pytest.raises(procaio.PoolClosed):
        procaio.aio_rmtree(tree, pool=pool)


# -- how it goes about it --------------------------------------------------------------------------


def test_all_members_have_its_priority_and_the_programs_own_is_left_alone(
    pool: procaio.Pool, tree: Path
) -> None:
    """B6; the priority of the program's next request outlasts the steps that are made meanwhile."""
    procaio.aioreq_pri(2)
    request = procaio.aio_rmtree(tree, pool=pool)
    assert procaio.aioreq_pri(-3) == 0
    seen = set()
    while request.state != "done":
        seen |= {member.pri for member in request}
        pool.poll()
    assert (request.pri, seen) == (2, {2})
    assert procaio.aioreq_pri(0) == -3


@pytest.mark.parametrize("least", [1, 200])
def test_members_are_never_more_than_256(workers: procaio.Pool, tmp_path: Path, least: int) -> None:
    """However many directories there are, and workers are wanted (I11)."""
    trees.make(os.fsencode(tmp_path / "tree"), {b"%d" % n: {b"f": None} for n in range(1000)})
    workers.min_parallel(least)
    request = procaio.aio_rmtree(tmp_path / "tree", pool=workers)
    most = 0
    while request.state != "done":
        most = max(most, len(request))
        assert workers.nreqs() <= len(request) + 1
        workers.poll()
    assert request.wait() == 0
    assert 4 <= most <= 256


def test_is_a_member_of_other_groups(pool: procaio.Pool, tree: Path) -> None:
    """The outer one ends after it, and cancels it with itself (L3)."""
    ended: list[str] = []
    outer = procaio.aio_group(lambda: ended.append("outer"), pool=pool)
    outer.add(procaio.aio_rmtree(tree, lambda _: ended.append("tree"), pool=pool))
    outer.wait()
    pool.flush()
    assert ended == ["tree", "outer"]
    assert not tree.exists()

    tree.mkdir()
    outer = procaio.aio_group(lambda: ended.append("never"), pool=pool)
    outer.add(procaio.aio_rmtree(tree, lambda _: ended.append("never"), pool=pool))
    outer.cancel()
    pool.flush()
    assert ended == ["tree", "outer"]


def test_without_its_members_it_has_failed(workers: procaio.Pool, tree: Path) -> None:
    """cancel_subs() ends it (L5), but nobody takes it for success."""
    workers.max_parallel(0)
    answers: list[int] = []
    request = procaio.aio_rmtree(tree, answers.append, pool=workers)
    request.cancel_subs()
    assert trees.failed(request)[0] == errno.ECANCELED
    assert answers == [-1]
    assert tree.exists()


def test_while_another_thread_polls_it_begins_as_well(pool: procaio.Pool, tmp_path: Path) -> None:
    """The other thread must not take the group for empty before its first member is there."""
    wrong: list[object] = []
    procaio.on_callback_error(lambda *what: wrong.append(what))
    with switching_often(), trees.Busy(pool.poll_cb):
        for number in range(6):
            trees.make(os.fsencode(tmp_path / f"{number}"), {b"a": {b"b": None}, b"c": {}})
            request = procaio.aio_rmtree(tmp_path / f"{number}", pool=pool)
            assert request.wait(timeout=30) == 0
            assert not (tmp_path / f"{number}").exists()
    assert wrong == []


def test_many_at_the_same_time_each_remove_their_own(pool: procaio.Pool, tmp_path: Path) -> None:
    """And two of the same tree do not fail over each other, but for its last rmdir."""
    for number in range(30):
        trees.make(os.fsencode(tmp_path / f"{number}"), {b"%d" % n: {b"f": None} for n in range(9)})
    requests = [procaio.aio_rmtree(tmp_path / f"{n}", pool=pool) for n in range(30)]
    twice = [procaio.aio_rmtree(tmp_path / f"{n}", pool=pool) for n in range(30)]
    for request in requests + twice:
        with contextlib.suppress(FileNotFoundError):
            assert request.wait(timeout=60) == 0
        assert {number for _, number in request.progress.failures} <= {errno.ENOENT}
    assert os.listdir(tmp_path) == []


def test_pool_that_is_closed_lets_it_come_to_its_end(pool: procaio.Pool, tree: Path) -> None:
    """close() waits for what is outstanding."""
    answers: list[int] = []
    procaio.aio_rmtree(tree, answers.append, pool=pool)
    pool.close()
    assert answers == [0]
    assert not tree.exists()


def test_exception_in_the_callback_goes_to_the_hook(pool: procaio.Pool, tree: Path) -> None:
    seen: list[object] = []
    procaio.on_callback_error(lambda error, request: seen.append((str(error), request)))

    def callback(status: int) -> None:
        raise ArithmeticError(status)

    request = procaio.aio_rmtree(tree, callback, pool=pool)
    pool.flush()
    assert seen == [("0", request)]


# -- what cannot be removed ------------------------------------------------------------------------


@as_root
@pytest.mark.parametrize("mode", [0o555, 0o311, 0o000, 0o666])
def test_directory_that_may_not_be_used_stays_and_everything_else_goes(
    tree: Path, outside: Path, mode: int
) -> None:
    """The failures say which ones and why, the error is that of the top's rmdir."""
    closed = tree / "a" / "closed"
    trees.make(os.fsencode(closed), {b"file": None, b"dir": {}})
    (tree / "a" / "empty, closed").mkdir()
    tree.parent.chmod(0o777)
    for path in [tree, *tree.rglob("*")]:
        os.chown(path, trees.NOBODY, trees.NOBODY, follow_symlinks=False)
    closed.chmod(mode)
    (tree / "a" / "empty, closed").chmod(mode)
    top = os.open(tree.parent, os.O_DIRECTORY)
    try:
        with procaio.Pool(inline=True) as pool:  # workers keep the rights they were born with
            request = procaio.aio_rmtree("tree", dir_fd=top, pool=pool)
            with trees.as_nobody():
                pool.flush()
    finally:
        os.close(top)
    number, failures = trees.failed(request)
    assert number == errno.ENOTEMPTY
    # What can be read only is emptied of nothing, what cannot be read may still go if empty.
    names = [b"tree/a/closed"]
    if mode == 0o555:  # "dir" is empty, but its name is in what may not be written to
        names = [b"tree/a/closed/dir", b"tree/a/closed/file"]
    if mode == 0o666:
        names = [b"tree/a/closed/dir", b"tree/a/closed/file"]
    assert failures == [(name, errno.EACCES) for name in names]
    assert sorted(trees.content(tree)) == [
        b"a",
        b"a/closed",
        b"a/closed/dir",
        b"a/closed/file",
    ]


@as_root
def test_immutable_files_stay_and_everything_else_goes(
    pool: procaio.Pool, tree: Path, outside: Path
) -> None:
    """Many of them, in many directories; the same failures every time."""
    stuck = [tree / "a" / "b" / "file", tree / "a" / "b" / "c", tree / "new\nline"]
    for number in range(100):
        (tree / "empty" / f"{number}").touch()
        (tree / "empty" / f"d{number}").mkdir()
    stuck += [tree / "empty" / "7", tree / "empty" / "d8"]
    made: list[Path] = []
    try:
        for path in stuck:
            try:
                trees.set_immutable(path, True)
            except OSError as error:
                pytest.skip(f"nothing can be made immutable here: {error}")
            made.append(path)
        number, failures = trees.failed(procaio.aio_rmtree(tree, pool=pool))
        assert number == errno.ENOTEMPTY
        assert failures == sorted((os.fsencode(path), errno.EPERM) for path in stuck)
        left = {os.fsencode(os.path.relpath(path, tree)) for path in stuck}
        assert set(trees.content(tree)) == left | {b"a", b"a/b", b"empty"}
        # Once more: what stays is told again, not what has gone.
        assert trees.failed(procaio.aio_rmtree(tree, pool=pool)) == (number, failures)
    finally:
        for path in made:
            trees.set_immutable(path, False)
    assert procaio.aio_rmtree(tree, pool=pool).wait() == 0


@as_root
def test_top_that_may_not_be_removed_is_emptied(pool: procaio.Pool, tree: Path) -> None:
    """The status is that of the last rmdir: here EPERM."""
    if not trees.can_be_immutable(tree.parent):
        pytest.skip("nothing can be made immutable here")
    trees.set_immutable(tree.parent, True)
    try:
        number, failures = trees.failed(procaio.aio_rmtree(tree, pool=pool))
    finally:
        trees.set_immutable(tree.parent, False)
    assert (number, failures) == (errno.EPERM, [(os.fsencode(tree), errno.EPERM)])
    assert os.listdir(tree) == []


@as_root
def test_mount_point_stays(tree: Path) -> None:
    """What is mounted is emptied, the place where it is mounted is busy."""
    code = """
        import os, subprocess, sys, procaio, ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 1 << 18 | 1 << 14, None):
            sys.exit(print("skip: no mounts here"))
        place = os.path.join(sys.argv[1], "a", "b")
        if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, None):
            sys.exit(print("skip: no mounts here"))
        os.makedirs(os.path.join(place, "in", "it"))
        pool = procaio.Pool()
        request = procaio.aio_rmtree(sys.argv[1], pool=pool)
        try:
            request.wait()
        except OSError as error:
            print(error.errno, request.progress.failures, os.listdir(place))
        pool.close()
    """
    answer = run_python(code, tree)
    busy = [(os.fsencode(tree / "a" / "b"), errno.EBUSY)]
    assert answer == f"{errno.ENOTEMPTY} {busy} []\n"
    assert (tree / "a" / "b" / "c").is_dir(), "what the mount hid"


def test_failures_beyond_the_limit_are_counted(
    tree: Path, pool: procaio.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot take all memory."""
    monkeypatch.setattr("procaio._trees.FAILURES_KEPT", 3)
    if not trees.can_be_immutable(tree / "empty"):
        pytest.skip("nothing can be made immutable here")
    for number in range(10):
        (tree / "empty" / f"{number}").touch()
    trees.set_immutable(tree / "empty", True)
    try:
        request = procaio.aio_rmtree(tree, pool=pool)
        with pytest.raises(OSError):
            request.wait()
    finally:
        trees.set_immutable(tree / "empty", False)
    assert (request.progress.failed, len(request.progress.failures)) == (10, 3)
