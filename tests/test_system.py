"""System calls made at once, in the parent: what they do, and how they fail."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import inspect
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import procaio
from procaio import _core, _system
from programs import run_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS = [getattr(_core, name) for name in _system.__all__ if hasattr(_core, name)]


class Pipe(NamedTuple):
    """Both ends."""

    read: int
    write: int


class File:
    """Something with fileno()."""

    def __init__(self, number: Any) -> None:
        self._number = number

    def __repr__(self) -> str:
        return f"File({self._number!r})"

    def fileno(self) -> Any:
        """What it was made with."""
        return self._number


@contextlib.contextmanager
def closing(*descriptors: int) -> Iterator[None]:
    """Close them afterwards."""
    try:
        yield
    finally:
        for number in descriptors:
            os.close(number)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe to read from."""
    ends = Pipe(*procaio.pipe2(procaio.O_CLOEXEC))
    with closing(*ends):
        yield ends


@pytest.fixture
def other() -> Iterator[Pipe]:
    """A pipe to write to."""
    ends = Pipe(*procaio.pipe2(procaio.O_CLOEXEC))
    with closing(*ends):
        yield ends


@contextlib.contextmanager
def fails(number: int) -> Iterator[None]:
    """The block raises an OSError of this number."""
    with pytest.raises(OSError) as raised:
        yield
    assert errno.errorcode[raised.value.errno or 0] == errno.errorcode[number]


# -- what Python has -------------------------------------------------------------------------------


def test_what_python_has_is_that_function() -> None:
    assert procaio.sendfile is os.sendfile
    assert procaio.fadvise is os.posix_fadvise
    assert procaio.splice is os.splice
    assert procaio.pipe2 is os.pipe2
    assert procaio.eventfd is os.eventfd
    assert procaio.memfd_create is os.memfd_create
    assert procaio.pidfd_open is os.pidfd_open
    assert procaio.pidfd_send_signal is signal.pidfd_send_signal
    if sys.version_info >= (3, 13):
        for name in _system.__all__:
            if name.startswith("timerfd"):
                assert getattr(procaio, name) is getattr(os, name)


@pytest.mark.parametrize("name", _system.__all__)
def test_every_function_is_public_and_documented(name: str) -> None:
    assert name in procaio.__all__
    assert getattr(procaio, name) is getattr(_system, name)
    if not hasattr(os, name):  # Python leaves some of its own without a word
        assert getattr(procaio, name).__doc__


@pytest.mark.parametrize("module", ["os.memfd_create", "os.pidfd_open", "signal.pidfd_send_signal"])
def test_a_python_that_lacks_a_function_can_do_all_the_rest(module: str) -> None:
    """Some are built for old systems: procaio can be imported, only the call fails."""
    program = (
        f"import os, signal; del {module}\n"
        "import procaio\n"
        f"try: procaio.{module.partition('.')[2]}(1, 2)\n"
        "except OSError as error: print(error.errno)"
    )
    assert int(run_python(program)) == errno.ENOSYS


def test_sendfile_copies_and_leaves_the_position_of_the_source(fd: int, pipe: Pipe) -> None:
    assert procaio.sendfile(pipe.write, fd, 16, 32) == 32
    assert os.read(pipe.read, 100) == os.pread(fd, 32, 16)
    assert os.lseek(fd, 0, procaio.SEEK_CUR) == 0


@pytest.mark.parametrize("advice", procaio.FileAdvice)
def test_fadvise_takes_every_advice(fd: int, pipe: Pipe, advice: procaio.FileAdvice) -> None:
    procaio.fadvise(fd, 0, 0, advice)
    with fails(errno.ESPIPE):
        procaio.fadvise(pipe.read, 0, 0, advice)


def test_splice_moves_from_a_file_into_a_pipe(fd: int, pipe: Pipe) -> None:
    assert procaio.splice(fd, pipe.write, 64, offset_src=128) == 64
    assert os.read(pipe.read, 100) == os.pread(fd, 64, 128)
    with fails(errno.EINVAL):  # neither is a pipe
        procaio.splice(fd, fd, 1)


def test_pipe2_sets_flags(pipe: Pipe) -> None:
    assert not os.get_inheritable(pipe.read)
    with closing(*(ends := procaio.pipe2(procaio.O_NONBLOCK))):
        assert [os.get_blocking(number) for number in ends] == [False, False]
        with fails(errno.EAGAIN):
            os.read(ends[0], 1)
    with fails(errno.EINVAL):
        procaio.pipe2(procaio.O_CREAT)


def test_eventfd_counts() -> None:
    number = procaio.eventfd(3, procaio.EFD_CLOEXEC | procaio.EFD_SEMAPHORE)
    with closing(number):
        assert os.read(number, 8) == (1).to_bytes(8, sys.byteorder)
        os.set_blocking(number, False)
        os.read(number, 8)
        os.read(number, 8)
        with fails(errno.EAGAIN):
            os.read(number, 8)


def test_memfd_is_a_file_that_can_be_sealed() -> None:
    number = procaio.memfd_create("name", procaio.MFD_CLOEXEC | procaio.MFD_ALLOW_SEALING)
    with closing(number):
        os.write(number, b"data")
        fcntl.fcntl(number, procaio.F_ADD_SEALS, procaio.F_SEAL_WRITE | procaio.F_SEAL_SHRINK)
        with fails(errno.EPERM):
            os.write(number, b"more")
        seals = procaio.SealFlags(fcntl.fcntl(number, procaio.F_GET_SEALS))
        assert seals == procaio.F_SEAL_WRITE | procaio.F_SEAL_SHRINK


# -- tee -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [int, File])
def test_tee_duplicates_and_consumes_nothing(
    pipe: Pipe, other: Pipe, wrap: Callable[[int], Any]
) -> None:
    os.write(pipe.write, b"12345")
    assert procaio.tee(wrap(pipe.read), wrap(other.write), 4) == 4
    assert os.read(other.read, 100) == b"1234"
    assert os.read(pipe.read, 100) == b"12345"


def test_tee_of_a_pipe_at_its_end_gives_0(other: Pipe) -> None:
    read, write = os.pipe()
    os.close(write)
    with closing(read):
        assert procaio.tee(read, other.write, 10) == 0


def test_tee_waits_for_data_unless_told_not_to(pipe: Pipe, other: Pipe) -> None:
    """It waits without the interpreter lock, else the other thread could not write."""
    with fails(errno.EAGAIN):
        procaio.tee(pipe.read, other.write, 10, flags=procaio.SPLICE_F_NONBLOCK)
    writer = threading.Timer(0.05, os.write, (pipe.write, b"late"))
    writer.start()
    assert procaio.tee(pipe.read, other.write, 10) == 4
    writer.join()


class AlarmError(Exception):
    """What the handler of a signal raises."""


@pytest.mark.parametrize("raises", [True, False])
def test_tee_goes_on_after_a_signal_unless_its_handler_raises(
    pipe: Pipe, other: Pipe, raises: bool
) -> None:
    def handler(*_: object) -> None:
        if raises:
            raise AlarmError
        os.write(pipe.write, b"data")

    def tee_with_alarm() -> int:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return procaio.tee(pipe.read, other.write, 10)

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        if raises:
            with pytest.raises(AlarmError):
                tee_with_alarm()
        else:
            assert tee_with_alarm() == 4
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_tee_fails_like_the_system_call(pipe: Pipe, other: Pipe, fd: int) -> None:
    with fails(errno.EINVAL):
        procaio.tee(fd, other.write, 1)
    with fails(errno.EINVAL):
        procaio.tee(pipe.read, pipe.write, 1)  # the same pipe
    with fails(errno.EBADF):
        procaio.tee(pipe.write, other.write, 1)  # the wrong end
    with fails(errno.EBADF):
        procaio.tee(-1, other.write, 1)
    with fails(errno.EBADF):
        procaio.tee(pipe.read, 2**30, 1)
    with fails(errno.EINVAL):
        procaio.tee(pipe.read, other.write, 1, 2**20)


# -- pipesize --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [int, File])
def test_pipesize_asks_and_sets(pipe: Pipe, wrap: Callable[[int], Any]) -> None:
    """The kernel rounds up; both ends tell the same."""
    before = procaio.pipesize(wrap(pipe.read))
    assert before == fcntl.fcntl(pipe.read, procaio.F_GETPIPE_SZ)
    assert procaio.pipesize(wrap(pipe.read), 2 * procaio.PAGESIZE) == 2 * procaio.PAGESIZE
    assert procaio.pipesize(pipe.write) == 2 * procaio.PAGESIZE
    assert procaio.pipesize(pipe.write, 1) == procaio.PAGESIZE
    assert procaio.pipesize(pipe.write, new=None) == procaio.PAGESIZE


def test_pipesize_fails_like_fcntl(pipe: Pipe, fd: int) -> None:
    for what in (fd, -1, 2**30):
        with fails(errno.EBADF):
            procaio.pipesize(what)
    procaio.pipesize(pipe.read, 4 * procaio.PAGESIZE)
    os.write(pipe.write, bytes(3 * procaio.PAGESIZE))
    with fails(errno.EBUSY):
        procaio.pipesize(pipe.read, procaio.PAGESIZE)


@pytest.mark.parametrize("size", [-1, 2**31, 2**32 + 4096, 2**70, -(2**70)])
def test_pipesize_refuses_what_is_no_size(pipe: Pipe, size: int) -> None:
    """What the kernel would cut to 32 bits, too."""
    before = procaio.pipesize(pipe.read)
    with pytest.raises(ValueError, match="out of range"):
        procaio.pipesize(pipe.read, size)
    assert procaio.pipesize(pipe.read) == before


# -- timers: ours, and Python's where it has them, are to be alike ---------------------------------


class Timers(NamedTuple):
    """One set of functions."""

    create: Callable[..., int]
    settime: Callable[..., tuple[float, float]]
    gettime: Callable[..., tuple[float, float]]
    settime_ns: Callable[..., tuple[int, int]]
    gettime_ns: Callable[..., tuple[int, int]]


@pytest.fixture(params=["ours", "public"])
def timers(request: pytest.FixtureRequest) -> Timers:
    """Those in C, and those that the version of Python decides on."""
    module: Any = _core if request.param == "ours" else procaio
    return Timers(*(getattr(module, f"timerfd_{name}") for name in Timers._fields))


@pytest.fixture
def timer(timers: Timers) -> Iterator[int]:
    """A timer that is not running."""
    number = timers.create(procaio.CLOCK_MONOTONIC, flags=procaio.TFD_NONBLOCK)
    with closing(number):
        yield number


def expirations(timer: int) -> int:
    """How often it has expired since it was asked last."""
    return int.from_bytes(os.read(timer, 8), sys.byteorder)


def test_a_timer_expires_once_or_again_and_again(timers: Timers, timer: int) -> None:
    with fails(errno.EAGAIN):
        expirations(timer)
    timers.settime(timer, initial=0.001)
    select.select([timer], [], [])
    assert expirations(timer) == 1
    assert timers.gettime(timer) == (0.0, 0.0)
    timers.settime_ns(timer, initial=1, interval=1_000_000)
    count = 0
    while count < 5:
        select.select([timer], [], [])
        count += expirations(timer)
    timers.settime(timer)
    with fails(errno.EAGAIN):
        expirations(timer)


@pytest.mark.parametrize("wrap", [int, File])
def test_settings_of_a_timer_are_told(
    timers: Timers, timer: int, wrap: Callable[[int], Any]
) -> None:
    """The interval comes last, as in os, not as in the structure of the system call."""
    assert timers.gettime(wrap(timer)) == (0.0, 0.0)
    assert timers.settime(wrap(timer), initial=1000, interval=0.25) == (0.0, 0.0)
    for left, interval in (timers.gettime(wrap(timer)), timers.settime(timer, initial=500.5)):
        assert interval == 0.25
        assert 900 < left <= 1000
    for left_ns, interval_ns in (
        timers.gettime_ns(wrap(timer)),
        timers.settime_ns(wrap(timer), initial=2**62, interval=7),
    ):
        assert interval_ns == 0
        assert 400 * 10**9 < left_ns <= 500_500_000_000
    assert timers.gettime_ns(timer)[1] == 7
    assert all(type(value) is float for value in timers.gettime(timer))
    assert all(type(value) is int for value in timers.gettime_ns(timer))


def test_a_timer_can_be_set_to_a_time_of_its_clock(timers: Timers, timer: int) -> None:
    flags = procaio.TFD_TIMER_ABSTIME
    timers.settime_ns(timer, flags=flags, initial=time.monotonic_ns() - 10**9)
    assert expirations(timer) == 1
    timers.settime(timer, flags=flags, initial=time.monotonic() + 100)
    assert 90 < timers.gettime(timer)[0] <= 100


@pytest.mark.parametrize(
    ("seconds", "ns"),
    [(0.7e-9, 0), (1.2e-9, 1), (0.25, 250_000_000), (3, 3 * 10**9), (1e-3, 1_000_000)],
)
def test_seconds_are_rounded_down_to_nanoseconds(
    timers: Timers, timer: int, seconds: float, ns: int
) -> None:
    timers.settime(timer, initial=1000, interval=seconds)
    assert timers.gettime_ns(timer)[1] == ns


def test_descriptors_of_timers_are_not_inherited(timers: Timers) -> None:
    for flags in (0, procaio.TFD_CLOEXEC):
        number = timers.create(procaio.CLOCK_REALTIME, flags=flags)
        with closing(number):
            assert not os.get_inheritable(number)
            assert os.get_blocking(number)


def test_timers_fail_like_the_system_calls(timers: Timers, timer: int, fd: int) -> None:
    with fails(errno.EINVAL):
        timers.create(99)
    with fails(errno.EINVAL):
        timers.create(procaio.CLOCK_REALTIME, flags=1)
    for call in (timers.settime, timers.settime_ns, timers.gettime, timers.gettime_ns):
        with fails(errno.EINVAL):
            call(fd)
        with fails(errno.EBADF):
            call(2**30)
        with pytest.raises(ValueError, match="negative"):
            call(-1)
        with pytest.raises(TypeError):
            call("timer")
    for settime in (timers.settime, timers.settime_ns):
        with fails(errno.EINVAL):
            settime(timer, flags=2**20)
        for negative in ({"initial": -1}, {"interval": -1, "initial": 1}):
            with fails(errno.EINVAL):
                settime(timer, **negative)
        with pytest.raises(OverflowError):
            settime(timer, initial=10**30)
        with pytest.raises(TypeError):
            settime(timer, 0, 1, 1)  # times are keywords
        with pytest.raises(TypeError):
            settime(timer, initial="1")
    with fails(errno.EINVAL):
        timers.settime(timer, initial=-1e-9)
    with pytest.raises(OverflowError):
        timers.settime(timer, initial=float("inf"))
    with pytest.raises((ValueError, OverflowError)):
        timers.settime(timer, initial=float("nan"))
    with pytest.raises(TypeError):
        timers.settime_ns(timer, initial=1.5)


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [int, File])
def test_a_descriptor_of_another_process_can_be_had(wrap: Callable[[int], Any]) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        pidfd = procaio.pidfd_open(child.pid)
        with closing(pidfd):
            copy = procaio.pidfd_getfd(wrap(pidfd), 1)
            with closing(copy):
                assert not os.get_inheritable(copy)
                os.write(copy, b"as if it were the child")
            assert os.read(child.stdout.fileno(), 100) == b"as if it were the child"
            with fails(errno.EBADF):
                procaio.pidfd_getfd(pidfd, 1000)
            with fails(errno.EINVAL):
                procaio.pidfd_getfd(pidfd, 1, flags=1)
            procaio.pidfd_send_signal(pidfd, signal.SIGTERM)
            assert child.wait() == -signal.SIGTERM
            with fails(errno.ESRCH):
                procaio.pidfd_getfd(pidfd, 1)
            with fails(errno.ESRCH):
                procaio.pidfd_send_signal(pidfd, signal.SIGTERM)
    with fails(errno.EBADF):
        procaio.pidfd_getfd(-1, 1)


def test_pidfd_fails_for_what_is_no_process(fd: int) -> None:
    with fails(errno.EINVAL):
        procaio.pidfd_open(-1)
    with fails(errno.EBADF):
        procaio.pidfd_getfd(fd, 1)


# -- arguments of those in C -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tee", "pipesize", "pidfd_getfd"])
@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("text", TypeError),
        (None, TypeError),
        (1.0, TypeError),
        (2**31, OverflowError),
        (-(2**70), OverflowError),
        (File("1"), TypeError),
        (File(-1), ValueError),
    ],
    ids=str,
)
def test_what_is_no_descriptor_is_refused(name: str, what: object, kind: type[Exception]) -> None:
    rest = {"tee": (1, 1), "pipesize": (), "pidfd_getfd": (1,)}[name]
    with pytest.raises(kind):
        getattr(procaio, name)(what, *rest)


def test_closed_handles_and_files_are_refused(pool: procaio.Pool) -> None:
    handle = procaio.aio_open("/dev/null", pool=pool).wait()
    handle.close()
    ours, theirs = socket.socketpair()
    theirs.close()
    for what in (handle, theirs):
        with pytest.raises(ValueError, match=r"closed|negative"):
            procaio.pipesize(what)
    ours.close()


@pytest.mark.parametrize(
    ("count", "kind"), [(-1, ValueError), (2**63, OverflowError), ("1", TypeError)]
)
def test_a_count_that_is_none_is_refused(
    pipe: Pipe, other: Pipe, count: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        procaio.tee(pipe.read, other.write, count)


def test_names_of_arguments_are_keywords(pipe: Pipe, other: Pipe) -> None:
    os.write(pipe.write, b"1")
    assert procaio.tee(src=pipe.read, dst=other.write, count=1, flags=0) == 1
    assert procaio.pipesize(fh=pipe.read, new=procaio.PAGESIZE) == procaio.PAGESIZE
    pidfd = procaio.pidfd_open(os.getpid())
    with closing(pidfd, procaio.pidfd_getfd(pidfd=pidfd, targetfd=0, flags=0)):
        pass


@pytest.mark.parametrize("function", OURS, ids=lambda function: function.__name__)
def test_signature_is_told_and_is_that_of_python(function: Callable[..., Any]) -> None:
    """Also that of later versions of Python, where they have the function."""
    signature = inspect.signature(function)
    assert function.__doc__
    if hasattr(os, function.__name__):
        assert signature == inspect.signature(getattr(os, function.__name__))
