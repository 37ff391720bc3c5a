"""Prometheus metrics, in the shapes of vLLM's under our own prefix, so that its dashboards need one replacement."""

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from deepseek.server.expert_metrics import layer_load
from deepseek.server.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from deepseek.engine.engine import Engine
    from deepseek.engine.outputs import RequestMetrics, TokenEvent
    from deepseek.server.protocol.ignored_fields import IgnoredFields

PREFIX = "deepseek:"
SCRAPE_SECONDS = 0.5
FINISHED = ("stop", "length", "abort", "error")
"""abort: the client left. error: everything else that ended an answer before its time."""
_FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
_BETWEEN = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10)
_WHOLE = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960)


_EXPERT_GAUGES = {
    "entropy": "Evenness of a layer's experts: entropy of their shares, 1 is even.",
    "gini": "Unevenness of a layer's experts: 0 is even.",
    "max_vio": "Load of a layer's busiest expert above the mean, in means.",
    "top_share": "Share of a layer's busiest tenth of experts.",
}


class Metrics:
    """What is counted while requests run; the rest is read from the engine when somebody asks."""

    def __init__(self, engine: "Engine") -> None:
        self.registry = CollectorRegistry()
        self._engine = engine
        registry = self.registry

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, help, labels, registry=registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(PREFIX + name, help, buckets=buckets, registry=registry)

        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens processed.")
        self.generation_tokens = counter("generation_tokens", "Tokens generated.")
        self.prefix_queries = counter("prefix_cache_queries", "Prompt tokens looked up in the prefix cache.")
        self.prefix_hits = counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.")
        self.successes = counter("request_success", "Answers that ended, by reason.", "finished_reason")
        for reason in FINISHED:
            self.successes.labels(reason)
        self.ignored_fields = counter(
            "request_fields_ignored",
            "Request fields that changed nothing, by name; other: unknown ones.",
            "field",
        )
        self.rejected = counter("request_rejected", "Requests that got 429: too many at once.")
        self.first_token = histogram("time_to_first_token_seconds", "From arrival to the first token.", _FIRST_TOKEN)
        self.between_tokens = histogram("inter_token_latency_seconds", "Between tokens of an answer.", _BETWEEN)
        self.whole = histogram("e2e_request_latency_seconds", "From arrival to the end of the answer.", _WHOLE)
        self.recent = Recent()
        registry.register(_EngineGauges(engine))
        self._text = b""
        self._text_at = float("-inf")

    def watch(self, request: "RequestMetrics") -> "RequestWatch":
        return RequestWatch(self, request)

    def ignored(self, fields: "IgnoredFields") -> None:
        """Count the names of one request's ignored fields."""
        for name in fields.names:
            self.ignored_fields.labels(name if name in fields.known else "other").inc()

    def text(self) -> bytes:
        """The exposition format, at most SCRAPE_SECONDS old."""
        now = time.monotonic()
        if now - self._text_at > SCRAPE_SECONDS:
            self._text, self._text_at = generate_latest(self.registry), now
        return self._text


class RequestWatch:
    """Counts what comes of one request."""

    def __init__(self, metrics: Metrics, request: "RequestMetrics") -> None:
        self._metrics = metrics
        self._request = request
        self._last = 0.0
        self._begun = time.monotonic()

    def step(self, events: "list[TokenEvent]") -> None:
        """The events of a step. Tokens that come together share the time since those before them."""
        if not events:
            return
        now = time.monotonic()
        metrics = self._metrics
        if not self._last:
            metrics.first_token.observe(now - self._request.arrival_time)
            metrics.prompt_tokens.inc(self._request.prompt_tokens)
            metrics.prefix_queries.inc(self._request.prompt_tokens)
            metrics.prefix_hits.inc(self._request.cached_tokens)
            metrics.recent.add(prompt_tokens=self._request.prompt_tokens)
        else:
            metrics.between_tokens.observe((now - self._last) / len(events))
        self._last = now
        generated = sum(event.token_id is not None for event in events)
        metrics.generation_tokens.inc(generated)
        metrics.recent.add(generated_tokens=generated)
        for event in events:
            if event.finish_reason is not None:
                metrics.successes.labels(event.finish_reason).inc()

    def end(self, broken_by: BaseException | None) -> None:
        """The request is over, one way or another. broken_by: what ended it before its time."""
        self._metrics.recent.add(ended=1)
        if broken_by is None:
            self._metrics.whole.observe(time.monotonic() - self._request.arrival_time)
        else:
            self._metrics.successes.labels("error" if isinstance(broken_by, Exception) else "abort").inc()


class _EngineGauges:
    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def collect(self) -> "Iterator[Metric]":
        load = self._engine.load()
        for name, help, value in (
            ("num_requests_running", "Sequences that are computed.", load.running),
            ("num_requests_waiting", "Sequences that wait to be computed.", load.waiting),
            ("kv_cache_usage_perc", "Share of the KV blocks in use; 1 is all.", load.used_blocks / load.total_blocks),
        ):
            yield GaugeMetricFamily(PREFIX + name, help, value)
        loads = [layer_load(layer, counts) for layer, counts in self._engine.routing_totals().items()]
        for name, help in _EXPERT_GAUGES.items():
            if loads:  # a dense model has none
                family = GaugeMetricFamily(f"{PREFIX}expert_load_{name}", help, labels=["layer"])
                for load_of_layer in loads:
                    family.add_metric([str(load_of_layer.layer)], getattr(load_of_layer, name))
                yield family
