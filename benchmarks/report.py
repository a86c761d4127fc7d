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
from collections import Counter
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import CPU, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.data import Data
    from benchmarks.harness import Aim, Options, Outcome, Question, Target

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


def verdict(target: Target, ratio: float | None) -> str:
    """Whether a target is reached, in a word."""
    if ratio is None:
        return "not measured"
    return "reached" if target.reached_by(ratio) else "missed"


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
        return verdict(self.target, self.ratio) if self.target else ""

    @property
    def name(self) -> str:
        """That of the contender."""
        return self.outcome.contender.name

    def column(self, name: str) -> list[float]:
        """Give all values of a column: of a further one, or without a name the question's."""
        if not name:
            return self.values
        if name == CPU:
            return self.cpu
        return [s.extra[name] for s in self.outcome.samples if name in s.extra]

    def further(self, name: str, *, spreads: bool) -> str:
        """Write the cell of a further column: the median, and its spread if it is asked for."""
        values = self.column(name)
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
    """How a contender does beside the best of those that an aim names."""

    def __init__(self, aim: Aim, row: Row, rows: Sequence[Row]) -> None:
        """Find the best: the one with the highest median, or the lowest where less is better."""
        self.aim = aim
        self.row = row
        others = [other for other in rows if other.name in aim.to and other.column(aim.of)]
        choose = max if aim.target.at_least else min
        self.best = choose(
            others, key=lambda other: statistics.median(other.column(aim.of)), default=None
        )
        theirs = self.best.column(aim.of) if self.best else []
        self.ratio, self.ratios = ratios(row.column(aim.of), theirs)

    @property
    def verdict(self) -> str:
        """Whether the target is reached, in a word."""
        return verdict(self.aim.target, self.ratio)

    @property
    def beside(self) -> str:
        """Whom it is held against: the best of whom, and who that is."""
        if self.best is None or self.best.name == self.aim.title:
            return self.aim.title
        return f"{self.aim.title} ({self.best.name})"

    def __str__(self) -> str:
        """Write it as a line below the table."""
        who = f"{self.row.name}{', ' if self.aim.of else ''}{self.aim.of} to {self.beside}"
        if self.ratio is None:
            return f"    {who}: target {self.aim.target} not measured"
        figures = f"{self.ratio:.2f} ({spread(self.ratios, '{:.2f}'.format)})"
        return f"    {who}: {figures}, target {self.aim.target}, {self.verdict}"

    def cells(self, question: Question) -> list[str]:
        """Give it as a row of the table of all targets."""
        return [
            f"{question.name}{', ' if self.aim.of else ''}{self.aim.of}",
            self.row.name,
            self.beside,
            "-" if self.ratio is None else f"{self.ratio:.2f}",
            spread(self.ratios, "{:.2f}".format) if self.ratios else "-",
            str(self.aim.target),
            self.verdict,
        ]

    def as_json(self) -> dict[str, Any]:
        """Give the figures as what json.dumps takes."""
        return {
            "name": self.row.name,
            "to": self.aim.title,
            "of": self.aim.of or None,
            "best": self.best.name if self.best else None,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "target": str(self.aim.target),
            "verdict": self.verdict,
        }


def results_of(aims: Sequence[Aim], rows: Sequence[Row]) -> list[Result]:
    """Hold contenders against aims: one after the other, with all that it is for."""
    return [Result(aim, row, rows) for row in rows for aim in aims if row.name in aim.who]


def table_of_targets(questions: Sequence[tuple[Question, Sequence[Row]]]) -> str:
    """Write what has become of all targets, a line for each."""
    results = [
        (question, result)
        for question, rows in questions
        for result in results_of(question.targets, rows)
    ]
    head = ["targets", "contender", "beside", "ratio", "min .. max", "target", ""]
    cells = [head, *(result.cells(question) for question, result in results)]
    lines = _aligned(cells, words=3)
    verdicts = Counter(result.verdict for _, result in results)
    return "\n".join([*lines, ", ".join(f"{n} {word}" for word, n in verdicts.items()), ""])


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
    head = ["", question.unit, "min .. max", CPU, *question.extra]
    head += ["ratio", "min .. max", "target", ""]
    cells = [head, *(row.cells(question) for row in rows)]
    lines = _aligned(cells)
    title = f"{question.name}: {question.title}"
    amount = f"{sizes.count:,} {question.noun}" if sizes.count else f"{sizes.seconds:g} s"
    depth = f"{sizes.depth} outstanding, " if sizes.depth else ""
    rounds = max(len(row.outcome.samples) for row in rows)
    what = f"{depth}{amount}, medians of {rounds} in turns"
    lines += [str(result) for result in results_of(question.aims, rows)]
    return "\n".join([title, f"{what}; ratio to: {question.reference}", *lines, ""])


def _aligned(lines: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """
    Put so many words to the left, numbers to the right, and the verdict behind.

    The first line is the head. A line with fewer cells has a name and no columns.
    """
    full = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    widths[0] = max(len(line[0]) for line in lines)
    aligned = []
    for line in lines:
        padded = [
            f"{cell:{'<' if number < words else '>'}{width}}"
            for number, (cell, width) in enumerate(zip(line[:-1], widths, strict=False))
        ]
        aligned.append("  ".join([*padded, line[-1]]).rstrip())
    return aligned


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
    if facts["file_system"] == "tmpfs":
        found.append("files in memory: what is synchronised is on no disk")
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
