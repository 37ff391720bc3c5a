"""Every request field that OpenAI, Anthropic and the other servers name has been decided on: none is merely unknown."""

from typing import Any

import pytest
from anthropic.types.beta import (
    BetaTextBlockParam,
    BetaThinkingBlockParam,
    BetaThinkingConfigEnabledParam,
    BetaToolParam,
    BetaToolResultBlockParam,
    BetaToolUseBlockParam,
)
from anthropic.types.beta import message_count_tokens_params as beta_count
from anthropic.types.beta import message_create_params as beta_messages
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionContentPartTextParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionFunctionMessageParam,
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCallParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import (
    completion_create_params as chat_params,
)
from openai.types.responses import (
    EasyInputMessageParam,
    FunctionToolParam,
    ResponseFunctionToolCallParam,
    ResponseOutputMessageParam,
    ResponseOutputTextParam,
    ResponseReasoningItemParam,
    ResponseTextConfigParam,
    response_create_params,
)
from openai.types.responses.custom_tool_param import CustomToolParam
from openai.types.responses.namespace_tool_param import NamespaceToolParam
from openai.types.responses.response_custom_tool_call_output_param import ResponseCustomToolCallOutputParam
from openai.types.responses.response_custom_tool_call_param import ResponseCustomToolCallParam
from openai.types.responses.response_input_item_param import FunctionCallOutput
from openai.types.shared_params import FunctionDefinition, Reasoning

from deepseek.server.protocol.field_table import request_fields

TABLE = request_fields()
CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES, COUNT, EMBEDDINGS = "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings"

TYPED: list[tuple[str, str, Any]] = [
    (CHAT, "", chat_params.CompletionCreateParamsBase),
    (CHAT, "stream_options.", ChatCompletionStreamOptionsParam),
    (CHAT, "messages[].", ChatCompletionAssistantMessageParam),
    (CHAT, "messages[].", ChatCompletionDeveloperMessageParam),
    (CHAT, "messages[].", ChatCompletionUserMessageParam),
    (CHAT, "messages[].", ChatCompletionToolMessageParam),
    (CHAT, "messages[].", ChatCompletionFunctionMessageParam),
    (CHAT, "messages[].content[].", ChatCompletionContentPartTextParam),
    (CHAT, "messages[].tool_calls[].", ChatCompletionMessageFunctionToolCallParam),
    (CHAT, "tools[].", ChatCompletionFunctionToolParam),
    (CHAT, "tools[].function.", FunctionDefinition),
    (COMPLETIONS, "", completion_create_params.CompletionCreateParamsBase),
    (EMBEDDINGS, "", embedding_create_params.EmbeddingCreateParams),
    (RESPONSES, "", response_create_params.ResponseCreateParamsBase),
    (RESPONSES, "stream_options.", response_create_params.StreamOptions),
    (RESPONSES, "reasoning.", Reasoning),
    (RESPONSES, "text.", ResponseTextConfigParam),
    (RESPONSES, "tools[].", FunctionToolParam),
    (RESPONSES, "tools[].", CustomToolParam),
    (RESPONSES, "tools[].", NamespaceToolParam),
    (RESPONSES, "input[].", EasyInputMessageParam),
    (RESPONSES, "input[].", ResponseOutputMessageParam),
    (RESPONSES, "input[].", ResponseFunctionToolCallParam),
    (RESPONSES, "input[].", FunctionCallOutput),
    (RESPONSES, "input[].", ResponseCustomToolCallParam),
    (RESPONSES, "input[].", ResponseCustomToolCallOutputParam),
    (RESPONSES, "input[].", ResponseReasoningItemParam),
    (RESPONSES, "input[].content[].", ResponseOutputTextParam),
    (MESSAGES, "", beta_messages.MessageCreateParamsBase),
    (COUNT, "", beta_count.MessageCountTokensParams),
    (MESSAGES, "messages[].content[].", BetaTextBlockParam),
    (MESSAGES, "messages[].content[].", BetaThinkingBlockParam),
    (MESSAGES, "messages[].content[].", BetaToolUseBlockParam),
    (MESSAGES, "messages[].content[].", BetaToolResultBlockParam),
    (MESSAGES, "tools[].", BetaToolParam),
    (MESSAGES, "thinking.", BetaThinkingConfigEnabledParam),
]
"""Routes, the paths of objects in their bodies, and the official clients' types of these."""


def keys(kind: Any) -> set[str]:
    return {name.removesuffix("_") for base in kind.__mro__ for name in getattr(base, "__annotations__", {})}


@pytest.mark.parametrize(
    ("route", "path", "kind"), TYPED, ids=[f"{route}:{path}{kind.__name__}" for route, path, kind in TYPED]
)
def test_fields_of_the_official_clients_types(route: str, path: str, kind: Any) -> None:
    assert {path + name for name in keys(kind)} - TABLE[route].keys() == set()


SHARED = """
frequency_penalty logit_bias max_tokens n presence_penalty seed stop stream stream_options temperature top_p user top_k
min_p repetition_penalty ignore_eos min_tokens skip_special_tokens stop_token_ids response_format priority request_id
"""
VLLM = f"""{SHARED}
max_completion_tokens logprobs top_logprobs tools tool_choice reasoning_effort thinking_token_budget include_reasoning
parallel_tool_calls use_beam_search watermarking length_penalty include_stop_str_in_output
spaces_between_special_tokens truncate_prompt_tokens truncation_side prompt_logprobs logprob_token_ids
allowed_token_ids bad_words echo add_generation_prompt continue_final_message add_special_tokens documents
chat_template chat_template_kwargs media_io_kwargs mm_processor_kwargs structured_outputs session_id
return_tokens_as_token_ids return_token_ids return_prompt_text cache_salt kv_transfer_params ec_transfer_params
vllm_xargs repetition_detection guided_json guided_regex guided_choice guided_grammar guided_decoding_backend
guided_whitespace_pattern logits_processors structural_tag best_of
"""  # vllm/entrypoints/openai/chat_completion/protocol.py
SGLANG = f"""{SHARED}
logprobs top_logprobs max_completion_tokens tools tool_choice parallel_tool_calls return_hidden_states
return_routed_experts routed_experts_start_len return_cached_tokens_details return_prompt_token_ids return_token_ids
return_meta_info reasoning_effort task regex ebnf stop_regex no_stop_trim continue_final_message lora_path session_id
session_params separate_reasoning stream_reasoning chat_template_kwargs max_dynamic_patch min_dynamic_patch
use_audio_in_video images_config custom_logit_processor custom_params input_ids rid extra_key cache_salt
ngram_corpus_id bootstrap_host bootstrap_port bootstrap_room routed_dp_rank disagg_prefill_dp_rank data_parallel_rank
"""  # python/sglang/srt/entrypoints/openai/protocol.py
LLAMA_CPP = """
stream stream_options cache_prompt return_tokens return_progress max_tokens n_predict max_completion_tokens n_indent
n_keep n_discard n_cmpl n n_cache_reuse t_max_predict_ms response_fields top_k top_p min_p top_n_sigma
xtc_probability xtc_threshold typical_p temperature dynatemp_range dynatemp_exponent repeat_last_n repeat_penalty
frequency_penalty presence_penalty dry_multiplier dry_base dry_allowed_length dry_penalty_last_n
dry_sequence_breakers mirostat mirostat_tau mirostat_eta adaptive_target adaptive_decay seed n_probs min_keep
post_sampling_probs lora speculative.n_max speculative.n_min speculative.p_min speculative.type json_schema grammar
grammar_lazy grammar_triggers preserved_tokens chat_format reasoning_format thinking_forced_open parse_tool_calls
logit_bias ignore_eos stop samplers timings_per_token backend_sampling id_slot image_data chat_template_kwargs
reasoning_in_content parallel_tool_calls add_generation_prompt thinking_budget_tokens
"""  # tools/server/server-task.cpp and its README
OLLAMA = """
model messages stream stream_options max_tokens seed stop temperature frequency_penalty presence_penalty top_p
response_format tools reasoning_effort reasoning logprobs top_logprobs keep_alive options think
"""  # openai/openai.go and api/types.go
LM_STUDIO = """
model top_p top_k messages temperature max_tokens stream stop presence_penalty frequency_penalty logit_bias
repeat_penalty seed ttl draft_model
"""  # lmstudio.ai/docs/app/api/endpoints/openai
OPENROUTER = """
messages model response_format stop stream max_tokens temperature tools tool_choice seed top_p top_k
frequency_penalty presence_penalty repetition_penalty logit_bias top_logprobs min_p top_a prediction transforms models
route provider user reasoning include_reasoning usage plugins verbosity structured_outputs max_price metadata trace
session_id debug image_config modalities web_search_options parallel_tool_calls cache_control
"""  # openrouter.ai/docs/api-reference
SILLY_TAVERN = """
rep_pen repetition_penalty_range rep_pen_range rep_pen_slope no_repeat_ngram_size penalty_alpha num_beams
length_penalty early_stopping guidance_scale negative_prompt custom_token_bans banned_strings typical typical_p tfs
top_a epsilon_cutoff eta_cutoff smoothing_factor smoothing_curve dynamic_temperature dynatemp_low dynatemp_high
mirostat_mode sampler_priority sampler_order temperature_last truncation_length ban_eos_token skip_special_tokens
spaces_between_special_tokens nsigma sampler_seed stopping_strings max_new_tokens min_tokens grammar_string
encoder_repetition_penalty do_sample xtc_threshold skew
"""  # public/scripts/textgen-settings.js
OTHERS = """
thinking enable_thinking enable_search thinking_budget random_seed safe_prompt prompt_mode search_parameters
context_length_exceeded_behavior adapter_id watermark truncate details decoder_input_details data_sources
"""  # DeepSeek, DashScope, Mistral, xAI, Fireworks, Text Generation Inference, Azure


@pytest.mark.parametrize(
    "names", [VLLM, SGLANG, LLAMA_CPP, OLLAMA, LM_STUDIO, OPENROUTER, SILLY_TAVERN, OTHERS],
    ids=["vllm", "sglang", "llama.cpp", "ollama", "lm-studio", "openrouter", "sillytavern", "others"],
)  # fmt: skip
def test_fields_of_other_servers_chats(names: str) -> None:
    assert set(names.split()) - TABLE[CHAT].keys() == set()


def test_every_decision_says_why() -> None:
    for route, fields in TABLE.items():
        for name, what in fields.items():
            kind, _, why = what.partition(" ")
            assert kind in ("implemented", "alias", "read", "ignored:", "refused:"), (route, name, what)
            assert why or kind == "implemented", (route, name)
