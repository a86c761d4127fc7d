"""aio_copytree: the copy is as cp -a makes it, whole or told, and nothing else is touched."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
import trees
from copying import entry, mounted, needs_root
from procaio import testing
from programs import FILTER, X86, run_python
from tree_copies import copy, missing, outside, tree, whole_or_told

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["copy", "outside", "tree"]  # fixtures

AT_POINTS = [point for point in testing.FAULT_POINTS if point != "sleeping"]
FUTURE = 2**32 * 10**9  # an atime that reading does not change


def fill(place: bytes, others: list[bytes], randomly: random.Random) -> None:
    """Give a file content, or make it another kind, or one more name of another one."""
    what = randomly.choice(["content", "sparse", "fifo", "socket", "device", "same", "same"])
    if what == "content":
        with open(place, "wb") as file:
            file.write(randomly.randbytes(randomly.choice([1, 4096, 70_000])))
    elif what == "sparse":
        with open(place, "wb") as file:
            file.seek(randomly.randrange(1 << 20))
            file.write(b"in a hole")
            file.truncate(randomly.choice([1 << 20, 2 << 20]))
    elif what != "same" or others:
        os.unlink(place)
        if what == "same":
            os.link(randomly.choice(others), place, follow_symlinks=False)
        else:
            entry(what, Path(os.fsdecode(place)))


def decorate(path: bytes, randomly: random.Random) -> None:
    """Give what is in a tree content and attributes."""
    everything, files = [path], []
    for where, dirs, names in os.walk(path):
        everything += [os.path.join(where, name) for name in dirs + names]
        files += [os.path.join(where, name) for name in names]
    for number, place in enumerate(files):
        if not os.path.islink(place):
            fill(place, files[:number], randomly)
    for place in reversed(everything):
        os.chown(place, *(randomly.choice([0, 1000, 2**31]) for _ in "ug"), follow_symlinks=False)
        if not os.path.islink(place):
            os.chmod(place, randomly.choice([0o755, 0o600, 0o7777, 0o2750, 0, 0o4111]))
            if os.path.isdir(place) or os.path.isfile(place):
                os.setxattr(place, "user.name", randomly.randbytes(randomly.choice([0, 1, 300])))
    for place in reversed(everything):
        times = (FUTURE + randomly.randrange(10**18), randomly.randrange(2**60))
        os.utime(place, ns=times, follow_symlinks=False)


# -- what comes out --------------------------------------------------------------------------------


@needs_root
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trees.SHAPES, st.randoms(use_true_random=False), st.booleans())
def test_copy_is_as_cp_makes_it(
    tmp_path: Path, pool: procaio.Pool, shape: trees.Shape, randomly: random.Random, hidden: bool
) -> None:
    """Everything that is there, also where the file system tells no types."""
    src, dst, by_cp = (os.fsencode(tmp_path / name) for name in ("src", "dst", "by cp"))
    for path in (src, dst, by_cp):
        trees.remove(path)
    trees.make(src, shape)
    decorate(src, randomly)
    with testing.hidden_types() if hidden else contextlib.nullcontext():
        assert procaio.aio_copytree(src, dst, pool=pool).wait(timeout=60) == 0
    subprocess.run(["cp", "-a", src, by_cp], check=True)
    picture = trees.picture(src, atimes=True)
    assert trees.picture(dst, atimes=True) == picture == trees.picture(by_cp, atimes=True)


@pytest.mark.parametrize("hidden", [False, True])
def test_copies_names_and_files_of_all_kinds(
    pool: procaio.Pool, tree: Path, outside: Path, copy: Path, *, hidden: bool
) -> None:
    """It yields 0, once, and the progress has counted everything."""
    os.mkfifo(tree / "fifo")
    before = trees.picture(tree)
    answers: list[int] = []
    with testing.hidden_types() if hidden else contextlib.nullcontext():
        request = procaio.aio_copytree(tree, copy, answers.append, pool=pool)
        assert request.wait() == 0
    pool.flush()
    assert answers == [0]
    assert request.error is None
    progress = request.progress
    assert (progress.files, progress.dirs, progress.failed) == (11, 8, 0)
    assert (progress.failures, progress.bytes) == ([], 7004)
    assert trees.picture(copy) == before == trees.picture(tree)
    assert sorted(os.listdir(tree.parent)) == ["copy", "outside", "tree"]


def test_copies_an_empty_directory(pool: procaio.Pool, tmp_path: Path, copy: Path) -> None:
    (tmp_path / "empty").mkdir(mode=0o751)
    request = procaio.aio_copytree(tmp_path / "empty", copy, pool=pool)
    assert request.wait() == 0
    assert (request.progress.files, request.progress.dirs) == (0, 1)
    assert trees.picture(copy) == trees.picture(tmp_path / "empty")


def test_times_of_directories_are_those_from_before_they_were_read(
    pool: procaio.Pool, tree: Path, copy: Path
) -> None:
    """As with cp -a; reading a directory changes its own time of access. Times may be far off."""
    times = {tree: (1, 2), tree / "a": (2**40 * 10**9, 3), tree / "a" / "b": (-5, -(10**9) - 1)}
    for path, ns in times.items():
        for directory in (path, *path.rglob("*")):
            if directory.is_dir() and not directory.is_symlink():
                os.utime(directory, ns=ns)
    for path, ns in reversed(times.items()):
        os.utime(path, ns=ns)
    wanted = {path: os.lstat(path) for path in times}
    assert procaio.aio_copytree(tree, copy, pool=pool).wait() == 0
    for path, status in wanted.items():
        got = os.lstat(copy / path.relative_to(tree))
        assert (got.st_atime_ns, got.st_mtime_ns) == (status.st_atime_ns, status.st_mtime_ns)


@pytest.mark.parametrize("inherited", [False, True])
def test_access_lists_of_directories_are_the_originals(
    pool: procaio.Pool, tree: Path, tmp_path: Path, *, inherited: bool
) -> None:
    """What they give to new files, too; a list that the copy's parent gives does not stay."""
    nobody = 2**32 - 1
    entries = ((1, 7, nobody), (2, 5, 1234), (4, 5, nobody), (16, 5, nobody), (32, 0, nobody))
    listed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)
    parent = tmp_path / "parent"
    parent.mkdir()
    try:
        if inherited:
            os.setxattr(parent, "system.posix_acl_default", listed)
        else:
            os.setxattr(tree / "a", "system.posix_acl_default", listed)
            os.setxattr(tree / "a", "system.posix_acl_access", listed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    assert procaio.aio_copytree(tree, parent / "copy", pool=pool).wait() == 0
    assert trees.picture(parent / "copy") == trees.picture(tree)


@needs_root
def test_several_names_are_several_names_of_one(pool: procaio.Pool, tree: Path, copy: Path) -> None:
    """In the same and other directories, of files of every kind."""
    for kind in ("file", "link", "fifo", "socket", "device"):
        entry(kind, tree / kind)
        for name in (f"{kind} again", f"empty/{kind}", f"a/{kind}", f"a/b/c/{kind}"):
            os.link(tree / kind, tree / name, follow_symlinks=False)
    before = trees.picture(tree)
    request = procaio.aio_copytree(tree, copy, pool=pool)
    assert request.wait() == 0
    assert trees.picture(copy) == before
    assert os.lstat(copy / "device").st_nlink == 5
    assert request.progress.files == 10 + 25
    assert request.progress.bytes == 7004 + 7


def test_file_of_a_thousand_names(pool: procaio.Pool, tmp_path: Path, copy: Path) -> None:
    top = tmp_path / "tree"
    for number in range(20):
        (top / f"{number}").mkdir(parents=True)
        for name in range(50):
            place = top / f"{number}" / f"{name}"
            os.link(top / "0" / "0", place) if number or name else place.write_bytes(b"one")
    assert procaio.aio_copytree(top, copy, pool=pool).wait() == 0
    assert trees.picture(copy) == trees.picture(top)
    assert (copy / "7" / "7").stat().st_nlink == 1000


@needs_root
def test_what_may_not_be_given_to_others_belongs_to_who_copies(tmp_path: Path, tree: Path) -> None:
    """Owners are the originals' only if the program may; set-user-ID is nobody's then."""
    (tree / "new\nline").chmod(0o4755)
    for path in (tree.parent, tree, tree / "a", tree / ("n" * 255)):
        path.chmod(0o755)
    place = tmp_path / "nobody's"
    place.mkdir()
    os.chown(place, trees.NOBODY, trees.NOBODY)
    here = os.open(tmp_path, os.O_DIRECTORY)
    try:
        with procaio.Pool(inline=True) as pool, trees.as_nobody():
            request = procaio.aio_copytree(
                "tree", "nobody's/copy", src_dir_fd=here, dst_dir_fd=here, pool=pool
            )
            pool.flush()
            assert request.wait() == 0
    finally:
        os.close(here)
    wanted = {
        name: ("0o100755" if one[0] == "0o104755" else one[0], trees.NOBODY, trees.NOBODY, *one[3:])
        for name, one in trees.picture(tree).items()
    }
    assert trees.picture(place / "copy") == wanted


def test_umask_does_not_matter(pool: procaio.Pool, tree: Path, copy: Path) -> None:
    """Permissions are the originals', also of what nobody could use for a moment."""
    before = os.umask(0o277)
    try:
        assert procaio.aio_copytree(tree, copy, pool=pool).wait() == 0
    finally:
        os.umask(before)
    assert trees.picture(copy) == trees.picture(tree)


# -- what it is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, os.fsencode, Path, "{}/".format, "{}///".format])
def test_takes_every_kind_of_path(
    pool: procaio.Pool,
    tree: Path,
    copy: Path,
    form: Callable[[Path], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Absolute and relative ones; slashes behind it say no more than it does."""
    assert procaio.aio_copytree(form(tree), form(copy), pool=pool).wait() == 0
    assert trees.picture(copy) == trees.picture(tree)
    monkeypatch.chdir(tree.parent)
    src, dst = form(Path("tree")), form(Path("other/way/copy"))
    assert procaio.aio_copytree(src, dst, pool=pool).wait() == 0
    assert trees.picture("other/way/copy") == trees.picture(tree)


def test_takes_directories_to_begin_from(pool: procaio.Pool, tree: Path, tmp_path: Path) -> None:
    """As src_dir_fd and dst_dir_fd, or in tuples with the paths."""
    (tmp_path / "to").mkdir()
    wanted = trees.picture(tree)
    with (
        procaio.aio_wd(tree.parent, pool=pool).wait() as src,
        procaio.aio_wd(tmp_path / "to", pool=pool).wait() as dst,
    ):
        copytree = procaio.aio_copytree
        assert copytree("tree", b"1", src_dir_fd=src, dst_dir_fd=dst, pool=pool).wait() == 0
        assert copytree(b"tree", "2", src_dir_fd=src.fileno(), dst_dir_fd=dst.fileno(),
                        pool=pool).wait() == 0  # fmt: skip
        assert copytree((src, "tree"), (dst, "deep/in/3"), pool=pool).wait() == 0
        assert copytree(tree, (dst, tmp_path / "to" / "4"), pool=pool).wait() == 0
        assert copytree((src, b"tree"), tmp_path / "to" / "5", pool=pool).wait() == 0
    for name in ("1", "2", "deep/in/3", "4", "5"):
        assert trees.picture(tmp_path / "to" / name) == wanted


def test_directory_that_is_closed_meanwhile_is_a_bad_descriptor(
    pool: procaio.Pool, tree: Path, copy: Path
) -> None:
    """It fails unless it needs it no more; no exception comes out of nowhere, nothing hangs."""
    for side in ("src_dir_fd", "dst_dir_fd"):
        answers: list[int] = []
        wd = procaio.aio_wd(tree.parent, pool=pool).wait()
        paths = ("tree", copy) if side == "src_dir_fd" else (tree, "copy")
        request = procaio.aio_copytree(*paths, answers.append, **{side: wd}, pool=pool)
        wd.close()
        with contextlib.suppress(OSError):
            request.wait(timeout=30)
        assert answers == [0 if request.error is None else -1]
        assert request.error is None or request.error.errno == errno.EBADF
        assert copy.exists() == (request.error is None)
        trees.remove(copy)


def test_way_to_the_top_may_be_longer_than_any_path(
    pool: procaio.Pool, tmp_path: Path, tree: Path
) -> None:
    """The descriptors that are given lie deeper than a path can say."""
    fd = os.open(tmp_path, os.O_DIRECTORY)
    name = "n" * 250
    for _ in range(20):
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    try:
        assert procaio.aio_copytree(tree, "one", dst_dir_fd=fd, pool=pool).wait() == 0
        request = procaio.aio_copytree("one", "two", src_dir_fd=fd, dst_dir_fd=fd, pool=pool)
        assert request.wait() == 0
        request = procaio.aio_copytree("one", "one/x", src_dir_fd=fd, dst_dir_fd=fd, pool=pool)
        assert trees.failed(request)[0] == errno.EINVAL
        assert trees.picture(f"/proc/self/fd/{fd}/two") == trees.picture(tree)
    finally:
        os.close(fd)
        trees.remove(tmp_path / name)


def test_symlink_to_the_original_is_followed_and_so_is_one_to_the_copy_that_is_there(
    pool: procaio.Pool, tree: Path, copy: Path, tmp_path: Path
) -> None:
    """The tops alone are: those below never are."""
    (tmp_path / "link").symlink_to("tree")
    (tmp_path / "to copy").symlink_to("copy")
    assert procaio.aio_copytree(tmp_path / "link", copy, pool=pool).wait() == 0
    assert not copy.is_symlink()
    assert trees.picture(copy) == trees.picture(tree)
    (copy / "new\nline").unlink()
    request = procaio.aio_copytree(tree, tmp_path / "to copy", pool=pool)
    assert trees.failed(request)[0] == errno.EEXIST
    assert not (copy / "new\nline").exists()
    request = procaio.aio_copytree(tree, tmp_path / "to copy", dirs_exist_ok=True, pool=pool)
    assert request.wait() == 0
    assert (tmp_path / "to copy").is_symlink()
    assert trees.picture(copy) == trees.picture(tree)


@pytest.mark.parametrize("name", ["missing", "", "missing/x", "missing/"])
def test_original_that_is_not_there_is_enoent(
    pool: procaio.Pool, tree: Path, copy: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the path itself in the error, -1 for the callback, and nothing made."""
    monkeypatch.chdir(tree)
    answers: list[tuple[int, int]] = []
    request = procaio.aio_copytree(
        name, copy / "x", lambda status: answers.append((status, procaio.errno())), pool=pool
    )
    with pytest.raises(FileNotFoundError) as caught:
        request.wait()
    assert caught.value.filename is name
    pool.flush()
    assert answers == [(-1, errno.ENOENT)]
    assert not copy.exists()


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "loop"])
def test_original_that_is_no_directory_is_told(
    pool: procaio.Pool, tmp_path: Path, copy: Path, kind: str
) -> None:
    """ENOTDIR with its path as it was given; a loop of symlinks is ELOOP, a dangling one ENOENT."""
    path = tmp_path / kind
    path.symlink_to(path) if kind == "loop" else entry(kind, path)
    request = procaio.aio_copytree(path, copy, pool=pool)
    with pytest.raises(OSError) as caught:
        request.wait(timeout=30)
    numbers = {"link": errno.ENOENT, "loop": errno.ELOOP}
    assert caught.value.errno == numbers.get(kind, errno.ENOTDIR)
    assert caught.value.filename is path
    assert not copy.exists()


@pytest.mark.parametrize("kind", ["directory", "file", "link", "fifo"])
def test_copy_that_is_there_is_eexist_and_stays(
    pool: procaio.Pool, tree: Path, tmp_path: Path, copy: Path, kind: str
) -> None:
    """The error has the path as it was given."""
    copy.mkdir() if kind == "directory" else entry(kind, copy)
    before = trees.picture(copy)
    request = procaio.aio_copytree(str(tree), copy, pool=pool)
    with pytest.raises(FileExistsError) as caught:
        request.wait(timeout=30)
    assert caught.value.filename is copy
    assert trees.picture(copy) == before


def test_error_in_a_tree_names_paths_as_its_tops_were_given(
    pool: procaio.Pool, tree: Path, copy: Path
) -> None:
    """Str for str, bytes for bytes; the failures are bytes in any case."""
    trees.make(os.fsencode(copy), {b"a": None})
    request = procaio.aio_copytree(tree, str(copy), dirs_exist_ok=True, pool=pool)
    with pytest.raises(FileExistsError) as caught:
        request.wait()
    assert caught.value.filename == str(copy / "a")
    request = procaio.aio_copytree(os.fsencode(tree), os.fsencode(copy), dirs_exist_ok=True,
                                   pool=pool)  # fmt: skip
    with pytest.raises(FileExistsError) as caught:
        request.wait()
    assert caught.value.filename == os.fsencode(copy / "a")
    assert request.progress.failures == [(os.fsencode(copy / "a"), errno.EEXIST)]


def test_missing_directories_above_the_copy_are_made(
    pool: procaio.Pool, tree: Path, tmp_path: Path
) -> None:
    """As mkdir makes them, and only as far as they are missing."""
    (tmp_path / "x").mkdir()
    dst = tmp_path / "x" / "y" / "z" / "copy"
    assert procaio.aio_copytree(tree, dst, pool=pool).wait() == 0
    assert trees.picture(dst) == trees.picture(tree)
    assert dst.parent.stat().st_mode == (tmp_path / "x").stat().st_mode


def test_directories_that_exist_are_merged_and_files_replaced(
    pool: procaio.Pool, tree: Path, tmp_path: Path, copy: Path
) -> None:
    """What has no original stays; whatever was there gets nothing of the new content."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"stays")
    (tree / "a" / "f").write_bytes(b"new")
    (tree / "a" / "g").write_bytes(b"new")
    os.link(tree / "a" / "g", tree / "a" / "h")
    trees.make(os.fsencode(copy), {b"a": {b"b": {b"mine": None}, b"up": b"x", b"g": None}})
    (copy / "a" / "f").symlink_to(elsewhere)
    os.link(elsewhere, copy / "a" / "h")
    os.mkfifo(copy / "new\nline")
    (copy / "dangling").write_bytes(b"was a file")
    request = procaio.aio_copytree(tree, copy, dirs_exist_ok=True, pool=pool)
    assert request.wait(timeout=60) == 0
    assert elsewhere.read_bytes() == b"stays"
    (copy / "a" / "b" / "mine").unlink()
    os.utime(copy / "a" / "b", ns=(1, 1))
    os.utime(tree / "a" / "b", ns=(1, 1))
    assert trees.picture(copy) == trees.picture(tree)


def test_names_of_one_file_in_the_copy_do_not_share_what_is_written(
    pool: procaio.Pool, tree: Path, tmp_path: Path, copy: Path
) -> None:
    """Each is replaced by its own original, and what has the same content elsewhere keeps it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"stays")
    (copy / "a").mkdir(parents=True)
    for number in range(100):
        (tree / "a" / f"{number}").write_bytes(b"%d" % number * 1000)
        os.link(elsewhere, copy / "a" / f"{number}")
    request = procaio.aio_copytree(tree, copy, dirs_exist_ok=True, pool=pool)
    assert request.wait() == 0
    assert elsewhere.read_bytes() == b"stays"
    assert trees.picture(copy) == trees.picture(tree)


def test_copying_once_more_changes_nothing(pool: procaio.Pool, tree: Path, copy: Path) -> None:
    """With several names, too."""
    os.link(tree / "new\nline", tree / "a" / "b" / "c" / "again")
    for _ in range(3):
        assert procaio.aio_copytree(tree, copy, dirs_exist_ok=True, pool=pool).wait() == 0
        assert trees.picture(copy) == trees.picture(tree)


@pytest.mark.parametrize("hidden", [False, True])
def test_file_over_a_directory_and_directory_over_a_file_are_told(
    pool: procaio.Pool, tree: Path, copy: Path, outside: Path, *, hidden: bool
) -> None:
    """Both stay, with what is in them; everything else is copied."""
    trees.make(
        os.fsencode(copy),
        {
            b"new\nline": {b"mine": None},
            b"a": {b"b": None},
            b"empty": os.fsencode(outside),
            b"dangling": {},
        },
    )
    with testing.hidden_types() if hidden else contextlib.nullcontext():
        request = procaio.aio_copytree(tree, copy, dirs_exist_ok=True, pool=pool)
        number, failures = trees.failed(request)
    wanted = {b"new\nline": errno.EISDIR, b"a/b": errno.EEXIST, b"empty": errno.EEXIST,
              b"dangling": errno.EISDIR}  # fmt: skip
    copied_to = os.fsencode(copy)
    assert failures == sorted((os.path.join(copied_to, name), n) for name, n in wanted.items())
    assert number in wanted.values()
    got = trees.picture(copy)
    assert got.keys() >= {b"new\nline/mine", b"a/b", b"empty", b"dangling"}
    assert set(trees.picture(tree)) - set(got) == {b"a/b/c", b"a/b/file"}


# -- into itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize("exist_ok", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "tree/copy", "tree/a/copy", "tree/x/y/z", "tree/a/b/x/y", "link/copy", "to a/copy",
        "to a/x/y", "tree/a/../copy", "other/../tree/copy", "other/../link/x/copy", "tree/./copy",
        "//tree/copy", "to a/../copy", "tree/x/../copy", "tree/copy/", "tree", "link",
        "tree/.", "tree/a/..", "tree/a", "to a",
    ],
)  # fmt: skip
def test_into_itself_is_einval_and_makes_nothing(
    pool: procaio.Pool,
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    *,
    exist_ok: bool,
) -> None:
    """By whatever way, through symlinks, .. and what is not there yet; and onto itself, too."""
    (tmp_path / "link").symlink_to("tree")
    (tmp_path / "to a").symlink_to("tree/a")
    (tmp_path / "other").mkdir()
    before = trees.picture(tmp_path)
    monkeypatch.chdir(tmp_path)
    for src, dst in (("tree", name.lstrip("/")), (str(tree), f"{tmp_path}/{name}")):
        request = procaio.aio_copytree(src, dst, dirs_exist_ok=exist_ok, pool=pool)
        with pytest.raises(OSError) as caught:
            request.wait(timeout=30)
        assert caught.value.errno == errno.EINVAL
        assert (caught.value.filename, caught.value.filename2) == (src, dst)
    assert trees.picture(tmp_path) == before


def test_from_where_it_stands_into_itself_is_einval(
    pool: procaio.Pool, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original is the working directory, or the one of a descriptor."""
    before = trees.picture(tree)
    monkeypatch.chdir(tree)
    assert trees.failed(procaio.aio_copytree(".", "copy", pool=pool))[0] == errno.EINVAL
    assert trees.failed(procaio.aio_copytree("..", "x/copy", pool=pool))[0] == errno.EINVAL
    with procaio.aio_wd("a", pool=pool).wait() as wd:
        request = procaio.aio_copytree(tree, "copy", dst_dir_fd=wd, pool=pool)
        assert trees.failed(request)[0] == errno.EINVAL
    assert trees.picture(tree) == before


@pytest.mark.parametrize("exist_ok", [False, True])
def test_what_only_looks_as_if_it_were_in_itself_is_copied(
    pool: procaio.Pool, tree: Path, tmp_path: Path, *, exist_ok: bool
) -> None:
    """A name that begins alike, a way through it, and the directory that it is in."""
    for dst in ("tree2", "tree2/tree", "tree/a/../../around", "up/../copy"):
        request = procaio.aio_copytree(tree, f"{tmp_path}/{dst}", dirs_exist_ok=exist_ok, pool=pool)
        assert request.wait() == 0
        assert trees.picture(os.path.realpath(f"{tmp_path}/{dst}")).keys() >= set(
            trees.picture(tree)
        )
    request = procaio.aio_copytree(tree / "a", tree, dirs_exist_ok=True, pool=pool)
    assert request.wait() == 0
    assert (tree / "b" / "file").read_bytes() == b"content" * 1000


@needs_root
def test_into_itself_by_a_second_way_is_einval(
    pool: procaio.Pool, tree: Path, tmp_path: Path
) -> None:
    """A bind mount shows the original again."""
    before = trees.picture(tree)
    with mounted(tmp_path / "again", "bind", source=str(tree)) as again:
        for dst in (again / "copy", again / "x" / "copy", again / "a" / "copy", again):
            request = procaio.aio_copytree(tree, dst, dirs_exist_ok=True, pool=pool)
            assert trees.failed(request)[0] == errno.EINVAL
    assert trees.picture(tree) == before


@needs_root
def test_into_itself_by_a_way_that_nobody_can_know_of_ends(
    pool: procaio.Pool, tree: Path, tmp_path: Path
) -> None:
    """A directory in the original is mounted elsewhere: the copy is met, told, and not copied."""
    with mounted(tmp_path / "again", "bind", source=str(tree / "a")) as again:
        request = procaio.aio_copytree(tree, again / "copy", pool=pool)
        assert trees.failed(request) == (
            errno.EINVAL, [(os.fsencode(tree / "a" / "copy"), errno.EINVAL)]
        )  # fmt: skip
    copy = tree / "a" / "copy"
    assert not (copy / "a" / "copy").exists()
    copy.rename(tmp_path / "copy")
    assert set(trees.picture(tree)) == set(trees.picture(tmp_path / "copy"))


# -- what cannot be copied -------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("mode", [0o444, 0o311, 0o000, 0o666])
def test_what_may_not_be_read_is_told_and_everything_else_is_copied(
    tree: Path, tmp_path: Path, mode: int
) -> None:
    """A directory and a file in the middle; errno and path are those of the first failure."""
    trees.make(os.fsencode(tree / "a" / "closed"), {b"file": None, b"dir": {}})
    (tree / "a" / "b" / "file").chmod(0o200)
    (tmp_path / "to").mkdir()
    tree.parent.chmod(0o777)
    for path in [tree, *tree.rglob("*"), tmp_path / "to"]:
        os.chown(path, trees.NOBODY, trees.NOBODY, follow_symlinks=False)
    (tree / "a" / "closed").chmod(mode)
    here = os.open(tmp_path, os.O_DIRECTORY)
    try:
        with procaio.Pool(inline=True) as pool:  # workers keep the rights they were born with
            request = procaio.aio_copytree(
                "tree", "to/copy", src_dir_fd=here, dst_dir_fd=here, pool=pool
            )
            with trees.as_nobody():
                pool.flush()
            number, failures = trees.failed(request)
            assert request.error is not None
            first = os.fsencode(request.error.filename)
    finally:
        os.close(here)
    names = [b"tree/a/closed"]
    if mode & 0o444 == 0o444:
        names = [b"tree/a/closed/dir", b"tree/a/closed/file"]
    assert number == errno.EACCES
    assert failures == sorted((name, errno.EACCES) for name in [*names, b"tree/a/b/file"])
    assert (first, errno.EACCES) in failures
    got = missing(tree, tmp_path / "to" / "copy")
    assert got - {b"a/closed"} == {b"a/b/file", b"a/closed/dir", b"a/closed/file"}
    assert (b"a/closed" in got) == (mode & 0o444 != 0o444)
    if mode & 0o444:
        assert (tmp_path / "to" / "copy" / "a" / "closed").stat().st_mode & 0o777 == mode


@needs_root
def test_full_disk_is_told_and_what_fits_is_copied(
    pool: procaio.Pool, tmp_path: Path, tree: Path
) -> None:
    """ENOSPC; no part of a file is left."""
    (tree / "a" / "large").write_bytes(os.urandom(3 << 20))
    with mounted(tmp_path / "small", "tmpfs", options="size=1m") as small:
        request = procaio.aio_copytree(tree, small / "copy", pool=pool)
        number, failures = trees.failed(request)
        assert (number, failures) == (
            errno.ENOSPC, [(os.fsencode(tree / "a" / "large"), errno.ENOSPC)]
        )  # fmt: skip
        assert missing(tree, small / "copy") == {b"a/large"}
        assert (small / "copy" / "a" / "b" / "file").stat().st_size == 7000


@needs_root
def test_full_disk_that_has_no_room_for_directories_is_told(
    pool: procaio.Pool, tmp_path: Path, tree: Path
) -> None:
    """Everything that is missing is below something that is told."""
    for number in range(100):
        (tree / f"{number}").mkdir()
        (tree / f"{number}" / "file").write_bytes(b"x")
    with mounted(tmp_path / "small", "tmpfs", options="nr_inodes=60") as small:
        request = procaio.aio_copytree(tree, small / "copy", pool=pool)
        number, _ = trees.failed(request)
        assert whole_or_told(request, tree, small / "copy") == {errno.ENOSPC}
        assert len(os.listdir(small / "copy")) < len(os.listdir(tree))
    assert number == errno.ENOSPC


@X86
@pytest.mark.parametrize(("call", "number"), [(326, errno.EIO), (265, errno.EPERM)])
def test_calls_that_fail_are_told_or_done_without(
    tree: Path, copy: Path, call: int, number: int
) -> None:
    """copy_file_range that answers EIO fails each file that has content; where there can be no
    links there are copies.
    """
    os.link(tree / "new\nline", tree / "a" / "again")
    code = FILTER + (
        "import sys, procaio\n"
        f"refuse({call}, {number})\n"
        "request = procaio.aio_copytree(*sys.argv[1:])\n"
        "try:\n    print(request.wait())\n"
        "except OSError as error:\n    print(error.errno, len(request.progress.failures))\n"
    )
    if call == 265:
        assert run_python(code, tree, copy) == "0\n"
        assert missing(tree, copy) == set()
        assert (copy / "a" / "again").stat().st_nlink == 1
    else:
        assert run_python(code, tree, copy) == f"{errno.EIO} 3\n"
        assert missing(tree, copy) == {b"new\nline", b"a/again", b"a/b/file"}


def test_what_vanishes_while_it_is_copied_is_told(
    pool: procaio.Pool, tree: Path, tmp_path: Path
) -> None:
    """ENOENT for what was met and is gone; everything else is copied."""
    told = set()
    hidden = tmp_path / "hidden"
    for polls in range(25):
        copy = tmp_path / f"{polls}"
        request = procaio.aio_copytree(tree, copy, pool=pool)
        for _ in range(polls):
            pool.poll()
        (tree / "a").rename(hidden)
        (tree / "new\nline").rename(tmp_path / "line")
        with contextlib.suppress(FileNotFoundError):
            request.wait(timeout=60)
        hidden.rename(tree / "a")
        (tmp_path / "line").rename(tree / "new\nline")
        progress = request.progress
        names = {os.path.relpath(path, os.fsencode(tree)) for path, _ in progress.failures}
        told |= names
        assert all(name.startswith(b"a") or name == b"new\nline" for name in names)
        assert {number for _, number in progress.failures} <= {errno.ENOENT}
        assert (request.error is None) == (not names)
        gone = missing(tree, copy)
        assert all(name.startswith(b"a") or name == b"new\nline" for name in gone)
    assert told >= {b"a", b"new\nline"}


def test_failures_beyond_the_limit_are_counted(
    tree: Path, copy: Path, pool: procaio.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They cannot take all memory."""
    monkeypatch.setattr("procaio._trees.FAILURES_KEPT", 3)
    for number in range(10):
        (tree / f"{number}").touch()
        (copy / f"{number}").mkdir(parents=True)
    request = procaio.aio_copytree(tree, copy, dirs_exist_ok=True, pool=pool)
    with pytest.raises(OSError):
        request.wait()
    assert (request.progress.failed, len(request.progress.failures)) == (10, 3)
