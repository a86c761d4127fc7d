"""`procaio remove`: what rm -r does, with many requests in flight."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from commands import NOT_UTF8, fill, run, run_as_nobody, snapshot
from copying import entry, needs_root

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_trees_files_and_anything_else_are_removed(tmp_path: Path) -> None:
    """Nothing that is led to is touched."""
    fill(tmp_path / "tree", directories=5, files=50)
    kept = fill(tmp_path / "kept", directories=1, files=3)
    (tmp_path / "tree" / "d1" / "link").symlink_to("../../kept")
    (tmp_path / "to kept").symlink_to("kept")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "again").hardlink_to(kept / "d0" / "f1")
    entry("fifo", tmp_path / "fifo")
    before = snapshot(kept)

    done = run("remove", "tree/", "to kept", "dangling", "file", "again", "fifo")

    assert (done.status, done.complaints) == (0, [])
    assert done.output.startswith("removed 256 files and 6 directories in ")
    assert os.listdir() == ["kept"]
    assert snapshot(kept) == before


def test_names_may_be_any_bytes_and_begin_with_a_dash() -> None:
    names = [NOT_UTF8, b"new\nline", b"-r", b"--force", b"--", b"-"]
    for name in names:
        os.mkdir(name)
    done = run("remove", "--", *names)
    assert (done.status, done.complaints, os.listdir()) == (0, [], [])


def test_options_may_stand_behind_paths() -> None:
    os.mkdir("d")
    assert run("remove", "d", "nowhere", "-f", "--workers", "2").status == 0
    assert os.listdir() == []


def test_paths_inside_others_are_no_errors() -> None:
    """Nor is one that is given twice."""
    os.makedirs("d/e")
    os.symlink("d", "link")
    done = run("remove", "d/e", "d", "link/e", "d/", "./d", "link")
    assert (done.status, done.complaints, os.listdir()) == (0, [], [])
    assert done.output.startswith("removed 1 file and 2 directories in ")


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/", "/: is the root directory"),
        ("//", "//: is the root directory"),
        ("/usr/..", "/usr/..: ends in . or .."),
        ("to root/", "to root/: is a symlink, with a slash behind it"),
        ("to root/usr/..", "to root/usr/..: ends in . or .."),
        (".", ".: ends in . or .."),
        ("..", "..: ends in . or .."),
        ("./", "./: ends in . or .."),
        ("d/.", "d/.: ends in . or .."),
        ("d/.././/", "d/.././/: ends in . or .."),
        ("link/", "link/: is a symlink, with a slash behind it"),
        ("link//", "link//: is a symlink, with a slash behind it"),
        ("", "'': is an empty path"),
    ],
)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_what_rm_refuses_is_refused(
    tmp_path: Path, path: str, complaint: str, force: list[str]
) -> None:
    """Whatever is asked for: nothing is done for other paths either, and the status is 2."""
    fill(tmp_path / "d", directories=1, files=1)
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "to root").symlink_to("/")
    (tmp_path / "file").touch()
    before = snapshot(tmp_path, inodes=True)

    # Were it not refused, it would only be told: no test removes the root directory.
    done = run("remove", *force, "--dry-run", "file", path, "d")
    assert (done.status, done.output, done.complaints) == (2, "", [complaint])
    if not os.path.samefile(path or ".", "/"):
        done = run("remove", *force, "file", path, "d")
        assert (done.status, done.output, done.complaints) == (2, "", [complaint])
    assert snapshot(tmp_path, inodes=True) == before


def test_what_is_missing_is_an_error_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run("remove", "nowhere", "file/x").complaints == [
        "nowhere: No such file or directory",
        "file/x: Not a directory",
    ]
    assert run("remove", "nowhere").status == 1
    done = run("remove", "-f", "nowhere", "missing/nowhere", "file/x")
    assert (done.status, done.complaints) == (0, [])
    assert done.output.startswith("nothing removed in ")
    done = run("remove", "-f", "file/")
    assert (done.status, done.complaints) == (1, ["file/: Not a directory"])
    assert os.listdir() == ["file"]


@needs_root
def test_what_may_not_be_removed_is_told_and_everything_else_goes(tmp_path: Path) -> None:
    tree = fill(tmp_path / "tree", directories=4, files=3)
    for path in [tmp_path, tree, *tree.iterdir()]:
        path.chmod(0o777)
    (tree / "d1").chmod(0o755)
    (tree / "d3").chmod(0o700)
    os.mkdir("closed", mode=0o755)
    (tmp_path / "closed" / "file").touch()

    done = run_as_nobody("remove", "tree", "closed/file", cwd=tmp_path)

    assert done.status == 1
    assert sorted(done.complaints) == [
        "closed/file: Permission denied",
        *(f"tree/d1/f{number}: Permission denied" for number in range(3)),
        "tree/d3: Permission denied",
    ]
    assert sorted(os.listdir("tree")) == ["d1", "d3"]
    assert os.path.exists("closed/file")


def test_a_dry_run_tells_what_would_go_and_touches_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "tree", directories=2, files=3)
    (tmp_path / "file").touch()
    before = snapshot(tmp_path, inodes=True)

    done = run("remove", "--dry-run", "tree", "file", "nowhere")

    assert (done.status, done.complaints) == (1, ["nowhere: No such file or directory"])
    assert done.output.splitlines() == [
        "would remove tree: 6 files and 3 directories, 9 B",
        "would remove file: 1 file, 0 B",
        "together: 7 files and 3 directories, 9 B",
    ]
    assert snapshot(tmp_path, inodes=True) == before
