"""`/v1/files` and `/v1/batches`: OpenAI's fields."""

from typing import Annotated, Literal

from pydantic import Field

from deepseek.server.protocol.tolerance import RequestBody, RequestModel

HOUR = 3600
Label = Annotated[str, Field(max_length=512)]


class ExpiresAfter(RequestModel):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=HOUR, le=30 * 24 * HOUR)


class BatchRequest(RequestBody):
    input_file_id: str = Field(max_length=100)
    endpoint: str = Field(description="The route that answers each line.", max_length=100)
    completion_window: str = Field(
        pattern=r"^[1-9]\d{0,2}h$", description="Hours, such as 24h; lines without an answer by then get an error."
    )
    metadata: dict[Annotated[str, Field(max_length=64)], Label] | None = Field(default=None, max_length=16)
    output_expires_after: ExpiresAfter | None = None

    @property
    def window_seconds(self) -> int:
        return int(self.completion_window.removesuffix("h")) * HOUR
