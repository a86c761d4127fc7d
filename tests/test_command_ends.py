"""What ends `procaio copy`, `remove` and `move` early: nothing is left that is half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from commands import COMMAND, Running, ended, fill, on_terminal, running, send, snapshot, until
from conftest import children, eventually, kill
from copying import mounted, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
LARGE = 4 << 20


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def slow(slowfs: ModuleType, tmp_path: Path) -> Iterator[Path]:
    """A directory with `large`, which takes seconds to be copied, and `tree`, which contains it."""
    source = tmp_path / "source"
    fill(source / "tree", directories=2, files=3)
    (source / "tree" / "d0" / "large").write_bytes(os.urandom(LARGE))
    (source / "large").hardlink_to(source / "tree" / "d0" / "large")
    with slowfs.mounted(source, tmp_path / "slow", "delay_ms=10"):
        yield tmp_path / "slow"


def is_begun(path: Path) -> None:
    """Wait until some of the file is there, which is not all of it."""
    eventually(until(lambda: path.stat().st_size > 0), f"{path} is being written")


def the_end(command: str, run: Running) -> tuple[int, str, list[str]]:
    """What came of it."""
    output, complaints = run.process.communicate(timeout=60)
    code = run.process.returncode
    return ended(command, subprocess.CompletedProcess([], code, output, complaints))


# -- the first signal -----------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_no_part_of_a_file_stays_after_a_signal(
    slow: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The status is that of a program that the signal has ended."""
    with running("copy", slow / "large", "copy") as run:
        is_begun(tmp_path / "copy")
        send(run.process, number)
        status, output, complaints = the_end("copy", run)

    assert (status, complaints) == (128 + number, [])
    assert output.startswith("Interrupted: this is INCOMPLETE, what was copied so far.\nnothing")
    assert not os.path.exists("copy")


def test_after_ctrl_c_a_tree_has_whole_files_only(slow: Path, tmp_path: Path) -> None:
    """What is told is there; what is not there is no error. Files that were complete at that moment
    may be there without being counted.
    """
    with running("copy", "--json", slow / "tree", "copy") as run:
        is_begun(tmp_path / "copy" / "d0" / "large")
        eventually((tmp_path / "copy" / "d1" / "f2").exists, "other files are copied")
        send(run.process)
        status, output, complaints = the_end("copy", run)

    assert (status, complaints) == (130, [])
    original, copied = snapshot(tmp_path / "source" / "tree"), snapshot(tmp_path / "copy")
    files = {name for name in copied if b"/f" in name}
    assert b"d0/large" not in copied
    assert all(copied[name][-1] == original[name][-1] for name in files)
    told = json.loads(output)
    assert told["complete"] is False
    assert (told["errors"], told["failures"]) == (0, [])
    assert told["files"] <= len(files)


@needs_root
def test_after_ctrl_c_a_move_has_taken_nothing_away(slow: Path, tmp_path: Path) -> None:
    """The source is told to be there still."""
    before = snapshot(tmp_path / "source" / "tree")
    with (
        mounted(tmp_path / "other", "tmpfs") as other,
        running("move", slow / "tree", other) as run,
    ):
        is_begun(other / "tree" / "d0" / "large")
        send(run.process)
        status, output, complaints = the_end("move", run)
        assert not (other / "tree" / "d0" / "large").exists()

    assert status == 130
    assert complaints == [f"{slow}/tree: stays, since its copy is not complete"]
    assert output.startswith("Interrupted: this is INCOMPLETE, what was moved so far.\n")
    assert snapshot(tmp_path / "source" / "tree") == before


def test_after_ctrl_c_no_other_path_is_begun(slow: Path, tmp_path: Path) -> None:
    """Those that wait for the only worker are forgotten."""
    others = []
    for number in range(100):
        (tmp_path / f"f{number}").touch()
        others.append(f"f{number}")
    os.mkdir("into")
    with running("copy", "--workers", "1", slow / "large", *others, "into") as run:
        is_begun(tmp_path / "into" / "large")
        send(run.process)
        status, output, complaints = the_end("copy", run)
    assert (status, complaints, os.listdir("into")) == (130, [], [])
    assert output.splitlines()[1].startswith("nothing copied in ")


def test_ctrl_c_ends_a_dry_run(slow: Path, tmp_path: Path) -> None:
    """What was counted is told; the workers do not have to answer."""
    fill(tmp_path / "source" / "many", directories=100, files=10)
    os.mkdir("into")
    with on_terminal("copy", "--dry-run", slow / "tree" / "d1", slow / "many", "into") as run:
        run.wait_until_shown(b"many")
        for pid in children(run.process.pid):
            os.kill(pid, signal.SIGSTOP)
        send(run.process)
        shown = run.rest()
    assert run.process.returncode == 130
    assert b"INCOMPLETE, what was counted so far." in shown
    assert b"tree/d1 to into/d1: 3 files and 1 directory" in shown


def test_a_signal_that_is_ignored_ends_nothing(slow: Path, tmp_path: Path) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with running("copy", slow / "tree" / "d0", "copy") as run:
            signal.signal(signal.SIGHUP, before)
            is_begun(tmp_path / "copy" / "large")
            send(run.process, signal.SIGHUP)
            status, output, complaints = the_end("copy", run)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (status, complaints) == (0, [])
    assert output.startswith("copied 4 files and 1 directory, 4.0 MiB in ")


# -- a file system that does not answer -----------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_wait(slow: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The first one waits for what the workers are at; they do not survive the second one."""
    with on_terminal("copy", slow / "tree", "copy") as run:
        is_begun(tmp_path / "copy" / "d0" / "large")
        helpers = children(run.process.pid)
        for pid in helpers:
            kill(pid, signal.SIGSTOP)  # like a server that no longer answers
        send(run.process, number)
        run.wait_until_shown(b"stopping; ctrl-C again does not wait")
        assert run.process.poll() is None
        send(run.process, number)
        shown = run.rest()
    assert run.process.returncode == 128 + number
    assert b"INCOMPLETE" in shown
    assert b"Traceback" not in shown
    assert len(helpers) >= 2
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in helpers), "all are gone")
    assert not os.path.exists("copy/d0/large")


def waits_for_fuse(pid: int) -> bool:
    """Whether one of its workers is in a call on a file system that does not answer."""
    places = []
    for child in children(pid):
        with suppress(OSError), open(f"/proc/{child}/wchan") as file:
            places.append(file.read())
    if places and set(places) == {"0"}:
        pytest.skip("nobody tells here what a process waits for")
    return "request_wait_answer" in places


def test_a_third_signal_does_not_even_wait_for_workers_that_cannot_be_killed(
    slowfs: ModuleType, tmp_path: Path
) -> None:
    """They end when the file system answers, or is gone."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "hang-1").touch()
    with (
        slowfs.mounted(tmp_path / "source", tmp_path / "stuck", "hang=hang-"),
        running("copy", "stuck", "copy") as run,
    ):
        eventually((tmp_path / "copy").exists, "the directory is made")
        eventually(lambda: waits_for_fuse(run.process.pid), "a worker hangs")
        helpers = children(run.process.pid)

        def ends() -> bool:  # signals that come too close to each other are one
            send(run.process)
            return run.process.poll() is not None

        eventually(ends, "three signals are enough")
        assert run.process.returncode == -signal.SIGINT
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in helpers), "all are gone")


WAITING = """
import os
def looking(path):
    print("looking", flush=True)
    os.read(0, 1)
os.lstat = looking
from procaio._cli import main
main()
"""


def test_ctrl_c_ends_it_while_paths_are_looked_at() -> None:
    """Nothing has been begun; it dies of the signal, even in a system call."""
    start = [sys.executable, "-c", WAITING]
    with running("copy", "a", "b", start=start, stdin=subprocess.PIPE) as run:
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == b"looking\n"
        send(run.process)
        assert run.process.wait(timeout=60) == -signal.SIGINT
        assert run.process.communicate() == (b"", b"")


# -- nobody who reads -----------------------------------------------------------------------------


@pytest.mark.parametrize("closed", ["stdout", "stderr", "both"])
def test_it_is_done_also_if_nobody_reads_the_result(tmp_path: Path, closed: str) -> None:
    """A pipe that is broken gives no traceback."""
    fill(tmp_path / "tree", directories=1, files=5)
    os.mkdir("into")
    reading, writing = os.pipe()
    os.close(reading)
    streams = {
        stream: writing if closed in {stream, "both"} else subprocess.PIPE
        for stream in ("stdout", "stderr")
    }
    done = subprocess.run(
        [*COMMAND, "copy", "tree", "nowhere", "into"],
        check=False,
        timeout=60,
        **streams,
    )
    os.close(writing)
    assert done.returncode == 1
    assert b"Traceback" not in (done.stdout or b"") + (done.stderr or b"")
    assert snapshot(tmp_path / "into" / "tree") == snapshot(tmp_path / "tree")
