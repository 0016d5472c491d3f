"""The request path: bytes in, a decision out. No I/O between the two, and nothing that waits."""

from mlwarden.admission.handle import Answer, handle

__all__ = ["Answer", "handle"]
