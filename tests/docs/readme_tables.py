"""What the READMEs take from the code. Run `python tests/docs/readme_tables.py` after changing a verb."""

import re
from pathlib import Path

import typer.main

from deepseek.cli.app import app

ROOT = Path(__file__).parent.parent.parent
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")


def verb_table() -> str:
    """One row a verb: its name and the first sentence of its help."""
    group = typer.main.get_command(app)
    rows = [
        f"| `deepseek {name}` | {_first_sentence(command.help or '')} |" for name, command in group.commands.items()
    ]  # type: ignore[attr-defined]
    return "\n".join(("| command | what it does |", "|---|---|", *rows))


def with_tables(text: str) -> str:
    marked = re.compile(r"(<!-- verbs -->\n).*?(<!-- /verbs -->)", re.DOTALL)
    return marked.sub(lambda found: f"{found[1]}{verb_table()}\n{found[2]}", text)


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split()))[0]


if __name__ == "__main__":
    for path in READMES:
        path.write_text(with_tables(path.read_text()))
