"""
The command `procaio`: arguments, output, live progress and exit status.

What is printed is plain text without escape sequences, whatever the names of files contain; only
the progress, which is gone when the result comes, draws on the terminal.

Not here: the walk itself (`_scan`).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from procaio._core import MAX_WORKERS
from procaio._pool import DEFAULT_WORKERS
from procaio._scan import BLOCK, Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["main"]

FOUND_ERRORS: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
ERRORS_SHOWN: Final = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is returned."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _scan(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # nobody wants the rest: `procaio scan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FOUND_ERRORS
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="procaio", description="Asynchronous file I/O with worker processes."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    scan = commands.add_parser(
        "scan",
        help="count what is in directory trees, and what it occupies",
        description="Walk directory trees with many requests in flight: files, directories, bytes, "
        "the largest ones, errors.",
        epilog="Exit status: 0, 1 if there were errors, 2 for a missing PATH, 130 after ctrl-C.",
    )
    scan.add_argument("paths", nargs="+", metavar="PATH", help="a directory, or a file")
    scan.add_argument("--json", action="store_true", help="print one JSON object")
    scan.add_argument(
        "--largest",
        type=_number(0, sys.maxsize),
        default=10,
        metavar="N",
        help="show the N largest files and directories (%(default)s)",
    )
    scan.add_argument(
        "--workers",
        type=_number(1, MAX_WORKERS),
        default=DEFAULT_WORKERS,
        metavar="N",
        help="at most N worker processes (%(default)s)",
    )
    scan.add_argument("--no-progress", action="store_true", help="nothing until the result")
    return parser


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}: {value}")
        return value

    return number


def _scan(options: argparse.Namespace) -> int:
    paths = [os.fsencode(path) for path in options.paths]
    try:
        scan = Scan(paths, largest=options.largest, workers=options.workers)
    except OSError as error:
        print(f"procaio scan: {_shown(error.filename)}: {error.strerror}", file=sys.stderr)
        return USAGE
    with contextlib.suppress(KeyboardInterrupt), _progress(scan, wanted=not options.no_progress):
        scan.run()
    if options.json:
        print(json.dumps(_as_json(scan), indent=2))
    else:
        print("\n".join(_as_text(scan)))
    if not scan.complete:
        return INTERRUPTED
    return FOUND_ERRORS if scan.failed else 0


# -- the result -----------------------------------------------------------------------------------


def _as_text(scan: Scan) -> Iterator[str]:
    if not scan.complete:
        yield "Interrupted: this is INCOMPLETE, what was counted so far."
        yield ""
    links = f"{scan.hard_links:,} of them further hard links" if scan.hard_links else ""
    rows = [
        ("files", f"{scan.files:,}", links),
        ("directories", f"{scan.dirs:,}", ""),
        ("size", _human(scan.bytes), f"{scan.bytes:,} bytes"),
        ("allocated", _human(scan.blocks * BLOCK), f"{scan.blocks * BLOCK:,} bytes"),
        ("errors", f"{scan.failed:,}", ""),
        ("time", f"{scan.seconds:.2f} s", f"{scan.entries_per_second:,.0f} entries per second"),
    ]
    if scan.vanished:
        rows.insert(-1, ("vanished", f"{scan.vanished:,}", "gone before they were looked at"))
    width = max(len(value) for _, value, _ in rows)
    for name, value, remark in rows:
        yield f"{name:<12} {value:>{width}}   {remark}".rstrip()
    for title, largest in [
        ("Largest files", scan.largest_files),
        ("Largest directories, with all below", scan.largest_dirs),
    ]:
        items = largest.descending()
        if items:
            yield f"\n{title}"
        for size, path in items:
            yield f"{_human(size):>10}  {_shown(path)}"
    if scan.failed:
        yield "\nErrors"
    for failure in scan.failures[:ERRORS_SHOWN]:
        yield f"  {_shown(failure.path)}: {os.strerror(failure.errno)}"
    if scan.failed > ERRORS_SHOWN:
        yield f"  and {scan.failed - ERRORS_SHOWN:,} more"


def _as_json(scan: Scan) -> dict[str, Any]:
    return {
        "complete": scan.complete,
        "files": scan.files,
        "dirs": scan.dirs,
        "bytes": scan.bytes,
        "allocated": scan.blocks * BLOCK,
        "hard_links": scan.hard_links,
        "vanished": scan.vanished,
        "seconds": round(scan.seconds, 6),
        "entries_per_second": round(scan.entries_per_second, 1),
        "largest_files": [
            {**_path(path), "bytes": size} for size, path in scan.largest_files.descending()
        ],
        "largest_dirs": [
            {**_path(path), "bytes": size} for size, path in scan.largest_dirs.descending()
        ],
        "errors": scan.failed,
        "failures": [
            {
                **_path(failure.path),
                "errno": errno.errorcode.get(failure.errno, str(failure.errno)),
                "error": os.strerror(failure.errno),
            }
            for failure in scan.failures
        ],
    }


def _path(path: bytes) -> dict[str, str]:
    """Its text; where that cannot tell all, since it is not UTF-8, also its bytes in base64."""
    text = path.decode(errors="backslashreplace")
    if text.encode() == path:
        return {"path": text}
    return {"path": text, "path_base64": base64.b64encode(path).decode()}


def _shown(path: bytes) -> str:
    """For a person: one line, and nothing in it that a terminal would obey."""
    text = path.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _human(size: float) -> str:
    if size < 1024:
        return f"{size} B"
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    size, unit = size / 1024, next(units)
    while size >= 1023.95:
        size, unit = size / 1024, next(units)
    return f"{size:.1f} {unit}"


# -- progress -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(scan: Scan, *, wanted: bool) -> Iterator[None]:
    """Show how far the scan is while the block runs, if there is a terminal and rich for it."""
    if not (wanted and sys.stdout.isatty() and sys.stderr.isatty()):
        yield
        return
    try:
        from rich.console import Console  # noqa: PLC0415 - optional, and slow to import
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        yield
        return
    with Live(
        get_renderable=lambda: Text(_status(scan), no_wrap=True, overflow="ellipsis"),
        console=Console(stderr=True),
        refresh_per_second=10,
        transient=True,
    ):
        yield


def _status(scan: Scan) -> str:
    minutes, seconds = divmod(int(scan.seconds), 60)
    return (
        f"{scan.files + scan.dirs:,} entries  {_human(scan.bytes)}  "
        f"{scan.entries_per_second:,.0f}/s  {minutes}:{seconds:02}  {_shown(scan.current)}"
    )
