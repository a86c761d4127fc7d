"""However the program ends, wherever its pools are: no process and no descriptor is left."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

import procaio
from conftest import eventually, in_child, kill, naps, not_sanitized, process_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

LIMIT = 10  # seconds; a second is promised
libc = ctypes.CDLL(None, use_errno=True)
SLEEP = "/bin/sleep"


# -- who is there ----------------------------------------------------------------------------------


def session(leader: int, *, zombies: bool = False) -> set[int]:
    """The processes of a session."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        said = process_state(name)
        if said and int(said[3]) == leader and (zombies or said[0] not in b"ZX"):
            found.add(int(name))
    return found


# -- what the pool is doing ------------------------------------------------------------------------


def wait_for_workers(pool: procaio.Pool, count: int) -> None:
    while len(pool.statistics().workers) < count:
        time.sleep(0.001)


def idle(pool: procaio.Pool) -> None:
    procaio.aio_nop(pool=pool).wait()


def busy(pool: procaio.Pool, count: int = 3) -> None:
    for _ in range(count):
        procaio.aio_busy(60, pool=pool)
    wait_for_workers(pool, 3)


def stuck(pool: procaio.Pool) -> None:
    """Two wait for a pipe's data, one for somebody who opens a FIFO."""
    fifo = f"fifo{id(pool)}"
    os.mkfifo(fifo)
    waits = [procaio.aio_read(os.pipe()[0], None, 1, pool=pool) for _ in range(2)]
    waits.append(procaio.aio_open(fifo, pool=pool))
    while any(request.state != "execute" for request in waits):
        time.sleep(0.001)


def full(pool: procaio.Pool) -> None:
    """More than there are slots."""
    busy(pool, 5000)


def starting(pool: procaio.Pool) -> None:
    for _ in range(8):
        procaio.aio_busy(60, pool=pool)


def closing(pool: procaio.Pool) -> None:
    busy(pool)
    threading.Thread(target=pool.close, daemon=True).start()


def stopped(pool: procaio.Pool) -> None:
    """Everyone, the spawner too."""
    stuck(pool)
    said = pool.statistics()
    for pid in (said.spawner_pid, *(worker.pid for worker in said.workers)):
        os.kill(pid, signal.SIGSTOP)
        while process_state(pid)[0] != b"T":
            time.sleep(0.001)


STATES: dict[str, Callable[[procaio.Pool], None]] = {
    state.__name__: state for state in (idle, busy, stuck, full, starting, closing, stopped)
}

# -- which threads there are -----------------------------------------------------------------------

pools: list[procaio.Pool] = []


def start(state: str) -> None:
    """Make a pool and give it something to do."""
    pools.append(procaio.Pool())
    STATES[state](pools[-1])


def in_thread(*steps: Callable[[], object]) -> threading.Thread:
    """Take some steps in a thread; when they have been taken this returns."""
    thread = threading.Thread(target=lambda: [step() for step in steps], daemon=True)
    thread.start()
    return thread


def then_stay(state: str) -> None:
    done = threading.Event()
    in_thread(lambda: start(state), done.set, threading.Event().wait)
    done.wait()


def then_leave(state: str) -> None:
    in_thread(lambda: start(state)).join()


def several(state: str) -> None:
    then_stay(state)
    then_leave(state)
    start(state)


def main_thread_ends(end: Callable[[], object]) -> None:
    """The first thread is gone; the others go on."""

    def watch() -> None:
        while process_state(os.getpid())[0] != b"Z":
            time.sleep(0.001)

    in_thread(watch, end)
    libc.pthread_exit(None)


def call(end: Callable[[], object]) -> None:
    end()


def call_in_thread(end: Callable[[], object]) -> None:
    in_thread(end).join()


# How the pool is started, and who ends the program.
THREADS: dict[str, tuple[Callable[[str], None], Callable[[Callable[[], object]], None]]] = {
    "one thread": (start, call),
    "started by a thread that goes on": (then_stay, call),
    "started by a thread that has ended": (then_leave, call),
    "several pools in several threads": (several, call),
    "ended by another thread": (start, call_in_thread),
    "the first thread has ended": (then_stay, main_thread_ends),
}

# -- how it ends -----------------------------------------------------------------------------------


def exec_in_c() -> None:
    """Without anything of Python's noticing."""
    libc.execv(SLEEP.encode(), (ctypes.c_char_p * 3)(b"sleep", b"60", None))


ENDS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "os._exit": lambda: os._exit(0),
    "os.abort": os.abort,
    "os.execv": lambda: os.execv(SLEEP, ["sleep", "60"]),
    "execv in C": exec_in_c,
}


def victim(threads: str, state: str, end: str) -> NoReturn:
    """The program."""
    os.setsid()
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT):
        signal.signal(number, signal.SIG_DFL)
    begin, finish = THREADS[threads]
    begin(state)
    finish(ENDS[end])
    while True:
        time.sleep(1)


def is_program(pid: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == name
    return False


def open_files(pid: int) -> set[tuple[str, str]]:
    """Numbers of descriptors, and what they are; of this process, those that are inherited."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            if pid != os.getpid() or os.get_inheritable(int(name)):
                found.add((name, os.readlink(f"/proc/{pid}/fd/{name}")))
    return found


def check_end(threads: str, state: str, end: str) -> None:
    pid = in_child(lambda: victim(threads, state, end))
    becomes = os.path.basename(os.path.realpath(SLEEP))
    try:
        if "exec" in end:
            eventually(lambda: is_program(pid, becomes), "it is another program")
            eventually(lambda: session(pid) == {pid}, "its workers are gone", LIMIT)
            if end == "os.execv":
                assert session(pid, zombies=True) == {pid}
            mine = open_files(os.getpid())
            eventually(lambda: open_files(pid) <= mine, "it has no descriptor more", LIMIT)
    finally:
        if "exec" in end:
            kill(pid)
        os.waitpid(pid, 0)
    try:
        eventually(lambda: session(pid) == set(), "everybody is gone", LIMIT)
    finally:
        for other in session(pid):
            kill(other)


CASES = [
    (threads, state, end)
    for threads, state, end in itertools.product(*map(enumerate, (THREADS, STATES, ENDS)))
    if (state[1], end[1]) != ("stopped", "execv in C")  # nobody is there to notice
]


def marks(threads: str, number: int) -> list[pytest.MarkDecorator]:
    """Of all the combinations a sixth, in which any two things meet, is tried each time."""
    slow = [pytest.mark.slow] if number % len(THREADS) else []
    return [*slow, not_sanitized] if threads == "the first thread has ended" else slow


@pytest.mark.parametrize(
    ("threads", "state", "end"),
    [pytest.param(t, s, e, marks=marks(t, i + j + k)) for (i, t), (j, s), (k, e) in CASES],
)
def test_program_that_ends_leaves_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: str, state: str, end: str
) -> None:
    """Whatever threads there are, whatever the workers do, whatever the end is."""
    monkeypatch.chdir(tmp_path)
    check_end(threads, state, end)


def test_stopped_workers_of_a_program_that_c_code_has_replaced_leave_when_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the spawner notices that, and it need not wait for the workers: it kills them."""
    monkeypatch.chdir(tmp_path)
    pid = in_child(lambda: victim("one thread", "stopped", "execv in C"))
    try:
        becomes = os.path.basename(os.path.realpath(SLEEP))
        eventually(lambda: is_program(pid, becomes), "it is another program")
        (spawner,) = (other for other in session(pid) if title(other) == f"spawner of {pid}")
        assert len(session(pid)) == 5
        os.kill(spawner, signal.SIGCONT)
        eventually(lambda: session(pid) == {pid}, "its workers are gone", LIMIT)
    finally:
        for other in session(pid):
            kill(other)
        os.waitpid(pid, 0)


def title(pid: int) -> str:
    """What `ps` shows of one of our processes."""
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().rstrip("\0").removeprefix("procaio: ")


# -- exec that fails, and processes that the program starts ----------------------------------------


def test_exec_that_fails_costs_no_request(workers: procaio.Pool, tmp_path: Path) -> None:
    """What cannot be executed is found out before; for what the kernel refuses, all begins anew."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF that is none")
    held = [procaio.aio_busy(0.1, pool=workers) for _ in range(3)]
    pids = [worker.pid for worker in wait_for_first(workers)]
    for name, error in (("none", FileNotFoundError), ("broken", PermissionError)):
        with pytest.raises(error):
            os.execv(tmp_path / name, ["x"])
    with pytest.raises(PermissionError):
        os.execv(tmp_path, ["x"])
    with pytest.raises(FileNotFoundError):
        os.execvp("no-such-program-anywhere", ["x"])
    with pytest.raises(TypeError):
        os.execv()  # type: ignore[call-arg]
    assert pids == [worker.pid for worker in workers.statistics().workers][: len(pids)]
    broken.chmod(0o755)
    with pytest.raises(OSError, match="format"):
        os.execve(broken, ["x"], {})
    assert not set(pids) & session(os.getsid(0))
    assert [request.wait() for request in held] == [None] * 3
    assert workers.statistics().worker_deaths == 0


def wait_for_first(pool: procaio.Pool) -> Any:
    """The workers, once there is one."""
    wait_for_workers(pool, 1)
    return pool.statistics().workers


@pytest.mark.parametrize("how", ["subprocess", "posix_spawn", "fork and exec"])
def test_process_that_the_program_starts_has_nothing_of_the_pool(
    workers: procaio.Pool, how: str
) -> None:
    """No descriptor, and no share in its end: the pool goes on when the process has ended."""
    busy_requests = [procaio.aio_busy(0.2, pool=workers) for _ in range(3)]
    pids = {worker.pid for worker in wait_for_first(workers)}
    if how == "subprocess":
        started = subprocess.Popen([SLEEP, "60"], close_fds=False)
        pid = started.pid
    elif how == "posix_spawn":
        pid = os.posix_spawn(SLEEP, ["sleep", "60"], {})
    else:
        pid = in_child(lambda: os.execv(SLEEP, ["sleep", "60"]))
    becomes = os.path.basename(os.path.realpath(SLEEP))
    eventually(lambda: is_program(pid, becomes), "it runs")
    mine = open_files(os.getpid())
    eventually(lambda: open_files(pid) <= mine, "it has no descriptor more")
    kill(pid)
    if how == "subprocess":
        started.wait()
    else:
        os.waitpid(pid, 0)
    assert [request.wait() for request in busy_requests] == [None] * 3
    assert pids <= {worker.pid for worker in workers.statistics().workers}


@not_sanitized
def test_pool_goes_on_when_the_first_thread_has_ended(tmp_path: Path) -> None:
    """The spawner looks for the program, whose first thread has no descriptors any more."""
    told = tmp_path / "told"

    def work() -> None:
        ready = threading.Event()

        def go_on() -> None:
            pool = procaio.Pool()
            idle(pool)
            spawner = pool.statistics().spawner_pid
            ready.set()
            while process_state(os.getpid())[0] != b"Z":
                time.sleep(0.001)
            looks = naps(spawner)
            # Awake it naps for a few milliseconds; at rest it looks after each nap.
            eventually(lambda: naps(spawner) >= looks + 8, "the spawner looks for the program")
            idle(pool)
            assert pool.statistics().spawner_pid == spawner
            pool.close()
            told.write_text("it did")
            os._exit(0)

        in_thread(go_on)
        ready.wait()
        libc.pthread_exit(None)

    os.waitpid(in_child(work), 0)
    assert told.read_text() == "it did"


# -- the interpreter's own end ---------------------------------------------------------------------

INTERPRETER = """
import errno, os, sys, threading, time
import procaio
os.setsid()
pool = procaio.Pool()
pool.exit_timeout(0.05)
reading, writing = os.pipe()

def begin():
    waits = [procaio.aio_read(reading, None, 1, pool=pool) for _ in range(3)]
    while any(request.state != "execute" for request in waits):
        time.sleep(0.001)

def work():
    while True:
        try: procaio.aio_nop(pool=other).wait()
        except procaio.PoolClosed: return
        except OSError as error:
            if error.errno == errno.ECANCELED: return
            raise

other = procaio.Pool()
threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
"""


@not_sanitized
@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit(3)", "os._exit(3)"])
@pytest.mark.parametrize("first", ["begin", "threading.Thread(target=begin).run"])
def test_interpreter_that_ends_while_threads_use_its_pools_leaves_nobody(
    first: str, end: str
) -> None:
    """Daemon threads go on making requests until there is nothing to make them with."""
    program = f"{INTERPRETER}\n{first}()\n[thread.start() for thread in threads]\n{end}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        _, errors = started.communicate(timeout=60)
    assert (started.returncode, errors) == (3, b"")
    eventually(lambda: session(started.pid) == set(), "everybody is gone", LIMIT)
