"""Callbacks: what they may do, what happens when they fail, and who runs them (rules A2, A14)."""

from __future__ import annotations

import errno
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually
from test_polling import poll_until

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate


# -- inside callbacks ------------------------------------------------------------------------------


def test_wait_works_inside_a_callback(pool: procaio.Pool) -> None:
    """Callbacks of others run meanwhile; nothing is delivered twice."""
    seen: list[object] = []

    def outer() -> None:
        inner = procaio.aio_nop(lambda: seen.append("inner"), pool=pool)
        seen.append(inner.wait())
        seen.append("outer")

    procaio.aio_nop(outer, pool=pool)
    procaio.aio_nop(lambda: seen.append("other"), pool=pool)
    pool.flush()
    assert sorted(map(str, seen)) == ["None", "inner", "other", "outer"]
    assert seen.index("inner") < seen.index("outer")


def test_poll_cb_works_inside_a_callback(pool: procaio.Pool) -> None:
    """Each callback runs once, errno() is that of the innermost one running (A2, A8)."""
    seen: list[tuple[int, int]] = []

    def nested(number: int) -> None:
        before = procaio.errno()
        pool.poll_cb()
        seen.append((number, before))
        assert procaio.errno() == before

    for number in range(20):
        path = "/" if number % 2 else "/no"
        procaio.aio_stat(path, lambda _, n=number: nested(n), pool=pool)
    eventually(lambda: pool.npending() == 20, "all are executed")
    pool.flush()
    assert sorted(seen) == [(n, 0 if n % 2 else errno.ENOENT) for n in range(20)]


def test_wait_for_the_own_request_inside_its_callback_gives_the_value(
    pool: procaio.Pool, data_file: Path
) -> None:
    seen: list[object] = []
    request = procaio.aio_stat(data_file, lambda _: seen.append(request.wait()), pool=pool)
    pool.flush()
    assert seen == [request.result]


# -- exceptions in callbacks -----------------------------------------------------------------------


@pytest.mark.better
def test_exception_in_a_callback_goes_to_the_hook_and_stops_nobody(pool: procaio.Pool) -> None:
    """hook(exception, request); the request has ended, all others are processed (A14)."""
    caught: list[tuple[BaseException, object, str]] = []
    seen: list[int] = []
    default = procaio.on_callback_error(lambda e, r: caught.append((e, r, r.state)))
    assert default is None
    bad = procaio.aio_nop(lambda: 1 / 0, pool=pool)
    for number in range(3):
        procaio.aio_nop(lambda n=number: seen.append(n), pool=pool)
    eventually(lambda: pool.npending() == 4, "all are executed")
    assert pool.poll_cb() == 0
    assert seen == [0, 1, 2]
    ((error, request, state),) = caught
    assert isinstance(error, ZeroDivisionError)
    assert error.__traceback__ is not None
    assert (request, state) == (bad, "done")
    assert callable(procaio.on_callback_error(None))


def test_exception_without_a_hook_goes_to_the_unraisable_hook(
    pool: procaio.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is that of Python for what nobody can catch (A14)."""
    caught: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: caught.append(report.exc_type))
    procaio.aio_nop(lambda: 1 / 0, pool=pool).wait()
    assert caught == [ZeroDivisionError]


def test_exception_in_the_hook_goes_to_the_unraisable_hook(
    pool: procaio.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: caught.append(report.exc_type))
    procaio.on_callback_error(lambda _error, _request: {}[0])
    procaio.aio_nop(lambda: 1 / 0, pool=pool).wait()
    assert caught == [KeyError]


def test_hook_must_be_callable() -> None:
    with pytest.raises(TypeError):
        procaio.on_callback_error(3)
    assert procaio.on_callback_error(None) is None


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_callback_leaves_poll_cb_and_loses_nothing(
    pool: procaio.Pool, kind: type[BaseException]
) -> None:
    """It comes out at once; its request is done, the others are still there (A14)."""
    seen: list[int] = []

    def interrupt() -> None:
        raise kind

    procaio.on_callback_error(lambda error, _: pytest.fail(repr(error)))
    bad = procaio.aio_nop(interrupt, pool=pool, pri=4)
    rest = [procaio.aio_nop(lambda n=n: seen.append(n), pool=pool) for n in range(5)]
    eventually(lambda: pool.npending() == 6, "all are executed")
    with pytest.raises(kind):
        pool.poll_cb()
    assert (bad.state, pool.nreqs(), seen) == ("done", 5, [])
    poll_until(pool, rest)
    assert seen == [0, 1, 2, 3, 4]


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


def test_callbacks_that_all_exit_run_all_the_same_when_the_pool_is_closed() -> None:
    """However many there are: none has less of the stack than another."""
    pool = procaio.Pool(inline=True)
    called: list[None] = []

    def note() -> None:
        called.append(None)

    def leave() -> None:
        note()
        raise SystemExit(3)

    count = 2 * sys.getrecursionlimit()
    for _ in range(count):
        procaio.aio_nop(leave, pool=pool)
    with pytest.raises(SystemExit):
        pool.close()
    assert pool.closed
    assert len(called) == count


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


def test_threads_that_wait_for_one_pool_all_get_their_own(pool: procaio.Pool) -> None:
    """Whoever polls delivers for all; nobody waits beside a result, nothing is delivered twice."""
    delivered: list[tuple[int, int]] = []

    def work(thread: int) -> int:
        for number in range(150):
            request = procaio.aio_nop(
                lambda t=thread, n=number: delivered.append((t, n)), pool=pool
            )
            assert request.wait(timeout=60) is None
        return thread

    with ThreadPoolExecutor(6) as executor:
        assert list(executor.map(work, range(6))) == list(range(6))
    pool.flush()
    assert sorted(delivered) == [(t, n) for t in range(6) for n in range(150)]


def test_request_of_one_thread_may_be_waited_for_by_many(workers: procaio.Pool, gate: Gate) -> None:
    (held,) = gate.hold(workers)
    with ThreadPoolExecutor(4) as executor:
        waiting = [executor.submit(held.wait, 60) for _ in range(4)]
        gate.open()
        assert [future.result() for future in waiting] == [b"x"] * 4


def test_callbacks_run_in_the_thread_that_polls(pool: procaio.Pool) -> None:
    """Not in the one that made the request (A2)."""
    seen: list[int] = []
    maker = threading.Thread(
        target=lambda: procaio.aio_nop(lambda: seen.append(threading.get_ident()), pool=pool)
    )
    maker.start()
    maker.join()
    pool.flush()
    assert seen == [threading.get_ident()]
