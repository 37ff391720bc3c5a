"""The records of training runs: found by name only, read from where one stopped, whatever stands in them."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from filelock import FileLock

from deepseek.errors import ConfigError
from deepseek.server.protocol.training import RecordPage
from deepseek.server.server_config import ServerConfig
from deepseek.server.training_runs import json_lines
from deepseek.server.training_runs.json_lines import MOST_TOLD, Thinning, read_lines
from deepseek.server.training_runs.shelf import Shelf
from live_server import Live, live, tiny_engine
from training_folders import EXPERTS, record, write_lines, write_run

SECRET = {"step": 1, "secret": "of another folder"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown") / "runs"
    write_run(folder / "small")
    write_run(folder / "an odd <b>name & 100%")
    write_lines(folder.parent / "log.jsonl", [SECRET])
    return folder


@pytest.fixture(scope="module")
def server(tiny_folder: Path, shown: Path) -> Iterator[Live]:
    with live(tiny_engine(tiny_folder), runs=str(shown), api_key="key") as server:
        server.client.headers["Authorization"] = "Bearer key"
        yield server


def lines_of(page: RecordPage) -> list[dict[str, Any]]:
    return [json.loads(bytes(line)) for line in page.lines]


def steps_of(page: RecordPage) -> list[int]:
    return [line["step"] for line in lines_of(page)]


def test_the_list_tells_what_a_row_needs(runs: Path) -> None:
    write_run(runs / "first", 40, planned=100)
    (runs / "no run").mkdir()
    (runs / "file").write_text("")
    listed = Shelf(runs).listed()
    (run,) = listed.data
    assert listed.folder == str(runs)
    assert (run.id, run.origin, run.going_on, run.step, run.steps) == ("first", "runs", False, 40, 100)
    assert (run.parameters, run.active_parameters, run.loss, run.trained_tokens) == (1_000_000, 400_000, 2.2, 40_960)
    assert run.files["log"].bytes == (runs / "first" / "log.jsonl").stat().st_size
    assert set(run.files) == {"log", "evaluations", "samples", "needle"}


def test_no_folder_has_no_runs(runs: Path) -> None:
    assert Shelf(runs).listed().data == []
    write_run(runs / "late")
    assert [run.id for run in Shelf(runs).listed().data] == ["late"]


def test_a_run_goes_on_while_its_lock_is_held(runs: Path) -> None:
    write_run(runs / "old")
    lock = FileLock(write_run(runs / "now", 5, planned=50) / ".lock")
    os.utime(runs / "now" / "log.jsonl", (1, 1))
    shelf = Shelf(runs)
    with lock.acquire(timeout=0):
        assert [(run.id, run.going_on) for run in shelf.listed().data] == [("now", True), ("old", False)]
    assert [(run.id, run.going_on) for run in shelf.listed().data] == [("old", False), ("now", False)]


def test_a_log_is_read_from_where_one_stopped(runs: Path) -> None:
    log = write_run(runs / "one", 3) / "log.jsonl"
    first = read_lines(log, 0)
    assert steps_of(first) == [1, 2, 3]
    assert first.next_offset == first.bytes == log.stat().st_size
    with log.open("a") as file:
        file.write(json.dumps(record(4)) + "\n" + json.dumps(record(5))[:-20])
    second = read_lines(log, first.next_offset)
    assert (steps_of(second), second.damaged, second.has_more) == ([4], 0, False)
    with log.open("a") as file:
        file.write(json.dumps(record(5))[-20:] + "\n")
    third = read_lines(log, second.next_offset)
    assert (steps_of(third), third.version) == ([5], first.version)


def test_a_log_that_was_written_anew_has_another_version(runs: Path) -> None:
    log = write_run(runs / "one", 30) / "log.jsonl"
    before = read_lines(log, 0)
    write_lines(log.with_suffix(".new"), [record(1)])
    log.with_suffix(".new").replace(log)
    after = read_lines(log, before.next_offset)
    assert after.version != before.version
    assert (after.offset, steps_of(after)) == (0, [1])


def test_damaged_lines_are_counted_and_not_told(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    good = [json.dumps({"step": step, "loss": float("nan")}) for step in (1, 2)]
    bad = [
        "{", "[]", "7", '{"loss": 1}', '{"step": "1"}', '{"step": true}', '{"step": -1}', '{"step": 1e3}',
        '{"step": 3, "loss": 1' + "0" * 5000 + "}", '{"step": 3, "a": ' + "[" * 100_000, '{"step": 3, "a": "\\ud800"}',
        '{"step": 99999999999999999999}',
    ]  # fmt: skip
    log.write_bytes("\n".join([good[0], "", *bad, good[1], ""]).encode() + b"\xff\xfe\n")
    page = read_lines(log, 0)
    assert lines_of(page) == [{"step": 1, "loss": None}, {"step": 2, "loss": None}]
    assert page.damaged == len(bad) + 1


def test_an_answer_is_bounded_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MOST_READ", 5000)
    monkeypatch.setattr(json_lines, "MOST_TOLD", 1000)
    log = tmp_path / "log.jsonl"
    lines = [{"step": step, "text": "x" * (step * 37 % 900)} for step in range(1, 200)]
    lines[50]["text"] = "y" * 2000  # longer than an answer
    lines[90]["text"] = "z" * 20_000  # longer than what is read at once
    write_lines(log, lines)
    offset, steps, damaged, answers = 0, [], 0, 0
    while True:
        page = read_lines(log, offset)
        assert sum(len(bytes(line)) for line in page.lines) <= 1000
        assert page.next_offset > offset
        steps += steps_of(page)
        damaged += page.damaged
        answers += 1
        offset = page.next_offset
        if not page.has_more:
            break
    assert steps == [step for step in range(1, 200) if step not in (51, 91)]
    assert damaged >= 2
    assert answers > 50


def test_thinning_keeps_every_nth_step_and_every_nth_load(runs: Path) -> None:
    log = write_run(runs / "one", 60) / "log.jsonl"
    page = read_lines(log, 0, Thinning(every=15, loads_every=20))
    assert steps_of(page) == [1, 15, 20, 30, 40, 45, 60]
    with_loads = [line["step"] for line in lines_of(page) if "layers" in line]
    assert with_loads == [20, 40, 60]
    assert len(lines_of(page)[2]["layers"][0]["load_e"]) == EXPERTS


def test_a_huge_log_stays_usable(runs: Path) -> None:
    """100,000 steps with 10,000 records of load come in answers of bounded length, thinned to what a page can show."""
    folder = write_run(runs / "huge", 1)
    loads = [{"layer": layer, "load_e": [1 / 16] * 16} for layer in range(8)]
    with (folder / "log.jsonl").open("w") as file:
        for step in range(1, 100_001):
            told = {**record(step, load_every=1 << 40), **({"layers": loads} if step % 10 == 0 else {})}
            file.write(json.dumps(told) + "\n")
    shelf = Shelf(runs)
    assert shelf.listed().data[0].step == 100_000
    offset, count, size = 0, 0, 0
    while True:
        page = shelf.records("huge", "log", offset, Thinning(every=50, loads_every=500))
        told = sum(len(bytes(line)) for line in page.lines)
        assert told <= MOST_TOLD
        count, size, offset = count + len(page.lines), size + told, page.next_offset
        if not page.has_more:
            break
    assert count == 2001
    assert size < MOST_TOLD


@pytest.mark.parametrize(
    "name", ["..", ".", "", "small/../..", "../runs/small", "/etc", "small/", "SMALL", "\0", "model:x"]
)
def test_a_name_that_is_not_listed_opens_nothing(shown: Path, name: str) -> None:
    shelf = Shelf(shown)
    with pytest.raises(KeyError):
        shelf.records(name, "log", 0)
    with pytest.raises(KeyError):
        shelf.facts(name)


def test_links_out_of_a_run_are_not_followed(runs: Path, tmp_path: Path) -> None:
    folder = write_run(runs / "one")
    write_lines(tmp_path / "outside.jsonl", [SECRET])
    (tmp_path / "outside.json").write_text(json.dumps(SECRET))
    for name, target in (("samples.jsonl", "outside.jsonl"), ("run.json", "outside.json")):
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / target)
    shelf = Shelf(runs)
    assert "samples" not in shelf.listed().data[0].files
    assert shelf.records("one", "samples", 0).lines == []
    assert shelf.facts("one").facts is None


def test_what_is_no_file_is_not_waited_for(runs: Path) -> None:
    folder = write_run(runs / "one")
    for name in ("samples.jsonl", "evaluations.jsonl", "run.json"):
        (folder / name).unlink()
    os.mkfifo(folder / "samples.jsonl")
    (folder / "evaluations.jsonl").mkdir()
    os.mkfifo(folder / "run.json")
    (run,) = Shelf(runs).listed().data
    assert set(run.files) == {"log", "needle"}
    assert run.steps is None


def test_facts_may_be_anything(runs: Path) -> None:
    folder = write_run(runs / "one")
    for text in ("[]", "{", "null", "[" * 100_000, '{"a": "\\ud800"}', "{}" + " " * (2 << 20)):
        (folder / "run.json").write_text(text)
        assert Shelf(runs).facts("one").facts is None
    (folder / "run.json").write_text('{"steps": "x", "parameters": -1, "tokens": 1e400, "started": 7}')
    run = Shelf(runs).facts("one").run
    assert (run.steps, run.parameters, run.tokens, run.started) == (None, None, None, None)


def test_a_name_that_is_no_text_can_be_told(runs: Path) -> None:
    write_run(runs / "plain")
    (runs / "plain").rename(os.fsdecode(os.fsencode(runs) + b"/\xff\n<script>"))
    (run,) = Shelf(runs).listed().data
    assert run.id == "\\xff\n<script>"
    assert len(Shelf(runs).records(run.id, "samples", 0).lines) == 1


def test_what_a_model_brings_is_listed_too(runs: Path, tmp_path: Path) -> None:
    model = tmp_path / "a-model"
    write_run(model / "training")
    write_run(model / "training" / "dense-twin")
    write_run(runs / "own")
    shelf = Shelf(runs, model)
    origins = {run.id: run.origin for run in shelf.listed().data}
    assert origins == {"own": "runs", "model:a-model": "model", "model:dense-twin": "model"}
    assert len(shelf.records("model:dense-twin", "evaluations", 0).lines) == 1
    assert Shelf(runs, tmp_path / "model.gguf").listed().data[0].id == "own"


def test_files_of_a_hubs_cache_are_links_to_its_blobs(runs: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs = tmp_path / "models--a--b" / "blobs"
    folder = write_run(snapshot / "training")
    blobs.mkdir()
    for file in folder.iterdir():
        file.rename(blobs / file.name)
        file.symlink_to(blobs / file.name)
    (run,) = Shelf(runs, snapshot).listed().data
    assert (run.id, run.step) == ("model:abc", 40)


def test_routes(server: Live) -> None:
    listed = server.client.get("/v1/training/runs").json()
    assert {run["id"] for run in listed["data"]} == {"small", "an odd <b>name & 100%"}
    for run in listed["data"]:
        at = f"/v1/training/runs/{quote(run['id'], safe='')}"
        assert server.client.get(at).json()["facts"]["recipe"]["name"] == run["id"]
        page = server.client.get(f"{at}/log", params={"every": 10, "loads_every": 20}).json()
        assert [line["step"] for line in page["lines"]] == [1, 10, 20, 30, 40]
        rest = server.client.get(f"{at}/log", params={"offset": page["next_offset"]}).json()
        assert rest["lines"] == []
        for name in ("evaluations", "samples", "needle"):
            assert len(server.client.get(f"{at}/{name}").json()["lines"]) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("nothing", 404), ("nothing/log", 404), ("..%2Fsmall/log", 404), ("%2e%2e/log", 404), ("..%2F..", 400),
        ("small/checkpoints", 400), ("small/log?offset=-1", 400), ("small/log?every=0", 400),
        ("small/log?every=x", 400),
        ("small/log?offset=99999999999999999999", 400), ("small/log?offset=99999999", 200),
    ],
)  # fmt: skip
def test_what_is_refused(server: Live, path: str, status: int) -> None:
    answer = server.client.get(f"/v1/training/runs/{path}")
    assert answer.status_code == status
    assert "secret" not in answer.text


def test_a_key_is_needed_where_keys_are(server: Live) -> None:
    for path in ("", "/small", "/small/log", "/small/samples"):
        answer = server.client.get(f"/v1/training/runs{path}", headers={"Authorization": "Bearer other"})
        assert answer.status_code == 401


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs must be a folder that exists, .* not '.*nowhere'"):
        ServerConfig(runs=str(tmp_path / "nowhere"))
