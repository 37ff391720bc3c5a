"""The client for asyncio: `Client` with `await`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, overload

import httpx2

from deepseek.client import classification, wire
from deepseek.client.answers import Answer, Event, Label
from deepseek.client.client import unreachable
from deepseek.client.errors import ClientError, ServerBusy, ServerUnreachable


class AsyncClient:
    """As `client.Client`, whose docstrings say what each argument means: `await AsyncClient().chat("Hello")`."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: float = 600.0,
        retries: int = 2,
        labels: Sequence[str] = (),
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.base_url = wire.server_url(base_url)
        self._model: Mapping[str, Any] = {} if model is None else {"model": model}
        self._labels = classification.checked(labels)
        self._retries = retries
        self._sleep = sleep
        self._http = httpx2.AsyncClient(
            base_url=self.base_url,
            headers=wire.headers(api_key),
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
            trust_env=not wire.is_local(self.base_url),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def chat(self, messages: wire.Messages, **fields: Any) -> Answer:
        return wire.chat_answer(await self._post("/v1/chat/completions", wire.chat_body(messages, fields)))

    def stream_chat(self, messages: wire.Messages, **fields: Any) -> "AsyncEventStream":
        return self._stream("/v1/chat/completions", wire.chat_body(messages, fields))

    async def generate(self, prompt: str, **fields: Any) -> Answer:
        return wire.completion_answer(await self._post("/v1/completions", wire.completion_body(prompt, fields)))

    def stream_generate(self, prompt: str, **fields: Any) -> "AsyncEventStream":
        return self._stream("/v1/completions", wire.completion_body(prompt, fields))

    async def classify(
        self, query: str, labels: Sequence[str] | None = None, *, instruction: str | None = None
    ) -> Label:
        chosen = self._labels if labels is None else classification.checked(labels)
        if not chosen:
            said = await self.generate(**classification.intent_fields(query, instruction))
            return Label(wire.first_line(said))
        prompt = classification.question(query, chosen, instruction)
        data = await self._post("/v1/completions", classification.likelihood_body(prompt, chosen))
        return classification.likeliest(data, prompt, chosen)

    @overload
    async def embed(self, texts: str, **fields: Any) -> list[float]: ...
    @overload
    async def embed(self, texts: Sequence[str], **fields: Any) -> list[list[float]]: ...
    async def embed(self, texts: str | Sequence[str], **fields: Any) -> list[float] | list[list[float]]:
        one = isinstance(texts, str)
        body = {"input": [texts] if one else list(texts), "encoding_format": "float", **fields}
        found = wire.vectors(await self._post("/v1/embeddings", body))
        return found[0] if one else found

    async def models(self) -> list[str]:
        request = self._http.build_request("GET", "/v1/models")
        return wire.model_names(await self._read(lambda: self._http.send(request)))

    async def _post(self, path: str, body: wire.Body) -> Any:
        request = self._http.build_request("POST", path, content=wire.encode({**self._model, **body}))
        return await self._read(lambda: self._http.send(request))

    async def _read(self, send: Callable[[], Awaitable[httpx2.Response]]) -> Any:
        async with aclosing(await self._begin(send)) as response:
            return wire.parse(response.content)

    def _stream(self, path: str, body: wire.Body) -> "AsyncEventStream":
        request = self._http.build_request("POST", path, content=wire.encode({**self._model, **body, "stream": True}))
        return AsyncEventStream(lambda: self._begin(lambda: self._http.send(request, stream=True)))

    async def _begin(self, send: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
        """A good answer that has begun. Sent again where nothing was begun."""
        attempt = 0
        while True:
            error: ClientError
            try:
                response = await send()
                if response.status_code < 400:
                    return response
                async with aclosing(response):
                    error = wire.error_of(response.status_code, response.headers, await response.aread())
            except httpx2.RequestError as fault:
                error = unreachable(fault, self.base_url)
                if not isinstance(fault, httpx2.ConnectError):
                    raise error from None
            if attempt >= self._retries or not isinstance(error, (ServerBusy, ServerUnreachable)):
                raise error from None
            await self._sleep(wire.waits(error, attempt))
            attempt += 1


class AsyncEventStream(AsyncIterator[Event]):
    """`client.EventStream` for `async for`; the request is sent with the first event."""

    def __init__(self, begin: Callable[[], Awaitable[httpx2.Response]]) -> None:
        self._begin = begin
        self._events = self._read()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._events.aclose()

    async def answer(self) -> Answer:
        """Everything that is still to come, summed up."""
        return Answer.of([event async for event in self])

    async def _read(self) -> AsyncGenerator[Event, None]:
        reader = wire.StreamReader()
        async with aclosing(await self._begin()) as response:
            try:
                async for data in response.aiter_bytes():
                    for chunk in reader.feed(data):
                        for event in wire.events_of(chunk):
                            yield event
            except httpx2.RequestError as fault:
                raise unreachable(fault, str(response.url)) from None
        reader.end()
