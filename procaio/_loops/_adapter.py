"""What all adapters do alike."""

from __future__ import annotations

import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

__all__ = ["Adapter"]

_A = TypeVar("_A", bound="Adapter")


class Adapter(ABC):
    """
    A loop that can watch descriptors, made into one with asyncio's names (`procaio.Loop`).

    It watches copies of the descriptors: so a pool may be closed in another thread, and the loop
    still stop watching in its own, where nobody else has got the number meanwhile.
    """

    _all: ClassVar[dict[tuple[type, int], Any]] = {}  # those that watch something

    def __init__(self, native: object) -> None:
        """Adapt the loop of this thread."""
        self._native = native  # kept, so that its id is nobody else's
        self._thread = threading.get_ident()
        self._copies: dict[int, int] = {}
        self._bell = -1
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()

    @classmethod
    def of(cls, native: object) -> Self:
        """The only one for this loop."""
        found = Adapter._all.get((cls, id(native)))
        return cls(native) if found is None else found

    @abstractmethod
    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        """Call `ready` in the loop whenever `fd` is readable."""

    @abstractmethod
    def unwatch(self, fd: int) -> None:
        """Stop that. Called in the loop's thread, before `fd` is closed."""

    def is_closed(self) -> bool:
        """Whether the loop will never run again: by default nobody can know."""
        return False

    # -- what asyncio's loops have too -------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Watch it, and the descriptor by which other threads are heard."""
        if self._bell < 0:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self.watch(self._bell, self._run_calls)
            Adapter._all[type(self), id(self._native)] = self
        self._copies[fd] = os.dup(fd)
        self.watch(self._copies[fd], callback)

    def remove_reader(self, fd: int) -> None:
        """Undo it, in the loop's thread or soon there."""
        if threading.get_ident() == self._thread:
            self._remove(fd)
        else:
            self.call_soon_threadsafe(self._remove, fd)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, **_: Any) -> None:
        """Call it when the loop has its next turn."""
        self._calls.append((callback, args))
        with contextlib.suppress(
            OSError
        ):  # nothing is watched any more: nobody is there to call it
            os.eventfd_write(self._bell, 1)

    call_soon = call_soon_threadsafe

    # -- within ------------------------------------------------------------------------------------

    def _run_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        while self._calls:
            callback, args = self._calls.popleft()
            callback(*args)

    def _remove(self, fd: int) -> None:
        copy = self._copies.pop(fd, -1)
        if copy >= 0:
            self.unwatch(copy)
            os.close(copy)
        if not self._copies and self._bell >= 0:
            self.unwatch(self._bell)
            self._close_bell()

    def _close_bell(self) -> None:
        Adapter._all.pop((type(self), id(self._native)), None)
        os.close(self._bell)
        self._bell = -1

    def forget(self) -> None:
        """In a forked child: the loop is the parent's, so are its descriptors, but for these."""
        for copy in self._copies.values():
            os.close(copy)
        self._copies.clear()
        if self._bell >= 0:
            self._close_bell()
