"""
The slow file system: `native/slowfs.c`, mounted as long as a context lasts.

Whoever ends the context unmounts it, used or not, and hung calls on it fail. It also goes when the
process that mounted it dies: it asks the kernel to be told. What is left over, if it was killed
itself, is a mount without a server; the next one at the same place removes it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import processes
from benchmarks.measure import MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.data import Data

PROGRAM = Path(__file__).resolve().parent.parent / "build" / "slowfs"


@contextmanager
def mounted(source: Path, mount: Path, *options: str) -> Iterator[None]:
    """Show the directory `source` at `mount`, with options of slowfs like delay_ms=5."""
    if not PROGRAM.exists():
        message = "libfuse3-dev, fuse3 (make build/slowfs)"
        raise MissingError(message)
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        message = "/dev/fuse"
        raise MissingError(message)
    unmount(mount)
    mount.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [PROGRAM, source, mount, "-o", ",".join(options or ("delay_ms=0",))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # ctrl-C is for us: what is mounted goes last
    ) as process:
        try:
            if process.stdout and process.stdout.readline() != "ready\n":
                why = process.stderr.read().strip() if process.stderr else ""
                message = f"a mount with FUSE: {why or 'slowfs ended'}"
                raise MissingError(message)
            yield
        finally:
            processes.end(process)
            unmount(mount)


@contextmanager
def mounted_for(data: Data) -> Iterator[None]:
    """Mount it where the contenders look for it."""
    with mounted(data.slow_source, data.slow_mount, f"delay_ms={data.delay_ms}"):
        yield
    with suppress(OSError):
        data.slow_mount.rmdir()


def unmount(mount: Path) -> None:
    """Unmount it if it is mounted, in use or without a server."""
    # Not asked with stat(): a mount without a server has no attributes.
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    if str(mount) in points:
        program = shutil.which("fusermount3") or "fusermount3"
        subprocess.run([program, "-u", "-z", mount], check=True)


def calls(mount: Path) -> int:
    """Give how many calls came to the file system at `mount`; this is one more."""
    return int(os.getxattr(mount, "user.slowfs.calls"))
