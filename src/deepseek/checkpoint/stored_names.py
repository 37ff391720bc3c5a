"""From the names in a file to the canonical ones of `families.weights`, as wrappers and larger models leave them.

torch.compile, FSDP and activation checkpointing put a segment of their own into names; DDP, PEFT and models with
vision put something before them; a base model saved without its head has no `model.`. One rule reads them all: the
prefix is what stands before `embed_tokens.weight` where all other weights of the model stand behind the same.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deepseek.checkpoint.safetensors import Stored
from deepseek.errors import CheckpointError

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_EMBEDDING, _NORM, _HEAD = "embed_tokens.weight", "norm.weight", "lm_head.weight"
_CANONICAL = "model."


@dataclass(frozen=True)
class Named:
    """canonical: tensors of the model by canonical name. foreign: all others, by the name in the file."""

    canonical: dict[str, Stored]
    foreign: dict[str, Stored]


def canonical_names(stored: Mapping[str, Stored], missing: Callable[[Mapping[str, Stored]], int]) -> Named:
    """Find the prefix and rename.

    missing: how many weights of the model are not among canonical names. Raises CheckpointError when two copies of the
    model lie there and differ.
    """
    names = _unwrapped(stored)
    candidates = _candidates(names)
    if candidates == [_CANONICAL]:
        return _renamed(names, _CANONICAL)
    readings = [_renamed(names, prefix) for prefix in candidates]
    counts = [missing(reading.canonical) for reading in readings]
    if not readings:
        return _renamed(names, _CANONICAL)
    whole = [reading for reading, count in zip(readings, counts, strict=True) if count == 0]
    for other in whole[1:]:
        _check_same(whole[0], other)
    return whole[0] if whole else readings[counts.index(min(counts))]


def _unwrapped(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    names: dict[str, Stored] = {}
    for name, tensor in stored.items():
        plain = _WRAPPERS.sub("", name)
        if plain in names and not tensor.same_values(names[plain]):
            raise CheckpointError(
                f"{tensor.file.path}: {names[plain].name!r} and {name!r} are the same weight with other values; "
                "remove one"
            )
        names.setdefault(plain, tensor)
    return names


def _candidates(names: Mapping[str, Stored]) -> list[str]:
    """Prefixes that have an embedding and a last norm, the canonical one first."""
    found = {
        name.removesuffix(_EMBEDDING)
        for name in names
        if name.endswith(_EMBEDDING) and (name == _EMBEDDING or name[-len(_EMBEDDING) - 1] == ".")
    }
    whole = [prefix for prefix in found if prefix + _NORM in names]
    return sorted(whole, key=lambda prefix: (prefix != _CANONICAL, len(prefix), prefix))


def _renamed(names: Mapping[str, Stored], prefix: str) -> Named:
    head = _head_of(names, prefix)
    canonical: dict[str, Stored] = {}
    foreign: dict[str, Stored] = {}
    for name, tensor in names.items():
        if head is not None and name.startswith(head + "lm_head."):
            canonical[name.removeprefix(head)] = tensor
        elif name.startswith(prefix):
            canonical[_CANONICAL + name.removeprefix(prefix)] = tensor
        else:
            foreign[name] = tensor
    return Named(canonical, foreign)


def _head_of(names: Mapping[str, Stored], prefix: str) -> str | None:
    """What stands before `lm_head.`: the longest beginning of the prefix, also of one level above it."""
    segments = prefix.split(".")[:-1]
    befores = ["".join(segment + "." for segment in segments[:count]) for count in range(len(segments), -1, -1)]
    return next((before for before in befores if before + _HEAD in names), None)


def _check_same(ours: Named, theirs: Named) -> None:
    for name, tensor in ours.canonical.items():
        other = theirs.canonical.get(name)
        if other is not None and other != tensor and not other.same_values(tensor):
            raise CheckpointError(
                f"{tensor.file.path}: two copies of the model that differ, as {tensor.name!r} and as {other.name!r}; "
                "keep one of them in the file"
            )
