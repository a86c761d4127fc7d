"""
How fast are the attributes of everything in 50,000 files in 500 directories?

Names, and an lstat of each entry, added up: what `du` does. `find` prints the sizes: else it does
not look.
"""

from __future__ import annotations

import os
from functools import partial

from benchmarks.harness import Kind, at_least, check, need
from benchmarks.trees import (
    about_wide_trees,
    by_function,
    by_perl,
    by_program,
    procaio_function,
    walking,
)

DEPTH = 256


def engine(top: str) -> int:
    """Do what `procaio scan` does, its pool included, but for what it prints."""
    scan = need("procaio._scan").Scan([os.fsencode(top)])
    scan.run()
    check((scan.complete, scan.failed, scan.vanished), (True, 0, 0))
    entries: int = scan.files + scan.dirs
    return entries - 1  # the top is one


def procaio_scandir_lstat(top: str) -> int:
    """Callbacks that ask for further directories and attributes."""
    aio_scandir = procaio_function("aio_scandir")
    aio = need("procaio")
    aio_lstat = aio.aio_lstat
    paths: list[str] = []
    count = size = failed = 0

    def seen(st: os.stat_result | None) -> None:
        nonlocal count, size, failed
        if st is None:
            failed += 1
            return
        count += 1
        size += st.st_size

    def found(path: str, dirs: list[str] | None, files: list[str] | None) -> None:
        nonlocal failed
        if dirs is None or files is None:
            failed += 1
            return
        paths.extend(f"{path}/{name}" for name in files)
        for name in dirs:
            paths.append(f"{path}/{name}")
            ask(f"{path}/{name}")

    def ask(path: str) -> None:
        aio_scandir(path, 0, partial(found, path))

    ask(top)
    while aio.nreqs():
        aio.poll()
        while paths and aio.nreqs() < DEPTH:
            aio_lstat(paths.pop(), seen)
    check(failed, 0)
    return count


def walk_and_lstat(top: str) -> int:
    """One after the other."""
    lstat = os.lstat
    count = size = 0
    for path, dirs, files in os.walk(top):
        prefix = path + "/"
        for name in dirs:
            size += lstat(prefix + name).st_size
        for name in files:
            size += lstat(prefix + name).st_size
        count += len(dirs) + len(files)
    return count


def scandir_and_stat(top: str) -> int:
    """One after the other, with what os.scandir offers for it."""
    count = size = 0
    todo = [top]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                count += 1
                size += entry.stat(follow_symlinks=False).st_size
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    return count


OURS = [
    by_function("procaio, engine of procaio scan", Kind.PROCAIO, engine),
    by_function("procaio, aio_scandir + aio_lstat", Kind.PROCAIO, procaio_scandir_lstat),
]
BLOCKING = [
    by_function("os.walk + os.lstat", Kind.BASELINE, walk_and_lstat),
    by_function("os.scandir + DirEntry.stat", Kind.BASELINE, scandir_and_stat),
    by_program("find -printf %s", "find", "{}", "-printf", r"%s\n", counts=True),
    by_program("du -s", "du", "-s"),
]
PERL = by_perl("scan.pl")
WAYS = [*OURS, *BLOCKING, *PERL]

QUESTIONS = [
    about_wide_trees("scan", __doc__, "os.walk + os.lstat", WAYS, walking, target=at_least(1.5))
]
