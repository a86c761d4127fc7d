"""What the tests of `procaio copy`, `remove` and `move` share: running them, looking at trees."""

from __future__ import annotations

import os
import pty
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

NOBODY = 65534
NOT_UTF8 = b"caf\xe9 \xff"
COMMAND = [sys.executable, "-m", "procaio"]


class Ended(NamedTuple):
    """What came of a command."""

    status: int
    output: str
    complaints: list[str]
    """Lines of stderr, without the name of the command."""


def run(command: str, *arguments: Any, **more: Any) -> Ended:
    """Run `procaio command`, in a process of its own."""
    return ended(
        command,
        subprocess.run(
            [*COMMAND, command, *arguments], capture_output=True, timeout=60, check=False, **more
        ),
    )


def ended(command: str, done: subprocess.CompletedProcess[bytes]) -> Ended:
    """What there is to say of it. It must speak in lines of its own, and in text."""
    lines = done.stderr.decode().splitlines()
    start = f"procaio {command}: "
    assert all(line.startswith(start) for line in lines), lines
    return Ended(
        done.returncode, done.stdout.decode(), [line.removeprefix(start) for line in lines]
    )


def make_of_all_kinds(top: Path) -> None:
    """What commands may be told to lose: files, directories, and other ways to the same ones."""
    (top / "d" / "e").mkdir(parents=True)
    (top / "d" / "e" / "f").touch()
    (top / "into" / "f").mkdir(parents=True)
    (top / "new d").mkdir()
    (top / "f").write_text("content")
    (top / "g").hardlink_to(top / "f")
    (top / "link").symlink_to("f")
    (top / "to d").symlink_to("d")


AS_NOBODY = f"""
import os, sys
from procaio._cli import main, _parser
_parser()  # whatever it imports nobody may not be able to read
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(main())
"""


def run_as_nobody(command: str, *arguments: Any, cwd: Path) -> Ended:
    """Run it as somebody whom permissions bind; directories above `cwd` may be closed to him."""
    return ended(
        command,
        subprocess.run(
            [sys.executable, "-c", AS_NOBODY, command, *arguments],
            capture_output=True,
            timeout=60,
            check=False,
            cwd=cwd,
        ),
    )


class Running:
    """A command that has not ended; on a terminal if there is one."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int = -1) -> None:
        self.process = process
        self._terminal = terminal
        self.shown = b""

    def wait_until_shown(self, text: bytes) -> None:
        """Read from its terminal."""
        while text not in self.shown:
            data = os.read(self._terminal, 65536)
            assert data, self.shown
            self.shown += data

    def rest(self) -> bytes:
        """All that its terminal shows until it has ended."""
        with suppress(OSError):  # EIO: the other end is closed
            while data := os.read(self._terminal, 65536):
                self.shown += data
        self.process.wait(timeout=60)
        return self.shown


@contextmanager
def running(*arguments: Any, start: Sequence[str] = COMMAND, **more: Any) -> Iterator[Running]:
    """Run `procaio` with its output in pipes."""
    with subprocess.Popen(
        [*start, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


@contextmanager
def on_terminal(
    *arguments: Any, start: list[str] = COMMAND, columns: int = 200
) -> Iterator[Running]:
    """Run it on a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    with subprocess.Popen(
        [*start, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        try:
            yield Running(process, ours)
        finally:
            process.kill()
            os.close(ours)


def snapshot(top: bytes | Path, *, inodes: bool = False) -> dict[bytes, tuple[Any, ...]]:
    """Every entry of a tree, the top is b".": all that `cp -a` keeps, and which are hard links."""
    top = os.fsencode(top)
    found: dict[bytes, tuple[Any, ...]] = {}
    firsts: dict[tuple[int, int], bytes] = {}
    for path in sorted(_paths(top)):
        st = os.lstat(path)
        name = os.path.relpath(path, top)
        first = name
        if not stat.S_ISDIR(st.st_mode):
            first = firsts.setdefault((st.st_dev, st.st_ino), name)
        what = (st.st_mode, st.st_uid, st.st_gid, st.st_rdev, st.st_mtime_ns, first, _content(path))
        found[name] = (*what, st.st_ino) if inodes else what
    return found


def _paths(top: bytes) -> Iterator[bytes]:
    yield top
    if os.path.isdir(top) and not os.path.islink(top):
        for where, dirs, files in os.walk(top):
            yield from (os.path.join(where, name) for name in dirs + files)


def _content(path: bytes) -> bytes | None:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if stat.S_ISREG(mode):
        with open(path, "rb") as file:
            return file.read()
    return None


def fill(top: Path, directories: int, files: int) -> Path:
    """A tree of so many directories with so many files each."""
    for number in range(directories):
        (top / f"d{number}").mkdir(parents=True)
        for name in range(files):
            (top / f"d{number}" / f"f{name}").write_bytes(b"x" * (number + name))
    return top


def send(process: subprocess.Popen[bytes], number: int = signal.SIGINT) -> None:
    """As the terminal does, but to nobody else."""
    process.send_signal(number)


def until(condition: Callable[[], bool]) -> Callable[[], bool]:
    """A condition that may fail with an OSError, which means that it is not true yet."""

    def holds() -> bool:
        with suppress(OSError):
            return condition()
        return False

    return holds
