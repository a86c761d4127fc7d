"""
`procaio scan`: what the command prints.

Not here: the walk itself (`_scan`), the arguments (`_cli`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from procaio._cli_output import (
    FOUND_ERRORS,
    INTERRUPTED,
    USAGE,
    as_clock,
    as_json_failures,
    as_json_path,
    complaints,
    human,
    progress,
    shown,
    terminal,
)
from procaio._scan import BLOCK, Scan

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["run"]

ERRORS_SHOWN: Final = 50


def run(options: argparse.Namespace) -> int:
    """Scan, print; the exit status is returned."""
    paths = [os.fsencode(path) for path in options.paths]
    try:
        scan = Scan(paths, largest=options.largest, workers=options.workers)
    except OSError as error:
        print(f"procaio scan: {shown(error.filename)}: {error.strerror}", file=sys.stderr)
        return USAGE
    console = None if options.no_progress else terminal()
    with contextlib.suppress(KeyboardInterrupt), progress(lambda: _status(scan), console):
        scan.run()
    if options.json:
        print(json.dumps(_as_json(scan), indent=2))
    else:
        print("\n".join(_as_text(scan)))
    if not scan.complete:
        return INTERRUPTED
    return FOUND_ERRORS if scan.failed else 0


def _as_text(scan: Scan) -> Iterator[str]:
    if not scan.complete:
        yield "Interrupted: this is INCOMPLETE, what was counted so far."
        yield ""
    links = f"{scan.hard_links:,} of them further hard links" if scan.hard_links else ""
    rows = [
        ("files", f"{scan.files:,}", links),
        ("directories", f"{scan.dirs:,}", ""),
        ("size", human(scan.bytes), f"{scan.bytes:,} bytes"),
        ("allocated", human(scan.blocks * BLOCK), f"{scan.blocks * BLOCK:,} bytes"),
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
            yield f"{human(size):>10}  {shown(path)}"
    if scan.failed:
        yield "\nErrors"
    for line in complaints(scan.failures[:ERRORS_SHOWN], scan.failed):
        yield f"  {line}"


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
            {**as_json_path(path), "bytes": size} for size, path in scan.largest_files.descending()
        ],
        "largest_dirs": [
            {**as_json_path(path), "bytes": size} for size, path in scan.largest_dirs.descending()
        ],
        "errors": scan.failed,
        "failures": as_json_failures(scan.failures),
    }


def _status(scan: Scan) -> str:
    return (
        f"{scan.files + scan.dirs:,} entries  {human(scan.bytes)}  "
        f"{scan.entries_per_second:,.0f}/s  {as_clock(scan.seconds)}  {shown(scan.current)}"
    )
