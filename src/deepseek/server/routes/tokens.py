"""POST /tokenize, /detokenize and /apply-template."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from deepseek.sampling import SamplingParams
from deepseek.server.chat import ChatTask, chat_prompt
from deepseek.server.errors import ApiError
from deepseek.server.gate import RECORD
from deepseek.server.generation import Wish
from deepseek.server.protocol.tokens import ApplyTemplateRequest, DetokenizeRequest, TokenizeRequest
from deepseek.server.routes.shared import json_response, new_router, serving
from deepseek.server.service import Service

router = new_router("tokens")


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of a prompt, or of the prompt that a chat becomes."""
    service = serving(request)
    service.check_model(body.model)
    ids = await service.in_thread(lambda: _ids(service, body, request))
    tokens = [_piece(service, token) for token in ids] if body.with_pieces else ids
    told: dict[str, Any] = {"count": len(ids), "max_model_len": service.engine.max_model_len, "tokens": tokens}
    if body.return_token_strs:
        told["token_strs"] = [service.token_views.text(token) for token in ids]
    return json_response(told)


@router.post("/apply-template")
async def apply_template(body: ApplyTemplateRequest, request: Request) -> Response:
    """The prompt that a chat becomes, as llama.cpp tells it: the text of the tokens that the model is given."""
    service = serving(request)
    service.check_model(body.model)
    prompt = await service.in_thread(lambda: service.tokenizer.decode(_chat_ids(service, body, request)))
    return json_response({"prompt": prompt})


def _piece(service: Service, token: int) -> dict[str, Any]:
    text, data = service.token_views.view(token)
    return {"id": token, "piece": data if "\ufffd" in text else text}


def _ids(service: Service, body: TokenizeRequest, request: Request) -> list[int]:
    if body.prompt is not None:
        return service.tokenizer.encode(
            body.prompt, add_special_tokens=body.add_special_tokens, parse_special=body.parse_special
        )
    return _chat_ids(service, body, request)


def _chat_ids(service: Service, body: TokenizeRequest | ApplyTemplateRequest, request: Request) -> list[int]:
    task = ChatTask(
        messages=[message.model_dump(exclude_none=True) for message in body.messages or ()],
        tools=body.offered,
        sampling=SamplingParams(),
        wish=Wish(request_id="", record=request.scope[RECORD]),
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        template_values=body.chat_template_kwargs or {},
    )
    return chat_prompt(service, task)


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of tokens, under vLLM's name and llama.cpp's."""
    service = serving(request)
    service.check_model(body.model)
    size = service.engine.model_config.vocab_size
    if body.tokens and max(body.tokens) >= size:
        raise ApiError(400, f"tokens names {max(body.tokens)}, but the model's ids end at {size - 1}", param="tokens")
    text = await service.in_thread(
        lambda: service.tokenizer.decode(body.tokens, skip_special_tokens=body.skip_special_tokens)
    )
    return json_response({"prompt": text, "content": text})
