"""
How fast is a tree of 50,000 files in 500 directories removed?

Each turn has a tree of its own, made and written to the disk before the clock starts. Everything
is in the cache, but its blocks are allocated, as those of a tree that was there yesterday.
"""

from __future__ import annotations

import shutil

from benchmarks.harness import Aim, Kind, Question, Sizes, at_least, check
from benchmarks.trees import (
    WIDE,
    WIDE_QUICK,
    add_way,
    by_function,
    by_perl,
    by_program,
    names_of,
    procaio_function,
    removing,
    wide,
)


def procaio_rmtree(path: str) -> None:
    """One request, waited for."""
    check(procaio_function("aio_rmtree")(path).wait(), 0)


OURS = [by_function("procaio, aio_rmtree", Kind.PROCAIO, procaio_rmtree)]
BLOCKING = [
    by_function("shutil.rmtree", Kind.BASELINE, shutil.rmtree),
    by_program("rm -rf", "rm", "-rf"),
]
PERL = by_perl("rmtree.pl")
WAYS = [*OURS, *BLOCKING, *PERL]

QUESTION = Question(
    "remove",
    __doc__,
    unit="entries/s",
    reference="shutil.rmtree",
    full=Sizes.of_tree(WIDE),
    quick=Sizes.of_tree(WIDE_QUICK),
    noun="entries",
    aims=(
        Aim("the fastest peer", at_least(1.0), names_of(WAYS, Kind.BASELINE, Kind.PEER)),
        Aim("the fastest in C", at_least(1 / 1.3), names_of(WAYS, Kind.TOOL)),
    ),
)
QUESTIONS = [QUESTION]
for way in WAYS:
    add_way(QUESTION, way, removing, wide)
