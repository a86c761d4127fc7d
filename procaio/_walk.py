"""
aio_walk: the directories of a tree, one after the other, as os.walk gives them.

While the program looks at one directory, workers list those that come next; each goes on with the
directories in the one that it was asked for, as long as that is short work. What is known and has
not been given is bounded: with AHEAD directories, or MOST_ASKED requests, no more is asked for.
What comes next is found in preorder, through directories whose listing has arrived already.

Answers come in any thread that polls: what they and the program's thread change is changed under a
lock. They know the walk weakly, so that one that is given up asks for nothing more.

Not here: what a listing is (workers/calls_tree.c), anchors (`_trees`).
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections import deque
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
    aio_lstat,
    aio_nop,
    aioreq_pri,
)
from procaio._lock import RLock
from procaio._pool import default_pool
from procaio._trees import (
    LARGE_STEP,
    LEVELS_OF_AN_ANCHOR,
    LONGEST_WAY,
    NO_ROOM,
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
MOST_HELD: Final = 16
"""Large directories that are listed ahead: they stay open."""
GIVEN_IN_A_ROW: Final = 64
"""So many directories are given without letting the loop run others."""
KNOWN: Final[tuple[Any, ...]] = (None, None, [], [], [], [], None, 0, [])
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
        "answers",
        "asks",
        "dirs",
        "keeps",
        "level",
        "links",
        "needed",
        "nondirs",
        "path",
        "position",
        "request",
        "value",
        "wanted",
        "way",
    )

    def __init__(self, path: Name, anchor: Any, way: Name, level: int) -> None:
        self.path: Name = path
        self.anchor = anchor
        self.way: Name = way
        self.level = level
        """How far below its anchor."""
        self.request: Request[Any] | None = None
        self.asks = 0
        """Requests for the first step: after a shortage there is another one."""
        self.answers = 0
        """Of them, those that have been answered."""
        self.wanted = True
        """It has not been taken out of the names."""
        self.value: Any = None
        """The first step's, once it has arrived."""
        self.dirs: list[Name] = []
        self.nondirs: list[Name] = []
        self.links: frozenset[Name] = frozenset()
        """Names among `dirs` that are symlinks."""
        self.keeps = False
        """What is in it is found from it: it stays open."""
        self.needed = False
        """It is its turn."""
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
        timeout: seconds that each request may take. A directory for which that is not enough cannot
            be listed: TimeoutError.
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
        timeout: float | None = None,
        pool: Pool | None = None,
    ) -> None:
        """Ask for the top."""
        path: Name = os.fspath(top)
        self._topdown = topdown
        self._onerror = onerror
        self._followlinks = followlinks
        self._pool = default_pool() if pool is None else pool
        self._pri = pri
        self._timeout = timeout
        self._flags = listing_flags() | TREE_FOLLOW
        self._first_flags = TREE_DEEP | (TREE_TOP | TREE_FOLLOW_TOP if followlinks else 0)
        if isinstance(path, bytes):
            self._flags |= TREE_BYTES
        self._asked = 0
        """Requests for directories that have not been answered."""
        self._ahead = 0
        """Directories that were asked for, or are known, and have not been given."""
        self._in_a_row = 0
        self._all_asked = False
        """All that are known have been asked for."""
        self._large: set[_Directory[Name]] = set()
        """Directories that are open because the first step has not told all of them."""
        self._busy = False
        self._lock = RLock()
        self._frames: list[_Directory[Name]] = []
        """Directories that are being gone through, each in the one before."""
        self._open: list[_Directory[Name]] = []
        """Of them, those in which something may be left: in a deep tree these are few."""
        self._next: _Directory[Name] | None = _Directory(path, None, path, 0)
        self._ask(self._next)
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
            directory = await self._find_next()
            if directory is not None:
                await self._let_others_run()
                return directory.path, directory.dirs, directory.nondirs
        except BaseException:
            self._end()
            raise
        finally:
            self._busy = False
        raise StopAsyncIteration

    async def _find_next(self) -> _Directory[Name] | None:
        while True:
            with self._lock:
                directory = self._take_next()
            if directory is None:
                if not self._frames:
                    return None
                directory = self._frames.pop()
                if self._topdown:
                    continue
                return directory
            try:
                await self._complete(directory)
            except OSError as error:
                if not await self._is_link(directory, error) and self._onerror is not None:
                    self._onerror(error)
                continue
            with self._lock:
                self._frames.append(directory)
                self._open.append(directory)
                self._all_asked = self._all_asked and not directory.dirs
                self._look_ahead()
            if self._topdown:
                return directory

    async def _let_others_run(self) -> None:
        if self._in_a_row == GIVEN_IN_A_ROW:
            await between_calls(aio_nop, pri=self._pri, pool=self._pool)
            self._in_a_row = 0
        self._in_a_row += 1

    def _end(self) -> None:
        """As a generator ends with an exception; what is still to come is dropped."""
        with self._lock:
            self._next = None
            self._frames.clear()
            self._open.clear()

    # -- what comes next --------------------------------------------------------------------------

    def _take_next(self) -> _Directory[Name] | None:
        """The next one in the directory that is being gone through; None at its end."""
        directory, self._next = self._next, None
        while directory is None and self._frames:
            frame = self._frames[-1]
            if frame.position == 0:
                self._forget_missing(frame)
            at = frame.position
            frame.position += 1
            if frame.position >= len(frame.dirs) and self._open and self._open[-1] is frame:
                self._open.pop()
            if at >= len(frame.dirs):
                return None
            name = frame.dirs[at]
            if self._goes_into(frame, name):
                directory = frame.ahead.pop(name, None) or self._child(frame, name)
        return directory

    def _forget_missing(self, frame: _Directory[Name]) -> None:
        """Names that were taken out make room for what comes next."""
        names = frame.ahead.keys() - set(frame.dirs) if frame.ahead else ()
        missing = [frame.ahead.pop(name) for name in names]
        while missing:
            directory = missing.pop()
            directory.wanted = False
            self._large.discard(directory)
            if directory.request is not None or directory.value is not None:
                self._ahead -= 1
            missing += directory.ahead.values()

    def _goes_into(self, directory: _Directory[Name], name: Name) -> bool:
        return self._followlinks or name not in directory.links

    def _child(self, directory: _Directory[Name], name: Name) -> _Directory[Name]:
        path = os.path.join(directory.path, name)
        if directory.keeps and directory.value[0] is not None:
            return _Directory(path, directory.value[0], name, 1)
        return _Directory(
            path, directory.anchor, os.path.join(directory.way, name), directory.level + 1
        )

    def _look_ahead(self) -> None:
        """Ask for what comes next, until enough is asked for; with half as much, do not look."""
        if self._all_asked or self._ahead > AHEAD // 2 or self._asked > MOST_ASKED // 2:
            return
        for directory in self._upcoming():
            if directory.asks == 0 and directory.value is None:
                self._ask(directory)
                if self._ahead >= AHEAD or self._asked >= MOST_ASKED:
                    return
        self._all_asked = True

    def _upcoming(self) -> Iterator[_Directory[Name]]:
        """Directories in the order in which they will be given, as far as they are known."""
        for frame in reversed(self._open):
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

    def _ask(self, directory: _Directory[Name]) -> None:
        way = os.fsencode(directory.way)
        # Only the top has no anchor: it is looked up as any other path.
        flags = TREE_TOP | TREE_FOLLOW_TOP if directory.anchor is None else 0
        if flags or directory.level >= LEVELS_OF_AN_ANCHOR or len(way) > LONGEST_WAY:
            flags |= TREE_KEEP
            directory.keeps = True
        self._asked += 1
        self._ahead += 1
        directory.asks += 1
        directory.request = self._request(
            _list,
            directory.anchor,
            way,
            self._flags | self._first_flags | flags,
            callback=partial(_answered, weakref.ref(self), directory, directory.asks),
        )

    def _request(self, function: Callable[..., Request[Any]], *args: Any, **more: Any) -> Any:
        more.update(pri=self._pri, timeout=self._timeout, pool=self._pool)
        return between_calls(function, *args, **more)

    def _listed(self, directory: _Directory[Name], number: int, value: Any) -> None:
        """The first step has arrived; those in it can be asked for, too."""
        with self._lock:
            if directory.answers == number:
                return
            directory.answers = number
            self._asked -= 1
            if value is None or not directory.wanted:
                return
            if value[0] is not None and not directory.keeps:
                if len(self._large) >= MOST_HELD and not directory.needed:
                    directory.request = None  # it is asked for again in its turn
                    self._ahead -= 1
                    return
                self._large.add(directory)
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
        with self._lock:
            directory.needed = True
        if directory.value is None and directory.request is not None:
            await self._answer_ahead(directory)
        if directory.value is None:
            with self._lock:
                self._ask(directory)
            await self._answer_of(directory)
        with self._lock:
            self._ahead -= 1
        value = directory.value
        if value[6] is not None or value[5]:
            try:
                await self._complete_large(directory, value)
            finally:
                with self._lock:
                    self._large.discard(directory)
            if not directory.keeps:
                directory.value = KNOWN

    async def _answer_ahead(self, directory: _Directory[Name]) -> None:
        """Of a request that was made ahead; after a shortage it is made again."""
        try:
            await self._answer_of(directory)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise

    async def _answer_of(self, directory: _Directory[Name]) -> None:
        request = directory.request
        assert request is not None
        if request.state != "done":
            self._in_a_row = 0
        try:
            value = await request
        except OSError as error:
            with self._lock:
                self._listed(directory, directory.asks, None)
                self._ahead -= 1
            raise type(error)(error.errno, error.strerror, directory.path) from None
        self._listed(
            directory, directory.asks, value
        )  # its callback may be at work in another thread
        directory.request = None

    async def _is_link(self, directory: _Directory[Name], error: OSError) -> bool:
        """Whether it could not be listed because it is a symlink: that is no error."""
        if error.errno != errno.ENOTDIR or self._followlinks or directory.anchor is None:
            return False
        way, anchor = directory.way, directory.anchor
        try:
            st = await self._request(aio_lstat, way, dir_fd=anchor)
        except OSError:
            return False
        return stat.S_ISLNK(st.st_mode)

    async def _complete_large(self, directory: _Directory[Name], value: Any) -> None:
        handle = value[0]
        unknown = value[5]
        try:
            while value[6] is not None:
                step = handle, None, self._flags, value[6], LARGE_STEP
                value = await self._request(_list, *step)
                self._take(directory, value)
                unknown += value[5]
            await self._find_types(directory, handle, unknown)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, directory.path) from None

    async def _find_types(
        self, directory: _Directory[Name], handle: FileHandle, unknown: list[Name]
    ) -> None:
        asked: deque[tuple[list[Name], Request[bytes]]] = deque()
        for first in range(0, len(unknown), TYPES_AT_A_TIME):
            if len(asked) == MOST_ASKED:
                self._take_types(directory, *await _first_of(asked))
            names = unknown[first : first + TYPES_AT_A_TIME]
            asked.append((names, self._request(_types, handle, pack_names(names), self._flags)))
        while asked:
            self._take_types(directory, *await _first_of(asked))

    @staticmethod
    def _take_types(directory: _Directory[Name], names: list[Name], types: bytes) -> None:
        kinds = list(zip(names, unpack_types(types), strict=True))
        directory.dirs += [name for name, kind in kinds if kind in {DT_DIR, DT_DIR_LINK}]
        directory.nondirs += [name for name, kind in kinds if kind not in {DT_DIR, DT_DIR_LINK}]
        directory.links |= {name for name, kind in kinds if kind == DT_DIR_LINK}


async def _first_of(
    asked: deque[tuple[list[Name], Request[bytes]]],
) -> tuple[list[Name], bytes]:
    names, request = asked.popleft()
    return names, await request


def _answered(
    walk: weakref.ref[aio_walk[Any]], directory: _Directory[Any], number: int, value: Any
) -> None:
    """What a walk has asked for that may have been given up."""
    asker = walk()
    if asker is not None:
        asker._listed(directory, number, value)  # noqa: SLF001 - ours
