"""Batches of a prepared folder: a pure function of the step, so that resuming is asking for the same step again."""

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepseek.errors import ConfigError, DataError
from deepseek.training.data.mixture import Mixture, Stage
from deepseek.training.data.order import Apportionment, key_of, shuffled
from deepseek.training.data.shards import TokenStream, read_index

DATASET = "dataset.json"
FORMAT = 1


@dataclass(frozen=True)
class _Span:
    """A stage laid out in steps.

    `already` says how many sequences of each source the stages before have read, as far as they had the same length:
    the stage goes on in their epoch. Another length cuts a source anew, so `era` counts these changes, and each era
    begins its own epochs.
    """

    stage: Stage
    first_step: int
    first_token: int
    length: int
    batch: int
    order: Apportionment
    already: dict[str, int]
    era: int


class Batches:
    """Token batches of the sources in `folder`, mixed as `mixture` says.

    The k-th sequence belongs to a source by its shares alone; the sequences of a source come in an order that `seed`
    and the source's name fix. Within an epoch of a source no sequence comes twice; each epoch has another order and
    another cut. A new folder with further sources changes nothing for the others. Safe to share among threads, and to
    pickle into workers. Raises DataError for a folder that was not prepared, ConfigError for a mixture that it cannot
    serve.
    """

    def __init__(self, folder: Path, mixture: Mixture, *, sequence_length: int, batch_size: int, seed: int) -> None:
        for name, value in {"sequence_length": sequence_length, "batch_size": batch_size}.items():
            if value < 1:
                raise ConfigError(f"{name} must be a whole number above 0, not {value!r}")
        self.folder, self.mixture, self.seed = Path(folder), mixture, seed
        self.sequence_length, self.batch_size = sequence_length, batch_size
        dataset = read_dataset(self.folder)
        self.vocab_size: int = dataset["vocab_size"]
        self.tokenizer_folder = self.folder / dataset["tokenizer"]
        self.sources: tuple[str, ...] = tuple(dataset["sources"])
        if missing := [name for name in mixture.sources if name not in self.sources]:
            raise ConfigError(f"shares.{missing[0]}: {folder} has no such source; it has {', '.join(self.sources)}")
        self._indexes = {name: _index_of(self.folder, name) for name in self.sources}
        self._train = {name: self._stream(name, "train") for name in mixture.sources}
        self._spans = self._laid_out()

    def _stream(self, name: str, split: str) -> TokenStream:
        return TokenStream(self.folder / "shards" / name, split, self._indexes[name])

    def _laid_out(self) -> list[_Span]:
        spans: list[_Span] = []
        step = token = era = 0
        already: dict[str, int] = {}
        for stage in self.mixture.stages:
            length, batch = stage.sequence_length or self.sequence_length, stage.batch_size or self.batch_size
            if spans and length != spans[-1].length:
                era, already = era + 1, {}
            order = Apportionment(stage.shares)
            for name in order.names:
                self._require_sequence(name, length)
            spans.append(_Span(stage, step, token, length, batch, order, already, era))
            if stage.until_tokens is not None:
                steps = max(0, -(-(stage.until_tokens - token) // (length * batch)))
                read = {name: order.count(name, steps * batch) for name in self.mixture.sources}
                already = {name: already.get(name, 0) + count for name, count in read.items()}
                step, token = step + steps, token + steps * length * batch
        return spans

    def _require_sequence(self, name: str, length: int) -> None:
        if (tokens := self._train[name].tokens) <= length:
            raise ConfigError(
                f"shares.{name}: the source has {tokens:,} tokens to train on, too few for one sequence of {length:,}: "
                "shorten sequence_length, or leave the source out"
            )

    def _span_at(self, step: int) -> _Span:
        return next(span for span in reversed(self._spans) if span.first_step <= step)

    def at(self, step: int) -> NDArray[np.int64]:
        """The batch of `step` (from 0), of shape (batch_size, sequence_length + 1): the last token is a target only.

        Both sizes are those of the stage that the step is in.
        """
        if step < 0:
            raise ValueError(f"step must be 0 or more, not {step}")
        span = self._span_at(step)
        out = np.empty((span.batch, span.length + 1), np.int64)
        for row in range(span.batch):
            name, start = self._place(span, (step - span.first_step) * span.batch + row)
            out[row] = self._train[name].read(start, start + span.length + 1)
        return out

    def sources_at(self, step: int) -> tuple[str, ...]:
        """The source of each row of `at(step)`."""
        span = self._span_at(step)
        first = (step - span.first_step) * span.batch
        return tuple(span.order.at(first + row)[0] for row in range(span.batch))

    def tokens_before(self, step: int) -> int:
        """How many tokens the steps before `step` have predicted."""
        span = self._span_at(step)
        return span.first_token + (step - span.first_step) * span.batch * span.length

    def epochs_at(self, step: int) -> dict[str, float]:
        """How often each source has been read when `step` begins; below 1 nothing has come twice.

        Counted since the sequence length last changed, which cuts the sources anew.
        """
        span = self._span_at(step)
        places = (step - span.first_step) * span.batch
        counts = {name: span.already.get(name, 0) + span.order.count(name, places) for name in self._train}
        return {name: count / self._sequences(name, span.length) for name, count in counts.items()}

    def _sequences(self, name: str, length: int) -> int:
        return max(1, (self._train[name].tokens - 1) // length)

    def _place(self, span: _Span, place: int) -> tuple[str, int]:
        """The source at `place` of the stage and the token at which its sequence begins."""
        name, ordinal = span.order.at(place)
        count = self._sequences(name, span.length)
        epoch, index = divmod(span.already.get(name, 0) + ordinal, count)
        key = key_of((self.seed, name, span.length, span.era, epoch))
        spare = self._train[name].tokens - 1 - count * span.length  # tokens that do not fill a sequence
        return name, shuffled(index, count, key) * span.length + key % (spare + 1)

    def held_out(self, source: str, *, sequence_length: int | None = None) -> Iterator[NDArray[np.int64]]:
        """The source's held-out text in order, as `at` gives batches; the last may have fewer rows.

        Tokens that do not fill a sequence are left out, unless there is not one whole sequence: then there is one
        shorter row. Nothing at all comes of a source without held-out text.
        """
        if source not in self.sources:
            raise ConfigError(f"{self.folder} has no source {source!r}; it has {', '.join(self.sources)}")
        stream = self._stream(source, "held_out")
        length = min(sequence_length or self.sequence_length, stream.tokens - 1)
        if length < 1:
            return
        count = (stream.tokens - 1) // length
        for first in range(0, count, self.batch_size):
            starts = [index * length for index in range(first, min(first + self.batch_size, count))]
            yield np.stack([stream.read(start, start + length + 1) for start in starts])

    @functools.cached_property
    def fingerprint(self) -> str:
        """The same for two objects exactly when every batch of theirs is: of shards, mixture, sizes and seed."""
        shards = {name: [f["sha256"] for f in self._indexes[name]["splits"]["train"]["files"]] for name in self._train}
        facts = [shards, self.mixture.to_dict(), self.sequence_length, self.batch_size, self.seed]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.folder, self.mixture, self.sequence_length, self.batch_size, self.seed)


def _reopened(folder: Path, mixture: Mixture, length: int, batch: int, seed: int) -> Batches:
    """In another process: the shards are mapped again there, not copied."""
    return Batches(folder, mixture, sequence_length=length, batch_size=batch, seed=seed)


def read_dataset(folder: Path) -> dict[str, Any]:
    """What `prepare` wrote of the whole folder. Raises DataError."""
    path = folder / DATASET
    try:
        dataset: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); prepare it with `deepseek data RECIPE --out {folder}`"
        ) from (error)
    if dataset.get("format") != FORMAT:
        raise DataError(f"{path}: its format is not the {FORMAT} of this version; run `deepseek data` again")
    return dataset


def default_mixture(folder: Path) -> Mixture:
    """The shares that the recipe gave, else each source by its number of tokens."""
    sources = read_dataset(folder)["sources"]
    return Mixture.of({name: facts["share"] for name, facts in sources.items() if facts["train_tokens"]})


def _index_of(folder: Path, name: str) -> dict[str, Any]:
    where = folder / "shards" / name
    index = read_index(where)
    if index is None:
        raise DataError(f"{where}: is missing, cut short or damaged; run `deepseek data` again")
    return index
