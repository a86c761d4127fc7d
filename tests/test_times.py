"""Times: exactly those that were asked for, and those of os.utime (rule F3)."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import procaio

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = (1_000_000_000_000_000_001, 1_100_000_000_000_000_002)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file whose times are known, and long past."""
    path = tmp_path / "file"
    path.touch()
    os.utime(path, ns=BEFORE)
    return path


def times(file: Any) -> tuple[int, int]:
    """Access and modification, in nanoseconds; of a symlink itself."""
    status = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    return status.st_atime_ns, status.st_mtime_ns


# -- exact -----------------------------------------------------------------------------------------

EXACT = [
    (0, 0),
    (1, 2),
    (999_999_999, 1_000_000_000),
    (-1, -999_999_999),
    (-1_000_000_000, -1_000_000_001),
    (1_700_000_000_123_456_789, 1_800_000_000_987_654_321),
    (2**62 + 1, 2**31 * 10**9),
    ((1 << 30) - 1, (1 << 30) - 2),  # as fields of a timespec they would be UTIME_NOW, UTIME_OMIT
]


@pytest.mark.parametrize("ns", EXACT)
def test_utime_in_nanoseconds_is_exact(pool: procaio.Pool, file: Path, ns: tuple[int, int]) -> None:
    """Every nanosecond that the file system keeps, as os.utime sets it (F3)."""
    os.utime(file, ns=ns)
    expected = times(file)
    os.utime(file, ns=BEFORE)
    assert procaio.aio_utime(file, ns=ns, pool=pool).wait() == 0
    assert times(file) == expected
    if max(ns) < 2**33 * 10**9 and min(ns) > -(2**31) * 10**9:
        assert expected == ns


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ns=st.tuples(*[st.integers(-(2**30) * 10**9, (2**33) * 10**9)] * 2))
def test_random_nanoseconds_are_exact(pool: procaio.Pool, file: Path, ns: tuple[int, int]) -> None:
    assert procaio.aio_utime(file, ns=ns, pool=pool).wait() == 0
    assert times(file) == ns


SECONDS = st.one_of(
    st.integers(-(2**31), 2**33),
    st.floats(-(2.0**31), 2.0**33),
    st.floats(-2, 2),
    st.floats(-1e-8, 1e-8),
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seconds=st.tuples(SECONDS, SECONDS))
@example(seconds=(-1e-20, -0.1))
@example(seconds=(-5e-324, 5e-324))
@example(seconds=(0.999_999_999_9, -0.999_999_999_9))
def test_random_seconds_are_those_of_os(
    pool: procaio.Pool, file: Path, seconds: tuple[float, float]
) -> None:
    """Integers and floats, before the epoch too, rounded as os.utime rounds them (F3)."""
    os.utime(file, seconds)
    expected = times(file)
    os.utime(file, ns=BEFORE)
    assert procaio.aio_utime(file, *seconds, pool=pool).wait() == 0
    assert times(file) == expected


@pytest.mark.parametrize(
    ("seconds", "ns"),
    [
        (1.5, 1_500_000_000),
        (-1.25, -1_250_000_000),
        (fractions.Fraction(1, 4), 250_000_000),
        (decimal.Decimal("2.5"), 2_500_000_000),
        (np.float32(0.5), 500_000_000),
        (np.int64(-7), -7_000_000_000),
        (True, 1_000_000_000),
    ],
)
def test_utime_takes_numbers_of_every_kind(
    pool: procaio.Pool, file: Path, seconds: Any, ns: int
) -> None:
    """Fractions of seconds too (F3)."""
    assert procaio.aio_utime(file, seconds, seconds, pool=pool).wait() == 0
    assert times(file) == (ns, ns)


# -- none, now, omit -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), (None,), (None, None)])
def test_utime_without_times_is_now(
    pool: procaio.Pool, file: Path, arguments: tuple[None, ...]
) -> None:
    """Both None, or left out, is now (F3); the clock of file times lags by a tick."""
    before = time.time_ns() - 10**8
    assert procaio.aio_utime(file, *arguments, pool=pool).wait() == 0
    for set_to in times(file):
        assert before < set_to <= time.time_ns()


def test_utime_with_a_callback_only_is_now(pool: procaio.Pool, file: Path) -> None:
    answers: list[int] = []
    procaio.aio_utime(file, answers.append, pool=pool)
    pool.flush()
    assert answers == [0]
    assert min(times(file)) > BEFORE[1]


def test_utime_with_one_none_takes_it_for_zero(pool: procaio.Pool, file: Path) -> None:
    """As the reference says (F3)."""
    assert procaio.aio_utime(file, None, 5, pool=pool).wait() == 0
    assert times(file) == (0, 5_000_000_000)
    assert procaio.aio_utime(file, 6.5, None, pool=pool).wait() == 0
    assert times(file) == (6_500_000_000, 0)
    assert procaio.aio_utime(file, 7, pool=pool).wait() == 0
    assert times(file) == (7_000_000_000, 0)
    assert procaio.aio_utime(file, mtime=8, pool=pool).wait() == 0
    assert times(file) == (0, 8_000_000_000)


@pytest.mark.parametrize("form", ["seconds", "ns"])
def test_utime_omit_leaves_a_time_as_it_is(pool: procaio.Pool, file: Path, form: str) -> None:
    """Either of them, and both (F3)."""
    omit = procaio.UTIME_OMIT

    def set_times(atime: Any, mtime: Any) -> tuple[int, int]:
        if form == "ns":
            assert procaio.aio_utime(file, ns=(atime, mtime), pool=pool).wait() == 0
        else:
            assert procaio.aio_utime(file, atime, mtime, pool=pool).wait() == 0
        return times(file)

    one = 10**9 if form == "ns" else 1
    assert set_times(omit, omit) == BEFORE
    assert set_times(one, omit) == (10**9, BEFORE[1])
    assert set_times(omit, one) == (10**9, 10**9)


@pytest.mark.parametrize("form", ["seconds", "ns"])
def test_utime_now_is_the_present(pool: procaio.Pool, file: Path, form: str) -> None:
    """Beside a time of the caller's own (F3)."""
    now, omit = procaio.UTIME_NOW, procaio.UTIME_OMIT
    before = time.time_ns() - 10**8
    if form == "ns":
        assert procaio.aio_utime(file, ns=(now, 3), pool=pool).wait() == 0
    else:
        assert procaio.aio_utime(file, now, 3e-9, pool=pool).wait() == 0
    assert before < times(file)[0] <= time.time_ns()
    assert times(file)[1] == 3
    assert procaio.aio_utime(file, omit, now, pool=pool).wait() == 0
    assert before < times(file)[1] <= time.time_ns()


def test_utime_of_numbers_that_are_special_elsewhere_is_that_time(
    pool: procaio.Pool, file: Path
) -> None:
    """UTIME_NOW and UTIME_OMIT mean something as the objects they are, not as numbers."""
    for number in ((1 << 30) - 1, (1 << 30) - 2):
        assert procaio.aio_utime(file, ns=(number, number), pool=pool).wait() == 0
        assert times(file) == (number, number)
        assert procaio.aio_utime(file, number, number, pool=pool).wait() == 0
        assert times(file) == (number * 10**9, number * 10**9)


# -- files -----------------------------------------------------------------------------------------


def test_utime_of_descriptors_and_objects(pool: procaio.Pool, file: Path) -> None:
    """An int, a FileHandle, or anything with fileno() is a descriptor; else it is a path (F9)."""
    with open(file, "rb") as object_, procaio.aio_open(file, pool=pool).wait() as handle:
        targets = (file, str(file), os.fsencode(file), object_, handle, handle.fileno())
        for n, target in enumerate(targets):
            assert procaio.aio_utime(target, n, pool=pool).wait() == 0
            assert times(file) == (n * 10**9, 0)


def test_utime_relative_to_a_directory(pool: procaio.Pool, file: Path) -> None:
    with procaio.aio_open(file.parent, os.O_DIRECTORY, pool=pool).wait() as top:
        assert procaio.aio_utime("file", 1, 2, dir_fd=top, pool=pool).wait() == 0
        assert times(file) == (10**9, 2 * 10**9)
        assert procaio.aio_utime(b"file", ns=(3, 4), dir_fd=top.fileno(), pool=pool).wait() == 0
        assert times(file) == (3, 4)


def test_utime_of_a_symlink_itself(pool: procaio.Pool, file: Path) -> None:
    """follow_symlinks as os.utime has it: the default is to follow."""
    link = file.parent / "link"
    link.symlink_to("file")
    os.utime(link, ns=BEFORE, follow_symlinks=False)
    assert procaio.aio_utime(link, ns=(3, 4), follow_symlinks=False, pool=pool).wait() == 0
    assert (times(link), times(file)) == ((3, 4), BEFORE)
    assert procaio.aio_utime(link, ns=(5, 6), pool=pool).wait() == 0
    assert (times(link)[1], times(file)) == (4, (5, 6))  # following it has read it


# -- errors ----------------------------------------------------------------------------------------


def test_utime_of_what_is_not_there_names_it(pool: procaio.Pool, file: Path) -> None:
    """The path itself, or the descriptor."""
    path = file.parent / "no"
    for target, kind in ((path, FileNotFoundError), (99_999, OSError), (-100, OSError)):
        answers: list[int] = []
        request = procaio.aio_utime(target, 1, 1, answers.append, pool=pool)
        with pytest.raises(kind) as raised:
            request.wait()
        with pytest.raises(OSError) as expected:
            os.utime(target, (1, 1))
        assert raised.value.errno == expected.value.errno
        assert raised.value.filename is target
        assert answers == [-1]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (5, TypeError), ("12", TypeError), ([1, 2], TypeError), ((), TypeError), ((1,), TypeError),
        ((1, 2, 3), TypeError), ((None, 1), TypeError), ((1, None), TypeError),
        ((1.0, 2), TypeError), ((1, "2"), TypeError), ((2**100, 0), ValueError),
        ((0, -(2**100)), ValueError),
    ],
)  # fmt: skip
def test_wrong_nanoseconds_raise_in_the_call(
    pool: procaio.Pool, file: Path, wrong: Any, kind: type[Exception]
) -> None:
    """Ns is a tuple of two integers, as for os.utime (A5)."""
    with pytest.raises((TypeError, OverflowError)):
        os.utime(file, ns=wrong)
    with pytest.raises(kind):
        procaio.aio_utime(file, ns=wrong, pool=pool)
    assert pool.statistics().submitted == 0
    assert times(file) == BEFORE


@pytest.mark.parametrize(
    "wrong",
    [float("nan"), float("inf"), -float("inf"), 1e300, 2**63, -(2**64), "1", b"1", [],
     (1, 2), dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)],
)  # fmt: skip
def test_wrong_seconds_raise_in_the_call(pool: procaio.Pool, file: Path, wrong: Any) -> None:
    """What is no time is refused, as either of them (A5)."""
    for arguments in ((wrong, 1), (1, wrong), (wrong, None), (None, wrong)):
        with pytest.raises((TypeError, ValueError)):
            procaio.aio_utime(file, *arguments, pool=pool)
    assert pool.statistics().submitted == 0
    assert times(file) == BEFORE


def test_utime_with_seconds_and_nanoseconds_raises_in_the_call(
    pool: procaio.Pool, file: Path
) -> None:
    """One or the other."""
    for arguments in ((1, 2), (None, 2), (0,)):
        with pytest.raises(ValueError, match="ns"):
            procaio.aio_utime(file, *arguments, ns=(1, 2), pool=pool)
    assert procaio.aio_utime(file, None, None, ns=(1, 2), pool=pool).wait() == 0
    assert procaio.aio_utime(file, 1, 2, ns=None, pool=pool).wait() == 0


def test_utime_of_a_descriptor_takes_neither_dir_fd_nor_follow_symlinks(
    pool: procaio.Pool, fd: int
) -> None:
    """As os.utime says: it makes no sense."""
    for keywords in ({"dir_fd": 0}, {"follow_symlinks": False}):
        with pytest.raises(ValueError, match=next(iter(keywords))):
            os.utime(fd, (1, 1), **keywords)
        with pytest.raises(ValueError, match=next(iter(keywords))):
            procaio.aio_utime(fd, 1, 1, pool=pool, **keywords)
