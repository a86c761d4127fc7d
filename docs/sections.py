"""
Generated parts of the pages: offsets from shm/abi.h, moves from shm/state.c, the example scripts.

`python docs/sections.py` writes them; a test fails when a page is behind its source.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs/design").glob("*.md")), ROOT / "docs/examples.md"]


def offsets(structure: str) -> str:
    """Give a table of the asserted offsets of a structure of abi.h."""
    text = (ROOT / "shm/abi.h").read_text()
    body = re.search(rf"struct {structure} \{{(.*?)\n\}};", text, re.DOTALL)
    assert body, structure
    rows = ["| offset | field | |", "|---:|---|---|"]
    for field, at in re.findall(rf"PA_AT\({structure}, (\w+), (\d+)\)", text):
        comment = re.search(rf"\b{field}(?:\[\w+\])?;[ \t]*/\* (.*?) \*/", body[1])
        rows.append(f"| {at} | `{field}` | {comment[1] if comment else ''} |")
    return "\n".join(rows)


def moves() -> str:
    """Give the diagram of the table in state.c."""
    text = (ROOT / "shm/state.c").read_text()
    rows = ["```", f"{'from':<10} {'to':<10} by"]
    for start, row in re.findall(r"\[PA_(\w+)\] = \{(.*?)\},\n", text):
        for end, movers in re.findall(r"\[PA_(\w+)\] = ([\w| ]+)", row):
            by = movers.replace("PA_", "").lower().replace(" | ", ", ")
            rows.append(f"{start:<10} {end:<10} {by}")
    return "\n".join([*rows, "```"])


def script(name: str) -> str:
    """Give an example script. Its block is `py`: what is `python` must run without arguments."""
    return f"```py\n{(ROOT / 'docs/examples' / name).read_text()}```"


def sections() -> dict[str, str]:
    """Give every generated part by its name."""
    return {
        **{path.name: script(path.name) for path in (ROOT / "docs/examples").glob("*.py")},
        "pa_slot": offsets("pa_slot"),
        "pa_worker": offsets("pa_worker"),
        "pa_header": offsets("pa_header"),
        "moves": moves(),
    }


def renewed(page: str) -> str:
    """Give a page with its generated parts made anew."""
    for name, text in sections().items():
        page = re.sub(
            rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)",
            lambda match, text=text: f"{match[1]}{text}\n{match[2]}",
            page,
            flags=re.DOTALL,
        )
    return page


def main() -> None:
    """Write all pages that have generated parts."""
    for path in PAGES:
        path.write_text(renewed(path.read_text()))


if __name__ == "__main__":
    main()
