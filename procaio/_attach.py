"""attach(): callbacks are called by the program's event loop, whichever that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from procaio import _loops
from procaio._pool import default_pool

if TYPE_CHECKING:
    from types import TracebackType

    from procaio._pool import Pool

__all__ = ["Attachment", "attach"]


@final
class Attachment:
    """What attach() gives: a context manager; leaving it detaches."""

    def __init__(self, pool: Pool, loop: _loops.Loop) -> None:
        """Let the loop watch the pool."""
        self._pool = pool
        self._loop = loop
        self._holder = object()  # not the attachment: the pool would keep itself
        pool._attach(loop, self._holder)  # noqa: SLF001 - ours

    def detach(self) -> None:
        """Let the loop watch the pool no more, unless others have attached it too, or `await` has.
        Twice does nothing.
        """
        if not self._pool.closed:
            self._pool._detach(self._loop, self._holder)  # noqa: SLF001

    def __enter__(self) -> Attachment:
        """Give the attachment itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Detach."""
        self.detach()

    def __repr__(self) -> str:
        """Both sides."""
        return f"<Attachment of {self._pool!r} to {type(self._loop).__name__}>"


def attach(loop: object = None, *, pool: Pool | None = None) -> Attachment:
    """
    Let an event loop call the callbacks of a pool's requests.

    Args:
        loop: None: the loop of this thread. A name ('asyncio', 'trio', 'twisted', 'qt', 'tk',
            'gevent', 'glib', 'tornado'): that of this kind. Or an object: an asyncio or Tornado
            loop, a Twisted reactor, a QCoreApplication, a Tk window, a gevent hub, a
            GLib.MainContext or MainLoop, a selector (whose user calls `key.data()`), or anything
            with the methods of `procaio.Loop`.
        pool: the pool; the default pool if it is not given.

    Must be called in the loop's thread. The loop is attached until the pool is closed, or
    detach() is called by all who have attached it. Where requests are awaited none of this is
    needed: the first await attaches the loop.

    Raises:
        RuntimeError: no loop was found.
        TypeError, ValueError: it is nothing that can be attached.

    """
    return Attachment(default_pool() if pool is None else pool, _loops.find(loop))
