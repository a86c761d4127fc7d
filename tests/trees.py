"""Directory trees for tests: made from descriptions, looked at, as deep or wide as wanted."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import itertools
import os
import stat
import struct
import subprocess
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from hypothesis import strategies as st

import procaio
from conftest import eventually, kill
from copying import holes
from procaio._core import TREE_DEEP, TREE_KEEP
from programs import FILTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")

Shape: TypeAlias = "dict[bytes, Any]"
"""Names and what they are: a Shape for a directory, bytes for what a symlink says, None: a file."""

NAMES = st.sampled_from(
    [b"a", b"b", b"c.d", b".h", b"\xff\xfe", b"x\ny", b" ", b"n" * 255, "\u00e4".encode()]
)
TARGETS = st.sampled_from([b".", b"..", b"a", b"b", b"../a", b"nowhere", b"c.d", b"/"])
SHAPES: st.SearchStrategy[Shape] = st.recursive(
    st.dictionaries(NAMES, st.none() | TARGETS, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.none() | TARGETS | inner, max_size=4),
    max_leaves=12,
)


# One of all that is easily got wrong; its links lead to `outside`, beside it.
ODD: Shape = {
    b"a": {b"b": {b"c": {}, b"file": None}, b"up": b"..", b"out": b"../../outside"},
    b"new\nline": None,
    b"\xff\xfe": {b"\xff": None},
    b"n" * 255: {b"n" * 255: {b"m" * 255: None}},
    b"empty": {},
    b"dangling": b"nowhere",
    b"outside": b"../outside",
    b"loop": b"loop",
}


def make(path: bytes, shape: Shape) -> None:
    """Make a directory with all that is in it."""
    os.mkdir(path)
    for name, what in shape.items():
        place = os.path.join(path, name)
        if what is None:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        elif isinstance(what, bytes):
            os.symlink(what, place)
        else:
            make(place, what)


def content(path: str | bytes | Path) -> dict[bytes, int]:
    """Every path in a tree, from its top, with its inode; without the top itself."""
    top = os.fsencode(path)
    found = {}
    for where, dirs, files in os.walk(top):
        for name in dirs + files:
            place = os.path.join(where, name)
            found[os.path.relpath(place, top)] = os.lstat(place).st_ino
    return found


def picture(path: str | bytes | Path, *, atimes: bool = False) -> dict[bytes, tuple[Any, ...]]:
    """All that a copy has, by the path from its top: content, attributes, which names are one.

    Reading may change atimes, unless they are in the future (relatime).
    """
    top = os.fsencode(path)
    found: dict[bytes, tuple[Any, ...]] = {}
    first_names: dict[tuple[int, int], bytes] = {}

    def look(place: bytes) -> None:
        name = os.path.relpath(place, top)
        status = os.lstat(place)
        what: Any = status.st_rdev
        first = name
        if stat.S_ISLNK(status.st_mode):
            what = os.readlink(place)
        elif stat.S_ISREG(status.st_mode):
            with open(place, "rb") as file:
                what = status.st_size, file.read(), holes(place)
        if not stat.S_ISDIR(status.st_mode):
            first = first_names.setdefault((status.st_dev, status.st_ino), name)
        extended = {
            key: os.getxattr(place, key, follow_symlinks=False)
            for key in os.listxattr(place, follow_symlinks=False)
        }
        found[name] = (
            oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns,
            status.st_atime_ns if atimes else 0, what, first, extended,
        )  # fmt: skip
        if stat.S_ISDIR(status.st_mode):
            for inner in sorted(os.listdir(place)):
                look(os.path.join(place, inner))

    look(top)
    return found


def many_directories(count: int) -> Shape:
    """Empty ones in one directory: more than one step of a listing tells, if there are 1000."""
    return {b"a directory with the number %d" % number: {} for number in range(count)}


def make_deep(path: Path, levels: int, name: str = "d") -> None:
    """Directories in each other, deeper than any path is long; a file in each."""
    os.mkdir(path)
    fd = os.open(path, os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open(name, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def remove(path: str | bytes | Path) -> None:
    """What this library is not needed for."""
    subprocess.run(["rm", "-rf", path], check=True)


def exchange(one: str | Path, other: str | Path) -> None:
    """Two names trade what they are, at once."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """In the block system calls of this process (an inline pool's) have nobody's rights."""
    os.setresgid(-1, NOBODY, 0)
    os.setresuid(-1, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(-1, 0, 0)
        os.setresgid(-1, 0, 0)


class Busy:
    """A thread that does the same again and again, as long as the block lasts."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.rounds = 0
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError):
                self._work()
                self.rounds += 1

    def __enter__(self) -> Busy:  # noqa: PYI034 - not subclassed
        self._thread.start()
        eventually(lambda: self.rounds > 0 or not self._thread.is_alive(), "it begins")
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def killing(pool: procaio.Pool) -> Busy:
    """In the block all workers of a pool are killed again and again. The time between grows from
    1 to 64 ms and begins anew: whatever takes less gets through sometimes, on slow machines too.
    """
    between = itertools.cycle(2**power / 1000 for power in range(7))

    def strike() -> None:
        for pid in [worker.pid for worker in pool.statistics().workers if worker.pid > 0]:
            kill(pid)
        threading.Event().wait(next(between))

    return Busy(strike)


def wait_in_a_task_that_is_cancelled(make: Callable[[procaio.Pool], procaio.Group]) -> None:
    """A task waits for what `make` gives, and is cancelled in the middle: so is the request."""

    async def main(pool: procaio.Pool) -> None:
        request = make(pool)

        async def wait() -> None:
            await request

        task = asyncio.create_task(wait())
        while request.progress.files < 20:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert request.state == "cancelled"

    with procaio.Pool() as pool:
        asyncio.run(main(pool))
        pool.flush()
        assert pool.nreqs() == 0


def peak_of_descriptors(pool: procaio.Pool, request: procaio.Group) -> int:
    """Run it to its end and see how many descriptors it takes."""
    most = 0
    while request.state != "done":
        most = max(most, len(os.listdir("/proc/self/fd")))
        pool.poll_wait()
        pool.poll_cb()
    return most


def without_looks(
    listing: Callable[..., Any], anchor: Any, way: Any, flags: int, *rest: Any, **more: Any
) -> Any:
    """A step that lists (`_core._list`) without the time to look at any entry, as on a slow
    file system, if there is a callback to be told so.
    """
    callback = more.pop("callback", None)
    if callback is None and rest and callable(rest[-1]):
        *rest, callback = rest  # type: ignore[assignment]
    if callback is None:
        return listing(anchor, way, flags, *rest, **more)

    def unseen(value: Any) -> None:
        if value is not None:
            handle, st, dirs, others, _, unknown, offset, looked, _ = value
            found = [entry[0] if isinstance(entry, tuple) else entry for entry in dirs + others]
            value = (handle, st, [], [], [], unknown + found, offset, looked, [])
        callback(value)

    flags = flags & ~TREE_DEEP | TREE_KEEP
    return listing(anchor, way, flags, *rest, callback=unseen, **more)


OPENAT2 = 437


def set_immutable(path: str | Path, on: bool) -> None:
    """Like chattr +i; OSError where the file system cannot."""
    fd = os.open(path, os.O_RDONLY)
    try:
        flags = struct.unpack("l", fcntl.ioctl(fd, 0x80086601, bytes(8)))[0]
        flags = flags | 0x10 if on else flags & ~0x10
        fcntl.ioctl(fd, 0x40086602, struct.pack("l", flags))
    finally:
        os.close(fd)


NO_OPENAT2 = f"""{FILTER}
if sys.argv[1] != "0":
    refuse({OPENAT2}, int(sys.argv[1]))
"""

# With few descriptors: argv[1] are taken, and the rest of the arguments says what is done.
SCARCE = """
import errno, os, resource, sys, procaio
pool = procaio.Pool()
procaio.aio_nop(pool=pool).wait()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = 65 - len(os.listdir("/proc/self/fd")) if sys.argv[1] == "all" else int(sys.argv[1])
pipes = [os.dup(0) for _ in range(taken)]
request = getattr(procaio, sys.argv[2])(*sys.argv[3:], pool=pool)
try:
    request.wait(timeout=60)
except OSError as error:
    print(error.errno, sorted({number for _, number in request.progress.failures}))
else:
    print("done")
for fd in pipes:
    os.close(fd)
pool.close()
"""


def can_be_immutable(path: Path) -> bool:
    """Whether there are immutable files here."""
    try:
        set_immutable(path, False)
    except OSError:
        return False
    return True


def failed(request: procaio.Group) -> tuple[int, list[tuple[bytes, int]]]:
    """The errno, and what the progress says of the rest."""
    with pytest.raises(OSError) as caught:
        request.wait(timeout=60)
    progress = request.progress
    assert progress.failed == len(progress.failures)
    assert caught.value.errno
    return caught.value.errno, sorted(progress.failures)
