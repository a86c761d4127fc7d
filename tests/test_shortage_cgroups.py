"""Control groups: memory that runs out costs a request, processes that run out cost time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import eventually, not_sanitized, run_fine
from programs import ERRNO_OF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20


class Group:
    """A control group of this test's own, of either version of that interface."""

    def __init__(self, controller: str) -> None:
        self.controller = controller
        parent, self.is_v2 = self._parent(controller)
        self.path = parent / f"procaio-test-{os.getpid()}"
        try:
            if self.is_v2 and controller not in (parent / "cgroup.subtree_control").read_text():
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")
            self.path.mkdir()
        except OSError as error:
            pytest.skip(f"no control group of {controller} can be made here: {error}")

    @staticmethod
    def _parent(controller: str) -> tuple[Path, bool]:
        """Where this process is, and whether that is the one hierarchy of all controllers."""
        own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            root, place = left.split()[3:5]
            for _, names, path in own:
                is_v1 = kind == "cgroup" and controller in names.split(",")
                is_v1 = is_v1 and controller in options.strip().split(",")
                here = Path(place) / os.path.relpath(path, root)
                if is_v1:
                    return here, False
                with contextlib.suppress(OSError):
                    controllers = (here / "cgroup.controllers").read_text().split()
                    if kind == "cgroup2" and not names and controller in controllers:
                        return here, True
        pytest.skip(f"no controller of {controller} here")

    def write(self, v1: str, v2: str, value: object) -> None:
        """Set a limit by its name in either version."""
        (self.path / (v2 if self.is_v2 else v1)).write_text(str(value))

    def allow(self, size: int) -> None:
        """So much memory, and no swap space."""
        self.write("memory.limit_in_bytes", "memory.max", size)
        with contextlib.suppress(OSError):
            self.write("memory.memsw.limit_in_bytes", "memory.swap.max", size * (not self.is_v2))

    def enter(self) -> Callable[[], None]:
        """What a new process does to be in it."""
        procs = os.fspath(self.path / "cgroup.procs")

        def move() -> None:
            with open(procs, "w", encoding="ascii") as file:
                file.write("0")

        return move

    def remove(self) -> None:
        """It goes when its last process is gone."""

        def gone() -> bool:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            return not self.path.exists()

        eventually(gone, "the control group can be removed")


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """One that limits what the test names."""
    made = Group(request.param)
    yield made
    made.remove()


of_memory = pytest.mark.parametrize("group", ["memory"], indirect=True)
of_processes = pytest.mark.parametrize("group", ["pids"], indirect=True)

# -- memory ----------------------------------------------------------------------------------------

LARGE = """
    import errno, os, procaio
    large = 200 << 20
    with open("data", "wb") as file:
        file.truncate(large)
    data = open("data", "rb")
    def more():
        for path in limits:
            open(path, "w").write(str(2 << 30))
"""


@not_sanitized
@of_memory
def test_memory_that_a_control_group_refuses_is_enomem(group: Group, tmp_path: Path) -> None:
    """In the call, or of the request; what needs little goes on, and so does all with a higher
    limit.
    """
    if group.is_v2:
        pytest.skip("this version always kills")
    group.allow(96 * MIB)
    (group.path / "memory.oom_control").write_text("1")  # refuse, do not kill
    limits = [os.fspath(group.path / f"memory.{n}limit_in_bytes") for n in ("memsw.", "")]
    run_fine(
        f"""
        limits = {limits}
        with procaio.Pool(at_once=False) as pool:
            for _ in range(2):
                assert errno_of(procaio.aio_read(data, 0, large, pool=pool).wait) == errno.ENOMEM
                assert errno_of(lambda: procaio.Buffer(large, pool=pool)) == errno.ENOMEM
                assert procaio.aio_read(data, 0, 1 << 20, pool=pool).wait() == bytes(1 << 20)
            more()
            assert len(procaio.aio_read(data, 0, large, pool=pool).wait()) == large
            procaio.Buffer(large, pool=pool).release()
            assert pool.statistics().worker_deaths == 0
        print("fine")
        """,
        ERRNO_OF,
        LARGE,
        cwd=tmp_path,
        preexec_fn=group.enter(),
    )


@not_sanitized
@of_memory
def test_worker_that_the_system_kills_for_memory_costs_one_request(
    group: Group, tmp_path: Path
) -> None:
    """It is the worker that dies, not the program; the third time that is the request's end, and
    others are done meanwhile.
    """
    group.allow(96 * MIB)
    names = ["memory.max"] if group.is_v2 else ["memsw.limit_in_bytes", "limit_in_bytes"]
    limits = [os.fspath(group.path / (n if group.is_v2 else f"memory.{n}")) for n in names]
    run_fine(
        f"""
        limits = {limits}
        with procaio.Pool(at_once=False) as pool:
            procaio.aio_nop(pool=pool).wait()
            request = procaio.aio_read(data, 0, large, pool=pool)
            others = [procaio.aio_stat("/", pool=pool) for _ in range(100)]
            assert errno_of(request.wait) == errno.EIO, request
            assert isinstance(request.error, procaio.WorkerDied)
            assert [other.wait() for other in others] == [os.stat("/")] * 100
            assert pool.statistics().died == 1
            assert pool.statistics().worker_deaths >= 3
            assert procaio.aio_read(data, 0, 1 << 20, pool=pool).wait() == bytes(1 << 20)
            more()
            assert len(procaio.aio_read(data, 0, large, pool=pool).wait()) == large
            for worker in pool.statistics().workers:  # only while it asks
                score = open(f"/proc/{{worker.pid}}/oom_score_adj").read()
                assert score == open("/proc/self/oom_score_adj").read(), score
        print("fine")
        """,
        ERRNO_OF,
        LARGE,
        cwd=tmp_path,
        preexec_fn=group.enter(),
    )


# -- processes -------------------------------------------------------------------------------------


@of_processes
@pytest.mark.parametrize("room", [0, 1, 2])
def test_processes_that_a_control_group_refuses_are_made_later(
    group: Group, tmp_path: Path, room: int
) -> None:
    """No spawner, no worker, one worker: requests go on as soon as there is one."""
    (group.path / "pids.max").write_text(str(1 + room))
    run_fine(
        f"""
        import os, procaio
        with procaio.Pool() as pool:
            requests = [procaio.aio_stat("/", pool=pool) for _ in range(50)]
            if {room} < 2:
                try:
                    requests[0].wait(timeout=0.1)
                except TimeoutError:
                    pass
                else:
                    raise AssertionError("it cannot have run")
                open({os.fspath(group.path / "pids.max")!r}, "w").write("100")
            assert all(request.wait(timeout=20) == os.stat("/") for request in requests)
            if {room} == 2:
                assert pool.nworkers() == 1
            assert pool.statistics().worker_deaths == 0
        print("fine")
        """,
        cwd=tmp_path,
        preexec_fn=group.enter(),
    )
