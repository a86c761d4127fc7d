"""What happens to a request while shared memory is made for it: that lets other threads run."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually, kill
from procaio import _core, _pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARED_SEGMENT = 32 << 20


class Closed(procaio.Pool):  # type: ignore[misc]  # final for users
    """Its processes are ended at the moment at which shared memory is made for a request."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.closer: threading.Thread | None = None
        super().__init__(at_once=False)

    def _kill(self, error: int) -> None:
        super()._kill(error)
        self.gone.set()


def test_request_for_which_memory_is_made_ends_with_its_pool(
    monkeypatch: pytest.MonkeyPatch, fd: int
) -> None:
    make: Callable[..., int] = _pool.create_shared_memory

    def slowly(size: int, elsewhere: bool = False) -> int:
        if size != _core.SEGMENT_SIZE:
            pool.closer = threading.Thread(target=pool._close, args=(0,))
            pool.closer.start()
            pool.gone.wait()
        return make(size, elsewhere)

    monkeypatch.setattr(_pool, "create_shared_memory", slowly)
    pool = Closed()
    request = procaio.aio_read(fd, 0, 100_000, pool=pool)
    assert pool.closer
    pool.closer.join(30)
    assert pool.closed
    assert not pool.closer.is_alive()
    assert request.errno == errno.ECANCELED


# -- between two steps -----------------------------------------------------------------------------


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    """A file whose second step needs memory of its own."""
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * 200 + b"end")
    with path.open("r+b") as file:
        file.truncate(SHARED_SEGMENT + (1 << 20))
    return path


def between_steps(
    monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]
) -> Callable[[], bool]:
    """Let another thread do something, once, while memory is made for a second step. Tells whether
    it was done.
    """
    make: Callable[..., int] = _pool.create_shared_memory
    threads: list[threading.Thread] = []

    def slowly(size: int, elsewhere: bool = False) -> int:
        if size > SHARED_SEGMENT and not threads:
            threads.append(threading.Thread(target=what))
            threads[0].start()
            threads[0].join(30)
        return make(size, elsewhere)

    monkeypatch.setattr(_pool, "create_shared_memory", slowly)
    return lambda: bool(threads) and not threads[0].is_alive()


def test_load_ends_with_its_pool_between_two_steps(
    monkeypatch: pytest.MonkeyPatch, large_file: Path
) -> None:
    """It is ended once, by whoever ends the pool or by whoever had it in hand."""
    was_ended = between_steps(monkeypatch, lambda: pool._kill(errno.ECANCELED))
    pool = procaio.Pool(at_once=False)
    ended: list[object] = []
    request = procaio.aio_load(large_file, callback=ended.append, pool=pool)
    pool.flush()
    assert was_ended()
    assert ended == [None]
    assert request.errno == errno.ECANCELED
    assert (pool.nreqs(), pool.npending()) == (0, 0)
    pool._release()


def test_load_ends_with_the_descriptors_of_its_pool_between_two_steps(
    monkeypatch: pytest.MonkeyPatch, large_file: Path
) -> None:
    """Likewise when the program has closed them."""

    def lose() -> None:
        os.close(pool.poll_fileno())
        pool.poll_cb()

    were_closed = between_steps(monkeypatch, lose)
    with procaio.Pool(at_once=False) as pool:
        ended: list[object] = []
        request = procaio.aio_load(large_file, callback=ended.append, pool=pool)
        pool.flush()
        assert were_closed()
        assert ended == [None]
        assert request.errno == errno.EBADF
        assert procaio.aio_nop(pool=pool).wait() is None


def test_worker_dies_between_two_steps_of_a_load(
    monkeypatch: pytest.MonkeyPatch, large_file: Path
) -> None:
    """What it has brought is taken once."""

    def end_worker() -> None:
        kill(pool.statistics().workers[0].pid)

        def is_buried() -> bool:
            pool.poll_cb()
            return pool.statistics().worker_deaths == 1

        eventually(is_buried, "the worker is buried")

    has_died = between_steps(monkeypatch, end_worker)
    with procaio.Pool(workers=1, at_once=False) as pool:
        assert procaio.aio_load(large_file, pool=pool).wait() == large_file.read_bytes()
        assert has_died()
