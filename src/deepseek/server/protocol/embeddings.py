"""`/v1/embeddings`: what may be asked, and the answer."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import Field

from deepseek.engine.pooling import PoolingKind
from deepseek.server.protocol.completions import Tokens
from deepseek.server.protocol.fields import PRIORITY
from deepseek.server.protocol.peer_fields import LABELS
from deepseek.server.protocol.tolerance import Notes, Refused, RequestBody

MOST_INPUTS = 2048


class EmbeddingRequest(RequestBody):
    """OpenAI's fields; pooling, normalize, add_special_tokens and priority are extensions."""

    aliases: ClassVar = {"inputs": "input", "embedding_type": "encoding_format"}
    adapted: ClassVar = {"embd_normalize": "normalize: 2 is true, -1 is false"}
    ignored: ClassVar = {
        **LABELS,
        **dict.fromkeys(("input_type", "task", "prompt_name"), "the model knows one kind of text"),
        "truncate": "a text that is too long is refused",
        "rid": "the answer has no id",
        "request_id": "the answer has no id",
        "options": "fields of Ollama's own API",
    }
    refused: ClassVar = {
        "truncate_prompt_tokens": Refused("send texts that fit into max_model_len", (-1,)),
        "output_dtype": Refused("use encoding_format", ("float",)),
        "embed_dtype": Refused("use encoding_format", ("float32",)),
        "late_chunking": Refused("send the chunks as texts of their own"),
        "instruction": Refused("write it before each text"),
        "image": Refused("this model reads text only"),
        "images": Refused("this model reads text only"),
    }

    model: str | None = None
    input: (
        str
        | Annotated[Tokens, Field(min_length=1)]
        | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MOST_INPUTS)]
        | Annotated[list[Tokens], Field(fail_fast=True, min_length=1, max_length=MOST_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(
        default=None, description="The model's own number: its vectors were not made to be cut shorter."
    )
    pooling: PoolingKind = Field(default="mean", description="Of the final hidden states: mean, or the last token's.")
    normalize: bool = Field(default=True, description="Vectors of length 1.")
    add_special_tokens: bool = Field(default=True, description="What the tokenizer puts around a text.")
    priority: int = Field(default=0, description=PRIORITY)

    @classmethod
    def adapt(cls, values: dict[str, Any], notes: Notes) -> None:
        norm = values.pop("embd_normalize", None)
        if norm is not None and norm not in (2, -1):
            notes.refuse(
                "embd_normalize", f"is {norm!r:.100}: give 2 for vectors of length 1, or -1 for them as they are"
            )
        if norm is not None:
            values.setdefault("normalize", norm == 2)

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """A list, also of one."""
        given: Any = self.input
        inputs: list[str] | list[list[int]] = [given] if isinstance(given, str) or isinstance(given[0], int) else given
        return inputs


class Embedding(msgspec.Struct):
    """embedding: numbers, or in base64 little-endian 32-bit floats."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: str = "list"
