"""
The synopsis and the examples of IO::AIO 3.71, in Python: with callbacks, as they are there.

What the document promises beside an example is asserted with it. Its groups come later.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import select
import selectors
import signal
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually, not_sanitized
from programs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Gate


class Loop:
    """An event loop such as EV or Event: descriptors to watch, functions to call, a way out."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.running = True

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Let `callback` be called whenever the descriptor is readable."""
        self.selector.register(fd, selectors.EVENT_READ, callback)

    def run(self) -> None:
        """Call whoever has something to do, until stop() is called."""
        while self.running:
            ready = self.selector.select(20)
            assert ready, "nothing happens any more"
            for key, _ in ready:
                key.data()
        self.selector.close()

    def stop(self) -> None:
        """Let run() return."""
        self.running = False


def one_worker(gate: Gate) -> None:
    """Let the default pool have one worker, and let that one be busy until the gate opens."""
    procaio.max_parallel(1)
    gate.hold(procaio.default_pool())


# -- synopsis --------------------------------------------------------------------------------------


def test_synopsis_open(data_file: Path, tmp_path: Path) -> None:
    """The callback gets a handle, or nothing and an errno."""
    seen: list[object] = []

    def opened(fh: procaio.FileHandle | None) -> None:
        if fh is None:
            seen.append(errno.errorcode[procaio.errno()])
        else:
            with fh:
                seen.append(os.pread(fh.fileno(), 16, 16))

    procaio.aio_open(data_file, procaio.O_RDONLY, 0, opened)
    procaio.flush()
    procaio.aio_open(tmp_path / "no", procaio.O_RDONLY, 0, opened)
    procaio.flush()
    assert seen == [(1).to_bytes(16, "big"), "ENOENT"]


def test_synopsis_unlink(data_file: Path) -> None:
    seen: list[int] = []
    procaio.aio_unlink(data_file, seen.append)
    procaio.flush()
    assert (seen, data_file.exists()) == ([0], False)


def test_synopsis_read_into_a_buffer(fd: int) -> None:
    """1024 bytes from 30000 on, to the beginning of the buffer."""
    buffer = bytearray()
    seen: list[int] = []
    procaio.aio_read(fd, 30000, 1024, buffer, 0, seen.append)
    procaio.flush()
    assert seen == [1024]
    assert buffer == os.pread(fd, 1024, 30000)


def test_synopsis_cancel_what_is_still_queued(gate: Gate, data_file: Path) -> None:
    """A request of the highest priority is given up before a worker has taken it."""
    one_worker(gate)
    procaio.aioreq_pri(4)
    request = procaio.aio_unlink(data_file, lambda _: pytest.fail("it was cancelled"))
    assert (request.pri, request.cancel()) == (4, True)
    gate.open()
    procaio.flush()
    assert data_file.exists()


# -- the first example -----------------------------------------------------------------------------


def test_example_load_a_file_in_an_event_loop(data_file: Path) -> None:
    """Open, learn the size, read, close, leave the loop."""
    loop = Loop()
    loop.watch(procaio.poll_fileno(), procaio.poll_cb)
    contents = bytearray()

    def opened(fh: procaio.FileHandle | None) -> None:
        assert fh, os.strerror(procaio.errno())
        size = os.fstat(fh.fileno()).st_size

        def read(count: int) -> None:
            assert count == size, "short read"
            fh.close()
            loop.stop()

        procaio.aio_read(fh, 0, size, contents, 0, read)

    procaio.aio_open(data_file, procaio.O_RDONLY, 0, opened)
    loop.run()
    assert contents == data_file.read_bytes()


# -- the life of a request -------------------------------------------------------------------------


def test_states_of_a_request_in_order(gate: Gate, data_file: Path) -> None:
    """Ready until a worker takes it, pending until poll_cb, then done."""
    one_worker(gate)
    seen: list[str] = []
    request = procaio.aio_stat(data_file, lambda _: seen.append("callback"))
    seen.append(request.state)
    gate.open()
    eventually(lambda: request.state == "pending", "it is executed")
    seen.append(request.state)
    procaio.flush()
    seen.append(request.state)
    assert seen == ["ready", "pending", "callback", "done"]


def test_request_keeps_what_the_program_hangs_on_it(data_file: Path) -> None:
    """Python's attributes are what the hash is there."""
    request = procaio.aio_stat(data_file)
    request.purpose = "thumbnails"
    procaio.flush()
    assert request.purpose == "thumbnails"


def test_executing_request_that_is_cancelled_runs_on_without_callback(gate: Gate) -> None:
    (request,) = gate.hold(procaio.default_pool())
    request.cb(lambda _: pytest.fail("it was cancelled"))
    assert not request.cancel()
    assert procaio.nreqs() == 1
    gate.open()
    procaio.flush()
    assert os.get_blocking(gate.fd)
    os.set_blocking(gate.fd, False)
    with pytest.raises(BlockingIOError):
        os.read(gate.fd, 1)  # the byte was read all the same


def test_callback_can_be_replaced(data_file: Path) -> None:
    seen: list[str] = []
    request = procaio.aio_stat(data_file, lambda _: seen.append("first"))
    request.cb(lambda _: seen.append("second"))
    procaio.flush()
    assert seen == ["second"]


# -- priorities ------------------------------------------------------------------------------------


def test_example_read_before_further_opens(gate: Gate, data_file: Path) -> None:
    """An open of low priority, then a read a little higher: it overtakes the other opens."""
    one_worker(gate)
    seen: list[str] = []

    def opened(fh: procaio.FileHandle) -> None:
        seen.append("open")
        # The worker is busy again, and has these before it: opens, and the read.
        held = procaio.aio_read(gate.fd, None, 1, pri=4)
        eventually(lambda: held.state == "execute", "the gate holds")
        others = []
        for _ in range(3):
            procaio.aioreq_pri(-3)
            others.append(procaio.aio_open(data_file, procaio.O_RDONLY, 0, close))
        procaio.aioreq_pri(-2)
        procaio.aio_read(fh, 0, 16, lambda data: read(fh, data))
        gate.open()

    def close(fh: procaio.FileHandle) -> None:
        seen.append("open")
        fh.close()

    def read(fh: procaio.FileHandle, data: bytes) -> None:
        seen.append(f"read {len(data)}")
        fh.close()

    procaio.aioreq_pri(-3)
    procaio.aio_open(data_file, procaio.O_RDONLY, 0, opened)
    gate.open()
    procaio.flush()
    assert seen == ["open", "read 16", "open", "open", "open"]


def test_priority_is_for_one_request_and_nice_adds_up() -> None:
    """aioreq_pri tells the value without changing it; the next request sets it back."""
    assert procaio.aioreq_pri() == 0
    procaio.aioreq_nice(1)
    procaio.aioreq_nice(2)
    assert procaio.aioreq_pri() == -3
    assert [procaio.aio_nop().pri for _ in range(2)] == [-3, 0]
    procaio.flush()


# -- files and metadata ----------------------------------------------------------------------------


def test_example_read_fifteen_bytes(fd: int) -> None:
    """From offset 7; the position of the descriptor stays, unless there is no offset."""
    buffer = bytearray(b"what was here before")
    seen: list[object] = []
    procaio.aio_read(fd, 7, 15, buffer, 0, lambda count: seen.append((count, bytes(buffer))))
    procaio.flush()
    assert seen == [(15, os.pread(fd, 15, 7))]
    assert os.lseek(fd, 0, os.SEEK_CUR) == 0
    procaio.aio_read(fd, None, 15, buffer, 0)
    procaio.flush()
    assert os.lseek(fd, 0, os.SEEK_CUR) == 15


def test_write_takes_the_rest_of_the_data_and_counts_from_its_end(fd: int) -> None:
    """No length means what is left; a negative dataoffset counts from the end."""
    seen: list[int] = []
    procaio.aio_write(fd, 0, None, b"abcdef", 2, seen.append)
    procaio.flush()
    procaio.aio_write(fd, 4, None, b"abcdef", -2, seen.append)
    procaio.flush()
    assert (seen, os.pread(fd, 6, 0)) == ([4, 2], b"cdefef")


def test_close_frees_nothing_that_the_program_still_holds(data_file: Path) -> None:
    """The file is closed; its number is taken until the program's own object is closed too."""
    with open(data_file, "rb", buffering=0) as file:
        seen: list[int] = []
        procaio.aio_close(file, seen.append)
        procaio.flush()
        assert seen == [0]
        assert file.read(1) == b""
        assert "data" not in os.readlink(f"/proc/self/fd/{file.fileno()}")


def test_example_size_of_a_file(data_file: Path, tmp_path: Path) -> None:
    seen: list[object] = []

    def looked(st: os.stat_result | None) -> None:
        seen.append(st.st_size if st else os.strerror(procaio.errno()))

    procaio.aio_stat(data_file, looked)
    procaio.flush()
    procaio.aio_stat(tmp_path / "no", looked)
    procaio.flush()
    assert seen == [65536, "No such file or directory"]


def test_example_statvfs_tells_all(tmp_path: Path) -> None:
    """Eleven fields, by path and by descriptor."""
    fields = "bsize frsize blocks bfree bavail files ffree favail fsid flag namemax".split()  # noqa: SIM905
    fd = os.open(tmp_path, os.O_RDONLY)
    found: list[dict[str, int]] = []
    for place in (tmp_path, fd):
        procaio.aio_statvfs(
            place, lambda f: found.append({name: getattr(f, f"f_{name}") for name in fields})
        )
        procaio.flush()
    os.close(fd)
    truth = os.statvfs(tmp_path)
    for answer in found:
        assert answer["bsize"] == truth.f_bsize > 0
        assert answer["blocks"] == truth.f_blocks
        assert answer["namemax"] == truth.f_namemax
        assert answer["flag"] & procaio.ST_RDONLY == 0
    assert len(found) == 2


def test_example_utime_now_and_the_epoch(data_file: Path) -> None:
    """Twice nothing is now; nothing beside a time is zero."""
    os.utime(data_file, (5, 5))
    before = time.time() - 1
    procaio.aio_utime(data_file, None, None)
    procaio.flush()
    assert min(data_file.stat().st_atime, data_file.stat().st_mtime) >= before
    procaio.aio_utime(data_file, time.time(), None)
    procaio.flush()
    assert data_file.stat().st_atime >= before
    assert data_file.stat().st_mtime == 0


@pytest.mark.parametrize("unchanged", [-1, None])
def test_example_chown_leaves_the_group(data_file: Path, unchanged: int | None) -> None:
    """-1 and None both mean that."""
    seen: list[int] = []
    before = data_file.stat()
    procaio.aio_chown(data_file, before.st_uid, unchanged, seen.append)
    procaio.flush()
    after = data_file.stat()
    assert (seen, after.st_uid, after.st_gid) == ([0], before.st_uid, before.st_gid)


def test_example_mknod_makes_a_fifo(tmp_path: Path) -> None:
    """The one portable use of it."""
    seen: list[int] = []
    procaio.aio_mknod(tmp_path / "fifo", procaio.S_IFIFO | 0o600, 0, seen.append)
    procaio.flush()
    assert seen == [0]
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_readdirx_describes_entries(tmp_path: Path) -> None:
    """Name, type and inode; likely directories first; and a word if a type was not known."""
    for name in "bca":
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.txt").touch()
    flags = procaio.READDIR_DENTS | procaio.READDIR_DIRS_FIRST
    seen: list[Any] = []
    procaio.aio_readdirx(tmp_path, flags, lambda *answer: seen.append(answer))
    procaio.flush()
    ((entries, found),) = seen
    if not found & procaio.READDIR_FOUND_UNKNOWN:
        kinds = [kind for _, kind, _ in entries]
        assert kinds == [procaio.DT_DIR] * 3 + [procaio.DT_REG] * 3
    assert {name: inode for name, _, inode in entries} == {
        path.name: path.stat().st_ino for path in tmp_path.iterdir()
    }


# -- memory ----------------------------------------------------------------------------------------


def locked() -> int:
    """KiB of this program's memory that are locked."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmLck"))


@not_sanitized
def test_example_lock_a_file_in_memory(data_file: Path) -> None:
    """Mapping and lock are undone when the object goes."""
    seen: list[int] = []
    before = locked()
    with open(data_file, "rb") as file:
        data = procaio.mmap(65536, procaio.PROT_READ, procaio.MAP_SHARED, file)
    procaio.aio_mlock(data, seen.append)
    procaio.flush()
    assert (seen, locked() - before) == ([0], 64)
    del data
    assert locked() == before


def test_example_lock_all_memory_to_come() -> None:
    """In a program of its own, since this one would suffer."""
    program = """
import os, procaio
seen = []
procaio.aio_mlockall(procaio.MCL_FUTURE, lambda status: seen.append((status, procaio.errno())))
procaio.flush()
procaio.munlockall()
print(*seen[0])
"""
    assert run_python(program) in {"0 0\n", f"-1 {errno.EPERM}\n", f"-1 {errno.ENOMEM}\n"}


def test_example_digest_of_a_mapped_file(data_file: Path) -> None:
    """A mapping is bytes to whoever takes a buffer."""
    size = data_file.stat().st_size
    with open(data_file, "rb") as file:
        data = procaio.mmap(size, procaio.PROT_READ, procaio.MAP_SHARED, file)
    assert hashlib.md5(data).digest() == hashlib.md5(data_file.read_bytes()).digest()
    procaio.munmap(data)


# -- nothing, and being busy -----------------------------------------------------------------------


def test_nop_waits_for_its_turn(gate: Gate) -> None:
    """It does nothing, but a worker has to do it: so it measures the queue."""
    one_worker(gate)
    seen: list[str] = []
    request = procaio.aio_nop(lambda: seen.append("nop"))
    procaio.poll_cb()
    assert (request.state, seen) == ("ready", [])
    gate.open()
    procaio.flush()
    assert seen == ["nop"]


def test_busy_keeps_a_worker_for_a_time() -> None:
    seen: list[float] = []
    start = time.monotonic()
    procaio.aio_busy(0.05, lambda: seen.append(time.monotonic() - start))
    procaio.flush()
    assert seen[0] >= 0.05


# -- event loops -----------------------------------------------------------------------------------


def by_select(fd: int, callback: Callable[[], object], going_on: Callable[[], bool]) -> None:
    while going_on():
        assert select.select([fd], [], [], 20)[0]
        callback()


def by_poll(fd: int, callback: Callable[[], object], going_on: Callable[[], bool]) -> None:
    watched = select.poll()
    watched.register(fd, select.POLLIN)
    while going_on():
        assert watched.poll(20000)
        callback()


def by_selectors(fd: int, callback: Callable[[], object], going_on: Callable[[], bool]) -> None:
    loop = Loop()
    loop.watch(fd, lambda: callback() or going_on() or loop.stop())
    loop.run()


def by_asyncio(fd: int, callback: Callable[[], object], going_on: Callable[[], bool]) -> None:
    loop = asyncio.new_event_loop()
    loop.add_reader(fd, lambda: callback() or going_on() or loop.stop())
    loop.run_forever()
    loop.close()


@pytest.mark.parametrize("run", [by_select, by_poll, by_selectors, by_asyncio])
def test_example_watcher_in_a_loop(run: Callable[..., None], tmp_path: Path) -> None:
    """One descriptor to watch, one function to call: any loop will do."""
    seen: list[int] = []
    for number in range(100):
        (tmp_path / f"{number}").write_bytes(bytes(number))
        procaio.aio_stat(tmp_path / f"{number}", lambda st: seen.append(st.st_size))
    run(procaio.poll_fileno(), procaio.poll_cb, lambda: len(seen) < 100)
    assert sorted(seen) == list(range(100))


def test_example_watcher_that_leaves_time_to_others() -> None:
    """With max_poll_time the rest waits, the descriptor stays ready, and other watchers come in."""
    loop = Loop()
    turns: list[str] = []
    reading, writing = os.pipe()
    loop.watch(reading, lambda: turns.append("other"))
    loop.watch(procaio.poll_fileno(), lambda: procaio.poll_cb() if procaio.nreqs() else loop.stop())
    os.write(writing, b"x")  # the other one has always something to do
    assert procaio.max_poll_time(1e-9) == 0  # whatever a callback does, it takes longer

    def slow() -> None:
        turns.append("slow")
        if procaio.nreqs() == 0:
            loop.stop()

    requests = [procaio.aio_nop(slow) for _ in range(40)]
    eventually(lambda: procaio.npending() == len(requests), "all are executed")
    loop.run()
    os.close(reading)
    os.close(writing)
    assert turns.count("slow") == 40
    assert turns.count("other") >= 39


def test_example_wait_until_nothing_is_outstanding(data_file: Path) -> None:
    """poll_wait and poll_cb while nreqs; flush is the same."""
    seen: list[int] = []
    for _ in range(50):
        procaio.aio_stat(data_file, lambda st: seen.append(st.st_size))
    while procaio.nreqs():
        procaio.poll_wait()
        procaio.poll_cb()
    assert seen == [65536] * 50
    procaio.aio_stat(data_file, lambda st: seen.append(st.st_size))
    procaio.flush()
    assert (len(seen), procaio.nreqs(), procaio.npending()) == (51, 0, 0)


def test_poll_tells_how_many_it_has_processed() -> None:
    """Never more than max_poll_reqs; poll_cb tells that something is left."""
    assert procaio.max_poll_reqs(3) == 0
    requests = [procaio.aio_nop() for _ in range(7)]
    eventually(lambda: procaio.npending() == len(requests), "all are executed")
    assert [procaio.poll(), procaio.poll_cb(), procaio.poll()] == [3, -1, 1]


# -- workers ---------------------------------------------------------------------------------------


def test_without_workers_requests_are_queued(data_file: Path) -> None:
    """max_parallel(0) keeps them until there may be some again."""
    procaio.max_parallel(0)
    request = procaio.aio_stat(data_file)
    assert (procaio.nready(), procaio.nreqs(), procaio.poll_cb()) == (1, 1, 0)
    procaio.min_parallel(1)
    procaio.flush()
    assert request.result == data_file.stat()


def test_outstanding_requests_are_completed_at_the_end_of_the_program(data_file: Path) -> None:
    program = f"import procaio; procaio.aio_unlink({str(data_file)!r}, print)"
    assert (run_python(program), data_file.exists()) == ("0\n", False)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_fork_parent_goes_on_and_child_begins_anew(gate: Gate, data_file: Path) -> None:
    """The parent's request ends in the parent; the child has a pool of its own, when it wants."""
    seen: list[bytes] = []
    (request,) = gate.hold(procaio.default_pool())
    request.cb(seen.append)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        right = procaio.nreqs() == 0 and procaio.aio_stat(data_file).wait() == os.stat(data_file)
        os._exit(0 if right and not seen else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gate.open()
    procaio.flush()
    assert seen == [b"x"]
