"""`deepseek carve`: a dense model into a mixture of experts."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deepseek.cli import options
from deepseek.cli.console import err, out, print_json, progress_bars
from deepseek.cli.info import short_count
from deepseek.cli.session import require_torch
from deepseek.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek.models.decoder import Model
    from deepseek.progress import Report
    from deepseek.training.carve import CarveConfig


def carve(
    model: Annotated[str, typer.Argument(help="A dense Llama, Qwen 2 or Qwen 3 model: folder, .gguf file or name.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the new model goes; must not exist, see --force.")],
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", help="File or folder of text to fit and distill on; repeatable. Not with --upcycle."),
    ] = None,
    experts: Annotated[
        int | None, typer.Option(min=2, help="Routed experts; by default about 32, with --upcycle 4.")
    ] = None,
    active: Annotated[
        int | None,
        typer.Option(min=1, help="Of these, experts per token; by default three quarters in all, or 1 copy."),
    ] = None,
    shared: Annotated[int | None, typer.Option(min=0, help="Number of shared experts, by default a third.")] = None,
    compensate: Annotated[
        bool, typer.Option(help="Refit outputs to stand in for dropped experts; without it, all on is the dense model.")
    ] = True,
    distil_minutes: Annotated[
        float, typer.Option(min=0, help="Then distill from the dense model for so long; the same command resumes.")
    ] = 0,
    calibration_tokens: Annotated[
        int, typer.Option(min=1024, help="Tokens of the text to fit experts and routers on.")
    ] = 98304,
    window: Annotated[int, typer.Option(min=16, help="Tokens in one window of the text.")] = 512,
    copies: Annotated[
        bool, typer.Option("--upcycle", help="No carving: every expert a copy of the whole layer, to be trained.")
    ] = False,
    dtype: Annotated[str, typer.Option(metavar="f32|bf16|f16", help="Type of the saved weights.")] = "float32",
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace what is in the folder.")] = False,
    revision: options.Revision = None,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: options.AsJson = False,
) -> None:
    """Turn a dense model into a mixture of experts that chat, serve and the experts page use.

    The neurons of each feed-forward layer are grouped by how they fire together on the text; those that nearly always
    matter are shared, a router chooses among the other groups. Perplexity and divergence before and after are measured
    on held-out windows of the text. A distillation that was stopped continues when the command is given again, from its
    last saved state in FOLDER.carving, which is removed at the end; its log stays as FOLDER/distillation.jsonl.

    Examples:

        deepseek carve smollm2 --out smollm2-moe --text book.txt

        deepseek carve smollm2 --out smollm2-moe --text book.txt --text wiki.txt --active 8 --distil-minutes 60

        deepseek carve smollm2 --out smollm2-copies --upcycle --experts 8 --active 2
    """
    require_torch()
    if out_folder.exists() and any(out_folder.iterdir()) and not force:
        raise ConfigError(f"{out_folder} is not empty: choose another --out, or give --force to replace what is there")
    if copies:
        _refuse_with_copies(text, shared, distil_minutes)
    weights_dtype = _dtype(dtype)
    if not text and not copies:
        raise ConfigError(
            "carving needs text to fit the experts on: --text FILE or FOLDER, a megabyte or more of what the model "
            "will read (without text only --upcycle works)"
        )
    from deepseek.checkpoint.configuration import load_config
    from deepseek.hub import resolve
    from deepseek.models.auto import AutoModel
    from deepseek.tokenizer import AutoTokenizer
    from deepseek.training.carve import CarveConfig, upcycle
    from deepseek.training.carve.target import check_dense
    from deepseek.training.carve.text import token_windows
    from deepseek.training.memory import keep_freed_memory

    keep_freed_memory()
    work = out_folder.with_name(out_folder.name + ".carving")
    with progress_bars() as report:
        path = resolve(model, revision=revision, report=report).path
        source = load_config(path, allow_unknown=allow_unknown_keys)
        check_dense(source)
        load = partial(AutoModel.from_pretrained, path, allow_unknown_keys=allow_unknown_keys, report=report)
        tokenizer = AutoTokenizer.from_pretrained(path)
        facts: dict[str, Any] = {"path": str(out_folder)}
        if copies:
            dense = load(dtype="float32")
            result = upcycle(dense, experts=experts or 4, active=active or 1, seed=seed)
        else:
            config = CarveConfig.usual(
                source.intermediate_size,
                experts=experts,
                shared=shared,
                active=active,
                compensate=compensate,
                seed=seed,
            )
            facts["active_share"] = config.active_share
            windows = token_windows(text or [], tokenizer, length=window, seed=seed)
            calibration = -(-calibration_tokens // window)
            result, done = _carved(load, windows, calibration, config, distil_minutes, work, report)
            facts |= done
        result.to(weights_dtype).save_pretrained(out_folder, tokenizer, report=report)
        if not copies:
            _keep_log(work, out_folder)
    _print(facts, result, as_json=as_json)


def _carved(
    load: "Callable[..., Model]",
    windows: Any,
    calibration: int,
    config: "CarveConfig",
    minutes: float,
    work: Path,
    report: "Report",
) -> tuple["Model", dict[str, Any]]:
    """The model carved on the first `calibration` windows, and what is known of it.

    load: the dense model, as `AutoModel.from_pretrained` gives it.
    """
    from deepseek.training.carve import carve
    from deepseek.training.carve.distillation import DistilConfig, Distillation
    from deepseek.training.carve.kept import carve_once
    from deepseek.training.carve.quality import Quality, split_windows, warnings_of
    from deepseek.training.carve.text import held_out_count

    seen, held_out = split_windows(windows, held_out_count(windows))
    seen, quality = seen[:calibration], Quality(held_out)
    dense = load(dtype="float32")
    quality.measure("dense", dense)
    carving = (
        carve_once(dense, seen, config, work, report=report) if minutes else carve(dense, seen, config, report=report)
    )
    teacher = load(device="cpu")
    quality.measure("carved", carving.to_model(), teacher)
    done = None
    if minutes:
        run = Distillation(carving.model, teacher, windows, DistilConfig(minutes=minutes), work, calibrated=len(seen))
        done = run.run(report)
        quality.measure("distilled", carving.to_model(), teacher)
    facts = {
        "distillation": done,
        "quality": quality.to_dict(),
        "measured": str(quality),
        "warnings": warnings_of(seen.numel(), done["tokens"] if done else None),
    }
    return carving.to_model(), facts


def _dtype(name: str) -> Any:
    import torch

    from deepseek.models.device import choose_dtype

    return choose_dtype(name, torch.device("cpu"))


def _refuse_with_copies(text: list[Path] | None, shared: int | None, distil_minutes: float) -> None:
    given = {"--text": text, "--shared": shared, "--distil-minutes": distil_minutes}
    if wrong := [name for name, value in given.items() if value]:
        raise ConfigError(
            f"--upcycle copies the layers as they are: {wrong[0]} says nothing then, leave it out. "
            "Copies already predict what the dense model predicts; train them with `deepseek train`"
        )


def _keep_log(work: Path, folder: Path) -> None:
    """The log stays beside the model, all else that a restart would have needed goes."""
    import shutil

    from deepseek.training.carve.distillation import LOG

    if (work / LOG).exists():
        shutil.copyfile(work / LOG, folder / LOG)
    if work.exists():
        shutil.rmtree(work)


def _print(facts: dict[str, Any], model: "Model", *, as_json: bool) -> None:
    from deepseek.families.sizes import model_size

    size, moe = model_size(model.config), model.config.moe
    assert moe is not None
    facts |= {"parameters": size.total, "active_parameters": size.active, "experts": moe.n_routed_experts}
    facts |= {"active": moe.num_experts_per_tok, "shared": moe.n_shared_experts}
    facts |= {"expert_width": moe.moe_intermediate_size}
    measured = facts.pop("measured", None)
    if as_json:
        print_json(facts)
        return
    out.print(facts["path"], markup=False, soft_wrap=True)
    out.print(
        f"{short_count(size.total)} parameters, {short_count(size.active)} active: {moe.num_experts_per_tok} of "
        f"{moe.n_routed_experts} experts and {moe.n_shared_experts} shared, {moe.moe_intermediate_size} wide",
        style="dim",
        markup=False,
    )
    if done := facts.get("distillation"):
        out.print(f"distilled on {done['tokens']:,} tokens in {done['seconds'] / 60:.1f} minutes", style="dim")
    if measured:
        out.print(measured, markup=False, soft_wrap=True)
    for warning in facts.get("warnings", ()):
        err.print(f"note: {warning}", markup=False, soft_wrap=True)
