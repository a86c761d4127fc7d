"""Tk: the loop is the window's interpreter."""

from __future__ import annotations

import tkinter
from typing import TYPE_CHECKING, Any

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adapt", "running"]


class _Interpreter(Adapter):
    _native: Any

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        self._native.createfilehandler(fd, tkinter.READABLE, lambda _fd, _mask: ready())

    def unwatch(self, fd: int) -> None:
        self._native.deletefilehandler(fd)


def running() -> Adapter | None:
    """That of the program's main window."""
    root = getattr(tkinter, "_default_root", None)
    return None if root is None else _Interpreter.of(root.tk)


def adapt(loop: Any) -> Adapter | None:
    """That of any window."""
    return _Interpreter.of(loop.tk) if isinstance(loop, tkinter.Misc) else None
