"""
Take the python blocks out of the README and the pages, for type checkers.

`python docs/blocks.py DIRECTORY` writes a file for each. Its lines have the numbers they have on
the page, so what a checker says can be found there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def blocks(page: Path) -> dict[str, str]:
    """Give the blocks of a page by the names of their files."""
    text, found = page.read_text(), {}
    stem = "_".join(page.relative_to(ROOT).with_suffix("").parts).replace("-", "_")
    for number, match in enumerate(re.finditer(r"```python\n(.*?)```", text, re.DOTALL)):
        found[f"{stem}_{number}.py"] = "\n" * text.count("\n", 0, match.start(1)) + match[1]
    return found


def main(directory: Path) -> None:
    """Write them all; what other pages have left there goes."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*.py"):
        path.unlink()
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for name, code in blocks(page).items():
            (directory / name).write_text(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
