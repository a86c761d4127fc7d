"""Links: link, symlink, readlink, and both names in their errors (rules F7, A5)."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import eventually
from procaio import testing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def failure(call: Callable[[], object]) -> OSError:
    """The error that it must raise."""
    with pytest.raises(OSError) as raised:
        call()
    return raised.value


def inode(path: Path) -> int:
    """Of a symlink itself."""
    return os.lstat(path).st_ino


# -- link ------------------------------------------------------------------------------------------


def test_link_gives_a_file_another_name(pool: procaio.Pool, data_file: Path) -> None:
    """By str, bytes and PathLike; 0 to the callback."""
    answers: list[int] = []
    for n, spell in enumerate((str, os.fsencode, pathlib.Path)):
        name = data_file.with_name(f"name-{n}")
        request = procaio.aio_link(spell(data_file), spell(name), answers.append, pool=pool)
        assert request.wait() == 0
        assert inode(name) == inode(data_file)
    assert answers == [0, 0, 0]
    assert os.stat(data_file).st_nlink == 4


def test_link_of_a_symlink_links_the_symlink(pool: procaio.Pool, data_file: Path) -> None:
    """Itself, and not what it points to, unless follow_symlinks says so (F7)."""
    link, name = data_file.with_name("link"), data_file.with_name("name")
    link.symlink_to("data")
    for keywords, expected in (
        ({}, link), ({"follow_symlinks": False}, link), ({"follow_symlinks": True}, data_file),
    ):  # fmt: skip
        assert procaio.aio_link(link, name, pool=pool, **keywords).wait() == 0
        assert inode(name) == inode(expected)
        assert name.is_symlink() == (expected is link)
        name.unlink()


def test_link_of_a_dangling_symlink(pool: procaio.Pool, tmp_path: Path) -> None:
    """It needs no target to be linked itself (F7)."""
    (tmp_path / "link").symlink_to("nowhere")
    assert procaio.aio_link(tmp_path / "link", tmp_path / "name", pool=pool).wait() == 0
    assert os.readlink(tmp_path / "name") == "nowhere"
    followed = procaio.aio_link(
        tmp_path / "link", tmp_path / "other", follow_symlinks=True, pool=pool
    )
    assert isinstance(failure(followed.wait), FileNotFoundError)


def test_link_relative_to_directories(pool: procaio.Pool, data_file: Path) -> None:
    """src_dir_fd and dst_dir_fd, each for its own name."""
    low = data_file.with_name("low")
    low.mkdir()
    with (
        procaio.aio_open(data_file.parent, os.O_DIRECTORY, pool=pool).wait() as top,
        procaio.aio_open(low, os.O_DIRECTORY, pool=pool).wait() as bottom,
    ):
        both = procaio.aio_link("data", b"one", src_dir_fd=top, dst_dir_fd=bottom, pool=pool)
        assert both.wait() == 0
        source = procaio.aio_link("one", low / "two", src_dir_fd=bottom.fileno(), pool=pool)
        assert source.wait() == 0
        target = procaio.aio_link(low / "two", "three", dst_dir_fd=bottom, pool=pool)
        assert target.wait() == 0
    assert sorted(os.listdir(low)) == ["one", "three", "two"]


# -- symlink ---------------------------------------------------------------------------------------

TARGETS = [
    "data", "nowhere", "../x//y/", ".", "/", " ", "with\nnewline", "ünïcode", "\udcff\udc80",
    "x" * 59, "x" * 60, "x" * 300, "x/" * 1000, "y" * 4095,
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t[:4]!a}-{len(t)}")
def test_symlink_says_what_it_was_given_and_readlink_tells(
    pool: procaio.Pool, tmp_path: Path, target: str
) -> None:
    """Whatever that is, and of any length; str for str and PathLike, bytes for bytes."""
    link = tmp_path / "link"
    for given in (target, os.fsencode(target)):
        assert procaio.aio_symlink(given, link, pool=pool).wait() == 0
        assert os.readlink(link) == target
        for path in (link, str(link), os.fsencode(link)):
            told = procaio.aio_readlink(path, pool=pool).wait()
            assert told == os.readlink(path)
            assert type(told) is type(os.fspath(path))
        link.unlink()


def test_symlink_is_made_relative_to_a_directory(pool: procaio.Pool, tmp_path: Path) -> None:
    """dir_fd is for the link; what it says is looked up nowhere."""
    with procaio.aio_open(tmp_path, os.O_DIRECTORY, pool=pool).wait() as top:
        assert procaio.aio_symlink("nowhere", "link", dir_fd=top, pool=pool).wait() == 0
        assert procaio.aio_symlink(b"no", b"other", dir_fd=top.fileno(), pool=pool).wait() == 0
        assert procaio.aio_readlink("link", dir_fd=top, pool=pool).wait() == "nowhere"
        assert procaio.aio_readlink(b"other", dir_fd=top.fileno(), pool=pool).wait() == b"no"
    assert os.readlink(tmp_path / "link") == "nowhere"


# -- readlink --------------------------------------------------------------------------------------


def test_readlink_of_links_of_the_system(pool: procaio.Pool) -> None:
    """They are made when they are read, and have no size."""
    for path in ("/proc/self/exe", f"/proc/{os.getpid()}/cwd", b"/proc/self/root"):
        assert procaio.aio_readlink(path, pool=pool).wait() == os.readlink(path)


def test_readlink_of_long_paths(pool: procaio.Pool, tmp_path: Path) -> None:
    """The path and what the link says share a block of memory; neither disturbs the other."""
    target = "z" * 4095
    os.symlink(target, tmp_path / "link")
    for length in (180, 191, 192, 193, 1000, 4095):
        path = f"{tmp_path}{'/' * (length - len(str(tmp_path)) - 4)}link"
        assert len(path) == length
        assert procaio.aio_readlink(path, pool=pool).wait() == target


@pytest.mark.parametrize("length", [4096, 5000, 8191, 8192, 8193, 100_000])
def test_readlink_of_a_path_that_is_too_long_fails_and_writes_over_nothing(
    pool: procaio.Pool, tmp_path: Path, length: int
) -> None:
    """ENAMETOOLONG, and memory beside that of the path stays as it was."""
    buffers = [procaio.Buffer(4096, pool) for _ in range(64)]
    for buffer in buffers:
        buffer[:] = b"o" * 4096
    for buffer in buffers[::2]:
        buffer.release()
    kept = buffers[1::2]
    path = "p" * length
    requests = [procaio.aio_readlink(path, pool=pool) for _ in range(48)]
    expected = failure(lambda: os.readlink(path))
    for request in requests:
        raised = failure(request.wait)
        assert (raised.errno, raised.filename) == (expected.errno, path)
    intact = [bytes(buffer) == b"o" * 4096 for buffer in kept]
    for buffer in kept:
        buffer.release()
    assert intact == [True] * 32


def test_readlink_fails_like_that_of_os(pool: procaio.Pool, data_file: Path) -> None:
    """What is no link, and what is not there; None to the callback."""
    (data_file.parent / "loop").symlink_to("loop")
    for name in ("data", ".", "no", "data/x", "loop/x", "x" * 300):
        path = data_file.parent / name
        answers: list[object] = []
        expected = failure(lambda path=path: os.readlink(path))
        raised = failure(procaio.aio_readlink(path, answers.append, pool=pool).wait)
        assert (raised.errno, answers) == (expected.errno, [None])
        assert raised.filename is path


def test_readlink_that_is_run_again_gives_the_same(workers: procaio.Pool, tmp_path: Path) -> None:
    """Also when the path lay where the result was written."""
    target = "z" * 4000
    os.symlink(target, tmp_path / "link")
    path = f"{tmp_path}{'/' * 3000}link"
    for _ in range(3):
        testing.arm(workers, "called")
        assert procaio.aio_readlink(path, pool=workers).wait(timeout=10) == target
    eventually(
        lambda: workers._sleep(0) or workers.statistics().worker_deaths == 3, "the last burial"
    )


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["link", "symlink", "rename"])
def test_errors_of_two_names_tell_both(pool: procaio.Pool, data_file: Path, name: str) -> None:
    """Both filename and filename2 are the caller's own objects, as those of os."""
    ours, theirs = getattr(procaio, f"aio_{name}"), getattr(os, name)
    here = data_file.parent
    (here / "dir").mkdir()
    (here / "dir" / "inner").touch()
    for source, target in (
        ("data", "no/x"), ("data", "data/x"), ("no", "no/y"), ("data", "x" * 300),
        ("dir", "data"), ("data", "dir"), ("data", "dir/inner/x"),
    ):  # fmt: skip
        pair = here / source, str(here / target)
        expected = failure(lambda pair=pair: theirs(*pair))
        answers: list[int] = []
        raised = failure(ours(*pair, answers.append, pool=pool).wait)
        assert answers == [-1]
        assert raised.errno == expected.errno
        assert (raised.filename, raised.filename2) == (
            pathlib.Path(expected.filename), expected.filename2,
        )  # fmt: skip
        assert raised.filename is pair[0]
        assert raised.filename2 is pair[1]


@pytest.mark.parametrize("name", ["link", "symlink", "rename"])
def test_second_names_that_are_wrong_raise_in_the_call(
    pool: procaio.Pool, data_file: Path, name: str
) -> None:
    """Like first ones (A5)."""
    ours = getattr(procaio, f"aio_{name}")
    for wrong in (None, 3, 1.5, [], bytearray(b"x")):
        with pytest.raises(TypeError):
            ours(data_file, wrong, pool=pool)
    for wrong in ("a\0b", b"\0", "\ud800"):
        with pytest.raises(ValueError):
            ours(data_file, wrong, pool=pool)
    assert pool.statistics().submitted == 0
