"""Benchmarks work, whatever they would measure: every contender of a tiny run ends well."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: what is tested may be another build
from benchmarks import web_client  # noqa: E402
from benchmarks.measure import WrongResultError  # noqa: E402


def run_quick(question: str, tmp_path: Path, *further: str) -> list[dict[str, Any]]:
    """What a quick run tells of the questions that begin so; by default without peers."""
    report = tmp_path / "report.json"
    options = ["--quick", "--data", str(tmp_path / "data"), "--json", str(report)]
    options += further or ("--no-peers",)
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, "--only", question],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=100,
    )
    questions: list[dict[str, Any]] = json.loads(report.read_text())["questions"]
    for asked in questions:
        for contender in asked["contenders"]:
            assert contender["missing"] or contender["median"] > 0, contender["name"]
    assert questions
    return questions


@pytest.mark.parametrize("question", ["walk", "scan", "remove", "copy"])
def test_trees(question: str, tmp_path: Path) -> None:
    """Each contender did the whole tree, and nothing that was made for a turn is left."""
    [asked] = run_quick(question, tmp_path)
    assert {aim["to"] for aim in asked["aims"]} == {"the fastest peer", "the fastest in C"}
    assert not list((tmp_path / "data").glob("scratch*"))


@pytest.mark.slow
def test_trees_on_the_slow_file_system(slowfs: ModuleType, tmp_path: Path) -> None:
    """Each contender needs a call for each entry at least, and the mount is gone afterwards."""
    for asked in run_quick("slow", tmp_path):
        for contender in asked["contenders"]:
            assert all(sample["extra"]["calls"] >= 1 for sample in contender["samples"])
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_without_its_program_the_slow_file_system_is_named_as_missing(
    slowfs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowfs, "PROGRAM", tmp_path / "nowhere")
    mount = slowfs.mounted(tmp_path, tmp_path / "mount")
    with pytest.raises(Exception, match="libfuse3-dev, fuse3"):
        mount.__enter__()
    assert not (tmp_path / "mount").exists()


def test_lateness(tmp_path: Path) -> None:
    """Each contender says how late the loop was, and all but the idle one have read something."""
    [asked] = run_quick("lateness_64", tmp_path)
    for contender in asked["contenders"]:
        for sample in contender["samples"]:
            extra = sample["extra"]
            assert 0 < extra["p50"] <= sample["value"] <= extra["max"]
            assert (extra["reads/s"] > 0) != ("idle" in contender["name"])


def one_turn(question: str, contender: str, tmp_path: Path) -> dict[str, Any]:
    """What a contender of a quick run says."""
    options = ["--quick", "--data", str(tmp_path), "--one", question, contender]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=100,
    )
    return dict(json.loads(done.stdout))


def test_web_server(tmp_path: Path) -> None:
    """The files were asked for, and what was asked for came."""
    pytest.importorskip("starlette")
    for name in ("from memory", "procaio"):
        sample = one_turn("http", name, tmp_path)
        assert sample["value"] > 0
        assert 0 < sample["extra"]["nine: p50 ms"] <= sample["extra"]["nine: p99 ms"]


@pytest.mark.slow
def test_web_servers_beside_each_other(slowfs: ModuleType, tmp_path: Path) -> None:
    """Whoever asks for what is on the slow disk waits for it; the mount is gone afterwards."""
    pytest.importorskip("starlette")
    for asked in run_quick("http", tmp_path, "--peers"):
        for contender in asked["contenders"]:
            if "slow disk" in contender["name"]:  # three calls of 4 ms at least
                assert all(s["extra"]["tenth: p50 ms"] > 12 for s in contender["samples"])
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nwrong", "HTTP/1.1 404 Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate", "HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlat", "the server hung up"),
    ],
    ids=["status", "size", "end"],
)
def test_web_client_counts_no_wrong_answers(answer: bytes, why: str) -> None:
    """It is an error, whatever it says of speed."""
    path = web_client.Path("/file", 5)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with web_client.Clients(port, [path], 2) as clients:
                clients.clock.start = 0
                await clients.run(60)

    with pytest.raises(WrongResultError, match=f"/file: {why}"):
        asyncio.run(main())
    assert path.took == []


def test_web_client_notes_how_long_each_answer_took() -> None:
    """Only of those that were asked for and have come while the clock ran, in whatever pieces."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n"
    path = web_client.Path("/file", 5)
    clients = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(10):
            await reader.readuntil(b"\r\n\r\n")
            if number == 5:
                clients[0].clock.start = 0.0
            for piece in (head[:7], head[7:-1], head[-1:] + b"ri", b"ght"):
                writer.write(piece)
                await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with web_client.Clients(port, [path], 1) as made:
                clients.append(made)
                await made.run(60)

    with pytest.raises(WrongResultError, match="hung up"):
        asyncio.run(main())
    assert len(path.took) == 5
    assert min(path.took) > 0
