"""
Helpers for tests: let a worker of a pool die at a chosen moment, or directories tell no types.

    from procaio import testing

    testing.arm(pool, "called")             # the next worker that has made a call is killed
    request = aio_write(fd, None, 1, b"x", pool=pool)
    with pytest.raises(procaio.WorkerDied):
        request.wait()

Every build has the points; what is tested is what is shipped.
"""

from __future__ import annotations

import contextlib
import signal as _signal
from typing import TYPE_CHECKING, Final

from procaio import _core, _trees

if TYPE_CHECKING:
    from collections.abc import Iterator

    from procaio._pool import Pool

__all__ = ["FAULT_POINTS", "arm", "disarm", "hidden_types"]

FAULT_POINTS: Final[tuple[str, ...]] = _core.FAULT_POINTS[:-1]
"""Where a worker can be made to die, in the order in which it gets there: 'claimed' (the request is
its own, and still in the queue), 'taken' (just before the call), 'called' (just after it), 'done'
(the result is kept), 'published' (and in the ring), 'signalled' (and the program was told);
'sleeping' (found nothing to do). 'born' is another one, which each worker passes once."""


def arm(
    pool: Pool,
    point: str,
    signal: int = _signal.SIGKILL,
    after: int = 0,
    *,
    always: bool = False,
) -> None:
    """
    Let the worker that gets to `point` next send itself `signal`.

    `after` times it is passed unharmed first, and then it strikes once; with `always` it strikes
    every time. Arming again replaces what was armed. ValueError for an unknown point.
    """
    number = _core.FAULT_POINTS.index(point) + 1
    countdown = _core.FAULT_ALWAYS if always else after
    pool._arm_fault(number, int(signal), countdown)  # noqa: SLF001 - ours


def disarm(pool: Pool) -> None:
    """Let nobody die who has not yet."""
    pool._arm_fault(0, 0, 0)  # noqa: SLF001 - ours


@contextlib.contextmanager
def hidden_types() -> Iterator[None]:
    """In the block, let directories tell no types to aio_scandir, aio_walk and aio_copytree: as on
    file systems that have none.
    """
    _trees.hide_types = True
    try:
        yield
    finally:
        _trees.hide_types = False
