"""The program becomes another user: nothing is done with rights that it has given up."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually, in_child, is_running, kill, process_state, succeeds
from procaio import testing
from programs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Gate

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]

SOMEBODY, OTHERS, GROUP = 4711, 4712, 4713
CAPABILITIES_3, KEEP_CAPABILITIES = 0x20080522, 8
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID = 1, 2, 6, 7
libc = ctypes.CDLL(None, use_errno=True)


def by_c(name: str, *arguments: Any) -> None:
    """Call a function of the C library, without anything of Python's noticing."""
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def have_only(*capabilities: int) -> None:
    """Give up all capabilities but these."""
    bits = sum(1 << number for number in capabilities)
    header = struct.pack("Ii", CAPABILITIES_3, 0)
    by_c("capset", header, struct.pack("6I", bits, bits, 0, 0, 0, 0))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may use; `secret` in it is root's, `shared` a group's."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    (made / "secret").write_bytes(b"secret")
    (made / "secret").chmod(0o600)
    (made / "shared").write_bytes(b"shared")
    os.chown(made / "shared", OTHERS, GROUP)
    (made / "shared").chmod(0o040)
    yield made
    shutil.rmtree(made)


def outcome(request: procaio.Request[Any]) -> Any:
    """The bytes that were read, or the errno."""
    try:
        return request.wait()
    except OSError as error:
        return error.errno


def busy(pool: procaio.Pool, count: int = 4) -> None:
    """Have `count` workers or more."""
    while len(pool.statistics().workers) < count:
        for request in [procaio.aio_busy(0.01, pool=pool) for _ in range(count)]:
            request.wait()


def load(path: Path, pool: procaio.Pool) -> procaio.Request[bytes]:
    """Read a whole file in a worker, which opens it by name."""
    return procaio.aio_load(path, pool=pool)


# -- the first request after the change ------------------------------------------------------------

USER_CHANGES: dict[str, Callable[[], object]] = {
    "os.setuid": lambda: os.setuid(SOMEBODY),
    "os.seteuid": lambda: os.seteuid(SOMEBODY),
    "os.setreuid": lambda: os.setreuid(SOMEBODY, SOMEBODY),
    "os.setresuid": lambda: os.setresuid(SOMEBODY, SOMEBODY, 0),
    "setuid in C": lambda: by_c("setuid", SOMEBODY),
    "seteuid in C": lambda: by_c("seteuid", SOMEBODY),
    "setresuid in C": lambda: by_c("setresuid", SOMEBODY, SOMEBODY, SOMEBODY),
    "setfsuid in C": lambda: libc.setfsuid(SOMEBODY),
    "capset in C": lambda: (have_only(CAP_SETUID), os.setuid(SOMEBODY)),
}
GROUP_CHANGES: dict[str, Callable[[], object]] = {
    "os.setgid": lambda: os.setgid(SOMEBODY),
    "os.setegid": lambda: os.setegid(SOMEBODY),
    "os.setregid": lambda: os.setregid(SOMEBODY, SOMEBODY),
    "os.setresgid": lambda: os.setresgid(SOMEBODY, SOMEBODY, SOMEBODY),
    "os.setgroups": lambda: (os.setgid(SOMEBODY), os.setgroups([])),
    "os.initgroups": lambda: (os.setgid(SOMEBODY), os.initgroups("nobody", SOMEBODY)),
    "setgid in C": lambda: by_c("setgid", SOMEBODY),
    "setresgid in C": lambda: by_c("setresgid", SOMEBODY, SOMEBODY, SOMEBODY),
    "setgroups in C": lambda: by_c("setgroups", 0, None),
}


@pytest.mark.parametrize("way", USER_CHANGES)
def test_requests_made_by_another_user_are_executed_as_that_user(place: Path, way: str) -> None:
    """From the first one on, although workers of the old one are there, and without any poll."""

    def work() -> None:
        pool = procaio.Pool()
        busy(pool)
        assert outcome(load(place / "secret", pool)) == b"secret"
        USER_CHANGES[way]()
        requests = [load(place / "secret", pool) for _ in range(50)]
        assert {outcome(request) for request in requests} == {errno.EACCES}
        pool.close()

    assert succeeds(in_child(work))


@pytest.mark.parametrize("way", GROUP_CHANGES)
def test_requests_made_in_other_groups_are_executed_in_those(place: Path, way: str) -> None:
    """Likewise, where the groups decide: for who may not open everything anyway."""

    def work() -> None:
        os.setgroups([GROUP] if "groups" in way and "init" not in way else [])
        if "groups" not in way or "init" in way:
            os.setgid(GROUP)
        have_only(CAP_SETGID, CAP_SETUID)
        pool = procaio.Pool()
        busy(pool)
        assert outcome(load(place / "shared", pool)) == b"shared"
        GROUP_CHANGES[way]()
        requests = [load(place / "shared", pool) for _ in range(50)]
        assert {outcome(request) for request in requests} == {errno.EACCES}
        pool.close()

    assert succeeds(in_child(work))


def test_capabilities_given_up_in_c_are_given_up_in_workers(place: Path) -> None:
    """The user stays root, and may not open everybody's files any more."""
    os.chown(place / "secret", OTHERS, OTHERS)

    def work() -> None:
        pool = procaio.Pool()
        busy(pool)
        assert outcome(load(place / "secret", pool)) == b"secret"
        have_only(CAP_SETUID)
        assert outcome(load(place / "secret", pool)) == errno.EACCES
        pool.close()

    assert succeeds(in_child(work))


@pytest.mark.parametrize("way", ["os.setgid", "os.setegid", "os.setregid", "os.setresgid"])
def test_new_files_get_the_group_that_the_program_has_since(place: Path, way: str) -> None:
    """Also where that is no question of rights: who may open everything has other groups, too."""

    def work() -> None:
        pool = procaio.Pool()
        busy(pool)
        procaio.aio_nop(pool=pool)  # with it the program looks, and next after a poll
        GROUP_CHANGES[way]()
        paths = [place / f"new{number}" for number in range(20)]
        opened = [procaio.aio_open(path, os.O_CREAT, pool=pool) for path in paths]
        for request in opened:
            request.wait().close()
        assert {os.stat(path).st_gid for path in paths} == {SOMEBODY}
        pool.close()

    assert succeeds(in_child(work))


def test_groups_changed_in_c_are_found_out_when_the_program_polls(place: Path) -> None:
    """Where it may open everything: not with the first request, but soon."""

    def work() -> None:
        pool = procaio.Pool()
        busy(pool)
        by_c("setgid", SOMEBODY)

        def is_known() -> bool:
            path = place / "new"
            procaio.aio_open(path, os.O_CREAT, pool=pool).wait().close()
            known = os.stat(path).st_gid == SOMEBODY
            path.unlink()
            return known

        eventually(is_known, "it has the group")
        pool.close()

    assert succeeds(in_child(work))


def test_function_that_was_imported_before_is_as_good(place: Path) -> None:
    """`from os import setuid` at the top of a program is Python's own function for ever."""
    program = f"""
from os import setuid
import procaio
from procaio import testing
pool = procaio.Pool()
assert procaio.aio_load("{place}/secret", pool=pool).wait() == b"secret"
setuid({SOMEBODY})
requests = [procaio.aio_load("{place}/secret", pool=pool) for _ in range(50)]
pool.flush()
print({{request.errno for request in requests}})
"""
    assert run_python(program) == f"{{{errno.EACCES}}}\n"


def test_change_that_fails_changes_nothing(place: Path) -> None:
    """The exception is Python's own, and the pool goes on as it was."""

    def work() -> None:
        os.seteuid(SOMEBODY)
        pool = procaio.Pool()
        assert outcome(load(place / "secret", pool)) == errno.EACCES
        before = pool.statistics().spawner_pid
        for wrong in (OTHERS, -2):
            with pytest.raises((PermissionError, OverflowError)):
                os.setuid(wrong)
        with pytest.raises(TypeError):
            os.setuid()  # type: ignore[call-arg]
        assert outcome(load(place / "secret", pool)) == errno.EACCES
        assert pool.statistics().spawner_pid == before
        pool.close()

    assert succeeds(in_child(work))


@pytest.mark.parametrize("turns", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_rights_are_taken_and_given_up_again_and_again(place: Path, turns: int) -> None:
    """Every request is done as who made it; no worker is taken for one that died."""

    def work() -> None:
        pool = procaio.Pool()
        other = procaio.Pool()
        for turn in range(turns):
            change = os.seteuid if turn % 2 else lambda user: by_c("seteuid", user)
            change(SOMEBODY)
            denied = [load(place / "secret", p) for p in (pool, other)]
            change(0)
            allowed = [load(place / "secret", p) for p in (pool, other)]
            assert [outcome(request) for request in allowed] == [b"secret"] * 2
            assert {outcome(request) for request in denied} <= {b"secret", errno.EACCES}
            os.seteuid(SOMEBODY)
            path = place / f"new{turn}"
            pool_of_turn = other if turn % 3 else pool
            procaio.aio_open(path, os.O_CREAT | os.O_WRONLY, pool=pool_of_turn).wait().close()
            assert os.stat(path).st_uid == SOMEBODY
            os.seteuid(0)
        for p in (pool, other):
            assert p.statistics().worker_deaths == p.statistics().spawner_deaths == 0
            p.close()

    assert succeeds(in_child(work))


# -- what is under way -----------------------------------------------------------------------------


def test_change_under_load_lets_nothing_through(place: Path) -> None:
    """Hundreds of requests in flight: those made before may do either, those made after may not."""

    def work() -> None:
        pool = procaio.Pool()
        busy(pool)
        before = [load(place / "secret", pool) for _ in range(500)]
        os.setuid(SOMEBODY)
        after = [load(place / "secret", pool) for _ in range(500)]
        assert {outcome(request) for request in after} == {errno.EACCES}
        assert {outcome(request) for request in before} <= {b"secret", errno.EACCES}
        pool.close()

    assert succeeds(in_child(work))


def test_worker_that_has_taken_a_request_leaves_it_to_one_with_the_new_rights(place: Path) -> None:
    """If it has not begun when the program changes: it looks once more."""

    def work() -> None:
        pool = procaio.Pool(workers=1, at_once=False)
        procaio.aio_nop(pool=pool).wait()
        old = pool.statistics().workers[0].pid
        testing.arm(pool, "taken", signal.SIGSTOP)
        request = procaio.aio_open(place / "new", os.O_CREAT, pool=pool)
        eventually(lambda: process_state(old)[0] == b"T", "it stops before it begins")
        testing.disarm(pool)
        assert request.state == "execute"
        os.setegid(SOMEBODY)
        os.kill(old, signal.SIGCONT)
        request.wait().close()
        assert os.stat(place / "new").st_gid == SOMEBODY
        eventually(lambda: not is_running(old), "it leaves")
        assert pool.statistics().worker_deaths == pool.statistics().rerun == 0
        pool.close()

    assert succeeds(in_child(work))


@pytest.mark.parametrize("way", ["os.setuid", "setuid in C"])
def test_threads_that_make_requests_all_the_time_get_nothing_through(place: Path, way: str) -> None:
    """Whatever was made once the change had returned is refused, in every thread and pool."""

    def work() -> None:
        pools = [procaio.Pool(), procaio.Pool()]
        changed, wrong, counts = threading.Event(), [], [0, 0]

        def ask(number: int) -> None:
            while counts[number] < 300:
                late = changed.is_set()
                got = outcome(load(place / "secret", pools[number]))
                counts[number] += late
                if late and got != errno.EACCES:
                    wrong.append(got)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        USER_CHANGES[way]()
        changed.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        for pool in pools:
            pool.close()

    assert succeeds(in_child(work))


def test_workers_that_are_stuck_leave_when_they_can(place: Path, gate: Gate) -> None:
    """What they execute ends as it would have; they take nothing else."""

    def work() -> None:
        pool = procaio.Pool()
        held = gate.hold(pool, 4)
        old = {worker.pid for worker in pool.statistics().workers}
        os.setuid(SOMEBODY)
        assert outcome(load(place / "secret", pool)) == errno.EACCES
        assert {request.state for request in held} == {"execute"}
        gate.open(4)
        assert [outcome(request) for request in held] == [b"x"] * 4
        assert outcome(load(place / "secret", pool)) == errno.EACCES

        def left() -> bool:
            pool.poll()
            return old.isdisjoint(worker.pid for worker in pool.statistics().workers)

        eventually(left, "the old workers leave")
        assert pool.statistics().worker_deaths == 0
        pool.close()

    assert succeeds(in_child(work))


def test_stopped_spawner_of_the_old_user_is_replaced(place: Path) -> None:
    """It cannot leave by itself; where the program may still kill it, it does."""

    def work() -> None:
        pool = procaio.Pool()
        busy(pool)
        spawner = pool.statistics().spawner_pid
        kill(spawner, signal.SIGSTOP)
        os.seteuid(SOMEBODY)
        assert outcome(load(place / "secret", pool)) == errno.EACCES
        assert not is_running(spawner)
        os.seteuid(0)
        assert outcome(load(place / "secret", pool)) == b"secret"
        pool.close()

    assert succeeds(in_child(work))


def test_program_that_may_not_signal_its_workers_closes_its_pool(place: Path, gate: Gate) -> None:
    """close() returns; the stuck one is gone when its call has ended, or the program has."""

    def work() -> None:
        pool = procaio.Pool()
        stuck = gate.hold(pool, 2)
        pids = [worker.pid for worker in pool.statistics().workers]
        os.setuid(SOMEBODY)
        with pytest.raises(PermissionError):
            os.kill(pids[0], 9)
        for request in stuck:
            request.abort()
        assert [outcome(request) for request in stuck] == [errno.ECANCELED] * 2
        pool.close()
        gate.open(2)
        eventually(lambda: not any(map(is_running, pids)), "they have left")

    assert succeeds(in_child(work))


@pytest.mark.parametrize("stopped", [False, True], ids=["stuck", "stopped"])
def test_workers_that_may_not_be_signalled_end_with_the_program(
    gate: Gate, *, stopped: bool
) -> None:
    """Those that wait in a system call, and those that were stopped, with other rights than it."""
    reading, writing = os.pipe()

    def work() -> None:
        pool = procaio.Pool()
        gate.hold(pool, 2)
        pids = [worker.pid for worker in pool.statistics().workers]
        for pid in pids if stopped else ():
            os.kill(pid, 19)
        os.setuid(SOMEBODY)
        os.write(writing, struct.pack("2i", *pids))
        os.close(writing)
        os._exit(0)

    assert succeeds(in_child(work))
    pids = struct.unpack("2i", os.read(reading, 8))
    os.close(reading)
    os.close(writing)
    eventually(lambda: not any(map(is_running, pids)), "they have left")


# -- forked children -------------------------------------------------------------------------------


def test_child_that_becomes_somebody_else_leaves_the_parents_pool_alone(place: Path) -> None:
    """Its own requests are that user's; the parent's workers are not even told."""
    with procaio.Pool() as pool:
        assert outcome(load(place / "secret", pool)) == b"secret"
        before = pool.statistics()

        def work() -> None:
            os.setuid(SOMEBODY)
            assert outcome(load(place / "secret", pool)) == errno.EACCES
            pool.close()

        def work_late() -> None:
            assert outcome(load(place / "secret", pool)) == b"secret"
            by_c("setuid", SOMEBODY)
            assert outcome(load(place / "secret", pool)) == errno.EACCES
            pool.close()

        assert succeeds(in_child(work))
        assert succeeds(in_child(work_late))
        assert outcome(load(place / "secret", pool)) == b"secret"
        assert pool.statistics().spawner_pid == before.spawner_pid
        assert [w.pid for w in pool.statistics().workers] == [w.pid for w in before.workers]


def test_subprocess_of_another_user_leaves_the_pool_alone(place: Path) -> None:
    """Neither `user=` nor a preexec_fn that calls os.setuid() changes the program itself."""
    with procaio.Pool() as pool:
        assert outcome(load(place / "secret", pool)) == b"secret"
        before = pool.statistics().spawner_pid
        for more in ({"user": SOMEBODY}, {"preexec_fn": lambda: os.setuid(SOMEBODY)}):
            assert subprocess.run(["true"], check=False, **more).returncode == 0  # type: ignore[call-overload]
        assert outcome(load(place / "secret", pool)) == b"secret"
        assert pool.statistics().spawner_pid == before


def test_child_that_c_code_has_forked_leaves_the_pool_alone(place: Path) -> None:
    """None of what Python does at a fork has been done in it."""
    with procaio.Pool() as pool:
        assert outcome(load(place / "secret", pool)) == b"secret"
        before = pool.statistics().spawner_pid
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            try:
                os.setuid(SOMEBODY)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        procaio.aio_nop(pool=pool).wait()
        pool.poll()
        assert outcome(load(place / "secret", pool)) == b"secret"
        assert pool.statistics().spawner_pid == before
