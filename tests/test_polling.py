"""Polling: how a program learns of results, and how it waits for them (rules N)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually, not_sanitized, run_fine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Gate


def is_readable(pool: procaio.Pool, seconds: float = 0) -> bool:
    """What select() says of the pool's descriptor."""
    return bool(select.select([pool.poll_fileno()], [], [], seconds)[0])


def poll_until(pool: procaio.Pool, requests: list[procaio.Request]) -> None:
    """Poll as an event loop does: only when the descriptor says so."""
    while not all(request.state == "done" for request in requests):
        assert is_readable(pool, 20), "the descriptor stays silent"
        pool.poll_cb()


# -- the descriptor --------------------------------------------------------------------------------


def test_descriptor_keeps_its_number_and_is_silent_without_results(pool: procaio.Pool) -> None:
    """The number never changes in the life of a pool (N9)."""
    number = pool.poll_fileno()
    for _ in range(3):
        procaio.aio_nop(pool=pool).wait()
        eventually(lambda: pool.poll_cb() == 0 and not is_readable(pool), "silence")
    assert pool.poll_fileno() == number


@pytest.mark.parametrize("kind", ["select", "poll", "epoll", "epoll-edge"])
def test_every_poller_learns_of_results(pool: procaio.Pool, kind: str) -> None:
    """The descriptor works with whatever watches descriptors."""
    with contextlib.ExitStack() as stack:
        ask: Callable[[], object]
        if kind == "select":
            ask = lambda: select.select([pool.poll_fileno()], [], [], 20)[0]  # noqa: E731
        elif kind == "poll":
            poller = select.poll()
            poller.register(pool.poll_fileno(), select.POLLIN)
            ask = lambda: poller.poll(20_000)  # noqa: E731
        else:
            epoll = stack.enter_context(select.epoll())
            edge = select.EPOLLET if kind == "epoll-edge" else 0
            epoll.register(pool.poll_fileno(), select.EPOLLIN | edge)
            ask = lambda: epoll.poll(20)  # noqa: E731
        for _ in range(200):
            request = procaio.aio_nop(pool=pool)
            while request.state != "done":
                assert ask(), "the descriptor stays silent"
                pool.poll_cb()


def test_descriptor_is_readable_as_long_as_results_wait(pool: procaio.Pool) -> None:
    """Level-triggered: looking at it does not silence it (N1)."""
    procaio.aio_nop(pool=pool)
    assert is_readable(pool, 20)
    for look in (pool.nreqs, pool.nready, pool.npending, pool.statistics, pool.poll_wait):
        look()
        assert is_readable(pool)
    assert pool.poll_cb() == 0


@pytest.mark.parametrize("sleep", ["poll_wait", "max_parallel"])
def test_descriptor_is_readable_after_the_program_slept(
    workers: procaio.Pool, gate: Gate, sleep: str
) -> None:
    """Who waits without processing leaves the descriptor readable for who processes (N1)."""
    held = gate.hold(workers)
    if sleep == "poll_wait":
        gate.open()
        workers.poll_wait()
    else:
        gate.open()
        workers.max_parallel(0)
        eventually(lambda: held[0].state == "pending", "the request is executed")
    assert is_readable(workers)
    assert workers.poll_cb() == 0
    assert held[0].result == b"x"
    eventually(lambda: workers.poll_cb() == 0 and not is_readable(workers), "silence again")
    workers.min_parallel(1)


@not_sanitized
def test_descriptor_is_readable_when_a_thread_in_wait_has_taken_the_ring(tmp_path: Path) -> None:
    """The loop delivers what that thread waits for, but not all that has come."""
    library = tmp_path / "held.so"
    options = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-shared", "-fPIC"]
    source = Path(__file__).parent / "native" / "held_sleep.c"
    subprocess.run(["cc", *options, "-o", library, source, "-ldl"], check=True, timeout=100)
    run_fine(
        """
        import ctypes, os, select, threading, time
        import procaio

        def until_ended(count):
            while pool.npending() < count:
                time.sleep(0.001)

        reached, go, read = os.pipe(), os.pipe(), os.pipe()
        with procaio.Pool(at_once=False) as pool:
            fd = pool.poll_fileno()
            procaio.aio_nop(pool=pool).wait()
            awaited = procaio.aio_read(read[0], None, 1, pool=pool)
            ctypes.CDLL(None).hold_next_sleep(reached[1], go[0])
            thread = threading.Thread(target=awaited.wait)
            thread.start()
            os.read(reached[0], 1)
            os.write(read[1], b"x")
            until_ended(1)
            later = procaio.aio_nop(pool=pool)
            until_ended(2)
            pool.max_poll_reqs(1)
            pool.poll_cb()
            assert (awaited.state, later.state) == ("done", "pending")
            os.write(go[1], b"x")
            thread.join()
            assert select.select([fd], [], [], 1)[0], "the descriptor stays silent"
            pool.poll_cb()
        print("fine")
        """,
        env=os.environ | {"LD_PRELOAD": str(library)},
    )


# -- poll_cb ---------------------------------------------------------------------------------------


def test_poll_cb_without_anything_to_do_returns_zero(pool: procaio.Pool) -> None:
    """0 = all processed, also when there was nothing (N2)."""
    assert (pool.poll_cb(), pool.poll(), pool.poll_wait()) == (0, 0, None)
    pool.flush()


def test_poll_cb_does_not_wait_for_what_runs(workers: procaio.Pool, gate: Gate) -> None:
    gate.hold(workers)
    assert workers.poll_cb() == 0
    assert workers.nreqs() == 1
    gate.open()
    workers.flush()


def test_max_poll_reqs_limits_one_call(pool: procaio.Pool) -> None:
    """-1 = something is left, and only then (N2); the descriptor stays readable (N1, N3)."""
    assert pool.max_poll_reqs() == 0
    assert pool.max_poll_reqs(3) == 0
    seen: list[int] = []
    for number in range(7):
        procaio.aio_nop(lambda n=number: seen.append(n), pool=pool)
    eventually(lambda: pool.npending() == 7, "all are executed")
    assert (pool.poll_cb(), len(seen), is_readable(pool)) == (-1, 3, True)
    assert (pool.poll_cb(), len(seen), is_readable(pool)) == (-1, 6, True)
    assert (pool.poll_cb(), len(seen)) == (0, 7)
    assert pool.max_poll_reqs(0) == 3


def test_max_poll_reqs_that_is_just_enough_leaves_nothing(pool: procaio.Pool) -> None:
    """All processed is 0, also when the limit was reached with the last one (N2)."""
    pool.max_poll_reqs(2)
    requests = [procaio.aio_nop(pool=pool) for _ in range(2)]
    eventually(lambda: pool.npending() == 2, "both are executed")
    assert pool.poll_cb() == 0
    assert {request.state for request in requests} == {"done"}


def test_max_poll_time_is_the_minimum_granted(pool: procaio.Pool) -> None:
    """However short the time, at least one request is processed; 0 = no limit (N3)."""
    assert pool.max_poll_time() == 0
    assert pool.max_poll_time(1e-9) == 0
    seen: list[int] = []
    for number in range(3):
        procaio.aio_nop(lambda n=number: seen.append(n), pool=pool)
    eventually(lambda: pool.npending() == 3, "all are executed")
    assert (pool.poll_cb(), seen) == (-1, [0])
    assert pool.max_poll_time(1000) == 1e-9
    assert (pool.poll_cb(), seen) == (0, [0, 1, 2])


@pytest.mark.parametrize(
    "setting", ["max_poll_reqs", "max_poll_time", "max_outstanding", "exit_timeout"]
)
def test_settings_refuse_what_makes_no_sense(pool: procaio.Pool, setting: str) -> None:
    """ValueError or TypeError, and the setting stays; without a value it is only told."""
    set_ = getattr(pool, setting)
    before = set_()
    for wrong in (-1, float("nan")) if setting in {"max_poll_time", "exit_timeout"} else (-1,):
        with pytest.raises(ValueError, match="must"):
            set_(wrong)
    with pytest.raises(TypeError):
        set_("1")
    assert set_() == before


def test_callback_that_always_asks_again_does_not_keep_poll_cb(pool: procaio.Pool) -> None:
    """One call processes what is there; what callbacks ask for is for the next call."""
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        if count < 50:
            procaio.aio_nop(again, pool=pool)
        if pool._inline:
            assert pool.npending() == (count < 50)

    procaio.aio_nop(again, pool=pool)
    calls = 0
    while pool.nreqs():
        pool.poll_wait()
        pool.poll_cb()
        calls += 1
    assert count == 50
    assert calls > 1


def test_max_outstanding_blocks_poll_cb_not_the_calls(workers: procaio.Pool, gate: Gate) -> None:
    """Making requests never blocks; poll_cb waits until few enough are left (N7)."""
    workers.max_parallel(1)
    workers.max_outstanding(2)
    held = gate.hold(workers)
    more = [procaio.aio_nop(pool=workers) for _ in range(50)]
    assert workers.nreqs() == 51
    opener = threading.Timer(0.05, gate.open)
    opener.start()
    workers.poll_cb()
    assert held[0].state == "done"
    assert workers.nreqs() <= 2
    workers.max_outstanding(0)
    workers.flush()
    opener.join()
    assert {request.state for request in more} == {"done"}


def test_max_poll_reqs_and_max_poll_time_hold_together(pool: procaio.Pool) -> None:
    """Whichever limit is reached first ends the call (N3)."""
    for _ in range(10):
        procaio.aio_nop(pool=pool)
    eventually(lambda: pool.npending() == 10, "all are executed")
    for requests, seconds, left in ((3, 1000, 7), (3, 1e-9, 6), (100, 1e-9, 5), (0, 1e-9, 4)):
        pool.max_poll_reqs(requests)
        pool.max_poll_time(seconds)
        assert (pool.poll_cb(), pool.nreqs()) == (-1, left)
    pool.max_poll_time(0)
    assert (pool.poll_cb(), pool.nreqs()) == (0, 0)


def test_limits_of_poll_cb_do_not_keep_flush_and_wait(pool: procaio.Pool) -> None:
    """They are for one call of poll_cb; who waits for something gets it (N3)."""
    pool.max_poll_reqs(1)
    pool.max_poll_time(1e-9)
    requests = [procaio.aio_nop(pool=pool) for _ in range(20)]
    requests[9].wait()
    assert requests[9].state == "done"
    pool.flush()
    assert {request.state for request in requests} == {"done"}


def test_max_outstanding_counts_groups_and_what_they_are_fed(pool: procaio.Pool) -> None:
    """poll_cb goes on until few enough are left, however many the feeder makes (N7, M7)."""
    made = [0]
    group = procaio.aio_group(pool=pool)

    def feeder(_: procaio.Group) -> None:
        if made[0] < 100:
            made[0] += 1
            group.add(procaio.aio_nop(pool=pool))

    pool.max_outstanding(5)
    group.limit(20)
    group.feed(feeder)
    assert pool.nreqs() == 21
    while pool.nreqs():
        pool.poll_cb()
        assert pool.nreqs() <= 5
    assert (made, group.state) == ([100], "done")


def test_nreqs_is_lowered_before_the_callback_runs(pool: procaio.Pool) -> None:
    """A callback may ask for the next request when fewer than so many are out (N8)."""
    seen: list[int] = []
    procaio.aio_nop(lambda: seen.append(pool.nreqs()), pool=pool).wait()
    assert seen == [0]


def test_counters_follow_the_states(workers: procaio.Pool, gate: Gate) -> None:
    """nready, npending and nreqs tell where the requests are."""
    workers.max_parallel(1)
    gate.hold(workers)
    for _ in range(4):
        procaio.aio_nop(pool=workers)
    assert (workers.nready(), workers.npending(), workers.nreqs()) == (4, 0, 5)
    gate.open()
    eventually(lambda: workers.npending() == 5, "all are executed")
    assert (workers.nready(), workers.nreqs()) == (0, 5)
    workers.flush()
    assert (workers.nready(), workers.npending(), workers.nreqs()) == (0, 0, 0)


# -- waiting ---------------------------------------------------------------------------------------


def test_poll_wait_returns_at_once_when_something_is_pending(
    workers: procaio.Pool, gate: Gate
) -> None:
    """It does not wait for more; it processes nothing (N4)."""
    gate.hold(workers)
    request = procaio.aio_nop(pool=workers)
    eventually(lambda: request.state == "pending", "one is executed")
    workers.poll_wait()
    workers.poll_wait()
    assert request.state == "pending"
    gate.open()
    workers.flush()


def test_poll_wait_ignores_what_is_no_result(
    workers: procaio.Pool, gate: Gate, alarm: Callable[[float], None]
) -> None:
    """Neither signals nor the death of an idle worker end it: only a result does."""
    gate.hold(workers)
    ticks: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1) or tick())

    def tick() -> None:
        if len(ticks) == 5:
            gate.open()

    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        workers.poll_wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(ticks) >= 5
    assert workers.npending() == 1
    workers.flush()


def test_poll_waits_and_tells_how_many(pool: procaio.Pool) -> None:
    """At least one; 0 only when nothing is outstanding."""
    for _ in range(5):
        procaio.aio_nop(pool=pool)
    total = 0
    while number := pool.poll():
        total += number
    assert total == 5


def test_flush_waits_for_what_callbacks_ask_for(pool: procaio.Pool) -> None:
    """Until nothing is outstanding, chains of callbacks included."""
    seen: list[int] = []

    def step(number: int) -> None:
        seen.append(number)
        if number < 20:
            procaio.aio_nop(lambda: step(number + 1), pool=pool)

    procaio.aio_nop(lambda: step(0), pool=pool)
    pool.flush()
    assert seen == list(range(21))


# -- signals ---------------------------------------------------------------------------------------


@pytest.fixture
def alarm() -> Iterator[Callable[[float], None]]:
    """Raise Interrupted in the main thread after some seconds."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    previous = signal.signal(signal.SIGALRM, interrupt)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


class Interrupted(Exception):  # noqa: N818 - like KeyboardInterrupt
    """What the alarm raises."""


def test_signal_interrupts_wait_whenever_it_comes(
    workers: procaio.Pool, gate: Gate, alarm: Callable[[float], None]
) -> None:
    """A signal handler runs soon while wait() sleeps or spins, or is about to; it goes on."""
    (held,) = gate.hold(workers)
    for microseconds in range(1, 1000, 29):
        procaio.aio_nop(pool=workers).wait()  # wakes the spinning up again
        with pytest.raises(Interrupted):  # noqa: PT012 - the alarm may come before wait()
            alarm(microseconds * 1e-6)
            held.wait(timeout=20)
        assert held.state == "execute"
    gate.open()
    assert held.wait() == b"x"


def test_signal_handler_may_close_the_pool_that_is_waited_for() -> None:
    """close() in a signal handler ends the waiting instead of waiting for it."""
    pool = procaio.Pool()
    request = procaio.aio_busy(0.2, pool=pool)
    previous = signal.signal(signal.SIGALRM, lambda *_: pool.close())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        assert request.wait(timeout=20) is None
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert pool.closed


# -- the default pool ------------------------------------------------------------------------------


def test_default_pool_is_polled_by_the_module(tmp_path: Path) -> None:
    """The functions of the module and the methods of the default pool are the same."""
    seen: list[object] = []
    procaio.aio_stat(tmp_path, seen.append)
    pool = procaio.default_pool()
    assert procaio.poll_fileno() == pool.poll_fileno()
    assert (procaio.nreqs(), pool.nreqs()) == (1, 1)
    procaio.poll_wait()
    assert (procaio.nready(), procaio.npending()) == (0, 1)
    assert procaio.poll_cb() == 0
    procaio.aio_nop()
    assert procaio.poll() == 1
    procaio.flush()
    assert seen == [os.stat(tmp_path)]
    assert procaio.nworkers() == pool.nworkers() >= 1
    for name in ("max_poll_reqs", "max_poll_time", "max_outstanding", "exit_timeout"):
        before = getattr(procaio, name)(7)
        assert getattr(pool, name)() == getattr(procaio, name)(before) == 7
