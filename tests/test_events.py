"""What docs/failures-compared.md says of procaio is what its program sees."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import not_sanitized

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/failures-compared.md"
LONG = {"hanging_end"}  # takes as long as exit_timeout
FUSE = {"hanging_file_system"}


@pytest.fixture(scope="module")
def report() -> ModuleType:
    """benchmarks/events/report.py, which reads its own tables."""
    sys.path.append(str(ROOT))
    return importlib.import_module("benchmarks.events.report")


@dataclass(frozen=True)
class Program:
    """`python -m benchmarks.events`, and a directory for what it and its programs make."""

    temporary: Path

    def run(self, *options: str, **variables: str) -> str:
        """Its tables. It must have ended and removed everything when it is gone."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.events", "--repeat", "1", *options],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.temporary), **variables},
            text=True,
            capture_output=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        assert os.listdir(self.temporary) == []
        assert list(self.processes()) == []
        return done.stdout

    def processes(self) -> Iterator[Path]:
        """All that were started by it."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.fsencode(self.temporary) in (process / "environ").read_bytes():
                    yield process

    def events_but(self, skipped: set[str]) -> list[str]:
        """Options that name the others."""
        lines = self.run("--list").splitlines()
        names = [line.partition(":")[0] for line in lines if ": " in line]
        return [word for name in names if name not in skipped for word in ("--only", name)]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program, with a directory of its own."""
    (tmp_path / "temporary").mkdir()
    return Program(tmp_path / "temporary")


@not_sanitized
def test_procaio_behaves_as_the_page_says(report: ModuleType, program: Program) -> None:
    said = report.words(PAGE.read_text(), "procaio")
    assert len(said) > 8
    can_hang = (ROOT / "build/slowfs").exists() and os.access("/dev/fuse", os.R_OK | os.W_OK)
    skipped = LONG | (set() if can_hang and shutil.which("fusermount3") else FUSE)
    # Long enough for a busy machine, and shorter than exit_timeout.
    seen = program.run("--peer", "procaio", "--patience", "5", *program.events_but(skipped))
    assert report.words(seen, "procaio") == {
        name: words for name, words in said.items() if name not in skipped
    }


def test_program_that_dies_is_an_outcome(
    report: ModuleType, program: Program, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    table = program.run("--peer", "ThreadPool", "--only", "worker_killed", "--json", str(file))
    words = {"worker_killed": ["program dies"] * 3}
    assert report.words(table, "ThreadPoolExecutor") == words
    answer: dict[str, Any] = json.loads(file.read_text())
    (contender,) = answer["events"][0]["contenders"]
    assert contender["cells"]["the next call"]["words"] == {"program dies": 1}
    assert answer["machine"]["kernel"] == os.uname().release


def test_program_that_hangs_is_an_outcome(report: ModuleType, program: Program) -> None:
    table = program.run("--peer", "ThreadPool", "--only", "hanging_fifo", "--patience", "1")
    (row,) = report.words(table, "ThreadPoolExecutor").values()
    assert row[1:] == ["4 of 4", "hangs", "hangs"]


def test_contender_that_is_not_there_is_named_as_missing(program: Program, tmp_path: Path) -> None:
    table = program.run("--peer", "Perl", "--only", "stopped", PATH=str(tmp_path))
    assert "Perl IO::AIO   missing: perl" in table
