"""Programs that close descriptors they do not know, as daemons do: ours are among them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import gc
import mmap
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import (
    WALL,
    descriptors,
    eventually,
    in_child,
    is_running,
    not_sanitized,
    run_fine,
    succeeds,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

F_GETSIG, DATA = 11, 53
LARGE = 9 << 20  # more than a block of the shared segments: it has a segment of its own
CONTENT = b"theirs" * 100


class Others:
    """Files that get the numbers of what was closed, and keep them."""

    def __init__(self, directory: Path) -> None:
        """Begin without any."""
        self._directory = directory
        self._opened: dict[int, tuple[int, str]] = {}

    def take(self, count: int = 40) -> None:
        """Open files; they get the lowest numbers that are free."""
        for _ in range(count):
            path = self._directory / f"other{len(self._opened)}"
            path.write_bytes(CONTENT)
            self._opened[os.open(path, os.O_RDWR)] = (os.stat(path).st_ino, os.fspath(path))

    def check(self) -> None:
        """Nobody has closed, replaced, or written to one of them."""
        for fd, (inode, path) in self._opened.items():
            assert os.fstat(fd).st_ino == inode, f"{fd} is another file"
            with open(path, "rb") as file:
                assert file.read() == CONTENT, f"{fd} was written to"


@pytest.fixture
def others(tmp_path: Path) -> Others:
    """Files of the program's that come after ours."""
    return Others(tmp_path)


def forked(work: Callable[[], object]) -> None:
    """Do it in a child, which may close what it likes."""
    assert succeeds(in_child(work))


def close_all() -> None:
    """What a daemon does."""
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115 - pytest's has another number
    os.closerange(3, 1024)


def processes(pool: procaio.Pool) -> list[int]:
    """The pids of a pool's children."""
    statistics = pool.statistics()
    return [statistics.spawner_pid, *(worker.pid for worker in statistics.workers)]


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("taken", [0, 40])
def test_idle_pool_whose_descriptors_were_closed_begins_anew(
    others: Others, data_file: Path, inline: bool, taken: int
) -> None:
    """The next request has new processes; the old ones are gone, and no other file is touched."""

    def work() -> None:
        with procaio.Pool(inline=inline, at_once=False) as pool:
            procaio.aio_load(data_file, pool=pool).wait()
            number, before = pool.poll_fileno(), [] if inline else processes(pool)
            close_all()
            others.take(taken)
            for _ in range(3):
                assert procaio.aio_load(data_file, pool=pool).wait() == data_file.read_bytes()
            assert not any(map(is_running, before))
            assert (pool.poll_fileno() == number) == (taken == 0)
        others.check()
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG | WALL)  # not even ours

    forked(work)


@pytest.mark.parametrize("how", ["wait", "flush", "poll", "poll_cb"])
def test_outstanding_requests_fail_with_ebadf_when_their_pool_loses_its_descriptors(
    others: Others, gate: Any, data_file: Path, how: str
) -> None:
    """Each ends once, whether it was executed or waited; then everything works again."""

    def work() -> None:
        calls: list[object] = []
        pool = procaio.Pool(workers=2, at_once=False)
        held = gate.hold(pool, 2)
        before = processes(pool)
        queued = [procaio.aio_stat(data_file, pool=pool) for _ in range(3000)]
        for request in held + queued:
            request.cb(calls.append)
        close_all()
        others.take()
        if how == "wait":
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                queued[0].wait(timeout=20)
        elif how == "poll_cb":
            procaio.aio_nop(pool=pool)
            while pool.nreqs():
                pool.poll_cb()
        while pool.nreqs():
            pool.flush() if how == "flush" else pool.poll()
        assert {request.errno for request in held + queued} == {errno.EBADF}
        assert calls == [None] * 3002
        assert procaio.aio_stat(data_file, pool=pool).wait() == os.stat(data_file)
        assert not any(map(is_running, before))
        pool.close()
        others.check()

    forked(work)


def test_threads_whose_pool_loses_its_descriptors_all_go_on() -> None:
    """Whichever of them ends the workers, and whichever begins anew: one does after the other."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)

    def use(begin: threading.Barrier) -> list[BaseException]:
        raised: list[BaseException] = []
        begin.wait()
        for _ in range(3):
            try:
                procaio.aio_nop(pool=pool).wait(timeout=20)
            except BaseException as error:  # noqa: BLE001 - told below
                raised.append(error)
        return raised

    try:
        with procaio.Pool(workers=6) as pool, ThreadPoolExecutor(4) as threads:
            for _ in range(50):
                for request in [procaio.aio_busy(0.002, pool=pool) for _ in range(6)]:
                    request.wait()
                os.close(pool.poll_fileno())
                begin = threading.Barrier(4)
                for raised in threads.map(use, [begin] * 4):
                    assert {getattr(error, "errno", error) for error in raised} <= {errno.EBADF}
            assert procaio.aio_nop(pool=pool).wait() is None
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("then", ["close", "lose"])
def test_pool_without_its_descriptors_ends_and_touches_no_other(
    others: Others, gate: Any, then: str
) -> None:
    """close() gives requests up, and the processes go, though their pidfds have gone before."""

    def work() -> None:
        pool = procaio.Pool()
        held = gate.hold(pool, 3) if then == "close" else []
        procaio.aio_nop(pool=pool).wait()
        before = processes(pool)
        buffer = procaio.Buffer(100, pool=pool)
        close_all()
        others.take()
        if then == "close":
            pool.close()
            assert [request.errno for request in held] == [errno.EBADF] * 3
            buffer.release()
        else:
            del pool, buffer
            gc.collect()
        eventually(lambda: not any(map(is_running, before)), "the processes leave")
        others.check()

    forked(work)


@pytest.mark.parametrize("size", [100, LARGE])
def test_buffer_outlives_the_descriptors_of_its_pool(
    others: Others, data_file: Path, size: int
) -> None:
    """Its content stays and it can be read into; giving it back cuts no other file."""

    def work() -> None:
        with procaio.Pool() as pool:
            buffer = procaio.Buffer(size, pool=pool)
            memoryview(buffer)[:] = b"b" * size
            close_all()
            others.take()
            assert buffer[:] == b"b" * size
            with open(data_file, "rb") as file:
                assert procaio.aio_read(file, 0, 100, buffer, pool=pool).wait() == 100
            assert buffer[:100] == data_file.read_bytes()[:100]
            buffer.release()
        others.check()

    forked(work)


def test_pool_made_after_the_closing_shares_nothing_with_the_one_before(
    others: Others, data_file: Path
) -> None:
    """It may get the same numbers; the older one is not mistaken about whose they are."""

    def work() -> None:
        old = procaio.Pool(at_once=False)
        procaio.aio_load(data_file, pool=old).wait()
        close_all()
        new = procaio.Pool(at_once=False)
        for pool in (new, old, new, old):
            assert procaio.aio_load(data_file, pool=pool).wait() == data_file.read_bytes()
        assert old.poll_fileno() != new.poll_fileno()
        old.close()
        assert procaio.aio_load(data_file, pool=new).wait() == data_file.read_bytes()
        new.close()

    forked(work)


def shared_numbers() -> dict[int, int]:
    """Descriptors of shared memory, and their marks (shm/marks.h)."""
    return {
        fd: fcntl.fcntl(fd, F_GETSIG)
        for fd, what in descriptors().items()
        if what.startswith(("/dev/shm/", "/memfd:"))
    }


@pytest.mark.parametrize("end", ["used", "closed"])
def test_memory_of_another_pool_is_left_alone_though_it_has_the_same_number(
    others: Others, data_file: Path, end: str
) -> None:
    """The pool that lost its own neither shortens nor closes what it finds in their places."""

    def work() -> None:
        old = procaio.Pool(at_once=False)
        procaio.aio_load(data_file, pool=old).wait()
        lost = shared_numbers()
        close_all()
        new = procaio.Pool(at_once=False)
        buffer = procaio.Buffer(100_000, pool=new)
        memoryview(buffer)[:] = b"x" * 100_000
        (data,) = (fd for fd, mark in shared_numbers().items() if mark == DATA)
        same = [os.dup2(data, number) for number in lost.keys() - shared_numbers().keys()]
        assert same
        if end == "used":
            assert procaio.aio_load(data_file, pool=old).wait() == data_file.read_bytes()
        old.close()
        for fd in same:
            os.close(fd)
        assert bytes(buffer) == b"x" * 100_000
        assert procaio.aio_load(data_file, pool=new).wait() == data_file.read_bytes()
        buffer.release()
        new.close()

    forked(work)


def test_composites_end_when_their_pool_loses_its_descriptors(
    others: Others, tmp_path: Path
) -> None:
    """A tree that is removed stays where it is; its request says why."""

    def work() -> None:
        for name in range(50):
            os.makedirs(tmp_path / "tree" / str(name) / "inner")
        with procaio.Pool() as pool:
            procaio.aio_nop(pool=pool).wait()
            request = procaio.aio_rmtree(tmp_path / "tree", pool=pool)
            close_all()
            others.take()
            pool.flush()
            assert request.error is None or request.error.errno in {
                errno.EBADF,
                errno.EIO,
                errno.ENOTEMPTY,
            }
            procaio.aio_nop(pool=pool).wait()
        others.check()

    forked(work)


# -- one of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", range(8))
def test_any_descriptor_of_a_pool_may_be_closed_by_mistake(
    others: Others, data_file: Path, which: int
) -> None:
    """A number closed twice: requests give results or errors, and no other file is touched."""

    def work() -> None:
        before = descriptors()
        pool = procaio.Pool(workers=2, at_once=False)
        procaio.aio_load(data_file, pool=pool).wait()
        procaio.aio_nop(pool=pool, timeout=100).wait()  # there is a timer now
        ours = sorted(set(descriptors()) - set(before))
        assert len(ours) >= 7
        if which >= len(ours):
            return
        os.close(ours[which])
        others.take(1)
        rounds: list[set[int]] = []
        for _ in range(8):
            requests: list[Any] = [procaio.aio_load(data_file, pool=pool) for _ in range(20)]
            requests.append(procaio.aio_read(os.open(data_file, os.O_RDONLY), 0, LARGE, pool=pool))
            late = procaio.aio_busy(60, pool=pool, timeout=0.01)
            pool.flush()
            assert late.errno in {errno.ETIMEDOUT, errno.EBADF}
            rounds.append({request.errno for request in (*requests, late)})
        right = {0, errno.ETIMEDOUT}
        assert set().union(*rounds) <= {*right, errno.EBADF}
        assert rounds.count(right) >= len(rounds) - 1, "it fails once, at the most"
        pool.close()
        others.check()

    forked(work)


def test_deadline_that_cannot_be_had_without_the_descriptor_is_ebadf(
    workers: procaio.Pool, fd: int
) -> None:
    """Another file has its number; the call says so, and what comes after a poll works again."""
    procaio.aio_nop(pool=workers).wait()
    procaio.aio_nop(pool=workers)  # the look is made: the next is not made before a poll
    number = workers.poll_fileno()
    os.dup2(fd, number)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        procaio.aio_nop(pool=workers, timeout=20)
    workers.flush()
    assert procaio.aio_nop(pool=workers, timeout=20).wait() is None
    os.close(number)


def test_deadline_holds_although_the_timer_has_been_closed(
    workers: procaio.Pool, gate: Any
) -> None:
    (held,) = gate.hold(workers, timeout=0.2)
    (timer,) = (number for number, what in descriptors().items() if "timerfd" in what)
    os.close(timer)
    with pytest.raises(TimeoutError):
        held.wait(timeout=30)
    assert held.errno == errno.ETIMEDOUT


def test_event_loop_goes_on_after_the_descriptor_that_it_watches_was_closed(
    gate: Any, data_file: Path
) -> None:
    """Tasks that wait get EBADF with the next poll or request; later ones work."""

    async def main(pool: procaio.Pool) -> None:
        async def stat() -> os.stat_result:
            return await procaio.aio_stat(data_file, pool=pool)

        await stat()
        for waiting in (False, True):
            tasks = [asyncio.ensure_future(stat()) for _ in range(10)] if waiting else []
            held = gate.hold(pool) if waiting else []
            os.close(pool.poll_fileno())
            if waiting:
                pool.poll_cb()
                procaio.aio_nop(pool=pool)
                for request in held:
                    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                        await request
                await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(3):
                assert await asyncio.wait_for(stat(), 20) == os.stat(data_file)

    def work() -> None:
        with procaio.Pool(at_once=False) as pool:
            asyncio.run(main(pool))

    forked(work)


# -- programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pools", ["the default pool", "two pools"])
def test_daemon_keeps_the_descriptors_that_it_opens_after_closing_all(
    others: Others, data_file: Path, pools: str
) -> None:
    """fork, setsid, fork, close everything: what is opened then stays the daemon's."""
    used = [procaio.default_pool(), *([procaio.Pool()] if pools == "two pools" else [])]
    for pool in used:
        procaio.aio_load(data_file, pool=pool).wait()

    def daemon() -> None:
        close_all()
        others.take()
        for pool in used:
            assert procaio.aio_load(data_file, pool=pool).wait() == data_file.read_bytes()
        others.check()
        for pool in used:
            assert procaio.aio_load(data_file, pool=pool).wait() == data_file.read_bytes()
            pool.close()
        others.check()

    def session() -> None:
        os.setsid()
        assert succeeds(in_child(daemon))

    forked(session)

    def unused() -> None:
        close_all()
        others.take()
        for pool in used:
            pool.close()
        others.check()

    forked(unused)
    for pool in used:
        assert procaio.aio_stat(data_file, pool=pool).wait() == os.stat(data_file)
        pool.close()


@pytest.mark.parametrize("closed", ["0<&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_program_without_standard_streams_may_open_them_later(data_file: Path, closed: str) -> None:
    """Nothing of a pool has a number below 3, not even the pidfd of a worker."""
    program = """
        import os, sys, procaio
        with procaio.Pool() as pool:
            assert procaio.aio_load(sys.argv[1], pool=pool).wait() == open(sys.argv[1], "rb").read()
            for number in (0, 1, 2):
                if os.path.lexists(f"/proc/self/fd/{number}"):
                    what = os.readlink(f"/proc/self/fd/{number}")
                    assert "anon_inode" not in what and "/dev/shm" not in what
                os.dup2(os.open("/dev/null", os.O_RDWR), number)
            procaio.aio_nop(pool=pool).wait()
            assert pool.statistics().spawner_deaths == 0
        os._exit(42)
    """
    command = ["sh", "-c", f'exec "$0" "$@" {closed}', sys.executable, "-c"]
    done = subprocess.run([*command, textwrap.dedent(program), data_file], timeout=60, check=False)
    assert done.returncode == 42


ROUNDS = """
    import os, sys, procaio
    def idle_and_work(pool):  # the spawner looks after the program twice a second
        for _ in range(15):
            procaio.aio_nop(pool=pool).wait(timeout=10)
            procaio.aio_busy(0.1, pool=pool).wait(timeout=10)
        statistics = pool.statistics()
        assert statistics.worker_deaths == statistics.spawner_deaths == 0
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the root")
@not_sanitized
def test_program_that_changes_its_root_keeps_its_pool(tmp_path: Path) -> None:
    """There is no /proc in the new root, which says nothing about the program."""
    (tmp_path / "inside").touch()
    run_fine(
        """
        with procaio.Pool() as pool:
            procaio.aio_nop(pool=pool).wait()
            os.chroot(".")
            idle_and_work(pool)
            assert procaio.aio_readdir("/", pool=pool).wait() == ["inside"]
        print("fine")
        """,
        ROUNDS,
        cwd=tmp_path,
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes such a namespace")
@pytest.mark.parametrize("proc", [(), ("--mount-proc",)])
def test_program_is_process_1_of_a_namespace(proc: tuple[str, ...]) -> None:
    """As in a container; the /proc that it sees may be that of other processes."""
    run_fine(
        """
        assert os.getpid() == 1
        with procaio.Pool() as pool:
            idle_and_work(pool)
        print("fine")
        """,
        ROUNDS,
        command=("unshare", "-pf", *proc),
    )


def test_mapping_outlives_the_descriptor_of_its_file(data_file: Path, others: Others) -> None:
    """Memory of a file is read from and written to as any other, once its descriptor has gone."""

    def work() -> None:
        with procaio.Pool() as pool:
            procaio.aio_nop(pool=pool).wait()
            with open(data_file, "r+b") as file:
                mapping = procaio.mmap(
                    mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, file
                )
            close_all()
            others.take()
            with open(data_file, "rb") as file:
                assert procaio.aio_read(file, 4096, 100, mapping, pool=pool).wait() == 100
            assert mapping[:100] == data_file.read_bytes()[4096:4196]
            procaio.munmap(mapping)
        others.check()

    forked(work)
