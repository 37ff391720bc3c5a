"""What the code imports is what pyproject.toml declares: an installation has all it needs, whatever the tests have."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_architecture import NEEDS_TORCH, SOURCE, modules, part_of

PROJECT = tomllib.loads((SOURCE.parent.parent / "pyproject.toml").read_text())["project"]
EXTRAS = {name: wanted for name, wanted in PROJECT["optional-dependencies"].items() if name != "dev"}
MAY_TRAIN = {*NEEDS_TORCH, "cli"}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirements: list[str]) -> set[str]:
    return {normalized(Requirement(text).name) for text in requirements}


BASE, TRAIN = named(PROJECT["dependencies"]), named(EXTRAS["train"])
OPTIONAL = set().union(*map(named, EXTRAS.values()))


@functools.cache
def distributions() -> dict[str, set[str]]:
    """Top-level module to the distributions that hold it."""
    return {module: set(map(normalized, names)) for module, names in metadata.packages_distributions().items()}


def third_party(path: Path) -> Iterator[tuple[str, bool]]:
    """Every foreign top-level module that a file imports at run time, and whether only inside a function."""
    tree = ast.parse(path.read_text())
    lazy = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test))
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for top in {name.partition(".")[0] for name in names}:
            if top not in sys.stdlib_module_names and top not in ("deepseek", "deepseek_api"):
                yield top, id(node) in lazy


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_import_is_declared(path: Path) -> None:
    """Of base everywhere, of `train` where PyTorch may be, of other extras only inside a function."""
    always = BASE | TRAIN if part_of(path) in MAY_TRAIN else BASE
    for module, lazy in third_party(path):
        homes = distributions().get(module, {normalized(module)})
        assert homes & (always | (OPTIONAL if lazy else set())), f"{module} is not declared in pyproject.toml"


def closure(names: set[str], extras: dict[str, set[str]]) -> set[str]:
    """Installed distributions that these bring along, themselves included."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, wanted):
            here = [{"extra": extra} for extra in extras.get(name, ())] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(values) for values in here):
                extras.setdefault(normalized(requirement.name), set()).update(requirement.extras)
                waiting.append(normalized(requirement.name))
    return found


BLOCKED = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
for name in NAMES:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("with_torch", [False, True], ids=["base", "train"])
def test_every_module_imports_with_nothing_else_installed(with_torch: bool) -> None:
    texts = PROJECT["dependencies"] + (EXTRAS["train"] if with_torch else [])
    extras = {normalized(Requirement(text).name): set(Requirement(text).extras) for text in texts}
    there = closure(BASE | TRAIN if with_torch else BASE, extras)
    blocked = {module for module, homes in distributions().items() if not homes & there} - {"deepseek", "deepseek_api"}
    names = [
        ".".join(("deepseek", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in modules()
        if with_torch or part_of(path) not in NEEDS_TORCH or path.is_relative_to(SOURCE / "training" / "data")
    ]
    script = f"BLOCKED = {sorted(blocked)!r}\nNAMES = {names!r}\n{BLOCKED}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_nothing_is_pickled() -> None:
    """Pickles can run code when they are read; state goes into safetensors and JSON."""
    calls = re.compile(r"torch\.(save|load)\(|\bpickle\.(dump|load)|\ballow_pickle=True")
    assert not [str(path) for path in modules() if calls.search(path.read_text())]
