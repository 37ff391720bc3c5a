"""Where each weight lies in safetensors files: by itself (hub files) or in a fused expert tensor (Transformers 5).

Fused: `mlp.experts.gate_up_proj` (experts, 2 x width, hidden), gate before up, and `mlp.experts.down_proj` (experts,
hidden, width). An FP8 weight X has its scales in `X_scale_inv`, fused or not.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from deepseek.checkpoint.fp8 import scale_shape, scale_values
from deepseek.checkpoint.safetensors import Entry, Stored
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import ModelConfig, MoeConfig
from deepseek.errors import CheckpointError
from deepseek.families.weights import Shape

SCALE_SUFFIX = "_scale_inv"
WEIGHT_TYPES = ("F32", "F16", "BF16", "F8_E4M3")

_FUSED = re.compile(r"(model\.layers\.(\d+)\.mlp\.experts)\.(gate_up_proj|down_proj)")


@dataclass(frozen=True, slots=True)
class Place:
    """A weight in a file: the tensor `stored`, or of its entry `expert` the rows from start to stop.

    source: the canonical name of that tensor; its scales are looked up by it.
    """

    source: str
    stored: Stored
    shape: Shape
    expert: int | None = None
    rows: tuple[int, int] = (0, 0)

    @property
    def entry(self) -> Entry:
        return self.stored.entry


def places_of(config: ModelConfig, sources: Mapping[str, Stored]) -> dict[str, Place]:
    """Canonical name -> place, for every tensor but the scales of a weight that is there. Raises CheckpointError."""
    places: dict[str, Place] = {}
    for source, stored in sources.items():
        if source.endswith(SCALE_SUFFIX) and source.removesuffix(SCALE_SUFFIX) in sources:
            continue
        for name, place in _parts(config, source, stored):
            if name in places:
                raise CheckpointError(
                    f"{stored.file.path}: {name!r} is stored twice, as {places[name].source!r} and as {source!r}; "
                    "remove one"
                )
            places[name] = place
    return places


def _parts(config: ModelConfig, source: str, stored: Stored) -> Iterator[tuple[str, Place]]:
    fused = _FUSED.fullmatch(source)
    if fused is None or config.moe is None or not config.is_moe_layer(int(fused[2])):
        yield source, Place(source, stored, stored.entry.shape)
        return
    experts, projection = fused[1], fused[3]
    width, hidden = config.moe.moe_intermediate_size, config.hidden_size
    _check_fused_shape(config.moe, hidden, stored)
    for expert in range(config.moe.n_routed_experts):
        at = f"{experts}.{expert}."
        if projection == "down_proj":
            yield f"{at}down_proj.weight", Place(source, stored, (hidden, width), expert, (0, hidden))
        else:
            yield f"{at}gate_proj.weight", Place(source, stored, (width, hidden), expert, (0, width))
            yield f"{at}up_proj.weight", Place(source, stored, (width, hidden), expert, (width, 2 * width))


def _check_fused_shape(moe: MoeConfig, hidden: int, stored: Stored) -> None:
    width, found = moe.moe_intermediate_size, stored.entry.shape
    per_expert = (hidden, width) if stored.name.endswith("down_proj") else (2 * width, hidden)
    if found != (expected := (moe.n_routed_experts, *per_expert)):
        raise CheckpointError(
            f"{stored.file.path}: tensor {stored.name!r} has shape {list(found)}, but the configuration asks for "
            f"{list(expected)}; check that config.json belongs to these weights"
        )


def check_types(config: ModelConfig, places: Mapping[str, Place], sources: Mapping[str, Stored]) -> None:
    """Raise CheckpointError unless every weight is of a type that can be read and FP8 weights have their scales."""
    for place in {place.source: place for place in places.values()}.values():
        at = f"{place.stored.file.path}: tensor {place.stored.name!r}"
        dtype = place.entry.dtype
        if dtype not in WEIGHT_TYPES:
            raise CheckpointError(f"{at} is of type {dtype}; weights can be {', '.join(WEIGHT_TYPES)}")
        scale = place.source + SCALE_SUFFIX
        if dtype == "F8_E4M3":
            _check_fp8(config, place, scale, sources)
        elif scale in sources:
            path = sources[scale].file.path
            raise CheckpointError(f"{path}: scales {scale!r} belong to a weight of type {dtype}, not FP8; remove them")


def _check_fp8(config: ModelConfig, place: Place, scale: str, sources: Mapping[str, Stored]) -> None:
    at = f"{place.stored.file.path}: FP8 tensor {place.stored.name!r}"
    if config.fp8_block is None:
        raise CheckpointError(
            f"{at}: config.json does not say how it is scaled; it needs quantization_config with quant_method 'fp8' and"
            " weight_block_size"
        )
    if len(place.entry.shape) < 2:
        raise CheckpointError(f"{at} is not a matrix, and only matrices have block scales; store it as BF16 or F32")
    if scale not in sources:
        raise CheckpointError(f"{at}: its scales {scale!r} are missing; fetch the checkpoint again")
    entry, expected = sources[scale].entry, scale_shape(place.entry.shape, config.fp8_block)
    if entry.dtype != "F32" or entry.shape != expected:
        raise CheckpointError(
            f"{sources[scale].file.path}: scales {scale!r} are {entry.dtype} {list(entry.shape)}, but blocks of "
            f"{list(config.fp8_block)} ask for F32 {list(expected)}; check weight_block_size in config.json"
        )
    if place.expert is not None and place.rows[0] % config.fp8_block[0]:
        raise CheckpointError(
            f"{at}: gate and up share a row of scales ({place.rows[0]} rows of gate are not a multiple of "
            f"{config.fp8_block[0]}); store one tensor an expert"
        )


def read(place: Place, sources: Mapping[str, Stored], fp8_block: tuple[int, int] | None) -> RawTensor:
    """The weight, sharing the bytes of its file if they are aligned there.

    Raises CheckpointError naming scales that are not usable.
    """
    tensor = place.stored.tensor()
    name = place.source + SCALE_SUFFIX
    if tensor.dtype == "F8_E4M3":
        scale = sources[name].tensor()
        tensor = RawTensor(tensor.dtype, tensor.shape, tensor.data, scale=scale, scale_block=fp8_block)
    if place.expert is not None:
        tensor = tensor.entry(place.expert).slice_first(*place.rows)
    tensor = tensor.aligned()
    if tensor.scale is not None:
        try:
            scale_values(tensor.scale)
        except CheckpointError as error:
            raise CheckpointError(f"{sources[name].file.path}: {name!r}: {error}") from None
    return tensor
