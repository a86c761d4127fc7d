"""
Batches: one call, many operations, one result.

A batch is a composite request (`_trees`). Its items are packed when the call is made and done in
chunks of about a millisecond, each a member of its own (`csrc/batch.c`, `workers/calls_many.c`). A
few chunks are under way at a time; what is more urgent overtakes all others. A chunk may end before
its last item: the rest becomes another one.
"""

from __future__ import annotations

import errno as _errno
import os
import struct
import sys
from bisect import bisect_right
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from procaio._core import (
    Buffer,
    FileHandle,
    _is_shared,
    _load_many,
    _pack_path_array,
    _pack_paths,
    _pack_reads,
    _read_many,
    _stat_many,
    aio_load,
    aio_read,
)
from procaio._errors import WorkerDied
from procaio._pool import default_pool
from procaio._trees import TreeJob, check_dir_fd, errno, is_unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from procaio._core import Group
    from procaio._pool import Pool

__all__ = ["BatchProgress", "aio_load_many", "aio_read_many", "aio_stat_many"]

ITEMS_OF_A_CHUNK: Final = 1024
FILES_OF_A_CHUNK: Final = 256
BYTES_OF_PATHS: Final = 256 << 10
"""In one chunk, so many and those of one more path."""
BYTES_OF_READS: Final = 1 << 20
CHUNKS_FOR_A_WORKER: Final = 2
MOST_CHUNKS: Final = 16
NO_MEMORY: Final = frozenset({_errno.ENOMEM, _errno.ENOSPC})

STAT_FIELDS: Final = [
    *((name, "u8") for name in ("st_ino", "st_dev", "st_nlink", "st_rdev")),
    *((name, "i8") for name in ("st_size", "st_blocks", "st_blksize")),
    *((name, "i8") for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")),
    *((name, "u4") for name in ("st_mode", "st_uid", "st_gid")),
    ("err", "i4"),
]
"""What struct stat_record of csrc/batch.c has."""
SIZE_FIELDS: Final = {
    "names": ["size", "err"],
    "formats": ["i8", "i4"],
    "offsets": [0, 8],
    "itemsize": 16,
}
"""What struct size_record has."""
SIZE_RECORD: Final = "qi4x"
READ: Final = "qQQi"
READ_SIZE: Final = 32
"""What struct pa_many_read of shm/abi.h has, and its bytes."""
INDEX_FIELDS: Final = [("offset", "i8"), ("size", "i8"), ("err", "i4")]


@final
class BatchProgress:
    """How far a batch has come: its attribute `progress`, true at any time."""

    def __init__(self, total: int) -> None:
        """Nothing yet."""
        self.total = total
        """Items."""
        self.done = 0
        """Items whose outcome is known, be it a failure."""

    def __repr__(self) -> str:
        """Both numbers."""
        return f"<BatchProgress {self.done} of {self.total}>"


def aio_stat_many(
    paths: Sequence[Any],
    callback: Callable[..., object] | None = None,
    *,
    array: bool = False,
    follow_symlinks: bool = True,
    dir_fd: Any = None,
    pri: int | None = None,
    timeout: float | None = None,
    pool: Pool | None = None,
) -> Group:
    """
    Look at many files: yields what aio_stat does for each, in the order of the paths.

    `paths` is a sequence of paths, or a numpy array of type S or U. Yields a list: an
    os.stat_result for each, or the OSError that says what failed. With `array` it is a numpy array
    with the fields st_ino, st_dev, st_nlink, st_rdev, st_size, st_blocks, st_blksize, st_atime_ns,
    st_mtime_ns, st_ctime_ns, st_mode, st_uid and st_gid, and `err`, which is the errno of what
    failed and otherwise 0; no Python object is made for an item. Times that 64 bits cannot tell in
    nanoseconds are the nearest that can be.

    The request fails only as a whole: without memory, aborted, or in a pool that is closed; then
    the callback gets None. Its `progress` is a BatchProgress.
    """
    numpy = _numpy() if array else None
    batch, count = _pack(paths, array=array)
    check_dir_fd(dir_fd)
    follow_symlinks = bool(follow_symlinks)
    records = _Records(numpy, STAT_FIELDS, count) if array else [None] * count
    function = partial(_stat_many, follow_symlinks=follow_symlinks)
    chunk = (ITEMS_OF_A_CHUNK, BYTES_OF_PATHS)
    common: dict[str, Any] = {"callback": callback, "pri": pri, "timeout": timeout, "pool": pool}
    job = _Batch(function, batch, dir_fd, records, chunk, **common)
    job.start(job.feed)
    return job.group


def aio_load_many(
    paths: Sequence[Any],
    callback: Callable[..., object] | None = None,
    *,
    packed: bool = False,
    dir_fd: Any = None,
    pri: int | None = None,
    timeout: float | None = None,
    pool: Pool | None = None,
) -> Group:
    """
    Read many whole files: yields what each holds, in the order of the paths.

    `paths` as for aio_stat_many. Yields a list: bytes for each, or the OSError that says what
    failed. With `packed` it is (buffer, index): one Buffer with what all of them hold, and a numpy
    array with the fields `offset` and `size`, where in it that of each file is, and `err`, which is
    the errno of what failed and otherwise 0. The callback gets these as two arguments.

    As aio_load it reads to the end, of files without a size too (/proc). What is no regular file
    is opened twice, so it is better loaded by itself. The request fails only as a whole: without
    memory, aborted, or in a pool that is closed; then the callback gets None. Its `progress` is a
    BatchProgress.
    """
    numpy = _numpy() if packed else None
    batch, count = _pack(paths, array=packed)
    check_dir_fd(dir_fd)
    records = _Packed(numpy, count) if packed else [None] * count
    chunk = (FILES_OF_A_CHUNK, BYTES_OF_PATHS)
    common: dict[str, Any] = {"callback": callback, "pri": pri, "timeout": timeout, "pool": pool}
    job = _Loads(_load_many, batch, dir_fd, records, chunk, **common)
    job.start(job.feed)
    return job.group


def aio_read_many(
    fhs: Any,
    offsets: Any,
    lengths: Any,
    out: Buffer | Callable[..., object] | None = None,
    callback: Callable[..., object] | None = None,
    *,
    array: bool = False,
    pri: int | None = None,
    timeout: float | None = None,
    pool: Pool | None = None,
) -> Group:
    """
    Read from many places: yields what aio_read does for each, in their order.

    `fhs` is a file, for all, or a sequence of files; `offsets` and `lengths` are numbers, for all,
    or sequences or numpy arrays of integers. Sequences are equally long (ValueError); without any
    there is one read. Yields a list: bytes for each, or the OSError that says what failed.

    With `out`, a Buffer of the same pool, the bytes are read to there, without a copy: those of
    each place behind the room for those before, so that they begin where the lengths before add up
    to. Then the list has the numbers of bytes; with `array` it is a numpy array with the fields
    `size` and `err`, which is the errno of what failed and otherwise 0.

    The request fails only as a whole: without memory, aborted, or in a pool that is closed; then
    the callback gets None. Its `progress` is a BatchProgress.
    """
    if callable(out) and not isinstance(out, Buffer):
        if callback is not None:
            raise TypeError("aio_read_many() got several values for 'callback'")
        callback, out = out, None
    if array and out is None:
        raise ValueError("array goes with out: without it the result is the bytes")
    numpy = _numpy() if array else None
    files = fhs if isinstance(fhs, int) or hasattr(fhs, "fileno") else tuple(_plain(fhs))
    columns = [_column(offsets), _column(lengths)]
    sizes = {len(given) for given in (files, *columns) if isinstance(given, (tuple, memoryview))}
    if len(sizes) > 1:
        raise ValueError(f"sequences of different lengths: {sorted(sizes)}")
    count = sizes.pop() if sizes else 1
    packed, ends = _pack_reads(count, files, *columns)
    pool = default_pool() if pool is None else pool
    view = None if out is None else _view(out, _numbers(ends)[count], pool)
    records = _Records(numpy, SIZE_FIELDS, count) if array else [None] * count
    batch = (packed, ends, files, bool(array))
    chunk = (ITEMS_OF_A_CHUNK, BYTES_OF_READS)
    common: dict[str, Any] = {"callback": callback, "pri": pri, "timeout": timeout, "pool": pool}
    job = _Reads(_read_many, batch, view, records, chunk, **common)
    job.start(job.feed)
    return job.group


def _numpy() -> Any:
    try:
        import numpy as np  # noqa: PLC0415 - only for those who ask for arrays
    except ImportError as error:
        raise ImportError("results as arrays need numpy (pip install numpy)") from error
    return np


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _plain(values: Any) -> Any:
    return values.tolist() if _is_array(values) else values


def _column(values: Any) -> Any:
    """A number, memory with 64-bit numbers, or a tuple."""
    if _is_array(values) and values.ndim == 1 and values.dtype.kind in "iu":
        return memoryview(sys.modules["numpy"].ascontiguousarray(values, "int64"))
    if hasattr(values, "__index__") and not _is_array(values):
        return values
    return tuple(_plain(values))


def _numbers(ends: bytes) -> memoryview:
    return memoryview(ends).cast("Q")


def _pack(paths: Any, *, array: bool) -> tuple[tuple[bytes, bytes, Any, bool], int]:
    """What the chunks have in common (csrc/batch.c), and how many paths there are."""
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise TypeError(f"a sequence of paths is needed, not one path: {paths!r}")
    array = bool(array)
    if _is_array(paths) and paths.ndim == 1 and paths.dtype.kind in "SU" and paths.dtype.itemsize:
        names = sys.modules["numpy"].array(paths, dtype=paths.dtype.newbyteorder("="), order="C")
        is_text = paths.dtype.kind == "U"
        packed = _pack_path_array(names.view("u1"), names.dtype.itemsize, is_text)
    else:
        names = tuple(_plain(paths))
        packed = _pack_paths(names)
    return (*packed, None if array else names, array), len(names)


def _view(out: Any, size: int, pool: Pool) -> memoryview:
    if not isinstance(out, Buffer):
        raise TypeError(f"out must be a Buffer, not {type(out).__name__}")
    view = memoryview(out)
    if len(view) < size:
        raise ValueError(f"{size} bytes do not fit into the {len(view)} of out")
    if size and not _is_shared(out, pool):
        raise ValueError("out is a Buffer of another pool")
    return view


@final
class _Records:
    """A numpy array that is filled piece by piece."""

    def __init__(self, numpy: Any, fields: Any, count: int) -> None:
        self.array = numpy.empty(count, fields)
        self._size: int = self.array.dtype.itemsize
        self._bytes = memoryview(self.array.view("u1")) if count else memoryview(b"")

    def put(self, first: int, value: bytes) -> int:
        """Take over the records of some items: so many."""
        at = first * self._size
        self._bytes[at : at + len(value)] = value
        return len(value) // self._size

    def result(self, _: Pool) -> Any:
        """All of them."""
        return self.array


@final
class _Packed:
    """What files hold, piece by piece, until all are there."""

    def __init__(self, numpy: Any, count: int) -> None:
        self._numpy = numpy
        self._sizes = _Records(numpy, SIZE_FIELDS, count)
        self._pieces: dict[int, bytes] = {}

    def put(self, first: int, value: tuple[bytes, bytes]) -> int:
        """Take over some items: so many."""
        records, data = value
        self._pieces[first] = data
        return self._sizes.put(first, records)

    def result(self, pool: Pool) -> tuple[Buffer, Any]:
        """One piece of all."""
        sizes = self._sizes.array
        index = self._numpy.zeros(len(sizes), INDEX_FIELDS)
        index["size"], index["err"] = sizes["size"], sizes["err"]
        index["offset"][1:] = sizes["size"].cumsum()[:-1]
        buffer = Buffer(int(sizes["size"].sum()), pool)
        at = 0
        with memoryview(buffer) as view:
            for first in sorted(self._pieces):
                data = self._pieces.pop(first)
                view[at : at + len(data)] = data
                at += len(data)
        return buffer, index


class _Batch(TreeJob):
    """A batch at work: a cursor, which makes chunks, and what they have brought."""

    def __init__(
        self,
        function: Callable[..., Any],
        batch: tuple[bytes, bytes, Any, bool],
        place: Any,
        results: Any,
        chunk: tuple[int, int],
        *,
        callback: Callable[..., object] | None,
        pri: int | None,
        timeout: float | None,
        pool: Pool | None,
    ) -> None:
        """
        Make the group. `function` makes the request for a chunk, in `place`: dir_fd, or out.

        `results` is a list with a place for each item, or what takes records. `chunk`: at most so
        many items, and so many bytes and those of one more item.
        """
        super().__init__(callback, pri, pool, None, timeout=timeout, failed=None)
        chunks = CHUNKS_FOR_A_WORKER * self.pool.min_parallel()
        self._limit = self._most = min(MOST_CHUNKS, max(2, chunks))
        self._function = function
        self._batch = batch
        self._items, self._ends, self._names, self._as_records = batch
        self._at = _numbers(self._ends)
        self._total = len(self._at) - 1
        self._place = place
        self._results = results
        self._most_items, self._most_bytes = chunk
        self._next = 0
        self.progress = BatchProgress(self._total)
        self.group.progress = self.progress

    def feed(self) -> None:
        """Make the next chunk, and come back for another one."""
        first = self._next
        if first < self._total:
            self._next = self._end_of(first)
            self.later(self.feed)
            self.later(self.request, first, self._next)
        self._end_if_done()

    def _end_of(self, first: int) -> int:
        last = min(first + self._most_items, self._total)
        most = self._at[first] + self._most_bytes
        return max(first + 1, bisect_right(self._at, most, first, last + 1) - 1)

    def request(self, first: int, end: int) -> None:
        """Make the request for a chunk."""
        try:
            then = partial(self._done, first, end)
            self.ask(self._function, self._batch, first, end, self._place, then=then)
        except OSError as error:
            number = _errno.ENOMEM if error.errno in NO_MEMORY else 0
            if not self.put_off(number, self.request, first, end):
                raise

    def alone(self, item: int) -> None:
        """Make a request for one that no chunk has room for; its callback is `done_alone`."""
        raise NotImplementedError

    def name_of(self, item: int) -> Any:
        """What errors name."""
        return self._names[item]

    def _done(self, first: int, end: int, value: Any) -> None:
        if value is None:
            if not self.put_off(errno(), self.request, first, end):
                self.end(None, errno())
            return
        done = 1
        if value is False:
            self.later(self.alone, first)
        else:
            done = self._put(first, value)
            self.progress.done += done
        if first + done < end:
            self.later(self.request, first + done, end)
        self._end_if_done()

    def done_alone(self, item: int, value: Any) -> None:
        """Take over what has been done by itself."""
        number = errno()
        if number and self.put_off(number, self.alone, item):
            return
        if self._as_records:
            data = value or b""
            self._results.put(item, (struct.pack(SIZE_RECORD, len(data), number), data))
        elif number:
            name = self.name_of(item)
            names = () if name is None else (name,)
            kind = WorkerDied if is_unknown(number) else OSError
            self._results[item] = kind(number, os.strerror(number), *names)
        else:
            self._results[item] = value
        self.progress.done += 1
        self._end_if_done()

    def _put(self, first: int, value: Any) -> int:
        if self._as_records:
            return int(self._results.put(first, value))
        self._results[first : first + len(value)] = value
        return len(value)

    def _end_if_done(self) -> None:
        if self.progress.done == self._total:
            self.end(self._results.result(self.pool) if self._as_records else self._results)


@final
class _Loads(_Batch):
    def alone(self, item: int) -> None:
        """Load a large file by itself."""
        path = self._items[self._at[item] : self._at[item + 1] - 1]
        then = partial(self.done_alone, item)
        self.ask(aio_load, path, then=then, dir_fd=self._place)


@final
class _Reads(_Batch):
    def request(self, first: int, end: int) -> None:
        """Make the request for a chunk; what is larger than one is read by itself."""
        if self._place is None and self._at[end] - self._at[first] > BYTES_OF_READS:
            self.alone(first)
        else:
            super().request(first, end)

    def alone(self, item: int) -> None:
        """Read much at a time."""
        offset, length, _, fd = struct.unpack_from(READ, self._items, item * READ_SIZE)
        self.ask(aio_read, fd, offset, length, then=partial(self.done_alone, item))

    def name_of(self, item: int) -> Any:
        """As csrc/batch.c names it."""
        file = self._names[item] if isinstance(self._names, tuple) else self._names
        return file.name if isinstance(file, FileHandle) else None
