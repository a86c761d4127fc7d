"""Every row of the tables of docs/design/failures.md names the tests that show it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 4
IN_PARENTHESES = re.compile(r"\(([^()]*`test_\w+`[^()]*)\)")


def rows_of(page: str) -> list[str]:
    """The rows of all tables, less their heads and the lines below those."""
    lines = page.splitlines()
    below = [*lines[1:], ""]
    return [
        line
        for line, next_one in zip(lines, below, strict=True)
        if line.startswith("|") and not line.startswith("|-") and not next_one.startswith("|-")
    ]


def named_in(row: str) -> set[str]:
    """Tests that a row names, in parentheses."""
    return {name for text in IN_PARENTHESES.findall(row) for name in re.findall(r"`(\w+)`", text)}


ROWS = rows_of((ROOT / "docs/design/failures.md").read_text())


def test_rows_and_names_are_found() -> None:
    page = "| a | b |\n|---|---|\n| c | d |\n| e | |\n\ntext | text\n| f | g |\n|--|--|\n| h | |"
    assert rows_of(page) == ["| c | d |", "| e | |", "| h | |"]
    assert named_in("a (`test_a`, `test_b`) b (c) `test_c` (d: `test_d`)") == {
        "test_a",
        "test_b",
        "test_d",
    }
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_row_has_all_columns(row: str) -> None:
    assert len(row.strip().strip("|").split("|")) == COLUMNS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:40])
def test_row_names_its_tests(row: str) -> None:
    assert named_in(row)


def test_tests_that_rows_name_are_there() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").glob("test_*.py")]
    definition = re.compile(r"^\s*(?:async )?def (test_\w+)\(", re.MULTILINE)
    there = {name for text in sources for name in definition.findall(text)}
    assert {name for row in ROWS for name in named_in(row)} - there == set()
