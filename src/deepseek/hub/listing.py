"""What a hub repository offers at one commit, and which of its files a model needs.

Weights are safetensors or GGUF; pickle formats are never fetched, and neither is code.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deepseek.errors import HubError
from deepseek.hub.cache import in_units, safe_member

PICKLE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_TEXT = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_TEMPLATE_FOLDER = "additional_chat_templates/"
_NO_MODEL = re.compile(r"mmproj|imatrix|(^|[-._])(lora|adapter)([-._]|$)|^ggml-vocab")
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_MAX_TEXT_BYTES = 256 << 20  # the largest tokenizer.json of any known model is below 40 MB


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a repository. digest: "sha256:..." or "git:..."; "" when nothing vouches for the content."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All files of `repo` at `commit`."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]

    def to_json(self) -> list[dict[str, Any]]:
        return [vars(file) for file in self.files]

    @classmethod
    def from_json(cls, repo: str, commit: str, files: Iterable[Mapping[str, Any]]) -> "Listing":
        return cls(repo=repo, commit=commit, files=tuple(RemoteFile(**file) for file in files))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The files to have; `single` names the GGUF file that is the model, None when the folder is."""

    files: tuple[RemoteFile, ...]
    single: str | None


def select(listing: Listing, variant: str | None) -> Selection:
    """The files that the model needs. Raises HubError when there are none, or several to choose from."""
    weights = [file for file in listing.files if file.name.endswith(".safetensors") and "/" not in file.name]
    ggufs = [file for file in listing.files if is_gguf_model(file.name)]
    if variant is not None:
        chosen = _gguf_variant(listing.repo, ggufs, variant)
    elif weights:
        return _checked(listing, Selection(files=(*_texts(listing), *_shards(weights)), single=None))
    elif ggufs:
        chosen = _only_gguf(listing.repo, ggufs)
    else:
        raise _no_weights(listing)
    return _checked(listing, Selection(files=chosen, single=chosen[0].name))


def is_gguf_model(name: str) -> bool:
    """By its name, as publishers choose them: not the projector for images or calibration data beside a model."""
    return name.lower().endswith(".gguf") and _NO_MODEL.search(name.lower().rpartition("/")[2]) is None


def config_alone(listing: Listing) -> Selection:
    """Only config.json, for those who want to know what a model is before they fetch it."""
    found = tuple(file for file in listing.files if file.name == "config.json" and file.size <= _MAX_TEXT_BYTES)
    if not found:
        raise HubError(
            f"{listing.repo} has no config.json: fetch a GGUF file of it (`deepseek pull {listing.repo}:VARIANT`) "
            "and name that file"
        )
    return Selection(files=found, single="config.json")


def _texts(listing: Listing) -> list[RemoteFile]:
    """Configuration, tokenizer and chat templates."""
    return [
        file
        for file in listing.files
        if file.name.endswith(_TEXT)
        and ("/" not in file.name or file.name.startswith(_TEMPLATE_FOLDER))
        and file.size <= _MAX_TEXT_BYTES
    ]


def _shards(weights: Sequence[RemoteFile]) -> Sequence[RemoteFile]:
    # some repositories hold the same weights a second time under another name (consolidated.safetensors)
    return [file for file in weights if file.name.startswith("model")] or weights


def _gguf_variant(repo: str, ggufs: Sequence[RemoteFile], variant: str) -> tuple[RemoteFile, ...]:
    if not ggufs:
        raise HubError(f"{repo} holds no GGUF files, so there is no variant {variant!r}: ask for {repo} alone")
    wanted = re.compile(rf"(?<![a-z0-9]){re.escape(variant.lower())}(?![a-z0-9_])")
    found = [file for file in ggufs if wanted.search(file.name.lower()) or file.name == variant]
    if not found:
        raise HubError(f"{repo} has no variant {variant!r}; it offers: {_variants(ggufs)}")
    return _only_gguf(repo, found)


def _only_gguf(repo: str, ggufs: Sequence[RemoteFile]) -> tuple[RemoteFile, ...]:
    """All parts of the one model among `ggufs`, the first part first."""
    models = {_SPLIT.sub("", file.name) for file in ggufs}
    if len(models) > 1:
        example = _variant_of(min(ggufs, key=lambda file: file.size).name)
        raise HubError(f"{repo} holds several variants; name one, as in {repo}:{example}. {_variants(ggufs)}")
    parts = sorted(ggufs, key=lambda file: file.name)
    if (split := _SPLIT.search(parts[0].name)) and len(parts) != int(split[2]):
        raise HubError(f"{repo} holds {len(parts)} of {int(split[2])} parts of {parts[0].name}: choose another variant")
    return tuple(parts)


def _variants(ggufs: Sequence[RemoteFile]) -> str:
    sizes: dict[str, int] = {}
    for file in ggufs:
        sizes[_variant_of(file.name)] = sizes.get(_variant_of(file.name), 0) + file.size
    return ", ".join(f"{name} ({in_units(size)})" for name, size in sorted(sizes.items(), key=lambda item: item[1]))


def _variant_of(name: str) -> str:
    """The quantisation in a GGUF file's name, or the name when it has none."""
    stem = _SPLIT.sub("", name).removesuffix(".gguf").rpartition("/")[2]
    found = re.search(r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|BF16|F16|F32|MXFP4\w*|TQ\d\w*))$", stem, re.IGNORECASE)
    return found[1] if found else stem + ".gguf"


def _no_weights(listing: Listing) -> HubError:
    pickles = [file.name for file in listing.files if file.name.endswith(PICKLE)]
    if pickles:
        return HubError(
            f"{listing.repo} offers its weights only as pickle files ({pickles[0]}), which can run code when they are "
            "opened and are refused here: look among the repository's pull requests for a safetensors conversion and "
            "name it with --revision refs/pr/NUMBER, or choose a repository with safetensors or GGUF"
        )
    return HubError(f"{listing.repo} holds neither safetensors nor GGUF weights: check the name of the repository")


def _checked(listing: Listing, selection: Selection) -> Selection:
    if unsafe := [file.name for file in selection.files if not safe_member(file.name)]:
        raise HubError(f"{listing.repo} lists a file whose path leaves the folder, {unsafe[0]!r}: refused")
    return selection
