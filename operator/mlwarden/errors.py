"""One root for everything mlwarden raises on purpose.

A failure on the request path is a typed value (`Unknown` with a reason), never an exception. Everywhere else an `Error` says what went
wrong and what to do next, through `diagnostics()`.
"""


class Error(Exception):
    """What went wrong, in a sentence for a person.

    Args:
        message: what, where and why.
        hint: what to do next; shown below the message.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def diagnostics(self) -> str:
        """Returns the message and, on a second line, the hint."""
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class InputError(Error):
    """Input that cannot be read: a manifest, a file, an argument."""


class PolicyError(Error):
    """A policy that does not compile, or asks for what does not exist."""


class ClusterError(Error):
    """The API server said no, or nothing."""


class EvidenceError(Error):
    """Evidence could not be gathered; the caller turns it into `Unknown`."""
