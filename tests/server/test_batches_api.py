"""/v1/files and /v1/batches, driven by the unmodified OpenAI client."""

import asyncio
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from deepseek.server.batches import runner as running
from deepseek.server.batches.database import NAME, Database
from deepseek.server.batches.files import Files
from deepseek.server.batches.jobs import Jobs
from live_server import Brake, Live, live, tiny_engine
from test_operations import until

CHAT = "/v1/chat/completions"
NO_FILE = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n--x--'
KEYS = """
keys:
  - {name: alice, key: sk-alice}
  - {name: bob, key: sk-bob}
  - {name: carol, key: sk-carol, tokens_per_day: 40}
"""


def chat_line(name: str, **fields: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": name}], "max_tokens": 6, "temperature": 0}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": {**body, **fields}}


def jsonl(*lines: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def read(client: openai.OpenAI, file_id: str | None) -> list[Any]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def begin(client: openai.OpenAI, content: bytes, endpoint: Any = CHAT, **fields: Any) -> Any:
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, **{"completion_window": "24h", **fields}
    )  # fmt: skip


def ended(client: openai.OpenAI, batch: Any) -> Any:
    found = None

    def has_ended() -> bool:
        nonlocal found
        found = client.batches.retrieve(batch.id)
        return found.status in ("completed", "failed", "expired", "cancelled")

    until(has_ended)
    return found


def client_of(server: Live, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("data")
    with live(
        tiny_engine(tiny_folder, max_num_seqs=4), max_num_seqs=4, data_dir=str(folder), max_file_bytes=1 << 20,
        max_stored_bytes=3 << 20, max_batch_lines=50,
    ) as server:  # fmt: skip
        yield server


@pytest.fixture
def client(server: Live) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


def test_answers_come_in_the_order_of_the_input_and_are_those_of_the_route(server: Live, client: openai.OpenAI) -> None:
    names = [f"line {number}" for number in range(12)]
    batch = begin(client, jsonl(*map(chat_line, names)), metadata={"for": "a test"})
    assert batch.status == "validating"
    done = ended(client, batch)
    assert (done.status, done.error_file_id, done.metadata) == ("completed", None, {"for": "a test"})
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (12, 12, 0)
    assert done.created_at <= done.in_progress_at <= done.completed_at < done.expires_at
    answers = read(client, done.output_file_id)
    assert [answer["custom_id"] for answer in answers] == names
    assert len({answer["id"] for answer in answers}) == 12
    for answer in answers:
        assert answer["error"] is None
        assert answer["response"]["status_code"] == 200
        alone = server.post(CHAT, chat_line(answer["custom_id"])["body"]).json()
        assert answer["response"]["body"]["choices"] == alone["choices"]
        assert answer["response"]["body"]["usage"]["completion_tokens"] == alone["usage"]["completion_tokens"]


def test_refused_lines_come_in_a_file_of_their_own(client: openai.OpenAI) -> None:
    lines = [chat_line("good"), chat_line("hot", temperature=-1), chat_line("new", mirostat=2), chat_line("fine")]
    done = ended(client, begin(client, jsonl(*lines)))
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 2, 2)
    assert [answer["custom_id"] for answer in read(client, done.output_file_id)] == ["good", "fine"]
    errors = read(client, done.error_file_id)
    assert [error["custom_id"] for error in errors] == ["hot", "new"]
    assert [error["response"]["status_code"] for error in errors] == [400, 400]
    assert [error["response"]["body"]["error"]["param"] for error in errors] == ["temperature", "mirostat"]


def test_completions(client: openai.OpenAI) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "go", "max_tokens": 3}}
    done = ended(client, begin(client, jsonl(line), "/v1/completions"))
    assert read(client, done.output_file_id)[0]["response"]["body"]["object"] == "text_completion"


@pytest.mark.parametrize(
    ("content", "code", "line", "says"),
    [
        (b"{\n", "invalid_json_line", 1, "JSON"),
        (b'{"a": 1, "a": 2}\n', "invalid_json_line", 1, "twice"),
        (b"[]\n", "invalid_json_line", 1, "object"),
        (b"\n\n \n", "empty_file", None, "no lines"),
        (jsonl(chat_line("a"), chat_line("a")), "duplicate_custom_id", 2, "twice"),
        (jsonl({**chat_line("a"), "extra": 1}), "unknown_field", 1, "extra"),
        (jsonl({**chat_line("a"), "method": "GET"}), "invalid_value", 1, "method"),
        (jsonl({**chat_line("a"), "url": "/v1/completions"}), "invalid_value", 1, "url"),
        (jsonl({**chat_line("a"), "url": "/v1/files"}), "invalid_value", 1, "url"),
        (jsonl({**chat_line("a"), "body": "text"}), "invalid_value", 1, "body"),
        (jsonl({**chat_line("a"), "custom_id": "\ud800"}), "invalid_json_line", 1, "surrogate"),
        (jsonl({"custom_id": "a"}), "missing_field", 1, "body"),
        (jsonl(chat_line("a", stream=True)), "invalid_value", 1, "stream"),
        (jsonl(chat_line("a", model="gpt-5")), "invalid_value", 1, "tiny"),
        (jsonl(*(chat_line(str(number)) for number in range(51))), "too_many_lines", None, "50"),
        (b"\xff\xfe\n", "invalid_json_line", 1, "UTF-8"),
        (b"[" * 100_000, "invalid_json_line", 1, "deeper"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_file(client: openai.OpenAI, content: bytes, code: str, line: int, says: str) -> None:
    done = ended(client, begin(client, content))
    assert (done.status, done.request_counts.total, done.output_file_id) == ("failed", 0, None)
    error = done.errors.data[0]
    assert (error.code, error.line) == (code, line)
    assert says in error.message


def test_files(server: Live, client: openai.OpenAI) -> None:
    content = bytes(range(256)) * 3000  # no JSON, and more than one write
    hostile = '../../etc/pa"ss\nwd\x00.jsonl'
    file = client.files.create(
        file=(hostile, content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (file.bytes, file.purpose, file.expires_at) == (len(content), "batch", file.created_at + 3600)
    assert file.filename.endswith(".jsonl")
    assert not set(file.filename) & set("/\\\n\0")
    assert client.files.content(file.id).content == content
    assert client.files.retrieve(file.id) == file
    second = client.files.create(file=("b", b"{}"), purpose="batch")
    assert [one.id for one in client.files.list(limit=1)][:2] == [second.id, file.id]  # over two pages
    assert next(iter(client.files.list(order="asc"))).id != second.id
    assert client.files.delete(second.id).deleted
    assert client.files.delete(file.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            call(file.id)
    folder = Path(server.service.config.data_dir or "")
    assert {path.name for path in folder.iterdir()} <= {NAME, f"{NAME}.lock", f"{NAME}-wal", f"{NAME}-shm"}


@pytest.mark.parametrize(
    ("fields", "file", "status", "says"),
    [
        ({"purpose": "batch"}, ("a", b"x" * ((1 << 20) + 1)), 413, "1,048,576"),
        ({"purpose": "batch"}, ("a", b"x" * (3 << 20)), 413, "max-file-bytes"),
        ({"purpose": "batch"}, ("a", b""), 400, "empty"),
        ({"purpose": "fine-tune"}, ("a", b"x"), 400, "purpose must be batch"),
        ({}, ("a", b"x"), 400, "purpose must be batch"),
        ({"purpose": ["batch", "batch"]}, ("a", b"x"), 400, "purpose is given twice"),
        ({"purpose": "batch", "expires_after[seconds]": "-1"}, ("a", b"x"), 400, "expires_after"),
    ],
)
def test_refused_files(server: Live, fields: dict[str, str], file: Any, status: int, says: str) -> None:
    answer = server.client.post("/v1/files", data=fields, files={"file": file})
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"--x\r\n", 400),
        ("multipart/form-data; boundary=x", b"rubbish", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na\r\n--x--',
            400,
        ),
    ],
)
def test_forms_that_are_none(server: Live, kind: str, content: bytes, status: int) -> None:
    answer = server.client.post("/v1/files", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_an_owner_may_store_so_much(client: openai.OpenAI) -> None:
    big = ("big", b"x" * (1 << 20))
    files = [client.files.create(file=big, purpose="batch") for _ in range(2)]
    with pytest.raises(openai.APIStatusError) as refused:  # earlier tests have left some bytes
        client.files.create(file=big, purpose="batch")
    assert refused.value.status_code == 413
    for file in files:
        client.files.delete(file.id)


@pytest.mark.parametrize(
    "fields",
    [{"endpoint": "/v1/files"}, {"completion_window": "0h"}, {"completion_window": "soon"}, {"input_file_id": "file-1"},
     {"metadata": {"a": "b" * 513}}],
)  # fmt: skip
def test_refused_batches(server: Live, client: openai.OpenAI, fields: dict[str, Any]) -> None:
    file = client.files.create(file=("a", jsonl(chat_line("a"))), purpose="batch")
    body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **fields}
    answer = server.post("/v1/batches", body)
    assert answer.status_code == (404 if "input_file_id" in fields else 400)
    assert answer.json()["error"]["param"].startswith(next(iter(fields)))


def test_cancelling_keeps_what_is_answered(tiny_folder: Path, tmp_path: Path) -> None:
    engine = tiny_engine(tiny_folder, max_num_seqs=1, max_decode_steps=1)
    brake = Brake(engine)
    with live(engine, max_num_seqs=1, data_dir=str(tmp_path)) as server, client_of(server) as client:
        batch = begin(
            client,
            jsonl(chat_line("a", max_tokens=1), *(chat_line(name, max_tokens=1000, ignore_eos=True) for name in "bcd")),
        )
        until(lambda: client.batches.retrieve(batch.id).request_counts.completed >= 1)
        brake.pull()
        assert brake.at_step.wait(60)
        asked = client.batches.cancel(batch.id)
        brake.release()
        done = ended(client, batch)
        assert asked.status == "cancelling"
        assert done.status == "cancelled"
        answered = [answer["custom_id"] for answer in read(client, done.output_file_id)]
        errors = read(client, done.error_file_id)
        assert answered + [error["custom_id"] for error in errors] == list("abcd")
        assert {error["error"]["code"] for error in errors} == {"batch_cancelled"}
        assert done.request_counts.completed + done.request_counts.failed == 4
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)
        until(lambda: server.engine.load().running == 0)


def test_other_requests_come_first(tiny_folder: Path, tmp_path: Path) -> None:
    """With one seat, a request that comes in the middle of a batch is answered before the line that has it."""
    engine = tiny_engine(tiny_folder, max_num_seqs=1, max_decode_steps=1)
    brake = Brake(engine)
    with live(engine, max_num_seqs=1, data_dir=str(tmp_path)) as server, client_of(server) as client:
        brake.pull()
        batch = begin(client, jsonl(*(chat_line(name, max_tokens=1200, ignore_eos=True) for name in "abc")))
        assert brake.at_step.wait(60)
        brake.release()
        server.chat("hello", max_tokens=3)
        assert client.batches.retrieve(batch.id).request_counts.completed == 0
        client.batches.cancel(batch.id)
        ended(client, batch)


def test_tenants_see_their_own(tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(KEYS)
    with (
        live(tiny_engine(tiny_folder), api_key_file=str(file), data_dir=str(tmp_path / "data")) as server,
        client_of(server, "sk-alice") as alice, client_of(server, "sk-bob") as bob,
        client_of(server, "sk-carol") as carol,
    ):  # fmt: skip
        batch = begin(alice, jsonl(chat_line("secret")))
        done = ended(alice, batch)
        assert done.status == "completed"
        for file_id in (batch.input_file_id, done.output_file_id):
            for call in (bob.files.retrieve, bob.files.content, bob.files.delete):
                with pytest.raises(openai.NotFoundError):
                    call(file_id)
        for use in (bob.batches.retrieve, bob.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                use(batch.id)
        with pytest.raises(openai.NotFoundError):
            bob.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h")
        with pytest.raises(openai.NotFoundError):
            list(bob.files.list(after=batch.input_file_id))
        assert not list(bob.files.list())
        assert not list(bob.batches.list())
        assert [one.id for one in alice.batches.list()] == [batch.id]
        # carol's lines are paid for by her key: when its tokens are used up, the others wait for the next day
        waits = begin(carol, jsonl(*(chat_line(f"number {number}", ignore_eos=True) for number in range(8))))
        until(lambda: carol.batches.retrieve(waits.id).request_counts.completed >= 1)
        assert ended(bob, begin(bob, jsonl(chat_line("b")))).status == "completed"
        assert carol.batches.retrieve(waits.id).request_counts.completed < 8


def test_a_removed_key_ends_its_batches(tiny_folder: Path, tmp_path: Path) -> None:
    async def leave_a_batch() -> None:
        database = Database(tmp_path)
        file = await Files(database, most_bytes=1000).add("key gone", "a", io.BytesIO(jsonl(chat_line("a"))))
        await Jobs(database).create(
            "key gone", key_name="gone", endpoint=CHAT, model="tiny", input_file_id=file.id, completion_window="1h",
            window_seconds=3600,
        )  # fmt: skip
        database.close()

    asyncio.run(leave_a_batch())
    with live(tiny_engine(tiny_folder), api_key=("sk-other",), data_dir=str(tmp_path)):
        until(lambda: rows(tmp_path, "SELECT status FROM jobs") == [("failed",)])
    assert "key_removed" in rows(tmp_path, "SELECT errors FROM jobs")[0][0]


def rows(data: Path, query: str) -> list[Any]:
    """What a look into the store finds."""
    connection = sqlite3.connect(data / NAME)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_a_batch_expires(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = tiny_engine(tiny_folder, max_num_seqs=1)
    brake = Brake(engine)
    with live(engine, max_num_seqs=1, data_dir=str(tmp_path)) as server, client_of(server) as client:
        brake.pull()
        batch = begin(client, jsonl(chat_line("a"), chat_line("b")))
        assert brake.at_step.wait(60)
        monkeypatch.setattr(running.time, "time", lambda: batch.expires_at + 1.0)
        brake.release()
        done = ended(client, batch)
        assert done.status == "expired"
        errors = read(client, done.error_file_id)
        assert {error["error"]["code"] for error in errors} == {"batch_expired"}


def test_a_line_that_the_server_never_survives_is_given_up(tiny_folder: Path, tmp_path: Path) -> None:
    engine = tiny_engine(tiny_folder, max_num_seqs=1)
    brake = Brake(engine)
    with live(engine, max_num_seqs=1, data_dir=str(tmp_path)) as server, client_of(server) as client:
        brake.pull()
        batch = begin(client, jsonl(chat_line("a"), chat_line("poison")))
        assert brake.at_step.wait(60)
        store(server)._connection.execute("UPDATE lines SET attempts = 4 WHERE custom_id = 'poison'")
        brake.release()
        done = ended(client, batch)
        assert read(client, done.error_file_id)[0]["error"]["code"] == "interrupted"


def test_a_full_disk_delays_answers_and_loses_none(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_RETRY_SECONDS", 0.01)
    with live(tiny_engine(tiny_folder), data_dir=str(tmp_path)) as server, client_of(server) as client:
        client.files.create(file=("a", b"x"), purpose="batch")
        connection = store(server)._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 40}")
        with pytest.raises(openai.APIStatusError) as full:
            client.files.create(file=("b", b"x" * (1 << 20)), purpose="batch")
        assert full.value.status_code == 507
        assert full.value.response.json()["error"]["code"] == "disk_full"
        batch = begin(client, jsonl(*(chat_line(str(number), max_tokens=400, ignore_eos=True) for number in range(30))))
        until(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0)
        assert client.models.list().data[0].id == "tiny"
        connection.execute("PRAGMA max_page_count = 1000000")
        done = ended(client, batch)
        assert [answer["custom_id"] for answer in read(client, done.output_file_id)] == [str(n) for n in range(30)]


def store(server: Live) -> Database:
    app: Any = server.server.config.app
    database: Database = app.state.desk._store.database
    return database


def test_two_servers_do_not_share_a_folder(tiny_folder: Path, server: Live) -> None:
    data = server.service.config.data_dir
    with live(tiny_engine(tiny_folder), data_dir=data) as other:
        refused = other.client.get("/v1/files")
        assert refused.status_code == 503
        assert "--data-dir" in refused.json()["error"]["message"]


SERVE = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from live_server import tiny_engine
from deepseek.server.app import build_app
from deepseek.server.run import Server
from deepseek.server.server_config import ServerConfig
config = ServerConfig(port=0, shutdown_timeout=30.0, access_log="off", max_num_seqs=2, data_dir={data!r})
app = build_app(config, tiny_engine(Path({folder!r}), max_decode_steps=1, max_num_seqs=2), "tiny")
Server(app, config, lambda address: print(address, flush=True)).run()
"""


@contextmanager
def process(folder: Path, data: Path) -> Iterator[tuple[subprocess.Popen[str], openai.OpenAI]]:
    script = SERVE.format(tests=str(Path(__file__).parent), folder=str(folder), data=str(data))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as served:
        assert served.stdout is not None
        address = served.stdout.readline().strip()
        with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
            try:
                yield served, client
            finally:
                served.kill()
                served.communicate()


def test_kills_in_the_middle_lose_nothing_and_answer_nothing_twice(tiny_folder: Path, tmp_path: Path) -> None:
    names = [f"line {number}" for number in range(40)]
    batch: Any = None
    kept: dict[str, bytes] = {}
    for kill, after in ((signal.SIGKILL, 3), (signal.SIGTERM, 9)):
        with process(tiny_folder, tmp_path) as (served, client):
            if batch is None:
                batch = begin(client, jsonl(*(chat_line(name, max_tokens=60, ignore_eos=True) for name in names)))
            until(lambda: client.batches.retrieve(batch.id).request_counts.completed >= after)  # noqa: B023
            served.send_signal(kill)
            served.wait(60)
        now = dict(rows(tmp_path, "SELECT custom_id, answer FROM lines WHERE succeeded = 1"))
        assert now.items() >= kept.items()
        assert after <= len(now) < len(names)
        kept = now
    with process(tiny_folder, tmp_path) as (_, client):
        done = ended(client, batch)
        lines = client.files.content(done.output_file_id).content.splitlines(keepends=True)
        assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 40, 0)
        assert [json.loads(line)["custom_id"] for line in lines] == names
        by_name = {json.loads(line)["custom_id"]: line for line in lines}
        assert by_name.items() >= kept.items()
        assert [one.id for one in client.batches.list()] == [batch.id]
