"""
The files that the benchmarks work on: one of random bytes, and a tree of many small ones.

They are made under another name and renamed when complete, so a directory that is kept between
runs never holds half of something. Sizes are in the names: a quick run does not disturb the
files of a full one.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
FILES_IN_DIRECTORY = 1000


@dataclass(frozen=True)
class Data:
    """The data directory and the sizes of what is in it."""

    root: Path
    file_bytes: int
    files: int

    @classmethod
    def at(cls, root: Path, *, quick: bool) -> Data:
        """Give the data of a quick or of a full run."""
        return cls(root, 8 * MIB, 1000) if quick else cls(root, 256 * MIB, 100_000)

    @property
    def file(self) -> Path:
        """The file of random bytes."""
        return self.root / f"random-{self.file_bytes}.bin"

    @property
    def tree(self) -> Path:
        """The directory of directories of small files."""
        return self.root / f"tree-{self.files}"

    def paths(self) -> list[str]:
        """Give the path of every small file, directory after directory."""
        return [
            f"{self.tree}/{number // FILES_IN_DIRECTORY:03}/{number:06}"
            for number in range(self.files)
        ]

    def offsets(self, count: int, size: int) -> list[int]:
        """Give `count` random offsets of blocks, the same ones for every contender."""
        chooser = random.Random(count)
        return [n * size for n in chooser.choices(range(self.file_bytes // size), k=count)]

    def prepare(self, needs: frozenset[str]) -> None:
        """Make what is needed ("file", "tree") unless it is there, and bring it into the cache."""
        self.root.mkdir(parents=True, exist_ok=True)
        if "file" in needs:
            if not self.file.exists():
                self._make_file()
            self._read_file()
        if "tree" in needs:
            if not self.tree.exists():
                self._make_tree()
            for path in self.paths():
                os.stat(path)

    def _make_file(self) -> None:
        partial = self.file.with_suffix(".partial")
        with partial.open("wb") as file:
            for _ in range(self.file_bytes // MIB):
                file.write(os.urandom(MIB))
            # Written back now: else the kernel does it while something is being measured.
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self.file)

    def _read_file(self) -> None:
        block = bytearray(MIB)
        with self.file.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass

    def _make_tree(self) -> None:
        partial = self.tree.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for number in range(self.files):
            directory = partial / f"{number // FILES_IN_DIRECTORY:03}"
            if number % FILES_IN_DIRECTORY == 0:
                directory.mkdir(parents=True)
            # Empty: stat does not look at what is inside.
            (directory / f"{number:06}").touch()
        os.sync()
        partial.rename(self.tree)
