"""Twisted: what other loops do not have. Programs of their own, since a reactor runs only once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("twisted") is None, reason="Twisted is not installed"
)

EXIT = """
import sys
from twisted.internet import reactor
import procaio

def again():
    procaio.aio_nop(reactor.stop)

procaio.attach()
procaio.aio_nop(lambda: (reactor.callLater(0, again), sys.exit(3)))
reactor.run()
print("delivered")
"""

AGAIN = """
from twisted.internet import defer, reactor, task
import procaio

async def main(reactor):
    await procaio.aio_nop()
    await task.deferLater(reactor, 0, lambda: None)
    print(len(await procaio.aio_load("/etc/passwd")) > 0)

def begin():
    defer.ensureDeferred(main(reactor)).addBoth(lambda _: reactor.stop())

{}
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_exit_in_a_callback_is_logged_and_the_reactor_goes_on_reading() -> None:
    """Twisted takes away a reader that raises; what callbacks raise else has a hook."""
    ended = run(EXIT)
    assert (ended.returncode, ended.stdout) == (0, "delivered\n"), ended.stderr


@pytest.mark.parametrize(
    "start",
    [
        "task.react(main)",
        "begin(); reactor.run()",
        "reactor.callWhenRunning(begin); reactor.run()",
    ],
    ids=["react", "before run", "while it runs"],
)
def test_coroutine_awaits_before_and_while_the_reactor_runs(start: str) -> None:
    """Coroutines are begun by whoever is to start the reactor."""
    ended = run(AGAIN.format(start))
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_await_in_a_thread_that_is_not_the_reactor_s_is_refused() -> None:
    ended = run(
        """
import threading
from twisted.internet import reactor
import procaio

async def main():
    await procaio.aio_busy(0.01)

def other():
    try:
        main().send(None)
    except RuntimeError as error:
        print("await needs" in str(error))
    reactor.callFromThread(reactor.stop)

reactor.callWhenRunning(lambda: threading.Thread(target=other).start())
reactor.run()
"""
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_trial_awaits_in_test_after_test(tmp_path: Path) -> None:
    """It starts the reactor again for each, and takes away what a test has left in there."""
    (tmp_path / "test_some.py").write_text(
        """
from twisted.trial import unittest
import procaio

class Some(unittest.TestCase):
    async def test_first(self):
        await procaio.aio_busy(0.01)

    async def test_second(self):
        await procaio.aio_busy(0.01)
        with self.assertRaises(FileNotFoundError):
            await procaio.aio_stat("missing")
"""
    )
    ended = subprocess.run(
        [sys.executable, "-m", "twisted.trial", "test_some"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
