"""
Pool: owns the segment, the worker processes and the requests in flight.

The hot path is C (`_core`); here are the settings, the pool's life as its owner sees it, the one
default pool, and what happens at exit and after a fork.

Not here: how requests get to the workers (docs/design/segment.md), what loops do (`_loops`).
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import errno
import os
import resource
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from procaio import _core, _loops
from procaio._lock import RLock
from procaio.shm import create as create_shared_memory
from procaio.workers import title_area, usable_cores

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeAlias

    _Attached: TypeAlias = weakref.WeakKeyDictionary[_loops.Loop, set[object]]

__all__ = ["Pool", "Statistics", "WorkerDeath", "WorkerStatistics", "default_pool"]

DEFAULT_WORKERS: Final = 8
PRIORITIES: Final = range(4, -5, -1)
LONGEST_IDLE_MS: Final = 2**32 - 1


@dataclass(frozen=True)
class WorkerStatistics:
    """One worker, at the moment of the snapshot."""

    number: int
    pid: int
    state: str
    """'search', 'sleep' or 'execute'."""
    taken: int
    """Requests it has taken so far."""
    operation: str | None
    """What it executes, None if nothing."""


@dataclass(frozen=True)
class Statistics:
    """A snapshot of a pool. Counters begin with the pool."""

    queued: dict[int, int]
    """Requests that no worker has taken, by priority."""
    outstanding: int
    pending: int
    submitted: int
    """Requests that were made: completed + outstanding."""
    completed: int
    """Requests that have ended, also those that were cancelled."""
    failed: int
    """Those of them that ended with an error; a cancelled one has none."""
    cancelled: int
    """Requests that were cancelled before they had ended."""
    rerun: int
    """Requests that were run again because their worker died."""
    aborted: int
    """Workers that were killed to end the request that they executed."""
    died: int
    """Requests that ended with their worker: with WorkerDied, unless they were to end anyway."""
    worker_deaths: int
    spawner_deaths: int
    workers: tuple[WorkerStatistics, ...]
    spawner_pid: int
    shared_bytes: int
    """Shared memory mapped, in bytes."""


@dataclass(frozen=True)
class WorkerDeath:
    """A worker that was killed or has crashed: what the hook of on_worker_death() gets."""

    number: int
    pid: int
    exitcode: int | None
    """The negated number of the signal that ended it, or its exit status; None if the program has
    waited for it itself."""
    operation: str | None
    """What it executed, None if nothing."""


@final
class Pool(_core.CorePool):
    """
    A pool of worker processes, and the requests that were given to it.

    Args:
        workers: how many worker processes there may be (1 to 256). They are started on demand.
        max_idle: how many of them may be idle for longer than `idle_timeout`.
        idle_timeout: seconds after which surplus idle workers leave.
        at_once: do what cannot block in the program itself, where that is quicker: see at_once().
        inline: run every operation in the program itself, in the call, without any process: for
            debugging, and as a control in tests.
        on_worker_death: see on_worker_death().

    A context manager: leaving it closes the pool. Most programs use the default pool, which the
    module-level functions start when it is first needed.

    """

    def __init__(
        self,
        workers: int = DEFAULT_WORKERS,
        *,
        max_idle: int = 4,
        idle_timeout: float = 10.0,
        inline: bool = False,
        at_once: bool = True,
        on_worker_death: Callable[[WorkerDeath], object] | None = None,
    ) -> None:
        """Make the segment; processes are started with the first request."""
        if self._is_open():
            raise RuntimeError("the pool is open already")
        self._workers = _count(workers, "workers", 1, _core.MAX_WORKERS)
        self._max_idle = _count(max_idle, "max_idle", 0, _core.MAX_WORKERS)
        self._idle_timeout = _seconds(idle_timeout, "idle_timeout")
        self._exit_timeout = 10.0
        self._inline = inline
        self._at_once = at_once
        self._closing = False
        # By whom each loop is attached; None is `await`, which never detaches.
        self._loops: _Attached = weakref.WeakKeyDictionary()
        self._worker_death_hook: Callable[[WorkerDeath], object] | None = None
        self.on_worker_death(on_worker_death)
        self._begin()
        _pools.add(self)

    def _begin(self) -> None:
        _core._look_for_lost()  # noqa: SLF001 - ours; before numbers are given out again
        if not self._inline:
            _core._watch_identity(os)  # noqa: SLF001 - ours
            _core._watch_limits(resource)  # noqa: SLF001
        try:
            self._begin_in(elsewhere=False)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            self._begin_in(elsewhere=True)

    def _begin_in(self, *, elsewhere: bool) -> None:
        title_at, title_size = title_area()
        self._open(
            create_shared_memory(_core.SEGMENT_SIZE, elsewhere),
            usable_cores(),
            self._inline,
            self._workers,
            self._max_idle,
            self._idle_timeout_ms(),
            title_at,
            title_size,
            create_shared_memory,
        )

    def __enter__(self) -> Pool:
        """Give the pool itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the pool."""
        self.close()

    def __repr__(self) -> str:
        """State, and how much it has to do."""
        if self.closed:
            return "<Pool closed>"
        kind = "inline" if self._inline else f"workers={self.nworkers()}/{self._workers}"
        return f"<Pool {kind} nreqs={self.nreqs()}>"

    # -- its end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """
        Wait until every outstanding request has ended, callbacks included; then end all processes
        and give all shared memory back.

        Requests that callbacks make meanwhile are waited for too. If max_parallel(0) keeps them
        from running, one worker is allowed to. Buffers stay usable until they
        are released. Closing twice does nothing. In a request's callback it must not be called.
        """
        self._close(None)

    def _close(self, timeout: float | None) -> None:
        if self.closed or self._closing:
            return
        if self._disown():
            _loops.forget(self._loops)
            return
        if self._workers == 0 and self.nreqs():
            self.min_parallel(1)  # else they would be waited for in vain
        self._closing = True
        try:
            self._flush(timeout)
        finally:
            self._detach_all()
            self._kill(errno.ECANCELED)
            self._end()

    def _end(self) -> None:
        # A callback that exits or is interrupted does not keep the pool, or other callbacks.
        interruption = None
        while self.nreqs():
            interruption = self._interruption() or interruption
        self._closing = False
        self._release()
        if interruption:
            raise interruption

    def _interruption(self) -> BaseException | None:
        try:
            self._flush()
        except BaseException as error:  # noqa: BLE001 - it is raised in the end
            return error
        return None

    def _detach_all(self) -> None:
        for loop in list(self._loops):
            self._loops.pop(loop, None)
            # A loop of another thread would have to do it itself; it is told when its reader fails.
            with contextlib.suppress(RuntimeError, ValueError, OSError):
                _loops.watch_no_more(loop, self.poll_fileno())

    def flush(self) -> None:
        """Wait until no request is outstanding; callbacks run meanwhile."""
        self._flush()

    # -- after a fork -----------------------------------------------------------------------------

    def _reopen(self) -> None:
        """In a forked child, at the first use: a pool of its own, under the same poll_fileno.
        Likewise when the program has closed the descriptors of the one before.
        """
        with _opening:
            if self._is_open():  # another thread was first
                return
            self._abandon()
            self._closing = False
            _loops.forget(self._loops)
            self._loops = weakref.WeakKeyDictionary()
            self._begin()

    # -- loops ------------------------------------------------------------------------------------

    def _attach(self, loop: _loops.Loop, holder: object = None) -> None:
        """Let the loop deliver completions: for who awaits, or for an Attachment.

        Callbacks run in the context of whoever has attached the pool. Whoever happens to be the
        first to await gives none: it would be kept for as long as the pool is.
        """
        loop = _loops.that_watches_for(loop)
        holders = self._loops.get(loop, set())
        if not holders or (holder is not None and holders == {None}):
            context = contextvars.Context() if holder is None else contextvars.copy_context()
            context.run(_loops.watch, loop, self)
        self._loops.setdefault(loop, holders).add(holder)

    def _detach(self, loop: _loops.Loop, holder: object) -> None:
        loop = _loops.that_watches_for(loop)
        if not self._is_open() or loop not in self._loops:  # a forked child has no loops
            return
        self._loops[loop].discard(holder)
        if not self._loops[loop]:
            del self._loops[loop]
            _loops.watch_no_more(loop, self.poll_fileno())

    def _attach_again(self) -> None:
        """The descriptor is another one, perhaps under the same number."""
        for loop in list(self._loops):
            with contextlib.suppress(RuntimeError, ValueError, OSError):
                loop.call_soon_threadsafe(_loops.watch_again, loop, self)

    # -- settings ---------------------------------------------------------------------------------

    def min_parallel(self, workers: int | None = None) -> int:
        """Let there be at least so many workers; only ever raises the number. Returns the previous
        number of workers allowed.
        """
        previous = self._workers
        if workers is not None:
            self._set_workers(max(previous, _count(workers, "workers", 0, _core.MAX_WORKERS)))
        return previous

    def max_parallel(self, workers: int | None = None, *, timeout: float | None = None) -> int:
        """
        Let there be at most so many workers; only ever lowers the number.

        Returns, with the previous number, when no more than that live: what they execute ends
        first. With `timeout` a TimeoutError is raised if that takes longer (the limit stays).
        With 0 requests queue and none is run until min_parallel() raises the number again.
        """
        previous = self._workers
        if workers is None:
            return previous
        limit = min(previous, _count(workers, "workers", 0, _core.MAX_WORKERS))
        end = None if timeout is None else time.monotonic() + _seconds(timeout, "timeout")
        self._set_workers(limit)
        while self._surplus(limit):
            left = 0.1 if end is None else min(0.1, end - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"more than {limit} are still busy")
            if self.npending():  # not processed here, and results end a sleep at once
                time.sleep(min(left, 0.005))
                left = 0
            self._sleep(left)
        return previous

    def _set_workers(self, workers: int) -> None:
        self._wanted(workers)
        self._workers = workers

    def max_idle(self, workers: int | None = None) -> int:
        """How many workers may be idle for longer than idle_timeout. Returns the previous."""
        previous = self._max_idle
        if workers is not None:
            self._max_idle = _count(workers, "workers", 0, _core.MAX_WORKERS)
            self._idle(self._max_idle, self._idle_timeout_ms())
        return previous

    def idle_timeout(self, seconds: float | None = None) -> float:
        """After so many seconds surplus idle workers leave. Returns the previous."""
        previous = self._idle_timeout
        if seconds is not None:
            self._idle_timeout = _seconds(seconds, "seconds")
            self._idle(self._max_idle, self._idle_timeout_ms())
        return previous

    def _idle_timeout_ms(self) -> int:
        return int(min(self._idle_timeout * 1000, LONGEST_IDLE_MS))

    def at_once(self, allowed: bool | None = None) -> bool:
        """
        Whether what cannot block is done in the call, by the program. Returns the previous setting.

        These are reads of up to 16 KiB at an offset, without data or into a Buffer, that the kernel
        can serve from its cache without waiting; aio_stat and aio_lstat of a path that it knows on
        a local file system (Linux 6.8 or newer); and aio_load of an ordinary file below 16 KiB on
        ext4, XFS or Btrfs that is in the cache, and was read there since it was written, while
        nothing waits for a worker and all sleep or hang. Opening and reading may wait for a program
        that watches that (fanotify(7), FAN_OPEN_PERM), as everybody's does; where that matters,
        switch this off. Everything else goes to a worker. The request is pending then, and its
        callback runs in poll_cb(), as always. Nothing of a higher priority is overtaken, and with
        one worker allowed nothing at all.
        """
        previous = self._at_once
        if allowed is not None:
            self._at_once = bool(allowed)
        return previous

    def max_poll_reqs(self, requests: int | None = None) -> int:
        """The most requests that one poll_cb() processes; 0 = no limit. Returns the previous."""
        previous = self._max_poll_reqs
        if requests is not None:
            self._max_poll_reqs = _count(requests, "requests", 0, 2**63 - 1)
        return previous

    def max_poll_time(self, seconds: float | None = None) -> float:
        """The seconds that one poll_cb() is granted; 0 = no limit. Returns the previous."""
        previous = self._max_poll_time
        if seconds is not None:
            self._max_poll_time = _seconds(seconds, "seconds")
        return previous

    def max_outstanding(self, requests: int | None = None) -> int:
        """While more requests than this are outstanding, poll_cb() blocks; 0 = no limit. Making
        requests never blocks. Returns the previous limit.
        """
        previous = self._max_outstanding
        if requests is not None:
            self._max_outstanding = _count(requests, "requests", 0, 2**63 - 1)
        return previous

    def exit_timeout(self, seconds: float | None = None) -> float:
        """How long the end of the program waits for outstanding requests, in seconds. Returns the
        previous value.
        """
        previous = self._exit_timeout
        if seconds is not None:
            self._exit_timeout = _seconds(seconds, "seconds")
        return previous

    def on_worker_death(
        self, hook: Callable[[WorkerDeath], object] | None
    ) -> Callable[[WorkerDeath], object] | None:
        """
        Let `hook(death)` be called, with a WorkerDeath, when a worker was killed or has crashed;
        None: nobody is told. Returns the previous hook.

        It is called where callbacks are, and what it raises goes where their exceptions go. Workers
        that the pool has ended itself (idle, aborted, closed) are not told of.
        """
        if hook is not None and not callable(hook):
            raise TypeError(f"hook must be callable or None, not {type(hook).__name__}")
        previous, self._worker_death_hook = self._worker_death_hook, hook
        tell = None if hook is None else lambda *death: hook(WorkerDeath(*death))
        self._on_death(tell)
        return previous

    def statistics(self) -> Statistics:
        """A snapshot of the pool."""
        fields = self._snapshot()
        return Statistics(
            queued=dict(zip(PRIORITIES, fields["queued"], strict=True)),
            workers=tuple(WorkerStatistics(*worker) for worker in fields["workers"]),
            **{
                name: fields[name]
                for name in Statistics.__dataclass_fields__
                if name not in {"queued", "workers"}
            },
        )


def _count(value: int, name: str, least: int, most: int) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}: {value}")
    return value


def _seconds(value: float, name: str) -> float:
    if not value >= 0:
        raise ValueError(f"{name} must not be negative: {value}")
    return float(value)


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


_default_lock = RLock()
_opening = RLock()


def default_pool() -> Pool:
    """The pool that the module-level functions use; it is made when it is first needed."""
    pool = _core._default_pool()  # noqa: SLF001 - ours
    if isinstance(pool, Pool) and not pool.closed:
        return pool
    with _default_lock:  # two threads may need it at the same time
        pool = _core._default_pool()  # noqa: SLF001
        if not isinstance(pool, Pool) or pool.closed:
            pool = Pool()
            _core._set_hook("default_pool", pool)  # noqa: SLF001
    return pool


def _at_exit() -> None:
    for pool in list(_pools):
        end = time.monotonic() + pool.exit_timeout()
        while pool.nreqs() and time.monotonic() < end:
            # The program is ending already, whatever callback calls sys.exit() now.
            with contextlib.suppress(SystemExit):
                pool._flush(max(0, end - time.monotonic()))  # noqa: SLF001 - ours
        with contextlib.suppress(SystemExit):
            pool._close(0)  # noqa: SLF001


def _in_child() -> None:
    global _default_lock, _opening  # noqa: PLW0603 - other threads of the parent may hold them
    _default_lock = RLock()
    _opening = RLock()
    for pool in list(_pools):
        pool._abandon()  # noqa: SLF001 - ours


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
_core._set_hook("make_default", default_pool)  # noqa: SLF001
