"""How well a document fits a query: how likely the model finds the query after the document.

A model that generates has no head for relevance, but it can say how probable it would be that somebody who has the
document before them asks this. The prompt is

    Text: <document>
    A question or search that this text answers: <query>

and the score is exp(mean of log p(token)) over the query's tokens alone: their geometric mean probability, above 0 and
at most 1. Scores of one query compare documents; those of different queries do not compare, for an odd query is
unlikely after any document. Known as query likelihood (Ponte and Croft 1998; with language models, Sachan et al. 2022).
"""

import math
from typing import TYPE_CHECKING

from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams
from deepseek.server.generation import begin
from deepseek.server.many_prompts import finish

if TYPE_CHECKING:
    from deepseek.server.generation import Wish
    from deepseek.server.service import Service

_BEFORE, _BETWEEN = "Text: ", "\nA question or search that this text answers:"
_PARAMS = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0)


async def fit(service: "Service", query: str, document: str, wish: "Wish") -> tuple[float, int]:
    """The score, and how many tokens were computed."""
    n_query = 0

    def make() -> tuple[list[int], SamplingParams]:
        nonlocal n_query
        before, asked = _ids(service, query, document)
        n_query = len(asked)
        return before + asked, _PARAMS

    answer = await finish(await begin(service, make, wish))
    logprobs = [logprob for logprob, _ in answer.prompt_logprobs or []]
    return math.exp(math.fsum(logprobs[-n_query:]) / n_query), answer.prompt_tokens


def _ids(service: "Service", query: str, document: str) -> tuple[list[int], list[int]]:
    """Of what precedes the query, and of the query. Control tokens in either are text."""
    if not query.strip():
        raise GenerationError("a query must have at least one character that is not whitespace")
    before, asked = (
        service.within_context(service.tokenizer.encode, text, parse_special=False, add_special_tokens=False)
        for text in (f"{_BEFORE}{document}{_BETWEEN}", f" {query}")
    )
    return [*service.tokenizer.added_around[0], *before], asked
