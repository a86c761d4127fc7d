import os
from asyncio import AbstractEventLoop
from collections.abc import Callable, Generator, Iterator
from typing import (
    Any,
    Generic,
    Literal,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    final,
    overload,
)

from _typeshed import ReadableBuffer, Unused, WriteableBuffer, structseq
from typing_extensions import Self

from procaio._constants import ReaddirFlags

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)

class _HasFileno(Protocol):
    def fileno(self) -> int: ...

_Fh: TypeAlias = int | _HasFileno
_Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
_StrPath: TypeAlias = str | os.PathLike[str]
_BytesPath: TypeAlias = bytes | os.PathLike[bytes]
_Callback: TypeAlias = Callable[..., object] | None
_Index: TypeAlias = SupportsIndex
_Seconds: TypeAlias = SupportsFloat | SupportsIndex
# What aio_readdirx yields depends on a flag; combined flags are beyond a type checker.
_NamesOnly: TypeAlias = Literal[0, ReaddirFlags.READDIR_DIRS_FIRST, ReaddirFlags.READDIR_STAT_ORDER]
_WithTypes: TypeAlias = Literal[ReaddirFlags.READDIR_DENTS]
_Dirent: TypeAlias = tuple[_T, int, int]
_Entries: TypeAlias = tuple[list[_T], int]

SEGMENT_SIZE: int
MAX_WORKERS: int
SLOTS: int
MS_SYNC: int
CONSTANTS: dict[str, int]
FAULT_POINTS: tuple[str, ...]
FAULT_ALWAYS: int

class Request(Generic[_T_co]):
    @property
    def state(self) -> str: ...
    @property
    def result(self) -> _T_co | None: ...
    @property
    def errno(self) -> int: ...
    @property
    def error(self) -> OSError | None: ...
    @property
    def pri(self) -> int: ...
    @property
    def copied(self) -> int: ...
    @property
    def callback(self) -> Callable[..., object] | None: ...
    def cancel(self) -> bool: ...
    def abort(self) -> bool: ...
    def cb(self, callback: _Callback, /) -> Callable[..., object] | None: ...
    def wait(self, timeout: _Seconds | None = None) -> _T_co: ...
    def __await__(self) -> Generator[Any, None, _T_co]: ...
    def _waiter(self, loop: object, /) -> Waiter | None: ...
    # A program may hang its own attributes on a request.
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

@final
class Group(Request[Any]):
    def add(self, *requests: Request[Any]) -> tuple[Request[Any], ...]: ...
    def cancel_subs(self) -> None: ...
    def result(self, *values: object) -> None: ...
    def errno(  # type: ignore[override]
        self, number: int | None = None, /
    ) -> None: ...
    def feed(self, feeder: Callable[[Group], object] | None, /) -> None: ...
    def limit(self, number: _Index, /) -> None: ...
    def _end(
        self, number: int, worker_died: bool, path: object, path2: object = ..., /
    ) -> None: ...
    def __iter__(self) -> Iterator[Request[Any]]: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...

@final
class Waiter:
    _asyncio_future_blocking: bool
    def add_done_callback(
        self, callback: Callable[..., object], /, *, context: object = None
    ) -> None: ...
    def remove_done_callback(self, callback: object, /) -> int: ...
    def cancel(self, msg: object = None) -> bool: ...
    def give_up(self) -> None: ...
    def stand_aside(self) -> None: ...
    def cancelled(self) -> bool: ...
    def done(self) -> bool: ...
    @property
    def _loop(self) -> AbstractEventLoop | None: ...
    def result(self) -> None: ...
    def throw(self, kind: object, value: object = None, traceback: object = None, /) -> Any: ...
    def close(self) -> None: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...

@final
class FileHandle:
    @property
    def closed(self) -> bool: ...
    @property
    def name(self) -> _Path: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def detach(self) -> int: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: Unused) -> None: ...

@final
class Buffer:
    def __new__(cls, size: SupportsIndex, pool: CorePool | None = None) -> Self: ...
    def release(self) -> None: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    @overload
    def __setitem__(self, key: SupportsIndex, value: SupportsIndex, /) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: ReadableBuffer, /) -> None: ...
    def __delitem__(self, key: SupportsIndex | slice, /) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: Unused) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...

@final
class Mapping:
    def munmap(self) -> None: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytes: ...
    @overload
    def __setitem__(self, key: SupportsIndex, value: SupportsIndex, /) -> None: ...
    @overload
    def __setitem__(self, key: slice, value: ReadableBuffer, /) -> None: ...
    def __delitem__(self, key: SupportsIndex | slice, /) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: Unused) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...

@final
class statx_result(structseq[int], tuple[int, ...]):  # noqa: N801 - as os.stat_result
    @property
    def stx_mask(self) -> int: ...
    @property
    def stx_blksize(self) -> int: ...
    @property
    def stx_attributes(self) -> int: ...
    @property
    def stx_attributes_mask(self) -> int: ...
    @property
    def stx_nlink(self) -> int: ...
    @property
    def stx_uid(self) -> int: ...
    @property
    def stx_gid(self) -> int: ...
    @property
    def stx_mode(self) -> int: ...
    @property
    def stx_ino(self) -> int: ...
    @property
    def stx_size(self) -> int: ...
    @property
    def stx_blocks(self) -> int: ...
    @property
    def stx_dev(self) -> int: ...
    @property
    def stx_rdev(self) -> int: ...
    @property
    def stx_atime_ns(self) -> int: ...
    @property
    def stx_btime_ns(self) -> int: ...
    @property
    def stx_ctime_ns(self) -> int: ...
    @property
    def stx_mtime_ns(self) -> int: ...

class CorePool:
    @property
    def closed(self) -> bool: ...
    @property
    def _spawner_pid(self) -> int: ...
    _at_once: bool
    _max_poll_reqs: int
    _max_poll_time: float
    _max_outstanding: int
    def poll_fileno(self) -> int: ...
    def poll_cb(self) -> int: ...
    def poll_wait(self) -> None: ...
    def poll(self) -> int: ...
    def nreqs(self) -> int: ...
    def nready(self) -> int: ...
    def npending(self) -> int: ...
    def nworkers(self) -> int: ...
    def _open(
        self,
        segment_fd: int,
        cores: int,
        is_inline: bool,
        workers: int,
        max_idle: int,
        idle_timeout_ms: int,
        title_at: int,
        title_size: int,
        source: Callable[[int, bool], int],
        /,
    ) -> None: ...
    def _kill(self, error: int, /) -> None: ...
    def _release(self) -> None: ...
    def _abandon(self) -> None: ...
    def _disown(self) -> bool: ...
    def _is_open(self) -> bool: ...
    def _wanted(self, workers: int, /) -> None: ...
    def _surplus(self, workers: int, /) -> bool: ...
    def _idle(self, max_idle: int, idle_timeout_ms: int, /) -> None: ...
    def _on_death(self, hook: Callable[..., object] | None, /) -> None: ...
    def _sleep(self, seconds: float, /) -> None: ...
    def _flush(self, timeout: float | None = None, /) -> bool: ...
    def _snapshot(self) -> dict[str, Any]: ...
    def _arm_fault(self, point: int, signal: int, countdown: int, /) -> None: ...
    def _on_readable(self) -> None: ...

def errno() -> int: ...
def _worker_died() -> bool: ...
def aioreq_pri(pri: SupportsIndex | None = None, /) -> int: ...
def aioreq_nice(adjust: SupportsIndex, /) -> None: ...
def _watch_identity(module: object, /) -> None: ...
def _look_for_lost() -> None: ...
def _watch_limits(module: object, /) -> None: ...
def _resize(fd: int, size: int, /) -> None: ...
def _set_hook(name: str, value: object, /) -> Any: ...
def _default_pool() -> CorePool | None: ...
def tee(src: _Fh, dst: _Fh, count: SupportsIndex, flags: SupportsIndex = 0) -> int: ...
def pipesize(fh: _Fh, new: SupportsIndex | None = None) -> int: ...
def timerfd_create(clockid: SupportsIndex, /, *, flags: SupportsIndex = 0) -> int: ...
def timerfd_settime(
    fd: _Fh, /, *, flags: SupportsIndex = 0, initial: _Seconds = 0.0, interval: _Seconds = 0.0
) -> tuple[float, float]: ...
def timerfd_settime_ns(
    fd: _Fh,
    /,
    *,
    flags: SupportsIndex = 0,
    initial: SupportsIndex = 0,
    interval: SupportsIndex = 0,
) -> tuple[int, int]: ...
def timerfd_gettime(fd: _Fh, /) -> tuple[float, float]: ...
def timerfd_gettime_ns(fd: _Fh, /) -> tuple[int, int]: ...
def pidfd_getfd(pidfd: _Fh, targetfd: SupportsIndex, flags: SupportsIndex = 0) -> int: ...
def aio_group(
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Group: ...
def aio_nop(
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[None]: ...
def aio_busy(
    seconds: _Seconds,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[None]: ...
@overload
def aio_open(
    path: _Path,
    flags: _Index = ...,
    mode: _Index = ...,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[FileHandle]: ...
@overload
def aio_open(
    path: _Path,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[FileHandle]: ...
@overload
def aio_open(
    path: _Path,
    flags: _Index,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[FileHandle]: ...
def aio_close(
    fh: _Fh,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_read(
    fh: _Fh,
    offset: _Index | None,
    length: _Index,
    data: None = None,
    dataoffset: _Index | None = None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_read(
    fh: _Fh,
    offset: _Index | None,
    length: _Index,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_read(
    fh: _Fh,
    offset: _Index | None,
    length: _Index,
    data: WriteableBuffer,
    dataoffset: _Index | None = None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_read(
    fh: _Fh,
    offset: _Index | None,
    length: _Index,
    data: WriteableBuffer,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_write(
    fh: _Fh,
    offset: _Index | None,
    length: _Index | None,
    data: ReadableBuffer,
    dataoffset: _Index | None = None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_write(
    fh: _Fh,
    offset: _Index | None,
    length: _Index | None,
    data: ReadableBuffer,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_fsync(
    fh: _Fh,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_fdatasync(
    fh: _Fh,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_stat(
    fh_or_path: _Fh | _Path,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[os.stat_result]: ...
def aio_lstat(
    fh_or_path: _Fh | _Path,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[os.stat_result]: ...
def aio_statvfs(
    fh_or_path: _Fh | _Path,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[os.statvfs_result]: ...
def aio_unlink(
    path: _Path,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_rmdir(
    path: _Path,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mkdirs(
    path: _Path,
    mode: _Index = ...,
    exist_ok: bool = ...,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mkdirs(
    path: _Path,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mkdirs(
    path: _Path,
    mode: _Index,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mkdir(
    path: _Path,
    mode: _Index = ...,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mkdir(
    path: _Path,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_rename(
    src: _Path,
    dst: _Path,
    callback: _Callback = None,
    *,
    src_dir_fd: _Fh | None = None,
    dst_dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_copy(
    src: _Path,
    dst: _Path,
    callback: _Callback = None,
    *,
    src_dir_fd: _Fh | None = None,
    dst_dir_fd: _Fh | None = None,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def _copy_entry(
    src: _Path,
    dst: _Path,
    tell_links: bool,
    callback: _Callback = None,
    *,
    src_dir_fd: _Fh | None = None,
    dst_dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int | tuple[int, int]]: ...
def aio_move(
    src: _Path,
    dst: _Path,
    callback: _Callback = None,
    *,
    src_dir_fd: _Fh | None = None,
    dst_dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_readdir(
    path: _StrPath,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[list[str]]: ...
@overload
def aio_readdir(
    path: _BytesPath,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[list[bytes]]: ...
@overload
def aio_readdirx(
    path: _StrPath,
    flags: _NamesOnly,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[_Entries[str]]: ...
@overload
def aio_readdirx(
    path: _BytesPath,
    flags: _NamesOnly,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[_Entries[bytes]]: ...
@overload
def aio_readdirx(
    path: _StrPath,
    flags: _WithTypes,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[_Entries[_Dirent[str]]]: ...
@overload
def aio_readdirx(
    path: _BytesPath,
    flags: _WithTypes,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[_Entries[_Dirent[bytes]]]: ...
@overload
def aio_readdirx(
    path: _Path,
    flags: _Index,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[_Entries[Any]]: ...
@overload
def aio_load(
    path: _Path,
    data: None = None,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_load(
    path: _Path,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_load(
    path: _Path,
    data: bytearray,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_sendfile(
    out_fh: _Fh,
    in_fh: _Fh,
    in_offset: _Index | None,
    length: _Index,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_readahead(
    fh: _Fh,
    offset: _Index,
    length: _Index,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_truncate(
    fh_or_path: _Fh | _Path,
    offset: _Index,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_sync(
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_sync_file_range(
    fh: _Fh,
    offset: _Index,
    nbytes: _Index,
    flags: _Index,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_pathsync(
    path: _Path,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_utime(
    fh_or_path: _Fh | _Path,
    atime: _Seconds | None = None,
    mtime: _Seconds | None = None,
    callback: _Callback = None,
    *,
    ns: tuple[_Index, _Index] | None = None,
    dir_fd: _Fh | None = None,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_utime(
    fh_or_path: _Fh | _Path,
    callback: Callable[..., object],
    /,
    *,
    ns: tuple[_Index, _Index] | None = None,
    dir_fd: _Fh | None = None,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_utime(
    fh_or_path: _Fh | _Path,
    atime: _Seconds | None,
    callback: Callable[..., object],
    /,
    *,
    ns: tuple[_Index, _Index] | None = None,
    dir_fd: _Fh | None = None,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_chown(
    fh_or_path: _Fh | _Path,
    uid: _Index | None,
    gid: _Index | None,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_chmod(
    fh_or_path: _Fh | _Path,
    mode: _Index,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mknod(
    path: _Path,
    mode: _Index = ...,
    dev: _Index = 0,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mknod(
    path: _Path,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mknod(
    path: _Path,
    mode: _Index,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_link(
    src: _Path,
    dst: _Path,
    callback: _Callback = None,
    *,
    src_dir_fd: _Fh | None = None,
    dst_dir_fd: _Fh | None = None,
    follow_symlinks: bool = False,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_symlink(
    src: _Path,
    dst: _Path,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_readlink(
    path: _StrPath,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[str]: ...
@overload
def aio_readlink(
    path: _BytesPath,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_slurp(
    path: _Path,
    offset: _Index,
    length: _Index,
    data: None = None,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_slurp(
    path: _Path,
    offset: _Index,
    length: _Index,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_slurp(
    path: _Path,
    offset: _Index,
    length: _Index,
    data: bytearray,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_replace(
    path: _Path,
    data: ReadableBuffer,
    mode: _Index = ...,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_replace(
    path: _Path,
    data: ReadableBuffer,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_seek(
    fh: _Fh,
    offset: _Index,
    whence: _Index,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_allocate(
    fh: _Fh,
    mode: _Index,
    offset: _Index,
    length: _Index,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_fadvise(
    fh: _Fh,
    offset: _Index,
    length: _Index,
    advice: _Index,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_syncfs(
    fh: _Fh,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_copy_file_range(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    offset_src: _Index | None = None,
    offset_dst: _Index | None = None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_copy_file_range(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_copy_file_range(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    offset_src: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_splice(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    offset_src: _Index | None = None,
    offset_dst: _Index | None = None,
    flags: _Index = 0,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_splice(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_splice(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    offset_src: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_splice(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    offset_src: _Index | None,
    offset_dst: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_tee(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    flags: _Index = 0,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_tee(
    src: _Fh,
    dst: _Fh,
    count: _Index,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_access(
    path: _Path,
    mode: _Index,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    effective_ids: bool = False,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bool]: ...
@overload
def aio_realpath(
    path: _StrPath,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[str]: ...
@overload
def aio_realpath(
    path: _BytesPath,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
def aio_wd(
    path: _Path,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[FileHandle]: ...
def aio_rename2(
    src: _Path,
    dst: _Path,
    flags: _Index,
    callback: _Callback = None,
    *,
    src_dir_fd: _Fh | None = None,
    dst_dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_statx(
    fh_or_path: _Fh | _Path,
    flags: _Index = 0,
    mask: _Index = 0xFFF,
    callback: _Callback = None,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[statx_result]: ...
@overload
def aio_statx(
    fh_or_path: _Fh | _Path,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[statx_result]: ...
@overload
def aio_statx(
    fh_or_path: _Fh | _Path,
    flags: _Index,
    callback: Callable[..., object],
    /,
    *,
    dir_fd: _Fh | None = None,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[statx_result]: ...
def aio_getxattr(
    fh_or_path: _Fh | _Path,
    attribute: _Path,
    callback: _Callback = None,
    *,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_setxattr(
    fh_or_path: _Fh | _Path,
    attribute: _Path,
    value: ReadableBuffer,
    flags: _Index = 0,
    callback: _Callback = None,
    *,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_setxattr(
    fh_or_path: _Fh | _Path,
    attribute: _Path,
    value: ReadableBuffer,
    callback: Callable[..., object],
    /,
    *,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_listxattr(
    fh_or_path: _Fh | _Path,
    callback: _Callback = None,
    *,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[list[str]]: ...
def aio_removexattr(
    fh_or_path: _Fh | _Path,
    attribute: _Path,
    callback: _Callback = None,
    *,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_fiemap(
    fh: _Fh,
    start: _Index = 0,
    length: _Index | None = None,
    flags: _Index = 0,
    count: _Index | None = None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[list[tuple[int, int, int, int]]]: ...
@overload
def aio_fiemap(
    fh: _Fh,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[list[tuple[int, int, int, int]]]: ...
@overload
def aio_fiemap(
    fh: _Fh,
    start: _Index,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[list[tuple[int, int, int, int]]]: ...
@overload
def aio_fiemap(
    fh: _Fh,
    start: _Index,
    length: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[list[tuple[int, int, int, int]]]: ...
@overload
def aio_fiemap(
    fh: _Fh,
    start: _Index,
    length: _Index | None,
    flags: _Index,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[list[tuple[int, int, int, int]]]: ...
@overload
def aio_fcntl(  # type: ignore[overload-overlap]  # bytes are a buffer too
    fh: _Fh,
    cmd: _Index,
    arg: bytes,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_fcntl(
    fh: _Fh,
    cmd: _Index,
    arg: _Index | WriteableBuffer = 0,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_fcntl(
    fh: _Fh,
    cmd: _Index,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_ioctl(  # type: ignore[overload-overlap]  # bytes are a buffer too
    fh: _Fh,
    request: _Index,
    buf: bytes,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
@overload
def aio_ioctl(
    fh: _Fh,
    request: _Index,
    buf: _Index | WriteableBuffer = 0,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_ioctl(
    fh: _Fh,
    request: _Index,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_msync(
    data: ReadableBuffer,
    offset: _Index | None = 0,
    length: _Index | None = None,
    flags: _Index = ...,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_msync(
    data: ReadableBuffer,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_msync(
    data: ReadableBuffer,
    offset: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_msync(
    data: ReadableBuffer,
    offset: _Index | None,
    length: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mtouch(
    data: ReadableBuffer,
    offset: _Index | None = 0,
    length: _Index | None = None,
    flags: _Index = 0,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mtouch(
    data: ReadableBuffer,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mtouch(
    data: ReadableBuffer,
    offset: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mtouch(
    data: ReadableBuffer,
    offset: _Index | None,
    length: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mlock(
    data: ReadableBuffer,
    offset: _Index | None = 0,
    length: _Index | None = None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mlock(
    data: ReadableBuffer,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
@overload
def aio_mlock(
    data: ReadableBuffer,
    offset: _Index | None,
    callback: Callable[..., object],
    /,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def aio_mlockall(
    flags: _Index,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
def mmap(
    length: _Index, prot: int, flags: int, fh: _Fh | None = None, offset: _Index = 0
) -> Mapping: ...
def munmap(mapping: Mapping, /) -> None: ...
def madvise(
    data: ReadableBuffer, offset: _Index | None, length: _Index | None, advice: int
) -> None: ...
def mprotect(
    data: ReadableBuffer, offset: _Index | None, length: _Index | None, protect: int
) -> None: ...
def munlock(
    data: ReadableBuffer, offset: _Index | None = 0, length: _Index | None = None
) -> None: ...
def munlockall() -> None: ...
def mlockall(flags: int, /) -> None: ...

TREE_TOP: int
TREE_FOLLOW_TOP: int
TREE_KEEP: int
TREE_FOLLOW: int
TREE_HIDE_TYPES: int
TREE_UNREAD: int
TREE_ONLY_SELF: int
TREE_SEEK: int
TREE_STAYS: int
TREE_MAY_EXIST: int
TREE_BYTES: int
TREE_STAT: int
TREE_DEEP: int

_Section: TypeAlias = tuple[Any, list[Any], list[Any], list[Any]]
_Listing: TypeAlias = tuple[
    FileHandle | None,
    os.stat_result,
    list[Any],
    list[Any],
    list[Any],
    list[Any],
    int,
    int,
    list[_Section],
]
_Removal: TypeAlias = tuple[
    FileHandle | None, int, list[bytes], list[tuple[bytes, int]], bool, bool
]

def _composite(
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Group: ...
def _pack_paths(paths: tuple[Any, ...], /) -> tuple[bytes, bytes]: ...
def _pack_path_array(array: Any, size: int, is_text: bool, /) -> tuple[bytes, bytes]: ...
def _pack_reads(count: int, files: Any, offsets: Any, lengths: Any, /) -> tuple[bytes, bytes]: ...
def _is_shared(out: Buffer, pool: CorePool, /) -> bool: ...
def _stat_many(
    batch: tuple[bytes, bytes, Any, bool],
    first: int,
    end: int,
    dir_fd: _Fh | None,
    callback: _Callback = None,
    *,
    follow_symlinks: bool = True,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[Any]: ...
def _read_many(
    batch: tuple[bytes, bytes, Any, bool],
    first: int,
    end: int,
    out: memoryview | None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[Any]: ...
def _load_many(
    batch: tuple[bytes, bytes, Any, bool],
    first: int,
    end: int,
    dir_fd: _Fh | None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[Any]: ...
def _list(
    directory: _Fh | None,
    path: _Path | None,
    flags: int,
    offset: int | None = None,
    size: int = 32768,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[_Listing]: ...
def _types(
    directory: _Fh,
    names: bytes,
    flags: int,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[bytes]: ...
def _empty(
    directory: _Fh | None,
    path: bytes | None,
    flags: int,
    itself: _Fh | None = None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[_Removal]: ...
def _make_directory(
    directory: _Fh | None,
    path: bytes,
    flags: int,
    not_in: _Fh | None = None,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[_Listing]: ...
def _finish_directory(
    src_directory: _Fh | None,
    src_path: bytes,
    dst_directory: _Fh | None,
    dst_path: bytes,
    atime_ns: int,
    callback: _Callback = None,
    *,
    pri: _Index | None = None,
    timeout: float | None = None,
    pool: CorePool | None = None,
) -> Request[int]: ...
