"""gevent: what other loops do not have. Programs of their own, since some patch the library."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gevent") is None, reason="gevent is not installed"
)

EXIT = """
import sys
import gevent
import procaio

procaio.attach()
procaio.aio_nop(lambda: sys.exit(3))
try:
    gevent.sleep(10)
except SystemExit as error:
    print(error.code)
procaio.aio_busy(0.01).wait()
procaio.aio_busy(0.01)
procaio.flush()
print("delivered")
"""


def test_exit_in_a_callback_reaches_the_main_greenlet_and_delivering_goes_on() -> None:
    """Gevent stops a watcher that raises; SystemExit is for the main greenlet, as ever."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXIT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "3\ndelivered\n"), ended.stderr
