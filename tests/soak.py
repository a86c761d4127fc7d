"""
A long run of everything at once, with workers dying all the time: nothing may grow, or be lost.

    python tests/soak.py --minutes 120

`make soak` runs it; test_soak.py some seconds of it. Each round makes up to a hundred requests of
all kinds with random priorities, cancels, aborts and deadlines, while workers, and now and then the
spawner, are killed or stopped. At its end every request has ended exactly once, what it gave is
right, what the disk shows is what the callbacks were told, and nothing is open that was not before.
Over the run memory, descriptors and shared memory stay what they were in its first half.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import errno
import gc
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import procaio

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Check: TypeAlias = Callable[..., bool]

DEATHS_EVERY: Final = 0.01
"""Seconds between two deaths, on average."""
SPAWNER_DIES: Final = 0.01
"""One death of a hundred is the spawner's."""
STOPS: Final = 0.02
"""One of fifty is only stopped, and goes on after the next one."""
FORGIVEN: Final = frozenset({errno.ECANCELED, errno.ETIMEDOUT, errno.EIO})
"""What a request may end with here: aborted, late, or its worker died."""
GROWTH: Final = 1.1
SLACK_KIB: Final = 2048
REMOVED_AFTER: Final = 5.0
"""Seconds within which a part goes."""
SAMPLE_EVERY: Final = 20
"""Rounds."""


@dataclass
class Sample:
    """What the program and its children take at a moment."""

    program_kib: int
    worker_kib: int
    descriptors: int
    shared_kib: int


@dataclass
class Report:
    """What the run has seen."""

    seconds: float = 0.0
    rounds: int = 0
    requests: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    """By errno; `ok`, and `gone` for those cancelled."""
    worker_deaths: int = 0
    spawner_deaths: int = 0
    aborted: int = 0
    rerun: int = 0
    died: int = 0
    first_half: Sample | None = None
    second_half: Sample | None = None


def private_kib(pid: int) -> int:
    """Memory that is this process's own, whoever else runs: no files' pages, none of the pool's."""
    total, is_private = 0, False
    try:
        with open(f"/proc/{pid}/smaps") as file:
            for line in file:
                word, value, *_ = line.split()
                if not word.endswith(":"):  # the line that begins a mapping
                    is_private = value.endswith("p")
                elif is_private and word == "Private_Dirty:":
                    total += int(value)
    except OSError:  # it has died
        pass
    return total


def sample(pool: procaio.Pool) -> Sample:
    """After everything has come to rest; what the C library keeps for later is given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    workers = pool.statistics().workers
    return Sample(
        private_kib(os.getpid()),
        sum(private_kib(worker.pid) for worker in workers) // max(len(workers), 1),
        len(os.listdir("/proc/self/fd")) - len(workers),  # each has one
        pool.statistics().shared_bytes // 1024,
    )


def median(samples: list[Sample]) -> Sample:
    """Of each figure."""
    columns = zip(*(asdict(one).values() for one in samples), strict=True)
    return Sample(*(int(statistics.median(column)) for column in columns))


def failed(error: OSError, wanted: object) -> bool:
    """Whether an item of a batch may fail so: nothing is there, or three workers died over it."""
    return error.errno == errno.ENOENT if wanted is None else isinstance(error, procaio.WorkerDied)


def settle(pool: procaio.Pool) -> None:
    """What cancelled requests have opened is closed when their workers have ended with it."""
    for _ in range(3):
        procaio.aio_nop(pool=pool).wait()
        pool.poll()


class Killer(threading.Thread):
    """Ends workers, as often as wanted, until it is told to stop."""

    def __init__(self, pool: procaio.Pool, seed: int) -> None:
        """Not begun."""
        super().__init__(daemon=True)
        self._pool = pool
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._stopped: int | None = None

    def run(self) -> None:
        """Kill, wait, and again."""
        while not self._over.wait(self._random.expovariate(1 / DEATHS_EVERY)):
            self._go_on()
            now = self._pool.statistics()
            pids = [worker.pid for worker in now.workers]
            if self._random.random() < SPAWNER_DIES and now.spawner_pid:
                pids = [now.spawner_pid]
            if pids:
                self._end(self._random.choice(pids))
        self._go_on()

    def stop(self) -> None:
        """Nobody is killed after this, or stays stopped."""
        self._over.set()
        self.join()

    def _end(self, pid: int) -> None:
        if self._random.random() < STOPS:
            self._stopped = pid
            self._send(pid, signal.SIGSTOP)
        else:
            self._send(pid, self._random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS]))

    def _go_on(self) -> None:
        if self._stopped is not None:
            self._send(self._stopped, signal.SIGCONT)
        self._stopped = None

    @staticmethod
    def _send(pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Round:
    """Some requests, and what must be so when they have ended."""

    def __init__(self, pool: procaio.Pool, place: Path, randomly: random.Random) -> None:
        """Make the directory, and what is read in it."""
        self.pool, self.place, self.random = pool, place, randomly
        self.calls: Counter[int] = Counter()
        """How often the callback of each request was called."""
        self.errnos: dict[int, int] = {}
        self.values: dict[int, tuple[Any, ...]] = {}
        """And with what."""
        self.given_up: set[int] = set()
        self.requests: list[procaio.Request[Any]] = []
        self.right: dict[int, Check] = {}
        """What must be so of the values of a request that has ended without error."""
        self.whole: dict[int, Path] = {}
        """What is there, if at all, as a whole, by the number of the request that makes it."""
        self.buffers: list[procaio.Buffer] = []
        place.mkdir()
        self.content = randomly.randbytes(randomly.choice([0, 100, 5000, 300_000]))
        (place / "data").write_bytes(self.content)
        os.mkfifo(place / "fifo")
        self.names = {f"{number}" for number in range(20)}
        self.plant(place / "tree")
        self.fd = os.open(place / "data", os.O_RDONLY)
        self.written = os.open(place / "written", os.O_RDWR | os.O_CREAT)

    def plant(self, top: Path) -> None:
        """Make a tree."""
        (top / "a" / "b").mkdir(parents=True)
        for name in self.names:
            (top / "a" / name).write_bytes(b"x" * int(name))

    def ask(
        self, function: Callable[..., Any], *arguments: Any, right: Check | None = None, **more: Any
    ) -> Any:
        """Make a request, and perhaps spoil it."""
        number = len(self.requests)

        def ended(*values: Any) -> None:
            self.calls[number] += 1
            self.values[number] = values
            self.errnos[number] = procaio.errno()

        if self.random.random() < 0.05:
            more["timeout"] = self.random.random() * 0.02
        pri = self.random.randint(-4, 4)
        request = function(*arguments, callback=ended, pri=pri, pool=self.pool, **more)
        self.requests.append(request)
        if right:
            self.right[number] = right
        chance = self.random.random()
        if chance < 0.05:
            request.cancel()
            self.given_up.add(number)
        elif chance < 0.1:
            request.abort()
        return request

    def make(self) -> None:
        """Requests of all kinds, in any order."""
        for number in range(self.random.randrange(20, 120)):
            self.random.choice(KINDS)(self, self.place / f"new{number}")
            if self.random.random() < 0.2:
                self.pool.poll()

    # -- kinds: each makes one request that touches nothing of another's --------------------------

    def read(self, _: Path) -> None:
        """Of a part, as bytes."""
        offset = self.random.randrange(1 + len(self.content))
        expected = self.content[offset : offset + 4096]
        self.ask(procaio.aio_read, self.fd, offset, 4096, right=lambda data: data == expected)

    def read_into(self, _: Path) -> None:
        """Into a buffer that workers see."""
        buffer = procaio.Buffer(8192, pool=self.pool)
        self.buffers.append(buffer)
        expected = self.content[:8192]
        self.ask(
            procaio.aio_read, self.fd, 0, 8192, buffer,
            right=lambda size: memoryview(buffer)[:size] == expected,
        )  # fmt: skip

    def write(self, _: Path) -> None:
        """At a place of its own."""
        offset = len(self.requests) * 1000
        data = self.random.randbytes(self.random.randrange(1, 1000))
        self.ask(
            procaio.aio_write, self.written, offset, len(data), data,
            right=lambda _: os.pread(self.written, len(data), offset) == data,
        )  # fmt: skip

    def load(self, _: Path) -> None:
        """A file as a whole."""
        self.ask(procaio.aio_load, self.place / "data", right=lambda data: data == self.content)

    def stat(self, _: Path) -> None:
        """By its path."""
        size = len(self.content)
        self.ask(procaio.aio_stat, self.place / "data", right=lambda stat: stat.st_size == size)

    def realpath(self, _: Path) -> None:
        """Of a way with detours."""
        right = os.path.realpath(self.place / "data")
        path = self.place / "tree" / ".." / "data"
        self.ask(procaio.aio_realpath, path, right=lambda real: real == right)

    def readdir(self, _: Path) -> None:
        """A directory's names."""
        everything = self.names | {"b"}
        place = self.place / "tree" / "a"
        self.ask(procaio.aio_readdir, place, right=lambda names: set(names) == everything)

    def scandir(self, _: Path) -> None:
        """Directories, and the others."""
        self.ask(
            procaio.aio_scandir, self.place / "tree" / "a",
            right=lambda dirs, others: (dirs, set(others)) == (["b"], self.names),
        )  # fmt: skip

    def mkdir(self, new: Path) -> None:
        """A directory is there."""
        self.ask(procaio.aio_mkdir, new, right=lambda _: new.is_dir())

    def symlink(self, new: Path) -> None:
        """A link is there."""
        self.ask(procaio.aio_symlink, "data", new, right=lambda _: os.readlink(new) == "data")

    def rename(self, new: Path) -> None:
        """It is there, and not where it was."""
        old = new.with_suffix(".old")
        old.touch()
        right: Check = lambda _: new.exists() and not old.exists()  # noqa: E731
        self.ask(procaio.aio_rename, old, new, right=right)

    def unlink(self, new: Path) -> None:
        """It is gone."""
        new.touch()
        self.ask(procaio.aio_unlink, new, right=lambda _: not new.exists())

    def copy(self, new: Path) -> None:
        """Whole, or not there."""
        self.whole[len(self.requests)] = new
        self.ask(procaio.aio_copy, self.place / "data", new, right=lambda _: new.exists())

    def replace(self, new: Path) -> None:
        """The new content, or the old."""
        data = self.random.randbytes(self.random.randrange(10_000))
        self.ask(procaio.aio_replace, new, data, right=lambda _: new.read_bytes() == data)

    def copytree(self, new: Path) -> None:
        """Everything in it."""
        right: Check = lambda _: set(os.listdir(new / "a")) == self.names | {"b"}  # noqa: E731
        self.ask(procaio.aio_copytree, self.place / "tree", new, right=right)

    def rmtree(self, new: Path) -> None:
        """Nothing of it."""
        self.plant(new)
        self.ask(procaio.aio_rmtree, new, right=lambda _: not new.exists())

    def open(self, _: Path) -> None:
        """What nobody is told of is closed."""
        self.ask(procaio.aio_open, self.place / "data")

    def hang(self, _: Path) -> None:
        """Until its deadline."""
        self.ask(procaio.aio_open, self.place / "fifo", os.O_RDONLY, timeout=0.005)

    def sync(self, _: Path) -> None:
        """To the disk."""
        self.ask(procaio.aio_fdatasync, self.fd)

    def touch(self, _: Path) -> None:
        """Pages, by a thread if need be."""
        buffer = procaio.Buffer(65536, pool=self.pool)
        self.buffers.append(buffer)
        self.ask(procaio.aio_mtouch, buffer)

    def stat_many(self, _: Path) -> None:
        """Attributes of some files, one of which is not there."""
        paths = [*(self.place / "tree" / "a" / name for name in sorted(self.names)), "/missing"]
        sizes: list[int | None] = [*(int(name) for name in sorted(self.names)), None]
        self.ask(
            procaio.aio_stat_many, paths,
            right=lambda found: all(
                failed(one, size) if isinstance(one, OSError) else one.st_size == size
                for one, size in zip(found, sizes, strict=True)
            ),
        )  # fmt: skip

    def load_many(self, _: Path) -> None:
        """What some files hold, small ones and perhaps a large one."""
        wanted = [self.content, *(b"x" * int(name) for name in sorted(self.names))]
        names = sorted(self.names)
        paths = [self.place / "data", *(self.place / "tree" / "a" / name for name in names)]
        self.ask(
            procaio.aio_load_many, paths,
            right=lambda found: all(
                failed(one, data) if isinstance(one, OSError) else one == data
                for one, data in zip(found, wanted, strict=True)
            ),
        )  # fmt: skip

    def read_many(self, _: Path) -> None:
        """Parts of a file, into a buffer that workers see."""
        buffer = procaio.Buffer(8192, pool=self.pool)
        self.buffers.append(buffer)
        offsets = [self.random.randrange(1 + len(self.content)) for _ in range(8)]
        wanted = [self.content[offset : offset + 1024] for offset in offsets]
        self.ask(
            procaio.aio_read_many, self.fd, offsets, 1024, buffer,
            right=lambda found: all(
                failed(size, data) if isinstance(size, OSError)
                else memoryview(buffer)[at * 1024 :][:size] == data
                for at, (size, data) in enumerate(zip(found, wanted, strict=True))
            ),
        )  # fmt: skip

    def feed(self, _: Path) -> None:
        """A group that is fed as its members end."""
        left = iter(range(self.random.randrange(10)))

        def feeder(group: procaio.Group) -> None:
            if next(left, None) is not None:
                group.add(procaio.aio_stat(self.place / "data", pool=self.pool))

        group = self.ask(procaio.aio_group)
        if group.state != "cancelled":
            group.limit = 2
            group.feed(feeder)

    # -- the end ----------------------------------------------------------------------------------

    def check(self) -> Counter[str]:
        """Whether every request has ended once, and rightly, and the disk agrees."""
        self.pool.flush()
        ended: Counter[str] = Counter()
        for number, request in enumerate(self.requests):
            if request.state == "cancelled":
                assert self.calls[number] == 0, request
                assert number in self.given_up, request
                ended["gone"] += 1
                continue
            assert (self.calls[number], request.state) == (1, "done"), request
            assert self.may_end_with(self.errnos[number], request), (request, request.error)
            ended[errno.errorcode.get(self.errnos[number], "ok")] += 1
        for number, right in self.right.items():
            if self.errnos.get(number) == 0:
                assert right(*self.values[number]), self.requests[number]
        self.look_for_parts()
        return ended

    def look_for_parts(self) -> None:
        """
        A copy that has succeeded has none. Of another one a worker may have to remove it still, and
        it stays only if three die over that (docs/design/failures.md): too rare to be seen here.
        """
        parts = {number: copy for number, copy in self.whole.items() if self.is_part(copy)}
        assert not any(self.errnos.get(number) == 0 for number in parts), parts
        end = time.monotonic() + REMOVED_AFTER
        while parts and time.monotonic() < end:
            self.pool.poll_cb()
            parts = {number: copy for number, copy in parts.items() if self.is_part(copy)}
        assert not parts, [(self.requests[number], self.errnos.get(number)) for number in parts]

    def is_part(self, copy: Path) -> bool:
        """Whether it is there, but without the content, or the permissions, of what was copied."""
        try:
            whole = copy.stat().st_mode == (self.place / "data").stat().st_mode
            return not whole or copy.read_bytes() != self.content
        except FileNotFoundError:
            return False

    @staticmethod
    def may_end_with(number: int, request: procaio.Request[Any]) -> bool:
        """A directory is not empty if it was not possible to remove something in it."""
        if number != errno.ENOTEMPTY:
            return number in FORGIVEN | {0}
        failures = request.progress.failures
        return bool(failures) and all(below in FORGIVEN for _, below in failures)

    def end(self) -> None:
        """Close and remove everything."""
        self.requests.clear()
        self.right.clear()
        for value in chain.from_iterable(self.values.values()):
            if isinstance(value, procaio.FileHandle):
                value.close()
        for buffer in self.buffers:
            buffer.release()
        os.close(self.fd)
        os.close(self.written)
        shutil.rmtree(self.place)


KINDS: Final[tuple[Callable[[Round, Path], None], ...]] = (
    Round.read, Round.read_into, Round.write, Round.load, Round.stat, Round.realpath,
    Round.readdir, Round.scandir, Round.mkdir, Round.symlink, Round.rename, Round.unlink,
    Round.copy, Round.replace, Round.copytree, Round.rmtree, Round.open, Round.hang, Round.sync,
    Round.touch, Round.stat_many, Round.load_many, Round.read_many, Round.feed,
)  # fmt: skip


async def awaited(pool: procaio.Pool, place: Path, randomly: random.Random) -> None:
    """Requests and a walk in an event loop of its own; some are cancelled by it."""

    async def load() -> None:
        try:
            timeout = randomly.random() * 0.01
            data = await asyncio.wait_for(procaio.aio_load(place / "file", pool=pool), timeout)
            assert data == b"data"
        except asyncio.TimeoutError:
            pass

    await asyncio.gather(*(load() for _ in range(20)))
    assert [names async for _, _, names in procaio.aio_walk(place, pool=pool)] == [["file"]]


def one_round(pool: procaio.Pool, place: Path, randomly: random.Random, report: Report) -> None:
    """Make, kill, wait, check."""
    round_ = Round(pool, place, randomly)
    killer = Killer(pool, randomly.randrange(2**32))
    killer.start()
    try:
        round_.make()
        report.ended = Counter(report.ended) + round_.check()
    finally:
        killer.stop()
    report.rounds += 1
    report.requests += len(round_.requests)
    round_.end()


def compare(report: Report, samples: list[Sample]) -> None:
    """Nothing has grown from the first half of the run, without its begin, to the second."""
    begin, end = samples[len(samples) // 10 : len(samples) // 2], samples[len(samples) // 2 :]
    if not begin or not end:
        return
    report.first_half, report.second_half = median(begin), median(end)
    after = asdict(report.second_half)
    for name, before in asdict(report.first_half).items():
        most = before * GROWTH + SLACK_KIB if name.endswith("kib") else before
        assert after[name] <= most, (name, before, after)


def soak(seconds: float, seed: int, *, quiet: bool) -> Report:
    """Run for so long; an AssertionError tells what went wrong."""
    report = Report()
    samples: list[Sample] = []
    began = time.monotonic()
    randomly = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory, procaio.Pool(workers=4) as pool:
        place = Path(directory, "round")
        while (spent := time.monotonic() - began) < seconds:
            one_round(pool, place, randomly, report)
            if report.rounds % SAMPLE_EVERY == 0:
                place.mkdir()
                (place / "file").write_bytes(b"data")
                asyncio.run(awaited(pool, place, randomly))
                shutil.rmtree(place)
                settle(pool)
                samples.append(sample(pool))
                if not quiet:
                    print(f"{spent:8.0f} s {report.requests:>12,}  {samples[-1]}", flush=True)
        now = pool.statistics()
    report.worker_deaths, report.spawner_deaths = now.worker_deaths, now.spawner_deaths
    report.aborted, report.rerun, report.died = now.aborted, now.rerun, now.died
    report.seconds = time.monotonic() - began
    compare(report, samples)
    return report


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Everything at once, for a long time.")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quiet", action="store_true", help="print only the report")
    options = parser.parse_args()
    report = soak(options.minutes * 60, options.seed, quiet=options.quiet)
    report.ended = dict(report.ended)
    print(json.dumps(asdict(report), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
