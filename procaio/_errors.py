"""Our own exceptions. Failures of system calls are the OSError everybody knows."""

from __future__ import annotations

__all__ = ["CrashLoopWarning", "PoolClosed", "RequestCancelled", "WorkerDied"]


class WorkerDied(OSError):  # noqa: N818 - it names an event
    """The worker that executed the request was killed or crashed (errno EIO).

    Raised for what must not be done twice (an unlink, a write at the position, ...): it may have
    happened or not. Everything else is run again by another worker, and nobody notices, unless
    three have died over it. A request on a tree fails with it where it was the tree's top, or, of
    a copy, the first failure; among its `progress.failures` there is EIO. In the list that a batch
    yields it stands for the item over which three have died.
    """


class CrashLoopWarning(RuntimeWarning):
    """The processes of a pool die as soon as they are started, and nothing is completed.

    Given once, when more have died in a row than can live at a time, and again only after something
    has been completed. Whatever ends them (no memory, a policy, a signal) has to be found in the
    system; new ones are started after pauses that grow up to a second, and requests wait. Their
    deadlines, cancel() and abort() end them.
    """


class RequestCancelled(Exception):  # noqa: N818 - it names a state, like asyncio.CancelledError
    """The request that is waited for was cancelled."""


class PoolClosed(RuntimeError):  # noqa: N818 - it names a state
    """The pool was closed, or the request belongs to a pool that is gone (after a fork)."""
