"""The tutorial, followed word by word: programs are saved, and what is shown is what comes."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/tutorial.md").read_text()
PORT = "8080"
SECONDS = 240

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


class Shell:
    """A shell into which a reader types."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def type(self, text: str) -> None:
        """Type a line, whatever comes of it."""
        assert self._process.stdin
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def line(self) -> str:
        """Wait for the next line that is printed."""
        return self._lines.get(timeout=SECONDS)

    def run(self, command: str, shown: list[str]) -> list[str]:
        """Type a command; give what it prints. One in the background has to print what is shown."""
        self.type(command)
        if command.endswith("&"):
            return [self.line() for _ in shown]
        self.type('echo "ended: $?"')
        printed = [self.line()]
        while not printed[-1].startswith("ended: "):
            printed.append(self.line())
        assert printed.pop() == "ended: 0", f"{command}\n{printed}"
        return printed

    def end(self) -> None:
        """Leave nothing behind, whatever runs."""
        self.type("kill -KILL $(jobs -p) 2>/dev/null; exit 0")
        try:
            self._process.wait(20)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            for stream in (self._process.stdin, self._process.stdout):
                assert stream
                stream.close()


def steps(page: str) -> Iterator[tuple[str, str, str]]:
    """Give the name of a file and its content, or a command and what is shown below it."""
    blocks = r"(?:`(\w+\.py)`:\n\n```python\n(.*?)```)|(?:```console\n(.*?)```)"
    for match in re.finditer(blocks, page, re.DOTALL):
        if match[1]:
            yield "save", match[1], match[2]
        else:
            for command in re.findall(r"^\$ (.*\n(?:(?!\$ ).*\n)*)", match[3], re.MULTILINE):
                typed, _, shown = command.partition("\n")
                yield "type", typed, shown


def follow(page: str, folder: Path, environment: dict[str, str]) -> None:
    """Do what the page says. Programs are saved where the shell is."""
    shell = Shell(folder, environment)
    try:
        for what, name, text in steps(page):
            if what == "save":
                [place] = shell.run("pwd", [])
                (Path(place) / name).write_text(text)
            else:
                printed = shell.run(name, text.splitlines())
                assert printed == text.splitlines(), name
    finally:
        shell.end()


@pytest.fixture
def page() -> str:
    """The tutorial; only the port is one that is free."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return PAGE.replace(PORT, str(listener.getsockname()[1]))


def environment(home: Path, path: str) -> dict[str, str]:
    """Give what a reader's shell knows: nothing of this test's Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    kept.pop("VIRTUAL_ENV", None)
    return {**kept, "HOME": str(home), "PATH": path, "PYTHONWARNINGS": "error"}


def test_every_block_of_the_tutorial_is_a_step() -> None:
    """No program without a name, and no console that nobody types into."""
    assert len(re.findall(r"^```\w+", PAGE, re.MULTILINE)) == (
        sum(what == "save" for what, _, _ in steps(PAGE)) + PAGE.count("```console")
    )
    assert PAGE.count("\n$ ") == sum(what == "type" for what, _, _ in steps(PAGE))


def test_tutorial_shows_what_comes(page: str, tmp_path: Path) -> None:
    """From the first program on, with what is installed here."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    _install, begin, rest = page.partition("## The first await")
    follow(begin + rest, tmp_path, environment(tmp_path, path))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tutorial_from_its_first_word(page: str, tmp_path: Path) -> None:
    """With a virtual environment of its own, from the sources."""
    sources = tmp_path / "sources"
    names = ["pyproject.toml", "README.md", "LICENSE", "procaio", "shm", "workers"]
    leave = shutil.ignore_patterns("*.so", "__pycache__")
    for name in names:
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, sources / name, ignore=leave)
        else:
            sources.mkdir(exist_ok=True)
            shutil.copy(place, sources)
    bare = Path(sys.base_prefix) / "bin"
    given = environment(tmp_path, f"{bare}:{os.environ['PATH']}")
    del given["PYTHONWARNINGS"]  # pip has some of its own
    follow(page, sources, given)
