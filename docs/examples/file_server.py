"""
A small file server: GET over HTTP, the files of one directory, with sendfile.

    python file_server.py DIRECTORY PORT

The event loop waits for sockets; workers open, measure, send and close files. A slow disk delays
the client that asked for it, and nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import sys
from urllib.parse import unquote

import procaio

# No symlink leads out of the directory, and a FIFO does not wait for its other end.
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


async def writable(client: socket.socket) -> None:
    """Wait until the socket takes more."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(client, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(client)


async def send(client: socket.socket, fh: procaio.FileHandle, size: int) -> None:
    """Send the head of the answer, then the file, as fast as the client takes it."""
    head = f"HTTP/1.0 200 OK\r\nContent-Length: {size}\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(client, head.encode())
    sent = 0
    while sent < size:
        try:
            count = await procaio.aio_sendfile(client, fh, sent, size - sent)
        except BlockingIOError:  # the socket is full, and nothing was sent
            await writable(client)
        else:
            if count == 0:  # somebody has made the file shorter
                break
            sent += count


async def answer(client: socket.socket, root: procaio.FileHandle) -> None:
    """Read one request and answer it."""
    loop = asyncio.get_running_loop()
    with client, contextlib.suppress(ConnectionError):  # clients go when they like
        head = await loop.sock_recv(client, 8192)
        try:
            name = os.path.basename(unquote(head.split()[1].decode()))
            fh = await procaio.aio_open(name, FLAGS, dir_fd=root)
        except (IndexError, ValueError, OSError):
            await loop.sock_sendall(client, b"HTTP/1.0 404 Not Found\r\n\r\n")
            return
        try:
            st = await procaio.aio_stat(fh)
            if stat.S_ISREG(st.st_mode):
                await send(client, fh, st.st_size)
            else:
                await loop.sock_sendall(client, b"HTTP/1.0 403 Forbidden\r\n\r\n")
        finally:
            await procaio.aio_close(fh)


async def serve(directory: str, port: int) -> None:
    """Answer clients until interrupted."""
    loop = asyncio.get_running_loop()
    tasks = set()
    root = await procaio.aio_open(directory)
    with root, socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            client, _address = await loop.sock_accept(listener)
            task = asyncio.create_task(answer(client, root))
            tasks.add(task)  # the loop itself does not keep tasks alive
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
