"""vLLM's benchmark client, `vllm bench serve`, over completions, chat, responses and embeddings."""

import os
from pathlib import Path

from checks import BASE_URL, MODEL, check, run_command
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
bytes_only = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
bytes_only.decoder = decoders.ByteLevel()
TOKENIZER = Path(os.environ["HOME"]) / "tokenizer"  # for its random prompts; it cannot fetch another
PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="!").save_pretrained(TOKENIZER)
LENGTHS = ("--num-prompts", "2", "--random-input-len", "30", "--random-output-len", "8")


def bench(backend: str, endpoint: str, *more: str) -> None:
    place = ("--base-url", BASE_URL, "--endpoint", endpoint, "--model", MODEL, "--tokenizer", str(TOKENIZER))
    output = run_command(
        "vllm", "bench", "serve", "--backend", backend, *place, "--dataset-name", "random", *LENGTHS, *more
    )
    assert "Successful requests:                     2" in output, output[-1500:]


@check
def completions() -> None:
    bench("openai", "/v1/completions", "--ignore-eos")


@check
def chat() -> None:
    bench("openai-chat", "/v1/chat/completions", "--temperature", "0", "--top-p", "0.9", "--top-k", "20")


@check
def responses() -> None:
    bench("openai-responses", "/v1/responses")


@check
def embeddings() -> None:
    bench("openai-embeddings", "/v1/embeddings")
