"""One layer of latent attention, in kernels and in the reference, from the same random weights."""

from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from deepseek.checkpoint.packed.format import PackedTensor
from deepseek.checkpoint.packed.quantize import quantize
from deepseek.config import IndexerConfig, MlaConfig, ModelConfig, RopeConfig
from deepseek.engine.batch import Chunk
from deepseek.engine.decoder_plan import DecoderPlan, Pool, layer_cache_bytes
from deepseek.engine.latent_plan import emit_latent_attention
from deepseek.engine.plan_builder import PlanBuilder
from deepseek.engine.step_tables import StepTables
from deepseek.kernels.attention_store import BLOCK
from deepseek.kernels.plan import PRIVATE_ROWS
from deepseek.kernels.team import team_of
from deepseek.models.attention import AttentionInputs, LatentForm
from deepseek.models.cache import LayerCache
from deepseek.models.latent_attention import MultiHeadLatentAttention
from deepseek.models.rope import rotation
from deepseek.models.visibility import visibility
from deepseek.packing import Packing, pack_codes, pack_floats, unpack

Floats = NDArray[np.float32]
LAYER = "model.layers.0."
ATTENTION = LAYER + "self_attn."
YARN = RopeConfig(
    theta=800.0, scaling="yarn", factor=4.0, original_max_position_embeddings=24, beta_fast=6.0, beta_slow=1.5,
    interleaved=True, mscale=0.9, mscale_all_dim=0.6,
)  # fmt: skip
TINY = MlaConfig(kv_lora_rank=16, q_lora_rank=None, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10)
V2_LITE = MlaConfig(kv_lora_rank=512, q_lora_rank=None, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128)
INT8 = Packing("int8", 32)
F32 = Packing("f32")


def config_of(
    mla: MlaConfig = TINY, *, hidden: int = 48, heads: int = 6, rope: RopeConfig = YARN, bias: bool = True,
    indexer: IndexerConfig | None = None, length: int = 4096,
) -> ModelConfig:  # fmt: skip
    return ModelConfig(
        family="deepseek_v2", vocab_size=32, hidden_size=hidden, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=heads, num_key_value_heads=heads, head_dim=mla.qk_head_dim, max_position_embeddings=length,
        rms_norm_eps=0.02, rope=rope, attention_bias=bias, mla=mla, indexer=indexer,
    )  # fmt: skip


class Weights:
    """Random weights as a store has them. `exact`: the values that the packed matrices stand for, by name."""

    def __init__(self, config: ModelConfig, packing: Packing, seed: int = 0) -> None:
        self.config = config
        self.packing = packing
        self.exact: dict[str, Floats] = {}
        self.tensors: dict[str, PackedTensor] = {}
        self._parts: list[NDArray[np.uint8]] = []
        self._end = 0
        self._rng = np.random.default_rng(seed)
        self._fill()
        raw = np.zeros(self._end + 4096 + 64, np.uint8)
        start = -raw.ctypes.data % 64
        self.data = raw[start:]
        for tensor, part in zip(self.tensors.values(), self._parts, strict=True):
            self.data[tensor.offset : tensor.offset + part.size] = part

    def _fill(self) -> None:
        config, mla = self.config, self.config.mla
        assert mla is not None
        model, heads = config.hidden_size, config.num_attention_heads
        bias = config.attention_bias
        self._vector(LAYER + "input_layernorm.weight", model)
        if mla.q_lora_rank is None:
            self._linear("q_proj", heads * mla.qk_head_dim, model)
        else:
            self._linear("q_a_proj", mla.q_lora_rank, model, bias)
            self._vector(ATTENTION + "q_a_layernorm.weight", mla.q_lora_rank)
            self._linear("q_b_proj", heads * mla.qk_head_dim, mla.q_lora_rank)
        self._linear("kv_a_proj_with_mqa", mla.kv_lora_rank + mla.qk_rope_head_dim, model, bias)
        self._vector(ATTENTION + "kv_a_layernorm.weight", mla.kv_lora_rank)
        nope, value, rank = mla.qk_nope_head_dim, mla.v_head_dim, mla.kv_lora_rank
        up = self._random(heads * (nope + value), rank).reshape(heads, nope + value, rank)
        for name, matrices in (
            ("k_up", up[:, :nope]), ("k_absorb", up[:, :nope].transpose(0, 2, 1)), ("v_up", up[:, nope:])
        ):  # fmt: skip
            for head in range(heads):
                self._matrix(f"{ATTENTION}{name}.{head}.weight", matrices[head])
        self._linear("o_proj", model, heads * value)
        if config.indexer is not None:
            sizes = config.indexer
            assert mla.q_lora_rank is not None
            self._linear("indexer.wq_b", sizes.index_n_heads * sizes.index_head_dim, mla.q_lora_rank)
            self._linear("indexer.wk", sizes.index_head_dim, model)
            self._vector(ATTENTION + "indexer.k_norm.weight", sizes.index_head_dim)
            self._vector(ATTENTION + "indexer.k_norm.bias", sizes.index_head_dim)
            self._matrix(ATTENTION + "indexer.weights_proj.weight", self._random(sizes.index_n_heads, model), F32)

    def _random(self, rows: int, inputs: int) -> Floats:
        return (self._rng.standard_normal((rows, inputs)) * inputs**-0.5).astype(np.float32)

    def _linear(self, name: str, rows: int, inputs: int, bias: bool = False) -> None:
        self._matrix(f"{ATTENTION}{name}.weight", self._random(rows, inputs))
        if bias:
            self._vector(f"{ATTENTION}{name}.bias", rows, around=0.0)

    def _vector(self, name: str, count: int, around: float = 1.0) -> None:
        values = (around + 0.3 * self._rng.standard_normal(count)).astype(np.float32)
        self.exact[name] = values
        part = np.zeros(-(-count // 128) * 128, np.float32)  # `prepare` reads whole groups of them
        part[:count] = values
        self._add(name, part.view(np.uint8), PackedTensor(None, 1, count, self._end, part.nbytes, "vector"))

    def _matrix(self, name: str, values: Floats, packing: Packing | None = None) -> None:
        packing = packing or self.packing
        values = np.ascontiguousarray(values)
        rows, inputs = values.shape
        if packing.is_integer:
            padded = np.zeros((rows, packing.padded_inputs(inputs)), np.float32)
            padded[:, :inputs] = values
            codes, scales = quantize(padded, packing)
            part = pack_codes(packing, codes, scales, None)
        elif packing.kind == "bf16":
            part = pack_floats(packing, (values.view(np.uint32) >> 16).astype(np.uint16))
        else:
            part = pack_floats(packing, values)
        self.exact[name] = unpack(packing, part, rows, inputs)
        self._add(name, part, PackedTensor(packing, rows, inputs, self._end, part.nbytes, "matrix"))

    def _add(self, name: str, part: NDArray[np.uint8], tensor: PackedTensor) -> None:
        self.tensors[name] = tensor
        self._parts.append(part)
        self._end += -(-part.nbytes // 64) * 64

    def reference(self, form: LatentForm) -> MultiHeadLatentAttention:
        """With exactly the values that the kernels of that form read."""
        module = MultiHeadLatentAttention(self.config)
        state = {name.removeprefix(ATTENTION): value for name, value in self.exact.items() if ATTENTION in name}
        keys, values = [], []
        for head in range(self.config.num_attention_heads):
            absorbed, expanded = state.pop(f"k_absorb.{head}.weight").T, state.pop(f"k_up.{head}.weight")
            keys.append(absorbed if form == "absorbed" else expanded)
            values.append(state.pop(f"v_up.{head}.weight"))
        state["kv_b_proj.weight"] = np.concatenate([part for pair in zip(keys, values, strict=True) for part in pair])
        module.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()})
        return module

    def normed(self, x: Floats) -> Floats:
        factor = 1 / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + self.config.rms_norm_eps)
        return (x * factor * self.exact[LAYER + "input_layernorm.weight"]).astype(np.float32)

    @torch.no_grad()
    def expected(self, x: Floats, form: LatentForm) -> Floats:
        """The layer's output for a whole sequence (tokens, hidden), without the residual; halves in the cache."""
        normed = torch.from_numpy(self.normed(x))[None]
        config, mla = self.config, self.config.mla
        assert mla is not None
        count = len(x)
        cos, sin = rotation(config.rope, mla.qk_rope_head_dim, torch.arange(count)[None])
        seen = visibility(None, queries=count, past=0, window=None, device=torch.device("cpu"))
        cache = LayerCache(0)
        for name in ("latents", "rope_keys", "index_keys"):
            setattr(cache, name, _HalfRows())
        output = self.reference(form)(normed, AttentionInputs(cos, sin, form), seen, cache)
        return cast(Floats, output[0].numpy())


class _HalfRows:
    """Stands in for `GrowingTensor`: what the engine's cache would give back."""

    length = 0

    def append(self, new_bt: torch.Tensor) -> torch.Tensor:
        return new_bt.half().float()


@dataclass
class Tokens:
    """A sequence: the layer's input of each token, and how many of them are a prompt."""

    x: Floats
    n_prompt: int
    block_table: list[int] = field(default_factory=list)

    @property
    def token_ids(self) -> list[int]:
        return [0] * len(self.x)


class LatentWorld:
    """Runs steps of one layer. Cache blocks are given out in a shuffled order."""

    def __init__(self, weights: Weights, *, threads: int = 1, rows: int = 64, blocks: int = 64, chunks: int = 32,
                 wide: bool = False, poison: bool = True) -> None:  # fmt: skip
        config = weights.config
        store = cast(Any, SimpleNamespace(tensors=weights.tensors, data=weights.data, config=config))
        self.weights = weights
        self.team = team_of(threads)
        self.builder = PlanBuilder(store, rows=rows, threads=threads, wide=wide)
        nbytes = layer_cache_bytes(config)
        pool = self.builder.memory.zeros(blocks * (nbytes + 64), "uint8")
        if poison:  # NaN wherever nothing was written
            pool[:] = 0xFF
        self.tables = StepTables(
            self.builder.memory, self.builder.state, rows=rows, chunks=chunks, blocks=blocks, logit_rows=rows,
            heads_a_group=1, latent=True,
        )  # fmt: skip
        self.plan = DecoderPlan(
            self.builder, config, self.tables, Pool(pool.ctypes.data, nbytes + 64, (64,)),
            max_model_len=blocks * BLOCK,
        )  # fmt: skip
        emit_latent_attention(self.plan, 0)
        self.job = self.builder.finish()
        self.free = list(np.random.default_rng(1).permutation(blocks))

    def step(self, *parts: tuple[Tokens, int, int]) -> list[Floats]:
        """(sequence, start, count) each; gives each part's outputs without the residual."""
        chunks = []
        for tokens, start, count in parts:
            while len(tokens.block_table) * BLOCK < start + count:
                tokens.block_table.append(int(self.free.pop()))
            chunks.append(Chunk(cast(Any, tokens), start, count, "none"))
        self.tables.fill(chunks)
        total = sum(count for _, _, count in parts)
        x = self.plan.x.array
        numbers, positions = self.tables.chunk_of[:total], self.tables.positions[:total]
        for row, (number, position) in enumerate(zip(numbers, positions, strict=True)):
            x[row, : self.weights.config.hidden_size] = parts[number][0].x[position]
        before = x[:total].copy()
        self.run(total)
        after = (x[:total] - before)[:, : self.weights.config.hidden_size]
        return [after[numbers == number] for number in range(len(parts))]

    def run(self, rows: int) -> None:
        assert not self.team.run(self.job, shared=rows > PRIVATE_ROWS)

    def whole(self, x: Floats, n_prompt: int, chunks: Items[int]) -> Floats:
        """A sequence by itself, its tokens in chunks of these sizes, cut where the prompt ends."""
        tokens = Tokens(x, n_prompt)
        outputs, start = [], 0
        for count in chunks:
            outputs += self.step((tokens, start, count))
            start += count
        assert start == len(x)
        self.free += tokens.block_table
        return np.concatenate(outputs)


def inputs(config: ModelConfig, count: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, 7]).standard_normal((count, config.hidden_size)).astype(np.float32)


def error(got: Floats, expected: Floats) -> float:
    """The largest difference, of the largest value expected."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())
