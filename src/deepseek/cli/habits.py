"""What users of vLLM, llama.cpp, Ollama and Transformers type first: the one table of other spellings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALIASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("--model", ("-m", "--model-path", "--model-id", "--model-name-or-path")),
    ("--temperature", ("--temp",)),
    ("--max-tokens", ("-n", "--n-predict", "--predict", "--num-predict", "--max-new-tokens")),
    ("--system", ("-sys", "--system-prompt", "--system-message")),
    ("--seed", ("-s",)),
    ("--threads", ("-t", "--n-threads", "--num-threads")),
    ("--max-model-len", ("-c", "--ctx-size", "--n-ctx", "--num-ctx", "--context-length")),
    ("--window", ("-c", "--ctx-size")),
    ("--max-num-seqs", ("-np", "--parallel")),
    ("--max-num-batched-tokens", ("-b", "--batch-size")),
    ("--quantize", ("-q", "--quantization", "--dtype")),
    ("--dtype", ("--torch-dtype", "--outtype")),
    ("--served-model-name", ("-a", "--alias")),
    ("--chat-template", ("--chat-template-file",)),
    ("--no-studio", ("--no-webui",)),
    ("--output", ("--out", "--outfile")),
    ("--out", ("--output", "--output-dir")),
    ("--force", ("--overwrite",)),
)
"""An option, and what else it is called. A spelling means the first of its options that the verb has."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """An option that changes nothing here. takes: a value follows; or the values that may follow."""

    names: tuple[str, ...]
    why: str
    takes: bool | tuple[str, ...] = False


IGNORED = (
    Ignored(("-ngl", "--n-gpu-layers", "--gpu-layers", "--gpu-memory-utilization", "--main-gpu", "-mg",
             "-tp", "--tensor-parallel-size", "-pp", "--pipeline-parallel-size", "--swap-space", "--device"),
            "the engine runs on the processor", takes=True),
    Ignored(("-fa", "--flash-attn"), "attention is always computed in tiles", takes=("on", "off", "auto", "0", "1")),
    Ignored(("--enforce-eager",), "there are no CUDA graphs"),
    Ignored(("--trust-remote-code",), "code that comes with a model is never run"),
    Ignored(("--mlock", "--no-mmap", "--mmap", "--use-mmap"), "weights are always mapped into memory"),
    Ignored(("--jinja",), "chat templates are always rendered as Jinja"),
    Ignored(("--enable-auto-tool-choice",), "tool calls are found without it"),
    Ignored(("-cnv", "--conversation", "-i", "--interactive", "-no-cnv", "--no-conversation"),
            "`chat` converses and `generate` does not"),
    Ignored(("-ub", "--ubatch-size", "-tb", "--threads-batch"), "the engine chooses it", takes=True),
    Ignored(("--disable-log-requests", "--disable-log-stats", "--no-enable-log-requests"),
            "--access-log says what is logged"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Translated:
    """The command line in the verb's own spellings, and what to tell the user."""

    args: tuple[str, ...]
    notes: tuple[str, ...]


def translate(args: Sequence[str], options: Mapping[str, bool], *, takes_model: bool) -> Translated:
    """options: the verb's spellings, and whether a value follows each. takes_model: its first argument is MODEL."""
    done: list[str] = []
    notes: list[str] = []
    model: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            done += [word, *rest]
            break
        name, equals, value = word.partition("=")
        known = _known(name, options, takes_model)
        ignored = None if known or not name.startswith("-") else _ignored(name)
        if ignored is not None:
            notes.append(f"{name} is ignored: {ignored.why}")
            if not equals and _is_value(rest, ignored.takes):
                rest.pop(0)
        elif known is None:
            done.append(word)
        elif known not in options:  # --model, for the argument MODEL
            model += [value] if equals else rest[:1]
            rest = rest if equals else rest[1:]
        else:
            done.append(f"{known}{equals}{value}")
            if options[known] and not equals and rest:
                done.append(rest.pop(0))  # a value, even if it begins with a dash
    return Translated((*model, *done), tuple(notes))


def _known(name: str, options: Mapping[str, bool], takes_model: bool) -> str | None:
    """The verb's own spelling of an option; None for what is none."""
    if name in options or not name.startswith("-"):
        return name if name in options else None
    dashed = name.replace("_", "-") if name.startswith("--") else name
    for option, spellings in (*((option, (option,)) for option in options), *ALIASES, ("--model", ("--model",))):
        if dashed in spellings and (option in options or (option == "--model" and takes_model)):
            return option
    return None


def _ignored(name: str) -> Ignored | None:
    dashed = name.replace("_", "-")
    return next((each for each in IGNORED if dashed in each.names), None)


def _is_value(rest: Sequence[str], takes: bool | tuple[str, ...]) -> bool:
    if not rest or takes is False:
        return False
    return takes is True or rest[0] in takes
