"""
Every allocation of the program fails once, and all of them from some point on.

What is done then raises MemoryError, or OSError with ENOMEM, or succeeds; no request is lost, none
is called back twice, nothing stays allocated, and afterwards the same pool works.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from conftest import not_sanitized, run_fine
from programs import ERRNO_OF

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("_testcapi")
pytestmark = not_sanitized

DRIVER = """
    import _testcapi, errno, gc, os, select, sys, traceback
    import procaio
    MOST = 80  # allocations; what is done here makes fewer
    gc.disable()
    FAILED = object()

    def attempt(start, stop, work):
        try:
            _testcapi.set_nomemory(start, stop)
            try:
                return work()
            finally:
                _testcapi.remove_mem_hooks()
        except MemoryError:
            return FAILED
        except RuntimeError as error:  # what open() says instead
            assert "can't allocate" in str(error), error
            return FAILED
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            return FAILED

    def each_failure():
        "One that fails, or all from there on."
        for start in range(MOST):
            yield start, start + 1
            yield start, 0

    def what_is(fd):
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            return "/proc"
    def descriptors():
        "But those of processes that come and go, and what the spawner reads in between."
        found = {fd: what_is(fd) for fd in os.listdir("/proc/self/fd")}
        return [fd for fd, what in found.items()
                if not what.startswith(("/proc", "anon_inode:[pidfd]"))]

    def untouched(pool, before):
        assert pool.nreqs() == 0, pool.nreqs()
        assert pool._snapshot()["shared_used"] == before[0], (pool._snapshot(), before)
        assert pool.statistics().worker_deaths == 0
        assert len(descriptors()) == before[1], (descriptors(), before[1])

    def until_not(request, *states):
        while request.state in states:
            select.select([], [], [], 0.0005)
        return request

    pool = procaio.Pool(workers=1, at_once=AT_ONCE)  # others would have descriptors
    file = open("file", "rb+", 0)
    buffer, array = procaio.Buffer(100, pool=pool), bytearray(100)
    content, stat, fd = b"content" * 1000, os.stat("file"), file.fileno()
    nothing = lambda *_: None
    KINDS = {
        "nop": lambda: procaio.aio_nop(pool=pool),
        "stat": lambda: procaio.aio_stat("file", nothing, pool=pool),
        "stat of a long path": lambda: procaio.aio_stat(LONG, pool=pool),
        "statvfs": lambda: procaio.aio_statvfs("file", pool=pool),
        "open": lambda: procaio.aio_open("file", pool=pool),
        "read": lambda: procaio.aio_read(file, 0, 3000, pool=pool),
        "read into a Buffer": lambda: procaio.aio_read(fd, 0, 100, buffer, pool=pool),
        "read into an array": lambda: procaio.aio_read(fd, 0, 100, array, pool=pool),
        "write": lambda: procaio.aio_write(file, 0, None, content, pool=pool),
        "load": lambda: procaio.aio_load("large", pool=pool),
        "readdir": lambda: procaio.aio_readdir(".", pool=pool),
        "readdirx": lambda: procaio.aio_readdirx(".", 3, pool=pool),
        "realpath": lambda: procaio.aio_realpath("file", pool=pool),
        "statx": lambda: procaio.aio_statx("file", pool=pool),
        "mtouch": lambda: procaio.aio_mtouch(array, pool=pool),
        "deadline": lambda: procaio.aio_stat("file", pool=pool, timeout=100),
    }
    LONG = os.getcwd() + "/." * 200 + "/file"
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the programs work on."""
    (tmp_path / "file").write_bytes(b"content" * 1000)
    (tmp_path / "large").write_bytes(b"content" * 100_000)
    for number in range(5):
        (tmp_path / f"{number}").touch()
    return tmp_path


@pytest.mark.parametrize("at_once", [False, True])
def test_request_that_cannot_be_made_is_a_memory_error(files: Path, at_once: bool) -> None:
    """In the call; nothing is queued, no block and no descriptor is lost."""
    run_fine(
        """
        hoard = []  # what is freed would be used again, without an allocation
        for kind, make in KINDS.items():
            for _ in range(10):
                make().wait()
            gc.collect()
            before = pool._snapshot()["shared_used"], len(descriptors())
            made = failed = 0
            for start, stop in each_failure():
                request = attempt(start, stop, make)
                if request is FAILED:
                    failed += 1
                else:
                    made += 1
                    request.wait()
                    if kind == "open":
                        request.result.close()
                    hoard.append(request)
                pool.flush()
                untouched(pool, before)
            assert made > 50 and failed > 0, (kind, made, failed)
        print("fine")
        """,
        f"AT_ONCE = {at_once}\n",
        DRIVER,
        cwd=files,
    )


@pytest.mark.parametrize("how", ["pool.poll_cb", "pool.flush", "request.wait"])
def test_result_that_cannot_be_made_is_enomem(files: Path, how: str) -> None:
    """The request ends, once; what a worker has opened for it is closed."""
    run_fine(
        f"""
        hoard = []
        called = bytearray(1)
        def count(*_):
            called[0] += 1
        procaio.on_callback_error(count)
        del KINDS["stat"]  # it has a callback already
        for kind, make in KINDS.items():
            make().wait(); gc.collect()
            before = pool._snapshot()["shared_used"], len(descriptors())
            taken = failed = 0
            for start, stop in each_failure():
                called[0] = 0
                request = make()
                request.cb(count)
                until_not(request, "ready", "execute")
                attempt(start, stop, {how})
                pool.flush()
                assert request.state == "done", request
                assert called[0] <= 1, (kind, start, stop)
                assert called[0] == 1 or stop == 0 or start < 20, (kind, start, stop)
                if request.errno:
                    assert request.errno == request.error.errno == errno.ENOMEM, request.errno
                    failed += 1
                else:
                    taken += 1
                    if kind == "open":
                        request.result.close()
                hoard.append(request)
                untouched(pool, before)
            assert taken > 50, (kind, taken, failed)
        print("fine")
        """,
        "AT_ONCE = False\n",
        DRIVER,
        cwd=files,
    )


def test_group_and_its_members_lose_nothing(files: Path) -> None:
    """Made, filled, waited for: what was added is done, and the group ends after it."""
    run_fine(
        """
        def make():
            group = procaio.aio_group(nothing, pool=pool)
            members.extend((procaio.aio_stat("file", pool=pool), procaio.aio_nop(pool=pool)))
            group.add(*members)
            return group
        def feed():
            group = procaio.aio_group(pool=pool)
            left = [3]
            def feeder(group):
                if left[0]:
                    left[0] -= 1
                    request = procaio.aio_nop(pool=pool)
                    members.append(request)
                    group.add(request)
            group.feed(feeder)
            return group
        procaio.on_callback_error(nothing)
        hoard = []
        ways = (make, False), (feed, False), (make, True), (feed, True)
        for work, while_polling in ways:
            members = []
            work().wait()
            before = pool._snapshot()["shared_used"], len(descriptors())
            for start, stop in each_failure():
                members = []
                if while_polling:
                    group = work()
                    attempt(start, stop, pool.flush)
                    attempt(start, stop, pool.flush)
                else:
                    group = attempt(start, stop, work)
                pool.flush()
                assert {member.state for member in members} <= {"done"}
                assert group is FAILED or group.state == "done"
                hoard.append((group, members))
                untouched(pool, before)
        print("fine")
        """,
        "AT_ONCE = False\n",
        DRIVER,
        cwd=files,
    )


def test_deadline_abort_and_cancel_work_without_memory(files: Path) -> None:
    """They take a request back, or say that they cannot; the pool goes on."""
    run_fine(
        """
        os.mkfifo("gate")
        gate = os.open("gate", os.O_RDWR)
        def held(**more):
            request = procaio.aio_read(gate, None, 1, array, pool=pool, **more)
            return until_not(request, "ready")
        ways = {
            "cancel": lambda: request.cancel(),
            "abort": lambda: request.abort(),
            "both": lambda: (request.abort(), request.cancel()),
            "deadline": lambda: pool.poll(),
        }
        for way, work in ways.items():
            for start in range(0, 20):
                request = held(**({"timeout": 0} if way == "deadline" else {}))
                later = procaio.aio_stat("file", pool=pool)
                done = attempt(start, start % 2 and start + 1, work)
                if done is FAILED or way == "cancel":
                    if request.state in {"execute", "cancelled"}:
                        os.write(gate, b"x")
                pool.flush()
                assert request.state in {"done", "cancelled"}, (way, start, request)
                assert later.result == stat or later.errno == errno.ENOMEM, (way, start)
                assert request.errno in {0, errno.ECANCELED, errno.ETIMEDOUT, errno.ENOMEM}
                assert pool.nreqs() == 0
                os.set_blocking(gate, False)
                try:
                    os.read(gate, 100)
                except BlockingIOError:
                    pass
                os.set_blocking(gate, True)
        print("fine")
        """,
        "AT_ONCE = False\n",
        DRIVER,
        cwd=files,
    )


def test_pool_and_buffer_that_cannot_be_made_leave_nothing(files: Path) -> None:
    """No process, no descriptor, no name in /dev/shm; the next try works."""
    run_fine(
        """
        def children():
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                return file.read().split()
        def close_again():
            other.close()
        pool.close(); file.close()
        procaio.Pool().close(); gc.collect()
        before, names = len(descriptors()), os.listdir("/dev/shm")
        for start, stop in each_failure():
            other = attempt(start, stop, procaio.Pool)
            if other is not FAILED:
                for work in (lambda: procaio.Buffer(100, pool=other),
                             lambda: procaio.Buffer(9 << 20, pool=other),
                             lambda: procaio.aio_nop(pool=other).wait(),
                             other.statistics, lambda: other.max_parallel(3)):
                    attempt(start, stop, work)
                assert procaio.aio_stat("file", pool=other).wait() == stat
                attempt(start, stop, other.close)
                other.close()
            other = work = None
            gc.collect()
            assert len(descriptors()) == before, (start, stop, descriptors())
            assert children() == [], (start, stop)
        assert not set(os.listdir("/dev/shm")) - set(names)
        print("fine")
        """,
        "AT_ONCE = False\n",
        DRIVER,
        cwd=files,
    )


MALLOC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <stddef.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
int before_failing = -1, calls;

static int fails(void *caller)
{
    Dl_info info;
    if (before_failing < 0 || !dladdr(caller, &info) || !strstr(info.dli_fname, "/_core."))
        return 0;
    calls++;
    errno = ENOMEM;
    return before_failing-- == 0;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}
"""


@pytest.fixture
def failing_malloc(files: Path) -> dict[str, str]:
    """The environment of a program in which malloc fails where it is called by this package."""
    source, made = files / "malloc.c", files / "malloc.so"
    source.write_text(MALLOC)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, source], check=True, timeout=60)
    return {**os.environ, "LD_PRELOAD": str(made)}


def test_malloc_that_fails_is_told_and_loses_nothing(
    files: Path, failing_malloc: dict[str, str]
) -> None:
    """What is not Python's memory: the arena's lists, deadlines, jobs of threads, steps."""
    run_fine(
        """
        import ctypes
        from procaio import testing
        before_failing = ctypes.c_int.in_dll(ctypes.CDLL(None), "before_failing")
        calls = ctypes.c_int.in_dll(ctypes.CDLL(None), "calls")
        def what_is(fd):
            try:
                return os.readlink(f"/proc/self/fd/{fd}")
            except FileNotFoundError:  # a worker has closed it just now
                return ""
        def opened(name):
            return sum(what_is(fd).endswith(name) for fd in descriptors())
        def killed():
            "A worker that dies when it has opened something, while another one has, too."
            os.path.exists("gate") or os.mkfifo("gate")
            gate = os.open("gate", os.O_RDWR)
            before_failing.value = -1
            reading = procaio.aio_load("gate", pool=other)
            while opened("gate") < 2:
                select.select([other.poll_fileno()], [], [], 0.0005)
            testing.arm(other, "called")
            calls.value, before_failing.value = 0, number
            assert errno_of(procaio.aio_open("large", pool=other).wait) == errno.EIO
            other.poll_cb()
            os.write(gate, b"x")
            os.close(gate)
            return reading
        def aborted():
            request = procaio.aio_busy(100, pool=other)
            until_not(request, "ready").abort()
            return request
        works = {
            "buffer": lambda: procaio.Buffer(100, pool=other).release(),
            "read": lambda: procaio.aio_read(fd, 0, 3000, pool=other),
            "write": lambda: procaio.aio_write(fd, 0, None, content, pool=other),
            "load": lambda: procaio.aio_load("large", pool=other),
            "readdir": lambda: procaio.aio_readdir(".", pool=other),
            "readdirx": lambda: procaio.aio_readdirx(".", 3, pool=other),
            "mtouch": lambda: procaio.aio_mtouch(array, pool=other),
            "deadline": lambda: procaio.aio_stat("file", pool=other, timeout=100),
            "abort": aborted,
            "killed": killed,
        }
        for name, work in works.items():
            failed = 0
            for number in (0, 0, 1, 2, 3, -1):  # what is kept is made once
                other = procaio.Pool(at_once=False)
                procaio.aio_nop(pool=other).wait()
                calls.value, before_failing.value = 0, number
                try:
                    request = work()
                    number_of_error = errno_of(request.wait) if request else 0
                except (MemoryError, OSError) as error:
                    number_of_error = getattr(error, "errno", errno.ENOMEM)
                before_failing.value = -1
                allowed = {0, errno.ENOMEM, errno.ECANCELED}
                assert number_of_error in allowed, (name, number, number_of_error)
                assert number >= 0 or number_of_error != errno.ENOMEM
                failed += calls.value > number >= 0
                other.flush()
                assert other.nreqs() == 0
                assert other._snapshot()["shared_used"] == 0, (name, number)
                while opened("large") or opened("gate"):  # until a worker has closed them
                    other.poll_cb()
                assert procaio.aio_stat("file", pool=other).wait() == os.stat("file")
                assert procaio.aio_load("large", pool=other).wait() == content * 100
                other.close()
            assert failed, name  # else it says nothing
        print("fine")
        """,
        "AT_ONCE = False\n",
        DRIVER,
        ERRNO_OF,
        cwd=files,
        env=failing_malloc,
    )
