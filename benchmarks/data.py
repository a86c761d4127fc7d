"""
The files that the benchmarks work on: one of random bytes, and trees of many small ones.

They are made under another name and renamed when complete, so a directory that is kept between
runs never holds half of something. Sizes are in the names: a quick run does not disturb the
files of a full one.

Not here: trees that are made for one turn and consumed by it (`trees`).
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
FILES_IN_DIRECTORY = 1000
KIB = 1 << 10
LOAD_BYTES = 4 * KIB
SYNCED_FILES = 16


@dataclass(frozen=True)
class Shape:
    """So many directories, and so many files of 1 to 4 KiB in each of them."""

    directories: int
    files: int

    @property
    def name(self) -> str:
        """What a tree of this shape is called."""
        return f"tree-{self.directories}x{self.files}"

    @property
    def entries(self) -> int:
        """Files and directories, without the one that all are in."""
        return self.directories * (1 + self.files)

    def make(self, root: Path) -> None:
        """Make a tree of this shape at `root`."""
        block = os.urandom(4 * KIB)
        for number in range(self.directories):
            directory = root / f"{number:03}"
            directory.mkdir(parents=True)
            prefix = f"{directory}/"
            for file in range(self.files):
                # Not by pathlib: a hundred trees of 50,000 files are made in a run.
                fd = os.open(f"{prefix}{file:04}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                os.write(fd, block[: KIB + (file * 977) % (3 * KIB)])
                os.close(fd)


@dataclass(frozen=True)
class Data:
    """The data directory and the sizes of what is in it."""

    root: Path
    file_bytes: int
    files: int
    delay_ms: int  # of every call on the slow file system

    @classmethod
    def at(cls, root: Path, *, quick: bool) -> Data:
        """Give the data of a quick or of a full run."""
        return cls(root, 8 * MIB, 1000, 1) if quick else cls(root, 256 * MIB, 100_000, 5)

    @property
    def file(self) -> Path:
        """The file of random bytes."""
        return self.root / f"random-{self.file_bytes}.bin"

    @property
    def tree(self) -> Path:
        """The directory of directories of small files."""
        return self.root / f"tree-{self.files}"

    @property
    def loads(self) -> Path:
        """The directory of directories of files of 4 KiB."""
        return self.root / f"tree-4k-{self.load_files}"

    @property
    def load_files(self) -> int:
        """How many of these there are."""
        return self.files // 5

    @property
    def written_bytes(self) -> int:
        """The size of each file that is written to."""
        return max(MIB, self.file_bytes // 16)

    @property
    def written(self) -> list[Path]:
        """The files that are written to: one, or each of them by somebody else."""
        names = (f"written-{self.written_bytes}-{number}" for number in range(SYNCED_FILES))
        return [self.root / name for name in names]

    @property
    def slow_source(self) -> Path:
        """What the slow file system shows."""
        return self.root / "slow-source"

    @property
    def slow_mount(self) -> Path:
        """Where it shows it."""
        return self.root / "slow"

    def paths(self) -> list[str]:
        """Give the path of every small file, directory after directory."""
        return _paths_in(self.tree, self.files)

    def load_paths(self) -> list[str]:
        """Give the path of every file of 4 KiB, likewise."""
        return _paths_in(self.loads, self.load_files)

    def offsets(self, count: int, size: int) -> list[int]:
        """Give `count` random offsets of blocks, the same ones for every contender."""
        return random_offsets(count, size, self.file_bytes)

    def prepare(self, needs: frozenset[str], shape: Shape | None = None) -> None:  # noqa: C901 - a line or two for each
        """
        Make what is needed unless it is there, and bring it into the cache.

        That is "file", "tree", files of 4 KiB ("loads"), those to write to ("written"), and a tree
        of the shape, in the data directory ("shaped") or in what the slow file system shows
        ("slow").
        """
        self.root.mkdir(parents=True, exist_ok=True)
        if shape and "shaped" in needs:
            _prepare_shape(shape, self.root)
        if shape and "slow" in needs:
            _prepare_shape(shape, self.slow_source)
        if "file" in needs:
            _prepare_file(self.file, self.file_bytes)
        if "written" in needs:
            for file in self.written:
                _prepare_file(file, self.written_bytes)
        if "loads" in needs:
            if not self.loads.exists():
                _make_tree(self.loads, self.load_files, os.urandom(LOAD_BYTES))
            for path in self.load_paths():
                Path(path).read_bytes()
        if "tree" in needs:
            if not self.tree.exists():
                _make_tree(self.tree, self.files, b"")  # stat does not look at what is inside
            for path in self.paths():
                os.stat(path)


def random_offsets(count: int, size: int, file_bytes: int) -> list[int]:
    """Give random offsets of blocks in a file of that size, always the same ones."""
    chooser = random.Random(count)
    return [n * size for n in chooser.choices(range(file_bytes // size), k=count)]


def _paths_in(tree: Path, count: int) -> list[str]:
    return [f"{tree}/{number // FILES_IN_DIRECTORY:03}/{number:06}" for number in range(count)]


def _prepare_file(path: Path, size: int) -> None:
    if not path.exists():
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
            # Written back now: else the kernel does it while something is being measured.
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    block = bytearray(MIB)
    with path.open("rb", buffering=0) as file:
        while file.readinto(block):
            pass


def _make_tree(tree: Path, count: int, content: bytes) -> None:
    partial = tree.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for number, path in enumerate(_paths_in(partial, count)):
        if number % FILES_IN_DIRECTORY == 0:
            Path(path).parent.mkdir(parents=True)
        Path(path).write_bytes(content)
    os.sync()
    partial.rename(tree)


def _prepare_shape(shape: Shape, where: Path) -> None:
    tree = where / shape.name
    if not tree.exists():
        partial = tree.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shape.make(partial)
        os.sync()
        partial.rename(tree)
    for path, _, names in os.walk(tree):
        for name in names:
            Path(path, name).read_bytes()
