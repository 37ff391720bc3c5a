"""Traces, told to a collector that is none: a small HTTP server keeps what it is sent."""

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from deepseek.errors import ConfigError
from deepseek.server.server_config import ServerConfig
from live_server import Live, live, tiny_engine

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra telemetry is not installed")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.bodies.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        told = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for message in told
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


def attributes(span: Any) -> dict[str, Any]:
    told = {}
    for item in span.attributes:
        value = getattr(item.value, item.value.WhichOneof("value"))
        told[item.key] = [one.string_value for one in value.values] if hasattr(value, "values") else value
    return told


def traced(folder: Path, collector: Collector, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[Any]:
    with live(tiny_engine(folder), otlp_traces_endpoint=collector.endpoint) as server:
        _ask(server, path, body)
    return collector.spans()  # what was left was sent as it closed


def _ask(server: Live, path: str, body: dict[str, Any]) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert server.post(path, body, headers=headers).status_code == 200


def test_an_answer_is_a_span_below_the_clients(tiny_folder: Path, collector: Collector) -> None:
    secret = "a secret text"
    body = {"messages": [{"role": "user", "content": secret}], "max_tokens": 5, "temperature": 0.5, "seed": 3}
    spans = traced(tiny_folder, collector, {**body, "ignore_eos": True})
    (whole,) = [span for span in spans if span.parent_span_id.hex() == PARENT]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert whole.name == "chat tiny"
    told = attributes(whole)
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "tiny"
    assert told["gen_ai.request.max_tokens"] == told["gen_ai.usage.output_tokens"] == 5
    assert told["gen_ai.request.temperature"] == 0.5
    assert told["gen_ai.request.seed"] == 3
    assert told["gen_ai.usage.input_tokens"] > len(secret)
    assert told["gen_ai.response.finish_reasons"] == ["length"]
    assert told["gen_ai.response.id"].startswith("chatcmpl-")
    phases = sorted((span for span in spans if span is not whole), key=lambda span: span.start_time_unix_nano)
    assert [phase.name for phase in phases] == ["queue", "prefill", "decode"]
    assert {phase.parent_span_id for phase in phases} == {whole.span_id}
    edges = [phases[0].start_time_unix_nano, *(phase.end_time_unix_nano for phase in phases)]
    assert edges == sorted(edges)
    assert [edges[0], edges[-1]] == [whole.start_time_unix_nano, whole.end_time_unix_nano]
    names = ("time_in_queue", "time_in_model_prefill", "time_in_model_decode")
    assert sum(told[f"gen_ai.latency.{name}"] for name in names) == pytest.approx(told["gen_ai.latency.e2e"])
    assert not any(secret.encode() in body for body in collector.bodies)


def test_operations_by_route(tiny_folder: Path, collector: Collector) -> None:
    (span,) = [
        span
        for span in traced(tiny_folder, collector, {"prompt": "a", "max_tokens": 2}, "/v1/completions")
        if span.parent_span_id.hex() == PARENT
    ]
    assert attributes(span)["gen_ai.operation.name"] == "text_completion"


def test_a_collector_that_is_not_there_harms_nobody(tiny_folder: Path) -> None:
    with live(tiny_engine(tiny_folder), otlp_traces_endpoint="http://127.0.0.1:9/v1/traces") as server:
        assert server.chat("hi", max_tokens=2).status_code == 200
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match="otlp_traces_endpoint must be an address such as"):
        ServerConfig(otlp_traces_endpoint="localhost:4317")


def test_nothing_is_imported_when_it_is_off_and_its_lack_is_told() -> None:
    code = (
        "import sys; import deepseek.server.app, deepseek.cli.serve\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])\n"
        "sys.modules['opentelemetry.sdk'] = None; sys.modules['opentelemetry.exporter'] = None\n"
        "from deepseek.server.tracing import Tracing\n"
        "try: Tracing('http://x', 'm')\n"
        "except Exception as error: print(error)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    ).stdout.splitlines()  # fmt: skip
    assert told == ["[]", "otlp_traces_endpoint needs OpenTelemetry: pip install 'deepseek-framework[telemetry]'"]
