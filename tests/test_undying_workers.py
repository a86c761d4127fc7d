"""More calls hang for good than a pool can have workers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import procaio
from procaio import _core

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.mark.slow
def test_pool_whose_workers_all_cannot_die_works_again_when_they_can(
    slowfs: ModuleType, tmp_path: Path, workers: procaio.Pool
) -> None:
    """Each keeps its number: no other one is started. Deadlines are kept all the same."""
    (tmp_path / "source").mkdir()
    with slowfs.mounted(tmp_path / "source", tmp_path / "mount", "hang=hang"):
        while workers.statistics().aborted < _core.MAX_WORKERS:
            hung = [
                procaio.aio_stat(tmp_path / "mount/hang", pool=workers, timeout=0.05)
                for _ in range(8)
            ]
            for request in hung:
                with pytest.raises(TimeoutError):
                    request.wait(timeout=30)
        request = procaio.aio_stat("/", pool=workers, timeout=0.5)
        with pytest.raises(TimeoutError, match="has not ended in time"):
            request.wait(timeout=30)
    assert procaio.aio_stat("/", pool=workers).wait(timeout=30) == os.stat("/")
