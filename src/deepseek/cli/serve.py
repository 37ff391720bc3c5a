"""`deepseek serve`: the API and the studio."""

import inspect
import re
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from rich.markup import escape

from deepseek.cli import options
from deepseek.cli.console import err, progress_bars
from deepseek.server.server_config import SETTING_TYPES, ServerConfig

if TYPE_CHECKING:
    from dataclasses import Field

    from deepseek.server.service import Service

_CONFIG = "config"
_WHOLE = re.compile(r"(?P<number>-?\d+(\.\d+(?=[kmgtKMGT]))?)(?P<unit>[kmgtKMGT]([iI]?[bB])?)?")
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
    from deepseek.server.bus_errors import end_clearly_on_bus_errors
    from deepseek.server.run import Server, require_free_port

    wanted = config.model or DEFAULT_MODEL
    if config.access_log == "auto":
        config = replace(config, access_log="off" if sys.stderr.isatty() else "json")
    require_free_port(config.host, config.port)
    with progress_bars() as report:
        path = resolve(wanted, revision=config.revision, report=report).path
        engine = Engine.from_pretrained(str(path), report=report, **config.engine_settings())
    end_clearly_on_bus_errors()
    app = build_app(config, engine, short_name(wanted), recommended_for(config, path), path)
    Server(app, config, lambda address: _tell(app.state.service, address)).run()


def recommended_for(config: ServerConfig, model: Path) -> dict[str, Any]:
    """How to sample where a request says nothing; fields of SamplingParams."""
    from deepseek.engine.recommended_sampling import recommended
    from deepseek.hub import DEFAULT_MODEL

    return recommended(model, config.model or DEFAULT_MODEL) if config.generation_config == "auto" else {}


def short_name(wanted: str) -> str:
    """What a model is called in the API: its catalog name, its name on the hub, or that of its folder or file."""
    from deepseek.hub.catalog import entries
    from deepseek.hub.local import model_name, model_path

    for entry in entries():
        unpinned = {source.partition("==")[0] for source in entry.sources}
        if wanted in {entry.name, *entry.sources, *unpinned}:
            return entry.name
    path = Path(wanted).expanduser()
    return model_name(model_path(path.absolute())) if path.exists() else wanted


def _tell(service: "Service", address: str) -> None:
    rows = {
        "model": ", ".join(service.model_names),
        "API": f"{address}/v1",
        "studio": f"{address}/" if service.config.studio else "off",
        "keys": "needed" if service.config.api_key or service.config.api_key_file else "none needed",
    }
    for name, value in rows.items():
        err.print(f"[dim]{name:>7}[/]  {escape(value)}", soft_wrap=True)
    err.print("[dim]Ctrl-C ends it.[/]")


def _signature() -> inspect.Signature:
    """MODEL, --config, then an option for each setting."""
    parameters = [
        _parameter("name", options.ModelName),
        _parameter(
            _CONFIG, Annotated[Path | None, typer.Option("--config", help="YAML file of settings.", metavar="FILE")]
        ),
    ]
    for each in fields(ServerConfig):
        kind = SETTING_TYPES[each.name]
        option = typer.Option(
            *_spellings(each.name, kind, each.metadata["also"]),
            help=_help(each),
            rich_help_panel=each.metadata["panel"],
            show_default=False,
            metavar=each.metadata["takes"] or _metavar(each.name, kind),
            parser=whole_number if _bare(kind) is int else None,
        )
        parameters.append(_parameter(each.name, Annotated[_plain_type(kind), option]))
    return inspect.Signature(parameters)


def whole_number(text: str) -> int:
    """`8192`, `8k` (8,000), `8K` (8,192), `1.5G`: as vLLM reads them; bytes also as 4GB and 4GiB."""
    found = _WHOLE.fullmatch(text.strip().replace("_", "").replace(",", ""))
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a whole number, such as 8192, 8k or 4GiB")
    unit = found["unit"] or ""
    power = " kmgt".index(unit[:1].lower() or " ")
    base = 1000 if unit[1:].lower() == "b" or (unit[:1].islower() and not unit[1:]) else 1024
    return int(float(found["number"]) * base**power) if power else int(float(found["number"]))


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _spellings(name: str, kind: Any, also: tuple[str, ...]) -> list[str]:
    flag = name.replace("_", "-")
    return [f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}", *also]


def _plain_type(kind: Any) -> Any:
    """What Typer parses: texts for choices, which ServerConfig checks; None where nothing was given."""
    if get_origin(kind) is tuple:
        return list[str] | None
    bare = _bare(kind)
    return str | None if get_origin(bare) is Literal else bare | None


def _bare(kind: Any) -> Any:
    """The type without `| None`."""
    if get_origin(kind) is Literal:
        return kind
    return next((option for option in get_args(kind) if option is not type(None)), kind)


def _metavar(name: str, kind: Any) -> str | None:
    """What the help calls the value; None for switches, which take none."""
    if kind is bool:
        return None
    if get_origin(bare := _bare(kind)) is Literal:
        return "|".join(get_args(bare))
    if name.endswith(("_bytes", "_seconds")):
        return name.rpartition("_")[2].upper()
    return "N"


def _help(setting: "Field[Any]") -> str:
    """Typer sees no defaults, because only ServerConfig has them."""
    default = setting.default
    if default in (None, (), ""):
        return str(setting.metadata["help"])
    return f"{setting.metadata['help']} [{_shown(setting.name, default)}]"


def _shown(name: str, default: Any) -> str:
    """`on`, `8000`, `30`, `16777216, which is 16 MiB`."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if name.endswith("_bytes"):
        return (
            f"{default}, which is {default >> 20} MiB"
            if default < 1 << 30
            else f"{default}, which is {default >> 30} GiB"
        )
    return f"{default:g}" if isinstance(default, float) else str(default)


serve.__signature__ = _signature()  # type: ignore[attr-defined]
serve.__doc__ = DESCRIPTION
