"""asyncio, and what replaces its loop (uvloop): nothing to adapt."""

from __future__ import annotations

import asyncio

__all__ = ["adapt", "running"]


def running() -> asyncio.AbstractEventLoop | None:
    """The one that runs in this thread."""
    return asyncio._get_running_loop()  # noqa: SLF001 - public in all but name


def adapt(loop: object) -> asyncio.AbstractEventLoop | None:
    """It is used as it is."""
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None
