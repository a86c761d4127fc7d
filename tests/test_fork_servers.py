"""A pre-forking server: gunicorn loads the program, forks, and every worker has its own pool."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from conftest import children, eventually, kill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# It uses its pool before it is forked, so every worker begins with a copy of that.
COMMON = """
import json, os, procaio
assert procaio.aio_load(__file__).wait().startswith(b"\\nimport json")
MASTER = os.getpid()
def about():
    known = procaio.statistics()
    return json.dumps({"pid": os.getpid(), "master": MASTER, "spawner": known.spawner_pid,
                       "workers": [worker.pid for worker in known.workers]}).encode()
"""

WSGI = """
def app(environ, start_response):
    content = procaio.aio_load("." + environ["PATH_INFO"]).wait()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-About", about().decode())])
    return [content]
"""

ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    content = await procaio.aio_load("." + scope["path"])
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/plain"), (b"x-about", about())]})
    await send({"type": "http.response.body", "body": content})
"""

KINDS = {
    "sync": (WSGI, "sync"),
    "gthread": (WSGI, "gthread"),
    "uvicorn": (ASGI, "uvicorn_worker.UvicornWorker"),
}


class Connection(http.client.HTTPConnection):
    """HTTP through a socket that has a path."""

    def __init__(self, path: Path) -> None:
        """Where it is."""
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        """Connect to it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(os.fspath(self._path))


class Server:
    """A running gunicorn."""

    def __init__(self, directory: Path, kind: str) -> None:
        """Start it; it answers soon."""
        source, worker = KINDS[kind]
        (directory / "served.py").write_text(COMMON + source)
        self.socket = directory / "socket"
        self.log = directory / "log"
        options = ["--preload", "--workers", "2", "--threads", "3", "--worker-class", worker]
        options += ["--bind", f"unix:{self.socket}", "--graceful-timeout", "20"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *options, "served:app"],
                cwd=directory, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def get(self, name: str) -> tuple[bytes, Any]:
        """A file, and what the process that served it says of itself."""
        with contextlib.closing(Connection(self.socket)) as connection:
            connection.request("GET", f"/{name}")
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            return content, json.loads(answer.headers["X-About"])

    def is_there(self) -> bool:
        """Whether it answers."""
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.get("served.py")
            return True
        return False

    def serving(self, without: set[int]) -> dict[int, Any]:
        """Its two workers and what they say, once both have answered and none is `without`."""
        found: dict[int, Any] = {}

        def both() -> bool:
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                about = self.get("served.py")[1]
                if about["pid"] not in without:
                    found[about["pid"]] = about
            return len(found) == 2

        eventually(both, "two workers serve", 60)
        return found

    def family(self) -> set[int]:
        """The processes of its session that are no zombies."""
        found = set()
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] not in {b"Z", b"X"}:
                    found.add(int(name))
        return found


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """It serves the files of a directory, in two processes."""
    for needed in ("gunicorn", *(("uvicorn_worker",) if request.param == "uvicorn" else ())):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed}: pip install 'procaio[test]'")
    made = Server(tmp_path, request.param)
    try:
        eventually(made.is_there, "it answers", 60)
        yield made
    finally:
        for pid in made.family() | {made.process.pid}:
            kill(pid)
        made.process.wait()


def everything_of(about: Any) -> set[int]:
    """A worker of the server and the processes of its pool."""
    return {about["pid"], about["spawner"], *about["workers"]}


def test_every_worker_of_a_preforking_server_has_a_pool_of_its_own(
    server: Server, data_file: Path
) -> None:
    """Requests are served while one is killed and all are replaced; at the end nothing is left."""
    serving = server.serving(set())
    first, second = serving.values()
    assert {first["master"], second["master"]} == {server.process.pid}
    assert everything_of(first).isdisjoint(everything_of(second))
    assert {first["spawner"], *first["workers"]} <= children(first["pid"])
    ask = [threading.Thread(target=lambda: server.get(data_file.name)) for _ in range(20)]
    for thread in ask:
        thread.start()
    assert server.get(data_file.name)[0] == data_file.read_bytes()
    for thread in ask:
        thread.join(60)

    kill(first["pid"])
    eventually(lambda: not everything_of(first) & server.family(), "its pool goes with it")
    after = server.serving({first["pid"]})
    assert second["pid"] in after
    assert after[second["pid"]]["spawner"] == second["spawner"]

    os.kill(server.process.pid, signal.SIGHUP)
    renewed = server.serving(set(after))
    old = set.union(*map(everything_of, after.values()))
    eventually(lambda: not old & server.family(), "the old workers and their pools leave")
    assert server.get(data_file.name)[0] == data_file.read_bytes()
    assert set(renewed).isdisjoint(after)

    os.kill(server.process.pid, signal.SIGTERM)
    assert server.process.wait(60) == 0, server.log.read_text()
    eventually(lambda: server.family() == set(), "nothing is left")
    log = server.log.read_text()
    assert "Traceback" not in log, log
    assert "use of fork" not in log, log
