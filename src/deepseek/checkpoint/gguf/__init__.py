"""GGUF, the file format of llama.cpp: our own reader and writer, exact decoding and encoding of its block types.

`format` holds the numbers of the format, `parser` the header of one file, `file` a model of one or many files,
`dequantize` and `quantize` the block types, `checkpoint` the canonical names on top, `writer` the way back.
"""

from deepseek.checkpoint.gguf.file import GgufFile, GgufTensor, read_gguf_metadata

__all__ = ["GgufFile", "GgufTensor", "read_gguf_metadata"]
