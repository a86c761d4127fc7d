"""System calls that never return, and workers that cannot die: what the program asked for ends."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually, open_files
from ending import Force, nobody_was_hurt, works

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

HANGING = """
import errno, os, sys
import procaio

pool = procaio.Pool(workers=2)
name = sys.argv[1] + "/hang-1"
asked = [
    lambda: procaio.aio_stat(name, pool=pool, timeout=0.05),
    lambda: procaio.aio_open(name, pool=pool, timeout=0.05),
    lambda: procaio.aio_load(name, pool=pool, timeout=0.05),
    lambda: procaio.aio_copy(sys.argv[2] + "/1", name, pool=pool, timeout=0.05),
    lambda: procaio.aio_scandir(name, pool=pool, timeout=0.05),
]
for ask in asked * 2:
    try:
        ask().wait()
    except TimeoutError as error:
        assert name in (error.filename, error.filename2)
requests = [procaio.aio_stat(name, pool=pool) for _ in range(20)]
for request in requests:
    request.abort()
pool.flush()
assert {request.errno for request in requests} == {errno.ECANCELED}
assert len(procaio.aio_readdir(sys.argv[2], pool=pool).wait()) == 3
print(pool.statistics().worker_deaths, flush=True)
for _ in range(3):
    procaio.aio_stat(name, pool=pool)
pool.exit_timeout(0.05)
"""


def test_file_system_that_never_answers_keeps_neither_the_pool_nor_the_program(
    slowfs: ModuleType, tmp_path: Path
) -> None:
    tree = tmp_path / "source" / "tree"
    tree.mkdir(parents=True)
    for number in range(3):
        (tree / str(number)).write_bytes(b"content")
    mount = tmp_path / "mount"
    with slowfs.mounted(tmp_path / "source", mount, "hang=hang-"):
        # No pipe: workers that cannot die have all that the program had open.
        output = tmp_path / "output"
        with open(output, "wb") as file:
            done = subprocess.run(
                [sys.executable, "-c", HANGING, mount, tree],
                stdout=file, stderr=file, timeout=60, check=False,
            )  # fmt: skip
    assert (output.read_text(), done.returncode) == ("0\n", 0)


UNREADABLE = """
import errno, os, sys
import procaio

pool = procaio.Pool(workers=2)
source, local = sys.argv[1] + "/0", sys.argv[2]
handle = procaio.aio_open(source, pool=pool).wait()
asked = [
    lambda: procaio.aio_load(source, pool=pool, timeout=0.05),
    lambda: procaio.aio_copy(source, local + "/copy", pool=pool, timeout=0.05),
    lambda: procaio.aio_read(handle, 0, 10, pool=pool, timeout=0.05),
    lambda: procaio.aio_close(handle, pool=pool, timeout=0.05),
]
for ask in asked:
    try:
        ask().wait()
    except TimeoutError:
        print("late", flush=True)
    procaio.aio_stat(local, pool=pool).wait()
request = procaio.aio_open(source, pool=pool)
while request.state != "execute" and not pool.statistics().pending:
    pass
request.cancel()
pool.flush()
procaio.aio_stat(local, pool=pool).wait()
print("works")
"""


def test_closing_what_a_dead_worker_had_open_does_not_hang(
    slowfs: ModuleType, tmp_path: Path
) -> None:
    """Where close(2) waits for a server that does not answer, it is a worker that waits."""
    for name in ("source", "local"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "0").write_bytes(b"content")
    mount = tmp_path / "mount"
    with slowfs.mounted(tmp_path / "source", mount, "hang_reads,hang_closes"):
        output = tmp_path / "output"
        with open(output, "wb") as file:
            done = subprocess.run(
                [sys.executable, "-c", UNREADABLE, mount, tmp_path / "local"],
                stdout=file, stderr=file, timeout=60, check=False,
            )  # fmt: skip
    assert (output.read_text(), done.returncode) == ("late\n" * 4 + "works\n", 0)


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be frozen."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "fsfreeze", "losetup"))):
        pytest.skip("needs root, mkfs.ext4, losetup and fsfreeze")
    image, mount = tmp_path / "image", tmp_path / "ext4"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, mount], check=False)
    if mounted.returncode:
        pytest.skip("no loop device can be mounted here")
    try:
        yield mount
    finally:
        subprocess.run(["fsfreeze", "-u", mount], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "-l", mount], check=True)


def freeze(mount: Path) -> None:
    subprocess.run(["fsfreeze", "-f", mount], check=True)


def thaw(mount: Path) -> None:
    subprocess.run(["fsfreeze", "-u", mount], check=True)


def test_requests_end_though_their_workers_cannot_die(
    workers: procaio.Pool, ext4: Path, tmp_path: Path, force: Force
) -> None:
    """In uninterruptible sleep: others take their place; after the thaw all is cleaned up."""
    source = tmp_path / "large"
    source.write_bytes(bytes(8 << 20))
    workers.max_parallel(2)
    handle = os.open(ext4 / "written", os.O_CREAT | os.O_RDWR)
    buffer = procaio.Buffer(4096, pool=workers)
    assert works(workers)
    before = open_files()
    freeze(ext4)
    flags = os.O_CREAT | os.O_WRONLY
    stuck: list[procaio.Request[Any]] = []
    for ask in (
        lambda: procaio.aio_open(ext4 / "opened", flags, pool=workers, **force.keywords),
        lambda: procaio.aio_write(handle, 0, None, buffer, pool=workers, **force.keywords),
        lambda: procaio.aio_copy(source, ext4 / "copy", pool=workers, **force.keywords),
        lambda: procaio.aio_mkdir(ext4 / "made", pool=workers, **force.keywords),
    ):
        stuck.append(ask())
        eventually(lambda: stuck[-1].state == "execute", "a worker is stuck")
        force.end(stuck[-1])
        assert procaio.aio_stat(ext4, pool=workers).wait(timeout=30)
    assert workers.nreqs() == 0
    assert workers.nworkers() <= 2
    buffer.release()
    assert workers._snapshot()["shared_used"] >= 4096  # its worker may still read it
    thaw(ext4)
    eventually(
        lambda: works(workers) and open_files() == before and not (ext4 / "copy").exists(),
        "the dead are buried, what they had open is closed, the part is removed",
    )
    eventually(lambda: works(workers) and workers._snapshot()["shared_used"] == 0, "all of it")
    assert sorted(os.listdir(ext4)) == ["lost+found", "made", "opened", "written"]
    assert nobody_was_hurt(workers)
    os.close(handle)


def test_close_does_not_wait_for_workers_that_cannot_die(ext4: Path) -> None:
    """Whoever uses a pool next buries them, and closes what they have opened meanwhile."""
    before = open_files()
    pool = procaio.Pool(workers=3)
    assert works(pool)
    freeze(ext4)
    flags = os.O_CREAT | os.O_WRONLY
    requests = [procaio.aio_open(ext4 / str(n), flags, pool=pool) for n in range(3)]
    eventually(lambda: {r.state for r in requests} == {"execute"}, "workers are stuck")
    assert requests[0].abort()
    pool._close(0)
    assert {request.errno for request in requests} == {errno.ECANCELED}
    thaw(ext4)
    eventually(lambda: len(list(ext4.iterdir())) == 4, "they have opened their files")
    with procaio.Pool() as other:
        eventually(lambda: works(other) and open_files() == before, "nothing stays open")


def test_parts_of_many_copies_that_hang_do_not_keep_the_pool(ext4: Path, tmp_path: Path) -> None:
    """More than there are workers: none of those that remove them is let do it for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    keep = os.open(fifo, os.O_RDWR)
    with procaio.Pool(workers=2, at_once=False) as pool:
        copies = []
        for number in range(2):
            copies.append(procaio.aio_copy(fifo, ext4 / str(number), pool=pool))
            eventually(lambda: copies[-1].state == "execute", "it begins")
            os.write(keep, b"some")
        eventually(lambda: sum(copy.copied for copy in copies) == 8, "they are in the middle")
        freeze(ext4)
        for copy in copies:
            assert copy.abort()
            with pytest.raises(OSError, match="aborted"):
                copy.wait(timeout=30)
        for _ in range(4):
            assert works(pool)
        thaw(ext4)
        eventually(lambda: works(pool) and pool.nreqs() == 0, "the dead are buried")
    os.close(keep)
