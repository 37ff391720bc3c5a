"""`/v1/score` and `/v1/rerank`: vLLM's fields, which are Jina's and Cohere's. What is scored: `likelihood`."""

from typing import Annotated, Self

import msgspec
from pydantic import Field, model_validator

from deepseek.server.protocol.fields import Strict

MOST_TEXTS = 2048
Texts = Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]


class ScoreRequest(Strict):
    """text_1: a query, or one for each document. text_2: the documents."""

    model: str | None = None
    text_1: str | Texts
    text_2: str | Texts
    priority: int = Field(default=0, description="The lower, the earlier.")
    user: str | None = Field(default=None, description="A label; changes nothing.")

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


class Document(Strict):
    text: str


class RerankRequest(Strict):
    model: str | None = None
    query: str
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MOST_TEXTS)]
    top_n: int | None = Field(default=None, ge=1, description="So many of the best; without it all.")
    return_documents: bool = True
    priority: int = Field(default=0, description="The lower, the earlier.")
    user: str | None = Field(default=None, description="A label; changes nothing.")

    @property
    def texts(self) -> list[str]:
        return [one if isinstance(one, str) else one.text for one in self.documents]


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


class Ranking(msgspec.Struct):
    """results: the best first; of equals the earlier."""

    id: str
    model: str
    results: list[Ranked]
    usage: RankingUsage
