"""Derives which keys of config.json Transformers reads, family by family, from its source. Run it to write the table.

A key is read when the family's modeling code, its configuration class, or what both use (masks, caches, rotary
embeddings, the loader) looks it up. `python tests/families/derive_reference_keys.py` after an upgrade of Transformers.
"""

import ast
import dataclasses
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

SOURCE = Path(transformers.__file__).parent
TABLE = Path(__file__).parents[2] / "src" / "deepseek" / "families" / "reference_keys.py"
FAMILIES = ("llama", "qwen2", "qwen3", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe")

# Looked up by the loader and by generation, in functions too long to tell their configurations apart.
LOADER = ("tie_word_embeddings", "quantization_config", "transformers_weights", "dtype")
LOADER += ("bos_token_id", "eos_token_id", "pad_token_id")
PREDICTION_LAYERS = "num_mtp_layers"  # read where a class has it, by the drafting of `generate`
WITHOUT_EFFECT = {"rope_parameters", "attention_dropout", "initializer_range", "dtype"}  # their defaults
USED_BY_ALL = ("masking_utils.py", "cache_utils.py", "modeling_rope_utils.py", "configuration_utils.py")


def shared_keys() -> set[str]:
    """What is read whatever the family."""
    found = set(LOADER)
    for name in USED_BY_ALL[:2]:
        found |= set(_lookups(_tree(name), ("config",)))
    rope, base = (_tree(name) for name in USED_BY_ALL[2:])
    found |= set(_lookups(rope, ("config",)))
    for name in ("convert_rope_params_to_dict", "standardize_rope_params"):
        found |= {*_lookups(_function(rope, name), ("self",)), *_arguments(_function(rope, name))}
    found |= set(_arguments(_function(base, "__post_init__")))
    return {name for name in found if _is_key(name)}


def family_keys(family: str) -> set[str]:
    """What the modeling code and the configuration class of a family read."""
    found = set(_lookups(_tree(f"models/{family}/modeling_{family}.py"), ("config",)))
    configuration = _function(_tree(f"models/{family}/configuration_{family}.py"), "__post_init__")
    found |= {*_lookups(configuration, ("self",)), *_arguments(configuration)}
    found |= {PREDICTION_LAYERS} & {field.name for field in dataclasses.fields(CONFIG_MAPPING[family])}
    aliases = CONFIG_MAPPING[family].attribute_map
    found |= {key for pair in aliases.items() if found & set(pair) for key in pair}
    return {name for name in found if _is_key(name)}


def family_defaults(family: str) -> dict[str, Any]:
    """What a configuration class takes for a key that is absent."""
    keys = (family_keys(family) | shared_keys()) - WITHOUT_EFFECT
    values = {
        field.name: field.default
        for field in dataclasses.fields(CONFIG_MAPPING[family])
        if field.name in keys and field.default is not dataclasses.MISSING
    }
    for name, other in CONFIG_MAPPING[family].attribute_map.items():
        if name in values:
            values[other] = values.pop(name)
    return {**values, "rope_theta": CONFIG_MAPPING[family].default_theta}


def rope_keys(kind: str) -> set[str]:
    """What a type of rotary scaling reads of rope_parameters."""
    function = _function(_tree("modeling_rope_utils.py"), ROPE_INIT_FUNCTIONS[kind].__name__)
    found = {"rope_type", "type", "rope_theta"}
    for node in ast.walk(function):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and _is_rope(node.value):
            found.add(node.slice.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_rope(node.func.value):
            found |= {argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return found


def _tree(path: str) -> ast.Module:
    return ast.parse((SOURCE / path).read_text())


def _function(tree: ast.Module, name: str) -> ast.FunctionDef | ast.Module:
    """The one function of that name; an empty module where a configuration class has none."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[0] if found else ast.Module(body=[], type_ignores=[])


def _lookups(tree: ast.AST, owners: tuple[str, ...]) -> Iterator[str]:
    """`config.key`, `self.config.key`, `layer_config.key` and the same by getattr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and _is_owner(node.value, owners):
            yield node.attr
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr"):
            owner, name = node.args[:2]
            if _is_owner(owner, owners) and isinstance(name, ast.Constant):
                yield name.value


def _is_owner(node: ast.AST, owners: tuple[str, ...]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in owners or node.id.endswith("_config")
    return isinstance(node, ast.Attribute) and node.attr == "config"


def _arguments(tree: ast.AST) -> Iterator[str]:
    """`kwargs.pop("key")` and the like: keys of config.json that are no fields of the class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            owner, name = node.func.value, node.args[0]
            if isinstance(owner, ast.Name) and owner.id == "kwargs" and isinstance(name, ast.Constant):
                yield name.value


def _is_rope(node: ast.AST) -> bool:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.startswith("rope_parameters")


def _is_key(name: str) -> bool:
    """Whether a name that was looked up can be a key of config.json, and not a method or a class attribute."""
    fields = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    settable = isinstance(getattr(PreTrainedConfig, name, None), property) or not hasattr(PreTrainedConfig, name)
    return not name.startswith("_") and (name in fields or settable) and name not in ("is_heterogeneous", "sub_configs")


def table() -> str:
    kinds = sorted(ROPE_INIT_FUNCTIONS)
    lines = [
        '"""What Transformers reads of a config.json. Written by tests/families/derive_reference_keys.py."""',
        "",
        "from typing import Any",
        "",
        f'TRANSFORMERS = "{transformers.__version__}"',
        "",
        "# Read whatever the family.",
        *_listed("SHARED = frozenset(", shared_keys(), ")", 0),
        "",
        "# Read by the code of each family besides.",
        "READ: dict[str, frozenset[str]] = {",
        *(line for family in FAMILIES for line in _listed(f'"{family}": frozenset(', _own(family), "),", 4)),
        "}",
        "",
        "# Read of rope_scaling or rope_parameters by each type of scaling.",
        "ROPE: dict[str, frozenset[str]] = {",
        *(line for kind in kinds for line in _listed(f'"{kind}": frozenset(', rope_keys(kind), "),", 4)),
        "}",
        "",
        "# What each configuration class takes for a key that is absent.",
        f"DEFAULTS: dict[str, dict[str, Any]] = { ({family: family_defaults(family) for family in FAMILIES})!r}",
    ]
    command = (sys.executable, "-m", "ruff", "format", "--stdin-filename", str(TABLE), "-")
    return subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True).stdout


def _own(family: str) -> set[str]:
    return family_keys(family) - shared_keys()


def _listed(start: str, names: set[str], end: str, indent: int) -> list[str]:
    """Names in one string over as many lines as they need."""
    space = " " * indent
    wrapped = textwrap.wrap(" ".join(sorted(names)), 108 - indent)
    return [space + start, *(f'{space}    "{line} "' for line in wrapped), f"{space}    .split()", space + end]


if __name__ == "__main__":
    TABLE.write_text(table())
