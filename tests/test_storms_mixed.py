"""Mixed requests of several threads while somebody kills, stops and continues processes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import procaio
from conftest import eventually, kill
from procaio import testing
from test_crashes import (
    DEADLY,
    NAMES,
    Tree,
    directories,
    open_files,
    shared_in_use,
    take_file,
    tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["directories", "tree"]  # fixtures

THREADS = 3
IN_FLIGHT = 120
EVERY = 0.01
WORD = 8


class Weather(threading.Thread):
    """Every 10 ms somebody is killed, stopped or continued, and somebody dies at a point."""

    def __init__(self, pool: procaio.Pool, seed: int) -> None:
        """It begins with start(), and ends with finish()."""
        super().__init__()
        self.kills = self.stops = 0
        self._pool, self._random = pool, random.Random(seed)
        self._stopped: list[int] = []
        self._over = threading.Event()

    def run(self) -> None:
        """Until it is over; nobody stays stopped."""
        deeds = [self._kill_a_worker, self._kill_the_spawner, self._kill_all, self._stop_a_worker]
        while not self._over.wait(EVERY):
            self._continue(2)
            (deed,) = self._random.choices(deeds, weights=[14, 2, 1, 3])
            deed()
            self._let_die_at_a_point()
        self._continue(0)
        testing.disarm(self._pool)

    def finish(self) -> None:
        """Let nobody die any more."""
        self._over.set()
        self.join()

    def _workers(self) -> list[int]:
        return [worker.pid for worker in self._pool.statistics().workers]

    def _kill(self, pids: list[int]) -> None:
        for pid in pids:
            if pid > 0:
                kill(pid, self._random.choice(DEADLY))
                self.kills += 1

    def _kill_a_worker(self) -> None:
        workers = self._workers()
        self._kill(self._random.sample(workers, min(1, len(workers))))

    def _kill_the_spawner(self) -> None:
        self._kill([self._pool.statistics().spawner_pid])

    def _kill_all(self) -> None:
        self._kill([*self._workers(), self._pool.statistics().spawner_pid])

    def _let_die_at_a_point(self) -> None:
        point = self._random.choice([*testing.FAULT_POINTS, "called", "called", "called"])
        testing.arm(self._pool, point, self._random.choice(DEADLY), self._random.randrange(5))

    def _stop_a_worker(self) -> None:
        for pid in self._workers()[:1]:
            kill(pid, signal.SIGSTOP)
            self._stopped.append(pid)
            self.stops += 1

    def _continue(self, most: int) -> None:
        while len(self._stopped) > most:
            kill(self._stopped.pop(0), signal.SIGCONT)


class Kind(NamedTuple):
    """How a request is made, and what a result must be."""

    submit: Callable[..., procaio.Request[Any]]
    right: Callable[[Any], bool]


class Client(threading.Thread):
    """Makes requests of all kinds, some with deadlines, and cancels and aborts some."""

    def __init__(self, tree: Tree, pool: procaio.Pool, number: int, count: int) -> None:
        """It begins with start()."""
        super().__init__()
        self.tree, self.pool, self.count = tree, pool, count
        self.random = random.Random(number)
        self.first = number * count
        self.made: dict[int, tuple[str, procaio.Request[Any]]] = {}
        self.calls: dict[int, list[int]] = {}
        """The errno of each, by the number of the request."""
        self.wrong: list[object] = []
        self.ended_early: set[int] = set()
        """May have failed with ETIMEDOUT or ECANCELED."""

    def run(self) -> None:
        """Never more than so many in flight."""
        for number in range(self.first, self.first + self.count):
            try:
                self._make(number)
                while self.pool.nreqs() > IN_FLIGHT:
                    self.pool.poll()
            except BaseException as error:  # noqa: BLE001 - the test is told
                self.wrong.append(error)

    def _kinds(self, number: int) -> dict[str, Kind]:
        tree, at = self.tree, self.random.randrange(3000)
        word, path = b"%08d" % number, tree.path / "data"
        return {
            "read": Kind(
                lambda **k: procaio.aio_read(tree.reading, at, 32, **k),
                lambda result: result == tree.data[at : at + 32],
            ),
            "read a lot": Kind(
                lambda **k: procaio.aio_read(tree.reading, 0, 300_000, **k),
                lambda result: result == tree.data,
            ),
            "stat": Kind(
                lambda **k: procaio.aio_stat(path, **k),
                lambda result: result.st_size == len(tree.data),
            ),
            "open": Kind(
                lambda **k: procaio.aio_open(path, **k), lambda result: take_file(tree, result)
            ),
            "readdir": Kind(
                lambda **k: procaio.aio_readdir(tree.many, **k),
                lambda result: sorted(result) == NAMES,
            ),
            "load": Kind(
                lambda **k: procaio.aio_load(path, **k), lambda result: result == tree.data
            ),
            "append": Kind(
                lambda **k: procaio.aio_write(tree.appending, 0, None, word, **k),
                lambda result: result == WORD,
            ),
            "write": Kind(
                lambda **k: procaio.aio_write(tree.writing, number * WORD, None, word, **k),
                lambda result: result == WORD,
            ),
            "mkdir": Kind(
                lambda **k: procaio.aio_mkdir(tree.path / f"made-{number}", **k),
                lambda result: result == 0,
            ),
            "copy": Kind(
                lambda **k: procaio.aio_copy(path, tree.path / f"copy-{number}", **k),
                lambda result: result == 0,
            ),
            "busy": Kind(lambda **k: procaio.aio_busy(0.002, **k), lambda result: result is None),
        }

    def _make(self, number: int) -> None:
        kinds = self._kinds(number)
        name = self.random.choice([*sorted(kinds), "append", "append"])
        kind = kinds[name]
        keywords: dict[str, Any] = {"pool": self.pool}
        fate = self.random.random()
        if fate < 0.1:
            keywords["timeout"] = self.random.uniform(0, 0.005)
        if fate < 0.15:
            self.ended_early.add(number)
        # Another thread may call back before this one has the request.
        request = kind.submit(callback=partial(self._called, number, kind), **keywords)
        self.made[number] = name, request
        if 0.1 <= fate < 0.15:
            request.abort()
        elif 0.15 <= fate < 0.2:
            request.cancel()

    def _called(self, number: int, kind: Kind, *result: Any) -> None:
        self.calls.setdefault(number, []).append(procaio.errno())
        if procaio.errno() == 0 and not kind.right(*(result or (None,))):
            self.wrong.append((number, result))

    def may_fail(self, number: int, error: OSError) -> bool:
        """Because its worker has died, or it was to end early."""
        early = error.errno in {errno.ETIMEDOUT, errno.ECANCELED} and number in self.ended_early
        return early or isinstance(error, procaio.WorkerDied)


def check_ends(client: Client) -> None:
    """Each has ended once, or was cancelled and has not been told."""
    assert client.wrong == []
    assert len(client.made) == client.count
    for number, (name, request) in client.made.items():
        assert request.state in {"done", "cancelled"}, name
        assert client.calls.get(number, []) == [request.errno] * (request.state == "done"), name
        assert request.error is None or client.may_fail(number, request.error), name


def check_disk(tree: Tree, clients: list[Client]) -> None:
    """What succeeded is there, once; what is there was asked for; there are no parts."""
    named = {n: (name, r) for client in clients for n, (name, r) in client.made.items()}
    done = {n for client in clients for n, calls in client.calls.items() if calls == [0]}

    def of(kind: str) -> set[int]:
        return {number for number, (name, _) in named.items() if name == kind}

    found = tree.content("appended")
    words = [int(found[i : i + WORD]) for i in range(0, len(found), WORD)]
    assert len(words) == len(set(words)), "something was appended twice"
    assert of("append") & done <= set(words) <= of("append")

    found = tree.content("written")
    cells = {
        n for n in range(len(found) // WORD) if found[n * WORD : (n + 1) * WORD] != bytes(WORD)
    }
    assert all(int(found[n * WORD : (n + 1) * WORD]) == n for n in cells)
    assert of("write") & done <= cells <= of("write")

    for kind, prefix in (("mkdir", "made-"), ("copy", "copy-")):
        names = [name for name in os.listdir(tree.path) if name.startswith(prefix)]
        there = {int(name.removeprefix(prefix)) for name in names}
        assert of(kind) & done <= there <= of(kind)
        if kind == "copy":
            assert all(tree.content(name) == tree.data for name in names)


def check_statistics(pool: procaio.Pool, clients: list[Client], others: int) -> None:
    """They add up."""
    statistics = pool.statistics()
    requests = [request for client in clients for _, request in client.made.values()]
    failed = [request.error for request in requests if request.error is not None]
    died = sum(isinstance(error, procaio.WorkerDied) for error in failed)
    cancelled = sum(request.state == "cancelled" for request in requests)
    early = sum(len(client.ended_early) for client in clients)
    made = sum(client.count for client in clients)
    assert statistics.submitted == statistics.completed == made + others
    assert (statistics.outstanding, statistics.pending) == (0, 0)
    assert set(statistics.queued.values()) == {0}
    assert statistics.failed == len(failed)
    assert statistics.cancelled == cancelled
    assert died <= statistics.died <= died + cancelled + early
    assert statistics.worker_deaths > 0
    assert statistics.aborted <= early + cancelled


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_storm_over_requests_of_all_kinds_loses_nothing_and_leaves_nothing(
    tree: Tree, workers: procaio.Pool, count: int
) -> None:
    """Each ends exactly once, the disk says what the callbacks said, and the numbers add up."""
    procaio.aio_nop(pool=workers).wait()
    before = open_files()
    others = 1
    clients = [Client(tree, workers, n, count // THREADS) for n in range(THREADS)]
    weather = Weather(workers, count)
    weather.start()
    try:
        for client in clients:
            client.start()
        for client in clients:
            while client.is_alive():
                with contextlib.suppress(procaio.PoolClosed):
                    workers._flush(0.05)
                client.join(0.001)
        workers.flush()
    finally:
        weather.finish()

    assert weather.kills > 10
    assert weather.stops > 0
    for client in clients:
        check_ends(client)
    check_disk(tree, clients)
    check_statistics(workers, clients, others)
    eventually(
        lambda: procaio.aio_nop(pool=workers).wait() is None and open_files() == before,
        "only what was there before is open",
    )
    assert shared_in_use(workers) == 0
    assert workers.nworkers() <= workers.min_parallel()
