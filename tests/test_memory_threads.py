"""The threads that touch, sync and lock the program's memory, and a request's way through them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import MemoryGate, children, eventually, not_sanitized
from own_memory import MS_SYNC, MT_MODIFY, PAGE, THREADS, address_of, anonymous, smaps
from programs import run_program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

# -- outside the interpreter lock ------------------------------------------------------------------


def test_program_goes_on_while_a_thread_waits(
    workers: procaio.Pool, memory_gate: MemoryGate
) -> None:
    """A touch that cannot end holds nobody up: Python runs, and other requests do."""
    (held,) = memory_gate.hold(workers)
    assert sum(range(1000)) == 499500
    with anonymous() as mapping:
        assert procaio.aio_msync(mapping, pool=workers).wait() == 0
    assert procaio.aio_nop(pool=workers).wait() is None
    with pytest.raises(TimeoutError):
        held.wait(timeout=0.01)
    with pytest.raises(BufferError):
        memory_gate.memory.close()
    assert held.state == "execute"
    assert "execute" in repr(held)
    memory_gate.open()
    assert held.wait() == 0


def test_pool_without_workers_lets_other_threads_run(memory_gate: MemoryGate) -> None:
    """Inline the call itself waits; other threads have the interpreter meanwhile."""
    with procaio.Pool(inline=True) as pool:
        ended: list[int] = []
        thread = threading.Thread(
            target=lambda: ended.append(procaio.aio_mtouch(memory_gate.memory, pool=pool).wait())
        )
        thread.start()
        assert sum(range(1000)) == 499500
        assert ended == []
        memory_gate.open()
        thread.join(20)
        assert ended == [0]


def test_event_loop_goes_on_while_memory_is_touched(
    workers: procaio.Pool, memory_gate: MemoryGate
) -> None:
    """`await` of a touch leaves the loop to others."""

    async def main() -> None:
        touching = asyncio.ensure_future(
            wait_for(procaio.aio_mtouch(memory_gate.memory, pool=workers))
        )
        for _ in range(50):
            await asyncio.sleep(0)
            assert await procaio.aio_nop(pool=workers) is None
        assert not touching.done()
        memory_gate.open()
        assert await touching == 0
        with anonymous(256 * PAGE) as mapping:
            assert await procaio.aio_mtouch(mapping, 0, None, MT_MODIFY, pool=workers) == 0
            assert await procaio.aio_msync(mapping, pool=workers) == 0
            with pytest.raises(OSError):
                await procaio.aio_msync(mapping, 0, None, 64, pool=workers)

    async def wait_for(request: procaio.Request[int]) -> int:
        return await request

    asyncio.run(asyncio.wait_for(main(), 30))


# -- the way of a request --------------------------------------------------------------------------


def test_quick_one_does_not_wait_for_a_slow_one(workers: procaio.Pool) -> None:
    """Two requests at once get two threads, however many are idle."""
    with anonymous() as mapping:
        for _ in range(40):
            procaio.aio_mtouch(mapping, pool=workers).wait()  # now a thread is idle
            gate = MemoryGate()
            held = procaio.aio_mtouch(gate.memory, pool=workers)
            quick = procaio.aio_mtouch(mapping, pool=workers)
            try:
                assert quick.wait(timeout=20) == 0
            finally:
                gate.open()
            assert held.wait() == 0


def test_higher_priority_is_done_first(workers: procaio.Pool, memory_gate: MemoryGate) -> None:
    """Of those that wait for a thread; first in, first out within one priority (B5)."""
    held = memory_gate.hold(workers, THREADS - 1)
    own = MemoryGate()
    held += own.hold(workers)
    order: list[tuple[int, int]] = []
    made = []
    with anonymous() as mapping:
        for pri in (-4, 0, 4, -1, 1):
            for number in range(3):

                def note(_: int, what: tuple[int, int] = (-pri, number)) -> None:
                    order.append(what)

                made.append(procaio.aio_msync(mapping, callback=note, pri=pri, pool=workers))
        assert {r.state for r in made} == {"ready"}
        assert workers.nready() == 15
        assert workers.statistics().queued[4] == 3
        own.open()  # one thread only, so that the order is one
        eventually(lambda: all(r.state == "pending" for r in made), "they are done")
        while len(order) < 15:
            workers.poll_cb()
    assert order == sorted(order)
    memory_gate.open()
    workers.flush()


def test_results_come_in_the_order_of_their_ends(
    workers: procaio.Pool, memory_gate: MemoryGate
) -> None:
    """One thread does all; what was done first is delivered first (B5)."""
    memory_gate.hold(workers, THREADS - 1)
    order: list[int] = []
    with anonymous() as mapping:
        made = [
            procaio.aio_msync(mapping, callback=lambda _, n=n: order.append(n), pool=workers)
            for n in range(50)
        ]
        eventually(lambda: all(r.state == "pending" for r in made), "they are done")
        workers.poll_cb()
        assert order == list(range(50))
        memory_gate.open()
        workers.flush()


def test_cancel_before_a_thread_has_it(workers: procaio.Pool, memory_gate: MemoryGate) -> None:
    """It is never done, and lets its memory go (L1, L2)."""
    memory_gate.hold(workers, THREADS)
    mapping = anonymous()
    seen: list[int] = []
    request = procaio.aio_mlock(mapping, callback=seen.append, pool=workers)
    assert (request.state, workers.nreqs()) == ("ready", THREADS + 1)
    with pytest.raises(BufferError):
        mapping.munmap()
    assert request.cancel()
    assert not request.cancel()
    assert (request.state, workers.nreqs()) == ("cancelled", THREADS + 1)
    workers.poll_cb()
    assert workers.nreqs() == THREADS
    with pytest.raises(procaio.RequestCancelled):
        request.wait()
    memory_gate.open()
    workers.flush()
    assert seen == []
    assert smaps(address_of(mapping), "Locked") == 0
    gc.collect()
    mapping.munmap()


def test_cancel_while_a_thread_has_it(workers: procaio.Pool, memory_gate: MemoryGate) -> None:
    """It runs on, and holds its memory until it is done; nobody is called (L1)."""
    (held,) = memory_gate.hold(workers)
    seen: list[int] = []
    held.cb(seen.append)
    assert not held.cancel()
    assert held.state == "cancelled"
    workers.poll_cb()
    assert workers.nreqs() == 1
    with pytest.raises(BufferError):
        memory_gate.memory.resize(PAGE)
    memory_gate.open()
    workers.flush()
    assert seen == []
    assert workers.nreqs() == 0
    memory_gate.memory.resize(PAGE)


def test_cancel_of_what_is_pending_or_done(workers: procaio.Pool) -> None:
    """Pending: nobody is called.  Done: nothing (L1)."""
    seen: list[int] = []
    with anonymous() as mapping:
        request = procaio.aio_mtouch(mapping, callback=seen.append, pool=workers)
        eventually(lambda: request.state == "pending", "it is touched")
        assert not request.cancel()
        workers.flush()
        assert seen == []
        done = procaio.aio_mtouch(mapping, callback=seen.append, pool=workers)
        done.wait()
        assert not done.cancel()
        assert (seen, done.state) == ([0], "done")


def test_statistics_count_them_as_requests(workers: procaio.Pool) -> None:
    with anonymous() as mapping:
        for n in range(10):
            procaio.aio_mtouch(mapping, pool=workers)
            procaio.aio_msync(mapping, 0, None, 64 if n % 2 else MS_SYNC, pool=workers)
        assert workers.nreqs() == 20
        workers.flush()
    numbers = workers.statistics()
    assert (numbers.submitted, numbers.completed, numbers.failed) == (20, 20, 5)
    assert (workers.nreqs(), workers.nready(), workers.npending()) == (0, 0, 0)


def take(pool: procaio.Pool, count: int, **keywords: int) -> list[procaio.Request[Any]]:
    """Requests on memory that take no time."""
    return [procaio.aio_mtouch(bytes(1), pool=pool, **keywords) for _ in range(count)]


def test_without_workers_they_queue_like_all_others(workers: procaio.Pool) -> None:
    """max_parallel(0) stops them too, min_parallel(n) resumes in the order of priorities (O3)."""
    workers.max_parallel(0)
    ended: list[int] = []

    def one(pri: int) -> None:
        procaio.aio_mtouch(bytes(1), callback=lambda _: ended.append(pri), pool=workers, pri=pri)

    for pri in (0, -2, 2):
        for _ in range(1000):
            one(pri)
    others = [procaio.aio_nop(pool=workers, pri=1) for _ in range(10)]
    (cancelled,) = take(workers, 1)
    assert cancelled.cancel()
    assert workers.poll_cb() == 0
    assert (workers.nready(), workers.nreqs(), ended) == (3010, 3010, [])
    workers.min_parallel(1)
    workers.flush()
    assert {request.state for request in others} == {"done"}
    assert sorted(ended) == [-2] * 1000 + [0] * 1000 + [2] * 1000


def test_max_parallel_takes_back_what_no_thread_has_begun(
    workers: procaio.Pool, memory_gate: MemoryGate
) -> None:
    """What threads have begun ends first, or there is a TimeoutError; the rest waits (O3)."""
    held = memory_gate.hold(workers, 4)
    waiting = take(workers, 100)
    with pytest.raises(TimeoutError):
        workers.max_parallel(0, timeout=0.01)
    memory_gate.open()
    workers.max_parallel(0)
    assert {request.state for request in held} == {"pending"}
    assert workers.poll_cb() == 0
    assert {request.state for request in waiting} == {"ready"}
    workers.min_parallel(1)
    workers.flush()
    assert {request.state for request in waiting} == {"done"}


def test_request_overtakes_those_that_hold_all_slots(
    workers: procaio.Pool, memory_gate: MemoryGate
) -> None:
    """What waits for a thread gives its slot up to a higher priority (B5)."""
    held = memory_gate.hold(workers, 4)
    waiting = take(workers, 3000, pri=-1)
    assert procaio.aio_nop(pool=workers).wait(timeout=20) is None
    assert workers.nready() == 3000
    memory_gate.open()
    workers.flush()
    assert {request.state for request in held + waiting} == {"done"}


def test_more_requests_than_slots(workers: procaio.Pool, memory_gate: MemoryGate) -> None:
    """They wait for a slot, and every one is done."""
    memory_gate.hold(workers, THREADS)
    ended: list[int] = []
    with anonymous() as mapping:
        made = [
            procaio.aio_mtouch(mapping, 0, 1, callback=ended.append, pool=workers)
            for _ in range(5000)
        ]
        assert all(r.cancel() for r in made[::5])
        memory_gate.open()
        workers.flush()
        assert ended == [0] * 4000
        del made
        gc.collect()


def test_poll_fileno_tells_of_them(workers: procaio.Pool, memory_gate: MemoryGate) -> None:
    """A loop that watches the descriptor learns of a thread's result (N1)."""
    import select  # noqa: PLC0415 - only here

    number = workers.poll_fileno()
    memory_gate.hold(workers)
    workers.poll_cb()
    assert not select.select([number], [], [], 0)[0]
    memory_gate.open()
    assert select.select([number], [], [], 20)[0]
    workers.flush()


def test_close_waits_for_them(memory_gate: MemoryGate) -> None:
    """What threads do and what waits for one ends before the pool does."""
    pool = procaio.Pool()
    held = memory_gate.hold(pool, THREADS)
    seen: list[int] = []
    with anonymous() as mapping:
        queued = procaio.aio_msync(mapping, callback=seen.append, pool=pool)
        threading.Timer(0.05, memory_gate.open).start()
        pool.close()
        assert [r.result for r in [*held, queued]] == [0] * 5
        assert seen == [0]


def test_memory_is_held_until_a_thread_is_done_with_it(memory_gate: MemoryGate) -> None:
    """Also when the request was given up with its pool: the thread is still at work on it."""
    pool, other = procaio.Pool(), procaio.Pool()
    held = memory_gate.hold(pool)
    pool._kill(errno.ECANCELED)
    pool._end()
    assert pool.closed
    assert held[0].errno == errno.ECANCELED
    del held
    gc.collect()
    with pytest.raises(BufferError):
        memory_gate.memory.resize(PAGE)
    memory_gate.open()
    with anonymous() as mapping:

        def free() -> bool:
            procaio.aio_mtouch(mapping, pool=other).wait()
            try:
                memory_gate.memory.resize(PAGE)
            except BufferError:
                return False
            return True

        eventually(free, "the memory is let go")
    other.close()


def test_pools_share_the_threads(memory_gate: MemoryGate) -> None:
    """A pool that is given up leaves the requests of another one alone."""
    lost, kept = procaio.Pool(), procaio.Pool()
    memory_gate.hold(lost, THREADS)
    with anonymous() as mapping:
        given_up = [procaio.aio_mtouch(mapping, pool=lost) for _ in range(10)]
        waiting = [procaio.aio_mtouch(mapping, pool=kept) for _ in range(10)]
        lost._kill(errno.ECANCELED)
        lost._end()
        assert {r.errno for r in given_up} == {errno.ECANCELED}
        assert {r.state for r in waiting} == {"ready"}
        memory_gate.open()
        kept.close()
        assert [r.result for r in waiting] == [0] * 10


def test_arguments_of_a_foreign_call_stay_alive(workers: procaio.Pool) -> None:
    """The request alone holds its memory."""
    requests = [
        procaio.aio_mtouch(bytearray(100 * PAGE), 0, None, MT_MODIFY, pool=workers)
        for _ in range(100)
    ]
    gc.collect()
    assert [r.wait() for r in requests] == [0] * 100


# -- processes -------------------------------------------------------------------------------------


def test_request_in_flight_is_dead_in_a_forked_child(
    workers: procaio.Pool, memory_gate: MemoryGate
) -> None:
    """The thread is the parent's: it ends there, and only there (P1, P2)."""
    seen: list[int] = []
    held = memory_gate.hold(workers, THREADS)
    with anonymous() as mapping:
        queued = procaio.aio_mtouch(mapping, callback=seen.append, pool=workers)
        pid = os.fork()
        if pid == 0:
            good = False
            with contextlib.suppress(BaseException):
                signal.alarm(60)
                assert {r.state for r in [*held, queued]} == {"dead"}
                assert workers.nreqs() == 0
                requests = [procaio.aio_mtouch(mapping, pool=workers) for _ in range(20)]
                workers.flush()
                assert [r.result for r in requests] == [0] * 20
                assert seen == []
                mapping.munmap()
                workers.close()
                good = True
            os._exit(not good)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        memory_gate.open()
        workers.flush()
        assert [r.result for r in [*held, queued]] == [0] * 5
        assert seen == [0]


def test_forks_while_threads_are_busy(workers: procaio.Pool) -> None:
    """Whatever the threads do at that moment, the child's memory functions work."""
    with anonymous(16 * PAGE) as mapping:
        for _ in range(30):
            for _ in range(50):
                procaio.aio_mtouch(mapping, pool=workers)
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                os._exit(procaio.aio_mtouch(mapping, pool=workers).wait())
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            workers.flush()


def test_exit_completes_what_is_queued() -> None:
    """At the normal end of a program, callbacks included (A19)."""
    ended = run_program(
        """
        import procaio
        mapping = procaio.mmap(1 << 20, 3, 0x21)
        for n in range(20):
            request = procaio.aio_mtouch(mapping, 0, None, 1, lambda r: print(r))
        """
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n" * 20, "", 0)


def test_stuck_thread_does_not_keep_the_program(memory_gate: MemoryGate) -> None:
    """What has not ended after exit_timeout is given up, and the process leaves (A19)."""
    ended = run_program(
        """
        import sys; sys.path.insert(0, sys.argv[1])
        import conftest, procaio
        gate = conftest.MemoryGate()
        procaio.exit_timeout(0.1)
        held = gate.hold(procaio.default_pool(), 4)
        for request in held:
            request.cb(lambda r: print(r, procaio.errno()))
        queued = procaio.aio_mtouch(b"x", callback=lambda r: print(r, procaio.errno()))
        kept = procaio.mmap(4096, 3, 0x21)
        """,
        os.path.dirname(__file__),
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (f"-1 {errno.ECANCELED}\n" * 5, "", 0)


@not_sanitized
def test_no_thread_can_be_started() -> None:
    """The request fails with the reason; the next one, when it is over, does not."""
    ended = run_program(
        """
        import errno, os, resource, procaio
        mapping = procaio.mmap(4096, 3, 0x21)
        procaio.aio_nop().wait()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096, before[1]))
        requests = [procaio.aio_mtouch(mapping) for _ in range(3)]
        try:
            procaio.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        print({errno.errorcode[r.errno] for r in requests}, procaio.aio_mtouch(mapping).wait())
        """
    )
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert ended.stdout in {"{'EAGAIN'} 0\n", "{'ENOMEM'} 0\n"}


@not_sanitized
def test_library_with_much_thread_local_data(tmp_path: Path) -> None:
    """A thread's stack must have room for it."""
    source, made = tmp_path / "large.c", tmp_path / "large.so"
    source.write_text("__thread char large[1 << 20]; char *use(void) { return large; }\n")
    compile_ = ["cc", "-shared", "-fPIC", "-ftls-model=initial-exec", "-o", made, source]
    subprocess.run(compile_, check=True, timeout=60)
    ended = run_program(
        "import procaio; print(procaio.aio_mtouch(bytearray(9)).wait())",
        env={**os.environ, "LD_PRELOAD": str(made)},
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("0\n", "", 0)


def test_signals_are_not_for_those_threads(workers: procaio.Pool, memory_gate: MemoryGate) -> None:
    """A handler of the program runs, and interrupts no touch."""
    (held,) = memory_gate.hold(workers)
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    for _ in range(10):
        os.kill(os.getpid(), signal.SIGUSR1)
    eventually(lambda: len(seen) > 0, "the handler runs")
    assert held.state == "execute"
    memory_gate.open()
    assert held.wait() == 0
    signal.signal(signal.SIGUSR1, before)


def test_no_process_is_left_of_memory_requests_alone() -> None:
    with procaio.Pool() as pool, anonymous() as mapping:
        procaio.aio_mtouch(mapping, pool=pool).wait()
    assert children() == set()
