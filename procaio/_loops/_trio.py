"""trio: a system task watches, and a task that awaits a request can be cancelled by its scopes."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from procaio._core import Request

__all__ = ["adapt", "awaited", "running"]


class _Run:
    """A trio.run, with the names that asyncio's loops have."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._watchers: dict[int, trio.CancelScope] = {}
        self._closed = False

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Watch a copy: the pool may be closed in another thread while the kernel waits for it."""
        self.remove_reader(fd)
        scope = self._watchers[fd] = trio.CancelScope()
        trio.lowlevel.spawn_system_task(self._watch, os.dup(fd), callback, scope)

    async def _watch(
        self, fd: int, callback: Callable[[], object], scope: trio.CancelScope
    ) -> None:
        try:
            with scope:
                while True:
                    await trio.lowlevel.wait_readable(fd)
                    callback()
        except trio.Cancelled:
            self._closed = True  # the run ends
            raise
        finally:
            os.close(fd)

    def remove_reader(self, fd: int) -> None:
        scope = self._watchers.pop(fd, None)
        if scope is None:
            return
        if threading.get_ident() == self._thread:
            scope.cancel()
        else:
            self.call_soon_threadsafe(scope.cancel)

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        callback(*args)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(callback, *args)

    def is_closed(self) -> bool:
        return self._closed


_RUN: trio.lowlevel.RunVar[_Run] = trio.lowlevel.RunVar("procaio")


def _here() -> _Run:
    try:
        return _RUN.get()
    except LookupError:
        run = _Run()
        _RUN.set(run)
        return run


def _is_in_task() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def running() -> _Run | None:
    """That whose task calls this."""
    return _here() if _is_in_task() else None


def adapt(loop: object) -> _Run | None:
    """There is no object that could be given."""
    return loop if isinstance(loop, _Run) else None


def awaited(request: Request[Any]) -> Iterator[Any] | None:
    """What a task of trio steps, if one calls this."""
    return _wait(request).__await__() if _is_in_task() else None


async def _wait(request: Request[Any]) -> Any:
    """A checkpoint in any case, as trio has it."""
    await trio.lowlevel.checkpoint_if_cancelled()
    task = trio.lowlevel.current_task()
    waiter = request._waiter(_here())  # noqa: SLF001 - ours
    if waiter is None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        return request.wait(0)
    sleeping = ended = False

    def wake(_waiter: object) -> None:
        nonlocal ended
        ended = True
        if sleeping:
            trio.lowlevel.reschedule(task)

    def abort(_raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        nonlocal sleeping
        sleeping = False
        waiter.give_up()
        return trio.lowlevel.Abort.SUCCEEDED

    waiter.add_done_callback(wake)
    if not ended:
        sleeping = True
        await trio.lowlevel.wait_task_rescheduled(abort)
    return request.wait(0)
