"""Options that several verbs share, each defined once. Their defaults are those of SamplingParams, or a verb's own."""

from enum import StrEnum
from typing import Annotated

import typer


class Quantize(StrEnum):
    """What --quantize takes."""

    auto = "auto"
    int4 = "int4"
    int8 = "int8"
    bf16 = "bf16"
    f32 = "f32"


class KvCacheDtype(StrEnum):
    """What --kv-cache-dtype takes."""

    auto = "auto"
    f16 = "f16"
    int8 = "int8"


ModelName = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="Folder, .gguf file or name; without one the default, SmolLM2-135M-Instruct."),
]
Prompt = Annotated[str | None, typer.Option("--prompt", "-p", help="The text; `-` reads it from standard input.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Stop after so many tokens.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")]
TopK = Annotated[int, typer.Option(min=0, help="Choose among the k likeliest tokens; 0: all.")]
TopP = Annotated[float, typer.Option(help="Choose among the likeliest tokens that make up this probability.")]
MinP = Annotated[float, typer.Option(help="Leave out tokens below this share of the likeliest one's probability.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="End before this text; may be given several times.")]
QuantizeWeights = Annotated[
    Quantize,
    typer.Option("--quantize", help="auto keeps 4- and 8-bit types; floats become int8, in large models int4."),
]
CacheDtype = Annotated[
    KvCacheDtype,
    typer.Option(
        "--kv-cache-dtype", help="Numbers in the KV cache: f16 (auto) has 16 bits, int8 takes half the memory."
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub repository.")]
Backend = Annotated[str, typer.Option(help="engine: fast, on CPUs. torch: the PyTorch reference, on any device.")]
Dtype = Annotated[str, typer.Option(help="With --backend torch: auto, float32 or bfloat16.")]
Device = Annotated[str, typer.Option(help="With --backend torch: auto, cpu, cuda, cuda:1, mps ...")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads that compute; without it one a processor.")]
ActivationBits = Annotated[
    int | None, typer.Option(help="Bits of activations: 8 is faster, 16 more exact; by default by the model's size.")
]
AllowUnknownKeys = Annotated[
    bool,
    typer.Option(
        "--allow-unknown-keys", help="Load the model although its files ask for what this version does not compute."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
