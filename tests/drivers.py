"""
The event loops that procaio is at home in, all driven alike: run, quit, a timer, a task.

Each is the real library. What a loop cannot do says so in its class: so a check of
`loop_contract.py` is written once.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib
import itertools
import selectors
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import procaio


class Driver:
    """A loop of one kind, for the thread that makes it."""

    name: ClassVar[str]
    """What attach() knows it by."""
    modules: ClassVar[tuple[str, ...]] = ()
    """What is worth importing once, before the checks are forked."""
    is_found = True
    """Whether attach() finds it without being told."""
    has_tasks = False
    """Whether spawn() runs coroutines, which may await requests."""
    runs_again = True
    """Whether there may be another such loop in the same thread, once this one has ended."""
    has_threads = True
    runs_in_threads = True
    threads = 0
    """How many it leaves to a process."""
    raises_interrupts = True
    """Whether what a callback raises leaves run(), if it is no Exception."""

    @classmethod
    def warm_up(cls) -> None:
        """Let the library open what it keeps open."""

    def native(self) -> object:
        """What attach() may be given."""
        raise NotImplementedError

    def run(self, start: Callable[[], object]) -> None:
        """Run, beginning with `start`, until quit()."""
        raise NotImplementedError

    def quit(self) -> None:
        """Called in the loop."""
        raise NotImplementedError

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call it then."""
        raise NotImplementedError

    def call(self, function: Callable[[], object]) -> None:
        """Call it where it may block as the program's own code does."""
        function()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Let a task run it."""
        raise NotImplementedError

    def dispose(self) -> None:
        """End the loop itself, without a word to procaio."""


class Asyncio(Driver):
    name = "asyncio"
    has_tasks = True

    def __init__(self) -> None:
        self._tasks: list[Any] = []
        self._loop: Any = None

    @staticmethod
    def _new() -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def native(self) -> object:
        return self._loop

    def run(self, start: Callable[[], object]) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._end = asyncio.Event()
            start()
            await self._end.wait()

        loop = self._new()
        try:
            loop.run_until_complete(main())
        finally:
            for task in asyncio.all_tasks(loop):  # after an interrupt
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
            loop.close()

    def quit(self) -> None:
        self._end.set()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        self._loop.call_later(seconds, function)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._tasks.append(self._loop.create_task(coroutine))


class Uvloop(Asyncio):
    modules = ("uvloop",)

    @classmethod
    def warm_up(cls) -> None:
        cls._new().close()

    @staticmethod
    def _new() -> asyncio.AbstractEventLoop:
        import uvloop

        return uvloop.new_event_loop()


class Tornado(Asyncio):
    name = "tornado"
    modules = ("tornado.ioloop",)

    def native(self) -> object:
        import tornado.ioloop

        return tornado.ioloop.IOLoop.current()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        import tornado.ioloop

        tornado.ioloop.IOLoop.current().call_later(seconds, function)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        import tornado.ioloop

        tornado.ioloop.IOLoop.current().add_callback(lambda: coroutine)


class QtAsyncio(Asyncio):
    """PySide6's own, which cannot watch descriptors."""

    modules = ("PySide6.QtAsyncio",)

    @classmethod
    def warm_up(cls) -> None:
        first = cls()
        first.run(first.quit)

    runs_in_threads = False
    raises_interrupts = False

    def run(self, start: Callable[[], object]) -> None:
        from PySide6 import QtAsyncio

        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._end = asyncio.Event()
            start()
            await self._end.wait()

        QtAsyncio.run(main(), keep_running=False)


class Structured(Driver):
    """Tasks belong to a group, whose end is theirs; `modules` begins with the library."""

    has_tasks = True

    def _open_group(self) -> Any:
        raise NotImplementedError

    async def _main(self, start: Callable[[], object]) -> None:
        self._library: Any = importlib.import_module(self.modules[0])
        self._end = self._library.Event()
        async with self._open_group() as self._group:
            start()
            await self._end.wait()
            self._group.cancel_scope.cancel()

    def quit(self) -> None:
        self._end.set()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        async def call() -> None:
            await self._library.sleep(seconds)
            function()

        self._group.start_soon(call)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        async def run() -> None:
            await coroutine

        self._group.start_soon(run)


class Anyio(Structured):
    name = "asyncio"
    modules = ("anyio", "anyio._backends._asyncio")
    backend = "asyncio"

    def native(self) -> object:
        return asyncio.get_running_loop()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        # A task that has not begun when an interrupt ends the loop would be warned of by Python.
        asyncio.get_running_loop().call_later(seconds, function)

    def _open_group(self) -> Any:
        return self._library.create_task_group()

    def run(self, start: Callable[[], object]) -> None:
        import anyio

        anyio.run(self._main, start, backend=self.backend)


class AnyioOnTrio(Anyio):
    name = "trio"
    modules = ("anyio", "anyio._backends._trio", "trio")
    backend = "trio"
    later = Structured.later

    def native(self) -> object:
        return "trio"


class Trio(Structured):
    name = "trio"
    modules = ("trio",)

    def native(self) -> object:
        return "trio"

    def _open_group(self) -> Any:
        return self._library.open_nursery()

    def run(self, start: Callable[[], object]) -> None:
        import trio

        trio.run(self._main, start)


class TrioAsGuest(Trio):
    """trio in a loop of asyncio."""

    threads = 2  # trio keeps those that poll, for a while

    def run(self, start: Callable[[], object]) -> None:
        import trio

        async def host() -> None:
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            trio.lowlevel.start_guest_run(
                self._main,
                start,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=ended.set_result,
            )
            (await ended).unwrap()

        asyncio.run(host())


class Gevent(Driver):
    name = "gevent"
    modules = ("gevent", "gevent.event")

    @classmethod
    def warm_up(cls) -> None:
        import gevent

        gevent.sleep(0)

    def __init__(self) -> None:
        from gevent.event import Event

        self._end = Event()

    def native(self) -> object:
        import gevent

        return gevent.get_hub()

    def run(self, start: Callable[[], object]) -> None:
        import gevent

        self._end.clear()
        gevent.spawn(start)
        self._end.wait()

    def quit(self) -> None:
        self._end.set()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        import gevent

        gevent.spawn_later(seconds, function)

    def call(self, function: Callable[[], object]) -> None:
        import gevent

        gevent.spawn(function)

    def dispose(self) -> None:
        import gevent

        gevent.get_hub().destroy(destroy_loop=True)


class GeventPatched(Gevent):
    """With a standard library in which threads are greenlets."""

    has_threads = False


class GLib(Driver):
    name = "glib"
    modules = ("gi.repository.GLib",)
    raises_interrupts = False  # it prints them

    def __init__(self) -> None:
        from gi.repository import GLib as glib  # noqa: N813 - it is a module

        self._glib = glib
        self._is_main = threading.current_thread() is threading.main_thread()
        self._context = glib.MainContext.default() if self._is_main else glib.MainContext.new()
        if not self._is_main:
            self._context.push_thread_default()
        self._loop = glib.MainLoop.new(self._context, False)

    def native(self) -> object:
        return self._loop

    def run(self, start: Callable[[], object]) -> None:
        self.later(0, start)
        self._loop.run()

    def quit(self) -> None:
        self._loop.quit()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        def call(*_: object) -> bool:
            function()
            return False

        source = self._glib.timeout_source_new(int(seconds * 1000))
        source.set_callback(call)
        source.attach(self._context)

    def dispose(self) -> None:
        if not self._is_main:  # else it would go with the thread, after join() has returned
            self._context.pop_thread_default()


class Tk(Driver):
    name = "tk"
    modules = ("tkinter",)
    runs_in_threads = False

    @classmethod
    def warm_up(cls) -> None:
        first = cls()
        first.run(first.quit)
        first.dispose()

    def __init__(self) -> None:
        import tkinter as tk

        self._root = tk.Tk()

    def native(self) -> object:
        return self._root

    def run(self, start: Callable[[], object]) -> None:
        self._root.after(0, start)
        self._root.mainloop()

    def quit(self) -> None:
        self._root.quit()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        self._root.after(int(seconds * 1000), function)

    def dispose(self) -> None:
        self._root.update_idletasks()  # Tk complains of what it could not do
        self._root.destroy()


class Qt(Driver):
    name = "qt"
    modules = ("PySide6.QtCore",)
    runs_in_threads = False
    raises_interrupts = False  # it prints them

    def __init__(self) -> None:
        from PySide6 import QtCore

        self._core = QtCore
        self._application = QtCore.QCoreApplication.instance() or QtCore.QCoreApplication([])

    def native(self) -> object:
        return self._application

    def run(self, start: Callable[[], object]) -> None:
        self.later(0, start)
        self._application.exec()

    def quit(self) -> None:
        self._application.quit()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        self._core.QTimer.singleShot(int(seconds * 1000), function)

    def dispose(self) -> None:
        self._application.shutdown()
        del self._application


class Twisted(Driver):
    name = "twisted"
    modules = ("twisted.internet.epollreactor", "twisted.internet.defer", "twisted.internet.task")
    has_tasks = True
    runs_again = False
    runs_in_threads = False
    raises_interrupts = False  # it logs them

    def __init__(self) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor

    def native(self) -> object:
        return self._reactor

    def run(self, start: Callable[[], object]) -> None:
        self._reactor.callWhenRunning(start)
        self._reactor.run(installSignalHandlers=False)

    def quit(self) -> None:
        self._reactor.stop()

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        self._reactor.callLater(seconds, function)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        from twisted.internet import defer

        defer.ensureDeferred(coroutine)


class TwistedOnAsyncio(Twisted):
    modules = ("twisted.internet.asyncioreactor", "twisted.internet.defer")

    def __init__(self) -> None:
        from twisted.internet import asyncioreactor

        asyncioreactor.install(asyncio.new_event_loop())
        super().__init__()


class Selectors(Driver):
    """What a program writes itself."""

    name = "selectors"
    is_found = False

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def native(self) -> object:
        return self._selector

    def run(self, start: Callable[[], object]) -> None:
        self._runs = True
        self.later(0, start)
        while self._runs:
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            timeout = max(0, self._timers[0][0] - now) if self._timers else None
            for key, _ in self._selector.select(timeout if self._runs else 0):
                key.data()

    def quit(self) -> None:
        self._runs = False

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._count), function))

    def dispose(self) -> None:
        self._selector.close()


class Own(Selectors):
    """A loop that procaio has never heard of, with the methods of `procaio.Loop`."""

    def native(self) -> procaio.Loop:
        return self

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, callback)

    def remove_reader(self, fd: int) -> None:
        self._selector.unregister(fd)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        self.later(0, lambda: callback(*args))

    def is_closed(self) -> bool:
        return self._selector.get_map() is None


DRIVERS: dict[str, type[Driver]] = {
    "asyncio": Asyncio,
    "uvloop": Uvloop,
    "anyio-asyncio": Anyio,
    "anyio-trio": AnyioOnTrio,
    "trio": Trio,
    "trio-guest": TrioAsGuest,
    "tornado": Tornado,
    "gevent": Gevent,
    "gevent-patched": GeventPatched,
    "glib": GLib,
    "tk": Tk,
    "qt": Qt,
    "qt-asyncio": QtAsyncio,
    "twisted": Twisted,
    "twisted-asyncio": TwistedOnAsyncio,
    "selectors": Selectors,
    "own": Own,
}
