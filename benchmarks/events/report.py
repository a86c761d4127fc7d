"""What was seen, as tables for people and as JSON: words, and medians with their spread."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.report import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.events.scenes import Cells, Event, Seen

FACTORS = {"ms": 1000.0}
GAP = "   "


@dataclass
class Row:
    """One contender in one event."""

    peer: str
    rounds: list[Cells] = field(default_factory=list)
    missing: str = ""
    failed: str = ""

    def seen(self, column: str) -> list[Seen]:
        """Give what was seen in all rounds; a program that was not there any more shows nothing."""
        return [cells[column] for cells in self.rounds if column in cells]

    def cell(self, column: str) -> str:
        """Write it: the word, and the median with its spread."""
        words = Counter(seen.word for seen in self.seen(column))
        if not words:
            return "-"
        if len(words) > 1:
            return ", ".join(f"{word} {times}x" for word, times in words.most_common())
        word = next(iter(words))
        figures = self.figures(column)
        if not figures:
            return word
        unit = self.seen(column)[0].unit
        middle = number(statistics.median(figures))
        spread = f" ({number(min(figures))} .. {number(max(figures))})" if len(figures) > 1 else ""
        return f"{word} {middle} {unit}{spread}".strip()

    def figures(self, column: str) -> list[float]:
        """Give the figures, in the unit that is shown."""
        seen = [one for one in self.seen(column) if one.figure is not None]
        return [one.figure * FACTORS.get(one.unit, 1.0) for one in seen if one.figure is not None]

    def as_json(self, columns: Sequence[str]) -> dict[str, Any]:
        """Give it as what json.dumps takes."""
        cells = {
            column: {
                "words": dict(Counter(seen.word for seen in self.seen(column))),
                "figures": self.figures(column),
                "unit": self.seen(column)[0].unit if self.figures(column) else None,
            }
            for column in columns
        }
        return {
            "name": self.peer,
            "missing": self.missing or None,
            "failed": self.failed or None,
            "cells": cells,
        }


def table(event: Event, rows: Sequence[Row]) -> str:
    """Write the table of an event, aligned."""
    lines = [["", *event.columns]]
    for row in rows:
        why = (row.missing and f"missing: {row.missing}") or (
            row.failed and f"failed: {row.failed}"
        )
        lines.append([row.peer, *([why] if why else map(row.cell, event.columns))])
    full = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(len(line[n]) for line in full) for n in range(len(lines[0]))]
    widths[0] = max(len(line[0]) for line in lines)
    text = [
        GAP.join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=False)).rstrip()
        for line in lines
    ]
    return "\n".join([f"{event.name}: {event.title}", *text, ""])


def words(text: str, peer: str) -> dict[str, list[str]]:
    """Give what tables say of a contender, less the figures: for each event, cell by cell."""
    found = {}
    event = ""
    for line in text.splitlines():
        if title := re.match(r"(\w+): ", line):
            event = title[1]
        name, *cells = re.split(rf"{GAP} *", line.strip())
        if event and name == peer:
            found[event] = [re.sub(r" ?[\d.,]+ (ms|MiB)( \(.*\))?$", "", cell) for cell in cells]
    return found
