"""
Every operation, every point at which its worker can die, every signal that it can die of.

The product of all three is slow. Normally each operation meets each point, and the signal is chosen
by the lengths of the two names: so it meets each signal as well, and so does each point.
test_crashes.py does that for the operations in its table, and here are the others.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually, has_stopped, kill
from procaio import testing
from test_crashes import (
    DEADLY,
    NAMES,
    NOT_BEGUN,
    OPERATIONS,
    Operation,
    Tree,
    check_death,
    directories,
    one_of,
    shared_in_use,
    tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["directories", "tree"]  # fixtures

POINTS = [point for point in testing.FAULT_POINTS if point != "sleeping"]
USER = "user.procaio"


def has_attributes(path: Path) -> bool:
    """Whether files can have extended attributes here."""
    try:
        os.setxattr(path, USER, b"value")
    except OSError:
        return False
    os.removexattr(path, USER)
    return True


def marked(tree: Tree) -> Path:
    """A file with an extended attribute."""
    path = tree.path / "data"
    if not has_attributes(path):
        pytest.skip("no extended attributes here")
    os.setxattr(path, USER, b"value")
    return path


def copied_from(tree: Tree) -> int:
    return os.lseek(tree.reading, 0, os.SEEK_CUR)


OTHERS = {
    "replace": Operation(
        lambda t, p: procaio.aio_replace(t.path / "data", b"new", pool=p),
        False,
        times_done=lambda t: t.content("data") == b"new" and "large" in os.listdir(t.path),
    ),
    "slurp": Operation(
        lambda t, p: procaio.aio_slurp(t.path / "data", 100, 50, pool=p),
        True,
        lambda t, result: result == t.data[100:150],
    ),
    "realpath": Operation(
        lambda t, p: procaio.aio_realpath(t.path / "link", pool=p),
        True,
        lambda t, result: result == os.path.realpath(t.path / "data"),
    ),
    "statx": Operation(
        lambda t, p: procaio.aio_statx(t.path / "data", pool=p),
        True,
        lambda t, result: result.stx_size == len(t.data),
    ),
    "access": Operation(
        lambda t, p: procaio.aio_access(t.path / "data", os.R_OK, pool=p),
        True,
        lambda _, result: result is True,
    ),
    "readdirx": Operation(
        lambda t, p: procaio.aio_readdirx(t.few, procaio.READDIR_DENTS, pool=p),
        True,
        lambda _, result: sorted(name for name, _, _ in result[0]) == NAMES[:5],
    ),
    "scandir": Operation(
        lambda t, p: procaio.aio_scandir(t.few, pool=p),
        True,
        lambda _, result: (result[0], sorted(result[1])) == ([], NAMES[:5]),
    ),
    "seek": Operation(
        lambda t, p: procaio.aio_seek(t.reading, 7, os.SEEK_SET, pool=p),
        False,
        lambda _, result: result == 7,
        lambda t: copied_from(t) == 7,
    ),
    "allocate": Operation(
        lambda t, p: procaio.aio_allocate(t.writing, 0, 0, 5000, pool=p),
        False,
        times_done=lambda t: len(t.content("written")) == 5000,
    ),
    "fadvise": Operation(lambda t, p: procaio.aio_fadvise(t.reading, 0, 0, 0, pool=p), True),
    "copy_file_range": Operation(
        lambda t, p: procaio.aio_copy_file_range(t.reading, t.writing, 50, pool=p),
        False,
        lambda _, result: result == 50,
        lambda t: copied_from(t) // 50,
    ),
    "syncfs": Operation(lambda t, p: procaio.aio_syncfs(t.writing, pool=p), False),
    "rename2": Operation(
        lambda t, p: procaio.aio_rename2(t.path / "data", t.path / "moved", 1, pool=p),
        False,
        times_done=lambda t: (t.path / "moved").exists() and not (t.path / "data").exists(),
    ),
    "getxattr": Operation(
        lambda t, p: procaio.aio_getxattr(marked(t), USER, pool=p),
        True,
        lambda _, result: result == b"value",
    ),
    "listxattr": Operation(
        lambda t, p: procaio.aio_listxattr(marked(t), pool=p),
        True,
        lambda _, result: USER in result,
    ),
    "setxattr": Operation(
        lambda t, p: procaio.aio_setxattr(marked(t), USER, b"new", pool=p),
        False,
        times_done=lambda t: os.getxattr(t.path / "data", USER) == b"new",
    ),
    "removexattr": Operation(
        lambda t, p: procaio.aio_removexattr(marked(t), USER, pool=p),
        False,
        times_done=lambda t: USER not in os.listxattr(t.path / "data"),
    ),
}
ALL = OPERATIONS | OTHERS


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", OTHERS)
def test_other_operations_end_once_and_are_never_repeated_silently(
    tree: Tree, name: str, point: str
) -> None:
    """As those of test_crashes.py."""
    check_death(tree, OTHERS[name], point, one_of(DEADLY, name, point))


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ALL)
def test_operation_ends_once_whatever_its_worker_dies_of(
    tmp_path: Path, directories: Path, name: str, point: str
) -> None:
    for number in DEADLY:
        (tmp_path / f"{number}").mkdir()
        made = Tree(tmp_path / f"{number}", directories)
        try:
            check_death(made, ALL[name], point, number)
        finally:
            made.close()


def test_choice_of_signals_meets_every_pair() -> None:
    """So what is left out is only the third of three that are independent."""
    chosen = {(n, p, one_of(DEADLY, n, p)) for n, p in itertools.product(ALL, POINTS)}
    assert {(n, s) for n, _, s in chosen} == set(itertools.product(ALL, DEADLY))
    assert {(p, s) for _, p, s in chosen} == set(itertools.product(POINTS, DEADLY))


# -- what nobody wants any more --------------------------------------------------------------------

CHANGES = [name for name in ALL if ALL[name].times_done]


@pytest.fixture
def stopped(tree: Tree) -> Callable[[str, str], tuple[procaio.Pool, procaio.Request[Any], int]]:
    """A request whose worker has come to a point, and stopped there."""
    pools = []

    def at(name: str, point: str) -> tuple[procaio.Pool, procaio.Request[Any], int]:
        pool = procaio.Pool(1, at_once=False)
        pools.append(pool)
        procaio.aio_nop(pool=pool).wait()
        pid = pool.statistics().workers[0].pid
        testing.arm(pool, point, signal.SIGSTOP)
        request = ALL[name].submit(tree, pool)
        eventually(lambda: has_stopped(pid), "the worker stops")
        return pool, request, pid

    yield at
    for pool in pools:
        pool._close(0)


@pytest.mark.parametrize("name", CHANGES)
def test_request_is_cancelled_and_its_worker_dies_before_it_has_begun(
    tree: Tree, stopped: Any, name: str
) -> None:
    """Nobody does it afterwards, and the callback is not called."""
    calls: list[object] = []
    pool, request, pid = stopped(name, one_of(NOT_BEGUN, name))
    request.cb(lambda *result: calls.append(result))
    request.cancel()
    kill(pid)
    pool.flush()
    procaio.aio_nop(pool=pool).wait()  # whoever did it anyway would be done by now
    assert (request.state, calls) == ("cancelled", [])
    assert ALL[name].times_done(tree) == 0
    assert (pool.statistics().rerun, shared_in_use(pool)) == (0, 0)


@pytest.mark.parametrize("point", [*NOT_BEGUN, "called", "done"])
@pytest.mark.parametrize("name", ["write at the end", "unlink", "rename", "close", "mkdir", "move"])
def test_request_is_aborted_and_the_disk_says_the_same(
    tree: Tree, stopped: Any, name: str, point: str
) -> None:
    """Not begun: never done. Begun: perhaps, but once. Done: its result."""
    calls: list[object] = []
    pool, request, _ = stopped(name, point)
    request.cb(lambda *result: calls.append(result))
    assert request.abort() == (point != "done")
    if point == "done":
        pid = pool.statistics().workers[0].pid
        kill(pid, signal.SIGCONT)
    pool.flush()
    procaio.aio_nop(pool=pool).wait()
    assert len(calls) == 1
    assert request.errno == (0 if point == "done" else errno.ECANCELED)
    assert ALL[name].times_done(tree) == (point not in NOT_BEGUN)


@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_memory_operations_do_not_notice_that_workers_die(
    workers: procaio.Pool, point: str
) -> None:
    """Threads of the program do them."""
    memory = mmap.mmap(-1, 4 * mmap.PAGESIZE)
    testing.arm(workers, point, always=True)
    for request in (
        procaio.aio_mtouch(memory, pool=workers),
        procaio.aio_msync(memory, pool=workers),
    ):
        assert request.wait(timeout=30) == 0
    assert workers.statistics().worker_deaths == 0
