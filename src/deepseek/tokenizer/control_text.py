"""Text that looks like control tokens, and how it stays text.

A tokenizer turns the characters `<|im_end|>` into the token that ends a turn, whoever wrote them. A user who types
them could so forge a turn. Two things prevent it:

- `ControlText.mark` puts a breaker (a Unicode noncharacter that occurs nowhere in the chat or the template) into every
  such text of the messages *before* the template runs, and after a text that ends in the beginning of one, so that
  two texts cannot join into a control token. Control tokens left whole in the rendered prompt are the template's.
- `ControlText.encode` then encodes that prompt with a twin of the tokenizer, in which every control token has a secret
  spelling: the template's tokens are respelled, the breakers removed, and what the user wrote is ordinary text.

A control token is an added token that is marked special, or one longer than a character that is not blank, such as
`<think>` or `<tool_call>`; runs of spaces and single letters that some vocabularies add are text.
"""

import json
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from deepseek.errors import TokenizerError
from deepseek.tokenizer.slices import Slices
from deepseek.tokenizer.tokenizer_json import guarded, load_backend

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

ASSISTANT_TEXT = frozenset(("<think>", "</think>", "<tool_call>", "</tool_call>"))
"""Control tokens that stay tokens in an assistant's content and reasoning: what the model itself wrote there."""

_BREAKERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class ControlText:
    """The control tokens of one tokenizer, the marking of messages and the twin that takes text literally."""

    def __init__(self, backend: "Backend", slices: Slices) -> None:
        self._backend = backend
        self._slices = slices
        self.tokens: dict[str, int] = {
            token.content: token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if len(token.content) > 1 and (token.special or not token.content.isspace())
        }
        self._every = _matcher(self.tokens)
        self._in_assistant = _matcher(self.tokens.keys() - ASSISTANT_TEXT)
        self._beginnings = {token[:length] for token in self.tokens for length in range(1, len(token))}
        self._longest = max(map(len, self.tokens), default=0)
        self._spelling: dict[str, str] = {}
        self._ids: dict[int, int] = {}
        self._twin: Backend | None = None
        self._building = threading.Lock()

    def breaker(self, *values: Any) -> str:
        """A noncharacter that occurs in none of these values."""
        used: set[str] = set()
        for value in values:
            _collect_breakers(value, used)
        free = [breaker for breaker in _BREAKERS if breaker not in used]
        if not free:
            raise TokenizerError("the chat uses every Unicode noncharacter from U+FDD0 to U+FDEF: remove one")
        return free[0]

    def mark(self, value: Any, breaker: str) -> Any:
        """A copy of plain JSON data in which no text holds a whole control token, keys included."""
        return self._mark(value, breaker, self._every)

    def mark_messages(self, messages: Iterable[Mapping[str, Any]], breaker: str) -> list[dict[str, Any]]:
        """As `mark`; what an assistant said may hold the tokens of `ASSISTANT_TEXT`."""
        marked = []
        for message in messages:
            own = {"content", "reasoning_content", "reasoning", "thinking"} if message["role"] == "assistant" else set()
            marked.append(
                {key: self._mark(item, breaker, self._in_assistant if key in own else self._every)
                 for key, item in message.items()}
            )  # fmt: skip
        return marked

    def encode(self, text: str, breaker: str = "", limit: int | None = None) -> list[int]:
        """Ids of a rendered prompt: whole control tokens as tokens, broken ones as text. No bos or eos is added.

        limit: of tokens; TooManyTokensError is raised where there are more.
        """
        twin = self._literal_twin()
        self._slices.check_bytes(text.replace(breaker, "") if breaker else text, limit)
        text = self._every.sub(lambda match: self._spelling[match[0]], text)
        return self._encode(twin, text.replace(breaker, "") if breaker else text, limit)

    def encode_literally(self, text: str, limit: int | None = None) -> list[int]:
        """Ids of a text in which nothing is a control token. No bos or eos is added. limit: as of `encode`."""
        return self._encode(self._literal_twin(), text, limit)

    def _encode(self, twin: "Backend", text: str, limit: int | None) -> list[int]:
        ids: list[int] = guarded(lambda: self._slices.encode(twin, text, limit), "encode")
        return [self._ids.get(token_id, token_id) for token_id in ids] if self._ids else ids

    def _mark(self, value: Any, breaker: str, pattern: re.Pattern[str]) -> Any:
        if isinstance(value, str):
            return self._break(value, breaker, pattern)
        if isinstance(value, dict):
            return {
                self._mark(key, breaker, pattern): self._mark(item, breaker, pattern) for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._mark(item, breaker, pattern) for item in value]
        return value

    def _break(self, text: str, breaker: str, pattern: re.Pattern[str]) -> str:
        while pattern.search(text):  # again, since two tokens may overlap
            text = pattern.sub(lambda match: match[0][0] + breaker + match[0][1:], text)
        ends = range(1, min(self._longest, len(text) + 1))
        return text + breaker if any(text[-length:] in self._beginnings for length in ends) else text

    def _literal_twin(self) -> "Backend":
        """Built on first need (it costs as much as loading the tokenizer), then kept."""
        with self._building:
            if self._twin is None:
                self._twin = self._build_twin()
            return self._twin

    def _build_twin(self) -> "Backend":
        secret = f"\U0010fffe{secrets.token_hex(8)}"
        self._spelling = {token: f"{secret}:{token_id}\U0010fffe" for token, token_id in self.tokens.items()}
        spec = json.loads(self._backend.to_str())
        _respell(spec, self._spelling)
        twin = load_backend(json.dumps(spec, ensure_ascii=False), "tokenizer")
        for token_id, added in self._backend.get_added_tokens_decoder().items():
            twin_id = twin.token_to_id(self._spelling.get(added.content, added.content))
            if twin_id is not None and twin_id != token_id:
                self._ids[twin_id] = token_id
        return twin


def _matcher(tokens: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)")


def _collect_breakers(value: Any, used: set[str]) -> None:
    if isinstance(value, str):
        if not value.isascii():
            used.update(breaker for breaker in _BREAKERS if breaker in value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _collect_breakers(key, used)
            _collect_breakers(item, used)
    elif isinstance(value, list):
        for item in value:
            _collect_breakers(item, used)


def _respell(spec: dict[str, Any], spelling: dict[str, str]) -> None:
    """Give the control tokens of a `tokenizer.json` other names, also in the vocabulary, so that no text makes them."""
    spec["post_processor"] = None
    for added in spec["added_tokens"]:
        if added["content"] in spelling:
            added.update(content=spelling[added["content"]], normalized=False)
    model = spec["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [[spelling.get(token, token), score] for token, score in model["vocab"]]
        return
    model["vocab"] = {spelling.get(token, token): token_id for token, token_id in model["vocab"].items()}
    model["merges"] = [
        [left, right] for left, right in model["merges"]
        if left + right not in spelling and left not in spelling and right not in spelling
    ]  # fmt: skip
    if model.get("unk_token") in spelling:
        model["unk_token"] = spelling[model["unk_token"]]
