"""Memory, descriptors or processes run out: clean errors, and everything works again afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from typing import TYPE_CHECKING, Any

import posix_ipc
import pytest

import procaio
from conftest import descriptors, eventually, run_fine
from procaio import shm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = 9 << 20  # more than a block of the shared segments: it has a segment of its own
is_root = os.geteuid() == 0


class Source:
    """Stands for shm.create: counts what is asked for, and fails when it is told to."""

    def __init__(self) -> None:
        """Begin with a source that works."""
        self._create = shm.create
        self.asked: list[bool] = []
        self.error = 0
        self.only_named = False

    def __call__(self, size: int, elsewhere: bool = False) -> int:
        """Make shared memory, or raise."""
        self.asked.append(elsewhere)
        if self.error and not (self.only_named and elsewhere):
            raise OSError(self.error, os.strerror(self.error))
        return self._create(size, elsewhere)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    """What pools made in this test get their data segments from."""
    made = Source()
    monkeypatch.setattr("procaio._pool.create_shared_memory", made)
    return made


# -- shared memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("size", [1000, LARGE])
def test_source_that_has_no_space_is_asked_for_memory_elsewhere(
    source: Source, size: int, number: int
) -> None:
    """ENOSPC or EDQUOT of /dev/shm is not the end: the second try goes to memfd."""
    with procaio.Pool() as pool:
        source.asked.clear()
        source.error, source.only_named = number, True
        with procaio.Buffer(size, pool=pool) as buffer:
            memoryview(buffer)[:] = b"x" * size
            assert any(what.startswith("/memfd:procaio") for what in descriptors().values())
        assert source.asked == [False, True]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOMEM])
def test_buffer_and_write_without_memory_raise_the_error_and_work_again(
    source: Source, tmp_path: Path, number: int
) -> None:
    """What needs memory in the call raises there; nothing is queued, nothing is broken."""
    with procaio.Pool() as pool, open(tmp_path / "file", "wb") as file:
        source.error = number
        for _ in range(3):
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                procaio.Buffer(100, pool=pool)
            assert caught.value.errno == number
            with pytest.raises(OSError, match=os.strerror(number)) as caught:
                procaio.aio_write(file, 0, None, b"data", pool=pool)
            assert caught.value.errno == number
        assert pool.nreqs() == 0
        source.error = 0
        assert procaio.aio_write(file, 0, None, b"data", pool=pool).wait() == 4
        assert procaio.Buffer(100, pool=pool)[:] == bytes(100)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("size", [1000, LARGE])
def test_read_without_memory_ends_with_the_errno_and_works_again(
    source: Source, data_file: Path, number: int, size: int
) -> None:
    """A read finds out when it is its turn: it fails as if the system call had."""
    with procaio.Pool(at_once=False) as pool, open(data_file, "rb") as file:
        source.error = number
        into = bytearray(b"as it was")
        requests: list[procaio.Request[Any]] = [
            procaio.aio_read(file, 0, size, pool=pool),
            procaio.aio_read(file, 0, size, into, pool=pool),
            procaio.aio_readdir(data_file.parent, pool=pool),
        ]
        pool.flush()
        assert [request.errno for request in requests] == [number] * 3
        assert into == b"as it was"
        source.error = 0
        assert procaio.aio_read(file, 0, size, pool=pool).wait() == data_file.read_bytes()[:size]


MOUNT_PRIVATELY = """
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
    def call(function, *arguments):
        if function(*arguments):
            print("skip", os.strerror(ctypes.get_errno())); os._exit(0)
    call(libc.unshare, CLONE_NEWNS)
    call(libc.mount, None, b"/", None, MS_REC | MS_PRIVATE, None)
    call(libc.mount, b"none", b"/dev/shm", b"tmpfs", 0, b"size=%d")
"""


@pytest.mark.skipif(not is_root, reason="only root mounts")
@pytest.mark.parametrize("room", [64 << 10, 4 << 20, 24 << 20])
def test_small_dev_shm_is_no_limit_and_no_crash(tmp_path: Path, room: int) -> None:
    """With /dev/shm full everything goes on in anonymous memory; nobody gets SIGBUS."""
    (tmp_path / "data").write_bytes(bytes(range(256)) * 4096)
    run_fine(
        """
        import procaio
        data = open("data", "rb").read()
        with open("data", "rb") as file, procaio.Pool() as pool:
            for size in (100, 1 << 20, 9 << 20, 40 << 20):
                with procaio.Buffer(size, pool=pool) as buffer:
                    memoryview(buffer)[:] = b"x" * size
                    assert procaio.aio_read(file, 0, len(data), pool=pool).wait() == data
                    assert procaio.aio_read(file, 0, size, pool=pool).wait() == data[:size]
            requests = [procaio.aio_read(file, 0, 1 << 20, pool=pool) for _ in range(100)]
            assert all(request.wait() == data for request in requests)
            assert pool.statistics().worker_deaths == 0
        print("fine")
        """,
        MOUNT_PRIVATELY % room,
        cwd=tmp_path,
    )


@pytest.mark.skipif(not is_root, reason="only root mounts")
def test_dev_shm_that_fills_up_while_the_pool_runs_is_no_limit(tmp_path: Path) -> None:
    """The arena grows in anonymous memory, and in /dev/shm again once there is room."""
    (tmp_path / "data").write_bytes(bytes(range(256)) * 4096)
    run_fine(
        """
        import errno, os, procaio
        data = open("data", "rb").read()
        file = open("data", "rb")
        def named():
            links = [os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
            return sum(os.readlink(link).startswith("/dev/shm/") for link in links
                       if os.path.islink(link))
        def fill():
            try:
                with open("/dev/shm/ballast", "wb", 0) as ballast:
                    while ballast.write(bytes(4096)):
                        pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
        with procaio.Pool(at_once=False) as pool:
            procaio.aio_nop(pool=pool).wait()
            for _ in range(2):
                fill()
                control = named()
                kept = []
                for size in (1, 4096, 100_000, 1 << 20, 9 << 20):
                    kept.append(procaio.Buffer(size, pool=pool))
                    memoryview(kept[-1])[:] = b"x" * size
                    requests = [procaio.aio_read(file, 0, size, pool=pool) for _ in range(20)]
                    assert {request.wait() for request in requests} == {data[:size]}
                    assert procaio.aio_read(file, 0, size, kept[-1], pool=pool).wait() == min(
                        size, len(data))
                assert procaio.aio_load("data", pool=pool).wait() == data
                assert named() == control
                os.unlink("/dev/shm/ballast")
                with procaio.Buffer(9 << 20, pool=pool) as buffer:
                    memoryview(buffer)[:] = b"x" * len(buffer)
                    assert named() == control + 1
                while kept:
                    kept.pop().release()
            assert pool.statistics().worker_deaths == 0
        print("fine")
        """,
        MOUNT_PRIVATELY % (24 << 20),
        cwd=tmp_path,
    )


@pytest.mark.skipif(not is_root, reason="only root mounts")
def test_dev_shm_too_full_for_more_workers_leaves_the_first(tmp_path: Path) -> None:
    """Each has a ring of its own there: they are started as soon as there is room for it."""
    run_fine(
        """
        import os, select, procaio
        os.mkfifo("gate")
        gate = os.open("gate", os.O_RDWR)
        with procaio.Pool(at_once=False) as pool:
            with open("/dev/shm/ballast", "wb", 0) as ballast:
                try:
                    while ballast.write(bytes(4096)):
                        pass
                except OSError:
                    pass
            assert procaio.aio_stat("/", pool=pool).wait() == os.stat("/")
            held = procaio.aio_read(gate, None, 1, bytearray(1), pool=pool)
            waiting = [procaio.aio_stat("/", pool=pool) for _ in range(20)]
            while held.state != "execute":
                select.select([], [], [], 0.001)
            try:
                waiting[0].wait(timeout=0.1)
            except TimeoutError:
                pass
            else:
                raise AssertionError("it cannot have run")
            assert pool.nworkers() == 1
            os.unlink("/dev/shm/ballast")
            assert [request.wait(timeout=20) for request in waiting] == [os.stat("/")] * 20
            assert pool.nworkers() > 1
            os.write(gate, b"x")
            assert held.wait() == 1
            assert pool.statistics().worker_deaths == 0
        print("fine")
        """,
        MOUNT_PRIVATELY % (1 << 20),
        cwd=tmp_path,
    )


def test_no_dev_shm_at_all_is_fine(monkeypatch: pytest.MonkeyPatch, data_file: Path) -> None:
    """A container without /dev/shm: anonymous memory does for everything."""

    def refuse(*_: object, **__: object) -> None:
        raise posix_ipc.PermissionsError("not here")

    monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
    with procaio.Pool() as pool, open(data_file, "rb") as file:
        assert procaio.aio_read(file, 0, 65536, pool=pool).wait() == data_file.read_bytes()
        assert not any("/dev/shm/" in what for what in descriptors().values())


# -- descriptors -----------------------------------------------------------------------------------


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """A low RLIMIT_NOFILE, so that running out is quick."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 40, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def fill_table() -> list[int]:
    """Every descriptor there is."""
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    return taken


@pytest.mark.usefixtures("few_descriptors")
def test_descriptors_exhausted_before_the_pool_is_a_clean_error(data_file: Path) -> None:
    """Pool() raises EMFILE and leaves nothing half done."""
    taken = fill_table()
    try:
        for spare in range(5):
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                procaio.Pool()
            if spare < 2:
                os.close(taken.pop())
    finally:
        for fd in taken:
            os.close(fd)
    with procaio.Pool() as pool:
        assert procaio.aio_stat(data_file, pool=pool).wait() == os.stat(data_file)


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("spare", [0, 1, 2, 3])
def test_descriptors_exhausted_before_the_start_and_requests_wait(
    data_file: Path, spare: int
) -> None:
    """Neither spawner nor worker can be made: the request runs when descriptors are there again."""
    with procaio.Pool() as pool:
        taken = fill_table()
        for _ in range(spare):
            os.close(taken.pop())
        try:
            request = procaio.aio_stat(data_file, pool=pool)
            if spare < 2:
                with pytest.raises(TimeoutError):
                    request.wait(timeout=0.1)
        finally:
            for fd in taken:
                os.close(fd)
        assert request.wait(timeout=10) == os.stat(data_file)


@pytest.mark.usefixtures("few_descriptors")
def test_descriptors_exhausted_in_a_running_pool_is_the_open_s_error(
    workers: procaio.Pool, data_file: Path
) -> None:
    """EMFILE arrives with the request; what needs no descriptor goes on."""
    procaio.aio_stat(data_file, pool=workers).wait()
    taken = fill_table()
    try:
        for call in (procaio.aio_open, procaio.aio_readdir):
            request = call(data_file, pool=workers)
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                request.wait()
        assert procaio.aio_stat(data_file, pool=workers).wait() == os.stat(data_file)
    finally:
        for fd in taken:
            os.close(fd)
    procaio.aio_open(data_file, pool=workers).wait().close()


@pytest.mark.usefixtures("few_descriptors")
def test_spawner_and_workers_killed_without_descriptors_come_back(
    workers: procaio.Pool, data_file: Path
) -> None:
    """Their own descriptors are given back before their successors need them."""
    procaio.aio_stat(data_file, pool=workers).wait()
    taken = fill_table()
    try:
        snapshot = workers.statistics()
        for pid in (snapshot.spawner_pid, snapshot.workers[0].pid):
            os.kill(pid, signal.SIGKILL)
        requests = [procaio.aio_stat(data_file, pool=workers) for _ in range(10)]
        eventually(
            lambda: workers.poll_cb() == 0 and workers.statistics().worker_deaths == 1, "the burial"
        )
    finally:
        for fd in taken:
            os.close(fd)
    assert [request.wait(timeout=10) for request in requests] == [os.stat(data_file)] * 10


# -- processes -------------------------------------------------------------------------------------

AS_NOBODY = """
    import errno, os, resource, select, time
    import procaio, procaio._core, posix_ipc
    UID = 54321
    def limit(processes):
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, 1000))
    limit(1000)
    os.setresgid(UID, UID, UID); os.setresuid(UID, UID, UID)
    def refused():
        try:
            pid = os.fork()
        except BlockingIOError:
            return True
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return False
"""


@pytest.mark.skipif(not is_root, reason="only root can become somebody who has no processes")
@pytest.mark.parametrize("room", [0, 1, 2])
@pytest.mark.parametrize("how", ["wait", "select"])
def test_processes_exhausted_and_requests_wait_until_they_are_not(room: int, how: str) -> None:
    """No spawner, no worker, one worker: requests go on as soon as there is one."""
    run_fine(
        f"""
        pool = procaio.Pool()
        limit(1 + {room})  # this program itself is one
        if {room} == 0 and not refused():
            print("skip: RLIMIT_NPROC does nothing here"); os._exit(0)
        requests = [procaio.aio_stat("/", pool=pool) for _ in range(50)]
        if {room} < 2:
            try:
                requests[0].wait(timeout=0.2)
            except TimeoutError:
                pass
            else:
                raise AssertionError("it cannot have run")
            limit(1000)
        if {how!r} == "select":
            end = time.monotonic() + 20
            while pool.nreqs() and time.monotonic() < end:
                select.select([pool.poll_fileno()], [], [], 20)
                pool.poll_cb()
        assert all(request.wait(timeout=20) == os.stat("/") for request in requests)
        if {room} == 2:
            assert pool.nworkers() == 1
        limit(1000)
        pool.close()
        print("fine")
        """,
        AS_NOBODY,
    )
