"""Request: its life from call to callback, and what a caller may do with it (rules A, L)."""

from __future__ import annotations

import errno
import gc
import os
import sys
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from conftest import descriptors, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Gate


# -- life ------------------------------------------------------------------------------------------


def test_request_goes_from_ready_over_execute_and_pending_to_done(
    workers: procaio.Pool, gate: Gate
) -> None:
    """Only poll_cb moves a request from pending to done (A1)."""
    workers.max_parallel(1)
    (first,) = gate.hold(workers)
    second = procaio.aio_read(gate.fd, None, 1, pool=workers)
    assert (first.state, second.state) == ("execute", "ready")
    gate.open()
    eventually(lambda: first.state == "pending" and second.state == "execute", "the next one runs")
    assert (first.result, first.errno) == (None, 0)
    workers.poll_cb()
    assert (first.state, first.result) == ("done", b"x")
    gate.open()
    assert second.wait() == b"x"


def test_inline_request_is_pending_after_the_call() -> None:
    """Without processes the work is done in the call; the callback still waits for poll_cb (A1)."""
    seen: list[int] = []
    with procaio.Pool(inline=True) as pool:
        request = procaio.aio_nop(lambda: seen.append(1), pool=pool)
        assert (request.state, seen) == ("pending", [])
        assert pool.poll_cb() == 0
        assert (request.state, seen) == ("done", [1])


def test_callback_gets_the_result_and_errno_zero(pool: procaio.Pool, data_file: Path) -> None:
    """On success the callback gets what await gives, and errno() is 0 (A8)."""
    seen: list[object] = []

    def done(*arguments: object) -> None:
        seen.append((arguments, procaio.errno(), request.state, request.result, request.error))

    request = procaio.aio_stat(data_file, done, pool=pool)
    assert request.wait() == os.stat(data_file)
    assert seen == [((os.stat(data_file),), 0, "done", os.stat(data_file), None)]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda path, cb, pool: procaio.aio_open(path, cb, pool=pool), (None,)),
        (lambda path, cb, pool: procaio.aio_stat(path, cb, pool=pool), (None,)),
        (lambda path, cb, pool: procaio.aio_statvfs(path, cb, pool=pool), (None,)),
        (lambda path, cb, pool: procaio.aio_unlink(path, cb, pool=pool), (-1,)),
        (lambda path, cb, pool: procaio.aio_rename(path, path, cb, pool=pool), (-1,)),
        (lambda path, cb, pool: procaio.aio_readdir(path, cb, pool=pool), (None,)),
        (lambda path, cb, pool: procaio.aio_readdirx(path, 5, cb, pool=pool), (None, 5)),
    ],
)
def test_callback_of_a_failure_gets_its_mark_and_errno(
    pool: procaio.Pool, tmp_path: Path, call: Any, answer: tuple[object, ...]
) -> None:
    """-1 where a number is expected, None where an object is; the errno is at hand (A8)."""
    seen: list[object] = []

    def done(*arguments: object) -> None:
        seen.append((arguments, procaio.errno()))

    request = call(tmp_path / "no", done, pool)
    procaio.aio_nop(lambda: seen.append(procaio.errno()), pool=pool)
    pool.flush()
    assert (answer, errno.ENOENT) in seen
    assert 0 in seen
    assert procaio.errno() == 0
    assert (request.result, request.errno, request.state) == (None, errno.ENOENT, "done")


@pytest.mark.parametrize("call", [procaio.aio_fsync, procaio.aio_close])
def test_callback_of_a_failed_descriptor_call_gets_minus_one(pool: procaio.Pool, call: Any) -> None:
    seen: list[object] = []
    call(-1, lambda status: seen.append((status, procaio.errno())), pool=pool)
    procaio.aio_read(-1, 0, 1, lambda data: seen.append((data, procaio.errno())), pool=pool)
    procaio.aio_read(-1, 0, 1, bytearray(), lambda n: seen.append((n, procaio.errno())), pool=pool)
    procaio.aio_write(-1, 0, 1, b"x", lambda n: seen.append((n, procaio.errno())), pool=pool)
    pool.flush()
    bad = errno.EBADF
    assert sorted(seen, key=str) == [(-1, bad), (-1, bad), (-1, bad), (None, bad)]


def test_callbacks_of_nop_and_busy_get_nothing(pool: procaio.Pool) -> None:
    seen: list[object] = []
    nop = procaio.aio_nop(lambda *arguments: seen.append(arguments), pool=pool)
    busy = procaio.aio_busy(0.001, lambda *arguments: seen.append(arguments), pool=pool)
    assert (nop.wait(), busy.wait(), seen) == (None, None, [(), ()])


def test_file_object_is_kept_open_until_the_request_is_done(
    workers: procaio.Pool, gate: Gate, data_file: Path
) -> None:
    """The object passed in stays referenced until then, and no longer (A9)."""
    workers.max_parallel(1)
    gate.hold(workers)
    file = open(data_file, "rb")  # noqa: SIM115 - the request has to keep it
    alive = weakref.ref(file)
    request = procaio.aio_read(file, 16, 16, pool=workers)
    del file
    gc.collect()
    assert alive() is not None
    alive().close  # noqa: B018
    gate.open()
    with alive():  # closed properly, so that no ResourceWarning is due
        assert request.wait() == (1).to_bytes(16, "big")
    assert alive() is None


def test_relative_paths_and_umask_are_those_of_the_execution(
    workers: procaio.Pool, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is where the program is when a worker runs the request (A10, A13)."""
    workers.max_parallel(1)
    gate.hold(workers)
    request = procaio.aio_mkdir("made", 0o777, pool=workers)
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o027)
    try:
        gate.open()
        request.wait()
    finally:
        os.umask(mask)
    assert os.stat(tmp_path / "made").st_mode & 0o777 == 0o750


# -- cancel ----------------------------------------------------------------------------------------


def test_cancel_of_a_ready_request_prevents_it(
    workers: procaio.Pool, gate: Gate, tmp_path: Path
) -> None:
    """It is never executed, its callback never called (L1); it counts until polled (L2)."""
    workers.max_parallel(1)
    held = gate.hold(workers)
    seen: list[object] = []
    request = procaio.aio_mkdir(tmp_path / "no", callback=seen.append, pool=workers)
    assert request.cancel()
    assert not request.cancel()
    assert (request.state, workers.nreqs()) == ("cancelled", 2)
    workers.poll_cb()
    assert workers.nreqs() == 1
    with pytest.raises(procaio.RequestCancelled):
        request.wait()
    gate.open()
    held[0].wait()
    assert (seen, os.listdir(tmp_path)) == ([], ["gate"])
    assert (request.state, request.errno, request.error) == ("cancelled", 0, None)


def test_cancel_of_a_running_request_suppresses_the_callback(
    workers: procaio.Pool, gate: Gate
) -> None:
    """The system call runs on; its result is thrown away (L1)."""
    seen: list[object] = []
    (held,) = gate.hold(workers)
    held.cb(seen.append)
    assert not held.cancel()
    assert held.state == "cancelled"
    gate.open(2)
    workers.flush()
    assert os.read(gate.fd, 9) == b"x"  # the request has read the other
    assert (held.state, held.result, seen) == ("cancelled", None, [])


def test_cancel_of_a_pending_request_suppresses_the_callback(pool: procaio.Pool) -> None:
    """What was executed and not yet polled ends silently (L1)."""
    seen: list[object] = []
    request = procaio.aio_nop(lambda: seen.append(1), pool=pool)
    eventually(lambda: request.state == "pending", "the request is executed")
    assert not request.cancel()
    pool.flush()
    assert (request.state, seen) == ("cancelled", [])
    with pytest.raises(procaio.RequestCancelled):
        request.wait()


def test_cancel_of_a_pending_open_closes_the_descriptor(
    pool: procaio.Pool, data_file: Path
) -> None:
    """A descriptor that nobody will get is closed (the leak check of every test sees to it)."""
    for flags in (os.O_RDONLY, os.O_PATH, os.O_RDWR | os.O_APPEND):
        request = procaio.aio_open(data_file, flags, pool=pool)
        eventually(lambda request=request: request.state == "pending", "it is open")
        request.cancel()
    pool.flush()


@pytest.mark.parametrize("state", ["ready", "execute", "pending", "done"])
def test_open_that_is_cancelled_leaves_no_descriptor(
    workers: procaio.Pool, gate: Gate, tmp_path: Path, state: str
) -> None:
    """What arrives after the cancelling is closed; what was delivered is the program's (L1)."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    if state == "ready":
        workers.max_parallel(1)
        gate.hold(workers)
    request = procaio.aio_open(path, os.O_RDONLY, pool=workers)
    writer = -1
    if state != "ready":
        eventually(lambda: request.state == "execute", "it waits for a writer")
    if state in {"pending", "done"}:
        writer = os.open(path, os.O_WRONLY)
        eventually(lambda: request.state == "pending", "it is open")
    if state == "done":
        request.wait()
    assert request.cancel() == (state == "ready")
    if state == "ready":
        gate.open()
    elif state == "execute":
        writer = os.open(path, os.O_WRONLY)
    workers.flush()

    def reading() -> set[int]:
        return {fd for fd, what in descriptors().items() if what == str(path)} - {writer}

    if state == "done":
        with request.result as handle:
            assert reading() == {handle.fileno()}
    else:
        eventually(lambda: not reading(), "a worker has closed it")
        assert request.result is None
    if writer >= 0:
        os.close(writer)


def test_cancel_after_the_end_does_nothing(pool: procaio.Pool) -> None:
    """A request that is done stays done (A4)."""
    request = procaio.aio_nop(pool=pool)
    request.wait()
    assert not request.cancel()
    assert (request.state, request.wait()) == ("done", None)


def test_cancel_inside_the_own_callback_does_nothing(pool: procaio.Pool) -> None:
    seen: list[object] = []
    request = procaio.aio_nop(lambda: seen.append(request.cancel()), pool=pool)
    assert request.wait() is None
    assert (seen, request.state) == ([False], "done")


def test_cancel_by_an_earlier_callback_suppresses_a_later_one(pool: procaio.Pool) -> None:
    """What is pending in the same poll_cb can still be cancelled (L1)."""
    seen: list[object] = []
    requests: list[procaio.Request] = []
    procaio.aio_nop(lambda: seen.append(requests[0].cancel()), pool=pool, pri=4)
    requests.append(procaio.aio_nop(lambda: seen.append("late"), pool=pool, pri=-4))
    eventually(lambda: pool.npending() == 2, "both are executed")
    pool.flush()
    assert seen == [False]


def test_cancelled_close_of_a_handle_leaves_it_open(
    workers: procaio.Pool, gate: Gate, data_file: Path
) -> None:
    """aio_close that never ran has closed nothing: the FileHandle is open again (L1)."""
    workers.max_parallel(1)
    with procaio.aio_open(data_file, pool=workers).wait() as handle:
        gate.hold(workers)
        request = procaio.aio_close(handle, pool=workers)
        assert handle.closed
        assert request.cancel()
        assert not handle.closed
        os.fstat(handle.fileno())
        gate.open()
        workers.flush()


# -- the callback ----------------------------------------------------------------------------------


def test_cb_replaces_the_callback_and_returns_the_previous(pool: procaio.Pool) -> None:
    seen: list[str] = []

    def first() -> None:
        seen.append("first")

    def second() -> None:
        seen.append("second")

    request = procaio.aio_nop(pool=pool)
    assert request.callback is None
    assert request.cb(first) is None
    assert request.cb(second) is first
    assert request.callback is second
    pool.flush()
    assert seen == ["second"]


def test_cb_none_removes_the_callback(pool: procaio.Pool) -> None:
    request = procaio.aio_nop(pytest.fail, pool=pool)
    assert request.cb(None) is pytest.fail
    assert request.wait() is None


@pytest.mark.parametrize("wrong", [3, "name", ()])
def test_cb_of_what_cannot_be_called_raises(pool: procaio.Pool, wrong: object) -> None:
    """TypeError in the call; the callback stays (A5)."""
    request = procaio.aio_nop(print, pool=pool)
    with pytest.raises(TypeError, match="callable"):
        request.cb(wrong)
    assert request.cb(None) is print
    pool.flush()


def test_cb_after_the_end_does_nothing(pool: procaio.Pool) -> None:
    """The callback is not called twice, nor called late (A4)."""
    request = procaio.aio_nop(pool=pool)
    request.wait()
    assert request.cb(pytest.fail) is None
    pool.flush()
    assert request.callback is None


def test_callback_is_let_go_after_the_call(pool: procaio.Pool) -> None:
    """A request that is kept keeps neither its callback nor what that refers to."""

    class Callback:
        def __call__(self) -> None:
            """Nothing to do."""

    callback = Callback()
    alive = weakref.ref(callback)
    request = procaio.aio_nop(callback, pool=pool)
    del callback
    assert alive() is not None
    request.wait()
    assert alive() is None


# -- what a request tells --------------------------------------------------------------------------


def test_repr_tells_kind_argument_state_and_priority(pool: procaio.Pool, tmp_path: Path) -> None:
    stat = procaio.aio_stat("/no", pool=pool, pri=2)
    rename = procaio.aio_rename("/no", b"/not", pool=pool)
    fsync = procaio.aio_fsync(-1, pool=pool)
    nop = procaio.aio_nop(pool=pool)
    pool.flush()
    assert repr(stat) == "<Request stat '/no' done pri=2 failed>"
    assert repr(rename) == "<Request rename '/no' -> b'/not' done pri=0 failed>"
    assert repr(fsync) == "<Request fsync done pri=0 failed>"
    assert repr(nop) == "<Request nop done pri=0>"


def test_repr_follows_the_state(workers: procaio.Pool, gate: Gate) -> None:
    (held,) = gate.hold(workers)
    assert repr(held) == f"<Request read fd={gate.fd} execute pri=0>"
    held.cancel()
    assert repr(held) == f"<Request read fd={gate.fd} cancelled pri=0>"
    gate.open()


def test_request_carries_attributes_of_the_program(pool: procaio.Pool) -> None:
    """A program may hang its own attributes on it; ours cannot be overwritten."""
    request = procaio.aio_nop(pool=pool)
    request.tag = "mine"
    assert request.tag == "mine"
    assert vars(request) == {"tag": "mine"}
    for name in ("state", "result", "errno", "error", "pri", "callback"):
        with pytest.raises(AttributeError):
            setattr(request, name, None)
    with pytest.raises(AttributeError):
        _ = request.other
    request.wait()
    del request.tag


def test_request_cannot_be_made_by_hand() -> None:
    for cls in (procaio.Request, procaio.FileHandle):
        with pytest.raises(TypeError):
            cls()


def test_request_is_weakly_referenced_and_lives_until_its_callback(
    workers: procaio.Pool, gate: Gate
) -> None:
    """The pool keeps a request that nobody else keeps, until it is done."""
    seen: list[bytes] = []
    alive = weakref.ref(procaio.aio_read(gate.fd, None, 1, seen.append, pool=workers))
    gc.collect()
    assert alive() is not None
    gate.open()
    workers.flush()
    assert (alive(), seen) == (None, [b"x"])


def test_cycles_through_requests_are_collected(pool: procaio.Pool) -> None:
    """Callback, attributes and result of a request may refer to it."""
    request = procaio.aio_nop(pool=pool)
    request.itself = request
    request.cb(lambda request=request: request)
    alive = weakref.ref(request)
    pool.flush()
    del request
    gc.collect()
    assert alive() is None


# -- errors ----------------------------------------------------------------------------------------


def test_error_is_that_of_os_and_names_the_callers_own_path(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """str, bytes or PathLike: the OSError carries the very object that was given."""
    for path in (str(tmp_path / "no"), os.fsencode(tmp_path / "no"), tmp_path / "no"):
        request = procaio.aio_stat(path, pool=pool)
        with pytest.raises(FileNotFoundError) as raised:
            request.wait()
        assert raised.value.filename is path
        assert type(request.error) is FileNotFoundError
        with pytest.raises(FileNotFoundError) as expected:
            os.stat(path)
        if not isinstance(path, os.PathLike):  # os names what __fspath__ gave
            assert str(raised.value) == str(request.error) == str(expected.value)


def test_error_of_rename_names_both_paths(pool: procaio.Pool, tmp_path: Path) -> None:
    paths = str(tmp_path / "no"), os.fsencode(tmp_path / "other")
    with pytest.raises(FileNotFoundError) as raised:
        procaio.aio_rename(*paths, pool=pool).wait()
    assert (raised.value.filename, raised.value.filename2) == paths
    with pytest.raises(FileNotFoundError) as expected:
        os.rename(*paths)
    assert str(raised.value) == str(expected.value)


def test_error_of_a_handle_names_its_path(pool: procaio.Pool, data_file: Path) -> None:
    """Also where os could not: a FileHandle knows what it was opened with."""
    with procaio.aio_open(data_file, pool=pool).wait() as handle:
        with pytest.raises(OSError) as raised:
            procaio.aio_write(handle, 0, None, b"read-only", pool=pool).wait()
        assert (raised.value.errno, raised.value.filename) == (errno.EBADF, data_file)


def test_error_raised_twice_does_not_pile_up_tracebacks(pool: procaio.Pool) -> None:
    """Every raise is a new exception; keeping the request keeps no frames."""
    request = procaio.aio_stat("/no", pool=pool)
    lengths = set()
    for _ in range(5):
        with pytest.raises(FileNotFoundError) as raised:
            request.wait()
        lengths.add(len(traceback.extract_tb(raised.value.__traceback__)))
    assert lengths == {1}
    assert request.error is not request.error
    assert request.error.__traceback__ is None


def test_result_stays_with_the_request(pool: procaio.Pool, data_file: Path) -> None:
    """wait() may be called again, and result read as often as one likes."""
    request = procaio.aio_read(os.open(data_file, os.O_RDONLY), 0, 16, pool=pool)
    data = request.wait()
    os.close(int(repr(request).split("fd=")[1].split()[0]))
    assert request.wait() is data
    assert request.result is data


# -- wait ------------------------------------------------------------------------------------------


def test_wait_runs_callbacks_of_others(workers: procaio.Pool, gate: Gate) -> None:
    """Waiting for one request polls: what ends meanwhile is delivered."""
    seen: list[str] = []
    (held,) = gate.hold(workers)

    def release() -> None:
        seen.append("other")
        gate.open()

    procaio.aio_nop(release, pool=workers)
    assert held.wait() == b"x"
    assert seen == ["other"]


def test_wait_that_times_out_leaves_the_request_alone(workers: procaio.Pool, gate: Gate) -> None:
    """The builtin TimeoutError; the request goes on."""
    (held,) = gate.hold(workers)
    for seconds in (0, 0.001):
        with pytest.raises(TimeoutError):
            held.wait(timeout=seconds)
        assert held.state == "execute"
    gate.open()
    assert held.wait(timeout=float("inf")) == b"x"


@pytest.mark.parametrize("wrong", [-1, float("nan"), -0.001])
def test_wait_with_a_negative_timeout_raises(pool: procaio.Pool, wrong: float) -> None:
    request = procaio.aio_nop(pool=pool)
    with pytest.raises(ValueError, match="negative"):
        request.wait(wrong)
    with pytest.raises(TypeError):
        request.wait("1")
    assert request.wait(20) is None


def test_requests_leave_no_references_behind(pool: procaio.Pool, data_file: Path) -> None:
    """A thousand requests later the caller's objects have the references that they had."""
    path, fd = str(data_file), os.open(data_file, os.O_RDWR)
    data, target = b"0" * 512, bytearray(512)
    objects = [path, data, target, pool, procaio.Request]

    def work() -> None:
        for _ in range(100):
            for request in (
                procaio.aio_stat(path, pool=pool),
                procaio.aio_rename(path, path, pool=pool),
                procaio.aio_read(fd, 0, 512, pool=pool),
                procaio.aio_read(fd, 0, 512, target, pool=pool),
                procaio.aio_write(fd, 0, 512, data, pool=pool),
                procaio.aio_stat(path + "x", pool=pool),
                procaio.aio_readdirx(os.path.dirname(path), 1, pool=pool),
            ):
                request.cb(lambda *_: None)
        pool.flush()

    work()
    gc.collect()
    before = [sys.getrefcount(item) for item in objects]
    work()
    gc.collect()
    after = [sys.getrefcount(item) for item in objects]
    os.close(fd)
    assert [b - a for a, b in zip(before, after, strict=True)] == [0] * len(objects)


def test_annotation_says_what_a_request_yields() -> None:
    """As the stub has it: also where annotations are evaluated."""
    alias = procaio.Request[bytes]
    assert alias.__origin__ is procaio.Request  # type: ignore[attr-defined]
    assert alias.__args__ == (bytes,)  # type: ignore[attr-defined]
