"""Errors in the shape that OpenAI's clients read."""

from typing import Any

RETRY_AFTER = 1  # Seconds after which a client may ask a busy server again.
_KINDS = {400: "invalid_request_error", 404: "invalid_request_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is not answered.

    Attributes:
        status: The HTTP status.
        message: One line: what was found, what was expected.
        param: The field that is wrong, or None.
        code: OpenAI's word for the mistake, or None.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ):
        """Keep what is answered; see the attributes."""
        super().__init__(message)
        self.status = status
        self.message = " ".join(message.split())
        self.param = param
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that is answered."""
        kind = _KINDS.get(self.status)
        if kind is None:
            kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that are answered."""
        return {"retry-after": str(RETRY_AFTER)} if self.status in (429, 503) else {}


def invalid(param: str, message: str, code: str | None = None) -> ApiError:
    """An error about a field of the body; the message begins with its name."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)
