"""
What is done to whole trees: the frame that composite requests share, aio_scandir and aio_rmtree.

A composite request is a Group. Its members are steps, each done by one worker for one directory or
a part of it (workers/calls_tree.c), and made by the callbacks of those before them: with the
group's priority, in its pool, and never more than MOST_MEMBERS at a time. What has still to be done
is a stack, so that a tree is gone through in depth: what is remembered grows with the depth of the
tree and the largest directory's step, not with the tree.

A directory is found from an anchor: the descriptor of a directory above it. There is one for every
so many levels, so that a tree of any depth takes few descriptors, and no path is longer than the
system allows. Anchors are closed when the last directory that is found from them is forgotten.

Not here: copying (`_copytree`), the async iterator (`_walk`).
"""

from __future__ import annotations

import errno as _errno
import os
import resource
import weakref
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeAlias, final

from procaio._core import (
    TREE_BYTES,
    TREE_FOLLOW_TOP,
    TREE_HIDE_TYPES,
    TREE_KEEP,
    TREE_ONLY_SELF,
    TREE_SEEK,
    TREE_STAYS,
    TREE_TOP,
    TREE_UNREAD,
    FileHandle,
    _composite,
    _empty,
    _list,
    _types,
    _worker_died,
    aioreq_pri,
)
from procaio._core import errno as _number
from procaio._lock import RLock
from procaio._pool import default_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from procaio._core import Group
    from procaio._pool import Pool

    StrOrBytesPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Name: TypeAlias = bytes
    Failure: TypeAlias = tuple[bytes, int]
    TreePath: TypeAlias = StrOrBytesPath | tuple[Any, StrOrBytesPath]

__all__ = [
    "Place",
    "TreeJob",
    "TreeProgress",
    "aio_rmtree",
    "aio_scandir",
    "between_calls",
    "check_dir_fd",
    "errno",
    "is_unknown",
    "listing_flags",
    "pack_names",
    "parts",
    "unpack_types",
]

MOST_MEMBERS: Final = 256
"""Members of a composite request at a time, whatever the number of workers."""
LEVELS_OF_AN_ANCHOR: Final = 64
LONGEST_WAY: Final = 1024
"""Bytes of a way from an anchor; one more name fits in any case."""
FAILURES_KEPT: Final = 10_000
"""Failures beyond this number are counted, not remembered."""
TRIES: Final = 3
"""How often a directory is read again in which something is left, though nothing was found."""
MOST_PASSES: Final = 1000
"""How often it is read if each time something was found: others may fill it for ever."""
MOST_HELD: Final = 16
"""With more large directories open than this, reading goes on when what was found is gone."""
LARGE_STEP: Final = 1 << 20
"""Bytes of records in further steps of a directory."""
TYPES_AT_A_TIME: Final = 32
"""Names whose types one request finds out."""
DEFAULT_MAXREQ: Final = 4
PLENTY: Final = 65536
"""With such a limit of descriptors nobody counts those that are open."""
SPARE: Final = 12
"""Descriptors that are left to the pool, for workers to come, and to the program."""
NO_ROOM: Final = frozenset({_errno.EMFILE, _errno.ENFILE, _errno.ENOMEM})
"""Shortages that end when other members do."""

hide_types = False
"""Tests: let no directory tell the types of its entries."""


def listing_flags() -> int:
    """What every listing is asked for."""
    return TREE_HIDE_TYPES if hide_types else 0


def pack_names(names: Iterable[str | bytes]) -> bytes:
    """As _types takes them: a byte for its type before each, a NUL behind it."""
    return b"".join(b"?%b\0" % os.fsencode(name) for name in names)


def unpack_types(found: bytes) -> list[int]:
    """The types of the names, from what _types gives."""
    return [name[0] for name in found.split(b"\0")[:-1]]


class _Unknown(int):
    """The errno of a step over which workers have died. What fails with it raises WorkerDied."""


_UNKNOWN: Final = _Unknown(_errno.EIO)


def errno() -> int:
    """That of the step whose callback is running."""
    return _UNKNOWN if _worker_died() else _number()


def is_unknown(number: int) -> bool:
    """Whether workers have died: the step may have been done."""
    return isinstance(number, _Unknown)


@final
class TreeProgress:
    """
    How far a request on a tree has come: its attribute `progress`, true at any time.

    After a failure or a cancel it tells what was done.
    """

    def __init__(self, group: Group, place: Place) -> None:
        """Nothing yet, and the top is taken up."""
        group.progress = self
        self._group = weakref.ref(group)
        self.files = 0
        """Names of anything but directories that were copied or removed."""
        self.dirs = 0
        """Directories that are complete."""
        self._bytes = 0
        self.failed = 0
        self.failures: list[Failure] = []
        """(path, errno) of what could not be copied or removed; the first ones of `failed`."""
        self._way = place.names

    @property
    def bytes(self) -> int:
        """Bytes of the files that were copied, and of those that are being copied."""
        group = self._group()
        return self._bytes + sum(request.copied for request in group or ())

    def add_bytes(self, size: int) -> None:
        """Count those of a file that is complete."""
        self._bytes += size

    @property
    def current(self) -> Name:
        """The directory that was taken up last."""
        return path_of(self._way)

    def take_up(self, place: Place) -> None:
        """Make it the current one."""
        self._way = place.names

    def fail(self, path: Name, number: int) -> None:
        """Count a failure, and remember it if it is among the first."""
        self.failed += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append((path, number))


Names: TypeAlias = "tuple[Names | None, bytes]"
"""What a directory is called, and before that, where it is; it keeps nothing open."""


def parts_of(names: Names) -> tuple[bytes, list[bytes]]:
    """What the top is called, and the names from the directory up to that."""
    parts = []
    above, name = names
    while above is not None:
        parts.append(name)
        above, name = above
    return name, parts


def path_of(names: Names) -> bytes:
    """As the caller would write it."""
    top, parts = parts_of(names)
    return os.path.join(top, b"/".join(reversed(parts))) if parts else top


def ways_of(names: Names) -> list[bytes]:
    """
    How a directory is found from the top of its tree: ways for one step each.

    The last one begins at the top, each of the others where the one behind it ends.
    """
    _, parts = parts_of(names)
    ways: list[bytes] = []
    while parts:
        way, level = parts.pop(), 1
        while parts and level < LEVELS_OF_AN_ANCHOR and len(way) <= LONGEST_WAY:
            way, level = way + b"/" + parts.pop(), level + 1
        ways.append(way)
    return ways[::-1]


@final
class Place:
    """Where a directory is: the way to it from an anchor, and its path for people."""

    __slots__ = ("anchor", "by_path", "is_top", "level", "names", "way")

    def __init__(
        self, above: Place | None, name: bytes, anchor: FileHandle | int | None, level: int
    ) -> None:
        """The top has none above it, and its name is its path; others are found by `beneath`."""
        self.is_top = self.by_path = above is None
        """Looked up as any path, not beneath its anchor."""
        self.names: Names = (above.names if above else None, name)
        self.anchor = anchor
        self.level = level
        """How far below its anchor."""
        self.way = name

    def home(self, handle: FileHandle | None) -> tuple[FileHandle | int | None, bytes]:
        """Anchor and way of this directory itself; `handle`: it is open, and an anchor."""
        return (self.anchor, self.way) if handle is None else (handle, b"")

    def beneath(self, name: bytes, handle: FileHandle | None) -> Place:
        """A directory in this one. `handle`: this one's own, which becomes the anchor."""
        if handle is not None:
            return Place(self, name, handle, 1)
        child = Place(self, name, self.anchor, self.level + 1)
        child.way = self.way + b"/" + name
        return child

    def settle(self, handle: FileHandle, name: bytes) -> None:
        """Be looked for in this directory from now on, whatever becomes of its path."""
        self.anchor = handle
        self.way = name
        self.by_path = False

    def must_be_anchor(self) -> bool:
        """Whether what is in it should be found from itself."""
        return self.is_top or self.level >= LEVELS_OF_AN_ANCHOR or len(self.way) > LONGEST_WAY

    def flags(self) -> int:
        """What every step in this directory is told."""
        top = TREE_TOP if self.by_path else 0
        return top | (TREE_KEEP if self.must_be_anchor() else 0) | TREE_BYTES

    def path(self) -> bytes:
        """As the caller would write it."""
        return path_of(self.names)


def between_calls(function: Callable[..., Any], *arguments: object, **more: Any) -> Any:
    """Make a request that the program knows nothing of: what it has told aioreq_pri stays."""
    pending = aioreq_pri()
    request = function(*arguments, **more)
    aioreq_pri(pending)
    return request


def parts(most: int, each: int) -> int:
    """
    In how many places of a tree to be at work at a time.

    Fewer if few files may be opened: `each` takes as many descriptors.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= PLENTY:
        return most
    try:
        left = limit - len(os.listdir("/proc/self/fd")) - SPARE
    except OSError:  # none at all
        left = 0
    return min(most, max(1, left // each))


class TreeJob:
    """
    A composite request at work: `group` is what the caller holds.

    A stack of steps that have not begun; `advance` makes as many of them members as there may be.
    Callbacks run in any thread that polls, and several may: the job is one thread's at a time. The
    group does not end before `end`; until then it has failed with ECANCELED, should all members be
    taken from it.
    """

    def __init__(
        self,
        callback: Callable[..., object] | None,
        pri: int | None,
        pool: Pool | None,
        path: object,
        *,
        timeout: float | None,
        most: int = 0,
        failed: object = -1,
    ) -> None:
        """
        Make the group. Whatever is wrong with other arguments must have been raised before.

        `path` is what errors name. `failed`: what the callback gets if it fails and no step says
        so.
        """
        self._path = path_given(path)
        self.pool = default_pool() if pool is None else pool
        self.group: Group = _composite(callback, pri=pri, timeout=timeout, pool=self.pool)
        self._when_failed = failed
        self._lock = RLock()
        self._yield(failed, _errno.ECANCELED)
        self._pri = self.group.pri
        self._limit = most or parts(min(MOST_MEMBERS, max(16, 4 * self.pool.min_parallel())), 4)
        self._most = self._limit
        """Members at a time: less than the limit after a shortage, until steps succeed again."""
        self._members = 0
        self._steps: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._over = False

    def ask(
        self,
        function: Callable[..., Any],
        *arguments: object,
        then: Callable[..., None],
        **more: Any,
    ) -> None:
        """Make a request that is a member; `then` gets what its callback does."""
        answered = partial(self._answered, then)
        more |= {"pri": self._pri, "pool": self.pool}
        try:
            request = between_calls(function, *arguments, answered, **more)
        except ValueError as error:  # the directory that the caller has given is closed
            raise OSError(_errno.EBADF, os.strerror(_errno.EBADF)) from error
        self._members += 1
        self.group.add(request)

    def later(self, step: Callable[..., None], *arguments: object) -> None:
        """
        Do a step, a method of the job, when it is its turn: the last one first.

        The job is not kept by its own steps: when nobody waits for them any more they go with it.
        """
        self._steps.append((step.__func__, arguments))  # type: ignore[attr-defined]

    def advance(self) -> None:
        """Take steps while there is room for members."""
        steps = self._steps
        while steps and self._members < self._most and not self._over:
            step, arguments = steps.pop()
            step(self, *arguments)

    def start(self, step: Callable[..., None], *arguments: object) -> None:
        """Do the first step."""
        self._do(step, *arguments)

    def _answered(self, then: Callable[..., None], value: object) -> None:
        with self._lock:
            self._members -= 1
            if self._over:
                return
            if errno() == _errno.ECANCELED:  # the pool is being closed: nothing more is done
                self.end(self._when_failed, _errno.ECANCELED)
                return
            if self._most < self._limit and errno() == 0:
                self._most += 1
            self._do(then, value)

    def _do(self, step: Callable[..., None], *arguments: object) -> None:
        """Take a step, and those that can be made then. Whatever goes wrong, the group ends."""
        with self._lock:
            try:
                step(*arguments)
                self.advance()
            except OSError as error:  # a request could not be made
                self.end(self._when_failed, error.errno or _errno.EIO)
            except BaseException:
                self.end(self._when_failed, _errno.EIO)
                raise

    def put_off(self, number: int, step: Callable[..., None], *arguments: object) -> bool:
        """After a shortage: take the step again when others have ended. False: there are none."""
        if number not in NO_ROOM or self._members == 0:
            return False
        self._most = self._members
        self._steps.insert(0, (step.__func__, arguments))  # type: ignore[attr-defined]
        return True

    def end(self, result: object, number: int = 0, *paths: object) -> None:
        """
        Let the group yield `result`, or fail with `number`.

        `paths` are what the error names, if not what the caller has given.
        """
        if self._over:
            return
        self._over = True
        self._steps.clear()
        self._yield(result, number)
        self.group._end(number, is_unknown(number), *(paths or (self._path,)))  # noqa: SLF001 - ours

    def _yield(self, result: object, number: int) -> None:
        self.group.result(*(result if isinstance(result, tuple) else (result,)))
        self.group.errno(number)


def path_given(path: Any) -> Any:
    """What errors name: of a directory and a path in it, the path."""
    return path[1] if isinstance(path, tuple) else path


def place_of(path: Any, dir_fd: Any) -> Place:
    """Where the top of a tree is; what is wrong with the arguments is raised here."""
    if isinstance(path, tuple) and len(path) == 2 and dir_fd is None:
        dir_fd, path = path
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null byte in the path")
    check_dir_fd(dir_fd)
    return Place(None, name.rstrip(b"/") or name[:1], dir_fd, 0)


def check_dir_fd(dir_fd: Any) -> None:
    """Raise what is wrong with it."""
    if dir_fd is None:
        return
    number = dir_fd if isinstance(dir_fd, int) else _fileno(dir_fd)
    if not -(2**31) <= number < 2**31:
        raise ValueError(f"dir_fd is out of range: {dir_fd!r}")


def _fileno(directory: Any) -> int:
    fileno = getattr(directory, "fileno", None)
    if not callable(fileno):
        raise TypeError(f"dir_fd must be a descriptor, not {type(directory).__name__}")
    number: int = fileno()
    if number < 0:
        raise ValueError(f"dir_fd is closed: {directory!r}")
    return number


# -- scandir --------------------------------------------------------------------------------------


def aio_scandir(
    path: TreePath,
    maxreq: SupportsIndex | Callable[..., object] = 0,
    callback: Callable[..., object] | None = None,
    *,
    dir_fd: Any = None,
    pri: int | None = None,
    timeout: float | None = None,
    pool: Pool | None = None,
) -> Group:
    """
    List a directory in two: the names of its directories, and of everything else.

    Yields (dirs, nondirs), which the callback gets as two arguments; (None, None) on failure. Names
    are str or bytes like the path, without . and .., in no order. Symlinks are no directories,
    wherever they lead.

    Where the file system tells no types the entries are looked at, likely directories first, by
    appending "/." to their names, and no more of them than there can be directories by the link
    count. `maxreq` requests do so at a time (0 or less: 4). (IO::AIO aio_scandir)
    """
    if callable(maxreq):
        if callback is not None:
            raise TypeError("aio_scandir() got several values for 'callback'")
        callback, maxreq = maxreq, 0
    place = place_of(path, dir_fd)
    job = _Listing(path, index(maxreq), callback, pri, pool, timeout=timeout)
    job.start(job.begin, place, os.fspath(path_given(path)))
    return job.group


@final
class _Listing(TreeJob):
    def __init__(
        self,
        path: TreePath,
        maxreq: int,
        callback: Callable[..., object] | None,
        pri: int | None,
        pool: Pool | None,
        *,
        timeout: float | None,
    ) -> None:
        most = maxreq if maxreq > 0 else DEFAULT_MAXREQ
        most = min(most, MOST_MEMBERS)
        super().__init__(callback, pri, pool, path, timeout=timeout, most=most, failed=(None, None))
        self._flags = listing_flags()
        self._dirs: list[Any] = []
        self._nondirs: list[Any] = []

    def begin(self, place: Place, path: str | bytes) -> None:
        if isinstance(path, bytes):
            self._flags |= TREE_BYTES
        flags = self._flags | TREE_TOP | TREE_FOLLOW_TOP
        self.ask(_list, place.anchor, path, flags, then=self._listed)

    def _listed(self, value: Any, handle: FileHandle | None = None) -> None:
        if value is None:
            self.end((None, None), errno())
            return
        opened, _, dirs, nondirs, _, unknown, rest, *_ = value
        handle = opened or handle
        self._dirs += dirs
        self._nondirs += nondirs
        for first in range(0, len(unknown), TYPES_AT_A_TIME):
            names = unknown[first : first + TYPES_AT_A_TIME]
            self.later(self._find_types, handle, names)
        if rest is not None:
            then = partial(self._listed, handle=handle)
            self.ask(_list, handle, None, self._flags, rest, LARGE_STEP, then=then)
        self.advance()
        self._end_if_complete()

    def _find_types(self, handle: FileHandle, names: list[Any]) -> None:
        self.ask(_types, handle, pack_names(names), 0, then=partial(self._found, names))

    def _found(self, names: list[Any], types: bytes | None) -> None:
        if types is None:
            self.end((None, None), errno())
            return
        for name, kind in zip(names, unpack_types(types), strict=True):
            (self._dirs if kind == 4 else self._nondirs).append(name)
        self.advance()
        self._end_if_complete()

    def _end_if_complete(self) -> None:
        if self._members == 0 and not self._steps and not self._over:
            self.end((self._dirs, self._nondirs))


# -- rmtree ---------------------------------------------------------------------------------------


def aio_rmtree(
    path: TreePath,
    callback: Callable[..., object] | None = None,
    *,
    dir_fd: Any = None,
    pri: int | None = None,
    timeout: float | None = None,
    pool: Pool | None = None,
) -> Group:
    """
    Remove a directory and everything in it.

    Yields 0, or -1 to the callback: the status of the last rmdir, of the directory itself. What
    cannot be removed stays, everything else goes; the request's `progress` (a TreeProgress) tells
    how much was removed so far, and which paths could not be.

    Nothing outside the tree is touched: no symlink is followed, whatever others do to the tree at
    the same time. A symlink to a directory fails with ENOTDIR like any other file, and so do "."
    and ".." (EINVAL), which could not be removed in the end. (IO::AIO aio_rmtree)
    """
    place = place_of(path, dir_fd)
    job = _Removal(path, place, callback, pri, pool, timeout=timeout)
    job.start(job.begin)
    return job.group


@final
class _Directory:
    """A directory that is being removed."""

    __slots__ = (
        "again",
        "ended",
        "errno",
        "failed",
        "handle",
        "passes",
        "place",
        "tries",
        "up",
        "waiting",
    )

    def __init__(self, up: _Directory | None, place: Place) -> None:
        self.up = up
        self.place = place
        self.handle: FileHandle | None = None
        """Open as long as there is more to read, or as an anchor."""
        self.waiting = 0
        """Directories in it that are not gone, and a step that reads it."""
        self.ended = False
        """It has been read to its end."""
        self.failed = False
        """Something in it stays."""
        self.errno = 0
        """Why it could not be read."""
        self.again = False
        """It is to be read from its start when what is known of it is gone."""
        self.tries = 0
        """How often it was read since something in it was removed."""
        self.passes = 0
        """How often it was read."""

    def is_held(self) -> bool:
        """Whether it is open for no other reason than that there is more to read."""
        return self.handle is not None and not self.place.must_be_anchor()


@final
class _Removal(TreeJob):
    def __init__(
        self,
        path: TreePath,
        place: Place,
        callback: Callable[..., object] | None,
        pri: int | None,
        pool: Pool | None,
        *,
        timeout: float | None,
    ) -> None:
        super().__init__(callback, pri, pool, path, timeout=timeout)
        self.progress = TreeProgress(self.group, place)
        self._top = _Directory(None, place)
        self._held = 0
        """Directories that are open for no other reason than that there is more to read."""

    def begin(self) -> None:
        place = self._top.place
        above, name = os.path.split(place.way.rstrip(b"/"))
        if name in {b".", b".."}:
            self.end(-1, _errno.EINVAL)
        elif place.way and not name:
            self.end(-1, _errno.EBUSY)  # the root
        elif not name:
            self._stays(self._top, _errno.ENOENT)
        else:
            flags = TREE_TOP | TREE_FOLLOW_TOP | TREE_KEEP | TREE_UNREAD
            then = partial(self._found, name)
            self.ask(_list, place.anchor, above or b".", flags, then=then)

    def _found(self, name: bytes, value: Any) -> None:
        """The directory that the top is in is open."""
        if value is None:
            self._stays(self._top, errno())
        else:
            self._top.place.settle(value[0], name)
            self._open(self._top)

    def _open(self, directory: _Directory) -> None:
        """Begin to empty it; the top, once it is open, whatever becomes of its name."""
        place = directory.place
        directory.ended = directory.again = False
        directory.errno = 0
        directory.passes += 1
        self.progress.take_up(place)
        then = partial(self._emptied, directory)
        if directory.up is not None:
            self.ask(_empty, place.anchor, place.way, place.flags(), then=then)
        elif directory.handle is None:
            self.ask(_empty, place.anchor, place.way, place.flags() | TREE_STAYS, then=then)
        else:
            self.ask(_empty, directory.handle, None, TREE_BYTES | TREE_SEEK, then=then)

    def _go_on(self, directory: _Directory) -> None:
        """Read more of it."""
        then = partial(self._emptied_more, directory)
        self.ask(_empty, directory.handle, None, TREE_BYTES, then=then)

    def _emptied(self, directory: _Directory, value: Any) -> None:
        if value is None:
            self._not_opened(directory, errno())
        elif value[5]:
            self.progress.files += value[1]
            self._gone(directory)
        else:
            directory.handle = value[0] or directory.handle
            self._held += directory.is_held()
            directory.waiting = 1  # this step itself
            self._take(directory, value)

    def _not_opened(self, directory: _Directory, number: int) -> None:
        if self.put_off(number, self._open, directory):
            return
        if number == _errno.ENOENT and directory.up is not None:
            self._gone(directory)
            return
        directory.errno = number
        if number in {_errno.ENOENT, _errno.ENOTDIR}:
            self._stays(directory, number)
        else:  # one that is empty can be removed without being read
            self.later(self._remove, directory)

    def _emptied_more(self, directory: _Directory, value: Any) -> None:
        if value is not None:
            self._take(directory, value)
            return
        number = errno()
        if not self.put_off(number, self._go_on, directory):
            directory.ended = True
            self.progress.fail(directory.place.path(), number)
            directory.failed = True
            self._leave(directory)

    def _take(self, directory: _Directory, value: Any) -> None:
        """What a step that has read some has met."""
        _, removed, names, failures, more, _ = value
        self.progress.files += removed
        for name, number in failures:
            directory.failed = True
            self.progress.fail(os.path.join(directory.place.path(), name), number)
        if removed or names:
            directory.tries = 0
        directory.ended = directory.ended or not more
        if not directory.ended and names and directory.is_held() and self._held > MOST_HELD:
            directory.again = directory.ended = True
        if not directory.ended:
            directory.waiting += 1
            self.later(self._go_on, directory)
        anchor = directory.handle if directory.place.must_be_anchor() else None
        directory.waiting += len(names)
        for name in names:
            self.later(self._open, _Directory(directory, directory.place.beneath(name, anchor)))
        self._leave(directory)

    def _leave(self, directory: _Directory) -> None:
        """One that was waited for is no more."""
        directory.waiting -= 1
        if directory.ended and directory.is_held():
            self._let_go(directory)
        if directory.waiting == 0:
            if directory.up is not None:
                directory.handle = None
            self.later(self._open if directory.again else self._remove, directory)

    def _let_go(self, directory: _Directory) -> None:
        directory.handle = None
        self._held -= 1

    def _remove(self, directory: _Directory) -> None:
        place = directory.place
        flags = place.flags() | TREE_ONLY_SELF
        then = partial(self._removed, directory)
        self.ask(_empty, place.anchor, place.way, flags, directory.handle, then=then)

    def _removed(self, directory: _Directory, value: Any) -> None:
        number = 0 if value is not None else errno()
        if number == 0:
            self._gone(directory)
        elif self.put_off(number, self._remove, directory):
            pass
        elif (
            number == _errno.ENOTEMPTY
            and not (directory.failed or directory.errno)
            and directory.tries < TRIES
            and directory.passes < MOST_PASSES
        ):
            directory.tries += 1
            self.later(self._open, directory)
        else:
            self._stays(directory, number)

    def _stays(self, directory: _Directory, number: int) -> None:
        if directory.errno or not directory.failed:  # else the reason is known already
            self.progress.fail(directory.place.path(), directory.errno or number)
        if directory.up is None:
            self.end(-1, number)
        else:
            directory.up.failed = True
            self._leave(directory.up)

    def _gone(self, directory: _Directory) -> None:
        self.progress.dirs += 1
        if directory.up is None:
            self.end(0)
        else:
            self._leave(directory.up)
