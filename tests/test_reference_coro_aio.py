"""The synopsis of Coro::AIO and what it says beside, with coroutines of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from typing import TYPE_CHECKING

import pytest

import procaio

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from conftest import Gate


def run(main: Coroutine[object, object, object]) -> None:
    """Run a coroutine in a loop of its own, for a minute at most."""
    asyncio.run(asyncio.wait_for(main, 60))


def test_synopsis_read_a_file_while_others_go_on(data_file: Path, gate: Gate) -> None:
    """Open, read up to a megabyte, close; a coroutine that waits for a disk holds up nobody."""
    seen: list[str] = []
    buffer = bytearray()

    async def slow() -> None:
        await procaio.aio_read(gate.fd, None, 1)
        seen.append("slow")

    async def main() -> None:
        waiting = asyncio.create_task(slow())
        fh = await procaio.aio_open(data_file, procaio.O_RDONLY, 0)
        assert await procaio.aio_read(fh, 0, 1_000_000, buffer, 0) == 65536
        assert await procaio.aio_close(fh) == 0
        seen.append("quick")
        gate.open()
        await waiting

    run(main())
    assert seen == ["quick", "slow"]
    assert buffer == data_file.read_bytes()


def test_synopsis_failures_are_exceptions_with_the_path(tmp_path: Path) -> None:
    """`or die` has become superfluous, and the end of a file is no failure."""

    async def main() -> None:
        with pytest.raises(FileNotFoundError) as caught:
            await procaio.aio_open(tmp_path / "no", procaio.O_RDONLY, 0)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, tmp_path / "no")
        (tmp_path / "empty").touch()
        with await procaio.aio_open(tmp_path / "empty") as fh:
            assert await procaio.aio_read(fh, 0, 1_000_000, bytearray(), 0) == 0

    run(main())


def test_every_function_returns_what_its_callback_gets(tmp_path: Path) -> None:
    """One after the other."""

    async def main() -> None:
        fh = await procaio.aio_open(tmp_path / "new", procaio.O_RDWR | procaio.O_CREAT, 0o600)
        assert await procaio.aio_write(fh, 0, None, b"content") == 7
        assert await procaio.aio_readahead(fh, 0, 7) == 0
        assert await procaio.aio_read(fh, 3, 4) == b"tent"
        assert await procaio.aio_fsync(fh) == 0
        assert await procaio.aio_fdatasync(fh) == 0
        mine, other = socket.socketpair()
        with mine, other:
            assert await procaio.aio_sendfile(mine, fh, 0, 7) == 7
            assert other.recv(99) == b"content"
        assert await procaio.aio_symlink("new", tmp_path / "link") == 0
        assert (await procaio.aio_stat(tmp_path / "link")).st_size == 7
        assert (await procaio.aio_lstat(tmp_path / "link")).st_size == 3
        assert sorted(await procaio.aio_readdir(tmp_path)) == ["link", "new"]
        dirs, nondirs = await procaio.aio_scandir(tmp_path, 0)
        assert (dirs, sorted(nondirs)) == ([], ["link", "new"])
        assert await procaio.aio_unlink(tmp_path / "link") == 0
        assert await procaio.aio_close(fh) == 0
        (tmp_path / "folder").mkdir()
        assert await procaio.aio_rmdir(tmp_path / "folder") == 0

    run(main())


def test_many_coroutines_each_have_their_own_last_stat(tmp_path: Path) -> None:
    """The result belongs to the call; nothing is shared that another coroutine could change."""

    async def size(number: int) -> int:
        path = tmp_path / f"{number}"
        path.write_bytes(bytes(number))
        st = await procaio.aio_stat(path)
        await asyncio.sleep(0)
        return st.st_size

    async def main() -> None:
        assert await asyncio.gather(*map(size, range(200))) == list(range(200))

    run(main())


def test_calls_with_callbacks_mix_with_coroutines(data_file: Path) -> None:
    """In one program, and on one request."""
    seen: list[object] = []

    async def main() -> None:
        other = procaio.aio_stat(data_file, lambda st: seen.append(st.st_size))
        st = await procaio.aio_stat(data_file, lambda st: seen.append(st.st_size))
        await other
        assert st.st_size == 65536

    run(main())
    assert seen == [65536, 65536]


def test_poll_cb_may_be_called_too(data_file: Path) -> None:
    """The loop does it by itself; whoever calls it as well does no harm."""

    async def main() -> None:
        requests = [procaio.aio_stat(data_file) for _ in range(10)]
        tasks = [asyncio.ensure_future(request) for request in requests]
        while procaio.nreqs():
            procaio.poll_cb()
            await asyncio.sleep(0)
        assert {st.st_size for st in await asyncio.gather(*tasks)} == {65536}

    run(main())


def test_callback_may_wait_and_start_coroutines(data_file: Path) -> None:
    """There the first blocks for ever, and the second is the way out; here both work."""
    seen: list[object] = []

    async def close(fh: procaio.FileHandle) -> None:
        seen.append(await procaio.aio_close(fh))

    async def main() -> None:
        done = asyncio.get_running_loop().create_future()

        def opened(fh: procaio.FileHandle) -> None:
            seen.append(procaio.aio_read(fh, 0, 16).wait())
            asyncio.ensure_future(close(fh)).add_done_callback(done.set_result)

        procaio.aio_open(data_file, opened)
        await procaio.aio_nop()  # the first await is what lets the loop watch the pool
        await done

    run(main())
    assert seen == [bytes(16), 0]


def test_cancelled_coroutine_gives_its_request_up(data_file: Path, gate: Gate) -> None:
    """Nobody waits for it any more; what has not begun never begins."""
    procaio.max_parallel(1)

    async def main() -> None:
        gate.hold(procaio.default_pool())
        task = asyncio.ensure_future(procaio.aio_unlink(data_file))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        gate.open()
        await procaio.aio_nop()

    run(main())
    assert os.path.exists(data_file)
