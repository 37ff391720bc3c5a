"""A name, a folder or a GGUF file to a tokenizer."""

import re
from pathlib import Path

from deepseek.errors import TokenizerError
from deepseek.tokenizer.tokenizer import Tokenizer

_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


class AutoTokenizer:
    """Finds and builds the tokenizer of a model; see `from_pretrained`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, *, revision: str | None = None) -> Tokenizer:
        """The tokenizer of a folder with `tokenizer.json`, of a `.gguf` file or a folder with one, or of a model name.

        A name that is no path here goes to `deepseek.hub.resolve`.
        """
        path = Path(name_or_path)
        if not path.exists():
            from deepseek import hub

            path = Path(hub.resolve(str(name_or_path), revision=revision).path)
        return _from_path(path)


def _from_path(path: Path) -> Tokenizer:
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _from_gguf(path)
    if path.is_file() and path.name == "tokenizer.json":
        path = path.parent
    if not path.is_dir():
        raise TokenizerError(f"{path}: is no folder and no .gguf file")
    if (path / "tokenizer.json").is_file():
        from deepseek.tokenizer.files import read_tokenizer

        return read_tokenizer(path)
    ggufs = [file for file in sorted(path.glob("*.gguf")) if not _LATER_PART.search(file.name)]
    if len(ggufs) == 1:
        return _from_gguf(ggufs[0])
    if ggufs:
        raise TokenizerError(f"{path}: holds {len(ggufs)} .gguf files and no tokenizer.json: name one of the files")
    raise TokenizerError(f"{path}: holds neither tokenizer.json nor a .gguf file")


def _from_gguf(path: Path) -> Tokenizer:
    from deepseek.checkpoint.gguf.file import GgufFile
    from deepseek.tokenizer.from_gguf import tokenizer_from_gguf

    file = GgufFile(path)
    try:
        return tokenizer_from_gguf(file.metadata, where=str(path))
    finally:
        file.close()
