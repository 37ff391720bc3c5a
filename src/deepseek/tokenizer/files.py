"""Tokenizer files of a folder in the Hugging Face layout: reading and writing."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepseek.errors import TokenizerError
from deepseek.tokenizer.older_files import ADDED, has_older_files, read_older_files, tokens_beside
from deepseek.tokenizer.template_names import is_template_name
from deepseek.tokenizer.tokenizer_json import MAX_CONFIG_BYTES, MAX_FILE_BYTES, read_json, read_text

if TYPE_CHECKING:
    from deepseek.tokenizer.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL_MAP = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
TEMPLATE_JSON = "chat_template.json"
TEMPLATE_FOLDER = "additional_chat_templates"
MODEL_CONFIG, GENERATION = "config.json", "generation_config.json"

_MAX_TEMPLATES = 64


def has_tokenizer(folder: Path) -> bool:
    """Whether this folder holds the files of a tokenizer, of any kind that is read here."""
    return (folder / TOKENIZER).is_file() or has_older_files(folder)


def read_tokenizer(folder: Path) -> "Tokenizer":
    """The tokenizer of a folder: `tokenizer.json`, else older files; the other files are used where they are."""
    from deepseek.tokenizer.tokenizer import Tokenizer

    config = _read_optional(folder / CONFIG)
    described = "added_tokens_decoder" in config
    for name, value in _read_optional(folder / SPECIAL_MAP).items():
        if config.get(name) is None or not described:  # as in Transformers: the map wins over a config without it
            config[name] = value
    if (folder / TOKENIZER).is_file():
        where, spec = folder / TOKENIZER, read_json(folder / TOKENIZER, MAX_FILE_BYTES)
        if not described and (folder / ADDED).is_file():
            config["added_tokens_decoder"] = tokens_beside(folder / ADDED, spec, config)
    else:
        model_type = _read_optional(folder / MODEL_CONFIG).get("model_type")
        where, spec = folder, read_older_files(folder, config, model_type if isinstance(model_type, str) else "")
    return Tokenizer(spec, config, _templates(folder, config), end_ids=_end_ids(folder), where=str(where))


def _end_ids(folder: Path) -> list[int]:
    """The end tokens that generation_config.json names; those of config.json are the model's own setting."""
    value = _read_optional(folder / GENERATION).get("eos_token_id")
    ids = value if isinstance(value, list) else [value]
    return [token for token in ids if isinstance(token, int) and not isinstance(token, bool)]


def write_tokenizer(tokenizer: "Tokenizer", folder: Path) -> list[Path]:
    """Write the files of a folder. The tokenizer comes last, so a folder that has it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in tokenizer.config.items() if key != "chat_template"}
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    config.setdefault("clean_up_tokenization_spaces", False)
    written = []
    for name, template in tokenizer.templates.items():
        file = re.sub(r"[^\w.-]", "_", name).lstrip(".") or "template"
        place = folder / TEMPLATE if name == "default" else folder / TEMPLATE_FOLDER / f"{file}.jinja"
        place.parent.mkdir(exist_ok=True)
        written.append(_write(place, template))
    written.append(_write(folder / CONFIG, _dump(config)))
    written.append(_write(folder / SPECIAL_MAP, _dump(tokenizer.special_tokens)))
    written.append(_write(folder / TOKENIZER, tokenizer.to_json()))
    return written


def checked_templates(value: Any, where: str) -> dict[str, str]:
    """Chat templates by name from what a config holds: a text, or a list of {name, template}, or an object.

    An empty template is none: it would drop every message.
    """
    if isinstance(value, str):
        value = {"default": value}
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = {item.get("name"): item.get("template") for item in value}
    if value is not None and (
        not isinstance(value, dict)
        or len(value) > _MAX_TEMPLATES
        or not all(is_template_name(name) and isinstance(text, str | None) for name, text in value.items())
    ):
        raise TokenizerError(f"{where}: chat_template must be a text, or templates by name")
    return {name: text for name, text in (value or {}).items() if text}


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """The file wins over the config, as in Transformers."""
    templates = checked_templates(config.get("chat_template"), str(folder / CONFIG))
    if (folder / TEMPLATE_JSON).is_file():
        stored = read_json(folder / TEMPLATE_JSON, MAX_CONFIG_BYTES, as_python=True)
        templates.update(checked_templates(stored.get("chat_template"), str(folder / TEMPLATE_JSON)))
    if (folder / TEMPLATE).is_file():
        templates["default"] = read_text(folder / TEMPLATE, MAX_CONFIG_BYTES)
    if (folder / TEMPLATE_FOLDER).is_dir():
        for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))[:_MAX_TEMPLATES]:
            templates[path.stem] = read_text(path, MAX_CONFIG_BYTES)
    return {name: text for name, text in templates.items() if text}


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path, MAX_CONFIG_BYTES, as_python=True) if path.is_file() else {}


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _write(path: Path, text: str) -> Path:
    """Replace the file in one step: a reader sees the old one or the new one, also when the disk is full."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
