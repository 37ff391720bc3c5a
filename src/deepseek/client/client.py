"""The client that waits."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Self, overload

import httpx2

from deepseek.client import classification, wire
from deepseek.client.answers import Answer, Event, Label
from deepseek.client.errors import ClientError, ServerBusy, ServerUnreachable


class Client:
    """A server, from Python: `Client().chat("Hello")`. Use it as a context manager, or `close` it.

    base_url: None takes DEEPSEEK_BASE_URL or http://127.0.0.1:8000. api_key: None takes DEEPSEEK_API_KEY or none.
    model: for servers that have several. timeout: seconds without a byte. retries: how often a request is sent again
    when no server answers or it is busy; never once an answer has begun. labels: what `classify` chooses from when a
    call names none.
    `fields` of a method are those of the HTTP API (max_tokens, temperature, tools ...); errors are ClientErrors.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: float = 600.0,
        retries: int = 2,
        labels: Sequence[str] = (),
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.base_url = wire.server_url(base_url)
        self._model: Mapping[str, Any] = {} if model is None else {"model": model}
        self._labels = classification.checked(labels)
        self._retries = retries
        self._sleep = sleep
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers=wire.headers(api_key),
            timeout=httpx2.Timeout(timeout, connect=min(timeout, 10.0)),
            trust_env=not wire.is_local(self.base_url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def chat(self, messages: wire.Messages, **fields: Any) -> Answer:
        """The answer to a chat: messages, or a text that the user says."""
        return wire.chat_answer(self._post("/v1/chat/completions", wire.chat_body(messages, fields)))

    def stream_chat(self, messages: wire.Messages, **fields: Any) -> "EventStream":
        """As `chat`, in events as they come."""
        return self._stream("/v1/chat/completions", wire.chat_body(messages, fields))

    def generate(self, prompt: str, **fields: Any) -> Answer:
        """What the model writes after this prompt, which it gets as it is."""
        return wire.completion_answer(self._post("/v1/completions", wire.completion_body(prompt, fields)))

    def stream_generate(self, prompt: str, **fields: Any) -> "EventStream":
        """As `generate`, in events as they come."""
        return self._stream("/v1/completions", wire.completion_body(prompt, fields))

    def classify(self, query: str, labels: Sequence[str] | None = None, *, instruction: str | None = None) -> Label:
        """The label that the model finds likeliest for a text; without any labels, its intent in the model's words.

        instruction: what to ask for, in place of our own words.
        """
        chosen = self._labels if labels is None else classification.checked(labels)
        if not chosen:
            said = self.generate(**classification.intent_fields(query, instruction))
            return Label(wire.first_line(said))
        prompt = classification.question(query, chosen, instruction)
        data = self._post("/v1/completions", classification.likelihood_body(prompt, chosen))
        return classification.likeliest(data, prompt, chosen)

    @overload
    def embed(self, texts: str, **fields: Any) -> list[float]: ...
    @overload
    def embed(self, texts: Sequence[str], **fields: Any) -> list[list[float]]: ...
    def embed(self, texts: str | Sequence[str], **fields: Any) -> list[float] | list[list[float]]:
        """A vector for a text, or one for each."""
        one = isinstance(texts, str)
        body = {"input": [texts] if one else list(texts), "encoding_format": "float", **fields}
        found = wire.vectors(self._post("/v1/embeddings", body))
        return found[0] if one else found

    def models(self) -> list[str]:
        """The names of the server's models."""
        return wire.model_names(self._read(lambda: self._http.send(self._http.build_request("GET", "/v1/models"))))

    def _post(self, path: str, body: wire.Body) -> Any:
        request = self._http.build_request("POST", path, content=wire.encode({**self._model, **body}))
        return self._read(lambda: self._http.send(request))

    def _read(self, send: Callable[[], httpx2.Response]) -> Any:
        with closing(self._begin(send)) as response:
            return wire.parse(response.content)

    def _stream(self, path: str, body: wire.Body) -> "EventStream":
        request = self._http.build_request("POST", path, content=wire.encode({**self._model, **body, "stream": True}))
        return EventStream(self._begin(lambda: self._http.send(request, stream=True)))

    def _begin(self, send: Callable[[], httpx2.Response]) -> httpx2.Response:
        """A good answer that has begun. Sent again where nothing was begun."""
        attempt = 0
        while True:
            error: ClientError
            try:
                response = send()
                if response.status_code < 400:
                    return response
                with closing(response):
                    error = wire.error_of(response.status_code, response.headers, response.read())
            except httpx2.RequestError as fault:
                error = unreachable(fault, self.base_url)
                if not isinstance(fault, httpx2.ConnectError):
                    raise error from None
            if attempt >= self._retries or not isinstance(error, (ServerBusy, ServerUnreachable)):
                raise error from None
            self._sleep(wire.waits(error, attempt))
            attempt += 1


class EventStream(Iterator[Event]):
    """Events as they come. Leaving it, as a context manager or by `close`, tells the server to stop."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._events = self._read()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._events.close()
        self._response.close()

    def answer(self) -> Answer:
        """Everything that is still to come, summed up."""
        return Answer.of(self)

    def _read(self) -> Generator[Event, None, None]:
        reader = wire.StreamReader()
        with closing(self._response):
            try:
                for data in self._response.iter_bytes():
                    for chunk in reader.feed(data):
                        yield from wire.events_of(chunk)
            except httpx2.RequestError as fault:
                raise unreachable(fault, str(self._response.url)) from None
            reader.end()


def unreachable(fault: httpx2.RequestError, url: str) -> ServerUnreachable:
    said = f"{type(fault).__name__}: {fault}".rstrip(": ")
    return ServerUnreachable(f"no answer from {url} ({said}): is `deepseek serve` running there?")
