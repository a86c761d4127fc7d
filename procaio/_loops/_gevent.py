"""gevent: `.wait()` and its like block the greenlet, and the others run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.event import Event
from gevent.hub import Hub

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable

    from procaio._core import Request
    from procaio._pool import Pool

__all__ = ["adapt", "running", "sleep"]


class _Hub(Adapter):
    _native: Any

    def __init__(self, native: object) -> None:
        super().__init__(native)
        self._watchers: dict[int, Any] = {}
        self._news: dict[int, Event] = {}
        self.sleeping: set[Event] = set()

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        def call() -> None:
            try:
                ready()
            except BaseException:  # noqa: BLE001 - gevent would handle it so, and call it no more
                self._native.handle_error(watcher, *sys.exc_info())

        watcher = self._watchers[fd] = self._native.loop.io(fd, 1)
        watcher.start(call)

    def unwatch(self, fd: int) -> None:
        watcher = self._watchers.pop(fd)
        watcher.stop()
        watcher.close()

    def unwatch_at_end(self, fd: int) -> None:
        """A forked child's hub watches on its own."""
        self.unwatch(fd)

    def end(self) -> None:
        """Greenlets outlive a fork, and see for themselves what has become of their pool."""
        super().end()
        for news in (*self._news.values(), *self.sleeping):
            news.set()

    def is_closed(self) -> bool:
        return self._native.loop is None or super().is_closed()

    # -- sleeping ----------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        news = Event()

        def ready() -> None:
            try:
                callback()
            finally:
                news.set()

        super().add_reader(fd, ready)
        self._news[fd] = news

    def remove_reader(self, fd: int) -> None:
        super().remove_reader(fd)
        news = self._news.pop(fd, None)
        if news is not None and self._is_here():
            news.set()
        elif news is not None:
            self.call_soon_threadsafe(news.set)

    def sleep_until_news(self, fd: int, timeout: float | None) -> None:
        news = self._news[fd]
        news.clear()
        news.wait(timeout)


def _hub() -> _Hub | None:
    """That of the greenlet that calls this; None in a hub itself, or where none is used."""
    native = get_hub_if_exists()
    if native is None or gevent.getcurrent() is native:
        return None
    hub: _Hub | None = Adapter._all.get((_Hub, native))  # noqa: SLF001 - the quick way
    if hub is not None and not hub.is_of_parent():
        return hub
    # Where the program has said nothing it may count on blocking.
    return _Hub.of(native) if monkey.is_module_patched("select") else None


def running() -> Adapter:
    """That of this thread."""
    return _Hub.of(gevent.get_hub())


def adapt(loop: object) -> Adapter | None:
    """A hub."""
    return _Hub.of(loop) if isinstance(loop, Hub) else None


def sleep(pool: Pool, request: Request[Any] | None, timeout: float) -> bool:
    """See procaio._loops.sleep_in_greenlet()."""
    hub = _hub()
    if hub is None:
        return False
    seconds = None if timeout < 0 else timeout
    if request is None:
        pool._attach(hub)  # noqa: SLF001 - ours
        hub.sleep_until_news(pool.poll_fileno(), seconds)
        return True
    waiter = request._waiter(hub)  # noqa: SLF001
    if waiter is None:
        return True
    ended = Event()
    waiter.add_done_callback(lambda _: ended.set())
    hub.sleeping.add(ended)
    try:
        ended.wait(seconds)
    finally:
        hub.sleeping.discard(ended)
        waiter.stand_aside()
    return True
