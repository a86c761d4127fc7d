"""
A client for HTTP/1.1 that does nothing but ask again, and note how long each answer took.

One asyncio protocol for each connection, and no parsing beyond status and Content-Length: an
answer costs the client some 20 microseconds, a tenth of what it costs the server.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, cast

from benchmarks.measure import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Sequence

END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length: "


@dataclass
class Clock:
    """Which answers count: those that were asked for and have come in this time."""

    start: float = float("inf")
    end: float = float("inf")


@dataclass
class Path:
    """What is asked for, how large it is, and how long it took each time, in seconds."""

    path: str
    size: int
    took: list[float] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One connection, over which one path is asked for again and again."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Wait for the connection."""
        self._path = path
        self._clock = clock
        self._request = f"GET {path.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._head = b""
        self._missing = -1  # of the content; the head is not complete
        self._asked = 0.0
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        self._asked = perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count what has come, and ask again when it is all."""
        if self._missing < 0:
            self._head += data
            end = self._head.find(END_OF_HEAD)
            if end < 0:
                return
            data = self._head[end + len(END_OF_HEAD) :]
            if not self._is_right(self._head[: end + 2].lower()):
                self._fail(self._head[: self._head.find(b"\r")].decode())
                return
            self._head = b""
            self._missing = self._path.size
        self._missing -= len(data)
        if self._missing == 0:
            now = perf_counter()
            if self._asked >= self._clock.start and now <= self._clock.end:
                self._path.took.append(now - self._asked)
            self._missing = -1
            self._ask()

    def _is_right(self, head: bytes) -> bool:
        return head.startswith(b"http/1.1 200 ") and LENGTH + b"%d\r\n" % self._path.size in head

    def _fail(self, why: str) -> None:
        self._transport.abort()
        if not self.lost.done():
            self.lost.set_exception(WrongResultError(f"{self._path.path}: {why}"))

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever ends the measuring closes it; the server must not."""
        if not self.lost.done():
            why = f"{self._path.path}: the server hung up: {error}"
            self.lost.set_exception(WrongResultError(why))

    def close(self) -> None:
        """End it in the middle of whatever comes."""
        if not self.lost.done():
            self.lost.set_result(None)
        self._transport.abort()


class Clients:
    """So many connections for each path. They ask as long as the context lasts."""

    def __init__(self, port: int, paths: Sequence[Path], connections: int) -> None:
        """Nothing is connected yet."""
        self._port = port
        self._paths = paths
        self._connections = connections
        self._all: list[Connection] = []
        self.clock = Clock()

    async def __aenter__(self) -> Clients:  # noqa: PYI034  typing.Self is newer than Python 3.10
        """Connect."""
        loop = asyncio.get_running_loop()
        for path in self._paths:
            for _ in range(self._connections):
                make = partial(Connection, path, self.clock)
                _, connection = await loop.create_connection(make, "127.0.0.1", self._port)
                self._all.append(connection)
        return self

    async def run(self, seconds: float) -> None:
        """Let them ask for so long. Raises what went wrong in one of them."""
        await asyncio.wait(
            [connection.lost for connection in self._all],
            timeout=seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for connection in self._all:
            if connection.lost.done():
                connection.lost.result()

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        for connection in self._all:
            connection.close()
            if not connection.lost.cancelled():
                connection.lost.exception()  # that of the first one was raised
