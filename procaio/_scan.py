"""
The engine of `procaio scan`: walks trees with many requests in flight and adds up what it meets.

A request lists a directory and looks at each of its entries, and goes on with directories in it as
long as that is short work (workers/calls_tree.c). Where looking takes long, the entries that are
left become requests of their own. Callbacks count, and make the next requests. Directories that
have not been listed are a stack, so that the walk goes down before it goes on: memory is bounded by
the depth of the tree and its largest directories.

All paths are bytes. Not here: arguments, printing, progress (`_cli_scan`), which reads the
attributes of a `Scan` while it runs.
"""

from __future__ import annotations

import bisect
import os
import stat
import time
from errno import ECANCELED, ENOENT, ENOTDIR, ESRCH
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from procaio._core import (
    TREE_BYTES,
    TREE_DEEP,
    TREE_FOLLOW_TOP,
    TREE_KEEP,
    TREE_STAT,
    FileHandle,
    _list,
    aio_lstat,
    errno,
)
from procaio._pool import DEFAULT_WORKERS, Pool
from procaio._trees import LARGE_STEP, NO_ROOM, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Failure", "Largest", "Scan", "outermost"]

IN_FLIGHT: Final = 64
"""Requests made ahead: enough that no worker waits for the program."""
FLAGS: Final = TREE_BYTES | TREE_DEEP | TREE_STAT
FAILURES_KEPT: Final = 10_000
"""Errors beyond this number are counted, not remembered."""
VANISHED: Final = frozenset({ENOENT, ENOTDIR, ESRCH})
"""What looking at an entry gives that is gone since its directory was listed."""
PATIENCE: Final = 0.2
"""Seconds that an interrupted scan grants to what is in flight."""
BLOCK: Final = 512
"""The unit of st_blocks, whatever the file system's is."""


class Failure(NamedTuple):
    """A path that could not be listed or looked at, and why."""

    path: bytes
    errno: int


@final
class Largest:
    """The `limit` largest of all that was added; of equals, those whose paths sort first."""

    __slots__ = ("_items", "_limit", "floor")

    def __init__(self, limit: int) -> None:
        """Nothing yet."""
        self._items: list[tuple[int, bytes]] = []
        self._limit = limit
        self.floor: float = 0 if limit else float("inf")
        """What is smaller need not be added: it would not stay."""

    def add(self, size: int, path: bytes) -> None:
        """Put it in its place, and drop what is no longer among the largest."""
        items, item = self._items, (-size, path)
        if len(items) == self._limit:
            if item > items[-1]:
                return
            items.pop()
        bisect.insort(items, item)
        if len(items) == self._limit:
            self.floor = -items[-1][0]

    def descending(self) -> list[tuple[int, bytes]]:
        """(size, path), the largest first."""
        return [(-negated, path) for negated, path in self._items]


@final
class _Directory:
    """A directory that has been met and whose size is not known yet."""

    __slots__ = ("bytes", "handle", "parent", "place", "waiting")

    def __init__(self, parent: _Directory | None, place: Place) -> None:
        self.parent = parent
        self.place = place
        self.handle: FileHandle | None = None
        """Kept where it is an anchor."""
        self.bytes = 0
        """Of the files met so far, here and below."""
        self.waiting = 0
        """Steps that read it, entries that have not been looked at, and directories in it that are
        not complete."""


@final
class Scan:
    """
    What is in the trees at `paths`: run() walks them, the attributes tell the result.

    `paths` are files or directories; see `outermost` for those that contain each other. So many of
    the `largest` files and directories are remembered, and the scan's own pool has so many
    `workers` at most.

    The attributes are true at any time: another thread may show them while run() is at work, and
    after an interrupted run() they tell what was counted so far. What could not be looked at is
    neither a file nor a directory; it is in `failures`, or has `vanished` since it was listed.
    """

    def __init__(
        self, paths: Iterable[bytes], *, largest: int = 10, workers: int = DEFAULT_WORKERS
    ) -> None:
        """Raise the OSError if one of the paths does not exist."""
        self.files = 0
        """Names of anything but directories."""
        self.dirs = 0
        self.bytes = 0
        """Sizes of the files, each counted once however many names it has."""
        self.data = 0
        """Of them, those of regular files: what a copy would write."""
        self.blocks = 0
        """What files and directories occupy, in units of BLOCK bytes."""
        self.hard_links = 0
        """Names of files that had been counted under another name."""
        self.vanished = 0
        self.failed = 0
        self.failures: list[Failure] = []
        """The first ones of `failed`."""
        self.largest_files = Largest(largest)
        self.largest_dirs = Largest(largest)
        self.complete = False

        self._workers = workers
        self._pool: Pool
        self._began = self._ended = 0.0
        self._names_left: dict[tuple[int, int], int] = {}
        self._room = IN_FLIGHT
        """Requests at a time: fewer after a shortage of descriptors."""
        self._unlisted: list[_Directory] = []
        self._unseen: list[tuple[_Directory, FileHandle, list[bytes]]] = []
        self._top = self._current = _Directory(None, Place(None, b"", None, 0))
        paths = list(paths)
        stats = {path: _stat_root(path) for path in paths}
        self._roots = [(path, stats[path]) for path in outermost(paths)]

    @property
    def current(self) -> bytes:
        """The directory that was taken up last."""
        return self._current.place.path()

    @property
    def seconds(self) -> float:
        """How long run() took, or has been taking."""
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    @property
    def entries_per_second(self) -> float:
        """Files and directories in a second of run()."""
        seconds = self.seconds
        return (self.files + self.dirs) / seconds if seconds else 0.0

    def run(self) -> None:
        """
        Walk the trees. Once only.

        A KeyboardInterrupt ends it at once, even if the file system hangs: requests that were made
        get a moment to end, then they are abandoned, and `complete` stays False.
        """
        pool = self.begin()
        try:
            while pool.poll():
                self._submit()
            self._finish()
        finally:
            self.end()

    def begin(self) -> Pool:
        """Instead of run(): the program does other things, too, and calls go_on() once, and then
        whenever the pool that it gets here has results.
        """
        self._began = time.monotonic()
        self._pool = Pool(self._workers)
        try:
            self._take_up_roots()
            self._submit()
        except BaseException:
            self.end()
            raise
        return self._pool

    def go_on(self) -> bool:
        """Take the results that are there, without waiting. False: the walk is complete."""
        self._pool.poll_cb()
        self._submit()
        if self._pool.nreqs() == 0:
            self._finish()
        return not self.complete

    def end(self) -> None:
        """Give up what is in flight; to be called once after begin()."""
        self._ended = time.monotonic()
        # Its path is wanted, but no longer the descriptors that lead to it.
        self._current = _Directory(None, Place(None, self.current, None, 0))
        self._unlisted.clear()
        self._unseen.clear()
        self._pool._close(PATIENCE)  # noqa: SLF001 - ours

    def _take_up_roots(self) -> None:
        top = self._top
        top.waiting = len(self._roots)
        for path, st in self._roots:
            counts = (st.st_mode, st.st_nlink, st.st_size, st.st_blocks, st.st_dev, st.st_ino)
            directory = self._count(top, Place(None, path, None, 0), counts)
            if directory is None:
                self._leave(top)
            else:
                self._unlisted.append(directory)

    def _finish(self) -> None:
        assert self._top.waiting == 0, "every request was answered"
        self.complete = True

    # -- requests ---------------------------------------------------------------------------------

    def _submit(self) -> None:
        room = self._room - self._pool.nreqs()
        while room > 0 and (self._unseen or self._unlisted):
            if self._unseen:
                self._look_at_one()
            else:
                self._list(self._unlisted.pop())
            room -= 1

    def _list(self, directory: _Directory) -> None:
        self._current = directory
        directory.waiting = 1  # this step
        place = directory.place
        flags = place.flags() | FLAGS
        if place.is_top:
            flags |= TREE_FOLLOW_TOP
        then = partial(self._on_list, directory, None)
        _list(place.anchor, place.way, flags, callback=then, pool=self._pool)

    def _look_at_one(self) -> None:
        """Of what no listing had the time to look at."""
        directory, handle, names = self._unseen[-1]
        name = names.pop()
        if not names:
            self._unseen.pop()
        then = partial(self._on_stat, directory, name)
        aio_lstat(name, then, dir_fd=handle, pool=self._pool)

    # -- callbacks --------------------------------------------------------------------------------

    def _on_list(self, directory: _Directory, handle: FileHandle | None, value: Any) -> None:
        if value is None:
            if handle is None and errno() in NO_ROOM and self._pool.nreqs() > 0:
                self._room = self._pool.nreqs()
                self._unlisted.insert(0, directory)  # when others have ended
                return
            self._fail(directory.place.path(), errno())
            self._leave(directory)
            return
        self._room = min(self._room + 1, IN_FLIGHT)
        opened, _, dirs, others, _, unseen, rest, _, sections = value
        handle = opened or handle
        if directory.place.must_be_anchor():
            directory.handle = handle
        if rest is not None:
            directory.waiting += 1
            then = partial(self._on_list, directory, handle)
            flags = FLAGS & ~TREE_DEEP | TREE_KEEP
            _list(handle, None, flags, rest, LARGE_STEP, callback=then, pool=self._pool)
        if unseen and handle is not None:
            directory.waiting += len(unseen)
            self._unseen.append((directory, handle, unseen))
        known = {way: (dirs, others) for way, dirs, others, _ in sections}
        self._enter(directory, b"", dirs, others, known)
        self._leave(directory)

    def _enter(
        self,
        directory: _Directory,
        way: bytes,
        dirs: list[Any],
        others: list[Any],
        known: dict[bytes, tuple[list[Any], list[Any]]],
    ) -> None:
        """Count what is in a directory, and in those below that are known by the way to them."""
        stack = [(directory, way, dirs, others)]
        while stack:
            directory, way, dirs, others = stack.pop()
            self._count_files(directory, others)
            for name, *counts in dirs:
                place = directory.place.beneath(name, directory.handle)
                child = self._count(directory, place, counts)
                assert child is not None
                directory.waiting += 1
                below = way + b"/" + name if way else name
                lists = known.get(below)
                if lists is None:
                    self._unlisted.append(child)
                else:
                    child.waiting = 1
                    stack.append((child, below, *lists))
            if way:
                self._leave(directory)

    def _count_files(self, directory: _Directory, entries: list[Any]) -> None:
        size_of_all = data = 0
        floor = self.largest_files.floor
        prefix = None
        for entry in entries:
            if len(entry) == 2:
                self._fail(os.path.join(directory.place.path(), entry[0]), entry[1])
                continue
            name, mode, links, size, blocks, dev, ino = entry
            self.files += 1
            if links > 1 and self._counted_before(dev, ino, links):
                self.hard_links += 1
                continue
            size_of_all += size
            self.blocks += blocks
            if mode & 0o170000 == stat.S_IFREG:
                data += size
            if size >= floor:
                if prefix is None:
                    prefix = os.path.join(directory.place.path(), b"")
                self.largest_files.add(size, prefix + name)
                floor = self.largest_files.floor
        self.bytes += size_of_all
        self.data += data
        directory.bytes += size_of_all

    def _on_stat(self, directory: _Directory, name: bytes, st: os.stat_result | None) -> None:
        if st is None:
            self._fail(os.path.join(directory.place.path(), name), errno())
        else:
            counts = (st.st_mode, st.st_nlink, st.st_size, st.st_blocks, st.st_dev, st.st_ino)
            place = directory.place.beneath(name, directory.handle)
            child = self._count(directory, place, counts)
            if child is not None:
                self._unlisted.append(child)
                return
        self._leave(directory)

    def _count(
        self, directory: _Directory, place: Place, counts: Sequence[int]
    ) -> _Directory | None:
        """Count one entry; give it if it is a directory."""
        mode, _, _, blocks, _, _ = counts
        if mode & 0o170000 == stat.S_IFDIR:
            self.dirs += 1
            self.blocks += blocks
            return _Directory(directory, place)
        self._count_files(directory, [(place.names[1], *counts)])
        return None

    def _counted_before(self, dev: int, ino: int, links: int) -> bool:
        """Whether a file with several names was met before; forgotten with the last name."""
        key = dev, ino
        names_left = self._names_left.pop(key, 0)
        if names_left != 1:
            self._names_left[key] = (names_left or links) - 1
        return names_left > 0

    def _leave(self, directory: _Directory) -> None:
        """One that was waited for is no more; the last one completes it, and perhaps its parent."""
        directory.waiting -= 1
        while directory.parent is not None and not directory.waiting:
            if directory.bytes >= self.largest_dirs.floor:
                self.largest_dirs.add(directory.bytes, directory.place.path())
            parent = directory.parent
            parent.bytes += directory.bytes
            parent.waiting -= 1
            directory = parent

    def _fail(self, path: bytes, number: int) -> None:
        if number in VANISHED:
            self.vanished += 1
        elif number != ECANCELED:  # abandoned: it did not fail
            self.failed += 1
            if len(self.failures) < FAILURES_KEPT:
                self.failures.append(Failure(path, number))


def outermost(paths: Iterable[bytes], place: Callable[[bytes], bytes] | None = None) -> list[bytes]:
    """
    The paths less those that are inside another one, or are another one by another name.

    What a scan of the others meets anyway would be counted twice. `place` gives the absolute path
    without symlinks; without it the last one is followed if it leads to a directory.
    """
    real = sorted(((place or _place)(path).split(b"/"), path) for path in paths)
    kept = real[:1]
    for parts, path in real[1:]:
        outer = kept[-1][0]
        if parts[: len(outer)] != outer:
            kept.append((parts, path))
    return [path for _, path in kept]


def _place(path: bytes) -> bytes:
    """The absolute path without symlinks, but for a last one that does not lead to a directory."""
    if os.path.islink(path) and not os.path.isdir(path):
        parent, name = os.path.split(path)
        path = os.path.join(os.path.realpath(parent), name)
    else:
        path = os.path.realpath(path)
    return path.rstrip(b"/")


def _stat_root(path: bytes) -> os.stat_result:
    """Follow a symlink to a directory, as os.walk does at its top, and no other."""
    st = os.lstat(path)
    return os.stat(path) if stat.S_ISLNK(st.st_mode) and os.path.isdir(path) else st
