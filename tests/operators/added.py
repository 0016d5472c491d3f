"""What each operator, of the version that runs here, puts into pods beside what an object says. Data; `*` stands for any text.

A fact that is neither predicted from the object nor in this list fails a test: then the operator changed, or extraction missed something.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from .facts import Fact  # type: ignore[import-not-found]

VERSIONS: Mapping[str, str] = {"jobset": "v0.10.1"}

ADDED: Mapping[str, tuple[Fact, ...]] = {"jobset": ()}
"""Facts as they stand."""


def unexplained(found: Iterable[Fact], predicted: frozenset[Fact], *operators: str) -> list[Fact]:
    """The facts that are neither predicted nor known to be added by one of these operators."""
    known = [fact for operator in operators for fact in ADDED[operator]]
    return sorted(fact for fact in set(found) - predicted if not any(_matches(fact, each) for each in known))


def _matches(fact: Fact, pattern: Fact) -> bool:
    return len(fact) == len(pattern) and all(fnmatchcase(text, each) for text, each in zip(fact, pattern, strict=True))
