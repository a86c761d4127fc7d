"""
Plots of what `python -m benchmarks --json FILE` has measured.

    python -m benchmarks.plots FILE DIRECTORY

Makes lateness.svg, http.svg and http_1m.svg in the directory, of what is in the file. A marker is
the median of the rounds, the line through it goes from the least to the most of them. Figures
differ in shape, not only in colour, and the colours are those of Okabe and Ito, which nobody
confuses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import need
from benchmarks.measure import MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLUE, VERMILION, GREY = "#0072b2", "#d55e00", "#555555"
ROW = 0.27  # inches
UVLOOP = ", uvloop"
SETTINGS = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "procaio",  # the same file for the same figures
}


@dataclass(frozen=True)
class Series:
    """One kind of marker: what it shows of a sample, and how it looks."""

    label: str
    of: Callable[[dict[str, Any]], float]
    marker: str
    colour: str
    filled: bool = True


def value_of(sample: dict[str, Any]) -> float:
    """Give the figure that the question asks for."""
    return float(sample["value"])


def extra(name: str, factor: float = 1.0) -> Callable[[dict[str, Any]], float]:
    """Give what reads a further column."""
    return lambda sample: float(sample["extra"][name]) * factor


LATENESS = [
    Series("half of the times (p50)", extra("p50", 1e-3), "o", BLUE),
    Series("99 of 100 times (p99)", lambda sample: value_of(sample) / 1000, "s", VERMILION),
    Series("the longest", extra("max", 1e-3), "^", GREY, filled=False),
]
ANSWERS = [Series("answers a second", value_of, "D", BLUE)]
LATENCY = [
    Series("nine files, p50", extra("nine: p50 ms"), "o", BLUE),
    Series("nine files, p99", extra("nine: p99 ms"), "s", BLUE),
    Series("tenth file, p50", extra("tenth: p50 ms"), "o", VERMILION, filled=False),
    Series("tenth file, p99", extra("tenth: p99 ms"), "s", VERMILION, filled=False),
]


def draw(axes: Any, contenders: Sequence[dict[str, Any]], series: Sequence[Series]) -> None:
    """Draw a row for each contender, from the top."""
    for row, contender in enumerate(contenders):
        if not contender["samples"]:
            why = "failed" if contender["failed"] else "not installed"
            where = axes.get_yaxis_transform()
            axes.text(0.02, row, why, transform=where, va="center", color=GREY, style="italic")
    measured = [(row, c["samples"]) for row, c in enumerate(contenders) if c["samples"]]
    for number, one in enumerate(series):
        # A little above each other: what is at the same place is seen all the same.
        shift = 0.16 * (number - (len(series) - 1) / 2)
        values = [[one.of(sample) for sample in samples] for _, samples in measured]
        medians = [statistics.median(them) for them in values]
        below = [middle - min(them) for middle, them in zip(medians, values, strict=True)]
        above = [max(them) - middle for middle, them in zip(medians, values, strict=True)]
        axes.errorbar(
            medians,
            [row + shift for row, _ in measured],
            xerr=[below, above],
            fmt=one.marker,
            color=one.colour,
            markerfacecolor=one.colour if one.filled else "white",
            markersize=5,
            elinewidth=1,
            label=one.label,
        )
    axes.set_ylim(len(contenders) - 0.4, -0.6)
    axes.set_yticks(range(len(contenders)))
    labels = axes.set_yticklabels([contender["name"] for contender in contenders])
    for label, contender in zip(labels, contenders, strict=False):  # only the left column has them
        label.set_fontweight("bold" if contender["kind"] == "procaio" else "normal")
    axes.grid(axis="x", which="major", color="#dddddd", linewidth=0.8)
    axes.grid(axis="y", color="#eeeeee", linewidth=0.8)
    axes.tick_params(axis="y", length=0)


def in_milliseconds(axes: Any) -> None:
    """Make the axis logarithmic, with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(need("matplotlib.ticker").FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(need("matplotlib.ticker").NullFormatter())


def finished(figure: Any, document: dict[str, Any], handles: Any, target: Path) -> Path:
    """Say in the figure what is what and where it was measured, and write it."""
    machine = document["machine"]
    figure.legend(
        *handles, loc="outside upper center", ncols=len(handles[0]), frameon=False, fontsize=9
    )
    where = (
        f"{machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, Linux "
        f"{machine['kernel']}, Python {machine['python']}; medians of {document['repeat']} rounds, "
        "lines from the least to the most of them"
    )
    figure.supxlabel(where, fontsize=7, color=GREY)
    figure.savefig(target, metadata={"Date": None})
    need("matplotlib.pyplot").close(figure)
    return target


def plot_lateness(document: dict[str, Any], asked: dict[str, Any], target: Path) -> Path:
    """How late the loop is: a column for each number of requests, a row for each loop."""
    questions = [asked[name] for name in ("lateness_64", "lateness_1000") if name in asked]
    parts = {
        "asyncio": [[c for c in q["contenders"] if UVLOOP not in c["name"]] for q in questions],
        "uvloop": [
            [
                {**c, "name": c["name"].removesuffix(UVLOOP)}
                for c in q["contenders"]
                if UVLOOP in c["name"]
            ]
            for q in questions
        ],
    }
    parts = {loop: columns for loop, columns in parts.items() if columns[0]}
    rows = sum(len(columns[0]) for columns in parts.values())
    figure, axes = need("matplotlib.pyplot").subplots(
        len(parts),
        len(questions),
        figsize=(10, ROW * rows + 1.0 * len(parts) + 0.8),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, (loop, columns) in enumerate(parts.items()):
        for column, (question, contenders) in enumerate(zip(questions, columns, strict=True)):
            one = axes[row][column]
            draw(one, contenders, LATENESS)
            sizes = question["quick" if document["quick"] else "full"]
            one.set_title(f"{loop}, {sizes['depth']:,} requests in flight", fontsize=10)
            in_milliseconds(one)
            if row == len(parts) - 1:
                one.set_xlabel("how late an event is noticed, in milliseconds")
    handles = axes[0][0].get_legend_handles_labels()
    return finished(figure, document, handles, target)


def plot_http(document: dict[str, Any], question: dict[str, Any], target: Path) -> Path:
    """A server for static files: how many answers, and how long they take."""
    contenders = question["contenders"]
    sizes = question["quick" if document["quick"] else "full"]
    figure, (left, right) = need("matplotlib.pyplot").subplots(
        1, 2, figsize=(10, ROW * 1.3 * len(contenders) + 1.6), sharey=True, layout="constrained"
    )
    draw(left, contenders, ANSWERS)
    left.set_xlim(left=0)
    left.set_xlabel("answers a second, of nine files")
    left.set_title(
        f"{sizes['depth']} connections, files of {sizes['size'] >> 10:,} KiB", fontsize=10
    )
    draw(right, contenders, LATENCY)
    in_milliseconds(right)
    right.set_xlabel("milliseconds to the whole answer")
    right.set_title("with a slow disk, the tenth file is on it", fontsize=10)
    handles = right.get_legend_handles_labels()
    return finished(figure, document, handles, target)


def plots(document: dict[str, Any], directory: Path) -> list[Path]:
    """Make all plots that there are figures for. Gives their names."""
    asked = {question["name"]: question for question in document["questions"]}
    made = []
    directory.mkdir(parents=True, exist_ok=True)
    matplotlib = need("matplotlib")
    matplotlib.use("svg")
    with matplotlib.rc_context(SETTINGS):
        if "lateness_64" in asked:
            made.append(plot_lateness(document, asked, directory / "lateness.svg"))
        made += [
            plot_http(document, asked[name], directory / f"{name}.svg")
            for name in ("http", "http_1m")
            if name in asked
        ]
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line. Gives 1 if nothing could be plotted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plots", description=__doc__)
    parser.add_argument("file", type=Path, help="what --json has written")
    parser.add_argument("directory", type=Path, help="where the plots go")
    asked = parser.parse_args(arguments)
    try:
        made = plots(json.loads(asked.file.read_text()), asked.directory)
    except MissingError as missing:
        print(f"missing: {missing}", file=sys.stderr)
        return 1
    print(*map(str, made) if made else [f"nothing in {asked.file} that is plotted"], sep="\n")
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
