"""When deadlines are kept, who hears of it, and storms of them beside other requests."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import random
import select
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
from conftest import eventually, in_child, kill, open_files, succeeds
from copying import needs_root
from ending import LATER, MESSAGES, deadlines, nobody_was_hurt, works
from procaio import testing

if TYPE_CHECKING:
    from conftest import Gate


# -- waiting for it --------------------------------------------------------------------------------


def test_task_that_awaits_gets_a_timeout_error(workers: procaio.Pool, gate: Gate) -> None:
    """The builtin one, with the file's name; the deadline comes though nothing else goes on."""

    async def main() -> TimeoutError:
        with pytest.raises(TimeoutError) as raised:
            await procaio.aio_copy(gate.path, "/dev/null/x", pool=workers, timeout=0.01)
        return raised.value

    workers.max_parallel(0)
    error = asyncio.run(main())
    assert (error.errno, error.strerror) == (errno.ETIMEDOUT, MESSAGES[errno.ETIMEDOUT])
    assert (error.filename, error.filename2) == (gate.path, "/dev/null/x")


@pytest.mark.parametrize("which", ["wait_for", "timeout"])
def test_wait_for_and_timeout_go_together(workers: procaio.Pool, gate: Gate, which: str) -> None:
    """Whichever is first: wait_for cancels, the deadline fails, and the worker goes with it."""
    seconds = {"wait_for": (0.01, LATER), "timeout": (LATER, 0.01)}[which]

    async def main() -> procaio.Request[bytes]:
        request = procaio.aio_read(gate.fd, None, 1, pool=workers, timeout=seconds[1])
        with pytest.raises((asyncio.TimeoutError, TimeoutError)):
            await asyncio.wait_for(asyncio.shield(_value(request)), seconds[0])
        request.cancel()
        return request

    async def _value(request: procaio.Request[bytes]) -> bytes:
        return await request

    request = asyncio.run(main())
    assert request.state == ("cancelled" if which == "wait_for" else "done")
    gate.open()
    workers.flush()


def test_descriptor_becomes_readable_for_a_deadline(workers: procaio.Pool) -> None:
    """Nothing else goes on; and it is silent again afterwards."""
    workers.max_parallel(0)
    calls: list[int] = []
    far = procaio.aio_nop(pool=workers, timeout=LATER)
    procaio.aio_busy(1, lambda *_: calls.append(procaio.errno()), pool=workers, timeout=0.01)
    workers.poll_cb()
    assert calls == []
    while not calls:
        assert select.select([workers.poll_fileno()], [], [], 20)[0]
        workers.poll_cb()
    assert calls == [errno.ETIMEDOUT]
    eventually(
        lambda: workers.poll_cb() == 0 and not select.select([workers.poll_fileno()], [], [], 0)[0],
        "it is silent",
    )
    far.cancel()
    workers.flush()


def test_deadline_is_kept_by_a_program_that_always_finds_results(
    workers: procaio.Pool, gate: Gate
) -> None:
    """A callback that always makes another request keeps nobody from looking at the clock."""
    (held,) = gate.hold(workers, timeout=0.001)

    def again() -> None:
        if held.state != "done":
            procaio.aio_group(again, pool=workers)

    again()
    eventually(lambda: workers.poll_cb() == 0 and held.state == "done", "the deadline is kept")
    workers.flush()
    assert held.errno == errno.ETIMEDOUT


def test_abort_in_another_requests_callback_and_from_another_thread(
    workers: procaio.Pool, gate: Gate
) -> None:
    """A thread that sleeps in wait() is told."""
    first, second = gate.hold(workers, 2)
    procaio.aio_nop(first.abort, pool=workers)
    with pytest.raises(OSError, match="aborted"):
        first.wait(timeout=30)

    def abort() -> None:
        eventually(waiting.is_set, "the other one waits")
        assert second.abort()

    waiting = threading.Event()
    thread = threading.Thread(target=abort)
    thread.start()
    waiting.set()
    with pytest.raises(OSError, match="aborted"):
        second.wait(timeout=30)
    thread.join()


# -- times -----------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A time, and whether it comes within anybody's life."""

    seconds: Any
    comes: bool


@pytest.mark.parametrize(
    "case",
    [
        Case(0, True), Case(False, True), Case(1e-300, True), Case(1e-9, True), Case(0.001, True),
        Case(np.float64(0), True), Case(None, False), Case(LATER, False), Case(1e300, False),
        Case(10**15, False), Case(sys.float_info.max, False), Case(math.inf, False),
    ],
)  # fmt: skip
def test_timeout_may_be_any_time(workers: procaio.Pool, case: Case) -> None:
    workers.max_parallel(0)
    request = procaio.aio_nop(pool=workers, timeout=case.seconds)
    assert deadlines(workers) == (case.seconds is not None)
    if case.comes:
        with pytest.raises(TimeoutError):
            request.wait(timeout=30)
    else:
        workers.poll_cb()
        assert request.state == "ready"
        request.cancel()
        workers.flush()
    assert deadlines(workers) == 0


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("1", TypeError), (b"", TypeError), ([], TypeError), (1j, TypeError), (-1, ValueError),
        (-1e-300, ValueError), (math.nan, ValueError), (-math.inf, ValueError),
        (10**400, OverflowError),
    ],
)  # fmt: skip
def test_wrong_timeout_raises_in_the_call(
    pool: procaio.Pool, data_file: Path, wrong: Any, error: type[Exception]
) -> None:
    """Nothing is queued; a FileHandle that was to be closed stays open."""
    with procaio.aio_open(data_file, pool=pool).wait() as handle:
        submitted = pool.statistics().submitted
        with pytest.raises(error):
            procaio.aio_close(handle, pool=pool, timeout=wrong)
        with pytest.raises(error):
            procaio.aio_group(pool=pool, timeout=wrong)
        assert not handle.closed
        assert pool.statistics().submitted == submitted
    assert (pool.nreqs(), deadlines(pool)) == (0, 0)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 3000))
def test_exactly_those_end_whose_deadline_has_passed(seed: int, count: int) -> None:
    """In whatever order they were made, cancelled and aborted; the others run afterwards."""
    chance = random.Random(seed)
    with procaio.Pool(at_once=False) as pool:
        pool.max_parallel(0)
        expected: dict[procaio.Request[Any], int] = {}
        for _ in range(count):
            passed = chance.random() < 0.3
            timeout = chance.random() * 1e-6 if passed else chance.uniform(LATER, 10 * LATER)
            request = procaio.aio_nop(pool=pool, timeout=timeout)
            expected[request] = errno.ETIMEDOUT if passed else 0
            victim = chance.choice(list(expected)) if chance.random() < 0.01 else None
            if victim is not None and victim.state == "ready":
                if chance.random() < 0.5:
                    victim.cancel()
                    expected[victim] = 0
                else:
                    victim.abort()
                    expected[victim] = errno.ECANCELED
        eventually(
            lambda: (
                pool.poll_cb() == 0 and all(r.state == "done" for r, e in expected.items() if e)
            ),
            "they end",
        )
        left = [r for r, e in expected.items() if not e and r.state == "ready"]
        assert deadlines(pool) == len(left)
        pool.min_parallel(1)
        pool.flush()
        assert {request: request.errno for request in expected} == expected
        assert deadlines(pool) == 0


def test_earlier_deadlines_come_first(workers: procaio.Pool) -> None:
    """All have passed when the program polls; others, that have not, were made in between."""
    workers.max_parallel(0)
    order: list[int] = []
    chance = random.Random(1)
    for number in range(2000):
        if chance.random() < 0.5:
            procaio.aio_nop(pool=workers, timeout=chance.uniform(LATER, 10 * LATER))
        procaio.aio_nop(lambda n=number: order.append(n), pool=workers, timeout=0)
    workers.poll_cb()
    assert order == list(range(2000))
    workers.min_parallel(1)
    workers.flush()


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_completed_requests_take_their_deadlines_with_them(
    workers: procaio.Pool, count: int
) -> None:
    """So there are never more than requests outstanding, however many there have been."""
    most = 0
    for _ in range(count // 1000):
        for _ in range(1000):
            procaio.aio_nop(pool=workers, timeout=LATER)
        most = max(most, deadlines(workers))
        workers.flush()
        assert deadlines(workers) == 0
    assert most <= 1000
    assert nobody_was_hurt(workers)


# -- everything at once ----------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [15, pytest.param(300, marks=pytest.mark.slow)])
def test_storm_of_aborts_and_deadlines_hurts_no_other_request(
    workers: procaio.Pool, gate: Gate, tmp_path: Path, rounds: int
) -> None:
    """Thousands that must not be done twice, while workers are ended all the time."""
    chance = random.Random(rounds)
    failed: list[int] = []
    ends = 0

    def ended(_: object) -> None:
        nonlocal ends
        ends += 1
        if procaio.errno():
            failed.append(procaio.errno())

    before = open_files()
    workers.max_parallel(4)
    made = 0
    fifo = tmp_path / "nobody writes"
    os.mkfifo(fifo)
    for _ in range(rounds):
        doomed: list[procaio.Request[Any]] = [
            procaio.aio_open(fifo, os.O_RDONLY, pool=workers, timeout=chance.random() / 100)
            for _ in range(2)
        ]
        doomed += [procaio.aio_read(gate.fd, None, 1, pool=workers, timeout=0.01)]
        doomed += [procaio.aio_busy(chance.random() / 1e3, pool=workers) for _ in range(4)]
        for _ in range(200):
            procaio.aio_mkdir(tmp_path / f"made-{made}", 0o777, ended, pool=workers)
            made += 1
        for request in doomed:
            if chance.random() < 0.5:
                workers.poll()
                request.abort()
        workers.flush()
    assert (failed, ends) == ([], made)
    assert len(list(tmp_path.glob("made-*"))) == made
    assert nobody_was_hurt(workers)
    assert workers.statistics().aborted > 0
    eventually(lambda: works(workers) and open_files() == before, "nothing stays open")
    assert workers._snapshot()["shared_used"] == 0


@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_worker_that_dies_while_it_is_ended_loses_nothing(
    workers: procaio.Pool, tmp_path: Path, point: str
) -> None:
    """By itself at each point of the request that is aborted at that time; each ends once."""
    chance = random.Random(point)
    counts: dict[int, int] = {}
    wrong: list[object] = []
    allowed = {0, errno.ECANCELED, errno.ETIMEDOUT, errno.EIO}
    workers.max_parallel(2)
    number = 0
    for _ in range(30):
        testing.arm(workers, point, after=chance.randrange(6))
        requests = []
        for _ in range(12):

            def ended(result: object, n: int = number) -> None:
                counts[n] = counts.get(n, 0) + 1
                done = (tmp_path / str(n)).exists()
                if procaio.errno() not in allowed or (result == 0 and not done):
                    wrong.append((n, result, procaio.errno()))

            timeout = chance.choice([None, 0, 0.001])
            requests.append(
                procaio.aio_mkdir(
                    tmp_path / str(number), 0o777, ended, pool=workers, timeout=timeout
                )
            )
            number += 1
        if chance.random() < 0.3:
            kill(workers.statistics().spawner_pid)
        for request in requests:
            if chance.random() < 0.5:
                request.abort()
            if chance.random() < 0.3:
                workers.poll_cb()
        workers.flush()
        testing.disarm(workers)
    assert (wrong, counts) == ([], dict.fromkeys(range(number), 1))
    assert works(workers)
    assert workers._snapshot()["shared_used"] == 0


def test_abort_while_there_is_no_spawner(workers: procaio.Pool, gate: Gate) -> None:
    workers.max_parallel(1)
    (held,) = gate.hold(workers)
    kill(workers.statistics().spawner_pid)
    assert held.abort()
    assert works(workers)
    with pytest.raises(OSError, match="aborted"):
        held.wait(timeout=30)
    assert held.errno == errno.ECANCELED


@needs_root
def test_worker_that_may_not_be_killed_leaves_by_itself() -> None:
    """The program has given up its rights meanwhile: the request ends, and its file is closed."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)

    def work() -> None:
        pool = procaio.Pool()
        before = open_files()
        request = procaio.aio_open(fifo, os.O_RDONLY, pool=pool)
        eventually(lambda: request.state == "execute", "a worker opens")
        os.setresuid(65534, 65534, 65534)
        assert request.abort()
        with pytest.raises(OSError, match="aborted"):
            request.wait(timeout=30)
        writing = os.open(fifo, os.O_WRONLY)
        os.close(writing)
        eventually(lambda: works(pool) and open_files() == before, "it is closed")
        pool.close()

    try:
        assert succeeds(in_child(work))
    finally:
        shutil.rmtree(directory)
