"""A folder of mixed files: each is read by what its name ends in, and what is no text is passed over and counted."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from deepseek.training.data.members import Member
from deepseek.training.data.readers import markup, plain, tables

if TYPE_CHECKING:
    from deepseek.training.data.recipe import SourceConfig

_READERS: dict[str, Callable[[Iterable[Member], "SourceConfig"], Iterator[tuple[str, str | None]]]] = {
    ".jsonl": tables.json_lines,
    ".ndjson": tables.json_lines,
    ".json": tables.json_values,
    ".csv": tables.comma_separated,
    ".tsv": tables.tab_separated,
    ".parquet": tables.parquet,
    ".html": markup.html,
    ".htm": markup.html,
}

NOT_TEXT = frozenset(
    suffix
    for group in (
        ".png .jpg .jpeg .gif .bmp .tif .tiff .webp .heic .ico .psd",
        ".mp3 .wav .flac .ogg .m4a .mp4 .mkv .mov .avi .webm",
        ".pdf .doc .docx .odt .rtf .xls .xlsx .ods .ppt .pptx .odp .epub .mobi .djvu",
        ".zip .tar .tgz .7z .rar .whl .deb .rpm .jar .exe .dll .so .dylib .o .a .pyc .class .wasm .bin .iso",
        ".safetensors .gguf .pt .pth .ckpt .onnx .npy .npz .pkl .pickle .h5 .arrow .feather .db .sqlite .sqlite3",
        ".ttf .otf .woff .woff2",
    )
    for suffix in group.split()
)


def mixed(members: Iterable[Member], source: "SourceConfig") -> Iterator[tuple[str, str | None]]:
    """Anything that is not a table or a page is taken as text."""
    for member in members:
        yield from _READERS.get(suffix_of(member), plain.text)((member,), source)


def suffix_of(member: Member) -> str:
    return PurePosixPath(member.name).suffix.lower()
