"""The questions a policy can ask: one requirement, one file.

A check is a module of this package with `REQUIREMENT`, the name of its field in `mlwarden.model.policy.Requirement`, and
`judge(compiled, view, facts)`, which yields an `Answer` per element. Putting such a file here is all there is to a new requirement: the
table is what the folder holds. Rejected: a list to be edited, which a new check would have to touch, and entry points, with which anything
installed beside mlwarden could answer for it.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from mlwarden.checks.answer import Answer
from mlwarden.checks.view import View
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Outcome
from mlwarden.model.workload import Workload
from mlwarden.policy import CompiledPolicy

__all__ = ["CHECKS", "Answer", "Check", "View", "judge"]

Check = Callable[[CompiledPolicy, View, Facts], Iterator[Answer]]


def _table() -> Mapping[str, Check]:
    modules = (import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__))
    return MappingProxyType({module.REQUIREMENT: module.judge for module in modules if hasattr(module, "REQUIREMENT")})


CHECKS = _table()
"""Requirement → the function that answers it."""


def judge(compiled: CompiledPolicy, workload: Workload, facts: Facts, *, view: View | None = None) -> Iterator[Answer]:
    """Yields the answers of one policy about one workload; whether the policy applies at all is the caller's business.

    Args:
        compiled: the policy.
        workload: what is judged.
        facts: evidence, namespace and time.
        view: the workload's elements, where the caller judges it by several policies.
    """
    view = view or View(workload, facts)
    for kind in compiled.policy.spec.requirement.kinds():
        check = CHECKS.get(kind)
        if check is None:
            reason = f"this version of mlwarden cannot judge the requirement {kind}"
            yield Answer(outcome=Outcome.UNKNOWN, element="", path="", message=reason, fix="upgrade mlwarden, or remove the policy")
        else:
            yield from check(compiled, view, facts)
