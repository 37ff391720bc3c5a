"""Help for a verb with many options: in a narrow terminal each option has lines of its own, and no name is ever cut.

Typer's table gives each option one row of up to six columns, which at 80 columns cuts names that are over 16 long.
"""

from collections import defaultdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markdown import Markdown
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperOption

_WIDE = 100  # columns from which on names and explanations stand side by side
_NAMES_WIDTH = 43
_INDENT = 4
_OWN_PANEL = {TyperArgument: "Arguments", TyperOption: "Options"}


class LongHelpCommand(TyperCommand):
    def format_help(self, ctx: Any, formatter: Any) -> None:
        console = Console(highlight=False)
        console.print(Padding(Text(self.get_usage(ctx), "bold"), (1, 1)))
        console.print(Padding(Markdown(self.help or ""), (0, 1, 1, 1)))
        panels: dict[str, list[RenderableType]] = defaultdict(list)
        wide = console.width >= _WIDE
        for parameter in self.get_params(ctx):
            assert isinstance(parameter, TyperArgument | TyperOption)
            title = parameter.rich_help_panel or _OWN_PANEL[type(parameter)]
            panels[title].append(_entry(_names(parameter), parameter.help or "", wide))
        for title, entries in panels.items():
            console.print(Panel(Group(*entries), title=title, title_align="left", border_style="dim"))


def _entry(names: Text, help: str, wide: bool) -> RenderableType:
    """An option and what it is for."""
    if not wide:
        return Group(names, Padding(Text(help), (0, 0, 0, _INDENT)))
    row = Table.grid(padding=(0, 2, 0, 0), expand=True)
    row.add_column(width=_NAMES_WIDTH, overflow="fold")
    row.add_column(ratio=1)
    row.add_row(names, Text(help))
    return row


def _names(parameter: "TyperArgument | TyperOption") -> Text:
    """`--threads, -t N`: all spellings, each unbroken, and what is given."""
    if isinstance(parameter, TyperArgument):
        return Text(str(parameter.metavar), "bold cyan")
    names = Text(", ").join(Text(name, "bold cyan") for name in (*parameter.opts, *parameter.secondary_opts))
    return names if parameter.metavar is None else Text.assemble(names, " ", (parameter.metavar, "yellow"))
