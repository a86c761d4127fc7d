"""Copies that are ended in the middle, by deadlines or abort(): who removes the part, and when."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually, has_stopped, kill
from ending import Force, deadlines, nobody_was_hurt, works
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Gate


def deaths(pool: procaio.Pool) -> int:
    """Of workers, seen as soon as they happen."""
    pool._sleep(0)
    pool.poll_cb()
    return pool.statistics().worker_deaths


@contextlib.contextmanager
def copy_in_the_middle(
    pool: procaio.Pool, gate: Gate, target: Path, **keywords: Any
) -> Iterator[procaio.Request[int]]:
    """A copy whose worker has written some, and waits for more."""
    writing = os.open(gate.path, os.O_WRONLY)
    os.write(writing, b"some")
    request = procaio.aio_copy(gate.path, target, pool=pool, **keywords)
    eventually(lambda: request.copied == 4, "the copy comes to the middle")
    yield request
    os.close(writing)


def test_copy_in_the_middle_ends_and_leaves_no_part(
    workers: procaio.Pool, gate: Gate, tmp_path: Path, force: Force
) -> None:
    target = tmp_path / "target"
    with copy_in_the_middle(workers, gate, target, **force.keywords) as request:
        error = force.end(request)
    assert (error.filename, error.filename2) == (gate.path, target)
    assert not target.exists()
    assert nobody_was_hurt(workers)


def test_part_that_waits_for_its_removal_when_it_is_aborted_is_removed(
    workers: procaio.Pool, gate: Gate, tmp_path: Path
) -> None:
    """Its first worker has died, and no other one is allowed to run."""
    target = tmp_path / "target"
    with copy_in_the_middle(workers, gate, target) as request:
        (pid,) = [worker.pid for worker in workers.statistics().workers]
        workers._wanted(0)
        kill(pid)
        eventually(
            lambda: workers.poll_cb() == 0 and workers.statistics().worker_deaths == 1, "the burial"
        )
        assert (request.state, target.exists()) == ("ready", True)
        assert request.abort()
        workers._wanted(1)
        with pytest.raises(procaio.WorkerDied):
            request.wait(timeout=30)
    assert not target.exists()


def test_copy_ends_though_the_worker_that_removes_its_part_stops(
    workers: procaio.Pool, gate: Gate, tmp_path: Path, force: Force
) -> None:
    """Then the part stays; who has stopped is replaced."""
    target = tmp_path / "target"
    workers.max_parallel(1)
    with copy_in_the_middle(workers, gate, target, **force.keywords) as request:
        testing.arm(workers, "taken", signal.SIGSTOP)
        force.end(request)
        eventually(
            lambda: workers.poll_cb() == 0 and workers.statistics().aborted == 2,
            "who has stopped is ended, too",
        )
    assert works(workers)
    assert target.exists()
    eventually(lambda: workers.poll_cb() == 0 and deadlines(workers) == 0, "all is forgotten")
    assert workers.nreqs() == 0
    assert nobody_was_hurt(workers)


def test_part_is_removed_though_a_worker_dies_over_that(
    workers: procaio.Pool, gate: Gate, tmp_path: Path, force: Force
) -> None:
    target = tmp_path / "target"
    workers.max_parallel(1)
    with copy_in_the_middle(workers, gate, target, **force.keywords) as request:
        testing.arm(workers, "taken")
        force.end(request)
        eventually(lambda: workers._sleep(0) or not target.exists(), "the next one removes it")
    assert works(workers)
    statistics = workers.statistics()
    assert (statistics.aborted, statistics.worker_deaths, statistics.died) == (1, 1, 0)


def test_part_stays_when_three_workers_died_over_its_removal(
    workers: procaio.Pool, gate: Gate, tmp_path: Path, force: Force
) -> None:
    """Others die over closing what the copy had open: of twelve deaths three are over the part."""
    target = tmp_path / "target"
    workers.max_parallel(1)
    with copy_in_the_middle(workers, gate, target, **force.keywords) as request:
        testing.arm(workers, "taken", always=True)
        force.end(request)
        with pytest.warns(procaio.CrashLoopWarning):
            eventually(lambda: deaths(workers) >= 12, "they die")
        testing.disarm(workers)
    assert works(workers)
    eventually(lambda: workers.poll_cb() == 0 and deadlines(workers) == 0, "all is forgotten")
    assert target.exists()
    assert (workers.nreqs(), workers.statistics().aborted, workers.statistics().died) == (0, 1, 0)


def test_exactly_three_workers_are_let_die_over_a_part(
    workers: procaio.Pool, gate: Gate, tmp_path: Path
) -> None:
    """Each stops before it does anything, and is killed when it is seen what it was to do."""
    target = tmp_path / "target"
    workers.max_parallel(1)
    over_part: dict[int, bool] = {}

    def is_over() -> bool:
        deaths(workers)
        for worker in workers.statistics().workers:
            if has_stopped(worker.pid) and worker.pid not in over_part:
                over_part[worker.pid] = request.state == "execute"
                kill(worker.pid)
        return request.state == "done"

    with copy_in_the_middle(workers, gate, target) as request:
        (first,) = workers.statistics().workers
        testing.arm(workers, "taken", signal.SIGSTOP, always=True)
        kill(first.pid)
        eventually(is_over, "the request ends")
        testing.disarm(workers)
    assert request.errno == errno.EIO
    assert sum(over_part.values()) == 3
    assert target.exists()


def test_part_is_removed_though_its_request_is_aborted_when_a_worker_is_about_to_do_that(
    workers: procaio.Pool, gate: Gate, tmp_path: Path
) -> None:
    """It ends with what its first worker has died of."""
    target = tmp_path / "target"
    workers.max_parallel(1)
    with copy_in_the_middle(workers, gate, target) as request:
        (worker,) = workers.statistics().workers
        testing.arm(workers, "taken", signal.SIGSTOP)
        kill(worker.pid)
        eventually(
            lambda: deaths(workers) == 1 and request.state == "execute",
            "another worker is about to remove the part",
        )
        assert request.abort()
        with pytest.raises(procaio.WorkerDied):
            request.wait(timeout=30)
    assert not target.exists()
    assert workers.statistics().aborted == 1


def test_part_is_removed_after_its_request_has_ended_if_no_worker_came_before(
    workers: procaio.Pool, gate: Gate, tmp_path: Path, force: Force
) -> None:
    """The request does not wait for that; nreqs() does not count it, close() waits for it."""
    target = tmp_path / "target"
    with copy_in_the_middle(workers, gate, target, **force.keywords) as request:
        workers._wanted(0)
        force.end(request)
        assert target.exists()
        assert workers.nreqs() == 0
        workers._wanted(1)
        workers._sleep(0)
        eventually(lambda: workers.poll_cb() == 0 and not target.exists(), "it is removed")
    assert works(workers)
