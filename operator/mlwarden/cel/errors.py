"""What can go wrong: an expression that is not in the subset, and an evaluation that has no answer.

`BudgetExceeded` is deliberately not an `EvaluationError`: `||`, `&&`, `all` and `exists` absorb evaluation errors (CEL's commutative
logic), and absorbing an exhausted budget would let the evaluation go on. It never leaves `Program.__call__`.
"""

from mlwarden.errors import Error, PolicyError


class CelError(PolicyError):
    """An expression outside the subset, or not CEL at all.

    Args:
        message: what is wrong.
        source: the expression.
        position: offset of the offending token, in code points.
        hint: what is allowed instead.
    """

    def __init__(self, message: str, *, source: str, position: int, hint: str = "") -> None:
        self.source = source
        self.position = min(position, len(source))
        before = source[: self.position]
        self.line = before.count("\n") + 1
        self.column = self.position - (before.rfind("\n") + 1) + 1
        super().__init__(f"CEL: {message} (line {self.line}, column {self.column})", hint=hint)


class EvaluationError(Error):
    """An expression that has no value for this object: a missing field, a wrong type, an overflow, or the cost budget."""


class BudgetExceeded(Exception):  # noqa: N818 -- control flow inside the package, never seen outside
    """The evaluation cost more than its budget; not absorbed by the logical operators."""
