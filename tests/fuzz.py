"""
Garbage in the shared memory of a pool, at random, as a worker could write it that has gone wild.

    python tests/fuzz.py [--first SEED] [--count SEEDS | --seconds SECONDS]

For every seed: a pool with requests of many kinds, some of them executing; garbage, once or again
and again, at any moment; then all requests have to end, and so has the pool. Meanwhile nothing may
happen to what is the program's own: its descriptors, its child, its file, its other pool. Whoever
crashes has printed the seed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import glob
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import procaio
from hostile import (
    AT_LANES,
    AT_RECORDS,
    AT_RESULTS,
    AT_SLOTS,
    DONE,
    EXECUTING,
    HEADER,
    LANES,
    RECORD,
    SETUP,
    SLOTS,
    WORD,
    Memory,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30.0  # seconds in which a pool must have ended all its requests
DEADLINE = 0.2
TEXT = b"the program's own\n"
WORKERS = 2


class Belongings:
    """What is the program's own, and whose numbers make the best garbage."""

    def __init__(self, directory: str) -> None:
        """Open a file, a pipe, a directory by path; start a child; occupy another pool."""
        path = os.path.join(directory, "own")
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self.file, TEXT)
        self.pipe = os.pipe()
        self.path = os.open(directory, os.O_PATH)
        self.child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.pidfd = os.pidfd_open(self.child.pid)
        self.pool = procaio.Pool(at_once=False)
        self.held = procaio.aio_read(self.pipe[0], None, 1, pool=self.pool)
        while self.held.state != "execute":
            self.pool.poll_cb()
        self.numbers = [self.file, *self.pipe, self.path, self.pidfd, self.child.stdin.fileno()]
        self.numbers += [0, 1, 2]
        self.numbers += [
            int(fd)
            for fd in os.listdir("/proc/self/fd")
            if os.path.islink(f"/proc/self/fd/{fd}")
            and "pidfd" in os.readlink(f"/proc/self/fd/{fd}")
        ]
        self.pids = [self.child.pid, os.getpid(), 1, self.pool.statistics().workers[0].pid]
        self.before = [self._state(fd) for fd in self.numbers]

    @staticmethod
    def _state(fd: int) -> tuple[int, ...]:
        st = os.fstat(fd)
        return st.st_dev, st.st_ino, st.st_mode

    def check(self) -> None:
        """All is as it was."""
        assert [self._state(fd) for fd in self.numbers] == self.before, "a descriptor"
        assert os.pread(self.file, 100, 0) == TEXT, "the file"
        assert self.child.poll() is None, "the child"
        self.pool.poll_cb()
        assert self.held.state == "execute", "the other pool's worker"

    def close(self) -> None:
        """All of it can be used as ever."""
        os.write(self.pipe[1], b"x")
        assert self.held.wait(PATIENCE) == b"x"
        self.pool.close()
        self.child.communicate(b"\n")
        assert self.child.returncode == 0
        for fd in (self.file, *self.pipe, self.path, self.pidfd):
            os.close(fd)


class Tree:
    """What the requests are about."""

    def __init__(self, directory: str) -> None:
        """Make it."""
        self.at = directory
        self.data = os.path.join(directory, "data")
        with open(self.data, "wb") as file:
            file.write(bytes(range(256)) * 4096)
        self.many = os.path.join(directory, "many")
        os.mkdir(self.many)
        for number in range(400):
            with open(os.path.join(self.many, f"{number:03}-{'x' * 120}"), "w"):
                pass
        os.symlink("data", os.path.join(directory, "link"))
        self.fd = os.open(self.data, os.O_RDWR)
        self.gate = os.pipe()

    def close(self) -> None:
        """Let go of the descriptors."""
        for fd in (self.fd, *self.gate):
            os.close(fd)


def requests(pool: procaio.Pool, tree: Tree, rnd: random.Random) -> list[procaio.Request]:
    """Some of many kinds; few of them are held in a worker."""
    shared = procaio.Buffer(20_000, pool=pool)
    kinds: list[Callable[..., procaio.Request]] = [
        procaio.aio_nop,
        lambda **k: procaio.aio_busy(0.001, **k),
        lambda **k: procaio.aio_read(tree.fd, rnd.randrange(1 << 20), 5000, **k),
        lambda **k: procaio.aio_read(tree.fd, 0, 300_000, bytearray(300_000), **k),
        lambda **k: procaio.aio_read(tree.fd, 0, 20_000, shared, **k),
        lambda **k: procaio.aio_write(tree.fd, 0, 256, bytes(range(256)), **k),
        lambda **k: procaio.aio_stat(tree.data, **k),
        lambda **k: procaio.aio_statvfs(tree.at, **k),
        lambda **k: procaio.aio_statx(0, tree.data, 0, 0xFFF, **k),
        lambda **k: procaio.aio_open(tree.data, os.O_RDONLY, 0, **k),
        lambda **k: procaio.aio_open(tree.at, os.O_PATH, 0, **k),
        lambda **k: procaio.aio_readdir(tree.many, **k),
        lambda **k: procaio.aio_readdirx(tree.many, rnd.randrange(8), **k),
        lambda **k: procaio.aio_scandir(tree.many, **k),
        lambda **k: procaio.aio_load(tree.data, **k),
        lambda **k: procaio.aio_readlink(os.path.join(tree.at, "link"), **k),
        lambda **k: procaio.aio_realpath(tree.data, **k),
        lambda **k: procaio.aio_listxattr(tree.data, **k),
        lambda **k: procaio.aio_fiemap(tree.data, **k),
        lambda **k: procaio.aio_copy(tree.data, tree.data + str(rnd.randrange(3)), **k),
        lambda **k: procaio.aio_mtouch(bytearray(10_000), **k),
        lambda **k: procaio.aio_stat_many([tree.data, tree.at, ""] * 500, **k),
        lambda **k: procaio.aio_load_many([tree.data, *glob.glob(f"{tree.many}/*")], **k),
        lambda **k: procaio.aio_read_many(tree.fd, range(100), 50, **k),
        lambda **k: procaio.aio_read_many(tree.fd, range(100), 50, shared, **k),
    ]
    made = [
        procaio.aio_read(tree.gate[0], None, 1, pool=pool, timeout=DEADLINE)
        for _ in range(rnd.choice([0, 0, 1, 2]))
    ]
    for _ in range(rnd.choice([1, 3, 30, 100])):
        with contextlib.suppress(TypeError, AttributeError):
            procaio.aioreq_pri(rnd.randrange(-4, 5))
            made.append(rnd.choice(kinds)(pool=pool, timeout=DEADLINE))
    procaio.aioreq_pri(0)
    return made


class Scribbler:
    """Garbage of all kinds."""

    def __init__(self, memory: Memory, own: Belongings, rnd: random.Random) -> None:
        """Of one seed."""
        self.memory, self.own, self.rnd = memory, own, rnd

    def number(self) -> int:
        """One that might do harm."""
        rnd = self.rnd
        return rnd.choice(
            [
                rnd.choice(self.own.numbers),
                rnd.choice(self.own.pids),
                rnd.choice([0, 1, -1, 2, 256, 257, 511, 2047, 2048, 4095, 4096, 65535, WORD - 1]),
                rnd.randrange(WORD),
                1 << rnd.randrange(32),
            ]
        )

    def used(self) -> int:
        """A slot that somebody has, if there is one."""
        found = list(self.memory.slots(1, 2, 3, 4))
        return self.rnd.choice(found) if found else self.rnd.randrange(SLOTS)

    def states(self) -> None:
        """The word of a slot."""
        memory, rnd, at = self.memory, self.rnd, self.memory.slot(self.used())
        old = memory.get(at)
        memory.put(
            at,
            rnd.choice(
                [
                    self.number(),
                    word(rnd.randrange(8), rnd.randrange(512), old >> 12),
                    word(rnd.randrange(5), old >> 3 & 511, old >> 12),
                    old - (1 << 12),
                    old ^ 1 << rnd.randrange(32),
                    0,
                ]
            ),
        )

    def swap(self) -> None:
        """Two slots that nobody is about to take."""
        memory, rnd = self.memory, self.rnd
        found = list(memory.slots(DONE, EXECUTING, 4))
        if len(found) < 2 or memory.segment is None:
            return
        one, other = (memory.slot(index) for index in rnd.sample(found, 2))
        size = rnd.choice([4, 256])
        data = memory.segment[one : one + size]
        memory.segment[one : one + size] = memory.segment[other : other + size]
        memory.segment[other : other + size] = data

    def outcomes(self) -> None:
        """What a slot says of how it went."""
        memory, rnd = self.memory, self.rnd
        index = self.used()
        memory.put64(
            memory.slot(index, "result"),
            rnd.choice([self.number(), -1, -4095, -4096, -(1 << 63), 1 << 62, 32768, 32769, 1]),
        )
        if memory.phase(index) not in (DONE, EXECUTING):
            return
        at = memory.slot(index, "call_flags")
        flags = memory.get(at - 2)
        memory.put(at - 2, flags ^ rnd.choice([0, 1 << 3, 1 << 13, 1 << rnd.randrange(16)]) << 16)
        if rnd.randrange(2) and flags & 0xFFFF != 6:  # the fd of a write is for its worker
            memory.put(memory.slot(index, "fd"), self.number())
        for _ in range(rnd.randrange(20)):
            memory.put(memory.slot(index, "payload") + 4 * rnd.randrange(48), self.number())

    def rings(self) -> None:
        """What a worker says that it has done."""
        memory, rnd = self.memory, self.rnd
        worker = rnd.randrange(3) if rnd.randrange(4) else rnd.randrange(256)
        at = memory.record(worker, "result_tail")
        tail = memory.get(at)
        entry = rnd.choice(
            [memory.get(memory.result(worker, tail - 1)), self.used(), self.number()]
        )
        count = rnd.choice([0, 1, 2, 10, SLOTS])
        for place in range(count if worker < WORKERS else 0):
            memory.put(memory.result(worker, tail + place), entry)
        memory.put(at, rnd.choice([tail + count, tail - 1, tail + SLOTS + 1, self.number()]))

    def records(self) -> None:
        """What is known of a worker."""
        memory, rnd = self.memory, self.rnd
        worker = rnd.randrange(3) if rnd.randrange(4) else rnd.randrange(256)
        for field in rnd.sample(sorted(RECORD), rnd.randrange(1, len(RECORD))):
            memory.put(memory.record(worker, field), self.number())

    def header(self) -> None:
        """What all go by."""
        memory, rnd = self.memory, self.rnd
        for _ in range(rnd.choice([1, 1, 5])):
            memory.put(rnd.randrange(64, HEADER["data_segments"], 4), self.number())
        if rnd.randrange(2):
            memory.put(rnd.choice(list(SETUP.values())), self.number())

    def lanes(self) -> None:
        """What waits."""
        memory, rnd = self.memory, self.rnd
        for _ in range(rnd.choice([1, 10, 1000])):
            memory.put(AT_LANES + 4 * rnd.randrange(LANES * SLOTS), self.number())
        for field in ("heads", "tails"):
            at = HEADER[field] + 4 * rnd.randrange(LANES)
            memory.put(at, rnd.choice([memory.get(at) + rnd.randrange(-3, 4), self.number()]))

    def blocks(self) -> None:
        """What was read."""
        rnd = self.rnd
        for mapped in self.memory.data:
            for _ in range(rnd.choice([1, 30, 300])):
                at = rnd.randrange(min(len(mapped), 1 << 19) - 2)
                mapped[at : at + 2] = rnd.choice([b"\xff\xff", b"\0\0", b"//", rnd.randbytes(2)])

    def once(self) -> None:
        """Some of it."""
        for kind in self.rnd.choices(
            [
                self.states,
                self.swap,
                self.outcomes,
                self.rings,
                self.records,
                self.header,
                self.lanes,
                self.blocks,
            ],
            k=self.rnd.choice([1, 1, 2, 5]),
        ):
            kind()

    def on_and_on(self, over: threading.Event) -> None:
        """Noise over a part of it, also while the program is reading there."""
        segment, rnd = self.memory.segment, self.rnd
        assert segment is not None
        parts = [
            (64, HEADER["data_segments"] - 64),
            (AT_RECORDS, 192 * 3),
            (AT_SLOTS + SLOTS * 256 - 256 * 40, 256 * 40),
            (AT_LANES, 4 * LANES * SLOTS),
            (AT_RESULTS, 4 * SLOTS * WORKERS),
        ]
        libc = ctypes.CDLL(None)
        view = (ctypes.c_char * len(segment)).from_buffer(segment)
        noise = os.open("/dev/urandom", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for _ in range(rnd.choice([1, 20, 200])):
                start, size = rnd.choice(parts)
                size = min(size, rnd.choice([4, 64, 1 << 20]))
                libc.read(noise, ctypes.byref(view, start), ctypes.c_size_t(size))
                if over.is_set():
                    break
        finally:
            os.close(noise)
            del view


def leftovers(before: set[str]) -> None:
    """Close what workers have opened that nobody was told of: garbage may hide that."""
    for name in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(OSError):
            os.close(int(name))


def end(made: list[procaio.Request], pool: procaio.Pool) -> dict[str, int]:
    """All end, and in one of the ways in which requests do."""
    counts = {"value": 0, "error": 0}
    if not pool._flush(PATIENCE):
        left = [request for request in made if request.state not in ("done", "cancelled")]
        raise AssertionError(f"requests that never end: {left} of {pool._snapshot()}")
    for request in made:
        try:
            request.wait(0)
            counts["value"] += 1
        except (OSError, procaio.RequestCancelled):
            counts["error"] += 1
    return counts


def run(seed: int, tree: Tree, own: Belongings) -> dict[str, int]:
    """One seed."""
    rnd = random.Random(seed)
    before = set(os.listdir("/proc/self/fd"))
    pool = procaio.Pool(at_once=False)
    pool.max_parallel(WORKERS)
    procaio.aio_nop(pool=pool).wait()
    over = threading.Event()
    thread = None
    made = requests(pool, tree, rnd)
    memory = Memory(pool)
    try:
        scribbler = Scribbler(memory, own, rnd)
        if rnd.randrange(5) == 0:
            noise = Scribbler(memory, own, random.Random(seed))
            thread = threading.Thread(target=noise.on_and_on, args=(over,))
            thread.start()
        for _ in range(rnd.choice([1, 2, 8])):
            for _ in range(rnd.choice([0, 0, 1000, 30000])):
                pass  # let workers come to it, or not
            scribbler.once()
            if rnd.randrange(2):
                pool.poll_cb()
            for request in rnd.sample(made, min(len(made), rnd.choice([0, 0, 2]))):
                rnd.choice([request.cancel, request.abort, request.__repr__])()
            if rnd.randrange(4) == 0:
                pool.statistics()
        counts = end(made, pool) if rnd.randrange(8) else {"closed": 1}
    finally:
        over.set()
        if thread:
            thread.join()
        began = time.monotonic()
        pool._close(1.0)
        assert time.monotonic() - began < PATIENCE, "a pool that does not end"
        memory.close()
        own.check()
        made.clear()
        leftovers(before)
    return counts


def main() -> None:
    """As many seeds as are wanted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1 << 40)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    ends = time.monotonic() + arguments.seconds
    totals: dict[str, int] = {}
    done = 0
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        tree, own = Tree(directory), Belongings(directory)
        for seed in range(arguments.first, arguments.first + arguments.count):
            if time.monotonic() > ends:
                break
            print(f"\rseed {seed} ", end="", flush=True)
            signal.alarm(4 * int(PATIENCE))
            for kind, count in run(seed, tree, own).items():
                totals[kind] = totals.get(kind, 0) + count
            done += 1
        signal.alarm(60)
        own.close()
        tree.close()
        os.chdir("/")
    print(f"\n{done} seeds: {totals}")


if __name__ == "__main__":
    main()
