"""Which parsers a model needs, told from its chat template, and whether a prompt ends within its reasoning."""

_OPEN, _CLOSE = "<think>", "</think>"


def detect(chat_template: str, model_type: str) -> tuple[str | None, str | None]:
    """The names of the reasoning and tool call parsers for `make_parser`; None where the template shows no such thing.

    chat_template: its text, "" for a model without one, of which only DeepSeek V3.2 is known. model_type: as in
    `config.json`.
    """
    if not chat_template:
        return ("deepseek_r1", "deepseek_v32") if model_type == "deepseek_v32" else (None, None)
    return _reasoning(chat_template), _tools(chat_template)


def _reasoning(template: str) -> str | None:
    if _CLOSE not in template and _OPEN not in template:
        return None
    return "deepseek_r1" if "｜Assistant｜" in template else "qwen3"


def _tools(template: str) -> str | None:
    if "｜DSML｜" in template:
        return "deepseek_v32"
    if "<｜tool▁call▁begin｜>" in template:
        return "deepseek_v3" if "```json" in template else "deepseek_v31"
    if "<function=" in template:
        return "qwen3_coder"
    return "hermes" if "<tool_call>" in template else None


def thinking_open(prompt: str, continued: str = "") -> bool:
    """Whether the model goes on within reasoning after this rendered prompt (its last 100 characters are enough).

    continued: the text of the assistant's message that the model continues, where it does so.
    """
    if continued:
        return continued.rfind(_OPEN) > continued.rfind(_CLOSE)
    return prompt.rstrip().endswith(_OPEN)
