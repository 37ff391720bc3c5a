"""What READMEs and docs take from the code. Run it after changing verbs or benchmarks: tests/docs/readme_tables.py."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import typer.main

from deepseek.cli.app import app
from deepseek.training.keys import data_keys, markdown, run_keys

sys.path.insert(0, str(Path(__file__).parent.parent))  # where it runs as a script
from test_architecture import LAYERS, NEEDS_TORCH

ROOT = Path(__file__).parent.parent.parent
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
_KEYS = (ROOT / "docs" / "training.md", ROOT / "docs" / "data.md")
WITH_TABLES = (*READMES, ROOT / "docs" / "benchmarks.md", ROOT / "CONTRIBUTING.md", *_KEYS)


def verb_table() -> str:
    """One row a verb: its name and the first sentence of its help."""
    group = typer.main.get_command(app)
    rows = [
        f"| `deepseek {name}` | {_first_sentence(command.help or '')} |" for name, command in group.commands.items()
    ]  # type: ignore[attr-defined]
    return "\n".join(("| command | what it does |", "|---|---|", *rows))


def script_table() -> str:
    """One row a benchmark: its name and the first paragraph of its docstring."""
    rows = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        paragraph = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
        rows.append(f"| `{path.name}` | {' '.join(paragraph.split())} |")
    return "\n".join(("| script | what it measures, or what others need of it |", "|---|---|", *rows))


def layer_list() -> str:
    """The parts of the package, highest first, and which of them may import PyTorch."""
    rows = [f"  {number}. {', '.join(f'`{part}`' for part in sorted(parts))}" for number, parts in _numbered()]
    torch = ", ".join(f"`{part}`" for part in sorted(NEEDS_TORCH))
    return "\n".join(
        (*rows, "", f"  Only {torch} import PyTorch (`cli` does inside its commands), so serving needs none.")
    )


def _numbered() -> Iterator[tuple[int, set[str]]]:
    return enumerate(reversed(LAYERS), 1)


TABLES: dict[str, Callable[[], str]] = {
    "verbs": verb_table,
    "scripts": script_table,
    "layers": layer_list,
    "run-keys": lambda: markdown(run_keys()),
    "data-keys": lambda: markdown(data_keys()),
}


def with_tables(text: str) -> str:
    for name, made in TABLES.items():
        table = made()
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = marked.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    return text


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split()))[0]


if __name__ == "__main__":
    for path in WITH_TABLES:
        path.write_text(with_tables(path.read_text()))
