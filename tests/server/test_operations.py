"""Slots given back, queues bounded, time limited, signs of life, and an end without loss. A tiny random model."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from live_server import Brake, Live, events, live, tiny_engine

LONG: dict[str, Any] = {"prompt": "go on", "max_tokens": 1500, "ignore_eos": True, "temperature": 0}


@contextmanager
def small(folder: Path, **settings: Any) -> Iterator[tuple[Live, Brake]]:
    engine = tiny_engine(folder, max_num_seqs=1, max_queue=1, max_decode_steps=1, enable_prefix_caching=False)
    brake = Brake(engine)
    with live(engine, max_num_seqs=1, max_queue=1, **settings) as server:
        try:
            yield server, brake
        finally:
            brake.release()


def begin(server: Live, **fields: Any) -> socket.socket:
    """A request on a connection of its own, of which nothing is read yet."""
    body = json.dumps({**LONG, **fields}).encode()
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])))
    connection.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    return connection


def until(condition: Any) -> None:
    """Waits for what other threads do; gives up after a minute."""
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("did not happen")


def idle(server: Live) -> bool:
    load = server.engine.load()
    return load.running == load.waiting == load.used_blocks == 0 and server.engine._core.n_requests == 0


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_while_tokens_come_gives_its_slot_back_within_a_step(tiny_folder: Path, stream: bool) -> None:
    with small(tiny_folder) as (server, brake):
        connection = begin(server, stream=stream)
        until(lambda: brake.steps > 3)
        brake.pull()
        assert brake.at_step.wait(30)
        connection.close()
        until(lambda: server.engine._core._aborted)
        before = brake.steps
        brake.release()
        until(lambda: idle(server))
        assert brake.steps <= before + 1


def test_who_leaves_before_the_first_token(tiny_folder: Path) -> None:
    with small(tiny_folder) as (server, brake):
        brake.pull()
        connection = begin(server, stream=True)
        assert brake.at_step.wait(30)
        connection.close()
        until(lambda: server.engine._core._aborted)
        brake.release()
        until(lambda: idle(server))
        assert brake.steps <= 1


def test_who_leaves_while_waiting(tiny_folder: Path) -> None:
    with small(tiny_folder) as (server, brake):
        brake.pull()
        first = begin(server, max_tokens=30)
        assert brake.at_step.wait(30)
        second = begin(server, stream=True)
        until(lambda: server.engine.load().waiting == 1)
        second.close()
        until(lambda: server.engine._core._aborted)
        brake.release()
        answer = http.client.HTTPResponse(first)
        answer.begin()
        assert json.loads(answer.read())["usage"]["completion_tokens"] == 30
        until(lambda: idle(server))
        first.close()


def test_a_full_queue_says_so_and_when_to_come_back(tiny_folder: Path) -> None:
    with small(tiny_folder) as (server, brake):
        brake.pull()
        connections = [begin(server, max_tokens=5)]
        assert brake.at_step.wait(30)
        connections.append(begin(server, max_tokens=5))
        until(lambda: server.engine.load().waiting == 1)
        for stream in (False, True):
            refused = server.post("/v1/completions", {**LONG, "stream": stream})
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["type"] == "rate_limit_error"
        brake.release()
        for connection in connections:
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            connection.close()
        assert server.client.get("/v1/server/status").json()["requests"]["rejected"] == 2


def test_a_silent_stream_shows_that_it_lives(tiny_folder: Path) -> None:
    with small(tiny_folder, keep_alive_seconds=0.05) as (server, brake):
        brake.pull()
        with server.client.stream("POST", "/v1/completions", json={**LONG, "max_tokens": 3, "stream": True}) as answer:
            lines = answer.iter_lines()
            assert next(line for line in lines if line) == ": keep-alive"
            brake.release()
            assert [line for line in lines if line][-1] == "data: [DONE]"


def test_an_answer_may_not_take_for_ever(tiny_folder: Path) -> None:
    with small(tiny_folder, request_seconds=0.2) as (server, brake):
        brake.pull()
        whole = server.post("/v1/completions", LONG)
        assert whole.status_code == 504
        assert whole.json()["error"]["type"] == "timeout_error"
        brake.release()
        until(lambda: idle(server))
        brake.pull()
        stream = events(server.post("/v1/completions", {**LONG, "stream": True}))
        assert stream[-1]["error"]["type"] == "timeout_error"
        brake.release()
        until(lambda: idle(server))


def test_the_end_of_the_engine_is_told_in_streams(tiny_folder: Path) -> None:
    with small(tiny_folder) as (server, _):
        with server.client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.service.end_answers()
            told = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert told[-1]["error"]["type"] == "unavailable_error"
        assert server.client.get("/ready").status_code == 200
        server.service.is_draining = True
        assert server.client.get("/ready").status_code == 503
        assert server.post("/v1/completions", LONG).status_code == 503
        server.service.is_draining = False


def test_a_failed_step_is_our_fault_and_only_its_requests(tiny_folder: Path) -> None:
    with small(tiny_folder) as (server, _):
        runner = server.engine._core._runner
        good = runner.run
        runner.run = lambda batch: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        failed = server.post("/v1/completions", LONG)
        assert failed.status_code == 500
        assert "ZeroDivision" not in failed.text
        runner.run = good  # type: ignore[method-assign]
        assert server.post("/v1/completions", {**LONG, "max_tokens": 2}).status_code == 200


SERVE = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from live_server import tiny_engine
from deepseek.server.app import build_app
from deepseek.server.run import Server
from deepseek.server.server_config import ServerConfig
config = ServerConfig(port=0, shutdown_timeout=30.0, access_log="json")
app = build_app(config, tiny_engine(Path({folder!r}), max_decode_steps=1), "tiny")
Server(app, config, lambda address: print(address, flush=True)).run()
"""


@pytest.fixture
def process(tiny_folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    script = SERVE.format(tests=str(Path(__file__).parent), folder=str(tiny_folder))
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as running:
        assert running.stdout is not None
        yield running, running.stdout.readline().strip()
        running.kill()


def test_a_signal_lets_answers_end_and_takes_no_new_ones(process: tuple[subprocess.Popen[str], str]) -> None:
    running, address = process
    with httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.send_signal(signal.SIGTERM)
            rest = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert rest[-1]["choices"][0]["finish_reason"] == "length"
        _, log = running.communicate(timeout=60)
        assert running.returncode == 0
        with pytest.raises(httpx.ConnectError):
            client.get("/health")
    line = json.loads(log.strip().splitlines()[-1])
    assert line["generated_tokens"] == 1500
    assert line["finish"] == ["length"]


def test_a_second_signal_does_not_wait(process: tuple[subprocess.Popen[str], str]) -> None:
    running, address = process
    body = {**LONG, "max_tokens": 2000, "n": 32, "stream": True}
    with (
        httpx.Client(base_url=address, timeout=60) as client,
        client.stream("POST", "/v1/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        running.send_signal(signal.SIGTERM)
        running.send_signal(signal.SIGINT)  # two of the same kind may arrive as one
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            list(lines)
        running.communicate(timeout=60)
    assert running.returncode != 0
