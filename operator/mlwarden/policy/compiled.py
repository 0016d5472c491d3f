"""A policy that is ready to be asked: its CEL compiled, its texts checked.

Compiled once, when a policy arrives or changes, and shared by every evaluation.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mlwarden import cel
from mlwarden.errors import PolicyError
from mlwarden.model.finding import Action
from mlwarden.model.policy import Each, Expression, Policy
from mlwarden.model.signing import Authority, Demand

VARIABLES: Mapping[Each, tuple[str, ...]] = MappingProxyType(
    {
        Each.POD: ("object", "namespaceObject"),
        Each.CONTAINER: ("object", "namespaceObject", "container", "role"),
        Each.VARIABLE: ("object", "namespaceObject", "variable"),
        Each.VOLUME: ("object", "namespaceObject", "volume"),
        Each.IMAGE: ("object", "namespaceObject", "image"),
        Each.OBJECT: ("object", "namespaceObject"),
    }
)
"""What an expression sees, by what it is evaluated over."""
CONDITION_VARIABLES = ("object", "namespaceObject", "request")
"""What a match condition sees."""
EXPRESSION = "expression"
ATTESTATION = "image_attestation"
"""Keys of the requirements' programs."""
ATTESTATION_VARIABLES = ("predicate",)
"""What the condition of an attestation sees: what was attested."""

_PLACEHOLDERS = {"name", "value", "image"}
_BRACES = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledPolicy:
    """A policy and its programs.

    Attributes:
        policy: as written.
        programs: requirement (name of the field) → its program; empty for a requirement that is not CEL.
        conditions: name → program, of `match.conditions`.
        demands: what has to be proven about each image, by id, in the order of the authorities.
        vex: VEX documents that count for `imageScan`, by the id that is their source in a scan.
    """

    policy: Policy
    programs: Mapping[str, cel.Program]
    conditions: tuple[tuple[str, cel.Program], ...]
    demands: Mapping[str, Demand] = field(default_factory=dict)
    vex: Mapping[str, Demand] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.policy.name

    def action(self, profile: str) -> Action | None:
        """Returns what a Fail does under `profile`; None where the policy is not in force there."""
        profiles = self.policy.spec.profiles
        return profiles.get(profile, profiles.get("*"))


def compile_policy(policy: Policy) -> CompiledPolicy:
    """Returns the policy, compiled.

    Raises:
        PolicyError: where its CEL does not compile, or a text has a placeholder that is never filled.
    """
    spec = policy.spec
    for place, text in (("message", spec.message), ("fix.text", spec.fix.text)):
        unknown = [name for name in _BRACES.findall(text) if name not in _PLACEHOLDERS]
        if unknown:
            raise PolicyError(
                f"policy {policy.name}: spec.{place} has the placeholder {{{unknown[0]}}}",
                hint="there are {name}, {value} and {image}",
            )
    programs: dict[str, cel.Program] = {}
    if spec.requirement.expression is not None:
        programs[EXPRESSION] = _expression(policy.name, spec.requirement.expression)
    conditions = tuple(
        (condition.name, _compile(policy.name, f"spec.match.conditions[{condition.name}]", condition.expression, CONDITION_VARIABLES))
        for condition in spec.match.conditions
    )
    demands: tuple[Demand, ...] = ()
    if asked := spec.requirement.image_signature or spec.requirement.image_attestation:
        _check_patterns(policy.name, asked.authorities)
        demands = asked.demands
    if (attestation := spec.requirement.image_attestation) and attestation.condition:
        where = "spec.requirement.imageAttestation.condition"
        programs[ATTESTATION] = _compile(policy.name, where, attestation.condition, ATTESTATION_VARIABLES)
    vex = spec.requirement.image_scan.demands if spec.requirement.image_scan else ()
    _check_patterns(policy.name, (demand.authority for demand in vex))
    return CompiledPolicy(
        policy=policy,
        programs=MappingProxyType(programs),
        conditions=conditions,
        demands=MappingProxyType({demand.id: demand for demand in demands}),
        vex=MappingProxyType({demand.id: demand for demand in vex}),
    )


def _check_patterns(policy: str, authorities: Iterable[Authority]) -> None:
    """Go is given these patterns; what it would read otherwise than we do, or not at all, is refused when it is written."""
    for authority in authorities:
        for identity in authority.identities:
            for pattern in filter(None, (identity.issuer_reg_exp, identity.subject_reg_exp)):
                _compile(policy, f"authority {authority.name}", f"text.matches({json.dumps(pattern)})", ("text",))


def _expression(policy: str, requirement: Expression) -> cel.Program:
    return _compile(policy, "spec.requirement.expression", requirement.expression, VARIABLES[requirement.for_each])


def _compile(policy: str, where: str, source: str, variables: tuple[str, ...]) -> cel.Program:
    try:
        return cel.compile(source, variables=variables, expect=bool)
    except cel.CelError as error:
        raise PolicyError(f"policy {policy}: {where}: {error.message}", hint=error.hint) from None
