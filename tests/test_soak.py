"""A few seconds of what `make soak` does for hours (soak.py)."""

from __future__ import annotations

import soak


def test_everything_at_once_while_workers_die_loses_nothing_and_grows_nothing() -> None:
    report = soak.soak(5, seed=1, quiet=True)
    assert report.rounds > 0
    assert report.worker_deaths > 0
    assert sum(report.ended.values()) == report.requests
