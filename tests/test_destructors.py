"""What __del__ may do when it runs at the end of a request, or while its result is made."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest

import procaio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Cycle:
    """Garbage that only the collector finds; it calls `last_act` then."""

    def __init__(self, last_act: Callable[[], object]) -> None:
        self.last_act = last_act
        self.itself = self

    def __del__(self) -> None:
        self.last_act()


class Data(bytearray):
    """The memory of a read, which the request is the last to hold."""

    last_act: Callable[[], object]

    def __del__(self) -> None:
        self.last_act()


class Feeder:
    """Feeds a group with three requests, then is exhausted, or raises."""

    def __init__(self, pool: procaio.Pool, end: str, last_act: Callable[[], object]) -> None:
        self.pool = pool
        self.end = end
        self.last_act = last_act
        self.left = 3

    def __call__(self, group: procaio.Group) -> None:
        """Feed one more, or end."""
        self.left -= 1
        if self.left >= 0:
            group.add(procaio.aio_nop(pool=self.pool))
        elif self.end == "raises":
            raise LookupError

    def __del__(self) -> None:
        self.last_act()


@contextlib.contextmanager
def garbage(last_act: Callable[[], object]) -> Iterator[None]:
    """There is garbage within, which the next container that is made has collected."""
    gc.collect()
    thresholds = gc.get_threshold()
    gc.set_threshold(0)
    for _ in range(10):
        Cycle(last_act)
    gc.set_threshold(1)
    yield
    gc.collect()
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize("act", ["flush", "poll_cb", "close"])
@pytest.mark.parametrize(
    "make",
    [
        procaio.aio_stat,
        procaio.aio_lstat,
        procaio.aio_statvfs,
        procaio.aio_readdir,
        lambda path, pool: procaio.aio_readdirx(path, procaio.READDIR_DIRS_FIRST, pool=pool),
        lambda path, pool: procaio.aio_statx(path, pool=pool),
        lambda path, pool: procaio.aio_listxattr(path, pool=pool),
    ],
    ids=[
        "stat",
        "lstat",
        "statvfs",
        "readdir",
        "readdirx",
        "statx",
        "listxattr",
    ],
)
def test_garbage_that_uses_the_pool_is_collected_at_any_time(
    pool: procaio.Pool, make: Callable[..., Any], act: str, tmp_path: Path
) -> None:
    """Nothing waits there for the very request whose result is being made."""
    pool.at_once(False)
    (tmp_path / "file").touch()
    ended: list[object] = []
    for _ in range(20):
        with garbage(getattr(pool, act)), contextlib.suppress(procaio.PoolClosed):
            make(tmp_path, pool=pool).cb(lambda *results: ended.append(results))
        with garbage(getattr(pool, act)):
            pool.flush()
    if act == "close":
        assert pool.closed
    else:
        assert len(ended) == 20


@pytest.mark.parametrize("act", ["flush", "poll_cb", "close"])
def test_memory_that_goes_with_a_read_may_wait_for_the_pool(
    pool: procaio.Pool, act: str, data_file: Path
) -> None:
    """By then the read does not count any more, and its callback comes."""
    read: list[int | None] = []
    gone: list[str] = []

    def last_act() -> None:
        getattr(pool, act)()
        gone.append(act)

    data = Data(10)
    data.last_act = last_act
    with data_file.open("rb") as file:
        procaio.aio_read(file, 0, 10, data, read.append, pool=pool)
        del data
        pool.flush()
    assert (gone, read, pool.closed) == ([act], [10], act == "close")


@pytest.mark.parametrize("act", ["flush", "poll_cb", "close"])
@pytest.mark.parametrize("end", ["exhausted", "raises", "cancel", "abort"])
def test_feeder_that_goes_with_its_group_may_wait_for_the_pool(
    pool: procaio.Pool, act: str, end: str
) -> None:
    """It is let go of when the group does not wait for it any more, however it ends."""
    gone: list[str] = []

    def last_act() -> None:
        getattr(pool, act)()
        gone.append(act)

    procaio.on_callback_error(lambda *_: None)
    group = procaio.aio_group(pool=pool)
    group.feed(Feeder(pool, end, last_act))
    if end in {"cancel", "abort"}:
        getattr(group, end)()
    pool.flush()
    state = "cancelled" if end == "cancel" else "done"
    assert (gone, group.state, pool.closed) == ([act], state, act == "close")
