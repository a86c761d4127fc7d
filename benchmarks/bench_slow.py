"""
What if each call takes 5 ms, as on a file server that is far away?

On the file system of `native/slowfs.c`: nothing is cached, nobody computes, and what counts is how
many calls there are and how many of them are waited for at the same time. The pool of procaio has
its eight workers. `calls` is how many calls each entry took: who needs fewer is faster, too.

The aim is held against those that make one call after the other. Perl with eight threads has eight
calls outstanding as procaio does: it is to be reached, not to be left six times behind.

The kernel changes one directory at a time: while a name is made in it or removed from it, the
next one waits. Only changes in different directories are done side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import bench_copy, bench_remove, bench_scan, bench_walk
from benchmarks.data import Shape
from benchmarks.harness import Kind, Question, Sizes, at_least
from benchmarks.trees import Stage, Way, add_way, copying, names_of, removing, slow, walking

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL = Shape(40, 10)
QUICK = Shape(4, 2)
COPY_FULL = Shape(16, 5)  # each file that cp -a copies is more than 20 calls
COPY_QUICK = Shape(2, 2)
QUESTIONS: list[Question] = []


def add_question(
    name: str,
    does: str,
    stage: Stage,
    ways: tuple[Sequence[Way], Sequence[Way], Sequence[Way]],
    shapes: tuple[Shape, Shape] = (FULL, QUICK),
) -> None:
    """Ask the same on the slow file system: of ours, of those that block, and of others."""
    ours, blocking, others = ways
    reference = blocking[0].name
    question = Question(
        f"slow_{name}",
        f"How fast is a tree {does} where each call takes 5 ms?",
        unit="entries/s",
        reference=reference,
        full=Sizes.of_tree(shapes[0]),
        quick=Sizes.of_tree(shapes[1]),
        needs=frozenset({"slow"}),
        extra=("calls",),
        noun="entries",
    )
    for way in (*ours, *blocking, *others):
        add_way(question, way, stage, slow)
    names = names_of(ours, Kind.PROCAIO)
    one_at_a_time = names_of(blocking, Kind.BASELINE, Kind.TOOL)
    question.aim(names, at_least(6.0), "the fastest that blocks", one_at_a_time)
    if others:
        many = names_of(others, Kind.BASELINE, Kind.PEER)
        question.aim(names, at_least(1.0), "the fastest with threads", many)
    QUESTIONS.append(question)


add_question(
    "walk",
    "walked",
    walking,
    (bench_walk.OURS, bench_walk.BLOCKING, [bench_walk.OTHERS[0], *bench_walk.PERL]),
)
add_question("scan", "scanned", walking, (bench_scan.OURS, bench_scan.BLOCKING, bench_scan.PERL))
add_question(
    "remove",
    "removed",
    removing,
    (bench_remove.OURS, bench_remove.BLOCKING, bench_remove.PERL),
)
add_question(
    "copy",
    "copied",
    copying,
    (bench_copy.OURS, bench_copy.BLOCKING, []),
    (COPY_FULL, COPY_QUICK),
)
