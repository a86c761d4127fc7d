"""
`procaio copy`, `remove` and `move`: what the commands print.

Not here: what may be done (`_plans`), doing it (`_jobs`), the arguments (`_cli`).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from procaio._cli_output import (
    FOUND_ERRORS,
    USAGE,
    as_clock,
    as_json_failures,
    as_json_path,
    complaints,
    human,
    progress,
    shown,
    terminal,
)
from procaio._cli_signals import Signals, dying_of_signals
from procaio._counts import Amount, Preview
from procaio._jobs import Copying, Moving, Removal
from procaio._plans import plan_removal, plan_transfer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from procaio._jobs import Job
    from procaio._plans import Plan, Refusal, Task

__all__ = ["copy", "move", "remove"]

SIGNALLED: Final = 128
"""The exit status after a signal is its number more than this: 130 after ctrl-C."""
PACE: Final = 5.0
"""Seconds over which the rate is measured that is shown."""
COST_OF_A_FILE: Final = 1 << 16
"""To copy an entry takes about as long as so many bytes: for the time left."""
EARLIEST: Final = 0.02
"""Before this part of all is done nobody knows how long the rest takes."""
DONE: Final = {"copy": "copied", "remove": "removed", "move": "moved"}


def copy(options: argparse.Namespace) -> int:
    """`procaio copy`; the exit status is returned."""
    *sources, destination = map(os.fsencode, options.paths)
    return _run(
        "copy", Copying, options, partial(plan_transfer, sources, destination, moving=False)
    )


def remove(options: argparse.Namespace) -> int:
    """`procaio remove`; the exit status is returned."""
    paths = [os.fsencode(path) for path in options.paths]
    return _run("remove", Removal, options, partial(plan_removal, paths, force=options.force))


def move(options: argparse.Namespace) -> int:
    """`procaio move`; the exit status is returned."""
    *sources, destination = map(os.fsencode, options.paths)
    return _run("move", Moving, options, partial(plan_transfer, sources, destination, moving=True))


def _run(
    command: str, kind: type[Job], options: argparse.Namespace, plan_it: Callable[[], Plan]
) -> int:
    with dying_of_signals():
        plan = plan_it()
    if plan.refusals:
        for refusal in plan.refusals:
            _complain(command, _as_text_refusal(refusal))
        return USAGE
    console = None if options.no_progress else terminal()
    work: Preview | Job
    status: _PreviewStatus | _Status
    if options.dry_run:
        work = Preview(plan, workers=options.workers)
        status = _PreviewStatus(work)
    else:
        work = kind(plan, workers=options.workers, totals=console is not None)
        status = _Status(work)
    with Signals() as signals, progress(status, console):
        work.run(signals)
    if options.json:
        print(json.dumps(_as_json(command, work), indent=2))
    else:
        _print_as_text(command, work)
    if not work.complete:
        return SIGNALLED + signals.number
    return FOUND_ERRORS if work.failed else 0


# -- the result -----------------------------------------------------------------------------------


def _complain(command: str, text: str) -> None:
    print(f"procaio {command}: {text}", file=sys.stderr)


def _as_text_refusal(refusal: Refusal) -> str:
    path = shown(refusal.path) or "''"
    return f"{path}: {refusal.reason} {shown(refusal.other)}".rstrip()


def _print_as_text(command: str, work: Preview | Job) -> None:
    for line in complaints(work.failures, work.failed):
        _complain(command, line)
    if isinstance(work, Preview):
        lines = _as_text_preview(command, work)
    else:
        for path in work.kept:
            _complain(command, f"{shown(path)}: stays, since its copy is not complete")
        for path in work.left:
            _complain(command, f"{shown(path)}: its copy is complete, but it is not all gone")
        lines = _as_text(command, work)
    print("\n".join(lines))


def _as_text(command: str, job: Job) -> Iterator[str]:
    if not job.complete:
        yield f"Interrupted: this is INCOMPLETE, what was {DONE[command]} so far."
    done = job.done
    parts = []
    if job.renamed:
        parts.append(f"moved {_count(job.renamed, 'path')}")
    if done != Amount():
        elsewhere = " to another file system" if command == "move" else ""
        verb = "copied" if command == "move" else DONE[command]
        parts.append(f"{verb} {_text_of(done)}{elsewhere}")
    what = ", ".join(parts) or f"nothing {DONE[command]}"
    yield f"{what} in {job.seconds:.2f} s{_rate(done, job)}"


def _rate(done: Amount, job: Job) -> str:
    """Of less than a second it would mean nothing."""
    if job.seconds < 1 or done == Amount():
        return ""
    rate = f": {(done.files + done.dirs) / job.seconds:,.0f} entries"
    if done.bytes:
        rate += f" and {human(done.bytes / job.seconds)}"
    return f"{rate} per second"


def _as_text_preview(command: str, preview: Preview) -> Iterator[str]:
    if not preview.complete:
        yield "Interrupted: this is INCOMPLETE, what was counted so far."
    for task, amount in preview.amounts:
        yield f"would {_intention(command, task)}: {_text_of(amount, sized=True)}"
    if len(preview.amounts) != 1:
        yield f"together: {_text_of(preview.total, sized=True)}"


def _intention(command: str, task: Task) -> str:
    if command == "remove":
        return f"remove {shown(task.source)}"
    if command == "move" and not task.crosses:
        command = "rename"
    where = ", on another file system" if command == "move" else ""
    return f"{command} {shown(task.source)} to {shown(task.target)}{where}"


def _text_of(amount: Amount, *, sized: bool = False) -> str:
    """`sized`: also if there are no bytes."""
    parts = []
    if amount.files or not amount.dirs:
        parts.append(_count(amount.files, "file"))
    if amount.dirs:
        parts.append(_count(amount.dirs, "directory"))
    text = " and ".join(parts)
    return f"{text}, {human(amount.bytes)}" if amount.bytes or sized else text


def _count(number: int, what: str) -> str:
    if number != 1:
        what = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{number:,} {what}"


def _as_json(command: str, work: Preview | Job) -> dict[str, Any]:
    head = {"command": command, "complete": work.complete}
    tail = {"errors": work.failed, "failures": as_json_failures(work.failures)}
    if isinstance(work, Preview):
        paths = [
            {**_as_json_task(command, task), **amount._asdict()} for task, amount in work.amounts
        ]
        return {**head, "dry_run": True, **work.total._asdict(), "paths": paths, **tail}
    done: dict[str, Any] = work.done._asdict()
    if command == "remove":
        del done["bytes"]  # nobody has looked how large they were
    if command == "move":
        done["renamed"] = work.renamed
        done["kept"] = [as_json_path(path) for path in work.kept]
        done["left"] = [as_json_path(path) for path in work.left]
    return {**head, "dry_run": False, **done, "seconds": round(work.seconds, 6), **tail}


def _as_json_task(command: str, task: Task) -> dict[str, Any]:
    found: dict[str, Any] = {**as_json_path(task.source)}
    if task.target:
        found |= as_json_path(task.target, "target")
    if command == "move":
        found["renamed"] = not task.crosses
    return found


# -- progress -------------------------------------------------------------------------------------


@final
class _Status:
    """One line: how far a job is."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._samples: deque[tuple[float, Amount]] = deque()

    def __call__(self) -> str:
        job = self._job
        if not job.seconds:
            return f"counting  {job.counted:,} entries"
        done, total = job.done, job.total
        if total is not None and (total.files < done.files or total.bytes < done.bytes):
            total = None  # it grows while it is copied
        rate, size_rate = self._pace(done)
        parts = [f"{done.files:,} of {total.files:,} files" if total else f"{done.files:,} files"]
        if done.bytes:
            of_all = f" of {human(total.bytes)}" if total else ""
            parts.append(f"{human(done.bytes)}{of_all}  {human(size_rate)}/s")
        else:
            parts.append(f"{rate:,.0f}/s")
        left = self._left(done, total) if total else None
        parts.append(as_clock(job.seconds) + (f", {as_clock(left)} left" if left else ""))
        parts.append(_STOPPING if job.stopping else shown(job.current))
        return "  ".join(parts)

    def _pace(self, done: Amount) -> tuple[float, float]:
        """Files and bytes in a second, of late."""
        samples, now = self._samples, time.monotonic()
        samples.append((now, done))
        while now - samples[0][0] > PACE:
            samples.popleft()
        began, before = samples[0] if len(samples) > 1 else (now - self._job.seconds, Amount())
        seconds = max(now - began, 0.001)
        return (done.files - before.files) / seconds, (done.bytes - before.bytes) / seconds

    def _left(self, done: Amount, total: Amount) -> float | None:
        part = _cost(done) / max(_cost(total), 1)
        return self._job.seconds * (1 - part) / part if EARLIEST < part <= 1 else None


_STOPPING: Final = "stopping; ctrl-C again does not wait"


def _cost(amount: Amount) -> int:
    return (amount.files + amount.dirs) * COST_OF_A_FILE + amount.bytes


@final
class _PreviewStatus:
    """One line: how far counting is."""

    def __init__(self, preview: Preview) -> None:
        self._preview = preview

    def __call__(self) -> str:
        total = self._preview.total
        entries = total.files + total.dirs
        return f"{entries:,} entries  {human(total.bytes)}  {shown(self._preview.current)}"
