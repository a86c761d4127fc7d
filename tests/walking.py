"""What the tests of aio_walk share: walks as lists, beside those of os.walk."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import procaio
import trees
from conftest import descriptors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

Given = tuple[Any, list[Any], list[Any]]


def by_name(_: object, dirs: list[Any]) -> None:
    """Go into directories in the order of their names."""
    dirs.sort()


async def walk(walk: procaio.aio_walk[Any], edit: Callable[..., None] = by_name) -> list[Given]:
    """All that a walk gives, `edit` having changed the names of directories."""
    found = []
    async for path, dirs, files in walk:
        edit(path, dirs)
        found.append((path, list(dirs), sorted(files)))
    return found


def walk_of_os(top: Any, edit: Callable[..., None] = by_name, **keywords: Any) -> list[Given]:
    found = []
    for path, dirs, files in os.walk(top, **keywords):
        edit(path, dirs)
        found.append((path, list(dirs), sorted(files)))
    return found


def run(awaitable: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await asyncio.wait_for(awaitable, 100)

    return asyncio.run(main())


def walked(top: Any, edit: Callable[..., None] = by_name, **keywords: Any) -> list[Given]:
    return run(walk(procaio.aio_walk(top, **keywords), edit))


def make_tree(top: Path) -> Path:
    """Directories in each other, names and links of all kinds."""
    trees.make(
        os.fsencode(top),
        {
            b"a": {b"b": {b"c": {}, b"file": None}, b"c": {b"d": {b"e": {b"f": {}}}}},
            b"b": {b"to c": b"../a/c", b"dangling": b"nowhere", b"to file": b"../file"},
            b"\xff\xfe": {b"\xff": None, b"\xfd": {b"\xfc": {}}},
            b"n" * 255: {b"n" * 255: {b"m" * 255: None}},
            b"new\nline": {b" ": {}},
            b"empty": {},
            b"file": None,
            b"loop": b"loop",
        },
    )
    return top


def broad(path: Path, count: int, inner: int = 0) -> Path:
    """A directory with so many others, and so many in each of them."""
    trees.make(
        os.fsencode(path),
        {b"%d" % n: {b"%d" % m: {} for m in range(inner)} | {b"f": None} for n in range(count)},
    )
    return path


def directories_open(path: Path) -> list[str]:
    return [what for what in descriptors().values() if str(path) in what]


async def eventually_quiet(pool: procaio.Pool) -> None:
    """What was asked for has come back, and no more is asked for."""
    while pool.nreqs() > 0:
        await procaio.aio_nop(pool=pool)
    assert pool.nreqs() == 0
