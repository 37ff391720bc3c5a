"""The house keeps its shape: arrows point down, serving needs no PyTorch, importing the package costs nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "deepseek"

# Lowest first. A part may import from parts below it and from itself.
LAYERS = [
    {"errors", "number_types", "progress", "sampling_names"},
    {"config", "sampling", "packing"},
    {"families", "sampling_fields"},
    {"hub"},
    {"checkpoint", "tokenizer"},
    {"kernels"},
    {"engine"},  # below models, so that it cannot import PyTorch
    {"server"},  # beside models, of which it needs nothing
    {"models"},
    {"optim"},
    {"profiler", "client"},
    {"training"},
    {"cli"},
    {"__main__"},
]
NEEDS_TORCH = {"models", "optim", "training"}


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py"]


def imported_parts(path: Path) -> set[str]:
    """The parts of the package that a file imports anywhere, inside functions too, but for type checking only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("deepseek.")}
    return {name for name in found if (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_arrows_point_down(path: Path) -> None:
    height = {part: level for level, parts in enumerate(LAYERS) for part in parts}
    assert part_of(path) in height, f"{path.name}: give its part a place in LAYERS"
    above = {part for part in imported_parts(path) if height[part] > height[part_of(path)]}
    assert not above


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = loaded_after("import deepseek") & {
        "torch",
        "numpy",
        "transformers",
        "rich",
        "typer",
        "jinja2",
        "tokenizers",
    }
    assert not heavy


def test_serving_needs_no_pytorch() -> None:
    names = [
        ".".join(("deepseek", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
        for path in modules()
        if part_of(path) not in NEEDS_TORCH or path.is_relative_to(SOURCE / "training" / "data")
    ]
    loaded = loaded_after(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
    assert "deepseek.families" in loaded
    assert not loaded & {"torch", "transformers"}


def test_without_pytorch_a_model_says_what_to_install() -> None:
    script = "import sys\nsys.modules['torch'] = None\nfrom deepseek import AutoModel"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "ImportError: AutoModel needs PyTorch: pip install 'deepseek-framework[train]'" in result.stderr


def test_names_of_other_libraries_say_what_to_write() -> None:
    with pytest.raises(ImportError, match=r"deepseek has no LLM: use Engine\.from_pretrained\(name\)"):
        from deepseek import LLM  # type: ignore[attr-defined]  # noqa: F401
    from deepseek import Engine
    from deepseek.errors import ConfigError

    for arguments, named in ((["smollm2"], {}), ([], {"model": "smollm2"}), ([], {"model": "smollm2", "dtype": "x"})):
        with pytest.raises(ConfigError, match=r"write Engine\.from_pretrained\('smollm2'\)"):
            Engine(*arguments, **named)  # type: ignore[arg-type]


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_no_file_outgrows_its_concept() -> None:
    long = {str(path.relative_to(SOURCE)): lines for path in modules() if (lines := path.read_text().count("\n")) > 500}
    assert not long
