"""A recipe to a folder that `Batches` reads: documents, selection, tokenizer, shards, report.

Each stage of each source writes a folder aside and renames it, under a key of everything that went into it. So a run
that was killed goes on where it was, a second run does nothing, and a change redoes what depends on it and no more.

    OUT/documents/NAME/    cleaned text and its signatures (for preparing only: may be deleted afterwards)
    OUT/tokenizer/         Hugging Face layout
    OUT/shards/NAME/       tokens
    OUT/report.json        what came from where and what became of it
    OUT/dataset.json       what `Batches` needs; written last, so a folder that has it is whole
"""

import dataclasses
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepseek.checkpoint.atomic import atomic_file
from deepseek.errors import ConfigError, DataError
from deepseek.progress import Report, silent
from deepseek.training.data import documents, shards, vocabulary
from deepseek.training.data.batches import DATASET, FORMAT
from deepseek.training.data.cleaning import cleaned, han_share, pieces
from deepseek.training.data.documents import DocumentStore, DocumentWriter
from deepseek.training.data.fetch import Opened, open_source
from deepseek.training.data.identity import files_identity, key_of, recipe_key
from deepseek.training.data.members import Member
from deepseek.training.data.readers import FORMATS
from deepseek.training.data.readers.auto import NOT_TEXT, suffix_of
from deepseek.training.data.recipe import DataRecipe, SourceConfig
from deepseek.training.data.selection import Fate, Selection, select

REPORT = "report.json"
_DECIDE_TEXT = ("kind", "members", "exclude", "format", "field", "encoding", "drop_lines")
_CHINESE = 0.3  # share of Chinese among the letters from which on a document counts as Chinese


def prepare(
    recipe: DataRecipe,
    out: Path,
    *,
    downloads: Path | None = None,
    report: Report = silent,
    offline: bool = False,
) -> dict[str, Any]:
    """Prepare `out`; returns what report.json holds. downloads: where packages are kept, by default OUT/downloads.

    Raises ConfigError, DataError or HubError; what is finished stays and is not done again. One process at a time.
    """
    from filelock import FileLock

    began = time.monotonic()
    key = recipe_key(recipe)
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        (out / DATASET).unlink(missing_ok=True)  # nobody reads a folder while it changes
        for source in recipe.sources:
            places, kept = recipe.places_of(source), downloads or out / "downloads"
            opened = open_source(source, places, kept, report=report, offline=offline)
            _read(recipe, source, opened, out / "documents" / source.name, report)
        stores = [DocumentStore(out / "documents" / source.name) for source in recipe.sources]
        selection = select(
            stores,
            [recipe.held_out_of(source) for source in recipe.sources],
            similarity=recipe.duplicates.similarity,
            shingle_words=recipe.duplicates.shingle_words,
            report=report,
        )
        _require_text(recipe, stores, selection)
        _tokenizer(recipe, stores, selection, out, report)
        indexes = _shards(recipe, stores, selection, out, report)
        told = _report(recipe, stores, selection, indexes)
        told["seconds"] = round(time.monotonic() - began, 1)
        _write_json(out / REPORT, told)
        _write_json(out / DATASET, _dataset(told) | {"key": key})
    return told


def _read(recipe: DataRecipe, source: SourceConfig, opened: Opened, folder: Path, report: Report) -> None:
    """Members to cleaned documents, unless that was done."""
    minimum, limit = recipe.minimum_of(source), recipe.split_of(source)
    described = {name: getattr(source, name) for name in _DECIDE_TEXT}
    key = key_of(described, opened.identity, minimum, limit, recipe.duplicates.shingle_words)
    if documents.key_on_disk(folder) == key:
        return
    counts = dict.fromkeys(("read", "raw_bytes", "too_short", "without_text", "chinese_bytes"), 0)
    passed_over: Counter[str] = Counter()
    with DocumentWriter(folder, recipe.duplicates.shingle_words) as writer:
        for _, text in FORMATS[source.format](_text_files(opened.members(), source, passed_over), source):
            counts["read"] += 1
            if text is None:
                counts["without_text"] += 1
                continue
            counts["raw_bytes"] += len(text.encode("utf-8", "surrogatepass"))
            clean = cleaned(text, source.drop_lines)
            if len(clean) < minimum:
                counts["too_short"] += 1
                continue
            for piece in pieces(clean, limit):
                writer.add(piece)
                counts["chinese_bytes"] += len(piece.encode()) if han_share(piece) >= _CHINESE else 0
            report(f"reading {source.name}", counts["raw_bytes"], None)
        report(f"reading {source.name}", counts["raw_bytes"], counts["raw_bytes"])
        writer.finish({"key": key, "origin": opened.facts, **counts, "passed_over": dict(passed_over.most_common())})


def _text_files(members: Iterator[Member], source: SourceConfig, passed_over: Counter[str]) -> Iterator[Member]:
    """Without images, archives and the like, by their suffixes, where the format is found by suffix too."""
    for member in members:
        if source.format == "auto" and (suffix := suffix_of(member)) in NOT_TEXT:
            passed_over[suffix] += 1
        else:
            yield member


def _require_text(recipe: DataRecipe, stores: Sequence[DocumentStore], selection: Selection) -> None:
    for place, source in enumerate(recipe.sources):
        if not selection.documents(place, Fate.TRAIN).size:
            index = stores[place].index
            raise DataError(
                f"source {source.name}: no document is left to train on; {index['read']:,} were read, "
                f"{index['too_short']:,} of them shorter than minimum_characters ({recipe.minimum_of(source)}), "
                f"{index['without_text']:,} without text; check members, held_out ({recipe.held_out_of(source):g}) and "
                "whether another source holds the same text"
            )


def notes(told: dict[str, Any]) -> list[str]:
    """What was passed over on the way, in a line a source: nothing is left out without a word.

    told: what report.json holds.
    """
    lines = []
    for source in told["sources"]:
        files = ", ".join(f"{count:,} {suffix}" for suffix, count in source["passed_over"].items())
        said = {
            f"{source['without_text']:,} rows without text": source["without_text"],
            f"{source['too_short']:,} documents shorter than minimum_characters": source["too_short"],
            f"files that are not text ({files})": files,
        }
        if passed := [text for text, any_ in said.items() if any_]:
            lines.append(f"source {source['name']}: passed over {', '.join(passed)}")
    return lines


def _shares(recipe: DataRecipe, sizes: Sequence[int]) -> list[float]:
    """Of the default mixture: as given, or by size; a recipe gives all of them or none."""
    given = [source.share for source in recipe.sources]
    told = [share for share in given if share is not None]
    if told and len(told) < len(given):
        raise ConfigError("share is given for some sources only: give it for all or for none")
    return told or [float(size) for size in sizes]


def _tokenizer(
    recipe: DataRecipe, stores: Sequence[DocumentStore], selection: Selection, out: Path, report: Report
) -> None:
    wanted = recipe.tokenizer
    kept = [selection.documents(place, Fate.TRAIN) for place in range(len(stores))]
    shares = _shares(recipe, [sum(map(store.size, map(int, k))) for store, k in zip(stores, kept, strict=True)])
    texts = [_hash(k) for k in kept] if wanted.path is None else []
    given = recipe.given_tokenizer()
    given_files = files_identity(given) if isinstance(given, Path) else ""
    sources = [store.index["key"] for store in stores] if texts else []
    key = key_of(dataclasses.asdict(wanted), given_files, shares, texts, sources)
    folder = out / "tokenizer"
    if vocabulary.key_on_disk(folder) == key:
        return
    if given is not None:
        from deepseek.tokenizer import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(given)
        vocabulary.save(tokenizer, folder, {"key": key, "taken_from": wanted.path})
        return
    assert wanted.vocab_size is not None
    sample = _sample(stores, kept, shares, wanted.train_bytes)
    texts_of_sample = _reported((stores[place].text(number) for place, number in sample), len(sample), report)
    tokenizer = vocabulary.train(texts_of_sample, wanted.vocab_size, allow_fewer=wanted.allow_fewer)
    size = sum(stores[place].size(number) for place, number in sample)
    vocabulary.save(tokenizer, folder, {"key": key, "bytes": size, "documents": len(sample)})


def _reported(texts: Iterator[str], total: int, report: Report) -> Iterator[str]:
    for done, text in enumerate(texts, 1):
        yield text
        report("training the tokenizer", done, total, "documents")


def _sample(
    stores: Sequence[DocumentStore], kept: Sequence[NDArray[np.intp]], shares: Sequence[float], limit: int
) -> list[tuple[int, int]]:
    """Documents spread evenly over each source, about `limit` bytes, of each source by its share as far as it goes."""
    chosen = []
    for place, (store, numbers, share) in enumerate(zip(stores, kept, shares, strict=True)):
        have = sum(map(store.size, map(int, numbers)))
        part = min(1.0, limit * share / sum(shares) / have)
        count = int(np.ceil(part * numbers.size)) if share else 0
        picked = numbers[np.linspace(0, numbers.size - 1, count).round().astype(np.intp)]
        chosen += [(place, int(number)) for number in picked]
    return chosen


def _hash(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _shards(
    recipe: DataRecipe, stores: Sequence[DocumentStore], selection: Selection, out: Path, report: Report
) -> list[dict[str, Any]]:
    """Tokens of each source, unless they are there."""
    tokenizer = _hash(np.frombuffer((out / "tokenizer" / "tokenizer.json").read_bytes(), np.uint8))
    encoder: vocabulary.DocumentEncoder | None = None
    indexes = []
    for place, (source, store) in enumerate(zip(recipe.sources, stores, strict=True)):
        folder = out / "shards" / source.name
        key = key_of(tokenizer, store.index["key"], _hash(selection.fates[place]))
        index = shards.read_index(folder)
        if index is None or index["key"] != key:
            encoder = encoder or vocabulary.DocumentEncoder(out / "tokenizer")
            with shards.ShardWriter(folder, encoder.vocab_size) as writer:
                for split, fate in (("train", Fate.TRAIN), ("held_out", Fate.HELD_OUT)):
                    texts = store.texts(selection.documents(place, fate))
                    for ids in encoder.encoded(texts, report, f"encoding {source.name}"):
                        writer.add(split, ids)
                index = writer.finish(key)
        indexes.append(index)
    return indexes


def _report(
    recipe: DataRecipe, stores: Sequence[DocumentStore], selection: Selection, indexes: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    shares = _shares(recipe, [index["splits"]["train"]["tokens"] for index in indexes])
    told = [
        _report_of(source, store, selection.fates[place], index, shares[place] / sum(shares))
        for place, (source, store, index) in enumerate(zip(recipe.sources, stores, indexes, strict=True))
    ]
    sums = (
        *("bytes", "train_tokens", "held_out_tokens", "documents", "held_out_documents"),
        *("exact", "near", "too_short", "without_text"),
    )
    total = {name: sum(entry[name] for entry in told) for name in sums}
    languages: dict[str, int] = {}
    for entry in told:
        languages[entry["language"]] = languages.get(entry["language"], 0) + entry["bytes"]
    return {
        "vocab_size": indexes[0]["vocab_size"],
        "total": total | {"tokens_per_byte": _ratio(total["train_tokens"] + total["held_out_tokens"], total["bytes"])},
        "bytes_by_language": languages,
        "sources": told,
    }


def _report_of(
    source: SourceConfig, store: DocumentStore, fates: NDArray[np.uint8], index: dict[str, Any], share: float
) -> dict[str, Any]:
    ends = store.ends[:, 0]
    sizes = np.diff(ends, prepend=np.uint64(0))
    stays = (fates == Fate.TRAIN) | (fates == Fate.HELD_OUT)
    train, held_out = index["splits"]["train"], index["splits"]["held_out"]
    size = int(sizes[stays].sum())
    return {
        "name": source.name,
        "about": source.about,
        "kind": source.kind,
        "format": source.format,
        "language": source.language,
        "licence": source.licence,
        "origin": store.index["origin"],
        "raw_bytes": store.index["raw_bytes"],
        "bytes": size,
        "chinese": _ratio(store.index["chinese_bytes"], store.index["bytes"]),
        "read": store.index["read"],
        "too_short": store.index["too_short"],
        "without_text": store.index["without_text"],
        "passed_over": store.index["passed_over"],
        "exact": int((fates == Fate.EXACT).sum()),
        "near": int((fates == Fate.NEAR).sum()),
        "documents": train["documents"],
        "held_out_documents": held_out["documents"],
        "train_tokens": train["tokens"],
        "held_out_tokens": held_out["tokens"],
        "tokens_per_byte": _ratio(train["tokens"] + held_out["tokens"], size),
        "share": share,
    }


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _dataset(told: dict[str, Any]) -> dict[str, Any]:
    names = ("train_tokens", "held_out_tokens", "share", "language", "licence", "origin")
    sources = {entry["name"]: {name: entry[name] for name in names} for entry in told["sources"]}
    return {"format": FORMAT, "vocab_size": told["vocab_size"], "tokenizer": "tokenizer", "sources": sources}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=1).encode())
