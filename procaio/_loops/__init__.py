"""
Event loops: which one runs here, and how it learns of completions.

The contract is small: a loop watches `pool.poll_fileno()` for reading and calls
`pool._on_readable()`, in its own thread. asyncio (uvloop too) and trio are attached at the first
await; what runs callbacks only is attached by `procaio.attach()`, which finds it.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from procaio._core import Request
    from procaio._pool import Pool

__all__ = [
    "Loop",
    "elsewhere",
    "find",
    "forget",
    "settled_future",
    "sleep_in_greenlet",
    "steps_tasks",
    "that_watches_for",
    "watch",
    "watch_again",
    "watch_no_more",
]

# In this order they are looked for: what runs before what merely exists. The module that a program
# must have imported for the loop to be there, and ours.
_KINDS: Final = {
    "asyncio": (("asyncio",), "_asyncio"),
    "trio": (("trio",), "_trio"),
    "twisted": (("twisted.internet.reactor",), "_twisted"),
    "qt": (("PySide6", "PyQt6", "PySide2", "PyQt5"), "_qt"),
    "tk": (("tkinter",), "_tk"),
    "gevent": (("gevent",), "_gevent"),
    "glib": (("gi.repository.GLib",), "_glib"),
    "tornado": (("tornado",), "_tornado"),
    "selectors": (("selectors",), "_selectors"),
}


# What steps tasks in trio and asyncio.
_STEPPERS: Final = {"unrolled_run", "_run_once"}


@runtime_checkable
class Loop(Protocol):
    """What procaio asks of a loop. Those of asyncio have these methods, and so may any other."""

    def add_reader(self, fd: int, callback: Callable[[], object], /) -> object:
        """Call `callback` in the loop's thread whenever `fd` is readable, until remove_reader()."""

    def remove_reader(self, fd: int, /) -> object:
        """Watch it no more."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> object:
        """Call it in the loop's thread, soon. May be called in any thread."""

    def is_closed(self) -> bool:
        """Whether it will never run again."""


def _imported(names: tuple[str, ...]) -> bool:
    return any(name in sys.modules for name in names)


def _half(module: str) -> Any:
    """Ours for one kind of loop: running() gives the one that is here, adapt() takes an object."""
    return importlib.import_module(f"procaio._loops.{module}")


def find(loop: object = None) -> Loop:
    """
    The loop of this thread, one of a kind (by its name), or what adapts a loop that is given.

    Raises:
        RuntimeError: there is none.
        TypeError: it is nothing that can be adapted.
        ValueError: the name is none of those that are known.

    """
    if isinstance(loop, str):
        return _named(loop)
    for roots, module in _KINDS.values():
        if not _imported(roots):
            continue
        half = _half(module)
        if found := half.running() if loop is None else half.adapt(loop):
            return found  # type: ignore[no-any-return]
    if loop is None:
        raise RuntimeError(
            "no event loop was found in this thread: asyncio and trio have to be running, a Qt "
            "application, a Tk window or Twisted's reactor to exist, GLib or gevent to be "
            "imported; or name what is to be attached, as in attach('glib')"
        )
    if isinstance(loop, Loop):
        return loop
    raise TypeError(
        f"loop must be an event loop or one of {', '.join(_KINDS)}, not {type(loop).__name__}: "
        "what is none of them needs add_reader, remove_reader, call_soon_threadsafe and is_closed"
    )


def _named(name: str) -> Loop:
    if name not in _KINDS:
        raise ValueError(f"no such loop: {name!r} is none of {', '.join(_KINDS)}")
    try:
        found = _half(_KINDS[name][1]).running()
    except ImportError as error:
        raise RuntimeError(f"{name} cannot be imported: {error}") from error
    if found is None:
        raise RuntimeError(f"{name} has no loop in this thread that could be attached")
    return found  # type: ignore[no-any-return]


def elsewhere(request: Request[Any]) -> Iterator[Any] | None:
    """What is stepped by whoever awaits a request; None where that is a task of asyncio.

    Raises:
        RuntimeError: nothing runs here that could.

    """
    loop = asyncio._get_running_loop()  # noqa: SLF001 - public in all but name
    has_task = loop is not None and asyncio.current_task(loop) is not None
    for name in ("trio", "twisted"):
        if name not in sys.modules or (has_task and not _is_within(name)):
            continue
        if (stepped := _half(f"_{name}").awaited(request)) is not None:
            return stepped  # type: ignore[no-any-return]
    if loop is None and request.state not in {"done", "cancelled", "dead"}:
        raise RuntimeError(
            "await needs asyncio, trio or Twisted's reactor running in this thread; elsewhere use "
            ".wait() or a callback"
        )
    return None


def _is_within(name: str) -> bool:
    """Whether it is what runs inside the task of asyncio that this is: a trio.run in a notebook."""
    if not (name == "trio" and _half("_trio").is_in_task()):
        return False
    frame = sys._getframe(1)  # noqa: SLF001 - there is no other way to know which is the inner one
    while frame.f_back is not None:
        frame = frame.f_back
        module = frame.f_globals.get("__name__", "").partition(".")[0]
        if module in {"trio", "asyncio"} and frame.f_code.co_name in _STEPPERS:
            return bool(module == "trio")
    return True


def sleep_in_greenlet(pool: Pool, request: Request[Any] | None, timeout: float) -> bool:
    """Let other greenlets run until the request has ended, or something has; False: not in one."""
    return _half("_gevent").sleep(pool, request, timeout)  # type: ignore[no-any-return]


def forget(loops: Iterable[Loop]) -> None:
    """In a forked child, which has none of them."""
    for loop in loops:
        if isinstance(loop, Adapter):
            loop.end()


def steps_tasks(loop: Any) -> bool:
    """Whether a turn of the loop may step its tasks itself: nobody can run the loop again within
    one of them, where the others would not go on. In debug mode the loop calls tasks itself, and
    tells which one is slow.
    """
    known = type(loop) is asyncio.SelectorEventLoop or type(loop).__module__ == "uvloop"
    return known and not hasattr(loop, "_nest_patched") and not loop.get_debug()


class _NoLoop:
    """What a future asks its loop when it is made, if that is all it ever asks."""

    def get_debug(self) -> bool:
        """Answer no."""
        return False


def settled_future() -> asyncio.Future[None]:
    """Make a future that is done and belongs to no loop."""
    future: asyncio.Future[None] = asyncio.Future(loop=_NoLoop())  # type: ignore[arg-type]
    future.set_result(None)
    return future


# -- the pool's side -------------------------------------------------------------------------------


def that_watches_for(loop: Loop) -> Loop:
    """The loop itself, but for PySide6.QtAsyncio, which leaves descriptors to Qt."""
    if type(loop).__module__.partition(".")[0] != "PySide6":
        return loop
    return _half("_qt").running() or loop


def watch(loop: Loop, pool: Pool) -> None:
    """Let the loop deliver the pool's completions, in the context of now.

    That tells anyio in which kind of loop it is called: outside of tasks it has nothing else to go
    by.
    """
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None and isinstance(loop, asyncio.AbstractEventLoop):
        sniffio.current_async_library_cvar.set("asyncio")
    loop.add_reader(pool.poll_fileno(), pool._on_readable)  # noqa: SLF001 - the pool's own side


def watch_again(loop: Loop, pool: Pool) -> None:
    """The loop still believes in the descriptor that had the number before."""
    watch_no_more(loop, pool.poll_fileno())
    watch(loop, pool)


def watch_no_more(loop: Loop, fileno: int) -> None:
    """Undo watch(); a closed loop has forgotten its readers already."""
    if not loop.is_closed():
        loop.remove_reader(fileno)
    elif isinstance(loop, Adapter):
        loop.end()
