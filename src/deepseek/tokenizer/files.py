"""Tokenizer files of a folder in the Hugging Face layout: reading and writing."""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepseek.errors import TokenizerError
from deepseek.tokenizer.tokenizer_json import MAX_CONFIG_BYTES, MAX_FILE_BYTES, read_json

if TYPE_CHECKING:
    from deepseek.tokenizer.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"
CONFIG = "tokenizer_config.json"
SPECIAL_MAP = "special_tokens_map.json"
TEMPLATE = "chat_template.jinja"
TEMPLATE_JSON = "chat_template.json"
TEMPLATE_FOLDER = "additional_chat_templates"


def read_tokenizer(folder: Path) -> "Tokenizer":
    """The tokenizer of a folder; `tokenizer.json` is needed, the other files are used where they are."""
    from deepseek.tokenizer.tokenizer import Tokenizer

    if not (folder / TOKENIZER).is_file():
        raise TokenizerError(
            f"{folder}: has no {TOKENIZER}. If it holds a SentencePiece or tiktoken file, save it once with "
            "Transformers (AutoTokenizer.from_pretrained(...).save_pretrained(...)) and use that folder"
        )
    config = _read_optional(folder / CONFIG)
    for name, value in _read_optional(folder / SPECIAL_MAP).items():
        config.setdefault(name, value)
    spec = read_json(folder / TOKENIZER, MAX_FILE_BYTES)
    return Tokenizer(spec, config, _templates(folder, config), where=str(folder / TOKENIZER))


def write_tokenizer(tokenizer: "Tokenizer", folder: Path) -> list[Path]:
    """Write the files of a folder. The tokenizer comes last, so a folder that has it is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in tokenizer.config.items() if key != "chat_template"}
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    config.setdefault("clean_up_tokenization_spaces", False)
    written = []
    for name, template in tokenizer.templates.items():
        place = folder / TEMPLATE if name == "default" else folder / TEMPLATE_FOLDER / f"{name}.jinja"
        place.parent.mkdir(exist_ok=True)
        written.append(_write(place, template))
    written.append(_write(folder / CONFIG, _dump(config)))
    written.append(_write(folder / SPECIAL_MAP, _dump(tokenizer.special_tokens)))
    written.append(_write(folder / TOKENIZER, tokenizer.to_json()))
    return written


def checked_templates(value: Any, where: str) -> dict[str, str]:
    """Chat templates by name from what a config holds: a text, or a list of {name, template}, or an object."""
    if not value:  # an empty template would drop what the user says
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = {item.get("name"): item.get("template") for item in value}
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and name.isidentifier() and isinstance(text, str) for name, text in value.items()
    ):
        raise TokenizerError(f"{where}: chat_template must be a text, or templates by name")
    return value


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """The file wins over the config, as in Transformers."""
    templates = checked_templates(config.get("chat_template"), str(folder / CONFIG))
    if (folder / TEMPLATE_JSON).is_file():
        stored = read_json(folder / TEMPLATE_JSON, MAX_CONFIG_BYTES, as_python=True)
        templates.update(checked_templates(stored.get("chat_template"), str(folder / TEMPLATE_JSON)))
    if (folder / TEMPLATE).is_file():
        templates["default"] = _read_text(folder / TEMPLATE)
    if (folder / TEMPLATE_FOLDER).is_dir():
        for path in sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))[:64]:
            templates[path.stem] = _read_text(path)
    return templates


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path, MAX_CONFIG_BYTES, as_python=True) if path.is_file() else {}


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise TokenizerError(f"{path}: larger than {MAX_CONFIG_BYTES:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path}: cannot be read: {error}") from error


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
