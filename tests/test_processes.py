"""The processes of a pool: their names, what reaches them, what they keep, and how they end."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually, is_running, kill, not_sanitized

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 1 << 20


def processes(pool: procaio.Pool) -> list[int]:
    """The pids of a pool's children, the spawner's first."""
    statistics = pool.statistics()
    return [statistics.spawner_pid, *(worker.pid for worker in statistics.workers)]


def busy_workers(pool: procaio.Pool, count: int) -> list[procaio.Request[None]]:
    """Let there be `count` workers, each of which has something to do for a while."""
    requests = [procaio.aio_busy(0.2, pool=pool) for _ in range(count)]
    eventually(lambda: len(pool.statistics().workers) == count, f"{count} workers live")
    return requests


# -- names -----------------------------------------------------------------------------------------


def test_process_titles_say_who_is_who(workers: procaio.Pool) -> None:
    """`ps` shows the role of every child, its number and whose it is."""
    requests = busy_workers(workers, 4)
    statistics = workers.statistics()
    expected = {statistics.spawner_pid: f"procaio: spawner of {os.getpid()}"}
    for worker in statistics.workers:
        expected[worker.pid] = f"procaio: worker {worker.number} of {os.getpid()}"
    for pid, title in expected.items():

        def shown(pid: int = pid) -> str:
            with open(f"/proc/{pid}/cmdline") as file:
                return file.read().rstrip("\0")

        eventually(lambda title=title, shown=shown: shown() == title, title)
    assert len(expected) == 5
    assert [request.wait() for request in requests] == [None] * 4


def test_process_names_are_short_forms_of_the_titles(workers: procaio.Pool) -> None:
    """`top` shows fifteen characters: they tell the roles apart."""
    procaio.aio_nop(pool=workers).wait()
    names = []
    for pid in processes(workers):
        with open(f"/proc/{pid}/comm") as file:
            names.append(file.read().strip())
    assert names == ["procaio-spawner", "procaio-w0"]


def test_program_whose_name_and_arguments_are_no_text_keeps_them() -> None:
    """A pool works in it, and `ps` shows it as before."""
    program = """
import procaio
with open("/proc/thread-self/comm", "wb", buffering=0) as file:
    file.write(b"name\\xff")
def shown():
    with open("/proc/self/cmdline", "rb") as file, open("/proc/thread-self/comm", "rb") as name:
        return file.read(), name.read()
before = shown()
assert before[0].endswith(b"half \\xc3\\0") and before[1] == b"name\\xff\\n", before
procaio.aio_nop().wait()
assert shown() == before, (shown(), before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, b"half \xc3"], capture_output=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


# -- signals and waiting ---------------------------------------------------------------------------


@pytest.fixture
def child_signals() -> Iterator[list[int]]:
    """The SIGCHLDs that the program's own handler saw."""
    seen: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGCHLD, before)


def test_workers_are_invisible_to_the_programs_own_waiting(
    workers: procaio.Pool, child_signals: list[int]
) -> None:
    """No SIGCHLD and nothing for waitpid(-1): not while they live, and not when one was killed."""
    procaio.aio_nop(pool=workers).wait()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    kill(processes(workers)[1])
    kill(processes(workers)[0])
    eventually(lambda: not any(map(is_running, processes(workers)[:1])), "the spawner is dead")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    procaio.aio_nop(pool=workers).wait()
    eventually(
        lambda: workers.poll_cb() == 0 and workers.statistics().worker_deaths == 1, "the burial"
    )
    workers.close()
    assert child_signals == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCONT]
)
def test_signal_for_the_program_does_not_end_workers(
    workers: procaio.Pool, gate: Any, number: int
) -> None:
    """Ctrl-C at the terminal reaches the program, which decides; its workers go on."""
    held = gate.hold(workers, 2)
    before = processes(workers)
    for pid in before:
        os.kill(pid, number)
    gate.open(2)
    assert [request.wait() for request in held] == [b"x", b"x"]
    assert processes(workers) == before
    assert workers.statistics().worker_deaths == 0


# -- the end of the program ------------------------------------------------------------------------

START = """
    import os, signal, sys, threading, time
    import procaio

    def pids():
        statistics = procaio.statistics()
        return [statistics.spawner_pid, *(worker.pid for worker in statistics.workers)]

    def tell(*numbers):
        print(*numbers, flush=True)
"""

SITUATIONS = {
    "idle": "procaio.aio_nop().wait(); tell(*pids()); time.sleep(60)",
    "busy": """
        for _ in range(8): procaio.aio_busy(60)
        while procaio.nworkers() < 8: time.sleep(0.001)
        tell(*pids()); time.sleep(60)""",
    "the spawner killed first": """
        for _ in range(3): procaio.aio_busy(60)
        while procaio.nworkers() < 3: time.sleep(0.001)
        os.kill(pids()[0], signal.SIGKILL)
        tell(*pids()); time.sleep(60)""",
    "blocked in a FIFO": """
        os.mkfifo("fifo"); fd = os.open("fifo", os.O_RDWR)
        held = [procaio.aio_read(fd, None, 1) for _ in range(3)]
        held.append(procaio.aio_open("fifo2" if os.mkfifo("fifo2") else "fifo2"))
        while not all(request.state == "execute" for request in held): time.sleep(0.001)
        tell(*pids()); time.sleep(60)""",
    "started by a thread that has ended": """
        def start(): procaio.aio_nop().wait()
        thread = threading.Thread(target=start); thread.start(); thread.join()
        tell(*pids()); time.sleep(60)""",
    "started by a thread that lives": """
        def start():
            procaio.aio_nop().wait()
            tell(*pids()); time.sleep(60)
        threading.Thread(target=start).start(); time.sleep(60)""",
}


def program(text: str, **keywords: Any) -> subprocess.Popen[str]:
    source = textwrap.dedent(START) + textwrap.dedent(text)
    return subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, **keywords
    )


@pytest.mark.parametrize("situation", SITUATIONS)
def test_program_killed_takes_every_process_with_it(tmp_path: Path, situation: str) -> None:
    """After kill -9 nothing stays, whatever the workers were doing."""
    with program(SITUATIONS[situation], cwd=tmp_path) as victim:
        assert victim.stdout
        pids = [int(word) for word in victim.stdout.readline().split()]
        victim.kill()
    assert len(pids) >= 2
    eventually(lambda: not any(map(is_running, pids)), f"{situation}: all are gone", 5)


def group(leader: int) -> list[int]:
    """The processes of a process group that are no zombies."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
            if int(fields[2]) == leader and fields[0] not in {b"Z", b"X"}:
                found.append(int(name))
    return found


@pytest.mark.parametrize("born", range(5))
def test_program_killed_at_any_moment_of_the_start_leaves_nobody(born: int) -> None:
    """A child that was only just cloned, and one that is about to be, find out as well."""
    text = "tell(1); [procaio.aio_busy(60) for _ in range(8)]; time.sleep(60)"
    for _ in range(4):
        with program(text, start_new_session=True) as victim:
            assert victim.stdout
            victim.stdout.readline()
            leader = victim.pid
            eventually(lambda leader=leader: len(group(leader)) > born, "the start goes on")
            victim.kill()
        eventually(lambda leader=leader: group(leader) == [], "all are gone", 5)


def test_thread_that_started_the_pool_ends_and_workers_live_on(
    workers: procaio.Pool, gate: Any
) -> None:
    """The children belong to the program, not to the thread that happened to be first."""
    held: list[procaio.Request[Any]] = []
    thread = threading.Thread(target=lambda: held.extend(gate.hold(workers, 2)))
    thread.start()
    thread.join()
    before = processes(workers)
    gate.open(2)
    assert [request.wait() for request in held] == [b"x", b"x"]
    assert processes(workers) == before
    assert workers.statistics().spawner_deaths == workers.statistics().worker_deaths == 0


# -- what workers share with the program -----------------------------------------------------------


def test_working_directory_and_umask_changed_later_act_in_workers(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """Relative paths and new files mean what they mean to the program at that time."""
    procaio.aio_nop(pool=workers).wait()
    before, mask = os.getcwd(), os.umask(0o022)
    try:
        os.chdir(tmp_path)
        os.umask(0o077)
        procaio.aio_mkdir("made", pool=workers).wait()
        assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
        os.chdir("made")
        os.umask(0o002)
        procaio.aio_mkdir("inner", pool=workers).wait()
        assert (tmp_path / "made" / "inner").stat().st_mode & 0o777 == 0o775
    finally:
        os.chdir(before)
        os.umask(mask)


def test_descriptor_opened_later_is_usable_in_workers(
    workers: procaio.Pool, data_file: Path
) -> None:
    """The descriptor table is one: what the program opens a worker can read."""
    procaio.aio_nop(pool=workers).wait()
    with open(data_file, "rb") as file:
        assert procaio.aio_read(file, 16, 16, pool=workers).wait() == (1).to_bytes(16, "big")


# -- memory ----------------------------------------------------------------------------------------


def rollup(pid: int, field: str) -> int:
    """One field of smaps_rollup, in bytes."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise KeyError(field)


@not_sanitized
@pytest.mark.parametrize("later", ["a worker", "the spawner and a worker"])
def test_heap_rewritten_after_the_start_is_not_kept_by_the_children(
    workers: procaio.Pool, later: str
) -> None:
    """A child has given the program's memory back: it holds less than 1 MiB of its own."""
    heap = bytearray(256 * BLOCK)
    for at in range(0, len(heap), 4096):
        heap[at] = 1
    requests = busy_workers(workers, 3)
    for pid in processes(workers)[:1] if "spawner" in later else processes(workers)[1:2]:
        kill(pid)
    requests += busy_workers(workers, 3)
    for request in requests:
        request.wait()
    for at in range(0, len(heap), 4096):
        heap[at] = 2
    pids = processes(workers)
    assert len(pids) >= 2
    for pid in pids:
        assert rollup(pid, "Private_Dirty") < BLOCK
        assert rollup(pid, "Anonymous") < 16 * BLOCK  # with what several of them share
    del heap


@not_sanitized
def test_shared_memory_that_the_program_unmaps_is_not_kept_alive(workers: procaio.Pool) -> None:
    """Mappings that the program shares with others end when the program ends them."""
    fd = os.memfd_create("theirs")
    try:
        os.ftruncate(fd, 16 * BLOCK)
        with mmap.mmap(fd, 16 * BLOCK) as mapping:
            mapping[:] = bytes(len(mapping))
            procaio.aio_nop(pool=workers).wait()
            for pid in processes(workers):
                with open(f"/proc/{pid}/maps") as file:
                    assert "memfd:theirs" not in file.read()
    finally:
        os.close(fd)
    with mmap.mmap(-1, 16 * BLOCK) as anonymous, procaio.Pool() as pool:
        anonymous[:] = bytes(len(anonymous))
        procaio.aio_nop(pool=pool).wait()
        for pid in processes(pool):
            assert rollup(pid, "Rss") < 16 * BLOCK


# -- limits ----------------------------------------------------------------------------------------


def test_file_size_limit_is_an_error_and_no_dead_worker(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """A write beyond RLIMIT_FSIZE is EFBIG."""
    limit = 256 * BLOCK
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with open(tmp_path / "large", "wb") as file:
            request = procaio.aio_write(file, limit, None, b"x", pool=workers)
            with pytest.raises(OSError, match="large") as caught:
                request.wait()
            assert caught.value.errno == errno.EFBIG
            assert procaio.aio_write(file, limit - 1, None, b"xy", pool=workers).wait() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert workers.statistics().worker_deaths == 0


def test_pipe_without_reader_is_an_error_and_no_dead_worker(workers: procaio.Pool) -> None:
    """A write that nobody will read is EPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(BrokenPipeError):
            procaio.aio_write(writer, None, None, b"x", pool=workers).wait()
    finally:
        os.close(writer)
    assert workers.statistics().worker_deaths == 0


# -- closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["unused", "started", "used", "many"])
def test_pool_closed_leaves_nothing(moment: str) -> None:
    """Whenever a pool is closed, its processes, descriptors and shared memory go."""
    for _ in range(10):  # the fixture of every test looks at what is left
        pool = procaio.Pool()
        if moment == "started":
            procaio.aio_nop(pool=pool)
            pool._kill(errno.ECANCELED)
        elif moment == "used":
            procaio.aio_nop(pool=pool).wait()
        elif moment == "many":
            for _ in range(100):
                procaio.aio_nop(pool=pool)
        pids = processes(pool) if moment in {"used", "many"} else []
        pool.close() if moment != "started" else (pool._flush(), pool._release())
        assert not any(map(is_running, pids))


def test_pool_closed_while_the_spawner_is_dead_leaves_nothing(gate: Any) -> None:
    """A spawner that nobody has buried yet is no obstacle."""
    for _ in range(5):
        pool = procaio.Pool()
        held = gate.hold(pool)
        pids = processes(pool)
        kill(pids[0])
        gate.open()
        pool.close()
        assert held[0].result == b"x"
        assert not any(map(is_running, pids))
