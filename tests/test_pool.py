"""Pool: workers on demand, settings, statistics, and its end (rules O1 to O4)."""

from __future__ import annotations

import errno
import math
import resource

import pytest

import procaio
from conftest import descriptors

# -- the end ---------------------------------------------------------------------------------------


def test_close_of_the_default_pool_waits_for_what_callbacks_request() -> None:
    """Requests that callbacks make while the default pool closes belong to it, not to a new one."""
    seen = []
    procaio.aio_nop(lambda: procaio.aio_nop(lambda: seen.append(procaio.nreqs())))
    pool = procaio.default_pool()
    procaio.close()
    assert seen == [0]
    assert pool.closed
    assert procaio.default_pool() is not pool


# -- the beginning ---------------------------------------------------------------------------------


def test_pool_that_cannot_be_made_leaves_nothing() -> None:
    """Whichever descriptor is one too many: an OSError with EMFILE, and no descriptor is lost."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before, failed = descriptors(), 0
    for allowed in range(3, max(before) + 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, limits[1]))
        try:
            procaio.Pool().close()
            break
        except OSError as error:
            assert error.errno == errno.EMFILE
            failed += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert descriptors() == before
    else:
        pytest.fail("no number of descriptors was enough")
    assert failed >= 3


@pytest.mark.parametrize("seconds", [0, 1e-9, 1e10, math.inf])
def test_idle_timeout_may_be_any_time(seconds: float) -> None:
    """An idle_timeout of no time, or of all the time in the world, is one."""
    with procaio.Pool(idle_timeout=seconds) as made:
        assert procaio.aio_nop(pool=made).wait() is None


def test_pool_that_is_closed_while_it_starts_leaves_nothing() -> None:
    """Children that are killed in their first moment leave no descriptor in the shared table."""
    before = descriptors()
    for _ in range(100):
        pool = procaio.Pool()
        procaio.aio_nop(pool=pool).cancel()
        pool.close()
    assert descriptors() == before
