"""
The entries of the reference pages, made from what the library says of itself.

A page names what it describes in one block, a public name of procaio a line:

    ```{procaio}
    aio_open
    aio_close
    ```

conf.py lets Sphinx put the entries there. Texts and parameter names of what is written in C come
from its docstrings, types from procaio/_core.pyi: neither has both. Sphinx reads Python by itself.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import types
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path

import procaio
from procaio import _core

ROOT = Path(__file__).resolve().parent.parent

# What the stub must say exactly, in the words of a reader. Other private names lose their
# underscore (_Fh: Fh); docs/reference/index.md explains those.
PLAIN_TYPES = {
    "CorePool": "Pool",
    "SupportsIndex": "int",
    "_Index": "int",
    "_NamesOnly": "int",
    "_WithTypes": "int",
    "_Seconds": "float",
    "_Callback": "Callable[..., object] | None",
    "_Path": "StrPath | BytesPath",
    "_T_co": "T",
    "_Listing": "tuple[Any, ...]",
    "_Section": "tuple[Any, ...]",
    "_Removal": "tuple[Any, ...]",
}


def listed(page: str) -> list[str]:
    """Give the names in the blocks of a page."""
    blocks = re.findall(r"^```\{procaio\}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


def described(name: str) -> list[str]:
    """Give the public names that one line of a page describes: an enum brings its members along."""
    thing = getattr(procaio, name)
    members = list(thing.__members__) if is_enum(thing) else []
    return [name, *(member for member in members if member in procaio.__all__)]


def is_enum(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, enum.Enum)


def is_core(name: str) -> bool:
    """Tell whether a public name stands for something that is written in C."""
    return hasattr(_core, name) and getattr(_core, name) is getattr(procaio, name)


# -- texts ----------------------------------------------------------------------------------------


def as_rst(text: str) -> str:
    """Give a docstring as reStructuredText, with links to what it names."""
    parts = re.split(r"(`[^`]+`)", text)  # `code` is left to the default role
    return "".join(part if at % 2 else _linked(part) for at, part in enumerate(parts))


def _linked(text: str) -> str:
    text = re.sub(r"[*|]|(?<=\w)_(?!\w)", r"\\\g<0>", text)
    text = re.sub(r"(?<!\w)\w+\([23]\)", r":manpage:`\g<0>`", text)
    # Not before a colon: there it is a parameter that is described.
    return re.sub(r"(?<![\w.:`'\\])(\w+)(\(\))?(?![\w`'(:])", _link, text)


def _link(match: re.Match[str]) -> str:
    text, word, call = match[0], match[1], match[2]
    # `Request`, `aio_stat` and `flush()` are names wherever they stand; "flush" may be a verb.
    if word in procaio.__all__ and (call or "_" in word or not word.islower()):
        return f":py:obj:`{text} <.{word}>`"  # the dot: what the class has comes first
    return f"``{text}``" if call else text


# -- signatures -----------------------------------------------------------------------------------


@cache
def stubs() -> dict[str, list[ast.FunctionDef]]:
    """Give what the stub says of functions and methods ("Request.wait"), an item an overload."""
    found: dict[str, list[ast.FunctionDef]] = {}
    for node in ast.parse((ROOT / "procaio/_core.pyi").read_text()).body:
        prefix, body = (
            (f"{node.name}.", node.body) if isinstance(node, ast.ClassDef) else ("", [node])
        )
        for item in body:
            if isinstance(item, ast.FunctionDef):
                found.setdefault(prefix + item.name, []).append(item)
    return found


def signature(name: str, text_signature: str) -> str:
    """
    Give a signature: parameters and defaults from the C docstring, types from the stub.

    A type is whatever any overload takes or gives.
    """
    overloads = stubs()[name]
    code = "def f" + re.sub(r"\$self(, /(?=[,)]))?(, )?", "", text_signature) + ": ..."
    [function] = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults

    def parameter(argument: ast.arg, default: ast.expr | None) -> str:
        text = f"{argument.arg}: {_type_of(argument.arg, name, overloads)}"
        return text if default is None else f"{text} = {ast.get_source_segment(code, default)}"

    shown = [parameter(*pair) for pair in zip(positional, defaults, strict=True)]
    if arguments.posonlyargs:
        shown.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        shown.append(f"*{parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        shown.append("*")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    shown += [parameter(*pair) for pair in pairs]
    given = f"({', '.join(shown)})"
    returns = [overload.returns for overload in overloads if overload.returns]
    return given if name.endswith(".__new__") else f"{given} -> {_union(returns)}"


def _type_of(parameter: str, function: str, overloads: list[ast.FunctionDef]) -> str:
    found = [
        node.annotation
        for overload in overloads
        for node in ast.walk(overload.args)
        if isinstance(node, ast.arg) and node.arg == parameter and node.annotation
    ]
    if not found:
        raise LookupError(
            f"_core.pyi knows no parameter {parameter} of {function}, its docstring does"
        )
    return _union(found)


def _union(annotations: list[ast.expr]) -> str:
    """Give the union of types, each of them once and None last."""
    members: dict[str, None] = {}
    for annotation in annotations:
        text = re.sub(r"\b[A-Za-z_]\w*", lambda word: _plain(word[0]), ast.unparse(annotation))
        members.update(dict.fromkeys(_alternatives(ast.parse(text, mode="eval").body)))
    return " | ".join(sorted(members, key=lambda member: member == "None"))


def _plain(word: str) -> str:
    return PLAIN_TYPES.get(word, word.lstrip("_"))


def _alternatives(node: ast.expr) -> list[str]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_alternatives(node.left), *_alternatives(node.right)]
    return [ast.unparse(node)]


# -- entries --------------------------------------------------------------------------------------


def entry(name: str) -> str:
    """Give the reStructuredText of one entry."""
    thing = getattr(procaio, name)
    if is_enum(thing):
        return _enum(name, thing)
    if isinstance(thing, type):
        return _core_class(name, thing) if is_core(name) else _python_class(name, thing)
    if is_core(name):
        return _core_function("py:function", name, name, thing)
    if callable(thing):
        return _directive("autofunction", name)
    return _directive("py:data", name, options=(f":value: {thing!r}",))


def _directive(kind: str, title: str, body: str = "", options: tuple[str, ...] = ()) -> str:
    lines = [f".. {kind}:: {title}", *(f"   {option}" for option in options), ""]
    lines += [f"   {line}".rstrip() for line in body.strip().splitlines()]
    return "\n".join([*lines, "", ""])


def _core_function(
    kind: str, name: str, full_name: str, function: types.BuiltinFunctionType
) -> str:
    assert function.__text_signature__, full_name
    shown = signature(full_name, function.__text_signature__)
    return _directive(kind, name + shown, as_rst(function.__doc__ or ""))


def _core_class(name: str, kind: type) -> str:
    made = kind.__text_signature__
    shown = signature(f"{name}.__new__", made) if made else ""
    body = as_rst(kind.__doc__ or "") + "\n\n" + _core_members(kind)
    return _directive("py:class", name + _type_parameters(name) + shown, body)


def _core_members(kind: type) -> str:
    parts = []
    for name, member in vars(kind).items():
        full_name = f"{kind.__name__}.{name}"
        if name.startswith("_"):
            continue
        if isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType):
            returned = [stub.returns for stub in stubs()[full_name] if stub.returns]
            options = (f":type: {_union(returned)}",)
            parts.append(_directive("py:property", name, as_rst(member.__doc__ or ""), options))
        elif isinstance(member, types.MethodDescriptorType):
            parts.append(_core_function("py:method", name, full_name, member))
    return "".join(parts)


def _type_parameters(name: str) -> str:
    text = (ROOT / "procaio/_core.pyi").read_text()
    found = re.search(rf"^class {name}\(Generic\[(\w+)\]\)", text, re.MULTILINE)
    return f"[{_plain(found[1])}]" if found else ""


def _python_class(name: str, kind: type) -> str:
    if issubclass(kind, BaseException):
        return _directive("autoexception", name, options=(":show-inheritance:",))
    if is_dataclass(kind):
        return _directive("autoclass", name, options=(":members:", ":undoc-members:"))
    inherited = [
        _core_members(base) for base in kind.__bases__ if base.__module__ == _core.__name__
    ]
    return _directive("autoclass", name, "".join(inherited), options=(":members:",))


def _enum(name: str, kind: type[enum.Enum]) -> str:
    parts = []
    for member in kind.__members__:
        options = (f":value: {_number(kind, member)}", ":no-contents-entry:")
        parts.append(_directive("py:data", member, options=options))
    described_class = _directive("py:class", name, as_rst(inspect.cleandoc(kind.__doc__ or "")))
    return described_class + _directive("container", "constants", "".join(parts))


def _number(kind: type[enum.Enum], member: str) -> str:
    """Give a constant's value as headers do: modes in octal, large flags in hexadecimal."""
    value = kind[member].value
    if not issubclass(kind, enum.IntFlag) or value < 10:
        return repr(value)
    return oct(value) if member.startswith("S_I") else hex(value)
