"""What __del__ may do when it runs at the end of a request, or while its result is made."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import procaio.shm
import pytest

import procaio
from conftest import succeeds

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
@pytest.mark.parametrize("in_a_group", [False, True])
def test_memory_that_goes_with_a_read_may_wait_for_the_pool(
    pool: procaio.Pool, act: str, data_file: Path, *, in_a_group: bool
) -> None:
    """By then nothing counts on the read: its callback was called, and its group goes on."""
    seen: list[object] = []

    def last_act() -> None:
        getattr(pool, act)()
        seen.append(act)

    data = Data(10)
    data.last_act = last_act
    with data_file.open("rb") as file:
        read = procaio.aio_read(file, 0, 10, data, seen.append, pool=pool)
        del data
        if in_a_group:
            procaio.aio_group(lambda *_: seen.append("group"), pool=pool).add(read)
        pool.flush()
    left = ["group"] if in_a_group else []
    assert [item for item in seen if item != "group"] == [10, act]
    assert [item for item in seen if item == "group"] == left
    assert (read.state, pool.closed) == ("done", act == "close")


class Writer:
    """The writing end of a pipe, closed when nobody has it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        """As any file."""
        return self.number

    def __del__(self) -> None:
        os.close(self.number)


def test_file_that_only_its_request_holds_is_closed_when_the_callback_comes(
    pool: procaio.Pool,
) -> None:
    """Who reads a pipe sees its end by then."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    read: list[bytes] = []

    def look(_: object) -> None:
        read.extend((os.read(reading, 9), os.read(reading, 9)))

    procaio.aio_write(Writer(writing), None, 3, b"end", 0, look, pool=pool)
    pool.flush()
    os.close(reading)
    assert read == [b"end", b""]


def test_request_cannot_be_cancelled_by_what_goes_with_it(
    pool: procaio.Pool, data_file: Path
) -> None:
    """Its callback has been called: cancel() says that it came too late."""
    seen: list[object] = []
    data = Data(10)
    with data_file.open("rb") as file:
        read = procaio.aio_read(file, 0, 10, data, seen.append, pool=pool)
        data.last_act = lambda: seen.append((read.cancel(), read.state))
        del data
        pool.flush()
    assert seen == [10, (False, "done")]


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


@pytest.mark.parametrize(
    "let_go",
    [
        lambda group: group.feed(None),
        lambda group: group.feed(lambda _: None),
        lambda group: group.cancel_subs(),
        lambda group: group.cancel(),
        lambda group: group.abort(),
    ],
    ids=["feed(None)", "feed(another)", "cancel_subs", "cancel", "abort"],
)
def test_paused_feeder_that_is_let_go_of_may_wait_for_the_pool(
    pool: procaio.Pool, let_go: Callable[[procaio.Group], object]
) -> None:
    """Nothing else keeps its group from ending by then."""
    gone: list[str] = []

    def last_act() -> None:
        pool.flush()
        gone.append("gone")

    group = procaio.aio_group(pool=pool)
    group.feed(Feeder(pool, "exhausted", last_act))
    group.limit(0)
    while len(group):
        pool.poll()
    let_go(group)
    pool.flush()
    assert gone == ["gone"]
    assert group.state in {"done", "cancelled"}


@pytest.mark.parametrize("adds", [0, 1])
def test_feeder_that_is_replaced_while_it_feeds_may_wait_for_the_pool(
    pool: procaio.Pool, adds: int
) -> None:
    """The second one is never asked if the first has not added anything."""
    gone: list[str] = []

    def last_act() -> None:
        pool.flush()
        gone.append("gone")

    class First(Feeder):
        def __call__(self, group: procaio.Group) -> None:
            group.feed(Feeder(pool, "exhausted", last_act))
            for _ in range(adds):
                group.add(procaio.aio_nop(pool=pool))

    group = procaio.aio_group(pool=pool)
    group.feed(First(pool, "exhausted", last_act))
    pool.flush()
    assert (gone, group.state) == (["gone", "gone"], "done")


def test_interrupt_of_a_member_s_callback_is_raised_though_the_feeder_runs_then(
    pool: procaio.Pool,
) -> None:
    """The feeder knows nothing of it, and the group goes on."""
    left = 5

    def interrupted(_: object = None) -> None:
        raise KeyboardInterrupt

    def feed(group: procaio.Group) -> None:
        nonlocal left
        left -= 1
        if left > 0:
            group.add(procaio.aio_nop(interrupted, pool=pool))

    group = procaio.aio_group(pool=pool)
    group.limit(1)
    group.feed(feed)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            pool.flush()
    pool.flush()
    assert (left, group.state) == (0, "done")


# -- memory for a request, and for a Buffer -------------------------------------------------------


@pytest.fixture
def on_the_way(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What is called when shared memory for data is made the next time."""
    calls: list[Callable[[], object]] = []
    create = procaio.shm._create_named

    def create_named() -> int:
        while calls:
            calls.pop()()
        return create()

    monkeypatch.setattr(procaio.shm, "_create_named", create_named)
    return calls


def test_pool_may_be_closed_while_memory_for_a_buffer_is_made(
    pool: procaio.Pool, on_the_way: list[Callable[[], object]]
) -> None:
    """The Buffer is usable, as any that outlives its pool."""
    on_the_way.append(pool.close)
    with procaio.Buffer(5000, pool) as buffer:
        buffer[4999] = 7
        assert (pool.closed, on_the_way, bytes(buffer[4998:])) == (True, [], b"\0\7")


def test_default_pool_may_be_replaced_while_a_buffer_or_a_group_is_made() -> None:
    """By a destructor that closes it and goes on."""

    def replace() -> None:
        procaio.close()
        procaio.aio_nop().wait()

    procaio.Buffer(1).release()  # there is memory: all that follows needs no more
    with garbage(replace), procaio.Buffer(5000) as buffer:
        buffer[4999] = 7
        assert len(buffer) == 5000
    for _ in range(20):
        with garbage(replace), contextlib.suppress(procaio.PoolClosed):
            procaio.aio_group()
    procaio.flush()


@pytest.mark.parametrize("make", ["Buffer", "aio_readdir"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_child_that_is_forked_while_memory_is_made_leaves_the_parent_s_alone(
    workers: procaio.Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make: str, when: str
) -> None:
    """In a signal handler, as it were: the child goes on with the same lines, in vain."""
    parent, pids = os.getpid(), []
    create = procaio.shm._create_named

    def create_named() -> int:
        monkeypatch.undo()
        made = create() if when == "after" else -1
        pids.append(os.fork())
        return made if when == "after" else create()

    monkeypatch.setattr(procaio.shm, "_create_named", create_named)
    try:
        if make == "Buffer":
            made: Any = procaio.Buffer(5000, workers)
        else:
            made = procaio.aio_readdir(tmp_path, pool=workers)
    except OSError as error:
        made = error
    if os.getpid() != parent:
        signal.alarm(60)
        sound = made.errno == errno.EBADF if make == "Buffer" else made.state == "dead"
        os._exit(0 if sound and procaio.aio_nop(pool=workers).wait() is None else 1)
    assert succeeds(pids[0])
    if make == "Buffer":
        made[4999] = 7
        made.release()
    else:
        assert made.wait() == []
