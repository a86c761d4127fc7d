"""Qt, by whichever of its Python bindings the program has imported."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adapt", "running"]

_BINDINGS = ("PySide6", "PyQt6", "PySide2", "PyQt5")


def _cores() -> list[Any]:
    return [importlib.import_module(f"{name}.QtCore") for name in _BINDINGS if name in sys.modules]


class _Application(Adapter):
    nests = True

    def __init__(self, native: object) -> None:
        super().__init__(native)
        (self._core,) = (core for core in _cores() if isinstance(native, core.QCoreApplication))
        self._notifiers: dict[int, Any] = {}

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        kinds = getattr(self._core.QSocketNotifier, "Type", self._core.QSocketNotifier)
        notifier = self._notifiers[fd] = self._core.QSocketNotifier(fd, kinds.Read)
        notifier.activated.connect(lambda *_: ready())

    def unwatch(self, fd: int) -> None:
        notifier = self._notifiers.pop(fd)
        notifier.setEnabled(False)
        notifier.deleteLater()

    def is_closed(self) -> bool:
        """Once the application object was destroyed, perhaps for another one."""
        return self._core.QCoreApplication.instance() is not self._native or super().is_closed()


def running() -> Adapter | None:
    """The program's application, if its loop runs in this thread."""
    for core in _cores():
        application = core.QCoreApplication.instance()
        if application is not None and application.thread() == core.QThread.currentThread():
            return _Application.of(application)
    return None


def adapt(loop: Any) -> Adapter | None:
    """An application."""
    is_one = any(isinstance(loop, core.QCoreApplication) for core in _cores())
    return _Application.of(loop) if is_one else None
