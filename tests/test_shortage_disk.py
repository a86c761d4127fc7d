"""Full disks and quotas: the system's error with the path, no part, and all is well with room."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import pytest

import procaio
import trees
from conftest import run_fine
from copying import failure, mounted, needs_root, open_in
from programs import FILTER, X86

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OLD = b"old content"
ROOM = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB with a file that takes most of it."""
    with mounted(tmp_path / "small", "tmpfs", options="size=1m,nr_inodes=20") as path:
        (path / "ballast").write_bytes(bytes(ROOM - (64 << 10)))
        yield path


@pytest.fixture
def no_inodes(small: Path) -> Path:
    """It, with no room for another name."""
    with contextlib.suppress(OSError):
        for number in range(100):
            (small / f"{number}").touch()
    assert os.statvfs(small).f_ffree == 0
    return small


# -- space -----------------------------------------------------------------------------------------


@needs_root
def test_write_to_a_full_disk_says_how_far_it_came_and_then_enospc(
    pool: procaio.Pool, small: Path
) -> None:
    """A short write, an error; when there is room again, the rest."""
    data = os.urandom(256 << 10)
    with open(small / "file", "wb", 0) as file:
        put = procaio.aio_write(file, 0, None, data, pool=pool).wait()
        assert 0 < put < len(data)
        for _ in range(3):
            request = procaio.aio_write(file, put, None, data[put:], pool=pool)
            assert failure(request.wait).errno == errno.ENOSPC
            request = procaio.aio_allocate(file, 0, put, 1 << 20, pool=pool)
            assert failure(request.wait).errno == errno.ENOSPC
        (small / "ballast").unlink()
        assert procaio.aio_write(file, put, None, data[put:], pool=pool).wait() == len(data) - put
    assert (small / "file").read_bytes() == data


@needs_root
@pytest.mark.parametrize("existed", [False, True])
def test_replace_on_a_full_disk_changes_nothing(
    pool: procaio.Pool, small: Path, existed: bool
) -> None:
    """The old content stays, and no part of the new one."""
    file, new = small / "file", os.urandom(256 << 10)
    if existed:
        file.write_bytes(OLD)
    before, free = os.listdir(small), os.statvfs(small).f_bfree
    for _ in range(3):
        error = failure(procaio.aio_replace(file, new, pool=pool).wait)
        assert (error.errno, error.filename) == (errno.ENOSPC, file)
        assert os.listdir(small) == before
        assert os.statvfs(small).f_bfree == free
        assert not existed or file.read_bytes() == OLD
    (small / "ballast").unlink()
    procaio.aio_replace(file, new, pool=pool).wait()
    assert file.read_bytes() == new


@needs_root
def test_copies_to_a_full_disk_leave_no_part_and_work_when_there_is_room(
    pool: procaio.Pool, small: Path, tmp_path: Path
) -> None:
    """aio_copy, the copying of aio_move, aio_sendfile; the sources stay."""
    source, copy = tmp_path / "source", small / "copy"
    source.write_bytes(os.urandom(256 << 10))
    before, free = os.listdir(small), os.statvfs(small).f_bfree
    for call in (procaio.aio_copy, procaio.aio_move):
        for _ in range(2):
            error = failure(call(source, copy, pool=pool).wait)
            assert (error.errno, error.filename) == (errno.ENOSPC, source)
            assert (os.listdir(small), os.statvfs(small).f_bfree) == (before, free)
    content = source.read_bytes()
    (small / "ballast").unlink()
    procaio.aio_copy(source, copy, pool=pool).wait()
    procaio.aio_move(source, small / "moved", pool=pool).wait()
    assert copy.read_bytes() == (small / "moved").read_bytes() == content
    assert not source.exists()
    assert open_in(small) == set()


@needs_root
def test_tree_that_did_not_fit_is_copied_when_it_does(
    pool: procaio.Pool, small: Path, tmp_path: Path
) -> None:
    """What is told to be missing, and nothing else, is missing; the same pool goes on."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(4):
        (tree / f"{number}").write_bytes(os.urandom(30 << 10))
    request = procaio.aio_copytree(tree, small / "copy", pool=pool)
    number, failures = trees.failed(request)
    assert number == errno.ENOSPC
    assert {error for _, error in failures} == {errno.ENOSPC}
    missing = {os.path.basename(os.fsdecode(name)) for name, _ in failures}
    assert set(os.listdir(small / "copy")) == set(os.listdir(tree)) - missing
    for name in os.listdir(small / "copy"):
        assert (small / "copy" / name).read_bytes() == (tree / name).read_bytes()
    procaio.aio_rmtree(small / "copy", pool=pool).wait()
    (small / "ballast").unlink()
    procaio.aio_copytree(tree, small / "copy", pool=pool).wait()
    assert trees.picture(small / "copy") == trees.picture(tree)


# -- names -----------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Path, procaio.Pool], procaio.Request[object]]] = {
    "open": lambda new, pool: procaio.aio_open(new, os.O_CREAT | os.O_WRONLY, 0o600, pool=pool),
    "mkdir": lambda new, pool: procaio.aio_mkdir(new, 0o700, pool=pool),
    "mkdirs": lambda new, pool: procaio.aio_mkdirs(new, pool=pool),
    "symlink": lambda new, pool: procaio.aio_symlink("target", new, pool=pool),
    "replace": lambda new, pool: procaio.aio_replace(new, b"", pool=pool),
    "copy": lambda new, pool: procaio.aio_copy("/proc/self/comm", new, pool=pool),
}


@needs_root
@pytest.mark.parametrize("maker", MAKERS)
def test_no_room_for_another_name_is_told_with_the_name(
    pool: procaio.Pool, no_inodes: Path, maker: str
) -> None:
    """ENOSPC, nothing is there; and it is made as soon as there is room."""
    new = no_inodes / "new"
    for _ in range(3):
        error = failure(MAKERS[maker](new, pool).wait)
        assert error.errno == errno.ENOSPC
        assert new in {error.filename, error.filename2}
        assert not os.path.lexists(new)
    (no_inodes / "0").unlink()
    made = MAKERS[maker](new, pool).wait()
    assert os.path.lexists(new)
    with contextlib.suppress(AttributeError):
        made.close()  # type: ignore[attr-defined]


# -- quotas ----------------------------------------------------------------------------------------


QUOTA = """
    import errno, os, procaio
    for number in (18, 326, 40):  # pwrite64, copy_file_range, sendfile
        refuse(number, errno.EDQUOT)
    before = sorted(os.listdir("."))
    def error_of(request):
        try:
            request.wait(timeout=30)
        except OSError as error:
            return error.errno, error.filename, error.filename2
"""


@X86
def test_quota_is_told_as_such_and_leaves_no_part(tmp_path: Path) -> None:
    """EDQUOT is passed on by everything that writes, and the pool does everything else."""
    (tmp_path / "source").write_bytes(b"content")
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content")
    run_fine(
        """
            old, full = open("old", "rb+", 0), errno.EDQUOT
            with procaio.Pool() as pool:
                assert error_of(procaio.aio_write(old, 0, None, b"x", pool=pool))[0] == full
                request = procaio.aio_copy("source", "copy", pool=pool)
                assert error_of(request) == (full, "source", "copy")
                request = procaio.aio_copytree("tree", "copy", pool=pool)
                assert error_of(request)[0] == full
                assert [error for *_, error in request.progress.failures] == [full]
                assert os.listdir("copy") == []
                os.rmdir("copy")
                assert procaio.aio_load("old", pool=pool).wait() == b"old content"
                assert sorted(os.listdir(".")) == before
                assert pool.statistics().worker_deaths == 0
            print("fine")
            """,
        FILTER,
        QUOTA,
        cwd=tmp_path,
    )
