"""Carving: each feed-forward layer of a dense model into shared and routed experts, fitted on calibration text."""

from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek.config import ModelConfig
from deepseek.errors import ConfigError
from deepseek.models.decoder import DecoderLayer, Model
from deepseek.models.mlp import Mlp
from deepseek.models.weights import canonical_tensors
from deepseek.progress import Report, silent
from deepseek.training.carve.activations import CalibrationStreams
from deepseek.training.carve.compensation import ColumnFit
from deepseek.training.carve.grouping import Grouping, group_neurons
from deepseek.training.carve.layer import CarvedMlp, carved_layers
from deepseek.training.carve.routing import expert_sizes, fit_router
from deepseek.training.carve.target import carved_config, check_dense

_PARTS = 48  # of a layer: finer groups drop less that matters, and a part narrower than 32 cannot be quantised
_FEWEST = 8  # tiny layers are cut finer than can be quantised
_ACTIVE_SHARE = 0.75
_GROUPED_TOKENS = 24_576  # the first ones, which neurons are grouped by; the router and the columns are fitted to all
_TOKENS_AT_ONCE = 2048
_JUDGING = 8  # one part in so many judges how firmly columns are held


@dataclass(frozen=True, kw_only=True, slots=True)
class CarveConfig:
    """How a layer is divided: into `experts` routed experts and `shared` more of their width that every token passes.

    active: routed experts a token goes through. compensate: refit the output columns to `active`; all experts on then
    no longer give the dense model back.
    """

    experts: int
    shared: int
    active: int
    compensate: bool = True
    seed: int = 0

    @classmethod
    def usual(
        cls,
        intermediate_size: int,
        *,
        experts: int | None = None,
        shared: int | None = None,
        active: int | None = None,
        compensate: bool = True,
        seed: int = 0,
    ) -> Self:
        """What is not given follows: about 48 parts, a third of them shared, three quarters active."""
        even = [n for n in range(3, intermediate_size + 1) if intermediate_size % n == 0]
        quantisable = [n for n in even if intermediate_size // n % 32 == 0 and n >= _FEWEST]
        parts = min(quantisable or even, key=lambda n: abs(n - _PARTS), default=_PARTS)
        if experts is not None:
            parts = experts + (shared if shared is not None else round(experts / 2))
        shared = round(parts / 3) if shared is None else shared
        experts = parts - shared if experts is None else experts
        active = max(1, round(_ACTIVE_SHARE * parts) - shared) if active is None else active
        return cls(experts=experts, shared=shared, active=active, compensate=compensate, seed=seed)

    def __post_init__(self) -> None:
        if self.experts < 2 or self.shared < 0:
            raise ConfigError(f"experts must be at least 2 and shared not negative, not {self.experts}, {self.shared}")
        if not 1 <= self.active <= self.experts:
            raise ConfigError(f"active must be from 1 to experts ({self.experts}), not {self.active}")

    @property
    def active_share(self) -> float:
        """Of the feed-forward neurons, how many a token goes through."""
        return (self.active + self.shared) / (self.experts + self.shared)

    def width(self, intermediate_size: int) -> int:
        """Neurons of an expert. Raises ConfigError unless they come out whole."""
        parts = self.experts + self.shared
        if intermediate_size % parts:
            near = min((n for n in range(2, 257) if intermediate_size % n == 0), key=lambda n: abs(n - parts))
            raise ConfigError(
                f"intermediate_size ({intermediate_size}) must be a multiple of experts + shared ({parts}); "
                f"{near} parts would do"
            )
        return intermediate_size // parts


class Carving:
    """A dense model whose MLPs are `CarvedMlp`: it runs, it can be distilled, and it becomes an ordinary model."""

    def __init__(self, model: Model, carve_config: CarveConfig) -> None:
        self.model = model
        self.carve_config = carve_config

    @classmethod
    def unfitted(cls, model: Model, config: CarveConfig) -> Self:
        """Of the right shape, `model` changed in place: its weights are then loaded."""
        width = config.width(model.config.intermediate_size)
        order_i = torch.arange(model.config.intermediate_size)
        for layer in cast(list[DecoderLayer], list(model.main_layers)):
            layer.mlp = CarvedMlp(cast(Mlp, layer.mlp), Grouping(order_i, config.shared * width, width), config.active)
        return cls(model, config)

    def config(self) -> ModelConfig:
        """Of the carved model."""
        carve, dense = self.carve_config, self.model.config
        width = carve.width(dense.intermediate_size)
        return carved_config(dense, experts=carve.experts, active=carve.active, shared=carve.shared, width=width)

    def set_active(self, active: int) -> None:
        """Let every token through so many routed experts, as far as this model's forward pass goes."""
        for mlp in carved_layers(self.model):
            mlp.active = active

    @torch.no_grad()
    def to_model(self) -> Model:
        """The mixture of experts, of the same type: save it with `save_pretrained`."""
        with torch.device("meta"):
            carved = Model(self.config())
        carved.to(self.model.dtype).to_empty(device=self.model.device)
        sources = self._tensors()
        for name, target in canonical_tensors(carved).items():
            target.copy_(sources[name])
        return carved.eval()

    def _tensors(self) -> dict[str, Tensor]:
        dense = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        tensors = {name: tensor.detach() for name, tensor in dense.items() if ".mlp." not in name}
        for number, mlp in enumerate(carved_layers(self.model)):
            at = f"model.layers.{number}.mlp."
            tensors |= {at + name: tensor for name, tensor in mlp.checkpoint_tensors().items()}
        return tensors


@torch.no_grad()
def carve(model: Model, windows_wt: Tensor, config: CarveConfig, *, report: Report = silent) -> Carving:
    """Carve `model`, a float32 one, in place. windows: of the calibration text, 100,000 tokens or more in all.

    Raises ConfigError for a model that cannot be carved, or not into so many parts.
    """
    check_dense(model.config)
    width = config.width(model.config.intermediate_size)
    model.eval()
    streams = CalibrationStreams(model, windows_wt)
    layers = cast(list[DecoderLayer], list(model.main_layers))
    for number, layer in enumerate(layers):
        report("carving layers", number, len(layers), "layers")
        _carve_layer(layer, streams, config, width)
    report("carving layers", len(layers), len(layers), "layers")
    return Carving(model, config)


def _carve_layer(layer: DecoderLayer, streams: CalibrationStreams, config: CarveConfig, width: int) -> None:
    dense_nm, carved_nm = streams.enter(layer)
    dense = cast(Mlp, layer.mlp)
    mlp = CarvedMlp(dense, _grouping(dense, dense_nm[:_GROUPED_TOKENS], config, width), config.active)
    _fit_router(mlp, carved_nm, config.experts)
    output_nm = _in_parts(dense, dense_nm)
    if config.compensate and config.active < config.experts:
        mlp.down_proj.copy_(_refitted_columns(mlp, carved_nm, output_nm + streams.lag()))
    streams.leave(output_nm, _in_parts(mlp, carved_nm))
    layer.mlp = mlp


def _grouping(dense: Mlp, x_nm: Tensor, config: CarveConfig, width: int) -> Grouping:
    activations_ni = torch.mul(F.silu(dense.gate_proj(x_nm)), dense.up_proj(x_nm))
    return group_neurons(
        activations_ni.abs() * dense.down_proj.weight.norm(dim=0),
        x_nm,
        experts=config.experts,
        shared=config.shared * width,
        width=width,
        active=config.active,
        seed=config.seed,
    )


def _fit_router(mlp: CarvedMlp, x_nm: Tensor, experts: int) -> None:
    length_i = mlp.down_proj[:, mlp.shared :].norm(dim=0)
    sizes_ne = [
        expert_sizes(mlp.activations(part_nm)[:, mlp.shared :].abs() * length_i, experts)
        for part_nm in torch.split(x_nm, _TOKENS_AT_ONCE)
    ]
    mlp.set_router(*fit_router(x_nm, torch.cat(sizes_ne)), x_nm)


def _refitted_columns(mlp: CarvedMlp, x_nm: Tensor, wanted_nm: Tensor) -> Tensor:
    fit = ColumnFit(mlp.down_proj.detach())
    parts = zip(torch.split(x_nm, _TOKENS_AT_ONCE), torch.split(wanted_nm, _TOKENS_AT_ONCE), strict=True)
    for number, (part_nm, wanted_part_nm) in enumerate(parts):
        masked_ni = mlp.masked(mlp.activations(part_nm), mlp.open_experts(part_nm))
        fit.add(masked_ni, wanted_part_nm, judging=number % _JUDGING == _JUDGING - 1)
    return fit.columns()


def _in_parts(mlp: nn.Module, x_nm: Tensor) -> Tensor:
    return torch.cat([mlp(part_nm) for part_nm in torch.split(x_nm, _TOKENS_AT_ONCE)])
