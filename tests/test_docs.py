"""The docs tell the truth: generated parts are up to date, and examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import sections  # noqa: E402 - docs/ is no package

PAGES = sorted((ROOT / "docs/design").glob("*.md"))
EXAMPLES = [
    (page.name, number, code)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_parts_of_a_design_page_are_up_to_date(page: Path) -> None:
    """`python docs/sections.py` has nothing to change."""
    text = page.read_text()
    assert sections.renewed(text) == text


def test_generated_parts_are_not_empty() -> None:
    """The patterns still find what they are made from."""
    assert all(text.count("\n") >= 5 for text in sections.sections().values())


@pytest.mark.parametrize(("page", "number", "code"), EXAMPLES, ids=lambda value: str(value)[:20])
def test_an_example_of_the_docs_runs(page: str, number: int, code: str, tmp_path: Path) -> None:
    """Every python block is a whole program that ends well."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        check=True,
        timeout=60,
    )
