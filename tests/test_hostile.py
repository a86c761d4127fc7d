"""Garbage in shared memory: it fails requests and costs workers, but nothing of the program's."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import Gate, eventually, kill
from hostile import (
    DONE,
    EXECUTING,
    HEADER,
    READY,
    SETUP,
    SLOTS,
    WORD,
    WORKERS,
    Memory,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
REFUSED = 1 << 13


@pytest.fixture
def memory(workers: procaio.Pool) -> Iterator[Memory]:
    """The shared memory of the pool `workers`, which has one worker, asleep."""
    procaio.aio_nop(pool=workers).wait()
    procaio.Buffer(1, pool=workers).release()  # so that there are blocks
    made = Memory(workers)
    yield made
    made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[int]:
    """A descriptor that is the program's."""
    fd = os.open(tmp_path / "own", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)  # which fails if somebody else has


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is the program's: it ends well when it is told to."""
    made = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    yield made
    made.communicate()
    assert made.returncode == 0


def pids(pool: procaio.Pool) -> set[int]:
    return {worker.pid for worker in pool.statistics().workers}


def the_slot(memory: Memory, phase: int) -> int:
    """The only one that is, or comes to be, in that phase. The program does not poll meanwhile."""
    eventually(lambda: [*memory.slots(phase)] != [], "a slot comes that far")
    (index,) = memory.slots(phase)
    return index


def generation(memory: Memory, index: int) -> int:
    return memory.get(memory.slot(index)) >> 12


def is_garbage(request: procaio.Request) -> bool:
    with pytest.raises(procaio.WorkerDied, match="cannot be") as raised:
        request.wait(timeout=30)
    return raised.value.errno == errno.EIO


def works(pool: procaio.Pool) -> bool:
    made = [procaio.aio_nop(pool=pool) for _ in range(50)]
    return all(request.wait(timeout=60) is None for request in made)


# -- rings -----------------------------------------------------------------------------------------


def full_of_one(memory: Memory, tail: int) -> int:
    entry = memory.get(memory.result(0, tail - 1))
    for place in range(SLOTS):
        memory.put(memory.result(0, place), entry)
    return tail + SLOTS


def no_slot(memory: Memory, tail: int) -> int:
    memory.put(memory.result(0, tail), WORD - 1)
    return tail + 1


RINGS: dict[str, Callable[[Memory, int], int]] = {
    "the same again": lambda _, tail: tail + SLOTS - 1,
    "full of one entry": full_of_one,
    "no slot": no_slot,
    "more than fits": lambda _, tail: tail + SLOTS + 1,
    "as much as there is": lambda _, tail: tail + WORD // 2,
    "backwards": lambda _, tail: tail - 1,
}


@pytest.mark.parametrize("kind", RINGS)
def test_worker_whose_results_cannot_be_is_replaced(
    workers: procaio.Pool, memory: Memory, kind: str
) -> None:
    (pid,) = pids(workers)
    at = memory.record(0, "result_tail")
    memory.put(at, RINGS[kind](memory, memory.get(at)))
    workers.poll_cb()
    eventually(lambda: workers.poll_cb() == 0 and pid not in pids(workers), "it is gone")
    assert works(workers)
    assert workers.statistics().worker_deaths == 1
    assert pid not in pids(workers)


def test_worker_that_tells_of_anothers_result_is_replaced_and_the_other_is_not(
    workers: procaio.Pool, memory: Memory, gate: Gate
) -> None:
    (held,) = gate.hold(workers)
    (liar,) = workers.statistics().workers
    request = procaio.aio_nop(pool=workers)
    index = the_slot(memory, DONE)
    honest = pids(workers) - {liar.pid}
    at = memory.record(liar.number, "result_tail")
    entry = generation(memory, index) << 12 | index
    memory.put(memory.result(liar.number, memory.get(at)), entry)
    memory.put(at, memory.get(at) + 1)
    assert request.wait(timeout=30) is None
    with pytest.raises(procaio.WorkerDied):
        held.wait(timeout=30)
    assert works(workers)
    assert honest <= pids(workers)
    assert liar.pid not in pids(workers)


def test_ring_of_a_number_without_a_worker_is_not_read(
    workers: procaio.Pool, memory: Memory
) -> None:
    before = pids(workers)
    memory.put(memory.record(200, "result_tail"), 7)
    assert works(workers)
    assert before <= pids(workers)


def test_numbers_without_a_worker_are_used_though_they_say_that_they_have_one(
    workers: procaio.Pool, memory: Memory, own: int
) -> None:
    """Whoever has written that there may be dead by now, and nobody else would correct it."""
    (worker,) = pids(workers)
    for number in range(1, WORKERS):
        memory.put(memory.record(number, "pidfd"), own)
    kill(worker)
    assert works(workers)


# -- the words of slots ----------------------------------------------------------------------------

WORDS: dict[str, Callable[[int], int]] = {
    "zero": lambda _: 0,
    "ones": lambda _: WORD - 1,
    "no phase": lambda generation: word(7, 1, generation),
    "no such worker": lambda generation: word(EXECUTING, 511, generation),
    "a thread": lambda generation: word(EXECUTING, 257, generation),
    "nobody": lambda generation: word(EXECUTING, 0, generation),
    "another time": lambda generation: word(EXECUTING, 1, generation - 1),
    "done another time": lambda generation: word(DONE, 1, generation + 1),
    "free": lambda generation: word(0, 0, generation),
}


@pytest.mark.parametrize("kind", WORDS)
def test_request_whose_slot_says_what_cannot_be_fails_and_its_worker_is_replaced(
    workers: procaio.Pool, memory: Memory, gate: Gate, kind: str
) -> None:
    (held,) = gate.hold(workers)
    (pid,) = pids(workers)
    index = the_slot(memory, EXECUTING)
    memory.put(memory.slot(index), WORDS[kind](generation(memory, index)))
    assert held.abort()
    with pytest.raises(OSError, match="aborted") as raised:
        held.wait(timeout=30)
    assert raised.value.errno == errno.ECANCELED
    eventually(lambda: workers.poll_cb() == 0 and pid not in pids(workers), "it is gone")
    assert works(workers)


def test_that_is_found_out_when_any_worker_dies(
    workers: procaio.Pool, memory: Memory, gate: Gate
) -> None:
    first, second = gate.hold(workers, 2)
    one, other = memory.slots(EXECUTING)
    owner = memory.get(memory.slot(other)) >> 3 & 511
    memory.put(memory.slot(one), 0)
    victims = [worker.pid for worker in workers.statistics().workers if worker.number == owner - 1]
    kill(*victims)
    for request in (first, second):
        with pytest.raises(procaio.WorkerDied):
            request.wait(timeout=30)
    assert "cannot be" in str(first.error) or "cannot be" in str(second.error)
    assert works(workers)


def test_that_is_found_out_by_wait_without_any_deadline(
    workers: procaio.Pool, memory: Memory, gate: Gate
) -> None:
    (held,) = gate.hold(workers)
    memory.put(memory.slot(the_slot(memory, EXECUTING)), 0)
    assert is_garbage(held)


def test_that_is_found_out_though_a_timer_goes_off_again_and_again(
    workers: procaio.Pool, memory: Memory, gate: Gate, data_file: Path
) -> None:
    """What nobody wanted is to be closed, and until a worker has time for it that is asked for."""
    workers.max_parallel(1)
    opened = procaio.aio_open(data_file, os.O_RDONLY, pool=workers)
    the_slot(memory, DONE)
    opened.cancel()
    (held,) = gate.hold(workers)
    memory.put(memory.slot(the_slot(memory, EXECUTING)), 0)
    assert is_garbage(held)


def test_worker_that_has_another_request_is_left_alone(
    workers: procaio.Pool, memory: Memory, gate: Gate, tmp_path: Path
) -> None:
    another = Gate(tmp_path / "another")
    (whole,) = another.hold(workers)
    (busy,) = (worker.pid for worker in workers.statistics().workers if worker.state == "execute")
    (index,) = memory.slots(EXECUTING)
    (broken,) = gate.hold(workers)
    (garbled,) = set(memory.slots(EXECUTING)) - {index}
    memory.put(memory.slot(garbled), 0)
    assert broken.abort()
    with pytest.raises(OSError, match="aborted"):
        broken.wait(timeout=30)
    another.open()
    assert whole.wait(timeout=30) == b"x"
    assert busy in pids(workers)
    another.close()


def test_request_that_waits_ends_though_its_slot_is_overwritten(
    workers: procaio.Pool, memory: Memory
) -> None:
    workers.max_parallel(0)
    waits = procaio.aio_nop(pool=workers, timeout=0.01)
    memory.put(memory.slot(the_slot(memory, READY)), 0)
    with pytest.raises(
        (TimeoutError, procaio.WorkerDied)
    ):  # the idle worker leaves: what is first?
        waits.wait(timeout=30)
    workers.min_parallel(1)
    assert works(workers)


def test_pool_closes_though_slots_are_overwritten(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "another")
    with procaio.Pool(at_once=False) as pool:
        held = gate.hold(pool, 2)
        memory = Memory(pool)
        for index in list(memory.slots(EXECUTING)):
            memory.put(memory.slot(index), WORD - 1)
        memory.close()
    assert all(isinstance(request.error, procaio.WorkerDied) for request in held)
    gate.close()


# -- numbers of processes and descriptors ----------------------------------------------------------


@pytest.mark.parametrize("whose", ["a child", "another pool"])
def test_process_that_is_not_a_worker_is_not_ended(
    workers: procaio.Pool,
    memory: Memory,
    gate: Gate,
    child: subprocess.Popen[bytes],
    whose: str,
) -> None:
    with procaio.Pool(at_once=False) as other:
        procaio.aio_nop(pool=other).wait()
        theirs = {"a child": child.pid, "another pool": pids(other).pop()}[whose]
        its = Memory(other)
        pidfd = os.pidfd_open(child.pid)
        foreign = pidfd if whose == "a child" else its.get(its.record(0, "pidfd"))
        its.close()
        (held,) = gate.hold(workers)
        (real,) = pids(workers)
        memory.put(memory.record(0, "pidfd"), foreign)
        memory.put(memory.record(0, "pid"), theirs)
        assert pids(workers) == {real}
        held.abort()
        with pytest.raises(OSError, match="aborted"):
            held.wait(timeout=30)
        eventually(lambda: workers.poll_cb() == 0 and real not in pids(workers), "it is gone")
        workers.max_parallel(1)
        kill(workers.statistics().spawner_pid)
        assert works(workers)
        eventually(lambda: memory.get(HEADER["spinner"] + 4) == 1, "the spawner is not at work")
        for worker in range(256):
            memory.put(memory.record(worker, "pidfd"), foreign)
            memory.put(memory.record(worker, "pid"), theirs)
        workers.close()
        assert child.poll() is None
        os.close(pidfd)
        assert pids(other) == {theirs} or whose == "a child"
        assert works(other)
        assert other.statistics().worker_deaths == 0


@pytest.mark.parametrize("number", [0, 1, -1, 2**31 - 1])
def test_statistics_never_tell_a_pid_that_would_be_somebody_else(
    workers: procaio.Pool, memory: Memory, number: int
) -> None:
    before = pids(workers)
    for worker in range(256):
        memory.put(memory.record(worker, "pid"), number)
        memory.put(memory.record(worker, "life"), 2)
    eventually(lambda: pids(workers) == before, "the spawner has entered it into the set")


def test_nobody_rings_at_a_descriptor_that_is_not_the_bell(
    workers: procaio.Pool, memory: Memory, own: int
) -> None:
    memory.put(SETUP["event_fd"], own)
    assert works(workers)
    kill(*pids(workers))
    assert works(workers)
    assert os.fstat(own).st_size == 0


@pytest.mark.parametrize("number", ["its", "2**32 more", "none"])
def test_open_that_gives_a_foreign_descriptor_fails(
    workers: procaio.Pool, memory: Memory, own: int, data_file: Path, number: str
) -> None:
    request = procaio.aio_open(data_file, os.O_RDONLY, 0, pool=workers)
    index = the_slot(memory, DONE)
    value = {"its": own, "2**32 more": own + WORD, "none": 1 << 30}[number]
    memory.put64(memory.slot(index, "result"), value)
    assert is_garbage(request)
    assert os.fstat(own).st_size == 0


@pytest.mark.parametrize("what", ["readdir", "load", "scandir"])
@pytest.mark.parametrize("cancelled", [False, True])
def test_step_that_leaves_a_foreign_descriptor_open_fails(
    workers: procaio.Pool, memory: Memory, own: int, tmp_path: Path, what: str, *, cancelled: bool
) -> None:
    for number in range(600):
        (tmp_path / f"{number:03}-{'x' * 80}").touch()
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    request = {
        "readdir": lambda: procaio.aio_readdir(tmp_path, pool=workers),
        "load": lambda: procaio.aio_load(tmp_path / "large", pool=workers),
        "scandir": lambda: procaio.aio_scandir(tmp_path, pool=workers),
    }[what]()
    if what == "scandir":
        workers.poll_cb()  # it is a composite, which makes its first member now
    index = the_slot(memory, DONE)
    memory.put(memory.slot(index, "fd"), own)
    if what == "scandir":  # struct pa_tree_answer: behind struct pa_stat, and two numbers
        memory.put(memory.slot(index, "payload") + 104 + 16, own)
    if cancelled:
        request.cancel()
        workers._flush(30.0)
    else:
        with pytest.raises(procaio.WorkerDied):
            request.wait(timeout=30)
    assert os.fstat(own).st_size == 0
    assert works(workers)


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [4097, 1 << 62, -4096, -(1 << 63)])
def test_result_that_is_longer_than_what_was_asked_for_fails(
    workers: procaio.Pool, memory: Memory, fd: int, value: int
) -> None:
    request = procaio.aio_read(fd, 0, 4096, pool=workers)
    memory.put64(memory.slot(the_slot(memory, DONE), "result"), value)
    assert is_garbage(request)
    assert procaio.aio_read(fd, 0, 4096, pool=workers).wait() == os.pread(fd, 4096, 0)


RECORDS = {
    "beyond the block": (16, b"\xff\xff"),
    "no length": (16, b"\0\0"),
    "less than its head": (16, b"\x05\0"),
    "a way": (19, b"../needle"),
}


@pytest.mark.parametrize("kind", RECORDS)
@pytest.mark.parametrize("flags", [None, 2, 4])
def test_listing_with_a_record_that_cannot_be_fails(
    workers: procaio.Pool, memory: Memory, tmp_path: Path, kind: str, flags: int | None
) -> None:
    place = tmp_path / "listed"
    place.mkdir()
    (place / "needle-in-a-haystack").touch()
    if flags is None:
        request = procaio.aio_readdir(place, pool=workers)
    else:
        request = procaio.aio_readdirx(place, flags, pool=workers)
    the_slot(memory, DONE)
    at, garbage = RECORDS[kind]
    for mapped in memory.data:
        name = mapped.find(b"needle-in-a-haystack\0")
        if name >= 0:
            mapped[name - 19 + at : name - 19 + at + len(garbage)] = garbage
            break
    else:
        pytest.fail("no block has the record")
    assert is_garbage(request)


def test_request_that_is_done_is_not_done_again_because_a_slot_says_that_it_was_refused(
    workers: procaio.Pool, memory: Memory, tmp_path: Path
) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    request = procaio.aio_write(fd, None, 4, b"once", pool=workers)
    at = memory.slot(the_slot(memory, DONE), "op")  # call_flags is the other half of the word
    memory.put(at, memory.get(at) | REFUSED << 16)
    assert is_garbage(request)
    assert works(workers)
    os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"once"


# -- what all go by --------------------------------------------------------------------------------

EVERYWHERE = {
    "permit_count": (SETUP["permit_count"], [0, WORD - 1]),
    "program_pid": (SETUP["program_pid"], [1]),
    "worker_limit": (64 + 28, [0, WORD - 1]),
    "shutdown": (HEADER["shutdown"], [1]),
    "wanted": (HEADER["shutdown"] + 4, [0]),
    "start_not_before": (HEADER["shutdown"] + 20, [WORD - 1]),
    "heads": (HEADER["heads"] + 4 * 4, [WORD // 2, 5000, WORD - 1]),
    "tails": (HEADER["tails"] + 4 * 4, [WORD // 2, 5000, WORD - 1]),
    "spinner": (HEADER["spinner"], [1, 300]),
    "sleepers": (HEADER["spinner"] + 8, [0, WORD - 1]),
    "permits": (HEADER["permits"], [1, 200, WORD - 1]),
}


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(at, value, id=f"{name}-{value}")
        for name, (at, values) in EVERYWHERE.items()
        for value in values
    ],
)
def test_pool_goes_on_whatever_the_header_says(
    workers: procaio.Pool, memory: Memory, at: int, value: int
) -> None:
    workers.max_parallel(1)  # no other worker is going to write there
    memory.put(at, value)
    assert works(workers)


# -- at random -------------------------------------------------------------------------------------


def test_garbage_at_random_crashes_nothing_and_every_request_ends(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tests" / "fuzz.py", "--count", "60"],
        capture_output=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stdout[-100:] + made.stderr[-3000:]
