"""What `procaio copy`, `remove` and `move` print: for people, for programs, on a terminal."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from commands import COMMAND, NOT_UTF8, fill, on_terminal, run
from copying import mounted, needs_root

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

ODD = [NOT_UTF8, b"new\nline", b"\x1b[31mred", "größe".encode()]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def path_of(item: dict[str, Any], key: str = "path") -> bytes:
    """The recipe of docs/scan.md."""
    if f"{key}_base64" in item:
        return base64.b64decode(item[f"{key}_base64"])
    return item[key].encode()


def told(command: str, *arguments: Any, status: int = 0) -> dict[str, Any]:
    """The one JSON object that a command prints, and nothing else."""
    done = run(command, "--json", *arguments)
    assert (done.status, done.complaints) == (status, [])
    found: dict[str, Any] = json.loads(done.output)
    assert found.pop("command") == command
    assert "\\ud" not in done.output  # strict parsers refuse half characters
    return found


# -- for programs ---------------------------------------------------------------------------------


def test_json_tells_what_was_copied_and_removed(tmp_path: Path) -> None:
    fill(tmp_path / "tree", directories=2, files=3)
    copied = told("copy", "tree", "copy")
    assert copied.pop("seconds") > 0
    nothing_failed = {"errors": 0, "failures": []}
    assert copied == {
        "complete": True, "dry_run": False, "files": 6, "dirs": 3, "bytes": 9, **nothing_failed
    }  # fmt: skip
    removed = told("remove", "copy")
    assert removed.pop("seconds") > 0
    assert removed == {
        "complete": True, "dry_run": False, "files": 6, "dirs": 3, **nothing_failed
    }  # fmt: skip
    moved = told("move", "tree", "new")
    assert moved.pop("seconds") > 0
    assert moved == {
        "complete": True, "dry_run": False, "files": 0, "dirs": 0, "bytes": 0,
        "renamed": 1, "kept": [], "left": [], **nothing_failed,
    }  # fmt: skip


def test_json_gives_back_names_that_are_not_utf8() -> None:
    """Of what fails, and of what would be done."""
    os.mkdir("into")
    for name in ODD:
        open(name, "w").close()

    copied = told("copy", *(name + b"/x" for name in ODD), "into", status=1)
    assert [path_of(item) for item in copied["failures"]] == [name + b"/x" for name in ODD]
    assert {item["errno"] for item in copied["failures"]} == {"ENOTDIR"}
    assert copied["errors"] == 4

    moved = told("move", "--dry-run", *ODD, "into")
    assert moved["dry_run"]
    assert moved["files"] == 4
    assert [path_of(item) for item in moved["paths"]] == ODD
    assert [path_of(item, "target") for item in moved["paths"]] == [b"into/" + name for name in ODD]
    assert all(item["renamed"] for item in moved["paths"])


@needs_root
def test_json_tells_which_sources_of_a_move_stay(tmp_path: Path) -> None:
    fill(tmp_path / "tree", directories=1, files=2)
    (tmp_path / "tree" / "large").write_bytes(os.urandom(1 << 20))
    with mounted(tmp_path / "other", "tmpfs", options="size=64k"):
        moved = told("move", "tree", "other", status=1)
    assert moved["kept"] == [{"path": "tree"}]
    assert (moved["renamed"], moved["left"]) == (0, [])
    assert moved["failures"][0]["errno"] == "ENOSPC"


# -- for people -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("command", ["copy", "copy --dry-run", "remove"])
def test_no_name_breaks_a_line_or_colours_a_terminal(name: bytes, command: str) -> None:
    """Told what is refused, what would be done, and what is missing, in any locale."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    os.mkdir(name)
    paths = {"copy": [name, name], "remove": [name + b"/x"]}.get(command, [name, b"new"])
    done = subprocess.run(
        [*COMMAND, *command.split(), *paths], capture_output=True, check=False, env=environment
    )
    output = (done.stdout + done.stderr).decode("ascii")
    assert len(output.splitlines()) == (2 if command == "remove" else 1)
    assert name in {b"new\nline", b"\x1b[31mred"} or "\\x" in output
    assert "\x1b" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["copy"], "the following arguments are required: SRC... DST"),
        (["copy", "a"], "the following arguments are required: SRC... DST"),
        (["copy", "--", "-x"], "the following arguments are required: SRC... DST"),
        (["move", "a"], "the following arguments are required: SRC... DST"),
        (["remove"], "the following arguments are required: PATH..."),
        (["remove", "a", "-x"], "unrecognized arguments: -x"),
        (["copy", "a", "b", "--force"], "unrecognized arguments: --force"),
        (["copy", "a", "b", "--workers", "0"], "must be from 1 to 256: 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], complaint: str) -> None:
    """With the usage of the command that they are for."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: procaio {arguments[0]} [options] ")
    assert done.stderr.endswith(f"{complaint}\n")


# -- on a terminal --------------------------------------------------------------------------------


def test_a_terminal_gets_live_progress(slowfs: ModuleType, tmp_path: Path) -> None:
    """Files and bytes, of how many, and how fast; it is gone when the result comes."""
    source = fill(tmp_path / "source" / "tree", directories=2, files=10).parent
    (source / "tree" / "large").write_bytes(bytes(4 << 20))
    with (
        slowfs.mounted(source, tmp_path / "slow", "delay_ms=10"),
        on_terminal("copy", tmp_path / "slow" / "tree", "copy") as command,
    ):
        command.wait_until_shown(b" of 21 files  ")
        command.wait_until_shown(b" of 4.0 MiB  ")
        command.wait_until_shown(b"/s  0:0")
        shown = command.rest()
    assert command.process.returncode == 0
    progress, erase, result = shown.rpartition(b"\x1b[2K")
    assert erase
    assert b"slow/tree" in progress
    assert result.startswith(b"copied 21 files and 3 directories, 4.0 MiB in ")


def test_what_is_removed_is_counted_before_on_a_terminal(
    slowfs: ModuleType, tmp_path: Path
) -> None:
    source = fill(tmp_path / "source" / "tree", directories=5, files=10).parent
    with (
        slowfs.mounted(source, tmp_path / "slow", "delay_ms=5"),
        on_terminal("remove", tmp_path / "slow" / "tree") as command,
    ):
        command.wait_until_shown(b"counting  ")
        command.wait_until_shown(b" of 50 files  ")
        shown = command.rest()
    assert command.process.returncode == 0
    assert b"removed 50 files and 6 directories in " in shown
    assert os.listdir(source) == []


@pytest.mark.parametrize("how", ["no rich", "--no-progress"])
def test_without_progress_a_terminal_gets_only_the_result(tmp_path: Path, how: str) -> None:
    fill(tmp_path / "tree", directories=1, files=1)
    code = "import sys; from procaio._cli import main; "
    code += "sys.modules['rich'] = None; " * (how == "no rich") + "sys.exit(main())"
    option = [how] if how.startswith("-") else []
    with on_terminal("copy", *option, "tree", "new", start=[sys.executable, "-c", code]) as command:
        shown = command.rest()
    assert command.process.returncode == 0
    assert b"\x1b" not in shown
    assert shown.startswith(b"copied 1 file and 2 directories in ")


def test_the_progress_of_a_name_that_colours_is_one_plain_line(
    slowfs: ModuleType, tmp_path: Path
) -> None:
    """Nothing that is drawn comes from a name."""
    name = b"\x1b]0;title\x07\n"
    source = os.fsencode(tmp_path) + b"/source"
    os.makedirs(source + b"/" + name)
    with (
        slowfs.mounted(tmp_path / "source", tmp_path / "slow", "delay_ms=10"),
        on_terminal("copy", b"slow/" + name, "copy") as command,
    ):
        shown = command.rest()
    assert (command.process.returncode, os.listdir("copy")) == (0, [])
    assert rb"slow/\x1b]0;title\x07\n" in shown
    assert b"\x1b]0" not in shown
