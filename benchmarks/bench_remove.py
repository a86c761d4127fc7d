"""
How fast is a tree of 50,000 files in 500 directories removed?

Each turn has a tree of its own, made and written to the disk before the clock starts. Everything
is in the cache, but its blocks are allocated, as those of a tree that was there yesterday.
"""

from __future__ import annotations

import shutil

from benchmarks.harness import Kind, check
from benchmarks.trees import (
    about_wide_trees,
    by_function,
    by_perl,
    by_program,
    procaio_function,
    removing,
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

QUESTIONS = [
    about_wide_trees("remove", __doc__, "shutil.rmtree", WAYS, removing, needs=frozenset())
]
