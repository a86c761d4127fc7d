"""Benchmarks work, whatever they would measure: every contender of a tiny run ends well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


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
