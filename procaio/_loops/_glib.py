"""GLib's main context: GTK, GStreamer and whatever else has one (PyGObject)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gi.repository import GLib

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adapt", "running"]


class _Context(Adapter):
    nests = True

    def __init__(self, native: object) -> None:
        super().__init__(native)
        self._sources: dict[int, Any] = {}

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        def call(*_: object) -> bool:
            try:
                ready()
            except BaseException:  # GLib would call it no more
                self.unwatch(fd)
                self.watch(fd, ready)
                raise
            return bool(GLib.SOURCE_CONTINUE)

        source = self._sources[fd] = GLib.unix_fd_source_new(fd, GLib.IOCondition.IN)
        source.set_callback(call)
        source.set_can_recurse(True)  # a callback may run a dialog
        source.attach(self._native)

    def unwatch(self, fd: int) -> None:
        self._sources.pop(fd).destroy()

    def is_closed(self) -> bool:
        """The program's own is there for all threads."""
        return super().is_closed() and (
            self._native != GLib.MainContext.default() or self.is_of_parent()
        )


def running() -> Adapter:
    """That which this thread would run: its own default, or else the program's."""
    return _Context.of(GLib.MainContext.ref_thread_default())


def adapt(loop: Any) -> Adapter | None:
    """A MainContext, or the MainLoop that runs one."""
    if isinstance(loop, GLib.MainLoop):
        loop = loop.get_context()
    return _Context.of(loop) if isinstance(loop, GLib.MainContext) else None
