"""The SDK: a server's chat, generation, classification and embeddings, from Python.

`Client` and `AsyncClient` have the same methods; both only move what `wire` builds and reads. They speak OpenAI's API,
so other servers that do so answer them too. What may not live here: anything of the server or the engine.
"""

from deepseek.client.answers import Answer, Event, Label, ToolCall, Usage
from deepseek.client.async_client import AsyncClient
from deepseek.client.client import Client
from deepseek.client.errors import (
    ClientError,
    NotAuthorized,
    RequestRefused,
    ServerBusy,
    ServerFault,
    ServerUnreachable,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "ClientError",
    "Event",
    "Label",
    "NotAuthorized",
    "RequestRefused",
    "ServerBusy",
    "ServerFault",
    "ServerUnreachable",
    "ToolCall",
    "Usage",
]
