"""Mapping: mapped memory as a buffer, lent to workers without a copy (rules K1, A9)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import importlib.util
import mmap as python_mmap
import os
import threading
import weakref
from mmap import (
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
)
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import procaio
from conftest import descriptors, eventually, in_child, not_sanitized, succeeds
from programs import run_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Gate

PAGE = os.sysconf("SC_PAGESIZE")
RW = PROT_READ | PROT_WRITE
PROT_NONE = 0
MAP_FIXED = 0x10
MAP_FIXED_NOREPLACE = 0x100000
MAP_GROWSDOWN = 0x100

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def lines_of_maps(what: str, pid: int | str = "self") -> int:
    """How many mappings of a process mention `what`."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
        return sum(what in line for line in file)


def used(pool: procaio.Pool) -> int:
    """Bytes of shared memory that requests and Buffers have."""
    return pool._snapshot()["shared_used"]


def anonymous(length: int = 4 * PAGE, kind: int = MAP_SHARED) -> procaio.Mapping:
    """Fresh memory."""
    return procaio.mmap(length, RW, kind | MAP_ANONYMOUS)


# -- K1: a buffer ----------------------------------------------------------------------------------


def test_mapping_of_a_file_is_a_buffer_of_its_bytes(fd: int) -> None:
    """len(), indexing, slices and views; what is written arrives in the file (K1)."""
    with procaio.mmap(40000, RW, MAP_SHARED, fd) as mapping:
        assert len(mapping) == 40000
        assert mapping[:] == os.pread(fd, 40000, 0)
        assert (mapping[31], mapping[-1]) == (1, os.pread(fd, 1, 39999)[0])
        mapping[5:8] = b"new"
        mapping[0] = 7
        with memoryview(mapping) as view:
            assert (view.readonly, view.nbytes, view.format) == (False, 40000, "B")
            view[100:104] = b"view"
        with pytest.raises(IndexError):
            mapping[40000]
        with pytest.raises(TypeError):
            del mapping[0]
        assert repr(mapping) == "<Mapping length=40000 offset=0>"
    assert os.pread(fd, 8, 0) == b"\x07\0\0\0\0new"
    assert os.pread(fd, 4, 100) == b"view"


def test_mapping_begins_at_the_offset(fd: int) -> None:
    with procaio.mmap(100, PROT_READ, MAP_SHARED, fd, 2 * PAGE) as mapping:
        assert mapping[:] == os.pread(fd, 100, 2 * PAGE)
        assert repr(mapping) == f"<Mapping length=100 offset={2 * PAGE}>"


def test_mapping_takes_everything_that_has_a_descriptor(data_file: Path) -> None:
    """An int, a file object, a FileHandle; the file may be closed at once."""
    handle = procaio.aio_open(data_file).wait()
    with open(data_file, "rb") as file:
        made = [procaio.mmap(32, PROT_READ, MAP_PRIVATE, f) for f in (file, file.fileno(), handle)]
    handle.close()
    assert [m[16:32] for m in made] == [data_file.read_bytes()[16:32]] * 3


def unmap_by_function(mapping: procaio.Mapping) -> None:
    procaio.munmap(mapping)


def unmap_by_with(mapping: procaio.Mapping) -> None:
    with mapping as same:
        assert same is mapping


@pytest.mark.parametrize("how", [unmap_by_function, procaio.Mapping.munmap, unmap_by_with])
@pytest.mark.parametrize("kind", [MAP_SHARED, MAP_PRIVATE])
def test_mapping_is_unmapped_by(how: Callable[..., object], kind: int, data_file: Path) -> None:
    """munmap(), the method and `with`: the pages are gone, and doing it again is nothing (K1)."""
    with open(data_file, "rb+") as file:
        mapping = procaio.mmap(100, RW, kind, file)
    assert lines_of_maps(str(data_file)) == 1
    how(mapping)
    assert lines_of_maps(str(data_file)) == 0
    procaio.munmap(mapping)
    mapping.munmap()
    assert repr(mapping) == "<Mapping unmapped>"
    for use in (len, memoryview, lambda m: m[0], lambda m: m.__enter__(), procaio.aio_msync):
        with pytest.raises(ValueError, match="unmapped"):
            use(mapping)
    with pytest.raises(ValueError, match="unmapped"):
        mapping[0] = 1


def test_mapping_is_unmapped_when_it_is_collected(data_file: Path) -> None:
    with open(data_file, "rb") as file:
        mapping = procaio.mmap(100, PROT_READ, MAP_SHARED, file)
    gone: list[int] = []
    reference = weakref.ref(mapping, lambda _: gone.append(1))
    view = memoryview(mapping)
    del mapping
    assert reference() is not None
    assert lines_of_maps(str(data_file)) == 1
    view.release()
    del view
    assert (reference(), gone) == (None, [1])
    assert lines_of_maps(str(data_file)) == 0


def test_mapping_is_not_made_without_mmap() -> None:
    with pytest.raises(TypeError):
        procaio.Mapping()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        procaio.munmap(bytearray(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, -1, -(2**63)])
def test_empty_mapping_is_a_value_error(length: int) -> None:
    """Lengths of 0 and below (K1)."""
    with pytest.raises(ValueError):
        procaio.mmap(length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS)


@pytest.mark.better
@pytest.mark.parametrize("kind", [MAP_SHARED, MAP_PRIVATE])
def test_mapping_longer_than_the_file_is_refused(kind: int, fd: int) -> None:
    """Using its end would kill the program, so it is never made (K1)."""
    size = os.fstat(fd).st_size
    procaio.mmap(size, PROT_READ, kind, fd).munmap()
    procaio.mmap(PAGE, PROT_READ, kind, fd, size - PAGE).munmap()
    for length, offset in [
        (size + 1, 0),
        (size, PAGE),
        (1, size),
        (1, size + PAGE),
        (2**63 - 1, 0),
        (PAGE, 2**62),
    ]:
        with pytest.raises(ValueError, match="more than the file has"):
            procaio.mmap(length, PROT_READ, kind, fd, offset)


def test_mapping_longer_than_a_disk_is_refused() -> None:
    """A block device has an end as well, and beyond it there is SIGBUS."""
    disks = [f"/dev/{name}" for name in os.listdir("/sys/block")]
    for disk in disks:
        try:
            fd = os.open(disk, os.O_RDONLY)
        except OSError:
            continue
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
            with pytest.raises(ValueError, match="more than the file has"):
                procaio.mmap(size + 1, PROT_READ, MAP_SHARED, fd)
        finally:
            os.close(fd)
        return
    pytest.skip("no block device can be opened here")


def test_offset_within_a_page_is_an_os_error(fd: int) -> None:
    """The system's own EINVAL (K1)."""
    for offset in (1, PAGE // 2, PAGE + 1):
        with pytest.raises(OSError) as raised:
            procaio.mmap(1, PROT_READ, MAP_SHARED, fd, offset)
        assert raised.value.errno == errno.EINVAL
        assert raised.value.filename == fd
    with pytest.raises(ValueError):
        procaio.mmap(1, PROT_READ, MAP_SHARED, fd, -PAGE)


def test_mapping_errors_are_those_of_the_system(data_file: Path, tmp_path: Path) -> None:
    """Directories, closed descriptors, what may not be read or written; and nothing leaks."""
    opened = {
        "write": os.open(data_file, os.O_WRONLY),
        "read": os.open(data_file, os.O_RDONLY),
        "directory": os.open(tmp_path, os.O_RDONLY),
    }
    for file, prot, flags, expected in [
        (opened["write"], PROT_READ, MAP_SHARED, errno.EACCES),
        (opened["write"], PROT_WRITE, MAP_SHARED, errno.EACCES),
        (opened["read"], RW, MAP_SHARED, errno.EACCES),
        (opened["directory"], PROT_READ, MAP_SHARED, errno.ENODEV),
        (opened["directory"], PROT_READ, MAP_PRIVATE, errno.ENODEV),
        (10**6, PROT_READ, MAP_SHARED, errno.EBADF),
        (opened["read"], PROT_READ, 0, errno.EINVAL),
        (None, PROT_READ, 0, errno.EINVAL),
    ]:
        with pytest.raises(OSError) as raised:
            procaio.mmap(10, prot, flags, file)
        assert raised.value.errno == expected, (file, prot, flags)
    for number in opened.values():
        os.close(number)


@pytest.mark.parametrize("flag", [MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_GROWSDOWN])
def test_flags_that_need_an_address_are_refused(flag: int) -> None:
    with pytest.raises(ValueError, match="address"):
        procaio.mmap(PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | flag)


def test_mapping_too_large_for_the_system_is_an_os_error() -> None:
    for kind in (MAP_PRIVATE, MAP_SHARED):
        with pytest.raises(OSError) as raised:
            procaio.mmap(2**63 - 1, RW, kind | MAP_ANONYMOUS)
        assert raised.value.errno in {errno.ENOMEM, errno.EFBIG, errno.EINVAL, errno.EOVERFLOW}


@pytest.mark.parametrize("arguments", [(), (1,), ("1", 1, 1), (1, 1, 1, "x"), (1, 1, 1, None, "x")])
def test_mapping_of_wrong_types_is_a_type_error(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        procaio.mmap(*arguments)


@pytest.mark.parametrize("kind", [MAP_SHARED, MAP_PRIVATE])
def test_fresh_memory_is_zeroed_and_private_or_shared_with_children(kind: int) -> None:
    """A forked child's bytes arrive in shared memory, and only there (K1)."""
    with anonymous(kind=kind) as mapping:
        assert mapping[:] == bytes(4 * PAGE)
        mapping[:6] = b"parent"

        def work() -> None:
            assert mapping[:6] == b"parent"
            mapping[:6] = b"child!"

        assert succeeds(in_child(work))
        assert mapping[:6] == (b"child!" if kind == MAP_SHARED else b"parent")


def test_private_mapping_leaves_the_file_alone(pool: procaio.Pool, fd: int) -> None:
    before = os.pread(fd, 100, 0)
    with procaio.mmap(100, RW, MAP_PRIVATE, fd) as mapping:
        mapping[:4] = b"mine"
        assert procaio.aio_read(fd, 16, 16, mapping, 32, pool=pool).wait() == 16
        assert mapping[:48] == b"mine" + before[4:32] + before[16:32]
    assert os.pread(fd, 100, 0) == before


@pytest.mark.parametrize("kind", [MAP_SHARED, MAP_PRIVATE])
def test_read_only_mapping_has_read_only_views(pool: procaio.Pool, kind: int, fd: int) -> None:
    """Writing to it is an exception and no crash, and no read may go there (K1)."""
    with procaio.mmap(100, PROT_READ, kind, fd) as mapping:
        view = memoryview(mapping)
        assert view.readonly
        view.release()
        with pytest.raises(TypeError):
            mapping[0] = 1
        with pytest.raises(TypeError):
            procaio.aio_read(fd, 0, 4, mapping, pool=pool)
        with pytest.raises(TypeError):
            procaio.aio_mtouch(mapping, 0, None, 1, pool=pool)
        assert procaio.aio_write(fd, 1000, 32, mapping, 16, pool=pool).wait() == 32
        assert os.pread(fd, 32, 1000) == mapping[16:48]


def test_mapping_without_read_permission_has_no_views(pool: procaio.Pool) -> None:
    with procaio.mmap(PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS) as mapping:
        with pytest.raises(BufferError):
            memoryview(mapping)
        with pytest.raises(TypeError):
            procaio.aio_mtouch(mapping, pool=pool)


def test_mapping_that_is_looked_at_cannot_be_unmapped(workers: procaio.Pool, gate: Gate) -> None:
    """A BufferError while views or requests need it (K1)."""
    mapping = anonymous()
    with memoryview(mapping), pytest.raises(BufferError):
        mapping.munmap()
    array = np.frombuffer(mapping, np.uint8)
    with pytest.raises(BufferError):
        procaio.munmap(mapping)
    del array
    request = procaio.aio_read(gate.fd, None, 1, mapping, pool=workers)
    with pytest.raises(BufferError), mapping:
        pass
    gate.open()
    assert request.wait() == 1
    assert mapping[:2] == b"x\0"
    mapping.munmap()


# -- zero copy -------------------------------------------------------------------------------------


def views_of(owner: Any) -> dict[str, Any]:
    """What lies in memory that workers see too."""
    return {
        "itself": owner,
        "memoryview": memoryview(owner),
        "slice": memoryview(owner)[PAGE + 5 :],
        "numpy": np.frombuffer(owner, np.uint32)[PAGE // 4 :],
        "ctypes": (ctypes.c_char * 100).from_buffer(owner, 50),
    }


@pytest.mark.parametrize("source", ["memory", "file", "Buffer"])
@pytest.mark.parametrize("kind", ["itself", "memoryview", "slice", "numpy", "ctypes"])
def test_reads_and_writes_take_no_copy(
    workers: procaio.Pool, gate: Gate, fd: int, source: str, kind: str
) -> None:
    """No other shared memory is used, into a Mapping or a Buffer or whatever lies in one (A9)."""
    owner: Any
    if source == "Buffer":
        owner = procaio.Buffer(8 * PAGE, workers)
    else:
        owner = procaio.mmap(8 * PAGE, RW, MAP_SHARED, fd if source == "file" else None)
    data = views_of(owner)[kind]
    workers.max_parallel(1)
    before = used(workers)
    reading = procaio.aio_read(gate.fd, None, 64, data, pool=workers)
    writing = procaio.aio_write(fd, 50000, 64, data, pool=workers)
    assert used(workers) == before
    gate.open(3)
    assert (reading.wait(), writing.wait()) == (3, 64)
    assert bytes(memoryview(data).cast("B")[:3]) == b"xxx"
    assert os.pread(fd, 64, 50000) == bytes(memoryview(data).cast("B")[:64])
    assert used(workers) == before
    del data, owner
    gc.collect()


def test_private_mapping_is_copied(workers: procaio.Pool, gate: Gate) -> None:
    """The control: nobody else can map it, so there has to be a copy."""
    mapping = anonymous(kind=MAP_PRIVATE)
    before = used(workers)
    reading = procaio.aio_read(gate.fd, None, 64, mapping, 10, pool=workers)
    assert used(workers) > before
    gate.open(2)
    assert reading.wait() == 2
    assert mapping[8:14] == b"\0\0xx\0\0"
    assert used(workers) == before


def test_workers_and_program_see_the_same_bytes(workers: procaio.Pool, fd: int) -> None:
    """What the program writes last is what is written; what is read is there at once."""
    with procaio.mmap(3 * PAGE + 10, RW, MAP_SHARED, fd, PAGE) as mapping:
        for number in range(20):
            text = f"round {number:5}".encode()
            mapping[2 * PAGE - 4 : 2 * PAGE + 7] = text
            assert (
                procaio.aio_write(fd, 60000, 11, mapping, 2 * PAGE - 4, pool=workers).wait() == 11
            )
            assert os.pread(fd, 11, 60000) == text
            assert procaio.aio_read(fd, 60000, 11, mapping, 3 * PAGE - 1, pool=workers).wait() == 11
            assert mapping[3 * PAGE - 1 : 3 * PAGE + 10] == text
            assert os.pread(fd, 11, 4 * PAGE - 1) == text


@not_sanitized
def test_mapping_that_goes_is_mapped_by_no_worker(workers: procaio.Pool, tmp_path: Path) -> None:
    """The memory of a deleted file is given back, though workers had it mapped."""
    path = tmp_path / "to-be-deleted"
    with open(path, "wb+") as file:
        file.truncate(64 * PAGE)
        mapping = procaio.mmap(64 * PAGE, RW, MAP_SHARED, file)
    with open("/dev/zero", "rb") as zero:
        requests = [
            procaio.aio_read(zero, 0, PAGE, mapping, n * PAGE, pool=workers) for n in range(64)
        ]
        workers.flush()
    assert [r.result for r in requests] == [PAGE] * 64
    pids = [worker.pid for worker in workers.statistics().workers]
    assert any(lines_of_maps("to-be-deleted", pid) for pid in pids)
    path.unlink()
    mapping.munmap()
    eventually(lambda: not any(lines_of_maps("to-be-deleted", p) for p in pids), "workers unmap it")


@not_sanitized
def test_worker_that_never_sleeps_unmaps_it_too(workers: procaio.Pool) -> None:
    """Under load a worker does not come to rest; what the program has unmapped goes anyway."""
    workers.max_parallel(1)
    going = True

    def go_on(*_: object) -> None:
        if going:
            procaio.aio_nop(go_on, pool=workers)

    mapping = anonymous()
    with open("/dev/zero", "rb") as zero:
        assert procaio.aio_read(zero, 0, PAGE, mapping, pool=workers).wait() == PAGE
    (worker,) = workers.statistics().workers
    assert lines_of_maps("memfd:procaio-mapping", worker.pid) == 1
    for _ in range(200):
        go_on()
    mapping.munmap()

    def gone() -> bool:
        for _ in range(100):
            workers.poll_cb()
        return not lines_of_maps("memfd:procaio-mapping", worker.pid)

    eventually(gone, "the worker unmaps it")
    going = False
    workers.flush()


def test_mapping_lent_to_one_pool_serves_another(
    workers: procaio.Pool, gate: Gate, fd: int
) -> None:
    """The other one copies; it is lent to that one once the first has gone."""
    with anonymous() as mapping:
        with procaio.Pool() as first:
            assert procaio.aio_read(fd, 16, 32, mapping, pool=first).wait() == 32
            before = used(workers)
            reading = procaio.aio_read(gate.fd, None, 8, mapping, 100, pool=workers)
            assert used(workers) > before
            gate.open()
            assert reading.wait() == 1
            assert procaio.aio_write(fd, 1000, 32, mapping, pool=workers).wait() == 32
            assert os.pread(fd, 32, 1000) == mapping[:32] == os.pread(fd, 32, 16)
        before = used(workers)
        reading = procaio.aio_read(gate.fd, None, 8, mapping, 200, pool=workers)
        assert used(workers) == before
        gate.open()
        assert reading.wait() == 1
        assert (mapping[100:102], mapping[200:202]) == (b"x\0", b"x\0")


@pytest.mark.parametrize("keeps_buffer", [False, True])
def test_pool_closes_while_a_mapping_is_lent(fd: int, *, keeps_buffer: bool) -> None:
    """The Mapping stays what it is, and can be unmapped before or after its pool goes."""
    pool = procaio.Pool()
    buffer = procaio.Buffer(100, pool)
    mapping, other = anonymous(), anonymous()
    for data in (mapping, other, buffer):
        assert procaio.aio_read(fd, 16, 32, data, pool=pool).wait() == 32
    other.munmap()
    if not keeps_buffer:
        buffer.release()
    pool.close()
    assert mapping[:32] == os.pread(fd, 32, 16)
    mapping.munmap()
    buffer.release()


def test_mapping_is_collected_after_everything_else_at_exit() -> None:
    """A lent Mapping in a module, or in a request that is in flight, does not hurt the exit."""
    ended = run_program(
        """
import os, procaio
kept = procaio.mmap(1 << 20, 3, 1)
pool = procaio.Pool()
pool.mapping = procaio.mmap(1 << 20, 3, 1)
reader, writer = os.pipe()
zero = os.open("/dev/zero", 0)
print(procaio.aio_read(zero, 0, 100, kept).wait())
print(procaio.aio_read(zero, 0, 9, pool.mapping, pool=pool).wait())
procaio.exit_timeout(0.05)
stuck = procaio.aio_read(reader, None, 1, kept, callback=lambda n: print("ended", n))
queued = procaio.aio_mtouch(kept, callback=lambda n: print("touched", n))
"""
    )
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert ended.stdout.splitlines()[:2] == ["100", "9"]
    assert sorted(ended.stdout.splitlines()[2:]) == ["ended -1", "touched 0"]


def test_device_that_gives_other_memory_each_time_is_copied(pool: procaio.Pool, fd: int) -> None:
    """Workers that map /dev/zero get zeros of their own: it cannot be lent."""
    with open("/dev/zero", "rb+") as zero, procaio.mmap(PAGE, RW, MAP_SHARED, zero) as mapping:
        assert procaio.aio_read(fd, 16, 32, mapping, pool=pool).wait() == 32
        assert mapping[:32] == os.pread(fd, 32, 16)
        mapping[:4] = b"mine"
        assert procaio.aio_write(fd, 0, 4, mapping, pool=pool).wait() == 4
    assert os.pread(fd, 4, 0) == b"mine"


def test_sealed_memory_can_be_written_from(workers: procaio.Pool, fd: int) -> None:
    """Workers may map a sealed file for reading only, as the program does."""
    sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.write(sealed, b"sealed" * 1000)
    f_add_seals, f_seal_write = 1033, 8
    fcntl.fcntl(sealed, f_add_seals, f_seal_write)
    with procaio.mmap(6000, PROT_READ, MAP_SHARED, sealed) as mapping:
        assert procaio.aio_write(fd, 0, 6000, mapping, pool=workers).wait() == 6000
    os.close(sealed)
    assert os.pread(fd, 6000, 0) == b"sealed" * 1000


def test_read_only_file_can_be_written_from(workers: procaio.Pool, fd: int) -> None:
    with open("/proc/self/exe", "rb") as file:
        mapping = procaio.mmap(PAGE, PROT_READ, MAP_SHARED, file)
        start = file.read(PAGE)
    before = used(workers)
    assert procaio.aio_write(fd, 0, PAGE, mapping, pool=workers).wait() == PAGE
    assert used(workers) == before
    assert os.pread(fd, PAGE, 0) == start


def test_many_mappings_leave_room_for_everything_else(workers: procaio.Pool, fd: int) -> None:
    """However many a program lends, its reads as bytes and its Buffers still find a place."""
    mappings = [anonymous(PAGE) for _ in range(1100)]
    for mapping in mappings:
        assert procaio.aio_write(fd, 0, 1, mapping, pool=workers).wait() == 1
    assert procaio.aio_read(fd, 16, 32, pool=workers).wait() == os.pread(fd, 32, 16)
    with procaio.Buffer(9 << 20, workers) as buffer:
        assert procaio.aio_read(fd, 16, 32, buffer, pool=workers).wait() == 32
    for mapping in mappings[:600]:
        mapping.munmap()
    assert procaio.aio_read(fd, 16, 16, mappings[-1], pool=workers).wait() == 16
    assert mappings[-1][:16] == os.pread(fd, 16, 16)


def test_descriptor_that_the_program_closes_is_not_taken_for_another_file(
    workers: procaio.Pool, fd: int, data_file: Path
) -> None:
    """Closing all descriptors there are hits the Mapping's own; a later file has its number."""
    first = set(descriptors())
    mapping, lent = anonymous(), anonymous()
    own = set(descriptors()) - first
    assert len(own) == 2
    workers.max_parallel(1)
    for number in own:
        other = os.open(data_file, os.O_RDWR)
        os.dup2(other, number)
        os.close(other)
    before = data_file.read_bytes()
    with open("/dev/urandom", "rb") as random:
        assert procaio.aio_read(random, None, 64, mapping, pool=workers).wait() == 64
    assert mapping[:64] != bytes(64)
    assert data_file.read_bytes() == before
    mapping.munmap()
    lent.munmap()
    for number in own:
        assert os.fstat(number).st_ino == os.stat(data_file).st_ino
        os.close(number)


def test_lent_mapping_whose_descriptor_is_another_file_now_is_copied(
    workers: procaio.Pool, gate: Gate, data_file: Path
) -> None:
    """A worker that has not mapped it yet would map the other file."""
    first = set(descriptors())
    mapping = anonymous()
    (number,) = set(descriptors()) - first
    with open("/dev/zero", "rb") as zero:
        assert procaio.aio_read(zero, 0, 8, mapping, pool=workers).wait() == 8
    with open(data_file, "rb+") as other:
        os.dup2(other.fileno(), number)
    before = used(workers)
    reading = procaio.aio_read(gate.fd, None, 8, mapping, pool=workers)
    assert used(workers) > before
    gate.open()
    assert reading.wait() == 1
    assert mapping[:2] == b"x\0"
    mapping.munmap()
    os.close(number)


# -- fork ------------------------------------------------------------------------------------------


def test_forked_child_uses_the_same_pages_with_its_own_pool(workers: procaio.Pool, fd: int) -> None:
    """A shared Mapping is shared with the child; each process lends it to its own pool (P1)."""
    with anonymous() as mapping:
        assert procaio.aio_read(fd, 16, 16, mapping, pool=workers).wait() == 16

        def work() -> None:
            before = used(workers) if procaio.aio_nop(pool=workers).wait() is None else 0
            assert procaio.aio_read(fd, 32, 16, mapping, PAGE, pool=workers).wait() == 16
            assert used(workers) == before
            workers.close()

        assert succeeds(in_child(work))
        assert mapping[PAGE : PAGE + 16] == os.pread(fd, 16, 32)
        assert procaio.aio_write(fd, 0, 16, mapping, PAGE, pool=workers).wait() == 16
        assert os.pread(fd, 16, 0) == os.pread(fd, 16, 32)


def test_child_that_unmaps_takes_nothing_from_its_own_pool(workers: procaio.Pool, fd: int) -> None:
    """The row that the parent's pool has lent is another's in the child's pool."""
    mappings = [anonymous() for _ in range(3)]
    for mapping in mappings:
        assert procaio.aio_read(fd, 16, 16, mapping, pool=workers).wait() == 16

    def work() -> None:
        buffers = [procaio.Buffer(9 << 20, workers) for _ in range(3)]
        for mapping in mappings:
            mapping.munmap()
        before = used(workers)
        for buffer in buffers:
            assert procaio.aio_read(fd, 16, 16, buffer, pool=workers).wait() == 16
            assert buffer[:16] == os.pread(fd, 16, 16)
            buffer.release()
        assert used(workers) == before - 3 * (9 << 20)
        workers.close()

    assert succeeds(in_child(work))
    for mapping in mappings:
        assert mapping[:16] == os.pread(fd, 16, 16)


def test_request_with_a_mapping_in_flight_is_dead_in_the_child(
    workers: procaio.Pool, gate: Gate
) -> None:
    """The child's copy holds the Mapping no longer; the parent's is read into (P1, P2)."""
    mapping = anonymous()
    reading = procaio.aio_read(gate.fd, None, 8, mapping, pool=workers)

    def work() -> None:
        assert reading.state == "dead"
        mapping.munmap()

    assert succeeds(in_child(work))
    with pytest.raises(BufferError):
        mapping.munmap()
    gate.open()
    assert reading.wait() == 1
    assert mapping[:2] == b"x\0"


# -- the calls that do not wait --------------------------------------------------------------------


def test_madvise_drops_pages_of_a_mapping() -> None:
    """DONTNEED gives private pages back: zeros again; only those that were named."""
    with anonymous(kind=MAP_PRIVATE) as mapping:
        mapping[:] = b"o" * len(mapping)
        procaio.madvise(mapping, PAGE, 1, python_mmap.MADV_DONTNEED)
        assert mapping[:] == b"o" * PAGE + bytes(PAGE) + b"o" * (2 * PAGE)
        procaio.madvise(mapping, -1, None, python_mmap.MADV_DONTNEED)
        assert mapping[:] == b"o" * PAGE + bytes(PAGE) + b"o" * PAGE + bytes(PAGE)
        with pytest.raises(OSError) as raised:
            procaio.madvise(mapping, 0, None, 12345)
        assert raised.value.errno == errno.EINVAL


def test_madvise_of_a_heap_leaves_the_neighbours_alone() -> None:
    """Pages that an object shares with others are not meant."""
    data = bytearray(b"o" * (8 * PAGE + 100))
    procaio.madvise(memoryview(data)[100 : 2 * PAGE], 0, None, python_mmap.MADV_DONTNEED)
    assert data[:100] == b"o" * 100
    assert data[2 * PAGE :] == b"o" * (6 * PAGE + 100)


def test_mprotect_forbids_and_allows(fd: int, pool: procaio.Pool) -> None:
    """A copy of what is forbidden is an error of the request; then it is allowed again."""
    with anonymous(kind=MAP_PRIVATE) as mapping:
        mapping[:2] = b"ab"
        procaio.mprotect(mapping, 0, PAGE, PROT_NONE)
        with pytest.raises(OSError) as raised:
            procaio.aio_write(fd, 0, 2, mapping, pool=pool).wait()
        assert raised.value.errno == errno.EFAULT
        with pytest.raises(OSError) as raised:
            procaio.aio_mtouch(mapping, pool=pool).wait()
        assert raised.value.errno == errno.EFAULT
        assert procaio.aio_mtouch(mapping, PAGE, pool=pool).wait() == 0
        procaio.mprotect(mapping, 0, PAGE, RW)
        assert mapping[:2] == b"ab"
    for data in (bytearray(PAGE), memoryview(bytearray(PAGE)), np.zeros(PAGE)):
        with pytest.raises(TypeError, match=r"Mapping, mmap\.mmap or Buffer"):
            procaio.mprotect(data, 0, None, PROT_READ)


def test_class_that_calls_itself_mmap_is_not_one() -> None:
    """Its pages are shared with whatever else is on the heap."""
    fake = type("mmap.mmap", (bytearray,), {})(b"o" * PAGE)
    with pytest.raises(TypeError):
        procaio.mprotect(fake, 0, None, RW)
    with python_mmap.mmap(-1, PAGE) as real:
        procaio.mprotect(real, 0, None, RW)


def test_buffer_is_given_back_as_it_was(pool: procaio.Pool) -> None:
    """What it was protected from is no matter of whoever gets its pages next."""
    ended = run_program(
        """
import procaio
pool = procaio.Pool()
buffer = procaio.Buffer(4096, pool)
procaio.mprotect(buffer, 0, None, 0)
buffer.release()
again = procaio.Buffer(4096, pool)
again[:3] = b"abc"
print(again[:3])
pool.close()
"""
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("b'abc'\n", "", 0)


# -- nasty arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["read", "write", "buffer", "msync"])
def test_argument_that_closes_the_pool_is_an_exception(fd: int, call: str) -> None:
    """The program's code runs while arguments are made; the pool may be gone after it (A5)."""
    pool = procaio.Pool(inline=True)
    with procaio.Pool(inline=True) as other, procaio.Buffer(64, other) as buffer, anonymous() as m:

        class Closes:
            def __index__(self) -> int:
                pool.close()
                return 4

        calls: dict[str, Callable[[], object]] = {
            "read": lambda: procaio.aio_read(fd, 0, Closes(), m, pool=pool),
            "write": lambda: procaio.aio_write(fd, 0, Closes(), bytearray(64), pool=pool),
            "buffer": lambda: procaio.aio_read(fd, 0, Closes(), buffer, pool=pool),
            "msync": lambda: procaio.aio_msync(m, Closes(), pool=pool),
        }
        with pytest.raises(procaio.PoolClosed):
            calls[call]()


def test_threads_may_unmap_and_look_at_the_same_time() -> None:
    """Whoever comes first: a view holds the memory, or there is none."""
    errors: list[BaseException] = []
    for _ in range(200):
        mapping = anonymous(PAGE)

        def look(mapping: procaio.Mapping = mapping) -> None:
            try:
                for _ in range(5):
                    mapping[0]
            except (ValueError, BufferError):
                pass
            except BaseException as error:  # noqa: BLE001 - told below
                errors.append(error)

        threads = [threading.Thread(target=look) for _ in range(2)]
        for thread in threads:
            thread.start()
        while repr(mapping) != "<Mapping unmapped>":
            try:
                mapping.munmap()
            except BufferError:
                continue
        for thread in threads:
            thread.join()
    assert errors == []


WILD = st.one_of(
    st.integers(),
    st.integers(-3 * PAGE, 3 * PAGE),
    st.sampled_from([2**63 - 1, -(2**63), 2**64, 2**31, -(2**31), 0]),
    st.none(),
    st.floats(),
    st.text(max_size=2),
    st.binary(max_size=2),
    st.builds(object),
)


@settings(deadline=None, max_examples=300)
@given(length=WILD, prot=WILD, flags=WILD, fh=WILD, offset=WILD)
def test_wild_arguments_of_mmap_never_crash(
    length: Any, prot: Any, flags: Any, fh: Any, offset: Any
) -> None:
    """An exception, or a Mapping that can be let go of (A5)."""
    if isinstance(length, int) and length > 64 * PAGE:
        prot = PROT_NONE  # else it may take all the memory there is
    if isinstance(flags, int):
        flags &= ~0x8000 & ~0x2000  # MAP_POPULATE and MAP_LOCKED likewise
    if isinstance(fh, int) and 0 <= fh <= 2:
        fh = None
    try:
        mapping = procaio.mmap(length, prot, flags, fh, offset)
    except (TypeError, ValueError, OverflowError, OSError):
        return
    assert len(mapping) == length
    mapping.munmap()


@settings(deadline=None, max_examples=300)
@given(
    data=st.one_of(WILD, st.builds(bytearray, st.integers(0, 3 * PAGE)), st.just("mapping")),
    offset=WILD,
    length=WILD,
    what=WILD,
)
def test_wild_arguments_of_the_calls_at_once_never_crash(
    data: Any, offset: Any, length: Any, what: Any
) -> None:
    """madvise, mprotect and munlock of memory that is not to be destroyed."""
    if data == "mapping":
        data = anonymous(3 * PAGE)
    harmless = not isinstance(what, int) or what in {0, 2**64, 2**63 - 1} or abs(what) > 1000
    for call in (
        lambda: procaio.munlock(data, offset, length),
        lambda: procaio.madvise(data, offset, length, what if harmless else 0),
        lambda: procaio.mprotect(data, offset, length, RW),
    ):
        with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
            assert call() is None
    if isinstance(data, procaio.Mapping):
        data.munmap()


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
def test_torch_tensor_over_a_mapping_takes_no_copy(workers: procaio.Pool, fd: int) -> None:
    """Its numpy view lies in the Mapping's pages."""
    import torch  # noqa: PLC0415 - not installed everywhere

    mapping = anonymous()
    tensor = torch.frombuffer(mapping, dtype=torch.uint8)
    before = used(workers)
    request = procaio.aio_read(fd, 16, 32, tensor.numpy(), pool=workers)
    assert used(workers) == before
    assert request.wait() == 32
    assert bytes(tensor[:32].tolist()) == os.pread(fd, 32, 16)
