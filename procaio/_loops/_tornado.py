"""Tornado: since its version 5 an IOLoop is a loop of asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import tornado.ioloop

__all__ = ["adapt", "running"]


def running() -> asyncio.AbstractEventLoop | None:
    """The one that runs in this thread."""
    return asyncio._get_running_loop()  # noqa: SLF001 - public in all but name


def adapt(loop: Any) -> asyncio.AbstractEventLoop | None:
    """The asyncio loop behind it."""
    is_one = isinstance(loop, tornado.ioloop.IOLoop)
    return loop.asyncio_loop if is_one else None
