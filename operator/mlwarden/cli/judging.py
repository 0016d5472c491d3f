"""From manifests to verdicts, in two passes, because a Namespace or a LimitRange may come after what it is about.

The first pass reads and keeps everything (`Input`), the second judges each object as its CREATE in the cluster would be: by the registry of
what the cluster asks about (`workloads.judged`) and by the same functions as the webhook. What a pass brings may be longer than memory.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from mlwarden import engine, workloads
from mlwarden.cli.folders import Aside, Problem
from mlwarden.cli.manifests import Manifest, Origin
from mlwarden.cli.rules import Policies
from mlwarden.cli.spill import Spill
from mlwarden.engine import messages
from mlwarden.evidence import Known
from mlwarden.model.evidence import Facts
from mlwarden.model.finding import Decision, Finding, Outcome, Verdict
from mlwarden.model.limits import Defaults
from mlwarden.model.policy import PROFILE_LABEL, Each, Settings
from mlwarden.model.workload import Json, Resource, Workload
from mlwarden.policy import CompiledPolicy
from mlwarden.workloads import Standing, limits

CLUSTER_PROFILE = "baseline"
"""What cluster-scoped kinds are noted by: they have no namespace to say another."""
_NOTHING = Verdict(decision=Decision.ADMIT, findings=())


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One object and what came of it.

    Attributes:
        origin: where it was read.
        resource: what it is.
        standing: what the cluster does about it: whether the verdict is that of the object, of its pods, or a note.
        verdict: None where nothing was judged.
    """

    origin: Origin
    resource: Resource
    standing: Standing
    verdict: Verdict | None

    @property
    def decision(self) -> Decision | None:
        """What the cluster would do with it or, where it judges the pods alone, with them; None where that is not known or not asked."""
        return self.verdict.decision if self.verdict and self.standing not in {Standing.CLUSTER, Standing.EXEMPT} else None

    @property
    def told(self) -> list[Finding]:
        """What a person should know, each finding once, the worst first: not what is good, nor what is only recorded."""
        found = messages.told(self.verdict) if self.verdict else []
        return list({(each.policy, each.path, each.message): each for each in reversed(found)}.values())[::-1]


@dataclass(kw_only=True)
class Input:
    """What was read, and what objects say about others."""

    manifests: Spill[Manifest] = field(default_factory=Spill)
    problems: Spill[Problem] = field(default_factory=Spill)
    asides: Spill[Aside] = field(default_factory=Spill)
    namespaces: dict[str, Mapping[str, Json]] = field(default_factory=dict)
    ranges: list[Mapping[str, Json]] = field(default_factory=list)

    def take(self, found: Iterable[Manifest | Problem | Aside]) -> None:
        """Keeps everything that is read."""
        for item in found:
            match item:
                case Manifest():
                    self.add(item)
                case Problem():
                    self.problems.append(item)
                case Aside():
                    self.asides.append(item)

    def add(self, item: Manifest) -> None:
        """Keeps one object."""
        self.manifests.append(item, weight=item.size)
        if name := _namespace_name(item.object):
            self.namespaces[name] = item.object
        elif limits.is_range(item.object):
            self.ranges.append(item.object)

    def close(self) -> None:
        """Gives the room back."""
        for spill in (self.manifests, self.problems, self.asides):
            spill.close()


@dataclass(kw_only=True)
class Tally:
    """What came of everything, in numbers.

    Attributes:
        objects: by what the cluster does about them and what it would answer.
        warned: admitted with findings that are told.
        unknown: objects of which something is not known.
        problems: what could not be read, policies among it.
        asides: what was not read although nothing is wrong with it, by reason.
    """

    objects: Counter[tuple[Standing, Decision | None]] = field(default_factory=Counter)
    warned: int = 0
    unknown: int = 0
    problems: int = 0
    asides: Counter[str] = field(default_factory=Counter)
    strict_asides: int = 0

    def count(self, item: Judged) -> None:
        """Counts one object."""
        self.objects[item.standing, item.decision] += 1
        if item.verdict is not None and item.decision is not None:
            self.warned += item.decision is Decision.ADMIT and item.standing is Standing.SENT and bool(engine.warnings(item.verdict))
            self.unknown += any(finding.outcome is Outcome.UNKNOWN for finding in item.verdict.findings)

    def count_input(self, given: Input) -> None:
        """Counts what was not read."""
        self.problems += len(given.problems)
        for aside in given.asides:
            self.asides[aside.why] += 1
            self.strict_asides += aside.why.is_strict

    def decided(self, decision: Decision) -> int:
        """Returns how many objects get this answer, or their pods; only objects that the cluster knows are admitted."""
        return sum(count for (standing, said), count in self.objects.items() if said is decision and not _is_only_pods(standing, decision))

    @property
    def by_pods(self) -> int:
        """Of how many objects the pods would be admitted, and nobody asks about the object."""
        return self.objects[Standing.PODS, Decision.ADMIT]

    def standing(self, standing: Standing) -> int:
        """Returns of how many objects the cluster does this."""
        return sum(count for (each, _), count in self.objects.items() if each is standing)

    @property
    def not_understood(self) -> int:
        """Of how many objects nobody knows whether they run anything."""
        return self.objects[Standing.UNKNOWN, None] + self.objects[Standing.UNKNOWN, Decision.ADMIT]

    @property
    def worst(self) -> Decision:
        """What is said of the worst object."""
        return next((each for each in (Decision.DENY, Decision.HOLD) if any(said is each for _, said in self.objects)), Decision.ADMIT)

    @property
    def total(self) -> int:
        """How many objects there were."""
        return self.objects.total()


class Judge:
    """Judges objects, one by one.

    Args:
        rules: the policies.
        settings: of the cluster.
        profile: where no Namespace in the input says it.
        given: says which Namespaces and LimitRanges there are.
    """

    def __init__(self, rules: Policies, settings: Settings, *, profile: str, given: Input) -> None:
        self._rules = rules
        self._settings = settings
        self._profile = profile
        self._namespaces = given.namespaces
        self._filled = limits.by_namespace(given.ranges)
        self._of_objects = tuple(each for each in rules.compiled if _is_of_objects(each))

    def one(self, item: Manifest, now: datetime, known: Known | None = None) -> Judged:
        """Returns what the cluster would say about an object.

        Args:
            item: the object.
            now: the time of the evaluation.
            known: evidence.
        """
        workload = workloads.extract(item.object)
        standing = workloads.standing(workload)
        if workload.resource.namespace in self._settings.never_governed and standing is not Standing.CLUSTER:
            standing = Standing.EXEMPT
        verdict = self._verdict(item, workload, standing, now, known)
        return Judged(origin=item.origin, resource=workload.resource, standing=standing, verdict=verdict)

    def _verdict(self, item: Manifest, workload: Workload, standing: Standing, now: datetime, known: Known | None) -> Verdict | None:
        if standing is Standing.EXEMPT:
            return None
        if standing in {Standing.NOTHING, Standing.UNKNOWN}:
            if not self._of_objects or not workloads.is_namespaced(workload.resource):
                return _NOTHING if standing is Standing.NOTHING else None
            return engine.evaluate(workload, self._of_objects, self._facts(workload, now), self._settings)
        facts = self._facts(workload, now) if standing is not Standing.CLUSTER else _facts(None, "", CLUSTER_PROFILE, now)
        filled = self._filled.get(workload.resource.namespace)
        if filled is not None and standing is not Standing.CLUSTER:
            facts, workload = _filled_in(facts, item, filled)
        if known is not None:
            facts = msgspec.structs.replace(facts, images=known.images, resolutions=known.resolutions, proofs=known.proofs)
        return engine.evaluate(workload, self._rules.compiled, facts, self._settings, broken=self._rules.broken)

    def _facts(self, workload: Workload, now: datetime) -> Facts:
        namespace = workload.resource.namespace
        return _facts(self._namespaces.get(namespace), namespace, self._profile, now)


def judge(
    found: Iterable[Manifest], rules: Policies, settings: Settings, *, profile: str, now: datetime, known: Known | None = None
) -> Iterator[Judged]:
    """Yields what the cluster would say about each object.

    Args:
        found: the objects; Namespaces among them say which profile is in force, LimitRanges what is filled into pods.
        rules: the policies.
        settings: of the cluster.
        profile: where no Namespace in the input says it.
        now: the time of the evaluation.
        known: evidence.
    """
    with contextlib.closing(Input()) as given:
        given.take(found)
        judging = Judge(rules, settings, profile=profile, given=given)
        for item in given.manifests:
            yield judging.one(item, now, known)


def _is_only_pods(standing: Standing, decision: Decision) -> bool:
    return decision is Decision.ADMIT and standing in {Standing.PODS, Standing.UNKNOWN}


def _is_of_objects(compiled: CompiledPolicy) -> bool:
    """Whether the API server asks a policy about objects that run nothing, too."""
    spec = compiled.policy.spec
    return spec.requirement.expression is not None and spec.requirement.expression.for_each is Each.OBJECT and bool(spec.match.resources)


def _filled_in(facts: Facts, item: Manifest, filled: Defaults) -> tuple[Facts, Workload]:
    return msgspec.structs.replace(facts, limits=filled), workloads.extract(limits.stored(item.object, filled))


def _facts(namespace: Mapping[str, Any] | None, name: str, profile: str, now: datetime) -> Facts:
    if namespace is None:
        metadata: dict[str, Any] = {"labels": {PROFILE_LABEL: profile}}
        if name:
            metadata |= {"name": name, "labels": {PROFILE_LABEL: profile, "kubernetes.io/metadata.name": name}}
        return Facts(now=now, namespace={"metadata": metadata}, profile=profile)
    own = namespace["metadata"].get("labels")
    labels = own if isinstance(own, dict) else {}
    labelled = {**namespace, "metadata": {**namespace["metadata"], "labels": {**labels, "kubernetes.io/metadata.name": name}}}
    said = labels.get(PROFILE_LABEL)
    return Facts(now=now, namespace=labelled, profile=said if isinstance(said, str) and said else profile)


def _namespace_name(obj: Mapping[str, Any]) -> str:
    if obj.get("kind") != "Namespace" or obj.get("apiVersion") != "v1":
        return ""
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else ""
