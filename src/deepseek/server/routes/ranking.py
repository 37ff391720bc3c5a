"""POST /v1/score and /v1/rerank: by likelihood, as `deepseek.server.likelihood` says."""

import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from deepseek.server import sse
from deepseek.server.likelihood import fit
from deepseek.server.many_prompts import run_all
from deepseek.server.openapi_document import answers_with
from deepseek.server.protocol import ranking as out
from deepseek.server.protocol.ranking import RerankRequest, ScoreRequest
from deepseek.server.routes.shared import json_response, new_router, serving, wish_for
from deepseek.server.service import Service, new_id

router = new_router("ranking")


@router.post("/v1/score", responses=answers_with(out.ScoreList))
@router.post("/score", include_in_schema=False)
async def score(body: ScoreRequest, request: Request) -> Response:
    """How well each document (text_2) fits its query (text_1), above 0 and at most 1.

    The geometric mean of the probabilities of the query's tokens, after a prompt with the document.
    """
    service = serving(request)
    model = service.check_model(body.model)
    answer_id = new_id("score")

    async def told() -> Response:
        scores, usage = await _scores(service, request, answer_id, body.pairs, body.priority)
        data = [out.Score(place, value) for place, value in enumerate(scores)]
        return json_response(out.ScoreList(answer_id, int(time.time()), model, data, usage))

    return await sse.whole(request, told())


@router.post("/v1/rerank", responses=answers_with(out.Ranking, or_list_of=out.RankedText))
@router.post("/rerank", include_in_schema=False)
@router.post("/v2/rerank", include_in_schema=False)
async def rerank(body: RerankRequest, request: Request) -> Response:
    """The documents that fit a query, the best first; relevance_score is what /v1/score gives."""
    service = serving(request)
    model = service.check_model(body.model)
    answer_id = new_id("rerank")
    texts = body.contents

    async def told() -> Response:
        pairs = [(body.query, text) for text in texts]
        scores, usage = await _scores(service, request, answer_id, pairs, body.priority)
        best = sorted(range(len(texts)), key=lambda place: -scores[place])[: body.best]
        if body.texts is not None:
            return json_response(
                [out.RankedText(place, scores[place], texts[place] if body.return_text else None) for place in best]
            )
        results = [out.Ranked(place, scores[place]) for place in best]
        if body.return_documents:
            for result in results:
                result.document = out.RankedDocument(texts[result.index])
        return json_response(out.Ranking(answer_id, model, results, usage))

    return await sse.whole(request, told())


async def _scores(
    service: Service, request: Request, answer_id: str, pairs: Sequence[tuple[str, str]], priority: int
) -> tuple[list[float], out.RankingUsage]:
    async def run(place: int) -> tuple[float, int]:
        query, document = pairs[place]
        return await fit(service, query, document, wish_for(request, f"{answer_id}-{place}", priority=priority))

    found = await run_all(service, len(pairs), run)
    tokens = sum(count for _, count in found)
    return [value for value, _ in found], out.RankingUsage(tokens, tokens)
