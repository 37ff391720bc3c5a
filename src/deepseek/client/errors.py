"""What can go wrong between a client and a server."""

from deepseek.errors import DeepseekError


class ClientError(DeepseekError):
    """Base of every error below."""


class ServerUnreachable(ClientError, OSError):
    """No answer came: no server there, or the connection broke or took longer than the timeout."""


class ServerFault(ClientError):
    """The server failed, or its answer is none that a client understands. status: 0 where a stream broke."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ServerBusy(ClientError):
    """The server takes no more requests now. retry_after: seconds, None where it did not say."""

    def __init__(self, message: str, *, status: int, retry_after: float | None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class RequestRefused(ClientError, ValueError):
    """The request cannot be carried out as asked. field: the one at fault, where the server named one."""

    def __init__(self, message: str, *, status: int, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.code = code


class NotAuthorized(RequestRefused):
    """The API key is missing, unknown or not allowed to do this."""
