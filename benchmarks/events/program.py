"""
The program that things happen to: it does what it is told on its input, with one contender.

A line of input is a command as JSON, a line of output its answer. The program is an ordinary one of
asyncio, `asyncio.run(main())`, and ends as such a program ends; nothing in it helps its contender.
perl/events.pl is the same for IO::AIO.

    {"do": "begin", "number": 1, "call": ["read", "fifo"], "limit": 0.3}
    {"do": "wait", "number": 1, "seconds": 3}       gives the word for its end, and the value
    {"do": "blocks", "path": ..., "seconds": 3} reads the file in blocks: "right", "wrong", ...
    {"do": "fork", "path": ..., "seconds": 3}   likewise, in a child, too
    {"do": "hold", "size": N}                   takes and fills memory; 0: gives it back
    {"do": "end"}
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.events.peers import BLOCK, MAKERS, Peer
from benchmarks.measure import MissingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def word_of(error: BaseException) -> str:
    """Name an error, with its errno if that is all it says."""
    name = type(error).__name__
    if type(error) is OSError and error.errno:
        return f"{name} {errno.errorcode.get(error.errno, error.errno)}"
    return name


async def ended(future: Awaitable[Any], seconds: float) -> dict[str, Any]:
    """Wait for a call without giving it up, and say what has become of it."""
    task = asyncio.ensure_future(future)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done:
        return {"word": "hangs"}
    try:
        value = task.result()
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, it is told
        return {"word": word_of(error)}
    return {"word": "done", "value": value.decode("latin-1") if isinstance(value, bytes) else value}


class Program:
    """The commands."""

    def __init__(self, make: Callable[[], Peer]) -> None:
        """The contender is made with the first call."""
        self.make = make
        self._peer: Peer | None = None
        self.calls: dict[int, Awaitable[Any]] = {}
        self.held: bytearray | None = None

    @property
    def peer(self) -> Peer:
        """The contender."""
        if self._peer is None:
            self._peer = self.make()
        return self._peer

    async def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what the command says, and give its answer."""
        return await getattr(self, command.pop("do"))(**command)

    async def begin(
        self, number: int, call: list[Any], limit: float | None = None
    ) -> dict[str, Any]:
        """Begin a call."""
        peer = self.peer
        try:
            begun = peer.call(*call) if limit is None else peer.limited(limit, *call)
        except Exception as error:  # noqa: BLE001 - as above
            begun = asyncio.get_running_loop().create_future()
            begun.set_exception(error)
        # What is no coroutine has begun by itself, and is not cancelled when the loop ends.
        is_coroutine = asyncio.iscoroutine(begun)
        self.calls[number] = asyncio.ensure_future(begun) if is_coroutine else begun
        await asyncio.sleep(0)
        return {}

    async def wait(self, number: int, seconds: float) -> dict[str, Any]:
        """Wait for its end."""
        return await ended(self.calls[number], seconds)

    async def blocks(self, path: str, seconds: float) -> dict[str, Any]:
        """Read a file in blocks, all at once."""
        try:
            return {"word": await self._blocks(path, seconds)}
        except Exception as error:  # noqa: BLE001 - as above
            return {"word": word_of(error)}

    async def _blocks(self, path: str, seconds: float) -> str:
        with open(path, "rb") as file:  # noqa: ASYNC230 - nothing else is to be done meanwhile
            content = file.read()
        offsets = range(0, len(content), BLOCK)
        calls = [self.peer.call("block", path, offset) for offset in offsets]
        end = time.monotonic() + seconds
        for offset, call in zip(offsets, calls, strict=True):
            answer = await ended(call, max(0.0, end - time.monotonic()))
            if answer["word"] != "done":
                return answer["word"]
            if answer["value"].encode("latin-1") != content[offset : offset + BLOCK]:
                return "wrong bytes"
        return "right"

    async def fork(self, path: str, seconds: float) -> dict[str, Any]:
        """Read the file in blocks in a child, and here at the same time."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._in_child(path, seconds, writer)
        os.close(writer)
        here = await self.blocks(path, seconds)
        loop = asyncio.get_running_loop()
        told = loop.create_future()
        loop.add_reader(reader, lambda: told.done() or told.set_result(os.read(reader, 1000)))
        done, _ = await asyncio.wait([told], timeout=seconds + 1)
        loop.remove_reader(reader)
        os.close(reader)
        there = told.result().decode() if done else "hangs"
        if not done:
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it is dead, or about to be
        return {"child": there or "dies", "parent": here["word"]}

    def _in_child(self, path: str, seconds: float, writer: int) -> None:
        # The loop that runs is the parent's; a child of asyncio begins with a new one.
        try:
            asyncio.set_event_loop(None)
            asyncio.events._set_running_loop(None)
            answer = asyncio.new_event_loop().run_until_complete(self.blocks(path, seconds))
            os.write(writer, answer["word"].encode())
        except BaseException as error:  # noqa: BLE001 - as above
            os.write(writer, word_of(error).encode())
        finally:
            os._exit(0)

    async def hold(self, size: int) -> dict[str, Any]:
        """Have that much memory, every page of it written to."""
        self.held = bytearray(b"x") * size if size else None
        return {}


async def main() -> None:
    """Obey until the end."""
    program = Program(MAKERS[sys.argv[1]][1])
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command = json.loads(line)
        if command["do"] == "end":
            break
        try:
            answer = await program.obey(command)
        except MissingError as missing:
            answer = {"missing": str(missing)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
