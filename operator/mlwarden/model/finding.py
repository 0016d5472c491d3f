"""What one policy says about one place, and what all of them make together."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from mlwarden.model.nodes import Nodes
from mlwarden.model.workload import Resource


class Outcome(StrEnum):
    """The answer to a policy's question. `Unknown` is never `Pass`."""

    PASS = "Pass"  # noqa: S105 -- not a password
    FAIL = "Fail"
    UNKNOWN = "Unknown"
    EXCEPTED = "Excepted"


class Action(StrEnum):
    """What a policy does with a `Fail`."""

    DENY = "Deny"
    WARN = "Warn"
    AUDIT = "Audit"


class OnUnknown(StrEnum):
    """What a policy does with an `Unknown`."""

    HOLD = "Hold"
    DENY = "Deny"
    WARN = "Warn"


class OnInjected(StrEnum):
    """What a policy does with a `Fail` of a container that the platform puts into a pod. `Hold`: until the policy says otherwise."""

    DENY = "Deny"
    HOLD = "Hold"
    WARN = "Warn"
    AUDIT = "Audit"


class Severity(StrEnum):
    """How bad it is; orders the findings of a refusal. The scale is Trivy's and CVSS's."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is the worst."""
        return ("critical", "high", "medium", "low").index(self.value)


class Decision(StrEnum):
    """The response. On a pod `Hold` means: created with the gate, released when judged good."""

    ADMIT = "Admit"
    HOLD = "Hold"
    DENY = "Deny"


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One policy's answer about one place. Its JSON form is the stable contract of `mlwarden check --output json`.

    Attributes:
        policy: name of the `WardenPolicy`.
        outcome: Pass, Fail, Unknown or Excepted.
        action: what is done about it here, in the words of `Action`, or `Hold` for an Unknown that holds; after rollout and profile.
        severity: of the policy.
        resource: the object judged.
        path: JSON path of the place, from the root of the object; `""` for the object as a whole.
        message: what is wrong, one line, no final full stop.
        why: the threat, one line.
        fix: a patch or a command, one line.
        exception: how to ask for one, or that there is none, one line.
    """

    policy: str
    outcome: Outcome
    action: str
    severity: Severity
    resource: Resource = msgspec.field()
    path: str
    message: str
    why: str
    fix: str
    exception: str


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """What a program could write to put one finding right; `fix` of the finding says the same in words.

    Attributes:
        path: JSON path of the mapping that is changed, from the root of the object; `""` for the object itself. It need not exist yet.
        patch: an RFC 7386 merge patch.
    """

    path: str
    patch: Mapping[str, Any]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All findings of a request and the decision they make.

    Attributes:
        decision: Admit, Hold or Deny.
        findings: the worst first; `Pass` only where the caller asked for them.
        wanted: what evidence is missing, for the scanner's queue: a reference exactly as written, `name@digest` once resolved, or
            `signatures of name@digest`.
        pins: JSON path of an image string → its pinned form `name:tag@sha256:…`, for pods only.
        edits: what a program could write about what is refused; each was tried on its element alone.
        nodes: where a new pod is to be kept, because elsewhere it would run what was not judged; None for anywhere, or where it is already.
    """

    decision: Decision
    findings: tuple[Finding, ...]
    wanted: tuple[str, ...] = ()
    pins: dict[str, str] = {}
    edits: tuple[Edit, ...] = ()
    nodes: Nodes | None = None

    @property
    def is_refused(self) -> bool:
        """Whether it is refused for what it is, not for what is not known."""
        return any(finding.outcome is Outcome.FAIL and finding.action == Action.DENY for finding in self.findings)
