"""`deepseek info`: what a model is and what it costs, from its configuration alone."""

from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import memory_text, out, print_json

if TYPE_CHECKING:
    from deepseek.config import ModelConfig
    from deepseek.families.sizes import LayerSize, ModelSize


_HEADINGS = {"name": "", "dense_mlp": "mlp", "shared_experts": "shared", "routed_experts": "routed"}


def info(
    model: Annotated[str, typer.Argument(help="A config.json, a model folder, a .gguf file, or a model's name.")],
    layers: Annotated[bool, typer.Option("--layers", help="One row for each layer, not one for each kind.")] = False,
    as_json: options.AsJson = False,
    allow_unknown_keys: options.AllowUnknownKeys = False,
) -> None:
    """Show a model's size, active parameters, memory and cache, from its configuration alone.

    Examples:

        deepseek info smollm2

        deepseek info path/to/config.json --layers

        deepseek info deepseek-ai/DeepSeek-V3 --json
    """
    from deepseek.families.sizes import model_size

    config = _load_config(model, allow_unknown_keys)
    size = model_size(config)
    facts = _facts(model, config, size)
    if as_json:
        print_json(facts | {"layers": [_row(layer) for layer in size.layers], "config": config.to_dict()})
    else:
        _print(facts, config, _one_row_a_layer(size) if layers else _one_row_a_kind(size))


def _load_config(model: str, allow_unknown: bool) -> "ModelConfig":
    from deepseek.checkpoint.configuration import load_config
    from deepseek.hub import resolve_config

    return load_config(resolve_config(model), allow_unknown=allow_unknown)


def _facts(name: str, config: "ModelConfig", size: "ModelSize") -> dict[str, Any]:
    from deepseek.families.sizes import BITS_PER_WEIGHT, CACHE_BYTES, cache_elements_per_token, weight_bytes

    cache = cache_elements_per_token(config)
    moe = config.moe
    return {
        "model": name,
        "family": config.family,
        "parameters": size.total,
        "active_parameters": size.active,
        "embedding_parameters": config.vocab_size * config.hidden_size,
        "mtp_parameters": size.mtp,
        "n_routed_experts": moe.n_routed_experts if moe else 0,
        "num_experts_per_tok": moe.num_experts_per_tok if moe else 0,
        "n_shared_experts": moe.n_shared_experts if moe else 0,
        "max_position_embeddings": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
        "weight_bytes": {precision: weight_bytes(size.total, precision) for precision in BITS_PER_WEIGHT},
        "kv_bytes_per_token": {precision: cache * width for precision, width in CACHE_BYTES.items()},
    }


def _row(layer: "LayerSize", name: str | None = None) -> dict[str, Any]:
    return {
        "name": name or layer.name,
        "attention": layer.attention,
        "dense_mlp": layer.dense_mlp,
        "router": layer.router,
        "shared_experts": layer.shared_experts,
        "routed_experts": layer.routed_experts,
        "other": layer.other,
        "total": layer.total,
        "active": layer.active,
    }


def _one_row_a_layer(size: "ModelSize") -> list[dict[str, Any]]:
    return [_row(layer) for layer in size.layers]


def _one_row_a_kind(size: "ModelSize") -> list[dict[str, Any]]:
    """Neighbouring layers of equal shape share a row, which counts one of them."""
    rows = []
    for _, group in groupby(size.layers, key=lambda layer: {**_row(layer), "name": layer.name.split()[0]}):
        same = list(group)
        first, last = same[0].name, same[-1].name.removeprefix("layer ")
        rows.append(_row(same[0], first if len(same) == 1 else f"{first}-{last}, each"))
    return rows


def _print(facts: dict[str, Any], config: "ModelConfig", rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    out.print(f"[bold]{facts['model']}[/]  ({facts['family']})")
    grid = Table.grid(padding=(0, 2))
    for label, value in _summary(facts, config):
        grid.add_row(label, value)
    out.print(grid)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    columns = [key for key in rows[0] if key == "name" or any(row[key] for row in rows)]
    for key in columns:
        table.add_column(_HEADINGS.get(key, key), justify="left" if key == "name" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(str(row[key]) if key == "name" else short_count(row[key]) for key in columns))
    out.print()
    out.print(table)


def _summary(facts: dict[str, Any], config: "ModelConfig") -> list[tuple[str, str]]:
    total, active = facts["parameters"], facts["active_parameters"]
    lines = [("parameters", short_count(total))]
    if config.moe:
        lookup = (
            ""
            if config.tie_word_embeddings
            else f", plus {short_count(facts['embedding_parameters'])} embedding parameters"
        )
        lines.append(("active per token", f"{short_count(active)} ({active / total:.1%}){lookup}"))
        shared = f" and {config.moe.n_shared_experts} shared" if config.moe.n_shared_experts else ""
        lines.append(
            ("experts", f"{config.moe.num_experts_per_tok} of {config.moe.n_routed_experts}{shared} in each MoE layer")
        )
    if facts["mtp_parameters"]:
        lines.append(("MTP layers", f"{short_count(facts['mtp_parameters'])} on top (multi-token prediction)"))
    context = config.max_position_embeddings
    lines.append(("context", f"{context:,} tokens"))
    weights = ", ".join(f"{memory_text(size)} {precision}" for precision, size in facts["weight_bytes"].items())
    lines.append(("weights", weights))
    cache = facts["kv_bytes_per_token"]["bf16"]
    lines.append(("KV cache, bf16", f"{cache:,} bytes per token, {memory_text(cache * context)} at full context"))
    return lines


def short_count(number: int) -> str:
    """1234 as 1.23K, 671026419200 as 671B: three digits."""
    for size, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.{max(0, 2 - len(str(number // size)) + 1)}f}{letter}"
    return str(number)
