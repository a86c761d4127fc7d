"""
System calls that are made here and now, in the calling thread.

What Python has is Python's own function, whatever module it is in, so its documentation holds and
descriptors are plain ints where it wants them so. What some or all versions of Python lack is
written in C, in csrc/system.c, and takes objects with fileno() too.

    sendfile           is os.sendfile(out_fd, in_fd, offset, count); sendfile(2)
    fadvise            is os.posix_fadvise(fd, offset, length, advice); posix_fadvise(2)
    splice             is os.splice(src, dst, count, offset_src, offset_dst, flags); splice(2)
    pipe2              is os.pipe2(flags); pipe2(2)
    eventfd            is os.eventfd(initval, flags); eventfd(2)
    memfd_create       is os.memfd_create(name, flags); memfd_create(2)
    pidfd_open         is os.pidfd_open(pid, flags); pidfd_open(2)
    pidfd_send_signal  is signal.pidfd_send_signal(pidfd, signalnum); pidfd_send_signal(2)
    timerfd_*          are those of os from Python 3.13 on, and ours before; timerfd_create(2)
    tee, pipesize, pidfd_getfd are ours

All of them raise OSError on failure. Not here: what acts on a mapping of memory.
"""

from __future__ import annotations

import errno
import os
import sys
from os import eventfd, pipe2, sendfile, splice
from os import posix_fadvise as fadvise
from typing import NoReturn

from procaio._core import pidfd_getfd, pipesize, tee

if sys.version_info >= (3, 13):
    from os import (
        timerfd_create,
        timerfd_gettime,
        timerfd_gettime_ns,
        timerfd_settime,
        timerfd_settime_ns,
    )
else:
    from procaio._core import (
        timerfd_create,
        timerfd_gettime,
        timerfd_gettime_ns,
        timerfd_settime,
        timerfd_settime_ns,
    )

__all__ = [
    "eventfd",
    "fadvise",
    "memfd_create",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "pipe2",
    "pipesize",
    "sendfile",
    "splice",
    "tee",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_gettime_ns",
    "timerfd_settime",
    "timerfd_settime_ns",
]


def _lacking(*_arguments: object, **_keywords: object) -> NoReturn:
    """Stand for what this Python was built without, so that only its use fails."""
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


# Pythons that are built to run on old systems lack these on new ones.
try:
    from os import memfd_create
except ImportError:
    memfd_create = _lacking
try:
    from os import pidfd_open
except ImportError:
    pidfd_open = _lacking
try:
    from signal import pidfd_send_signal
except ImportError:
    pidfd_send_signal = _lacking
