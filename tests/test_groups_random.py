"""Groups in any shape, and what is done to them in any order."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import procaio
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Callable


# -- random trees ----------------------------------------------------------------------------------

TREE = st.recursive(
    st.sampled_from(["nop", "fails"]),
    lambda children: st.lists(children, max_size=4),
    max_leaves=30,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=TREE, seed=st.integers(0, 1000))
def test_random_trees_of_groups_end_once_each(pool: procaio.Pool, tree: Any, seed: int) -> None:
    """Whatever is cancelled meanwhile: who was not is called once, after all its members."""
    chance = random.Random(seed)  # what is drawn must not depend on the workers' speed
    made: list[tuple[procaio.Request[Any], list[int]]] = []
    ended: list[int] = []

    def make(node: Any) -> int:
        number = len(made)

        def callback(*_: Any) -> None:
            ended.append(number)

        if isinstance(node, list):
            group = procaio.aio_group(callback, pool=pool)
            made.append((group, []))
            below = [make(child) for child in node]
            made[number][1].extend(below)
            group.add(*[made[child][0] for child in below])
        elif node == "nop":
            made.append((procaio.aio_nop(callback, pool=pool), []))
        else:
            made.append((procaio.aio_stat("/none", callback, pool=pool), []))
        return number

    make(tree)
    while pool.nreqs():
        if chance.random() < 0.5:
            chance.choice(made)[0].cancel()
        pool.max_poll_reqs(chance.randrange(1, 6))
        pool.poll()
    pool.max_poll_reqs(0)
    uncancelled = [n for n, (request, _) in enumerate(made) if request.state == "done"]
    assert sorted(ended) == uncancelled
    assert {request.state for request, _ in made} <= {"done", "cancelled"}
    for number in ended:
        for child in made[number][1]:
            if child in ended:
                assert ended.index(child) < ended.index(number)


# -- anything in any order -------------------------------------------------------------------------


class Node:
    """A request, and what is known of it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.kind = function.__name__.removeprefix("aio_")
        self.request: Any = None
        self.parent: Node | None = None
        """The group that took it, for good."""
        self.cancelled = False
        self.closed = False
        self.result: tuple[Any, ...] = ()
        self.calls: list[tuple[Any, ...]] = []
        self.ended_at = 0

    def is_live(self) -> bool:
        """Whether it is still to end, and so in its group."""
        return self.request.state not in {"done", "cancelled"}

    def is_live_in(self, group: Node) -> bool:
        """Whether it is one of its members."""
        return self.parent is group and self.is_live()

    def is_plain_group(self) -> bool:
        """Whether its members are known."""
        return self.kind == "group"

    def is_within(self, other: Node) -> bool:
        """Whether it is `other`, or in it."""
        node: Node | None = self
        while node is not None and node is not other:
            node = node.parent if node.is_live() else None
        return node is other


class AnythingWithGroups(RuleBasedStateMachine):
    """Groups, members and feeders; workers die, and any of it is cancelled at any time."""

    requests = Bundle("requests")
    groups = Bundle("groups")
    inline = False

    def __init__(self) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.pool: Any = None
        self.clock = itertools.count(1)
        self.wrong: list[object] = []

    @initialize()
    def begin(self) -> None:
        """A pool of its own, where everything goes through the workers."""
        procaio.on_callback_error(lambda *what: self.wrong.append(what))
        self.pool = procaio.Pool(2, inline=self.inline, at_once=False)

    def make(self, function: Callable[..., Any], *arguments: Any, pri: int = 0) -> Node:
        """Ask for something, and keep what it is called with."""
        node = Node(function)

        def ended(*values: Any) -> None:
            node.calls.append(values)
            node.ended_at = next(self.clock)

        node.request = function(*arguments, ended, pri=pri, pool=self.pool)
        self.nodes.append(node)
        return node

    @rule(target=requests, kind=st.sampled_from(["nop", "stat", "fails"]), pri=st.integers(-4, 4))
    def new_request(self, kind: str, pri: int) -> Node:
        """One that a worker does."""
        if kind == "nop":
            return self.make(procaio.aio_nop, pri=pri)
        return self.make(procaio.aio_stat, "/" if kind == "stat" else "/none", pri=pri)

    @rule(target=requests, path=st.sampled_from(["/proc/self/fdinfo", "/none"]))
    def new_composite(self, path: str) -> Node:
        """One that makes its members itself."""
        return self.make(procaio.aio_scandir, path)

    @rule(targets=(requests, groups))
    def new_group(self) -> Any:
        """An empty one."""
        return self.make(procaio.aio_group)

    @rule(targets=(requests, groups), group=groups)
    def new_group_within(self, group: Node) -> Any:
        """In another one, if that takes it."""
        node = self.make(procaio.aio_group)
        self.add(group, node)
        return node

    @rule(group=groups, member=requests)
    def add(self, group: Node, member: Node) -> None:
        """It refuses what it must, and nothing else."""
        foreign = member.is_live() and member.parent not in {None, group}
        refused: tuple[type[Exception], ...] = ()
        if group.cancelled:  # it has passed, or not yet
            refused = (RuntimeError, ValueError)
        elif group.request.state == "done" or group.closed:
            refused = (RuntimeError,)
        elif group.is_within(member) or foreign:
            refused = (ValueError,)
        live = member.is_live()
        below = self.live_below(member) if live else []
        try:
            assert group.request.add(member.request) == (member.request,)
        except refused:
            return
        assert group.cancelled or not refused
        if live:
            member.parent = group
        for other in below if group.cancelled else []:
            self.note_cancelled(other)

    @rule(target=requests, group=groups, kind=st.sampled_from(["nop", "fails"]))
    def add_new(self, group: Node, kind: str) -> Node:
        """The most frequent thing."""
        node = self.new_request(kind, 0)
        self.add(group, node)
        return node

    @rule(group=groups, count=st.integers(0, 6), limit=st.integers(0, 4))
    def feed(self, group: Node, count: int, limit: int) -> None:
        """Some members, so many at a time; or the feeder is removed."""
        left = [count]

        def feeder(_: object) -> None:
            assert group.is_live()
            assert not group.closed
            if left[0] > 0:
                left[0] -= 1
                node = self.make(procaio.aio_nop)
                group.request.add(node.request)
                node.parent = group

        if group.request.state == "done":
            with pytest.raises(RuntimeError):
                group.request.feed(feeder)
            return
        try:
            group.request.feed(feeder if count else None)
            group.request.limit(limit)
        except RuntimeError:
            assert group.cancelled

    @rule(group=groups, limit=st.integers(0, 4))
    def limit(self, group: Node, limit: int) -> None:
        """Up, down, or a pause."""
        try:
            group.request.limit(limit)
        except RuntimeError:
            assert not group.is_live()

    @rule(group=groups, values=st.tuples(st.integers()) | st.tuples(st.integers(), st.text()))
    def result(self, group: Node, values: tuple[Any, ...]) -> None:
        """The last one counts."""
        try:
            group.request.result(*values)
            group.result = values
        except RuntimeError:
            assert not group.is_live()

    def note_cancelled(self, node: Node) -> None:
        """It must not be called."""
        assert node.request.state == "cancelled"
        node.cancelled = True

    def live_below(self, group: Node) -> list[Node]:
        """Itself, and all that is in it."""
        return [node for node in self.nodes if node.is_live() and node.is_within(group)]

    @rule(node=requests)
    def cancel(self, node: Node) -> None:
        """And all that is in it."""
        below = self.live_below(node) if node.is_live() else []
        node.request.cancel()
        for other in below:
            self.note_cancelled(other)

    @rule(group=groups)
    def cancel_subs(self, group: Node) -> None:
        """What is in it, but not itself."""
        live = group.is_live()
        below = [node for node in self.live_below(group) if node is not group] if live else []
        group.request.cancel_subs()
        group.closed = group.closed or live
        assert group.is_live() == live
        for other in below:
            self.note_cancelled(other)

    @rule(count=st.integers(0, 3))
    def poll(self, count: int) -> None:
        """All that is there, or a part of it."""
        self.pool.max_poll_reqs(count)
        self.pool.poll_cb()
        self.pool.max_poll_reqs(0)

    @rule()
    def wait(self) -> None:
        """Until something is there."""
        if self.pool.nready() or self.pool.npending():
            self.pool.poll()

    @rule(point=st.sampled_from(testing.FAULT_POINTS), after=st.integers(0, 5))
    def let_a_worker_die(self, point: str, after: int) -> None:
        """At one of its next steps."""
        testing.arm(self.pool, point, after=after)

    @invariant()
    def groups_have_the_members_that_are_not_done(self) -> None:
        """And no others; a composite's are its own."""
        for group in self.nodes:
            if group.is_plain_group():
                members = {node.request for node in self.nodes if node.is_live_in(group)}
                assert set(group.request) == members
                assert len(group.request) == len(members)

    @invariant()
    def nobody_is_called_twice_or_after_a_cancel(self) -> None:
        """Whatever has happened so far."""
        for node in self.nodes:
            assert len(node.calls) == (node.request.state == "done"), node.request
            assert not (node.cancelled and node.calls), node.request

    def teardown(self) -> None:
        """Everything comes to its end, members before their groups."""
        if self.pool is None:
            return
        testing.disarm(self.pool)
        for node in self.nodes:
            if node.is_plain_group() and node.is_live():
                node.request.limit(2)
        self.pool.flush()
        assert self.pool.nreqs() == 0
        self.nobody_is_called_twice_or_after_a_cancel()
        for node in self.nodes:
            assert node.request.state == ("cancelled" if node.cancelled else "done")
            if node.parent is not None and node.calls and node.parent.calls:
                assert node.ended_at < node.parent.ended_at
            if node.is_plain_group() and node.calls:
                assert node.calls == [node.result]
        assert self.wrong == []
        self.pool.close()


@pytest.mark.parametrize("examples", [40, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("inline", [False, True])
def test_anything_with_groups_in_any_order(inline: bool, examples: int) -> None:
    """Each request ends once, a group after its members, and none after it was cancelled."""
    machine = type("Machine", (AnythingWithGroups,), {"inline": inline})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None)
    )
