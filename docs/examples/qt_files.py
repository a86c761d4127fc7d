"""
A window that reads every file of a tree, and can be moved, resized and closed meanwhile.

    python qt_files.py DIRECTORY [PICTURE]

Workers list the directories and load the files, 64 at a time; the window's own loop calls what
counts their lines. With PICTURE it takes one of itself on the way, and closes in the end.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from functools import partial

from PySide6.QtWidgets import QApplication, QLabel, QListWidget, QProgressBar, QVBoxLayout, QWidget

import procaio

IN_FLIGHT = 64


class Window(QWidget):
    """What was found, and how far the reading is."""

    def __init__(self, root: str, picture: str | None) -> None:
        """Begin with the root."""
        super().__init__()
        self.root, self.picture = root, picture
        self.files: deque[str] = deque()
        self.listing = self.loading = self.found = self.done = self.lines = 0
        self.label, self.progress, self.list = QLabel(), QProgressBar(), QListWidget()
        layout = QVBoxLayout(self)
        for widget in (self.label, self.progress, self.list):
            layout.addWidget(widget)
        self.resize(560, 380)
        self.setWindowTitle("Lines of every file")
        self.scan(root)

    def scan(self, directory: str) -> None:
        """List a directory; its own ones follow when it has come."""
        self.listing += 1
        procaio.aio_scandir(directory, 0, partial(self.listed, directory))

    def listed(self, directory: str, dirs: list[str] | None, others: list[str] | None) -> None:
        """Put the files on the list of what is to be loaded. None: it cannot be read."""
        self.listing -= 1
        for name in dirs or ():
            self.scan(os.path.join(directory, name))
        self.files += [os.path.join(directory, name) for name in others or ()]
        self.found += len(others or ())
        self.load()

    def load(self) -> None:
        """Keep so many loads in flight, and no more."""
        while self.files and self.loading < IN_FLIGHT:
            path = self.files.popleft()
            self.loading += 1
            # What is no file, such as a FIFO, might never end.
            procaio.aio_load(path, partial(self.loaded, path), timeout=10)
        self.show_state()

    def loaded(self, path: str, data: bytes | None) -> None:
        """Count the lines of one file."""
        self.loading -= 1
        self.done += 1
        name = os.path.relpath(path, self.root)
        if data is None:
            self.list.addItem(f"{name}: {os.strerror(procaio.errno())}")
        else:
            lines = data.count(b"\n")
            self.lines += lines
            self.list.addItem(f"{name}: {lines:,} lines")
        self.load()

    def show_state(self) -> None:
        """Say how far it is, and whether that was all."""
        self.label.setText(f"{self.root}: {self.lines:,} lines in {self.done:,} files")
        self.progress.setRange(0, self.found)
        self.progress.setValue(self.done)
        if self.picture and not self.listing and self.done * 3 >= self.found * 2:
            self.list.scrollToBottom()
            self.grab().save(self.picture)
            self.picture = ""
        if self.done == self.found and not self.listing and self.picture is not None:
            self.close()


def main() -> None:
    """Read the command line, and let the application run until the window is closed."""
    root = sys.argv[1]
    picture = sys.argv[2] if len(sys.argv) > 2 else None
    application = QApplication(sys.argv[:1])
    with procaio.attach():
        window = Window(root, picture)
        window.show()
        status = application.exec()
    print(f"{window.lines} lines in {window.done} files")
    procaio.close()
    sys.exit(status)


if __name__ == "__main__":
    main()
