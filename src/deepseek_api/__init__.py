"""Two lines to a model: `deepseek_api.classify(query)` and `deepseek_api.generate(prompt=...)`.

    import deepseek_api

    intent = deepseek_api.classify(query)
    response = deepseek_api.generate(prompt=f"As the shop's assistant, answer this {intent}:")

The functions are the methods of one `deepseek.Client`, made when first needed from DEEPSEEK_BASE_URL and
DEEPSEEK_API_KEY, or by `configure`. `deepseek serve` starts a server for it.
"""

import threading
from collections.abc import Sequence
from typing import Any

from deepseek.client import Answer, Client, Label

__all__ = ["chat", "classify", "configure", "embed", "generate"]

_lock = threading.Lock()
_client: Client | None = None


def configure(**settings: Any) -> Client:
    """Use a client with these settings from now on, those of `deepseek.Client`: base_url, api_key, labels ..."""
    global _client
    client = Client(**settings)
    with _lock:
        _client = client
    return client


def classify(query: str, labels: Sequence[str] | None = None, **options: Any) -> Label:
    """`Client.classify`. Without labels, here or in `configure`, the model names the intent in its own words."""
    return _configured().classify(query, labels, **options)


def generate(prompt: str, **fields: Any) -> Answer:
    """`Client.generate`."""
    return _configured().generate(prompt, **fields)


def chat(messages: Any, **fields: Any) -> Answer:
    """`Client.chat`."""
    return _configured().chat(messages, **fields)


def embed(texts: Any, **fields: Any) -> Any:
    """`Client.embed`."""
    return _configured().embed(texts, **fields)


def _configured() -> Client:
    global _client
    with _lock:
        if _client is None:
            _client = Client()
        return _client
