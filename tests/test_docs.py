"""The docs tell the truth: generated parts are up to date, and examples run."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import procaio
from conftest import is_sanitized
from procaio import _loops

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
import entries  # noqa: E402 - docs/ is no package
import sections  # noqa: E402

PAGES = sections.PAGES
EXAMPLES = [
    (page.name, number, code)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    if page.name != "tutorial.md"  # test_tutorial.py follows that
]
LOOPS = {"anyio", "gevent", "gi", "PySide6", "tkinter", "tornado", "trio", "twisted", "uvloop"}
REFERENCE = {
    page.name: entries.listed(page.read_text())
    for page in sorted((ROOT / "docs/reference").glob("*.md"))
}
LISTED = [name for names in REFERENCE.values() for name in names]


def test_pages_of_the_reference_name_what_there_is() -> None:
    """A block holds public names only."""
    unknown = {page: set(names) - set(procaio.__all__) for page, names in REFERENCE.items()}
    assert {page: names for page, names in unknown.items() if names} == {}


def test_failures_name_tests_that_exist() -> None:
    """Each row says by which one it is shown."""
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/design/failures.md").read_text())
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    """A new name is described, by a line in a block of docs/reference; constants by their class."""
    described = Counter(
        name for line in LISTED if line in procaio.__all__ for name in entries.described(line)
    )
    assert sorted(set(procaio.__all__) - set(described)) == []
    assert [name for name, times in described.items() if times > 1] == []


@pytest.mark.parametrize("name", LISTED)
def test_an_entry_of_the_reference_says_something(name: str) -> None:
    """There is a docstring, and the stub has a type for each parameter that it names."""
    thing = getattr(procaio, name)
    is_of_python = getattr(thing, "__module__", None) == "posix"  # some say nothing there
    assert thing.__doc__ or not callable(thing) or is_of_python
    assert f":: {name}" in entries.entry(name)


def test_signatures_join_docstring_and_stub() -> None:
    """Defaults are as written in the docstring; overloads become one."""
    made = {
        name: entries.entry(name).splitlines()[0] for name in ("aio_mkdir", "aio_read", "Buffer")
    }
    assert "aio_mkdir(path: StrPath | BytesPath, mode: int = 0o777, callback: " in made["aio_mkdir"]
    assert ", *, dir_fd: Fh | None = None, pri: int | None = None, " in made["aio_mkdir"]
    assert "data: WriteableBuffer | None = None" in made["aio_read"]
    assert made["aio_read"].endswith(" -> Request[bytes] | Request[int]")
    assert made["Buffer"] == ".. py:class:: Buffer(size: int, pool: Pool | None = None)"
    wait = "   .. py:method:: wait(timeout: float | None = None) -> T"
    assert wait in entries.entry("Request").splitlines()


def test_the_types_of_the_stub_are_explained() -> None:
    """An alias is either shown as what it stands for, or the reference says what that is."""
    stub = (ROOT / "procaio/_core.pyi").read_text()
    aliases = set(re.findall(r"^(_\w+): TypeAlias", stub, re.MULTILINE))
    shown = {name.lstrip("_") for name in aliases - set(entries.PLAIN_TYPES)}
    page = (ROOT / "docs/reference/index.md").read_text()
    assert shown <= set(re.findall(r"^\.\. py:type:: (\w+)", page, re.MULTILINE))


@pytest.mark.parametrize(
    ("text", "rst"),
    [
        ("what every aio_ function", "what every aio\\_ function"),
        ("one of DT_*, see stat(2)", "one of DT\\_\\*, see :manpage:`stat(2)`"),
        ("see aio_close; `aio_close`", "see :py:obj:`aio_close <.aio_close>`; `aio_close`"),
        (":param max_parallel: how many", ":param max_parallel: how many"),
        ("numpy's x.__int__()", "numpy's x.__int_\\_()"),
        ("flush it; flush() it, wait()", "flush it; :py:obj:`flush() <.flush>` it, ``wait()``"),
    ],
)
def test_docstrings_become_rst(text: str, rst: str) -> None:
    """Nothing is taken for markup by accident, and names become links."""
    assert entries.as_rst(text) == rst


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_parts_of_a_page_are_up_to_date(page: Path) -> None:
    """`python docs/sections.py` has nothing to change."""
    text = page.read_text()
    assert sections.renewed(text) == text


def test_generated_parts_are_not_empty() -> None:
    """The patterns still find what they are made from."""
    assert all(text.count("\n") >= 5 for text in sections.sections().values())


def test_tests_that_the_docs_name_are_there() -> None:
    """A rule of the table of rules has its tests."""
    text = (ROOT / "docs/design/verification.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    sources = [path.read_text() for path in (ROOT / "tests").glob("test_*.py")]
    there = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    assert named - there == set()
    assert len(named) > 50


def imports(code: str) -> set[str]:
    """Give the packages that a program imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def command(code: str) -> list[str]:
    """Give what runs a program, if need be on a display of its own; skip where that cannot be."""
    needed = imports(code) & LOOPS
    missing = [name for name in sorted(needed) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if is_sanitized and '"procaio"' in code:
        pytest.skip("the sanitized build has no command")
    run = [sys.executable, "-W", "error", "-c", code]
    if "tkinter" not in needed or "DISPLAY" in os.environ:
        return run
    if shutil.which("xvfb-run") is None:
        pytest.skip("there is no display, and no xvfb-run")
    return ["xvfb-run", "--auto-servernum", *run]


@pytest.mark.parametrize(("page", "number", "code"), EXAMPLES, ids=lambda value: str(value)[:20])
def test_an_example_of_the_docs_runs(page: str, number: int, code: str, tmp_path: Path) -> None:
    """Every python block is a whole program that ends well."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        command(code),
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "QT_QPA_PLATFORM": "offscreen"},
        check=True,
        timeout=60,
    )


def test_loops_are_found_in_the_order_that_is_told() -> None:
    """Those that are never found, or as a loop of asyncio, have no place there."""
    told = re.findall(r"^\d\. (.*)$", (ROOT / "docs/loops/index.md").read_text(), re.MULTILINE)
    kinds = [kind for kind in _loops._KINDS if kind not in {"tornado", "selectors"}]
    found = [next((kind for kind in kinds if kind in line.lower()), line) for line in told]
    assert found == kinds


def test_every_loop_has_a_page_with_a_program() -> None:
    """What attach() finds, the pages tell of, and each begins with a program that works."""
    pages = {page.stem: page.read_text() for page in (ROOT / "docs/loops").glob("*.md")}
    assert set(_loops._KINDS) <= set(pages)
    assert [name for name, text in pages.items() if "```python\n" not in text] == []


def test_figures_of_the_comparison_are_those_that_were_measured() -> None:
    """No figure is there that the pages it refers to do not have."""
    pages = [ROOT / f"docs/{name}.md" for name in ("benchmarks", "failures-compared")]
    measured = {figure for page in pages for figure in figures(page.read_text())}
    text = (ROOT / "docs/why.md").read_text()
    told = {figure for figure in figures(text) if not figure.isdecimal()}
    assert len(told) > 25
    assert told - measured <= {"5.10"}  # of Linux


def figures(text: str) -> list[str]:
    """Give the numbers of a text that are more than counts."""
    return re.findall(r"\d+(?:[.,]\d+)*", text)
