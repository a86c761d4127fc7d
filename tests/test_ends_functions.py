"""What procaio has put into `os`, to notice that the program becomes another user or program."""

from __future__ import annotations

import inspect
import os
import pickle
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import procaio
from conftest import in_child, succeeds
from programs import run_python

if TYPE_CHECKING:
    from pathlib import Path

SOMEBODY = 4711


@pytest.mark.parametrize(
    "name", ["setuid", "seteuid", "setresgid", "setgroups", "initgroups", "execv", "execve"]
)
def test_functions_of_os_are_functions_of_os(workers: procaio.Pool, name: str) -> None:
    """They look, are pickled and are documented as ever, in `os` and in `posix`."""
    import posix  # noqa: PLC0415 - only here

    procaio.aio_nop(pool=workers).wait()
    function = getattr(os, name)
    assert function is getattr(posix, name)
    assert pickle.loads(pickle.dumps(function)) is function
    assert repr(function) == f"<built-in function {name}>"
    assert (function.__module__, function.__name__) == ("posix", name)
    assert inspect.isbuiltin(function)
    program = f"import os, inspect; f = os.{name}; print(inspect.signature(f), f.__doc__)"
    assert run_python(program) == f"{inspect.signature(function)} {function.__doc__}\n"


def test_function_that_the_program_has_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program, or a test, may replace os.setuid: it is left alone, and works afterwards."""
    procaio.Pool().close()
    called: list[int] = []
    original = os.setuid
    monkeypatch.setattr(os, "setuid", called.append)
    with procaio.Pool() as pool:
        procaio.aio_nop(pool=pool).wait()
        os.setuid(SOMEBODY)
        assert called == [SOMEBODY]
        monkeypatch.undo()
        assert os.setuid is original
    with procaio.Pool() as pool:
        procaio.aio_nop(pool=pool).wait()
        assert os.setuid is original
    if os.geteuid() == 0:
        assert succeeds(in_child(lambda: (os.setuid(SOMEBODY), os._exit(os.getuid() != SOMEBODY))))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_program_without_rights_looks_at_nothing(tmp_path: Path) -> None:
    """It cannot become anybody else, and pays nothing for those that can."""
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("needs strace")
    program = f"""
import os, procaio
os.setgroups([])
os.setgid({SOMEBODY})
os.setuid({SOMEBODY})
pool = procaio.Pool(at_once=False)
procaio.aio_nop(pool=pool).wait()
os.access("begin", 0)
for _ in range(100):
    procaio.aio_nop(pool=pool).wait()
os.access("end", 0)
"""
    log = tmp_path / "log"
    calls = "trace=getresuid,getresgid,getgroups,capget,access,faccessat"
    subprocess.run(
        [strace, "-f", "-e", calls, "-o", str(log), sys.executable, "-c", program],
        check=True, timeout=60,
    )  # fmt: skip
    text = log.read_text()
    middle = text[text.index('"begin"') : text.index('"end"')]
    assert "getresuid" in text
    assert not any(name in middle for name in ("getres", "getgroups", "capget"))
