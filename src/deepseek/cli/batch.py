"""`deepseek batch`: answer a file of requests without a server."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from deepseek.cli import options
from deepseek.cli.console import err, progress_bars
from deepseek.cli.serve import recommended_for, short_name
from deepseek.errors import GenerationError


def batch(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Requests, one JSON object per line.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where answers go; by default FILE.answers.jsonl.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder, .gguf file or name; without one the default.")
    ] = None,
    served_model_name: Annotated[
        list[str] | None, typer.Option(help="Name by which requests call the model, instead of its own.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(metavar="auto|int4|int8|bf16|f32", help="Precision of weights.")
    ] = None,
    threads: options.Threads = None,
    max_num_seqs: Annotated[
        int | None, typer.Option("--max-num-seqs", "-np", help="Requests answered together.")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option("--max-model-len", "-c", help="Tokens of prompt and answer together.")
    ] = None,
    allow_unknown_keys: options.AllowUnknownKeys = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, as for `deepseek serve`.")] = None,
) -> None:
    """Answer a file of requests in OpenAI's batch format.

    A line is `{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": [...]}}`.
    Answers come in the order of the requests; those that are refused go to OUTPUT.errors.jsonl. After an
    interruption, the same command continues where it stopped.
    """
    from deepseek.engine.engine import Engine
    from deepseek.hub import DEFAULT_MODEL, resolve
    from deepseek.server.batches.offline import run_file
    from deepseek.server.server_config import ServerConfig

    given = {
        "model": model, "served_model_name": tuple(served_model_name) if served_model_name else None,
        "quantize": quantize, "threads": threads, "max_num_seqs": max_num_seqs,
        "max_model_len": max_model_len, "allow_unknown_keys": allow_unknown_keys or None, "access_log": "off",
    }  # fmt: skip
    settings = ServerConfig.of({name: value for name, value in given.items() if value is not None}, file=config)
    target = output or file.with_name(f"{file.stem}.answers.jsonl")
    wanted = settings.model or DEFAULT_MODEL
    with progress_bars() as report:
        path = resolve(wanted, revision=settings.revision, report=report).path
        engine = Engine.from_pretrained(str(path), report=report, **settings.engine_settings())
        done = run_file(
            engine, settings, short_name(wanted), file, target,
            sampling_defaults=recommended_for(settings, path), report=report,
        )  # fmt: skip
    err.print(f"{done.completed} answers in {escape(str(target))}", soft_wrap=True)
    if done.errors is not None:
        raise GenerationError(f"refused {done.failed} of {done.completed + done.failed} requests: see {done.errors}")
