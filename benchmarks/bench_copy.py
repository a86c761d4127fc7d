"""
How fast is a tree of 50,000 files of 1 to 4 KiB in 500 directories copied?

Contents, modes and times. `cp -a` also looks for owners, attributes and hard links. What is read
is in the cache; what is written need not be on the disk at the end. Perl's IO::AIO copies no trees.
"""

from __future__ import annotations

import shutil

from benchmarks.harness import Kind, check
from benchmarks.trees import (
    about_wide_trees,
    by_function,
    by_program,
    copying,
    procaio_function,
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

QUESTIONS = [about_wide_trees("copy", __doc__, "shutil.copytree", WAYS, copying)]
