"""
What becomes of calls, of the pool and of the program when something goes wrong?

The same events for procaio and for what else does file I/O beside an event loop. Each row of a
table is what was seen of a program of its own, or of two; what has not come to an end after some
seconds "hangs", and is killed. Everything is seen from outside: see scenes.py for the events,
stage.py for how they are brought about.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.data import Data
from benchmarks.events.peers import KINDS
from benchmarks.events.report import Row, table
from benchmarks.events.scenes import EVENTS, Event, Seen
from benchmarks.events.stage import DeadError, SilentError, Stage, adopt_orphans
from benchmarks.harness import Kind
from benchmarks.measure import MissingError
from benchmarks.report import machine


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__)
    option = parser.add_argument
    option("--only", action="append", default=[], metavar="NAME", help="events named NAME...")
    option("--peer", action="append", default=[], metavar="NAME", help="contenders named NAME...")
    option("--peers", action=argparse.BooleanOptionalAction, default=True, help="third-party ones")
    option("--repeat", type=int, default=5, metavar="N", help="rounds (default 5)")
    option("--patience", type=float, default=2.0, metavar="S", help="what takes longer hangs")
    option("--json", type=Path, metavar="FILE", help="write everything to FILE")
    option("--list", action="store_true", help="show events and contenders, run nothing")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for. Gives 1 if a contender could not be looked at."""
    asked = parse(arguments)
    events = [e for e in EVENTS.all if not asked.only or e.name.startswith(tuple(asked.only))]
    peers = [
        name
        for name, kind in KINDS.items()
        if (asked.peers or kind is not Kind.PEER)
        and (not asked.peer or name.startswith(tuple(asked.peer)))
    ]
    if asked.list:
        print(*(f"{event.name}: {event.title}" for event in events), *peers, sep="\n")
        return 0
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is under way is removed
    with tempfile.TemporaryDirectory() as directory:
        facts = machine(Data.at(Path(directory), quick=True))
    unsaid = ("journal", "file_system", "cores_of_machine")
    print(", ".join(f"{name} {value}" for name, value in facts.items() if name not in unsaid))
    print(f"medians of {asked.repeat}; hangs: not done after {asked.patience:g} s\n", flush=True)
    answers = []
    failed = False
    for event in events:
        rows = [Row(peer) for peer in peers]
        for _ in range(asked.repeat):
            for row in rows:
                look(event, row, asked.patience)
        print(table(event, rows), flush=True)
        failed = failed or any(row.failed for row in rows)
        answers.append(
            {
                "name": event.name,
                "title": event.title,
                "columns": event.columns,
                "contenders": [row.as_json(event.columns) for row in rows],
            }
        )
    if asked.json:
        rest = {"repeat": asked.repeat, "patience": asked.patience}
        asked.json.write_text(json.dumps({"machine": facts, **rest, "events": answers}, indent=1))
    return 1 if failed else 0


def look(event: Event, row: Row, patience: float) -> None:
    """Let an event happen to a contender once."""
    if row.missing or row.failed:
        return
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{event.name} {row.peer}\r")
    try:
        row.rounds.append(event.run(lambda: Stage(row.peer, patience)))
    except SilentError:
        row.rounds.append({event.columns[0]: Seen("program hangs")})
    except DeadError:
        row.rounds.append({event.columns[0]: Seen("program dies")})
    except MissingError as missing:
        row.missing = str(missing)
    except Exception as error:  # noqa: BLE001 - the others are looked at all the same
        row.failed = f"{type(error).__name__} {error}"


if __name__ == "__main__":
    sys.exit(main())
