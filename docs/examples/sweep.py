"""
A sweep over the metadata of a tree, with callbacks and a bound on requests in flight.

    python sweep.py DIRECTORY [IN_FLIGHT]

On a network file system each look at a file waits for the server. With 64 of them in flight the
sweep waits once where a loop of os.lstat waits 64 times, and the server is not flooded either.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections import Counter
from functools import partial

import procaio

YEAR = 365 * 86400


class Sweep:
    """What was found so far, and the paths that are still to be looked at."""

    def __init__(self, root: str) -> None:
        """Begin with one path."""
        self.paths = [root]
        self.count: Counter[str] = Counter()

    def run(self, in_flight: int) -> None:
        """Look at everything, with no more than `in_flight` requests at a time."""
        while self.paths or procaio.nreqs():
            while self.paths and procaio.nreqs() < in_flight:
                path = self.paths.pop()
                procaio.aio_lstat(path, partial(self.looked, path))
            procaio.poll()

    def looked(self, path: str, st: os.stat_result | None) -> None:
        """Count an entry; list it if it is a directory."""
        if st is None:
            self.failed(path)
        elif stat.S_ISDIR(st.st_mode):
            self.count["directories"] += 1
            procaio.aio_readdirx(path, procaio.READDIR_STAT_ORDER, partial(self.listed, path))
        else:
            self.count["files"] += 1
            self.count["bytes"] += st.st_size
            if st.st_mtime < time.time() - YEAR:
                self.count["bytes of files that are older than a year"] += st.st_size

    def listed(self, path: str, names: list[str] | None, _flags: int) -> None:
        """Put the entries of a directory on the list, the first one to be taken first."""
        if names is None:
            self.failed(path)
        else:
            self.paths += [os.path.join(path, name) for name in reversed(names)]

    def failed(self, path: str) -> None:
        """Tell of what cannot be looked at, and go on."""
        self.count["errors"] += 1
        print(f"{path}: {os.strerror(procaio.errno())}", file=sys.stderr)


if __name__ == "__main__":
    sweep = Sweep(sys.argv[1])
    sweep.run(int(sys.argv[2]) if len(sys.argv) > 2 else 64)
    for what, number in sweep.count.items():
        print(f"{number:15,} {what}")
