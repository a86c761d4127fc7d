"""The file system of benchmarks/native/slowfs.c, which tests use to make calls slow or hang."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import eventually

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
STAT = """
import os, sys
try:
    os.stat(sys.argv[1])
except OSError as error:
    print(error.errno)
"""
MOUNT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from benchmarks import slowfs
with slowfs.mounted(Path(sys.argv[1]), Path(sys.argv[2])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to show: a few files in a directory."""
    directory = tmp_path / "source"
    (directory / "tree").mkdir(parents=True)
    for number in range(3):
        (directory / "tree" / str(number)).write_bytes(os.urandom(5000 * number))
    return directory


def mounts() -> str:
    return Path("/proc/self/mounts").read_text()


def test_what_is_done_on_it_is_done_in_its_source(
    slowfs: ModuleType, source: Path, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    with slowfs.mounted(source, mount):
        shutil.copytree(mount / "tree", mount / "copy")
        (mount / "copy" / "0").rename(mount / "copy" / "renamed")
        os.symlink("renamed", mount / "copy" / "link")
        shutil.rmtree(mount / "tree")
        assert sorted(os.listdir(mount / "copy")) == ["1", "2", "link", "renamed"]
        assert filecmp.cmp(mount / "copy" / "2", source / "copy" / "2", shallow=False)
    assert os.listdir(source) == ["copy"]
    assert (source / "copy" / "link").read_bytes() == b""
    assert os.listdir(mount) == []


def test_it_is_asked_again_each_time(slowfs: ModuleType, source: Path, tmp_path: Path) -> None:
    """Neither names nor attributes are remembered."""
    mount = tmp_path / "mount"
    with slowfs.mounted(source, mount):
        counts = []
        for _ in range(3):
            before = slowfs.calls(mount)
            os.stat(mount / "tree" / "0")
            counts.append(slowfs.calls(mount) - before - 1)
    assert counts[0] == counts[1] == counts[2] >= 2


def test_a_hanging_name_gives_no_answer_until_the_file_system_is_gone(
    slowfs: ModuleType, source: Path, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    (source / "hang-1").touch()
    with slowfs.mounted(source, mount, "hang=hang-"):
        assert sorted(os.listdir(mount)) == ["hang-1", "tree"]
        first, asked = slowfs.calls(mount), 0

        def somebody_else_asked() -> bool:
            nonlocal asked
            asked += 1
            return bool(slowfs.calls(mount) > first + asked)

        child = subprocess.Popen(
            [sys.executable, "-c", STAT, mount / "hang-1"], stdout=subprocess.PIPE, text=True
        )
        eventually(somebody_else_asked, "the child's call arrives")
        assert child.poll() is None
    output, _ = child.communicate(timeout=20)
    assert int(output) in {errno.ECONNABORTED, errno.ENOTCONN}


def test_it_goes_while_it_is_used(slowfs: ModuleType, source: Path, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    with slowfs.mounted(source, mount):
        fd = os.open(mount / "tree" / "1", os.O_RDONLY)
    assert str(mount) not in mounts()
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.read(fd, 1)
    with contextlib.suppress(OSError):  # it is closed all the same
        os.close(fd)


def test_it_goes_after_an_error(slowfs: ModuleType, source: Path, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    with pytest.raises(KeyboardInterrupt), slowfs.mounted(source, mount):
        raise KeyboardInterrupt
    assert str(mount) not in mounts()


def test_it_goes_when_the_process_that_mounted_it_is_killed(
    slowfs: ModuleType, source: Path, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    done = subprocess.run(
        [sys.executable, "-c", MOUNT_AND_DIE, source, mount], cwd=ROOT, check=False, timeout=20
    )
    assert done.returncode < 0
    eventually(lambda: str(mount) not in mounts(), "it is unmounted")


def test_what_a_killed_file_system_left_is_removed_by_the_next(
    slowfs: ModuleType, source: Path, tmp_path: Path
) -> None:
    """A mount without a server cannot even be looked at."""
    mount = tmp_path / "mount"
    mount.mkdir()
    server = subprocess.Popen([slowfs.PROGRAM, source, mount], stdout=subprocess.PIPE)
    with server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        server.kill()
    with pytest.raises(OSError, match="not connected"):
        os.stat(mount)
    with slowfs.mounted(source, mount):
        assert os.listdir(mount) == ["tree"]


@pytest.mark.parametrize(
    "arguments", [[], ["."], [".", ".", "."], [".", "nowhere"], [".", ".", "-o", "threads=0"]]
)
def test_wrong_arguments_are_refused(
    slowfs: ModuleType, arguments: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [slowfs.PROGRAM, *arguments], cwd=tmp_path, capture_output=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert b"usage: slowfs" in done.stderr
