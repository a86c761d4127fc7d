"""
What the commands have in common: exit statuses, paths and sizes for people and as JSON, progress.

What is printed is plain text without escape sequences, whatever the names of files contain; only
the progress, which is gone when the result comes, draws on the terminal.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from procaio._scan import Failure

__all__ = [
    "FOUND_ERRORS",
    "INTERRUPTED",
    "USAGE",
    "as_clock",
    "as_json_failures",
    "as_json_path",
    "complaints",
    "human",
    "progress",
    "shown",
    "terminal",
]

FOUND_ERRORS: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


def shown(path: bytes) -> str:
    """For a person: one line, and nothing in it that a terminal would obey."""
    text = path.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def human(size: float) -> str:
    """A number of bytes in the unit in which it is easily read."""
    if size < 1024:
        return f"{size:.0f} B"
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    size, unit = size / 1024, next(units)
    while size >= 1023.95:
        size, unit = size / 1024, next(units)
    return f"{size:.1f} {unit}"


def as_clock(seconds: float) -> str:
    """Hours if there are any, minutes and seconds."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def as_json_path(path: bytes, key: str = "path") -> dict[str, str]:
    """Its text; where that cannot tell all, since it is not UTF-8, also its bytes in base64."""
    text = path.decode(errors="backslashreplace")
    if text.encode() == path:
        return {key: text}
    return {key: text, f"{key}_base64": base64.b64encode(path).decode()}


def as_json_failures(failures: Sequence[Failure]) -> list[dict[str, str]]:
    """Each with its path, the name of its errno, and what that means."""
    return [
        {
            **as_json_path(failure.path),
            "errno": errno.errorcode.get(failure.errno, str(failure.errno)),
            "error": os.strerror(failure.errno),
        }
        for failure in failures
    ]


def complaints(failures: Sequence[Failure], failed: int) -> Iterator[str]:
    """`failures` are the first ones of `failed`; one a line."""
    for failure in failures:
        yield f"{shown(failure.path) or repr('')}: {os.strerror(failure.errno)}"
    if failed > len(failures):
        yield f"and {failed - len(failures):,} more"


def terminal() -> Console | None:
    """Where progress is shown: if somebody sees it, and there is rich for it."""
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return None
    try:
        from rich.console import Console  # noqa: PLC0415 - optional, and slow to import
    except ImportError:
        return None
    return Console(stderr=True)


@contextlib.contextmanager
def progress(status: Callable[[], str], console: Console | None) -> Iterator[None]:
    """Show a line while the block runs, if there is a terminal."""
    if console is None:
        yield
        return
    from rich.live import Live  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415

    with Live(
        get_renderable=lambda: Text(status(), no_wrap=True, overflow="ellipsis"),
        console=console,
        refresh_per_second=10,
        transient=True,
    ):
        yield
