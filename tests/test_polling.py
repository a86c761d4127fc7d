"""Polling: how a program learns of results, and what a callback may do to it (rules A2, A14, N)."""

from __future__ import annotations

import select
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Gate


def is_readable(pool: procaio.Pool, seconds: float = 0) -> bool:
    """What select() says of the pool's descriptor."""
    return bool(select.select([pool.poll_fileno()], [], [], seconds)[0])


def poll_until(pool: procaio.Pool, requests: list[procaio.Request]) -> None:
    """Poll as an event loop does: only when the descriptor says so."""
    while not all(request.state == "done" for request in requests):
        assert is_readable(pool, 20), "the descriptor stays silent"
        pool.poll_cb()


# -- interrupted from inside -----------------------------------------------------------------------


def test_descriptor_rings_again_after_exit_left_poll_cb(workers: procaio.Pool, gate: Gate) -> None:
    """An exception out of poll_cb does not make the descriptor miss what ends later (N1)."""

    def leave() -> None:
        raise SystemExit(3)

    held = gate.hold(workers)
    procaio.aio_nop(leave, pool=workers)
    with pytest.raises(SystemExit):
        workers.flush()
    gate.open()
    poll_until(workers, held)


def test_pool_closed_by_a_callback_that_exits_is_closed() -> None:
    """The worst that a callback can do to poll_cb ends with the exception, not with a crash."""
    pool = procaio.Pool(inline=True)

    def leave() -> None:
        pool.close()
        raise SystemExit(3)

    procaio.aio_nop(leave, pool=pool)
    with pytest.raises(SystemExit):
        pool.poll_cb()
    assert pool.closed


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
    """A signal handler runs soon while wait() sleeps, spins or is about to; the request goes on."""
    (held,) = gate.hold(workers)
    for microseconds in range(1, 1000, 29):
        procaio.aio_nop(pool=workers).wait()  # wakes the spinning up again
        with pytest.raises(Interrupted):  # noqa: PT012 - the alarm may come before wait()
            alarm(microseconds * 1e-6)
            held.wait(timeout=20)
        assert held.state == "execute"
    gate.open()
    assert held.wait() == b"x"


@pytest.mark.parametrize("sleep", ["poll_wait", "max_parallel"])
def test_descriptor_is_readable_after_the_program_slept(
    workers: procaio.Pool, gate: Gate, sleep: str
) -> None:
    """Whoever waits without processing leaves the descriptor readable for whoever processes (N1)."""
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


# -- several threads -------------------------------------------------------------------------------


def test_wait_in_one_thread_sees_whole_results_of_a_poll_in_another(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """A request is done for everybody when its value is there, not while it is still copied."""
    path = tmp_path / "large"
    path.write_bytes(bytes(32 << 20))
    with open(path, "rb") as file, ThreadPoolExecutor(1) as executor:
        for _ in range(20):
            request = procaio.aio_read(file, 0, 32 << 20, pool=workers)
            waiting = executor.submit(request.wait)
            workers.flush()
            assert len(waiting.result()) == 32 << 20


# -- exceptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_the_error_hook_leaves_poll_cb(
    pool: procaio.Pool, kind: type[BaseException]
) -> None:
    """Ctrl-C is not lost when it comes while the hook deals with another exception (A14)."""

    def interrupted(error: BaseException, request: procaio.Request) -> None:
        raise kind

    procaio.on_callback_error(interrupted)
    procaio.aio_nop(lambda: 1 / 0, pool=pool)
    rest = procaio.aio_nop(pool=pool)
    with pytest.raises(kind):
        pool.flush()
    pool.flush()
    assert rest.state == "done"
