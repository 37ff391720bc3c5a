"""Calibration text through a model layer by layer: only one layer's activations are ever held.

Two streams run side by side, the dense model's and the carved one's, so that what a layer is fitted to takes in what
the layers before it already got wrong.

Shape suffixes: w windows, t tokens of a window, n tokens of all windows, m model size.
"""

import torch
from torch import Tensor

from deepseek.models.attention import AttentionInputs
from deepseek.models.decoder import DecoderLayer, Model
from deepseek.models.visibility import Visibility, visibility

_WINDOWS_AT_ONCE = 8


class CalibrationStreams:
    """`enter` a layer (attention, norm), read what its MLP sees, then `leave` it with what its MLPs gave."""

    def __init__(self, model: Model, windows_wt: Tensor) -> None:
        self._inputs: AttentionInputs = model.attention_inputs(torch.arange(windows_wt.shape[1])[None])
        self._seen: Visibility = visibility(
            None, queries=windows_wt.shape[1], past=0, window=None, device=windows_wt.device
        )
        self.dense_wtm = model.model.embed_tokens(windows_wt).float()
        self.carved_wtm = self.dense_wtm.clone()

    def enter(self, layer: DecoderLayer) -> tuple[Tensor, Tensor]:
        """What the layer's MLP sees in the dense model and in the carved one, both (n, m)."""
        self.dense_wtm = self._attend(layer, self.dense_wtm)
        self.carved_wtm = self._attend(layer, self.carved_wtm)
        norm = layer.post_attention_layernorm
        return torch.flatten(norm(self.dense_wtm), 0, 1), torch.flatten(norm(self.carved_wtm), 0, 1)

    def leave(self, dense_nm: Tensor, carved_nm: Tensor) -> None:
        self.dense_wtm = self.dense_wtm + dense_nm.view_as(self.dense_wtm)
        self.carved_wtm = self.carved_wtm + carved_nm.view_as(self.carved_wtm)

    def lag(self) -> Tensor:
        """(n, m): what the carved stream lacks before the layer's MLPs."""
        return torch.flatten(self.dense_wtm - self.carved_wtm, 0, 1)

    def _attend(self, layer: DecoderLayer, x_wtm: Tensor) -> Tensor:
        parts = torch.split(x_wtm, _WINDOWS_AT_ONCE)
        return torch.cat([x + layer.self_attn(layer.input_layernorm(x), self._inputs, self._seen, None) for x in parts])
