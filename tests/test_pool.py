"""Pool: workers on demand, settings, statistics, and its end (rules O1 to O4)."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import gc
import math
import os
import random
import resource
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import children, descriptors, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Gate


# -- the beginning ---------------------------------------------------------------------------------


def test_pool_that_cannot_be_made_leaves_nothing() -> None:
    """Whichever descriptor is one too many: an OSError with EMFILE, and no descriptor is lost."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before, failed = descriptors(), []
    for allowed in range(3, max(before) + 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, limits[1]))
        try:
            procaio.Pool().close()
            break
        except OSError as error:
            failed.append(error.errno)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert descriptors() == before
    else:
        pytest.fail("no number of descriptors was enough")
    assert set(failed) == {errno.EMFILE}
    assert len(failed) >= 3


def test_pool_that_is_open_is_not_made_again(pool: procaio.Pool) -> None:
    """Whoever calls __init__ a second time is told, and the pool goes on."""
    with pytest.raises(RuntimeError, match="open"):
        pool.__init__()  # type: ignore[misc]
    assert procaio.aio_nop(pool=pool).wait() is None


@pytest.mark.parametrize("seconds", [0, 1e-9, 1e10, math.inf])
def test_idle_timeout_may_be_any_time(seconds: float) -> None:
    """An idle_timeout of no time, or of all the time in the world, is one."""
    with procaio.Pool(idle_timeout=seconds) as made:
        assert procaio.aio_nop(pool=made).wait() is None


def test_pool_that_is_closed_while_it_starts_leaves_nothing() -> None:
    """Children that are killed in their first moment leave no descriptor in the shared table."""
    before = descriptors()
    for _ in range(100):
        pool = procaio.Pool()
        procaio.aio_nop(pool=pool).cancel()
        pool.close()
    assert descriptors() == before


# -- workers ---------------------------------------------------------------------------------------


def test_no_process_before_the_first_request() -> None:
    """Workers come on demand, and go with the pool (O1)."""
    before = children()
    with procaio.Pool() as made:
        assert (children(), made.nworkers(), made.statistics().spawner_pid) == (before, 0, 0)
        procaio.aio_nop(pool=made).wait()
        assert made.nworkers() >= 1
        assert len(children() - before) == made.nworkers() + 1
    assert children() == before


def test_inline_pool_that_is_closed_waits_for_what_another_thread_executes(gate: Gate) -> None:
    """There is nobody who could be killed for it."""
    made = procaio.Pool(inline=True)
    requests: list[procaio.Request[bytes]] = []
    threads = [
        threading.Thread(
            target=lambda: requests.append(procaio.aio_read(gate.fd, None, 1, pool=made))
        ),
        threading.Thread(target=lambda: made._close(0)),
    ]
    threads[0].start()
    eventually(lambda: made.nreqs() == 1, "it is executed")
    threads[1].start()
    eventually(lambda: made.closed, "the pool is about to end")
    gate.open()
    for thread in threads:
        thread.join(30)
    assert requests[0].wait(0) == b"x"
    assert made.nreqs() == 0


def test_inline_pool_has_no_process(data_file: Path) -> None:
    before = children()
    with procaio.Pool(inline=True) as made:
        assert procaio.aio_stat(data_file, pool=made).wait() == os.stat(data_file)
        assert (children(), made.nworkers()) == (before, 0)
        assert repr(made) == "<Pool inline nreqs=0>"


def test_as_many_workers_as_useful_but_no_more_than_wanted(gate: Gate) -> None:
    """Never more than there is work for; up to the number that was asked for (O1)."""
    with procaio.Pool(workers=3) as made:
        for _ in range(50):
            procaio.aio_nop(pool=made).wait()
        assert made.nworkers() <= 2
        gate.hold(made, 3)
        waiting = [procaio.aio_nop(pool=made) for _ in range(5)]
        assert made.nworkers() == 3
        assert {request.state for request in waiting} == {"ready"}
        gate.open(3)


def test_min_parallel_only_raises_and_max_parallel_only_lowers(pool: procaio.Pool) -> None:
    """Both return the previous number; without a value they only tell (O2)."""
    assert (pool.min_parallel(), pool.max_parallel()) == (8, 8)
    assert pool.min_parallel(3) == 8
    assert pool.max_parallel(20) == 8
    assert pool.max_parallel(5) == 8
    assert pool.min_parallel(6) == 5
    assert pool.min_parallel() == 6
    for set_ in (pool.min_parallel, pool.max_parallel):
        for kind, wrong in (
            (ValueError, -1),
            (ValueError, 257),
            (TypeError, "3"),
            (TypeError, 1.5),
        ):
            with pytest.raises(kind):
                set_(wrong)
    assert pool.min_parallel() == 6
    pool.max_parallel(1)


def test_max_parallel_returns_when_no_more_live(workers: procaio.Pool, gate: Gate) -> None:
    """What they execute ends first (O3)."""
    held = gate.hold(workers, 4)
    opener = threading.Timer(0.05, gate.open, (4,))
    opener.start()
    workers.max_parallel(1)
    opener.join()
    assert workers.nworkers() <= 1
    assert sum(request.state == "pending" for request in held) >= 3
    workers.flush()


def test_max_parallel_sleeps_while_results_wait(workers: procaio.Pool, gate: Gate) -> None:
    """It does not process them, and does not turn in circles because of them."""
    gate.hold(workers)
    procaio.aio_nop(pool=workers)
    eventually(lambda: workers.npending() == 1, "one is executed")
    before = time.process_time()
    with pytest.raises(TimeoutError):
        workers.max_parallel(0, timeout=0.4)
    assert time.process_time() - before < 0.2
    assert workers.npending() == 1
    gate.open()
    workers.min_parallel(1)
    workers.flush()


def test_max_parallel_with_a_timeout_gives_up_waiting(workers: procaio.Pool, gate: Gate) -> None:
    """The builtin TimeoutError; the limit stays (O3)."""
    gate.hold(workers, 2)
    with pytest.raises(TimeoutError):
        workers.max_parallel(1, timeout=0.01)
    with pytest.raises(ValueError, match="timeout"):
        workers.max_parallel(1, timeout=-1)
    assert workers.max_parallel() == 1
    gate.open(2)
    eventually(lambda: workers.poll_cb() == 0 and workers.nworkers() <= 1, "one leaves")
    workers.flush()


def test_without_workers_requests_queue_until_there_are_some(workers: procaio.Pool) -> None:
    """max_parallel(0) stops, min_parallel(n) resumes; cancelling works meanwhile (O3)."""
    procaio.aio_nop(pool=workers).wait()
    workers.max_parallel(0)
    assert workers.nworkers() == 0
    requests = [procaio.aio_nop(pool=workers) for _ in range(3000)]
    assert workers.poll_cb() == 0
    assert (workers.nreqs(), workers.nready()) == (3000, 3000)
    assert all(request.cancel() for request in requests[::2])
    workers.min_parallel(2)
    workers.flush()
    assert [request.state for request in requests[:4]] == ["cancelled", "done"] * 2
    assert {request.state for request in requests[1::2]} == {"done"}


@pytest.mark.parametrize("started", [True, False])
def test_close_runs_what_was_queued_without_workers(workers: procaio.Pool, started: bool) -> None:
    """close() waits for what is outstanding, so it lets a worker do it (O3)."""
    if started:
        procaio.aio_nop(pool=workers).wait()
    workers.max_parallel(0)
    seen: list[int] = []
    for number in range(3000):
        procaio.aio_nop(functools.partial(seen.append, number), pool=workers)
    workers.close()
    assert seen == list(range(3000))


def test_surplus_idle_workers_leave(gate: Gate) -> None:
    """After idle_timeout no more than max_idle stay (O4)."""
    with procaio.Pool(max_idle=1, idle_timeout=0.05) as made:
        held = gate.hold(made, 6)
        assert made.nworkers() == 6
        gate.open(6)
        made.flush()
        eventually(lambda: made.poll_cb() == 0 and made.nworkers() <= 1, "surplus workers leave")
        assert {request.state for request in held} == {"done"}
        assert made.statistics().worker_deaths == 0
        assert procaio.aio_nop(pool=made).wait() is None


def test_idle_settings_take_effect_on_those_that_sleep(workers: procaio.Pool, gate: Gate) -> None:
    """max_idle and idle_timeout give the previous value, and set the new one at once (O4)."""
    assert (workers.max_idle(), workers.idle_timeout()) == (4, 10.0)
    gate.hold(workers, 6)
    gate.open(6)
    workers.flush()
    assert workers.idle_timeout(0.01) == 10.0
    assert workers.max_idle(1) == 4
    assert (workers.max_idle(), workers.idle_timeout()) == (1, 0.01)
    eventually(lambda: workers.poll_cb() == 0 and workers.nworkers() <= 1, "surplus workers leave")
    for wrong in (-1, 257):
        with pytest.raises(ValueError):
            workers.max_idle(wrong)
    with pytest.raises(ValueError):
        workers.idle_timeout(-0.1)


def test_idle_workers_may_all_leave(workers: procaio.Pool, gate: Gate) -> None:
    """max_idle=0: an idle pool is a spawner only, and works again when it is used (O4)."""
    with procaio.Pool(max_idle=0, idle_timeout=0.01) as made:
        for _ in range(3):
            assert procaio.aio_nop(pool=made).wait() is None
            eventually(lambda: made.poll_cb() == 0 and made.nworkers() == 0, "the last one leaves")


def test_twenty_thousand_requests_are_more_than_slots(pool: procaio.Pool, tmp_path: Path) -> None:
    """More requests than slots is normal: each is executed once, in order within a priority."""
    path, seen = tmp_path / "log", []
    with procaio.aio_open(path, os.O_CREAT | os.O_WRONLY, pool=pool).wait() as handle:
        for number in range(20_000):
            data = number.to_bytes(4, "big")
            procaio.aio_write(handle, number * 4, 4, data, seen.append, pool=pool)
        assert pool.nreqs() == 20_000
        pool.flush()
    assert seen == [4] * 20_000
    assert path.read_bytes() == b"".join(n.to_bytes(4, "big") for n in range(20_000))


def test_random_cancels_among_many_requests_lose_none(workers: procaio.Pool) -> None:
    """Ready, executing or pending, in slots or not: every request ends exactly once (L1, L2)."""
    chance, seen = random.Random(5), []
    requests = [
        procaio.aio_nop(lambda n=n: seen.append(n), pool=workers, pri=chance.randint(-4, 4))
        for n in range(10_000)
    ]
    cancelled = set()
    for n in chance.sample(range(10_000), 5_000):
        if requests[n].state != "done":
            requests[n].cancel()
            cancelled.add(n)
    workers.flush()
    assert sorted(seen) == sorted(set(range(10_000)) - cancelled)
    totals = workers.statistics()
    assert (totals.submitted, totals.completed) == (10_000, 10_000)
    assert (totals.cancelled, totals.outstanding) == (len(cancelled), 0)


# -- statistics ------------------------------------------------------------------------------------


def test_statistics_are_a_frozen_snapshot(workers: procaio.Pool, gate: Gate) -> None:
    """Totals, and what each worker does at the moment."""
    gate.hold(workers, 2)
    failed = procaio.aio_stat("/no", pool=workers)
    eventually(lambda: failed.state == "pending", "it fails")
    now = workers.statistics()
    assert (now.submitted, now.completed, now.outstanding, now.pending) == (3, 0, 3, 1)
    busy = [worker for worker in now.workers if worker.operation]
    assert [(worker.state, worker.operation) for worker in busy] == [("execute", "read")] * 2
    assert {worker.pid for worker in now.workers} | {now.spawner_pid} <= children()
    assert sum(worker.taken for worker in now.workers) >= 3
    assert now.shared_bytes > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        now.submitted = 0
    gate.open(2)
    workers.flush()
    assert now.outstanding == 3
    after = workers.statistics()
    assert (after.completed, after.failed, after.outstanding, after.pending) == (3, 1, 0, 0)
    assert (after.rerun, after.died, after.worker_deaths, after.spawner_deaths) == (0, 0, 0, 0)


# -- the end ---------------------------------------------------------------------------------------


def test_close_of_the_default_pool_waits_for_what_callbacks_request() -> None:
    """Requests that callbacks make while the default pool closes belong to it, not to a new one."""
    seen = []
    procaio.aio_nop(lambda: procaio.aio_nop(lambda: seen.append(procaio.nreqs())))
    pool = procaio.default_pool()
    procaio.close()
    assert seen == [0]
    assert pool.closed
    assert procaio.default_pool() is not pool


def test_close_waits_for_everything_callbacks_included(gate: Gate) -> None:
    """Also for what callbacks ask for meanwhile."""
    seen: list[str] = []
    made = procaio.Pool()
    held = gate.hold(made)[0]
    held.cb(lambda _: procaio.aio_nop(lambda: seen.append("chained"), pool=made))
    opener = threading.Timer(0.05, gate.open)
    opener.start()
    made.close()
    opener.join()
    assert (held.result, seen, made.closed) == (b"x", ["chained"], True)
    assert repr(made) == "<Pool closed>"
    made.close()


def test_closed_pool_refuses_everything_with_pool_closed() -> None:
    """PoolClosed is a RuntimeError; counters are 0, and requests keep their results."""
    with procaio.Pool() as made:
        done = procaio.aio_nop(pool=made)
    for use in (
        lambda: procaio.aio_nop(pool=made),
        lambda: procaio.Buffer(1, made),
        made.poll_fileno,
        made.poll_cb,
        made.poll_wait,
        made.poll,
        made.statistics,
        lambda: made.min_parallel(9),
    ):
        with pytest.raises(procaio.PoolClosed):
            use()
    assert issubclass(procaio.PoolClosed, RuntimeError)
    assert (made.nreqs(), made.nready(), made.npending(), made.nworkers()) == (0, 0, 0, 0)
    made.flush()
    assert (done.state, done.wait(), done.cancel()) == ("done", None, False)
    assert repr(done) == "<Request nop done pri=0>"


def test_pool_that_is_lost_is_closed() -> None:
    """Nothing has to be closed to be gone."""
    made = procaio.Pool()
    procaio.aio_nop(pool=made).wait()
    alive = weakref.ref(made)
    before = children()
    del made
    gc.collect()
    assert alive() is None
    assert len(children()) < len(before)


def lent_mapping(pool: procaio.Pool) -> procaio.Mapping:
    """One that the workers of `pool` have mapped, too."""
    shared = procaio.MAP_SHARED | procaio.MAP_ANONYMOUS
    mapping = procaio.mmap(1, procaio.PROT_READ | procaio.PROT_WRITE, shared)
    with open("/dev/zero", "rb") as zero:
        assert procaio.aio_read(zero, None, 1, mapping, pool=pool).wait() == 1
    return mapping


@pytest.mark.parametrize(
    "make",
    [
        lambda pool: procaio.Buffer(1, pool),
        lambda pool: procaio.aio_nop(pool=pool),
        lambda pool: procaio.aio_group(pool=pool),
        lent_mapping,
    ],
    ids=["Buffer", "Request", "Group", "Mapping"],
)
def test_pool_in_a_cycle_with_what_it_made_is_closed(
    make: Callable[[procaio.Pool], object],
) -> None:
    """A service that a pool tells of deaths, and that keeps a Buffer, goes once nobody has it."""

    class Service:
        def __init__(self) -> None:
            self.pool = procaio.Pool()
            self.pool.on_worker_death(self.note)
            procaio.aio_nop(pool=self.pool)
            self.kept = make(self.pool)
            self.pool.flush()

        def note(self, *_: object) -> None:
            """The pool refers to the service from now on."""

    service = Service()
    alive = weakref.ref(service.pool)
    before = children()
    del service
    gc.collect()
    assert alive() is None
    assert len(children()) < len(before)


def test_many_pools_live_side_by_side(data_file: Path) -> None:
    """Each has its own processes, settings and requests."""
    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(procaio.Pool(workers=n)) for n in (1, 2, 3)]
        requests = [procaio.aio_stat(data_file, pool=one) for one in pools]
        assert [one.nreqs() for one in pools] == [1, 1, 1]
        assert len({one.poll_fileno() for one in pools}) == 3
        for request in reversed(requests):
            assert request.wait() == os.stat(data_file)


def test_requests_that_block_hold_no_other_pool_up(gate: Gate, data_file: Path) -> None:
    """What may wait for ever belongs into a pool of its own (O5)."""
    with procaio.Pool(workers=2) as blocked, procaio.Pool(workers=1) as free:
        held = gate.hold(blocked, 2)
        stuck = procaio.aio_access(data_file, os.R_OK, pool=blocked)
        assert procaio.aio_stat(data_file, pool=free).wait() == os.stat(data_file)
        assert [request.state for request in (*held, stuck)] == ["execute", "execute", "ready"]
        gate.open(2)


def test_default_pool_starts_on_first_use_and_again_after_close() -> None:
    """The module-level functions use one pool; two threads that need it at once get the same."""
    barrier = threading.Barrier(8)

    def first_use() -> procaio.Pool:
        barrier.wait()
        procaio.aio_nop()
        return procaio.default_pool()

    for _ in range(3):
        with ThreadPoolExecutor(8) as executor:
            pools = {future.result() for future in [executor.submit(first_use) for _ in range(8)]}
        assert len(pools) == 1
        assert procaio.nreqs() == 8
        procaio.close()
        assert pools.pop().closed
    procaio.close()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (ValueError, {"workers": 0}), (ValueError, {"workers": 257}), (TypeError, {"workers": "2"}),
        (TypeError, {"workers": None}), (ValueError, {"max_idle": -1}),
        (ValueError, {"idle_timeout": -1}), (ValueError, {"idle_timeout": math.nan}),
        (TypeError, {"idle_timeout": "1"}), (TypeError, {"unknown": 1}),
    ],
)  # fmt: skip
def test_wrong_settings_raise(kind: type[Exception], arguments: dict[str, Any]) -> None:
    with pytest.raises(kind):
        procaio.Pool(**arguments)
