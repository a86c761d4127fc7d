"""
The events: what is done to a program, and what is seen of it.

Each event is a function that gets a way to make stages and gives what it has seen, a column for
each thing: a word for the outcome, and how long it took.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.events.peers import WORKERS, WRITTEN
from benchmarks.events.stage import DeadError, SilentError, Stage, alive, send, until

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 0.3
FOR_EVER = 12.0
MIB = 1 << 20
BALLAST = 512 * MIB
BLOCKS = bytes(range(256))


@dataclass(frozen=True)
class Seen:
    """A word for an outcome, and how long it took or how much it was."""

    word: str
    figure: float | None = None
    unit: str = "ms"


Cells = dict[str, Seen]
NOBODY = Seen("no process")  # of its own


@dataclass(frozen=True)
class Event:
    """Something that happens, and the columns of its table."""

    name: str
    title: str
    columns: tuple[str, ...]
    run: Callable[[Callable[[], Stage]], Cells]


@dataclass
class Events:
    """All of them, in order."""

    all: list[Event] = field(default_factory=list)

    def add(
        self, title: str, *columns: str
    ) -> Callable[[Callable[..., Cells]], Callable[..., Cells]]:
        """Register the decorated function."""

        def register(run: Callable[..., Cells]) -> Callable[..., Cells]:
            self.all.append(Event(run.__name__, title, columns, run))
            return run

        return register


EVENTS = Events()


def next_call(stage: Stage, since: float) -> Seen:
    """Make a call that takes no time. Its figure counts from `since` on."""
    path = stage.directory / "blocks"
    path.write_bytes(BLOCKS)
    try:
        number = stage.begin("block", str(path), 0)
    except DeadError:
        return Seen("program dies")
    except SilentError:
        return Seen("program hangs")
    word, _ = stage.end_of(number)
    return Seen(word, time.monotonic() - since if word == "done" else None)


def occupied(stage: Stage) -> tuple[list[str], list[int]]:
    """Let each worker execute a read that hangs. Gives the files and the calls."""
    files = [stage.fifo() for _ in range(WORKERS)]
    calls = [stage.begin("read", file) for file in files]
    for file in files:
        stage.someone_inside(file)
    return files, calls


def idle(stage: Stage) -> list[int]:
    """Give the processes that have executed something and have nothing to do any more."""
    next_call(stage, 0)
    if not stage.note():
        return []
    files, calls = occupied(stage)
    workers = [pid for file in files for pid, _ in stage.inside(file)]
    for file in files:
        stage.open(file)
    for call in calls:
        stage.end_of(call)
    return [pid for pid in workers if pid != stage.program.pid]


@EVENTS.add(
    f"One of {WORKERS} workers is killed (SIGKILL) while all of them execute something",
    *("its call", "another one's call", "the next call"),
)
def worker_killed(make: Callable[[], Stage]) -> Cells:
    """Kill who executes the first of some calls."""
    with make() as stage:
        files, calls = occupied(stage)
        who = stage.inside(files[0])
        if not who:
            word, _ = stage.end_of(calls[0], 0)
            return {"its call": NOBODY if word == "hangs" else Seen(word)}
        since = time.monotonic()
        send(who[0][0], signal.SIGKILL)
        after = next_call(stage, since)
        first, _ = stage.end_of(calls[0])
        stage.open(files[1])
        second, _ = stage.end_of(calls[1])
        return {
            "its call": Seen(first),
            "another one's call": Seen(second),
            "the next call": after,
        }


@EVENTS.add("Processes that have nothing to do", "all killed: next call", "3 of 4 stopped")
def idle_workers(make: Callable[[], Stage]) -> Cells:
    """Kill all that are idle; stop all but one of those that are."""
    cells = {}
    for column, number, spared in (
        ("all killed: next call", signal.SIGKILL, 0),
        ("3 of 4 stopped", signal.SIGSTOP, 1),
    ):
        with make() as stage:
            workers = idle(stage)
            since = time.monotonic()
            for pid in workers[spared:]:
                send(pid, number)
            cells[column] = next_call(stage, since) if workers else NOBODY
    return cells


def hang(stage: Stage, path: str) -> Cells:
    """Let all workers hang in calls with a limit. The figure is how late the last of them ends."""
    idle(stage)  # so that the limit does not count the start of processes
    since = time.monotonic()
    calls = [stage.begin("read", path, limit=LIMIT) for _ in range(WORKERS)]
    words = {stage.end_of(call)[0] for call in calls}
    late = time.monotonic() - since - LIMIT
    word = "/".join(sorted(words))
    cells = {"the call": Seen(word, late if words == {"TimeoutError"} else None)}
    since = time.monotonic()
    cells["the next call"] = next_call(stage, since)
    return cells


def end_program(stage: Stage) -> Seen:
    """Tell it to end. What processes it has until then is remembered."""
    stage.note()
    since = time.monotonic()
    stage.tell("end")
    if stage.ended(stage.patience):
        return Seen("ends", time.monotonic() - since)
    return Seen("hangs")


def hang_and_end(stage: Stage, path: str) -> Cells:
    """Let it hang there, and end the program."""
    return hang(stage, path) | {"the program's end": end_program(stage)}


def left_behind(stage: Stage) -> Seen:
    """Count what outlasts the program's end, itself included."""
    everybody = {stage.program.pid, *stage.seen}
    until(lambda: not alive(everybody), stage.patience)
    return Seen(f"{len(alive(everybody)) or 'none'}")


@EVENTS.add(
    f"{WORKERS} calls with a limit of 0.3 s wait for a FIFO to which nobody writes",
    *("the call", "still in it", "the next call", "the program's end"),
)
def hanging_fifo(make: Callable[[], Stage]) -> Cells:
    """Hang where a signal would help."""
    with make() as stage:
        cells = hang_and_end(stage, stage.fifo())
    with make() as stage:
        path = stage.fifo()
        hang(stage, path)
        cells["still in it"] = Seen(f"{stage.taken_from(path, WORKERS)} of {WORKERS}")
        return cells


@EVENTS.add(
    f"{WORKERS} such calls read from a file system that never answers (not even SIGKILL ends them)",
    *("the call", "the next call", "the program's end", "after SIGKILL", "processes left"),
)
def hanging_file_system(make: Callable[[], Stage]) -> Cells:
    """Hang where nothing helps."""
    with make() as stage:
        cells = hang_and_end(stage, stage.file_that_never_answers())
        cells["after SIGKILL"] = Seen("-")
        if cells["the program's end"].word != "ends":
            since = time.monotonic()
            stage.program.kill()
            gone = stage.ended(stage.patience)
            killed = Seen("gone", time.monotonic() - since) if gone else Seen("stays")
            cells["after SIGKILL"] = killed
        return cells | {"processes left": left_behind(stage)}


@EVENTS.add(
    "A worker is stopped (SIGSTOP) while it executes a call with a limit of 0.3 s",
    *("the call", "the next call", "the program's end"),
)
def stopped(make: Callable[[], Stage]) -> Cells:
    """Stop who executes it."""
    with make() as stage:
        next_call(stage, 0)
        path = stage.fifo()
        call = stage.begin("read", path, limit=LIMIT)
        who = [pid for pid, _ in stage.someone_inside(path) if pid != stage.program.pid]
        if not who:
            return {"the call": NOBODY}
        send(who[0], signal.SIGSTOP)
        word, _ = stage.end_of(call)
        after = next_call(stage, time.monotonic())
        return {
            "the call": Seen(word),
            "the next call": after,
            "the program's end": end_program(stage),
        }


@EVENTS.add(
    "The program is killed (SIGKILL): what stays",
    *("idle processes", "busy processes", "/dev/shm", "files in $TMPDIR"),
)
def program_killed(make: Callable[[], Stage]) -> Cells:
    """Kill it without and with calls."""
    cells = {}
    names = files = 0  # the most that were left, whatever the processes did
    for column, prepare in (("idle processes", idle), ("busy processes", occupied)):
        with make() as stage:
            prepare(stage)
            stage.note()
            since = time.monotonic()
            stage.program.kill()
            stage.program.wait(stage.patience)
            if not stage.seen:
                cells[column] = NOBODY
            elif until(lambda s=stage: not alive(s.seen), stage.patience):
                cells[column] = Seen("all leave", time.monotonic() - since)
            else:
                cells[column] = Seen(f"{len(alive(stage.seen))} stay")
            names = max(names, len(stage.left_in_shared_memory()))
            files = max(files, len(list(stage.temporary.iterdir())))
    left = {"/dev/shm": names, "files in $TMPDIR": files}
    return cells | {column: Seen(f"{count or 'nothing'}") for column, count in left.items()}


@EVENTS.add(
    "The program, all of whose workers have worked, forks while a call is executed",
    *("the child's calls", "the parent's calls", "the call"),
)
def fork(make: Callable[[], Stage]) -> Cells:
    """Fork, and read a file in both processes at the same time."""
    with make() as stage:
        path = stage.directory / "blocks"
        path.write_bytes(BLOCKS)
        stage.ask("blocks", path=str(path), seconds=stage.patience)
        fifo = stage.fifo()
        call = stage.begin("read", fifo)
        stage.someone_inside(fifo)
        try:
            answer = stage.ask(
                "fork", 4 * stage.patience + 4, path=str(path), seconds=stage.patience
            )
        except SilentError:
            answer = {"child": "-", "parent": "program hangs"}
        except DeadError:
            answer = {"child": "-", "parent": "program dies"}
        stage.open(fifo)
        word, value = stage.end_of(call)
        wrong = word == "done" and value != "x"
        return {
            "the child's calls": Seen(answer["child"]),
            "the parent's calls": Seen(answer["parent"]),
            "the call": Seen("wrong bytes" if wrong else word),
        }


@EVENTS.add(
    f"The program fills {BALLAST // MIB} MiB, makes its first {WORKERS} calls, and frees them then",
    *("the first call", "the workers keep"),
)
def memory(make: Callable[[], Stage]) -> Cells:
    """Look at what processes cost that were made from a large one."""
    with make() as stage:
        stage.ask("hold", size=BALLAST)
        first = next_call(stage, time.monotonic())
        idle(stage)
        stage.ask("hold", size=0)
        kept = private(stage.note()) / MIB if stage.note() else None
        keep = NOBODY if kept is None else Seen("", kept, "MiB")
        return {"the first call": first, "the workers keep": keep}


def private(pids: set[int]) -> int:
    """Give the bytes that these processes have for themselves, less what others share."""
    total = 0
    for pid in alive(pids):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                total += int(line.split()[1]) * 1024
    return total


@EVENTS.add(
    f"The program ends while {WORKERS} calls are executed and {WORKERS} more wait",
    *("the program", "waiting calls", "processes left"),
)
def program_ends(make: Callable[[], Stage]) -> Cells:
    """End it; if it waits, let the calls come to an end then."""
    with make() as stage:
        files, _ = occupied(stage)
        written = [stage.directory / f"written{n}" for n in range(WORKERS)]
        for path in written:
            stage.begin("write", str(path))
        ends = end_program(stage)
        if ends.word == "hangs":
            for file in files:
                stage.open(file)
            ends = Seen("waits for them" if stage.ended(stage.patience) else "hangs")
        done = sum(path.exists() and path.read_bytes() == WRITTEN for path in written)
        return {
            "the program": ends,
            "waiting calls": Seen(f"{done} of {WORKERS} done"),
            "processes left": left_behind(stage),
        }


@EVENTS.add(f"The program ends while a call hangs, for ever (or {FOR_EVER:g} s)", "the program")
def hanging_end(make: Callable[[], Stage]) -> Cells:
    """End it, and let nothing go on."""
    with make() as stage:
        stage.patience = FOR_EVER
        path = stage.fifo()
        stage.begin("read", path)
        until(lambda: stage.inside(path), LIMIT)
        return {"the program": end_program(stage)}
