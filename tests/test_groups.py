"""Groups: members, feeders, limits, cancelling, and what they yield (rules L3 to L5 and M)."""

from __future__ import annotations

import asyncio
import errno
import gc
import itertools
import os
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Gate


class Calls:
    """A callback that keeps what it was called with."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> None:
        """Keep them."""
        self.seen.append(arguments)


@pytest.fixture
def calls() -> Calls:
    return Calls()


# -- its end ---------------------------------------------------------------------------------------


def test_group_is_a_request_without_a_worker(pool: procaio.Pool) -> None:
    """It counts in nreqs, and starts no process (M6)."""
    group = procaio.aio_group(pool=pool)
    assert isinstance(group, procaio.Request)
    assert (group.state, pool.nreqs(), pool.npending(), pool.nready()) == ("pending", 1, 1, 0)
    assert pool.nworkers() == 0
    assert pool.statistics().spawner_pid == 0
    pool.poll_wait()
    assert pool.poll_cb() == 0
    assert (group.state, pool.nreqs()) == ("done", 0)
    assert repr(group) == "<Group group done pri=0>"


def test_empty_group_is_done_at_the_next_poll_and_not_before(
    pool: procaio.Pool, calls: Calls
) -> None:
    procaio.aio_group(calls, pool=pool)
    assert calls.seen == []
    pool.poll_cb()
    assert calls.seen == [()]


def test_group_is_done_after_its_last_members_callback(pool: procaio.Pool) -> None:
    """In the order of events: members' callbacks, then its own (M1)."""
    order: list[str] = []
    group = procaio.aio_group(lambda: order.append("group"), pool=pool)
    members = [
        procaio.aio_nop(lambda name=name: order.append(name), pool=pool) for name in ("a", "b", "c")
    ]
    assert group.add(*members) == tuple(members)
    assert list(group) == members
    assert len(group) == 3
    pool.flush()
    assert order == ["a", "b", "c", "group"]
    assert list(group) == []


def test_group_that_was_polled_while_members_run_waits_for_them(
    workers: procaio.Pool, gate: Gate, calls: Calls
) -> None:
    group = procaio.aio_group(calls, pool=workers)
    group.add(*gate.hold(workers, 2))
    assert workers.poll_cb() == 0
    assert (group.state, calls.seen) == ("execute", [])
    gate.open()
    eventually(lambda: workers.poll_cb() == 0 and len(group) == 1, "one member ends")
    assert calls.seen == []
    gate.open()
    workers.flush()
    assert calls.seen == [()]


def test_members_are_added_in_members_callbacks(pool: procaio.Pool, calls: Calls) -> None:
    """Adding is legal until its own callback starts (M2)."""
    group = procaio.aio_group(calls, pool=pool)
    left = [5]

    def again() -> None:
        assert calls.seen == []
        left[0] -= 1
        if left[0]:
            group.add(procaio.aio_nop(again, pool=pool))

    group.add(procaio.aio_nop(again, pool=pool))
    pool.flush()
    assert (left, calls.seen) == ([0], [()])


def test_finished_and_cancelled_requests_are_ignored(pool: procaio.Pool) -> None:
    """They are no members, whatever they are added to (M3)."""
    done, cancelled = procaio.aio_nop(pool=pool), procaio.aio_nop(pool=pool)
    cancelled.cancel()
    pool.flush()
    group = procaio.aio_group(pool=pool)
    late = procaio.aio_nop(pool=pool)
    late.cancel()
    assert group.add(done, cancelled, late) == (done, cancelled, late)
    assert len(group) == 0
    assert group
    pool.flush()


def test_done_group_refuses_everything_but_cancelling(pool: procaio.Pool, calls: Calls) -> None:
    """RuntimeError from its callback on (A4)."""
    refused: list[str] = []

    def callback(*_: Any) -> None:
        for use in (
            lambda: group.add(procaio.aio_nop(pool=pool)),
            lambda: group.result(1),
            lambda: group.errno(1),
            lambda: group.limit(1),
            lambda: group.feed(None),
        ):
            with pytest.raises(RuntimeError, match="done"):
                use()
            refused.append("refused")
        group.cancel_subs()
        assert group.cancel() is False
        assert group.cb(calls) in (callback, None)

    group = procaio.aio_group(callback, pool=pool)
    pool.flush()
    assert len(refused) == 5
    callback()
    assert calls.seen == []


# -- what it yields --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "value"), [((), None), ((1,), 1), ((None,), None), ((1, "b"), (1, "b")), (((),), ())]
)
def test_result_is_what_callback_and_wait_get(
    pool: procaio.Pool, calls: Calls, values: tuple[Any, ...], value: object
) -> None:
    """The callback gets the values as arguments; the last call counts (M5)."""
    group = procaio.aio_group(calls, pool=pool)
    group.result("not", "this")
    group.result(*values)
    assert group.wait() == value
    assert calls.seen == [values]


def test_errno_of_a_group_is_zero_unless_it_is_set(pool: procaio.Pool) -> None:
    """By errno(), which takes that of the callback it is called in, or a number (A8, M5)."""
    seen: list[int] = []
    for set_it in (
        lambda _: None,
        lambda group: group.result("failed"),
        lambda group: group.errno(),
        lambda group: group.errno(errno.EDOM),
        lambda group: (group.errno(errno.EDOM), group.result()),
    ):
        group = procaio.aio_group(lambda *_: seen.append(procaio.errno()), pool=pool)
        group.add(
            procaio.aio_stat("/none", lambda _, s=set_it, g=group: s(g), pool=pool),
        )
        pool.flush()
    assert seen == [0, 0, errno.ENOENT, errno.EDOM, errno.EDOM]


def test_awaited_group_gives_its_result(pool: procaio.Pool, data_file: Path) -> None:
    """With members that end in the loop, of several tasks, more than once."""

    async def main() -> list[Any]:
        group = procaio.aio_group(pool=pool)
        group.add(
            procaio.aio_stat(data_file, lambda st: group.result(st.st_size, "bytes"), pool=pool)
        )
        first = await asyncio.gather(group_of(group), group_of(group))
        return [*first, await group, await procaio.aio_group(pool=pool)]

    async def group_of(group: procaio.Group) -> Any:
        return await group

    assert asyncio.run(main()) == [(65536, "bytes")] * 3 + [None]


# -- nesting ---------------------------------------------------------------------------------------


def test_groups_nest_and_a_cycle_is_refused(pool: procaio.Pool) -> None:
    """M4."""
    order: list[int] = []
    groups = [
        procaio.aio_group(lambda number=number: order.append(number), pool=pool)
        for number in range(4)
    ]
    for outer, inner in itertools.pairwise(groups):
        outer.add(inner)
    for inner in groups:
        with pytest.raises(ValueError, match="member of itself"):
            groups[3].add(inner)
    groups[3].add(procaio.aio_nop(lambda: order.append(99), pool=pool))
    pool.flush()
    assert order == [99, 3, 2, 1, 0]


def nested(pool: procaio.Pool, count: int) -> list[procaio.Group]:
    """The first one is the outermost."""
    groups = [procaio.aio_group(pool=pool) for _ in range(count)]
    for outer, inner in itertools.pairwise(groups):
        outer.add(inner)
    return groups


@pytest.mark.parametrize("how", [procaio.Group.cancel, procaio.Group.abort])
def test_groups_nest_a_thousand_deep_and_end_together(
    pool: procaio.Pool, how: Callable[[procaio.Group], object]
) -> None:
    """More is a RecursionError, whichever of them is put into which: what ends them goes down."""
    groups = nested(pool, 1000)
    with pytest.raises(RecursionError, match="1000"):
        groups[-1].add(procaio.aio_group(pool=pool))
    with pytest.raises(RecursionError, match="1000"):
        procaio.aio_group(pool=pool).add(groups[0])
    others = nested(pool, 500)
    with pytest.raises(RecursionError, match="1000"):
        groups[600].add(others[0])
    groups[499].add(others[0])
    assert how(groups[0]) is not None
    pool.flush()
    assert {group.state for group in [*groups, *others]} <= {"done", "cancelled"}


def test_request_is_a_member_of_one_group_only(pool: procaio.Pool) -> None:
    first, second = procaio.aio_group(pool=pool), procaio.aio_group(pool=pool)
    request = procaio.aio_nop(pool=pool)
    first.add(request, request)
    assert len(first) == 1
    with pytest.raises(ValueError, match="another group"):
        second.add(procaio.aio_nop(pool=pool), request)
    assert len(second) == 0
    pool.flush()


@pytest.mark.parametrize("wrong", [None, 3, "request", [procaio.aio_nop]])
def test_only_requests_can_be_members(pool: procaio.Pool, wrong: object) -> None:
    group = procaio.aio_group(pool=pool)
    with pytest.raises(TypeError):
        group.add(procaio.aio_nop(pool=pool), wrong)  # type: ignore[arg-type]
    assert len(group) == 0
    pool.flush()


def test_members_may_belong_to_other_pools(pool: procaio.Pool, calls: Calls) -> None:
    with procaio.Pool(inline=True) as other:
        group = procaio.aio_group(calls, pool=pool)
        group.add(procaio.aio_nop(pool=other))
        pool.poll_cb()
        assert calls.seen == []
        other.flush()
        pool.flush()
    assert calls.seen == [()]


# -- feeders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_feeder_keeps_as_many_members_as_the_limit_says(pool: procaio.Pool, limit: int) -> None:
    """It is called at once, and whenever there are fewer; it ends by adding nothing (M7, M9)."""
    total, made, most = 200, [0], [0]
    group = procaio.aio_group(pool=pool)

    def feeder(fed: procaio.Group) -> None:
        assert fed is group
        assert len(group) < limit
        if made[0] < total:
            made[0] += 1
            group.add(procaio.aio_nop(pool=pool))
            most[0] = max(most[0], len(group))

    group.limit(limit)
    group.feed(feeder)
    assert len(group) == made[0] == min(limit, total)
    assert group.wait() is None
    assert made[0] == total
    assert most[0] == min(limit, total)


def test_feeding_sets_a_limit_of_two(pool: procaio.Pool) -> None:
    """If it was 0 (M8)."""
    group = procaio.aio_group(pool=pool)
    group.feed(lambda _: group.add(procaio.aio_busy(0, pool=pool)))
    assert len(group) == 2
    group.feed(None)
    pool.flush()


def test_add_does_not_care_about_the_limit(pool: procaio.Pool) -> None:
    """Neither outside nor inside the feeder (M10)."""
    group = procaio.aio_group(pool=pool)
    group.limit(1)
    group.add(*[procaio.aio_nop(pool=pool) for _ in range(5)])
    rounds: list[int] = []

    def feeder(_: procaio.Group) -> None:
        rounds.append(len(group))
        if len(rounds) < 3:
            group.add(*[procaio.aio_nop(pool=pool) for _ in range(10)])

    group.feed(feeder)
    assert rounds == []
    pool.flush()
    assert rounds == [0, 0, 0]


@pytest.mark.better
def test_limit_of_zero_pauses_and_the_group_waits(pool: procaio.Pool, calls: Calls) -> None:
    """Until the limit is raised again (M11)."""
    made = [0]
    group = procaio.aio_group(calls, pool=pool)

    def feeder(_: procaio.Group) -> None:
        if made[0] < 10:
            made[0] += 1
            group.add(procaio.aio_nop(pool=pool))

    group.feed(feeder)
    group.limit(0)
    while len(group):
        pool.poll()
    for _ in range(3):
        pool.poll_cb()
    assert (made, calls.seen, group.state) == ([2], [], "execute")
    group.limit(3)
    pool.flush()
    assert (made, calls.seen) == ([10], [()])


def test_removed_feeder_is_not_called_again(pool: procaio.Pool) -> None:
    """feed(None) clears it; another one takes its place (M9)."""
    group = procaio.aio_group(pool=pool)
    used: list[str] = []

    def feeder(name: str) -> Callable[[procaio.Group], object]:
        def feed(_: procaio.Group) -> None:
            used.append(name)
            group.add(procaio.aio_nop(pool=pool))

        return feed

    group.feed(feeder("a"))
    group.feed(feeder("b"))
    assert used == ["a", "a"]
    group.feed(None)
    pool.flush()
    assert used == ["a", "a"]


def test_feeder_is_never_called_within_itself(pool: procaio.Pool) -> None:
    """Whatever it does with its group, or with the pool."""
    depth, left = [0], [20]
    group = procaio.aio_group(pool=pool)

    def feeder(_: procaio.Group) -> None:
        depth[0] += 1
        assert depth[0] == 1
        if left[0]:
            left[0] -= 1
            group.add(procaio.aio_nop(pool=pool))
            group.limit(3)
            pool.poll_cb()
        depth[0] -= 1

    group.feed(feeder)
    pool.flush()
    assert left == [0]


def test_exception_in_a_feeder_goes_to_the_hook_and_removes_it(
    pool: procaio.Pool, calls: Calls
) -> None:
    """A15: the group ends with what it has."""
    seen: list[tuple[BaseException, object]] = []
    procaio.on_callback_error(lambda error, request: seen.append((error, request)))
    group = procaio.aio_group(calls, pool=pool)
    rounds = [0]

    def feeder(_: procaio.Group) -> None:
        rounds[0] += 1
        if rounds[0] == 4:
            raise ZeroDivisionError
        group.add(procaio.aio_nop(pool=pool))

    group.feed(feeder)
    pool.flush()
    assert [(type(error), request) for error, request in seen] == [(ZeroDivisionError, group)]
    assert (rounds, calls.seen) == ([4], [()])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exit_in_a_feeder_propagates_and_loses_nothing(
    pool: procaio.Pool, calls: Calls, kind: type[BaseException]
) -> None:
    """It comes out of feed() or poll_cb(); the group ends all the same."""
    group = procaio.aio_group(calls, pool=pool)

    def feeder(_: procaio.Group) -> None:
        if len(group) or not first:
            raise kind
        first.clear()
        group.add(procaio.aio_nop(pool=pool))

    first = [True]
    group.limit(1)
    group.feed(feeder)
    with pytest.raises(kind):
        pool.flush()
    pool.flush()
    assert calls.seen == [()]
    with pytest.raises(kind):
        procaio.aio_group(pool=pool).feed(feeder)
    pool.flush()


@pytest.mark.parametrize("wrong", [3, "feeder", []])
def test_wrong_arguments_of_a_group_raise(pool: procaio.Pool, wrong: Any) -> None:
    group = procaio.aio_group(pool=pool)
    with pytest.raises(TypeError):
        group.feed(wrong)
    if wrong != 3:
        with pytest.raises(TypeError):
            group.limit(wrong)
        with pytest.raises(TypeError):
            group.errno(wrong)
    for number in (-1, 2**70):
        with pytest.raises((ValueError, OverflowError)):
            group.limit(number)
        with pytest.raises((ValueError, OverflowError)):
            group.errno(number)
    pool.flush()


# -- cancelling ------------------------------------------------------------------------------------


def test_cancelled_group_cancels_its_members_recursively(
    workers: procaio.Pool, gate: Gate, calls: Calls
) -> None:
    """No callback is called, also not of those that run (L3)."""
    outer, inner = procaio.aio_group(calls, pool=workers), procaio.aio_group(calls, pool=workers)
    outer.add(inner, procaio.aio_busy(60, calls, pool=workers, pri=-4))
    held = gate.hold(workers, 2)
    for request in held:
        request.cb(calls)
    inner.add(*held)
    workers.poll_cb()
    assert outer.cancel() is True
    assert [r.state for r in (outer, inner, *held)] == ["cancelled"] * 4
    assert len(outer) == len(inner) == 0
    eventually(lambda: workers.poll_cb() == 0 and outer.cancel() is False, "it has passed poll_cb")
    gate.open(2)
    for worker in workers.statistics().workers:
        if worker.operation == "busy":
            os.kill(worker.pid, 9)
    workers.flush()
    assert calls.seen == []
    with pytest.raises(procaio.RequestCancelled):
        outer.wait()


def test_cancelled_member_does_not_keep_its_group_waiting(
    workers: procaio.Pool, gate: Gate, calls: Calls
) -> None:
    """Even if it goes on executing (L4)."""
    group = procaio.aio_group(calls, pool=workers)
    held = gate.hold(workers, 2)
    group.add(*held)
    workers.poll_cb()
    held[0].cancel()
    assert list(group) == [held[1]]
    held[1].cancel()
    eventually(lambda: workers.poll_cb() == 0 and calls.seen == [()], "the group ends")
    assert workers.nreqs() == 2
    gate.open(2)
    workers.flush()


def test_cancel_subs_ends_the_group_normally(
    workers: procaio.Pool, gate: Gate, calls: Calls
) -> None:
    """Members and feeder go, the result stays, nothing can be added (L5)."""
    group = procaio.aio_group(calls, pool=workers)
    group.add(*gate.hold(workers, 2))
    group.limit(10)
    group.feed(lambda _: group.add(procaio.aio_busy(0, calls, pool=workers)))
    group.result("early")
    group.cancel_subs()
    assert len(group) == 0
    with pytest.raises(RuntimeError, match="cancel_subs"):
        group.add(procaio.aio_nop(pool=workers))
    gate.open(2)
    workers.flush()
    assert calls.seen == [("early",)]
    assert group.state == "done"


def test_feeding_stops_when_the_group_is_cancelled(pool: procaio.Pool, calls: Calls) -> None:
    """M12: in the feeder too; what is added then is cancelled."""
    group = procaio.aio_group(calls, pool=pool)
    made: list[procaio.Request[None]] = []

    def feeder(_: procaio.Group) -> None:
        if len(made) == 3:
            group.cancel()
        made.append(procaio.aio_nop(calls, pool=pool))
        group.add(made[-1])

    group.limit(10)
    group.feed(feeder)
    assert len(made) == 4
    assert [request.state for request in made] == ["cancelled"] * 4
    pool.flush()
    assert calls.seen == []


def test_cancelled_task_cancels_the_group_it_awaits(workers: procaio.Pool, gate: Gate) -> None:
    members: list[procaio.Request[Any]] = []

    async def main() -> None:
        group = procaio.aio_group(pool=workers)
        members.extend(gate.hold(workers, 2))
        group.add(*members)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(waiting(group), 0.02)
        assert group.state == "cancelled"

    async def waiting(group: procaio.Group) -> None:
        await group

    asyncio.run(main())
    assert [request.state for request in members] == ["cancelled"] * 2
    gate.open(2)


# -- life ------------------------------------------------------------------------------------------


def test_closing_the_pool_waits_for_groups(calls: Calls) -> None:
    """With what their feeders still have to add."""
    left = [100]
    with procaio.Pool() as pool:
        group = procaio.aio_group(calls, pool=pool)

        def feeder(_: procaio.Group) -> None:
            left[0] -= 1
            if left[0]:
                group.add(procaio.aio_nop(pool=pool))

        group.feed(feeder)
    assert (left, calls.seen) == ([0], [()])


def test_group_that_is_paused_at_the_end_is_aborted() -> None:
    """The program's end waits for exit_timeout, then the callback is called with ECANCELED."""
    seen: list[int] = []
    pool = procaio.Pool(inline=True)
    group = procaio.aio_group(lambda *_: seen.append(procaio.errno()), pool=pool)
    group.feed(lambda _: group.add(procaio.aio_nop(pool=pool)))
    group.limit(0)
    pool._close(0)
    assert seen == [errno.ECANCELED]
    with pytest.raises(OSError, match="canceled"):
        group.wait()


def test_group_and_its_members_are_collected(pool: procaio.Pool) -> None:
    """Closures that name the group, its values and its feeder keep nothing alive."""
    group = procaio.aio_group(lambda *_: group, pool=pool)
    group.owner = group
    group.result(group)
    group.feed(lambda _: group if len(group) > 5 else group.add(procaio.aio_nop(pool=pool)))
    group.limit(0)
    group.feed(None)
    pool.flush()
    gone = weakref.ref(group)
    group = None
    gc.collect()
    assert gone() is None


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_group_is_dead_in_a_forked_child(workers: procaio.Pool, gate: Gate, calls: Calls) -> None:
    """And goes on in the parent (P1)."""
    group = procaio.aio_group(calls, pool=workers)
    group.add(*gate.hold(workers, 1))
    workers.poll_cb()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with pytest.raises(procaio.PoolClosed):
                group.wait()
            with pytest.raises(RuntimeError):
                group.add()
            assert group.state == "dead"
            mine = procaio.aio_group(pool=workers)
            mine.add(procaio.aio_nop(pool=workers))
            mine.wait()
            code = 0 if calls.seen == [] else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    gate.open()
    workers.flush()
    assert calls.seen == [()]
