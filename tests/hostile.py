"""
The shared memory of a pool, for tests that write garbage into it as a worker could that has gone
wild.

Where everything lies there is taken from shm/abi.h; `Memory` makes sure that it fits.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import procaio

ABI = (Path(__file__).resolve().parent.parent / "shm" / "abi.h").read_text()
WORD = 1 << 32


def _number(name: str) -> int:
    found = re.search(rf"#define {name} \(?(\w+)u?\b", ABI)
    assert found, name
    return int(found[1].rstrip("u"), 0)


SLOTS, LANES, WORKERS, SEGMENTS = map(
    _number, ("PA_NSLOTS", "PA_NLANES", "PA_MAX_WORKERS", "PA_MAX_SEGMENTS")
)
MAGIC = _number("PA_MAGIC")
_PLACES = {
    (kind, field): int(at) for kind, field, at in re.findall(r"PA_AT\((\w+), (\w+), (\d+)\);", ABI)
}
HEADER = {field: at for (kind, field), at in _PLACES.items() if kind == "pa_header"}
RECORD = {field: at for (kind, field), at in _PLACES.items() if kind == "pa_worker"}
SLOT = {field: at for (kind, field), at in _PLACES.items() if kind == "pa_slot"}
SLOT_SIZE, RECORD_SIZE = 256, 192
SETUP = {
    "program_pid": 4,
    "segment_fd": 8,
    "event_fd": 12,
    "epoll_fd": 16,
    "permit_count": 20,
}

AT_RECORDS = -(-(HEADER["data_segments"] + SEGMENTS * 32) // 64) * 64
AT_SLOTS = AT_RECORDS + WORKERS * RECORD_SIZE
AT_LANES = AT_SLOTS + SLOTS * SLOT_SIZE
AT_RESULTS = -(-(AT_LANES + LANES * SLOTS * 4) // 4096) * 4096
SIZE = AT_RESULTS + WORKERS * SLOTS * 4

FREE, READY, EXECUTING, DONE, ABORTED = range(5)


def word(phase: int, owner: int, generation: int) -> int:
    """What pa_state_word() makes of these."""
    return (generation << 12 | owner << 3 | phase) % WORD


class Memory:
    """What workers of the pool can write to."""

    def __init__(self, pool: procaio.Pool) -> None:
        """Map it all: the pool has been used already."""
        self.data: list[mmap.mmap] = []
        self.segment: mmap.mmap | None = None
        own = pool.poll_fileno()
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            try:
                what, size = os.readlink(f"/proc/self/fd/{name}"), os.fstat(fd).st_size
            except OSError:
                continue
            if not what.startswith(("/dev/shm/", "/memfd:procaio")) or size == 0:
                continue
            mapped = mmap.mmap(fd, size)
            if size == SIZE and self._is_of(mapped, own):
                self.segment = mapped
            elif size == SIZE:
                mapped.close()
            else:
                self.data.append(mapped)
        assert self.segment is not None, "the layout has changed"

    @staticmethod
    def _is_of(mapped: mmap.mmap, epoll_fd: int) -> bool:
        magic, there = (
            int.from_bytes(mapped[at : at + 4], "little") for at in (0, SETUP["epoll_fd"])
        )
        return magic == MAGIC and there == epoll_fd

    def close(self) -> None:
        """Unmap it."""
        for mapped in [*self.data, *([self.segment] if self.segment else [])]:
            mapped.close()

    def get(self, at: int) -> int:
        """The word that lies there."""
        assert self.segment is not None
        return int(struct.unpack_from("<I", self.segment, at)[0])

    def put(self, at: int, value: int) -> None:
        """Write a word."""
        assert self.segment is not None
        struct.pack_into("<I", self.segment, at, value % WORD)

    def put64(self, at: int, value: int) -> None:
        """Write a long one."""
        assert self.segment is not None
        struct.pack_into("<Q", self.segment, at, value % (1 << 64))

    @staticmethod
    def slot(index: int, field: str = "state") -> int:
        """Where that field of a slot is."""
        return AT_SLOTS + index * SLOT_SIZE + SLOT[field]

    @staticmethod
    def record(worker: int, field: str) -> int:
        """Where that field of a worker's record is."""
        return AT_RECORDS + worker * RECORD_SIZE + RECORD[field]

    @staticmethod
    def result(worker: int, place: int) -> int:
        """Where that entry of a worker's result ring is."""
        return AT_RESULTS + (worker * SLOTS + place % SLOTS) * 4

    def phase(self, index: int) -> int:
        """Of a slot."""
        return self.get(self.slot(index)) & 7

    def slots(self, *phases: int) -> Iterator[int]:
        """The slots that are in one of the phases."""
        return (index for index in range(SLOTS) if self.phase(index) in phases)
