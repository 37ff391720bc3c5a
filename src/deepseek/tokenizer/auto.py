"""A name, a folder or a file of a model to its tokenizer."""

from pathlib import Path

from deepseek.errors import CheckpointError, TokenizerError
from deepseek.tokenizer.tokenizer import Tokenizer


class AutoTokenizer:
    """Finds and builds the tokenizer of a model; see `from_pretrained`."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, *, revision: str | None = None) -> Tokenizer:
        """The tokenizer of a folder, of one of its files, of a GGUF file or a folder with one, or of a model name.

        What a name means: `deepseek.hub.resolve`.
        """
        from deepseek.hub import resolve

        return _from_path(resolve(name_or_path, revision=revision).path)


def _from_path(path: Path) -> Tokenizer:
    from deepseek.checkpoint.file_kinds import is_gguf
    from deepseek.checkpoint.gguf.folder import gguf_of
    from deepseek.tokenizer.files import has_tokenizer, read_tokenizer

    if path.is_file():
        if is_gguf(path):
            return _from_gguf(path)
        path = path.parent  # tokenizer.json, config.json or weights: the tokenizer lies beside them
    if not path.is_dir():
        raise TokenizerError(f"{path}: is neither a folder nor a file")
    if has_tokenizer(path):
        return read_tokenizer(path)
    try:
        gguf = gguf_of(path)
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None
    return read_tokenizer(path) if gguf is None else _from_gguf(gguf)


def _from_gguf(path: Path) -> Tokenizer:
    from deepseek.checkpoint.gguf.file import GgufFile
    from deepseek.tokenizer.from_gguf import tokenizer_from_gguf

    file = GgufFile(path)
    try:
        return tokenizer_from_gguf(file.metadata, where=str(path))
    finally:
        file.close()
