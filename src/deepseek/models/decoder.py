"""The decoder-only transformer of every family here.

- pre-norm residual layers: attention (grouped-query or multi-head latent), then a gated MLP or a mixture of experts
- rotary positions, RMSNorm, input and output embeddings tied or not
- prediction layers after the last (multi-token prediction, V3 section 2.2), which `forward` does not run: see `mtp`

Shape suffixes: b batch, t tokens of this call, s all tokens seen, m model size, v vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek.config import ModelConfig
from deepseek.errors import GenerationError
from deepseek.models.activation_checkpointing import Checkpointing
from deepseek.models.attention import AttentionInputs, GroupedQueryAttention, LatentForm
from deepseek.models.cache import KVCache, LayerCache
from deepseek.models.initialise import initialise
from deepseek.models.latent_attention import MultiHeadLatentAttention
from deepseek.models.mlp import Mlp
from deepseek.models.moe import MoE
from deepseek.models.norm import RMSNorm
from deepseek.models.rope import rotation
from deepseek.models.visibility import Visibility, visibility
from deepseek.progress import Report, silent
from deepseek.sampling import SamplingParams

if TYPE_CHECKING:
    from deepseek.models.generation import Generation, TokenEvent
    from deepseek.tokenizer.tokenizer import Tokenizer


class ModelOutput(NamedTuple):
    """What one forward pass gives.

    logits: (b, t, v) in the model's type. last_hidden_btm: after the final norm; what the heads read.
    hidden_btm: with output_hidden_states, the embedding and the output of each layer before the final norm.
    """

    logits: Tensor
    last_hidden_btm: Tensor
    hidden_btm: tuple[Tensor, ...] | None = None


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = MultiHeadLatentAttention(config) if config.mla else GroupedQueryAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: nn.Module
        if config.is_moe_layer(layer):
            self.mlp = MoE(config)
        else:
            self.mlp = Mlp(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)

    def forward(self, x_btm: Tensor, inputs: AttentionInputs, seen: Visibility, cache: LayerCache | None) -> Tensor:
        x_btm = x_btm + self.self_attn(self.input_layernorm(x_btm), inputs, seen, cache)
        output: Tensor = x_btm + self.mlp(self.post_attention_layernorm(x_btm))
        return output


class SharedHead(nn.Module):
    """The norm before the head of a prediction layer; the head itself is the model's."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class PredictionLayer(DecoderLayer):
    """A multi-token prediction module (V3, section 2.2): from the state of token i and token i + 1, token i + 2.

    Embedding and head are the model's own, so they have no parameters here.
    """

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.shared_head = SharedHead(config)

    def predict(
        self,
        hidden_btm: Tensor,
        next_embedding_btm: Tensor,
        inputs: AttentionInputs,
        seen: Visibility,
        cache: LayerCache | None,
    ) -> Tensor:
        """hidden: of the final norm, or of the prediction layer before; result: what the head reads, (b, t, m)."""
        joined = torch.cat((self.enorm(next_embedding_btm), self.hnorm(hidden_btm)), dim=-1)
        output: Tensor = self.shared_head.norm(self(self.eh_proj(joined), inputs, seen, cache))
        return output


class Decoder(nn.Module):
    """Embedding, layers (prediction layers last) and final norm; the part whose names start with "model."."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        total = config.num_hidden_layers + config.num_nextn_predict_layers
        kinds = [DecoderLayer if layer < config.num_hidden_layers else PredictionLayer for layer in range(total)]
        # Given its weight, Embedding draws none: `initialise` does, and drawing on the meta device costs seconds.
        empty = torch.empty(config.vocab_size, config.hidden_size)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, _weight=empty)
        self.layers = nn.ModuleList(kind(config, layer) for layer, kind in enumerate(kinds))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Model(nn.Module):
    """A language model, with random weights until `AutoModel` loads them. `.config` is its ModelConfig."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        tied = config.tie_word_embeddings
        self.lm_head = None if tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._checkpointing = Checkpointing()
        if self.device.type != "meta":
            initialise(self)

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.embed_tokens.weight.dtype

    @property
    def main_layers(self) -> nn.ModuleList:
        return self.model.layers[: self.config.num_hidden_layers]

    @property
    def prediction_layers(self) -> nn.ModuleList:
        return self.model.layers[self.config.num_hidden_layers :]

    @property
    def gradient_checkpointing(self) -> bool | frozenset[int]:
        """Which layers keep only their input for the backward pass and run again there: all, none, or these indices.

        Prediction layers count on from num_hidden_layers. Gradients are the same, random numbers included; memory is
        paid for with a second forward pass. Assigning an index that does not exist raises ConfigError.
        """
        return self._checkpointing.layers

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, layers: bool | Iterable[int]) -> None:
        self._checkpointing = self._checkpointing.of(layers, len(self.model.layers))

    @property
    def offload_checkpoints(self) -> bool:
        """Whether those inputs wait in the host's memory. On a CPU they are there already: then it changes nothing."""
        return self._checkpointing.offload

    @offload_checkpoints.setter
    def offload_checkpoints(self, offload: bool) -> None:
        self._checkpointing = replace(self._checkpointing, offload=offload)

    def run_layer(self, layer: int, run: Callable[..., Tensor], *inputs: object) -> Tensor:
        """run(*inputs), which is layer `layer`, kept for the backward pass as `gradient_checkpointing` says."""
        return self._checkpointing.run(layer, run, *inputs)

    def new_cache(self, capacity: int = 0) -> KVCache:
        return KVCache(self.config, capacity)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
        *,
        output_hidden_states: bool = False,
        latent_form: LatentForm = "auto",
        keep_logits: int | None = None,
    ) -> ModelOutput:
        """Logits (b, t, v) for input_ids (b, t).

        attention_mask: (b, s), nonzero for tokens and 0 for padding on either side, cached tokens included.
        position_ids: (b, t); by default tokens are counted from 0 without padding. cache: read and extended.
        keep_logits: compute logits of only the last so many tokens, 0 of none. latent_form: see `latent_attention`.
        Raises GenerationError for shapes that do not fit.
        """
        past = 0 if cache is None else cache.length
        _check_shapes(input_ids, attention_mask, past)
        queries = input_ids.shape[1]
        if position_ids is None:
            position_ids = _positions(attention_mask, past, queries, input_ids.device)
        inputs = self.attention_inputs(position_ids, latent_form)
        windows = {self.config.window_of(layer) for layer in range(self.config.num_hidden_layers)}
        seen_by = {
            window: visibility(attention_mask, queries=queries, past=past, window=window, device=input_ids.device)
            for window in windows
        }
        x_btm = self.model.embed_tokens(input_ids)
        states = [x_btm]
        for layer, module in enumerate(self.main_layers):
            layer_cache = None if cache is None else cache.layers[layer]
            seen = seen_by[self.config.window_of(layer)]
            x_btm = self.run_layer(layer, module, x_btm, inputs, seen, layer_cache)
            if output_hidden_states:
                states.append(x_btm)
        last_btm = self.model.norm(x_btm)
        kept_btm = last_btm if keep_logits is None else last_btm[:, last_btm.shape[1] - keep_logits :]
        return ModelOutput(self.head(kept_btm), last_btm, tuple(states) if output_hidden_states else None)

    def head(self, hidden_btm: Tensor) -> Tensor:
        """Normalised hidden states to logits (b, t, v)."""
        weight = self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return F.linear(hidden_btm, weight)

    def attention_inputs(self, position_ids_bt: Tensor, latent_form: LatentForm = "auto") -> AttentionInputs:
        cos_btr, sin_btr = rotation(self.config.rope, self.config.rope_dim, position_ids_bt)
        return AttentionInputs(cos_btr, sin_btr, latent_form)

    def room_after(self, prompt_ids: Sequence[int]) -> int:
        """How many tokens may follow this prompt. Raises GenerationError for one that is empty or too long to run."""
        limit = self.config.max_position_embeddings
        if not prompt_ids:
            raise GenerationError("the prompt is empty: it must have at least one token")
        if len(prompt_ids) >= limit:
            raise GenerationError(
                f"the prompt has {len(prompt_ids)} tokens, but this model takes {limit} in all "
                "(max_position_embeddings), one of them generated: shorten the prompt"
            )
        wrong = next((token for token in prompt_ids if not 0 <= token < self.config.vocab_size), None)
        if wrong is not None:
            raise GenerationError(
                f"token id {wrong} is outside the vocabulary of {self.config.vocab_size}: use this model's tokenizer"
            )
        return limit - len(prompt_ids)

    def generate(
        self, prompts: Any, params: SamplingParams | None = None, **options: Any
    ) -> "Generation | list[Generation]":
        """See `generation.generate`."""
        from deepseek.models.generation import generate

        return generate(self, prompts, params, **options)

    def stream(self, prompts: Any, params: SamplingParams | None = None, **options: Any) -> "Iterator[TokenEvent]":
        """See `generation.stream`."""
        from deepseek.models.generation import stream

        return stream(self, prompts, params, **options)

    def save_pretrained(
        self,
        folder: str | Path,
        tokenizer: "Tokenizer | None" = None,
        *,
        max_shard_bytes: int | None = None,
        report: Report = silent,
    ) -> None:
        """Write the Hugging Face layout (config.json, safetensors), which Transformers loads. See `saving.save`."""
        from deepseek.models.saving import save

        save(self, Path(folder), tokenizer, max_shard_bytes=max_shard_bytes, report=report)


def _positions(attention_mask: Tensor | None, past: int, queries: int, device: torch.device) -> Tensor:
    """(b or 1, t): the place of each token among its sequence's tokens; padding before the first is at 0."""
    if attention_mask is None:
        return torch.arange(past, past + queries, device=device)[None]
    counted: Tensor = attention_mask.long().cumsum(dim=-1) - 1
    return counted.clamp(min=0)[:, past:]


def _check_shapes(input_ids: Tensor, attention_mask: Tensor | None, past: int) -> None:
    if input_ids.dim() != 2 or input_ids.shape[1] == 0:
        raise GenerationError(
            f"input_ids must be (batch, tokens) with at least one token, not {tuple(input_ids.shape)}"
        )
    expected = (input_ids.shape[0], past + input_ids.shape[1])
    if attention_mask is not None and tuple(attention_mask.shape) != expected:
        raise GenerationError(
            f"attention_mask must be (batch, cached and new tokens) = {expected}, not {tuple(attention_mask.shape)}"
        )
