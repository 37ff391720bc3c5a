"""What a chat template may be called."""


def is_template_name(name: object) -> bool:
    """Published ones are `default`, `tool_use`, `tool-use`, `rag` and their like."""
    return isinstance(name, str) and 0 < len(name) <= 100 and name.isprintable() and not set(name) & set("/\\")
