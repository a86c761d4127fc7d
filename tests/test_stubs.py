"""The stub of procaio._core says what the module has: names, methods, parameters."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from procaio import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

STUB = ast.parse(Path(procaio.__file__).with_name("_core.pyi").read_text())
CLASSES = [node for node in STUB.body if isinstance(node, ast.ClassDef)]
FUNCTIONS = [node for node in STUB.body if isinstance(node, ast.FunctionDef)]

# Type checkers need to be told; the module has them in slots, or only from Python 3.12 on.
ONLY_IN_STUB = {"__buffer__", "__release_buffer__", "__getattr__", "__setattr__", "__new__"}
# What every struct sequence has.
INHERITED_IN_STUB = {"n_fields", "n_sequence_fields", "n_unnamed_fields"}


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a stub, or a class in it, defines."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def is_ours(name: str) -> bool:
    """Names of the stub's own, such as type aliases, do not exist in the module."""
    return not name.startswith("__") and hasattr(_core, name)


def test_stub_and_module_have_the_same_names() -> None:
    private = {"_HasFileno", "_Fh", "_Path", "_StrPath", "_BytesPath", "_Callback", "_Index"}
    private |= {"_Seconds", "_Dirent", "_Entries", "_NamesOnly", "_WithTypes"}
    private |= {"_Listing", "_Removal", "_Section"}
    names = {name for name in dir(_core) if not name.startswith("__")}
    assert set(defined(STUB.body)) - private == names


@pytest.mark.parametrize("stub", [c for c in CLASSES if is_ours(c.name)], ids=lambda c: c.name)
def test_stub_and_class_have_the_same_members(stub: ast.ClassDef) -> None:
    cls = getattr(_core, stub.name)
    in_stub = set(defined(stub.body)) - ONLY_IN_STUB
    missing = {name for name in in_stub if not hasattr(cls, name)}
    assert missing == set()
    public = {name for name in vars(cls) if not name.startswith("__")}
    assert public - in_stub - INHERITED_IN_STUB == set()


@pytest.mark.parametrize("name", sorted({f.name for f in FUNCTIONS if f.name.startswith("aio_")}))
def test_stub_and_function_have_the_same_parameters(name: str) -> None:
    """The first overload is the whole form, and the others leave something out."""
    first, *others = (f.args for f in FUNCTIONS if f.name == name)
    runtime: Any = inspect.signature(getattr(_core, name)).parameters.values()
    positional = [p.name for p in runtime if p.kind is not p.KEYWORD_ONLY]
    keywords = [p.name for p in runtime if p.kind is p.KEYWORD_ONLY]
    assert [a.arg for a in first.posonlyargs + first.args] == positional
    assert [a.arg for a in first.kwonlyargs] == keywords
    for other in others:
        assert {a.arg for a in other.posonlyargs + other.args} <= set(positional)
        assert [a.arg for a in other.kwonlyargs] == keywords
