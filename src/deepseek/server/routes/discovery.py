"""GET /props and /tokenizer_info: what clients of llama.cpp and vLLM ask a server about its model."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from deepseek import __version__
from deepseek.server.routes.shared import json_response, new_router, serving

router = new_router("server")
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@router.get("/props")
async def props(request: Request) -> Response:
    """llama.cpp's: the length of the context, the chat template, how many answers run together."""
    service = serving(request)
    special = service.tokenizer.special_tokens
    return json_response(
        {
            "default_generation_settings": {"n_ctx": service.engine.max_model_len, "params": service.sampling_defaults},
            "total_slots": service.config.max_num_seqs,
            "model_alias": service.model_names[0],
            "model_path": service.model_names[0],
            "modalities": {"vision": False, "audio": False},
            "chat_template": service.template_text,
            "bos_token": special.get("bos_token", ""),
            "eos_token": special.get("eos_token", ""),
            "build_info": f"deepseek-framework {__version__}",
        }
    )


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request) -> Response:
    """vLLM's: the special tokens and the chat template, for clients that render prompts themselves."""
    service = serving(request)
    tokenizer = service.tokenizer
    told: dict[str, Any] = {
        "tokenizer_class": tokenizer.config.get("tokenizer_class", "PreTrainedTokenizerFast"),
        "model_max_length": service.engine.max_model_len,
        "vocab_size": tokenizer.vocab_size,
        "chat_template": service.template_text or None,
        "add_bos_token": tokenizer.bos_token_id in tokenizer.added_around[0],
        "add_eos_token": tokenizer.eos_token_id in tokenizer.added_around[1],
        "added_tokens_decoder": {
            str(token_id): {"content": tokenizer.id_to_token(token_id), "special": True}
            for token_id in sorted(tokenizer.special_ids)
        },
    }
    return json_response({**told, **{name: tokenizer.special_tokens.get(name) for name in _SPECIAL}})
