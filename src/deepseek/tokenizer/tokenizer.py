"""The tokenizer: one class, whatever the file it came from."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from deepseek.errors import TokenizerError, TooManyTokensError
from deepseek.tokenizer import chat_template as chat
from deepseek.tokenizer.control_text import ControlText
from deepseek.tokenizer.end_tokens import named_ends, without_exceptions
from deepseek.tokenizer.slices import SLICE, Slices, ids_of
from deepseek.tokenizer.special_tokens import decoder_tokens, extra_tokens, special_names, with_declared_flags
from deepseek.tokenizer.stream import PieceRule, StreamDecoder, read_rule
from deepseek.tokenizer.tokenizer_json import build_backend, check, guarded


class Tokenizer:
    """Text to ids and back. Made by `AutoTokenizer.from_pretrained` or `tokenizer_from_gguf`; safe to share.

    Special tokens in a text: `encode` reads `<|im_end|>` as the token, as Transformers does, unless
    `parse_special=False`. `encode_chat` reads it as the token only where the template wrote it: what a user, a tool or
    a document says is always text. See `deepseek.tokenizer.control_text`.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
        templates: Mapping[str, str] | None = None,
        *,
        end_ids: Iterable[int] = (),
        where: str = "tokenizer.json",
    ) -> None:
        """`spec` is a `tokenizer.json`, `config` a `tokenizer_config.json`, `templates` chat templates by name.

        end_ids: tokens that other files declare to end an answer.
        """
        self.config: dict[str, Any] = dict(config or {})
        self.templates: dict[str, str] = dict(templates or {})
        self._where = where
        self._special = special_names(self.config, where)
        check(spec, where)
        spec = with_declared_flags(spec, self.config, where)
        self._rule: PieceRule = read_rule(spec.get("decoder"), where)
        self._backend = build_backend(spec, where)
        guarded(self._add_named_tokens, where)
        self._slices = Slices.of(spec, self._backend, self._rule)
        added = self._backend.get_added_tokens_decoder()
        self.special_ids: frozenset[int] = frozenset(token_id for token_id, token in added.items() if token.special)
        self._cache: dict[int, bytes] = {}
        self.end_ids: frozenset[int] = self._ends(end_ids)

    # Vocabulary

    @cached_property
    def vocab_size(self) -> int:
        """One more than the largest id; a model may have more rows than this, padded."""
        return 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    @property
    def bos_token_id(self) -> int | None:
        return self._special_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._special_id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        return self._special_id("pad_token")

    @property
    def unk_token_id(self) -> int | None:
        return self._special_id("unk_token")

    @property
    def special_tokens(self) -> dict[str, str]:
        """The named ones, for example {"bos_token": "<s>"}; what chat templates see."""
        return dict(self._special)

    def token_to_id(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """The piece as the vocabulary spells it (`Ġthe`), None for an id without one."""
        if not 0 <= token_id < 2**32:
            raise TokenizerError(f"{token_id} is not a token id")
        return self._backend.id_to_token(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds within a text, special ones their name; empty for an id without a token."""
        return self._rule.piece_bytes(self.id_to_token(token_id) or "")

    @property
    def drops_first_space(self) -> bool:
        """Whether a text decoded from its beginning loses the space of its first token, as with SentencePiece."""
        return self._rule.strip_left > 0 or self._rule.metaspace_drop_first

    def __len__(self) -> int:
        return self.vocab_size

    # Text

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """As Transformers' tokenizers are used; says what to write instead."""
        raise TokenizerError(
            "a tokenizer is not called: encode(text) gives its token ids, encode_batch(texts) those of several texts, "
            "encode_chat(messages) those of a conversation"
        )

    def encode(
        self,
        text: str,
        *,
        add_special_tokens: bool = True,
        parse_special: bool = True,
        token_limit: int | None = None,
    ) -> list[int]:
        """Ids exactly as Transformers gives them.

        `add_special_tokens` adds bos and eos where the post-processor says so; `add_bos_token` in a folder's
        `tokenizer_config.json` does nothing, as in Transformers 5. With `parse_special=False` no control token
        comes out of the text itself, special or not: `<|im_end|>` and `<think>` are characters. Raises
        TooManyTokensError where there are more than `token_limit`, often without encoding all of the text.
        """
        _check_text(text)
        if parse_special and len(text) <= SLICE:
            ids = guarded(lambda: ids_of(self._backend, text, add_special_tokens=add_special_tokens), "encode")
            if token_limit is not None and len(ids) > token_limit:
                raise TooManyTokensError(len(ids))
            return ids
        before, behind = self.added_around if add_special_tokens else ([], [])
        limit = None if token_limit is None else max(0, token_limit - len(before) - len(behind))
        self._slices.check_bytes(text, limit)
        if parse_special:
            ids = guarded(lambda: self._slices.encode(self._backend, text, limit), "encode")
        else:
            ids = self._control.encode_literally(text, limit)
        return [*before, *ids, *behind] if add_special_tokens else ids

    def encode_batch(
        self, texts: Iterable[str], *, add_special_tokens: bool = True, parse_special: bool = True
    ) -> list[list[int]]:
        """As `encode`, for each of several texts."""
        return [self.encode(text, add_special_tokens=add_special_tokens, parse_special=parse_special) for text in texts]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = False) -> str:
        """The text of these ids, never tidied up. An id without a token (a padded row) prints nothing."""
        return self.stream(skip_special_tokens=skip_special_tokens).push_all(ids)

    def stream(self, *, skip_special_tokens: bool = False) -> StreamDecoder:
        """A decoder for ids that come one at a time."""
        skip = self.special_ids if skip_special_tokens else frozenset[int]()
        return StreamDecoder(self.id_to_token, self._rule, skip, self._cache)

    # Chats

    @property
    def chat_template(self) -> str | None:
        """The default template, None if there is none (or only named ones: see `templates`)."""
        return self.templates.get("default")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        limits: chat.TemplateLimits | None = None,
        **template_kwargs: Any,
    ) -> str:
        """The prompt as text, as Transformers renders it.

        For a prompt to run, use `encode_chat`: encoding this text would let user text forge control tokens.
        `chat_template` is the name of one of `templates`, or a template itself.
        """
        return chat.render(
            self._choose(chat_template, tools), messages, tools=tools, add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message, limits=limits, check_content=True,
            **{**self._special, **template_kwargs},
        )  # fmt: skip

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        chat_template: str | None = None,
        limits: chat.TemplateLimits | None = None,
        trust_content: bool = False,
        token_limit: int | None = None,
        **template_kwargs: Any,
    ) -> list[int]:
        """The prompt as ids. Equal to Transformers' unless a message, tool or argument contains a control token's text.

        Such text becomes ordinary text, except `<think>` and `<tool_call>` (and their ends) in what an assistant said.
        `trust_content=True` reads all of it as tokens, for data you wrote yourself. `token_limit`: see `encode`.
        """
        template = self._choose(chat_template, tools)
        options: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "limits": limits,
            "check_content": True,
        }
        if trust_content:
            text = chat.render(template, messages, tools=tools, **options, **{**self._special, **template_kwargs})
            return self.encode(text, add_special_tokens=False, token_limit=token_limit)
        given = {"messages": chat.plain_messages(messages), "tools": chat.plain_tools(tools), **template_kwargs}
        breaker = self._control.breaker(template, given)
        marked = {key: self._control.mark(value, breaker) for key, value in given.items() if key != "messages"}
        marked["messages"] = self._control.mark_messages(given["messages"], breaker)
        text = chat.render(template, **{**self._special, **marked}, **options)
        if breaker in text:
            return self._control.encode(text, breaker, token_limit)
        return self.encode(text, add_special_tokens=False, token_limit=token_limit)

    # Files

    def save_pretrained(self, folder: str | Path) -> list[Path]:
        """Write the files that Transformers loads; each is written beside its place and renamed. Returns them."""
        from deepseek.tokenizer.files import write_tokenizer

        return write_tokenizer(self, Path(folder))

    def to_json(self) -> str:
        """`tokenizer.json`, as text."""
        return self._backend.to_str(pretty=True)

    # Below: construction

    @cached_property
    def _control(self) -> ControlText:
        return ControlText(self._backend, self._slices)

    @cached_property
    def added_around(self) -> tuple[list[int], list[int]]:
        """What `add_special_tokens` puts before and after a text."""
        bare = self._backend.encode("a", add_special_tokens=False).ids
        full = self._backend.encode("a", add_special_tokens=True).ids
        for start in range(len(full) - len(bare) + 1):
            if bare and full[start : start + len(bare)] == bare:
                return full[:start], full[start + len(bare) :]
        raise TokenizerError(
            f"{self._where}: its post_processor rewrites text, so nothing can be put around a text here"
        )

    def _special_id(self, name: str) -> int | None:
        token = self._special.get(name)
        return None if token is None else self._backend.token_to_id(token)

    def _choose(self, chat_template: str | None, tools: object) -> str:
        if chat_template is not None and ("{" in chat_template or "\n" in chat_template):
            return chat_template
        return chat.choose(self.templates, chat_template, tools)

    def _ends(self, declared: Iterable[int]) -> frozenset[int]:
        """Tokens that end an answer: those declared, `eos_token`, and special ones whose names say so."""

        def special_id(token: str) -> int | None:
            token_id = self._backend.token_to_id(token)
            return token_id if token_id in self.special_ids else None

        ends = {token_id for token_id in declared if 0 <= token_id < self.vocab_size}
        ends |= named_ends(special_id)
        if self.eos_token_id is not None:
            ends.add(self.eos_token_id)
        return frozenset(without_exceptions(ends, self._backend.token_to_id))

    def _add_named_tokens(self) -> None:
        """bos, eos and their like are added tokens even where `tokenizer.json` forgets to say so."""
        from tokenizers import AddedToken

        known = {token.content for token in self._backend.get_added_tokens_decoder().values()}
        wanted = [AddedToken(**token) for token in decoder_tokens(self.config, self._where)]
        wanted += [AddedToken(name, special=True, normalized=False) for name in self._special.values()]
        wanted += [AddedToken(**token) for token in extra_tokens(self.config, self._where)]
        fresh = {token.content: token for token in reversed(wanted) if token.content not in known}
        self._backend.add_tokens(list(reversed(fresh.values())))


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        hint = "; encode_batch takes several" if isinstance(text, list | tuple) else ""
        raise TokenizerError(f"encode takes a text, not {type(text).__name__}{hint}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TokenizerError("the text holds half a surrogate pair, which is not text: decode it correctly") from None
