"""The program is told that workers die: by its hook, and by a warning when they do nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import WALL, Gate, eventually, in_child, kill, succeeds
from procaio import testing
from programs import FILTER, X86, run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Told:
    """A pool with a hook that keeps what it is told."""

    def __init__(self, workers: int = 8) -> None:
        """Nothing yet."""
        self.deaths: list[procaio.WorkerDeath] = []
        self.pool = procaio.Pool(workers, at_once=False, on_worker_death=self.deaths.append)
        self.pool.poll_fileno()  # so that each poll_cb() that finds nothing looks for deaths

    def waits_for(self, count: int = 1) -> list[procaio.WorkerDeath]:
        """Poll until there are so many."""
        eventually(
            lambda: self.pool.poll_cb() <= 0 and len(self.deaths) >= count, "the hook is called"
        )
        return self.deaths


@pytest.fixture
def told() -> Iterator[Told]:
    """The pool, and what its hook was told."""
    made = Told()
    yield made
    made.pool._close(0)


def sleeper(pool: procaio.Pool) -> int:
    """The worker, which does nothing."""
    procaio.aio_nop(pool=pool).wait()
    eventually(lambda: {w.state for w in pool.statistics().workers} == {"sleep"}, "all sleep")
    return pool.statistics().workers[0].pid


# -- the hook --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_hook_is_told_who_has_died_of_what_over_what(told: Told, gate: Gate, number: int) -> None:
    (request,) = gate.hold(told.pool)
    worker = next(w for w in told.pool.statistics().workers if w.operation)
    kill(worker.pid, number)
    assert told.waits_for() == [procaio.WorkerDeath(worker.number, worker.pid, -number, "read")]
    with pytest.raises(procaio.WorkerDied):
        request.wait()


def test_hook_is_told_of_a_worker_that_did_nothing(told: Told) -> None:
    pid = sleeper(told.pool)
    kill(pid)
    assert told.waits_for() == [procaio.WorkerDeath(0, pid, -signal.SIGKILL, None)]


def test_hook_is_told_of_a_death_that_the_program_has_waited_for(told: Told) -> None:
    """Nobody else knows the reason then."""
    pid = sleeper(told.pool)
    kill(pid)
    assert os.waitpid(pid, WALL)[0] == pid
    assert told.waits_for() == [procaio.WorkerDeath(0, pid, None, None)]


def test_hook_is_told_of_each_death_once_and_in_order(told: Told) -> None:
    pids = []
    for _ in range(20):
        pids.append(sleeper(told.pool))
        kill(pids[-1])
        told.waits_for(len(pids))
    assert [death.pid for death in told.deaths] == pids
    assert told.pool.statistics().worker_deaths == 20


def test_hook_is_not_told_of_workers_that_the_pool_ends(told: Told, gate: Gate) -> None:
    """Aborted, idle, too many, or closed."""
    (held,) = gate.hold(told.pool)
    held.abort()
    with pytest.raises(OSError):
        held.wait()
    gate.hold(told.pool, 3)
    gate.open(3)
    told.pool.max_parallel(2)
    told.pool.max_idle(0)
    told.pool.idle_timeout(0)
    told.pool.flush()
    eventually(lambda: told.pool.poll_cb() == 0 and told.pool.nworkers() == 0, "they leave")
    procaio.aio_nop(pool=told.pool).wait()
    told.pool.close()
    assert told.deaths == []


def test_hook_is_called_where_callbacks_are(told: Told) -> None:
    """Not before the program polls, whoever buries the dead."""
    kill(sleeper(told.pool))
    eventually(
        lambda: told.pool._sleep(0) is None and told.pool.statistics().worker_deaths == 1, "burial"
    )
    assert told.deaths == []
    told.pool.poll_cb()
    assert len(told.deaths) == 1


def test_hook_can_be_exchanged(workers: procaio.Pool) -> None:
    """The previous one is given back; without one nobody is told."""
    first: list[object] = []
    second: list[object] = []
    hooks = first.append, second.append
    assert workers.on_worker_death(hooks[0]) is None
    assert workers.on_worker_death(hooks[1]) is hooks[0]
    kill(sleeper(workers))
    eventually(lambda: workers.poll_cb() == 0 and len(second) == 1, "it is told")
    assert workers.on_worker_death(None) is hooks[1]
    kill(sleeper(workers))
    eventually(
        lambda: workers.poll_cb() == 0 and workers.statistics().worker_deaths == 2, "the burial"
    )
    assert (first, len(second)) == ([], 1)
    for wrong in (3, "text"):
        with pytest.raises(TypeError):
            workers.on_worker_death(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            procaio.Pool(on_worker_death=wrong)  # type: ignore[arg-type]


def test_hook_of_the_default_pool() -> None:
    assert procaio.on_worker_death(print) is None
    assert procaio.on_worker_death(None) is print


@pytest.mark.parametrize("default", [False, True])
def test_exception_in_the_hook_goes_where_those_of_callbacks_go(
    workers: procaio.Pool, monkeypatch: pytest.MonkeyPatch, default: bool
) -> None:
    """Without a request; everybody else gets what is theirs."""
    caught: list[object] = []
    if default:
        monkeypatch.setattr(sys, "unraisablehook", lambda report: caught.append(report.exc_type))
    else:
        procaio.on_callback_error(lambda error, request: caught.append((type(error), request)))
    workers.on_worker_death(lambda _: 1 / 0)
    kill(sleeper(workers))
    eventually(lambda: workers.poll_cb() == 0 and bool(caught), "the hook is called")
    assert caught == [ZeroDivisionError] if default else [(ZeroDivisionError, None)]
    assert procaio.aio_nop(pool=workers).wait() is None


def test_interrupt_in_the_hook_leaves_poll_cb_and_the_next_death_is_told(told: Told) -> None:
    def interrupt(death: procaio.WorkerDeath) -> None:
        told.deaths.append(death)
        raise KeyboardInterrupt

    told.pool.on_worker_death(interrupt)
    procaio.on_callback_error(lambda error, _: pytest.fail(repr(error)))
    held = [procaio.aio_busy(1000, pool=told.pool) for _ in range(2)]
    eventually(lambda: all(r.state == "execute" for r in held), "both are executed")
    for request in held:
        request.cancel()
    for worker in told.pool.statistics().workers:
        kill(worker.pid)
    count = told.pool.nworkers()
    eventually(
        lambda: told.pool._sleep(0) is None and told.pool.statistics().worker_deaths == count,
        "the burials",
    )
    for number in range(count):
        assert len(told.deaths) == number
        with pytest.raises(KeyboardInterrupt):
            told.pool.poll_cb()
    told.pool.flush()
    assert len(told.deaths) == count


def test_hook_may_do_anything(told: Told) -> None:
    """Make requests and wait for them, take itself away, close the pool."""
    seen: list[object] = []

    def hook(death: procaio.WorkerDeath) -> None:
        seen.append(death.exitcode)
        seen.append(procaio.aio_stat("/", pool=told.pool).wait().st_ino)
        told.pool.on_worker_death(None)
        told.pool.close()

    told.pool.on_worker_death(hook)
    kill(sleeper(told.pool))
    with pytest.raises(procaio.PoolClosed):
        eventually(lambda: told.pool.poll_cb() > 0, "it is closed")
    assert seen == [-signal.SIGKILL, os.stat("/").st_ino]


def test_hook_is_called_by_whatever_polls(told: Told) -> None:
    """Also while nothing is completed: here that waits for the hook."""
    pool = told.pool
    ways: list[Callable[[procaio.Request[Any]], object]] = [
        lambda request: request.wait(),
        lambda _: pool.poll(),
        lambda _: pool.flush(),
        lambda _: (pool.poll_wait(), pool.poll_cb()),
    ]

    def hook(death: procaio.WorkerDeath) -> None:
        told.deaths.append(death)
        testing.disarm(pool)

    pool.on_worker_death(hook)
    for number, way in enumerate(ways, 1):
        testing.arm(pool, "born", always=True)
        way(procaio.aio_nop(pool=pool))
        assert len(told.deaths) >= number
        pool.flush()
        kill(sleeper(pool))
        told.waits_for(len(told.deaths) + 1)  # nobody is there to take the next one


def test_hook_is_called_by_a_loop_that_only_watches_the_descriptor(told: Told) -> None:
    async def main() -> None:
        await procaio.aio_nop(pool=told.pool)
        death = asyncio.get_running_loop().create_future()
        told.pool.on_worker_death(death.set_result)
        kill(told.pool.statistics().workers[0].pid)
        assert (await asyncio.wait_for(death, 20)).exitcode == -signal.SIGKILL

    asyncio.run(main())


def test_forked_child_is_not_told_of_its_parents_workers(told: Told) -> None:
    kill(sleeper(told.pool))
    eventually(
        lambda: told.pool._sleep(0) is None and told.pool.statistics().worker_deaths == 1, "burial"
    )

    def child() -> None:
        procaio.aio_nop(pool=told.pool).wait()
        told.pool.poll_cb()
        assert told.deaths == []
        kill(sleeper(told.pool))
        told.waits_for()
        told.pool.close()

    assert succeeds(in_child(child))
    assert len(told.waits_for()) == 1


# -- workers that die at birth ---------------------------------------------------------------------


@pytest.fixture
def looping(told: Told) -> Told:
    """No worker lives long enough for anything."""
    testing.arm(told.pool, "born", always=True)
    return told


def is_warned(told: Told) -> procaio.Request[Any]:
    """Make a request that waits, until the warning comes."""
    request = procaio.aio_stat("/", pool=told.pool)
    with pytest.warns(procaio.CrashLoopWarning, match="by signal 9, and nothing is") as caught:
        eventually(lambda: told.pool.poll_cb() <= 0 and len(caught) > 0, "the warning")
    assert len(caught) == 1
    assert isinstance(caught[0].message, RuntimeWarning)
    return request


def test_program_is_warned_once_and_all_is_well_when_the_cause_is_gone(looping: Told) -> None:
    """Requests wait meanwhile, and none of them fails."""
    pool = looping.pool
    pool.max_parallel(1)
    for episode in (1, 2):
        waiting = is_warned(looping)
        deaths = pool.statistics().worker_deaths
        with warnings.catch_warnings(record=True) as more:
            warnings.simplefilter("always")
            looping.waits_for(deaths + 2)
        assert more == []
        assert (waiting.state, pool.statistics().died) == ("ready", 0)
        testing.disarm(pool)
        assert waiting.wait(timeout=30) == os.stat("/")
        assert {death.operation for death in looping.deaths} == {None}
        assert len(looping.deaths) == pool.statistics().worker_deaths >= 9 * episode
        kill(sleeper(pool))
        testing.arm(pool, "born", always=True)


def test_warning_comes_only_when_more_have_died_than_could_live(told: Told) -> None:
    """Somebody who kills all that sleep is no loop."""
    held = [procaio.aio_busy(0.05, pool=told.pool) for _ in range(8)]
    for request in held:
        request.wait()
    pids = [worker.pid for worker in told.pool.statistics().workers]
    for pid in pids:
        kill(pid)
    told.waits_for(len(pids))
    assert procaio.aio_nop(pool=told.pool).wait(timeout=30) is None


@pytest.mark.parametrize("default", [False, True])
def test_warning_that_is_an_error_goes_where_those_of_callbacks_go(
    looping: Told, monkeypatch: pytest.MonkeyPatch, default: bool
) -> None:
    """Whoever has asked for that need not expect it in a poll."""
    caught: list[object] = []
    if default:
        monkeypatch.setattr(sys, "unraisablehook", lambda report: caught.append(report.exc_type))
    else:
        procaio.on_callback_error(lambda error, _: caught.append(type(error)))
    looping.pool.max_parallel(1)
    request = procaio.aio_nop(pool=looping.pool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eventually(lambda: looping.pool.poll_cb() <= 0 and bool(caught), "it is given")
    testing.disarm(looping.pool)
    assert request.wait(timeout=30) is None
    assert caught == [procaio.CrashLoopWarning]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("how", ["timeout", "abort", "cancel", "group", "composite"])
def test_requests_end_while_no_worker_lives(told: Told, how: str, number: int) -> None:
    """Those that have died do not keep them, and those that have stopped do not."""
    pool = told.pool
    testing.arm(pool, "born", number, always=True)
    waiting = procaio.aio_stat("/", pool=pool)
    if number == signal.SIGKILL:
        told.waits_for(3)
    else:
        eventually(lambda: pool.nworkers() > 0, "one is born")
    expected = errno.ETIMEDOUT if how == "timeout" else errno.ECANCELED
    if how == "composite":
        request: procaio.Request[Any] = procaio.aio_rmtree("/no such", timeout=0.01, pool=pool)
        expected = errno.ETIMEDOUT
    elif how == "group":
        request = procaio.aio_group(pool=pool)
        assert isinstance(request, procaio.Group)
        request.add(procaio.aio_nop(pool=pool))
    else:
        request = procaio.aio_nop(pool=pool, timeout=0.01 if how == "timeout" else None)
    if how in {"abort", "group"}:
        assert request.abort()
    if how == "cancel":
        request.cancel()
        eventually(lambda: pool.poll_cb() <= 0 and pool.nreqs() == 1, "it has ended")
    else:
        with pytest.raises(OSError) as caught:
            request.wait(timeout=30)
        assert caught.value.errno == expected
    testing.disarm(pool)
    for worker in pool.statistics().workers:
        kill(worker.pid, signal.SIGCONT)
    assert waiting.wait(timeout=30) == os.stat("/")


def test_loop_sleeps_while_workers_die(looping: Told) -> None:
    """The pauses grow, and the descriptor is not readable in between."""
    pool = looping.pool
    pool.max_parallel(1)
    request = procaio.aio_nop(pool=pool)
    looping.waits_for(12)  # the next one lives after 128 ms
    began, wakes = time.monotonic(), 0
    while len(looping.deaths) < 13:
        assert select.select([pool.poll_fileno()], [], [], 20)[0]
        pool.poll_cb()
        wakes += 1
    assert time.monotonic() - began > 0.06
    assert wakes < 5
    testing.disarm(pool)
    assert request.wait(timeout=30) is None


@pytest.mark.parametrize("point", [*testing.FAULT_POINTS, "born"])
def test_worker_that_has_stopped_anywhere_does_not_keep_the_others(told: Told, point: str) -> None:
    """Its permit to run goes to another one, whether it executes something or not."""
    pool = told.pool
    if point != "born":
        sleeper(pool)
    testing.arm(pool, point, signal.SIGSTOP)
    first = procaio.aio_nop(pool=pool)
    eventually(lambda: pool.poll_cb() <= 0 and bool(stopped(pool)), "it stops")
    requests = [procaio.aio_nop(pool=pool) for _ in range(50)]
    for request in requests:
        assert request.wait(timeout=20) is None
    for pid in stopped(pool):
        kill(pid, signal.SIGCONT)
    assert first.wait(timeout=20) is None
    assert told.deaths == []


def stopped(pool: procaio.Pool) -> list[int]:
    """Workers that have."""
    found = []
    for worker in pool.statistics().workers:
        with open(f"/proc/{worker.pid}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] == b"T":
                found.append(worker.pid)
    return found


# The spawner dies as soon as it has a name; prints what becomes of a request, and how often.
WITHOUT_SPAWNER = f"""{FILTER}
import warnings
import procaio

pool = procaio.Pool()
filter_call(KILL, 157, 0, 15)  # prctl(PR_SET_NAME)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    while not caught:
        try:
            procaio.aio_nop(pool=pool, timeout=0.05).wait()
        except TimeoutError:
            pass
before = pool.statistics().spawner_deaths
request = procaio.aio_nop(pool=pool, timeout=0.25)
pool.flush()
after = pool.statistics().spawner_deaths
print(len(caught), caught[0].category.__name__, type(request.error).__name__, before, after)
"""


@X86
def test_spawner_that_keeps_dying_is_replaced_after_growing_pauses() -> None:
    """The program is not kept busy with making new ones, deadlines are kept, and it is told."""
    warned, category, error, before, after = run_python(WITHOUT_SPAWNER).split()
    assert (warned, category, error) == ("1", "CrashLoopWarning", "TimeoutError")
    assert int(before) > 16
    assert int(after) <= int(before) + 2, "a second or so lies between two of them by now"
