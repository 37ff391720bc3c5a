"""`deepseek serve`: the API and the studio."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from deepseek.cli import options
from deepseek.cli.console import err, progress_bars
from deepseek.server.server_config import SETTING_TYPES, ServerConfig

_CONFIG = "config"
DESCRIPTION = """Serve a model: OpenAI's API and a web page, in one process.

    Examples:

        deepseek serve

        deepseek serve deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --port 9000 --max-num-seqs 8

        deepseek serve model.gguf --config server.yaml --api-key-file keys.yaml

    Each setting may also stand in the environment (DEEPSEEK_PORT=9000) or in the file of --config (`port: 9000`); the
    command line comes before the environment, the environment before the file.
    """


def serve(**given: Any) -> None:
    file = given.pop(_CONFIG)
    named = given.pop("name")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if named is not None:
        if given["model"] is not None:
            raise typer.BadParameter("give the model once: as MODEL or with --model")
        values["model"] = named
    config = ServerConfig.of({name: value for name, value in values.items() if value is not None}, file=file)
    run(config)


def run(config: ServerConfig) -> None:
    """Load the model and serve until a signal comes."""
    from deepseek.engine.engine import Engine
    from deepseek.hub import DEFAULT_MODEL, resolve
    from deepseek.server.app import build_app
    from deepseek.server.run import Server

    name = config.model or DEFAULT_MODEL
    with progress_bars() as report:
        files = resolve(name, revision=config.revision, report=report)
        engine = Engine.from_pretrained(str(files.path), report=report, **config.engine_settings())

    def tell(address: str) -> None:
        err.print(f"[bold]{Path(name).name}[/] is served. API [bold]{address}/v1[/], studio [bold]{address}/[/]")

    server = Server(build_app(config, engine, name), config, tell)
    server.run()


def _signature() -> inspect.Signature:
    """MODEL, --config, then an option for each setting."""
    parameters = [
        _parameter("name", options.ModelName),
        _parameter(_CONFIG, Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]),
    ]
    for each in fields(ServerConfig):
        kind = SETTING_TYPES[each.name]
        shown = _shown(each.default)
        option = typer.Option(
            *_spellings(each.name, kind, each.metadata["also"]),
            help=each.metadata["help"],
            rich_help_panel=each.metadata["panel"],
            show_default=shown,
            metavar=_metavar(kind),
        )
        parameters.append(_parameter(each.name, Annotated[_plain_type(kind), option]))
    return inspect.Signature(parameters)


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _spellings(name: str, kind: Any, also: tuple[str, ...]) -> list[str]:
    flag = name.replace("_", "-")
    return [f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}", *also]


def _plain_type(kind: Any) -> Any:
    """What Typer parses: texts for choices, which ServerConfig checks; None where nothing was given."""
    if get_origin(kind) is tuple:
        return list[str] | None
    if get_origin(kind) is Literal:
        return str | None
    bare = next((option for option in get_args(kind) if option is not type(None)), kind)
    return bare | None


def _metavar(kind: Any) -> str | None:
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    return None


def _shown(default: Any) -> bool | str:
    if default in (None, (), ""):
        return False
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)


serve.__signature__ = _signature()  # type: ignore[attr-defined]
serve.__doc__ = DESCRIPTION
