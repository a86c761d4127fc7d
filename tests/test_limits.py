"""What a great many requests cost, and that they do not hold up the one that matters (O6, B5)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually, not_sanitized
from programs import run_python

if TYPE_CHECKING:
    from conftest import Gate

MOST_BYTES = 400
COUNT = 200_000
LONG_NAME = "/tmp/" + "Straße-" * 12

# Each makes one request, of objects that all of them share.
KINDS = {
    "nop": "procaio.aio_nop(callback)",
    "without a callback": "procaio.aio_nop()",
    "stat": "procaio.aio_stat(path, callback)",
    "stat of a Path": "procaio.aio_stat(as_path, callback)",
    "rename of names that are not ASCII": "procaio.aio_rename(long_name, long_name, callback)",
    "open in a directory": "procaio.aio_open(path, 0, 0, callback, dir_fd=file)",
    "read": "procaio.aio_read(fd, 0, 4096, callback)",
    "read into a Buffer": "procaio.aio_read(fd, 0, 4096, buffer, 0, callback)",
    "read of a file into a bytearray": "procaio.aio_read(file, 0, 4096, array, 0, callback)",
    "sendfile between files": "procaio.aio_sendfile(file, file, 0, 4096, callback)",
    "load": "procaio.aio_load(path, callback)",
    "load into a bytearray": "procaio.aio_load(path, array, callback)",
    "group": "procaio.aio_group(callback)",
    "members of a group": "group.add(procaio.aio_nop(callback))",
    "msync": "procaio.aio_msync(memory, callback=callback)",
}

PROGRAM = """
    import mmap, os, pathlib, resource, sys
    import procaio

    def callback(*arguments): pass

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    path, long_name = "/etc/passwd", {long_name!r}
    as_path, array, buffer = pathlib.Path(path), bytearray(4096), procaio.Buffer(4096)
    memory = mmap.mmap(-1, 4096)
    file = open("/dev/null", "rb+", 0)
    fd, group = file.fileno(), procaio.aio_group()
    procaio.max_parallel(0)
    for _ in range(3000):  # more than there are slots
        procaio.aio_nop()
    before = resident()
    for _ in range({count}):
        {request}
    assert procaio.nreqs() == 3001 + {count}, procaio.nreqs()
    print(resident() - before)
    sys.stdout.flush()
    os._exit(0)
"""


@not_sanitized
@pytest.mark.parametrize("kind", KINDS)
def test_waiting_request_costs_at_most_400_bytes(kind: str) -> None:
    """Memory of the program, for whatever kind of request waits in it (O6)."""
    program = PROGRAM.format(request=KINDS[kind], count=COUNT, long_name=LONG_NAME)
    assert 0 < int(run_python(program)) / COUNT <= MOST_BYTES


def test_request_object_leaves_room_for_what_it_may_need(pool: procaio.Pool) -> None:
    """400 bytes with the collector's header: the export of a bytearray takes 80 of them (O6)."""
    request, group = procaio.aio_nop(pool=pool), procaio.aio_group(pool=pool)
    assert sys.getsizeof(request) <= MOST_BYTES - 80
    assert sys.getsizeof(group) <= MOST_BYTES
    pool.flush()


@pytest.mark.parametrize("count", [1000, 100_000])
def test_urgent_request_overtakes_all_that_are_not_executing(
    workers: procaio.Pool, gate: Gate, count: int
) -> None:
    """Made last, it is the next to run, whether the others wait in slots or in the program (B5)."""
    workers.max_parallel(2)
    held = gate.hold(workers, 2)
    low = [procaio.aio_nop(pool=workers, pri=-4) for _ in range(count)]
    urgent = procaio.aio_read(gate.fd, None, 1, pool=workers, pri=4)
    gate.open()
    eventually(lambda: urgent.state == "execute", "it is taken as soon as a worker is free")
    assert workers.nready() == count
    assert {request.state for request in low} == {"ready"}
    gate.open(2)
    assert urgent.wait() == b"x"
    workers.flush()
    assert {request.state for request in (*held, *low)} == {"done"}
