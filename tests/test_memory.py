"""msync, mtouch, mlock: what threads do to the program's own memory (rules K3 to K5)."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import gc
import mmap as python_mmap
import os
import threading
from mmap import MAP_PRIVATE, MAP_SHARED
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
from conftest import is_sanitized, not_sanitized
from own_memory import (
    MS_ASYNC,
    MS_INVALIDATE,
    MS_SYNC,
    MT_MODIFY,
    PAGE,
    RW,
    address_of,
    anonymous,
    error_of,
    smaps,
)
from programs import run_program, run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MCL_CURRENT = 1

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

CALLS = {"msync": procaio.aio_msync, "mtouch": procaio.aio_mtouch, "mlock": procaio.aio_mlock}
call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


def locked() -> int:
    """VmLck of this process, in KiB."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmLck:"))


def resident(data: Any) -> list[bool]:
    """Which pages are in memory, by mincore(2)."""
    pages = (ctypes.c_ubyte * (-(-len(data) // PAGE)))()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mincore(ctypes.c_void_p(address_of(data)), ctypes.c_size_t(len(data)), pages) == 0
    return [bool(page & 1) for page in pages]


@pytest.fixture
def can_lock() -> Iterator[None]:
    """Nothing is locked before and after."""
    before = locked()
    yield
    procaio.munlockall()
    gc.collect()
    assert locked() == before == 0


# -- K3: which pages -------------------------------------------------------------------------------


@call
def test_any_memory_will_do(pool: procaio.Pool, call: Any, fd: int) -> None:
    """Everything that is a contiguous buffer; yields 0 in all three ways."""
    mapping = procaio.mmap(100, RW, MAP_SHARED, fd)
    with procaio.Buffer(100, pool) as buffer, python_mmap.mmap(fd, 100) as other:
        for data in (
            mapping,
            buffer,
            other,
            bytearray(3 * PAGE),
            b"bytes",
            array.array("d", [1.0]),
            memoryview(mapping)[7:],
            np.zeros(2 * PAGE, np.uint16),
            bytearray(),
            b"",
        ):
            seen: list[int] = []
            request = call(data, callback=seen.append, pool=pool)
            assert request.wait() == 0
            assert (request.result, request.errno, seen) == (0, 0, [0])
    procaio.munlockall()


RANGES = [
    (0, None, "1111"),
    (None, None, "1111"),
    (0, 0, "0000"),
    (0, 1, "1000"),
    (1, PAGE, "1100"),
    (PAGE, PAGE, "0100"),
    (PAGE - 1, 2, "1100"),
    (3 * PAGE, None, "0001"),
    (3 * PAGE, 10**9, "0001"),
    (0, 2**63 - 1, "1111"),
    (2 * PAGE, 2**63 - 1, "0011"),
    (-1, None, "0001"),
    (-1, 1, "0001"),
    (-2 * PAGE, PAGE, "0010"),
    (-4 * PAGE, 1, "1000"),
    (0, -PAGE, "1110"),
    (PAGE, -PAGE, "0110"),
    (PAGE, -3 * PAGE, "0000"),
    (4 * PAGE, None, "0000"),
    (4 * PAGE, 5, "0000"),
]


@pytest.mark.parametrize(("offset", "length", "pages"), RANGES)
@pytest.mark.parametrize("kind", ["mtouch", "mlock", "modify"])
def test_offset_and_length_choose_whole_pages(
    pool: procaio.Pool, offset: int | None, length: int | None, pages: str, kind: str
) -> None:
    """Negative ones count from the end, None and what is too long mean to the end (K3)."""
    with anonymous(kind=MAP_PRIVATE) as mapping:
        assert resident(mapping) == [False] * 4
        if kind == "mlock" and is_sanitized:
            pytest.skip("the sanitizer locks nothing")
        if kind == "mlock":
            request = procaio.aio_mlock(mapping, offset, length, pool=pool)
        else:
            flags = MT_MODIFY if kind == "modify" else 0
            request = procaio.aio_mtouch(mapping, offset, length, flags, pool=pool)
        assert request.wait() == 0
        assert resident(mapping) == [page == "1" for page in pages]
        assert locked() * 1024 == (pages.count("1") * PAGE if kind == "mlock" else 0)
        procaio.munlock(mapping, offset, length)
        assert locked() == 0


@call
@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (4 * PAGE + 1, None),
        (-4 * PAGE - 1, None),
        (2**63 - 1, None),
        (-(2**63), None),
        (2**64, 1),
        (-(2**70), 1),
        (0, -4 * PAGE - 1),
        (1, -4 * PAGE),
        (0, -(2**63)),
        (4 * PAGE, -1),
        (0, -(2**64)),
    ],
)
def test_outside_of_the_memory_is_a_value_error(
    pool: procaio.Pool, call: Any, offset: int, length: int | None
) -> None:
    """It raises in the call, and nothing is queued (K3, A5)."""
    with anonymous() as mapping:
        with pytest.raises(ValueError):
            call(mapping, offset, length, pool=pool)
        for at_once in (
            lambda: procaio.munlock(mapping, offset, length),
            lambda: procaio.madvise(mapping, offset, length, 0),
            lambda: procaio.mprotect(mapping, offset, length, RW),
        ):
            with pytest.raises(ValueError):
                at_once()
    assert pool.nreqs() == 0


@call
@pytest.mark.parametrize(
    "arguments",
    [(), (None,), (1,), ("text",), (b"", "0"), (b"", 0, 1.5), (b"", 0, None, object()), ([],)],
)
def test_wrong_types_are_a_type_error(
    pool: procaio.Pool, call: Any, arguments: tuple[Any, ...]
) -> None:
    procaio.aioreq_pri(3)
    with pytest.raises(TypeError):
        call(*arguments, pool=pool)
    assert pool.nreqs() == 0
    assert procaio.aioreq_pri(0) == 3


def test_memory_that_is_not_contiguous_is_a_type_error(pool: procaio.Pool) -> None:
    for call in CALLS.values():
        with pytest.raises(TypeError, match="contiguous"):
            call(memoryview(b"12345678")[::2], pool=pool)


def test_flags_that_are_none_of_theirs(pool: procaio.Pool) -> None:
    """The touch has one flag; msync's are judged by the system."""
    with anonymous() as mapping:
        for flags in (2, -1, 2**31, 2**40):
            with pytest.raises(ValueError):
                procaio.aio_mtouch(mapping, 0, None, flags, pool=pool)
        for flags in (MS_ASYNC | MS_SYNC, 64):
            assert error_of(procaio.aio_msync(mapping, 0, None, flags, pool=pool)) == errno.EINVAL
        for flags in (0, MS_ASYNC, MS_SYNC, MS_SYNC | MS_INVALIDATE):
            assert procaio.aio_msync(mapping, 0, None, flags, pool=pool).wait() == 0
        with pytest.raises(TypeError):
            procaio.aio_mtouch(b"read only", 0, None, MT_MODIFY, pool=pool)
    for wrong in (2**32 + 1, -(2**40)):
        with pytest.raises(ValueError):
            procaio.mlockall(wrong)
        with pytest.raises(ValueError):
            procaio.aio_mlockall(wrong, pool=pool)


@not_sanitized
def test_flags_of_mlockall_are_judged_by_the_system(pool: procaio.Pool) -> None:
    assert error_of(procaio.aio_mlockall(64, pool=pool)) == errno.EINVAL


# -- K4: touching and syncing ----------------------------------------------------------------------


def test_msync_brings_changes_to_the_file(pool: procaio.Pool, fd: int) -> None:
    with procaio.mmap(3 * PAGE, RW, MAP_SHARED, fd) as mapping:
        mapping[PAGE : PAGE + 4] = b"sync"
        assert procaio.aio_msync(mapping, PAGE, 4, MS_SYNC, pool=pool).wait() == 0
        assert os.pread(fd, 4, PAGE) == b"sync"
        assert smaps(address_of(mapping), "Shared_Dirty") == 0


@pytest.mark.parametrize("kind", [MAP_SHARED, MAP_PRIVATE])
def test_mt_modify_dirties_pages_and_changes_nothing(
    pool: procaio.Pool, kind: int, fd: int
) -> None:
    """The pages count as changed; their bytes are what they were (K4)."""
    before = os.pread(fd, 8 * PAGE, 0)
    os.fsync(fd)
    with procaio.mmap(8 * PAGE, RW, kind, fd) as mapping:
        at = address_of(mapping)

        def dirty() -> int:
            return smaps(at, "Private_Dirty") + smaps(at, "Shared_Dirty")

        assert procaio.aio_msync(mapping, pool=pool).wait() == 0
        assert procaio.aio_mtouch(mapping, pool=pool).wait() == 0
        untouched = dirty()
        assert all(resident(mapping))
        assert procaio.aio_mtouch(mapping, PAGE, 2 * PAGE, MT_MODIFY, pool=pool).wait() == 0
        assert dirty() - untouched >= (2 * PAGE // 1024 if kind == MAP_PRIVATE else 0)
        assert mapping[:] == before
    assert os.pread(fd, 8 * PAGE, 0) == before


def test_mt_modify_makes_the_next_sync_change_the_time(pool: procaio.Pool, fd: int) -> None:
    """A page that counts as changed is written, and the file has a new mtime."""
    with procaio.mmap(PAGE, RW, MAP_SHARED, fd) as mapping:
        os.utime(fd, (1, 1))
        assert procaio.aio_mtouch(mapping, pool=pool).wait() == 0
        assert procaio.aio_msync(mapping, pool=pool).wait() == 0
        assert os.fstat(fd).st_mtime == 1
        assert procaio.aio_mtouch(mapping, 0, None, MT_MODIFY, pool=pool).wait() == 0
        assert procaio.aio_msync(mapping, pool=pool).wait() == 0
        assert os.fstat(fd).st_mtime > 1


def test_mt_modify_loses_no_byte_that_another_thread_writes(workers: procaio.Pool) -> None:
    """There is no moment at which an old value could be put back (K4)."""
    with anonymous(64 * PAGE) as mapping:
        counters = np.frombuffer(mapping, np.uint64)[:: PAGE // 8]
        going = True
        rounds = 0

        def count(counters: Any = counters) -> None:
            nonlocal rounds
            while going:
                np.add(counters, 1, out=counters)
                rounds += 1

        thread = threading.Thread(target=count)
        thread.start()
        for _ in range(300):
            procaio.aio_mtouch(mapping, 0, None, MT_MODIFY, pool=workers)
            procaio.aio_mtouch(mapping, 0, None, MT_MODIFY, pool=workers).wait()
        workers.flush()
        going = False
        thread.join()
        assert set(counters.tolist()) == {rounds}
        del counters, count, thread


# argv: a file, and how it is mapped; prints a line for each kind of pool and each kind of memory.
TRUNCATED = """
    import errno, mmap as m, os, sys, procaio
    path, kind = sys.argv[1:]
    if kind == "memmap" or "numpy" in kind:
        import numpy as np
    PAGE = os.sysconf("SC_PAGESIZE")
    def new():
        with open(path, "wb") as file:
            file.write(b"f" * 4 * PAGE)
        return os.open(path, os.O_RDWR)
    def data_of(fd):
        flags = m.MAP_PRIVATE if kind.startswith("private") else m.MAP_SHARED
        if kind == "memmap":
            return np.memmap(path, np.uint8, "r+")
        if "python" in kind:
            made = m.mmap(fd, 4 * PAGE, flags)
        elif "called" in kind:
            import array
            made = type(kind.rpartition(" ")[2], (m.mmap,), {})(fd, 4 * PAGE, flags)
        else:
            made = procaio.mmap(4 * PAGE, 3, flags, fd)
        if kind.endswith("view"):
            return memoryview(made)[1:].cast("B")[1:]
        if kind.endswith("numpy"):
            return np.frombuffer(made, np.uint8)[16:].view(np.uint32)[1:]
        return made
    def outcome(make):
        try:
            return make().wait()
        except OSError as error:
            return errno.errorcode[error.errno]
    source = os.open("/dev/zero", os.O_RDWR)
    sink = os.memfd_create("sink")
    for inline, is_lent in (False, False), (False, True), (True, False), (True, True):
        pool = procaio.Pool(inline=inline)
        fd = new()
        data = data_of(fd)
        size = memoryview(data).nbytes
        if is_lent:
            procaio.aio_write(sink, 0, 10, data, pool=pool).wait()
        os.ftruncate(fd, PAGE)
        for call in (
            lambda: procaio.aio_msync(data, pool=pool),
            lambda: procaio.aio_mtouch(data, pool=pool),
            lambda: procaio.aio_mtouch(data, 0, None, 1, pool=pool),
            lambda: procaio.aio_mtouch(data, 2 * PAGE, PAGE, 1, pool=pool),
            lambda: procaio.aio_write(sink, 0, PAGE, data, 2 * PAGE, pool=pool),
            lambda: procaio.aio_read(source, 0, PAGE, data, 2 * PAGE, pool=pool),
            lambda: procaio.aio_write(sink, 0, 10, data, size - 10, pool=pool),
            lambda: procaio.aio_read(source, 0, 10, data, size - 10, pool=pool),
            lambda: procaio.aio_write(sink, 0, 10, data, pool=pool),
        ):
            print(outcome(call), end=" ")
        print()
        pool.close()
        del data
        os.close(fd)
"""


@pytest.mark.parametrize(
    "kind",
    [
        "shared",
        "shared view",
        "shared numpy",
        "private",
        "private view",
        "shared python",
        "private python",
        "shared python view",
        "private python numpy",
        "memmap",
        "called array.array",
        "called numpy.ndarray",
    ],
)
def test_file_that_is_truncated_under_its_mapping_is_an_error(tmp_path: Path, kind: str) -> None:
    """EFAULT, and never SIGBUS, however the memory was mapped and whoever looks at it (K4)."""
    answers = run_python(TRUNCATED, tmp_path / "file", kind).splitlines()
    assert [answer.split() for answer in answers] == [["EFAULT"] * 8 + ["10"]] * 4


def test_large_copies_of_truncated_memory_are_errors(pool: procaio.Pool, tmp_path: Path) -> None:
    """Those that are made without the interpreter lock, too."""
    size = 4 << 20
    with open(tmp_path / "file", "wb+") as file, open("/dev/zero", "rb+") as zero:
        file.truncate(size)
        with python_mmap.mmap(file.fileno(), size) as data:
            assert procaio.aio_read(zero, 0, size, data, pool=pool).wait() == size
            assert procaio.aio_write(zero, 0, size, data, pool=pool).wait() == size
            file.truncate(size // 2)
            seen: list[int] = []
            write = procaio.aio_write(zero, 0, size, data, callback=seen.append, pool=pool)
            assert error_of(write) == errno.EFAULT
            assert error_of(procaio.aio_read(zero, 0, size, data, pool=pool)) == errno.EFAULT
            assert seen == [-1]
    assert pool._snapshot()["shared_used"] == 0
    assert pool.statistics().failed == 2


# -- K5: locking -----------------------------------------------------------------------------------


@not_sanitized
@pytest.mark.usefixtures("can_lock")
@pytest.mark.parametrize("how", ["munlock", "munlockall", "munmap", "collected"])
def test_lock_lasts_until(workers: procaio.Pool, how: str) -> None:
    """munlock(), munlockall(), munmap(): and no longer (K5)."""
    mapping: Any = anonymous(16 * PAGE)
    assert procaio.aio_mlock(mapping, pool=workers).wait() == 0
    assert locked() == 16 * PAGE // 1024
    workers.close()
    assert locked() == 16 * PAGE // 1024
    if how == "munlock":
        procaio.munlock(mapping, 0, 4 * PAGE)
        assert locked() == 12 * PAGE // 1024
        procaio.munlock(mapping)
    elif how == "munlockall":
        procaio.munlockall()
    elif how == "munmap":
        mapping.munmap()
    else:
        del mapping
    assert locked() == 0


@not_sanitized
@pytest.mark.usefixtures("can_lock")
def test_buffer_that_is_released_is_locked_no_more(workers: procaio.Pool) -> None:
    """Its pages go to somebody else, who has asked for nothing."""
    with procaio.Buffer(4 * PAGE, workers) as buffer:
        assert procaio.aio_mlock(buffer, pool=workers).wait() == 0
        assert locked() == 4 * PAGE // 1024
    assert locked() == 0


@not_sanitized
def test_mlockall_locks_everything_until_munlockall() -> None:
    """Asynchronously and at once; in a program of its own, for it is everything."""
    ended = run_program(
        """
        import procaio
        def locked():
            with open("/proc/self/status") as file:
                return next(int(l.split()[1]) for l in file if l.startswith("VmLck:"))
        for lock in (lambda: procaio.aio_mlockall(1).wait(), lambda: procaio.mlockall(1)):
            try:
                lock()
            except OSError as error:
                print("skip", error); break
            assert locked() > 1000
            procaio.munlockall()
            assert locked() == 0
        else:
            print("good")
        """
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    if ended.stdout.startswith("skip"):
        pytest.skip(ended.stdout)


@not_sanitized
def test_mlock_beyond_the_limit_is_an_error_of_the_request() -> None:
    """ENOMEM or EPERM, as the system says."""
    ended = run_program(
        """
        import errno, os, resource, procaio
        mapping = procaio.mmap(1 << 20, 3, 0x22)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
        os.setresuid(54321, 54321, 54321) if os.getuid() == 0 else None
        seen = []
        procaio.aio_mlock(mapping, callback=lambda r: seen.append((r, procaio.errno())))
        procaio.aio_mlock(mapping, 0, 4096, callback=lambda r: seen.append((r, procaio.errno())))
        procaio.flush()
        print(sorted(seen) == [(-1, errno.ENOMEM), (0, 0)], seen)
        """
    )
    assert ended.stdout.startswith("True"), ended.stdout + ended.stderr


# -- nasty arguments -------------------------------------------------------------------------------


class Nasty:
    """Numbers and buffers that do something else when they are asked."""

    def __init__(self, do: Callable[[], object]) -> None:
        self.do = do

    def __index__(self) -> int:
        self.do()
        return 0

    def __buffer__(self, _flags: int) -> memoryview:
        self.do()
        return memoryview(bytearray(10))


def explode() -> None:
    raise ZeroDivisionError


def test_number_that_raises_is_heard(pool: procaio.Pool) -> None:
    for call in CALLS.values():
        for arguments in [(b"", Nasty(explode)), (b"", 0, Nasty(explode))]:
            with pytest.raises(ZeroDivisionError):
                call(*arguments, pool=pool)
    with pytest.raises(ZeroDivisionError):
        procaio.aio_mlockall(Nasty(explode), pool=pool)
    with pytest.raises(ZeroDivisionError):
        procaio.mlockall(Nasty(explode))  # type: ignore[arg-type]
    assert pool.nreqs() == 0


def test_number_that_unmaps_cannot(pool: procaio.Pool) -> None:
    """The memory is held while the other arguments are looked at."""
    mapping = anonymous()
    for call in CALLS.values():
        with pytest.raises(BufferError):
            call(mapping, Nasty(mapping.munmap), pool=pool)
    for at_once in (procaio.munlock, lambda m, o: procaio.madvise(m, o, 1, 0)):
        with pytest.raises(BufferError):
            at_once(mapping, Nasty(mapping.munmap))
    mapping.munmap()
    assert pool.nreqs() == 0


NUMBERS = st.one_of(
    st.integers(),
    st.integers(-5 * PAGE, 5 * PAGE),
    st.sampled_from([2**63 - 1, -(2**63), 2**64, 2**31, -(2**31), 2**32]),
    st.none(),
    st.floats(),
    st.text(max_size=2),
    st.booleans(),
    st.builds(Nasty, st.just(explode)),
    st.builds(Nasty, st.just(gc.collect)),
)
BUFFERS = st.one_of(
    st.binary(max_size=3 * PAGE),
    st.builds(bytearray, st.integers(0, 5 * PAGE)),
    st.builds(np.zeros, st.integers(0, PAGE)),
    st.builds(lambda n: np.zeros((n, 3)).T, st.integers(0, 9)),
    st.builds(lambda n: memoryview(bytearray(n))[1:], st.integers(0, 3 * PAGE)),
    st.builds(lambda n: memoryview(bytearray(n))[::-1], st.integers(0, 30)),
    st.builds(anonymous, st.integers(1, 5 * PAGE), st.sampled_from([1, 2])),
    st.builds(procaio.Buffer, st.integers(0, 5 * PAGE)),
    st.builds(Nasty, st.just(explode)),
    st.builds(Nasty, st.just(gc.collect)),
    st.none(),
    st.integers(),
)
FUZZED = settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZED
@given(data=BUFFERS, arguments=st.lists(NUMBERS, max_size=4), name=st.sampled_from(sorted(CALLS)))
def test_wild_arguments_never_crash(
    pool: procaio.Pool, data: Any, arguments: list[Any], name: str
) -> None:
    """An exception in the call and nothing queued, or a request that ends (A5)."""
    before, content = pool.nreqs(), bytes(data) if isinstance(data, bytearray) else None
    try:
        request = CALLS[name](data, *arguments, pool=pool)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        assert pool.nreqs() == before
        return
    with contextlib.suppress(OSError):
        assert request.wait(timeout=30) == 0
    assert request.state == "done"
    assert content is None or data == content
    if name == "mlock":
        procaio.munlockall()


@FUZZED
@given(data=BUFFERS, offset=NUMBERS, length=NUMBERS, at=NUMBERS)
def test_wild_data_of_reads_and_writes_never_crash(  # noqa: PLR0917 - they are many
    pool: procaio.Pool, fd: int, data: Any, offset: Any, length: Any, at: Any
) -> None:
    """Whatever the data are, and wherever they lie (A5)."""
    if isinstance(length, int) and length > 10 * PAGE:
        length %= 10 * PAGE
    if isinstance(offset, int):
        offset %= 2**20
    for call in (procaio.aio_read, procaio.aio_write):
        before = pool.nreqs()
        try:
            request: Any = call(fd, offset, length, data, at, pool=pool)
        except (TypeError, ValueError, OverflowError, ZeroDivisionError):
            assert pool.nreqs() == before
            continue
        with contextlib.suppress(OSError):
            request.wait(timeout=30)
        os.truncate(fd, 65536)
