"""How every verb is parsed and shown: spellings of other programs, suggestions, and help that fits any terminal.

In a narrow terminal each option has lines of its own. Typer's table gives it one row of up to six columns, which at 80
columns cuts names that are over 16 long.
"""

import contextlib
import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from deepseek.cli import habits
from deepseek.cli.console import StandardConsole, err

_WIDE = 100  # columns from which on names and explanations stand side by side
_NAMES_WIDTH = 43
_INDENT = 4
_OWN_PANEL = {TyperArgument: "Arguments", TyperOption: "Options"}


class PastTyper(Exception):
    """Carries an error that Typer would turn into an exit code of its own choice; see `cli.app`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


@contextlib.contextmanager
def _past_typer() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, BrokenPipeError) as error:
        raise PastTyper(error) from error


class VerbGroup(TyperGroup):
    def make_context(self, *args: Any, **extra: Any) -> Any:
        with _past_typer():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _past_typer():
            return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        verbs = [
            _entry(Text(name, "bold cyan"), command.get_short_help_str(500), _console().width >= _WIDE, names_width=12)
            for name, command in self.commands.items()
        ]
        _show_help(self, ctx, {"Commands": verbs})


class VerbCommand(TyperCommand):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = self._options(ctx)
        translated = habits.translate(args, options, takes_model=self._takes_model(ctx))
        for note in translated.notes:
            err.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
        try:
            return super().parse_args(ctx, list(translated.args))
        except Exception as error:
            _improve(error, options)
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _show_help(self, ctx, {})

    def _options(self, ctx: Any) -> dict[str, bool]:
        """Every spelling, and whether a value follows it."""
        found: dict[str, bool] = {}
        for option in self.get_params(ctx):
            if isinstance(option, TyperOption):
                found |= dict.fromkeys((*option.opts, *option.secondary_opts), _takes_value(option))
        return found

    def _takes_model(self, ctx: Any) -> bool:
        first = next((each for each in self.get_params(ctx) if isinstance(each, TyperArgument)), None)
        return first is not None and _metavar(first) == "MODEL"


def _improve(error: Exception, options: dict[str, bool]) -> None:
    """Suggest what begins with what was typed before what looks like it; say where a prompt belongs."""
    if hasattr(error, "possibilities") and hasattr(error, "option_name"):
        error.possibilities = near_options(error.option_name, options)
    message = str(getattr(error, "message", ""))
    if message.startswith("Got unexpected extra argument") and "--prompt" in options:
        error.message = f"{message}: the prompt goes with --prompt"  # type: ignore[attr-defined]


def near_options(typed: str, options: Sequence[str] | dict[str, bool]) -> list[str]:
    """Up to three options that a user may have meant."""
    begin = [name for name in options if name.startswith(typed)] if len(typed) > len("--x") else []
    return [*begin, *(name for name in difflib.get_close_matches(typed, options, cutoff=0.7) if name not in begin)][:3]


def _console() -> StandardConsole:
    return StandardConsole(highlight=False)


def _show_help(command: Any, ctx: Any, more: dict[str, list[RenderableType]]) -> None:
    console = _console()
    console.print(Padding(Text(command.get_usage(ctx), "bold"), (1, 1)))
    console.print(Padding(Markdown(command.help or ""), (0, 1, 1, 1)))
    panels: dict[str, list[RenderableType]] = defaultdict(list)
    for parameter in command.get_params(ctx):
        if getattr(parameter, "hidden", False):
            continue
        assert isinstance(parameter, TyperArgument | TyperOption)
        title = parameter.rich_help_panel or _OWN_PANEL[type(parameter)]
        panels[title].append(_entry(_names(parameter), _explanation(parameter), console.width >= _WIDE))
    for title, entries in {**panels, **more}.items():
        console.print(Panel(Group(*entries), title=title, title_align="left", border_style="dim"))


def _entry(names: Text, help: str, wide: bool, names_width: int = _NAMES_WIDTH) -> RenderableType:
    """An option and what it is for."""
    if not wide:
        return Group(names, Padding(Text(help), (0, 0, 0, _INDENT)))
    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    row.add_column(width=names_width, overflow="fold")
    row.add_column(ratio=1)
    row.add_row(names, Text(help))
    return row


def _names(parameter: TyperArgument | TyperOption) -> Text:
    """`--threads, -t N`: all spellings, each unbroken, and what is given."""
    if isinstance(parameter, TyperArgument):
        return Text(_metavar(parameter), "bold cyan")
    names = Text(", ").join(Text(name, "bold cyan") for name in (*parameter.opts, *parameter.secondary_opts))
    return Text.assemble(names, " ", (_metavar(parameter), "yellow")) if _takes_value(parameter) else names


def _takes_value(option: TyperOption) -> bool:
    return not (option.is_flag or option.count)


def _metavar(parameter: TyperArgument | TyperOption) -> str:
    """MODEL, N, auto|int4|int8."""
    if parameter.metavar is None and isinstance(parameter.default, Enum):
        return "|".join(str(choice.value) for choice in type(parameter.default))
    return parameter.metavar or str(parameter.name).upper()


def _explanation(parameter: TyperArgument | TyperOption) -> str:
    """The help, with the default where it says something."""
    default = parameter.default
    help = parameter.help or ""
    if not parameter.show_default or default is None or default == "" or isinstance(default, bool | list | tuple):
        return f"{help} [required]".lstrip() if parameter.required else help
    return f"{help} [{default.value if isinstance(default, Enum) else default}]"
