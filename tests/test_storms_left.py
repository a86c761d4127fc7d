"""What dead workers would leave behind where no mark tells whose it is."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

import pytest

import procaio
from copying import AS_NOBODY, needs_root
from programs import FILTER, X86, run_python

if TYPE_CHECKING:
    from pathlib import Path

# Each worker that looks where a link leads is killed; prints what the request comes to, and how
# many descriptors are O_PATH then.
KILLED_OVER_A_LINK = f"""{FILTER}
import fcntl
import procaio

def paths():
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += bool(fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_PATH)
        except OSError:  # that of the listing
            pass
    return found

with procaio.Pool() as pool:
    filter_call(KILL, 267)  # readlinkat
    request = procaio.aio_realpath(sys.argv[1], pool=pool)
    pool.flush()
    procaio.aio_nop(pool=pool).wait()
    print(type(request.error).__name__, pool.statistics().worker_deaths, paths())
"""


@X86
def test_worker_killed_while_it_resolves_a_path_leaves_no_descriptor(tmp_path: Path) -> None:
    """Nothing of it could be found again, so nothing is opened."""
    (tmp_path / "link").symlink_to(tmp_path)
    answer = run_python(KILLED_OVER_A_LINK, tmp_path / "link")
    assert answer.split() == ["WorkerDied", "3", "0"]


# -- a path that is gone name by name --------------------------------------------------------------


@pytest.fixture
def maze(tmp_path: Path) -> Path:
    """Three levels of directories, each with links up, down, aside, around and to nowhere."""
    top = tmp_path / "maze"
    for way in (".", "a", "a/a", "a/b", "b", "b/a"):
        place = top / way
        place.mkdir(exist_ok=True)
        (place / "file").touch()
        for name, target in {
            "up": "..",
            "here": ".",
            "far": f"{top}/b/a/",
            "aside": "../b",
            "through": "far/../here//.",
            "last": "file",
            "no": "nowhere",
            "round": "round",
        }.items():
            (place / name).symlink_to(target)
    return top


def outcome(path: str) -> str | int:
    """What the system says: os.path.realpath() alone does not know ELOOP, or that a file ends."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno or 0
    return os.path.realpath(path)


def test_real_path_of_any_way_through_links_is_the_one_of_os(
    pool: procaio.Pool, maze: Path
) -> None:
    """Begun anywhere, by a path or in a directory that is open, and by ways above that one."""
    names = ["..", ".", "", *sorted(os.listdir(maze / "a"))]
    chosen = random.Random(1)
    with procaio.aio_wd(maze / "a", pool=pool).wait() as wd:
        for _ in range(300):
            way = "/".join(chosen.choices(names, k=chosen.randrange(1, 7))).lstrip("/") or "."
            expected = outcome(f"{maze}/a/{way}")
            for request in (
                procaio.aio_realpath(f"{maze}/a/{way}", pool=pool),
                procaio.aio_realpath(way, dir_fd=wd, pool=pool),
            ):
                pool.flush()
                assert (request.result or request.errno) == expected, way


@pytest.mark.parametrize("links", [39, 40, 41])
def test_real_path_goes_through_as_many_links_as_the_system(
    pool: procaio.Pool, tmp_path: Path, links: int
) -> None:
    last = "x" * 200
    (tmp_path / last).touch()
    for n in range(links):
        (tmp_path / f"{n}{'y' * 200}").symlink_to("./" * 1000 + last)
        last = f"{n}{'y' * 200}"
    request = procaio.aio_realpath(tmp_path / last, pool=pool)
    pool.flush()
    if links > 40:
        assert request.errno == errno.ELOOP
    else:
        assert request.result == os.path.realpath(tmp_path / ("x" * 200))


def test_real_path_that_is_too_long_says_so(pool: procaio.Pool, tmp_path: Path) -> None:
    """The system itself finds the file, through links, but there is no path for it."""
    deep, levels = str(tmp_path), 0
    here = os.open(tmp_path, os.O_RDONLY)
    while levels < 25:
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, levels = below, levels + 1
    for level in range(1, levels + 1):
        deep += "/" + "d" * 200
        if level == 15:
            os.symlink(deep, tmp_path / "half")
    os.close(here)
    way = "/".join(["d" * 200] * 10)
    assert os.stat(tmp_path / "half" / way)
    request = procaio.aio_realpath(tmp_path / "half" / way, pool=pool)
    pool.flush()
    assert request.errno == errno.ENAMETOOLONG


@needs_root
def test_real_path_below_a_directory_that_is_closed_to_the_program(tmp_path: Path) -> None:
    """Who stands in it knows its path all the same."""
    (tmp_path / "closed" / "open").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o711)
    (tmp_path / "closed" / "open" / "file").touch()
    (tmp_path / "closed" / "open" / "link").symlink_to("file")
    program = AS_NOBODY.replace("(source, target, pool=pool)", "(source, pool=pool)")
    program = program.replace("name, source, target = sys.argv[1:]", "name, source = sys.argv[1:]")
    program = program.replace("    os.setgroups", "    os.chmod('..', 0)\n    os.setgroups")
    found = run_python(program, "aio_realpath", "link", cwd=tmp_path / "closed" / "open")
    assert found.strip() == os.path.realpath(tmp_path / "closed" / "open" / "file")
