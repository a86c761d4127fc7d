"""`procaio scan`: the same numbers as os.walk and os.lstat, whatever the tree and whoever dies."""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import time
import tracemalloc
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import trees
from conftest import children, eventually
from procaio import _cli, _core, _scan, testing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from procaio import Pool

NOBODY = 65534
NOT_UTF8 = b"caf\xe9 \xff"


class Counts(NamedTuple):
    """What a scan and the reference are compared by."""

    files: int
    dirs: int
    bytes: int
    allocated: int
    hard_links: int
    errors: list[bytes]


class Reference:
    """os.walk and os.lstat, one after the other."""

    def __init__(self, root: bytes) -> None:
        """Walk the tree."""
        self.files: dict[bytes, int] = {}
        self.dirs: dict[bytes, int] = {root: 0}
        self.errors: list[bytes] = []
        self.allocated = os.stat(root).st_blocks * 512
        self.hard_links = 0
        self._root, self._seen = root, set[tuple[int, int]]()
        for path, dirs, files in os.walk(root, onerror=self._failed):
            for name in dirs + files:
                self._look_at(path, os.path.join(path, name))

    def _failed(self, error: OSError) -> None:
        self.errors.append(error.filename)

    def _look_at(self, directory: bytes, path: bytes) -> None:
        st = os.lstat(path)
        if stat.S_ISDIR(st.st_mode):
            self.dirs[path] = 0
            self.allocated += st.st_blocks * 512
            return
        again = st.st_nlink > 1 and (st.st_dev, st.st_ino) in self._seen
        self._seen.add((st.st_dev, st.st_ino))
        self.hard_links += again
        self.files[path] = 0 if again else st.st_size
        self.allocated += 0 if again else st.st_blocks * 512
        while not again and len(directory) >= len(self._root):
            self.dirs[directory] += st.st_size
            directory = os.path.dirname(directory)

    def counts(self) -> Counts:
        """Give the numbers."""
        size = sum(self.files.values())
        return Counts(
            len(self.files),
            len(self.dirs),
            size,
            self.allocated,
            self.hard_links,
            sorted(self.errors),
        )

    @staticmethod
    def largest(sizes: dict[bytes, int], count: int) -> list[tuple[int, bytes]]:
        """(size, path), the largest first, equals by path."""
        ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
        return [(size, path) for path, size in ordered[:count]]


def scanned(*paths: bytes | Path, largest: int = 10, workers: int = 8) -> _scan.Scan:
    """A scan that has run."""
    scan = _scan.Scan([os.fsencode(path) for path in paths], largest=largest, workers=workers)
    scan.run()
    assert scan.complete
    return scan


def counts(scan: _scan.Scan) -> Counts:
    return Counts(
        scan.files,
        scan.dirs,
        scan.bytes,
        scan.blocks * 512,
        scan.hard_links,
        sorted(failure.path for failure in scan.failures),
    )


def fill(root: Path, directories: int, files: int) -> None:
    """So many directories, three deep, with so many files each."""
    for number in range(directories):
        directory = root / str(number % 7) / str(number % 31) / str(number)
        directory.mkdir(parents=True)
        for name in range(files):
            (directory / f"file {name}").write_bytes(b"x" * (number + name))


@pytest.fixture
def tree(tmp_path: Path) -> bytes:
    """One of everything that a directory may contain."""
    root = tmp_path / "tree"
    fill(root, directories=40, files=5)
    (root / "empty").mkdir()
    (root / "0" / "empty").mkdir()
    (root / "large").write_bytes(b"x" * 100_000)
    (root / "sparse").touch()
    os.truncate(root / "sparse", 50_000)
    for name in ("again", "1/again", "2/again"):
        os.link(root / "large", root / name)
    (root / "dangling").symlink_to("nowhere")
    (root / "to a directory").symlink_to("0", target_is_directory=True)
    (root / "0" / "loop").symlink_to("..", target_is_directory=True)
    (root / "itself").symlink_to("itself")
    os.mkfifo(root / "fifo")
    here = os.open(root, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:  # its address may not be long
        listener.bind(f"/proc/self/fd/{here}/socket")
    os.close(here)
    odd = os.fsencode(root) + b"/" + NOT_UTF8
    os.mkdir(odd)
    for name in (NOT_UTF8, b"new\nline", b"\x1b[31mred", "größe".encode()):
        with open(odd + b"/" + name, "wb") as file:
            file.write(b"x" * 70_000)
    return os.fsencode(root)


def command(*arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-m", "procaio", "scan", *arguments]


def run(*arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(*arguments), capture_output=True, check=False, timeout=60)


def path_of(item: dict[str, Any]) -> bytes:
    """The recipe of docs/scan.md."""
    if "path_base64" in item:
        return base64.b64decode(item["path_base64"])
    return item["path"].encode()


# -- the engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 8])
def test_a_scan_counts_what_os_walk_and_lstat_do(tree: bytes, workers: int) -> None:
    """Files, directories, bytes, blocks: links of both kinds, sockets, FIFOs and odd names too."""
    expected = Reference(tree).counts()
    assert expected.hard_links == 3

    assert counts(scanned(tree, workers=workers)) == expected


def test_a_scan_finds_the_largest_in_order(tree: bytes) -> None:
    """Largest first, equals by path; a directory has the size of everything below it."""
    os.unlink(tree + b"/1/again")  # which of a file's names is listed is not promised
    os.unlink(tree + b"/2/again")
    os.unlink(tree + b"/again")
    reference = Reference(tree)

    scan = scanned(tree, largest=7)

    assert scan.largest_files.descending() == reference.largest(reference.files, 7)
    assert scan.largest_dirs.descending() == reference.largest(reference.dirs, 7)


def test_no_largest_are_kept_when_none_are_wanted(tree: bytes) -> None:
    scan = scanned(tree, largest=0)
    assert scan.largest_files.descending() == scan.largest_dirs.descending() == []
    assert scan.bytes == Reference(tree).counts().bytes


def test_a_path_inside_another_one_is_counted_once(tree: bytes) -> None:
    """Also when it is given twice, through a symlink, or is a file."""
    inside = [tree + b"/0", tree + b"/large", tree + b"/to a directory", tree + b"/dangling"]

    assert counts(scanned(*inside, tree, tree + b"/.")) == Reference(tree).counts()


def test_paths_beside_each_other_are_added_up(tree: bytes) -> None:
    """One whose name merely begins like the other's is not inside it."""
    os.mkdir(tree + b"/0-beside")
    with open(tree + b"/0-beside/file", "wb") as file:
        file.write(b"x" * 123)
    one, other = Reference(tree + b"/0").counts(), Reference(tree + b"/0-beside").counts()

    scan = scanned(tree + b"/0", tree + b"/0-beside")

    assert (scan.files, scan.bytes) == (one.files + 1, one.bytes + 123)
    assert scan.dirs == one.dirs + other.dirs


def test_a_path_may_be_a_file_or_a_symlink(tree: bytes) -> None:
    """A symlink to a directory is followed, as by os.walk; a dangling one is a file itself."""
    scan = scanned(tree + b"/sparse", tree + b"/dangling")
    assert (scan.files, scan.dirs, scan.bytes) == (2, 0, 50_000 + len("nowhere"))

    followed = scanned(tree + b"/to a directory")
    assert counts(followed) == Reference(tree + b"/to a directory").counts()


@pytest.fixture
def slow_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No listing has the time to look at an entry, as on a slow file system."""
    monkeypatch.setattr(_scan, "_list", partial(trees.without_looks, _core._list))


@pytest.mark.usefixtures("slow_looks")
def test_what_no_listing_had_the_time_to_look_at_is_looked_at(tree: bytes) -> None:
    assert counts(scanned(tree)) == Reference(tree).counts()


@pytest.mark.usefixtures("slow_looks")
def test_what_vanishes_between_listing_and_looking_is_no_error(
    tree: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as vanished and as nothing else."""
    expected = Reference(tree).counts()
    lstat = _scan.aio_lstat

    def vanishing(name: bytes, *arguments: Any, **keywords: Any) -> object:
        if name == b"sparse":
            os.unlink(os.path.join(tree, name))
        return lstat(name, *arguments, **keywords)

    monkeypatch.setattr(_scan, "aio_lstat", vanishing)
    scan = scanned(tree)

    assert (scan.vanished, scan.failed) == (1, 0)
    assert (scan.files, scan.bytes) == (expected.files - 1, expected.bytes - 50_000)


@pytest.mark.parametrize("point", testing.FAULT_POINTS[:-1])  # the last one is in nobody's way
@pytest.mark.parametrize("deep", [True, False])
def test_killed_workers_change_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, deep: bool
) -> None:
    """One dies over a listing of many directories; several, one after the other, over single ones.

    Not three times over the same one, which would be an error.
    """
    fill(tmp_path, directories=60, files=5)
    deaths, after = (1, 0) if deep else (6, 5)
    armed = 0

    def killing(*arguments: Any, pool: Pool, **keywords: Any) -> object:
        nonlocal armed
        if armed < deaths and pool.statistics().worker_deaths == armed:
            testing.arm(pool, point, after=after)
            armed += 1
        return _core._list(*arguments, pool=pool, **keywords)

    if not deep:
        monkeypatch.setattr(_scan, "FLAGS", _scan.FLAGS & ~_core.TREE_DEEP)
    monkeypatch.setattr(_scan, "IN_FLIGHT", 4)
    monkeypatch.setattr(_scan, "_list", killing)
    scan = scanned(tmp_path, workers=1)

    assert counts(scan) == Reference(os.fsencode(tmp_path)).counts()
    assert armed == deaths


def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    """Ten times the directories take no more memory: the tree is not held."""
    few, many = tmp_path / "few", tmp_path / "many"
    fill(few, directories=100, files=20)
    fill(many, directories=1000, files=20)
    scanned(few)  # what is allocated once

    assert peak(lambda: scanned(many)) < peak(lambda: scanned(few)) + 1_000_000


def peak(function: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


GROWTH = """
import os, resource, sys
from procaio import _scan
def maximum():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = maximum()
scan = _scan.Scan([os.fsencode(sys.argv[1])])
scan.run()
print(scan.files, scan.dirs, scan.bytes, maximum() - before)
"""


def test_a_hundred_thousand_entries_in_one_directory_cost_little_more_than_their_names(
    tmp_path: Path,
) -> None:
    """The names are in memory at the same time, the results are not: 200 bytes an entry at most."""
    for number in range(100_000):
        os.symlink("12345", tmp_path / str(number))

    done = subprocess.run(
        [sys.executable, "-c", GROWTH, tmp_path], capture_output=True, check=True, timeout=60
    )

    files, dirs, size, grown = map(int, done.stdout.split())
    assert (files, dirs, size) == (100_000, 1, 500_000)
    assert grown < 200 * 100_000, grown


def test_hard_links_are_forgotten_with_their_last_name(tree: bytes) -> None:
    """What is remembered of files with several names does not grow with those that are complete."""
    assert scanned(tree)._names_left == {}


# -- the command ----------------------------------------------------------------------------------


def test_json_tells_all_and_gives_back_names_that_are_not_utf8(tree: bytes) -> None:
    reference = Reference(tree)
    expected = reference.counts()

    done = run("--json", "--largest", "100000", tree)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.decode())
    assert found["complete"] is True
    assert (found["files"], found["dirs"]) == (expected.files, expected.dirs)
    assert (found["bytes"], found["allocated"]) == (expected.bytes, expected.allocated)
    assert (found["failures"], found["errors"], found["vanished"]) == ([], 0, 0)
    assert found["entries_per_second"] > 0 < found["seconds"]
    assert {path_of(item) for item in found["largest_dirs"]} == set(reference.dirs)
    odd = tree + b"/" + NOT_UTF8 + b"/" + NOT_UTF8
    assert odd in {path_of(item) for item in found["largest_files"]}


def test_json_has_no_half_characters(tree: bytes) -> None:
    """Strict parsers refuse lone surrogates, which is how Python would write such names."""
    done = run("--json", "--largest", "1000", tree)
    paths = "\n".join(item["path"] for item in json.loads(done.stdout)["largest_dirs"])
    assert NOT_UTF8.decode(errors="backslashreplace") in paths
    assert b"\\ud" not in done.stdout.lower()


def test_piped_output_is_plain_text(tree: bytes) -> None:
    """No progress, and no escape sequence even where a name contains one."""
    done = run(tree)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
    assert rb"/\x1b[31mred" in done.stdout
    assert rb"/new\nline" in done.stdout
    assert "größe".encode() in done.stdout
    assert f"{Reference(tree).counts().bytes:,} bytes".encode() in done.stdout


def test_a_missing_path_is_one_line_and_status_2(tree: bytes) -> None:
    done = run(tree, tree + b"/missing")
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr == b"procaio scan: " + tree + b"/missing: No such file or directory\n"


@pytest.mark.parametrize("wrong", ["--workers=0", "--workers=many", "--largest=-1"])
def test_wrong_numbers_are_refused(
    wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        _cli.main(["scan", wrong, str(tmp_path)])
    assert caught.value.code == 2
    assert wrong.partition("=")[0] in capsys.readouterr().err


AS_NOBODY = f"""
import os, sys
from procaio._cli import _parser, main
_parser()  # whatever it imports nobody may not be able to read
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
sys.exit(main(["scan", *sys.argv[1:], "."]))
"""


def can_become_nobody() -> bool:
    code = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(
    os.getuid() == 0 and not can_become_nobody(),
    reason="permissions do not bind root, and the container allows no other user",
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_unreadable_directories_are_listed_and_passed_by(tmp_path: Path, form: list[str]) -> None:
    """Status 1, everything else is counted; a directory that cannot be searched has its names."""
    tmp_path.chmod(0o755)
    fill(tmp_path, directories=3, files=2)
    for name, mode in [("unlistable", 0o311), ("closed", 0), ("unsearchable", 0o644)]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"hidden")
        (tmp_path / name).chmod(mode)
    try:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *form], cwd=tmp_path, capture_output=True, check=False
        )
    finally:
        for name in ("unlistable", "closed", "unsearchable"):
            (tmp_path / name).chmod(0o755)

    assert (done.returncode, done.stderr) == (1, b"")
    refused = ["./closed", "./unlistable", "./unsearchable/file"]
    if not form:
        for path in refused:
            assert f"  {path}: Permission denied\n".encode() in done.stdout
        return
    found = json.loads(done.stdout)
    assert sorted(error["path"] for error in found["failures"]) == refused
    assert {error["errno"] for error in found["failures"]} == {"EACCES"}
    assert found["errors"] == 3
    expected = Reference(os.fsencode(tmp_path))
    assert found["files"] == len(expected.files) - 3
    assert found["dirs"] == len(expected.dirs)


PAUSED = """
import sys
from procaio import _scan
from procaio._cli import main
listing, calls = _scan._list, 0
def pausing(*arguments, **keywords):
    global calls
    calls += 1
    if calls == 80:
        print("paused", file=sys.stderr, flush=True)
        sys.stdin.readline()
    return listing(*arguments, **keywords)
_scan._list = pausing
sys.exit(main(["scan", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_ctrl_c_ends_a_scan_whose_workers_hang(tmp_path: Path, form: list[str]) -> None:
    """What was counted so far is printed and said to be incomplete; the status is 130."""
    fill(tmp_path, directories=200, files=50)
    with subprocess.Popen(
        [sys.executable, "-c", PAUSED, *form, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout and process.stderr  # noqa: PT018 - for mypy
        assert process.stderr.readline() == b"paused\n"
        helpers = children(process.pid)
        for pid in helpers:
            os.kill(pid, signal.SIGSTOP)  # like a server that no longer answers
        process.stdin.write(b"go on\n")
        process.stdin.flush()

        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, complaint = process.communicate(timeout=30)
        # A second on an idle machine; the pool's own exit_timeout would be ten.
        assert time.monotonic() - began < 8

    assert (process.returncode, complaint) == (130, b"")
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in helpers), "all are gone")
    if form:
        found = json.loads(output)
        assert found["complete"] is False
        assert 0 < found["files"] < 200 * 50
        assert found["failures"] == []
    else:
        assert b"INCOMPLETE" in output


def on_terminal(*arguments: str | bytes, piped: bool = False) -> bytes:
    """What the command shows on a terminal of its own; with `piped`, its output goes elsewhere."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    output = subprocess.DEVNULL if piped else theirs
    with subprocess.Popen(
        arguments, stdin=theirs, stdout=output, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: the other end is closed
            while data := os.read(ours, 65536):
                shown += data
        os.close(ours)
    assert process.returncode == 0, shown
    return shown


def test_a_terminal_gets_live_progress_unless_told_otherwise(tree: bytes) -> None:
    """It is gone again before the result comes."""
    shown = on_terminal(*command(tree))
    progress, erase, result = shown.rpartition(b"\x1b[2K")
    assert b" entries  " in progress
    assert erase
    assert b"\x1b[2K" not in result
    assert b"directories" in result

    assert b"\x1b" not in on_terminal(*command("--no-progress", tree))
    assert on_terminal(*command(tree), piped=True) == b""  # `procaio scan | less` has the terminal


def test_without_rich_a_terminal_gets_no_progress(tree: bytes) -> None:
    code = "import sys; sys.modules['rich'] = None; from procaio._cli import main; sys.exit(main())"
    shown = on_terminal(sys.executable, "-c", code, "scan", tree)
    assert b"\x1b" not in shown
    assert b"directories" in shown
