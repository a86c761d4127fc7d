"""The rings, the slots and the arena as C programs without Python: tests/native."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RINGS = ["ring.c", "segment.c", "state.c", "wake.c"]
PROGRAMS = {
    "test_rings": [*(f"shm/{name}" for name in RINGS), "workers/loop.c", "workers/ops.c"],
    "test_arena": ["shm/arena.c"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_native_program_ends_well(program: str, tmp_path: Path) -> None:
    """Requests between threads end exactly once; blocks never overlap and never get lost."""
    made = tmp_path / program
    options = ["-std=c11", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-pthread"]
    sources = [f"tests/native/{program}.c", *PROGRAMS[program]]
    subprocess.run(["cc", *options, "-o", made, *sources], cwd=ROOT, check=True, timeout=100)
    subprocess.run([made], check=True, timeout=100)
