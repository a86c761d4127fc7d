"""Rings, slots, arena, looking before a sleep, the touching of memory: as C programs, no Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RINGS = ["ring.c", "segment.c", "state.c", "wake.c"]
CALLS = [f"workers/{path.name}" for path in ROOT.glob("workers/calls_*.c")]
PROGRAMS = {
    "test_rings": [*(f"shm/{name}" for name in RINGS), "workers/loop.c", "workers/ops.c", *CALLS],
    "test_arena": ["shm/arena.c"],
    "test_spin": [],
    "test_memory": ["workers/calls_memory.c"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_native_program_ends_well(program: str, tmp_path: Path) -> None:
    """Requests between threads end exactly once; blocks never overlap and never get lost; who has
    given up looking looks again when it would have found something; touching memory never changes
    it, and what is lost is an error.
    """
    made = tmp_path / program
    options = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-pthread"]
    sources = [f"tests/native/{program}.c", *PROGRAMS[program]]
    subprocess.run(["cc", *options, "-o", made, *sources], cwd=ROOT, check=True, timeout=100)
    subprocess.run([made], check=True, timeout=100)
