"""The program around a pool: its signals, children, debuggers, options and habits stay its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import WALL, children, eventually, in_child, is_running, kill, not_sanitized, succeeds
from programs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

WARN = ("-W", "error")
LIMIT = 256 << 20  # of the size of a file; shared memory is within


# -- forks, as Python sees them --------------------------------------------------------------------


@not_sanitized
def test_fork_is_no_fork_of_a_program_with_threads() -> None:
    """No function leaves a thread that Python would warn of: not even those on memory."""
    program = """
        import mmap, os, procaio, warnings
        warnings.simplefilter("error")
        buffer, path = procaio.Buffer(1 << 20), os.path.realpath(os.__file__)
        def rounds():
            for _ in range(8):
                requests = [procaio.aio_mtouch(buffer) for _ in range(20)]
                requests += [procaio.aio_mlock(buffer, 0, mmap.PAGESIZE), procaio.aio_load(path)]
                requests += [procaio.aio_stat(path, timeout=60) for _ in range(20)]
                procaio.flush()
                pid = os.fork()
                if pid == 0:
                    os._exit(procaio.aio_mtouch(procaio.Buffer(5000)).wait())
                assert os.waitpid(pid, 0)[1] == 0
                assert len(os.listdir("/proc/self/task")) == 1
        rounds()
        print("fine")
    """
    assert run_python(program, flags=(*WARN, "-X", "dev")) == "fine\n"


def test_thread_that_is_at_work_does_not_keep_a_fork(
    workers: procaio.Pool, memory_gate: Any
) -> None:
    """Only idle threads end before a fork; the request of the other ends in the parent."""
    held = memory_gate.hold(workers, 2)
    idle = bytearray(1 << 16)
    assert procaio.aio_mtouch(idle, pool=workers).wait(60) == 0
    assert succeeds(in_child(lambda: procaio.aio_mtouch(idle, pool=workers).wait(60)))
    assert [request.state for request in held] == ["execute"] * 2
    memory_gate.open()
    assert [request.wait(60) for request in held] == [0, 0]
    assert procaio.aio_mtouch(idle, pool=workers).wait(60) == 0


# -- signals ---------------------------------------------------------------------------------------


@pytest.fixture
def wakeups() -> Iterator[int]:
    """The reading end of what signal.set_wakeup_fd() was given."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writer)
    handlers = {
        number: signal.signal(number, lambda *_: None)
        for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGIO, signal.SIGURG)
    }
    yield reader
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(before)
    os.close(reader)
    os.close(writer)


def test_only_signals_of_the_program_wake_it_up(
    workers: procaio.Pool, gate: Any, data_file: Path, wakeups: int
) -> None:
    """set_wakeup_fd tells of its own child and signal, and of nothing that a pool does."""
    held = gate.hold(workers, 2)
    kill(workers.statistics().workers[0].pid)
    held[1].abort()
    for _ in range(50):
        procaio.aio_load(data_file, pool=workers, timeout=60).wait(60)
    with pytest.raises(BlockingIOError):
        os.read(wakeups, 100)
    assert succeeds(in_child(lambda: None))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert sorted(os.read(wakeups, 100)) == sorted([signal.SIGCHLD, signal.SIGUSR1])
    gate.open(2)


@pytest.mark.parametrize("how", [signal.SIG_IGN, signal.SIG_DFL, lambda *_: None])
def test_death_of_a_worker_is_noticed_whatever_the_program_does_with_sigchld(
    data_file: Path, how: Any
) -> None:
    """Also where the system itself reaps the program's children."""
    before = signal.signal(signal.SIGCHLD, how)
    try:
        with procaio.Pool(workers=1, at_once=False) as pool:
            for deaths in range(3):
                procaio.aio_load(data_file, pool=pool).wait(60)
                kill(pool.statistics().workers[0].pid)
                assert procaio.aio_stat(data_file, pool=pool).wait(60) == os.stat(data_file)
                eventually(
                    lambda deaths=deaths, pool=pool: (  # type: ignore[misc]
                        pool.poll_cb() == 0 and pool.statistics().worker_deaths == deaths + 1
                    ),
                    "the burial",
                )
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_waiting_for_any_child_gives_those_of_the_program_only(
    workers: procaio.Pool, gate: Any
) -> None:
    """os.wait, waitpid(-1), waitid(P_ALL), waitpid(0): all find the one child that it has made."""
    gate.hold(workers, 3)
    kill(workers.statistics().workers[0].pid)
    ways: list[Callable[[], int]] = [
        lambda: os.wait()[0],
        lambda: os.wait3(0)[0],
        lambda: os.waitpid(-1, 0)[0],
        lambda: os.waitpid(0, 0)[0],
        lambda: os.waitid(os.P_ALL, 0, os.WEXITED).si_pid,  # type: ignore[union-attr]
    ]
    for wait in ways:
        pid = in_child(lambda: None)
        assert wait() == pid
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
    gate.open(3)
    workers.flush()


def test_program_that_reaps_even_workers_loses_nothing(data_file: Path) -> None:
    """waitpid(-1, __WALL) takes a dead worker from us; it is replaced all the same."""

    def work() -> None:
        with procaio.Pool(workers=2, at_once=False) as pool:
            for _ in range(3):
                procaio.aio_load(data_file, pool=pool).wait(60)
                pid = pool.statistics().workers[0].pid
                kill(pid)
                assert os.waitpid(pid, WALL)[0] == pid
                requests = [procaio.aio_load(data_file, pool=pool) for _ in range(20)]
                assert [r.wait(60) for r in requests] == [data_file.read_bytes()] * 20
            kill(pool.statistics().spawner_pid)
            os.waitpid(pool.statistics().spawner_pid, WALL)
            kill(pool.statistics().workers[0].pid)
            assert procaio.aio_load(data_file, pool=pool).wait(60) == data_file.read_bytes()

    assert succeeds(in_child(work))


def test_blocked_signals_of_the_thread_that_starts_a_pool_are_of_no_account(
    data_file: Path,
) -> None:
    """Workers work and end as ever, and its mask is what it was."""
    masks = []

    def work() -> None:
        before = set(signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals()))
        with procaio.Pool(at_once=False) as pool:
            assert procaio.aio_load(data_file, pool=pool).wait(60) == data_file.read_bytes()
            late = procaio.aio_busy(60, pool=pool, timeout=0.01)
            pool.flush()
            assert late.error is not None
        masks.append(before <= set(signal.pthread_sigmask(signal.SIG_SETMASK, before)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert masks == [True]


# -- children of event loops -----------------------------------------------------------------------


async def run_programs(path: Path) -> None:
    """Processes of asyncio, while a pool works and one of its workers dies."""
    content = await procaio.aio_load(path)

    async def load() -> bytes:
        return await procaio.aio_load(path)

    for code in (0, 7):
        loads = [asyncio.ensure_future(load()) for _ in range(20)]
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", f"echo told; exit {code}", stdout=subprocess.PIPE
        )
        for worker in procaio.statistics().workers[:1]:  # the next one may not be there yet
            kill(worker.pid)
        assert (await process.communicate())[0] == b"told\n"
        assert await asyncio.wait_for(process.wait(), 30) == code
        assert await asyncio.gather(*loads) == [content] * 20


WATCHERS = ["ThreadedChildWatcher", "PidfdChildWatcher", "SafeChildWatcher", "FastChildWatcher"]


@pytest.mark.parametrize("watcher", ["the default one", *WATCHERS])
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_child_watchers_of_asyncio_see_their_own_processes(data_file: Path, watcher: str) -> None:
    """Whichever way asyncio waits for its children: it gets their status, and we get ours."""
    procaio.aio_load(data_file).wait(60)
    if watcher == "the default one":
        asyncio.run(run_programs(data_file))
        return
    if not hasattr(asyncio, watcher):
        pytest.skip("this Python has no such watcher")

    async def main() -> None:
        made = getattr(asyncio, watcher)()
        made.attach_loop(asyncio.get_running_loop())
        policy: Any = asyncio.get_event_loop_policy()
        policy.set_child_watcher(made)
        try:
            await run_programs(data_file)
        finally:
            made.close()
            policy.set_child_watcher(None)

    asyncio.run(main())


def test_processes_of_uvloop(data_file: Path) -> None:
    """Its handler of SIGCHLD waits for its own children only."""
    uvloop = pytest.importorskip("uvloop")

    def work() -> None:  # it keeps descriptors for the rest of its program
        procaio.aio_load(data_file).wait(60)
        uvloop.new_event_loop().run_until_complete(run_programs(data_file))

    assert succeeds(in_child(work))


# -- debuggers and tracers -------------------------------------------------------------------------

WORKOUT = """
    import os, procaio, sys
    def workout():
        path = os.path.realpath(os.__file__)
        seen = []
        requests = [procaio.aio_stat(path, seen.append) for _ in range(50)]
        requests += [procaio.aio_load(path, seen.append), procaio.aio_readdir("/", seen.append)]
        with procaio.aio_open(path).wait() as file, procaio.Buffer(100) as buffer:
            assert procaio.aio_read(file, 0, 100, buffer).wait() == 100
        procaio.flush()
        assert len(seen) == 52 and not any(request.errno for request in requests)
        procaio.close()
"""


def workout(after: str = "", before: str = "") -> str:
    """A program that does a little of everything."""
    return "".join(textwrap.dedent(part) for part in (before, WORKOUT, after))


@pytest.mark.parametrize(
    "options",
    [
        ("-OO",),
        ("-I", "-X", "tracemalloc"),
        ("-X", "faulthandler", "-X", "dev"),
        ("-E", "-B", "-u"),
    ],
)
def test_options_of_python_change_nothing(options: tuple[str, ...]) -> None:
    """Without docstrings and the environment, with tracing of memory, in development mode."""
    assert run_python(workout("workout(); print('fine')"), flags=(*WARN, *options)) == "fine\n"


TRACED = {
    "sys.settrace": "import sys; sys.settrace(lambda *_: None); workout()",
    "sys.setprofile": "import sys; sys.setprofile(lambda *_: None); workout()",
    "threading": "import threading; threading.settrace_all_threads(lambda *_: None)"
    " if hasattr(threading, 'settrace_all_threads') else None; workout()",
    "cProfile": "import cProfile, io, contextlib\n"
    "with contextlib.redirect_stdout(io.StringIO()): cProfile.run('workout()')",
    "faulthandler": "import faulthandler; faulthandler.enable(); "
    "faulthandler.dump_traceback_later(50, exit=True); workout(); "
    "faulthandler.cancel_dump_traceback_later()",
    "tracemalloc": "import tracemalloc; tracemalloc.start(); workout(); tracemalloc.stop()",
    "a breakpoint in a callback": "import sys\n"
    "sys.breakpointhook = lambda: procaio.aio_stat('/').wait()\n"
    "procaio.aio_nop(breakpoint); procaio.flush(); workout()",
}


@pytest.mark.parametrize("tool", TRACED)
def test_tracers_and_profilers_do_not_disturb(tool: str) -> None:
    """Python's own tools see the program, and no worker runs them."""
    assert run_python(workout(TRACED[tool] + "\nprint('fine')"), flags=WARN) == "fine\n"


def test_debugger_of_python_steps_through_callbacks(tmp_path: Path) -> None:
    """Pdb stops in a callback, looks at a request, and goes on."""
    (tmp_path / "program.py").write_text(
        "import procaio\n"
        "def callback(status):\n"
        "    print('called')\n"
        "request = procaio.aio_stat('/', callback)\n"
        "procaio.flush()\n"
    )
    told = subprocess.run(
        [sys.executable, "-m", "pdb", "program.py"],
        input="break callback\ncontinue\np request\nnext\ncontinue\nquit\n",
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "<Request stat '/'" in told.stdout
    assert "called" in told.stdout


def can_trace() -> bool:
    """Whether gdb is there and may attach to a process."""
    command = ["gdb", "-nx", "-batch", "-p"]
    if not shutil.which("gdb"):
        return False
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        done = subprocess.run([*command, str(sleeper.pid)], capture_output=True, check=False)
        sleeper.kill()
    return done.returncode == 0 and b"not permitted" not in done.stderr


@not_sanitized
@pytest.mark.parametrize("whom", ["the program", "a worker", "the spawner"])
def test_debugger_that_attaches_and_leaves_ends_nobody(
    workers: procaio.Pool, gate: Any, whom: str
) -> None:
    """Gdb stops a process in the middle of a call and lets it go: nothing was lost."""
    if not can_trace():
        pytest.skip("no gdb here, or it must not attach")

    def work() -> None:
        held = gate.hold(workers, 2)
        statistics = workers.statistics()
        pid = {"a worker": statistics.workers[0].pid, "the spawner": statistics.spawner_pid}
        target = pid.get(whom, os.getpid())
        with subprocess.Popen(
            ["gdb", "-nx", "-batch", "-ex", "detach", "-p", str(target)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as debugger:  # fmt: skip
            while debugger.poll() is None:
                with contextlib.suppress(TimeoutError):
                    procaio.aio_busy(0.01, pool=workers).wait(60)
        gate.open(2)
        assert [request.wait(60) for request in held] == [b"x"] * 2
        after = workers.statistics()
        assert after.worker_deaths == after.spawner_deaths == 0

    assert succeeds(in_child(work))


# -- interpreters ----------------------------------------------------------------------------------

SUBINTERPRETER = """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    inner = '''
try:
    import procaio
except ImportError as error:
    print("refused" if "interpreter" in str(error) else error, flush=True)
else:
    print("imported", flush=True)
'''
    kinds = ["isolated", "legacy"] if hasattr(interpreters, "new_config") else [None]
    for kind in kinds:
        made = interpreters.create(kind) if kind else interpreters.create()
        interpreters.run_string(made, inner)
        interpreters.destroy(made)
"""


@pytest.mark.parametrize("before", ["", "import procaio; procaio.aio_stat('/').wait()"])
def test_import_in_a_subinterpreter_is_refused_and_harms_nobody(before: str) -> None:
    """It is an ImportError that says so; the main interpreter's pool goes on."""
    ended = run_python(workout(SUBINTERPRETER_THEN_WORK, before=before + "\n"))
    assert set(ended.split("\n")) == {"refused", "fine", ""}


SUBINTERPRETER_THEN_WORK = textwrap.dedent(SUBINTERPRETER) + "\nworkout(); print('fine')"


# -- programs of another kind ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [("setsid", "-w"), ("nohup",), ("nice", "-n", "1"), ("setpriv", "--pdeathsig", "HUP")],
)
def test_program_that_was_started_by_another(command: tuple[str, ...]) -> None:
    """Detached from the terminal, without hangups, with a signal when its parent ends."""
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]} here")
    program = workout("workout(); print('fine')")
    made = run_python(program, flags=WARN, command=command, stdin=subprocess.DEVNULL)
    assert made == "fine\n"


@pytest.mark.parametrize("option", ["PR_SET_PDEATHSIG", "PR_SET_CHILD_SUBREAPER"])
def test_what_the_program_asks_of_the_kernel_is_not_asked_for_its_workers(option: str) -> None:
    """It is killed and everything goes; what it has set it has still."""
    number, value = {"PR_SET_PDEATHSIG": (1, 15), "PR_SET_CHILD_SUBREAPER": (36, 1)}[option]
    program = workout(
        f"""
        import ctypes, time
        libc, now = ctypes.CDLL(None), ctypes.c_int()
        assert libc.prctl({number}, {value}, 0, 0, 0) == 0
        workout()
        [procaio.aio_busy(60) for _ in range(3)]
        while len(procaio.statistics().workers) < 3: time.sleep(0.001)
        assert libc.prctl({number} + 1, ctypes.byref(now), 0, 0, 0) == 0 and now.value == {value}
        print("ready", flush=True); time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        family = children(started.pid)
        started.kill()
    assert len(family) == 4
    eventually(lambda: not any(map(is_running, family)), "all are gone")
