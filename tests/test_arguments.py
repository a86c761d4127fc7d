"""
Arguments: what is wrong with them is raised in the call, before anything is queued (A5, A6).

What is right is compared with os: the same result, or the same errno and file name.
"""

from __future__ import annotations

import array
import errno
import inspect
import os
import stat
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_memory_stays_locked() -> Iterator[None]:
    yield
    procaio.munlockall()


# aio_walk is an iterator, and no request.
FUNCTIONS = [
    getattr(procaio, name)
    for name in procaio.__all__
    if name.startswith("aio_") and name != "aio_walk"
]

# The fewest positional arguments with which each function does something harmless.
GOOD: dict[str, tuple[Any, ...]] = {
    "aio_access": ("", 0),
    "aio_allocate": (-1, 0, 0, 0),
    "aio_busy": (0,),
    "aio_chmod": ("", 0),
    "aio_chown": ("", -1, -1),
    "aio_close": (-1,),
    "aio_copy": ("", ""),
    "aio_copy_file_range": (-1, -1, 0),
    "aio_copytree": ("", ""),
    "aio_fadvise": (-1, 0, 0, 0),
    "aio_fcntl": (-1, 0),
    "aio_fdatasync": (-1,),
    "aio_fiemap": (-1,),
    "aio_fsync": (-1,),
    "aio_getxattr": ("", "user.a"),
    "aio_group": (),
    "aio_ioctl": (-1, 0),
    "aio_link": ("", ""),
    "aio_listxattr": ("",),
    "aio_load": ("",),
    "aio_load_many": ([],),
    "aio_lstat": ("",),
    "aio_mkdir": ("",),
    "aio_mkdirs": ("",),
    "aio_move": ("", ""),
    "aio_mknod": ("",),
    "aio_mlock": (bytearray(1),),
    "aio_mlockall": (0,),
    "aio_msync": (bytearray(1),),
    "aio_mtouch": (bytearray(1),),
    "aio_nop": (),
    "aio_open": ("",),
    "aio_pathsync": ("",),
    "aio_read": (-1, 0, 0),
    "aio_read_many": ([], 0, 0),
    "aio_readahead": (-1, 0, 0),
    "aio_readdir": ("",),
    "aio_readdirx": ("", 0),
    "aio_readlink": ("",),
    "aio_realpath": ("",),
    "aio_removexattr": ("", "user.a"),
    "aio_rename": ("", ""),
    "aio_rename2": ("", "", 0),
    "aio_replace": ("", b""),
    "aio_rmdir": ("",),
    "aio_rmtree": ("",),
    "aio_scandir": ("",),
    "aio_seek": (-1, 0, 0),
    "aio_sendfile": (-1, -1, 0, 1),
    "aio_setxattr": ("", "user.a", b""),
    "aio_slurp": ("", 0, 0),
    "aio_splice": (-1, -1, 1),
    "aio_stat": ("",),
    "aio_stat_many": ([],),
    "aio_statvfs": ("",),
    "aio_statx": ("",),
    "aio_symlink": ("", ""),
    "aio_sync": (),
    "aio_sync_file_range": (-1, 0, 0, 0),
    "aio_syncfs": (-1,),
    "aio_tee": (-1, -1, 1),
    "aio_truncate": ("", 0),
    "aio_unlink": ("",),
    "aio_utime": ("",),
    "aio_wd": ("",),
    "aio_write": (-1, 0, 0, b""),
}


ATTRIBUTE_FUNCTIONS = {
    procaio.aio_getxattr,
    procaio.aio_listxattr,
    procaio.aio_removexattr,
    procaio.aio_setxattr,
}


@pytest.fixture
def refused(pool: procaio.Pool) -> Iterator[Callable[..., None]]:
    """Call a function that must raise; nothing is queued, the next request's priority stays."""

    def refuse(
        kinds: type[BaseException] | tuple[type[BaseException], ...],
        function: Callable[..., Any],
        *arguments: object,
        **keywords: object,
    ) -> None:
        procaio.aioreq_pri(3)
        with pytest.raises(kinds):
            function(*arguments, pool=pool, **keywords)
        assert procaio.aioreq_pri() == 3
        assert pool.nreqs() == 0
        assert pool.statistics().submitted == 0

    yield refuse
    procaio.aioreq_pri(0)


class Nasty:
    """Everything that may be asked of an argument goes wrong."""

    def fail(self, *_: object) -> int:
        """What all its methods do."""
        raise ZeroDivisionError

    fileno = __index__ = __int__ = __float__ = __fspath__ = __len__ = fail
    __bool__ = __buffer__ = __getitem__ = __iter__ = __eq__ = fail  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class Odd:
    """Its methods answer, but not what they should."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def answer(self, *_: object) -> Any:
        """What all its methods do."""
        return self._answer

    fileno = __index__ = __float__ = __fspath__ = __buffer__ = answer


# -- every function --------------------------------------------------------------------------------


def test_table_of_this_file_knows_every_function() -> None:
    assert {function.__name__ for function in FUNCTIONS} == set(GOOD)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_signature_tells_the_common_form(function: Callable[..., Any]) -> None:
    """Every function takes callback last, then pri, timeout and pool by keyword: see help()."""
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert positional[-1] == "callback"
    assert [p.name for p in parameters][-3:] == ["pri", "timeout", "pool"]
    assert function.__doc__


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_good_arguments_are_accepted_in_every_common_form(
    pool: procaio.Pool, function: Callable[..., Any]
) -> None:
    """A callback may be positional or a keyword, None, or left out; so may pri, timeout, pool."""
    good = GOOD[function.__name__]
    answers: list[tuple[object, ...]] = []
    requests = [
        function(*good, pool=pool),
        function(*good, callback=None, pri=None, timeout=None, pool=pool),
        function(*good, lambda *answer: answers.append(answer), pool=pool, pri=2, timeout=900),
        function(*good, callback=lambda *answer: answers.append(answer), pool=pool, pri=-2),
    ]
    pool.flush()
    assert [request.state for request in requests] == ["done"] * 4
    assert [request.pri for request in requests] == [0, 0, 2, -2]
    assert len({request.error and request.error.errno for request in requests}) == 1
    assert len(answers) == 2
    assert answers[0] == answers[1]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_wrong_common_arguments_raise_in_the_call(
    refused: Callable[..., None], function: Callable[..., Any]
) -> None:
    """Callback, pri, timeout, unknown and doubled keywords, too many and too few of them (A5)."""
    good = GOOD[function.__name__]
    refused(TypeError, function, *good, callback=3)
    refused(TypeError, function, *good, pri="high")
    refused(TypeError, function, *good, pri=1.5)
    refused(TypeError, function, *good, timeout="soon")
    refused(ValueError, function, *good, timeout=-0.1)
    refused(ValueError, function, *good, timeout=float("nan"))
    refused(TypeError, function, *good, nothing=None)
    refused(TypeError, function, *good, print, callback=print)
    refused(TypeError, function, *good, *[None] * 9)
    if good:
        refused(TypeError, function, *good[:-1])
    refused(ZeroDivisionError, function, *good, pri=Nasty())


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("wrong", [3, "pool", object()])
def test_wrong_pool_raises_in_the_call(function: Callable[..., Any], wrong: object) -> None:
    """Only a Pool is a pool (A5)."""
    procaio.aioreq_pri(2)
    with pytest.raises(TypeError):
        function(*GOOD[function.__name__], pool=wrong)
    assert procaio.aioreq_pri(0) == 2


PATH_FUNCTIONS = [f for f in FUNCTIONS if GOOD[f.__name__] and GOOD[f.__name__][0] == ""]


@pytest.mark.parametrize("function", PATH_FUNCTIONS, ids=lambda f: f.__name__)
def test_wrong_paths_raise_in_the_call(
    refused: Callable[..., None], function: Callable[..., Any]
) -> None:
    """Wrong types, NUL bytes, text that the file system's encoding lacks, liars (A5)."""
    rest = GOOD[function.__name__][1:]
    for wrong in ("a\0b", b"a\0b", "\0", "\ud800"):
        refused(ValueError, function, wrong, *rest)
    for wrong in (None, 1.5, [], bytearray(b"path"), memoryview(b"path"), Odd(3)):
        refused(TypeError, function, wrong, *rest)
    refused(ZeroDivisionError, function, Nasty(), *rest)
    refused(ValueError, function, Odd("a\0b"), *rest)
    parameters = inspect.signature(function).parameters
    dir_fd = "src_dir_fd" if "src_dir_fd" in parameters else "dir_fd"
    if dir_fd not in parameters:
        assert function in {procaio.aio_statvfs, procaio.aio_truncate} | ATTRIBUTE_FUNCTIONS
        return
    for kind, wrong in (
        (TypeError, "."),
        (TypeError, 1.5),
        (ValueError, 2**40),
        (ValueError, Odd(-1)),
    ):
        refused(kind, function, "", *rest, **{dir_fd: wrong})
    refused(ZeroDivisionError, function, "", *rest, **{dir_fd: Nasty()})


DESCRIPTOR_FUNCTIONS = [f for f in FUNCTIONS if GOOD[f.__name__] and GOOD[f.__name__][0] == -1]


@pytest.mark.parametrize("function", DESCRIPTOR_FUNCTIONS, ids=lambda f: f.__name__)
def test_wrong_descriptors_raise_in_the_call(
    refused: Callable[..., None], function: Callable[..., Any], data_file: Path
) -> None:
    """Wrong types, numbers that no descriptor has, closed files (A5)."""
    rest = GOOD[function.__name__][1:]
    for wrong in (None, "1", b"1", 1.0, [], Odd("1"), Odd(None)):
        refused(TypeError, function, wrong, *rest)
    for huge in (2**31, -(2**40), 2**70):
        refused((OverflowError, ValueError), function, huge, *rest)
    refused(ValueError, function, Odd(-1), *rest)
    refused(ZeroDivisionError, function, Nasty(), *rest)
    with open(data_file, "rb") as closed:
        pass
    refused(ValueError, function, closed, *rest)
    with procaio.aio_open(data_file).wait() as handle:
        pass
    refused(ValueError, function, handle, *rest)


# What takes a descriptor too, where its first argument is a path above.
EITHER_FUNCTIONS = [f for f in FUNCTIONS if "fh_or_path" in inspect.signature(f).parameters]
MEMORY_FUNCTIONS = [f for f in FUNCTIONS if GOOD[f.__name__] == (bytearray(1),)]


@pytest.mark.parametrize(
    "function", DESCRIPTOR_FUNCTIONS + EITHER_FUNCTIONS, ids=lambda f: f.__name__
)
def test_an_int_is_always_a_descriptor(pool: procaio.Pool, function: Callable[..., Any]) -> None:
    """-1 is one that is not open: the request fails with EBADF, the call does not raise."""
    for number in (-1, -100, 2**31 - 1, -(2**31)):
        request = function(number, *GOOD[function.__name__][1:], pool=pool)
        pool.flush()
        assert request.errno == errno.EBADF


@pytest.mark.parametrize(
    "function", [f for f in FUNCTIONS if f not in MEMORY_FUNCTIONS and GOOD[f.__name__]],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_every_parameter_that_goes_wrong_raises_in_the_call(
    refused: Callable[..., None], function: Callable[..., Any]
) -> None:
    """Each in turn, what comes before it being good (A5)."""
    good = GOOD[function.__name__]
    for place in range(len(good)):
        wrong = (*good[:place], Nasty(), *good[place + 1 :])
        refused((ZeroDivisionError, TypeError), function, *wrong)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in {"pool", "ns"}:
            refused(ZeroDivisionError, function, *good, **{name: Nasty()})


@pytest.mark.parametrize("function", MEMORY_FUNCTIONS, ids=lambda f: f.__name__)
def test_wrong_memory_raises_in_the_call(
    refused: Callable[..., None], function: Callable[..., Any]
) -> None:
    """What is no buffer, and ranges outside it (A5)."""
    for wrong in (None, "text", 3, [1], memoryview(bytearray(8))[::2]):
        refused(TypeError, function, wrong)
    for offset in (9, -9, 2**70):
        refused(ValueError, function, bytearray(8), offset)
    for wrong in ("0", 0.5):
        refused(TypeError, function, bytearray(8), wrong)
        refused(TypeError, function, bytearray(8), 0, wrong)
    refused(ZeroDivisionError, function, bytearray(8), Nasty())
    refused(ZeroDivisionError, function, bytearray(8), 0, Nasty())


# -- reading and writing ---------------------------------------------------------------------------


def test_wrong_ranges_raise_in_the_call(refused: Callable[..., None]) -> None:
    """Negative offsets and lengths, and what is no integer (A5)."""
    calls = ((procaio.aio_read, ()), (procaio.aio_write, (b"data",)))
    for function, data in calls:
        for wrong in (-1, -(2**40), 2**63, 2**70):
            refused(ValueError, function, 0, wrong, 1, *data)
            refused(ValueError, function, 0, 0, wrong, *data)
        for wrong in ("1", 1.5, b"1", []):
            refused(TypeError, function, 0, wrong, 1, *data)
            refused(TypeError, function, 0, 0, wrong, *data)
        refused(ZeroDivisionError, function, 0, Nasty(), 1, *data)
        refused(ZeroDivisionError, function, 0, 0, Nasty(), *data)
    refused(TypeError, procaio.aio_read, 0, 0, None)
    refused(ValueError, procaio.aio_write, 0, 0, 5, b"data")
    refused(ValueError, procaio.aio_write, 0, 0, 2, b"data", 3)


def test_wrong_data_raise_in_the_call(refused: Callable[..., None]) -> None:
    """What cannot be read into or written from, and a dataoffset outside the data (A5, C3)."""
    array_2d = np.zeros((8, 8), np.uint8)
    for wrong in (b"bytes", "text", 3, [1], memoryview(b"ro"), memoryview(bytearray(8))[::2]):
        refused(TypeError, procaio.aio_read, 0, 0, 1, wrong)
    refused((TypeError, ValueError), procaio.aio_read, 0, 0, 1, array_2d[:, 0])
    frozen = np.zeros(8, np.uint8)
    frozen.flags.writeable = False
    refused((TypeError, ValueError), procaio.aio_read, 0, 0, 1, frozen)
    for wrong in ("text", 3, [1], None, memoryview(bytearray(8))[::2]):
        refused(TypeError, procaio.aio_write, 0, 0, 1, wrong)
    for offset in (9, -9, 2**70, -(2**70)):
        refused(ValueError, procaio.aio_read, 0, 0, 0, bytearray(8), offset)
        refused(ValueError, procaio.aio_write, 0, 0, 0, bytearray(8), offset)
    for offset in ("0", 0.5):
        refused(TypeError, procaio.aio_read, 0, 0, 0, bytearray(8), offset)
        refused(TypeError, procaio.aio_write, 0, 0, 0, bytearray(8), offset)
    for data in (memoryview(bytearray(8)), array.array("i", [0, 0]), array_2d[0]):
        refused(ValueError, procaio.aio_read, 0, 0, 9, data)
        refused(ValueError, procaio.aio_read, 0, 0, 8, data, 1)
        refused(ValueError, procaio.aio_read, 0, 0, 2, data, -1)


def test_refused_data_are_not_held(refused: Callable[..., None]) -> None:
    """A call that raises leaves no export behind: the bytearray can be resized at once."""
    data = bytearray(8)
    refused(ValueError, procaio.aio_read, 0, 0, 0, data, 9)
    refused(ValueError, procaio.aio_write, 0, 0, 9, data)
    refused(TypeError, procaio.aio_read, 0, 0, 0, data, "0")
    data.clear()


def test_released_buffer_raises_in_the_call(refused: Callable[..., None]) -> None:
    """A Buffer that was released is no memory any more (A5)."""
    buffer = procaio.Buffer(8)
    buffer.release()
    refused(ValueError, procaio.aio_read, 0, 0, 1, buffer)
    refused(ValueError, procaio.aio_write, 0, 0, 1, buffer)


def test_refused_close_leaves_the_handle_open(pool: procaio.Pool, data_file: Path) -> None:
    """aio_close that raises has not taken the FileHandle (A5)."""
    with procaio.aio_open(data_file, pool=pool).wait() as handle:
        with pytest.raises(TypeError):
            procaio.aio_close(handle, callback=3, pool=pool)
        with pytest.raises(TypeError):
            procaio.aio_close(handle, pri="x", pool=pool)
        assert not handle.closed


def test_wrong_seconds_raise_in_the_call(refused: Callable[..., None]) -> None:
    for wrong in (-1, -0.001, float("nan"), float("inf"), 1e300):
        refused(ValueError, procaio.aio_busy, wrong)
    for wrong in ("1", None, []):
        refused(TypeError, procaio.aio_busy, wrong)


def test_argument_that_closes_the_pool_raises_in_the_call(data_file: Path) -> None:
    """Arguments may run any code; that the pool is gone afterwards is noticed."""
    pool = procaio.Pool(inline=True)

    class Closer:
        def __index__(self) -> int:
            pool.close()
            return 0

    with open(data_file, "rb") as file, pytest.raises(procaio.PoolClosed):
        procaio.aio_read(file, Closer(), 1, bytearray(1), pool=pool)


# -- wild arguments --------------------------------------------------------------------------------

WILD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([-(2**63), -(2**31) - 1, -1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64]),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.builds(bytearray, st.binary(max_size=8)),
    st.builds(lambda b: memoryview(b)[::2], st.binary(max_size=8)),
    st.builds(Nasty),
    st.builds(Odd, st.one_of(st.none(), st.integers(-5, 2**70), st.text(max_size=3))),
    st.just(np.zeros(3)),
    st.just(np.int64(-1)),
)
# They would sleep long, or lock all memory.
TOO_WILD = (procaio.aio_busy, procaio.aio_mlockall)
# Nothing that is open, and no name that exists, is within reach of the wild ones.
SAFE_PATHS = ("", "\0", "/dev/null/x", b"/dev/null/x", "\udcff")


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    function=st.sampled_from([f for f in FUNCTIONS if f not in TOO_WILD]),
    arguments=st.lists(WILD, max_size=6),
    keywords=st.dictionaries(
        st.sampled_from(
            [
                "callback",
                "pri",
                "timeout",
                "dir_fd",
                "data",
                "dataoffset",
                "mode",
                "ns",
                "src_dir_fd",
                "length",
                "follow_symlinks",
                "flags",
                "x",
            ]
        ),
        WILD,
        max_size=2,
    ),
)
def test_wild_arguments_raise_or_give_a_request(
    tmp_path: Path,
    function: Callable[..., Any],
    arguments: list[Any],
    keywords: dict[str, Any],
) -> None:
    """Whatever is passed: an exception with nothing queued, or a request that ends."""
    arguments = [safe(argument) for argument in arguments]
    keywords = {name: safe(value) for name, value in keywords.items()}
    inline = wild_pool()
    submitted = inline.statistics().submitted
    procaio.aioreq_pri(-3)
    try:
        request = function(*arguments, pool=inline, **keywords)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        assert procaio.aioreq_pri(0) == -3
        assert inline.statistics().submitted == submitted
    else:
        assert procaio.aioreq_pri() == 0
        inline.flush()
        assert request.state == "done"
        if function is not procaio.aio_group:
            assert (request.error is None) == (request.errno == 0)


def safe(argument: Any) -> Any:
    """Keep the wild ones away from descriptors and names that exist, and from huge memory."""
    if isinstance(argument, (str, bytes)) and argument.strip(
        b"\0" if isinstance(argument, bytes) else "\0"
    ):
        return SAFE_PATHS[len(argument) % len(SAFE_PATHS)]
    if isinstance(argument, int) and 0 <= argument < 2**31:
        return 2**31 - 1 if argument > 8 else -1 - argument
    if isinstance(argument, Odd) and isinstance(argument._answer, int) and argument._answer < 2**31:
        return Odd(2**31 - 1)
    return argument


_wild: list[procaio.Pool] = []


def wild_pool() -> procaio.Pool:
    """One pool for all examples; every call of the test above finds it empty."""
    if not _wild or _wild[0].closed:
        _wild[:] = [procaio.Pool(inline=True)]
    return _wild[0]


@pytest.fixture(autouse=True)
def _wild_pool_is_closed() -> Iterator[None]:
    yield
    while _wild:
        _wild.pop().close()


# -- compared with os ------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["file", "dir", "link", "dangling", "loop", "no", "dir/inner", "dir/no", "file/x", "dir/..", "",
     "x" * 256, "dir/" * 2000, ".", "dir/", "file/", "\udcff"]
)  # fmt: skip


def tree(root: str) -> None:
    """One of each kind."""
    os.mkdir(f"{root}/dir")
    for name in ("file", "dir/inner"):
        with open(f"{root}/{name}", "w") as file:
            file.write(name)
    os.symlink("file", f"{root}/link")
    os.symlink("nowhere", f"{root}/dangling")
    os.symlink("loop", f"{root}/loop")


def blank(path: object) -> object:
    """The same name in the two trees."""
    return path.replace("/b/", "/a/") if isinstance(path, str) else path


def outcome(call: Callable[[], Any]) -> tuple[object, ...]:
    """A result, or the error with all it says."""
    try:
        value = call()
    except OSError as error:
        return (
            type(error),
            error.errno,
            error.strerror,
            blank(error.filename),
            blank(error.filename2),
        )
    if isinstance(value, os.stat_result):
        return stat.S_IFMT(value.st_mode), value.st_size if stat.S_ISREG(value.st_mode) else 0
    if isinstance(value, list):
        return (sorted(value),)
    if isinstance(value, procaio.FileHandle):
        value.close()
        return ("descriptor",)
    return (value,)


def open_by_os(path: str, flags: int, *, dir_fd: int | None = None) -> None:
    """Open and close; with procaio's default mode."""
    os.close(os.open(path, flags, 0o666, dir_fd=dir_fd))


def chmod_by_os(path: str, mode: int, **keywords: Any) -> None:
    """It has an exception of its own for symlinks, which have no permissions."""
    try:
        os.chmod(path, mode, **keywords)
    except (NotImplementedError, ValueError):  # without dir_fd, and with it
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path) from None


def utime_by_os(path: str, atime: float, mtime: float, **keywords: Any) -> None:
    """Two arguments, as procaio has them."""
    os.utime(path, (atime, mtime), **keywords)


def link_by_os(src: str, dst: str, *, follow_symlinks: bool = False, **keywords: Any) -> None:
    """It follows only when a dir_fd is given, whatever it is told."""
    keywords = {"src_dir_fd": None, "dst_dir_fd": None} | keywords
    here = os.open(".", os.O_PATH)
    try:
        keywords = {name: here if fd is None else fd for name, fd in keywords.items()}
        os.link(src, dst, follow_symlinks=follow_symlinks, **keywords)
    finally:
        os.close(here)


def sendfile_by_os(out: int, in_: int, offset: int, count: int) -> int:
    """What the system refuses is read and written (E3)."""
    try:
        return os.sendfile(out, in_, offset, count)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    data = os.pread(in_, count, offset)
    return os.write(out, data) if data else 0


BY_OS = {
    "chmod": chmod_by_os, "link": link_by_os, "open": open_by_os, "utime": utime_by_os,
    "readdir": os.listdir, "sendfile": sendfile_by_os,
}  # fmt: skip
# procaio names the file in every error; here os does not.
NAMELESS = {"mknod", "truncate", "utime"}


def summary(root: str) -> list[tuple[object, ...]]:
    """All there is in a tree, as far as it must be the same in the other one."""
    found: list[tuple[object, ...]] = []
    for top, dirs, files in os.walk(root):
        for name in sorted(dirs + files):
            path = os.path.join(top, name)
            status = os.lstat(path)
            regular = stat.S_ISREG(status.st_mode)
            target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
            times = (status.st_mtime_ns,) if status.st_mtime < 1e8 else ()
            found.append((
                os.path.relpath(path, root), status.st_mode, status.st_uid, status.st_gid,
                status.st_size if regular else 0, status.st_nlink, blank(target), times,
            ))  # fmt: skip
    return sorted(found, key=str)


# A FIFO may have been made before.
FLAGS = st.sampled_from(
    [os.O_NONBLOCK | flags for flags in (
        os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT, os.O_CREAT | os.O_EXCL | os.O_RDWR,
        os.O_RDONLY | os.O_NOFOLLOW, os.O_DIRECTORY, os.O_WRONLY | os.O_TRUNC, os.O_PATH,
    )]
)  # fmt: skip
MODES = st.sampled_from([0, 0o600, 0o7777, 0o100_644])
KINDS = st.sampled_from([0o600, stat.S_IFIFO | 0o640, stat.S_IFREG, stat.S_IFDIR, 0o170_000])
OWNERS = st.sampled_from([-1, 0, 1234])
SIZES = st.sampled_from([0, 3, 5000, 1 << 40])
SECONDS = st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6))
FOLLOW = st.fixed_dictionaries({}, optional={"follow_symlinks": st.booleans()})
NOTHING = st.just({})

# name, how many paths, what follows them, keywords, those that take a directory's descriptor
CALLS: list[tuple[str, int, list[st.SearchStrategy[Any]], Any, tuple[str, ...]]] = [
    *(
        (name, 1, [], NOTHING, ("dir_fd",))
        for name in ("stat", "lstat", "unlink", "rmdir", "mkdir")
    ),
    ("readdir", 1, [], NOTHING, ()),
    ("readlink", 1, [], NOTHING, ("dir_fd",)),
    ("open", 1, [FLAGS], NOTHING, ("dir_fd",)),
    ("chmod", 1, [MODES], FOLLOW, ("dir_fd",)),
    ("chown", 1, [OWNERS, OWNERS], FOLLOW, ("dir_fd",)),
    ("utime", 1, [SECONDS, SECONDS], FOLLOW, ("dir_fd",)),
    ("mknod", 1, [KINDS], NOTHING, ("dir_fd",)),
    ("truncate", 1, [SIZES], NOTHING, ()),
    ("rename", 2, [], NOTHING, ("src_dir_fd", "dst_dir_fd")),
    ("link", 2, [], FOLLOW, ("src_dir_fd", "dst_dir_fd")),
    ("symlink", 2, [], NOTHING, ("dir_fd",)),
]
STEPS = st.one_of([
    st.tuples(
        st.just(name), st.tuples(*[NAMES] * paths), st.tuples(*others), keywords,
        st.sets(st.sampled_from(dir_fds)) if dir_fds else st.just(set()),
    )
    for name, paths, others, keywords, dir_fds in CALLS
])  # fmt: skip


def relative(name: str, dir_fds: set[str]) -> list[bool]:
    """Which of the paths are relative to a directory that is given."""
    if name == "symlink":  # what it says is looked up nowhere
        return [False, "dir_fd" in dir_fds]
    return ["dir_fd" in dir_fds or "src_dir_fd" in dir_fds, "dst_dir_fd" in dir_fds]


def arguments_for(side: str, step: tuple[Any, ...]) -> tuple[list[Any], set[str]]:
    """The paths of a step, in one of the two trees, and what follows them."""
    name, paths, others, _, dir_fds = step
    inside = relative(name, dir_fds)
    return [
        *(path if inside[n] else f"{side}/{path}" for n, path in enumerate(paths)), *others,
    ], dir_fds  # fmt: skip


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(STEPS, max_size=12))
def test_random_calls_end_as_those_of_os(
    pool: procaio.Pool, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]
) -> None:
    """The same calls on two equal trees: same results, same errors with the same file names."""
    root = str(tmp_path_factory.mktemp("trees"))
    tops = {}
    for side in "ab":
        os.mkdir(f"{root}/{side}")
        tree(f"{root}/{side}")
        tops[side] = os.open(f"{root}/{side}", os.O_DIRECTORY)
    try:
        for step in steps:
            compare(pool, root, tops, step)
    finally:
        for top in tops.values():
            os.close(top)
    assert summary(f"{root}/b") == summary(f"{root}/a")


def compare(pool: procaio.Pool, root: str, tops: dict[str, int], step: tuple[Any, ...]) -> None:
    """One call, by os in tree a and by procaio in tree b."""
    name, keywords = step[0], step[3]
    arguments, dir_fds = arguments_for(f"{root}/a", step)
    theirs = BY_OS.get(name) or getattr(os, name)
    expected = outcome(lambda: theirs(*arguments, **keywords, **dict.fromkeys(dir_fds, tops["a"])))
    mine, _ = arguments_for(f"{root}/b", step)
    ours = getattr(procaio, f"aio_{name}")
    got = outcome(
        lambda: ours(*mine, **keywords, **dict.fromkeys(dir_fds, tops["b"]), pool=pool).wait()
    )
    if expected == (None,):  # os gives nothing where procaio gives 0 or a FileHandle
        expected = ("descriptor",) if name == "open" else (0,)
    if len(expected) == 5 and expected[3] is None and name in NAMELESS:
        expected = (*expected[:3], blank(mine[0]), None)
    assert tuple(map(blank, got)) == tuple(map(blank, expected)), step


DESCRIPTORS = st.sampled_from(["reading", "writing", "both", "directory", "pipe", "path", "none"])


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    call=st.one_of(
        st.tuples(st.sampled_from(["fsync", "fdatasync", "stat", "statvfs"])),
        st.tuples(st.just("chmod"), MODES),
        st.tuples(st.just("chown"), OWNERS, OWNERS),
        st.tuples(st.just("truncate"), SIZES),
        st.tuples(st.just("utime"), SECONDS, SECONDS),
        st.tuples(st.just("sendfile"), DESCRIPTORS, st.sampled_from([0, 3, 99]), st.just(5)),
    ),
    target=DESCRIPTORS,
)
def test_random_calls_on_descriptors_end_as_those_of_os(
    pool: procaio.Pool, tmp_path_factory: pytest.TempPathFactory, call: tuple[Any, ...], target: str
) -> None:
    """On what is open, in every way it can be: same result or same errno."""
    root = tmp_path_factory.mktemp("descriptors")
    results = []
    for by_os in (True, False):
        path = root / str(by_os)
        path.write_bytes(b"0123456789")
        reader, writer = os.pipe()
        opened = {
            "reading": os.open(path, os.O_RDONLY), "writing": os.open(path, os.O_WRONLY),
            "both": os.open(path, os.O_RDWR), "directory": os.open(root, os.O_DIRECTORY),
            "pipe": reader, "path": os.open(path, os.O_PATH),
        }  # fmt: skip
        name, *rest = call
        rest = [opened.get(x, 99_999) if isinstance(x, str) else x for x in rest]
        arguments = [opened.get(target, 99_999), *rest]
        if by_os:
            function = BY_OS.get(name) or getattr(os, name)
            result = outcome(lambda: function(*arguments))  # noqa: B023 - called at once
            result = (0,) if result == (None,) else result
        else:
            function = getattr(procaio, f"aio_{name}")
            result = outcome(lambda: function(*arguments, pool=pool).wait())  # noqa: B023
        results.append((errno_or(result), beginning(path), os.stat(path).st_size))
        for number in (*opened.values(), writer):
            os.close(number)
    assert results[1] == results[0]


def beginning(path: Path) -> bytes:
    """The file may have become very large."""
    with open(path, "rb") as file:
        return file.read(20)


def errno_or(result: tuple[object, ...]) -> object:
    """The errno alone; where os names descriptors and where it does not has no system."""
    if len(result) == 5 and isinstance(result[1], int):
        return f"errno {result[1]}"
    return type(result[0]) if isinstance(result[0], os.statvfs_result) else result
