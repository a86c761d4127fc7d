"""Priorities: higher first, first come first served within one (rules B)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
from conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate


# -- the next request's priority -------------------------------------------------------------------


def test_priority_is_zero_unless_set(pool: procaio.Pool) -> None:
    assert procaio.aioreq_pri() == 0
    assert procaio.aio_nop(pool=pool).pri == 0
    pool.flush()


def test_aioreq_pri_sets_the_next_request_and_returns_the_previous(pool: procaio.Pool) -> None:
    """Called without a value it only tells (B2)."""
    assert procaio.aioreq_pri(3) == 0
    assert procaio.aioreq_pri() == 3
    assert procaio.aioreq_pri(None) == 3
    assert procaio.aioreq_pri(-2) == 3
    assert procaio.aio_nop(pool=pool).pri == -2
    pool.flush()


@pytest.mark.parametrize(
    ("given_", "kept"), [(5, 4), (4, 4), (-4, -4), (-5, -4), (2**80, 4), (-(2**80), -4), (True, 1)]
)
def test_priorities_are_clamped(pool: procaio.Pool, given_: int, kept: int) -> None:
    """-4 to 4, whatever is asked for, in both ways of asking (B1)."""
    procaio.aioreq_pri(given_)
    assert procaio.aioreq_pri() == kept
    assert procaio.aio_nop(pool=pool).pri == kept
    assert procaio.aio_nop(pool=pool, pri=given_).pri == kept
    pool.flush()


def test_priority_is_reset_after_every_request(pool: procaio.Pool, tmp_path: Path) -> None:
    """Every successful call uses it up, aio_nop and an explicit pri= included (B3)."""
    for call in (
        lambda: procaio.aio_nop(pool=pool),
        lambda: procaio.aio_stat(tmp_path, pool=pool),
        lambda: procaio.aio_close(-1, pool=pool),
        lambda: procaio.aio_nop(pool=pool, pri=1),
    ):
        procaio.aioreq_pri(4)
        call()
        assert procaio.aioreq_pri() == 0
    pool.flush()


@pytest.mark.parametrize("wrong", ["1", 1.0, []])
def test_aioreq_pri_with_a_wrong_value_raises_and_changes_nothing(wrong: object) -> None:
    procaio.aioreq_pri(2)
    with pytest.raises(TypeError):
        procaio.aioreq_pri(wrong)
    with pytest.raises(TypeError):
        procaio.aioreq_nice(wrong)
    assert procaio.aioreq_pri(0) == 2


@given(st.lists(st.integers(-(2**70), 2**70), max_size=6))
def test_aioreq_nice_subtracts_and_accumulates(steps: list[int]) -> None:
    """Nicer is lower; clamped at every step (B4)."""
    procaio.aioreq_pri(0)
    expected = 0
    for step in steps:
        procaio.aioreq_nice(step)
        expected = max(-4, min(4, expected - step))
    assert procaio.aioreq_pri(0) == expected


def test_priority_belongs_to_the_thread_that_set_it(pool: procaio.Pool) -> None:
    """Requests may be made in any thread; they do not take each other's priority (A2)."""
    seen: list[int] = []

    def other() -> None:
        procaio.aioreq_pri(-3)
        seen.append(procaio.aio_nop(pool=pool).pri)

    procaio.aioreq_pri(2)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [-3]
    assert procaio.aio_nop(pool=pool).pri == 2
    pool.flush()


# -- order -----------------------------------------------------------------------------------------


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(priorities=st.lists(st.integers(-4, 4), max_size=40))
def test_results_are_delivered_in_priority_order(pool: procaio.Pool, priorities: list[int]) -> None:
    """Within one poll_cb higher ones come first, equal ones as they were made (B5)."""
    seen: list[tuple[int, int]] = []
    if not pool._inline:
        pool.min_parallel(1)
        pool.max_parallel(1)
    for number, pri in enumerate(priorities):
        procaio.aio_nop(lambda pri=pri, n=number: seen.append((-pri, n)), pool=pool, pri=pri)
    eventually(lambda: pool.npending() == len(priorities), "all are executed")
    pool.flush()
    if pool._inline:
        assert seen == sorted(seen)
    else:  # one worker executes in the order of the request lanes as far as it found them
        by_priority: dict[int, list[int]] = {}
        for pri, number in seen:
            by_priority.setdefault(pri, []).append(number)
        assert all(numbers == sorted(numbers) for numbers in by_priority.values())
        assert [pri for pri, _ in seen] == sorted(pri for pri, _ in seen)


def test_waiting_requests_are_executed_in_priority_order(
    workers: procaio.Pool, gate: Gate, tmp_path: Path
) -> None:
    """A worker that becomes free takes the highest, then the oldest (B5)."""
    workers.max_parallel(1)
    held = gate.hold(workers)
    log = open(tmp_path / "log", "wb+", buffering=0)  # noqa: SIM115 - closed below
    expected = []
    for number in range(90):
        pri = (number * 7) % 9 - 4
        text = f"{-pri:+d} {number:02d}\n"
        procaio.aio_write(log, None, None, text.encode(), pool=workers, pri=pri)
        expected.append((-pri, number))
    gate.open()
    held[0].wait()
    workers.flush()
    log.seek(0)
    lines = [line.split() for line in log.read().decode().splitlines()]
    log.close()
    assert [(int(pri), int(number)) for pri, number in lines] == sorted(expected)


def test_high_priority_overtakes_when_all_slots_are_taken(
    workers: procaio.Pool, gate: Gate
) -> None:
    """Also what waits in the program, for want of a slot, is passed by a higher one (B5)."""
    workers.max_parallel(1)
    held = gate.hold(workers)
    seen: list[str] = []
    for _ in range(3000):
        procaio.aio_nop(lambda: seen.append("low"), pool=workers, pri=-1)
    late = procaio.aio_nop(lambda: seen.append("late"), pool=workers, pri=0)
    first = procaio.aio_read(gate.fd, None, 1, pool=workers, pri=4)
    gate.open()
    held[0].wait()
    eventually(lambda: first.state == "execute", "the highest is taken first")
    assert (late.state, seen) == ("ready", [])
    gate.open()
    workers.flush()
    assert seen == ["late"] + ["low"] * 3000


def test_statistics_tell_the_queue_of_each_priority(workers: procaio.Pool, gate: Gate) -> None:
    workers.max_parallel(1)
    gate.hold(workers)
    for pri in range(-4, 5):
        for _ in range(pri + 5):
            procaio.aio_nop(pool=workers, pri=pri)
    assert workers.statistics().queued == {pri: pri + 5 for pri in range(4, -5, -1)}
    assert workers.nready() == sum(range(1, 10))
    gate.open()
    workers.flush()
    assert set(workers.statistics().queued.values()) == {0}
