"""
aio_copytree: a directory and everything in it, copied as it is.

Each directory is listed, made, filled and at last given the attributes of its original; each entry
that is no directory is one request, which copies it as a whole or not at all
(workers/calls_copy.c). Files of several names are copied once and linked to their other names.

Not here: the frame, places and anchors (`_trees`).
"""

from __future__ import annotations

import errno as _errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from procaio._core import (
    TREE_BYTES,
    TREE_FOLLOW_TOP,
    TREE_KEEP,
    TREE_MAY_EXIST,
    TREE_UNREAD,
    FileHandle,
    Group,
    _copy_entry,
    _finish_directory,
    _list,
    _make_directory,
    aio_link,
    aio_lstat,
    aio_mkdirs,
    aio_unlink,
)
from procaio._trees import (
    Place,
    TreeJob,
    TreeProgress,
    errno,
    is_unknown,
    listing_flags,
    parts,
    path_given,
    place_of,
    ways_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from procaio._pool import Pool
    from procaio._trees import Names, StrOrBytesPath

__all__ = ["aio_copytree", "copy_entries"]

MOST_BEGUN: Final = 16
"""Originals that are open at a time, with their copies; fewer if the program may open few files."""
MOST_DEATHS: Final = 2
"""So often a link is made again whose worker has died."""
CANNOT_LINK: Final = frozenset({_errno.EMLINK, _errno.EXDEV, _errno.EPERM, _errno.EOPNOTSUPP})
"""What a link fails with that a copy may do without."""


class Pair(NamedTuple):
    """An original directory and its copy, both open."""

    src: FileHandle
    dst: FileHandle


class Inode(NamedTuple):
    """A file, whatever its names are."""

    dev: int
    ino: int


def aio_copytree(
    src: StrOrBytesPath,
    dst: StrOrBytesPath,
    callback: Callable[..., object] | None = None,
    *,
    dirs_exist_ok: bool = False,
    src_dir_fd: Any = None,
    dst_dir_fd: Any = None,
    pri: int | None = None,
    timeout: float | None = None,
    pool: Pool | None = None,
) -> Group:
    """
    Copy a directory with everything in it to `dst`, which is made, with the directories above it.

    Yields 0; -1 to the callback if anything could not be copied: the rest is, and errno and error
    are those of the first failure. Its `progress` (a TreeProgress) tells how much was copied so
    far, and which paths could not be: those of originals, or of what is in the way of a copy.

    Entries are copied as they are, as by `cp -a`: symlinks as symlinks, holes as holes, several
    names of a file as several names; times, permissions and, if the program may, owners are the
    originals'. No file of the copy is ever seen half written under its name after the end. No
    symlink below `src` and `dst` is followed; `src` may be one, and `dst` if it may be there.

    With `dirs_exist_ok` directories may be there already; files in them are replaced. A directory
    is not copied into itself (EINVAL). Cancelled, it leaves what was copied so far, whole files
    only.
    """
    places = place_of(src, src_dir_fd), place_of(dst, dst_dir_fd)
    job = _Copy(
        (src, dst), places, callback, pri, pool, timeout=timeout, may_exist=bool(dirs_exist_ok)
    )
    job.start(job.begin)
    return job.group


def copy_entries(
    src: bytes, dst: bytes, dirs: Iterable[bytes], others: Iterable[bytes], *, pool: Pool
) -> Group:
    """
    aio_copytree for some entries of a directory: into one that is there, and stays as it is.

    Directories may be there already, other entries are replaced.
    """
    places = place_of(src or b".", None), place_of(dst, None)
    if not src:
        places[0].names = (None, b"")  # nobody has called it anything
    job = _Copy((src, dst), places, None, None, pool, timeout=None, may_exist=True)
    job.entries = list(dirs), list(others)
    job.start(job.begin)
    return job.group


@final
class _Directory:
    """A directory on its way to its copy."""

    __slots__ = ("atime_ns", "dst", "is_begun", "is_guess", "own", "pair", "src", "up", "waiting")

    def __init__(
        self, up: _Directory | None, src: Place, dst: Place, *, is_guess: bool = False
    ) -> None:
        self.up = up
        self.src = src
        self.dst = dst
        self.is_guess = is_guess
        """The original may be a file, and only what is in the way of its copy a directory."""
        self.atime_ns = 0
        """Before it was read."""
        self.pair: Pair | None = None
        """Kept where it is an anchor."""
        self.is_begun = False
        """It may be open."""
        self.own = 0
        """Of those in `waiting`, what needs it open: all but directories."""
        self.waiting = 0
        """Entries that are not complete, and steps that read it."""

    def homes(self) -> tuple[Any, ...]:
        """Anchor and way of both."""
        src, dst = self.pair or (None, None)
        return *self.src.home(src), *self.dst.home(dst)


@final
class _Copy(TreeJob):
    def __init__(
        self,
        paths: tuple[StrOrBytesPath, StrOrBytesPath],
        places: tuple[Place, Place],
        callback: Callable[..., object] | None,
        pri: int | None,
        pool: Pool | None,
        *,
        timeout: float | None,
        may_exist: bool,
    ) -> None:
        super().__init__(callback, pri, pool, paths[0], timeout=timeout)
        self._paths = [path_given(path) for path in paths]
        self._top = _Directory(None, *places)
        self._may_exist = may_exist
        self.entries: tuple[list[bytes], list[bytes]] | None = None
        """Directories and others, if not everything in the top is to be copied."""
        self._made_parents = False
        self._most_begun = parts(MOST_BEGUN, 8)
        self._begun = 0
        """Directories that may be open."""
        self._held_back: list[_Directory] = []
        """Directories that would be too many."""
        self._dst_inode: Inode | None = None
        self._copied_to: dict[Inode, _Copied] = {}
        """Files of several names."""
        self.progress = TreeProgress(self.group, places[0])

    def begin(self) -> None:
        self._list(self._top)

    # -- one directory ----------------------------------------------------------------------------

    def _list(self, directory: _Directory) -> None:
        if self._begun >= self._most_begun:
            self._held_back.append(directory)
            return
        directory.is_begun = True
        self._begun += 1
        place = directory.src
        self.progress.take_up(place)
        flags = listing_flags() | place.flags() | TREE_KEEP
        if directory.up is None:
            flags |= TREE_FOLLOW_TOP
            flags |= TREE_UNREAD if self.entries else 0
        then = partial(self._listed, directory)
        self.ask(_list, place.anchor, place.way, flags, then=then)

    def _listed(self, directory: _Directory, value: Any) -> None:
        if value is None:
            self._not_begun(directory, directory.src)
        elif self._dst_inode == Inode(value[1].st_dev, value[1].st_ino):
            self.progress.fail(directory.src.path(), _errno.EINVAL)
            self._over_with(directory)
        else:
            self._make(directory, value)

    def _make(self, directory: _Directory, listing: Any) -> None:
        place = directory.dst
        flags = place.flags() | TREE_KEEP
        if directory.up is not None or self._may_exist:
            flags |= TREE_MAY_EXIST | TREE_FOLLOW_TOP
        # Entries may be copied into a directory beside them.
        not_in = listing[0] if directory.up is None and self.entries is None else None
        then = partial(self._made, directory, listing)
        self.ask(_make_directory, place.anchor, place.way, flags, not_in, then=then)

    def _made(self, directory: _Directory, listing: Any, value: Any) -> None:
        if value is None:
            if errno() == _errno.ENOENT and directory.up is None and not self._made_parents:
                self._make_parents(directory, listing)
            elif errno() == _errno.EINVAL and directory.up is None:  # into itself
                self.end(-1, _errno.EINVAL, *self._paths)
            else:
                self._not_begun(directory, directory.dst)
            return
        if directory.up is None:
            self._dst_inode = Inode(value[1].st_dev, value[1].st_ino)
        directory.atime_ns = listing[1].st_atime_ns
        pair = Pair(listing[0], value[0])
        if directory.src.must_be_anchor() or directory.dst.must_be_anchor():
            directory.pair = pair
        directory.waiting = directory.own = 1  # this step itself
        self._take(directory, pair, listing)

    def _make_parents(self, directory: _Directory, listing: Any) -> None:
        self._made_parents = True
        place = directory.dst

        def made(status: int) -> None:
            if status == 0:
                self._make(directory, listing)
            else:
                self._not_begun(directory, directory.dst)

        above = os.path.dirname(place.way) or b"."
        self.ask(aio_mkdirs, above, 0o777, True, dir_fd=place.anchor, then=made)

    def _not_begun(self, directory: _Directory, place: Place) -> None:
        """It could not be opened here. After a shortage it is begun again, so that nothing of it is
        open meanwhile.
        """
        number = errno()
        self._close(directory)
        if self.put_off(number, self._list, directory):
            return
        if number == _errno.ENOTDIR and directory.is_guess:  # the copy is one, not the original
            self.progress.fail(directory.dst.path(), _errno.EISDIR)
        else:
            self.progress.fail(place.path(), number)
        self._over_with(directory)

    def _go_on(self, directory: _Directory, pair: Pair, offset: int) -> None:
        def listed(value: Any) -> None:
            if value is not None:
                self._take(directory, pair, value)
            elif not self.put_off(errno(), self._go_on, directory, pair, offset):
                self.progress.fail(directory.src.path(), errno())
                self._leave_own(directory)

        self.ask(_list, pair.src, None, listing_flags() | TREE_BYTES, offset, then=listed)

    def _take(self, directory: _Directory, pair: Pair, listing: Any) -> None:
        """What a step has listed: files first, the rest of the directory last."""
        _, _, dirs, others, _, unknown, rest, *_ = listing
        if directory.up is None and self.entries:
            dirs, others = self.entries
        names = others + unknown
        if rest is not None:
            directory.waiting += 1
            directory.own += 1
            self.later(self._go_on, directory, pair, rest)
        for name in dirs:
            self._descend(directory, name)
        if names:
            directory.waiting += len(names)
            directory.own += len(names)
            self.later(self._copy_entries, directory, pair, names)
        self._leave_own(directory)

    def _descend(self, directory: _Directory, name: bytes, *, is_guess: bool = False) -> None:
        src, dst = directory.pair or (None, None)
        places = directory.src.beneath(name, src), directory.dst.beneath(name, dst)
        directory.waiting += 1
        self.later(self._list, _Directory(directory, *places, is_guess=is_guess))

    def _leave_own(self, directory: _Directory) -> None:
        """One that needed it open is no more."""
        directory.own -= 1
        if directory.own == 0:
            self._close(directory)
        self._leave(directory)

    def _close(self, directory: _Directory) -> None:
        """It need not be open, unless others are found from it. One that was held back is begun."""
        if directory.is_begun:
            directory.is_begun = False
            self._begun -= 1
            if self._held_back:
                self.later(self._list, self._held_back.pop())

    def _leave(self, directory: _Directory) -> None:
        """One that was waited for is no more."""
        directory.waiting -= 1
        if directory.waiting == 0:
            self.later(self._finish, directory)

    def _finish(self, directory: _Directory) -> None:
        def finished(status: int) -> None:
            if status != 0 and not self.put_off(errno(), self._finish, directory):
                self.progress.fail(directory.src.path(), errno())
                self._over_with(directory)
            elif status == 0:
                self.progress.dirs += 1
                self._over_with(directory)

        if directory.up is None and self.entries:
            self._over_with(directory)
        else:
            self.ask(_finish_directory, *directory.homes(), directory.atime_ns, then=finished)

    def _over_with(self, directory: _Directory) -> None:
        self._close(directory)
        directory.pair = None
        if directory.up is not None:
            self._leave(directory.up)
        elif self.progress.failures:
            path, number = self.progress.failures[0]
            self.end(-1, number, self._as_given(path))
        else:
            self.end(0)

    def _as_given(self, path: bytes) -> Any:
        """A top as the caller has written it; what is in one is str or bytes like the original."""
        for given, place in zip(self._paths, (self._top.src, self._top.dst), strict=True):
            if place.path() == path:
                return given
        return path if isinstance(os.fspath(self._paths[0]), bytes) else os.fsdecode(path)

    # -- what is no directory ---------------------------------------------------------------------

    def _copy_entries(self, directory: _Directory, pair: Pair, names: list[bytes]) -> None:
        name = names.pop()
        if names:
            self.later(self._copy_entries, directory, pair, names)
        self._copy(directory, pair, name)

    def _copy(self, directory: _Directory, pair: Pair, name: bytes) -> None:
        self._ask_copy(pair, name, True, partial(self._copied, directory, pair, name))

    def _ask_copy(
        self, pair: Pair, name: bytes, tell_links: bool, then: Callable[..., None]
    ) -> None:
        self.ask(
            _copy_entry, name, name, tell_links, src_dir_fd=pair.src, dst_dir_fd=pair.dst, then=then
        )

    def _copied(self, directory: _Directory, pair: Pair, name: bytes, value: Any) -> None:
        if isinstance(value, tuple):
            self._copy_once(directory, pair, name, Inode(*value))
        elif errno() == 0:
            self._done(directory, value)
        elif errno() == _errno.EISDIR:  # nobody has told its type, it has become one, or the copy
            self._descend(directory, name, is_guess=True)
            self._leave_own(directory)
        else:
            self._failed(directory, name, self._copy, directory, pair, name)

    def _done(self, directory: _Directory, size: int) -> None:
        self.progress.files += 1
        self.progress.add_bytes(size)
        self._leave_own(directory)

    def _failed(
        self, directory: _Directory, name: bytes, step: Callable[..., None], *arguments: object
    ) -> None:
        number = errno()
        if not self.put_off(number, step, *arguments):
            self._in_vain(directory, name, number)

    def _in_vain(self, directory: _Directory, name: bytes, number: int) -> None:
        place = directory.dst if number == _errno.EISDIR else directory.src
        self.progress.fail(os.path.join(place.path(), name), number)
        self._leave_own(directory)

    # -- files of several names -------------------------------------------------------------------

    def _copy_once(self, directory: _Directory, pair: Pair, name: bytes, inode: Inode) -> None:
        copied = self._copied_to.get(inode)
        if copied is None:
            self._copied_to[inode] = _Copied(directory.dst.names, name)
            then = partial(self._copied_first, directory, pair, name, inode)
            self._ask_copy(pair, name, False, then)
        elif copied.complete:
            self._link(_Link(directory, pair, name, copied))
        else:  # as a member, so that not too many directories wait with it
            self._members += 1
            copied.waiting.append((directory, pair, name))

    def _copied_first(
        self, directory: _Directory, pair: Pair, name: bytes, inode: Inode, size: int
    ) -> None:
        copied = self._copied_to[inode]
        if errno() != 0:
            del self._copied_to[inode]  # the next one is the first
            self._failed(directory, name, self._copy, directory, pair, name)
        else:
            copied.complete = True
            self._done(directory, size)
        for one in copied.waiting:
            self._members -= 1
            self.later(self._copy, *one)
        copied.waiting.clear()

    def _link(self, link: _Link) -> None:
        directory, pair, _, copied, _ = link
        if copied.names is directory.dst.names:
            self._make_link(link, pair.dst)
        else:
            assert self._top.pair
            found = partial(self._make_link, link)
            fail = partial(self._link_failed, link)
            self._find(self._top.pair.dst, ways_of(copied.names), found, fail)

    def _make_link(self, link: _Link, first: FileHandle) -> None:
        """`first`: where the first name was copied to."""
        to = {"src_dir_fd": first, "dst_dir_fd": link.pair.dst}
        then = partial(self._linked, link, first)
        self.ask(aio_link, link.copied.name, link.name, **to, then=then)

    def _linked(self, link: _Link, first: FileHandle, status: int) -> None:
        directory, pair, name, _, deaths = link
        number = errno()
        if status == 0:
            self._done(directory, 0)
        elif number == _errno.EEXIST and self._may_exist:
            self.ask(aio_unlink, name, dir_fd=pair.dst, then=partial(self._unlinked, link))
        elif number == _errno.EEXIST and deaths:
            self.ask(aio_lstat, name, dir_fd=pair.dst, then=partial(self._looked, link, first))
        elif number in CANNOT_LINK:
            self._ask_copy(pair, name, False, partial(self._copied, directory, pair, name))
        else:
            self._link_failed(link)

    def _unlinked(self, link: _Link, status: int) -> None:
        if status == 0 or errno() == _errno.ENOENT:
            self._link(link)
        else:
            self._link_failed(link)

    def _looked(self, link: _Link, first: FileHandle, there: os.stat_result | None) -> None:
        if there is None:
            self._link_failed(link)
        else:
            then = partial(self._compared, link, Inode(there.st_dev, there.st_ino))
            self.ask(aio_lstat, link.copied.name, dir_fd=first, then=then)

    def _compared(self, link: _Link, there: Inode, st: os.stat_result | None) -> None:
        if st is not None and Inode(st.st_dev, st.st_ino) == there:
            self._done(link.directory, 0)  # by a worker that has died since
        else:
            self._in_vain(link.directory, link.name, errno() or _errno.EEXIST)

    def _link_failed(self, link: _Link) -> None:
        if is_unknown(errno()) and link.deaths < MOST_DEATHS:
            self._link(link._replace(deaths=link.deaths + 1))
        else:
            self._failed(link.directory, link.name, self._link, link)

    def _find(
        self,
        above: FileHandle,
        ways: list[bytes],
        found: Callable[[FileHandle], None],
        fail: Callable[[], None],
    ) -> None:
        """A directory of the copy, from its top: nothing is kept open for that."""
        if ways:
            flags = TREE_KEEP | TREE_UNREAD | TREE_BYTES
            then = partial(self._found, ways, found, fail)
            self.ask(_list, above, ways.pop(), flags, then=then)
        else:
            found(above)

    def _found(
        self,
        ways: list[bytes],
        found: Callable[[FileHandle], None],
        fail: Callable[[], None],
        value: Any,
    ) -> None:
        if value is None:
            fail()
        else:
            self._find(value[0], ways, found, fail)


@final
class _Copied:
    """Where the first name of a file was copied to, and which names wait for that."""

    __slots__ = ("complete", "name", "names", "waiting")

    def __init__(self, names: Names, name: bytes) -> None:
        self.names = names
        """Those of the directory."""
        self.name = name
        self.complete = False
        self.waiting: list[tuple[_Directory, Pair, bytes]] = []


class _Link(NamedTuple):
    """One of the other names."""

    directory: _Directory
    pair: Pair
    name: bytes
    copied: _Copied
    deaths: int = 0
    """Of workers that may have made it."""
