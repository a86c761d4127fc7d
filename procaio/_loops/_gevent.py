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

    from procaio._core import CorePool, Request

__all__ = ["adapt", "running", "sleep"]


class _Hub(Adapter):
    _native: Any

    def __init__(self, native: object) -> None:
        super().__init__(native)
        self._watchers: dict[int, Any] = {}
        self._news: dict[int, Event] = {}

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        watcher = self._watchers[fd] = self._native.loop.io(fd, 1)
        watcher.start(self._call, ready)

    def _call(self, ready: Callable[[], object]) -> None:
        try:
            ready()
        except BaseException:  # noqa: BLE001 - gevent would stop a watcher that raises
            self._native.handle_error(ready, *sys.exc_info())

    def unwatch(self, fd: int) -> None:
        watcher = self._watchers.pop(fd)
        watcher.stop()
        watcher.close()

    def forget(self) -> None:
        """Gevent goes on in a forked child, with a loop of its own by then."""
        for fd in list(self._watchers):
            self.unwatch(fd)
        super().forget()

    def is_closed(self) -> bool:
        return self._native.loop is None

    # -- sleeping ----------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        news = self._news[fd] = Event()

        def ready() -> None:
            callback()
            news.set()

        super().add_reader(fd, ready)

    def sleep_until_news(self, fd: int, timeout: float | None) -> None:
        news = self._news[fd]
        news.clear()
        news.wait(timeout)


def _hub() -> _Hub | None:
    """That of the greenlet that calls this; None in a hub itself, or where none is used."""
    native = get_hub_if_exists()
    if native is None or gevent.getcurrent() is native:
        return None
    if not monkey.is_module_patched("select") and (_Hub, id(native)) not in Adapter._all:  # noqa: SLF001
        return None  # the program has said nothing: it may count on blocking
    return _Hub.of(native)


def running() -> Adapter:
    """That of this thread."""
    return _Hub.of(gevent.get_hub())


def adapt(loop: object) -> Adapter | None:
    """A hub."""
    return _Hub.of(loop) if isinstance(loop, Hub) else None


def sleep(pool: CorePool, request: Request[Any] | None, timeout: float) -> bool:
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
    try:
        ended.wait(seconds)
    finally:
        waiter.stand_aside()
    return True
