"""The answers of Kubernetes' own engine (apiserver 0.37.1, environment of 1.36), recorded by tests/cel/recorder, against ours.

Half of the rows are written by hand, one trap each; the rest was generated. A row may say that we refuse or raise where Kubernetes
answers. No row may say the opposite: that is the one promise of the package.
"""

from collections.abc import Callable
from typing import Any

from mlwarden.cel import CelError, EvaluationError
from mlwarden.cel.errors import BudgetExceeded
from mlwarden.cel.values import strip_nulls


def _answer(row: dict[str, Any], run: Callable[..., Any], plain: Callable[..., Any]) -> tuple[str, str, Any]:
    """(outcome, static type, value)."""
    variables = row["variables"]
    if isinstance(variables["object"], dict) and "big" in variables["object"]:
        variables = {**variables, "object": {**variables["object"], "big": strip_nulls(variables["object"]["big"])}}
    try:
        static, evaluate = run(row["expression"], variables)
    except CelError:
        return "refused", "", None
    try:
        return "value", static, plain(evaluate())
    except (EvaluationError, BudgetExceeded):
        return "error", static, None


def test_no_expression_means_anything_else_than_in_kubernetes(
    recorded: list[dict[str, Any]], run: Callable[..., Any], plain: Callable[..., Any], normal: Callable[..., Any]
) -> None:
    wrong = []
    for row in recorded:
        kubernetes = row["kubernetes"]
        outcome, static, value = _answer(row, run, plain)
        ours = row.get("ours", "same")
        if "refused" in kubernetes:
            # Conversions of literals are evaluated when Kubernetes compiles; nested ones fail here at run time.
            fine = outcome in {"refused", "error"}
        elif ours == "refuses":
            fine = outcome == "refused"
        elif ours == "raises" or "error" in kubernetes:
            fine = outcome == "error"
        else:
            fine = outcome == "value" and value == normal(kubernetes["value"])
        if not fine:
            wrong.append((row["expression"], kubernetes, outcome, value))
        known = kubernetes.get("type", "").replace("optional_type", "optional").replace("kubernetes.Quantity", "quantity")
        if outcome != "refused" and known and static != known:
            wrong.append((row["expression"], known, static, None))
    assert wrong == []


def test_the_record_has_answers_errors_and_refusals(recorded: list[dict[str, Any]]) -> None:
    kinds = [next(iter(row["kubernetes"])) for row in recorded]
    assert kinds.count("value") > 800
    assert kinds.count("error") > 100
    assert kinds.count("refused") > 100
