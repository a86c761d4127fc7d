"""
What ends a command early: signals, of which the first lets it leave everything in order.

They are noted, never raised: what is being done when one comes is not torn apart, and the command
looks at them whenever it has nothing to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["Signals", "dying_of_signals"]

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@final
class Signals:
    """
    A context: in it, signals that would end the program are noted.

    `number` is the first one's, 0 if there was none, and `again` tells that there were more. Each
    makes fileno() readable until rest(). The third one ends the program: then it waits for the end
    of a worker that cannot even be killed.
    """

    def __init__(self) -> None:
        """None has come, and none would be noted."""
        self.number = 0
        self.again = False
        self._noted = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._before = contextlib.ExitStack()

    def __enter__(self) -> Signals:
        """Note them from now on."""
        self._before.enter_context(_handled(self._note))
        return self

    def __exit__(self, *_: object) -> None:
        """Let them be what they were."""
        self._before.close()
        os.close(self._noted)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            self.again = True
            self._before.enter_context(_handled(signal.SIG_DFL))
        self.number = self.number or number
        os.eventfd_write(self._noted, 1)

    def fileno(self) -> int:
        """What to wait for."""
        return self._noted

    def rest(self) -> None:
        """Wait for the next one."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._noted)


@contextlib.contextmanager
def dying_of_signals() -> Iterator[None]:
    """
    In the block, which leaves nothing half done, they end the program as if it were not Python.

    It could not even see a ctrl-C while it is in a system call, such as a look at a file server
    that does not answer.
    """
    with _handled(signal.SIG_DFL):
        yield


@contextlib.contextmanager
def _handled(how: object) -> Iterator[None]:
    """Handle the signals that the program has not been told to ignore."""
    before = {number: signal.getsignal(number) for number in ENDING}
    heeded = [number for number in ENDING if before[number] not in {signal.SIG_IGN, None}]
    for number in heeded:
        signal.signal(number, how)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number in heeded:
            signal.signal(number, before[number])
