"""Directories to work in: aio_wd, and (directory, path) tuples wherever a path is taken."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

import procaio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file and a link in it."""
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "file").write_bytes(b"content")
    (tmp_path / "place" / "link").symlink_to("file")
    return tmp_path / "place"


@pytest.fixture
def wd(pool: procaio.Pool, place: Path) -> Iterator[procaio.FileHandle]:
    """The place, to work in."""
    with procaio.aio_wd(place, pool=pool).wait() as handle:
        yield handle


# -- aio_wd ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, os.fsencode, lambda path: path])
def test_wd_is_a_file_handle_of_the_directory(
    pool: procaio.Pool, place: Path, form: Callable[[Path], Any]
) -> None:
    """It knows its name, is not inherited, and aio_close closes it."""
    name = form(place)
    handle = procaio.aio_wd(name, pool=pool).wait()
    assert isinstance(handle, procaio.FileHandle)
    assert handle.name is name
    assert os.path.samestat(os.fstat(handle.fileno()), os.stat(place))
    assert not os.get_inheritable(handle.fileno())
    assert procaio.aio_close(handle, pool=pool).wait() == 0
    assert handle.closed


def test_wd_cannot_be_read_from(pool: procaio.Pool, wd: procaio.FileHandle) -> None:
    """It is a place, not an open directory: no right to read it was needed."""
    request = procaio.aio_fsync(wd, pool=pool)
    with pytest.raises(OSError) as caught:
        request.wait()
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("name", "number"),
    [("file", errno.ENOTDIR), ("no", errno.ENOENT), ("x" * 300, errno.ENAMETOOLONG)],
)
def test_wd_of_what_is_no_directory_fails_with_its_name(
    pool: procaio.Pool, place: Path, name: str, number: int
) -> None:
    answers: list[object] = []
    request = procaio.aio_wd(place / name, answers.append, pool=pool)
    with pytest.raises(OSError) as caught:
        request.wait()
    assert (caught.value.errno, caught.value.filename) == (number, place / name)
    assert answers == [None]


def test_wd_of_a_wd(pool: procaio.Pool, place: Path, wd: procaio.FileHandle) -> None:
    (place / "inner").mkdir()
    for request in (
        procaio.aio_wd("inner", dir_fd=wd, pool=pool),
        procaio.aio_wd((wd, "inner"), pool=pool),
    ):
        with request.wait() as inner:
            assert os.path.samestat(os.fstat(inner.fileno()), os.stat(place / "inner"))


def test_wd_follows_its_directory_when_that_is_renamed(
    pool: procaio.Pool, place: Path, wd: procaio.FileHandle
) -> None:
    """A directory is what it is, whatever it is called."""
    place.rename(place.parent / "elsewhere")
    assert procaio.aio_load((wd, "file"), pool=pool).wait() == b"content"


def test_wd_of_a_cancelled_request_is_closed(workers: procaio.Pool, place: Path) -> None:
    """Nobody gets it, so nobody could close it; the fixture sees what is left open."""
    requests = [procaio.aio_wd(place, pool=workers) for _ in range(50)]
    for request in requests:
        request.cancel()
    workers.flush()


# -- tuples ----------------------------------------------------------------------------------------


def calls() -> dict[str, Callable[[Any, procaio.Pool], procaio.Request[Any]]]:
    """Every function that takes a path: harmless, and successful for `file` of the place."""
    return {
        "open": lambda path, p: procaio.aio_open(path, pool=p),
        "load": lambda path, p: procaio.aio_load(path, pool=p),
        "slurp": lambda path, p: procaio.aio_slurp(path, -3, 2, pool=p),
        "truncate": lambda path, p: procaio.aio_truncate(path, 7, pool=p),
        "pathsync": lambda path, p: procaio.aio_pathsync(path, pool=p),
        "stat": lambda path, p: procaio.aio_stat(path, pool=p),
        "lstat": lambda path, p: procaio.aio_lstat(path, pool=p),
        "statvfs": lambda path, p: procaio.aio_statvfs(path, pool=p),
        "utime": lambda path, p: procaio.aio_utime(path, 1, 2, pool=p),
        "chown": lambda path, p: procaio.aio_chown(path, None, None, pool=p),
        "chmod": lambda path, p: procaio.aio_chmod(path, 0o600, pool=p),
        "unlink": lambda path, p: procaio.aio_unlink(path, pool=p),
        "access": lambda path, p: procaio.aio_access(path, os.R_OK, pool=p),
        "realpath": lambda path, p: procaio.aio_realpath(path, pool=p),
        "statx": lambda path, p: procaio.aio_statx(path, 0, 0x1, pool=p),
        "replace": lambda path, p: procaio.aio_replace(path, b"new", pool=p),
        "listxattr": lambda path, p: procaio.aio_listxattr(path, pool=p),
        "setxattr": lambda path, p: procaio.aio_setxattr(path, "user.a", b"v", pool=p),
    }


def outcome(request: procaio.Request[Any]) -> object:
    """The value, or the errno."""
    try:
        value = request.wait()
    except OSError as error:
        return error.errno
    if isinstance(value, procaio.FileHandle):
        value.close()
        return "open"
    if isinstance(value, os.statvfs_result):
        return value.f_namemax  # what is free changes meanwhile
    return value


@pytest.mark.parametrize("name", calls())
@pytest.mark.parametrize("form", [str, os.fsencode])
def test_tuple_means_the_path_in_the_directory(
    pool: procaio.Pool, wd: procaio.FileHandle, place: Path, name: str, form: Callable[[str], Any]
) -> None:
    """The same as the whole path, for names that are there and names that are not."""
    call = calls()[name]
    for file in ("no", "file/x", "file"):
        expected = outcome(call(form(str(place / file)), pool))
        for undo in (place / "no", place / "file"):
            undo.unlink(missing_ok=True)
        (place / "file").write_bytes(b"content")
        got = outcome(call((wd, form(file)), pool))
        (place / "no").unlink(missing_ok=True)
        if name in {"stat", "lstat", "statx"} and not isinstance(got, int):
            got = expected = None  # another file; test_attributes and test_metadata compare them
        assert got == expected, file


@pytest.mark.parametrize("name", calls())
def test_tuple_with_an_absolute_path_does_not_need_its_directory(
    pool: procaio.Pool, place: Path, name: str
) -> None:
    """As with dir_fd: the directory may be closed, or none."""
    call = calls()[name]
    assert outcome(call((-1, str(place / "no")), pool)) == outcome(call(str(place / "no"), pool))
    assert outcome(call((-1, place / "file"), pool)) != errno.EBADF


@pytest.mark.parametrize("name", calls())
def test_tuple_with_an_empty_path_names_nothing(
    pool: procaio.Pool, wd: procaio.FileHandle, name: str
) -> None:
    assert outcome(calls()[name]((wd, ""), pool)) == (False if name == "access" else errno.ENOENT)


@pytest.mark.parametrize("name", calls())
def test_tuple_of_none_and_a_path_is_the_path(pool: procaio.Pool, place: Path, name: str) -> None:
    """None is no directory, as dir_fd=None is none."""
    got = outcome(calls()[name]((None, place / "file"), pool))
    assert got is not False
    assert got not in (errno.ENOENT, errno.EBADF)


@pytest.mark.parametrize("name", sorted(calls().keys() - {"access"}))
def test_tuple_errors_name_the_path_alone(
    pool: procaio.Pool, wd: procaio.FileHandle, name: str
) -> None:
    """The caller's own path object, as with dir_fd."""
    path = "file/" + "x" * 20
    request = calls()[name]((wd, path), pool)
    with pytest.raises(NotADirectoryError) as caught:
        request.wait()
    assert caught.value.filename is path


@pytest.mark.parametrize("name", calls())
def test_tuple_with_wrong_contents_raises_in_the_call(
    pool: procaio.Pool, wd: procaio.FileHandle, name: str
) -> None:
    """Wrong lengths and types; nothing is queued (A5)."""
    call, before = calls()[name], pool.statistics().submitted
    wrong: list[Any] = [
        *((), (wd,), (wd, "file", "x"), (wd, wd), (wd, 3), (wd, None), ("file", wd)),
        *((wd, (wd, "file")), ("place", "file"), (1.5, "file"), [wd, "file"]),
    ]
    for value in wrong:
        with pytest.raises((TypeError, ValueError)):
            call(value, pool)
    for value in [(wd, "a\0b"), (2**40, "file")]:
        with pytest.raises((ValueError, OverflowError)):
            call(value, pool)
    closed = procaio.aio_wd(".", pool=pool).wait()
    closed.close()
    with pytest.raises(ValueError):
        call((closed, "file"), pool)
    assert pool.statistics().submitted == before + 1


def test_tuple_beside_dir_fd_raises_in_the_call(pool: procaio.Pool, wd: procaio.FileHandle) -> None:
    """Two directories for one path; but dir_fd=None says nothing."""
    with pytest.raises((TypeError, ValueError)):
        procaio.aio_stat((wd, "file"), dir_fd=wd, pool=pool)
    with pytest.raises(TypeError):
        procaio.aio_unlink((wd, "file"), dir_fd=wd, pool=pool)
    assert procaio.aio_stat((wd, "file"), dir_fd=None, pool=pool).wait().st_size == 7


def test_tuple_in_the_place_of_anything_else_raises_in_the_call(
    pool: procaio.Pool, wd: procaio.FileHandle
) -> None:
    """Only paths have a directory: a mode or flags do not."""
    fd = wd.fileno()
    refused: list[Callable[[], object]] = [
        lambda: procaio.aio_mkdir("no", (fd, 0o700), pool=pool),
        lambda: procaio.aio_open("no", (fd, os.O_RDONLY), pool=pool),
        lambda: procaio.aio_chmod("no", (fd, 0o600), pool=pool),
        lambda: procaio.aio_chown("no", (fd, 0), 0, pool=pool),
        lambda: procaio.aio_access("no", (fd, 0), pool=pool),
        lambda: procaio.aio_load("no", (fd, bytearray()), pool=pool),
        lambda: procaio.aio_replace("no", (fd, b"data"), pool=pool),
        lambda: procaio.aio_statx("no", (fd, 0), pool=pool),
        lambda: procaio.aio_slurp("no", (fd, 0), 0, pool=pool),
        lambda: procaio.aio_symlink((fd, "says"), "no", pool=pool),
        lambda: procaio.aio_read((fd, "file"), 0, 1, pool=pool),
        lambda: procaio.aio_copy_file_range((fd, "file"), fd, 1, pool=pool),
        lambda: procaio.aio_getxattr("no", (fd, "user.a"), pool=pool),
    ]
    before = pool.statistics().submitted
    for call in refused:
        with pytest.raises(TypeError):
            call()
    assert pool.statistics().submitted == before


def test_tuples_of_two_paths_have_a_directory_each(
    pool: procaio.Pool, wd: procaio.FileHandle, place: Path
) -> None:
    """rename, rename2 and link: src and dst; symlink: only where the link is made."""
    (place.parent / "other").mkdir()
    with procaio.aio_wd(place.parent / "other", pool=pool).wait() as other:
        assert procaio.aio_link((wd, "file"), (other, "hard"), pool=pool).wait() == 0
        assert procaio.aio_rename((other, "hard"), (wd, "moved"), pool=pool).wait() == 0
        assert procaio.aio_rename2((wd, "moved"), (other, "back"), 0, pool=pool).wait() == 0
        assert procaio.aio_symlink("back", (other, "soft"), pool=pool).wait() == 0
        request = procaio.aio_rename((wd, "no"), (other, "new"), pool=pool)
        with pytest.raises(FileNotFoundError) as caught:
            request.wait()
        assert (caught.value.filename, caught.value.filename2) == ("no", "new")
    assert sorted(os.listdir(place.parent / "other")) == ["back", "soft"]
    assert (place.parent / "other" / "soft").read_bytes() == b"content"


def test_tuple_with_a_long_path(pool: procaio.Pool, wd: procaio.FileHandle, place: Path) -> None:
    """What does not fit into a slot travels elsewhere."""
    for name in ("./" * 200 + "file", "./" * 2040 + "file"):
        assert procaio.aio_load((wd, name), pool=pool).wait() == b"content"
        assert procaio.aio_truncate((wd, "./" * 200 + "file"), 7, pool=pool).wait() == 0
