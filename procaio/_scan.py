"""
The engine of `procaio scan`: walks trees with many requests in flight and adds up what it meets.

Each directory is listed by one aio_readdirx, each entry looked at by one aio_lstat. Callbacks only
count and remember; `run` makes the next requests whenever some have ended. Memory is bounded by
the size of the largest directories, not of the tree: entries of a listed directory go first, and
unlisted directories are a stack, so that the walk goes down before it goes on.

All paths are bytes. Not here: arguments, printing, progress (`_cli`), which reads the attributes
of a `Scan` while it runs.
"""

from __future__ import annotations

import bisect
import os
import stat
import time
from errno import ECANCELED, ENOENT, ENOTDIR, ESRCH
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, final

from procaio._constants import READDIR_STAT_ORDER
from procaio._core import aio_lstat, aio_readdirx, errno
from procaio._pool import DEFAULT_WORKERS, Pool

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Failure", "Largest", "Scan", "outermost"]

IN_FLIGHT: Final = 512
"""Requests made ahead: enough that no worker waits for the program."""
LISTINGS: Final = 64
"""Directories that are being listed at a time; the names of so many are in memory."""
UNLISTED: Final = 4096
"""With more directories than this waiting, they go before further entries."""
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
        items = self._items
        bisect.insort(items, (-size, path))
        if len(items) > self._limit:
            items.pop()
        if len(items) == self._limit:
            self.floor = -items[-1][0]

    def descending(self) -> list[tuple[int, bytes]]:
        """(size, path), the largest first."""
        return [(-negated, path) for negated, path in self._items]


@final
class _Directory:
    """A directory that has been met and whose size is not known yet."""

    __slots__ = ("bytes", "parent", "path", "waiting")

    def __init__(self, parent: _Directory | None, path: bytes) -> None:
        self.parent = parent
        self.path = path
        self.bytes = 0
        """Of the files met so far, here and below."""
        self.waiting = 0
        """Entries that have not been looked at, and directories that are not complete."""


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
        self.current = b""
        """The directory that was taken up last."""
        self.complete = False

        self._workers = workers
        self._pool: Pool
        self._began = self._ended = 0.0
        self._names_left: dict[tuple[int, int], int] = {}
        self._listing = 0
        self._unlisted: list[_Directory] = []
        self._listed: list[tuple[_Directory, bytes, list[bytes]]] = []
        self._top = _Directory(None, b"")
        paths = list(paths)
        stats = {path: _stat_root(path) for path in paths}
        self._roots = [(path, stats[path]) for path in outermost(paths)]

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
        self._began = time.monotonic()
        self._pool = Pool(self._workers)
        try:
            self._walk()
        finally:
            self._ended = time.monotonic()
            self._pool._close(PATIENCE)  # noqa: SLF001 - ours

    def _walk(self) -> None:
        top = self._top
        top.waiting = len(self._roots)
        for path, st in self._roots:
            self._on_stat(top, path, b"", st)
        self._submit()
        while self._pool.poll():
            self._submit()
        assert top.waiting == 0, "every request was answered"
        self.complete = True

    # -- requests ---------------------------------------------------------------------------------

    def _submit(self) -> None:
        room = IN_FLIGHT - self._pool.nreqs()
        while room > 0:
            if self._listed and len(self._unlisted) < UNLISTED:
                room -= self._look_at_entries(room)
            elif self._unlisted and self._listing < LISTINGS:
                self._list(self._unlisted.pop())
                room -= 1
            elif self._listed:
                room -= self._look_at_entries(room)
            else:
                return

    def _list(self, directory: _Directory) -> None:
        self.current = directory.path
        self._listing += 1
        aio_readdirx(
            directory.path, READDIR_STAT_ORDER, partial(self._on_list, directory), pool=self._pool
        )

    def _look_at_entries(self, most: int) -> int:
        """Of the directory that was listed last; returns how many."""
        directory, prefix, names = self._listed[-1]
        some = names[-most:]
        del names[-most:]
        if not names:
            self._listed.pop()
        pool, on_stat = self._pool, self._on_stat
        for name in some:
            aio_lstat(prefix + name, partial(on_stat, directory, prefix, name), pool=pool)
        return len(some)

    # -- callbacks --------------------------------------------------------------------------------

    def _on_list(self, directory: _Directory, names: list[bytes] | None, _flags: int) -> None:
        self._listing -= 1
        if names is None:
            self._fail(directory.path)
        elif names:
            names.reverse()  # taken from the end, and the order of inodes is the quickest
            directory.waiting = len(names)
            self._listed.append((directory, os.path.join(directory.path, b""), names))
            return
        self._complete(directory)

    def _on_stat(
        self, directory: _Directory, prefix: bytes, name: bytes, st: os.stat_result | None
    ) -> None:
        if st is None:
            self._fail(prefix + name)
        elif st.st_mode & 0o170000 == stat.S_IFDIR:
            self.dirs += 1
            self.blocks += st.st_blocks
            self._unlisted.append(_Directory(directory, prefix + name))
            return
        else:
            self.files += 1
            if st.st_nlink > 1 and self._counted_before(st):
                self.hard_links += 1
            else:
                size = st.st_size
                self.bytes += size
                self.blocks += st.st_blocks
                directory.bytes += size
                if size >= self.largest_files.floor:
                    self.largest_files.add(size, prefix + name)
        directory.waiting -= 1
        if not directory.waiting:
            self._complete(directory)

    def _counted_before(self, st: os.stat_result) -> bool:
        """Whether a file with several names was met before; forgotten with the last name."""
        key = st.st_dev, st.st_ino
        names_left = self._names_left.pop(key, 0)
        if names_left != 1:
            self._names_left[key] = (names_left or st.st_nlink) - 1
        return names_left > 0

    def _complete(self, directory: _Directory) -> None:
        """All below is known: tell the parent, which may be complete by that."""
        while directory.parent is not None and not directory.waiting:
            if directory.bytes >= self.largest_dirs.floor:
                self.largest_dirs.add(directory.bytes, directory.path)
            parent = directory.parent
            parent.bytes += directory.bytes
            parent.waiting -= 1
            directory = parent

    def _fail(self, path: bytes) -> None:
        number = errno()
        if number in VANISHED:
            self.vanished += 1
        elif number != ECANCELED:  # abandoned: it did not fail
            self.failed += 1
            if len(self.failures) < FAILURES_KEPT:
                self.failures.append(Failure(path, number))


def outermost(paths: Iterable[bytes]) -> list[bytes]:
    """
    The paths less those that are inside another one, or are another one by another name.

    What a scan of the others meets anyway would be counted twice.
    """
    real = sorted((_place(path).split(b"/"), path) for path in paths)
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
