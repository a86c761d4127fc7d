"""Processes that run beside a benchmark: how they end."""

from __future__ import annotations

import subprocess

SECONDS_TO_END = 10


def end(process: subprocess.Popen[str]) -> None:
    """Ask a process to end, and kill it if it has not done so in time."""
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
