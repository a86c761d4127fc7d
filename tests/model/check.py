"""
Check the models: the right ones must hold, and each one that lacks something must fail.

    python tests/model/check.py [--quick | --deep] [name ...]

For every run it prints one line: states, seconds, result. The exit status is 1 if anything is other
than expected, 0 also when spin or gcc is missing (with a message). What each run shows is told in
docs/design/verification.md.

A run with many states is hash compact: of each state a hash of 64 bits and more is kept, so two
that have the same would count as one, and it is not strictly exhaustive.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MEGABYTES = 2_000
COMPACT_MEGABYTES = 12_000
DEPTH = 1_000_000
SHALLOW = 2_000  # where an error is looked for: traces stay short, and the search quick
VERY_SHALLOW = 200  # where models are so large that it is not quick there
SECONDS = 900  # gives up; on two idle cores nothing takes more than a minute
COMPACT_SECONDS = 3_600


@dataclass(frozen=True)
class Run:
    """
    One model with its switches.

    `fails`: it lacks something, and spin has to find out, no deeper than `depth`. `compact`: see
    above.
    """

    name: str
    model: str
    switches: str = ""
    fails: bool = False
    compact: bool = False
    depth: int = SHALLOW


def wrong(name: str, model: str, switches: str, depth: int = SHALLOW) -> Run:
    """A run that has to fail."""
    return Run(name, model, switches, fails=True, depth=depth)


SMALL = "NREQUESTS=2 DEATHS=1 WITHDRAWALS=0"
ABORTED = "NREQUESTS=2 DEATHS=0 WITHDRAWALS=0 ABORTS=1"
BOTH_DIE = "DEATHS=1 MONITOR_DEATHS=1"
BESIDE_WAIT = "BESIDE_WAIT DEATHS=0"
RUNS = [
    # What holds.
    Run("ring, a death", "ring", SMALL),
    Run("ring, a death, one lane", "ring", f"{SMALL} NLANES=1"),
    Run("ring, withdrawn", "ring", "NREQUESTS=2 DEATHS=0 WITHDRAWALS=1 NLANES=1"),
    Run("ring, withdrawn, two lanes", "ring", "NREQUESTS=2 DEATHS=0 WITHDRAWALS=1"),
    Run("ring, aborted", "ring", ABORTED),
    Run("ring, aborted, one lane", "ring", "NREQUESTS=2 DEATHS=0 WITHDRAWALS=0 ABORTS=2 NLANES=1"),
    Run("ring, aborted and a death", "ring", f"{SMALL} ABORTS=1 NLANES=1"),
    Run("ring, a death, its results not read", "ring", f"{SMALL} RING_FORGOTTEN"),
    Run("ring, three requests", "ring", "NREQUESTS=3 DEATHS=0 WITHDRAWALS=0 NLANES=1"),
    Run("wake", "wake"),
    Run("wake, spinning", "wake", "SPIN"),
    Run("wake, no worker yet", "wake", "COLD"),
    Run("wake, no monitor", "wake", "NO_MONITOR"),
    Run("signal, an event loop", "signal"),
    Run("signal, wait()", "signal", "WAITS"),
    Run("signal, a loop and wait()", "signal", BESIDE_WAIT),
    Run("birth", "birth"),
    Run("identity", "identity"),
    # Without a fence.
    wrong("no fence after a push", "wake", "NO_FENCE_PUSH"),
    wrong("no fence before rest", "wake", "NO_FENCE_REST"),
    wrong("no fence before sleep", "wake", "NO_MONITOR NO_FENCE_SLEEP"),
    wrong("no fence after spinning", "wake", "SPIN NO_FENCE_SPIN"),
    wrong("no fence after a result", "signal", "NO_FENCE_WORKER_PUBLISH"),
    wrong("no fence before looking again", "signal", "NO_FENCE_PROGRAM_ASK"),
    # Another order, or a step left out.
    wrong("nap without an end", "signal", "NO_TIMER"),
    wrong("head before claim", "ring", f"{SMALL} ADVANCE_FIRST"),
    wrong("published before DONE", "ring", f"{SMALL} PUBLISH_FIRST"),
    wrong("unpublished results forgotten", "ring", f"{SMALL} NO_LOOK_FOR_DONE"),
    wrong("everything run again", "ring", f"{SMALL} RERUN_ALL"),
    wrong("worker goes on after an abort", "ring", f"{ABORTED} GO_ON_ABORTED"),
    wrong("aborted slot freed at once", "ring", f"{ABORTED} FREE_ABORTED"),
    wrong("aborted by a signal only", "ring", f"{ABORTED} ABORT_BY_SIGNAL"),
    wrong("aborted slot forgotten", "ring", f"{ABORTED} NO_LOOK_FOR_ABORTED"),
    wrong("number used again at once", "ring", f"{SMALL} REUSED_FIRST"),
    wrong("unknown worker not adopted", "birth", "NO_ADOPTION"),
    wrong("unborn worker not forgotten", "birth", "NO_VACATING"),
    wrong("pidfd written by the spawner", "birth", "NO_KERNEL_PIDFD"),
    wrong("starting worker taken for unborn", "birth", "VACATE_STARTING"),
    wrong("vacant before its permit is back", "birth", "VACANT_FIRST"),
    wrong("identity renewed only before", "identity", "ONLY_BEFORE"),
    wrong("identity looked at only before", "identity", "LOOK_BEFORE_CLAIM"),
    wrong("refused request not sent again", "identity", "NO_SENDING_AGAIN"),
    wrong("no spawner of the new identity", "identity", "NO_NEW_SPAWNER"),
    # Errors that were in the C until a model found them.
    wrong("pools renewed one by one", "identity", "ONE_BY_ONE"),
    wrong("monitor rests beside a request", "wake", "NO_ENSURE_BEFORE_RUN"),
    wrong("permit for a dead sleeper", "wake", "DEATHS=1 OLD_BURIAL OLD_WAKINGS", VERY_SHALLOW),
    wrong("bell of a dead spawner", "wake", "MONITOR_DEATHS=1 OLD_SPAWNER_BURIAL"),
    wrong("permit for a vacant number", "wake", f"{BOTH_DIE} NO_REST OLD_WAKINGS", VERY_SHALLOW),
    wrong("ring swallowed", "signal", "NO_ASK_AFTER_SILENCING"),
    wrong("silent after an exception", "signal", "NO_ASK_AFTER_RAISE"),
    wrong("silent after a sleep", "signal", "NO_ASK_AFTER_SLEEP"),
    wrong("ring taken along by wait()", "signal", f"{BESIDE_WAIT} RING_TAKEN_ALONG"),
]
DEEP = [
    Run("birth, many deaths", "birth", "DEATHS=4 SPAWNER_DEATHS=4"),
    Run("identity, three requests", "identity", "NREQUESTS=3 DEATHS=2", compact=True),
    Run("wake, a death", "wake", "DEATHS=1", compact=True),
    Run("wake, spinning, a death", "wake", "DEATHS=1 SPIN", compact=True),
    Run("wake, a backlog, a death", "wake", "DEATHS=1 BACKLOG=true", compact=True),
    Run("wake, two permits", "wake", "NPERMITS=2", compact=True),
    Run("wake, a death and the monitor's", "wake", BOTH_DIE, compact=True),
]


def called(
    directory: Path, *command: str, seconds: float | None = None
) -> subprocess.CompletedProcess[str]:
    """What a program says, and its status."""
    return subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=seconds, check=False
    )


def build(run: Run, directory: Path) -> None:
    """Make the analyser `pan` of a run."""
    switches = [f"-D{switch}" for switch in run.switches.split()]
    shutil.copy(HERE / f"{run.model}.pml", directory)
    made = called(directory, "spin", "-a", *switches, f"{run.model}.pml")
    if made.returncode != 0 or "Error" in made.stdout:
        raise RuntimeError(f"{run.name}: spin: {made.stdout}{made.stderr}")
    kind, megabytes = ("HC4", COMPACT_MEGABYTES) if run.compact else ("COLLAPSE", MEGABYTES)
    options = ["-O3", "-w", "-DSAFETY", f"-D{kind}", f"-DMEMLIM={megabytes}"]
    subprocess.run(["gcc", *options, "-o", "pan", "pan.c"], cwd=directory, check=True)


def number(pattern: str, text: str) -> float:
    """The number that pan's report gives, or 0."""
    found = re.search(pattern, text)
    return float(found[1]) if found else 0.0


def execute(run: Run) -> tuple[bool, str]:
    """Check one run: whether it went as expected, and its line."""
    with tempfile.TemporaryDirectory(prefix="procaio-model-") as name:
        directory = Path(name)
        build(run, directory)
        options = [f"-m{run.depth if run.fails else DEPTH}", "-n"]
        if run.compact:
            options.append("-w26")  # the table to begin with: 512 MiB
        began = time.monotonic()
        try:
            seconds = COMPACT_SECONDS if run.compact else SECONDS
            out = called(directory, "./pan", *options, seconds=seconds).stdout
        except subprocess.TimeoutExpired:
            out = "pan: out of time"
        took = time.monotonic() - began
    errors = number(r"errors: (\d+)", out)
    states = number(r"(\d[\d.e+]*) states, stored", out)
    what = re.search(r"pan:\d+: (.*?) \(at depth", out)
    cut_short = re.search(r"MEMLIM|too small|out of (time|memory)", out)
    if run.fails:
        good = errors > 0
        result = f"found: {what[1]}" if good and what else "NOT FOUND"
    else:
        good = errors == 0 and states > 0 and not cut_short
        result = "holds" + (" (hash compact)" if run.compact else "")
        if not good:
            result = f"FAILS: {what[1]}" if what else f"INCOMPLETE: {cut_short and cut_short[0]}"
    return good, f"{run.name:34} {states:>12,.0f} states {took:>6.1f} s  {result}"


def main() -> int:
    """Run them: as many at a time as there are cores, the deep ones one by one."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="only what takes seconds")
    which.add_argument("--deep", action="store_true", help="only what takes minutes and gigabytes")
    parser.add_argument("names", nargs="*", help="only these runs")
    arguments = parser.parse_args()
    missing = [tool for tool in ("spin", "gcc") if not shutil.which(tool)]
    if missing:
        print(
            f"models not checked: {' and '.join(missing)} not found (Debian: apt install spin gcc)"
        )
        return 0
    runs = DEEP if arguments.deep else RUNS
    runs = [run for run in runs if not arguments.names or run.name in arguments.names]
    if arguments.quick:
        runs = [run for run in runs if run.fails or run.model == "signal"]
    unexpected = 0
    at_once = 1 if arguments.deep else len(os.sched_getaffinity(0))
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for good, line in pool.map(execute, runs):
            print(line, flush=True)
            unexpected += not good
    print(f"{len(runs) - unexpected} of {len(runs)} as expected")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
