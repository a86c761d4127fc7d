"""Tk: the loop is the window's interpreter."""

from __future__ import annotations

import tkinter as tk
from typing import TYPE_CHECKING, Any

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adapt", "running"]


class _Interpreter(Adapter):
    nests = True
    _native: Any

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        self._native.createfilehandler(fd, tk.READABLE, lambda _fd, _mask: ready())

    def unwatch(self, fd: int) -> None:
        self._native.deletefilehandler(fd)

    def is_closed(self) -> bool:
        """Once its main window was destroyed; what it watched is still watched in the thread."""
        if super().is_closed():
            return True
        if not self._is_here():
            return False
        try:
            return not self._native.getboolean(self._native.call("winfo", "exists", "."))
        except tk.TclError:
            return True


def running() -> Adapter | None:
    """That of the program's main window."""
    root = getattr(tk, "_default_root", None)
    return None if root is None else _Interpreter.of(root.tk)


def adapt(loop: Any) -> Adapter | None:
    """That of any window."""
    return _Interpreter.of(loop.tk) if isinstance(loop, tk.Misc) else None
