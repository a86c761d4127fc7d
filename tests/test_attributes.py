"""Extended attributes, statx, access, realpath: what os says of the same file."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STATX_BTIME = 0x800
AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = 0x100, 0x1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file, which has a link to it."""
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    return tmp_path / "file"


@pytest.fixture
def marked(file: Path) -> Path:
    """A file on a file system that has extended attributes."""
    try:
        os.setxattr(file, "user.procaio", b"value")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    return file


def outcome(call: Callable[[], Any]) -> object:
    """A result, or the error with all it says."""
    try:
        value = call()
    except OSError as error:
        return type(error), error.errno, error.strerror, error.filename, error.filename2
    return None if value == 0 and value is not False else value


def deep(directory: Path, length: int) -> str:
    """Another name of a directory, of so many characters."""
    rest = length - len(str(directory))
    return str(directory) + "/" * (rest % 2) + "/." * (rest // 2)


@pytest.fixture
def surrounded(pool: procaio.Pool) -> Iterator[Callable[[], bool]]:
    """Fill shared memory around the next block; the function says whether it is as it was."""
    buffers = [procaio.Buffer(4096, pool=pool) for _ in range(64)]
    for buffer in buffers[::2]:
        buffer.release()
    kept = buffers[1::2]
    for buffer in kept:
        memoryview(buffer)[:] = b"\xa5" * 4096
    yield lambda: all(bytes(buffer) == b"\xa5" * 4096 for buffer in kept)
    for buffer in kept:
        buffer.release()


# -- paths of any length ---------------------------------------------------------------------------

LONG_PATH_CALLS: dict[str, Callable[[Any, procaio.Pool], procaio.Request[Any]]] = {
    "statx": lambda path, p: procaio.aio_statx(path, pool=p),
    "realpath": lambda path, p: procaio.aio_realpath(path, pool=p),
    "readlink": lambda path, p: procaio.aio_readlink(path, pool=p),
    "access": lambda path, p: procaio.aio_access(path, 0, pool=p),
    "getxattr": lambda path, p: procaio.aio_getxattr(path, "user.procaio", pool=p),
    "setxattr": lambda path, p: procaio.aio_setxattr(path, "user.procaio", b"", pool=p),
    "listxattr": lambda path, p: procaio.aio_listxattr(path, pool=p),
    "removexattr": lambda path, p: procaio.aio_removexattr(path, "user.procaio", pool=p),
}


@pytest.mark.parametrize("name", LONG_PATH_CALLS)
@pytest.mark.parametrize("length", [190, 191, 192, 193, 255, 256, 257, 1000, 4094, 4095, 4096,
                                    4097, 8191, 8192, 8193, 100_000])  # fmt: skip
def test_path_of_any_length_ends_as_in_os_and_stays_in_its_block(
    pool: procaio.Pool, tmp_path: Path, surrounded: Callable[[], bool], name: str, length: int
) -> None:
    """Long paths travel in shared memory, and leave what lies beside them alone."""
    path = deep(tmp_path, length)
    request = LONG_PATH_CALLS[name](path, pool)
    pool.flush()
    assert surrounded()
    if length >= 4096:
        assert request.result is False if name == "access" else request.errno == errno.ENAMETOOLONG
    else:
        assert request.errno in {0, errno.EINVAL if name == "readlink" else 0, errno.ENODATA,
                                 errno.EOPNOTSUPP}  # fmt: skip
    if name == "realpath" and length < 4096:
        assert request.result == os.path.realpath(tmp_path)


# -- statx -----------------------------------------------------------------------------------------


def same(ours: procaio.statx_result, theirs: os.stat_result) -> bool:
    """All that both have to tell."""
    return all(
        getattr(ours, f"stx_{name}") == getattr(theirs, f"st_{name}")
        for name in ("mode", "ino", "dev", "nlink", "uid", "gid", "size", "blksize", "blocks",
                     "rdev", "atime_ns", "mtime_ns", "ctime_ns")
    )  # fmt: skip


def test_statx_says_what_stat_says(pool: procaio.Pool, file: Path) -> None:
    """For a path, a link that is followed or not, a directory, a device, a descriptor."""
    link = file.parent / "link"
    for path in (file, str(file), os.fsencode(file), link, file.parent, "/dev/null"):
        assert same(procaio.aio_statx(path, pool=pool).wait(), os.stat(path))
    nofollow = procaio.aio_statx(link, AT_SYMLINK_NOFOLLOW, pool=pool).wait()
    assert same(nofollow, os.lstat(link))
    with open(file, "rb") as opened:
        for handle in (opened, opened.fileno()):
            assert same(procaio.aio_statx(handle, pool=pool).wait(), os.stat(file))
    directory = os.open(file.parent, os.O_RDONLY)
    assert same(procaio.aio_statx("file", dir_fd=directory, pool=pool).wait(), os.stat(file))
    empty = procaio.aio_statx("", AT_EMPTY_PATH, dir_fd=directory, pool=pool).wait()
    assert same(empty, os.stat(file.parent))
    os.close(directory)


def test_statx_knows_more_than_stat(pool: procaio.Pool, file: Path) -> None:
    """The time of creation, before 1970 too for the others; and what was filled in."""
    os.utime(file, ns=(-(10**18) - 1, 4 * 10**18 + 7))
    found = procaio.aio_statx(file, pool=pool).wait()
    assert isinstance(found, procaio.statx_result)
    assert isinstance(found, tuple)
    assert same(found, os.stat(file))
    if not found.stx_mask & STATX_BTIME:
        pytest.skip("no time of creation here")
    assert 0 < found.stx_btime_ns <= found.stx_ctime_ns


def test_statx_errors(pool: procaio.Pool, file: Path) -> None:
    answers: list[object] = []
    for path, number in ((file.parent / "no", errno.ENOENT), (file / "x", errno.ENOTDIR)):
        with pytest.raises(OSError) as caught:
            procaio.aio_statx(path, callback=answers.append, pool=pool).wait()
        assert (caught.value.errno, caught.value.filename) == (number, path)
    assert answers == [None, None]
    request = procaio.aio_statx(file, 0x40000000, pool=pool)
    pool.flush()
    assert request.errno == errno.EINVAL
    with pytest.raises(ValueError):
        procaio.aio_statx(0, dir_fd=0, pool=pool)


@pytest.mark.parametrize("number", [-1, -100, -(2**31), 99999])
def test_statx_of_a_number_is_of_that_descriptor(pool: procaio.Pool, number: int) -> None:
    """An int is always a descriptor, that of the working directory (-100) too: EBADF."""
    with pytest.raises(OSError) as caught:
        procaio.aio_statx(number, pool=pool).wait()
    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, number)


# -- access ----------------------------------------------------------------------------------------


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["file", "link", "dangling", "no", "", "file/x", ".", "x" * 300]),
    mode=st.integers(0, 9),
    permissions=st.integers(0, 0o777),
    keywords=st.fixed_dictionaries(
        {"effective_ids": st.booleans(), "follow_symlinks": st.booleans()}
    ),
)
def test_access_says_what_os_says(
    pool: procaio.Pool,
    file: Path,
    *,
    name: str,
    mode: int,
    permissions: int,
    keywords: dict[str, Any],
) -> None:
    """True or False for any path, mode and keywords, and never an error."""
    file.chmod(permissions)
    directory = os.open(file.parent, os.O_RDONLY)
    expected = os.access(name, mode, dir_fd=directory, **keywords)
    got = procaio.aio_access(name, mode, dir_fd=directory, pool=pool, **keywords).wait()
    os.close(directory)
    assert got is expected


def test_access_gives_a_bool_to_its_callback(pool: procaio.Pool, file: Path) -> None:
    answers: list[object] = []
    procaio.aio_access(file, os.F_OK, answers.append, pool=pool)
    procaio.aio_access(file / "x", os.F_OK, answers.append, pool=pool)
    procaio.aio_access("x", os.F_OK, answers.append, dir_fd=-1, pool=pool)
    pool.flush()
    assert sorted(map(str, answers)) == ["False", "False", "True"]


# -- realpath --------------------------------------------------------------------------------------


def test_realpath_is_the_one_of_os(pool: procaio.Pool, file: Path) -> None:
    """Through links and .., with and without dir_fd; the type is the path's."""
    root = file.parent
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "up").symlink_to("../link")
    (root / "round").symlink_to(root / "a" / "b", target_is_directory=True)
    (root / " (deleted)").touch()
    for name in ("file", "link", "a/up", "round/../up", ".", "a/..//a/./b/", " (deleted)"):
        path = root / name
        for form in (path, f"{root}/{name}", os.fsencode(f"{root}/{name}")):
            expected = os.path.realpath(form)
            assert procaio.aio_realpath(form, pool=pool).wait() == expected
        with procaio.aio_wd(root, pool=pool).wait() as wd:
            got = procaio.aio_realpath(name, dir_fd=wd, pool=pool).wait()
            assert got == os.path.realpath(path)


def test_realpath_of_names_that_are_no_text(pool: procaio.Pool, tmp_path: Path) -> None:
    """A path that cannot be decoded comes back as os.fsdecode has it."""
    name = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(name)
    real = os.path.realpath(name)
    assert procaio.aio_realpath(name, pool=pool).wait() == real
    assert procaio.aio_realpath(os.fsdecode(name), pool=pool).wait() == os.fsdecode(real)


def test_realpath_of_what_is_not_there_fails(pool: procaio.Pool, file: Path) -> None:
    """With the errno of opening it, and its name."""
    (file.parent / "loop").symlink_to("loop")
    for name, number in (
        ("no", errno.ENOENT),
        ("dangling", errno.ENOENT),
        ("loop", errno.ELOOP),
        ("file/x", errno.ENOTDIR),
    ):
        path = file.parent / name
        with pytest.raises(OSError) as caught:
            procaio.aio_realpath(path, pool=pool).wait()
        assert (caught.value.errno, caught.value.filename) == (number, path)


def test_realpath_of_what_has_no_name_fails(pool: procaio.Pool, tmp_path: Path) -> None:
    """A removed directory is nowhere, and a pipe never was anywhere."""
    (tmp_path / "gone").mkdir()
    directory = os.open(tmp_path / "gone", os.O_RDONLY)
    reading, writing = os.pipe()
    (tmp_path / "gone").rmdir()
    for request in (
        procaio.aio_realpath(".", dir_fd=directory, pool=pool),
        procaio.aio_realpath(f"/proc/self/fd/{reading}", pool=pool),
    ):
        with pytest.raises(FileNotFoundError):
            request.wait()
    # Another directory of that name is not the one that was meant.
    (tmp_path / "gone (deleted)").mkdir()
    with pytest.raises(FileNotFoundError):
        procaio.aio_realpath(".", dir_fd=directory, pool=pool).wait()
    for fd in (directory, reading, writing):
        os.close(fd)


# -- extended attributes ---------------------------------------------------------------------------

ATTRIBUTES = ["user.a", "user.b", "user." + "x" * 250, "user." + "x" * 260, "nowhere", "",
              "trusted.procaio"]  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["getxattr", "setxattr", "removexattr", "listxattr"]),
            st.sampled_from(["file", "link", "no", "dangling", "descriptor"]),
            st.sampled_from(ATTRIBUTES),
            st.binary(max_size=300),
            st.sampled_from([0, os.XATTR_CREATE, os.XATTR_REPLACE, 0x100]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_xattr_calls_end_as_those_of_os(
    pool: procaio.Pool, marked: Path, steps: list[tuple[Any, ...]]
) -> None:
    """Two equal files: the same results, the same errors with the same file names."""
    root = marked.parent
    sides = [root / "ours", root / "theirs"]
    descriptors = []
    for side in sides:
        side.mkdir(exist_ok=True)
        for name in os.listdir(side):
            (side / name).unlink()
        (side / "file").touch()
        (side / "link").symlink_to("file")
        (side / "dangling").symlink_to("nowhere")
        descriptors.append(os.open(side / "file", os.O_RDONLY))
    for name, target, attribute, value, flags, follows in steps:
        arguments: list[Any] = {
            "getxattr": [attribute],
            "setxattr": [attribute, value, flags],
            "removexattr": [attribute],
            "listxattr": [],
        }[name]
        ours, theirs = getattr(procaio, f"aio_{name}"), getattr(os, name)
        if target == "descriptor":
            fd, fd2 = descriptors
            expected = outcome(lambda: theirs(fd2, *arguments))  # noqa: B023
            got = outcome(lambda: ours(fd, *arguments, pool=pool).wait())  # noqa: B023
            expected = _other(expected, fd2, fd)
        else:
            path, path2 = (f"{side}/{target}" for side in sides)
            expected = outcome(lambda: theirs(path2, *arguments, follow_symlinks=follows))  # noqa: B023
            got = outcome(
                lambda: ours(path, *arguments, follow_symlinks=follows, pool=pool).wait()  # noqa: B023
            )
            expected = _other(expected, path2, path)
        if isinstance(expected, list):
            expected, got = sorted(expected), sorted(got)  # type: ignore[call-overload]
        assert got == expected, (name, target, attribute)
    for fd in descriptors:
        os.close(fd)


def _other(outcome: object, theirs: object, ours: object) -> object:
    """The outcome, with the file's name replaced."""
    if isinstance(outcome, tuple):
        return tuple(ours if part == theirs else part for part in outcome)
    return outcome


def test_xattr_values_of_any_size(pool: procaio.Pool, marked: Path) -> None:
    """Empty ones, ones with NULs, and what the file system refuses is refused."""
    for value in (b"", b"\0", b"x" * 192, b"x" * 193, bytes(range(256)) * 8):
        assert procaio.aio_setxattr(marked, "user.v", value, pool=pool).wait() == 0
        assert os.getxattr(marked, "user.v") == value
        assert procaio.aio_getxattr(marked, "user.v", pool=pool).wait() == value
    request = procaio.aio_setxattr(marked, "user.v", b"x" * (64 << 10) + b"x", pool=pool)
    pool.flush()
    assert request.errno == errno.E2BIG


def test_xattr_of_a_long_path_carries_its_value_beside_it(pool: procaio.Pool, marked: Path) -> None:
    """Path, attribute and value share a block; the value may be any buffer."""
    path = deep(marked.parent, 1500) + "/file"
    buffer = procaio.Buffer(5, pool=pool)
    memoryview(buffer)[:] = b"12345"
    for attribute in ("user.v", "user." + "y" * 240):
        for value in (b"", b"bytes", bytearray(b"array"), memoryview(b"0view"), buffer, b"z" * 900):
            assert procaio.aio_setxattr(path, attribute, value, pool=pool).wait() == 0
            assert procaio.aio_getxattr(path, attribute, pool=pool).wait() == bytes(value)
            assert attribute in procaio.aio_listxattr(path, pool=pool).wait()
    buffer.release()


def test_xattr_value_is_copied_in_the_call(workers: procaio.Pool, marked: Path) -> None:
    """What the program does with its memory afterwards changes nothing (A9)."""
    value = bytearray(b"before")
    request = procaio.aio_setxattr(marked, "user.v", value, pool=workers)
    value[:] = b"after, and longer"
    request.wait()
    assert os.getxattr(marked, "user.v") == b"before"


def test_xattr_list_of_many(pool: procaio.Pool, tmp_path: Path) -> None:
    """All names, as str for a bytes path too, as os has it."""
    for directory in (tmp_path, "/dev/shm"):
        name = os.path.join(directory, f"procaio-xattr-{os.getpid()}")
        with open(name, "wb"):
            pass
        try:
            for n in range(20):
                os.setxattr(name, f"user.{n}", b"")
        except OSError:
            continue
        else:
            assert procaio.aio_listxattr(os.fsencode(name), pool=pool).wait() == os.listxattr(name)
        finally:
            os.unlink(name)


@pytest.mark.parametrize("name", ["getxattr", "setxattr", "removexattr"])
def test_xattr_wrong_arguments_raise_in_the_call(pool: procaio.Pool, file: Path, name: str) -> None:
    """Nothing is queued, and no shared memory is kept (A5)."""
    function = getattr(procaio, f"aio_{name}")
    rest = (b"value",) if name == "setxattr" else ()
    for wrong in (3, None, 1.5, [], bytearray(b"user.a")):
        with pytest.raises(TypeError):
            function(file, wrong, *rest, pool=pool)
    for wrong in ("user.\0", b"user.\0", "\ud800"):
        with pytest.raises(ValueError):
            function(file, wrong, *rest, pool=pool)
    with pytest.raises(ValueError):
        function(0, "user.a", *rest, follow_symlinks=False, pool=pool)
    if name == "setxattr":
        for value in ("text", None, 3, memoryview(b"abcd")[::2]):
            with pytest.raises(TypeError):
                function(deep(file.parent, 3000), "user.a", value, pool=pool)
        with pytest.raises(TypeError):
            function(file, "user.a", b"", "flags", pool=pool)
    snapshot = pool._snapshot()
    assert (snapshot["shared_used"], pool.statistics().submitted) == (0, 0)


@pytest.mark.parametrize("point", [p for p in testing.FAULT_POINTS if p != "sleeping"])
def test_worker_dies_over_an_attribute(workers: procaio.Pool, marked: Path, point: str) -> None:
    """Reading is done again; of writing nobody knows, if it had begun."""
    path = deep(marked.parent, 2000) + "/file"
    testing.arm(workers, point)
    assert procaio.aio_getxattr(path, "user.procaio", pool=workers).wait() == b"value"
    testing.arm(workers, point)
    assert procaio.aio_statx(path, pool=workers).wait().stx_size == 7
    testing.arm(workers, point)
    assert procaio.aio_realpath(path, pool=workers).wait() == os.path.realpath(marked)
    testing.arm(workers, point)
    request = procaio.aio_setxattr(path, "user.new", b"n" * 500, pool=workers)
    if point == "called":
        with pytest.raises(procaio.WorkerDied):
            request.wait()
    else:
        assert request.wait() == 0
    testing.disarm(workers)
    assert os.getxattr(marked, "user.new") == b"n" * 500
    assert stat.S_ISREG(os.stat(marked).st_mode)
