"""What setrlimit forbids: errors of the calls that it concerns, and no more when it is lifted."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest

from conftest import not_sanitized, run_fine
from programs import ERRNO_OF

if TYPE_CHECKING:
    from pathlib import Path

SMALL_STACK = 256 << 10

# Limits are set from Python's `resource`, which the pool hears of, or past it, which it does not.
SET = """
    import contextlib, ctypes, errno, os, signal, time
    import resource
    import procaio
    libc = ctypes.CDLL(None, use_errno=True)
    def past_python(kind, limits):
        words = (ctypes.c_ulong * 2)(*(word % 2**64 for word in limits))
        assert libc.setrlimit(kind, words) == 0
    def by_prlimit(kind, limits):
        resource.prlimit(0, kind, limits)
    def by_own_pid(kind, limits):
        resource.prlimit(os.getpid(), kind, limits)
    def error_of(request):
        with contextlib.suppress(OSError):
            request.wait(timeout=30)
        assert request.state == "done"
        return getattr(request.error, "errno", 0), getattr(request.error, "filename", None)
    def set_(kind, soft):
        HOW(kind, (soft, resource.getrlimit(kind)[1]))
"""
WAYS = {
    "setrlimit": "HOW = lambda *what: resource.setrlimit(*what)",
    "prlimit": "HOW = by_prlimit",
    "prlimit of its own pid": "HOW = by_own_pid",
}
ALL_WAYS = {**WAYS, "past Python": "HOW = past_python"}
heard = pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
any_way = pytest.mark.parametrize("how", ALL_WAYS.values(), ids=ALL_WAYS)

# -- descriptors -----------------------------------------------------------------------------------

FULL_TABLE = """
    few, more = 64, 400
    HOW(resource.RLIMIT_NOFILE, (few, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    pool = procaio.Pool(at_once=False)
    procaio.aio_nop(pool=pool).wait()
    os.mkdir("tree"); open("tree/file", "wb").write(b"content")
    with contextlib.suppress(OSError):
        while True:
            os.open("/dev/null", os.O_RDONLY)
    full = (errno.EMFILE, "tree")
    def open_(): return procaio.aio_open("tree", pool=pool)
    def readdir(): return procaio.aio_readdir("tree", pool=pool)
    def pathsync(): return procaio.aio_pathsync("tree", pool=pool)
    def load(): return procaio.aio_load("tree/file", pool=pool)
    def scandir(): return procaio.aio_scandir("tree", 0, pool=pool)
"""


@any_way
def test_descriptor_limit_raised_after_the_start_is_the_workers_too(
    tmp_path: Path, how: str
) -> None:
    """Workers share the descriptor table, and open what the program might open."""
    run_fine(
        """
        assert error_of(open_()) == full
        assert error_of(readdir()) == full
        set_(resource.RLIMIT_NOFILE, more)
        for call in open_, readdir, pathsync, load, scandir:
            for worker in pool.statistics().workers if HOW is past_python else ():
                resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (few, more))
            call().wait()
        assert load().wait() == b"content"
        assert open_().wait().fileno() >= few
        pool.close()
        print("fine")
        """,
        SET,
        how + "\n",
        FULL_TABLE,
        cwd=tmp_path,
    )


@heard
def test_descriptor_limit_lowered_after_the_start_is_the_workers_too(
    tmp_path: Path, how: str
) -> None:
    """No request gives a descriptor that the program could not have opened itself."""
    run_fine(
        """
        set_(resource.RLIMIT_NOFILE, more)
        assert open_().wait().fileno() >= few
        set_(resource.RLIMIT_NOFILE, few)
        assert error_of(open_()) == full
        set_(resource.RLIMIT_NOFILE, more)
        open_().wait()
        pool.close()
        print("fine")
        """,
        SET,
        how + "\n",
        FULL_TABLE,
        cwd=tmp_path,
    )


def test_limit_raised_is_that_of_workers_born_later(tmp_path: Path) -> None:
    """The spawner, whose limits a worker is born with, is told as well; and after its death."""
    run_fine(
        """
        set_(resource.RLIMIT_NOFILE, more)
        def limits():
            procaio.aio_nop(pool=pool).wait()
            return {resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)[0]
                    for worker in pool.statistics().workers}
        snapshot = pool.statistics()
        os.kill(snapshot.workers[0].pid, signal.SIGKILL)
        assert limits() == {more}
        for pid in (pool.statistics().spawner_pid, pool.statistics().workers[0].pid):
            os.kill(pid, signal.SIGKILL)
        assert limits() == {more}
        pool.close()
        print("fine")
        """,
        SET,
        WAYS["setrlimit"] + "\n",
        FULL_TABLE,
        cwd=tmp_path,
    )


# -- the size of files -----------------------------------------------------------------------------

SMALL_FILES = """
    LIMIT = 10_000
    file = open("file", "wb", 0)
    def write(size=1):
        return procaio.aio_write(file, LIMIT, None, b"x" * size, pool=pool)
"""


@any_way
@pytest.mark.parametrize("disposition", ["SIG_IGN", "SIG_DFL"])
def test_size_limit_follows_the_program(tmp_path: Path, how: str, disposition: str) -> None:
    """EFBIG, no signal for the program, no dead worker; fine when it ends."""
    run_fine(
        f"""
        signal.signal(signal.SIGXFSZ, signal.{disposition})
        set_(resource.RLIMIT_FSIZE, LIMIT)
        pool = procaio.Pool()
        def truncate():
            return procaio.aio_truncate("file", LIMIT + 1, pool=pool)
        for _ in range(3):
            set_(resource.RLIMIT_FSIZE, LIMIT)
            if HOW is past_python:  # nobody tells the workers
                pool.close(); pool = procaio.Pool()
            assert error_of(write())[0] == errno.EFBIG
            assert error_of(truncate()) == (errno.EFBIG, "file")
            assert error_of(procaio.aio_copy("/proc/self/exe", "copy", pool=pool))[0] == errno.EFBIG
            whole = procaio.aio_replace("whole", bytes(20_000), pool=pool)
            assert error_of(whole) == (errno.EFBIG, "whole")
            assert sorted(os.listdir(".")) == ["file"]
            set_(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
            assert write().wait() == 1
            assert truncate().wait() == 0
            os.truncate("file", 0)
        assert pool.statistics().worker_deaths == 0
        pool.close()
        print("fine")
        """,
        SET,
        how + "\n",
        SMALL_FILES,
        cwd=tmp_path,
    )  # fmt: skip


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("disposition", ["SIG_IGN", "SIG_DFL"])
def test_size_limit_of_files_is_none_of_shared_memory(
    tmp_path: Path, inline: bool, disposition: str
) -> None:
    """Pools are made, blocks and Buffers of any size; the program's own limit stays what it is."""
    run_fine(
        f"""
        open("data", "wb").write(bytes(range(256)) * 4096)
        signal.signal(signal.SIGXFSZ, signal.{disposition})
        set_(resource.RLIMIT_FSIZE, 1)
        with procaio.Pool(inline={inline}) as pool:
            for size in (100, 1 << 20, 9 << 20, 40 << 20):
                with procaio.Buffer(size, pool=pool) as buffer:
                    memoryview(buffer)[-1:] = b"x"
                assert len(procaio.aio_read(os.open("data", 0), 0, size, pool=pool).wait()) == (
                    min(size, 1 << 20))
            assert len(procaio.aio_load("data", pool=pool).wait()) == 1 << 20
            assert procaio.aio_scandir(".", 0, pool=pool).wait() is not None
        assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 1
        print("fine")
        """,
        SET,
        WAYS["setrlimit"] + "\n",
        cwd=tmp_path,
    )


def test_size_limit_that_cannot_be_raised_is_named_in_the_error(tmp_path: Path) -> None:
    """The hard limit binds: an error that says which, in the call or of the request."""
    run_fine(
        """
        open("data", "wb").write(b"x" * 100_000)
        data = open("data", "rb")
        os.setgroups([]); os.setgid(54321); os.setuid(54321)
        with procaio.Pool(at_once=False) as pool:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            assert error_of(procaio.aio_read(data, 0, 9, pool=pool))[0] == errno.EFBIG
            assert errno_of(lambda: procaio.Buffer(100, pool=pool)) == errno.EFBIG
            assert procaio.aio_stat("/", pool=pool).wait() == os.stat("/")
            procaio.aio_rename("/nowhere", "/", pool=pool)
        try:
            procaio.Pool()
        except OSError as error:
            assert (error.errno, "RLIMIT_FSIZE" in str(error)) == (errno.EFBIG, True)
            print("fine")
        """,
        ERRNO_OF,
        SET,
        cwd=tmp_path,
    )


# -- memory, stacks, processors --------------------------------------------------------------------


@not_sanitized
def test_address_space_exhausted_is_an_error_of_the_call_that_asked(tmp_path: Path) -> None:
    """ENOMEM from the system, MemoryError from Python; the pool goes on when there is room."""
    run_fine(
        """
        large = 96 << 20
        open("data", "wb").truncate(large)
        data = open("data", "rb")
        before = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * 4096
        with procaio.Pool(at_once=False) as pool:
            procaio.aio_nop(pool=pool).wait()
            set_(resource.RLIMIT_AS, used + (48 << 20))
            for _ in range(3):
                assert error_of(procaio.aio_read(data, 0, large, pool=pool))[0] == errno.ENOMEM
                assert errno_of(lambda: procaio.Buffer(large, pool=pool)) == errno.ENOMEM
                try:
                    procaio.aio_load("data", pool=pool).wait()
                except (OSError, MemoryError) as error:
                    assert getattr(error, "errno", errno.ENOMEM) == errno.ENOMEM, error
                else:
                    raise AssertionError
                assert procaio.aio_read(data, 0, 100, pool=pool).wait() == bytes(100)
            resource.setrlimit(resource.RLIMIT_AS, before)
            assert len(procaio.aio_read(data, 0, large, pool=pool).wait()) == large
            assert pool.statistics().worker_deaths == 0
        print("fine")
        """,
        ERRNO_OF,
        SET,
        WAYS["setrlimit"] + "\n",
        cwd=tmp_path,
    )


@not_sanitized
def test_address_space_of_a_worker_exhausted_is_the_request_s_error(tmp_path: Path) -> None:
    """A worker that cannot map the data: ENOMEM, and no more once the program may have more."""
    run_fine(
        """
        open("data", "wb").write(b"x" * 100)
        data = open("data", "rb")
        with procaio.Pool(at_once=False) as pool:
            pool.max_parallel(1)
            procaio.aio_nop(pool=pool).wait()
            buffer = procaio.Buffer(100, pool=pool)
            read = lambda: procaio.aio_read(data, 0, 100, buffer, pool=pool)
            (worker,) = pool.statistics().workers
            before = resource.getrlimit(resource.RLIMIT_AS)
            tiny = 1 << 20
            resource.prlimit(worker.pid, resource.RLIMIT_AS, (tiny, before[1]))
            past_python(resource.RLIMIT_AS, (tiny, before[1]))
            request = read()
            while pool.nreqs():
                pool.poll()
            past_python(resource.RLIMIT_AS, before)
            assert request.errno == errno.ENOMEM, request.errno
            assert read().wait() == 100
            assert pool.statistics().worker_deaths == 0
        print("fine")
        """,
        SET,
        cwd=tmp_path,
    )


@not_sanitized
def test_small_stacks_are_enough(tmp_path: Path) -> None:
    """Workers bring their own, and the threads for memory as well."""
    run_fine(
        """
        os.mkdir("tree"); os.mkdir("tree/sub")
        for n in range(300):
            open(f"tree/sub/{n}", "wb").write(bytes(n))
        assert procaio.aio_copytree("tree", "copy").wait() == 0
        assert procaio.aio_rmtree("copy").wait() == 0
        assert procaio.aio_mtouch(bytearray(1 << 20)).wait() == 0
        assert len(procaio.aio_load("tree/sub/299").wait()) == 299
        assert procaio.aio_realpath("tree/../tree/sub/7").wait().endswith("tree/sub/7")
        assert procaio.statistics().worker_deaths == 0
        print("fine")
        """,
        SET,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (SMALL_STACK, SMALL_STACK)),
    )


def test_worker_that_has_used_up_its_processor_time_is_replaced(tmp_path: Path) -> None:
    """The system ends it; that is a death as any other."""
    run_fine(
        """
        open("data", "wb").truncate(16 << 20)
        data = open("data", "rb")
        with procaio.Pool(at_once=False) as pool:
            pool.max_parallel(1)
            procaio.aio_nop(pool=pool).wait()
            (worker,) = pool.statistics().workers
            buffer = procaio.Buffer(16 << 20, pool=pool)
            resource.prlimit(worker.pid, resource.RLIMIT_CPU, (1, 1))
            while pool.statistics().worker_deaths == 0:
                assert procaio.aio_read(data, 0, 16 << 20, buffer, pool=pool).wait() == 16 << 20
            assert pool.statistics().died == 0
            assert pool.statistics().workers[0].pid != worker.pid
            assert procaio.aio_read(data, 0, 16 << 20, buffer, pool=pool).wait() == 16 << 20
        print("fine")
        """,
        SET,
        cwd=tmp_path,
    )


@not_sanitized
def test_locked_memory_exhausted_is_an_error_of_what_needs_more(tmp_path: Path) -> None:
    """After mlockall(MCL_FUTURE) every mapping counts: EAGAIN, and the pool goes on."""
    run_fine(
        """
        MCL_FUTURE, SMALL = 2, 8 << 20
        data = open("/etc/passwd", "rb"); content = data.read()
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (SMALL, SMALL))
        os.setgroups([]); os.setgid(54321); os.setuid(54321)
        with procaio.Pool() as pool:
            procaio.aio_nop(pool=pool).wait()
            procaio.mlockall(MCL_FUTURE)
            for _ in range(3):
                assert errno_of(lambda: procaio.Buffer(40 << 20, pool=pool)) == errno.EAGAIN
                number, _ = error_of(procaio.aio_read(data, 0, 40 << 20, pool=pool))
                assert number == errno.EAGAIN, number
                assert procaio.aio_stat("/", pool=pool).wait() == os.stat("/")
            procaio.munlockall()
            assert procaio.aio_read(data, 0, 40 << 20, pool=pool).wait() == content
            assert pool.statistics().worker_deaths == 0
        print("fine")
        """,
        ERRNO_OF,
        SET,
        cwd=tmp_path,
    )
