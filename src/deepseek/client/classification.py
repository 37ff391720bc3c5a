"""Classification by likelihood: how probable is each label after a prompt that asks for it?

The labels are not generated. Each is put behind the prompt, and the model's log-probabilities of the label's tokens, as
`/v1/completions` gives them with echo, are summed. A line break ends each label, so that none wins for being the
beginning of another one.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from deepseek.client.answers import Label
from deepseek.client.errors import ServerFault
from deepseek.errors import ConfigError

_INTENT = "Name the intent of each message in one to three words, in the language of the message."
_EXAMPLES = """
Message: Where is my parcel? It should have come on Monday.
Intent: delivery status

Message: 密码忘了,怎么重新设置?
Intent: 重置密码

Message: Do you have this jacket in blue?
Intent: product question
"""


def checked(labels: Sequence[str]) -> list[str]:
    if isinstance(labels, str) or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ConfigError("labels must be a list of texts, none of them empty")
    if len(set(labels)) < len(labels):
        raise ConfigError("labels must differ from each other")
    return list(labels)


def intent_fields(query: str, instruction: str | None) -> dict[str, Any]:
    """For a generation in which the model names the intent itself. Examples, as small models need them."""
    prompt = f"{instruction or _INTENT}\n{_EXAMPLES}\nMessage: {query}\nIntent:"
    return {"prompt": prompt, "max_tokens": 16, "temperature": 0, "stop": ["\n"]}


def question(query: str, labels: Sequence[str], instruction: str | None) -> str:
    """The text that a label continues."""
    asked = instruction or "Which label describes the text best?"
    return f"{asked}\nLabels: {', '.join(labels)}\n\nText: {query}\nLabel:"


def likelihood_body(prompt: str, labels: Sequence[str]) -> dict[str, Any]:
    """One prompt a label. A token is generated as some servers need one; it is not looked at."""
    prompts = [f"{prompt} {label}\n" for label in labels]
    return {"prompt": prompts, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}


def likeliest(data: Any, prompt: str, labels: Sequence[str]) -> Label:
    try:
        choices = sorted(data["choices"], key=lambda choice: choice["index"])
        texts = [f"{prompt} {label}\n" for label in labels]
        paired = zip(choices, texts, strict=True)
        logprobs = [_after(choice["logprobs"], len(prompt), len(text)) for choice, text in paired]
    except (KeyError, TypeError, ValueError) as error:
        raise ServerFault(
            f"the server gave no log-probabilities of the labels: {type(error).__name__}: {error}"
        ) from None
    highest = max(logprobs)
    weights = [math.exp(value - highest) for value in logprobs]
    scores = {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}
    return Label(max(scores, key=scores.__getitem__), scores)


def _after(logprobs: Mapping[str, Any], start: int, end: int) -> float:
    """The sum for the tokens that write characters from `start` to `end`; a token across `start` counts."""
    offsets = [*logprobs["text_offset"], math.inf]
    values = [
        value
        for place, value in enumerate(logprobs["token_logprobs"])
        if offsets[place] < end and offsets[place + 1] > start
    ]
    return math.fsum(values)
