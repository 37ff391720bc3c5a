"""`/v1/score` and `/v1/rerank`: vLLM's fields, which are Jina's and Cohere's. What is scored: `likelihood`."""

from typing import Annotated, ClassVar, Self

import msgspec
from pydantic import Field, model_validator

from deepseek.server.protocol.fields import PRIORITY
from deepseek.server.protocol.peer_fields import LABELS
from deepseek.server.protocol.tolerance import Refused, RequestBody, RequestModel

MOST_TEXTS = 2048
_REFUSED = {"truncate_prompt_tokens": Refused("send texts that fit into max_model_len", (-1,))}
_IGNORED = {
    **LABELS,
    **dict.fromkeys(("use_activation", "activation", "softmax", "raw_scores"), "scores are probabilities"),
    **dict.fromkeys(("truncate", "max_tokens_per_doc", "max_chunks_per_doc"), "a text that is too long is refused"),
    "mm_processor_kwargs": "there are no media",
}
Texts = Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]


class ScoreRequest(RequestBody):
    """text_1: a query, or one for each document. text_2: the documents."""

    aliases: ClassVar = {
        **dict.fromkeys(("queries", "data_1"), "text_1"),
        **dict.fromkeys(("documents", "items", "data_2"), "text_2"),
    }
    ignored: ClassVar = _IGNORED
    refused: ClassVar = _REFUSED

    model: str | None = None
    text_1: str | Texts
    text_2: str | Texts
    priority: int = Field(default=0, description=PRIORITY)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not isinstance(self.text_1, str) and len(self.text_1) not in (1, self._n_documents):
            raise ValueError("text_1 must be one text, or as many as text_2 has")
        return self

    @property
    def _n_documents(self) -> int:
        return 1 if isinstance(self.text_2, str) else len(self.text_2)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Query and document."""
        documents = [self.text_2] if isinstance(self.text_2, str) else self.text_2
        queries = [self.text_1] if isinstance(self.text_1, str) else self.text_1
        return list(zip(queries if len(queries) > 1 else queries * len(documents), documents, strict=True))


class Document(RequestModel):
    """Other fields are the client's own."""

    text: str


class RerankRequest(RequestBody):
    """texts instead of documents: Text Embeddings Inference's form, which has its own answer."""

    aliases: ClassVar = {"top_k": "top_n"}
    ignored: ClassVar = _IGNORED
    refused: ClassVar = {**_REFUSED, "rank_fields": Refused("send the documents as texts", (["text"],))}

    model: str | None = None
    query: str
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MOST_TEXTS)] | None = None
    texts: Texts | None = None
    top_n: int | None = Field(default=None, description="So many of the best; without it, and below 1, all.")
    return_documents: bool = True
    return_text: bool = Field(default=False, description="With texts: tell them.")
    priority: int = Field(default=0, description=PRIORITY)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.documents is None) == (self.texts is None):
            raise ValueError("documents must be given" if self.texts is None else "give either documents or texts")
        return self

    @property
    def best(self) -> int | None:
        """So many are answered; None: all."""
        return self.top_n if self.top_n is not None and self.top_n > 0 else None

    @property
    def contents(self) -> list[str]:
        return [one if isinstance(one, str) else one.text for one in self.documents or self.texts or ()]


class RankingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class Score(msgspec.Struct):
    index: int
    score: float
    object: str = "score"


class ScoreList(msgspec.Struct):
    id: str
    created: int
    model: str
    data: list[Score]
    usage: RankingUsage
    object: str = "list"


class RankedDocument(msgspec.Struct):
    text: str


class Ranked(msgspec.Struct):
    """index: the document's place in the request."""

    index: int
    relevance_score: float
    document: RankedDocument | msgspec.UnsetType = msgspec.UNSET


class RankedText(msgspec.Struct, omit_defaults=True):
    """As Text Embeddings Inference answers."""

    index: int
    score: float
    text: str | None = None


class Ranking(msgspec.Struct):
    """results: the best first; of equals the earlier."""

    id: str
    model: str
    results: list[Ranked]
    usage: RankingUsage
