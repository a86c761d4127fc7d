"""A request that is still being made when its pool is closed ends like the others."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import procaio
from procaio import _core, _pool

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


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
