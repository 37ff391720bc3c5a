"""`/v1/embeddings`: what may be asked, and the answer."""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from deepseek.engine.pooling import PoolingKind
from deepseek.server.protocol.fields import Strict

MOST_INPUTS = 2048
Token = Annotated[int, Field(ge=0, lt=2**31)]


class EmbeddingRequest(Strict):
    """OpenAI's fields; pooling, normalize, add_special_tokens and priority are extensions."""

    model: str | None = None
    input: (
        str
        | Annotated[list[Token], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
        | Annotated[list[list[Token]], Field(min_length=1, max_length=MOST_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    pooling: PoolingKind = Field(default="mean", description="Of the final hidden states: mean, or the last token's.")
    normalize: bool = Field(default=True, description="Vectors of length 1.")
    add_special_tokens: bool = Field(default=True, description="What the tokenizer puts around a text.")
    priority: int = Field(default=0, description="The lower, the earlier.")
    user: str | None = Field(default=None, description="A label; changes nothing.")

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
