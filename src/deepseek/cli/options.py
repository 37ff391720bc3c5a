"""Options that several verbs share, each defined once. Their defaults are those of SamplingParams, or a verb's own."""

from typing import Annotated

import typer

from deepseek.cli.streams import argument_text


def _text(parameter: typer.CallbackParam, value: str | None) -> str | None:
    return None if value is None else argument_text(value, parameter.opts[0])


def _texts(parameter: typer.CallbackParam, values: list[str] | None) -> list[str] | None:
    return None if values is None else [argument_text(value, parameter.opts[0]) for value in values]


MODEL_HELP = "Folder (a run of `deepseek train` too), .gguf file or name"
ModelName = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help=f"{MODEL_HELP}; without one the default, SmolLM2-135M-Instruct."),
]
Prompt = Annotated[
    str | None,
    typer.Option("--prompt", "-p", metavar="TEXT", callback=_text, help="The text; `-` reads it from standard input."),
]
System = Annotated[str | None, typer.Option(metavar="TEXT", callback=_text, help="A system message, put first.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Stop after so many tokens.")]
_RECOMMENDED = " Without it as the model's makers recommend."
Temperature = Annotated[float | None, typer.Option(min=0.0, help=f"0 always takes the likeliest token.{_RECOMMENDED}")]
TopK = Annotated[int | None, typer.Option(min=-1, help="Choose among the k likeliest tokens; 0 or -1: all.")]
TopP = Annotated[float | None, typer.Option(help="Choose among the likeliest tokens that make up this probability.")]
MinP = Annotated[
    float | None, typer.Option(help="Leave out tokens below this share of the likeliest one's probability.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="The same seed gives the same text.")]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", callback=_texts, help="End before this text; may be given several times."),
]
QuantizeWeights = Annotated[
    str,
    typer.Option(
        "--quantize",
        metavar="auto|int4|int8|bf16|f32",
        help="auto keeps 4- and 8-bit types; floats become int8, in large models int4.",
    ),
]
CacheDtype = Annotated[
    str,
    typer.Option(
        "--kv-cache-dtype",
        metavar="auto|f16|int8",
        help="Numbers in the KV cache: f16 (auto) has 16 bits, int8 takes half the memory.",
    ),
]
Revision = Annotated[str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of a hub repository.")]
Backend = Annotated[
    str,
    typer.Option(metavar="engine|torch", help="engine: fast, on CPUs. torch: the PyTorch reference, on any device."),
]
Dtype = Annotated[str, typer.Option(metavar="auto|f32|bf16|f16", help="Type of weights with --backend torch.")]
Device = Annotated[str, typer.Option(help="With --backend torch: auto, cpu, cuda, cuda:1, mps ...")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", "-t", metavar="N", min=1, help="Threads that compute; without it one a processor."),
]
ActivationBits = Annotated[
    int | None,
    typer.Option(
        metavar="8|16", help="Bits of activations: 8 is faster, 16 more exact; by default by the model's size."
    ),
]
AllowUnknownKeys = Annotated[
    bool,
    typer.Option(
        "--allow-unknown-keys", help="Load the model although its files ask for what this version does not compute."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
