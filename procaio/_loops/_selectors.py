"""A loop of the program's own around a selector: it calls `key.data()` for what is readable."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING

from procaio._loops._adapter import Adapter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["adapt", "running"]


class _Selector(Adapter):
    _native: selectors.BaseSelector

    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        self._native.register(fd, selectors.EVENT_READ, ready)

    def unwatch(self, fd: int) -> None:
        self._native.unregister(fd)

    def is_closed(self) -> bool:
        return self._native.get_map() is None or super().is_closed()


def running() -> None:
    """Nobody can know: it has to be given."""


def adapt(loop: object) -> Adapter | None:
    """A selector of the standard library."""
    return _Selector.of(loop) if isinstance(loop, selectors.BaseSelector) else None
