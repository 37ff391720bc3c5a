"""Text to token ids and back, and chat templates.

Here: tokenizers read from `tokenizer.json` folders and from GGUF metadata, incremental detokenising, the sandbox that
renders chat templates, and writing both formats. Everything read is treated as hostile: sizes, ids and depth are
checked before use, and every refusal is a `deepseek.errors.TokenizerError`.

Not here: weights (`deepseek.checkpoint`), fetching (`deepseek.hub`), prompts of a product. No PyTorch, no Transformers.
Importing this package is cheap; `tokenizers` and `jinja2` are imported on first use.
"""

from deepseek.tokenizer.auto import AutoTokenizer
from deepseek.tokenizer.from_gguf import tokenizer_from_gguf
from deepseek.tokenizer.stream import StreamDecoder
from deepseek.tokenizer.to_gguf import tokenizer_to_gguf
from deepseek.tokenizer.tokenizer import Tokenizer

__all__ = ["AutoTokenizer", "StreamDecoder", "Tokenizer", "tokenizer_from_gguf", "tokenizer_to_gguf"]
