"""
The children: C without an interpreter (loop.c, spawner.c, ops.c, child.c).

What Python has to do for them before they are born is here.
"""

from __future__ import annotations

import contextlib
import os

import setproctitle

__all__ = ["title_area", "usable_cores"]

THREAD_NAME, COMMAND_LINE = "/proc/thread-self/comm", "/proc/self/cmdline"


def title_area() -> tuple[int, int]:
    """Address and size of the memory that the system shows as a process's command line.

    setproctitle moves the environment out of that memory, so that a child may write its own title
    over the whole of its copy. (0, 0) where /proc does not tell.
    """
    try:
        arg_start, arg_end, env_start, env_end = _areas()
        _prepare(arg_start)
    except OSError:
        return 0, 0
    end = env_end if env_start == arg_end else arg_end
    return (arg_start, end - arg_start) if 0 < arg_start < end else (0, 0)


def _areas() -> tuple[int, ...]:
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    # Fields 48 to 51 of proc(5): arg_start, arg_end, env_start, env_end; `fields` begins with 3.
    return tuple(map(int, fields[45:49]))


def _prepare(arg_start: int) -> None:
    """Let setproctitle do its part, but leave the program's own name and arguments as they are."""
    name, shown = _contents(THREAD_NAME), _contents(COMMAND_LINE)
    with contextlib.suppress(UnicodeDecodeError):  # arguments are any bytes; it has done its part
        setproctitle.getproctitle()
    with contextlib.suppress(OSError), open(THREAD_NAME, "wb", buffering=0) as file:
        file.write(name.removesuffix(b"\n"))
    if _contents(COMMAND_LINE) != shown:
        # It has joined the arguments with blanks, which tools that list processes would see.
        with contextlib.suppress(OSError), open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(arg_start)
            memory.write(shown)


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))
