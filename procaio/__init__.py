"""
Asynchronous file and directory I/O in a pool of forked worker processes.

    import procaio

    procaio.aio_stat("/etc/passwd", lambda st: print(st.st_size))
    procaio.flush()

Every aio_ function returns a Request: give it a callback, `await` it, or `.wait()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from procaio import _constants, _core
from procaio._attach import Attachment, attach
from procaio._batches import BatchProgress, aio_load_many, aio_read_many, aio_stat_many
from procaio._constants import *  # noqa: F403 - the reference's names, all of them
from procaio._copytree import aio_copytree
from procaio._core import (
    Buffer,
    FileHandle,
    Group,
    Mapping,
    Request,
    aio_access,
    aio_allocate,
    aio_busy,
    aio_chmod,
    aio_chown,
    aio_close,
    aio_copy,
    aio_copy_file_range,
    aio_fadvise,
    aio_fcntl,
    aio_fdatasync,
    aio_fiemap,
    aio_fsync,
    aio_getxattr,
    aio_group,
    aio_ioctl,
    aio_link,
    aio_listxattr,
    aio_load,
    aio_lstat,
    aio_mkdir,
    aio_mkdirs,
    aio_mknod,
    aio_mlock,
    aio_mlockall,
    aio_move,
    aio_msync,
    aio_mtouch,
    aio_nop,
    aio_open,
    aio_pathsync,
    aio_read,
    aio_readahead,
    aio_readdir,
    aio_readdirx,
    aio_readlink,
    aio_realpath,
    aio_removexattr,
    aio_rename,
    aio_rename2,
    aio_replace,
    aio_rmdir,
    aio_seek,
    aio_sendfile,
    aio_setxattr,
    aio_slurp,
    aio_splice,
    aio_stat,
    aio_statvfs,
    aio_statx,
    aio_symlink,
    aio_sync,
    aio_sync_file_range,
    aio_syncfs,
    aio_tee,
    aio_truncate,
    aio_unlink,
    aio_utime,
    aio_wd,
    aio_write,
    aioreq_nice,
    aioreq_pri,
    errno,
    madvise,
    mlockall,
    mmap,
    mprotect,
    munlock,
    munlockall,
    munmap,
    statx_result,
)
from procaio._errors import CrashLoopWarning, PoolClosed, RequestCancelled, WorkerDied
from procaio._loops import Loop
from procaio._pool import Pool, Statistics, WorkerDeath, WorkerStatistics, default_pool
from procaio._system import (
    eventfd,
    fadvise,
    memfd_create,
    pidfd_getfd,
    pidfd_open,
    pidfd_send_signal,
    pipe2,
    pipesize,
    sendfile,
    splice,
    tee,
    timerfd_create,
    timerfd_gettime,
    timerfd_gettime_ns,
    timerfd_settime,
    timerfd_settime_ns,
)
from procaio._trees import TreeProgress, aio_rmtree, aio_scandir
from procaio._walk import aio_walk

if TYPE_CHECKING:
    from collections.abc import Callable

__version__ = "0.1.0"

__all__ = [
    "Attachment",
    "BatchProgress",
    "Buffer",
    "CrashLoopWarning",
    "FileHandle",
    "Group",
    "Loop",
    "Mapping",
    "Pool",
    "PoolClosed",
    "Request",
    "RequestCancelled",
    "Statistics",
    "TreeProgress",
    "WorkerDeath",
    "WorkerDied",
    "WorkerStatistics",
    "aio_access",
    "aio_allocate",
    "aio_busy",
    "aio_chmod",
    "aio_chown",
    "aio_close",
    "aio_copy",
    "aio_copy_file_range",
    "aio_copytree",
    "aio_fadvise",
    "aio_fcntl",
    "aio_fdatasync",
    "aio_fiemap",
    "aio_fsync",
    "aio_getxattr",
    "aio_group",
    "aio_ioctl",
    "aio_link",
    "aio_listxattr",
    "aio_load",
    "aio_load_many",
    "aio_lstat",
    "aio_mkdir",
    "aio_mkdirs",
    "aio_mknod",
    "aio_mlock",
    "aio_mlockall",
    "aio_move",
    "aio_msync",
    "aio_mtouch",
    "aio_nop",
    "aio_open",
    "aio_pathsync",
    "aio_read",
    "aio_read_many",
    "aio_readahead",
    "aio_readdir",
    "aio_readdirx",
    "aio_readlink",
    "aio_realpath",
    "aio_removexattr",
    "aio_rename",
    "aio_rename2",
    "aio_replace",
    "aio_rmdir",
    "aio_rmtree",
    "aio_scandir",
    "aio_seek",
    "aio_sendfile",
    "aio_setxattr",
    "aio_slurp",
    "aio_splice",
    "aio_stat",
    "aio_stat_many",
    "aio_statvfs",
    "aio_statx",
    "aio_symlink",
    "aio_sync",
    "aio_sync_file_range",
    "aio_syncfs",
    "aio_tee",
    "aio_truncate",
    "aio_unlink",
    "aio_utime",
    "aio_walk",
    "aio_wd",
    "aio_write",
    "aioreq_nice",
    "aioreq_pri",
    "at_once",
    "attach",
    "close",
    "default_pool",
    "errno",
    "eventfd",
    "exit_timeout",
    "fadvise",
    "flush",
    "idle_timeout",
    "madvise",
    "max_idle",
    "max_outstanding",
    "max_parallel",
    "max_poll_reqs",
    "max_poll_time",
    "memfd_create",
    "min_parallel",
    "mlockall",
    "mmap",
    "mprotect",
    "munlock",
    "munlockall",
    "munmap",
    "npending",
    "nready",
    "nreqs",
    "nworkers",
    "on_callback_error",
    "on_worker_death",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "pipe2",
    "pipesize",
    "poll",
    "poll_cb",
    "poll_fileno",
    "poll_wait",
    "sendfile",
    "splice",
    "statistics",
    "statx_result",
    "tee",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_gettime_ns",
    "timerfd_settime",
    "timerfd_settime_ns",
]
__all__ += _constants.__all__  # as type checkers understand it

_core._set_hook("WorkerDied", WorkerDied)  # noqa: SLF001 - the two halves of one package
_core._set_hook("RequestCancelled", RequestCancelled)  # noqa: SLF001
_core._set_hook("CrashLoopWarning", CrashLoopWarning)  # noqa: SLF001
_core._set_hook("PoolClosed", PoolClosed)  # noqa: SLF001
_core._set_hook("UTIME_NOW", UTIME_NOW)  # noqa: F405, SLF001
_core._set_hook("UTIME_OMIT", UTIME_OMIT)  # noqa: F405, SLF001


def on_callback_error(
    hook: Callable[[BaseException, Request[object] | None], object] | None,
) -> Callable[[BaseException, Request[object] | None], object] | None:
    """
    Let `hook(exception, request)` be called for exceptions that callbacks raise; None restores the
    default, sys.unraisablehook. Returns the previous hook.

    The request has ended all the same, and all others are processed. It is None where a hook of
    on_worker_death() has raised. KeyboardInterrupt and SystemExit are not caught: they come out of
    poll_cb().
    """
    if hook is not None and not callable(hook):
        raise TypeError(f"hook must be callable or None, not {type(hook).__name__}")
    return _core._set_hook("on_error", hook)  # type: ignore[no-any-return]  # noqa: SLF001


def poll_fileno() -> int:
    """A descriptor that is readable while results wait; call poll_cb() then. (default pool)"""
    return default_pool().poll_fileno()


def poll_cb() -> int:
    """End the requests that were executed; 0 when all were, -1 when some are left. (default)"""
    return default_pool().poll_cb()


def poll_wait() -> None:
    """Wait until a request was executed; at once if none is outstanding. (default pool)"""
    default_pool().poll_wait()


def poll() -> int:
    """Wait until some requests were executed, end them, return how many. (default pool)"""
    return default_pool().poll()


def flush() -> None:
    """Wait until no request is outstanding; callbacks run meanwhile. (default pool)"""
    default_pool().flush()


def nreqs() -> int:
    """Requests that are ready, executing or pending. (default pool)"""
    return default_pool().nreqs()


def nready() -> int:
    """Requests that no worker has taken yet. (default pool)"""
    return default_pool().nready()


def npending() -> int:
    """Requests that were executed and wait for poll_cb(). (default pool)"""
    return default_pool().npending()


def nworkers() -> int:
    """Worker processes that live. (default pool)"""
    return default_pool().nworkers()


def statistics() -> Statistics:
    """A snapshot of the default pool."""
    return default_pool().statistics()


def min_parallel(workers: int | None = None) -> int:
    """At least so many workers; only raises. Returns the previous number. (default pool)"""
    return default_pool().min_parallel(workers)


def max_parallel(workers: int | None = None, *, timeout: float | None = None) -> int:
    """At most so many workers; only lowers. Returns the previous number. (default pool)"""
    return default_pool().max_parallel(workers, timeout=timeout)


def max_idle(workers: int | None = None) -> int:
    """How many workers may be idle for longer than idle_timeout. (default pool)"""
    return default_pool().max_idle(workers)


def idle_timeout(seconds: float | None = None) -> float:
    """After so many seconds surplus idle workers leave. (default pool)"""
    return default_pool().idle_timeout(seconds)


def at_once(allowed: bool | None = None) -> bool:
    """Whether what cannot block is done in the call, by the program. (default pool)"""
    return default_pool().at_once(allowed)


def max_poll_reqs(requests: int | None = None) -> int:
    """The most requests that one poll_cb() processes; 0 = no limit. (default pool)"""
    return default_pool().max_poll_reqs(requests)


def max_poll_time(seconds: float | None = None) -> float:
    """The time that one poll_cb() is granted, in seconds; 0 = no limit. (default pool)"""
    return default_pool().max_poll_time(seconds)


def max_outstanding(requests: int | None = None) -> int:
    """While more requests are outstanding, poll_cb() blocks; 0 = no limit. (default pool)"""
    return default_pool().max_outstanding(requests)


def exit_timeout(seconds: float | None = None) -> float:
    """How long the end of the program waits for requests, in seconds. (default pool)"""
    return default_pool().exit_timeout(seconds)


def on_worker_death(
    hook: Callable[[WorkerDeath], object] | None,
) -> Callable[[WorkerDeath], object] | None:
    """Let `hook(death)` be called when a worker has died; None: nobody. (default pool)"""
    return default_pool().on_worker_death(hook)


def close() -> None:
    """Close the default pool, if there is one; the next request makes a new one."""
    pool = _core._default_pool()  # noqa: SLF001 - the two halves of one package
    if isinstance(pool, Pool):
        pool.close()  # it still is the default one: callbacks may make more requests
        if _core._default_pool() is pool:  # noqa: SLF001
            _core._set_hook("default_pool", None)  # noqa: SLF001
