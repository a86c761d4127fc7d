"""
Static files by Starlette, and so by FastAPI: conditional requests, ranges, nothing outside.

    python static_files.py DIRECTORY PORT

`ProcaioFileResponse` is an ASGI response to take over; `application` serves a directory with it.
The loop waits for no file: a slow disk delays those who asked for what is on it, and nobody else.
"""

from __future__ import annotations

import contextlib
import errno
import mimetypes
import os
import re
import socket
import stat
import sys
from email.utils import formatdate, mktime_tz, parsedate_tz
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.routing import Route

import procaio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

FLAGS = os.O_RDONLY | os.O_NONBLOCK  # a FIFO does not wait for its other end
NO_SUCH_FILE = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG),
    errno.ENXIO,  # a socket
}
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
mimetypes.init()  # it reads files, too: now, and not in the middle of a request


class ProcaioFileResponse(StreamingResponse):
    """A file, or the part of it that is asked for. What leads out of `root` is not there."""

    block_size = 64 * 1024

    def __init__(
        self, path: str, *, root: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Touch nothing yet. `root` is a path as os.path.realpath() gives it."""
        kind, coding = mimetypes.guess_type(path)
        media_type = kind if kind and not coding else "application/octet-stream"
        super().__init__((), headers=headers, media_type=media_type)
        self.path = path if root is None else os.path.normpath(os.path.join(root, path))
        self.inside = "" if root is None else os.path.join(root, "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the file, answer, and close it, whoever goes away meanwhile."""
        fh = await self.open()
        try:
            st = await procaio.aio_stat(fh)
            span = self.decide(st, scope["method"], Headers(scope=scope))
            self.body_iterator = self.blocks(fh, span)
            if len(span) > self.block_size:
                await super().__call__(scope, receive, send)  # stops when the client goes
            else:
                await self.stream_response(send)
                if self.background:
                    await self.background()
        finally:
            procaio.aio_close(fh)  # not awaited: so it is done in a cancelled task, too

    async def open(self) -> procaio.FileHandle:
        """Open the file if it is where it may be."""
        if not self.path.startswith(self.inside):
            raise HTTPException(404)
        try:
            fh = await procaio.aio_open(self.path, FLAGS)
        except ValueError as error:  # a NUL in the name
            raise HTTPException(404) from error
        except OSError as error:
            if error.errno in NO_SUCH_FILE:
                raise HTTPException(404) from error
            raise
        # Where symlinks have led to: no race, as this asks what is open. No disk is asked.
        if os.readlink(f"/proc/self/fd/{fh.fileno()}").startswith(self.inside):
            return fh
        procaio.aio_close(fh)
        raise HTTPException(404)

    def decide(self, st: os.stat_result, method: str, wanted: Headers) -> range:
        """Set status and headers. Gives what is to be sent of the file."""
        if not stat.S_ISREG(st.st_mode):
            raise HTTPException(404)
        changed = formatdate(st.st_mtime, usegmt=True)
        etag = f'"{st.st_mtime_ns:x}-{st.st_size:x}"'
        self.headers.update({"etag": etag, "last-modified": changed, "accept-ranges": "bytes"})
        if is_known(wanted, etag, st.st_mtime):
            self.status_code = 304
            return range(0)
        span = None
        if method == "GET" and wanted.get("if-range", etag) in {etag, changed}:
            span = part(wanted.get("range", ""), st.st_size)
        if span is None:
            self.headers["content-length"] = str(st.st_size)
            return range(st.st_size if method == "GET" else 0)
        if not span:
            raise HTTPException(416, headers={"content-range": f"bytes */{st.st_size}"})
        self.status_code = 206
        self.headers["content-length"] = str(len(span))
        self.headers["content-range"] = f"bytes {span.start}-{span.stop - 1}/{st.st_size}"
        return span

    async def blocks(self, fh: procaio.FileHandle, span: range) -> AsyncIterator[bytes]:
        """Read a block when the one before is on its way: a slow client costs no memory."""
        while span:
            data = await procaio.aio_read(fh, span.start, min(len(span), self.block_size))
            if not data:
                raise EOFError(f"{self.path} was made shorter")
            yield data
            span = span[len(data) :]


def is_known(wanted: Headers, etag: str, changed: float) -> bool:
    """Whether the client has the file as it is."""
    if (tags := wanted.get("if-none-match")) is not None:
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return not known.isdisjoint({etag, "*"})
    try:
        since = parsedate_tz(wanted.get("if-modified-since", ""))
        return since is not None and int(changed) <= mktime_tz(since)
    except (ValueError, OverflowError):  # dates that there are not
        return False


def part(header: str, size: int) -> range | None:
    """Give what a Range asks for; None for all: none, nonsense, or several parts at once."""
    found = RANGE.fullmatch(header)
    if not found or found[0] == "bytes=-":
        return None
    if not found[1]:
        return range(max(0, size - int(found[2])), size)
    first, last = int(found[1]), int(found[2] or size)
    return None if last < first else range(first, min(last + 1, size))


def application(directory: str) -> Starlette:
    """Serve the files below a directory: a whole application, or one to mount in another."""
    root = os.path.realpath(directory)

    async def file(request: Request) -> ProcaioFileResponse:
        return ProcaioFileResponse(request.path_params["path"], root=root)

    return Starlette(routes=[Route("/{path:path}", file)])  # GET and HEAD; else it says 405


if __name__ == "__main__":
    with (
        contextlib.suppress(KeyboardInterrupt),
        socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener,
    ):
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(application(sys.argv[1]), log_level="warning")
        uvicorn.Server(config).run(sockets=[listener])
