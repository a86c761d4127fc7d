"""
Shared memory: the one place where it is made.

Every piece is a POSIX shared-memory object whose name is removed at once, so nothing can be left
behind in /dev/shm; only the descriptor keeps it. What stands in it is described by abi.h.
"""

from __future__ import annotations

import errno
import os

import posix_ipc

from procaio._core import _resize

__all__ = ["create"]


def create(size: int, elsewhere: bool = False) -> int:
    """Make `size` bytes of shared memory; returns the descriptor, which nobody inherits.

    With `elsewhere`, or where /dev/shm cannot be used, the memory is anonymous (memfd_create) and
    does not count against the size of /dev/shm.
    """
    fd = -1 if elsewhere else _create_named()
    if fd < 0:
        fd = os.memfd_create("procaio")
    try:
        _resize(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _create_named() -> int:
    try:
        memory = posix_ipc.SharedMemory(None, posix_ipc.O_CREX, mode=0o600)
    except (posix_ipc.Error, OSError) as error:
        # No /dev/shm in this container, or it is not ours to write.
        if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        return -1
    fd = -1
    try:
        fd = int(memory.fd)
        os.set_inheritable(fd, False)
    except BaseException:
        memory.close_fd()
        raise
    finally:
        memory.unlink()
    return fd
