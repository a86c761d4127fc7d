"""Directories as some file servers have them: whole all the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from conftest import not_sanitized
from programs import run_python

SOURCE = Path(__file__).parent / "native" / "odd_directories.c"
PROGRAM = """
import asyncio, os, sys
import procaio

top, copy = sys.argv[1:]
pool = procaio.Pool(inline=True)

async def walk():
    found = procaio.aio_walk(top, pool=pool)
    return sorted([sorted(dirs + files) async for _, dirs, files in found])

expected = sorted(sorted(dirs + files) for _, dirs, files in os.walk(top))
assert asyncio.run(walk()) == expected
dirs, others = procaio.aio_scandir(top, pool=pool).wait()
assert sorted(dirs + others) == sorted(os.listdir(top))
assert dirs == [name for name in os.listdir(top) if os.path.isdir(os.path.join(top, name))]
procaio.aio_copytree(top, copy, pool=pool).wait()
assert sorted(sorted(dirs + files) for _, dirs, files in os.walk(copy)) == expected
procaio.aio_rmtree(top, pool=pool).wait()
assert not os.path.exists(top)
print(pool.nreqs())
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes them odd."""
    made = tmp_path_factory.mktemp("odd") / "odd.so"
    options = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-shared", "-fPIC"]
    subprocess.run(["cc", *options, "-o", made, SOURCE, "-ldl"], check=True, timeout=100)
    return made


@not_sanitized
@pytest.mark.parametrize("odd", ["types", "offsets", "interrupted"])
def test_odd_directories_are_listed_copied_and_removed_as_a_whole(
    tmp_path: Path, library: Path, odd: str
) -> None:
    """Types that nobody knows, offsets beyond half of their range, calls that are interrupted."""
    top = tmp_path / "tree"
    (top / "empty").mkdir(parents=True)
    (top / "sub").mkdir()
    for number in range(3):
        (top / f"odd{number}").touch()
        (top / "sub" / f"odd{number}").touch()
    (top / "large").mkdir()
    for number in range(300):
        os.link(top / "odd0", top / "large" / f"{number:0200}")
    environment = os.environ | {"LD_PRELOAD": str(library), "ODD": odd}
    assert run_python(PROGRAM, top, tmp_path / "copy", env=environment) == "0\n"
