"""
How fast are the names in 50,000 files in 500 directories?

Names and what is a directory, no attributes. `find` prints an empty line for each name, so that
it too only counts; nothing of the paths goes through a pipe.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial

from benchmarks.harness import Kind, at_least, check, need
from benchmarks.trees import (
    about_wide_trees,
    by_coroutine,
    by_function,
    by_perl,
    by_program,
    procaio_function,
    walking,
)

THREADS = 8


async def procaio_walk(top: str) -> int:
    """Count what os.walk would give, awaited."""
    count = 0
    async for _, dirs, files in procaio_function("aio_walk")(top):
        count += len(dirs) + len(files)
    return count


def procaio_scandir(top: str) -> int:
    """Callbacks that ask for further directories."""
    aio_scandir = procaio_function("aio_scandir")
    aio = need("procaio")
    count = failed = 0

    def found(path: str, dirs: list[str] | None, files: list[str] | None) -> None:
        nonlocal count, failed
        if dirs is None or files is None:
            failed += 1
            return
        count += len(dirs) + len(files)
        for name in dirs:
            ask(f"{path}/{name}")

    def ask(path: str) -> None:
        aio_scandir(path, 0, partial(found, path))

    ask(top)
    while aio.nreqs():
        aio.poll()
    check(failed, 0)
    return count


def os_walk(top: str) -> int:
    """One directory after the other."""
    return sum(len(dirs) + len(files) for _, dirs, files in os.walk(top))


def listed(path: str) -> tuple[int, list[str]]:
    """Count the entries of a directory, and name the directories among them."""
    with os.scandir(path) as entries:
        kinds = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    return len(kinds), [name for name, is_dir in kinds if is_dir]


def in_threads(top: str) -> int:
    """A thread lists one directory."""
    count = 0
    with ThreadPoolExecutor(THREADS) as pool:
        pending = {pool.submit(listed, top)}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                number, dirs = future.result()
                count += number
                pending |= {pool.submit(listed, path) for path in dirs}
    return count


async def in_asyncio_threads(top: str) -> int:
    """The same with asyncio.to_thread, in as many tasks as there are directories."""
    number, dirs = await asyncio.to_thread(listed, top)
    return number + sum(await asyncio.gather(*map(in_asyncio_threads, dirs)))


async def aiofiles_scandir(top: str) -> int:
    """Await what aiofiles makes of os.scandir, in as many tasks as there are directories."""
    with await need("aiofiles.os").scandir(top) as entries:
        kinds = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    below = [aiofiles_scandir(path) for path, is_dir in kinds if is_dir]
    return len(kinds) + sum(await asyncio.gather(*below))


OURS = [
    by_coroutine("procaio, aio_walk", Kind.PROCAIO, procaio_walk),
    by_function("procaio, aio_scandir, callbacks", Kind.PROCAIO, procaio_scandir),
]
BLOCKING = [
    by_function("os.walk", Kind.BASELINE, os_walk),
    by_program("find", "find", "{}", "-printf", r"\n", counts=True),
]
OTHERS = [
    by_function(f"ThreadPoolExecutor, {THREADS} threads", Kind.BASELINE, in_threads),
    by_coroutine("asyncio.to_thread", Kind.BASELINE, in_asyncio_threads),
    by_coroutine("aiofiles", Kind.PEER, aiofiles_scandir),
]
PERL = by_perl("walk.pl")
WAYS = [*OURS, *BLOCKING, *OTHERS, *PERL]

QUESTIONS = [
    about_wide_trees(
        "walk", __doc__, "os.walk", WAYS, walking, unit="names/s", target=at_least(1.0)
    )
]
