"""The web servers of docs/examples, run as a reader would run them, with clients of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import io
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest

from conftest import eventually, not_sanitized, open_files
from programs import EXAMPLES, serving

aiohttp = pytest.importorskip("aiohttp")
fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from types import ModuleType

BLOCK = 64 * 1024
LARGEST = 8 << 20


@dataclass
class Server:
    """A server, and the directory whose files it has."""

    process: subprocess.Popen[str]
    directory: Path
    url: str

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        parts = urlsplit(self.url)
        assert parts.hostname
        assert parts.port
        return parts.hostname, parts.port

    def opened(self) -> list[str]:
        """The files of the directory that it has open, those without a name too."""
        found = []
        for entry in os.scandir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(entry.path))
        return [path for path in found if path.startswith(f"{self.directory}/")]

    def raw(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask for a path exactly as it is written; clients of a higher kind tidy it up."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest(method, path)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read()

    @contextlib.contextmanager
    def talking(self, *lines: str) -> Iterator[socket.socket]:
        """A connection over which a request was begun."""
        with socket.create_connection(self.address, timeout=30) as client:
            client.sendall("\r\n".join([*lines, "Host: here", "", ""]).encode())
            yield client


@contextlib.contextmanager
def web_server(name: str, directory: Path, *arguments: object) -> Iterator[Server]:
    """Run a script as a server of a directory, which has no links in its path."""
    with serving(name, directory, *arguments) as (process, url):
        yield Server(process, directory, url)


@pytest.fixture(scope="module")
def static_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests: what the first leaves in it, the last would find."""
    with web_server("static_files.py", tmp_path_factory.mktemp("static").resolve()) as server:
        yield server


@pytest.fixture(scope="module")
def upload_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests, of files of a few MB."""
    with web_server("upload_server.py", tmp_path_factory.mktemp("up").resolve(), LARGEST) as server:
        yield server


@pytest.fixture
def static(static_files: Server) -> Iterator[Server]:
    """The static files; nothing of the directory is open before and after."""
    yield static_files
    eventually(lambda: static_files.opened() == [], "the files are closed")


@pytest.fixture
def uploads(upload_server: Server) -> Iterator[Server]:
    """The directory is empty; nothing of it is open afterwards."""
    yield upload_server
    eventually(lambda: upload_server.opened() == [], "the files are closed")
    for path in upload_server.directory.iterdir():
        path.unlink()


# -- static files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 3_000_000])
def test_static_file_comes_as_it_is(static: Server, size: int) -> None:
    """Whole, with its size, its kind and its date; HEAD says the same without the content."""
    content = os.urandom(size)
    path = static.directory / "page.html"
    path.write_bytes(content)
    os.utime(path, (0, 86400))
    with httpx.Client(base_url=static.url) as client:
        got = client.get("/page.html")
        head = client.head("/page.html")
    assert (got.status_code, got.content == content) == (200, True)
    assert got.headers["content-length"] == str(size)
    assert got.headers["content-type"] == "text/html; charset=utf-8"
    assert got.headers["last-modified"] == "Fri, 02 Jan 1970 00:00:00 GMT"
    assert (head.status_code, head.content) == (200, b"")
    unlike = {"date"}
    assert {k: v for k, v in head.headers.items() if k not in unlike} == {
        k: v for k, v in got.headers.items() if k not in unlike
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.tar.gz", "application/octet-stream"),  # not a tar: it would have to be unpacked first
        ("a", "application/octet-stream"),
        ("ä b?.txt", "text/plain; charset=utf-8"),
    ],
)
def test_static_file_is_of_the_kind_that_its_name_says(
    static: Server, name: str, kind: str
) -> None:
    (static.directory / name).write_text(name)
    with httpx.Client(base_url=static.url) as client:
        got = client.get(f"/{quote(name)}")
    assert (got.text, got.headers["content-type"]) == (name, kind)


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("If-None-Match", "{etag}", 304),
        ("If-None-Match", "W/{etag}", 304),
        ("If-None-Match", '"other", {etag}', 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", '"other"', 200),
        ("If-None-Match", "", 200),
        ("If-Modified-Since", "{date}", 304),
        ("If-Modified-Since", "Fri, 02 Jan 2015 00:00:00 GMT", 304),
        ("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ("If-Modified-Since", "yesterday", 200),
        ("If-Modified-Since", "Fri, 02 Jan 99999999999 00:00:00 GMT", 200),
        ("If-Modified-Since", "Fri, 99 Jan 2015 99:99:99 GMT", 304),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_static_file_is_sent_again_only_when_it_has_changed(
    static: Server, method: str, header: str, value: str, status: int
) -> None:
    path = static.directory / "conditional"
    path.write_text("once")
    os.utime(path, (0, 1_000_000_000))
    with httpx.Client(base_url=static.url) as client:
        first = client.get("/conditional")
        etag, date = first.headers["etag"], first.headers["last-modified"]
        asked = {header: value.format(etag=etag, date=date)}
        again = client.request(method, "/conditional", headers=asked)
        assert again.status_code == status
        assert again.headers["etag"] == etag
        assert again.content == (b"once" if (method, status) == ("GET", 200) else b"")
        path.write_text("twice")
        changed = client.get("/conditional", headers={"If-None-Match": etag})
        assert (changed.status_code, changed.content) == (200, b"twice")


def test_static_file_that_is_unknown_by_its_etag_is_sent_whatever_the_date(static: Server) -> None:
    (static.directory / "both").write_text("both")
    with httpx.Client(base_url=static.url) as client:
        date = client.get("/both").headers["last-modified"]
        asked = {"If-None-Match": '"other"', "If-Modified-Since": date}
        assert client.get("/both", headers=asked).status_code == 200


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-", (0, 200_000)),
        ("bytes=199999-", (199_999, 200_000)),
        ("bytes=-1", (199_999, 200_000)),
        ("bytes=-999999", (0, 200_000)),
        ("bytes=65530-131080", (65_530, 131_081)),
        ("bytes=100-999999999999999999", (100, 200_000)),
        ("bytes=200000-", None),
        ("bytes=-0", None),
        ("bytes=200000-200001", None),
    ],
)
def test_static_part_of_a_file(
    static: Server, asked: str, expected: tuple[int, int] | None
) -> None:
    """The bytes that are asked for, or the word that there are none."""
    content = os.urandom(200_000)
    (static.directory / "parts").write_bytes(content)
    with httpx.Client(base_url=static.url) as client:
        got = client.get("/parts", headers={"Range": asked})
    if expected is None:
        assert (got.status_code, got.headers["content-range"]) == (416, "bytes */200000")
    else:
        first, end = expected
        assert (got.status_code, got.content == content[first:end]) == (206, True)
        assert got.headers["content-range"] == f"bytes {first}-{end - 1}/200000"


@pytest.mark.parametrize(
    "asked",
    ["bytes=-", "bytes=5-4", "bytes=0-1,5-6", "lines=1-2", "bytes=x-", "", f"bytes={'9' * 5000}-"],
)
def test_static_part_that_is_none_is_the_whole(static: Server, asked: str) -> None:
    """Several parts at once, and nonsense: a server may ignore it."""
    (static.directory / "whole").write_text("whole")
    with httpx.Client(base_url=static.url) as client:
        got = client.get("/whole", headers={"Range": asked})
        assert (got.status_code, got.text) == (200, "whole")


def test_static_part_is_sent_only_of_the_file_that_the_client_knows(static: Server) -> None:
    """If-Range: else the parts would be of two files."""
    (static.directory / "known").write_text("known")
    with httpx.Client(base_url=static.url) as client:
        known = client.get("/known").headers
        for value, status in (
            (known["etag"], 206),
            (known["last-modified"], 206),
            ('"other"', 200),
            (f"W/{known['etag']}", 200),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
        ):
            asked = {"Range": "bytes=1-2", "If-Range": value}
            assert client.get("/known", headers=asked).status_code == status


def test_static_files_are_those_below_the_directory(static: Server) -> None:
    """Whatever a path says, and wherever links lead, nothing else is sent, nor waited for."""
    root = static.directory
    secret = root.parent / "secret"
    secret.write_text("secret")
    beside = Path(f"{root}-beside")
    beside.mkdir()
    (beside / "file").write_text("secret")
    (root / "inside").mkdir()
    (root / "inside/file").write_text("fine")
    for name, target in {
        "out": secret,
        "out-relative": "../secret",
        "out-twice": "out",
        "out-directory": "..",
        "out-beside": beside,
        "in": "inside/file",
        "in-directory": "inside",
        "loop": "loop",
        "dangling": "nothing",
    }.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(root / "socket"))
    found = {
        path: static.raw(path)
        for path in (
            *("/", "//", "/.", "/..", "/inside", "/inside/", "/no", "/inside/file/no"),
            *("/../secret", "/inside/../../secret", "/%2e%2e/secret", "/..%2fsecret"),
            *(f"/{secret}", f"/%2f{str(secret)[1:]}", "//etc/passwd", f"/../{beside.name}/file"),
            *("/out", "/out-relative", "/out-twice", "/out-directory/secret", "/out-beside/file"),
            *(
                "/loop",
                "/dangling",
                "/fifo",
                "/socket",
                "/%00",
                "/file%00",
                "/%ff",
                f"/{'x' * 300}",
            ),
        )
    }
    assert set(found.values()) == {(404, b"Not Found")}, found
    for path in ("/inside/file", "/in", "/in-directory/file", "/inside/../in", "/./in"):
        assert static.raw(path) == (200, b"fine")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_static_files_are_only_read(static: Server, method: str) -> None:
    (static.directory / "kept").write_text("kept")
    with httpx.Client(base_url=static.url) as client:
        refused = client.request(method, "/kept", content=b"other")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert (static.directory / "kept").read_text() == "kept"


def test_static_clients_that_go_leave_nothing_open(static: Server) -> None:
    """In the middle of a file, while others are served."""
    (static.directory / "large").write_bytes(bytes(64 << 20))
    (static.directory / "small").write_text("small")
    for _ in range(5):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(static.talking("GET /large HTTP/1.1")) for _ in range(8)]
            for client in clients:
                assert client.recv(15) == b"HTTP/1.1 200 OK"
            assert static.opened() == [str(static.directory / "large")] * 8
            assert static.raw("/small") == (200, b"small")
        eventually(lambda: static.opened() == [], "what nobody waits for is closed")


@not_sanitized
def test_static_client_that_reads_nothing_costs_no_memory(static: Server) -> None:
    """The file is read as fast as it is sent, whatever its size."""
    with open(static.directory / "huge", "wb") as file:
        file.truncate(4 << 30)
    before = memory(static.process.pid)
    with static.talking("GET /huge HTTP/1.1") as slow:
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        (static.directory / "other").write_bytes(bytes(5 << 20))
        for _ in range(10):  # there is enough time for it to read on
            assert static.raw("/other") == (200, bytes(5 << 20))
        assert memory(static.process.pid) - before < 64 << 20


def memory(pid: int) -> int:
    """The most that a process ever had in memory, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def test_static_files_in_parallel(static: Server) -> None:
    """Many files, many connections: everybody gets the right one."""
    contents = {f"many-{n}": os.urandom(n * 1000) for n in range(150)}
    for name, content in contents.items():
        (static.directory / name).write_bytes(content)

    async def download() -> dict[str, bytes]:
        async with aiohttp.ClientSession(static.url) as session:

            async def one(name: str) -> bytes:
                async with session.get(f"/{name}") as answer:
                    assert answer.status == 200
                    return bytes(await answer.read())

            return dict(zip(contents, await asyncio.gather(*map(one, contents)), strict=True))

    assert asyncio.run(download()) == contents


# -- the response itself ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example, as a module to take from."""
    spec = importlib.util.spec_from_file_location("static_files", EXAMPLES / "static_files.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "asgi": {}}


async def never() -> dict[str, Any]:
    """Receive nothing: the client waits for its answer."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


def test_response_in_an_application_of_fastapi(example: ModuleType, data_file: Path) -> None:
    """As the answer of a route, with a header of its own and a task afterwards; and mounted."""
    app, content = fastapi.FastAPI(), data_file.read_bytes()
    done = []

    async def report(tasks: fastapi.BackgroundTasks) -> Any:
        tasks.add_task(done.append, "sent")
        return example.ProcaioFileResponse(str(data_file), headers={"x-kind": "report"})

    report.__annotations__["tasks"] = fastapi.BackgroundTasks  # it looks where we did not import
    app.get("/report", response_model=None)(report)
    app.mount("/files", example.application(str(data_file.parent)))

    async def main() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            one = await client.get("/report", headers={"Range": "bytes=0-15"})
            assert (one.status_code, one.headers["x-kind"]) == (206, "report")
            assert one.content == bytes(16)
            assert done == ["sent"]
            two = await client.get("/files/data")
            assert two.content == content
            assert (await client.get("/files/no")).status_code == 404

    asyncio.run(main())


def sent_until(
    example: ModuleType, path: Path, when: Callable[[int, asyncio.Task[Any]], Awaitable[None]]
) -> BaseException | None:
    """Send a file of five blocks; `when` is called before each is sent, with its number."""

    async def main() -> None:
        blocks = 0
        task = asyncio.current_task()
        assert task

        async def send(message: dict[str, Any]) -> None:
            nonlocal blocks
            if message["type"] == "http.response.body":
                await when(blocks, task)
                blocks += 1

        await example.ProcaioFileResponse(str(path))(SCOPE, never, send)

    path.write_bytes(bytes(5 * BLOCK))
    before = open_files()
    try:
        asyncio.run(main())
    except BaseException as error:  # noqa: BLE001 - it is what the caller asks for
        return error
    finally:
        eventually(lambda: open_files() == before, "the file is closed")
    return None


def test_response_of_a_task_that_is_cancelled_closes_its_file(
    example: ModuleType, tmp_path: Path
) -> None:
    async def when(block: int, task: asyncio.Task[Any]) -> None:
        if block == 2:
            task.cancel()
            await never()

    assert isinstance(sent_until(example, tmp_path / "file", when), asyncio.CancelledError)


def test_response_of_a_file_that_is_made_shorter_is_an_error(
    example: ModuleType, tmp_path: Path
) -> None:
    """The client was told how much there would be: nothing can be put in its place."""

    async def when(block: int, _task: asyncio.Task[Any]) -> None:
        if block == 1:
            os.truncate(tmp_path / "file", BLOCK)

    error = sent_until(example, tmp_path / "file", when)
    assert isinstance(error, EOFError)
    assert str(error) == f"{tmp_path / 'file'} was made shorter"


# -- uploads and downloads -------------------------------------------------------------------------


def put(server: Server, name: str, content: bytes | AsyncIterator[bytes]) -> int:
    """Upload with aiohttp's client; gives the status."""
    data = io.BytesIO(content) if isinstance(content, bytes) else content

    async def upload() -> int:
        async with (
            aiohttp.ClientSession(server.url) as session,
            session.put(f"/{name}", data=data) as answer,
        ):
            return int(answer.status)

    return asyncio.run(upload())


async def in_pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    """What comes without a word of how much it will be."""
    for at in range(0, len(content), size):
        yield content[at : at + size]


@pytest.mark.parametrize("size", [0, 1, 300_000, 7_000_000])
def test_upload_can_be_downloaded(uploads: Server, size: int) -> None:
    """What came in is what comes out, whether its size was known beforehand or not."""
    first, second = os.urandom(size), os.urandom(size)
    for content in (first, in_pieces(second, 50_001)):
        assert put(uploads, "a.png", content) == 201
        sent = content if isinstance(content, bytes) else second
        with httpx.Client(base_url=uploads.url) as client:
            got = client.get("/a.png")
            assert (got.status_code, got.content == sent) == (200, True)
            assert got.headers["content-type"] == "image/png"
            head = client.head("/a.png")
            assert (head.headers["content-length"], head.content) == (str(size), b"")
    assert os.listdir(uploads.directory) == ["a.png"]


def test_upload_gets_the_rights_that_the_umask_leaves(uploads: Server) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert put(uploads, "file", b"content") == 201
    assert os.stat(uploads.directory / "file").st_mode & 0o777 == 0o666 & ~mask


def test_upload_that_is_too_large_is_refused(uploads: Server) -> None:
    """By its own word before it comes, or when it has become too large."""
    content = bytes(LARGEST + 1)
    with uploads.talking("PUT /large HTTP/1.1", f"Content-Length: {LARGEST + 1}") as client:
        assert client.recv(12) == b"HTTP/1.1 413"
    with contextlib.suppress(aiohttp.ClientConnectionError):  # it is hung up on while it sends
        assert put(uploads, "large", in_pieces(content, 1 << 20)) == 413
    assert put(uploads, "large", in_pieces(content[1:], 1 << 20)) == 201
    assert os.listdir(uploads.directory) == ["large"]


def begin_upload(server: Server, client: socket.socket) -> None:
    """Send half of what is announced, until it is in a file without a name."""
    client.sendall(bytes(500_000))
    eventually(lambda: len(server.opened()) > 0, "the upload goes to a file")


@pytest.mark.parametrize("how", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_upload_that_is_interrupted_leaves_nothing(uploads: Server, how: str) -> None:
    """The file that had the name is as it was."""
    (uploads.directory / "file").write_text("before")
    with uploads.talking("PUT /file HTTP/1.1", how) as client:
        if "chunked" in how:
            client.sendall(b"f4240\r\n")
        begin_upload(uploads, client)
        assert os.listdir(uploads.directory) == ["file"]
        assert uploads.raw("/file") == (200, b"before")
    eventually(lambda: uploads.opened() == [], "the upload is given up")
    assert os.listdir(uploads.directory) == ["file"]
    assert uploads.raw("/file") == (200, b"before")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ended", "killed"])
def test_upload_to_a_server_that_ends_leaves_nothing(tmp_path: Path, number: int) -> None:
    """Whether it may say goodbye or not."""
    with (
        web_server("upload_server.py", tmp_path.resolve()) as server,
        server.talking("PUT /file HTTP/1.1", "Content-Length: 1000000") as client,
    ):
        begin_upload(server, client)
        server.process.send_signal(number)
        client.shutdown(socket.SHUT_WR)
        server.process.wait(30)
        assert os.listdir(tmp_path) == []


def test_uploads_of_one_name_are_never_mixed(uploads: Server) -> None:
    """Who comes last wins; readers meanwhile see one or the other."""
    contents = [bytes([n]) * 1_000_000 for n in range(8)]
    (uploads.directory / "file").write_bytes(contents[0])

    async def main() -> None:
        async with aiohttp.ClientSession(uploads.url) as session:

            async def upload(content: bytes) -> None:
                async with session.put("/file", data=io.BytesIO(content)) as answer:
                    assert answer.status == 201

            async def download() -> None:
                async with session.get("/file") as answer:
                    assert await answer.read() in contents

            await asyncio.gather(*map(upload, contents), *(download() for _ in range(16)))

    asyncio.run(main())
    assert (uploads.directory / "file").read_bytes() in contents
    assert os.listdir(uploads.directory) == ["file"]


def test_upload_server_knows_plain_names_only(uploads: Server) -> None:
    """No directories, nothing hidden, no links, and what is no file is not sent."""
    (uploads.directory.parent / "outside").write_text("secret")
    (uploads.directory / "link").symlink_to("../outside")
    os.mkfifo(uploads.directory / "fifo")
    (uploads.directory / "folder").mkdir()
    names: Sequence[str] = ("..%2foutside", "%2fetc%2fpasswd", ".hidden", "..", ".", "%00", "x%00")
    names = (*names, "x" * 256, "%c3%a4" * 128)
    for name in (*names, "link", "fifo", "folder", "no", "%ff"):
        assert uploads.raw(f"/{name}")[0] == 404, name
    for name in names:
        with uploads.talking(f"PUT /{name} HTTP/1.1", "Content-Length: 0") as client:
            assert client.recv(12) == b"HTTP/1.1 404", name
    assert put(uploads, "folder", b"new") == 409
    (uploads.directory / "folder").rmdir()
    assert put(uploads, "link", b"new") == 201  # the link is replaced, not followed
    assert (uploads.directory.parent / "outside").read_text() == "secret"
    assert uploads.raw("/link") == (200, b"new")
    assert sorted(os.listdir(uploads.directory)) == ["fifo", "link"]


def test_upload_server_refuses_other_methods(uploads: Server) -> None:
    assert uploads.raw("/file", "DELETE")[0] == 405


def test_downloads_of_clients_that_go_leave_nothing_open(uploads: Server) -> None:
    with open(uploads.directory / "huge", "wb") as file:
        file.truncate(1 << 30)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(uploads.talking("GET /huge HTTP/1.1")) for _ in range(8)]
        for client in clients:
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        assert len(uploads.opened()) == 8
    eventually(lambda: uploads.opened() == [], "what nobody waits for is closed")
