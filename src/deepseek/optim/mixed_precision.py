"""Training in float16 as one optimiser: which weights are float16, the loss scale, float32 masters."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from deepseek.errors import ConfigError
from deepseek.optim.adamw import AdamW
from deepseek.optim.clipping import clip_factor, gradient_norm
from deepseek.optim.loss_scale import LossScale

OptLevel = Literal["O0", "O1", "O2"]
KINDS = ("matrices", "stacks of matrices", "vectors")


class MixedPrecisionOptimizer(AdamW):
    """AdamW over parameters of which some groups are float16, with a scaled loss:

        optimizer = MixedPrecisionOptimizer(model.parameters(), fp16_groups=[0, 1, 2], loss_scale=128)
        with optimizer.autocast():
            loss = ...
        optimizer.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    params: parameters, or PyTorch's groups. Plain parameters make three groups: 0 matrices (embeddings too), 1 stacks
    of matrices (experts), 2 vectors (norms, biases). fp16_groups: which of them are float16; None: all. Groups 0 and 1
    go together: they are multiplied with the same activations.
    loss_scale: a fixed factor, or None for a dynamic one; a step whose gradients overflow is left out and counted.
    fp16_opt_level, as in NVIDIA Apex: O0 all float32; O1 float32 weights, float16 products under `autocast`; O2 float16
    weights (converted here, in place) with float32 masters. O3, float16 without masters, loses updates: not offered.
    clip_norm: of all gradients together. options: of AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        fp16_groups: Sequence[int] | None = None,
        loss_scale: float | None = None,
        fp16_opt_level: OptLevel = "O2",
        *,
        clip_norm: float | None = None,
        **options: Any,
    ) -> None:
        if fp16_opt_level not in get_args(OptLevel):
            raise ConfigError(f"fp16_opt_level must be one of {', '.join(get_args(OptLevel))}, not {fp16_opt_level!r}")
        given = list(params)
        is_plain = not (given and isinstance(given[0], dict))
        groups = _by_kind(given) if is_plain else [{**group, "params": list(group["params"])} for group in given]
        wanted = set(range(len(groups)) if fp16_groups is None else fp16_groups)
        _check_groups(wanted, groups, is_plain=is_plain)
        if fp16_opt_level == "O2":
            for at in wanted:
                for parameter in groups[at]["params"]:
                    parameter.data = parameter.data.half()
        self.fp16_opt_level = fp16_opt_level
        self.clip_norm = clip_norm
        self.loss_scale = LossScale(1.0 if fp16_opt_level == "O0" else loss_scale)
        self.skipped_steps = 0
        self._is_scaled = False
        super().__init__([group for group in groups if group["params"]], **options)
        types = {parameter.dtype for _, parameter in self.parameters()}
        self._needs_autocast = fp16_opt_level == "O1" or len(types) > 1

    def autocast(self) -> torch.autocast:
        """The context of a forward pass: products in float16 where weights are float32 (O1) or of both types."""
        device = next(iter(self.parameters()))[1].device.type
        return torch.autocast(device, dtype=torch.float16, enabled=self._needs_autocast)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the scaled loss; several calls before a step add up."""
        torch.autograd.backward(self.scale(loss))

    def scale(self, loss: Tensor) -> Tensor:
        """The loss times the scale, for code that calls `backward` by itself."""
        self._is_scaled = True
        return loss * self.loss_scale.factor

    def step(self, closure: Callable[[], float] | None = None, *, gradient_scale: float = 1.0) -> float | None:  # type: ignore[override]
        """Raises ConfigError when the gradients are those of a loss that was not scaled."""
        if closure is not None:
            raise ConfigError("MixedPrecisionOptimizer takes no closure: call backward(loss), then step()")
        if not self._is_scaled and self.loss_scale.factor != 1:
            raise ConfigError(
                "step() would divide gradients by the loss scale, but the loss was not scaled: call "
                "optimizer.backward(loss) instead of loss.backward()"
            )
        self._is_scaled = False
        factor = self.loss_scale.factor
        norm = gradient_norm(parameter for _, parameter in self.parameters()) / factor * gradient_scale
        finite = norm < float("inf")  # also False for nan
        if finite:
            super().step(gradient_scale=clip_factor(norm, self.clip_norm) * gradient_scale / factor)
        else:
            self.skipped_steps += 1
        self.loss_scale.update(finite=finite)
        return None

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "loss_scale": self.loss_scale.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = dict(state_dict)
        self.loss_scale.load_state_dict(own.pop("loss_scale"))
        super().load_state_dict(own)


def _by_kind(parameters: list[Tensor]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [{"params": []} for _ in KINDS]
    for parameter in parameters:
        groups[2 if parameter.dim() < 2 else 0 if parameter.dim() == 2 else 1]["params"].append(parameter)
    groups[2]["weight_decay"] = 0.0
    return groups


def _check_groups(wanted: set[int], groups: list[dict[str, Any]], *, is_plain: bool) -> None:
    known = ", ".join(f"{at} {kind}" for at, kind in enumerate(KINDS)) if is_plain else f"0 to {len(groups) - 1}"
    for at in sorted(wanted):
        if not 0 <= at < len(groups):
            raise ConfigError(f"fp16_groups: there is no group {at}; groups are {known}")
    if is_plain and groups[0]["params"] and groups[1]["params"] and len(wanted & {0, 1}) == 1:
        raise ConfigError(
            "fp16_groups: 0 matrices and 1 stacks of matrices are multiplied with the same activations: name both or "
            "neither"
        )
