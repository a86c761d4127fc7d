"""
The command line: which questions, how often, where the data is, what to write.

`python -m benchmarks` and `python benchmarks/run.py` are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

if __name__ == "__main__":
    # Run as a script, the first entry is this folder: its modules are not top-level ones.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.data import Data
from benchmarks.harness import Options, Question, questions, run_one, run_question
from benchmarks.report import (
    machine,
    results_of,
    rows_of,
    table,
    table_of_targets,
    warnings,
)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    option = parser.add_argument
    option("--quick", action="store_true", help="tiny sizes, once: shows that it works, no more")
    option("--only", action="append", default=[], metavar="NAME", help="questions named NAME...")
    option("--repeat", type=int, metavar="N", help="rounds (default 5, with --quick 1)")
    option(
        "--minutes",
        type=float,
        metavar="N",
        default=2.5,
        help="begin no further round of a question after so many (default 2.5)",
    )
    option("--json", type=Path, metavar="FILE", help="write everything to FILE, samples included")
    option("--page", type=Path, metavar="FILE", help="put the tables where FILE has marks for them")
    option(
        "--peers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="third-party packages and Perl too",
    )
    option("--data", type=Path, metavar="DIR", help="keep the files in DIR for the next time")
    option("--cores", type=int, default=2, metavar="N", help="use N cores (default 2; 0: all)")
    option("--list", action="store_true", help="show questions and contenders, run nothing")
    option("--one", nargs=2, help=argparse.SUPPRESS)  # how the harness starts one contender
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for. Gives 1 if a contender failed; a missing one is no failure."""
    asked = parse(arguments)
    if asked.one:
        data = Data.at(asked.data, quick=asked.quick)
        print(json.dumps(run_one(asked.one, data, quick=asked.quick)))
        return 0
    chosen = questions(asked.only)
    if not chosen:
        print(f"no question is named {' or '.join(asked.only)}", file=sys.stderr)
        return 2
    if asked.list:
        print_list(chosen)
        return 0
    if asked.cores:
        # The contenders inherit it: on a larger machine too, what is compared has two cores.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.cores])
    with ExitStack() as stack:
        root = asked.data or stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-"))
        options = Options(
            Data.at(Path(root).resolve(), quick=asked.quick),
            repeat=asked.repeat or (1 if asked.quick else 5),
            quick=asked.quick,
            peers=asked.peers,
            minutes=asked.minutes,
        )
        return run(chosen, options, asked.json, asked.page)


def run(chosen: list[Question], options: Options, json_file: Path | None, page: Path | None) -> int:
    """Run the questions one after the other, print tables, write JSON and page."""
    options.data.root.mkdir(parents=True, exist_ok=True)
    facts = machine(options.data)
    unsaid = ("versions", "journal")
    where = ", ".join(f"{name} {value}" for name, value in facts.items() if name not in unsaid)
    print(where)
    print(*(f"warning: {text}" for text in warnings(facts)), sep="\n")
    answers = []
    answered = []
    tables = {}
    failed = False
    for question in chosen:
        rows = rows_of(question, run_question(question, options))
        tables[question.name] = table(question, rows, options)
        print(tables[question.name], flush=True)
        failed = failed or any(row.outcome.failed for row in rows)
        answered.append((question, rows))
        answers.append(
            question.as_json()
            | {
                "contenders": [row.as_json() for row in rows],
                "targets": [r.as_json() for r in results_of(question.targets, rows)],
            },
        )
    targets = table_of_targets(answered)
    print(targets)
    if json_file:
        document = {
            "machine": facts,
            "quick": options.quick,
            "repeat": options.repeat,
            "questions": answers,
        }
        json_file.write_text(json.dumps(document, indent=1) + "\n")
    if page:
        if chosen == questions():
            tables["targets"] = targets
        when = "{date}, commit {commit}, load {load_at_start:.1f} at the start".format(**facts)
        page.write_text(renewed(page.read_text(), when, tables))
    return 1 if failed else 0


def renewed(page: str, when: str, tables: dict[str, str]) -> str:
    """Give a page with the tables between its marks, and when they were measured."""
    for name, text in tables.items():
        marks = (f"<!-- begin {name} -->\n", f"<!-- end {name} -->")
        before, begin, rest = page.partition(marks[0])
        _, end, after = rest.partition(marks[1])
        if end:
            page = f"{before}{begin}```\n{when}\n\n{text}```\n{end}{after}"
    return page


def print_list(chosen: list[Question]) -> None:
    """Show questions and contenders."""
    for question in chosen:
        print(f"{question.name}: {question.title}")
        for contender in question.contenders:
            print(f"    {contender.name}")


if __name__ == "__main__":
    sys.exit(main())
