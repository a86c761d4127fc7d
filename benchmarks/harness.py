"""
Questions, contenders, and the running of them in turns.

A question is one file, bench_*.py, whose docstring is the question. Its contenders are small
functions that do the same work in different ways and give a `Sample`. They run in turns
(A B C A B C ...), so that a phase in which the machine is slow meets all of them; what is
compared is always from one run.

Every turn of a contender is a process of its own: threads, rings, event loops and worker
processes that one leaves behind can neither slow down nor warm up the next. Each warms itself up.

Not here: what is measured in such a process (`measure`), tables and JSON (`report`).
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import slowfs
from benchmarks.data import random_offsets
from benchmarks.measure import MissingError, Sample, WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

    from benchmarks.data import Data, Shape

ROOT = Path(__file__).resolve().parent.parent
SECONDS_FOR_ONE_TURN = 60
CPU = "CPU us/op"  # the name of a column that all questions have
FILES = (
    *("noop", "stat", "read_4k", "read_1m", "write", "load", "batches"),
    *("latency", "ticker", "lateness", "growth", "worker", "wakeups"),
    *("walk", "scan", "remove", "copy", "slow", "http"),
)


class Kind(Enum):
    """Who a contender is: decides what --no-peers leaves out."""

    PROCAIO = "procaio"
    BASELINE = "baseline"  # Python's standard library, and the limit written in C
    PEER = "peer"  # third-party packages and Perl
    TOOL = "tool"  # programs of the system, written in C


@dataclass(frozen=True)
class Target:
    """A ratio that a contender is to reach."""

    bound: float
    at_least: bool

    def reached_by(self, ratio: float) -> bool:
        """Tell whether the ratio is good enough."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        """Write it as the table shows it."""
        return f"{'>=' if self.at_least else '<='} {round(self.bound, 2)}"


def at_least(bound: float) -> Target:
    """Give the target of a figure that is better when it is higher."""
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    """Give the target of a figure that is better when it is lower."""
    return Target(bound, at_least=False)


@dataclass(frozen=True)
class Aim:
    """
    What some contenders are to reach beside the best of some others.

    `who` names the ones, `to` the others. `of` names the column that counts: without it, what the
    question asks for.
    """

    title: str
    target: Target
    to: frozenset[str]
    who: frozenset[str]
    of: str = ""


@dataclass(frozen=True)
class Sizes:
    """How much work a question gives: each contender's share of `count`, or so many `seconds`."""

    count: int = 0
    depth: int = 1
    size: int = 0
    seconds: float = 0.0
    shape: Shape | None = None

    @classmethod
    def of_tree(cls, shape: Shape) -> Sizes:
        """Give the sizes of a question whose work is one tree: it decides what is outstanding."""
        return cls(count=shape.entries, depth=0, shape=shape)


@dataclass(frozen=True)
class Work:
    """What a contender gets to do."""

    count: int
    depth: int
    size: int
    seconds: float
    data: Data
    shape: Shape | None = None

    def open(self) -> int:
        """Open the file of random bytes. The end of the process closes it."""
        return os.open(self.data.file, os.O_RDONLY)

    def open_written(self) -> list[int]:
        """Open the files to write to, one for each lane, with nothing left to write to the disk."""
        fds = [os.open(path, os.O_RDWR) for path in self.data.written]
        for fd in fds:
            os.fsync(fd)
        return fds

    def written_offsets(self) -> list[int]:
        """Give random offsets in each of them, one for each operation."""
        return random_offsets(self.count, self.size, self.data.written_bytes)

    def offsets(self) -> list[int]:
        """Give random offsets in it, one for each operation."""
        return self.data.offsets(self.count, self.size)

    def blocks(self) -> list[int]:
        """Give the offsets of its blocks in order, again from the start after the end."""
        blocks = self.data.file_bytes // self.size
        return [n % blocks * self.size for n in range(self.count)]

    def paths(self) -> list[str]:
        """Give paths of small files, one for each operation."""
        return self.data.paths()[: self.count]

    def load_paths(self) -> list[str]:
        """Give paths of files of 4 KiB, one for each operation."""
        return self.data.load_paths()[: self.count]


@dataclass(frozen=True)
class Contender:
    """One way to do the work. `share`: how much of it, so that slow ways do not take minutes."""

    name: str
    kind: Kind
    run: Callable[[Work], Sample]
    share: float
    target: Target | None


@dataclass
class Question:
    """
    What is asked, and who answers.

    A sample's figure is its operations a second times `factor`, unless the contender gives one.
    `extra` are the names of further columns, `spreads` tells whether their spread is shown, too;
    `noun` is what is counted.
    """

    name: str
    text: str | None
    unit: str
    reference: str
    full: Sizes
    quick: Sizes
    needs: frozenset[str] = frozenset()
    factor: float = 1.0
    extra: tuple[str, ...] = ()
    spreads: bool = False
    noun: str = "operations"
    contenders: list[Contender] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The question itself: the first line of its file."""
        return (self.text or "").strip().partition("\n")[0]

    def as_json(self) -> dict[str, Any]:
        """Give what is asked as what json.dumps takes."""
        return {
            "name": self.name,
            "question": self.title,
            "unit": self.unit,
            "reference": self.reference,
            "full": asdict(self.full),
            "quick": asdict(self.quick),
        }

    def contender(
        self,
        name: str,
        kind: Kind = Kind.PROCAIO,
        *,
        share: float = 1.0,
        target: Target | None = None,
    ) -> Callable[[Callable[[Work], Sample]], Callable[[Work], Sample]]:
        """Register the decorated function as a contender."""

        def register(run: Callable[[Work], Sample]) -> Callable[[Work], Sample]:
            self.contenders.append(Contender(name, kind, run, share, target))
            return run

        return register

    def aim(
        self,
        who: str | Iterable[str],
        target: Target,
        title: str,
        to: Iterable[str] = (),
        of: str = "",
    ) -> None:
        """Have contenders reach something beside the one of that title, or the best of `to`."""
        ours = frozenset([who] if isinstance(who, str) else who)
        self.aims.append(Aim(title, target, frozenset(to) or frozenset([title]), ours, of))

    @property
    def targets(self) -> list[Aim]:
        """All that is to be reached: beside the reference, and beside others."""
        beside_reference = [
            Aim(self.reference, c.target, frozenset([self.reference]), frozenset([c.name]))
            for c in self.contenders
            if c.target
        ]
        return beside_reference + self.aims

    def named(self, name: str) -> Contender:
        """Give the contender of that name."""
        return next(c for c in self.contenders if c.name == name)

    def figure(self, sample: Sample) -> float:
        """Give the figure that the question asks for."""
        if sample.value is not None:
            return sample.value
        return sample.ops / sample.seconds * self.factor

    def work(self, contender: Contender, data: Data, *, quick: bool) -> Work:
        """Cut out the contender's share."""
        sizes = self.quick if quick else self.full
        count = max(sizes.depth, round(sizes.count * contender.share))
        return Work(count, sizes.depth, sizes.size, sizes.seconds, data, sizes.shape)


@dataclass
class Outcome:
    """What became of one contender: samples, or why there are none."""

    contender: Contender
    samples: list[Sample] = field(default_factory=list)
    cpu_of_processes: list[float] = field(default_factory=list)  # whole ones, start-up included
    missing: str = ""
    failed: str = ""

    @property
    def ended(self) -> bool:
        """Whether there is no use in another turn."""
        return bool(self.missing or self.failed)


@dataclass(frozen=True)
class Options:
    """What the command line decides."""

    data: Data
    repeat: int
    quick: bool
    peers: bool
    minutes: float


def need(name: str) -> ModuleType:
    """Import a module that need not be installed."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingError(str(error)) from error
    if module.__file__ is None:  # a mere folder of that name, found as a namespace package
        message = f"{name} is not built"
        raise MissingError(message)
    return module


def check(result: object, expected: object) -> None:
    """Refuse a wrong result: its speed would mean nothing."""
    if result != expected:
        message = f"{result!r} instead of {expected!r}"
        raise WrongResultError(message)


def questions(only: Sequence[str] = ()) -> list[Question]:
    """Load the questions whose names begin with one of `only`, or all of them."""
    found = []
    for file in FILES:
        if not only or any(file.startswith(name) or name.startswith(file) for name in only):
            found += importlib.import_module(f"benchmarks.bench_{file}").QUESTIONS
    return [q for q in found if not only or any(q.name.startswith(name) for name in only)]


def run_question(question: Question, options: Options) -> list[Outcome]:
    """Run all contenders in turns, as often as asked for, or as there is time for."""
    sizes = question.quick if options.quick else question.full
    options.data.prepare(question.needs, sizes.shape)
    outcomes = [
        Outcome(contender)
        for contender in question.contenders
        if options.peers or contender.kind is not Kind.PEER
    ]
    with ExitStack() as stack:
        if "slow" in question.needs:
            try:
                stack.enter_context(slowfs.mounted_for(options.data))
            except MissingError as missing:
                for outcome in outcomes:
                    outcome.missing = str(missing)
        _take_turns(question, outcomes, options)
    return outcomes


def _take_turns(question: Question, outcomes: list[Outcome], options: Options) -> None:
    """Every other round goes backwards: nobody is always first, or behind the same one."""
    end = time.monotonic() + 60 * options.minutes
    for number in range(1, options.repeat + 1):
        for outcome in outcomes[:: 1 if number % 2 else -1]:
            if not outcome.ended:
                _say(f"{question.name} {number}/{options.repeat} {outcome.contender.name}")
                take_turn(question, outcome, options)
        if time.monotonic() > end:
            break
    _say("")


def take_turn(question: Question, outcome: Outcome, options: Options) -> None:
    """Run a contender once, in a process of its own, and note what it says."""
    command = [sys.executable, "-m", "benchmarks", "--data", str(options.data.root)]
    command += ["--quick"] if options.quick else []
    command += ["--one", question.name, outcome.contender.name]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        status, output, errors = _run(command)
    except subprocess.TimeoutExpired:
        outcome.failed = f"not done after {SECONDS_FOR_ONE_TURN} s"
        return
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status != 0:
        lines = errors.strip().splitlines() or ["no message"]
        outcome.failed = f"{lines[-1]} (status {status})"
        return
    answer = json.loads(output.splitlines()[-1])
    if "missing" in answer:
        outcome.missing = answer["missing"]
        return
    outcome.samples.append(Sample(**answer))
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    outcome.cpu_of_processes.append(used)


def _run(command: list[str]) -> tuple[int, str, str]:
    """Run a command, and kill all its processes if it takes too long or we are interrupted."""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=SECONDS_FOR_ONE_TURN)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output, errors


def run_one(names: Sequence[str], data: Data, *, quick: bool) -> dict[str, Any]:
    """Run the contender of a question here: what the process of a turn does, and its answer."""
    question = next(q for q in questions(names[:1]) if q.name == names[0])
    contender = question.named(names[1])
    try:
        return contender.run(question.work(contender, data, quick=quick)).as_json()
    except MissingError as missing:
        return {"missing": str(missing)}


def _say(text: str) -> None:
    """Show at a terminal who is running."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
