"""
aio_walk: the directories of a tree, one after the other, as os.walk gives them.

While the program looks at one directory, workers list those that come next; each goes on with the
directories in the one that it was asked for, as long as that is short work. What is known and has
not been given is bounded: with AHEAD directories, or MOST_ASKED requests, no more is asked for.
What comes next is found in preorder, through directories whose listing has arrived already.

Not here: what a listing is (workers/calls_tree.c), anchors (`_trees`).
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

from procaio._core import (
    TREE_BYTES,
    TREE_DEEP,
    TREE_FOLLOW,
    TREE_FOLLOW_TOP,
    TREE_KEEP,
    TREE_TOP,
    FileHandle,
    Request,
    _list,
    _types,
    aio_nop,
    aioreq_pri,
)
from procaio._pool import default_pool
from procaio._trees import (
    LARGE_STEP,
    LEVELS_OF_AN_ANCHOR,
    LONGEST_WAY,
    TYPES_AT_A_TIME,
    between_calls,
    listing_flags,
    pack_names,
    unpack_types,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from procaio._pool import Pool


__all__ = ["aio_walk"]

AHEAD: Final = 256
MOST_ASKED: Final = 32
GIVEN_IN_A_ROW: Final = 64
"""So many directories are given without letting the loop run others."""
KNOWN: Final[tuple[Any, ...]] = (None, None, [], [], [], [], -1, 0, [])
"""The value of a directory that came with one above it."""
DT_DIR: Final = 4
DT_DIR_LINK: Final = 101

Name = TypeVar("Name", str, bytes)


@final
class _Directory(Generic[Name]):
    """A directory on its way from being met to being given."""

    __slots__ = (
        "ahead",
        "anchor",
        "dirs",
        "level",
        "links",
        "nondirs",
        "path",
        "position",
        "request",
        "value",
        "way",
    )

    def __init__(self, path: Name, anchor: Any, way: Name, level: int) -> None:
        self.path: Name = path
        self.anchor = anchor
        self.way: Name = way
        self.level = level
        """How far below its anchor."""
        self.request: Request[Any] | None = None
        self.value: Any = None
        """The first step's, once it has arrived."""
        self.dirs: list[Name] = []
        self.nondirs: list[Name] = []
        self.links: frozenset[Name] = frozenset()
        """Names among `dirs` that are symlinks."""
        self.ahead: dict[Name, _Directory[Name]] = {}
        """Directories in it that have been asked for, by their names."""
        self.position = 0
        """How many of `dirs` have been gone into."""


@final
class aio_walk(Generic[Name]):  # noqa: N801 - called like a function
    """
    Walk a directory tree: an asynchronous iterator of (dirpath, dirnames, filenames), as os.walk.

        async for path, dirs, files in aio_walk("."):
            print(path, len(files))

    Args:
        top: where it begins; names are str or bytes like it. topdown: a directory comes before
        those in it. Names that the program takes out of `dirnames`
            are not gone into then, and the order of those left is kept. Else it comes after them.
        onerror: called with the OSError of a directory that cannot be listed, which is passed over.
            What it raises ends the walk.
        followlinks: go into directories that symlinks lead to.
        pri: the priority of the requests.
        pool: where they are made.

    A bounded number of directories is listed ahead. A tree of any depth takes few descriptors; what
    is left of a walk that is given up is dropped with the iterator.

    """

    def __init__(
        self,
        top: Name | os.PathLike[Name],
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
        *,
        pri: int | None = None,
        pool: Pool | None = None,
    ) -> None:
        """Ask for the top."""
        path: Name = os.fspath(top)
        self._topdown = topdown
        self._onerror = onerror
        self._followlinks = followlinks
        self._pool = default_pool() if pool is None else pool
        self._pri = pri
        self._flags = listing_flags() | TREE_FOLLOW | TREE_DEEP
        if isinstance(path, bytes):
            self._flags |= TREE_BYTES
        self._asked = 0
        """Requests for directories that have not been answered."""
        self._ahead = 0
        """Directories that were asked for, or are known, and have not been given."""
        self._in_a_row = 0
        self._all_asked = False
        """All that are known have been asked for."""
        self._busy = False
        self._frames: list[_Directory[Name]] = []
        """Directories that are being gone through, each in the one before."""
        self._next: _Directory[Name] | None = _Directory(path, None, path, 0)
        self._ask(self._next, TREE_TOP | TREE_FOLLOW_TOP)
        self._pri = self._next.request.pri if self._next.request else 0
        aioreq_pri(0)

    def __aiter__(self) -> aio_walk[Name]:
        """Give itself."""
        return self

    async def __anext__(self) -> tuple[Name, list[Name], list[Name]]:
        """Give the next directory."""
        if self._busy:
            raise RuntimeError("the walk is waiting for a directory already")
        self._busy = True
        try:
            while True:
                directory = self._take_next()
                if directory is None:
                    directory = self._frames.pop() if self._frames else None
                    if directory is None:
                        raise StopAsyncIteration
                    if not self._topdown:
                        return directory.path, directory.dirs, directory.nondirs
                    continue
                try:
                    await self._complete(directory)
                except OSError as error:
                    if self._onerror is not None:
                        self._onerror(error)
                    continue
                self._frames.append(directory)
                self._all_asked = self._all_asked and not directory.dirs
                self._look_ahead()
                if self._topdown:
                    return directory.path, directory.dirs, directory.nondirs
        finally:
            self._busy = False

    # -- what comes next --------------------------------------------------------------------------

    def _take_next(self) -> _Directory[Name] | None:
        """The next one in the directory that is being gone through; None at its end."""
        directory, self._next = self._next, None
        while directory is None and self._frames:
            frame = self._frames[-1]
            if frame.position == len(frame.dirs):
                return None
            name = frame.dirs[frame.position]
            frame.position += 1
            if self._goes_into(frame, name):
                directory = frame.ahead.pop(name, None) or self._child(frame, name)
        return directory

    def _goes_into(self, directory: _Directory[Name], name: Name) -> bool:
        return self._followlinks or name not in directory.links

    def _child(self, directory: _Directory[Name], name: Name) -> _Directory[Name]:
        path = os.path.join(directory.path, name)
        handle = directory.value[0] if directory.value else None
        if handle is not None:
            return _Directory(path, handle, name, 1)
        return _Directory(
            path, directory.anchor, os.path.join(directory.way, name), directory.level + 1
        )

    def _look_ahead(self) -> None:
        """Ask for what comes next, until enough is asked for; with half as much, do not look."""
        if self._all_asked or self._ahead > AHEAD // 2 or self._asked > MOST_ASKED // 2:
            return
        for directory in self._upcoming():
            if directory.request is None and directory.value is None:
                self._ask(directory)
                if self._ahead >= AHEAD or self._asked >= MOST_ASKED:
                    return
        self._all_asked = True

    def _upcoming(self) -> Iterator[_Directory[Name]]:
        """Directories in the order in which they will be given, as far as they are known."""
        for frame in reversed(self._frames):
            yield from self._below(frame, frame.position)

    def _below(self, directory: _Directory[Name], position: int) -> Iterator[_Directory[Name]]:
        dirs = directory.dirs
        while position < len(dirs):
            name = dirs[position]
            position += 1
            if not self._goes_into(directory, name):
                continue
            child = directory.ahead.get(name)
            if child is None:
                child = directory.ahead[name] = self._child(directory, name)
            yield child
            if child.value is not None:
                yield from self._below(child, 0)

    # -- listing ----------------------------------------------------------------------------------

    def _ask(self, directory: _Directory[Name], flags: int = 0) -> None:
        if flags or directory.level >= LEVELS_OF_AN_ANCHOR or len(directory.way) > LONGEST_WAY:
            flags |= TREE_KEEP
        self._asked += 1
        self._ahead += 1
        directory.request = between_calls(
            _list,
            directory.anchor,
            directory.way,
            self._flags | flags,
            callback=partial(self._listed, directory),
            pri=self._pri,
            pool=self._pool,
        )

    def _listed(self, directory: _Directory[Name], value: Any) -> None:
        """The first step has arrived; those in it can be asked for, too."""
        self._asked -= 1
        if value is not None:
            self._take(directory, value)
            directory.value = value
            self._take_sections(directory, value[8])
            if directory.dirs:
                self._all_asked = False
            self._look_ahead()

    def _take_sections(
        self, top: _Directory[Name], sections: list[tuple[Name, list[Name], list[Name], list[Name]]]
    ) -> None:
        """Directories below that the worker has listed, too; each comes after the one it is in."""
        known = {top.way[:0]: top}
        for way, dirs, nondirs, links in sections:
            above, name = os.path.split(way)
            parent = known[above]
            child = known[way] = parent.ahead[name] = self._child(parent, name)
            child.dirs, child.nondirs, child.links = dirs, nondirs, frozenset(links)
            child.value = KNOWN
            self._ahead += 1

    @staticmethod
    def _take(directory: _Directory[Name], value: Any) -> None:
        directory.dirs += value[2]
        directory.nondirs += value[3]
        if value[4]:
            directory.links |= frozenset(value[4])

    async def _complete(self, directory: _Directory[Name]) -> None:
        """Have all of the directory's names."""
        if directory.value is None:
            if directory.request is None:
                self._ask(directory)
            await self._answer_of(directory)
        elif self._in_a_row == GIVEN_IN_A_ROW:
            await between_calls(aio_nop, pri=self._pri, pool=self._pool)
            self._in_a_row = 0
        self._in_a_row += 1
        self._ahead -= 1
        value = directory.value
        if value[6] >= 0 or value[5]:
            await self._complete_large(directory, value)

    async def _answer_of(self, directory: _Directory[Name]) -> None:
        request = directory.request
        assert request is not None
        directory.request = None
        self._in_a_row = 0
        try:
            await request
        except OSError as error:
            self._ahead -= 1
            raise type(error)(error.errno, error.strerror, directory.path) from None

    async def _complete_large(self, directory: _Directory[Name], value: Any) -> None:
        handle = value[0]
        unknown = value[5]
        try:
            while value[6] >= 0:
                step = handle, None, self._flags, value[6], LARGE_STEP
                value = await between_calls(_list, *step, pri=self._pri, pool=self._pool)
                self._take(directory, value)
                unknown += value[5]
            await self._find_types(directory, handle, unknown)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, directory.path) from None

    async def _find_types(
        self, directory: _Directory[Name], handle: FileHandle, unknown: list[Name]
    ) -> None:
        requests = []
        for first in range(0, len(unknown), TYPES_AT_A_TIME):
            names = unknown[first : first + TYPES_AT_A_TIME]
            ask = partial(between_calls, _types, pri=self._pri, pool=self._pool)
            request = ask(handle, pack_names(names), self._flags)
            requests.append((names, request))
        links = set()
        for names, request in requests:
            for name, kind in zip(names, unpack_types(await request), strict=True):
                directory_like = kind in {DT_DIR, DT_DIR_LINK}
                (directory.dirs if directory_like else directory.nondirs).append(name)
                if kind == DT_DIR_LINK:
                    links.add(name)
        directory.links |= links
