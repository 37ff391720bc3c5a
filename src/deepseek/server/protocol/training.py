"""Answers of the routes under /v1/training/runs."""

from typing import Annotated, Any, Literal

import msgspec

RecordName = Literal["evaluations", "samples", "needle"]
"""Files of a run beside its log; each holds a record a line."""
Line = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object", "required": ["step"]})]


class RecordFile(msgspec.Struct):
    """version: another one means that the file was written anew, and is to be read from its start."""

    bytes: int
    version: str


class RecordPage(msgspec.Struct, kw_only=True):
    """Lines of a file from `offset` on. damaged: lines that are no records. has_more: ask again from next_offset."""

    offset: int
    next_offset: int
    bytes: int
    version: str
    lines: list[Line] = msgspec.field(default_factory=list)
    damaged: int = 0
    has_more: bool = False
    object: Literal["training.records"] = "training.records"


class TrainingRun(msgspec.Struct, kw_only=True):
    """What a list tells of a run. origin: the folder of runs, or the folder of the served model.

    changed: when its log was last written, in seconds since 1970. steps, tokens: that it will have; step,
    trained_tokens: that it has; loss: the main loss of that step in nats a token. files: those that are there.
    """

    id: str
    origin: Literal["runs", "model"]
    going_on: bool
    started: str | None
    changed: int
    parameters: int | None
    active_parameters: int | None
    steps: int | None
    tokens: int | None
    step: int | None
    trained_tokens: int | None
    loss: float | None
    files: dict[str, RecordFile]
    object: Literal["training.run"] = "training.run"


class TrainingRunList(msgspec.Struct, kw_only=True):
    """Newest first. folder: where runs are looked for. has_more: there are older ones that are not listed."""

    data: list[TrainingRun]
    folder: str
    has_more: bool
    object: Literal["list"] = "list"


class TrainingRunFacts(msgspec.Struct, kw_only=True):
    """facts: run.json, null where it is missing or no JSON object. left_out: batches passed over, of left_out.json."""

    run: TrainingRun
    facts: dict[str, Any] | None
    left_out: list[Any]
    object: Literal["training.facts"] = "training.facts"
