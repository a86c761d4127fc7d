"""`procaio copy`: what cp -a does, with many requests in flight."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import NOT_UTF8, fill, make_of_all_kinds, run, run_as_nobody, snapshot
from copying import entry, holes, mounted, needs_root
from procaio import _cli
from trees import NAMES, SHAPES, Shape, make, remove

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One of everything that a directory may contain, called tree."""
    root = fill(tmp_path / "tree", directories=3, files=4)
    (root / "empty").mkdir(mode=0o2750)
    (root / "set id").write_bytes(b"x")
    (root / "set id").chmod(0o6755)
    (root / "sparse").touch()
    os.truncate(root / "sparse", 10 << 20)
    os.link(root / "set id", root / "d1" / "again")
    (root / "dangling").symlink_to("nowhere")
    (root / "to a directory").symlink_to("d0", target_is_directory=True)
    (root / "itself").symlink_to("itself")
    for kind in ("fifo", "socket", "device"):
        if kind != "device" or os.geteuid() == 0:
            entry(kind, root / kind)
    odd = os.fsencode(root) + b"/" + NOT_UTF8
    os.mkdir(odd)
    for name in (NOT_UTF8, b"new\nline", b"\x1b[31mred", b"-x", "größe".encode()):
        with open(odd + b"/" + name, "wb") as file:
            file.write(name)
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(1, 1_234_567_890_123_456_789), follow_symlinks=False)
    (root / "d2").chmod(0o555)
    return root


# -- the same as cp -a ----------------------------------------------------------------------------


def test_one_of_everything_is_copied_as_it_is(tree: Path) -> None:
    """Times, permissions, links of both kinds, holes, FIFOs, sockets, devices, any name."""
    before = snapshot(tree)
    done = run("copy", "tree", "copy")
    assert (done.status, done.complaints) == (0, [])
    assert done.output.startswith("copied 2")
    assert snapshot(tree.parent / "copy") == snapshot(tree) == before
    assert holes(tree.parent / "copy" / "sparse") == []


def both(arguments: list[str], path: bytes) -> tuple[int, int]:
    """Whether cp -a and procaio copy, each in its own directory of `path`, succeed."""
    theirs = subprocess.run(
        ["cp", "-a", "--remove-destination", *arguments],
        cwd=path + b"/cp",
        capture_output=True,
        check=False,
    )
    os.chdir(path + b"/procaio")
    ours = _cli.main(["copy", "--no-progress", *arguments])
    os.chdir(path)
    return theirs.returncode, ours


FILES = st.lists(
    st.tuples(NAMES, st.binary(max_size=20), st.sampled_from([0o600, 0o644, 0o4755, 0o400])),
    max_size=4,
)


def furnish(top: bytes, files: list[tuple[bytes, bytes, int]]) -> None:
    """Add files with content and modes, and hard links of them in directories on the way."""
    where = top
    for name, data, mode in files:
        path = os.path.join(where, name)
        if os.path.isdir(path) and not os.path.islink(path):
            where = path
        elif not os.path.lexists(path):
            with open(path, "wb") as file:
                file.write(data)
            os.chmod(path, mode)
            if not os.path.lexists(os.path.join(top, b"again")):
                os.link(path, os.path.join(top, b"again"))


@settings(max_examples=40, deadline=None)
@given(
    shape=SHAPES,
    files=FILES,
    other=st.none() | SHAPES,
    form=st.sampled_from(["s", "s/", "s/.", "./s"]),
    to=st.sampled_from(["t", "t/", "./t/."]),
)
def test_random_trees_become_what_cp_makes_of_them(
    shape: Shape, files: list[tuple[bytes, bytes, int]], other: Shape | None, form: str, to: str
) -> None:
    """Into a directory that is there, or to a new name. What is in the way is replaced: cp -a
    without --remove-destination would write to what symlinks in it lead to.
    """
    top = os.fsencode(tempfile.mkdtemp())
    here = os.getcwd()
    try:
        for command in (b"/cp", b"/procaio"):
            os.mkdir(top + command)
            make(top + command + b"/s", shape)
            furnish(top + command + b"/s", files)
            if other is not None:
                make(top + command + b"/t", other)
        for where, dirs, names in os.walk(top):
            for name in dirs + names:
                path = os.path.join(where, name)
                os.utime(path, ns=(1, 10**18 + len(name)), follow_symlinks=False)

        theirs, ours = both([form, to], top)

        if theirs == 0:
            assert ours == 0
            assert without_times(snapshot(top + b"/procaio")) == without_times(
                snapshot(top + b"/cp")
            )
        else:
            assert ours != 0
    finally:
        os.chdir(here)
        remove(top)


def without_times(found: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """Of the two directories that both programs write into."""
    return {
        name: (what[:4] + what[5:] if name in {b".", b"t"} else what)
        for name, what in found.items()
    }


def test_copying_once_more_changes_nothing(tree: Path, tmp_path: Path) -> None:
    run("copy", "tree", "copy")
    (tmp_path / "copy" / "more").touch()

    done = run("copy", "tree/.", "copy")

    assert (done.status, done.complaints) == (0, [])
    (tmp_path / "copy" / "more").unlink()
    shutil.copystat(tree, tmp_path / "copy")
    assert snapshot(tmp_path / "copy") == snapshot(tree)


# -- where to -------------------------------------------------------------------------------------


def test_several_paths_go_into_a_directory(tree: Path, tmp_path: Path) -> None:
    """Hidden ones, ones that begin with a dash, ones that are no UTF-8; a symlink stays one."""
    (tmp_path / "into").mkdir()
    names = [b"-x", b".h", NOT_UTF8, b"link"]
    for name in names[:3]:
        with open(name, "wb") as file:
            file.write(name)
    os.symlink("tree", "link")

    done = run("copy", "tree/d0", "--", "tree", *names, "into/")

    assert (done.status, done.complaints) == (0, [])
    assert set(os.listdir(b"into")) == {b"d0", b"tree", *names}
    assert snapshot(tmp_path / "into" / "tree") == snapshot(tree)
    for name in names:
        assert snapshot(b"into/" + name) == snapshot(name)


@pytest.mark.parametrize("where", [".", "tree"])
def test_several_names_of_a_file_stay_one_file_in_paths_of_one_directory(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As with cp -a: files, and what is in directories; what is there already is replaced."""
    (tree / "d0" / "third").hardlink_to(tree / "set id")
    names = [name.name for name in sorted(tree.iterdir())[:-1] if name.name.isascii()]
    (tmp_path / "into" / "d0").mkdir(parents=True)
    (tmp_path / "into" / "d0" / "third").write_text("old")
    (tmp_path / "into" / "kept").touch()
    monkeypatch.chdir(tmp_path / "tree" if where == "." else tmp_path)
    before = snapshot(tree)

    paths = names if where == "." else [f"tree/{name}" for name in names]
    done = run("copy", "--", *paths, tmp_path / "into")

    assert (done.status, done.complaints) == (0, [])
    copied = snapshot(tmp_path / "into")
    assert set(copied) - {b".", b"kept"} == {
        name for name in before if os.fsdecode(name).split("/")[0] in names
    }
    assert all(copied[name] == before[name] for name in set(copied) - {b".", b"kept"})
    assert copied[b"set id"][5] == copied[b"d0/third"][5] == copied[b"d1/again"][5]


@pytest.mark.parametrize("where", ["", "in/"])
def test_directories_and_other_entries_do_not_replace_each_other(
    tmp_path: Path, where: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / where / name).mkdir()
        (tmp_path / where / name / "f").touch()
    (tmp_path / where / "b" / "d").mkdir()
    (tmp_path / "into" / "a" / "f").mkdir(parents=True)
    (tmp_path / "into" / "b").mkdir()
    (tmp_path / "into" / "b" / "d").touch()

    done = run("copy", f"{where}a", f"{where}b/", "into")

    assert done.status == 1
    assert sorted(done.complaints) == ["into/a/f: Is a directory", "into/b/d: File exists"]
    assert sorted(os.listdir("into/b")) == ["d", "f"]


def test_a_symlink_with_a_slash_behind_it_is_the_directory(tree: Path, tmp_path: Path) -> None:
    os.symlink("tree", "link")
    assert run("copy", "link/", "copy").status == 0
    assert snapshot(tmp_path / "copy") == snapshot(tree)


def test_thousands_of_paths_are_copied(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"f{number}").write_text(str(number))
    (tmp_path / "into").mkdir()

    done = run("copy", *(f"f{number}" for number in range(3000)), "into")

    assert done.status == 0
    assert done.output.startswith("copied 3,000 files, 10.6 KiB in ")
    assert all((tmp_path / "into" / f"f{n}").read_text() == str(n) for n in range(3000))


def test_a_symlink_that_is_the_destination_is_written_through(tmp_path: Path) -> None:
    """It stays what it is, as with cp; one that is met in a directory is replaced."""
    (tmp_path / "file").write_text("new")
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("old")
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "file").symlink_to("../old")

    assert run("copy", "file", "into").status == 0
    assert (tmp_path / "old").read_text() == "old"
    assert not (tmp_path / "into" / "file").is_symlink()
    assert run("copy", "file", "link").status == 0
    assert (tmp_path / "old").read_text() == "new"
    assert (tmp_path / "link").is_symlink()


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["f", "f"], "f: is the same file as f"),
        (["f", "g"], "f: is the same file as g"),
        (["f", "link"], "f: is the same file as "),
        (["link", "f"], "link: is the same file as f"),
        (["f", "."], "f: is the same file as ./f"),
        (["d", "d"], "d: would go into itself: d/d"),
        (["d", "d/e/new"], "d: would go into itself: d/e/new"),
        (["d/", "to d/e"], "d: would go into itself: to d/e/d"),
        ([".", "d"], ".: would go into itself: d/."),
        (["/", "d"], "/: has no name of its own to be copied under"),
        (["d/..", "d"], "d/..: has no name of its own to be copied under"),
        (["d", "f"], "d: is a directory, and cannot replace a file: f"),
        (["d", "link"], "d: is a directory, and cannot replace a file: link"),
        (["f", "into"], "f: cannot replace a directory: into/f"),
        (["f", "new/"], "f: is not a directory, but would be new/"),
        (["f", "dangling"], "f: would go through a symlink that leads nowhere: dangling"),
        (["f", "d", "new"], "new: is no directory for several paths to go into"),
        (["f", "d", "h"], "h: is no directory for several paths to go into"),
        (["f", "d/e/f", "new d"], "d/e/f: would get the same name as f"),
        (["f", "./f", "new d"], "./f: would get the same name as f"),
        (["", "new"], "'': is an empty path"),
        (["f", ""], "'': is an empty path"),
    ],
)
def test_what_would_lose_something_is_refused(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    """One line tells why, nothing is done for other paths either, and the status is 2."""
    make_of_all_kinds(tmp_path)
    (tmp_path / "h").write_text("other")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = snapshot(tmp_path, inodes=True)

    done = run("copy", *arguments)

    assert (done.status, done.output) == (2, "")
    (line,) = done.complaints
    assert line.startswith(complaint)
    assert snapshot(tmp_path, inodes=True) == before


# -- what fails -----------------------------------------------------------------------------------


def test_a_path_that_is_missing_keeps_no_other_from_being_copied(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "into").mkdir()

    done = run("copy", "nowhere", "f", "f/x", "into")

    assert done.status == 1
    assert done.complaints == ["nowhere: No such file or directory", "f/x: Not a directory"]
    assert done.output.startswith("copied 1 file in ")
    assert os.listdir("into") == ["f"]


@pytest.mark.parametrize("source", ["f", "d"])
def test_nothing_is_made_in_a_directory_that_is_missing(tmp_path: Path, source: str) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()

    done = run("copy", source, "missing/new")

    assert (done.status, done.complaints) == (1, ["missing: No such file or directory"])
    assert done.output.startswith("nothing copied in ")
    assert sorted(os.listdir()) == ["d", "f"]


@needs_root
def test_what_cannot_be_read_is_told_and_everything_else_copied(tree: Path, tmp_path: Path) -> None:
    """Status 1, and each path is that of the original."""
    tmp_path.chmod(0o777)
    (tree / "d0").chmod(0)
    (tree / "d1" / "f1").chmod(0)
    (tree / "device").unlink()
    (tree / "empty").chmod(0o755)

    done = run_as_nobody("copy", "tree", "copy", cwd=tmp_path)

    assert done.status == 1
    assert sorted(done.complaints) == [
        "tree/d0: Permission denied",
        "tree/d1/f1: Permission denied",
    ]
    missing = {b"d0", b"d1/f1", *(b"d0/f%d" % n for n in range(4))}
    assert set(snapshot(tree)) - set(snapshot(tmp_path / "copy")) == missing


@needs_root
def test_where_nothing_can_be_written_the_copy_is_to_blame(tree: Path, tmp_path: Path) -> None:
    """Permission is denied for either path; the one that is named is the right one."""
    tmp_path.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o755)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "tree" / "d1").mkdir(parents=True)
    (tmp_path / "open" / "tree").chmod(0o777)

    done = run_as_nobody("copy", "tree/d0", "tree/d0/f0", "closed", cwd=tmp_path)
    assert (done.status, os.listdir("closed")) == (1, [])
    assert sorted(done.complaints) == [
        "closed/d0: Permission denied",
        "closed/f0: Permission denied",
    ]

    done = run_as_nobody("copy", "tree/d1", "open/tree", cwd=tmp_path)
    assert done.status == 1
    assert "open/tree/d1/f1: Permission denied" in done.complaints


@needs_root
def test_a_full_file_system_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    """What fits is there, the files that do not are told."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        (source / f"f{number}").write_bytes(os.urandom(256 << 10))
    with mounted(tmp_path / "small", "tmpfs", options="size=1m"):
        done = run("copy", "source", "small")
        copied = os.listdir("small/source")
        assert done.status == 1
        assert 0 < len(copied) < 8
        assert sorted(done.complaints) == [
            f"small/source/f{number}: No space left on device"
            for number in range(8)
            if f"f{number}" not in copied
        ]
        for name in copied:
            assert (tmp_path / "small/source" / name).read_bytes() == (source / name).read_bytes()

        single = run("copy", "source/f7", "small/single")
        assert single.status == 1
        assert single.complaints == ["small/single: No space left on device"]
        assert not os.path.exists("small/single")


# -- telling only ---------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_be_copied_and_touches_nothing(
    tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "into").mkdir()
    before = snapshot(tmp_path, inodes=True)

    done = run("copy", "--dry-run", "tree", "tree/d0", "tree/d1/f1", "into")

    assert (done.status, done.complaints) == (0, [])
    first, *rest = done.output.splitlines()
    assert first.startswith("would copy tree to into/tree: ")
    assert rest[:2] == [
        "would copy tree/d0 to into/d0: 4 files and 1 directory, 6 B",
        "would copy tree/d1/f1 to into/f1: 1 file, 2 B",
    ]
    assert rest[2].startswith("together: ")
    assert snapshot(tmp_path, inodes=True) == before
