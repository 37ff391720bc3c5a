"""OpenTelemetry traces, where --otlp-traces-endpoint asks for them: when an answer waited, read and wrote.

A span for each answer, below the client's own if it sent a `traceparent`, and below that the spans `queue`, `prefill`
and `decode`. Attributes go by OpenTelemetry's conventions for generative AI, times by vLLM's names. What was asked
and answered is never told. OpenTelemetry's SDK is imported when a Tracing is made, and only then.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deepseek import __version__
from deepseek.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from deepseek.engine.outputs import RequestMetrics
    from deepseek.sampling import SamplingParams

_PROVIDER = "deepseek-framework"  # not "deepseek", which the conventions keep for the company's own service
_EXPORT_SECONDS = 5.0
_NANOSECONDS = 1_000_000_000
_OPERATIONS = {"/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}


class Tracing:
    def __init__(self, endpoint: str, model: str, *, exporter: "SpanExporter | None" = None) -> None:
        """endpoint: where spans go, as OTLP over HTTP; exporter: instead of it. Raises ConfigError without the SDK."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise ConfigError(
                "otlp_traces_endpoint needs OpenTelemetry: pip install 'deepseek-framework[telemetry]'"
            ) from None
        name = os.environ.get("OTEL_SERVICE_NAME", "deepseek")
        self._model = model
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name, "service.version": __version__}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_SECONDS))
        )
        self._tracer = self._provider.get_tracer("deepseek.server", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def answered(
        self,
        path: str,
        headers: Mapping[str, str],
        request_id: str,
        params: "SamplingParams",
        metrics: "RequestMetrics",
        finish: Sequence[str],
        broken_by: BaseException | None,
    ) -> None:
        """Tell of an answer that is over. headers: of the HTTP request; finish: its samples' finish reasons."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        now = time.monotonic()
        offset = time.time_ns() - int(now * _NANOSECONDS)  # from the steady clock to the calendar's
        end = metrics.finished_time or now
        operation = _OPERATIONS.get(path, "chat")
        span = self._tracer.start_span(
            f"{operation} {self._model}",
            context=self._propagator.extract({name.lower(): value for name, value in headers.items()}),
            kind=SpanKind.SERVER,
            start_time=offset + int(metrics.arrival_time * _NANOSECONDS),
            attributes={
                **_asked(operation, self._model, request_id, params),
                **_used(metrics, end),
                **({"gen_ai.response.finish_reasons": list(finish)} if finish else {}),
            },
        )
        if broken_by is not None:
            kind = type(broken_by).__name__
            span.set_attribute("error.type", kind)
            span.set_status(Status(StatusCode.ERROR, kind))
        inside = set_span_in_context(span)
        for name, begun, ended in _phases(metrics, end):
            phase = self._tracer.start_span(name, context=inside, start_time=offset + int(begun * _NANOSECONDS))
            phase.end(offset + int(ended * _NANOSECONDS))
        span.end(offset + int(end * _NANOSECONDS))

    def close(self) -> None:
        """Send what is left, for some seconds."""
        self._provider.shutdown()


def _asked(operation: str, model: str, request_id: str, params: "SamplingParams") -> dict[str, Any]:
    asked = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": _PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.response.id": request_id,
        "gen_ai.request.max_tokens": params.max_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
    }
    if params.n > 1:
        asked["gen_ai.request.choice.count"] = params.n
    if params.seed is not None:
        asked["gen_ai.request.seed"] = params.seed
    return asked


def _used(metrics: "RequestMetrics", end: float) -> dict[str, Any]:
    """Tokens and seconds."""
    seconds = {name: ended - begun for name, begun, ended in _phases(metrics, end)}
    used: dict[str, Any] = {
        "gen_ai.usage.input_tokens": metrics.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": metrics.cached_tokens,
        "gen_ai.usage.output_tokens": metrics.generated_tokens,
        "gen_ai.latency.e2e": end - metrics.arrival_time,
    }
    if metrics.first_token_time:
        used["gen_ai.latency.time_to_first_token"] = metrics.first_token_time - metrics.arrival_time
    for phase, name in (("queue", "in_queue"), ("prefill", "in_model_prefill"), ("decode", "in_model_decode")):
        if phase in seconds:
            used[f"gen_ai.latency.time_{name}"] = seconds[phase]
    return used


def _phases(metrics: "RequestMetrics", end: float) -> list[tuple[str, float, float]]:
    """(name, begun, ended) of those that were reached, by the steady clock."""
    marks = [metrics.arrival_time, metrics.first_scheduled_time, metrics.first_token_time, end]
    phases = []
    for name, begun, ended in zip(("queue", "prefill", "decode"), marks, marks[1:], strict=False):
        if not begun:
            break
        phases.append((name, begun, ended or end))
    return phases
