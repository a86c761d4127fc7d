"""Greenlets: what waits blocks its own only. Each program is a process, since gevent stays."""

from __future__ import annotations

import pytest

from conftest import not_sanitized, run_fine

pytest.importorskip("gevent")
pytestmark = not_sanitized

PLAIN = """
    import gevent, gevent.event, os, sys, procaio
    attachment = procaio.attach("gevent")
"""
PATCHED = """
    from gevent import monkey
    monkey.patch_all()
    import gevent, gevent.event, os, sys, procaio
"""
COMMON = """
    def gate():
        read, write = os.pipe()
        return procaio.aio_read(read, None, 1), lambda: os.write(write, b"x")
    def ticker():
        while True:
            ticks.append(1)
            gevent.sleep(0.001)
    ticks = []
"""
KINDS = pytest.mark.parametrize("begin", [PLAIN, PATCHED], ids=["attached", "patched"])


@KINDS
def test_waiting_of_every_kind_lets_other_greenlets_run(begin: str) -> None:
    """wait() of a request and of a group, flush(), poll() and poll_wait()."""
    run_fine(
        """
        def group_wait():
            group = procaio.aio_group()
            group.add(procaio.aio_busy(0.05))
            group.wait()
        def poll_wait():
            while procaio.nreqs():
                procaio.poll_wait()
                procaio.poll_cb()
        def poll():
            while procaio.nreqs():
                procaio.poll()
        waits = [procaio.aio_busy(0.05).wait, group_wait, procaio.flush, poll_wait, poll]
        background = gevent.spawn(ticker)
        for wait in waits:
            busy = procaio.aio_busy(0.05)
            before = len(ticks)
            wait()
            assert len(ticks) > before + 3, (wait, len(ticks) - before)
            procaio.flush()
        background.kill()
        print("fine")
        """,
        begin,
        COMMON,
    )


@KINDS
def test_a_thousand_greenlets_wait_at_the_same_time(begin: str) -> None:
    """Each gets its own value, whoever delivers it."""
    run_fine(
        """
        names = os.listdir("/etc")[:50]
        def stat(name):
            return procaio.aio_lstat(f"/etc/{name}").wait().st_ino
        found = [gevent.spawn(stat, name) for name in names * 20]
        flushing = [gevent.spawn(procaio.flush) for _ in range(20)]
        gevent.joinall([*found, *flushing], timeout=30, raise_error=True)
        assert [each.value for each in found] == [os.lstat(f"/etc/{n}").st_ino for n in names] * 20
        assert all(each.ready() for each in flushing)
        print("fine")
        """,
        begin,
        COMMON,
    )


@KINDS
def test_who_waits_for_anything_sees_what_another_greenlet_has_delivered(begin: str) -> None:
    """poll_cb() of one ends the flush() and the poll() of others."""
    run_fine(
        """
        held, open_gate = gate()
        waiting = [gevent.spawn(wait) for wait in (procaio.flush, procaio.poll, procaio.poll_wait)]
        gevent.sleep(0)
        open_gate()
        while not procaio.npending() and procaio.nreqs():
            os.sched_yield()
        procaio.poll_cb()
        assert procaio.nreqs() == 0
        gevent.joinall(waiting, timeout=30, raise_error=True)
        assert all(each.ready() for each in waiting)
        print("fine")
        """,
        begin,
        COMMON,
    )


@KINDS
def test_greenlet_that_is_killed_or_times_out_leaves_the_request_alone(begin: str) -> None:
    """kill(), gevent.Timeout and the timeout of wait() itself end the waiting, no more."""
    run_fine(
        """
        held, open_gate = gate()
        waiting = [gevent.spawn(held.wait) for _ in range(3)]
        gevent.sleep(0)
        waiting[0].kill()
        assert isinstance(waiting[0].value, gevent.GreenletExit)
        with gevent.Timeout(0.001, False):
            held.wait()
            sys.exit("it has not ended")
        try:
            held.wait(0.001)
        except TimeoutError:
            pass
        else:
            sys.exit("it has not ended")
        assert held.state in ("ready", "execute"), held.state
        open_gate()
        gevent.joinall(waiting, timeout=30, raise_error=True)
        assert [each.value for each in waiting[1:]] == [b"x", b"x"]
        print("fine")
        """,
        begin,
        COMMON,
    )


@KINDS
def test_wait_in_a_callback(begin: str) -> None:
    """In the hub it blocks all; in a callback that a waiting greenlet was to call, that one."""
    run_fine(
        """
        procaio.attach("gevent")
        got, done = [], gevent.event.Event()
        def callback():
            got.append(procaio.aio_stat("/").wait())
            done.set()
        procaio.aio_nop(callback)
        assert done.wait(30)
        procaio.aio_nop(callback).wait()
        procaio.aio_nop(callback)
        procaio.poll_wait()
        procaio.flush()
        assert got == [os.stat("/")] * 3
        print("fine")
        """,
        begin,
        COMMON,
    )


@KINDS
def test_threads_of_the_system_beside_greenlets(begin: str) -> None:
    """They block as ever, and what a greenlet waits for may be delivered by one of them."""
    run_fine(
        """
        pool = gevent.get_hub().threadpool
        background = gevent.spawn(ticker)
        def work():
            for _ in range(100):
                assert procaio.aio_stat("/").wait() == os.stat("/")
            return True
        threads = [pool.spawn(work) for _ in range(3)]
        greenlets = [gevent.spawn(work) for _ in range(3)]
        assert all(each.get(timeout=30) for each in threads + greenlets)
        assert ticks
        background.kill()
        pool.kill()
        print("fine")
        """,
        begin,
        COMMON,
    )


@KINDS
def test_forked_child_has_a_hub_and_a_pool_of_its_own(begin: str) -> None:
    """What the parent waits for goes on there; greenlets that wait are told in the child."""
    run_fine(
        """
        def child():
            mine = procaio.aio_busy(0.03)
            background = gevent.spawn(ticker)
            procaio.attach("gevent")
            mine.wait()
            assert len(ticks) > 3, ticks
            background.kill()
            waiting.join(10)
            assert isinstance(waiting.exception, RuntimeError), waiting
            procaio.close()
        held, open_gate = gate()
        waiting = gevent.spawn(held.wait)
        gevent.get_hub().exception_stream = None  # the child's greenlet fails, as it is to
        gevent.sleep(0)
        pid = gevent.fork()
        if pid == 0:
            try:
                child()
                os._exit(0)
            except BaseException:
                import traceback
                traceback.print_exc()
            os._exit(1)
        assert os.waitstatus_to_exitcode(gevent.os.waitpid(pid, 0)[1]) == 0
        open_gate()
        assert waiting.get(timeout=30) == b"x"
        print("fine")
        """,
        begin,
        COMMON,
    )


def test_nothing_is_different_where_nobody_attached() -> None:
    """Importing gevent alone changes nothing: wait() blocks, as the program may count on."""
    run_fine(
        """
        import gevent, procaio
        ticks = []
        background = gevent.spawn(ticks.append, 1)
        procaio.aio_busy(0.01).wait()
        assert ticks == []
        with procaio.attach("gevent"):
            procaio.aio_busy(0.01).wait()
        assert ticks == [1]
        print("fine")
        """
    )


@KINDS
def test_detach_while_a_greenlet_waits(begin: str) -> None:
    """It still gets its value: it has attached the hub for itself."""
    run_fine(
        """
        held, open_gate = gate()
        attachment = procaio.attach("gevent")
        waiting = gevent.spawn(held.wait)
        gevent.sleep(0)
        attachment.detach()
        open_gate()
        assert waiting.get(timeout=30) == b"x"
        print("fine")
        """,
        begin,
        COMMON,
    )


def test_exit_in_a_callback_reaches_the_main_greenlet_and_delivering_goes_on() -> None:
    """Gevent stops a watcher that raises; SystemExit is for the main greenlet, as ever."""
    run_fine(
        """
        procaio.aio_nop(lambda: sys.exit(3))
        try:
            gevent.sleep(10)
        except SystemExit as error:
            assert error.code == 3
        procaio.aio_busy(0.01).wait()
        procaio.aio_busy(0.01)
        procaio.flush()
        print("fine")
        """,
        PLAIN,
    )
