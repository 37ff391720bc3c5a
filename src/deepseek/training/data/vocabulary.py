"""The tokenizer of a prepared folder: a byte-level BPE trained on the mixture, or one that is there already.

A trained one cuts text as DeepSeek-V3 does (digits by three, Chinese and Japanese apart, words with their space), so
GGUF files can name it, and has DeepSeek's control tokens and a chat template of the same shape. A document in a shard
is `bos`, text, `eos`: what a prompt begins with when it is served.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepseek.checkpoint.atomic import sync_folder
from deepseek.errors import ConfigError, DataError
from deepseek.progress import Report, silent

if TYPE_CHECKING:
    from deepseek.tokenizer import Tokenizer

ORIGIN = "trained_on.json"
MAX_TOKEN_CHARACTERS = 32  # longer ones are rules of dashes and licence texts: a row of the vocabulary for nothing
_BATCH_CHARACTERS = 4_000_000

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
SPECIAL_TOKENS = (BOS, EOS, PAD, USER, ASSISTANT, "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}{{ '\\n\\n' }}"
    f"{{% elif message['role'] == 'user' %}}{{{{ '{USER}' + message['content'] }}}}"
    f"{{% elif message['role'] == 'assistant' %}}{{{{ '{ASSISTANT}' + message['content'] + eos_token }}}}"
    "{% else %}{{ raise_exception('this model knows the roles system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}' }}}}{{% endif %}}"
)


def train(texts: Iterable[str], vocab_size: int, *, allow_fewer: bool = False) -> "Tokenizer":
    """A byte-level BPE of exactly `vocab_size` tokens, control tokens among them.

    Raises ConfigError when the texts are too few for so many, unless fewer are allowed.
    """
    from tokenizers import pre_tokenizers, trainers

    from deepseek.tokenizer import Tokenizer
    from deepseek.tokenizer.pre_tokenizers import named
    from deepseek.tokenizer.tokenizer_json import load_backend

    model = {"type": "BPE", "vocab": {}, "merges": [], "byte_fallback": False, "ignore_merges": False}
    spec: dict[str, Any] = {"version": "1.0", "added_tokens": [], "model": model}
    spec["pre_tokenizer"] = named("deepseek-v3").spec()
    spec["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    backend = load_backend(json.dumps(spec), "the tokenizer to train")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=MAX_TOKEN_CHARACTERS,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    trained = json.loads(backend.to_str())
    if (got := len(trained["model"]["vocab"])) != vocab_size and not allow_fewer:
        raise ConfigError(
            f"tokenizer.vocab_size is {vocab_size:,}, but the text gives only {got:,} tokens: ask for fewer"
        )
    trained["post_processor"] = _begins_with_bos(trained["model"]["vocab"][BOS])
    config = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD, "model_max_length": 1 << 30}
    return Tokenizer(trained, config, {"default": CHAT_TEMPLATE})


def _begins_with_bos(token_id: int) -> dict[str, Any]:
    def piece(name: str, sequence: int) -> list[dict[str, Any]]:
        marks = {"SpecialToken": {"id": BOS, "type_id": sequence}}, {"Sequence": {"id": name, "type_id": sequence}}
        return list(marks)

    special = {BOS: {"id": BOS, "ids": [token_id], "tokens": [BOS]}}
    single, pair = piece("A", 0), piece("A", 0) + piece("B", 1)
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


def save(tokenizer: "Tokenizer", folder: Path, origin: dict[str, Any]) -> None:
    """Write the Hugging Face layout and `origin` aside, then rename."""
    from deepseek.tokenizer.files import write_tokenizer

    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write_tokenizer(tokenizer, aside)
    (aside / ORIGIN).write_text(json.dumps(origin, ensure_ascii=False, indent=1), encoding="utf-8")
    sync_folder(aside)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(aside, folder)
    sync_folder(folder.parent)


def key_on_disk(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / ORIGIN).read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class DocumentEncoder:
    """Texts to the ids of documents, many at a time on all processors.

    Control tokens in a text are characters, never the token: only this class writes tokens.
    """

    def __init__(self, folder: Path) -> None:
        from deepseek.tokenizer import AutoTokenizer
        from deepseek.tokenizer.tokenizer_json import load_backend

        tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer.eos_token_id is None:
            raise DataError(f"{folder}: the tokenizer has no eos_token, which ends a document; name one in its config")
        spec = json.loads(tokenizer.to_json())
        added = spec.get("added_tokens") or ()
        spec["added_tokens"] = [token for token in added if not _is_control(token["content"], token["special"])]
        spec["post_processor"] = None
        self._backend = load_backend(json.dumps(spec, ensure_ascii=False), str(folder))
        self.vocab_size = tokenizer.vocab_size
        begins = tokenizer.added_around[0][:1]
        self._before, self._after = list(begins), [tokenizer.eos_token_id]

    def encoded(self, texts: Iterable[str], report: Report = silent, label: str = "") -> Iterator[list[int]]:
        """The ids of each text with what begins and ends a document."""
        done = 0
        for batch in _batches(texts):
            for encoding in self._backend.encode_batch_fast(batch, add_special_tokens=False):
                yield [*self._before, *encoding.ids, *self._after]
            done += sum(map(len, batch))
            report(label, done, None, "characters")


def _is_control(token: str, special: bool) -> bool:
    """As in `tokenizer.control_text`: runs of blanks that some vocabularies add are text."""
    return len(token) > 1 and (special or not token.isspace())


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
