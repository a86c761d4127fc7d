"""
The children: C without an interpreter (loop.c, spawner.c, ops.c, child.c).

What Python has to do for them before they are born is here.
"""

from __future__ import annotations

import os

import setproctitle

__all__ = ["title_area", "usable_cores"]


def title_area() -> tuple[int, int]:
    """Address and size of the memory that the system shows as a process's command line.

    setproctitle moves the environment out of that memory first, so a child may write its own title
    over the whole of its copy. (0, 0) where /proc does not tell.
    """
    name = setproctitle.getthreadtitle()
    setproctitle.getproctitle()
    setproctitle.setthreadtitle(name)  # which getproctitle() changes, in the program itself
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0, 0
    # Fields 48 to 51 of proc(5): arg_start, arg_end, env_start, env_end; `fields` begins with 3.
    arg_start, arg_end, env_start, env_end = map(int, fields[45:49])
    end = env_end if env_start == arg_end else arg_end
    if arg_start == 0 or end <= arg_start:
        return 0, 0
    return arg_start, end - arg_start


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))
