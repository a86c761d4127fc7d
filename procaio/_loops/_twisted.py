"""Twisted: the reactor reads, and a coroutine that awaits a request gets a Deferred."""

from __future__ import annotations

import sys
import weakref
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, interfaces
from twisted.python import failure, log, threadable
from zope.interface import implementer

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from procaio._core import Request

__all__ = ["adapt", "awaited", "running"]

# What Twisted gives no types for.
_threads: Any = threadable
_log: Any = log
_Failure: Any = failure.Failure


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
        except BaseException:  # noqa: BLE001 - the reactor would log it too, but read no more
            _log.err()

    def connectionLost(self, reason: object) -> None:  # noqa: N802
        """The reactor has stopped, or the pool has gone."""

    def logPrefix(self) -> str:  # noqa: N802
        return "procaio"


_is_over: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


class _Reactor(Adapter):
    _native: Any

    def __init__(self, native: Any) -> None:
        super().__init__(native)
        self._readers: dict[int, _Reader] = {}
        if native not in _is_over:
            _is_over[native] = False
            native.addSystemEventTrigger("after", "shutdown", _is_over.__setitem__, native, True)

    def is_closed(self) -> bool:
        """Once it was stopped: it cannot be run again."""
        return _is_over[self._native] or super().is_closed()

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


def _reactor() -> Any:
    """What the program has installed, if it runs in this thread or may still do so."""
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    return reactor if _threads.ioThread in {None, _threads.getThreadID()} else None


def running() -> Adapter | None:
    """The reactor of this thread."""
    reactor = _reactor()
    return None if reactor is None else _Reactor.of(reactor)


def adapt(loop: object) -> Adapter | None:
    """A reactor."""
    return _Reactor.of(loop) if interfaces.IReactorFDSet.providedBy(loop) else None


def awaited(request: Request[Any]) -> Iterator[Any] | None:
    """Of the Deferred that has its value in time, if the reactor runs in this thread.

    It need not run yet: task.react() begins with the program's coroutine, and trial starts the
    reactor again for each test.
    """
    reactor = _reactor()
    if reactor is None or _is_over.get(reactor):
        return None
    waiter = request._waiter(_Reactor.of(reactor))  # noqa: SLF001 - ours
    if waiter is None:
        return None

    def cancel(_: object) -> None:
        if waiter.done():  # it was on its way already, perhaps with a descriptor
            fire(waiter)
        else:
            waiter.give_up()

    def fire(_waiter: object) -> None:
        if deferred.called:
            return
        try:
            value = request.wait(0)
        except Exception:  # noqa: BLE001 - it goes to whoever awaits
            deferred.errback(_Failure())
        else:
            deferred.callback(value)

    deferred: defer.Deferred[Any] = defer.Deferred(cancel)
    waiter.add_done_callback(fire)
    return deferred.__await__()
