"""Twisted: coroutines await requests as they await Deferreds. A reactor runs once a process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from conftest import run_fine

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("twisted.internet.epollreactor")

REACT = """
    import gc, os, procaio
    from twisted.internet import defer, task
    def react(main):
        task.react(lambda reactor: defer.ensureDeferred(main(reactor)))
"""
END = """
    try:
        react(main)
    except SystemExit as end:
        assert not end.code, end.code
    procaio.close()
    print("fine")
"""
ON_ASYNCIO = """
    import asyncio
    from twisted.internet import asyncioreactor
    asyncioreactor.install(asyncio.new_event_loop())
"""
REACTORS = pytest.mark.parametrize("install", ["", ON_ASYNCIO], ids=["epoll", "asyncio"])


@REACTORS
def test_coroutines_await_values_and_errors(install: str) -> None:
    """From the first line of what task.react() runs on: the reactor has not begun then."""
    run_fine(
        END,
        install,
        REACT,
        """
    async def main(reactor):
        assert await procaio.aio_stat("/") == os.stat("/")
        try:
            await procaio.aio_stat("/no")
        except FileNotFoundError as error:
            assert error.filename == "/no"
        else:
            raise AssertionError
        async def one(number):
            return await procaio.aio_busy(0.001), number
        found = await defer.gatherResults([defer.ensureDeferred(one(n)) for n in range(100)])
        assert [number for _, number in found] == list(range(100))
        request = procaio.aio_stat("/")
        await request
        assert await request is request.result
        """,
    )


@REACTORS
def test_deferred_that_is_cancelled_takes_its_request_back(install: str) -> None:
    """Unless others want it, and with the descriptor that had just come."""
    run_fine(
        END,
        install,
        REACT,
        """
    async def wait(request):
        return await request
    async def main(reactor):
        read, write = os.pipe()
        held = procaio.aio_read(read, None, 1)
        first, second = [defer.ensureDeferred(wait(held)) for _ in range(2)]
        first.cancel()
        try:
            await first
        except defer.CancelledError:
            pass
        os.write(write, b"x")
        assert await second == b"x"
        alone = procaio.aio_read(read, None, 1)
        deferred = defer.ensureDeferred(wait(alone))
        deferred.addTimeout(0.001, reactor)
        try:
            await deferred
        except defer.TimeoutError:
            pass
        assert alone.state == "cancelled", alone
        os.write(write, b"x")
        async def opener():
            with await procaio.aio_open("/etc/passwd"):
                await procaio.aio_nop()
        opening = defer.ensureDeferred(opener())
        while not procaio.npending():
            os.sched_yield()
        procaio.poll_cb()
        opening.cancel()  # its value has been delivered, but not to the coroutine
        try:
            await opening
        except defer.CancelledError:
            pass
        while procaio.nreqs():
            await procaio.aio_nop()
        del opening
        gc.collect()
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        opened = {os.readlink(link) for link in links if os.path.lexists(link)}
        assert os.path.realpath("/etc/passwd") not in opened
        os.close(read)
        os.close(write)
        """,
    )


def test_await_after_the_reactor_has_stopped_tells_what_to_do() -> None:
    run_fine(
        """
    async def late():
        await procaio.aio_busy(0.01)
    try:
        late().send(None)
    except RuntimeError as error:
        assert ".wait()" in str(error)
        procaio.close()
        print("fine")
        """,
        REACT,
        """
    async def main(reactor):
        await procaio.aio_nop()
        """,
        END.replace("procaio.close()", "pass").replace('print("fine")', "pass"),
    )


def test_exit_in_a_callback_is_logged_and_the_reactor_goes_on_reading() -> None:
    """Twisted takes away a reader that raises; what callbacks raise else has a hook."""
    run_fine(
        """
        import sys
        from twisted.internet import reactor
        import procaio

        def again():
            procaio.aio_nop(reactor.stop)

        procaio.attach()
        procaio.aio_nop(lambda: (reactor.callLater(0, again), sys.exit(3)))
        reactor.run()
        print("fine")
        """
    )


@pytest.mark.parametrize(
    "start",
    ["begin(); reactor.run()", "reactor.callWhenRunning(begin); reactor.run()"],
    ids=["before it runs", "while it runs"],
)
def test_coroutine_that_is_begun_by_whoever_starts_the_reactor_awaits(start: str) -> None:
    run_fine(
        start,
        """
        import procaio
        from twisted.internet import defer, reactor, task

        async def main():
            await procaio.aio_nop()
            await task.deferLater(reactor, 0, lambda: None)
            assert await procaio.aio_load("/etc/passwd")
            print("fine")

        def begin():
            defer.ensureDeferred(main()).addBoth(lambda _: reactor.stop())
        """,
    )


def test_await_in_a_thread_that_is_not_the_reactor_s_is_refused() -> None:
    run_fine(
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
                assert "await needs" in str(error)
                print("fine")
            reactor.callFromThread(reactor.stop)

        reactor.callWhenRunning(lambda: threading.Thread(target=other).start())
        reactor.run()
        """
    )


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
