"""The end of the program, and of a pool in the midst of work (rules A14, A19)."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import children, eventually
from programs import run_program

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate


# -- callbacks that exit ---------------------------------------------------------------------------


def test_exit_in_callbacks_during_close_loses_no_other_callback(pool: procaio.Pool) -> None:
    """close() ends every request and the pool, then the first exception comes out (A14)."""
    seen = []

    def leave(number: int) -> None:
        seen.append(number)
        raise SystemExit(number)

    for number in range(4):
        procaio.aio_nop(lambda number=number: leave(number), pool=pool)
    with pytest.raises(SystemExit):
        pool.close()
    assert seen == [0, 1, 2, 3]
    assert pool.closed


def test_exit_in_a_callback_at_exit_cancels_nothing() -> None:
    """sys.exit() in a callback while the program ends: the others are completed too (A19)."""
    ended = run_program(
        """
import sys, procaio
pools = procaio.default_pool(), procaio.Pool()
for pool in pools:
    for n in range(3):
        request = procaio.aio_busy(0.1, lambda: print(request.errno) or sys.exit(n), pool=pool)
"""
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n" * 6, "", 0)


def test_exit_timeout_may_be_infinite() -> None:
    """A program that waits for its requests however long they take says so with math.inf (A19)."""
    ended = run_program(
        """
import math, procaio
procaio.exit_timeout(math.inf)
request = procaio.aio_busy(0.1, lambda: print(request.errno))
"""
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n", "", 0)


def test_close_that_never_ran_leaves_the_handle_open(
    workers: procaio.Pool, gate: Gate, data_file: Path
) -> None:
    """A FileHandle whose aio_close was given up with the pool is open again, not lost."""
    pool = procaio.Pool(workers=1)
    handle = procaio.aio_open(data_file, pool=pool).wait()
    gate.hold(pool)
    closing = [procaio.aio_close(handle, pool=pool)]
    assert handle.closed
    pool._close(0)
    assert closing[0].errno
    with handle:
        assert os.fstat(handle.fileno()).st_size == 65536


# -- the end of the program ------------------------------------------------------------------------

# In the background of a shell SIGINT is ignored, and programs inherit that.
STUCK = """
import os, procaio, signal, sys, tempfile
signal.signal(signal.SIGINT, signal.default_int_handler)
pool = procaio.Pool()
reading, writing = os.pipe()
stuck = procaio.aio_read(reading, None, 1, lambda data: print(data, procaio.errno()), pool=pool)
done = procaio.aio_nop(lambda: print("done"), pool=pool, pri=-4)
while stuck.state == "ready":
    pass
"""


def test_normal_exit_completes_requests_and_calls_callbacks() -> None:
    """Also those that callbacks make, of the default pool and of others (A19)."""
    ended = run_program(
        """
import procaio
procaio.aio_busy(0.1, lambda: print("busy") or procaio.aio_nop(lambda: print("chained")))
other = procaio.Pool(inline=True)
procaio.aio_nop(lambda: print("inline"), pool=other)
"""
    )
    assert sorted(ended.stdout.split()) == ["busy", "chained", "inline"]
    assert (ended.stderr, ended.returncode) == ("", 0)


def test_stuck_request_does_not_keep_the_program() -> None:
    """After exit_timeout it is aborted, its callback told; the others were completed (A19)."""
    ended = run_program(STUCK + "pool.exit_timeout(0.2)")
    assert ended.stdout == f"done\nNone {errno.ECANCELED}\n"
    assert (ended.stderr, ended.returncode) == ("", 0)


@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit(3)", "pool.flush()"])
def test_exit_status_of_the_program_is_kept(end: str) -> None:
    """sys.exit(), also in a callback, ends the program with its status."""
    prologue = "pool.exit_timeout(0.05)\nprocaio.aio_nop(lambda: sys.exit(3), pool=pool)\n"
    ended = run_program(STUCK + prologue + end)
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr


def test_uncaught_exception_ends_like_any_exit() -> None:
    ended = run_program("import procaio\nprocaio.aio_nop(lambda: print('called'))\n1 / 0")
    assert (ended.stdout, ended.returncode) == ("called\n", 1)
    assert ended.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_exception_in_a_callback_at_exit_is_reported() -> None:
    """The others are called all the same (A14)."""
    ended = run_program(
        """
import procaio
procaio.aio_nop(lambda: 1 / 0)
procaio.aio_nop(lambda: print("called"))
"""
    )
    assert (ended.stdout, ended.returncode) == ("called\n", 0)
    assert "ZeroDivisionError" in ended.stderr


def test_hard_exit_leaves_no_process() -> None:
    """os._exit() calls no callback; everything is gone all the same."""
    ended = run_program(STUCK + "print(pool.statistics().spawner_pid, flush=True)\nos._exit(7)")
    assert ended.returncode == 7
    spawner = int(ended.stdout)
    eventually(lambda: not os.path.exists(f"/proc/{spawner}"), "the spawner leaves")


@pytest.mark.parametrize(
    "wait",
    ["stuck.wait()", "pool.flush()", "while True: pool.poll()", "pool.close()",
     "while True: pool.poll_wait(); pool.poll_cb()",
     "import asyncio; asyncio.run(asyncio.wait_for(stuck, 99))",
     "pool.min_parallel(1); pool.max_parallel(0)"],
)  # fmt: skip
def test_ctrl_c_ends_whatever_waits(wait: str) -> None:
    """KeyboardInterrupt comes out; the program ends at once, and nothing stays behind."""
    program = STUCK + "pool.exit_timeout(0)\nprint('waiting', flush=True)\n" + wait
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == "waiting\n"
            eventually(lambda: len(children(started.pid)) >= 2, "worker and spawner live")
            family = children(started.pid)
            eventually(lambda: is_asleep(started.pid), "the program waits")
            started.send_signal(signal.SIGINT)
            out, errors = started.communicate(timeout=30)
        finally:
            started.kill()
    assert "KeyboardInterrupt" in errors
    assert started.returncode == -signal.SIGINT
    assert "None" in out or "asyncio" in wait
    eventually(lambda: not any(map(is_alive, family)), "workers and spawner leave")


def is_asleep(pid: int) -> bool:
    """Whether a process sleeps in the kernel."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"S"


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False


# -- warnings --------------------------------------------------------------------------------------

EVERYTHING = """
import asyncio, gc, os, procaio
async def main():
    path = os.path.realpath("/etc/passwd")
    with await procaio.aio_open(path) as handle:
        status, data, _ = await asyncio.gather(
            procaio.aio_stat(handle), procaio.aio_read(handle, 0, 10**6), procaio.aio_nop()
        )
        assert status.st_size == len(data)
    await procaio.aio_close(await procaio.aio_open(path))
    buffer = procaio.Buffer(100)
    try:
        await asyncio.wait_for(procaio.aio_busy(0.2), 0.01)
    except asyncio.TimeoutError:
        print(sorted(await procaio.aio_readdir("/")) == sorted(os.listdir("/")))
asyncio.run(main())
with procaio.Pool() as pool:
    procaio.aio_nop(pool=pool)
gc.collect()
"""


@pytest.mark.parametrize("options", [("-W", "error", "-X", "dev"), ("-O",), ("-I",)])
def test_program_in_development_mode_ends_without_a_word(options: tuple[str, ...]) -> None:
    """Python's own checks (memory, warnings, asyncio) find nothing."""
    ended = run_program(EVERYTHING, flags=options)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("True\n", "", 0)


def test_handle_that_is_never_closed_warns_at_exit() -> None:
    """A ResourceWarning with the path, as for a file object; silent unless warnings are on."""
    program = "import procaio\nhandle = procaio.aio_open('/etc/passwd').wait()"
    assert run_program(program).stderr == ""
    told = run_program(program, flags=("-W", "always"))
    assert "ResourceWarning: unclosed <FileHandle '/etc/passwd'" in told.stderr
    assert (told.stdout, told.returncode) == ("", 0)


def test_import_makes_neither_processes_nor_descriptors() -> None:
    """Importing costs nothing that has to be given back."""
    ended = run_program(
        """
import os
before = set(os.listdir("/proc/self/fd"))
import procaio
assert set(os.listdir("/proc/self/fd")) == before
print(open(f"/proc/self/task/{os.getpid()}/children").read() == "")
"""
    )
    assert (ended.stdout, ended.stderr) == ("True\n", "")


def test_interpreter_that_ends_in_a_thread_is_waited_for() -> None:
    """A thread that still waits for a request gets its result before the program ends."""
    ended = run_program(
        """
import procaio, threading
def wait():
    procaio.aio_busy(0.1).wait()
    print("waited")
threading.Thread(target=wait).start()
"""
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("waited\n", "", 0)
