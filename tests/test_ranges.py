"""Parts of files: slurp, seek, allocate, fadvise, copies between descriptors, extents."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
from conftest import descriptors, eventually
from procaio import testing
from programs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AT_POINTS = [point for point in testing.FAULT_POINTS if point != "sleeping"]
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
FIEMAP_SYNC, EXTENT_LAST = 1, 1
BLOCK = 4096
CONTENT = random.Random(1).randbytes(300_000)  # five steps of a load


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Larger than what is read in one step."""
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A descriptor of some content, and one of an empty file."""
    (tmp_path / "from").write_bytes(CONTENT[:100_000])
    source = os.open(tmp_path / "from", os.O_RDONLY)
    target = os.open(tmp_path / "to", os.O_RDWR | os.O_CREAT)
    yield source, target
    os.close(source)
    os.close(target)


@pytest.fixture
def pipes() -> Iterator[list[int]]:
    """Two pipes: reading, writing, reading, writing."""
    ends = [*os.pipe(), *os.pipe()]
    yield ends
    for end in ends:
        os.close(end)


def outcome(call: Callable[[], Any]) -> object:
    """A result, or the errno."""
    try:
        value = call()
    except OSError as error:
        return type(error), error.errno
    return 0 if value is None else value


# -- slurp -----------------------------------------------------------------------------------------


def part(content: bytes, offset: int, length: int) -> bytes | None:
    """What slurp gives of it; None: it fails."""
    begin = offset if offset >= 0 else len(content) + offset
    if begin < 0:
        return None
    return content[begin : begin + length] if length else content[begin:]


EDGES = [0, 1, 65535, 65536, 65537, 299_999, 300_000, 300_001, 2**40]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    offset=st.one_of(
        st.integers(-300_010, 300_010), st.sampled_from([*EDGES, *(-e for e in EDGES)])
    ),
    length=st.one_of(st.integers(0, 300_010), st.sampled_from([*EDGES, 2**63 - 1])),
    ahead=st.integers(0, 3),
)
def test_slurp_gives_the_part_of_the_file(
    pool: procaio.Pool, file: Path, offset: int, length: int, ahead: int
) -> None:
    """From either end; length 0 is the rest; before the beginning there is nothing: EINVAL."""
    expected = part(CONTENT, offset, length)
    data = bytearray(b"x" * ahead)
    plain = procaio.aio_slurp(file, offset, length, pool=pool)
    into = procaio.aio_slurp(file, offset, length, data, pool=pool)
    pool.flush()
    if expected is None:
        assert plain.errno == into.errno == errno.EINVAL
        assert data == b"x" * ahead
    else:
        assert plain.result == expected
        assert (into.result, data) == (len(expected), expected)


def test_slurp_with_a_callback_gives_what_wait_gives(pool: procaio.Pool, file: Path) -> None:
    """And None, or -1 with a bytearray, on failure; errors name the path."""
    answers: list[object] = []
    procaio.aio_slurp(file, 2, 3, answers.append, pool=pool)
    pool.flush()
    procaio.aio_slurp(file, 2, 3, bytearray(), answers.append, pool=pool)
    pool.flush()
    procaio.aio_slurp(file / "x", 0, 0, answers.append, pool=pool)
    pool.flush()
    request = procaio.aio_slurp(file / "x", 0, 0, bytearray(), answers.append, pool=pool)
    with pytest.raises(NotADirectoryError) as caught:
        request.wait()
    assert caught.value.filename == file / "x"
    assert answers == [CONTENT[2:5], 3, None, -1]


def test_slurp_of_files_that_have_no_size_or_cannot_be_sought(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """Those of /proc are read to their end, wherever that is; a FIFO has no offset but 0."""
    with open("/proc/self/maps", "rb") as maps:
        head = maps.read(20)
    assert procaio.aio_slurp("/proc/version", 0, 0, pool=pool).wait().startswith(b"Linux")
    assert procaio.aio_slurp("/proc/version", 2, 3, pool=pool).wait() == b"nux"
    assert len(head) == 20
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writer, b"123456")
    assert procaio.aio_slurp(tmp_path / "fifo", 0, 4, pool=pool).wait() == b"1234"
    for offset in (1, -1):
        with pytest.raises(OSError) as caught:
            procaio.aio_slurp(tmp_path / "fifo", offset, 1, pool=pool).wait()
        assert caught.value.errno == errno.ESPIPE
    os.close(writer)


def test_slurp_of_a_directory_or_nothing_fails(pool: procaio.Pool, tmp_path: Path) -> None:
    for path, number in ((tmp_path, errno.EISDIR), (tmp_path / "no", errno.ENOENT)):
        with pytest.raises(OSError) as caught:
            procaio.aio_slurp(path, 0, 0, pool=pool).wait()
        assert (caught.value.errno, caught.value.filename) == (number, path)
    (tmp_path / "empty").touch()
    assert procaio.aio_slurp(tmp_path / "empty", 0, 0, pool=pool).wait() == b""
    with pytest.raises(OSError):
        procaio.aio_slurp(tmp_path / "empty", -1, 0, pool=pool).wait()


@pytest.mark.parametrize("inline", [False, True])
def test_slurp_of_a_little_of_a_large_file_takes_little_memory(
    tmp_path: Path, *, inline: bool
) -> None:
    """What lies behind the part is not made room for."""
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    program = f"""
        import os, resource, sys
        import procaio
        with procaio.Pool(inline={inline}) as pool:
            assert procaio.aio_slurp(sys.argv[1], 5, 100, pool=pool).wait() == bytes(100)
            with open("/proc/self/statm") as file:
                used = int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
            for length in (1, 65536, 65537, 200_000, 3 << 20):
                assert procaio.aio_slurp(sys.argv[1], 5, length, pool=pool).wait() == bytes(length)
        print("done")
    """
    assert run_python(program, tmp_path / "large") == "done\n"


def test_slurp_wrong_arguments_raise_in_the_call(pool: procaio.Pool, file: Path) -> None:
    """Nothing is queued, nothing is held (A5)."""
    data = bytearray(3)
    for arguments in (
        *((file, wrong, 0) for wrong in ("0", None, 1.5, 2**63, -(2**63) - 1)),
        *((file, 0, wrong) for wrong in ("0", None, 1.5, 2**63, -1)),
        *((file, 0, 0, wrong) for wrong in (b"bytes", "text", 3, memoryview(bytearray(1)))),
        *((file, 0, wrong, data) for wrong in ("0", -1)),
        (3, 0, 0),
        ("a\0", 0, 0),
    ):
        with pytest.raises((TypeError, ValueError)):
            procaio.aio_slurp(*arguments, pool=pool)
    data.clear()
    assert (pool._snapshot()["shared_used"], pool.statistics().submitted) == (0, 0)


def test_slurp_into_a_bytearray_that_somebody_holds_fails(pool: procaio.Pool, file: Path) -> None:
    """It cannot be resized: EBUSY; what it held stays."""
    data = bytearray(b"abc")
    request = procaio.aio_slurp(file, 0, 100_000, data, pool=pool)
    with memoryview(data):
        pool.flush()
        assert request.errno == errno.EBUSY
    assert data == b"abc"
    data.clear()


@pytest.mark.parametrize("point", AT_POINTS)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_slurp_worker_dies_in_any_step(
    workers: procaio.Pool, file: Path, point: str, after: int
) -> None:
    """It is done again from the start: the same bytes, and nothing stays open."""
    procaio.aio_nop(pool=workers).wait()
    testing.arm(workers, point, after=after)
    request = procaio.aio_slurp(file, -250_000, 200_000, pool=workers)
    assert request.wait() == part(CONTENT, -250_000, 200_000)
    testing.disarm(workers)

    def closed() -> bool:
        procaio.aio_nop(pool=workers).wait()
        return str(file) not in descriptors().values()

    eventually(closed, "what the dead worker had open is closed")


# -- seek ------------------------------------------------------------------------------------------


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[int]:
    """Data in blocks 1 and 5 to 6 of a file of 16 blocks."""
    fd = os.open(tmp_path / "sparse", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 16 * BLOCK)
    os.pwrite(fd, b"x" * BLOCK, BLOCK)
    os.pwrite(fd, b"x" * 2 * BLOCK, 5 * BLOCK)
    yield fd
    os.close(fd)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    offset=st.one_of(st.integers(-20 * BLOCK, 20 * BLOCK), st.sampled_from([2**62, -(2**63)])),
    whence=st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE, 9]),
)
def test_seek_is_the_one_of_os(pool: procaio.Pool, sparse: int, offset: int, whence: int) -> None:
    """The same position for every whence, holes and data too, or the same errno."""
    os.lseek(sparse, 7 * BLOCK, os.SEEK_SET)
    expected = outcome(lambda: os.lseek(sparse, offset, whence))
    position = os.lseek(sparse, 0, os.SEEK_CUR)
    os.lseek(sparse, 7 * BLOCK, os.SEEK_SET)
    got = outcome(lambda: procaio.aio_seek(sparse, offset, whence, pool=pool).wait())
    assert got == expected
    assert os.lseek(sparse, 0, os.SEEK_CUR) == position


def test_seek_failure_and_wrong_arguments(pool: procaio.Pool, pipes: list[int]) -> None:
    answers: list[object] = []
    request = procaio.aio_seek(pipes[0], 0, os.SEEK_CUR, answers.append, pool=pool)
    with pytest.raises(OSError) as caught:
        request.wait()
    assert (caught.value.errno, answers) == (errno.ESPIPE, [-1])
    submitted = pool.statistics().submitted
    for arguments in ((0, "0", 0), (0, None, 0), (0, 2**63, 0), (0, 0, "0"), (0, 0, None),
                      ("path", 0, 0)):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            procaio.aio_seek(*arguments, pool=pool)
    assert pool.statistics().submitted == submitted


def test_seek_is_not_repeated_when_its_worker_dies(workers: procaio.Pool, sparse: int) -> None:
    """A relative move would be made twice."""
    testing.arm(workers, "called")
    request = procaio.aio_seek(sparse, 10, os.SEEK_CUR, pool=workers)
    with pytest.raises(procaio.WorkerDied):
        request.wait()
    assert os.lseek(sparse, 0, os.SEEK_CUR) == 10


# -- allocate and fadvise --------------------------------------------------------------------------


def allocate(pool: procaio.Pool, fd: int, mode: int, offset: int, length: int) -> None:
    try:
        assert procaio.aio_allocate(fd, mode, offset, length, pool=pool).wait() == 0
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip(f"no fallocate with mode {mode} here")
        raise


def test_allocate_reserves_space(pool: procaio.Pool, two: tuple[int, int]) -> None:
    """The file grows, unless KEEP_SIZE says that it stays as long as it is."""
    allocate(pool, two[1], 0, 0, 10 * BLOCK)
    status = os.fstat(two[1])
    assert status.st_size == 10 * BLOCK
    assert status.st_blocks * 512 >= 10 * BLOCK
    allocate(pool, two[1], KEEP_SIZE, 0, 40 * BLOCK)
    status = os.fstat(two[1])
    assert status.st_size == 10 * BLOCK
    assert status.st_blocks * 512 >= 40 * BLOCK


@pytest.mark.parametrize("where", ["tmp_path", "/dev/shm"])
def test_allocate_punches_holes(pool: procaio.Pool, tmp_path: Path, where: str) -> None:
    """What was there reads as zeros, and takes no space."""
    directory = str(tmp_path) if where == "tmp_path" else where
    path = os.path.join(directory, f"procaio-hole-{os.getpid()}")
    with open(path, "wb+") as file:
        os.unlink(path)
        file.write(b"x" * 16 * BLOCK)
        file.flush()
        os.fsync(file)
        before = os.fstat(file.fileno()).st_blocks
        allocate(pool, file.fileno(), PUNCH_HOLE | KEEP_SIZE, 4 * BLOCK, 8 * BLOCK)
        assert os.fstat(file.fileno()).st_blocks == before - 8 * BLOCK // 512
        assert os.fstat(file.fileno()).st_size == 16 * BLOCK
        assert os.pread(file.fileno(), 16 * BLOCK, 0) == (
            b"x" * 4 * BLOCK + bytes(8 * BLOCK) + b"x" * 4 * BLOCK
        )
        hole = procaio.aio_seek(file, 0, os.SEEK_HOLE, pool=pool).wait()
        assert hole == 4 * BLOCK


def test_allocate_errors(pool: procaio.Pool, two: tuple[int, int], pipes: list[int]) -> None:
    answers: list[object] = []
    for fd, mode, length, number in (
        (two[1], 0, 0, errno.EINVAL),
        (two[0], 0, 1, errno.EBADF),
        (-1, 0, 1, errno.EBADF),
        (pipes[1], 0, 1, errno.ESPIPE),
        (two[1], PUNCH_HOLE, 1, errno.EOPNOTSUPP),
        (two[1], 0, 2**63 - 1, errno.EFBIG),
    ):
        with pytest.raises(OSError) as caught:
            procaio.aio_allocate(fd, mode, 0, length, answers.append, pool=pool).wait()
        assert caught.value.errno == number
    assert answers == [-1] * 6
    submitted = pool.statistics().submitted
    for arguments in ((0, None, 0, 1), (0, "0", 0, 1), (0, 0, -1, 1), (0, 0, None, 1),
                      (0, 0, 0, -1), (0, 0, 0, None), ("path", 0, 0, 1)):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            procaio.aio_allocate(*arguments, pool=pool)
    assert pool.statistics().submitted == submitted


def test_fadvise_is_the_one_of_os(
    pool: procaio.Pool, two: tuple[int, int], pipes: list[int]
) -> None:
    """Every advice, one that is none, and descriptors that cannot be advised."""
    for fd in (two[0], pipes[0], -1):
        for advice in (*range(6), 99):
            for offset, length in ((0, 0), (100, 2**40), (2**62, 1)):
                expected = outcome(
                    lambda fd=fd, o=offset, n=length, a=advice: os.posix_fadvise(fd, o, n, a)
                )
                got = outcome(
                    lambda fd=fd, o=offset, n=length, a=advice: procaio.aio_fadvise(
                        fd, o, n, a, pool=pool
                    ).wait()
                )
                assert got == expected
    for arguments in ((0, -1, 0, 0), (0, 0, -1, 0), (0, 0, 0, None), (0, None, 0, 0)):
        with pytest.raises((TypeError, ValueError)):
            procaio.aio_fadvise(*arguments, pool=pool)


# -- between two descriptors -----------------------------------------------------------------------


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count=st.one_of(st.integers(0, 120_000), st.sampled_from([2**31, 2**63 - 1])),
    offset_src=st.one_of(st.none(), st.integers(0, 120_000), st.just(2**62)),
    offset_dst=st.one_of(st.none(), st.integers(0, 120_000)),
)
def test_copy_file_range_is_the_one_of_os(
    pool: procaio.Pool,
    two: tuple[int, int],
    count: int,
    offset_src: int | None,
    offset_dst: int | None,
) -> None:
    """The same count, content and positions; offsets move none."""
    source, target = two
    results = []
    for call in (
        lambda: os.copy_file_range(source, target, count, offset_src, offset_dst),
        lambda: procaio.aio_copy_file_range(
            source, target, count, offset_src, offset_dst, pool=pool
        ).wait(),
    ):
        os.truncate(target, 0)
        os.lseek(source, 50_000, os.SEEK_SET)
        os.lseek(target, 3, os.SEEK_SET)
        result = outcome(call)
        places = [os.lseek(fd, 0, os.SEEK_CUR) for fd in two]
        results.append((result, places, os.pread(target, 400_000, 0)))
    assert results[0] == results[1]


def test_splice_moves_between_a_file_and_a_pipe(
    pool: procaio.Pool, two: tuple[int, int], pipes: list[int]
) -> None:
    """With offsets for the file, or at its position; flags are the system's."""
    source, target = two
    reading, writing = pipes[:2]
    assert procaio.aio_splice(source, writing, 1000, 10, pool=pool).wait() == 1000
    assert os.lseek(source, 0, os.SEEK_CUR) == 0
    assert procaio.aio_splice(source, writing, 500, None, None, 1, pool=pool).wait() == 500
    assert os.lseek(source, 0, os.SEEK_CUR) == 500
    assert procaio.aio_splice(reading, target, 1000, offset_dst=7, pool=pool).wait() == 1000
    assert os.lseek(target, 0, os.SEEK_CUR) == 0
    assert procaio.aio_splice(reading, target, 9999, pool=pool).wait() == 500
    assert os.pread(target, 9999, 0) == CONTENT[:500] + CONTENT[10 + 493 : 1010]
    nonblocking = 2
    answers: list[object] = []
    request = procaio.aio_splice(
        reading, target, 1, None, None, nonblocking, answers.append, pool=pool
    )
    with pytest.raises(BlockingIOError):
        request.wait()
    assert answers == [-1]


def test_splice_errors(pool: procaio.Pool, two: tuple[int, int], pipes: list[int]) -> None:
    """No pipe: EINVAL. An offset into a pipe: ESPIPE."""
    for arguments, number in (
        ((two[0], two[1], 1), errno.EINVAL),
        ((two[0], pipes[1], 1, 0, 5), errno.ESPIPE),
        ((-1, pipes[1], 1), errno.EBADF),
        ((two[0], -1, 1), errno.EBADF),
    ):
        with pytest.raises(OSError) as caught:
            procaio.aio_splice(*arguments, pool=pool).wait()
        assert caught.value.errno == number
    assert procaio.aio_splice(two[0], pipes[1], 0, pool=pool).wait() == 0


def test_tee_copies_and_takes_nothing_out(pool: procaio.Pool, pipes: list[int]) -> None:
    os.write(pipes[1], b"12345")
    assert procaio.aio_tee(pipes[0], pipes[3], 3, pool=pool).wait() == 3
    assert procaio.aio_tee(pipes[0], pipes[3], 99, 0, pool=pool).wait() == 5
    assert os.read(pipes[2], 99) == b"12312345"
    assert os.read(pipes[0], 99) == b"12345"
    with pytest.raises(BlockingIOError):
        procaio.aio_tee(pipes[0], pipes[3], 1, 2, pool=pool).wait()
    with pytest.raises(OSError) as caught:
        procaio.aio_tee(pipes[0], pipes[1], 1, pool=pool).wait()
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("name", ["copy_file_range", "splice", "tee"])
def test_copies_wrong_arguments_raise_in_the_call(
    pool: procaio.Pool, file: Path, name: str
) -> None:
    """Nothing is queued; files that were given are let go (A5)."""
    function = getattr(procaio, f"aio_{name}")
    with open(file, "rb") as good:
        references = sys.getrefcount(good)
        wrong: list[tuple[Any, ...]] = [
            *((good, good, count) for count in (-1, 2**63, "1", None, 1.5)),
            *((good, bad, 1) for bad in ("path", None, 1.5, (1, "x"), 2**40)),
            *((bad, good, 1) for bad in ("path", None, 1.5, (1, "x"), 2**40)),
            *((good, good, 1, bad) for bad in (-1, "0", 1.5) if (name, bad) != ("tee", -1)),
        ]
        if name != "tee":
            wrong += [(good, good, 1, 0, bad) for bad in (-1, "0", 1.5, 2**63)]
        for arguments in wrong:
            with pytest.raises((TypeError, ValueError, OverflowError)):
                function(*arguments, pool=pool)
        del arguments, wrong
        assert sys.getrefcount(good) == references
    assert pool.statistics().submitted == 0


@pytest.mark.parametrize("point", ["taken", "called", "done"])
def test_copies_are_not_repeated_when_their_worker_dies(
    workers: procaio.Pool, two: tuple[int, int], point: str
) -> None:
    """At positions it would be another part the second time."""
    testing.arm(workers, point)
    request = procaio.aio_copy_file_range(*two, 1000, pool=workers)
    if point == "called":
        with pytest.raises(procaio.WorkerDied):
            request.wait()
    else:
        assert request.wait() == 1000
    assert os.pread(two[1], 9999, 0) == CONTENT[:1000]


# -- fiemap ----------------------------------------------------------------------------------------

EXTENTS = 2500  # more than two steps


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A file of which every other block is there: so many extents."""
    fd = os.open(tmp_path_factory.mktemp("extents") / "file", os.O_RDWR | os.O_CREAT)
    for n in range(EXTENTS):
        os.pwrite(fd, b"x" * BLOCK, 2 * n * BLOCK)
    os.truncate(fd, 2 * EXTENTS * BLOCK)
    os.fsync(fd)
    try:
        with procaio.Pool(inline=True) as pool:
            found = len(procaio.aio_fiemap(fd, pool=pool).wait())
    except OSError as error:
        os.close(fd)
        pytest.skip(f"no extents here: {error}")
    if found != EXTENTS:
        os.close(fd)
        pytest.skip(f"{found} extents where {EXTENTS} were made")
    yield fd
    os.close(fd)


def logical(extents: list[tuple[int, int, int, int]]) -> list[int]:
    """The numbers of the blocks that were written."""
    assert all(length == BLOCK for _, _, length, _ in extents)
    return [where // (2 * BLOCK) for where, _, _, _ in extents]


def test_fiemap_of_many_extents_gives_all(pool: procaio.Pool, scattered: int) -> None:
    """In as many steps as it takes; the last one is marked."""
    extents = procaio.aio_fiemap(scattered, flags=FIEMAP_SYNC, pool=pool).wait()
    assert logical(extents) == list(range(EXTENTS))
    assert [bool(flags & EXTENT_LAST) for *_, flags in extents] == [False] * (EXTENTS - 1) + [True]
    places = [physical for _, physical, _, _ in extents]
    assert len(set(places)) == EXTENTS
    assert all(place > 0 for place in places)
    assert pool._snapshot()["shared_used"] == 0


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 2 * EXTENTS + 10),
    length=st.one_of(st.none(), st.integers(1, 2 * EXTENTS + 10), st.sampled_from([2047, 2048, 2049,
                                                                                   4096])),
    count=st.one_of(st.none(), st.integers(1, EXTENTS + 10), st.sampled_from([1023, 1024, 1025])),
)  # fmt: skip
def test_fiemap_of_a_part_with_a_limit(
    pool: procaio.Pool, scattered: int, start: int, length: int | None, count: int | None
) -> None:
    """Those that begin in the part, the first `count` of them."""
    extents = procaio.aio_fiemap(
        scattered, start * BLOCK, length and length * BLOCK, 0, count, pool=pool
    ).wait()
    end = start + length if length else 2 * EXTENTS
    expected = [n for n in range(EXTENTS) if start <= 2 * n < end]
    assert logical(extents) == expected[:count]


def test_fiemap_of_an_empty_file_is_empty(pool: procaio.Pool, two: tuple[int, int]) -> None:
    answers: list[object] = []
    try:
        assert procaio.aio_fiemap(two[1], answers.append, pool=pool).wait() == []
    except OSError as error:
        pytest.skip(f"no extents here: {error}")
    assert answers == [[]]


def test_fiemap_errors(pool: procaio.Pool, scattered: int, pipes: list[int]) -> None:
    """What the system says; None to the callback."""
    answers: list[object] = []
    for arguments, number in (
        ((pipes[0],), {errno.ENOTTY, errno.EOPNOTSUPP, errno.EBADF}),
        ((-1,), {errno.EBADF}),
        ((scattered, 0, None, 1 << 20), {errno.EBADR}),
        ((scattered, 0, 0), {errno.EINVAL}),
        ((scattered, 2**62), {errno.EFBIG}),
    ):
        with pytest.raises(OSError) as caught:
            procaio.aio_fiemap(*arguments, callback=answers.append, pool=pool).wait()
        assert caught.value.errno in number
    assert answers == [None] * 5


def test_fiemap_wrong_arguments_raise_in_the_call(pool: procaio.Pool) -> None:
    """Nothing is queued (A5)."""
    for arguments in (
        *((0, wrong) for wrong in (-1, "0", 1.5, 2**63)),
        *((0, 0, wrong) for wrong in (-1, "0", 1.5, 2**63)),
        *((0, 0, None, wrong) for wrong in (None, "0", 2**32)),
        *((0, 0, None, 0, wrong) for wrong in (0, -1, "1", 1.5, 2**40)),
        ("path",),
    ):
        with pytest.raises((TypeError, ValueError)):
            procaio.aio_fiemap(*arguments, pool=pool)
    assert pool.statistics().submitted == 0


@pytest.mark.parametrize("point", AT_POINTS)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_fiemap_worker_dies_in_any_step(
    workers: procaio.Pool, scattered: int, point: str, after: int
) -> None:
    """The step is done again: every extent once, in order."""
    procaio.aio_nop(pool=workers).wait()
    testing.arm(workers, point, after=after)
    extents = procaio.aio_fiemap(scattered, pool=workers).wait()
    testing.disarm(workers)
    assert logical(extents) == list(range(EXTENTS))


def test_fiemap_that_is_cancelled_between_steps_ends(workers: procaio.Pool, scattered: int) -> None:
    """It is not sent on; nothing of it is kept."""
    requests = [procaio.aio_fiemap(scattered, pool=workers) for _ in range(20)]
    for n, request in enumerate(requests):
        if n % 2:
            request.cancel()
            workers.poll_cb()
    workers.flush()
    for n, request in enumerate(requests):
        assert request.state in {"done", "cancelled"}
        if not n % 2:
            assert logical(request.wait()) == list(range(EXTENTS))
    with contextlib.suppress(procaio.RequestCancelled):
        requests[1].wait()
    assert workers._snapshot()["shared_used"] == 0
