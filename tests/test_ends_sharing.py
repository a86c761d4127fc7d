"""What the program shares with its workers, and ceases to share: chroot, unshare, setns."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import sys
import time
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually, in_child, kill, naps, succeeds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Gate

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may do that"),
]
unshares = pytest.mark.skipif(not hasattr(os, "unshare"), reason="Python has it from 3.12 on")

CLONE_FS, CLONE_FILES, CLONE_NEWNS, CLONE_NEWPID = 0x200, 0x400, 0x20000, 0x20000000
MS_PRIVATE_REC = 0x44000
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that can be a root: there is no /proc in it."""
    (tmp_path / "file").write_bytes(b"inside")
    return tmp_path


def mount(name: bytes, target: Path) -> None:
    """Mount a new tmpfs."""
    if libc.mount(name, os.fsencode(target), b"tmpfs", 0, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")


# -- chroot ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("also", [(), (4711,)], ids=["root", "another user"])
def test_chroot_acts_in_workers_which_go_on_without_proc(place: Path, also: tuple[int]) -> None:
    """They see what the program sees; the spawner, which looks for it, is not misled."""
    place.chmod(0o755)
    to_child, from_child = os.pipe(), os.pipe()

    def work() -> None:
        pool = procaio.Pool()
        outside = procaio.aio_open("/etc/passwd", pool=pool).wait()
        os.chroot(place)
        os.chdir("/")
        for user in also:
            os.setuid(user)
        assert procaio.aio_load("/file", pool=pool).wait() == b"inside"
        assert procaio.aio_load("file", pool=pool).wait() == b"inside"
        with pytest.raises(FileNotFoundError):
            procaio.aio_stat("/etc/passwd", pool=pool).wait()
        assert procaio.aio_read(outside, 0, 4, pool=pool).wait() == b"root"
        spawner = pool.statistics().spawner_pid
        os.write(from_child[1], struct.pack("i", spawner))
        os.read(to_child[0], 1)
        assert procaio.aio_load("/file", pool=pool).wait() == b"inside"
        assert procaio.aio_read(outside, 0, 9 << 20, pool=pool).wait()[:4] == b"root"
        assert pool.statistics().spawner_pid == spawner
        assert pool.statistics().worker_deaths == 0
        outside.close()
        pool.close()

    pid = in_child(work)
    os.close(from_child[1])
    said = os.read(from_child[0], 4)
    if said:
        (spawner,) = struct.unpack("i", said)
        before = naps(spawner)
        # Awake it naps for a few milliseconds; at rest it looks after each nap.
        eventually(lambda: naps(spawner) >= before + 8, "the spawner looks for the program")
    os.write(to_child[1], b"x")
    for fd in (*to_child, from_child[0]):
        os.close(fd)
    assert succeeds(pid)


# -- unshare, setns --------------------------------------------------------------------------------


@unshares
@pytest.mark.parametrize("flags", [CLONE_FS, CLONE_FILES, CLONE_FS | CLONE_FILES, CLONE_NEWNS])
def test_unshare_is_followed_by_the_workers(place: Path, gate: Gate, flags: int) -> None:
    """New ones share what the program has then; what was executed ends before."""

    def work() -> None:
        pool = procaio.Pool()
        quick = [procaio.aio_busy(0.05, pool=pool) for _ in range(4)]
        held = gate.hold(pool)
        written = procaio.aio_write(os.open(place / "new", 0o101), None, None, b"x", pool=pool)
        os.unshare(flags)  # type: ignore[attr-defined] # see above
        os.chdir(place)
        if flags & CLONE_NEWNS:
            libc.mount(None, b"/", None, MS_PRIVATE_REC, None)
            (place / "mounted").mkdir()
            mount(b"ours", place / "mounted")
            (place / "mounted" / "there").touch()
            assert procaio.aio_stat("mounted/there", pool=pool).wait().st_size == 0
        handle = procaio.aio_open("file", pool=pool).wait()
        assert os.read(handle.fileno(), 9) == b"inside"
        handle.close()
        assert [request.wait() for request in quick] == [None] * 4
        assert written.wait() == 1
        with pytest.raises(procaio.WorkerDied):  # it reads where nobody can say how far it came
            held[0].wait()
        assert pool.statistics().worker_deaths == 0
        pool.close()

    assert succeeds(in_child(work))
    assert not os.path.exists(place / "mounted" / "there")


@unshares
def test_setns_into_another_mount_namespace_works_with_a_pool(place: Path) -> None:
    """The system refuses it while anybody shares the working directory: so nobody does."""
    (place / "mounted").mkdir()
    reading, writing = os.pipe()

    def other() -> None:
        os.unshare(CLONE_NEWNS)  # type: ignore[attr-defined] # see above
        libc.mount(None, b"/", None, MS_PRIVATE_REC, None)
        mount(b"theirs", place / "mounted")
        (place / "mounted" / "there").touch()
        os.write(writing, b"x")
        signal.pause()

    pid = in_child(other)
    assert os.read(reading, 1) == b"x"

    def work() -> None:
        pool = procaio.Pool()
        busy = [procaio.aio_busy(0.02, pool=pool) for _ in range(4)]
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
        os.setns(namespace)  # type: ignore[attr-defined] # see above
        assert procaio.aio_stat(place / "mounted/there", pool=pool).wait().st_size == 0
        assert [request.wait() for request in busy] == [None] * 4
        pool.close()

    try:
        assert succeeds(in_child(work))
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)


def test_program_whose_children_would_be_in_another_pid_namespace_is_told(gate: Gate) -> None:
    """Its spawner could not know it. What it has works on; a new pool is an error."""

    def work() -> None:
        pool = procaio.Pool()
        held = gate.hold(pool)
        if libc.unshare(CLONE_NEWPID) != 0:
            os._exit(0)  # not allowed here
        gate.open()
        assert held[0].wait() == b"x"
        other = procaio.Pool()
        with pytest.raises(OSError, match="Invalid argument") as caught:
            procaio.aio_nop(pool=other)
        assert caught.value.errno == errno.EINVAL
        other.close()
        pool.close()

    assert succeeds(in_child(work))


def test_pool_is_closed_by_the_hook_that_is_told_that_it_has_no_spawner() -> None:
    """poll_cb comes back as from a callback that closes the pool."""

    def work() -> None:
        pool = procaio.Pool()
        procaio.aio_nop(pool=pool).wait()
        if libc.unshare(CLONE_NEWPID) != 0:
            os._exit(0)  # not allowed here
        sys.unraisablehook = lambda _: pool.close()
        kill(pool.statistics().spawner_pid)
        end = time.monotonic() + 20
        with contextlib.suppress(procaio.PoolClosed):
            while time.monotonic() < end:
                pool.poll_cb()
        assert pool.closed

    assert succeeds(in_child(work))


WAYS: dict[str, Callable[[], object]] = {
    "chdir": lambda: os.chdir("/"),
    "umask": lambda: os.umask(0o077),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_changed_after_the_program_became_another_user_is_shared(
    place: Path, way: str
) -> None:
    """New workers share with the program as the old ones did."""
    place.chmod(0o777)

    def work() -> None:
        os.chdir(place)
        pool = procaio.Pool()
        procaio.aio_nop(pool=pool).wait()
        os.setgid(4711)
        os.seteuid(4711)
        procaio.aio_nop(pool=pool).wait()
        WAYS[way]()
        if way == "chdir":
            assert os.path.samestat(procaio.aio_stat(".", pool=pool).wait(), os.stat("/"))
        os.seteuid(0)
        with procaio.aio_open(place / "new", os.O_CREAT, 0o666, pool=pool).wait() as handle:
            mode = os.fstat(handle.fileno()).st_mode & 0o777
        assert mode == (0o600 if way == "umask" else 0o644)
        pool.close()

    before = os.umask(0o022)
    try:
        assert succeeds(in_child(work))
    finally:
        os.umask(before)
