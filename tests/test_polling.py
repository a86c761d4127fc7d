"""Polling: how a program learns of results, and what a callback may do to it (rules A2, A14, N)."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually

if TYPE_CHECKING:
    from conftest import Gate


def is_readable(pool: procaio.Pool, seconds: float = 0) -> bool:
    """What select() says of the pool's descriptor."""
    return bool(select.select([pool.poll_fileno()], [], [], seconds)[0])


def poll_until(pool: procaio.Pool, requests: list[procaio.Request]) -> None:
    """Poll as an event loop does: only when the descriptor says so."""
    while not all(request.state == "done" for request in requests):
        assert is_readable(pool, 20), "the descriptor stays silent"
        pool.poll_cb()


# -- interrupted from inside ------------------------------------------------------------------------


def test_descriptor_rings_again_after_exit_left_poll_cb(workers: procaio.Pool, gate: Gate) -> None:
    """An exception out of poll_cb does not make the descriptor miss what ends later (N1)."""

    def leave() -> None:
        raise SystemExit(3)

    held = gate.hold(workers)
    procaio.aio_nop(leave, pool=workers)
    with pytest.raises(SystemExit):
        workers.flush()
    gate.open()
    poll_until(workers, held)


def test_pool_closed_by_a_callback_that_exits_is_closed() -> None:
    """The worst that a callback can do to poll_cb ends with the exception, not with a crash."""
    pool = procaio.Pool(inline=True)

    def leave() -> None:
        pool.close()
        raise SystemExit(3)

    procaio.aio_nop(leave, pool=pool)
    with pytest.raises(SystemExit):
        pool.poll_cb()
    assert pool.closed
