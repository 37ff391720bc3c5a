"""A request and its sequences: one token list for each of the n samples asked for."""

from typing import TYPE_CHECKING, Any, Protocol

from deepseek.engine.outputs import RequestMetrics
from deepseek.engine.sample_routing import RoutingPieces

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek.engine.answer_text import AnswerText
    from deepseek.engine.outputs import FinishReason, TokenEvent, TokenLogprobs
    from deepseek.engine.pooling import Pooling
    from deepseek.engine.speculation import Guessing
    from deepseek.sampling import SamplingParams

    Message = tuple["Request", TokenEvent | Exception]
    """An event of a request, or the error that ends all of it."""


class Choice(Protocol):
    """A chosen token; logprob and top (the likeliest tokens with theirs) where the request asks for them."""

    @property
    def token(self) -> int: ...
    @property
    def logprob(self) -> float | None: ...
    @property
    def top(self) -> list[tuple[int, float]]: ...


class Mailbox(Protocol):
    """Takes what the engine's thread has to say, once a step; must neither block nor raise."""

    def post(self, messages: "list[Message]") -> None: ...


class TokenSampler(Protocol):
    """What a sequence needs of `deepseek.engine.sampler.SequenceSampler`.

    The i-th token depends only on the parameters, the sample's index, i, the tokens before and the logits.
    """

    @property
    def is_simple(self) -> bool:
        """Whether compiled code may choose in its place, by params, seed, index and draw_number alone."""
        ...

    @property
    def params(self) -> "SamplingParams": ...
    @property
    def seed(self) -> int: ...
    @property
    def index(self) -> int: ...
    @property
    def draw_number(self) -> int: ...

    def choose(self, logits: Any) -> Choice:
        """The next token from float32 (vocabulary,), which it may overwrite."""
        ...

    def observe(self, token: int) -> None:
        """Take note of a token that was chosen elsewhere."""
        ...


class Sequence:
    """One sample: prompt and generated tokens, and where their KV lies.

    token_ids: the prompt, then what was generated; during a step that verifies drafts, the drafts too.
    n_prompt: so many tokens at the start are computed in prompt form, also when computed again later.
    block_table: the KV block of tokens [i * block_size, (i + 1) * block_size). Empty while the sequence waits.
    n_computed: tokens at the start whose KV is in the blocks. A sequence that only waits for its next token has
    computed all but the last one.
    """

    __slots__ = (
        "answer",
        "block_table",
        "draft_state",
        "finish_reason",
        "guessing",
        "index",
        "key",
        "n_computed",
        "n_drafts",
        "n_predicted",
        "n_prompt",
        "n_published",
        "prefix_keys",
        "request",
        "routing",
        "sampler",
        "token_ids",
    )

    def __init__(self, request: "Request", index: int, sampler: TokenSampler) -> None:
        self.request = request
        self.index = index
        self.sampler = sampler
        self.token_ids: list[int] = list(request.prompt_ids)
        self.n_prompt = len(request.prompt_ids)
        self.block_table: list[int] = []
        self.n_computed = 0
        self.n_drafts = 0
        """Unverified tokens at the end of token_ids; 0 between steps."""
        self.n_published = 0
        """Full blocks at the start that the prefix cache has seen."""
        self.n_predicted = 0
        """Entries of the prediction layers, from the first on, whose KV is in the blocks (`prediction`)."""
        self.prefix_keys: list[bytes] = []
        """Prefix-cache keys of the first full blocks, as far as known."""
        self.draft_state: Any = None
        """Belongs to the drafter."""
        self.guessing: Guessing | None = None
        """Belongs to the speculator."""
        self.routing: RoutingPieces | None = None
        """Which experts its tokens used, where the request asks."""
        if request.routing_layers is not None:
            self.routing = RoutingPieces(request.routing_layers)
        self.answer: AnswerText | None = request.make_answer()
        self.finish_reason: FinishReason | None = None
        self.key = (request.priority, request.arrival, index)
        """Order of service: the lowest first."""

    @property
    def n_generated(self) -> int:
        return len(self.token_ids) - self.n_drafts - self.n_prompt

    @property
    def is_decoding(self) -> bool:
        """Whether only the newest token is left to compute."""
        return self.n_computed == len(self.token_ids) - 1 and self.n_computed >= self.n_prompt


class Request:
    """One prompt to continue n times. Built by the engine, checked before.

    id: the name it is aborted by. arrival: a count, so that no two are equal. priority: the lower, the earlier.
    limit: tokens of prompt and answer together after which a sample ends by "length".
    ends: token ids that end a sample. prefix_root: prefix-cache key before the first block; differs wherever KV must
    not be shared (model, adapter, tenant). index: the prompt's number in the call, copied to its events.
    mailbox: where the engine's thread posts what comes of it. routing_layers: record which experts of these layers each
    token uses; None: do not. pooling: nothing is generated, the prompt's hidden states are pooled.
    """

    def __init__(
        self,
        *,
        id: str,
        prompt_ids: list[int],
        params: "SamplingParams",
        make_sampler: "Callable[[int], TokenSampler]",
        limit: int,
        arrival: int = 0,
        priority: int = 0,
        ends: frozenset[int] = frozenset(),
        prefix_root: bytes = b"",
        make_answer: "Callable[[], AnswerText | None]" = lambda: None,
        index: int = 0,
        mailbox: "Mailbox | None" = None,
        routing_layers: tuple[int, ...] | None = None,
        pooling: "Pooling | None" = None,
    ) -> None:
        self.id = id
        self.prompt_ids = prompt_ids
        self.params = params
        self.make_sampler = make_sampler
        self.limit = limit
        self.arrival = arrival
        self.priority = priority
        self.ends = ends
        self.prefix_root = prefix_root
        self.make_answer = make_answer
        self.index = index
        self.mailbox = mailbox
        self.routing_layers = routing_layers
        self.pooling = pooling
        self.metrics = RequestMetrics(prompt_tokens=len(prompt_ids))
        self.prompt_logprobs: list[TokenLogprobs] = []
        """For prompt tokens from the second on, as far as computed; stays empty unless params ask."""
        self.sequences: list[Sequence] = [Sequence(self, 0, make_sampler(0))]

    @property
    def has_ended(self) -> bool:
        """Whether every sample has."""
        return len(self.sequences) == self.params.n and all(one.finish_reason is not None for one in self.sequences)

    def arrive(self, number: int, now: float) -> None:
        """Take a place in the order of arrivals."""
        self.arrival = number
        self.metrics.arrival_time = now
        for sequence in self.sequences:
            sequence.key = (self.priority, number, sequence.index)

    @property
    def wants_all_computed(self) -> bool:
        """Whether something is read of every prompt token as it is computed, so that cached ones do not help."""
        return self.routing_layers is not None or self.pooling is not None

    def wants_prompt_logits(self, sequence: Sequence) -> bool:
        """Whether the tokens this sequence computes next are prompt tokens whose logits somebody asked for."""
        return (
            self.params.prompt_logprobs is not None
            and sequence.index == 0
            and sequence.n_computed < sequence.n_prompt
            and len(self.prompt_logprobs) < sequence.n_prompt - 1
        )
