"""POST /v1/embeddings."""

import base64
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from deepseek.engine.pooling import Pooling
from deepseek.sampling import SamplingParams
from deepseek.server import sse
from deepseek.server.errors import ApiError
from deepseek.server.generation import begin
from deepseek.server.many_prompts import finish, run_all
from deepseek.server.openapi_document import answers_with
from deepseek.server.protocol import embeddings as out
from deepseek.server.protocol.embeddings import EmbeddingRequest
from deepseek.server.routes.shared import json_response, new_router, serving, text_prompt, wish_for
from deepseek.server.service import Service, new_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

router = new_router("embeddings")
_PARAMS = SamplingParams(max_tokens=1)


@router.post("/v1/embeddings", responses=answers_with(out.EmbeddingList))
async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """Vectors of texts: the model's final hidden states of their tokens, pooled."""
    service = serving(request)
    model = service.check_model(body.model)
    return await sse.whole(request, _embed(service, body, request, model))


async def _embed(service: Service, body: EmbeddingRequest, request: Request, model: str) -> Response:
    inputs = body.inputs
    size = service.engine.model_config.hidden_size
    if body.dimensions not in (None, size):
        raise ApiError(
            400, f"dimensions must be left out or {size}: this model's vectors were not made to be cut shorter",
            param="dimensions", code="unsupported_field",
        )  # fmt: skip
    answer_id = new_id("embd")

    async def run(place: int) -> "tuple[NDArray[np.float32], int]":
        given = inputs[place]

        def make() -> tuple[Any, SamplingParams]:
            if not isinstance(given, str):
                return given, _PARAMS
            return text_prompt(service, given, add_special_tokens=body.add_special_tokens), _PARAMS

        pooling = Pooling(body.pooling)
        wish = wish_for(request, f"{answer_id}-{place}", priority=body.priority)
        answer = await finish(await begin(service, make, wish, pooling=pooling))
        return pooling.vector(normalize=body.normalize), answer.prompt_tokens

    found = await run_all(service, len(inputs), run)
    tokens = sum(count for _, count in found)

    def told() -> Response:
        data = [out.Embedding(place, _encoded(vector, body)) for place, (vector, _) in enumerate(found)]
        return json_response(out.EmbeddingList(data, model, out.EmbeddingUsage(tokens, tokens)))

    return await service.in_thread(told)


def _encoded(vector: "NDArray[np.float32]", body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = vector.tolist()
    return numbers
