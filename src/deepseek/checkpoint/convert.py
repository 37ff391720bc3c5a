"""Any checkpoint to a folder in the Hugging Face layout or to one GGUF file, with its tokenizer."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from deepseek.checkpoint.checkpoint import Checkpoint, open_checkpoint
from deepseek.checkpoint.decode import from_float32, to_float32
from deepseek.checkpoint.dtypes import GGUF_BLOCKS, byte_size
from deepseek.checkpoint.gguf.checkpoint import GgufCheckpoint
from deepseek.checkpoint.gguf.export import WRITABLE, export_gguf
from deepseek.checkpoint.save import save_checkpoint
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig
from deepseek.errors import CheckpointError
from deepseek.families.weights import CORRECTION_BIAS
from deepseek.number_types import choice_of
from deepseek.progress import Report, silent

Format = Literal["safetensors", "gguf"]
SAFETENSORS_TYPES = ("F32", "F16", "BF16")

# What a folder may hold beside weights that others read: the tokenizer's files and the defaults of generation.
_COMPANIONS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json"),
)
_MAX_COMPANION_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written. types: elements by type. notes: what differs from the source, a sentence each."""

    path: Path
    format: Format
    size: int
    types: dict[str, int]
    notes: tuple[str, ...]


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: Format | None = None,
    dtype: str | None = None,
    overwrite: bool = False,
    allow_unknown: bool = False,
    report: Report = silent,
) -> Conversion:
    """Write the checkpoint at `source` (a folder, .safetensors or .gguf) anew at `destination`.

    to: by default "gguf" when the destination ends so, otherwise "safetensors" (a folder). dtype: F32, F16, BF16, and
    for GGUF also Q8_0 and Q4_0, in any spelling of `number_types`; by default every weight keeps its type where the
    format has it, and otherwise becomes F32 (GGUF's blocks, exactly) or BF16 (FP8 in GGUF, noted). The router's
    correction bias is always F32; `export` says which other tensors GGUF keeps in F32.

    One tensor is in memory at a time. Nothing appears at `destination` unless all went well. Raises CheckpointError
    (also when something is there and `overwrite` is false), ConfigError or TokenizerError.
    """
    source, destination = Path(source), Path(destination)
    chosen: Format = to or ("gguf" if destination.suffix == ".gguf" else "safetensors")
    dtype = None if dtype is None else choice_of(dtype, _types(chosen))
    _check_request(source, destination, chosen, dtype, overwrite)
    with open_checkpoint(source, allow_unknown=allow_unknown) as checkpoint:
        write = _to_gguf if chosen == "gguf" else _to_safetensors
        return write(checkpoint, destination, dtype, report)


def _types(to: str) -> tuple[str, ...]:
    return WRITABLE if to == "gguf" else SAFETENSORS_TYPES


def _check_request(source: Path, destination: Path, to: str, dtype: str | None, overwrite: bool) -> None:
    if to not in get_args(Format):
        raise CheckpointError(f"to is {to!r}; it must be one of {', '.join(get_args(Format))}")
    if dtype is not None and dtype not in _types(to):
        raise CheckpointError(f"dtype is {dtype!r:.60}; {to} is written as one of {', '.join(_types(to))}")
    if to == "gguf" and (destination.suffix != ".gguf" or destination.is_dir()):
        raise CheckpointError(f"{destination} must name a file that ends in .gguf")
    if to == "safetensors" and (destination.is_file() or destination.suffix in (".gguf", ".safetensors")):
        raise CheckpointError(f"{destination} must name a folder: weights, config.json and tokenizer go there")
    if destination.resolve() in (source.resolve(), source.resolve().parent if source.is_file() else None):
        raise CheckpointError(f"{destination} is where the source lies; choose another destination")
    taken = destination.is_file() or (destination.is_dir() and any(destination.iterdir()))
    if taken and not overwrite:
        raise CheckpointError(f"{destination} already exists; choose another destination, or overwrite it (--force)")


def _to_gguf(source: Checkpoint, destination: Path, dtype: str | None, report: Report) -> Conversion:
    exported = export_gguf(
        source, destination, _vocabulary(source), dtype=dtype, name=_model_name(source), report=report
    )
    return Conversion(
        path=destination,
        format="gguf",
        size=exported.size,
        types=dict(exported.types),
        notes=tuple(exported.notes),
    )


def _model_name(source: Checkpoint) -> str:
    name = source.file.metadata.get("general.name") if isinstance(source, GgufCheckpoint) else None
    return name if isinstance(name, str) else source.path.absolute().stem


def _vocabulary(source: Checkpoint) -> dict[str, Any]:
    """The keys `tokenizer.*`: a GGUF source's own, otherwise those of its tokenizer and of its configuration."""
    if isinstance(source, GgufCheckpoint):
        return {key: value for key, value in source.file.metadata.items() if key.startswith("tokenizer.")}
    from deepseek.tokenizer import AutoTokenizer, tokenizer_to_gguf

    folder = source.path if source.path.is_dir() else source.path.parent
    metadata = tokenizer_to_gguf(AutoTokenizer.from_pretrained(folder), vocab_size=source.config.vocab_size)
    return metadata | _special_tokens(source.config, metadata)


def _special_tokens(config: ModelConfig, metadata: dict[str, Any]) -> dict[str, Any]:
    """Token ids that only config.json gives. GGUF has room for two that end a text."""
    at = "tokenizer.ggml."
    given = {"bos_token_id": config.bos_token_id, "padding_token_id": config.pad_token_id}
    ends = [token for token in config.eos_token_ids if token != metadata.get(f"{at}eos_token_id")]
    for name in ("eos_token_id", "eot_token_id"):
        if ends and f"{at}{name}" not in metadata:
            given[name] = ends.pop(0)
    return {at + name: token for name, token in given.items() if token is not None and at + name not in metadata}


def _to_safetensors(source: Checkpoint, destination: Path, dtype: str | None, report: Report) -> Conversion:
    config = source.config if dtype is None else replace(source.config, fp8_block=None)
    types: Counter[str] = Counter()
    size = 0

    def tensors() -> Iterator[tuple[str, RawTensor]]:
        nonlocal size
        for name in source.names():
            tensor = _as_type(name, source.raw(name), dtype, str(source.path))
            types[tensor.dtype] += tensor.elements
            size += len(tensor.data)
            yield name, tensor

    expected = None if dtype is None else sum(byte_size(dtype, source.shape(name)) for name in source.names())
    save_checkpoint(
        destination, config, tensors(), extra_files=_companions(source), total_bytes=expected, report=report
    )
    return Conversion(path=destination, format="safetensors", size=size, types=dict(types), notes=())


def _as_type(name: str, tensor: RawTensor, dtype: str | None, where: str) -> RawTensor:
    if dtype is None:
        wanted = "F32" if tensor.dtype in GGUF_BLOCKS else tensor.dtype
    else:
        wanted = "F32" if name.endswith(CORRECTION_BIAS) else dtype
    if wanted == tensor.dtype:
        return tensor
    try:
        return from_float32(to_float32(tensor), wanted)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: tensor {name!r}: {error}") from None


def _companions(source: Checkpoint) -> dict[str, bytes]:
    """The tokenizer's files, by name: copied from a folder, made from a GGUF file's vocabulary."""
    if not isinstance(source, GgufCheckpoint):
        folder = source.path if source.path.is_dir() else source.path.parent
        return _read_files(folder)
    if "tokenizer.ggml.model" not in source.file.metadata:
        return {}
    from deepseek.tokenizer import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder_name:
        AutoTokenizer.from_pretrained(source.path).save_pretrained(folder_name)
        return _read_files(Path(folder_name))


def _read_files(folder: Path) -> dict[str, bytes]:
    files = {}
    for name in _COMPANIONS:
        path = folder / name
        if not path.is_file():
            continue
        if path.stat().st_size > _MAX_COMPANION_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes, which no tokenizer needs")
        files[name] = path.read_bytes()
    return files
