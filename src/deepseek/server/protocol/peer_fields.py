"""Fields that other servers and OpenAI's own service know, and what becomes of each here.

From the reference of OpenAI's API and the documentation and sources of vLLM, SGLang, llama.cpp, Ollama, LM Studio,
KoboldCpp, text-generation-webui, TabbyAPI, Text Generation Inference, OpenRouter, Mistral, DeepSeek and DashScope.
"""

from deepseek.sampling_names import SAMPLING_ALIASES
from deepseek.server.protocol.tolerance import Refused

_LABEL = "a label"
_CACHE = "prompts are cached anyway"
_HOSTED = "a service that is not offered here"
_SPEED = "does not change the answer"
_EXTRA = "the answer has nothing of this"
_ORDER = "filters are applied in one order"
_ROUTING = "there is one model and no one to choose among"

CACHE_HINTS = {"cache_control": _CACHE, "prompt_cache_breakpoint": _CACHE}
"""Of parts of a body."""

LABELS = {
    "user": _LABEL,
    "metadata": _LABEL,
    "safety_identifier": _LABEL,
    "trace": _LABEL,
    "session_id": _LABEL,
    "client_metadata": _LABEL,
    "billing_policy": _LABEL,
    "store": "nothing is stored here",
    "service_tier": "there is one tier",
    "moderation": _HOSTED,
    "prompt_cache_key": _CACHE,
    "prompt_cache_retention": _CACHE,
    "prompt_cache_options": _CACHE,
    "cache_control": _CACHE,
    "keep_alive": "the model stays loaded",
    "ttl": "the model stays loaded",
}
"""Of every API."""

REQUEST_ALIASES = {
    **SAMPLING_ALIASES,
    "rid": "request_id",
    "regex": "guided_regex",
    "regex_pattern": "guided_regex",
    "ebnf": "guided_grammar",
    "grammar": "guided_grammar",
    "grammar_string": "guided_grammar",
    "json_schema": "guided_json",
}

UNREADABLE = dict.fromkeys(
    (
        "image", "images", "image_url", "image_urls", "image_data", "input_image", "input_audio", "audio_url", "video",
        "videos", "video_url", "input_file", "file", "files", "attachments", "multimodal_data", "multi_modal_data",
    ),
    Refused("this model reads text only"),
)  # fmt: skip
"""Media and files, in a body, a message or a part."""

SAMPLING_REFUSED: dict[str, Refused] = {
    **UNREADABLE,
    "audio": Refused("this server answers with text only"),
    "modalities": Refused("this server answers with text only", lambda value: value in (["text"], "text", [])),
    "prompt_logprobs": Refused(
        "use /v1/completions with echo and logprobs", lambda value: value is False or value == -1
    ),
    "truncate_prompt_tokens": Refused("send texts that fit into max_model_len", (-1,)),
    "truncate": Refused("send texts that fit into max_model_len", ("none", "NONE")),
    "use_beam_search": Refused("beam search is not offered; leave it out"),
    "num_beams": Refused("beam search is not offered; leave it out", (1,)),
    "best_of": Refused("ask for n answers and choose among them", (1,)),
    "logits_processors": Refused("use logit_bias, bad_words or allowed_token_ids"),
    "custom_logit_processor": Refused("use logit_bias, bad_words or allowed_token_ids"),
    "repetition_detection": Refused("use repetition_penalty"),
    "vllm_xargs": Refused("leave it out"),
    "structural_tag": Refused("use structured_outputs.grammar"),
    "stop_regex": Refused("use stop with texts"),
    "mirostat": Refused("use temperature, top_p and min_p"),
    "mirostat_mode": Refused("use temperature, top_p and min_p"),
    "dry_multiplier": Refused("use repetition_penalty"),
    "xtc_probability": Refused("leave it out"),
    "top_n_sigma": Refused("use min_p", lambda value: isinstance(value, int | float) and value <= 0),
    "nsigma": Refused("use min_p", lambda value: isinstance(value, int | float) and value <= 0),
    "top_a": Refused("use min_p"),
    "tfs": Refused("use top_p or min_p", (1,)),
    "tfs_z": Refused("use top_p or min_p", (1,)),
    "epsilon_cutoff": Refused("use min_p"),
    "eta_cutoff": Refused("use min_p"),
    "smoothing_factor": Refused("use temperature"),
    "dynamic_temperature": Refused("use temperature"),
    "dynatemp_range": Refused("use temperature"),
    "adaptive_target": Refused("use temperature", lambda value: isinstance(value, int | float) and value < 0),
    "penalty_alpha": Refused("contrastive search is not offered; leave it out"),
    "guidance_scale": Refused("leave it out", (1,)),
    "cfg_scale": Refused("leave it out", (1,)),
    "exponential_decay_length_penalty": Refused("leave it out"),
    "suppress_tokens": Refused("use logit_bias"),
    "bad_words_ids": Refused("use logit_bias or bad_words"),
    "sequence_bias": Refused("use logit_bias"),
    "negative_prompt": Refused("leave it out"),
    "no_repeat_ngram_size": Refused("use repetition_penalty"),
    "encoder_repetition_penalty": Refused("use repetition_penalty", (1,)),
    "skew": Refused("leave it out"),
    "min_keep": Refused("leave it out", (1,)),
    "banned_strings": Refused("use bad_words"),
    "custom_token_bans": Refused("use logit_bias"),
    "banned_tokens": Refused("use logit_bias"),
    "watermark": Refused("leave it out"),
    "watermarking": Refused("leave it out"),
    "n_indent": Refused("leave it out"),
    "task": Refused("write the task into a message"),
    "lora": Refused("serve the merged model"),
    "lora_path": Refused("serve the merged model"),
    "adapter_id": Refused("serve the merged model"),
    "prompt_embeds": Refused("send text or token ids"),
    "input_ids": Refused("use /v1/completions with token ids as prompt"),
    "chat_template": Refused("start the server with --chat-template FILE"),
    "documents": Refused("write them into a message"),
    "data_sources": Refused("write what they hold into a message"),
    "safe_prompt": Refused("write it into the system message"),
    "tool_prompt": Refused("write it into the system message"),
}
"""Sampling that is not implemented, and inputs that would be missing from the prompt."""

SAMPLING_IGNORED = {
    **LABELS,
    **dict.fromkeys(
        (
            "prediction", "speculative_ngram", "draft_model", "prompt_lookup_num_tokens", "ngram_corpus_id",
            "backend_sampling", "speculative.n_max", "speculative.n_min", "speculative.p_min", "speculative.type",
            "kv_transfer_params", "ec_transfer_params", "data_parallel_rank", "routed_dp_rank",
            "disagg_prefill_dp_rank", "bootstrap_host", "bootstrap_port", "bootstrap_room",
        ),
        _SPEED,
    ),
    **dict.fromkeys(("cache_prompt", "extra_key", "id_slot", "slot_id", "n_cache_reuse", "session_params"), _CACHE),
    **dict.fromkeys(
        ("web_search_options", "search_parameters", "enable_search", "plugins", "safety_model", "guardrails"), _HOSTED
    ),
    **dict.fromkeys(("models", "route", "provider", "transforms", "max_price", "fallbacks"), _ROUTING),
    **dict.fromkeys(
        (
            "usage", "timings_per_token", "return_progress", "return_tokens", "return_token_ids", "response_fields",
            "return_tokens_as_token_ids", "return_hidden_states", "return_routed_experts", "details", "perf_metrics",
            "return_prompt_text", "return_prompt_token_ids", "return_cached_tokens_details", "logprob_token_ids",
            "routed_experts_start_len", "decoder_input_details", "return_meta_info", "post_sampling_probs", "debug",
        ),
        _EXTRA,
    ),
    **dict.fromkeys(("samplers", "sampler_order", "sampler_priority", "temperature_last"), _ORDER),
    **dict.fromkeys(("mirostat_tau", "mirostat_eta"), "applies only with mirostat"),
    **dict.fromkeys(
        ("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "dry_range"),
        "applies only with dry_multiplier",
    ),
    **dict.fromkeys(("dynatemp_exponent", "dynatemp_low", "dynatemp_high"), "applies only with a range"),
    **dict.fromkeys(("length_penalty", "early_stopping"), "applies only with beam search"),
    **dict.fromkeys(
        (
            "rep_pen_range", "rep_pen_slope", "repetition_penalty_range", "repetition_decay",
            "penalize_nl",
        ),
        "penalties look at the whole prompt and answer",
    ),
    **dict.fromkeys(
        ("max_context_length", "truncation_length", "num_ctx", "n_ctx", "n_keep", "n_discard", "num_keep",
         "context_length_exceeded_behavior"),
        "the context is as long as the server was started with; a longer prompt is refused",
    ),
    **dict.fromkeys(
        ("guided_decoding_backend", "guided_whitespace_pattern", "grammar_lazy", "grammar_triggers",
         "preserved_tokens", "parse_tool_calls", "chat_format", "reasoning_format", "separate_reasoning",
         "stream_reasoning", "reasoning_in_content", "thinking_forced_open"),
        "the server decides how answers are read",
    ),
    "xtc_threshold": "applies only with xtc_probability",
    "smoothing_curve": "applies only with smoothing_factor",
    "adaptive_decay": "applies only with adaptive_target",
    "spaces_between_special_tokens": "special tokens are written without spaces",
    "t_max_predict_ms": "the server's --request-seconds holds",
    **dict.fromkeys(
        ("mm_processor_kwargs", "media_io_kwargs", "image_config", "images_config", "max_dynamic_patch",
         "min_dynamic_patch", "use_audio_in_video"),
        "there are no media",
    ),
    "truncation_side": "applies only with truncate_prompt_tokens",
    "custom_params": "applies only with custom_logit_processor",
    "verbosity": "a hint that no chat template here reads",
    "prompt_mode": "a hint that no chat template here reads",
    "options": "fields of Ollama's own API; its OpenAI API does not read them either",
}  # fmt: skip

PROMPT_REFUSED = {
    "messages": Refused("use /v1/chat/completions"),
    "prompt": Refused("use /v1/completions, or write it into a message"),
    "input": Refused("use /v1/responses, or write it into a message"),
    "system": Refused("write it into a system message"),
    "instructions": Refused("write them into a system message"),
    "system_prompt": Refused("write it into a system message"),
    "input_prefix": Refused("write it into the prompt"),
    "input_suffix": Refused("use suffix at /v1/completions"),
    "input_extra": Refused("write it into the prompt"),
    "template": Refused("start the server with --chat-template FILE"),
    "tools": Refused("use an API of chats"),
    "functions": Refused("use an API of chats"),
}
"""What other APIs make the prompt of."""

_CHAT = "use /v1/chat/completions"
_ELSEWHERE = {
    **{name: Refused(_CHAT, (1,)) for name in ("n", "typical_p", "repetition_penalty")},
    **{name: Refused(_CHAT, (True,)) for name in ("skip_special_tokens", "add_generation_prompt")},
    **{
        name: Refused(_CHAT)
        for name in (
            "min_p", "presence_penalty", "frequency_penalty", "logit_bias", "stop_token_ids", "bad_words",
            "allowed_token_ids", "min_tokens", "ignore_eos", "include_stop_str_in_output", "structured_outputs",
            "guided_json", "guided_regex", "guided_choice", "guided_grammar", "continue_final_message", "seed", "stop",
        )
    },
    "response_format": Refused(_CHAT, ({"type": "text"},)),
}  # fmt: skip
"""Fields of chats and completions, for APIs that do not have them."""


def tables_for(fields: set[str]) -> tuple[dict[str, str], dict[str, Refused]]:
    """aliases and refused of an API that has these of the fields that say how to sample."""
    aliases = {alias: name for alias, name in REQUEST_ALIASES.items() if name in fields}
    elsewhere = {
        **{name: one for name, one in _ELSEWHERE.items() if name not in fields},
        **{
            alias: _ELSEWHERE[name]
            for alias, name in REQUEST_ALIASES.items()
            if name in _ELSEWHERE and name not in fields
        },
    }
    return aliases, {**PROMPT_REFUSED, **SAMPLING_REFUSED, **elsewhere}
