"""
How fast is a tree of 50,000 files of 1 to 4 KiB in 500 directories copied?

Contents, modes and times. `cp -a` also looks for owners, attributes and hard links. What is read
is in the cache; what is written need not be on the disk at the end. Perl's IO::AIO copies no trees.
"""

from __future__ import annotations

import shutil

from benchmarks.harness import Aim, Kind, Question, Sizes, at_least, check
from benchmarks.trees import (
    WIDE,
    WIDE_QUICK,
    add_way,
    by_function,
    by_program,
    copying,
    names_of,
    procaio_function,
    wide,
)


def procaio_copytree(source: str, destination: str) -> None:
    """One request, waited for."""
    check(procaio_function("aio_copytree")(source, destination).wait(), 0)


def copytree(source: str, destination: str) -> None:
    """One after the other."""
    shutil.copytree(source, destination)


OURS = [by_function("procaio, aio_copytree", Kind.PROCAIO, procaio_copytree)]
BLOCKING = [
    by_function("shutil.copytree", Kind.BASELINE, copytree),
    by_program("cp -a", "cp", "-a"),
]
WAYS = [*OURS, *BLOCKING]

QUESTION = Question(
    "copy",
    __doc__,
    unit="entries/s",
    reference="shutil.copytree",
    full=Sizes.of_tree(WIDE),
    quick=Sizes.of_tree(WIDE_QUICK),
    needs=frozenset({"shaped"}),
    noun="entries",
    aims=(
        Aim("the fastest peer", at_least(1.0), names_of(WAYS, Kind.BASELINE)),
        Aim("the fastest in C", at_least(1 / 1.3), names_of(WAYS, Kind.TOOL)),
    ),
)
QUESTIONS = [QUESTION]
for way in WAYS:
    add_way(QUESTION, way, copying, wide)
