"""The scripts of docs/examples, run as a reader would run them, on data of the test's own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from programs import EXAMPLES, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# -- the file server -------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A directory, and the address where the file server has it."""
    with serving("file_server.py", tmp_path) as (_, url):
        yield tmp_path, url


def get(url: str) -> tuple[int, bytes]:
    """Status and content."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_file_server_sends_files_of_any_size(served: tuple[Path, str]) -> None:
    """Far more than a socket takes at once, nothing at all, and a name that needs quoting."""
    directory, url = served
    for name, content in (("large", os.urandom(16 << 20)), ("empty", b""), ("a b", b"quoted")):
        (directory / name).write_bytes(content)
        assert get(f"{url}/{quote(name)}") == (200, content)


def test_file_server_refuses_what_is_no_file_of_its_directory(served: tuple[Path, str]) -> None:
    directory, url = served
    (directory / "link").symlink_to("/etc/passwd")
    (directory / "folder").mkdir()
    os.mkfifo(directory / "fifo")
    found = {
        name: get(f"{url}/{name}")[0] for name in ("no", "link", "..", "folder", "fifo", "%00")
    }
    assert found == {"no": 404, "link": 404, "..": 403, "folder": 403, "fifo": 403, "%00": 404}


def test_file_server_lives_on_when_a_client_goes(served: tuple[Path, str]) -> None:
    """In the middle of a file, or without a word; others are not even delayed."""
    directory, url = served
    (directory / "large").write_bytes(bytes(32 << 20))
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    for words in (b"", b"nonsense\r\n\r\n", b"GET /large HTTP/1.0\r\n\r\n"):
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(words)
            if words.startswith(b"GET"):
                assert client.recv(15) == b"HTTP/1.0 200 OK"
            # Whoever reads nothing holds up nobody.
            (directory / "small").write_bytes(b"small")
            assert get(f"{url}/small") == (200, b"small")
    assert get(f"{url}/small") == (200, b"small")


# -- thumbnails ------------------------------------------------------------------------------------


def image(width: int, height: int) -> bytes:
    """A PGM image whose pixels tell where they are."""
    pixels = bytes((x + 3 * y) % 256 for y in range(height) for x in range(width))
    return b"P5\n%d %d\n255\n" % (width, height) + pixels


def test_thumbnails_of_a_directory(tmp_path: Path) -> None:
    """More files than are in flight at a time; each has the right pixels under its own name."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    sizes = {f"{n}.pgm": (100 + 10 * n, 200) for n in range(80)} | {"tiny.pgm": (3, 2)}
    for name, (width, height) in sizes.items():
        (source / name).write_bytes(image(width, height))
    (source / "notes.txt").write_text("no image")
    ended = run("thumbnails.py", source, target)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("81 thumbnails, 0 failures\n", "", 0)
    assert {path.name for path in target.iterdir()} == set(sizes)
    assert (target / "tiny.pgm").read_bytes() == b"P5 3 2 255\n" + bytes([0, 1, 2, 3, 4, 5])
    made = (target / "50.pgm").read_bytes()  # 600 x 200, each tenth pixel
    assert made.startswith(b"P5 60 20 255\n")
    pixels = made[len(b"P5 60 20 255\n") :]
    assert pixels == bytes((x + 3 * y) % 256 for y in range(0, 200, 10) for x in range(0, 600, 10))


def test_thumbnails_of_broken_images_are_failures(tmp_path: Path) -> None:
    """They are told of, and leave nothing behind; the others are made."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "good.pgm").write_bytes(image(10, 10))
    (source / "cut.pgm").write_bytes(image(10, 10)[:-1])
    (source / "text.pgm").write_text("no image")
    (source / "folder.pgm").mkdir()
    ended = run("thumbnails.py", source, target)
    assert (ended.stdout, ended.returncode) == ("1 thumbnails, 3 failures\n", 0)
    assert len(ended.stderr.splitlines()) == 3
    assert os.listdir(target) == ["good.pgm"]


# -- the sweep -------------------------------------------------------------------------------------


def counted(output: str) -> dict[str, int]:
    """The lines of the summary."""
    pairs = (line.split(maxsplit=1) for line in output.splitlines())
    return {what: int(number.replace(",", "")) for number, what in pairs}


@pytest.mark.parametrize("in_flight", [1, 8, 64])
def test_sweep_counts_what_there_is(tmp_path: Path, in_flight: int) -> None:
    """Every entry once, however many requests are in flight; symlinks are not followed."""
    for number in range(100):
        folder = tmp_path / f"{number % 10}" / f"{number}"
        folder.mkdir(parents=True)
        (folder / "new").write_bytes(bytes(number))
        (folder / "old").write_bytes(bytes(5))
        os.utime(folder / "old", (0, 0))
    link = tmp_path / "loop"
    link.symlink_to(tmp_path)
    ended = run("sweep.py", tmp_path, in_flight)
    assert (ended.stderr, ended.returncode) == ("", 0)
    assert counted(ended.stdout) == {
        "directories": 111,
        "files": 201,
        "bytes": sum(range(100)) + 500 + len(os.fsencode(tmp_path)),
        "bytes of files that are older than a year": 500,
    }


def test_sweep_tells_of_errors(tmp_path: Path) -> None:
    ended = run("sweep.py", tmp_path / "no")
    assert ended.stderr == f"{tmp_path / 'no'}: No such file or directory\n"
    assert counted(ended.stdout) == {"errors": 1}


# -- the window ------------------------------------------------------------------------------------


def test_window_reads_every_file_and_takes_its_picture(tmp_path: Path) -> None:
    """What cannot be read is on the list too."""
    pytest.importorskip("PySide6.QtWidgets", exc_type=ImportError)
    tree, picture = tmp_path / "tree", tmp_path / "picture.png"
    for number in range(150):
        path = tree / f"{number % 7}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("line\n" * number)
    (tree / "dangling").symlink_to("nowhere")
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / "qt_files.py", tree, picture],
        env={**os.environ, "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("11175 lines in 151 files\n", 0), done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
