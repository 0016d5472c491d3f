"""The `WardenPolicy`: one question, one id, what to do with the answer. The CRD's schema is generated from these types.

Field names are camelCase on the wire. Strictness (unknown fields refused, exactly one requirement) is enforced here, in the generated
schema, and so by the API server.
"""

import re
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from mlwarden.model.finding import Action, OnInjected, OnUnknown, Severity
from mlwarden.model.revocation import Running
from mlwarden.model.schema import Rule, rules
from mlwarden.model.signing import PREDICATES, Authority, Demand, ImageAttestation, ImageSignature
from mlwarden.model.wire import Code, Wire

DURATION = r"[1-9][0-9]{0,5}[smhdw]"
"""A whole number and its unit, which is mandatory: 90s, 15m, 24h, 7d, 2w."""

_ONE_LINE = rules(Rule("!self.matches('[\\r\\n]')", "one line, without line breaks"))
Sentence = Annotated[str, Meta(min_length=1, max_length=300, extra_json_schema=_ONE_LINE)]
"""One line for a person."""
PROFILE = r"\*|[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?"
"""Name of a profile: a label value that is not empty, or `*`."""
_PROFILES = rules(Rule(f"self.all(profile, profile.matches('^({PROFILE})$'))".replace("\\", "\\\\"), "a profile is a label value, or '*'"))
LabelValue = Annotated[str, Meta(max_length=63)]


def _check_lines(**texts: str) -> None:
    """Raises ValueError for a line break. Not a `pattern`: Python's `$` matches before a last line break, the API server's does not."""
    for name, text in texts.items():
        if "\n" in text or "\r" in text:
            raise ValueError(f"{name} must be one line, without line breaks")


class Each(StrEnum):
    """What an expression is evaluated over, and what its variable is called.

    `pod`: once per pod; `object` is the pod template, shaped as a Pod (`object.metadata`, `object.spec`), whatever the workload's kind.
    `container`: once per container of every role; adds `container` and `role` ("container", "initContainer", "ephemeralContainer").
    `variable`: once per environment variable of every container; adds `variable` (its name and its value).
    `volume`: once per volume of the pod; adds `volume`.
    `image`: once per image reference, image volumes included; adds `image` (the reference as written, a string).
    `object`: once; `object` is the whole object, unchanged.
    In all of them: `oldObject` is not available (updates are handled by the engine), `namespaceObject` is.
    """

    POD = "pod"
    CONTAINER = "container"
    VARIABLE = "variable"
    VOLUME = "volume"
    IMAGE = "image"
    OBJECT = "object"


class Expression(Wire, frozen=True, kw_only=True):
    """A CEL expression that is true where all is well.

    Attributes:
        for_each: what it is evaluated over; the finding's path is the path of that element followed by `path`.
        expression: CEL, of type bool.
        path: field below the element that is to blame, e.g. `securityContext.privileged`.
    """

    for_each: Each = Each.POD
    expression: Code
    path: Annotated[str, Meta(max_length=253)] = ""

    @property
    def sees_resources(self) -> bool:
        """Whether it may ask what containers have of resources, which a LimitRange fills into pods and not into templates."""
        return self.for_each in {Each.POD, Each.CONTAINER} and _RESOURCES.search(self.expression) is not None


_RESOURCES = re.compile(r"\bresources\b")
_SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN")
_MAXIMUM = rules(Rule(f"self.all(severity, severity in {list(_SEVERITIES)})", "severities are CRITICAL, HIGH, MEDIUM, LOW and UNKNOWN"))
Duration = Annotated[str, Meta(max_length=8, extra_json_schema={"pattern": f"^{DURATION}$"})]


class ImageScan(Wire, frozen=True, kw_only=True):
    """Was this digest scanned within `maxAge`, with nothing at or above `severity` that has a fix?

    Attributes:
        severity: CRITICAL, HIGH, MEDIUM or LOW: the lowest severity that fails.
        maximum: severity → how many vulnerabilities of it are tolerated; none at or above `severity` unless named here, any number below.
        fixable: True: only vulnerabilities that have a fix count.
        max_age: how old the scan may be, with a unit (`24h`, `7d`).
        database_max_age: how old the scanner's vulnerability database may have been when it was used.
        exit_on_eol: True: an operating system that gets no more updates fails: its next vulnerability will have no fix.
        secrets: True: a secret at or above `severity` in the image fails; Unknown where the scanner does not look for secrets.
        misconfiguration: True: a mistake at or above `severity` in the image's configuration fails; Unknown where nobody looks.
        vex: whose signed VEX documents (OpenVEX, CycloneDX), attached to the image, may say that a vulnerability does not matter in it.
    """

    severity: Annotated[str, Meta(extra_json_schema={"enum": ["CRITICAL", "HIGH", "MEDIUM", "LOW"]})] = "HIGH"
    maximum: Annotated[dict[str, Annotated[int, Meta(ge=0, le=1_000_000)]], Meta(max_length=5, extra_json_schema=_MAXIMUM)] = msgspec.field(
        default_factory=dict
    )
    fixable: bool = True
    max_age: Duration = "7d"
    database_max_age: Duration = "3d"
    exit_on_eol: bool = msgspec.field(name="exitOnEOL", default=False)
    secrets: bool = False
    misconfiguration: bool = False
    vex: Annotated[tuple[Authority, ...], Meta(max_length=4)] = ()

    @property
    def demands(self) -> tuple[Demand, ...]:
        """The documents that are wanted: one per authority and kind."""
        kinds = (PREDICATES["openvex"], PREDICATES["cyclonedx"])
        return tuple(Demand(authority=authority, predicate_type=kind) for authority in self.vex for kind in kinds)

    def __post_init__(self) -> None:
        """Raises ValueError for a severity Trivy does not know and a duration without a unit."""
        if self.severity not in {"CRITICAL", "HIGH", "MEDIUM", "LOW"}:
            raise ValueError("severity is CRITICAL, HIGH, MEDIUM or LOW")
        if not set(self.maximum) <= set(_SEVERITIES):
            raise ValueError("maximum names severities: CRITICAL, HIGH, MEDIUM, LOW and UNKNOWN")
        for name, value in (("maxAge", self.max_age), ("databaseMaxAge", self.database_max_age)):
            if not re.fullmatch(DURATION, value):
                raise ValueError(f"{name} is a whole number with a unit: 90s, 15m, 24h, 7d, 2w")


class Requirement(Wire, frozen=True, kw_only=True):
    """Exactly one of these. A new requirement is a field here and one file in `mlwarden.checks`.

    Attributes:
        expression: is a CEL expression over the object true?
        image_scan: was every image scanned, recently enough, with nothing bad found?
        image_signature: was every image signed by those who may?
        image_attestation: is there a signed attestation about every image, with the right content?
    """

    RULES: ClassVar = (
        Rule(
            "[has(self.expression), has(self.imageScan), has(self.imageSignature), has(self.imageAttestation)]"
            ".filter(given, given).size() == 1",
            "a policy has exactly one requirement",
        ),
    )

    expression: Expression | None = None
    image_scan: ImageScan | None = None
    image_signature: ImageSignature | None = None
    image_attestation: ImageAttestation | None = None

    def __post_init__(self) -> None:
        """Raises ValueError unless exactly one is set (the API server says the same by a CEL rule)."""
        if len(self.kinds()) != 1:
            raise ValueError("a policy has exactly one requirement")

    def kinds(self) -> list[str]:
        """The names of the fields that are set."""
        return [name for name in self.__struct_fields__ if getattr(self, name) is not None]


class ResourceRule(Wire, frozen=True, kw_only=True):
    """Which resources, as in a ValidatingAdmissionPolicy: groups and plural names, `*` for all."""

    api_groups: Annotated[tuple[Annotated[str, Meta(max_length=253)], ...], Meta(min_length=1, max_length=16)]
    resources: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=253, pattern=r"^[^/]+$")], ...], Meta(min_length=1, max_length=32)
    ]


class LabelRequirement(Wire, frozen=True, kw_only=True):
    """One row of `matchExpressions` (meta/v1 LabelSelectorRequirement)."""

    RULES: ClassVar = (
        Rule(
            "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0",
            "In and NotIn need values, Exists and DoesNotExist take none",
        ),
    )

    key: Annotated[str, Meta(min_length=1, max_length=317)]
    operator: Annotated[str, Meta(extra_json_schema={"enum": ["In", "NotIn", "Exists", "DoesNotExist"]})]
    values: Annotated[tuple[LabelValue, ...], Meta(max_length=32)] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for what meta/v1 refuses."""
        if self.operator not in {"In", "NotIn", "Exists", "DoesNotExist"}:
            raise ValueError("operator is In, NotIn, Exists or DoesNotExist")
        if (self.operator in {"In", "NotIn"}) != bool(self.values):
            raise ValueError("In and NotIn need values, Exists and DoesNotExist take none")


class LabelSelector(Wire, frozen=True, kw_only=True):
    """meta/v1 LabelSelector. Empty matches everything."""

    match_labels: Annotated[dict[str, LabelValue], Meta(max_length=16)] = msgspec.field(default_factory=dict)
    match_expressions: Annotated[tuple[LabelRequirement, ...], Meta(max_length=16)] = ()


class Condition(Wire, frozen=True, kw_only=True):
    """A named CEL expression over `object`, `namespaceObject` and `request` (operation, userInfo, namespace, name); all must be true."""

    name: Annotated[str, Meta(min_length=1, max_length=63)]
    expression: Code


class Match(Wire, frozen=True, kw_only=True):
    """What a policy is about. Empty: every workload, of every kind, that runs a pod.

    Attributes:
        resources: narrows to these; needed where an expression is `forEach: object`.
        namespace_selector: over the labels of the namespace.
        object_selector: over the labels of the object.
        conditions: evaluated on the whole object.
    """

    resources: Annotated[tuple[ResourceRule, ...], Meta(max_length=16)] = ()
    namespace_selector: LabelSelector = LabelSelector()
    object_selector: LabelSelector = LabelSelector()
    conditions: Annotated[
        tuple[Condition, ...],
        Meta(max_length=16, extra_json_schema={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for two conditions of one name."""
        if len({condition.name for condition in self.conditions}) != len(self.conditions):
            raise ValueError("two conditions have the same name")


class Fix(Wire, frozen=True, kw_only=True):
    """How to put it right.

    Attributes:
        patch: an RFC 7386 merge patch on the element the expression was evaluated over. Shown only where the patched element was evaluated
            again and passes, and as little of it as helps.
        complete: of the patch everything is shown that is not set yet, also what the expression does not ask for.
        text: otherwise a command or a sentence.
    """

    patch: dict[str, object] = msgspec.field(default_factory=dict)
    complete: bool = False
    text: Sentence

    def __post_init__(self) -> None:
        """Raises ValueError for a text of several lines."""
        _check_lines(text=self.text)


class PolicySpec(Wire, frozen=True, kw_only=True):
    """The spec of a `WardenPolicy`.

    Attributes:
        profiles: profile → what a Fail does there. `*` is every profile that is not named.
        match: what it is about.
        requirement: the question.
        on_unknown: what an Unknown does; `Hold` on something that cannot be held is a warning (templates) or a denial (ephemeral
            containers, pods that name their node).
        injected: what a Fail of a container does that the platform puts into pods (docs/injected.md), where that is less than what
            `profiles` says; only where the question is asked of each container. Left out: the same as of an author's.
        severity: how bad a Fail is.
        running: what happens to pods that run already and that this policy would refuse now: they are reported, or also evicted where the
            chart allows that; through the eviction API, a few a minute, never a pod without a controller.
        exceptions: reserved: nobody can grant an exception yet, so only false is accepted; true, stored by an earlier version, is false.
        message: what is wrong, one line. `{name}` is the element's name, `{value}` what stands at the path, `{image}` the reference.
        why: the threat, one line.
        references: OWASP ML Top 10, MITRE ATLAS, Pod Security Standards.
        fix: how to put it right.
    """

    RULES: ClassVar = (
        Rule(
            "!has(self.requirement.expression) || !has(self.requirement.expression.forEach) || "
            "self.requirement.expression.forEach != 'object' || "
            "(has(self.match) && has(self.match.resources) && self.match.resources.size() > 0)",
            "forEach: object needs match.resources: without them it would be asked of every workload's object",
        ),
        Rule(
            "!has(self.injected) || (has(self.requirement.expression) && has(self.requirement.expression.forEach) && "
            "self.requirement.expression.forEach == 'container')",
            "injected is for a question that is asked of each container: forEach: container",
        ),
        Rule("!has(self.exceptions) || !self.exceptions", "there are no exceptions yet: nobody could grant one; leave the field out"),
    )

    profiles: Annotated[dict[str, Action], Meta(min_length=1, max_length=16, extra_json_schema=_PROFILES)]
    match: Match = Match()
    requirement: Requirement
    on_unknown: OnUnknown = OnUnknown.HOLD
    injected: OnInjected | None = None
    severity: Severity = Severity.HIGH
    running: Running = Running.REPORT
    exceptions: bool = False
    message: Sentence
    why: Sentence
    references: Annotated[tuple[Sentence, ...], Meta(max_length=16)] = ()
    fix: Fix

    def __post_init__(self) -> None:
        """Raises ValueError for what the CEL rules refuse."""
        _check_lines(message=self.message, why=self.why, **{f"references[{index}]": text for index, text in enumerate(self.references)})
        bad = [profile for profile in self.profiles if not re.fullmatch(PROFILE, profile)]
        if bad:
            raise ValueError(f"{bad[0]!r} is not the name of a profile: a label value, or '*'")
        expression = self.requirement.expression
        if expression is not None and expression.for_each is Each.OBJECT and not self.match.resources:
            raise ValueError("forEach: object needs match.resources: without them it would be asked of every workload's object")
        if self.injected is not None and (expression is None or expression.for_each is not Each.CONTAINER):
            raise ValueError("injected is for a question that is asked of each container: forEach: container")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy by its name, with the pack it came from (`""` for one of the cluster's own)."""

    name: str
    spec: PolicySpec
    pack: str = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What the chart's values decide, mounted as one YAML file into every process (`--settings FILE`).

    Attributes:
        namespace: mlwarden's own namespace.
        controller: service account of the controller, which applies what is generated.
        releaser: service account of the releaser, which alone patches pods.
        uninstaller: service account of the hook that frees what is held before the chart goes; it is there only meanwhile.
        own_secrets: names of Secrets in mlwarden's namespace that it runs from: public keys that policies name, pull credentials.
        default_profile: profile of a namespace without the label `mlwarden.io/profile`.
        profiles: every profile there is → whether it holds pods.
        rollout: `enforce`, or `audit`, which turns every refusal into a warning.
        require_profile: a new namespace must carry the label, unless somebody with the verb `change` makes it.
        exempt_namespaces: never governed, by compiled rule.
        gate: `auto` finds out with a dry-run pod whether MutatingAdmissionPolicy is enforced; `policy` and `webhook` say so.
        webhook_url: base URL of the webhook where the API server cannot reach a Service (development); else the Service is used.
        webhook_timeout: seconds the API server waits.
        anchor: name of the ClusterRole that owns everything generated.
        trusted_registries: whose images are trusted; empty: nobody has decided, and a policy says so.
        packs_accept: the version whose shipped policies are in force although an upgrade made them new or stricter.
        shipped_policies: nothing is judged before every policy that comes with mlwarden is known; False: others apply some of them.
        eviction: whether running pods may be evicted at all; the chart grants the right with it.
        evictions_per_minute: how many, in the whole cluster.
        platform: injector → the namespace where it has its ConfigMap; one that is not named is not read: whoever may create namespaces
            could make one of its usual name where it is not installed.
        evidence_per_namespace: how many requests for evidence of one namespace may be without an answer.
    """

    namespace: str = "mlwarden-system"
    controller: str = "mlwarden-controller"
    releaser: str = "mlwarden-releaser"
    uninstaller: str = "mlwarden-uninstall"
    webhook: str = "mlwarden-webhook"
    scanner: str = "mlwarden-scanner"
    own_secrets: tuple[str, ...] = ()
    default_profile: str = "baseline"
    profiles: dict[str, bool] = msgspec.field(default_factory=lambda: {"baseline": False, "experiment": True, "production": True})
    rollout: str = "enforce"
    require_profile: bool = False
    exempt_namespaces: tuple[str, ...] = ("kube-system", "kube-public", "kube-node-lease")
    gate: str = "auto"
    webhook_url: str = ""
    webhook_timeout: int = 10
    anchor: str = "mlwarden"
    trusted_registries: tuple[str, ...] = ()
    packs_accept: str = ""
    shipped_policies: bool = True
    eviction: bool = False
    evictions_per_minute: Annotated[int, Meta(ge=1)] = 5
    platform: dict[str, str] = msgspec.field(default_factory=dict)
    evidence_per_namespace: Annotated[int, Meta(ge=1)] = 500

    @property
    def never_governed(self) -> tuple[str, ...]:
        """The exempt namespaces and mlwarden's own."""
        return (*self.exempt_namespaces, self.namespace)

    def holds(self, profile: str) -> bool:
        """Whether pods under `profile` are held. A profile that does not exist holds: a typing error is not a way out."""
        return self.profiles.get(profile, True)


GATE = "mlwarden.io/evidence"
"""The scheduling gate."""
PROFILE_LABEL = "mlwarden.io/profile"
"""On a namespace: its profile."""
HELD_CONDITION = "mlwarden.io/Held"
"""The condition of a pod that says whether mlwarden holds it, and why."""
