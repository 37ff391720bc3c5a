"""What a file is by its first bytes, whatever its name says: blobs without a suffix, web pages named model.gguf."""

from pathlib import Path

from deepseek.errors import CheckpointError

SNIFFED_BYTES = 512
GGUF_MAGIC = b"GGUF"

_PICKLE = (
    "which can run code when it is loaded and is never opened here: fetch the model as safetensors, or convert it on "
    "an isolated machine (load it and save it with safetensors)"
)
_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer, which stands for the file itself: run git lfs pull, then again"),
    (b"PK", f"a zip archive or a PyTorch pickle, {_PICKLE}"),
    (b"\x80", f"a Python pickle, {_PICKLE}"),
    (b"\x1f\x8b", "a gzip archive: unpack it and name the file inside"),
    (b"\xfd7zXZ", "an xz archive: unpack it and name the file inside"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it and name the file inside"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive: unpack it and name the file inside"),
    (b"\x89HDF", "an HDF5 file (Keras or TensorFlow): fetch the model as safetensors or GGUF"),
    (b"GGUF", "a GGUF file"),
    (b"lmgg", "a GGML file of before GGUF: convert the original model again with a current llama.cpp"),
    (b"tjgg", "a GGJT file of before GGUF: convert the original model again with a current llama.cpp"),
    (b"fmgg", "a GGMF file of before GGUF: convert the original model again with a current llama.cpp"),
)


def describe(start: bytes) -> str | None:
    """What a file that begins with these bytes is and what to do with it; None when they say nothing."""
    for magic, what in _KINDS:
        if start.startswith(magic):
            return what
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it and name the file inside"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<")):
        return "a web page, so the download failed: fetch the file itself (a hub's link has /resolve/, not /blob/)"
    if text.startswith((b'{"error', b"entry not found", b"invalid username", b"access to model", b"repository not")):
        return "a server's error message, so the download failed: fetch the file again, with access to it"
    if start and not start.strip(b"\0"):
        return "a file of zeros: the download was reserved on the disk but never arrived; fetch it again"
    return None


def first_bytes(path: Path) -> bytes:
    """Raises CheckpointError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(SNIFFED_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def is_gguf(path: Path) -> bool:
    """Whether this is a regular file that begins as a GGUF file does."""
    return path.is_file() and first_bytes(path).startswith(GGUF_MAGIC)


def is_safetensors(start: bytes) -> bool:
    """A header length, then the JSON object of the header."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 40
