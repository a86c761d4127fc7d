"""Windows, on a display without a screen: heavy I/O does not keep them from what they draw."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import run_fine

TESTS = str(Path(__file__).parent)

# The same work twice: 96 files are written, synced and loaded, by blocking calls, then by workers.
WORK = """
    import collections, os, sys, tempfile
    import procaio
    from drivers import DRIVERS

    DATA = b"x" * 400_000
    FILES = 96
    directory = tempfile.mkdtemp()
    paths = [os.path.join(directory, str(number)) for number in range(FILES)]
    ticks = collections.Counter()
    phase, done = "before", 0

    def tick():
        ticks[phase] += 1
        draw(sum(ticks.values()))
        if phase != "after":
            driver.later(0.001, tick)

    def blocking():
        global phase
        phase = "blocking"
        for path in paths:
            with open(path, "wb") as file:
                file.write(DATA)
                file.flush()
                os.fsync(file.fileno())
            with open(path, "rb") as file:
                assert file.read() == DATA
            os.unlink(path)
        phase = "between"
        driver.later(0.01, asynchronous)

    def asynchronous():
        global phase
        phase = "asynchronous"
        attachment = procaio.attach()
        for _ in range(16):
            following()

    def following():
        if paths:
            path = paths.pop()
            fh = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            procaio.aio_write(fh, 0, None, DATA, lambda _: procaio.aio_fsync(fh, lambda _: (
                procaio.aio_close(fh), procaio.aio_load(path, lambda data: loaded(path, data)))))

    def loaded(path, data):
        global phase, done
        assert data == DATA
        os.unlink(path)
        done += 1
        following()
        if done == FILES:
            phase = "after"
            driver.quit()
"""

CHECK = """
    def start():
        tick()
        driver.later(0.01, blocking)
    driver.run(start)
    assert done == FILES
    os.rmdir(directory)
    assert ticks["asynchronous"] > 10 * (1 + ticks["blocking"]), ticks
    procaio.close()
    print("fine")
"""


def test_window_of_tk_goes_on_during_heavy_io(display: str) -> None:
    """Its timer ticks and its label changes; with blocking calls in their place nothing does."""
    pytest.importorskip("tkinter")
    run_fine(
        CHECK,
        WORK,
        """
        import tkinter
        driver = DRIVERS["tk"]()
        label = tkinter.Label(driver.native())
        label.pack()
        def draw(number):
            label["text"] = number
            label.update_idletasks()
        """,
        env={**os.environ, "DISPLAY": display, "PYTHONPATH": TESTS},
    )


def test_window_of_qt_goes_on_during_heavy_io() -> None:
    """Likewise, and what it draws is counted by the window itself."""
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
    run_fine(
        CHECK.replace("os.rmdir", "assert window.drawn > 10; os.rmdir"),
        WORK,
        """
        from PySide6.QtWidgets import QApplication, QLabel
        application = QApplication([])
        class Window(QLabel):
            drawn = 0
            def paintEvent(self, event):
                self.drawn += phase == "asynchronous"
                super().paintEvent(event)
        window = Window()
        window.resize(200, 50)
        window.show()
        driver = DRIVERS["qt"]()
        def draw(number):
            window.setText(str(number))
        """,
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen", "PYTHONPATH": TESTS},
    )


def test_dialog_that_a_callback_opens_gets_results_too() -> None:
    """Nested loops, as those of dialogs, in the middle of the pool's own work."""
    pytest.importorskip("gi.repository.GLib")
    run_fine("""
        import os, procaio
        from gi.repository import GLib
        outer, inner = GLib.MainLoop(), GLib.MainLoop()
        got = []
        def opened():
            procaio.aio_stat("/", lambda status: (got.append(status), inner.quit()))
            inner.run()
            outer.quit()
        GLib.timeout_add_seconds(20, outer.quit)
        GLib.timeout_add_seconds(20, inner.quit)
        with procaio.attach():
            procaio.aio_nop(opened)
            outer.run()
        assert got == [os.stat("/")]
        procaio.close()
        print("fine")
    """)


def test_dialog_of_qt_gets_results_too() -> None:
    pytest.importorskip("PySide6.QtCore", exc_type=ImportError)
    run_fine("""
        import os, procaio
        from PySide6.QtCore import QCoreApplication, QEventLoop, QTimer
        application, inner, got = QCoreApplication([]), QEventLoop(), []
        def opened():
            procaio.aio_stat("/", lambda status: (got.append(status), inner.quit()))
            inner.exec()
            application.quit()
        QTimer.singleShot(20_000, inner.quit)
        with procaio.attach():
            procaio.aio_nop(opened)
            application.exec()
        assert got == [os.stat("/")]
        procaio.close()
        print("fine")
    """)
