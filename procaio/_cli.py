"""
The command `procaio`: its arguments, and what ends it early.

Not here: what the commands print (`_cli_scan`, `_cli_trees`), and what they do.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import TYPE_CHECKING

from procaio import _cli_scan, _cli_trees
from procaio._cli_output import FOUND_ERRORS, INTERRUPTED
from procaio._core import MAX_WORKERS
from procaio._pool import DEFAULT_WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

STATUS = "Exit status: 0, 1 if there were errors, 2 if nothing was done, 130 after ctrl-C."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is returned."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # nobody wants the rest: `procaio scan | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FOUND_ERRORS
    return status


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options may stand before, among and behind the paths; what is behind -- is a path."""
    arguments = list(arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = _parser().parse_known_args(arguments[:at])
    error = options.parser.error
    if unknown := [one for one in rest if one.startswith("-") and one != "-"]:
        error(f"unrecognized arguments: {' '.join(unknown)}")
    options.paths += rest + arguments[at + 1 :]
    if len(options.paths) < len(options.required.split()):
        error(f"the following arguments are required: {options.required}")
    return options


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
    _add_common(scan, _cli_scan.run, "PATH...", "directories, or files")
    scan.add_argument(
        "--largest",
        type=_number(0, sys.maxsize),
        default=10,
        metavar="N",
        help="show the N largest files and directories (%(default)s)",
    )
    copy = commands.add_parser(
        "copy",
        help="copy files and directory trees",
        description="Copy files and directories with all that is in them: into DST if that is a "
        "directory, else to that name. As `cp -a`: symlinks stay symlinks; times, owners and "
        "permissions are kept.",
        epilog=STATUS,
    )
    _add_common(copy, _cli_trees.copy, "SRC... DST", "from where, and where to")
    remove = commands.add_parser(
        "remove",
        help="remove files and directory trees",
        description="Remove files and directories with all that is in them, without asking. "
        "Symlinks are removed, not followed. Refused, before anything is done: / and what "
        "ends in . or ..",
        epilog=STATUS,
    )
    _add_common(remove, _cli_trees.remove, "PATH...", "what is to go")
    remove.add_argument(
        "-f", "--force", action="store_true", help="a PATH that does not exist is no error"
    )
    move = commands.add_parser(
        "move",
        help="move files and directory trees, to other file systems, too",
        description="Rename files and directories: into DST if that is a directory, else to that "
        "name. Where that is another file system they are copied, and removed if the copy is "
        "complete.",
        epilog=STATUS,
    )
    _add_common(move, _cli_trees.move, "SRC... DST", "from where, and where to")
    for command in (copy, remove, move):
        command.add_argument(
            "--dry-run", action="store_true", help="tell what would be done, and do nothing"
        )
    return parser


def _add_common(
    command: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int],
    paths: str,
    meaning: str,
) -> None:
    command.usage = f"%(prog)s [options] {paths}"
    # Not "+": they may all be behind options or --, which is _parse's business.
    command.add_argument("paths", nargs="*", metavar=paths, help=meaning)
    command.set_defaults(run=run, parser=command, required=paths)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument(
        "--workers",
        type=_number(1, MAX_WORKERS),
        default=DEFAULT_WORKERS,
        metavar="N",
        help="at most N worker processes (%(default)s)",
    )
    command.add_argument("--no-progress", action="store_true", help="nothing until the result")


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be from {least} to {most}: {value}")
        return value

    return number
