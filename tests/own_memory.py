"""What the tests of the program's own memory share."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from mmap import MAP_ANONYMOUS, MAP_SHARED, PROT_READ, PROT_WRITE
from typing import Any

import procaio

PAGE = os.sysconf("SC_PAGESIZE")
RW = PROT_READ | PROT_WRITE
MS_ASYNC, MS_INVALIDATE, MS_SYNC = 1, 2, 4
MT_MODIFY = 1
THREADS = 4


def anonymous(length: int = 4 * PAGE, kind: int = MAP_SHARED) -> procaio.Mapping:
    """Fresh memory."""
    return procaio.mmap(length, RW, kind | MAP_ANONYMOUS)


def address_of(data: Any) -> int:
    """Where writable memory lies."""
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


def smaps(address: int, field: str) -> int:
    """What the system says of the mapping at an address, in KiB."""
    found = False
    with open("/proc/self/smaps", encoding="utf-8") as file:
        for line in file:
            if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                found = int(match[1], 16) <= address < int(match[2], 16)
            elif found and line.startswith(field + ":"):
                return int(line.split()[1])
    raise AssertionError(f"nothing is mapped at {address:#x}")


def error_of(request: procaio.Request[Any]) -> int:
    """The errno of a request that ends."""
    with contextlib.suppress(OSError):
        request.wait(timeout=30)
    assert request.error is None or request.error.errno == request.errno
    return request.errno
