"""Directories: names of any size and kind (rules G)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import procaio

if TYPE_CHECKING:
    from pathlib import Path


# -- flags -----------------------------------------------------------------------------------------


def test_found_unknown_is_not_returned_because_it_was_asked_for(
    pool: procaio.Pool, tmp_path: Path
) -> None:
    """FOUND_UNKNOWN comes back if, and only if, an unknown type was there (G2)."""
    flags = procaio.READDIR_DENTS | procaio.READDIR_FOUND_UNKNOWN
    assert procaio.aio_readdirx(tmp_path, flags, pool=pool).wait() == ([], procaio.READDIR_DENTS)
    answers = []
    procaio.aio_readdirx(tmp_path / "no", flags, lambda *answer: answers.append(answer), pool=pool)
    pool.flush()
    assert answers == [(None, procaio.READDIR_DENTS)]
