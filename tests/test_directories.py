"""Directories: names of any size and kind (rules G)."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path


# -- flags -----------------------------------------------------------------------------------------


def test_found_unknown_is_not_returned_because_it_was_asked_for(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """FOUND_UNKNOWN comes back if, and only if, an unknown type was there (G2)."""
    flags = procaio.READDIR_DENTS | procaio.READDIR_FOUND_UNKNOWN
    assert procaio.aio_readdirx(tmp_path, flags, pool=pool).wait() == ([], procaio.READDIR_DENTS)
    answers = []
    procaio.aio_readdirx(tmp_path / "no", flags, lambda *answer: answers.append(answer), pool=pool)
    pool.flush()
    assert answers == [(None, procaio.READDIR_DENTS)]


def kinds(root: Path) -> dict[str, int]:
    """One of each kind; their types as the file system tells them."""
    (root / "dir").mkdir()
    (root / ".hidden").mkdir()
    (root / "file.txt").touch()
    (root / "plain").touch()
    (root / "link").symlink_to("dir")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    return {
        "dir": procaio.DT_DIR, ".hidden": procaio.DT_DIR, "file.txt": procaio.DT_REG,
        "plain": procaio.DT_REG, "link": procaio.DT_LNK, "fifo": procaio.DT_FIFO,
        "socket": procaio.DT_SOCK,
    }  # fmt: skip


def test_dents_give_name_type_and_inode(pool: procaio.Pool, tmp_path: Path) -> None:
    """READDIR_DENTS: an entry is (name, type, inode); the types are DT_* (G3)."""
    expected = kinds(tmp_path)
    entries, flags = procaio.aio_readdirx(tmp_path, procaio.READDIR_DENTS, pool=pool).wait()
    assert flags == procaio.READDIR_DENTS
    assert {name: kind for name, kind, _ in entries} == expected
    for name, _, inode in entries:
        assert inode == os.lstat(tmp_path / name).st_ino


def test_plain_readdirx_gives_names(pool: procaio.Pool, tmp_path: Path) -> None:
    """Without flags, what aio_readdir gives, in the same order; and two callback arguments."""
    kinds(tmp_path)
    seen: list[tuple[object, ...]] = []
    procaio.aio_readdirx(tmp_path, 0, lambda *answer: seen.append(answer), pool=pool)
    names = procaio.aio_readdir(tmp_path, pool=pool).wait()
    pool.flush()
    assert seen == [(names, 0)]


def test_dirs_first_puts_directories_first(pool: procaio.Pool, tmp_path: Path) -> None:
    """Where types are known, directories come first; each part by inode (G4)."""
    expected = kinds(tmp_path)
    for more in (0, procaio.READDIR_STAT_ORDER):
        flags = procaio.READDIR_DENTS | procaio.READDIR_DIRS_FIRST | more
        entries, _ = procaio.aio_readdirx(tmp_path, flags, pool=pool).wait()
        dirs = [kind == procaio.DT_DIR for _, kind, _ in entries]
        assert dirs == [True] * 2 + [False] * 5
        assert {name for name, _, _ in entries} == set(expected)
        for part in (entries[:2], entries[2:]):
            assert [inode for _, _, inode in part] == sorted(inode for _, _, inode in part)


def test_stat_order_is_by_inode(pool: procaio.Pool, tmp_path: Path) -> None:
    """So that stat'ing all of them is quick (G5)."""
    names = [f"{n * 7919 % 1000:03d}" for n in range(1000)]
    for name in names:
        (tmp_path / name).touch()
    flags = procaio.READDIR_STAT_ORDER
    found, _ = procaio.aio_readdirx(tmp_path, flags, pool=pool).wait()
    inodes = [os.stat(tmp_path / name).st_ino for name in found]
    assert inodes == sorted(inodes)
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize("flags", [0, 2, 4, 6])
def test_order_is_the_same_with_and_without_dents(
    pool: procaio.Pool, tmp_path: Path, flags: int
) -> None:
    """READDIR_DENTS only adds (G6)."""
    kinds(tmp_path)
    for n in range(300):
        (tmp_path / f"{'.' * (n % 3)}{n}").touch()
    names, _ = procaio.aio_readdirx(tmp_path, flags, pool=pool).wait()
    entries, _ = procaio.aio_readdirx(tmp_path, flags | 1, pool=pool).wait()
    assert [name for name, _, _ in entries] == names


# -- names -----------------------------------------------------------------------------------------

NAMES = [
    b"plain",
    "ünïcode".encode(),
    b"not utf-8 \xff\xfe",
    b"with\nnewline",
    b"x" * 255,
    b"...",
    b" ",
]


def test_readdir_gives_the_names_of_os_listdir(pool: procaio.Pool, tmp_path: Path) -> None:
    """Str for str and PathLike, bytes for bytes, without . and .., in the same order (G1)."""
    top = os.fsencode(tmp_path)
    for name in NAMES:
        with open(os.path.join(top, name), "wb"):
            pass
    for path in (str(tmp_path), top, tmp_path, Dir(top), Dir(str(tmp_path))):
        names = procaio.aio_readdir(path, pool=pool).wait()
        assert names == os.listdir(path)
        assert {type(name) for name in names} == {type(os.fspath(path))}
    assert sorted(map(os.fsencode, procaio.aio_readdir(tmp_path, pool=pool).wait())) == sorted(
        NAMES
    )


class Dir:
    """A path of either kind."""

    def __init__(self, path: str | bytes) -> None:
        self._path = path

    def __fspath__(self) -> str | bytes:
        """What it is."""
        return self._path


def test_empty_directory_has_no_names(pool: procaio.Pool, tmp_path: Path) -> None:
    assert procaio.aio_readdir(tmp_path, pool=pool).wait() == []


def test_readdir_relative_to_a_directory(pool: procaio.Pool, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with procaio.aio_open(tmp_path, os.O_DIRECTORY, pool=pool).wait() as top:
        assert procaio.aio_readdir("a", dir_fd=top, pool=pool).wait() == ["b"]
        assert procaio.aio_readdir(b".", dir_fd=top.fileno(), pool=pool).wait() == [b"a"]
        assert procaio.aio_readdirx("a", 1, dir_fd=top, pool=pool).wait()[0][0][0] == "b"


def test_readdir_of_what_is_no_directory_fails_like_os(pool: procaio.Pool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "fifo", "loop", "no", "x" * 300):
        path = str(tmp_path / name)
        with pytest.raises(OSError) as expected:
            os.listdir(path)
        with pytest.raises(OSError) as raised:
            procaio.aio_readdir(path, pool=pool).wait()
        assert str(raised.value) == str(expected.value)


# -- size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [100, 1_000, 2_000, 30_000])
def test_directory_of_any_size_is_complete(pool: procaio.Pool, tmp_path: Path, count: int) -> None:
    """One step or many: every name once, and no descriptor stays open (G1)."""
    names = fill(tmp_path, count)
    assert sorted(procaio.aio_readdir(tmp_path, pool=pool).wait()) == names
    entries, _ = procaio.aio_readdirx(tmp_path, 7, pool=pool).wait()
    assert sorted(name for name, _, _ in entries) == names


def fill(path: Path, count: int) -> list[str]:
    """Many names of some length, all for one file."""
    names = [f"{number:06d} a name of some length" for number in range(count)]
    for start in range(0, count, 30_000):  # a file has at most 65,000 names
        (path / names[start]).touch()
        for name in names[start + 1 : start + 30_000]:
            os.link(path / names[start], path / name)
    return names


@pytest.mark.slow
def test_directory_of_a_hundred_thousand(pool: procaio.Pool, tmp_path: Path) -> None:
    """There is no size limit anywhere (G1)."""
    names = fill(tmp_path, 100_000)
    requests = [procaio.aio_readdir(tmp_path, pool=pool) for _ in range(4)]
    for request in requests:
        assert sorted(request.wait()) == names


def test_large_directory_that_is_cancelled_leaves_nothing_open(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """Wherever the request is when it is cancelled (L1); the leak check of every test looks."""
    fill(tmp_path, 5_000)
    for _ in range(30):
        request = procaio.aio_readdir(tmp_path, pool=workers)
        procaio.aio_nop(pool=workers).wait()
        request.cancel()
    workers.flush()


def test_large_directory_that_is_cancelled_is_read_no_further(
    workers: procaio.Pool, tmp_path: Path
) -> None:
    """What a worker has read by then is the last of it; else there are more steps (G7)."""
    names = fill(tmp_path, 30_000)

    def taken() -> int:
        return sum(worker.taken for worker in workers.statistics().workers)

    def read(*, cancel: bool) -> tuple[procaio.Request[list[str]], int]:
        procaio.aio_nop(pool=workers).wait()
        before = taken()
        request = procaio.aio_readdir(tmp_path, pool=workers)
        eventually(lambda: request.state == "pending", "the first step")
        if cancel:
            request.cancel()
        workers.flush()
        return request, taken() - before

    workers.max_parallel(1)
    cancelled, steps = read(cancel=True)
    assert steps <= 2  # a worker may have closed it already
    assert cancelled.result is None
    whole, steps = read(cancel=False)
    assert steps > 2
    assert sorted(whole.result) == names
