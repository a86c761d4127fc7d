"""What every test gets: pools, gates, and the look at what a test leaves behind."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import importlib
import mmap
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

import procaio
from ending import Force
from programs import run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType


WALL = 0x40000000  # of waitpid(2): also children that give no SIGCHLD when they end
# Else it imports trio, and every await would have to ask whether that is what runs.
os.environ.setdefault("HYPOTHESIS_NO_PLUGINS", "1")


def _is_sanitized() -> bool:
    with open("/proc/self/maps") as file:
        return "libasan" in file.read()


is_sanitized = _is_sanitized()
not_sanitized = pytest.mark.skipif(
    is_sanitized,
    reason="the sanitizer has memory of its own, also in workers, locks nothing, and does not know"
    " the stacks of greenlets, nor those of a program whose first thread has ended",
)


def eventually(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait for something that another process does; fail with `what` if it never happens."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"never happened: {what}")
        select.select([], [], [], 0.001)


def has_children() -> bool:
    """Whether this process has any, workers and zombies included: one call, where /proc is many."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL)
    except ChildProcessError:
        return False
    return True


def children(pid: int | None = None) -> set[int]:
    """Processes whose parent is this one (or `pid`), zombies included."""
    found: set[int] = set()
    if not pid and not has_children():
        return found
    parent = pid or os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            if int(file.read().rpartition(b")")[2].split()[1]) == parent:
                found.add(int(name))
    return found


def process_state(pid: int | str) -> list[bytes]:
    """What the system says of a process, from its state on; nothing once it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
    return []


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return process_state(pid)[:1] not in ([], [b"Z"], [b"X"])


def has_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process, and none has let it go on."""
    return process_state(pid)[:1] == [b"T"]


def naps(pid: int) -> int:
    """How often a process has gone to sleep."""
    with open(f"/proc/{pid}/status") as file:
        (line,) = (line for line in file if line.startswith("voluntary_ctxt_switches"))
    return int(line.split()[1])


def descriptors() -> dict[int, str]:
    """Open descriptors of this process, and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def open_files() -> dict[int, str]:
    """Of them, those that are not a pool's own, or what its spawner looks at."""
    own = ("anon_inode:", "/dev/shm/", "/memfd:", "/proc/")
    return {fd: what for fd, what in descriptors().items() if not what.startswith(own)}


def shared_memory() -> set[str]:
    """Names of shared memory. Directories that others put there are none."""
    with os.scandir("/dev/shm") as entries:
        return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}


def footprint() -> tuple[set[int], dict[int, str], set[str]]:
    """What a test must not leave more of: children, descriptors, names of shared memory."""
    return children(), descriptors(), shared_memory()


@pytest.fixture(autouse=True, scope="module")
def _what_is_there_stays() -> None:
    """Every test's look at what it leaves need not go through all that was there before."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Every test ends with no process, descriptor or shared memory more than it began with."""
    procaio.aioreq_pri(0)
    before = footprint()
    yield
    procaio.on_callback_error(None)
    procaio.close()
    gc.collect()
    after = footprint()
    assert after[0] - before[0] == set(), "processes left behind"
    new = {fd: what for fd, what in after[1].items() if before[1].get(fd) != what}
    assert new == {}, "descriptors left behind"
    # Other programs make names there too; theirs go again.
    names = after[2] - before[2]
    eventually(lambda: not names & shared_memory(), f"{names} leave /dev/shm")


@pytest.fixture(params=["workers", "inline"])
def pool(request: pytest.FixtureRequest) -> Iterator[procaio.Pool]:
    """A pool with processes, and one that runs the same operations without them."""
    with procaio.Pool(inline=request.param == "inline") as made:
        yield made


@pytest.fixture
def workers() -> Iterator[procaio.Pool]:
    """A pool with processes, and nothing is done without them."""
    with procaio.Pool(at_once=False) as made:
        yield made


@pytest.fixture(scope="session")
def slowfs() -> ModuleType:
    """How to mount a directory so that calls on it take long or hang (benchmarks/slowfs.py)."""
    root = Path(__file__).resolve().parent.parent
    if subprocess.run(["pkg-config", "--exists", "fuse3"], check=False).returncode:
        pytest.skip("needs libfuse3-dev")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount3"):
        pytest.skip("needs fuse3 and the right to use it")
    subprocess.run(["make", "--silent", "build/slowfs"], cwd=root, check=True, timeout=100)
    sys.path.append(str(root))  # last: what is tested may be another build
    return importlib.import_module("benchmarks.slowfs")


@pytest.fixture(scope="module")  # tests of processes want no other children
def display() -> Iterator[str]:
    """A display of the tests' own, or the user's."""
    if not shutil.which("Xvfb"):
        if "DISPLAY" not in os.environ:
            pytest.skip("needs a display: Debian package xvfb")
        yield os.environ["DISPLAY"]
        return
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-nolisten", "tcp", "-screen", "0", "800x600x24"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        with os.fdopen(read) as said:
            number = said.readline().strip()
        try:
            yield f":{number}"
        finally:
            server.terminate()


class Gate:
    """A FIFO: whoever reads from it waits until the gate is opened.

    A request that reads at its position occupies a worker exactly as long as the test wants.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._writer = os.open(path, os.O_WRONLY)
        os.set_blocking(self.fd, True)

    def hold(self, pool: procaio.Pool, count: int = 1, **keywords: int) -> list[procaio.Request]:
        """Requests that are being executed when this returns."""
        held = [procaio.aio_read(self.fd, None, 1, pool=pool, **keywords) for _ in range(count)]
        eventually(lambda: all(r.state == "execute" for r in held), "workers take the gate's reads")
        return held

    def open(self, count: int = 1) -> None:
        """Let `count` of them go on."""
        os.write(self._writer, b"x" * count)

    def close(self) -> None:
        """End of file for whoever still reads."""
        for fd in (self._writer, self.fd):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Something to block workers with, and to let them go."""
    made = Gate(tmp_path / "gate")
    yield made
    made.close()


@pytest.fixture(params=["deadline", "abort"])
def force(request: pytest.FixtureRequest) -> Force:
    """A request's end before its time."""
    return Force(request.param, errno.ETIMEDOUT if request.param == "deadline" else errno.ECANCELED)


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """A file of 64 KiB in which no two blocks of 16 bytes are alike."""
    path = tmp_path / "data"
    path.write_bytes(b"".join(n.to_bytes(16, "big") for n in range(4096)))
    return path


@pytest.fixture
def fd(data_file: Path) -> Iterator[int]:
    """The data file, open for reading and writing."""
    number = os.open(data_file, os.O_RDWR)
    yield number
    os.close(number)


def in_child(work: Callable[[], object]) -> int:
    """Fork; the child does `work` and leaves with 0 if nothing was raised. Returns its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(60)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def succeeds(pid: int) -> bool:
    """Whether the child left with 0."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def is_dead_in_child(request: procaio.Request[Any]) -> bool:
    """Whether a child that is forked now finds that the request is its parent's."""

    def look() -> None:
        assert request.state == "dead"

    return succeeds(in_child(look))


@contextlib.contextmanager
def switching_often() -> Iterator[None]:
    """Within the block threads take turns as often as the interpreter lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def errno_of(call: Callable[[], object]) -> int:
    """What a call comes to: 0 for success."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """End a process that may have ended already."""
    assert pid > 0, "that would be a whole group"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def run_fine(text: str, *prefixes: str, command: tuple[str, ...] = (), **keywords: Any) -> None:
    """Run a program that says `fine`, or `skip why` where the machine does not allow it.

    The `command` is what runs the interpreter.
    """
    source = "".join(textwrap.dedent(part) for part in (*prefixes, text))
    done = run_program(source, command=command, **keywords)
    if done.stdout.startswith("skip"):
        pytest.skip(done.stdout.strip())
    assert (done.stdout.strip(), done.returncode) == ("fine", 0), done.stdout + done.stderr


class MemoryGate:
    """Memory whose pages come only when the gate is opened.

    Whoever touches it waits in the system call, exactly as long as the test wants.
    """

    SYSCALL: ClassVar = {"x86_64": 323, "aarch64": 282}.get(platform.machine(), -1)
    API, REGISTER = 0xC018AA3F, 0xC020AA00
    PAGES = 4

    def __init__(self) -> None:
        self.size = self.PAGES * mmap.PAGESIZE
        self.memory = mmap.mmap(-1, self.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        held = ctypes.c_char.from_buffer(self.memory)
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.syscall(self.SYSCALL, os.O_CLOEXEC)
        if self._fd < 0:
            pytest.skip(f"no userfaultfd here: {os.strerror(ctypes.get_errno())}")
        fcntl.ioctl(self._fd, self.API, struct.pack("QQQ", 0xAA, 0, 0))
        missing = struct.pack("QQQQ", ctypes.addressof(held), self.size, 1, 0)
        fcntl.ioctl(self._fd, self.REGISTER, missing)

    def hold(self, pool: procaio.Pool, count: int = 1, **keywords: int) -> list[procaio.Request]:
        """Requests that are being executed when this returns, by as many threads."""
        held = [procaio.aio_mtouch(self.memory, pool=pool, **keywords) for _ in range(count)]
        eventually(lambda: all(r.state == "execute" for r in held), "threads take the touches")
        return held

    def open(self) -> None:
        """Let everybody go on; the pages are zeroed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@pytest.fixture
def memory_gate() -> Iterator[MemoryGate]:
    """Something to block the program's own threads with, and to let them go."""
    made = MemoryGate()
    yield made
    made.open()
