"""
Where an event takes place: a program with one contender, its processes, and files that never end.

A stage starts the program, talks to it, looks from outside who executes what, and removes whatever
is left. The process that has stages becomes the parent of orphans (PR_SET_CHILD_SUBREAPER), so that
none gets lost.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from benchmarks import slowfs
from benchmarks.events.peers import KINDS, PERL
from benchmarks.harness import ROOT
from benchmarks.measure import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

PR_SET_CHILD_SUBREAPER = 36
START_SECONDS = 20
LAST_SECONDS = 10


class DeadError(Exception):
    """The program has ended though nobody told it to."""


class SilentError(Exception):
    """The program does not answer."""


def adopt_orphans() -> None:
    """Become the parent of what programs leave behind."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def processes() -> dict[int, tuple[int, str]]:
    """Give the parent and the state of every process."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
                found[int(name)] = int(parent), state
    return found


def descendants(root: int) -> set[int]:
    """Give the processes below one, zombies not."""
    there = processes()
    found = {root}
    while new := {pid for pid, (parent, _) in there.items() if parent in found} - found:
        found |= new
    return {pid for pid in found - {root} if there[pid][1] not in "ZX"}


def alive(pids: set[int]) -> set[int]:
    """Give those that are there and no zombies, but with one whose other threads go on."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            state, threads = fields[0], int(fields[17])
            found |= {pid} if state not in "ZX" or threads > 1 else set()
    return found


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """Wait for a condition; give what it was last."""
    end = time.monotonic() + seconds
    while not (now := condition()) and time.monotonic() < end:
        time.sleep(0.0005)
    return now


@final
class Stage:
    """One program, and everything around it. A context: at its end nothing is left."""

    def __init__(self, peer: str, patience: float) -> None:
        """Prepare it."""
        self.peer = peer
        self.patience = patience
        self.seen: set[int] = set()  # all processes that the program has had
        self.names: set[str] = set()  # and all that they have mapped from /dev/shm
        self._mounts = ExitStack()
        self._fifos: dict[str, int] = {}
        self._calls = 0
        self._input = b""

    def __enter__(self) -> Stage:
        """Start the program."""
        command = command_of(self.peer)
        self.directory = Path(tempfile.mkdtemp(prefix="events-"))
        self.temporary = self.directory / "tmp"
        self.temporary.mkdir()
        self.program = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what is left."""
        for fd in self._fifos.values():
            os.close(fd)
        for pid in {self.program.pid, *self.note(), *self.seen}:
            send(pid, signal.SIGKILL)
        self._mounts.close()  # what hangs there ends with it
        self.program.wait(LAST_SECONDS)
        until(_nobody_is_left, LAST_SECONDS)
        for stream in (self.program.stdin, self.program.stdout):
            with suppress(OSError):
                stream.close()
        for name in self.left_in_shared_memory():
            os.unlink(f"/dev/shm/{name}")
        shutil.rmtree(self.directory)

    # -- talking to it --------------------------------------------------------------------------

    def ask(self, do: str, within: float = START_SECONDS, **command: Any) -> dict[str, Any]:
        """Give a command, and the answer to it."""
        self.tell(do, **command)
        end = time.monotonic() + within
        output = self.program.stdout
        assert output
        while b"\n" not in self._input:
            ready, _, _ = select.select([output], [], [], max(0, end - time.monotonic()))
            if not ready:
                raise SilentError
            if not (data := os.read(output.fileno(), 4096)):
                raise DeadError
            self._input += data
        line, _, self._input = self._input.partition(b"\n")
        answer = json.loads(line)
        if "missing" in answer:
            raise MissingError(answer["missing"])
        return answer

    def tell(self, do: str, **command: Any) -> None:
        """Give a command that has no answer."""
        assert self.program.stdin
        try:
            self.program.stdin.write(json.dumps({"do": do, **command}).encode() + b"\n")
            self.program.stdin.flush()
        except BrokenPipeError as error:
            raise DeadError from error

    def begin(self, *call: Any, limit: float | None = None) -> int:
        """Let it begin a call. Gives the call's number."""
        self._calls += 1
        limits = {} if limit is None else {"limit": limit}
        self.ask("begin", self.patience * 2, number=self._calls, call=call, **limits)
        return self._calls

    def end_of(self, number: int, seconds: float | None = None) -> tuple[str, Any]:
        """Wait for a call: a word for what became of it, and its value."""
        seconds = self.patience if seconds is None else seconds
        try:
            answer = self.ask("wait", seconds + 2, number=number, seconds=seconds)
        except DeadError:
            return "program dies", None
        except SilentError:
            return "program hangs", None
        return answer["word"], answer.get("value")

    def ended(self, seconds: float) -> bool:
        """Whether the program itself is gone before that many seconds have passed."""
        return until(lambda: self.program.poll() is not None, seconds) is True

    # -- files ----------------------------------------------------------------------------------

    def fifo(self) -> str:
        """Make a file that whoever reads from it waits for."""
        path = str(self.directory / f"fifo{len(self._fifos)}")
        os.mkfifo(path)
        self._fifos[path] = os.open(path, os.O_RDWR)
        return path

    def open(self, path: str) -> None:
        """Let one reader of it go on."""
        os.write(self._fifos[path], b"x")

    def taken_from(self, path: str, count: int) -> int:
        """Write so many bytes for readers that nobody waits for any more: how many are read?

        Asking the file, not the processes: the kernel may read for somebody who is in no call.
        """
        os.write(self._fifos[path], b"x" * count)

        def taken() -> int:
            (left,) = struct.unpack("i", fcntl.ioctl(self._fifos[path], termios.FIONREAD, bytes(4)))
            return count - left

        until(lambda: taken() == count, self.patience)
        return taken()

    def file_that_never_answers(self) -> str:
        """Mount a file system whose reads have no end, not even by SIGKILL."""
        source, mount = self.directory / "source", self.directory / "mount"
        source.mkdir()
        (source / "file").write_bytes(b"x")
        self._mounts.enter_context(slowfs.mounted(source, mount, "hang_reads"))
        return str(mount / "file")

    # -- looking at it --------------------------------------------------------------------------

    def note(self) -> set[int]:
        """Give the processes below the program; remember them, and the names of their memory."""
        now = descendants(self.program.pid)
        self.seen |= now
        for pid in {self.program.pid, *now}:
            with suppress(OSError):
                maps = Path(f"/proc/{pid}/maps").read_text()
                self.names |= set(re.findall(r" /dev/shm/(\S+)", maps))
        return now

    def inside(self, path: str) -> list[tuple[int, int]]:
        """Give the processes and threads that are in a system call on a file."""
        found = []
        self.seen |= (below := descendants(self.program.pid))
        for pid in sorted({self.program.pid, *below}):
            for thread in _threads(pid):
                with suppress(OSError, ValueError, IndexError):
                    call = Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()
                    if os.readlink(f"/proc/{pid}/fd/{int(call[1], 16)}") == path:
                        found.append((pid, thread))
        return found

    def someone_inside(self, path: str, count: int = 1) -> list[tuple[int, int]]:
        """Wait until so many are, or until nobody can be expected to come any more."""
        until(lambda: len(self.inside(path)) >= count, self.patience)
        return self.inside(path)

    def left_in_shared_memory(self) -> set[str]:
        """Give those names of its that are in /dev/shm still."""
        return self.names & set(os.listdir("/dev/shm"))


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended already."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _nobody_is_left() -> bool:
    """Kill and reap the children that programs have left: they are this process's own by now."""
    for pid in descendants(os.getpid()):
        send(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return False
    return True


def _threads(pid: int) -> Iterator[int]:
    with suppress(OSError):
        yield from sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))


def command_of(peer: str) -> list[str]:
    """Give the command that starts the program with a contender."""
    assert peer in KINDS
    if peer != PERL:
        return [sys.executable, "-m", "benchmarks.events.program", peer]
    perl = shutil.which("perl")
    if perl is None:
        message = "perl"
        raise MissingError(message)
    modules = [perl, "-MIO::AIO", "-MJSON::PP", "-e", "1"]
    if subprocess.call(modules, stderr=subprocess.DEVNULL):
        message = "Perl module IO::AIO (Debian: libio-aio-perl)"
        raise MissingError(message)
    return [perl, str(ROOT / "benchmarks" / "perl" / "events.pl")]
