"""The CustomResourceDefinition of `WardenPolicy`, generated from its types.

What the schema cannot say (does the CEL compile?) is said by the controller in the status conditions: a policy that got in without
compiling is `Unknown` everywhere it would be in force, never skipped.
"""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from mlwarden.model import schema
from mlwarden.model.policy import PolicySpec
from mlwarden.model.schema import Column, Rule, Schema

KIND = "WardenPolicy"
PLURAL = "wardenpolicies"
API_VERSION = "mlwarden.io/v1alpha1"
NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""A DNS label: the name becomes part of annotation keys, of compiled policies' names and of metrics."""

READY = "Ready"
"""Condition: True where the policy compiles and is in force."""
COMPILED = "Compiled"
"""Condition: True where the API server itself enforces it, as a ValidatingAdmissionPolicy; False with the reason why it cannot."""

ACCEPTED = "Accepted"
"""Condition of a shipped policy: False where it only warns, because an upgrade brought it and the administrator has not accepted it yet."""


class StatusCondition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """meta/v1 Condition.

    Attributes:
        type: `Ready`, `Compiled`, and of a shipped one `Shipped` and `Accepted`.
        status: True, False or Unknown.
        observed_generation: the generation this was said about.
        last_transition_time: when `status` last changed.
        reason: one word in CamelCase.
        message: for a person.
    """

    type: Annotated[str, Meta(min_length=1, max_length=63)]
    status: Annotated[str, Meta(extra_json_schema={"enum": ["True", "False", "Unknown"]})]
    observed_generation: Annotated[int, Meta(ge=0)] = 0
    last_transition_time: datetime
    reason: Annotated[str, Meta(min_length=1, max_length=63)]
    message: Annotated[str, Meta(max_length=2048)] = ""


class PolicyStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the controller made of the policy.

    Attributes:
        observed_generation: the generation the rest of the status is about.
        requirement: which requirement it has, for `kubectl get`.
        conditions: `Ready`, `Compiled`, and of a shipped one `Shipped` and `Accepted`.
    """

    observed_generation: Annotated[int, Meta(ge=0)] = 0
    requirement: Annotated[str, Meta(max_length=63)] = ""
    conditions: Annotated[
        tuple[StatusCondition, ...],
        Meta(max_length=8, extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
    ] = ()


def crd() -> Schema:
    """Returns the CustomResourceDefinition, as applied to the cluster."""
    return schema.definition(
        kind=KIND,
        plural=PLURAL,
        short_names=["wp"],
        spec=PolicySpec,
        status=PolicyStatus,
        # What somebody took out of a shipped policy nobody would own, and the controller would put it back.
        atomic=True,
        own_rules=[
            Rule(
                f"self.metadata.name.matches('^{NAME}$')",
                "the name is a DNS label of at most 63 characters: it becomes part of annotation keys (exception.mlwarden.io/<name>)",
            )
        ],
        columns=[
            Column("Severity", ".spec.severity"),
            Column("Requirement", ".status.requirement"),
            Column("Ready", f'.status.conditions[?(@.type=="{READY}")].status'),
            Column("Compiled", f'.status.conditions[?(@.type=="{COMPILED}")].status'),
            Column("Accepted", f'.status.conditions[?(@.type=="{ACCEPTED}")].status'),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Reason", f'.status.conditions[?(@.type=="{READY}")].reason', wide=True),
            Column("Message", ".spec.message", wide=True),
        ],
    )
