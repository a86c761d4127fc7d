"""
What is made from the groups of constants: names at module level, and the compiler's table.

`python docs/names.py` writes procaio/_constants.py and procaio/csrc/constants.h after a change of
procaio/_groups.py; a test fails when one of them is behind. The groups are read, not imported:
a new constant has no value before the table is written and compiled.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ROOT / "procaio/_groups.py"

MODULE = '''\
"""
Every constant under its own name. Written by docs/names.py from _groups.py: change it there.

What each group is for, its docstring says.
"""

from __future__ import annotations

from typing import Final

from procaio._groups import (
{imports}
)

__all__ = [  # noqa: RUF022 - in the order of the groups
{exports}
]

{names}
'''

HEADER = """\
/* procaio/csrc/constants.h - a row for each constant that the system has.
 *
 * Written by docs/names.py from procaio/_groups.py: change it there.  ROW is defined where this is
 * included.
 */
{rows}
"""


class Groups(NamedTuple):
    """What the file of the groups defines."""

    members: list[tuple[str, str]]
    """Each member, with its group."""
    compiled: list[str]
    """Names whose values come from the compiler."""
    single: list[str]
    """Constants that are in no group."""


def read() -> Groups:
    """Look through the file of the groups."""
    found = Groups([], [], [])
    for node in ast.parse(GROUPS.read_text()).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for line in node.body:
                if isinstance(line, ast.Assign):
                    name = ast.unparse(line.targets[0])
                    found.members.append((name, node.name))
                    if ast.unparse(line.value) == "auto()":
                        found.compiled.append(name)
        elif isinstance(node, ast.AnnAssign) and node.value:
            name = ast.unparse(node.target)
            found.single.append(name)
            if ast.unparse(node.value) == f"CONSTANTS['{name}']":
                found.compiled.append(name)
    return found


def module() -> str:
    """Give the text of procaio/_constants.py."""
    groups = read()
    classes = sorted({group for _, group in groups.members}, key=str.casefold)
    names = [*groups.single, *(name for name, _ in groups.members), *classes]
    return MODULE.format(
        imports="\n".join(f"    {name}," for name in [*sorted(groups.single), *classes]),
        exports="\n".join(f'    "{name}",' for name in names),
        names="\n".join(f"{name}: Final = {group}.{name}" for name, group in groups.members),
    )


def header() -> str:
    """Give the text of procaio/csrc/constants.h."""
    return HEADER.format(
        rows="\n".join(f"#ifdef {name}\nROW({name})\n#endif" for name in read().compiled)
    )


FILES = {ROOT / "procaio/_constants.py": module, ROOT / "procaio/csrc/constants.h": header}


def main() -> None:
    """Write both files."""
    for path, text in FILES.items():
        path.write_text(text())


if __name__ == "__main__":
    main()
