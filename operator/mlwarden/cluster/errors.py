"""What the API server says when it says no, as exceptions that a caller can tell apart."""

from mlwarden.errors import ClusterError


class ApiError(ClusterError):
    """An answer of 400 or more.

    Attributes:
        code: the HTTP status, 0 where there was no answer.
        reason: the `reason` of the Status object.
    """

    def __init__(self, message: str, *, code: int = 0, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.reason = reason


class UnreachableError(ApiError):
    """No answer: connection refused, reset, or a deadline that ran out."""


class NotFoundError(ApiError):
    """404."""


class ForbiddenError(ApiError):
    """401 or 403."""


class ConflictError(ApiError):
    """409: a stale resourceVersion, or an object of this name exists."""


class GoneError(ApiError):
    """410: the resourceVersion is too old; list again."""


class InvalidError(ApiError):
    """400 or 422: the object is not acceptable."""


_BY_CODE: dict[int, type[ApiError]] = {
    400: InvalidError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
}


def error_for(code: int, message: str, reason: str) -> ApiError:
    """Returns the exception for an HTTP status."""
    return _BY_CODE.get(code, ApiError)(message, code=code, reason=reason)
