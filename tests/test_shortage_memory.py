"""What processes and requests cost, however large the program is and however long it runs."""

from __future__ import annotations

import mmap
import os
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import Gate, descriptors, eventually, not_sanitized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB, PAGE = 1 << 20, mmap.PAGESIZE
heaps = pytest.mark.parametrize(
    "size", [256 * MIB, pytest.param(2048 * MIB, marks=pytest.mark.slow)]
)

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Heap:
    """Memory of the program's own, in small pages, all of it in use."""

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.rewrite(1)

    def rewrite(self, value: int) -> None:
        """Write to every page."""
        self.memory[::PAGE] = bytes([value]) * (len(self.memory) // PAGE)


@pytest.fixture
def heap(size: int) -> Iterator[Heap]:
    """It is there before the pool."""
    made = Heap(size)
    yield made
    made.memory.close()


def rollup(pid: int, *fields: str) -> int:
    """Bytes of a process's memory (proc(5), smaps_rollup)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    return sum(int(lines[field].split()[0]) * 1024 for field in fields)


def children_of(pool: procaio.Pool) -> list[int]:
    """The spawner and the workers."""
    snapshot = pool.statistics()
    return [snapshot.spawner_pid, *(worker.pid for worker in snapshot.workers)]


# -- processes -------------------------------------------------------------------------------------


@not_sanitized
@heaps
def test_eight_workers_keep_nothing_of_a_heap_that_is_rewritten(heap: Heap, gate: Gate) -> None:
    """All of them and the spawner together have less than 8 MiB, shared or not."""
    with procaio.Pool(workers=8, at_once=False) as pool:
        held = gate.hold(pool, 8)
        heap.rewrite(2)
        pids = children_of(pool)
        assert len(pids) == 9
        assert sum(rollup(pid, "Private_Dirty") for pid in pids) < 8 * MIB
        assert sum(rollup(pid, "Pss_Anon") for pid in pids) < 8 * MIB
        gate.open(8)
        assert {request.wait() for request in held} == {b"x"}


@not_sanitized
@heaps
def test_starting_a_worker_costs_a_fraction_of_forking_the_program(heap: Heap) -> None:
    """A worker is a copy of the small spawner: asked for, made and done with one request before
    os.fork of the program would have returned.
    """
    starts, forks = [], []
    with procaio.Pool(workers=1, at_once=False) as pool:
        for turn in range(7):
            procaio.aio_nop(pool=pool).wait()
            os.kill(pool.statistics().workers[0].pid, 9)
            eventually(lambda: pool.poll_cb() == 0 and pool.nworkers() == 0, "the burial")
            heap.rewrite(turn)
            began = time.perf_counter()
            procaio.aio_nop(pool=pool).wait()
            starts.append(time.perf_counter() - began)
            began = time.perf_counter()
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            forks.append(time.perf_counter() - began)
            os.waitpid(pid, 0)
        assert pool.statistics().worker_deaths == 7
    # The least of each: others on the machine only add.
    assert min(starts) < min(forks) / 2, (starts, forks)


# -- requests --------------------------------------------------------------------------------------


class Stage:
    """What requests are about."""

    def __init__(self, pool: procaio.Pool, directory: Path) -> None:
        """A file, open, and memory of three kinds."""
        self.pool, self.directory, self.path = pool, directory, directory / "file"
        self.path.write_bytes(b"content" * 500)
        self.file = open(self.path, "rb+", 0)  # noqa: SIM115 - the fixture closes it
        self.buffer = procaio.Buffer(4096, pool=pool)
        self.array = bytearray(4096)
        self.long = os.path.join(directory, "./" * 200, "file")


def group_of_two(stage: Stage) -> procaio.Request[Any]:
    """A group whose members are read and not read."""
    group = procaio.aio_group(pool=stage.pool)
    group.add(procaio.aio_nop(pool=stage.pool), procaio.aio_stat("/nowhere", pool=stage.pool))
    return group


def cancelled(stage: Stage) -> procaio.Request[Any]:
    """A request that nobody wants."""
    request = procaio.aio_stat(stage.path, pool=stage.pool)
    request.cancel()
    return request


KINDS: dict[str, Callable[[Stage], procaio.Request[Any]]] = {
    "nop": lambda at: procaio.aio_nop(pool=at.pool),
    "callback": lambda at: procaio.aio_nop(lambda *_: None, pool=at.pool),
    "stat": lambda at: procaio.aio_stat(at.path, pool=at.pool),
    "stat of a long path": lambda at: procaio.aio_stat(at.long, pool=at.pool),
    "stat that fails": lambda at: procaio.aio_stat("/nowhere", pool=at.pool),
    "open": lambda at: procaio.aio_open(at.path, pool=at.pool),
    "read": lambda at: procaio.aio_read(at.file, 0, 3000, pool=at.pool),
    "read into a Buffer": lambda at: procaio.aio_read(at.file, 0, 3000, at.buffer, pool=at.pool),
    "read into an array": lambda at: procaio.aio_read(at.file, 0, 3000, at.array, pool=at.pool),
    "write": lambda at: procaio.aio_write(at.file, 0, None, b"x" * 3000, pool=at.pool),
    "load": lambda at: procaio.aio_load(at.path, pool=at.pool),
    "readdir": lambda at: procaio.aio_readdir(at.directory, pool=at.pool),
    "scandir": lambda at: procaio.aio_scandir(at.directory, 0, pool=at.pool),
    "realpath": lambda at: procaio.aio_realpath(at.path, pool=at.pool),
    "chmod": lambda at: procaio.aio_chmod(at.path, 0o600, pool=at.pool),
    "mtouch": lambda at: procaio.aio_mtouch(at.array, pool=at.pool),
    "group": group_of_two,
    "deadline": lambda at: procaio.aio_stat(at.path, pool=at.pool, timeout=100),
    "cancelled": cancelled,
}


@pytest.fixture
def stage(workers: procaio.Pool, tmp_path: Path) -> Iterator[Stage]:
    """It is cleared away afterwards."""
    made = Stage(workers, tmp_path)
    yield made
    made.file.close()
    made.buffer.release()


def run_many(stage: Stage, kind: str, count: int) -> None:
    """So many of one kind, a few hundred at a time."""
    for _ in range(count // 200):
        requests = [KINDS[kind](stage) for _ in range(200)]
        stage.pool.flush()
        if kind == "open":
            for request in requests:
                request.result.close()
    requests.clear()


def resident() -> int:
    """Of this process, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def held(pool: procaio.Pool) -> tuple[int, int, set[int]]:
    """Descriptors, bytes of the arena, processes."""
    opened = [what for what in descriptors().values() if not what.startswith("/proc")]
    return len(opened), pool._snapshot()["shared_used"], set(children_of(pool))


@not_sanitized
@pytest.mark.parametrize("count", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_requests_leave_no_memory_behind(stage: Stage, kind: str, count: int) -> None:
    """Neither in the program nor in its children, nor a descriptor, nor a block of the arena."""
    stage.pool.max_parallel(1)
    procaio.aio_nop(pool=stage.pool).wait()  # else there is no worker where all are cancelled
    run_many(stage, kind, 4_000)
    before, blocks, size = held(stage.pool), sys.getallocatedblocks(), resident()
    sizes = {pid: rollup(pid, "Anonymous") for pid in before[2]}
    run_many(stage, kind, count)
    assert resident() - size < 512 << 10
    assert sys.getallocatedblocks() - blocks < 400
    assert held(stage.pool) == before
    for pid, size in sizes.items():
        assert rollup(pid, "Anonymous") - size < 64 << 10
