"""The GGUF model of a folder, beside files that are none: projectors for images, adapters, vocabularies."""

from collections.abc import Sequence
from pathlib import Path

from deepseek.checkpoint.file_kinds import is_gguf
from deepseek.checkpoint.gguf.file import PART_NAME, parse_file, part_names
from deepseek.errors import CheckpointError

_NO_MODELS = ("clip", "imatrix", "controlvector")  # architectures


def gguf_of(folder: Path) -> Path | None:
    """The only GGUF model here, by its first part. Raises CheckpointError that lists them when there are several."""
    named = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf" and _is_first_part(path.name))
    if not named:  # a folder of blobs without suffixes
        named = sorted(path for path in folder.iterdir() if not path.suffix and is_gguf(path))
    models = named if len(named) == 1 else [path for path in named if _is_model(path)]
    if len(models) > 1:
        listed = ", ".join(f"{path.name} ({_size(path)})" for path in models[:12])
        raise CheckpointError(f"{folder}: {len(models)} GGUF models; give the path of one: {listed}")
    return models[0] if models else None


def _is_first_part(name: str) -> bool:
    part = PART_NAME.fullmatch(name)
    return part is None or int(part["number"]) == 1


def _is_model(path: Path) -> bool:
    """A file that cannot be read counts: that it is damaged is for whoever opens it to say."""
    if not path.is_file():
        return False
    try:
        header = parse_file(path)
    except CheckpointError:
        return True
    kind, architecture = header.metadata.get("general.type"), header.metadata.get("general.architecture")
    has_weights = "token_embd.weight" in header.tensors or header.metadata.get("split.count", 0) > 1
    return kind in (None, "model") and architecture not in _NO_MODELS and has_weights


def _size(path: Path) -> str:
    parts: Sequence[Path] = [part for part in part_names(path) if part.exists()]
    size = sum(part.stat().st_size for part in parts)
    return f"{size / 1e9:.1f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"
