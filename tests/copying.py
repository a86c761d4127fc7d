"""What the tests of copy and move share: small file systems, comparison, programs of their own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import descriptors, eventually
from programs import FILTER, run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this")
NOBODY = 65534


@contextlib.contextmanager
def mounted(path: Path, kind: str, source: str = "none", options: str = "") -> Iterator[Path]:
    """A file system of its own; `kind` 'bind' shows a directory a second time."""
    libc = ctypes.CDLL(None, use_errno=True)
    path.mkdir(exist_ok=True)
    flags = 4096 if kind == "bind" else 0
    done = libc.mount(
        source.encode(), os.fsencode(path), kind.encode(), flags, options.encode() or None
    )
    if done < 0:
        pytest.skip(f"nothing can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield path
    finally:
        libc.umount2(os.fsencode(path), 2)


def failure(call: Callable[[], object]) -> OSError:
    """The error that it must raise."""
    with pytest.raises(OSError) as raised:
        call()
    return raised.value


def attributes(path: Path) -> tuple[int, ...]:
    """What `cp -p` keeps, and the times to the nanosecond."""
    st = os.lstat(path)
    return st.st_mode, st.st_uid, st.st_gid, st.st_size, st.st_mtime_ns, st.st_atime_ns


def entry(kind: str, path: Path) -> None:
    """Make one of a kind: a file, link, fifo, socket or device."""
    if kind == "link":
        path.symlink_to("what it says")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        path.write_bytes(b"content")


def holes(path: Path | bytes) -> list[tuple[int, int]]:
    """Where a file has data: beginnings and ends."""
    found, at = [], 0
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        with contextlib.suppress(OSError):  # ENXIO: no data behind `at`
            while at < size:
                start = os.lseek(fd, at, os.SEEK_DATA)
                at = os.lseek(fd, start, os.SEEK_HOLE)
                found.append((start, at))
    finally:
        os.close(fd)
    return found


def open_in(directory: Path) -> set[str]:
    """What is open there."""
    return {what for what in descriptors().values() if what.startswith(f"{directory}/")}


def all_closed(pool: procaio.Pool, directory: Path, but: set[str]) -> None:
    """Wait until what a dead worker had open is closed."""
    eventually(
        lambda: procaio.aio_nop(pool=pool).wait() is None and open_in(directory) == but,
        "what dead workers had open is closed",
    )


def executing(pool: procaio.Pool) -> int:
    """The process that executes something right now."""
    (pid,) = [worker.pid for worker in pool.statistics().workers if worker.state == "execute"]
    return pid


def is_dead(pid: int) -> bool:
    """Killed, whether anybody has noticed or not."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"Z"


# Does argv[1](argv[2], argv[3]) as somebody without rights, who stands in the directory that it is
# started in: those above it may be closed to him.
AS_NOBODY = f"""
    import ctypes, os, sys
    import procaio
    name, source, target = sys.argv[1:]
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # it owns its files of /proc again
    try:
        with procaio.Pool() as pool:
            print(getattr(procaio, name)(source, target, pool=pool).wait())
    except OSError as error:
        print(error.errno, error.filename == source, error.filename2 == target)
"""

# Likewise, but each worker is killed when it comes to the system call argv[4].
KILLED_AT = f"""{FILTER}
import procaio

CALLS = {{
    "openat": (257, 2, 0o200, ANY_BIT),  # O_EXCL
    "reopen": (257, 2, 0o2020401),  # of what is there, to write
    "ioctl": (16, 1, 0x40049409),  # FICLONE
    "lseek": (8, 2, 3),  # SEEK_DATA
    "ftruncate": (77,),
    "copy_file_range": (326,),
    "utimensat": (280,),
    "fremovexattr": (199,),
    "flistxattr": (196,),
    "fchownat": (260,),
    "fchmod": (91,),
    "unlinkat": (263,),
    "renameat": (264,),
    "symlinkat": (266,),
    "mknodat": (259,),
    "mkdirat": (258,),
}}

name, source, target, step = sys.argv[1:]
with procaio.Pool() as pool:
    filter_call(KILL, *CALLS[step])
    try:
        result = getattr(procaio, name)(source, target, pool=pool).wait()
    except OSError as error:
        result = type(error).__name__
    print(result, pool.statistics().worker_deaths)
"""


def killed_at(step: str, name: str, source: Path, target: Path) -> list[str]:
    """What came of it: the value or the error's class, and how many workers died."""
    return run_python(KILLED_AT, name, source, target, step).split()
