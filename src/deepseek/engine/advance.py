"""What a step's output means for its sequences: tokens chosen, guesses verified, samples forked, ends found."""

import time
from typing import TYPE_CHECKING, Any

from deepseek.engine.batch import Batch, Chunk, StepOutput
from deepseek.engine.outputs import TokenEvent
from deepseek.engine.scheduler import Scheduler, drop_drafts
from deepseek.engine.sequence import Request, Sequence

if TYPE_CHECKING:
    from deepseek.engine.outputs import FinishReason
    from deepseek.engine.sequence import Message


def advance(scheduler: Scheduler, batch: Batch, output: StepOutput) -> "list[Message]":
    """Bring the batch's sequences forward by what was computed; returns what is to be told, in order.

    An error in a request's own sampling ends that request and no other.
    """
    messages: list[Message] = []
    samples: list[Sequence] = []
    row = token = 0
    for place, chunk in enumerate(batch.chunks):
        rows = 0 if output.tokens else chunk.count if chunk.logits == "all" else int(chunk.logits == "last")
        logits = output.logits[row : row + rows]
        row += rows
        token += chunk.count
        if chunk.sequence.finish_reason is not None:
            continue  # its request failed a moment ago
        try:
            if chunk.sequence.request.pooling is not None:
                assert output.hidden is not None
                _take_hidden(scheduler, chunk, output.hidden[token - chunk.count : token], messages)
            elif output.tokens:
                _take_tokens(scheduler, chunk, output.tokens[place], messages)
            else:
                _take_logits(scheduler, chunk, logits, messages, samples)
        except Exception as error:  # noqa: BLE001  processors and grammars are the request's own code
            scheduler.remove_request(chunk.sequence.request)
            messages.append((chunk.sequence.request, error))
    for sample in samples:
        if sample.finish_reason is None:
            scheduler.add_sample(sample)
    return messages


def _take_tokens(scheduler: Scheduler, chunk: Chunk, tokens: list[int], messages: "list[Message]") -> None:
    """Tokens that the runner chose itself; those after an end are dropped."""
    sequence = chunk.sequence
    for token in tokens:
        sequence.sampler.observe(token)
        sequence.n_computed += 1
        _append(sequence, token, None, [], messages)
        if sequence.finish_reason is not None:
            break
    _settle(scheduler, sequence)


def _take_hidden(scheduler: Scheduler, chunk: Chunk, hidden: Any, messages: "list[Message]") -> None:
    """Part of a prompt whose hidden states are pooled; a last event without a token says that it is complete."""
    sequence, request = chunk.sequence, chunk.sequence.request
    assert request.pooling is not None
    request.pooling.add(chunk.start, hidden)
    sequence.n_computed = chunk.start + chunk.count
    if sequence.n_computed == sequence.n_prompt:
        sequence.finish_reason = "stop"
        request.metrics.finished_time = time.monotonic()
        messages.append((request, TokenEvent(request.index, 0, None, "", "stop")))
        scheduler.blocks.publish(sequence)
        scheduler.remove(sequence)
    else:
        scheduler.blocks.publish(sequence)


def _take_logits(
    scheduler: Scheduler, chunk: Chunk, logits: Any, messages: "list[Message]", samples: list[Sequence]
) -> None:
    sequence = chunk.sequence
    drafts = drop_drafts(sequence)
    sequence.n_computed = chunk.start + chunk.count - len(drafts)
    request = sequence.request
    if chunk.logits == "all" and chunk.start < sequence.n_prompt:
        _note_prompt_logprobs(request, chunk, logits)
        logits = logits[-1:]
    if chunk.logits == "none" or sequence.n_computed < len(sequence.token_ids):
        scheduler.blocks.publish(sequence)
        return
    if request.params.n > len(request.sequences):
        samples += _fork(scheduler, sequence, logits[0], messages)
    accepted = _choose(sequence, logits, drafts, messages)
    if drafts:
        assert scheduler.speculator is not None
        scheduler.speculator.learn(sequence, len(drafts), accepted)
        request.metrics.drafted_tokens += len(drafts)
        request.metrics.accepted_tokens += accepted
    _settle(scheduler, sequence)


def _choose(sequence: Sequence, logits: Any, drafts: list[int], messages: "list[Message]") -> int:
    """One token for each row, as long as the drafts agree; returns how many of them did."""
    accepted = 0
    for row in logits:
        choice = sequence.sampler.choose(row)
        _append(sequence, choice.token, choice.logprob, choice.top, messages)
        if accepted == len(drafts) or choice.token != drafts[accepted] or sequence.finish_reason is not None:
            break
        accepted += 1
        sequence.n_computed += 1
    return accepted


def _fork(scheduler: Scheduler, first: Sequence, logits: Any, messages: "list[Message]") -> list[Sequence]:
    """The other samples of a request whose prompt is computed, each with its first token."""
    request = first.request
    samples = []
    for index in range(1, request.params.n):
        sample = Sequence(request, index, request.make_sampler(index))
        request.sequences.append(sample)
        scheduler.blocks.fork(first, sample)
        sample.routing = first.routing and first.routing.copy()
        _choose(sample, logits.copy()[None], [], messages)
        if sample.finish_reason is not None:
            scheduler.remove(sample)
        samples.append(sample)
    return samples


def _append(
    sequence: Sequence,
    token: int,
    logprob: float | None,
    top: list[tuple[int, float]],
    messages: "list[Message]",
) -> None:
    """One more token: its text, and whether the sample ends with it."""
    request, answer = sequence.request, sequence.answer
    sequence.token_ids.append(token)
    text = ""
    reason: FinishReason | None = None
    if token in request.ends:
        reason = "stop"
    elif answer is not None:
        text = answer.push(token)
        if answer.stopped_by is not None:
            reason = "stop"
    if reason is None and len(sequence.token_ids) >= request.limit:
        reason = "length"
    if reason is not None and answer is not None:
        text += answer.finish()
        if answer.stopped_by is not None:
            reason = "stop"
    if reason is not None:
        sequence.finish_reason = reason
        request.metrics.generated_tokens += sequence.n_generated
        request.metrics.finished_time = time.monotonic()
    stopped_by = answer.stopped_by if answer is not None else None
    event = TokenEvent(request.index, sequence.index, token, text, reason, logprob, top, stopped_by)
    messages.append((request, event))


def _settle(scheduler: Scheduler, sequence: Sequence) -> None:
    """After new tokens: share what is full, let go of what has ended."""
    scheduler.blocks.publish(sequence)
    metrics = sequence.request.metrics
    if not metrics.first_token_time:
        metrics.first_token_time = time.monotonic()
    if sequence.finish_reason is not None:
        scheduler.remove(sequence)


def _note_prompt_logprobs(request: Request, chunk: Chunk, logits: Any) -> None:
    from deepseek.engine.sampler import token_logprobs

    known = request.prompt_logprobs
    top = request.params.prompt_logprobs
    assert top is not None
    for place, row in enumerate(logits, start=chunk.start + 1):
        if place == len(known) + 1 and place < len(request.prompt_ids):
            known.append(token_logprobs(row, request.prompt_ids[place], top))
