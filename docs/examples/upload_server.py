"""
Downloads and uploads with aiohttp: GET and PUT of the files of one directory.

    python upload_server.py DIRECTORY PORT [LARGEST]

An upload has no name until all of it is on the disk: what is interrupted leaves nothing, be it by
the client or by the end of the server, and readers see the old file or the new one.
"""

from __future__ import annotations

import contextlib
import mimetypes
import os
import secrets
import socket
import stat
import sys
from typing import TYPE_CHECKING

from aiohttp import web

import procaio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BLOCK = 256 * 1024
LONGEST = 255
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
UNNAMED = os.O_WRONLY | os.O_TMPFILE
mimetypes.init()


class Files:
    """The files of a directory, each at most `largest` bytes when it is uploaded."""

    root: procaio.FileHandle

    def __init__(self, directory: str, largest: int) -> None:
        """Touch nothing yet."""
        self.directory = directory
        self.largest = largest

    async def opened(self, _app: web.Application) -> AsyncIterator[None]:
        """Have the directory open while the server runs."""
        self.root = await procaio.aio_open(self.directory)
        with self.root:
            yield

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Send a file as fast as the client takes it."""
        try:
            fh = await procaio.aio_open(name_in(request), READ, dir_fd=self.root)
        except OSError as error:
            raise web.HTTPNotFound from error
        try:
            st = await procaio.aio_stat(fh)
            if not stat.S_ISREG(st.st_mode):
                raise web.HTTPNotFound
            response = web.StreamResponse()
            kind, coding = mimetypes.guess_type(request.path)
            response.content_type = kind if kind and not coding else "application/octet-stream"
            response.content_length = st.st_size
            with contextlib.suppress(ConnectionError):  # clients go when they like
                await response.prepare(request)
                if request.method == "GET":
                    await self.send(response, fh, st.st_size)
            return response
        finally:
            procaio.aio_close(fh)  # not awaited: so it is done in a cancelled task, too

    async def send(self, response: web.StreamResponse, fh: procaio.FileHandle, size: int) -> None:
        """Read a block when the one before is on its way: a slow client costs no memory."""
        sent = 0
        while sent < size:
            data = await procaio.aio_read(fh, sent, min(BLOCK, size - sent))
            if not data:
                raise EOFError("the file was made shorter")
            await response.write(data)
            sent += len(data)

    async def upload(self, request: web.Request) -> web.Response:
        """Take a file, and give it its name when it is safe."""
        name = name_in(request)
        if (request.content_length or 0) > self.largest:
            raise web.HTTPRequestEntityTooLarge(self.largest)
        fh = await procaio.aio_open(".", UNNAMED, 0o666, dir_fd=self.root)
        try:
            await self.store(request, fh)
            await procaio.aio_fsync(fh)
            await self.publish(fh, name)
        except (ConnectionError, web.RequestPayloadError) as error:  # not all of it came
            raise web.HTTPBadRequest from error
        except IsADirectoryError as error:  # which has the name
            raise web.HTTPConflict from error
        finally:
            procaio.aio_close(fh)
        return web.Response(status=201)

    async def store(self, request: web.Request, fh: procaio.FileHandle) -> None:
        """Write what comes. The client waits while it is written, and costs no memory."""
        written = 0
        async for data in request.content.iter_chunked(BLOCK):
            if written + len(data) > self.largest:  # it had not said how much it is
                raise web.HTTPRequestEntityTooLarge(self.largest)
            done = 0
            while done < len(data):  # a write may be shorter than asked for
                done += await procaio.aio_write(fh, written + done, None, data, done)
            written += done

    async def publish(self, fh: procaio.FileHandle, name: str) -> None:
        """Let the file appear in the place of the one before."""
        unique = f".{secrets.token_hex(16)}"
        root, unnamed = self.root, f"/proc/self/fd/{fh.fileno()}"
        try:
            await procaio.aio_link(unnamed, unique, dst_dir_fd=root, follow_symlinks=True)
            await procaio.aio_rename(unique, name, src_dir_fd=root, dst_dir_fd=root)
        except BaseException:
            procaio.aio_unlink(unique, dir_fd=root)
            raise
        await procaio.aio_fsync(root)  # the name, too


def name_in(request: web.Request) -> str:
    """Give the name of the file. No directories, nothing hidden, nothing that can be no name."""
    name = request.match_info["name"]
    if "/" in name or "\0" in name or name.startswith(".") or len(os.fsencode(name)) > LONGEST:
        raise web.HTTPNotFound
    return name


def application(directory: str, largest: int = 1 << 30) -> web.Application:
    """Give an application, to be run or to be a part of another one."""
    files = Files(directory, largest)
    app = web.Application()
    app.cleanup_ctx.append(files.opened)
    app.add_routes([web.get("/{name}", files.download), web.put("/{name}", files.upload)])
    return app


if __name__ == "__main__":
    with (
        contextlib.suppress(KeyboardInterrupt),
        socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener,
    ):
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        web.run_app(application(sys.argv[1], *map(int, sys.argv[3:])), sock=listener, print=None)
