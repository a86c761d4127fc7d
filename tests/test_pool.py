"""Pool: workers on demand, settings, statistics, and its end (rules O1 to O4)."""

from __future__ import annotations

import procaio

# -- the end ----------------------------------------------------------------------------------------


def test_close_of_the_default_pool_waits_for_what_callbacks_request() -> None:
    """Requests that callbacks make while the default pool closes belong to it, not to a new one."""
    seen = []
    procaio.aio_nop(lambda: procaio.aio_nop(lambda: seen.append(procaio.nreqs())))
    pool = procaio.default_pool()
    procaio.close()
    assert seen == [0]
    assert pool.closed
    assert procaio.default_pool() is not pool
