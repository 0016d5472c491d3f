"""CEL, the listed subset of Kubernetes' ValidatingAdmissionPolicy dialect, evaluated on plain decoded JSON.

Why not a library: the pure Python one costs a millisecond per rule and absorbs errors wrongly; Google's binding returns errors as
values, has no cost limit and lacks Kubernetes' functions. What decides here is that the same expression must mean the same in our webhook
and in a ValidatingAdmissionPolicy: where this evaluator is not sure, it refuses at compile time or raises, and never answers.

Nulls: by contract the caller strips null members first (`strip_nulls`), as the API server does by decoding into structs.
"""

from mlwarden.cel.errors import CelError, EvaluationError
from mlwarden.cel.program import Program, compile  # noqa: A004 -- read as cel.compile
from mlwarden.cel.rename import rename_root
from mlwarden.cel.values import strip_nulls

__all__ = ["CelError", "EvaluationError", "Program", "compile", "rename_root", "strip_nulls"]
