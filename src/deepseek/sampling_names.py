"""What other libraries and servers call the fields of SamplingParams: one table for the Python API and for requests."""

import difflib
from collections.abc import Iterable, Mapping

LENGTH_ALIASES: Mapping[str, str] = dict.fromkeys(
    ("n_predict", "num_predict", "max_new_tokens", "max_gen_len", "max_tokens_to_sample", "max_output_tokens"),
    "max_tokens",
)
SAMPLING_ALIASES: Mapping[str, str] = {
    "n_cmpl": "n",
    "num_return_sequences": "n",
    "candidate_count": "n",
    "repeat_penalty": "repetition_penalty",
    "rep_pen": "repetition_penalty",
    "freq_pen": "frequency_penalty",
    "presence_pen": "presence_penalty",
    "typical": "typical_p",
    "random_seed": "seed",
    "sampler_seed": "seed",
    "sampling_seed": "seed",
    "stop_sequences": "stop",
    "stop_sequence": "stop",
    "stopping_strings": "stop",
    "stop_strings": "stop",
    "stop_words": "stop",
    "min_new_tokens": "min_tokens",
    "ban_eos_token": "ignore_eos",
    "no_stop_trim": "include_stop_str_in_output",
}
"""Of all fields but the length, which some request formats call by another name."""


def unknown_name(name: str, known: Iterable[str]) -> str:
    """Names the field that is meant, the nearest one, or all of them."""
    known = list(known)
    meant = {**SAMPLING_ALIASES, **LENGTH_ALIASES, "max_completion_tokens": "max_tokens"}.get(name)
    near = [meant] if meant in known else difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"unknown setting {name!r}; {hint}"
