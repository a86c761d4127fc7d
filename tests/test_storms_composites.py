"""Composite requests whose steps kill every worker that takes them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

import procaio
from procaio import _core, testing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMPOSITES: dict[str, Callable[[Path, procaio.Pool], procaio.Request[Any]]] = {
    "scandir": lambda top, p: procaio.aio_scandir(top / "tree", pool=p),
    "rmtree": lambda top, p: procaio.aio_rmtree(top / "tree", pool=p),
    "copytree": lambda top, p: procaio.aio_copytree(top / "tree", top / "copy", pool=p),
}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """With a tree of one file in it."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").touch()
    return tmp_path


@pytest.mark.parametrize("point", ["taken", "called"])
@pytest.mark.parametrize("name", COMPOSITES)
def test_composite_request_says_that_workers_died_over_it(
    workers: procaio.Pool, top: Path, name: str, point: str
) -> None:
    """As a single request does: WorkerDied, with the caller's path."""
    testing.arm(workers, point, always=True)
    request = COMPOSITES[name](top, workers)
    with pytest.raises(procaio.WorkerDied) as caught:
        request.wait(timeout=60)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, top / "tree")
    assert isinstance(request.error, procaio.WorkerDied)


def test_error_of_a_composite_request_that_no_worker_has_died_over_is_its_own(
    workers: procaio.Pool, top: Path
) -> None:
    """EIO and a death are told apart, also of requests that end in each other's callbacks."""
    testing.arm(workers, "called", always=True)
    seen = []

    def died(_: object) -> None:
        assert _core._worker_died()
        testing.disarm(workers)
        later = procaio.aio_rmtree(top / "no such", pool=workers)
        with pytest.raises(FileNotFoundError):
            later.wait()
        seen.append((procaio.errno(), _core._worker_died(), type(later.error)))

    procaio.aio_rmtree(top / "tree", died, pool=workers)
    workers.flush()
    assert seen == [(errno.EIO, True, FileNotFoundError)]
    assert not _core._worker_died()
