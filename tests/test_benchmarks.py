"""Benchmarks work, whatever they would measure: every contender of a tiny run ends well."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: what is tested may be another build
from benchmarks import web_client  # noqa: E402
from benchmarks.baselines import in_shares  # noqa: E402
from benchmarks.data import Data  # noqa: E402
from benchmarks.harness import (  # noqa: E402
    CPU,
    Kind,
    Outcome,
    Question,
    Sizes,
    Target,
    at_least,
    at_most,
    questions,
)
from benchmarks.measure import Sample, WrongResultError  # noqa: E402
from benchmarks.peers import BY_PLAIN_CALLS  # noqa: E402
from benchmarks.report import (  # noqa: E402
    Result,
    results_of,
    rows_of,
    table_of_targets,
    warnings,
)
from benchmarks.run import renewed  # noqa: E402


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


@pytest.mark.parametrize(
    "question",
    ["noop", "stat", "read_4k", "read_1m", "write", "load", "batches", "latency", "ticker"],
)
def test_questions(question: str, tmp_path: Path) -> None:
    """Each contender does its work, and there are targets."""
    for asked in run_quick(question, tmp_path):
        assert asked["targets"]


def test_a_question_that_takes_long_gets_no_further_round(tmp_path: Path) -> None:
    """What has been begun is done: each contender has as many turns as the others."""
    further = ("--no-peers", "--repeat", "3", "--minutes", "0")
    [asked] = run_quick("stat", tmp_path, *further)
    assert {len(contender["samples"]) for contender in asked["contenders"]} == {1}


def test_growth(tmp_path: Path) -> None:
    """Whoever does the same with little and with much says what is left of the speed."""
    for asked in run_quick("growth", tmp_path):
        assert asked["targets"]
        for contender in asked["contenders"]:
            for sample in contender["samples"]:
                assert (sample["value"] is not None) == (asked["unit"] == "is left")


def test_what_is_written_in_c(tmp_path: Path) -> None:
    """As many operations as asked for, in each way to wait and with each kind of memory."""
    programs = ["build/ring_limit", "build/plain_calls"]
    subprocess.run(["make", "--silent", *programs], cwd=ROOT, check=True, timeout=100)
    data = Data.at(tmp_path, quick=True)
    data.prepare(frozenset({"file", "tree", "loads"}))
    for question, contender, ops in (
        ("noop", "C, same rings, 2 workers", None),
        ("read_4k", "C, same rings, 8 workers", None),
        ("latency", "C, same rings, looks before it sleeps", 220),  # a tenth to warm up
        ("latency", "C, same rings, sleeps", 220),
        ("read_1m", BY_PLAIN_CALLS, 64),
        ("batches_stat", BY_PLAIN_CALLS, 1000),
        ("batches_read", BY_PLAIN_CALLS, 1000),
        ("batches_load", BY_PLAIN_CALLS, 200),
    ):
        sample = one_turn(question, contender, tmp_path)
        assert sample["ops"] == ops if ops else sample["ops"] > 0


def test_threads_share_all_that_there_is_to_do() -> None:
    """Each has a part of its own, and what goes wrong in one is no fast result."""
    done: list[list[int]] = [[], []]
    in_shares([part.extend for part in done], range(7))
    assert done == [[0, 1, 2], [3, 4, 5, 6]]

    def fail(share: Sequence[int]) -> None:
        raise WrongResultError(share)

    with pytest.raises(WrongResultError):
        in_shares([done[0].extend, fail], range(7))


# -- targets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", questions(), ids=lambda question: question.name)
def test_targets_are_about_contenders(question: Question) -> None:
    """A name that nobody has would never be reached, and never be missed."""
    names = [contender.name for contender in question.contenders]
    assert len(set(names)) == len(names)
    assert question.reference in names
    for aim in question.targets:
        assert aim.who
        assert aim.who | aim.to <= set(names)
        assert not aim.who & aim.to


def result_of(target: Target, of: str = "", **others: float) -> Result:
    """How "ours" does beside others: it has 10 as figure, and 1,000,000 as CPU time."""
    question = Question("q", None, "unit", "a", Sizes(), Sizes())
    for name in ("ours", *others):
        question.contender(name)(lambda _: Sample(1, 1, 1))
    question.aim("ours", target, "the best", others, of)
    figures = {"ours": 10.0, **others}
    outcomes = [
        Outcome(contender, [Sample(1, 1, figures[contender.name] / 10, figures[contender.name])])
        for contender in question.contenders
    ]
    [result] = results_of(question.targets, rows_of(question, outcomes))
    return result


@pytest.mark.parametrize("of", ["", CPU])
def test_a_target_is_held_against_the_best(of: str) -> None:
    """That is the highest figure, or the lowest where less is better, in whatever column."""
    more = result_of(at_least(0.5), of, a=5.0, b=25.0)
    assert (more.ratio, more.verdict) == (0.4, "missed")
    assert more.beside == "the best (b)"
    less = result_of(at_most(2), of, a=5.0, b=25.0)
    assert (less.ratio, less.verdict) == (2.0, "reached")
    assert less.beside == "the best (a)"


def test_a_target_beside_nobody_is_not_measured() -> None:
    """Where all others are missing."""
    question = Question("q", None, "unit", "a", Sizes(), Sizes())
    question.contender("ours", target=at_least(1))(lambda _: Sample(1, 1, 1))
    question.contender("a", Kind.PEER)(lambda _: Sample(1, 1, 1))
    ours = Outcome(question.named("ours"), [Sample(1, 1, 1)])
    rows = rows_of(question, [ours, Outcome(question.named("a"), missing="no such package")])
    [result] = results_of(question.targets, rows)
    assert (result.ratio, result.verdict) == (None, "not measured")
    assert [line.split() for line in table_of_targets([(question, rows)]).splitlines()][1:] == [
        ["q", "ours", "a", "-", "-", ">=", "1", "not", "measured"],
        ["1", "not", "measured"],
    ]


def test_the_table_of_targets_has_a_line_for_each() -> None:
    """With the work, who was to reach it and beside whom, and how many were reached."""
    question = Question("q", None, "unit", "a", Sizes(), Sizes())
    for name, target in {"ours": at_least(2), "a": None}.items():
        question.contender(name, target=target)(lambda _: Sample(1, 1, 1))
    question.aim("ours", at_most(1.5), "a", of=CPU)
    outcomes = [
        Outcome(question.named("ours"), [Sample(1, 1, 4e-6), Sample(1, 0.5, 2e-6)]),
        Outcome(question.named("a"), [Sample(1, 1, 1e-6), Sample(1, 1, 1e-6)]),
    ]
    table = table_of_targets([(question, rows_of(question, outcomes))])
    assert [line.split() for line in table.splitlines()] == [
        ["targets", "contender", "beside", "ratio", "min", "..", "max", "target"],
        ["q", "ours", "a", "1.50", "1.00", "..", "2.00", ">=", "2", "missed"],
        ["q,", "CPU", "us/op", "ours", "a", "3.00", "2.00", "..", "4.00", "<=", "1.5", "missed"],
        ["2", "missed"],
    ]


@pytest.mark.parametrize("question", ["walk", "scan", "remove", "copy"])
def test_trees(question: str, tmp_path: Path) -> None:
    """Each contender did the whole tree, and nothing that was made for a turn is left."""
    [asked] = run_quick(question, tmp_path)
    beside = {target["to"] for target in asked["targets"]} - {asked["reference"]}
    assert beside == {"the fastest peer", "the fastest in C"}
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


def test_a_run_warns_where_nothing_is_on_a_disk() -> None:
    """What is synchronised in memory says nothing."""
    facts = {"cores": 2, "load_at_start": 0.0, "journal": None}
    assert warnings({**facts, "file_system": "ext4"}) == []
    [warning] = warnings({**facts, "file_system": "tmpfs"})
    assert "on no disk" in warning


# -- plots and pages -------------------------------------------------------------------------------


def measured(name: str, kind: str, *values: float, **extra: float) -> dict[str, Any]:
    """A contender of a report; without values it was not there."""
    samples = [
        {"value": value, "extra": {key: value * factor for key, factor in extra.items()}}
        for value in values
    ]
    missing = None if values else "no such package"
    return {"name": name, "kind": kind, "samples": samples, "missing": missing, "failed": None}


def report_of(*questions: dict[str, Any]) -> dict[str, Any]:
    """A report as --json writes it, as far as plots need it."""
    machine = {"date": "2026-01-01T00:00:00+00:00", "cpu": "a fast one", "cores": 2}
    machine |= {"kernel": "6.0", "python": "3.12"}
    sizes = {"depth": 64, "size": 16384}
    asked = [{**question, "full": sizes, "quick": sizes} for question in questions]
    return {"machine": machine, "quick": True, "repeat": 2, "questions": asked}


def test_plots_show_everybody(tmp_path: Path) -> None:
    """With units on the axes; who is missing is named too. The same figures give the same file."""
    pytest.importorskip("matplotlib")
    late = {"p50": 0.1, "max": 3.0}
    waits = {f"{who}: p{n} ms": n for who in ("nine", "tenth") for n in (50, 99)}
    names = ["idle loop", "procaio, await", "somebody else"]
    lateness = [
        contender
        for loop in ("", ", uvloop")
        for contender in (
            measured(names[0] + loop, "baseline", 90, 110, **late),
            measured(names[1] + loop, "procaio", 100, 120, **late),
            measured(names[2] + loop, "peer"),
        )
    ]
    http = [measured(names[1], "procaio", 5, 9, **waits), measured(names[2], "peer")]
    document = report_of(
        {"name": "lateness_64", "contenders": lateness},
        {"name": "lateness_1000", "contenders": lateness},
        {"name": "http", "contenders": http},
    )
    (tmp_path / "report.json").write_text(json.dumps(document))
    made = []
    for directory in ("one", "two"):
        command = ["benchmarks.plots", tmp_path / "report.json", tmp_path / directory]
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, timeout=100)
        plots = {path.name: path.read_text() for path in (tmp_path / directory).iterdir()}
        assert set(plots) == {"lateness.svg", "http.svg"}
        made.append(plots)
    assert made[0] == made[1]
    for text in made[0].values():
        ET.fromstring(text)
        # Letters are drawn; a comment holds what they say.
        assert all(f"<!-- {what} -->" in text for what in [*names[1:], "not installed"])
        assert "millisecond" in text


def test_plots_of_nothing_fail(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "report.json").write_text(json.dumps(report_of({"name": "noop"})))
    command = [sys.executable, "-m", "benchmarks.plots", tmp_path / "report.json", tmp_path]
    ended = subprocess.run(
        command, cwd=ROOT, check=False, timeout=100, stdout=subprocess.PIPE, text=True
    )
    assert (ended.returncode, "nothing" in ended.stdout) == (1, True)


def test_tables_go_where_a_page_has_marks_for_them() -> None:
    """What was there goes, what is around stays, and a table without marks goes nowhere."""
    page = "before\n<!-- begin a -->\nold\n<!-- end a -->\nafter\n"
    new = renewed(page, "here", {"a": "new\n", "b": "nowhere\n"})
    assert new == "before\n<!-- begin a -->\n```\nhere\n\nnew\n```\n<!-- end a -->\nafter\n"
    assert renewed(new, "here", {"a": "new\n"}) == new


def test_the_page_of_benchmarks_has_marks_for_the_tables() -> None:
    """For each question, and for what is to be reached; the plots are those that the page shows."""
    page = (ROOT / "docs/benchmarks.md").read_text()
    for name in ("targets", *(question.name for question in questions())):
        assert renewed(page, "now", {name: "table\n"}) != page, name
    for name in ("lateness", "http", "http_1m"):
        assert f"](_static/{name}.svg)" in page
        assert (ROOT / f"docs/_static/{name}.svg").exists()
