"""
What `procaio copy`, `remove` and `move` are to do: every path is checked before any is touched.

A plan has tasks, one for each path that is there; failures, the paths that are not, which do not
keep the others from being done; and refusals: if there is one, nothing may be done at all.

All paths are bytes. Not here: doing it (`_jobs`), printing (`_cli_trees`).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from errno import ENOENT, ENOTDIR
from typing import TYPE_CHECKING, NamedTuple, final

from procaio._scan import Failure, outermost

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Plan", "Refusal", "Task", "plan_removal", "plan_transfer"]


@final
class Refusal(Exception):  # noqa: N818 - it is an answer, too
    """Why nothing is done for a path; `other` is the path that is to blame, if there is one."""

    def __init__(self, path: bytes, reason: str, other: bytes = b"") -> None:
        """`reason` goes on where the path ends, and ends where `other` begins."""
        super().__init__(path, reason, other)
        self.path = path
        self.reason = reason
        self.other = other


class Task(NamedTuple):
    """One path to be copied, removed or moved; with its name where it goes, but for a removal."""

    source: bytes
    stat: os.stat_result
    target: bytes = b""
    replaces: bool = False
    """There is something at the target: a directory if the source is one, else no directory."""
    crosses: bool = False
    """The target is on another file system."""

    @property
    def is_tree(self) -> bool:
        """Whether the source is a directory."""
        return stat.S_ISDIR(self.stat.st_mode)


@final
@dataclass
class Plan:
    """What is to be done, see above."""

    tasks: list[Task] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    in_order: bool = False
    """A task may depend on the one before."""


# -- removing -------------------------------------------------------------------------------------


def plan_removal(paths: Iterable[bytes], *, force: bool = False) -> Plan:
    """
    Remove the paths; with `force` it does not matter if they are gone.

    Refused is what rm refuses: the root directory, . and .. at the end of any path, the empty path,
    a symlink with a slash behind it.
    """
    plan = Plan()
    found: dict[bytes, Task] = {}
    for path in paths:
        try:
            _check_that_it_can_go(path)
            found.setdefault(_entry(path), Task(path, os.lstat(path)))
        except Refusal as refusal:  # noqa: PERF203 - one by one, as they were given
            plan.refusals.append(refusal)
        except OSError as error:
            number = error.errno or 0
            if not (force and _is_gone(path, number)):
                plan.failures.append(Failure(path, number))
    kept = set(outermost(found, bytes))
    plan.tasks = [task for entry, task in found.items() if entry in kept]
    return plan


def _check_that_it_can_go(path: bytes) -> None:
    """It must be a name in a directory."""
    bare = path.rstrip(b"/")
    if not path:
        raise Refusal(path, "is an empty path")
    if os.path.basename(bare) in {b".", b".."}:
        raise Refusal(path, "ends in . or ..")
    if bare != path and os.path.islink(bare):
        raise Refusal(path, "is a symlink, with a slash behind it")
    if os.path.samestat(os.lstat(path), os.stat("/")):
        raise Refusal(path, "is the root directory")


def _is_gone(path: bytes, number: int) -> bool:
    return number == ENOENT or (number == ENOTDIR and not path.endswith(b"/"))


def _entry(path: bytes) -> bytes:
    """Where the name is, whatever it names: the absolute path without symlinks but for the last."""
    return os.path.join(os.path.realpath(_parent(path)), os.path.basename(path.rstrip(b"/")))


def _parent(path: bytes) -> bytes:
    return os.path.dirname(path.rstrip(b"/")) or b"."


# -- copying and moving ---------------------------------------------------------------------------


def plan_transfer(sources: Sequence[bytes], destination: bytes, *, moving: bool) -> Plan:
    """
    Copy or move the sources: into the destination if that is a directory, else to that name.

    Refused is what would go onto itself or into itself, a directory in place of anything else, and
    anything else in place of a directory; moving, also what rm refuses, and directories that would
    have to be emptied first.
    """
    plan = Plan()
    into = os.path.isdir(destination)
    if not destination:
        plan.refusals.append(Refusal(destination, "is an empty path"))
    elif len(sources) > 1 and not into:
        plan.refusals.append(Refusal(destination, "is no directory for several paths to go into"))
    if plan.refusals:
        return plan
    taken: dict[bytes, bytes] = {}
    for source in sources:
        try:
            task = _transfer(source, destination, into=into, moving=moving)
            _take(taken, task)
        except Refusal as refusal:  # noqa: PERF203 - one by one, as they were given
            plan.refusals.append(refusal)
        except OSError as error:
            plan.failures.append(Failure(error.filename, error.errno or 0))
        else:
            plan.tasks.append(task)
    if moving and len(plan.tasks) > 1:
        places = [task.source for task in plan.tasks]
        plan.in_order = len(outermost(places, _entry)) < len(places)
    return plan


def _take(taken: dict[bytes, bytes], task: Task) -> None:
    """No two sources may get the same name; if there are two, they go into the same directory."""
    name = os.path.basename(task.target)
    if name in taken:
        raise Refusal(task.source, "would get the same name as", taken[name])
    taken[name] = task.source


def _transfer(source: bytes, destination: bytes, *, into: bool, moving: bool) -> Task:
    """One source. OSErrors have the path that they are about."""
    if moving:
        _check_that_it_can_go(source)
    elif not source:
        raise Refusal(source, "is an empty path")
    st = os.lstat(source)
    is_tree = stat.S_ISDIR(st.st_mode)
    target = _target_in(destination, source) if into else destination
    if is_tree:  # a slash behind it has said that already
        source, target = source.rstrip(b"/"), target.rstrip(b"/")
    elif target.endswith(b"/"):
        raise Refusal(source, "is not a directory, but would be", target)
    if stat.S_ISREG(st.st_mode) and not (moving or into) and os.path.islink(target):
        target = _written_through(source, target)
    there = _stat_of(target)
    crosses = os.stat(_parent(target)).st_dev != (moving and os.stat(_parent(source)).st_dev)
    task = Task(source, st, target, there is not None, crosses)
    if there is not None:
        _check_that_it_can_replace(task, there, moving=moving)
    if is_tree:
        _check_that_it_is_outside(task)
    return task


def _target_in(directory: bytes, source: bytes) -> bytes:
    name = os.path.basename(source.rstrip(b"/"))
    if name in {b"", b".."}:
        raise Refusal(source, "has no name of its own to be copied under")
    return os.path.join(directory, name)


def _written_through(source: bytes, target: bytes) -> bytes:
    """What a symlink leads to that is itself the destination."""
    if not os.path.exists(target):
        raise Refusal(source, "would go through a symlink that leads nowhere:", target)
    return os.path.realpath(target)


def _stat_of(target: bytes) -> os.stat_result | None:
    try:
        return os.lstat(target)
    except FileNotFoundError:
        return None


def _check_that_it_can_replace(task: Task, there: os.stat_result, *, moving: bool) -> None:
    is_tree = stat.S_ISDIR(there.st_mode)
    if os.path.samestat(task.stat, there) or _leads_to(task, there):
        raise Refusal(task.source, "is the same file as", task.target)
    if is_tree and not task.is_tree:
        raise Refusal(task.source, "cannot replace a directory:", task.target)
    if task.is_tree and not is_tree:
        raise Refusal(task.source, "is a directory, and cannot replace a file:", task.target)
    if is_tree and moving and os.listdir(task.target):
        raise Refusal(task.source, "cannot replace a directory that is not empty:", task.target)


def _leads_to(task: Task, there: os.stat_result) -> bool:
    """Whether the source is a symlink to what it would replace: it would lead to itself."""
    try:
        return stat.S_ISLNK(task.stat.st_mode) and os.path.samestat(os.stat(task.source), there)
    except OSError:
        return False


def _check_that_it_is_outside(task: Task) -> None:
    above = os.path.realpath(_parent(task.target))
    while not _is(task, above):
        if above == b"/":
            return
        above = os.path.dirname(above)
    raise Refusal(task.source, "would go into itself:", task.target)


def _is(task: Task, directory: bytes) -> bool:
    """False also if it is above the working directory, and may not be looked at."""
    try:
        return os.path.samestat(os.stat(directory), task.stat)
    except PermissionError:
        return False
