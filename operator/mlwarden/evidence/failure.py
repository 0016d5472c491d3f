"""Why evidence could not be gathered, in the two kinds that decide what happens next.

A string match on error messages somewhere in the scanner was rejected: whoever sees the failure first (the registry client, the runner of
trivy) knows which kind it is, so the kind is its type.
"""

from mlwarden.errors import EvidenceError

LINE = 300
"""Characters of a reason that are kept: it is stored in etcd and shown to people."""


class GatherError(EvidenceError):
    """Evidence could not be gathered.

    Args:
        message: what and why, one sentence. Text from outside must have gone through `one_line`.
        hint: what to do next.
        retry_after: seconds after which another try makes sense, 0 for the caller's own back-off.
        status: what a registry answered, 0 where it is not about that.
    """

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 0, status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after, self.status = retry_after, status


class DefinitiveError(GatherError):
    """Trying again at once would fail in the same way: not found, denied, not an image."""


class TransientError(GatherError):
    """Worth another try soon: rate limit, server error, timeout, connection refused."""


def one_line(text: str, limit: int = LINE) -> str:
    """Returns foreign text as one printable line of at most `limit` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
