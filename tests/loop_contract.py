"""
What every loop owes procaio's callbacks and awaits, as checks that run in any of `drivers.py`.

A check is a generator that runs inside the loop: what it yields to goes on until `resume` is
called, as the callback of a request, by a timer or by hand. Each runs in a process of its own,
forked by this program (`python tests/loop_contract.py KIND`), because some loops can be run once
only, need the main thread, or patch the standard library.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import inspect
import json
import os
import signal
import sys
import threading
import traceback
import warnings
from posix import close  # not what gevent makes of it
from typing import TYPE_CHECKING, Any

if len(sys.argv) > 1 and sys.argv[1] == "gevent-patched":
    try:
        from gevent import monkey
    except ImportError:  # said below
        pass
    else:
        monkey.patch_all()

import procaio
from conftest import children, descriptors, eventually, shared_memory
from drivers import DRIVERS, Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Script = Generator[None, None, None]
    Resume = Callable[..., None]

TIMER = 0.002
"""Seconds of a timer that is to fire soon, but not in this turn of the loop."""


class Skip(Exception):  # noqa: N818 - it is no error
    """What a loop is known not to do."""


def play(driver: Driver, script: Callable[[Resume], Script]) -> None:
    """Run the loop with one script in it, to its end."""
    failures: list[BaseException] = []

    def resume(*_: object) -> None:
        driver.call(step)

    def step() -> None:
        try:
            next(running)
        except StopIteration:
            driver.quit()
        except Exception as error:  # noqa: BLE001 - it is raised below
            failures.append(error)
            driver.quit()

    running = script(resume)
    driver.run(resume)
    if failures:
        raise failures[0]
    assert inspect.getgeneratorstate(running) == "GEN_CLOSED", "the loop ended by itself"


def until(
    driver: Driver, resume: Resume, condition: Callable[[], object]
) -> Generator[None, None, None]:
    """Let the loop run until something is so."""
    while not condition():
        driver.later(TIMER, resume)
        yield


def turns(driver: Driver, resume: Resume, count: int) -> Generator[None, None, None]:
    """Let the loop run for a while."""
    for _ in range(count):
        driver.later(TIMER, resume)
        yield


def hold_up(pool: procaio.Pool, count: int) -> None:
    """Keep the loop from running, as a callback that takes long, until so much was executed."""
    while pool.npending() < count:
        os.sched_yield()


# -- the contract ----------------------------------------------------------------------------------


def callbacks_are_called_in_the_thread_of_the_loop_in_order_of_priority(driver: Driver) -> None:
    def script(resume: Resume) -> Script:
        here, seen = threading.get_native_id(), []

        def note(name: object) -> None:
            assert threading.get_native_id() == here
            seen.append(name)
            if len(seen) == 18:
                resume()

        with procaio.Pool() as pool, procaio.attach(driver.native(), pool=pool):
            for number in range(2):
                for pri in range(-4, 5):
                    made = procaio.aio_nop(pool=pool, pri=pri)
                    made.cb(lambda pri=pri, number=number: note((pri, number)))
            hold_up(pool, 18)
            yield
        assert seen == [(pri, number) for pri in range(4, -5, -1) for number in range(2)]

    play(driver, script)


def an_error_of_a_callback_goes_to_the_hook_and_the_loop_goes_on(driver: Driver) -> None:
    def script(resume: Resume) -> Script:
        caught: list[tuple[type, object]] = []
        procaio.on_callback_error(lambda error, request: caught.append((type(error), request)))
        with procaio.attach(driver.native()):
            bad = [procaio.aio_nop(lambda: 1 / 0) for _ in range(3)]
            yield from until(driver, resume, lambda: len(caught) == 3)
            procaio.aio_stat("/", resume)
            yield
        assert caught == [(ZeroDivisionError, request) for request in bad]

    play(driver, script)


def attach_finds_it_by_itself_by_name_and_by_object(driver: Driver) -> None:
    def script(resume: Resume) -> Script:
        ways = [driver.native()]
        if driver.is_found:
            ways += [None, driver.name]
        for way in ways:
            got: list[os.stat_result] = []
            with procaio.attach(way) as attachment:
                assert type(attachment).__name__ in repr(attachment)
                procaio.aio_stat("/", got.append)
                yield from until(driver, resume, lambda: got)  # noqa: B023 - it ends in the turn
            assert got == [os.stat("/")]

    play(driver, script)


def detach_ends_the_watching_and_another_attach_begins_it_again(driver: Driver) -> None:
    def script(resume: Resume) -> Script:
        attachment = procaio.attach(driver.native())
        procaio.aio_nop(resume)
        yield
        attachment.detach()
        attachment.detach()
        got: list[object] = []
        late = procaio.aio_stat("/", got.append)
        yield from until(driver, resume, procaio.npending)
        yield from turns(driver, resume, 10)
        assert (late.state, got) == ("pending", [])
        with procaio.attach(driver.native()):
            yield from until(driver, resume, lambda: got)

    play(driver, script)


def attaching_twice_watches_once_until_both_have_detached(driver: Driver) -> None:
    def script(resume: Resume) -> Script:
        before = descriptors()
        with procaio.Pool() as pool:
            first = procaio.attach(driver.native(), pool=pool)
            attached = len(descriptors())
            second = procaio.attach(driver.native(), pool=pool)
            assert len(descriptors()) == attached
            got: list[object] = []
            for _ in range(50):
                procaio.aio_nop(lambda: got.append(None), pool=pool)
            yield from until(driver, resume, lambda: len(got) == 50)
            second.detach()
            second.detach()
            procaio.aio_nop(lambda: got.append(None), pool=pool)
            yield from until(driver, resume, lambda: len(got) == 51)
            first.detach()
            procaio.aio_nop(lambda: got.append(None), pool=pool)
            yield from until(driver, resume, pool.npending)
            assert len(got) == 51
        yield from turns(driver, resume, 2)
        assert set(descriptors()) - set(before) == set()

    play(driver, script)


def results_from_before_are_delivered(driver: Driver) -> None:
    with procaio.Pool() as pool:
        got: list[object] = []
        early = [procaio.aio_stat("/", got.append, pool=pool) for _ in range(100)]
        hold_up(pool, 100)

        def script(resume: Resume) -> Script:
            with procaio.attach(driver.native(), pool=pool):
                yield from until(driver, resume, lambda: len(got) == 100)

        play(driver, script)
        assert [request.result for request in early] == got


def several_pools_share_a_loop(driver: Driver) -> None:
    def script(resume: Resume) -> Script:
        with contextlib.ExitStack() as stack:
            pools = [stack.enter_context(procaio.Pool(1)) for _ in range(3)]
            for pool in pools:
                stack.enter_context(procaio.attach(driver.native(), pool=pool))
            got: list[int] = []
            for _ in range(20):
                for number, pool in enumerate(pools):
                    procaio.aio_nop(lambda number=number: got.append(number), pool=pool)
            yield from until(driver, resume, lambda: len(got) == 60)
            assert [got.count(number) for number in range(3)] == [20] * 3
            pools[0].close()
            procaio.aio_nop(resume, pool=pools[1])
            yield

    play(driver, script)


def one_pool_serves_two_loops_in_two_threads(driver: Driver) -> None:
    """Whichever loop is quicker delivers; what is awaited goes on in its own thread."""
    if not driver.has_threads:
        raise Skip("its threads are greenlets")
    kind = type(driver) if driver.runs_in_threads else DRIVERS["asyncio"]
    failures: list[BaseException] = []
    seen: list[int] = []
    threads: set[int] = set()
    together = threading.Barrier(2)

    def script_of(owner: Driver) -> Callable[[Resume], Script]:
        def script(resume: Resume) -> Script:
            threads.add(threading.get_native_id())
            together.wait(20)

            def note(_: object) -> None:
                seen.append(threading.get_native_id())

            with procaio.attach(owner.native(), pool=pool):
                for _ in range(300):
                    procaio.aio_stat("/", note, pool=pool)
                yield from until(owner, resume, lambda: len(seen) == 600)

        return script

    def other() -> None:
        try:
            second = kind()
            play(second, script_of(second))
            second.dispose()
        except BaseException as error:  # noqa: BLE001 - told below
            failures.append(error)

    with procaio.Pool() as pool:
        thread = threading.Thread(target=other)
        thread.start()
        play(driver, script_of(driver))
        thread.join(20)
    assert failures == []
    assert set(seen) <= threads
    assert len(seen) == 600


def a_pool_may_be_closed_in_another_thread(driver: Driver) -> None:
    """The loop runs on, gives everything back, and watches the next pool, of the same number."""

    def script(resume: Resume) -> Script:
        for _ in range(2):
            before = set(descriptors())
            pool = procaio.Pool(1)
            procaio.attach(driver.native(), pool=pool)
            procaio.aio_nop(resume, pool=pool)
            yield
            closer = threading.Thread(target=pool.close)
            closer.start()
            yield from until(driver, resume, lambda: pool.closed and not closer.is_alive())  # noqa: B023
            with procaio.Pool(1) as following, procaio.attach(driver.native(), pool=following):
                yield from turns(driver, resume, 2)
                procaio.aio_nop(resume, pool=following)
                yield
            yield from turns(driver, resume, 2)
            assert set(descriptors()) - before == set()

    play(driver, script)


def timers_get_their_turn_during_heavy_io(driver: Driver) -> None:
    """Of ten thousand requests, 512 are outstanding all the time."""

    def script(resume: Resume) -> Script:
        done = ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1
            if done < 10_000:
                driver.later(0, tick)

        def another() -> None:
            nonlocal done
            done += 1
            if done <= 10_000 - 512:
                procaio.aio_nop(another)
            elif done == 10_000:
                resume()

        with procaio.attach(driver.native()):
            for _ in range(512):
                procaio.aio_nop(another)
            tick()
            yield
        assert ticks > 100

    play(driver, script)


def wait_works_in_a_callback(driver: Driver) -> None:
    def script(resume: Resume) -> Script:
        got: list[object] = []

        def outer() -> None:
            got.append(procaio.aio_stat("/").wait())
            procaio.flush()
            resume_soon()

        def resume_soon() -> None:
            driver.later(0, resume)

        with procaio.attach(driver.native()):
            procaio.aio_nop(outer)
            procaio.aio_busy(0.001, lambda: got.append("flushed"))
            yield
        assert sorted(map(str, got)) == sorted([str(os.stat("/")), "flushed"])

    play(driver, script)


def callback_await_and_wait_see_the_same_in_this_order(driver: Driver) -> None:
    """The callback, then those that wait."""

    def script(resume: Resume) -> Script:
        order: list[tuple[str, object]] = []

        async def task(name: str, request: procaio.Request[Any]) -> None:
            try:
                order.append((name, await request))
            except OSError as error:
                order.append((name, error.errno))

        with procaio.attach(driver.native()):
            for path in ("/", "/no"):
                order.clear()
                request = procaio.aio_stat(path, lambda found: order.append(("callback", found)))
                if driver.has_tasks:
                    for name in ("first", "second"):
                        driver.spawn(task(name, request))
                    yield from until(driver, resume, lambda: len(order) == 3)
                    assert sorted(name for name, _ in order[1:]) == ["first", "second"]
                try:
                    order.append(("wait", request.wait()))
                except OSError as error:
                    order.append(("wait", error.errno))
                assert order[0] == ("callback", request.result)
                values = {value for _, value in order[1:]}
                assert values == {request.result or request.errno}

    play(driver, script)


def a_task_that_awaits_needs_no_attach(driver: Driver) -> None:
    if not driver.has_tasks:
        raise Skip("it has no tasks")

    def script(resume: Resume) -> Script:
        async def task(path: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                await procaio.aio_stat(path)
            got.append(path)

        got: list[str] = []
        for _ in range(100):
            driver.spawn(task("/"))
            driver.spawn(task("/no"))
        yield from until(driver, resume, lambda: len(got) == 200)

    play(driver, script)


def a_forked_child_uses_its_own(driver: Driver) -> None:
    """What it does there, and how it leaves, is nothing to the parent's loop."""

    def script(resume: Resume) -> Script:
        with procaio.Pool() as pool, procaio.attach(driver.native(), pool=pool) as attachment:
            procaio.aio_nop(resume, pool=pool)
            yield
            got: list[object] = []
            late = [procaio.aio_busy(0.01, lambda: got.append(None), pool=pool) for _ in range(5)]
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    signal.alarm(20)
                    assert late[0].state == "dead"
                    assert procaio.aio_stat("/", pool=pool).wait() == os.stat("/")
                    attachment.detach()
                    pool.close()
                    code = 0
                except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
                    traceback.print_exc()
                finally:
                    os._exit(code)
            status: list[int] = []

            def has_ended() -> bool:
                found, code = os.waitpid(pid, os.WNOHANG)
                status.extend([code] if found else [])
                return bool(found)

            yield from until(driver, resume, has_ended)
            assert status == [0]
            yield from until(driver, resume, lambda: len(got) == 5)
            procaio.aio_nop(resume, pool=pool)
            yield

    play(driver, script)


def a_forked_child_that_never_used_it_leaves_the_watching_alone(driver: Driver) -> None:
    def script(resume: Resume) -> Script:
        with procaio.Pool() as pool, procaio.attach(driver.native(), pool=pool) as attachment:
            procaio.aio_nop(resume, pool=pool)
            yield
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                attachment.detach()
                pool.close()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            procaio.aio_nop(resume, pool=pool)
            yield

    play(driver, script)


def many_loops_leave_nothing(driver: Driver) -> None:
    """Each attaches, none detaches, and some end with no word."""
    if not driver.runs_again:
        raise Skip("it runs once only")
    kind, pool = type(driver), procaio.Pool(1)

    def script(resume: Resume) -> Script:
        procaio.attach(current.native(), pool=pool)
        procaio.aio_nop(resume, pool=pool)
        yield

    def footprint() -> int:
        gc.collect()
        return len(descriptors()) + len(os.listdir("/proc/self/task"))

    current = driver
    play(driver, script)
    for _ in range(3):
        current.dispose()
        current = kind()
        play(current, script)
    before = footprint()
    for _ in range(25 if kind.name == "tk" else 100):
        current.dispose()
        current = kind()
        play(current, script)
    # The spawner opens something for a moment now and then.
    eventually(lambda: footprint() <= before, "what was opened for the loops is closed")
    current.dispose()
    pool.close()


@contextlib.contextmanager
def _silence() -> Any:
    """Of what loops print, some before they raise."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    hook = sys.excepthook
    sys.excepthook = lambda *_: None
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        close(saved)
        close(null)
        sys.excepthook = hook


def _interrupted(driver: Driver, kind: type[BaseException]) -> None:
    pool, got = procaio.Pool(1), []

    def interrupt() -> None:
        raise kind

    def script(resume: Resume) -> Script:
        procaio.attach(driver.native(), pool=pool)
        procaio.aio_nop(interrupt, pool=pool)
        for _ in range(40):
            procaio.aio_nop(lambda: got.append(None), pool=pool)
        if driver.has_tasks:

            async def task() -> None:
                await procaio.aio_busy(0.01, pool=pool)

            driver.spawn(task())
        yield from until(driver, resume, lambda: len(got) == 40)

    if driver.raises_interrupts:
        caught: list[BaseException] = []
        with _silence():
            try:
                play(driver, script)
            except BaseException as error:  # noqa: BLE001 - looked at below
                caught.append(error)
        (error,) = caught
        while hasattr(error, "exceptions"):  # a group, of a nursery
            (error,) = error.exceptions
        assert type(error) is kind, repr(error)
        pool.flush()
    else:
        with _silence():
            play(driver, script)
    assert len(got) == 40
    pool.close()


def an_interrupt_in_a_callback_loses_nothing(driver: Driver) -> None:
    _interrupted(driver, KeyboardInterrupt)


def an_exit_in_a_callback_loses_nothing(driver: Driver) -> None:
    if driver.name in {"qt", "glib"} or type(driver).__name__ == "QtAsyncio":
        raise Skip("it ends the program at once, as from any callback of this loop")
    _interrupted(driver, SystemExit)


CHECKS = {
    name: check
    for name, check in list(globals().items())
    if inspect.isfunction(check)
    and check.__module__ == __name__
    and list(inspect.signature(check).parameters) == ["driver"]
}


# -- the program -----------------------------------------------------------------------------------


def _run(kind: type[Driver], check: Callable[[Driver], None]) -> str:
    """What a forked child says: nothing, a reason to skip it, or what went wrong."""
    faulthandler.dump_traceback_later(20, exit=True)
    warnings.simplefilter("error")
    before = children(), shared_memory()
    try:
        kind.warm_up()
        threads_before = threading.active_count()
        driver = kind()
        open_before = descriptors()
        check(driver)
        procaio.on_callback_error(None)
        procaio.close()
        del driver
        gc.collect()
        new = set(descriptors()) - set(open_before)
        assert new == set(), {number: descriptors().get(number) for number in new}
        assert children() - before[0] == set()
        assert threading.active_count() - threads_before <= kind.threads
    except Skip as skip:
        return f"skip {skip}"
    except BaseException:  # noqa: BLE001 - it is reported
        return traceback.format_exc()
    return ""


def _answer(kind: type[Driver], check: Callable[[Driver], None]) -> str:
    out = os.memfd_create("result")
    error = os.memfd_create("stderr")
    pid = os.fork()
    if pid == 0:
        os.dup2(error, 2)
        os.write(out, _run(kind, check).encode())
        sys.stderr.flush()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    text = os.pread(out, 100_000, 0).decode()
    said = os.pread(error, 100_000, 0).decode(errors="replace")
    os.close(out)
    os.close(error)
    if text.startswith("skip"):
        return text
    return text + (f"ended with {status}\n" if status else "") + said


def main(name: str) -> dict[str, str]:
    """What each check says; or why there is nothing to check."""
    kind = DRIVERS[name]
    try:
        for module in kind.modules:
            importlib.import_module(module)
    except ImportError as error:
        return {"": f"skip needs {module}: {error}"}
    gc.freeze()  # what children do not look at need not be copied for them
    return {name: _answer(kind, check) for name, check in CHECKS.items()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
