"""An expression, compiled once and evaluated many times, from any thread: the public face of the package."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from mlwarden.cel.checker import check
from mlwarden.cel.closures import Compiler
from mlwarden.cel.errors import BudgetExceeded, CelError, EvaluationError
from mlwarden.cel.operators import Closure
from mlwarden.cel.parser import parse
from mlwarden.cel.types import BOOL, STRING
from mlwarden.cel.values import BUDGET, Frame

_EXPECTED: Final = {bool: BOOL, str: STRING}


class Program:
    """A compiled expression. Immutable; a call allocates one list.

    Attributes:
        source: the expression as written.
        variables: the variables it was compiled with.
        expect: the type it returns.
        budget: what one evaluation may cost.
    """

    __slots__ = ("_closure", "_frame", "_metered", "budget", "expect", "source", "variables")

    def __init__(
        self, *, source: str, variables: frozenset[str], expect: type, closure: Closure, slots: int, budget: int, metered: bool = False
    ) -> None:
        self.source = source
        self.variables = variables
        self.expect = expect
        self.budget = budget
        self._closure = closure
        self._frame: Frame = [budget, None, *([None] * slots)]
        self._metered = metered

    def metered(self) -> "Program":
        """Returns the program with one budget for all its evaluations. Not to be shared between threads."""
        return Program(
            source=self.source,
            variables=self.variables,
            expect=self.expect,
            closure=self._closure,
            slots=len(self._frame) - 2,
            budget=self.budget,
            metered=True,
        )

    def __call__(self, env: Mapping[str, Any]) -> Any:
        """Evaluates the expression.

        Args:
            env: variable → decoded JSON (dict, list, str, int, float, bool, None), null members stripped (`strip_nulls`).

        Returns:
            A value of type `expect`.

        Raises:
            EvaluationError: the expression has no value for this object, or cost too much.
        """
        frame = self._frame.copy()
        frame[1] = env
        try:
            value = self._closure(frame)
        except BudgetExceeded:
            raise EvaluationError(f"the expression cost more than {self.budget} units on this object") from None
        except RecursionError:
            raise EvaluationError("the stack was too deep to evaluate the expression") from None
        finally:
            if self._metered:
                self._frame[0] = frame[0]
        if type(value) is not self.expect:
            raise EvaluationError(f"the expression returned a {type(value).__name__}, not a {self.expect.__name__}")
        return value

    def __repr__(self) -> str:
        return f"Program({self.source!r})"


def compile(source: str, *, variables: Collection[str], expect: type, budget: int = BUDGET) -> Program:  # noqa: A001 -- cel.compile
    """Compiles an expression of the listed subset (`declarations.OVERLOADS`).

    Args:
        source: CEL.
        variables: names that `env` will have; all of dynamic type.
        expect: bool or str: the type of the expression, which must be known statically, as for a ValidatingAdmissionPolicy.
        budget: what one evaluation may cost: about one unit per node evaluated in a loop and per ten characters walked over.

    Raises:
        CelError: not in the subset: what, where, and what is allowed.
    """
    try:
        node = parse(source)
        checked = check(node, source=source, variables=variables, expect=_EXPECTED[expect])
        compiler = Compiler(source=source, checked=checked)
        closure = compiler.compile(node, {})
    except RecursionError:
        raise CelError("the expression is nested too deeply", source=source, position=0) from None
    return Program(source=source, variables=frozenset(variables), expect=expect, closure=closure, slots=compiler.slots, budget=budget)
