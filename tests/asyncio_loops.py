"""The loops that run asyncio's tasks: its own, and uvloop where that can be had."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

try:
    import uvloop
except ImportError:  # it is not there for every Python
    uvloop = None

if uvloop:
    uvloop.new_event_loop().close()  # the first one opens a pipe for good

LOOPS = {"asyncio": asyncio.new_event_loop} | ({"uvloop": uvloop.new_event_loop} if uvloop else {})


def runner(kind: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """asyncio.run, with a loop of that kind and for a minute at most."""

    def run(main: Coroutine[Any, Any, Any], *, debug: bool = False) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(main, 60)

        loop = LOOPS[kind]()
        loop.set_debug(debug)
        try:
            return loop.run_until_complete(bounded())
        finally:
            loop.close()

    return run
