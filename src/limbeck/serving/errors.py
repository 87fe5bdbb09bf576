"""What a server answers when it does not answer: one class per HTTP and gRPC status."""

from __future__ import annotations

from typing import ClassVar

from limbeck.core.errors import DataError, LimbeckError


class ServingError(LimbeckError):
    """A request that gets no answer.

    Attributes:
        status: of HTTP.
        code: of gRPC, by name.
        reason: a word for metrics and logs.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL"
    reason: ClassVar[str] = "failed"

    def __str__(self) -> str:
        """One line: a response's field is no place for several."""
        return "; ".join(line.strip() for line in super().__str__().splitlines())


class BadRequest(ServingError):
    """The request cannot be read, or does not fit the model."""

    status, code, reason = 400, "INVALID_ARGUMENT", "bad_request"


class Unauthorized(ServingError):
    """The token is missing or wrong."""

    status, code, reason = 401, "UNAUTHENTICATED", "unauthorized"


class Forbidden(ServingError):
    """The server was started without leave to do this."""

    status, code, reason = 403, "PERMISSION_DENIED", "forbidden"


class NotFound(ServingError):
    """No such model or version."""

    status, code, reason = 404, "NOT_FOUND", "not_found"


class TooLarge(ServingError):
    """A body, or a row, above the limit."""

    status, code, reason = 413, "RESOURCE_EXHAUSTED", "too_large"


class Unsupported(ServingError):
    """A body of a kind that is not taken."""

    status, code, reason = 415, "INVALID_ARGUMENT", "unsupported"


class Overloaded(ServingError):
    """The queue is full, or the answer would come too late.

    Args:
        what: the phrase.
        retry_after: seconds after which there may be room.
    """

    status, code, reason = 429, "RESOURCE_EXHAUSTED", "overloaded"

    def __init__(self, what: str, retry_after: int = 1):
        self.retry_after = retry_after
        super().__init__(what)


class Failed(ServingError):
    """The model failed on this request."""


class Draining(ServingError):
    """The server, or the model, is about to stop."""

    status, code, reason = 503, "UNAVAILABLE", "draining"


class Expired(ServingError):
    """The deadline has passed."""

    status, code, reason = 504, "DEADLINE_EXCEEDED", "expired"


class Cancelled(ServingError):
    """The caller went away; 499 is what servers write into their logs for it."""

    status, code, reason = 499, "CANCELLED", "cancelled"


def unfit(error: DataError) -> BadRequest:
    """What is wrong with a row, as a caller is told it."""
    return BadRequest(error.what, got=error.got, allowed=error.allowed, fix=error.fix)
