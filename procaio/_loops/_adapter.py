"""What all adapters do alike."""

from __future__ import annotations

import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from posix import close  # what gevent makes of os.close may wait for its hub
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

__all__ = ["Adapter"]

_THREADS = "/proc/self/task"


class _Bell:
    """By which other threads are heard.

    It is closed when nobody has it any more, who could be about to ring: so its number is never
    somebody else's by then.
    """

    def __init__(self) -> None:
        self.fd = -1
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def __del__(self, close: Callable[[int], object] = close) -> None:
        if self.fd >= 0:
            close(self.fd)


class Adapter(ABC):
    """
    A loop that can watch descriptors, made into one with asyncio's names (`procaio.Loop`).

    It watches copies of the descriptors: so a pool may be closed in another thread, and the loop
    still stop watching in its own, where nobody else has got the number meanwhile. It is of one
    process: a forked child has adapters of its own.
    """

    _all: ClassVar[dict[tuple[type, Any], Any]] = {}  # those that watch something

    nests: ClassVar[bool] = False
    """Whether a callback may run the loop itself, as it does to show a dialog."""

    def __init__(self, native: object) -> None:
        """Adapt the loop of this thread."""
        self._native = native
        self._process = os.getpid()
        self._thread = threading.get_native_id()  # gevent has other ideas of get_ident()
        self._copies: dict[int, int] = {}
        self._bell: _Bell | None = None
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._turns: list[Callable[[], object] | None] = []

    @classmethod
    def of(cls, native: object) -> Self:
        """The only one for this loop."""
        found = Adapter._all.get((cls, native))
        if found is None or found.is_closed():
            _end_closed()
            found = cls(native)
        return found

    @abstractmethod
    def watch(self, fd: int, ready: Callable[[], object]) -> None:
        """Call `ready` in the loop whenever `fd` is readable, whatever it raised before."""

    @abstractmethod
    def unwatch(self, fd: int) -> None:
        """Stop that. Called in the loop's thread, before `fd` is closed."""

    def is_closed(self) -> bool:
        """Whether the loop will never run again: with its thread, if nothing else says so."""
        if self.is_of_parent():
            return True
        return os.path.isdir(_THREADS) and not os.path.isdir(f"{_THREADS}/{self._thread}")

    def is_of_parent(self) -> bool:
        """Whether this is a forked child, where it is nobody's."""
        return self._process != os.getpid()

    def is_watching(self) -> bool:
        """Whether a pool is attached, or was until just now."""
        return self._bell is not None

    # -- what asyncio's loops have too -------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        """Watch it, and the bell."""
        self.remove_reader(fd)  # of a pool that had the number before
        copy = os.dup(fd)
        try:
            self._begin()
            self.watch(copy, self._nesting(callback) if self.nests else callback)
        except BaseException:
            close(copy)
            self._end_if_idle()
            raise
        self._copies[fd] = copy

    def remove_reader(self, fd: int) -> None:
        """Undo it, in the loop's thread or soon there."""
        copy = self._copies.pop(fd, -1)
        if copy < 0:
            return
        if self._is_here():
            self._drop(copy)
        else:
            self.call_soon_threadsafe(self._drop, copy)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, **_: Any) -> None:
        """Call it when the loop has its next turn."""
        bell = self._bell
        if bell is None and self._is_here():  # detached: there will be no such turn
            callback(*args)
            return
        self._calls.append((callback, args))
        if bell is not None:
            bell.ring()

    call_soon = call_soon_threadsafe

    # -- its end -----------------------------------------------------------------------------------

    def end(self) -> None:
        """Give everything back: the loop will not run again, or it is the parent's."""
        Adapter._all.pop((type(self), self._native), None)
        bell, self._bell = self._bell, None
        copies = list(self._copies.values())
        self._copies.clear()
        for fd in copies if bell is None else [*copies, bell.fd]:
            # What a closed loop says to that is of no interest.
            with contextlib.suppress(Exception):
                self.unwatch_at_end(fd)
        for fd in copies:
            close(fd)

    def unwatch_at_end(self, fd: int) -> None:
        """Not in a forked child: what the kernel watches there is shared with the parent."""
        if not self.is_of_parent():
            self.unwatch(fd)

    # -- within ------------------------------------------------------------------------------------

    def _is_here(self) -> bool:
        return not self.is_of_parent() and self._thread == threading.get_native_id()

    def _begin(self) -> None:
        if self._bell is None:
            bell = _Bell()
            self.watch(bell.fd, self._run_calls)
            self._bell = bell
            Adapter._all[type(self), self._native] = self

    def _nesting(self, callback: Callable[[], object]) -> Callable[[], object]:
        """In the middle of its turn no worker makes the descriptor readable. So let the bell give
        it another turn first, if a loop is run meanwhile.
        """

        def ready() -> None:
            self._turns.append(ready)
            if self._bell is not None:
                self._bell.ring()
            try:
                callback()
            finally:
                self._turns.pop()

        return ready

    def _run_calls(self) -> None:
        bell = self._bell
        if bell is None:
            return
        bell.silence()
        try:
            for depth, ready in enumerate(self._turns):
                if ready is not None:
                    self._turns[depth] = None
                    ready()
            for _ in range(len(self._calls)):  # what they ask for is for the next turn
                callback, args = self._calls.popleft()
                callback(*args)
        finally:
            if self._calls:
                bell.ring()
            else:
                self._end_if_idle()

    def _drop(self, copy: int) -> None:
        self.unwatch(copy)
        close(copy)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if not self._copies and not self._calls and self._bell is not None:
            Adapter._all.pop((type(self), self._native), None)
            self.unwatch(self._bell.fd)
            self._bell = None


def _end_closed() -> None:
    """Of loops that have ended without a word."""
    for adapter in list(Adapter._all.values()):  # noqa: SLF001 - as if it were a method
        if adapter.is_closed():
            adapter.end()
