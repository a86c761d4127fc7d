"""Twisted: the reactor reads, and a coroutine that awaits a request gets a Deferred."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, interfaces
from twisted.python import failure, log, threadable
from zope.interface import implementer

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from procaio._core import Request

__all__ = ["adapt", "awaited", "running"]


@implementer(interfaces.IReadDescriptor)
class _Reader:
    def __init__(self, fd: int, ready: Callable[[], object]) -> None:
        self._fd = fd
        self._ready = ready

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:  # noqa: N802 - Twisted's names
        try:
            self._ready()
        except BaseException:  # noqa: BLE001 - the reactor would drop a reader that raises
            log.err()

    def connectionLost(self, reason: object) -> None:  # noqa: N802
        """The reactor has stopped, or the pool has gone."""

    def logPrefix(self) -> str:  # noqa: N802
        return "procaio"


class _Reactor(Adapter):
    _native: Any

    def __init__(self, native: object) -> None:
        super().__init__(native)
        self._readers: dict[int, _Reader] = {}

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        reader = self._readers[fd] = _Reader(fd, ready)
        self._of_its_own().add(reader)
        self._native.addReader(reader)

    def unwatch(self, fd: int) -> None:
        reader = self._readers.pop(fd)
        self._of_its_own().discard(reader)
        self._native.removeReader(reader)

    def _of_its_own(self) -> set[_Reader]:
        """Among these trial does not count what a test has left behind, to take it away."""
        return getattr(self._native, "_internalReaders", set())


def running() -> Adapter | None:
    """The reactor that the program has installed."""
    reactor = sys.modules.get("twisted.internet.reactor")
    return None if reactor is None else _Reactor.of(reactor)


def adapt(loop: object) -> Adapter | None:
    """A reactor."""
    return _Reactor.of(loop) if interfaces.IReactorFDSet.providedBy(loop) else None


def _is_in_its_thread() -> bool:
    """Before it runs nobody knows which that is; task.react() has called a coroutine by then."""
    if threadable.ioThread is None:
        return threading.current_thread() is threading.main_thread()
    return bool(threadable.isInIOThread())


def awaited(request: Request[Any]) -> Iterator[Any] | None:
    """Of the Deferred that has its value in time, if the reactor is one of this thread."""
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is None or not _is_in_its_thread():
        return None
    waiter = request._waiter(_Reactor.of(reactor))  # noqa: SLF001 - ours
    if waiter is None:
        return None
    deferred: defer.Deferred[Any] = defer.Deferred(lambda _: waiter.give_up())

    def fire(_waiter: object) -> None:
        try:
            value = request.wait(0)
        except Exception:
            deferred.errback(failure.Failure())
        else:
            deferred.callback(value)

    waiter.add_done_callback(fire)
    return deferred.__await__()
