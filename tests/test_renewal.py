"""The program becomes another user, or tries to become another program, in the midst of something.

Being one of a group for a moment is enough: each pool gets a new spawner.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually, has_stopped, is_running, kill
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Gate


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its groups")


def become_another_user() -> None:
    groups = os.getgroups()
    os.setgroups([*groups, 54321])
    os.setgroups(groups)


@pytest.fixture
def fail_to_exec(tmp_path: Path) -> Callable[[], None]:
    """An exec of what is executable, but no program."""
    path = tmp_path / "useless"
    path.touch(0o777)

    def fail() -> None:
        with pytest.raises(OSError, match="Exec format error"):
            os.execv(path, ["useless"])

    return fail


@pytest.fixture(params=[pytest.param("user", marks=needs_root), "program"])
def change(request: pytest.FixtureRequest, fail_to_exec: Callable[[], None]) -> Callable[[], None]:
    """Either of them."""
    return fail_to_exec if request.param == "program" else become_another_user


def pidfds() -> dict[int, int]:
    """Those that this process has, and the pids of whom they stand for."""
    found = {}
    for name in os.listdir("/proc/self/fdinfo"):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/self/fdinfo/{name}").read_text()
            if match := re.search(r"^Pid:\t(\d+)$", text, re.MULTILINE):
                found[int(name)] = int(match[1])
    return found


def is_in_set(pool: procaio.Pool, pidfd: int) -> bool:
    """Whether the spawner has entered it there."""
    text = Path(f"/proc/self/fdinfo/{pool.poll_fileno()}").read_text()
    return re.search(rf"^tfd: +{pidfd} ", text, re.MULTILINE) is not None


def test_request_is_executed_though_its_arguments_end_the_spawner(
    workers: procaio.Pool, change: Callable[[], None]
) -> None:
    class Path:
        def __fspath__(self) -> str:
            change()
            return "/"

    procaio.aio_nop(pool=workers).wait()
    assert procaio.aio_stat(Path(), pool=workers).wait(timeout=30) == os.stat("/")


def test_request_of_another_thread_survives_exec_that_fails(
    workers: procaio.Pool, fail_to_exec: Callable[[], None]
) -> None:
    """It comes when the pool, which had nothing to do, is about to end its workers."""
    procaio.aio_nop(pool=workers).wait()
    begin = threading.Event()
    asked: list[procaio.Request[os.stat_result]] = []

    def work() -> None:
        begin.wait()
        asked.append(procaio.aio_stat("/", pool=workers))

    thread = threading.Thread(target=work)
    thread.start()
    begin.set()
    fail_to_exec()
    thread.join()
    assert asked[0].wait(timeout=30) == os.stat("/")
    assert workers.statistics().died == 0


def test_worker_that_was_only_just_made_is_ended_before_an_exec(
    workers: procaio.Pool, fail_to_exec: Callable[[], None]
) -> None:
    """One that works already, when the spawner is killed before it has entered it into the set."""
    procaio.aio_nop(pool=workers).wait()  # nobody has looked for the worker since
    eventually(lambda: len(pidfds()) == 2, "the spawner and the worker have been made")
    _spawner, (pidfd, worker) = sorted(pidfds().items())
    eventually(lambda: is_in_set(workers, pidfd), "the spawner enters it")
    with select.epoll.fromfd(os.dup(workers.poll_fileno())) as epoll:
        epoll.unregister(pidfd)
    fail_to_exec()
    assert not is_running(worker)
    assert worker not in pidfds().values()
    assert procaio.aio_stat("/", pool=workers).wait(timeout=30) == os.stat("/")


def is_in_epoll(thread: threading.Thread) -> bool:
    with open(f"/proc/self/task/{thread.native_id}/wchan") as file:
        return "ep" in file.read()


@needs_root  # to see where a thread sleeps
def test_death_that_two_threads_see_is_that_of_one_worker(
    workers: procaio.Pool, gate: Gate
) -> None:
    """The one that is slower acts upon a number that another worker's pidfd has by then."""
    workers.max_parallel(2)
    spare = os.open("/dev/null", os.O_RDONLY)
    (held,) = gate.hold(workers)
    (first,) = workers.statistics().workers
    os.close(spare)  # the next worker 0 gets it, and worker 1 what the first has now

    def wait() -> None:
        with pytest.raises(procaio.WorkerDied):
            held.wait()

    slower = threading.Thread(target=wait)
    slower.start()
    eventually(lambda: is_in_epoll(slower), "it sleeps")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nothing from here on lets the other thread run
    try:
        os.kill(first.pid, signal.SIGKILL)
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass  # it has the event now
        while workers.statistics().worker_deaths == 0:
            workers.poll_cb()
        others = [procaio.aio_read(gate.fd, None, 1, pool=workers) for _ in range(2)]
        while any(request.state != "execute" for request in others):
            workers.nworkers()
        pids = {worker.number: worker.pid for worker in workers.statistics().workers}
        os.kill(pids[1], signal.SIGKILL)
    finally:
        sys.setswitchinterval(interval)
    slower.join(30)
    eventually(lambda: not is_running(pids[1]), "a worker that is killed takes nothing any more")
    gate.open()
    outcomes = []
    for request in others:
        try:
            outcomes.append(request.wait(timeout=30))
        except procaio.WorkerDied as error:
            outcomes.append(type(error))
    assert sorted(map(str, outcomes)) == sorted(map(str, [b"x", procaio.WorkerDied]))
    assert is_running(pids[0])


def refused(workers: procaio.Pool, path: Path, **keywords: float) -> procaio.Request[int]:
    """A request that a worker has given back, because it is older than the change."""
    workers.max_parallel(1)
    procaio.aio_nop(pool=workers).wait()
    (worker,) = workers.statistics().workers
    eventually(lambda: workers.statistics().workers[0].state == "sleep", "the worker sleeps")
    testing.arm(workers, "taken", signal.SIGSTOP)
    request = procaio.aio_mkdir(path, pool=workers, **keywords)
    eventually(lambda: has_stopped(worker.pid), "the worker stops")
    become_another_user()
    kill(worker.pid, signal.SIGCONT)
    eventually(lambda: request.state == "pending", "the worker gives it back")
    return request


@needs_root
@pytest.mark.parametrize("how", ["abort", "deadline"])
def test_request_that_was_given_back_ends_when_it_must(
    workers: procaio.Pool, tmp_path: Path, how: str
) -> None:
    request = refused(workers, tmp_path / "made", **({"timeout": 0} if how == "deadline" else {}))
    assert how == "deadline" or request.abort()
    with pytest.raises(OSError, match="the request") as raised:
        request.wait(timeout=30)
    assert raised.value.errno == (errno.ETIMEDOUT if how == "deadline" else errno.ECANCELED)
    assert not (tmp_path / "made").exists()


@needs_root
def test_request_that_was_given_back_can_be_cancelled(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    request = refused(workers, tmp_path / "made")
    request.cancel()
    workers.flush()
    assert request.state == "cancelled"
    assert not (tmp_path / "made").exists()


def test_pools_may_go_while_another_thread_fails_to_exec(tmp_path: Path) -> None:
    (tmp_path / "useless").touch(0o777)
    program = """
import contextlib, os, procaio, sys, threading

going = True

def change():
    while going:
        with contextlib.suppress(OSError):
            os.execv(sys.argv[1], ["useless"])

thread = threading.Thread(target=change)
thread.start()
for _ in range(15):
    pool = procaio.Pool(1, at_once=False)
    procaio.aio_nop(pool=pool).wait()
    pool = None
going = False
thread.join()
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "useless"], check=True, timeout=100)
