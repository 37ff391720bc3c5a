"""GET /v1/server/status: what people who look at a server want to know, as JSON."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from deepseek import __version__
from deepseek.engine.free_memory import free_memory
from deepseek.server.expert_metrics import layer_load
from deepseek.server.metrics import FINISHED
from deepseek.server.routes.models import expert_shape
from deepseek.server.routes.shared import json_response, new_router, serving
from deepseek.server.service import Service

if TYPE_CHECKING:
    from prometheus_client import Histogram

router = new_router("server")


@router.get("/v1/server/status")
async def status(request: Request) -> Response:
    """The model, the load, rates of the last seconds, latencies, memory, and how often each expert was used."""
    service = serving(request)
    metrics, load = service.metrics, service.engine.load()
    ended = {reason: _value(metrics.successes.labels(reason)) for reason in FINISHED}
    told = {
        "version": __version__,
        "model": service.model_names[0],
        "config": _config(service),
        "uptime_seconds": round(time.monotonic() - service.started, 1),
        "draining": service.is_draining,
        "requests": {
            "running": load.running,
            "waiting": load.waiting,
            "finished": ended["stop"] + ended["length"],
            "failed": ended["error"],
            "cancelled": ended["abort"],
            "rejected": _value(metrics.rejected),
            "max_running": service.config.max_num_seqs,
            "max_waiting": service.config.max_queue,
        },
        "tokens": {
            "prompt": _value(metrics.prompt_tokens),
            "cached": _value(metrics.prefix_hits),
            "generated": _value(metrics.generation_tokens),
            "prompt_per_second": round(metrics.recent.prompt_per_second(), 1),
            "generated_per_second": round(metrics.recent.generated_per_second(), 1),
        },
        "kv_cache": {
            "used_blocks": load.used_blocks,
            "cached_blocks": load.cached_blocks,
            "total_blocks": load.total_blocks,
            "block_tokens": load.block_tokens,
            "bytes": load.total_blocks * load.block_bytes,
        },
        "prefix_cache": {"queries": _value(metrics.prefix_queries), "hits": _value(metrics.prefix_hits)},
        "memory": {
            "resident_bytes": resident_bytes(),
            "weights_bytes": load.weight_bytes,
            "kv_cache_bytes": load.total_blocks * load.block_bytes,
            "available_bytes": free_memory(),
            "total_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "latency": {
            "time_to_first_token_seconds": _buckets(metrics.first_token),
            "inter_token_latency_seconds": _buckets(metrics.between_tokens),
            "e2e_request_latency_seconds": _buckets(metrics.whole),
        },
        "experts": _experts(service),
    }
    return json_response(told)


def _config(service: Service) -> dict[str, Any]:
    model = service.engine.model_config
    moe = model.moe
    return {
        "family": model.family,
        "n_layers": model.num_hidden_layers,
        "hidden_size": model.hidden_size,
        "vocab_size": model.vocab_size,
        "n_routed_experts": moe.n_routed_experts if moe else 0,
        "top_k": moe.num_experts_per_tok if moe else 0,
        "max_model_len": service.engine.max_model_len,
    }


def _experts(service: Service) -> dict[str, Any] | None:
    """For each of `layers`: totals, tokens given to each expert since the start, and how even they are."""
    shape = expert_shape(service)
    if shape is None:
        return None
    totals = service.engine.routing_totals()
    loads = [layer_load(layer, counts) for layer, counts in totals.items()]
    figures = {
        name: [round(getattr(load, name), 4) for load in loads] for name in ("entropy", "gini", "max_vio", "top_share")
    }
    recorded = service.config.record_routing
    return {**shape, "is_recorded": recorded, "totals": [counts.tolist() for counts in totals.values()], **figures}


def _value(counter: Any) -> int:
    return int(next(sample.value for sample in counter.collect()[0].samples if sample.name.endswith("_total")))


def _buckets(histogram: "Histogram") -> dict[str, Any]:
    """bounds: upper ones; counts: of each bucket alone, one more than bounds."""
    bounds: list[float] = []
    counts: list[int] = []
    below = 0
    total = seconds = 0.0
    samples = next(iter(histogram.collect())).samples
    for sample in samples:
        if sample.name.endswith("_bucket"):
            bound = float(sample.labels["le"])
            if bound != float("inf"):
                bounds.append(bound)
            counts.append(int(sample.value) - below)
            below = int(sample.value)
        elif sample.name.endswith("_count"):
            total = sample.value
        elif sample.name.endswith("_sum"):
            seconds = sample.value
    return {"bounds": bounds, "counts": counts, "count": int(total), "sum": round(seconds, 4)}


def resident_bytes() -> int | None:
    """Memory of this process; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
