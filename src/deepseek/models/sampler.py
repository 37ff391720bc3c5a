"""One token from one row of logits. Every request draws from its own generator, so it depends on no other request."""

from dataclasses import fields

import torch
from torch import Tensor

from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams

CARRIED_OUT = frozenset(
    "max_tokens temperature top_k top_p min_p seed stop include_stop_str_in_output stop_token_ids ignore_eos "
    "skip_special_tokens".split()
)


class Sampler:
    """The random state of one request. Draws on the CPU in float64: the same on every device for the same logits.

    Raises GenerationError for settings that only the engine carries out.
    """

    def __init__(self, params: SamplingParams) -> None:
        for field in fields(params):
            if field.name not in CARRIED_OUT and getattr(params, field.name) != field.default:
                raise GenerationError(
                    f"{field.name} is not supported by the PyTorch reference: use the engine, or leave it out"
                )
        self.params = params
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    def choose(self, logits_v: Tensor) -> int:
        """The next token id. With temperature 0 the likeliest."""
        if self.params.temperature == 0:
            return int(logits_v.float().argmax())
        probabilities_v = filtered_probabilities(logits_v.cpu(), self.params)
        cumulated_v = probabilities_v.cumsum(0)
        draw = torch.rand((), dtype=torch.float64, generator=self._generator) * cumulated_v[-1]
        return int(torch.searchsorted(cumulated_v, draw, right=True).clamp(max=_last_possible(probabilities_v)))


def filtered_probabilities(logits_v: Tensor, params: SamplingParams) -> Tensor:
    """Probabilities (v,) in float64 after temperature, min_p, top_k and top_p; those cut are exactly 0.

    Of equally likely tokens at the border of top_k or top_p the lower ids stay. At least one token stays.
    """
    probabilities_v = (logits_v.double() / params.temperature).softmax(dim=-1)
    if params.min_p > 0:
        keep_v = probabilities_v >= params.min_p * probabilities_v.max()
        probabilities_v = _renormalised(probabilities_v, keep_v)
    if params.top_k or params.top_p < 1:
        sorted_v, order_v = probabilities_v.sort(descending=True, stable=True)
        if params.top_k:
            sorted_v[params.top_k :] = 0
        sorted_v = sorted_v / sorted_v.sum()
        reached_before_v = sorted_v.cumsum(0) - sorted_v
        sorted_v[reached_before_v >= params.top_p] = 0
        probabilities_v = torch.zeros_like(sorted_v).scatter(0, order_v, sorted_v / sorted_v.sum())
    return probabilities_v


def _renormalised(probabilities_v: Tensor, keep_v: Tensor) -> Tensor:
    kept_v = probabilities_v.where(keep_v, 0)
    return kept_v / kept_v.sum()


def _last_possible(probabilities_v: Tensor) -> int:
    return int(probabilities_v.nonzero().max())
