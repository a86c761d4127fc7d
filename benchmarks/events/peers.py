"""
The contenders: how each of them does the three calls that all events are made of.

`read` reads one byte from a file that is never ready: a FIFO that nobody writes to, or a file of a
file system that does not answer. `block` reads 16 bytes at an offset. `write` makes a small file.
Each contender has WORKERS threads or processes, where it has any, and is used as its manual says.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Kind, need
from benchmarks.measure import MissingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor

WORKERS = 4
BLOCK = 16
WRITTEN = b"written"


def read(path: str) -> bytes:
    """Open and read one byte, blocking."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1)
    finally:
        os.close(fd)


def block(path: str, offset: int) -> bytes:
    """Read a block, blocking."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, BLOCK, offset)
    finally:
        os.close(fd)


def write(path: str) -> int:
    """Make a file, blocking."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        return os.write(fd, WRITTEN)
    finally:
        os.close(fd)


OPERATIONS = {"read": read, "block": block, "write": write}


class Peer(ABC):
    """One contender. It is made in a running loop."""

    @abstractmethod
    def call(self, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Begin a call; it is given up by cancelling what this returns."""

    def limited(self, limit: float, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Begin a call that is to take `limit` seconds at most."""
        return asyncio.wait_for(self.call(operation, *arguments), limit)


class Procaio(Peer):
    """Requests of a pool, which does nothing without its processes."""

    def __init__(self) -> None:
        """Make the pool."""
        import procaio  # noqa: PLC0415 - what does not use it is not to load it

        self.module = procaio
        self.pool = procaio.Pool(WORKERS, at_once=False)

    def call(self, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Make the request."""
        return getattr(self, operation)(*arguments)

    def limited(self, limit: float, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Make it with a deadline."""
        return getattr(self, operation)(*arguments, timeout=limit)

    def read(self, path: str, **keywords: Any) -> Awaitable[bytes]:
        """Read at the position, which a FIFO has not."""
        fd = os.open(path, os.O_RDONLY)
        return self.module.aio_read(fd, None, 1, pool=self.pool, **keywords)

    def block(self, path: str, offset: int) -> Awaitable[bytes]:
        """Read a block."""
        fd = os.open(path, os.O_RDONLY)
        return self.module.aio_read(fd, offset, BLOCK, pool=self.pool)

    def write(self, path: str) -> Awaitable[int]:
        """Make a file."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        return self.module.aio_write(fd, 0, None, WRITTEN, pool=self.pool)


class Futures(Peer):
    """An executor of concurrent.futures, which nobody shuts down: the interpreter does."""

    def __init__(self, make: Callable[[], Executor]) -> None:
        """Make it."""
        self.executor = make()

    def call(self, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Submit the function."""
        return asyncio.wrap_future(self.executor.submit(OPERATIONS[operation], *arguments))


class Multiprocessing(Peer):
    """multiprocessing.Pool, whose callbacks set the results of futures."""

    def __init__(self) -> None:
        """Start its processes."""
        from multiprocessing import Pool  # noqa: PLC0415 - as above

        self.pool = Pool(WORKERS)

    def call(self, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Submit the function."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def ended(give: Callable[[Any], None], value: Any) -> None:
            loop.call_soon_threadsafe(lambda: future.done() or give(value))

        self.pool.apply_async(
            OPERATIONS[operation],
            arguments,
            callback=partial(ended, future.set_result),
            error_callback=partial(ended, future.set_exception),
        )
        return future


class ToThread(Peer):
    """asyncio.to_thread, by the threads of the loop."""

    def __init__(self) -> None:
        """Give it as many threads as the others have."""
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WORKERS))

    def call(self, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Call the function in a thread."""
        return asyncio.create_task(asyncio.to_thread(OPERATIONS[operation], *arguments))


class Aiofiles(ToThread):
    """aiofiles: its files, and threads of the loop."""

    def __init__(self) -> None:
        """Find it."""
        super().__init__()
        self.module = need("aiofiles")

    def call(self, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Open the file and use it."""
        return asyncio.create_task(getattr(self, operation)(*arguments))

    async def read(self, path: str) -> bytes:
        """Read one byte."""
        async with self.module.open(path, "rb", buffering=0) as file:
            return await file.read(1)

    async def block(self, path: str, offset: int) -> bytes:
        """Seek and read."""
        async with self.module.open(path, "rb", buffering=0) as file:
            await file.seek(offset)
            return await file.read(BLOCK)

    async def write(self, path: str) -> int:
        """Make a file."""
        async with self.module.open(path, "wb", buffering=0) as file:
            return await file.write(WRITTEN)


class Anyio(Peer):
    """anyio.to_thread, whose threads may be left alone."""

    def __init__(self) -> None:
        """Give it as many threads as the others have."""
        self.to_thread = need("anyio.to_thread")
        self.to_thread.current_default_thread_limiter().total_tokens = WORKERS

    def call(self, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Call the function in a thread."""
        run = self.to_thread.run_sync(OPERATIONS[operation], *arguments, abandon_on_cancel=True)
        return asyncio.create_task(run)


class Caio(Peer):
    """caio, with one of its three ways."""

    def __init__(self, module: str, **options: int) -> None:
        """Make the context."""
        try:
            self.context = need(module).AsyncioContext(**options)
        except OSError as error:  # built, but the kernel refuses
            raise MissingError(str(error)) from error

    def call(self, operation: str, *arguments: Any) -> Awaitable[Any]:
        """Open the file, and submit what is to be done with it."""
        return asyncio.create_task(getattr(self, operation)(*arguments))

    async def read(self, path: str) -> bytes:
        """Read one byte."""
        return await self.context.read(1, os.open(path, os.O_RDONLY), 0)

    async def block(self, path: str, offset: int) -> bytes:
        """Read a block."""
        return await self.context.read(BLOCK, os.open(path, os.O_RDONLY), offset)

    async def write(self, path: str) -> int:
        """Make a file."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        return await self.context.write(WRITTEN, fd, 0)


def _spawned() -> Executor:
    from multiprocessing import get_context  # noqa: PLC0415 - as above

    return ProcessPoolExecutor(WORKERS, get_context("spawn"))


PERL = "Perl IO::AIO"  # by perl/events.pl
MAKERS: dict[str, tuple[Kind, Callable[[], Peer]]] = {
    "procaio": (Kind.PROCAIO, Procaio),
    "ThreadPoolExecutor": (
        Kind.BASELINE,
        partial(Futures, partial(ThreadPoolExecutor, WORKERS)),
    ),
    "asyncio.to_thread": (Kind.BASELINE, ToThread),
    "ProcessPoolExecutor": (
        Kind.BASELINE,
        partial(Futures, partial(ProcessPoolExecutor, WORKERS)),
    ),
    "ProcessPoolExecutor, spawn": (Kind.BASELINE, partial(Futures, _spawned)),
    "multiprocessing.Pool": (Kind.BASELINE, Multiprocessing),
    "anyio.to_thread": (Kind.PEER, Anyio),
    "aiofiles": (Kind.PEER, Aiofiles),
    "caio, C threads": (
        Kind.PEER,
        partial(Caio, "caio.thread_aio_asyncio", pool_size=WORKERS),
    ),
    "caio, io_uring": (Kind.PEER, partial(Caio, "caio.linux_uring_asyncio")),
    "caio, Linux AIO": (Kind.PEER, partial(Caio, "caio.linux_aio_asyncio")),
}
KINDS = {name: kind for name, (kind, _) in MAKERS.items()} | {PERL: Kind.PEER}
