"""Which registries are trusted: the one shipped policy that cannot be right before somebody has decided.

The list is the administrator's (`trustedRegistries` of the chart, `mlwarden check --trusted-registry`) and is put into the policy's own
expression, so that what is in the cluster can be read, is enforced inside the API server, and is the same for the webhook, the release and
`check`. Rejected: to ship a list of hubs that are not trusted (the next one is not on it), and to guess from what runs.
"""

from collections.abc import Iterable, Sequence

import msgspec

from mlwarden.errors import InputError
from mlwarden.model import reference as references
from mlwarden.model.finding import Action
from mlwarden.model.policy import Each, Expression, Fix, Policy, Requirement

NAME = "trusted-registries"
MOST = 64
_EXAMPLE = "['registry.example.com/']"
_HINT = "as in an image: registry.example.com, registry.example.com/team, docker.io/pytorch"
_LINE = "--set 'trustedRegistries={registry.example.com}'"


def decided(policy: Policy, trusted: Sequence[str]) -> Policy:
    """Returns the shipped policy with this list in it; of an empty one the policy that says so.

    Raises:
        InputError: an entry is no registry, folder or repository.
    """
    if policy.name != NAME:
        return policy
    return _with(policy, sorted({start for each in trusted for start in starts(each)})) if trusted else _undecided(policy)


def is_shape(requirement: Requirement, policies: Iterable[Policy]) -> bool:
    """Whether this is what `decided` makes of the shipped policy with some list."""
    expression = requirement.expression.expression if requirement.expression else ""
    head, _, tail = next((_expression(each).partition(_EXAMPLE) for each in policies if each.name == NAME), ("\0", "", ""))
    return expression.startswith(head) and expression.endswith(tail)


def starts(trusted: str) -> tuple[str, ...]:
    """Returns what the full name of an image from there begins with, where it ends with a colon and every `@` is one."""
    text = trusted.removesuffix("/**").removesuffix("/*")
    whole, slash, _ = text.rstrip("/").partition("/")
    is_host = "." in whole or whole == "localhost" or whole != whole.lower() or whole.rpartition(":")[2].isdecimal() or "]" in whole
    try:
        parsed = references.parse(f"{text.rstrip('/')}/x" if is_host or slash else text)
    except InputError as error:
        raise InputError(f"{trusted[:120]!r} is not a registry, a folder or a repository of one: {error.message}", hint=_HINT) from None
    if parsed.digest or (parsed.tag != "latest") or text.endswith(":latest"):
        raise InputError(f"{trusted[:120]!r}: a tag or a digest is no part of it", hint=_HINT)
    host = references.same_host(parsed.registry)
    path = parsed.repository.removesuffix("/x") if is_host or slash else parsed.repository
    if is_host and not slash:
        return (f"{host}/",)
    found = [f"{host}/{path}/"]
    if text == trusted.removesuffix("/"):
        found.append(f"{host}/{path}:")
        if host == references.DOCKER and "/" not in path:
            found.append(f"{host}/library/{path}:")
    return tuple(found) if trusted == text else tuple(found[:1])


def _with(policy: Policy, names: Sequence[str]) -> Policy:
    if len(names) > 3 * MOST:
        raise InputError(f"more than {MOST} registries are trusted", hint="trust folders, or a registry as a whole")
    listed = "[" + ", ".join(f"'{name}'" for name in names) + "]"
    expression = Expression(for_each=Each.IMAGE, expression=_expression(policy).replace(_EXAMPLE, listed))
    return msgspec.structs.replace(policy, spec=msgspec.structs.replace(policy.spec, requirement=Requirement(expression=expression)))


def _undecided(policy: Policy) -> Policy:
    spec = msgspec.structs.replace(
        policy.spec,
        profiles=dict.fromkeys(policy.spec.profiles, Action.WARN),
        requirement=Requirement(expression=Expression(for_each=Each.POD, expression="false")),
        message=f"which registries are trusted is not decided, so images may be anybody's: helm upgrade … {_LINE}",
        fix=Fix(text=f"have it decided: {_LINE}; for mlwarden check: --trusted-registry registry.example.com"),
    )
    return msgspec.structs.replace(policy, spec=spec)


def _expression(policy: Policy) -> str:
    return policy.spec.requirement.expression.expression if policy.spec.requirement.expression else ""
