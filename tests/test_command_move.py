"""`procaio move`: what mv does, with many requests in flight."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from commands import NOT_UTF8, fill, make_of_all_kinds, run, run_as_nobody, snapshot
from copying import entry, mounted, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """Another file system of 1 MiB."""
    with mounted(tmp_path / "other", "tmpfs", options="size=1m") as path:
        yield path


# -- on one file system ---------------------------------------------------------------------------


def test_what_is_on_the_same_file_system_is_renamed(tmp_path: Path) -> None:
    """Nothing is copied: the inodes are the same."""
    tree = fill(tmp_path / "tree", directories=3, files=3)
    (tmp_path / "file").write_text("new")
    (tmp_path / "link").symlink_to("tree")
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "file").write_text("old")
    (tmp_path / "into" / "tree").mkdir()
    inode, before = (tmp_path / "file").stat().st_ino, snapshot(tree, inodes=True)

    done = run("move", "tree/", "file", "link", "into")

    assert (done.status, done.complaints) == (0, [])
    assert done.output.startswith("moved 3 paths in ")
    assert os.listdir() == ["into"]
    assert snapshot(tmp_path / "into" / "tree", inodes=True) == before
    assert (tmp_path / "into" / "file").stat().st_ino == inode
    assert (tmp_path / "into" / "link").readlink() == Path("tree")


def test_a_symlink_that_is_the_destination_is_replaced(tmp_path: Path) -> None:
    """Whatever it leads to, the file that is moved too; but a directory is moved into."""
    (tmp_path / "file").write_text("new")
    (tmp_path / "link").symlink_to("file")
    assert run("move", "file", "link").status == 0
    assert os.listdir() == ["link"]
    assert (tmp_path / "link").read_text() == "new"

    (tmp_path / "d").mkdir()
    (tmp_path / "to d").symlink_to("d")
    assert run("move", "link", "to d").status == 0
    assert os.listdir("d") == ["link"]


def test_a_path_inside_another_is_moved_in_the_order_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "into").mkdir()
    assert run("move", "d/e", "d", "into").status == 0
    assert sorted(os.listdir("into")) == ["d", "e"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["f", "f"], "f: is the same file as f"),
        (["f", "g"], "f: is the same file as g"),
        (["f", "."], "f: is the same file as ./f"),
        (["link", "f"], "link: is the same file as f"),
        (["d", "d"], "d: would go into itself: d/d"),
        (["d", "d/e/new"], "d: would go into itself: d/e/new"),
        (["d", "to d/e"], "d: would go into itself: to d/e/d"),
        (["to d/", "new"], "to d/: is a symlink, with a slash behind it"),
        ([".", "into"], ".: ends in . or .."),
        (["d/..", "into"], "d/..: ends in . or .."),
        (["/", "into"], "/: is the root directory"),
        (["d", "f"], "d: is a directory, and cannot replace a file: f"),
        (["f", "into"], "f: cannot replace a directory: into/f"),
        (["full/d", "."], "full/d: cannot replace a directory that is not empty: ./d"),
        (["f", "new/"], "f: is not a directory, but would be new/"),
        (["f", "d", "new"], "new: is no directory for several paths to go into"),
        (["f", "d/e/f", "new d"], "d/e/f: would get the same name as f"),
        (["", "new"], "'': is an empty path"),
        (["f", ""], "'': is an empty path"),
    ],
)
def test_what_would_lose_something_is_refused(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    """One line tells why, nothing is done for other paths either, and the status is 2."""
    make_of_all_kinds(tmp_path)
    (tmp_path / "full" / "d").mkdir(parents=True)
    before = snapshot(tmp_path, inodes=True)

    done = run("move", *arguments)

    assert (done.status, done.output, done.complaints) == (2, "", [complaint])
    assert snapshot(tmp_path, inodes=True) == before


def test_a_path_that_is_missing_keeps_no_other_from_being_moved(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "into").mkdir()
    done = run("move", "nowhere", "file", "into")
    assert (done.status, done.complaints) == (1, ["nowhere: No such file or directory"])
    assert (os.listdir(), os.listdir("into")) == (["into"], ["file"])
    assert run("move", "into", "missing/new").complaints == ["missing: No such file or directory"]


@needs_root
def test_who_may_not_move_is_told_which_directory_forbids_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "file").touch(mode=0o666)
    os.mkdir("closed", mode=0o755)
    (tmp_path / "closed" / "file").touch(mode=0o666)
    done = run_as_nobody("move", "file", "closed", cwd=tmp_path)
    assert (done.status, done.complaints) == (1, ["closed/file: Permission denied"])
    assert os.path.exists("file")


# -- to another file system -----------------------------------------------------------------------


@needs_root
def test_what_goes_to_another_file_system_is_copied_then_removed(
    tmp_path: Path, other: Path
) -> None:
    """Everything as it was, hard links and FIFOs included."""
    tree = fill(tmp_path / "tree", directories=3, files=3)
    (tree / "again").hardlink_to(tree / "d1" / "f1")
    (tree / "link").symlink_to("d1")
    entry("fifo", tree / "fifo")
    os.mkdir(os.fsencode(tree) + b"/" + NOT_UTF8)
    (tmp_path / "file").write_text("content")
    (tmp_path / "to file").symlink_to("file")
    (other / "tree").mkdir()
    before = {name: snapshot(tmp_path / name) for name in ("tree", "file", "to file")}

    done = run("move", "tree", "file", "to file", "other")

    assert (done.status, done.complaints) == (0, [])
    assert done.output.startswith(
        "copied 14 files and 5 directories, 25 B to another file system in "
    )
    assert os.listdir() == ["other"]
    assert {name: snapshot(other / name) for name in before} == before


@needs_root
def test_a_source_whose_copy_is_not_complete_stays(tmp_path: Path, other: Path) -> None:
    """All of it, and it is told; what fits goes."""
    large = fill(tmp_path / "large", directories=1, files=1)
    for number in range(8):
        (large / f"f{number}").write_bytes(os.urandom(256 << 10))
    fill(tmp_path / "small", directories=1, files=2)
    (tmp_path / "file").write_bytes(os.urandom(2 << 20))
    before = snapshot(large), snapshot(tmp_path / "file")

    done = run("move", "small", "other")
    assert done.status == 0
    done = run("move", "large", "file", "other")

    assert done.status == 1
    assert done.complaints[-1] == "large: stays, since its copy is not complete"
    assert "other/file: No space left on device" in done.complaints
    assert (snapshot(large), snapshot(tmp_path / "file")) == before
    assert not (other / "file").exists()


@needs_root
def test_a_source_that_cannot_be_removed_is_told(tmp_path: Path, other: Path) -> None:
    """Its copy is there, whole."""
    tree = fill(tmp_path / "tree", directories=2, files=2)
    for path in (tmp_path, tree, other, tree / "d0"):
        path.chmod(0o777)

    done = run_as_nobody("move", "tree", "other", cwd=tmp_path)

    assert done.status == 1
    assert sorted(done.complaints) == [
        "tree/d1/f0: Permission denied",
        "tree/d1/f1: Permission denied",
        "tree: its copy is complete, but it is not all gone",
    ]
    assert sorted(os.listdir(other / "tree" / "d0")) == ["f0", "f1"]
    assert os.listdir(tree) == ["d1"]


@needs_root
def test_a_dry_run_tells_what_would_be_renamed_and_what_copied(tmp_path: Path, other: Path) -> None:
    fill(tmp_path / "tree", directories=1, files=1)
    (tmp_path / "file").write_text("content")
    before = snapshot(tmp_path, inodes=True)

    done = run("move", "--dry-run", "tree", "file", "other")
    assert (done.status, done.complaints) == (0, [])
    assert done.output.splitlines() == [
        "would move tree to other/tree, on another file system: 1 file and 2 directories, 0 B",
        "would move file to other/file, on another file system: 1 file, 7 B",
        "together: 2 files and 2 directories, 7 B",
    ]
    done = run("move", "--dry-run", "tree", "new")
    assert done.output == "would rename tree to new: 1 file and 2 directories, 0 B\n"
    assert snapshot(tmp_path, inodes=True) == before
