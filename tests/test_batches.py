"""Batches: one call, many operations, one result."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import procaio
from conftest import eventually, in_child, kill, succeeds
from hostile import DONE, EXECUTING, Memory
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from conftest import Gate

MANY = 20_000


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """300 files of all sizes up to some kilobytes, one of 3 MB, a directory, symlinks."""
    place = tmp_path / "tree"
    place.mkdir()
    for number in range(300):
        (place / f"{number:03}").write_bytes(os.urandom(number * number % 7001))
    (place / "large").write_bytes(os.urandom(3_000_000))
    (place / "link").symlink_to("large")
    (place / "dangling").symlink_to("nowhere")
    (place / "directory").mkdir()
    return place


def paths_in(tree: Path) -> list[str]:
    """All, with one that is not there among them."""
    found = sorted(str(path) for path in tree.iterdir())
    return [*found[:17], f"{tree}/missing", *found[17:]]


def by_os(call: Callable[[Any], Any], path: Any) -> Any:
    try:
        return call(path)
    except OSError as error:
        return error


def is_same(ours: Any, theirs: Any) -> bool:
    """Equal, or errors that tell the same."""
    if not isinstance(theirs, OSError):
        return bool(ours == theirs)
    return isinstance(ours, OSError) and str(ours) == str(theirs)


def read_by_os(path: Any) -> bytes:
    return Path(path).read_bytes()


# -- what they yield -------------------------------------------------------------------------------


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_stat_many_is_os_stat_of_each(
    pool: procaio.Pool, tree: Path, kind: Callable[[str], Any], *, follow: bool
) -> None:
    """Order kept, one result an item; errors name the caller's own path."""
    paths = [kind(path) for path in paths_in(tree)]
    got = procaio.aio_stat_many(paths, follow_symlinks=follow, pool=pool).wait()
    expected = [by_os(os.stat if follow else os.lstat, os.fspath(path)) for path in paths]
    assert len(got) == len(paths)
    for ours, theirs in zip(got, expected, strict=True):
        assert is_same(ours, theirs) or kind is Path
        assert getattr(ours, "errno", 0) == getattr(theirs, "errno", 0)
        assert getattr(ours, "st_mtime_ns", 0) == getattr(theirs, "st_mtime_ns", 0)
    assert all(
        ours.filename is path
        for ours, path in zip(got, paths, strict=True)
        if isinstance(ours, OSError)
    )


@pytest.mark.parametrize("kind", [list, np.array, lambda paths: np.array(paths, "S"), iter])
def test_stat_many_as_an_array_has_the_same(
    pool: procaio.Pool, tree: Path, kind: Callable[[list[str]], Any]
) -> None:
    paths = paths_in(tree)
    array = procaio.aio_stat_many(kind(paths), array=True, pool=pool).wait()
    for row, theirs in zip(array, [by_os(os.stat, path) for path in paths], strict=True):
        if isinstance(theirs, OSError):
            assert row["err"] == theirs.errno
            assert not any(row[name] for name in array.dtype.names if name != "err")
            continue
        assert row["err"] == 0
        for name in array.dtype.names[:-1]:
            assert row[name] == getattr(theirs, name), name


def test_times_that_do_not_fit_are_the_nearest_in_arrays_and_exact_in_lists(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    path = tmp_path / "late"
    path.touch()
    os.utime(path, (11_000_000_000, 11_000_000_000))
    if os.stat(path).st_mtime != 11_000_000_000:
        pytest.skip("the file system has no such times")
    (row,) = procaio.aio_stat_many([path], array=True, pool=pool).wait()
    assert row["st_mtime_ns"] == 2**63 - 1
    assert procaio.aio_stat_many([path], pool=pool).wait() == [os.stat(path)]


def test_paths_are_relative_to_a_directory(pool: procaio.Pool, tree: Path) -> None:
    names = ["000", "directory", "missing"]
    with procaio.aio_wd(tree, pool=pool).wait() as handle:
        stats = procaio.aio_stat_many(names, dir_fd=handle, pool=pool).wait()
        expected = [os.stat(tree / name) for name in names[:2]]
        loads = procaio.aio_load_many(names, dir_fd=handle.fileno(), pool=pool).wait()
    assert stats[:2] == expected
    assert [loads[0], loads[1].errno, loads[2].errno] == [b"", errno.EISDIR, errno.ENOENT]
    assert stats[2].filename == loads[2].filename == "missing"


def test_names_that_are_no_ascii_and_no_text_are_found(pool: procaio.Pool, tmp_path: Path) -> None:
    names = ["ä", "日本", os.fsdecode(b"\xff\xfe"), "x" * 200]
    for name in names:
        (tmp_path / name).write_text(name, errors="surrogateescape")
    paths = [f"{tmp_path}/{name}" for name in names]
    expected = [read_by_os(path) for path in paths]
    assert procaio.aio_load_many(paths, pool=pool).wait() == expected
    assert procaio.aio_load_many(np.array(paths), pool=pool).wait() == expected
    encoded = np.array([os.fsencode(path) for path in paths])
    assert procaio.aio_load_many(encoded, pool=pool).wait() == expected
    assert procaio.aio_load_many(np.array(paths).astype(">U"), pool=pool).wait() == expected
    assert procaio.aio_load_many(np.array(paths)[::2], pool=pool).wait() == expected[::2]


def test_load_many_gives_what_each_file_holds(pool: procaio.Pool, tree: Path) -> None:
    """Also those that no chunk has room for; failures stand in their places."""
    paths = paths_in(tree)
    request = procaio.aio_load_many(paths, pool=pool)
    for ours, path in zip(request.wait(), paths, strict=True):
        assert is_same(ours, by_os(read_by_os, path)), path
    assert (request.progress.done, request.progress.total) == (len(paths), len(paths))


def test_load_many_packed_has_one_buffer_and_where_each_lies(
    pool: procaio.Pool, tree: Path
) -> None:
    paths = paths_in(tree)
    answers: list[Any] = []
    procaio.aio_load_many(paths, lambda *got: answers.append(got), packed=True, pool=pool).wait()
    ((buffer, index),) = answers
    assert isinstance(buffer, procaio.Buffer)
    for row, path in zip(index, paths, strict=True):
        expected = by_os(read_by_os, path)
        if isinstance(expected, OSError):
            assert (row["err"], row["size"]) == (expected.errno, 0)
        else:
            start = int(row["offset"])
            assert buffer[start : start + int(row["size"])] == expected
    assert index["size"].sum() == len(buffer)


def test_load_many_reads_to_the_end_whatever_the_size_says(pool: procaio.Pool) -> None:
    """Files of /proc have no size, and devices are no regular files."""
    version, nothing = procaio.aio_load_many(["/proc/version", "/dev/null"], pool=pool).wait()
    assert version == read_by_os("/proc/version")
    assert nothing == b""


def test_load_many_of_sizes_around_that_of_a_chunk(pool: procaio.Pool, tmp_path: Path) -> None:
    paths = []
    for size in [*range((1 << 20) - 200, (1 << 20) + 200, 7), 500_000, 600_000, 0, 1]:
        paths.append(tmp_path / str(size))
        paths[-1].write_bytes(os.urandom(100) * (size // 100) + bytes(size % 100))
    for ours, path in zip(procaio.aio_load_many(paths, pool=pool).wait(), paths, strict=True):
        assert ours == read_by_os(path)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    wanted=st.lists(
        st.tuples(st.integers(0, 70_000), st.one_of(st.integers(0, 9000), st.just(2_000_000)))
    )
)
def test_read_many_is_pread_of_each(
    pool: procaio.Pool, fd: int, wanted: list[tuple[int, int]]
) -> None:
    """As bytes, into a Buffer, and with numbers in arrays."""
    offsets, lengths = [offset for offset, _ in wanted], [length for _, length in wanted]
    expected = [os.pread(fd, length, offset) for offset, length in wanted]
    assert procaio.aio_read_many(fd, offsets, lengths, pool=pool).wait() == expected
    with procaio.Buffer(sum(lengths), pool) as out:
        counts = procaio.aio_read_many(
            [fd] * len(wanted), np.array(offsets, "u4"), lengths, out, pool=pool
        ).wait()
        assert counts == list(map(len, expected))
        at = 0
        for data, length in zip(expected, lengths, strict=True):
            assert out[at : at + len(data)] == data
            at += length
        array = procaio.aio_read_many(
            fd, offsets, np.array(lengths, "i8"), out, array=True, pool=pool
        ).wait()
        assert array["size"].tolist() == counts
        assert not array["err"].any()


def test_read_many_takes_one_for_all_and_tells_each_failure(
    pool: procaio.Pool, data_file: Path, tmp_path: Path
) -> None:
    with procaio.aio_open(tmp_path / "new", os.O_WRONLY | os.O_CREAT, pool=pool).wait() as handle:
        got = procaio.aio_read_many([handle, -1, handle], 0, [1, 1, 3_000_000], pool=pool).wait()
        assert [error.errno for error in got] == [errno.EBADF] * 3
        assert [error.filename for error in got] == [handle.name, None, handle.name]
        with procaio.Buffer(2, pool) as out:
            array = procaio.aio_read_many([-1, handle], 0, 1, out, array=True, pool=pool).wait()
        assert array["err"].tolist() == [errno.EBADF] * 2
    with open(data_file, "rb") as file:
        assert procaio.aio_read_many(file, 3, 4, pool=pool).wait() == [
            os.pread(file.fileno(), 4, 3)
        ]


def test_nothing_is_done_in_an_empty_batch(pool: procaio.Pool) -> None:
    assert procaio.aio_stat_many([], pool=pool).wait() == []
    assert procaio.aio_load_many((), pool=pool).wait() == []
    assert procaio.aio_read_many([], [], [], pool=pool).wait() == []
    assert len(procaio.aio_stat_many(np.array([], "U9"), array=True, pool=pool).wait()) == 0
    buffer, index = procaio.aio_load_many([], packed=True, pool=pool).wait()
    assert len(buffer) == len(index) == 0
    with procaio.Buffer(0, pool) as out:
        assert procaio.aio_read_many([], 0, 1, out, pool=pool).wait() == []


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [procaio.aio_stat_many, procaio.aio_load_many])
def test_wrong_paths_raise_in_the_call(pool: procaio.Pool, function: Callable[..., Any]) -> None:
    array = np.array(["a", "b"])
    array.view("u4")[1] = 0x110000
    for wrong, kind in (
        ("path", TypeError),
        (b"path", TypeError),
        (Path("path"), TypeError),
        (3, TypeError),
        ([3], TypeError),
        (np.array([3, 4]), TypeError),
        (np.array([["a"], ["b"]]), TypeError),
        (["a", "b\0c"], ValueError),
        (["\ud800"], ValueError),
        (np.array(["a\0b"]), ValueError),
        (np.array([b"a\0b"]), ValueError),
        (array, ValueError),
    ):
        with pytest.raises(kind):
            function(wrong, pool=pool)
    with pytest.raises(ValueError, match="dir_fd"):
        function(["a"], dir_fd=2**40, pool=pool)
    assert pool.statistics().submitted == 0


def test_wrong_reads_raise_in_the_call(pool: procaio.Pool, fd: int, data_file: Path) -> None:
    with procaio.Buffer(100, pool) as out, procaio.Pool() as other:
        procaio.aio_nop(pool=other).wait()
        for arguments, kind in (
            ((fd, [1, 2], [3]), ValueError),
            (([fd, fd], 0, [3]), ValueError),
            ((fd, np.array([1, 2]), [3, 3, 3]), ValueError),
            ((fd, -1, 1), ValueError),
            ((fd, [0, -1], 1), ValueError),
            ((fd, np.array([0, -1]), 1), ValueError),
            ((fd, 0, np.array([2**64 - 1], "u8")), ValueError),
            ((fd, [0, 0], 2**62), ValueError),
            ((fd, None, 1), TypeError),
            ((fd, "0", 1), TypeError),
            ((fd, 0.5, 1), TypeError),
            ((fd, np.array([0.5]), 1), TypeError),
            (([fd, "3"], 0, 1), TypeError),
            ((None, 0, 1), TypeError),
            ((fd, [0, 60], [50, 51], out), ValueError),
            ((fd, 0, 1, bytearray(1)), TypeError),
        ):
            with pytest.raises(kind):
                procaio.aio_read_many(*arguments, pool=pool)
        with pytest.raises(ValueError, match="another pool"):
            procaio.aio_read_many(fd, 0, 1, out, pool=other)
        with pytest.raises(ValueError, match="array"):
            procaio.aio_read_many(fd, 0, 1, array=True, pool=pool)
        out.release()
        with pytest.raises(ValueError, match="released"):
            procaio.aio_read_many(fd, 0, 1, out, pool=pool)
    with open(data_file, "rb") as closed:
        pass
    with pytest.raises(ValueError, match="closed"):
        procaio.aio_read_many([fd, closed], 0, 1, pool=pool)
    assert pool.statistics().submitted == 0


class File:
    """Something with a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The number."""
        return self._fd


def test_what_is_given_may_be_changed_after_the_call(
    workers: procaio.Pool, tree: Path, fd: int
) -> None:
    """Paths and numbers are copied, and files and Buffers stay until it is done."""
    workers.max_parallel(0)
    paths, array = [str(tree)] * 3000, np.array([str(tree)] * 3000)
    offsets = np.zeros(3000, "i8")
    out = procaio.Buffer(3000, workers)
    files = [File(fd)]
    file = weakref.ref(files[0])
    requests = [
        procaio.aio_stat_many(paths, pool=workers),
        procaio.aio_stat_many(array, pool=workers),
        procaio.aio_read_many(fd, offsets, 1, pool=workers),
        procaio.aio_read_many(files.pop(), offsets, 1, pool=workers),
        procaio.aio_read_many(fd, offsets, 1, out, pool=workers),
    ]
    paths.clear()
    array[:] = "nothing"
    offsets[:] = -1
    out.release()
    del out
    assert file() is not None
    workers.min_parallel(2)
    first = os.pread(fd, 1, 0)
    results = [request.wait() for request in requests]
    assert results[0] == results[1] == [os.stat(tree)] * 3000
    assert results[2] == results[3] == [first] * 3000
    assert results[4] == [1] * 3000
    requests.clear()
    assert file() is None


def test_without_numpy_arrays_are_refused_and_lists_are_not(tree: Path) -> None:
    text = f"""
import sys
sys.modules["numpy"] = None
import procaio
for call in (
    lambda: procaio.aio_stat_many([], array=True),
    lambda: procaio.aio_load_many([], packed=True),
):
    try:
        call()
    except ImportError as error:
        assert "pip install numpy" in str(error)
    else:
        raise SystemExit("no error")
assert len(procaio.aio_stat_many(["{tree}"] * 3).wait()) == 3
assert procaio.aio_read_many(-1, [0, 1], 2).wait()[1].errno == 9
"""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60)


# -- life ------------------------------------------------------------------------------------------


def test_batch_is_awaited_called_back_and_a_member_of_a_group(
    pool: procaio.Pool, tree: Path
) -> None:
    paths = [str(tree)] * MANY
    answers: list[Any] = []

    async def awaited() -> Any:
        return await procaio.aio_stat_many(paths, pool=pool)

    assert asyncio.run(awaited()) == [os.stat(tree)] * MANY
    group = procaio.aio_group(pool=pool)
    batch = procaio.aio_stat_many(paths, answers.append, pri=2, pool=pool)
    group.add(batch)
    group.wait()
    assert [len(answer) for answer in answers] == [MANY]
    assert batch.pri == 2


def test_few_chunks_are_under_way_and_progress_is_seen(workers: procaio.Pool, tree: Path) -> None:
    """Millions of items take no more shared memory than thousands."""
    batch = procaio.aio_stat_many([str(tree)] * 50 * MANY, array=True, pool=workers)
    seen, members = [0], [0]
    while batch.state != "done":
        workers.poll()
        seen.append(batch.progress.done)
        members.append(workers.nreqs())
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
    assert max(members) <= 18
    assert batch.progress.done == batch.progress.total == 50 * MANY
    assert not batch.wait()["err"].any()


def test_more_urgent_request_overtakes_all_chunks_that_have_not_begun(
    workers: procaio.Pool, tree: Path
) -> None:
    workers.max_parallel(1)
    batch = procaio.aio_stat_many([str(tree)] * 50 * MANY, array=True, pool=workers)
    order: list[int] = []
    urgent = procaio.aio_nop(lambda *_: order.append(batch.progress.done), pri=1, pool=workers)
    urgent.wait()
    assert order[0] <= 2 * 1024
    batch.cancel()


def test_chunk_on_a_slow_file_system_ends_after_its_first_item(
    slowfs: ModuleType, tmp_path: Path, workers: procaio.Pool
) -> None:
    """Else whatever is more urgent would wait for several."""
    source, mount = tmp_path / "source", tmp_path / "mount"
    source.mkdir()
    paths = [mount / str(number) for number in range(12)]
    for path in paths:
        (source / path.name).write_text(path.name)
    with slowfs.mounted(source, mount, "delay_ms=10"):
        assert procaio.aio_load_many(paths, pool=workers).wait() == [
            path.name.encode() for path in paths
        ]
    assert sum(worker.taken for worker in workers.statistics().workers) == len(paths)


@pytest.mark.parametrize("inline", [False, True])
def test_cancelled_batch_ends_at_once_and_calls_nobody(tree: Path, *, inline: bool) -> None:
    with procaio.Pool(inline=inline) as pool:
        answers: list[Any] = []
        batch = procaio.aio_stat_many([str(tree)] * 50 * MANY, answers.append, pool=pool)
        eventually(lambda: pool.poll() >= 0 and batch.progress.done > 0, "it begins")
        batch.cancel()
        done = batch.progress.done
        pool.flush()
        assert pool.nreqs() == 0
        assert answers == []
        assert batch.progress.done == done < 50 * MANY
        with pytest.raises(procaio.RequestCancelled):
            batch.wait()


def test_aborted_batch_fails_and_says_how_far_it_is(workers: procaio.Pool, tree: Path) -> None:
    answers: list[Any] = []
    batch = procaio.aio_load_many([tree / "001"] * 50 * MANY, answers.append, pool=workers)
    eventually(lambda: workers.poll() >= 0 and batch.progress.done > 0, "it begins")
    assert batch.abort()
    with pytest.raises(OSError, match="abort") as raised:
        batch.wait(timeout=30)
    assert raised.value.errno == errno.ECANCELED
    assert answers == [None]
    assert batch.progress.done < batch.progress.total
    assert procaio.aio_nop(pool=workers).wait() is None


def test_batch_that_is_not_done_in_time_fails(workers: procaio.Pool, gate: Gate) -> None:
    workers.max_parallel(1)
    (held,) = gate.hold(workers)
    batch = procaio.aio_stat_many(["/"] * MANY, timeout=0.01, pool=workers)
    with pytest.raises(TimeoutError):
        batch.wait(timeout=30)
    gate.open()
    assert held.wait() == b"x"


def test_pool_that_is_closed_completes_a_batch(tree: Path) -> None:
    with procaio.Pool() as pool:
        batch = procaio.aio_stat_many([str(tree)] * MANY, pool=pool)
        packed = procaio.aio_load_many([tree / "001"] * MANY, packed=True, pool=pool)
    assert batch.wait() == [os.stat(tree)] * MANY
    assert packed.wait()[1]["size"].tolist() == [1] * MANY


def test_batch_that_cannot_be_done_does_not_keep_the_program(tree: Path) -> None:
    text = f"""
import os
import procaio
read, write = os.pipe()
procaio.exit_timeout(0.1)
held = [procaio.aio_read(read, None, 1) for _ in range(8)]
batch = procaio.aio_load_many(["{tree}/001"] * 3000, lambda got: print(got, procaio.errno()))
"""
    done = subprocess.run(
        [sys.executable, "-c", text], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout == f"None {errno.ECANCELED}\n"


def test_batch_of_before_a_fork_is_the_parents(workers: procaio.Pool, tree: Path) -> None:
    batch = procaio.aio_load_many([tree / "001"] * MANY, pool=workers)

    def look() -> None:
        assert batch.state == "dead"
        assert procaio.aio_load_many([tree / "002"] * 3).wait() == [read_by_os(tree / "002")] * 3

    assert succeeds(in_child(look))
    assert batch.wait() == [read_by_os(tree / "001")] * MANY


def test_batches_of_several_threads_do_not_disturb_each_other(
    workers: procaio.Pool, tree: Path
) -> None:
    paths = paths_in(tree)
    results: list[Any] = []

    def run() -> None:
        results.extend(procaio.aio_load_many(paths, pool=workers).wait() for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = [by_os(read_by_os, path) for path in paths]
    assert len(results) == 20
    for result in results:
        assert all(map(is_same, result, expected))


def test_batch_fails_cleanly_without_shared_memory(
    workers: procaio.Pool, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    procaio.aio_nop(pool=workers).wait()

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("os.posix_fallocate", refuse)
    monkeypatch.setattr("os.memfd_create", refuse)
    answers: list[Any] = []
    batch = procaio.aio_load_many([tree / "001"] * MANY, answers.append, pool=workers)
    workers.flush()
    assert answers in ([None], [[read_by_os(tree / "001")] * MANY])
    assert answers != [None] or batch.error.errno in {errno.ENOMEM, errno.ENOSPC}
    monkeypatch.undo()
    assert procaio.aio_load_many([tree / "001"], pool=workers).wait() != []


# -- workers that die, or write what cannot be -----------------------------------------------------


@pytest.mark.parametrize("point", testing.FAULT_POINTS)
def test_worker_dies_among_chunks_and_nobody_notices(
    workers: procaio.Pool, tree: Path, point: str
) -> None:
    paths = paths_in(tree) * 20
    expected = [by_os(read_by_os, path) for path in paths]
    procaio.aio_nop(pool=workers).wait()
    testing.arm(workers, point, after=3)
    assert all(map(is_same, procaio.aio_load_many(paths, pool=workers).wait(), expected))


@pytest.mark.parametrize("array", [False, True])
def test_only_the_item_over_which_three_workers_die_fails(
    slowfs: ModuleType, tmp_path: Path, workers: procaio.Pool, *, array: bool
) -> None:
    """The others go on, and what is done is not done again."""
    source, mount = tmp_path / "source", tmp_path / "mount"
    source.mkdir()
    (source / "slow").touch()
    with slowfs.mounted(source, mount, "delay_ms=300"):
        workers.max_parallel(1)
        procaio.aio_nop(pool=workers).wait()
        procaio.Buffer(1, pool=workers).release()
        memory = Memory(workers)
        paths = [str(tmp_path)] * 5 + [str(mount / "slow")] + [str(tmp_path)] * 5
        batch = procaio.aio_stat_many(paths, array=array, pool=workers)
        for _ in range(3):
            eventually(
                lambda: workers.poll_cb() == 0 and is_at(memory, 5), "a worker is at the slow one"
            )
            (worker,) = (w.pid for w in workers.statistics().workers if w.state == "execute")
            kill(worker)
            eventually(
                lambda pid=worker: (
                    workers.poll_cb() == 0
                    and pid not in {w.pid for w in workers.statistics().workers}
                ),
                "it is gone",
            )
        got = batch.wait(timeout=60)
        memory.close()
    assert workers.statistics().rerun == 3
    if array:
        assert got["err"].tolist() == [0] * 5 + [errno.EIO] + [0] * 5
        return
    assert isinstance(got[5], procaio.WorkerDied)
    assert (got[5].errno, got[5].filename) == (errno.EIO, paths[5])
    assert got[:5] == got[6:] == [os.stat(tmp_path)] * 5


def is_at(memory: Memory, item: int) -> bool:
    return any(
        memory.get(memory.slot(index, "path2_at")) == item for index in memory.slots(EXECUTING)
    )


def done_slot(memory: Memory) -> int:
    eventually(lambda: [*memory.slots(DONE)] != [], "the chunk is done")
    (index,) = memory.slots(DONE)
    return index


@pytest.mark.parametrize("count", [0, 4, -4096, 1 << 40, -(1 << 63)])
@pytest.mark.parametrize("array", [False, True])
def test_chunk_with_a_number_that_cannot_be_fails(
    workers: procaio.Pool, tmp_path: Path, count: int, *, array: bool
) -> None:
    procaio.aio_nop(pool=workers).wait()
    memory = Memory(workers)
    batch = procaio.aio_stat_many([tmp_path] * 3, array=array, pool=workers)
    memory.put64(memory.slot(done_slot(memory), "result"), count)
    with pytest.raises(procaio.WorkerDied):
        batch.wait(timeout=30)
    memory.close()
    assert procaio.aio_stat_many([tmp_path], pool=workers).wait() == [os.stat(tmp_path)]


GARBAGE = [4097, 1 << 40, -4098, -4097, -(1 << 63), (1 << 63) - 1]


@pytest.mark.parametrize("what", ["stat", "read", "load", "packed", "out"])
@pytest.mark.parametrize("outcome", GARBAGE)
def test_chunk_with_an_outcome_that_cannot_be_fails(
    workers: procaio.Pool, fd: int, tmp_path: Path, what: str, outcome: int
) -> None:
    """Whatever a worker writes, the program reads nothing outside the block."""
    size = 4096 - 7
    (tmp_path / "loaded").write_bytes(b"needle!" + os.urandom(size - 7))
    out = procaio.Buffer(8192, workers)
    procaio.aio_nop(pool=workers).wait()
    make = {
        "stat": lambda: procaio.aio_stat_many([tmp_path] * 2, pool=workers),
        "read": lambda: procaio.aio_read_many(fd, [0, 1], 4096, pool=workers),
        "load": lambda: procaio.aio_load_many([tmp_path / "loaded"] * 2, pool=workers),
        "packed": lambda: procaio.aio_load_many(
            [tmp_path / "loaded"] * 2, packed=True, pool=workers
        ),
        "out": lambda: procaio.aio_read_many(fd, [0, 1], 4096, out, pool=workers),
    }[what]
    batch = make()
    memory = Memory(workers)
    index = done_slot(memory)
    while memory.get(memory.slot(index, "result")) != 2:  # one took long, so the other comes later
        batch.wait(timeout=30)
        batch = make()
        index = done_slot(memory)
    at = memory.get(memory.slot(index, "arena_offset")) + memory.get(
        memory.slot(index, "file_offset")
    )
    at += {"stat": 112, "read": 8, "out": 8}.get(what, 16)  # of the second item
    memory.data[0][at : at + 8] = (outcome % (1 << 64)).to_bytes(8, "little")
    if what in {"load", "packed"} and outcome == 4097:  # it would fit, but not there
        memory.data[0][at + 8 : at + 16] = (1 << 63).to_bytes(8, "little")
    with pytest.raises(procaio.WorkerDied):
        batch.wait(timeout=30)
    memory.close()
    out.release()
    assert procaio.aio_stat_many([tmp_path], pool=workers).wait() == [os.stat(tmp_path)]


@pytest.mark.parametrize("begun", [7, 1 << 31, (1 << 32) - 1])
def test_worker_that_dies_after_noting_an_item_that_cannot_be_is_harmless(
    slowfs: ModuleType, tmp_path: Path, workers: procaio.Pool, begun: int
) -> None:
    source, mount = tmp_path / "source", tmp_path / "mount"
    source.mkdir()
    (source / "slow").touch()
    with slowfs.mounted(source, mount, "delay_ms=300"):
        procaio.aio_nop(pool=workers).wait()
        procaio.Buffer(1, pool=workers).release()
        memory = Memory(workers)
        batch = procaio.aio_stat_many([mount / "slow"], pool=workers)
        eventually(lambda: is_at(memory, 0), "a worker is at it")
        (index,) = memory.slots(EXECUTING)
        memory.put(memory.slot(index, "path2_at"), begun)
        kill(next(w.pid for w in workers.statistics().workers if w.state == "execute"))
        (result,) = batch.wait(timeout=60)
        memory.close()
        assert result == os.stat(mount / "slow")
