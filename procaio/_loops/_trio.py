"""trio: a system task watches, and a task that awaits a request can be cancelled by its scopes."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from procaio._core import Request, Waiter

__all__ = ["adapt", "awaited", "is_in_task", "running"]


class _Run:
    """A trio.run, with the names that asyncio's loops have."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()
        self._watchers: dict[int, trio.CancelScope] = {}
        self._closed = False
        self.sleeping: dict[trio.lowlevel.Task, tuple[Request[Any], Waiter]] = {}

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
                    self._deliver(callback)
        except trio.Cancelled:  # the run ends
            self._closed = True
            for request, _ in list(self.sleeping.values()):  # they are shielded
                with contextlib.suppress(Exception):
                    request.wait()
            raise
        finally:
            os.close(fd)

    def _deliver(self, callback: Callable[[], object]) -> None:
        """An interrupt is raised where a task waits: here it would be an internal error of trio."""
        try:
            callback()
        except BaseException as error:
            if not self.sleeping:
                raise
            task, (_, waiter) = self.sleeping.popitem()
            waiter.give_up()
            trio.lowlevel.reschedule(task, outcome.Error(error))

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


def is_in_task() -> bool:
    """Whether a task of trio calls this."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def running() -> _Run | None:
    """That whose task calls this."""
    return _here() if is_in_task() else None


def adapt(loop: object) -> _Run | None:
    """There is no object that could be given."""
    return loop if isinstance(loop, _Run) else None


def awaited(request: Request[Any]) -> Iterator[Any] | None:
    """What a task of trio steps, if one calls this."""
    return _wait(request).__await__() if is_in_task() else None


async def _wait(request: Request[Any]) -> Any:
    """A checkpoint in any case, as trio has it."""
    await trio.lowlevel.checkpoint_if_cancelled()
    run, task = _here(), trio.lowlevel.current_task()
    if run.is_closed():  # the end of the run, after all that watches: nobody else is left
        return request.wait()
    waiter = request._waiter(run)  # noqa: SLF001 - ours
    if waiter is None:
        await trio.lowlevel.cancel_shielded_checkpoint()
        return request.wait(0)
    ended = False

    def wake(_waiter: object) -> None:
        nonlocal ended
        ended = True
        if run.sleeping.pop(task, None):
            trio.lowlevel.reschedule(task)

    def abort(_raise_cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
        if waiter.done():  # it was on its way already, perhaps with a descriptor
            return trio.lowlevel.Abort.FAILED
        del run.sleeping[task]
        waiter.give_up()
        return trio.lowlevel.Abort.SUCCEEDED

    waiter.add_done_callback(wake)
    if not ended:
        run.sleeping[task] = request, waiter
        await trio.lowlevel.wait_task_rescheduled(abort)
    return request.wait(0)
