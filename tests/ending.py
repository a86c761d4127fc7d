"""What the tests of deadlines and abort() share."""

from __future__ import annotations

import errno

import procaio

LATER = 3600
MESSAGES = {
    errno.ETIMEDOUT: "the request has not ended in time",
    errno.ECANCELED: "the request was aborted",
}


def deadlines(pool: procaio.Pool) -> int:
    """How many the pool keeps."""
    return pool._snapshot()["deadlines"]


def works(pool: procaio.Pool) -> bool:
    return procaio.aio_nop(pool=pool).wait(timeout=30) is None


def nobody_was_hurt(pool: procaio.Pool) -> bool:
    """Workers that were ended on purpose do not count as dead."""
    statistics = pool.statistics()
    return (statistics.rerun, statistics.died, statistics.worker_deaths) == (0, 0, 0)
