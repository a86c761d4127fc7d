"""Moving a file: renamed, or copied and unlinked on EXDEV only; nothing is ever lost (I8)."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually, kill
from copying import (
    AS_NOBODY,
    all_closed,
    attributes,
    entry,
    executing,
    failure,
    holes,
    is_dead,
    killed_at,
    mounted,
    needs_root,
)
from procaio import testing
from programs import X86, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_POINTS = [point for point in testing.FAULT_POINTS if point != "sleeping"]
OLD = b"what was there before"


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Path]:
    """Another file system, of 300 MiB."""
    with mounted(tmp_path / "far", "tmpfs", options="size=300m") as path:
        yield path


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Another file system, of one MiB."""
    with mounted(tmp_path / "small", "tmpfs", options="size=1m") as path:
        yield path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that takes a while."""
    path, piece = tmp_path / "large", os.urandom(1 << 20)
    with open(path, "wb") as file:
        file.writelines(piece for _ in range(256))
    return path


# -- within a file system --------------------------------------------------------------------------


def test_move_within_a_file_system_is_a_rename(pool: procaio.Pool, data_file: Path) -> None:
    """The same file afterwards, also a directory, a symlink; what was there is replaced."""
    (data_file.parent / "dir").mkdir()
    (data_file.parent / "link").symlink_to("data")
    (data_file.parent / "old").write_bytes(OLD)
    for name, new in (("dir", "new dir"), ("link", "new link"), ("data", "old")):
        source, target = data_file.with_name(name), data_file.with_name(new)
        inode, answers = os.lstat(source).st_ino, []
        request = procaio.aio_move(source, target, answers.append, pool=pool)
        assert request.wait() == 0
        assert (answers, request.copied) == ([0], 0)
        assert os.lstat(target).st_ino == inode
        assert not os.path.lexists(source)


def test_move_fails_like_a_rename(pool: procaio.Pool, data_file: Path) -> None:
    """Both names in the error, nothing touched; -1 to the callback."""
    (data_file.parent / "dir").mkdir()
    data = data_file.read_bytes()
    for source, target in (("no", "x"), ("data", "dir"), ("data", "no/x"), ("data", "data/x")):
        names = data_file.with_name(source), data_file.parent / target
        answers: list[int] = []
        expected = failure(lambda names=names: os.rename(*names))
        error = failure(procaio.aio_move(*names, answers.append, pool=pool).wait)
        assert (error.errno, error.filename, error.filename2) == (expected.errno, *names)
        assert answers == [-1]
    assert data_file.read_bytes() == data


# -- to another file system ------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("there", [None, "file", "link", "fifo"])
@pytest.mark.parametrize("kind", ["file", "link", "fifo", "socket", "device"])
def test_move_to_another_file_system_makes_the_same_entry_there(
    pool: procaio.Pool, tmp_path: Path, far: Path, kind: str, there: str | None
) -> None:
    """Whatever it is, with its owner, permissions and times; then the source is unlinked."""
    source, target = tmp_path / "source", far / "target"
    (far / "what it says").write_bytes(OLD)
    entry(kind, source)
    if there:
        entry(there, target)
    os.chown(source, 1234, 2345, follow_symlinks=False)
    if kind != "link":
        source.chmod(0o6751)
    os.utime(source, ns=(2**60, 2**60 + 1), follow_symlinks=False)
    before = attributes(source)
    assert procaio.aio_move(source, target, pool=pool).wait() == 0
    assert attributes(target) == before
    assert not os.path.lexists(source)
    assert (far / "what it says").read_bytes() == OLD
    if kind == "link":
        assert os.readlink(target) == "what it says"
    if kind == "file":
        assert target.read_bytes() == b"content"


def test_move_to_another_file_system_keeps_holes(
    pool: procaio.Pool, tmp_path: Path, far: Path
) -> None:
    source = tmp_path / "source"
    with open(source, "wb") as file:
        file.write(b"begin")
        file.seek(1 << 30)
        file.write(b"end")
    before = holes(source)
    request = procaio.aio_move(source, far / "target", pool=pool)
    assert request.wait() == 0
    assert holes(far / "target") == before
    assert request.copied == (1 << 30) + 3
    assert not source.exists()


def test_move_to_another_file_system_replaces_a_name_as_a_rename_does(
    pool: procaio.Pool, data_file: Path, far: Path
) -> None:
    """Other names of the file that was there keep what they had."""
    (far / "target").write_bytes(OLD)
    os.link(far / "target", far / "other")
    assert procaio.aio_move(data_file, far / "target", pool=pool).wait() == 0
    assert (far / "other").read_bytes() == OLD


def test_move_of_a_directory_to_another_file_system_is_refused(
    pool: procaio.Pool, tmp_path: Path, data_file: Path, far: Path
) -> None:
    """EISDIR, and nothing is touched; a file does not replace a directory either."""
    (tmp_path / "dir" / "inner").mkdir(parents=True)
    (far / "target").mkdir()
    (far / "old").write_bytes(OLD)
    for source, target in (
        (tmp_path / "dir", far / "new"), (tmp_path / "dir", far / "old"),
        (data_file, far / "target"),
    ):  # fmt: skip
        assert failure(procaio.aio_move(source, target, pool=pool).wait).errno == errno.EISDIR
    assert (tmp_path / "dir" / "inner").is_dir()
    assert data_file.stat().st_size == 65536
    assert sorted(os.listdir(far)) == ["old", "target"]
    assert (far / "old").read_bytes() == OLD


def test_move_onto_itself_through_another_mount_destroys_nothing(
    pool: procaio.Pool, data_file: Path
) -> None:
    """The system says EXDEV of it; it is the same file: EINVAL (I7)."""
    data = data_file.read_bytes()
    (data_file.parent / "here").mkdir()
    source = data_file.rename(data_file.parent / "here" / "data")
    os.link(source, source.with_name("other"))
    with mounted(data_file.parent / "again", "bind", str(source.parent)) as again:
        for name in ("data", "other"):
            error = failure(procaio.aio_move(source, again / name, pool=pool).wait)
            assert error.errno == errno.EINVAL
        assert source.read_bytes() == data
        assert procaio.aio_move(source, again / "third", pool=pool).wait() == 0
    assert sorted(os.listdir(source.parent)) == ["other", "third"]
    assert source.with_name("third").read_bytes() == data


# -- errors ----------------------------------------------------------------------------------------


def test_move_that_fails_in_the_middle_leaves_the_source_and_no_part(
    pool: procaio.Pool, tmp_path: Path, small: Path
) -> None:
    """A full disk (I4)."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20))
    before = attributes(source)
    for exists in (False, True):
        if exists:
            (small / "target").write_bytes(OLD)
        error = failure(procaio.aio_move(source, small / "target", pool=pool).wait)
        assert (error.errno, error.filename) == (errno.ENOSPC, source)
        assert list(small.iterdir()) == []
        assert attributes(source)[:5] == before[:5]


def test_move_that_cannot_begin_touches_nothing(
    pool: procaio.Pool, data_file: Path, far: Path
) -> None:
    """No source, no directory for the destination."""
    (far / "old").write_bytes(OLD)
    for source, target in ((data_file.with_name("no"), far / "old"), (data_file, far / "no" / "x")):
        assert failure(procaio.aio_move(source, target, pool=pool).wait).errno == errno.ENOENT
    assert data_file.exists()
    assert (far / "old").read_bytes() == OLD


@needs_root
def test_move_whose_source_cannot_be_unlinked_leaves_both(tmp_path: Path, far: Path) -> None:
    """Both are whole, and the error says what could not be done."""
    (tmp_path / "data").write_bytes(OLD)
    (tmp_path / "data").chmod(0o644)
    tmp_path.chmod(0o755)
    far.chmod(0o777)
    answer = run_python(AS_NOBODY, "aio_move", "data", "far/data", cwd=tmp_path)
    assert answer == f"{errno.EACCES} True True\n"
    assert (tmp_path / "data").read_bytes() == (far / "data").read_bytes() == OLD


# -- cancel, and whatever dies ---------------------------------------------------------------------


def test_move_cancelled_in_the_middle_leaves_the_source_and_no_part(
    workers: procaio.Pool, large: Path, far: Path
) -> None:
    """It looks now and then; flush() waits until the part has gone."""
    for _ in range(20):
        request = procaio.aio_move(large, far / "target", pool=workers)
        eventually(lambda: request.copied > 0, "it is in the middle")  # noqa: B023
        request.cancel()
        workers.flush()
        if large.exists():
            break
        procaio.aio_move(far / "target", large, pool=workers).wait()  # it was too late
    assert large.stat().st_size == 256 << 20
    assert list(far.iterdir()) == []


def test_move_whose_worker_is_killed_in_the_middle_is_done_again(
    workers: procaio.Pool, large: Path, far: Path
) -> None:
    """The source is untouched until the copy is whole, so another worker begins again."""
    copy = large.with_name("copy")
    os.link(large, copy)
    for _ in range(20):
        request = procaio.aio_move(large, far / "target", pool=workers)
        eventually(lambda: request.copied > 0, "it is in the middle")  # noqa: B023
        kill(executing(workers))
        try:
            assert request.wait() == 0
        except procaio.WorkerDied:
            assert (far / "target").stat().st_size == 256 << 20  # it had ended its copy
        if workers.statistics().rerun:
            break
        os.link(copy, large)
        (far / "target").unlink()
    assert workers.statistics().rerun == 1
    subprocess.run(["cmp", copy, far / "target"], check=True)
    assert not large.exists()
    all_closed(workers, far, set())


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("point", AT_POINTS)
def test_move_worker_dies_at_every_point_and_the_file_is_here_or_there(
    workers: procaio.Pool, data_file: Path, far: Path, point: str, *, cancelled: bool
) -> None:
    """Whole, and WorkerDied says when nobody knows where."""
    data = data_file.read_bytes()
    procaio.aio_nop(pool=workers).wait()
    (worker,) = workers.statistics().workers
    testing.arm(workers, point)
    request = procaio.aio_move(data_file, far / "target", pool=workers)
    if cancelled:
        eventually(lambda: is_dead(worker.pid), "the worker dies")
        request.cancel()
        workers.flush()
    elif point == "called":
        assert isinstance(failure(request.wait), procaio.WorkerDied)
    else:
        assert request.wait() == 0
    found = [path.read_bytes() for path in (data_file, far / "target") if path.exists()]
    assert found == [data]
    if cancelled and point in {"claimed", "taken"}:
        assert data_file.exists()
    elif not cancelled or point in {"called", "done"}:  # past these it may have died over the nop
        assert not data_file.exists()


@X86
@pytest.mark.parametrize(
    ("step", "deaths", "here", "there"),
    [("renameat", "1", True, False), ("openat", "3", True, False),
     ("copy_file_range", "3", True, False), ("utimensat", "3", True, False),
     ("fchmod", "3", True, False), ("unlinkat", "1", True, True)],
)  # fmt: skip
def test_move_that_kills_each_worker_at_a_system_call_loses_nothing(
    data_file: Path, far: Path, step: str, deaths: str, *, here: bool, there: bool
) -> None:
    """The source is there until the copy is whole, and from then on nobody removes that."""
    data = data_file.read_bytes()
    result = killed_at(step, "aio_move", data_file, far / "target")
    assert result == ["WorkerDied", deaths]
    assert (data_file.exists(), (far / "target").exists()) == (here, there)
    assert data_file.read_bytes() == data
    assert not there or (far / "target").read_bytes() == data


@X86
@pytest.mark.parametrize(
    ("kind", "step"),
    [("fifo", "mknodat"), ("fifo", "fchownat"), ("fifo", "utimensat"),
     ("link", "symlinkat"), ("link", "fchownat"), ("link", "utimensat")],
)  # fmt: skip
def test_move_of_an_entry_that_kills_each_worker_leaves_the_source_and_no_part(
    tmp_path: Path, far: Path, kind: str, step: str
) -> None:
    """A symlink, a FIFO without its attributes is a part too."""
    entry(kind, tmp_path / "source")
    assert killed_at(step, "aio_move", tmp_path / "source", far / "target") == ["WorkerDied", "3"]
    assert list(far.iterdir()) == []
    assert os.path.lexists(tmp_path / "source")
