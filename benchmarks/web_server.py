"""
`python -m benchmarks.web_server NAME DIRECTORY`: one application, several ways to get at its files.

uvicorn with uvloop and httptools where they are installed, as it comes. The way of procaio is
docs/examples/static_files.py as it stands there; that of aiofiles is the same response with other
calls: it does not wait for a close either, and there is no buffer between. The third is Starlette's
own, with anyio's threads. The last one opens no file: what it does is what the rest costs.

It prints its port, and goes with its parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import ROOT, need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import ModuleType

PR_SET_PDEATHSIG = 1


def example() -> ModuleType:
    """Give the program of the docs as a module."""
    path = ROOT / "docs/examples/static_files.py"
    spec = importlib.util.spec_from_file_location("static_files", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_procaio(directory: str) -> Any:
    """The example."""
    return example().application(directory)


def with_aiofiles(directory: str) -> Any:
    """The example with files of aiofiles."""
    aiofiles, aiofiles_os = need("aiofiles"), need("aiofiles.os")
    datastructures, exceptions = need("starlette.datastructures"), need("starlette.exceptions")
    module = example()
    closing: set[asyncio.Future[None]] = set()

    class Response(module.ProcaioFileResponse):  # type: ignore[misc, name-defined]
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if not self.path.startswith(self.inside):
                raise exceptions.HTTPException(404)
            file = await aiofiles.open(self.path, "rb", buffering=0, opener=opener)
            try:
                if not os.readlink(f"/proc/self/fd/{file.fileno()}").startswith(self.inside):
                    raise exceptions.HTTPException(404)
                st = await aiofiles_os.stat(file.fileno())
                span = self.decide(st, scope["method"], datastructures.Headers(scope=scope))
                self.body_iterator = self.blocks(file, span)
                if len(span) > self.block_size:
                    await module.StreamingResponse.__call__(self, scope, receive, send)
                else:
                    await self.stream_response(send)
            finally:
                task = asyncio.ensure_future(file.close())
                closing.add(task)
                task.add_done_callback(closing.discard)

        async def blocks(self, file: Any, span: range) -> AsyncIterator[bytes]:
            if span.start:
                await file.seek(span.start)
            while span:
                data = await file.read(min(len(span), self.block_size))
                if not data:
                    raise EOFError(f"{self.path} was made shorter")
                yield data
                span = span[len(data) :]

    def opener(path: str, _flags: int) -> int:
        return os.open(path, module.FLAGS)

    # The application looks it up when it is asked for a file.
    module.ProcaioFileResponse = Response  # type: ignore[attr-defined]
    return module.application(directory)


def with_starlette(directory: str) -> Any:
    """Starlette's own StaticFiles and FileResponse."""
    routing = need("starlette.routing")
    files = need("starlette.staticfiles").StaticFiles(directory=directory)
    return need("starlette.applications").Starlette(routes=[routing.Mount("/", files)])


def from_memory(directory: str) -> Any:
    """What the files hold, read beforehand."""
    routing, responses = need("starlette.routing"), need("starlette.responses")
    files = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file()
    }

    async def file(request: Any) -> Any:
        content = files[request.path_params["path"]]
        return responses.Response(content, media_type="application/octet-stream")

    routes = [routing.Route("/{path:path}", file)]
    return need("starlette.applications").Starlette(routes=routes)


APPLICATIONS: dict[str, Callable[[str], Any]] = {
    "procaio": with_procaio,
    "aiofiles": with_aiofiles,
    "starlette": with_starlette,
    "memory": from_memory,
}


def main(name: str, directory: str) -> None:
    """Serve until the end."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    uvicorn = need("uvicorn")
    config = uvicorn.Config(APPLICATIONS[name](directory), log_level="warning", access_log=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
