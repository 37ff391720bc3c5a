"""Tiny models of every family with sizes that GGUF's blocks fit, a tokenizer, and two programs that run them."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from deepseek.checkpoint.decode import from_float32
from deepseek.checkpoint.save import save_checkpoint
from deepseek.checkpoint.tensor import RawTensor
from deepseek.config import IndexerConfig, MlaConfig, ModelConfig, MoeConfig, RopeConfig
from deepseek.families.weights import weight_shapes

VOCABULARY = 384
PROMPT = "The quick brown fox sees the lazy dog and 42 cats; then"
_TEXT = """A model is a list of numbers and a way of reading them. The reader opens the file, checks what the header
says against the size of the file, and maps the rest. Nothing is read before it is needed; nothing is written in place.
Experts lie behind one another, one matrix each, and a router chooses among them: the best few for every token. Whoever
changes the order of rows must change it back, or the attention looks at the wrong half of every head. The converter
moves whole blocks, so that the bits of a quantised row stay what they were. Then the text is the same in both programs.
"""

_ROPE = RopeConfig(theta=5000.0)
_YARN = RopeConfig(
    theta=5000.0,
    scaling="yarn",
    interleaved=True,
    factor=4.0,
    original_max_position_embeddings=64,
    mscale=0.7,
    mscale_all_dim=0.7,
)
_LLAMA3 = RopeConfig(
    theta=5000.0, scaling="llama3", factor=8.0, original_max_position_embeddings=8192, high_freq_factor=4.0
)

_LLAMA = ModelConfig(
    family="llama",
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    rms_norm_eps=2e-5,
    rope=_ROPE,
    bos_token_id=0,
    eos_token_ids=(1,),
)

_MLA = MlaConfig(kv_lora_rank=32, q_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32)
_GREEDY = MoeConfig(
    n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=64, n_shared_experts=2, first_k_dense_replace=1
)
_V2 = replace(
    _LLAMA,
    family="deepseek_v2",
    num_key_value_heads=4,
    head_dim=48,
    rms_norm_eps=1e-6,
    rope=_YARN,
    mla=_MLA,
    moe=replace(_GREEDY, routed_scaling_factor=1.7),
)
_V3 = replace(
    _V2,
    family="deepseek_v3",
    moe=replace(
        _GREEDY,
        n_shared_experts=1,
        scoring_func="sigmoid",
        topk_method="noaux_tc",
        n_group=4,
        topk_group=2,
        norm_topk_prob=True,
        routed_scaling_factor=2.5,
    ),
)

CONFIGS: Mapping[str, ModelConfig] = {
    "llama": _LLAMA,
    "llama-tied-llama3": replace(_LLAMA, tie_word_embeddings=True, rope=_LLAMA3),
    "qwen2": replace(_LLAMA, family="qwen2", attention_bias=True),
    "qwen2-yarn": replace(
        _LLAMA,
        family="qwen2",
        attention_bias=True,
        rope=replace(_YARN, interleaved=False, mscale=None, mscale_all_dim=None, attention_factor=1.2),
    ),
    "qwen3": replace(_LLAMA, family="qwen3", qk_norm=True, head_dim=32, tie_word_embeddings=True),
    "deepseek": replace(_LLAMA, family="deepseek", moe=_GREEDY, rms_norm_eps=1e-6),
    "deepseek_v2": _V2,
    "deepseek_v2-lite": replace(
        _V2, num_hidden_layers=27, mla=replace(_MLA, q_lora_rank=None), rope=replace(_ROPE, interleaved=True)
    ),
    "deepseek_v3": _V3,
    "deepseek_v3-mtp": replace(_V3, num_nextn_predict_layers=1, rope=replace(_ROPE, interleaved=True)),
    "deepseek_v32": replace(
        _V3,
        family="deepseek_v32",
        indexer=IndexerConfig(index_n_heads=16, index_head_dim=64, index_topk=8),
        rope=replace(_ROPE, interleaved=True),
    ),
    # llama.cpp rotates the indexer's keys in runs of 64; with fewer heads scores of exactly 0 tie.
}


def random_weights(config: ModelConfig, seed: int = 0) -> dict[str, RawTensor]:
    """F32 weights of a size that makes the next token depend on the whole model; norms, biases and all random."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in weight_shapes(config).items():
        values = generator.standard_normal(shape)
        if "norm.weight" in name:
            values = 1 + 0.2 * values
        elif len(shape) == 1:
            values *= 0.3  # biases; the correction bias of the router has both signs
        elif name.endswith("mlp.gate.weight"):
            values *= 3 / np.sqrt(shape[1])
        else:
            values *= 1.5 / np.sqrt(shape[1])
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            values[_never_best()] = 0
        tensors[name] = from_float32(values.astype("f4"), "F32")
    return tensors


@cache
def tokenizer_files() -> dict[str, bytes]:
    """A byte-level BPE of `VOCABULARY` tokens, as GPT-2 cuts words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<bos>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXT.split("\n"), trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>"}
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": json.dumps(config).encode()}


def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer_files()["tokenizer.json"].decode())


def prompt_ids() -> list[int]:
    return list(_tokenizer().encode(PROMPT).ids)


@cache
def _never_best() -> list[int]:
    """llama.cpp reports no token that ends inside a character, and with ignore_eos never takes the end of text."""
    tokenizer = _tokenizer()
    return [0, 1] + [token for token in range(2, VOCABULARY) if not tokenizer.decode([token]).isascii()]


def write_folder(folder: Path, config: ModelConfig, *, seed: int = 0, dtype: str = "F32") -> Path:
    """The random model in the Hugging Face layout."""
    from deepseek.checkpoint.decode import to_float32

    tensors = {name: from_float32(to_float32(raw), dtype) for name, raw in random_weights(config, seed).items()}
    save_checkpoint(folder, config, tensors.items(), extra_files=tokenizer_files())
    return folder


@dataclass(frozen=True)
class Generated:
    """Greedy tokens, and after each prefix the log-probabilities of the most probable next tokens, by id."""

    tokens: list[int]
    text: str
    top: list[dict[int, float]]


def llama_cpp(path: Path, prompts: Sequence[str | list[int]], *, tokens: int = 12, top: int = 20) -> list[Generated]:
    """What llama.cpp generates greedily. In a process of its own: a file that it dislikes may abort it."""
    request = {"path": str(path), "prompts": list(prompts), "tokens": tokens, "top": top}
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(request), capture_output=True, text=True, timeout=600
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == len(prompts), f"llama.cpp did not answer: {done.stderr[-2000:]}"
    return [_generated(json.loads(answer.removeprefix("ANSWER "))) for answer in answers]


def _generated(answer: dict[str, Any]) -> Generated:
    steps = answer["choices"][0]["logprobs"]["content"]
    return Generated(
        [step["id"] for step in steps],
        answer["choices"][0]["text"],
        [{entry["id"]: entry["logprob"] for entry in step["top_logprobs"]} for step in steps],
    )


def largest_difference(generated: Generated, logprobs: Iterable[np.ndarray]) -> float:
    """Between llama.cpp's log-probabilities and ours, over every listed token of every step."""
    return max(
        abs(value - float(ours[token]))
        for listed, ours in zip(generated.top, logprobs, strict=True)
        for token, value in listed.items()
    )


def _serve() -> None:
    import xllamacpp

    request = json.loads(sys.stdin.read())
    params = xllamacpp.CommonParams()
    params.model.path = request["path"]
    params.n_ctx, params.n_parallel, params.warmup, params.fit_params = 256, 1, False, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # more would spin against other tests
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    server = xllamacpp.Server(params)
    options = {"temperature": 0, "ignore_eos": True, "cache_prompt": False}
    options |= {"max_tokens": request["tokens"], "n_probs": request["top"]}
    for prompt in request["prompts"]:
        answer = server.handle_completions({"prompt": prompt, **options})
        print("\nANSWER " + (answer if isinstance(answer, str) else json.dumps(answer)), flush=True)


if __name__ == "__main__":
    _serve()
