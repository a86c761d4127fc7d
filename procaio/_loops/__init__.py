"""
Event loops: which one runs here, and how it learns of completions.

The contract is small: a loop watches `pool.poll_fileno()` for reading and calls
`pool._on_readable()`. asyncio (and uvloop) is attached at the first await.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procaio._core import CorePool

__all__ = ["attach", "running_loop"]


def running_loop() -> asyncio.AbstractEventLoop:
    """The asyncio loop of this thread; RuntimeError with what to do where there is none."""
    loop = asyncio._get_running_loop()  # noqa: SLF001 - public in all but name (PEP 567 code uses it)
    if loop is None:
        raise RuntimeError(
            "await needs a running asyncio event loop in this thread; elsewhere use .wait() or a "
            "callback"
        )
    return loop


def attach(loop: asyncio.AbstractEventLoop, pool: CorePool) -> None:
    """Let the loop deliver the pool's completions."""
    loop.add_reader(pool.poll_fileno(), pool._on_readable)  # noqa: SLF001 - the pool's own side


def attach_again(loop: asyncio.AbstractEventLoop, pool: CorePool) -> None:
    """The loop still believes in the descriptor that had the number before."""
    detach(loop, pool.poll_fileno())
    attach(loop, pool)


def detach(loop: asyncio.AbstractEventLoop, fileno: int) -> None:
    """Undo attach(); a closed loop has forgotten its readers already."""
    if not loop.is_closed():
        loop.remove_reader(fileno)
