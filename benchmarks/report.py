"""
Figures out of samples: medians, spread, ratios and verdicts, as a table for people and as JSON.

The ratio is that of the medians. Beside it stands its spread: the smallest and the largest of
the ratios within single rounds, which shows how much of it is noise.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import statistics
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import ROOT, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.data import Data
    from benchmarks.harness import Aim, Options, Outcome, Question

PEERS = (
    *("procaio", "aiofiles", "aiofile", "anyio", "caio", "uvloop"),
    *("starlette", "uvicorn", "httptools"),
)
MICROSECONDS = 1e6


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float | None, list[float]]:
    """Give the ratio of the medians, and that of each turn, if both have been measured."""
    if not ours or not theirs:
        return None, []
    turns = [a / b for a, b in zip(ours, theirs, strict=False)]
    return statistics.median(ours) / statistics.median(theirs), turns


class Row:
    """The figures of one contender."""

    def __init__(self, question: Question, outcome: Outcome, reference: Outcome | None) -> None:
        """Compute them."""
        self.outcome = outcome
        self.target = outcome.contender.target
        self.values = [question.figure(sample) for sample in outcome.samples]
        self.cpu = [s.cpu * MICROSECONDS / s.ops for s in outcome.samples if s.ops]
        theirs = [question.figure(s) for s in reference.samples] if reference else []
        self.ratio, self.ratios = ratios(self.values, theirs)

    @property
    def verdict(self) -> str:
        """Whether the target is reached, in a word."""
        if self.target is None:
            return ""
        if self.ratio is None:
            return "not measured"
        return "reached" if self.target.reached_by(self.ratio) else "missed"

    def further(self, name: str, *, spreads: bool) -> str:
        """Write the cell of a further column: the median, and its spread if it is asked for."""
        values = [s.extra[name] for s in self.outcome.samples if name in s.extra]
        if not values:
            return "-"
        median = number(statistics.median(values))
        return f"{median} ({spread(values)})" if spreads else median

    def cells(self, question: Question) -> list[str]:
        """Give the row as text, cell by cell."""
        why = self.outcome.failed or self.outcome.missing
        if why:
            state = "failed" if self.outcome.failed else "missing"
            aim = f"; target {self.target} not measured" if self.target else ""
            return [self.outcome.contender.name, f"{state}: {why}{aim}"]
        extras = [self.further(name, spreads=question.spreads) for name in question.extra]
        return [
            self.outcome.contender.name,
            number(statistics.median(self.values)),
            spread(self.values),
            number(statistics.median(self.cpu)) if self.cpu else "-",
            *extras,
            "-" if self.ratio is None else f"{self.ratio:.2f}",
            spread(self.ratios, "{:.2f}".format) if self.ratios else "-",
            str(self.target or ""),
            self.verdict,
        ]

    def as_json(self) -> dict[str, Any]:
        """Give figures and samples as what json.dumps takes."""
        outcome = self.outcome
        return {
            "name": outcome.contender.name,
            "kind": outcome.contender.kind.value,
            "missing": outcome.missing or None,
            "failed": outcome.failed or None,
            "median": statistics.median(self.values) if self.values else None,
            "min": min(self.values, default=None),
            "max": max(self.values, default=None),
            "cpu_us_per_op": statistics.median(self.cpu) if self.cpu else None,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "target": str(self.target) if self.target else None,
            "verdict": self.verdict or None,
            "values": self.values,
            "samples": [sample.as_json() for sample in outcome.samples],
            "cpu_of_processes": outcome.cpu_of_processes,
        }


class Result:
    """How a contender does beside the fastest of those that an aim names."""

    def __init__(self, aim: Aim, row: Row, others: Sequence[Row]) -> None:
        """Find the fastest: the one with the highest median."""
        self.aim = aim
        self.row = row
        self.fastest = max(
            (other for other in others if other.outcome.contender.name in aim.to and other.values),
            key=lambda other: statistics.median(other.values),
            default=None,
        )
        theirs = self.fastest.values if self.fastest else []
        self.ratio, self.ratios = ratios(row.values, theirs)

    @property
    def verdict(self) -> str:
        """Whether the target is reached, in a word."""
        if self.ratio is None:
            return "not measured"
        return "reached" if self.aim.target.reached_by(self.ratio) else "missed"

    def __str__(self) -> str:
        """Write it as a line below the table."""
        who = f"{self.row.outcome.contender.name} to {self.aim.title}"
        if self.ratio is None or self.fastest is None:
            return f"    {who}: target {self.aim.target} not measured"
        name = self.fastest.outcome.contender.name
        figures = f"{self.ratio:.2f} ({spread(self.ratios, '{:.2f}'.format)})"
        return f"    {who} ({name}): {figures}, target {self.aim.target}, {self.verdict}"

    def as_json(self) -> dict[str, Any]:
        """Give the figures as what json.dumps takes."""
        return {
            "name": self.row.outcome.contender.name,
            "to": self.aim.title,
            "fastest": self.fastest.outcome.contender.name if self.fastest else None,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "target": str(self.aim.target),
            "verdict": self.verdict,
        }


def results_of(question: Question, rows: Sequence[Row]) -> list[Result]:
    """Hold every contender of procaio against every aim of the question."""
    ours = [row for row in rows if row.outcome.contender.kind is Kind.PROCAIO]
    return [Result(aim, row, rows) for row in ours for aim in question.aims]


def number(value: float) -> str:
    """Write a number with three or more digits that mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: Sequence[float], write: Callable[[float], str] = number) -> str:
    """Write the smallest and the largest value."""
    return f"{write(min(values))} .. {write(max(values))}"


def rows_of(question: Question, outcomes: Sequence[Outcome]) -> list[Row]:
    """Turn what the contenders did into figures."""
    named = (o for o in outcomes if o.contender.name == question.reference)
    reference = next(named, None)
    return [Row(question, outcome, reference) for outcome in outcomes]


def table(question: Question, rows: Sequence[Row], options: Options) -> str:
    """Write the table of a question, aligned."""
    sizes = question.quick if options.quick else question.full
    head = ["", question.unit, "min .. max", "CPU us/op", *question.extra]
    head += ["ratio", "min .. max", "target", ""]
    cells = [head, *(row.cells(question) for row in rows)]
    full = [line for line in cells if len(line) == len(head)]
    widths = [max(len(line[column]) for line in full) for column in range(len(head))]
    widths[0] = max(len(line[0]) for line in cells)
    lines = [_aligned(line, widths) for line in cells]
    title = f"{question.name}: {question.title}"
    amount = f"{sizes.count:,} {question.noun}" if sizes.count else f"{sizes.seconds:g} s"
    depth = f"{sizes.depth} outstanding, " if sizes.depth else ""
    what = f"{depth}{amount}, medians of {options.repeat} in turns"
    lines += [str(result) for result in results_of(question, rows)]
    return "\n".join([title, f"{what}; ratio to: {question.reference}", *lines, ""])


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Put the name to the left, numbers to the right. A line without numbers has no columns."""
    name, *others = cells
    if len(cells) < len(widths):
        return f"{name:{widths[0]}}  {others[0]}"
    padded = [f"{cell:>{width}}" for cell, width in zip(others[:-1], widths[1:], strict=False)]
    return "  ".join([f"{name:{widths[0]}}", *padded, others[-1]]).rstrip()


def machine(data: Data) -> dict[str, Any]:
    """Describe what the figures were measured on."""
    return {
        "date": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "cores_of_machine": os.cpu_count(),
        "kernel": platform.release(),
        "file_system": file_system(data.root),
        "journal": journal(data.root),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "load_at_start": os.getloadavg()[0],
        "versions": versions(),
    }


def commit() -> str | None:
    """Give the commit of this tree, with a + if it was changed since."""
    git = shutil.which("git")
    if git is None:
        return None
    head = _output([git, "rev-parse", "HEAD"])
    changed = _output([git, "status", "--porcelain", "--untracked-files=no"])
    return f"{head}{'+' if changed else ''}" if head else None


def versions() -> dict[str, str]:
    """Give the versions of the contenders that are installed."""
    found = {}
    for name in PEERS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    perl = shutil.which("perl")
    if perl and (version := _output([perl, "-MIO::AIO", "-e", "print $IO::AIO::VERSION"])):
        found["IO::AIO"] = version
    return found


def file_system(path: Path) -> str:
    """Give the type of the file system a directory is on."""
    mounts = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        mounts[Path(point)] = kind
    resolved = path.resolve()
    return next(mounts[p] for p in (resolved, *resolved.parents) if p in mounts)


def journal(path: Path) -> bool | None:
    """Whether the ext4 a directory is on has a journal; None if nobody knows."""
    device = os.stat(path).st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    with suppress(OSError):
        return (Path("/sys/fs/ext4") / name / "journal_task").read_text().strip() != "<none>"
    return None


def warnings(facts: dict[str, Any]) -> list[str]:
    """Say what makes the figures doubtful."""
    found = []
    if facts["cores"] < 2:
        found.append("one core: program and workers take turns, ratios say little")
    if facts["load_at_start"] > facts["cores"] / 2:
        found.append(f"load {facts['load_at_start']:.1f} at the start: others are computing here")
    if facts["journal"] is False:
        found.append("ext4 without a journal: files made after a tree was removed take long")
    return found


def _cpu_model() -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return None


def _output(command: list[str]) -> str:
    """Give what a command prints, nothing if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
