"""What the tests of deadlines and abort() share."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

import pytest

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


@dataclass(frozen=True)
class Force:
    """How a request is ended: by its deadline, or by abort()."""

    how: str
    errno: int

    @property
    def keywords(self) -> dict[str, Any]:
        """What it is made with. The time is over when the program polls next."""
        return {"timeout": 0} if self.how == "deadline" else {}

    def apply(self, request: procaio.Request[Any]) -> None:
        """It must be there still; the next poll ends it."""
        assert self.how == "deadline" or request.abort()

    def end(self, request: procaio.Request[Any]) -> OSError:
        """Apply it, and give the error with which the request ends."""
        self.apply(request)
        return self.error_of(request)

    def error_of(self, request: procaio.Request[Any]) -> OSError:
        """Wait for it."""
        with pytest.raises(OSError, match=MESSAGES[self.errno]) as raised:
            request.wait(timeout=30)
        assert raised.value.errno == self.errno
        assert request.error
        assert request.error.errno == self.errno
        assert isinstance(raised.value, TimeoutError) == (self.how == "deadline")
        assert not request.abort()
        return raised.value
