"""The webhook configurations: what the API server asks `mlwarden webhook`, and what happens where nobody answers.

Almost everything is `Ignore`: the webhook tells a person at once, while the gate inside the API server is what holds. Three things cannot
be held and fail closed, each as narrow as can be said, and only in namespaces that hold: ephemeral containers, pods that name their node,
and, on clusters without MutatingAdmissionPolicy, the gate itself.

In namespaces that do not hold nothing fails closed: an outage of mlwarden refuses nothing there, and what is clearly dangerous is refused
by compiled policies.

Rejected: `pods/*` in a rule (it matches plain pods, too, and a fail-closed webhook on it stands in the way of every pod); one webhook per
policy (a call each); `objectSelector` (labels are the author's to choose).
"""

import base64
from collections.abc import Iterable

from mlwarden.controllers.gate import NAMES_NODE, PROBE_LABEL, revision
from mlwarden.controllers.guards import WEBHOOKS
from mlwarden.controllers.scope import NAME_LABEL, governed, holding, lenient
from mlwarden.model.policy import Settings
from mlwarden.model.workload import Json
from mlwarden.policy.account import IS_MIRROR, is_account
from mlwarden.policy.bindings import MANAGED_BY

MUTATE = "/mutate"
VALIDATE = "/validate"
GATE_PATH = "/gate"
"""Adds the gate and nothing else, without looking at policies or evidence. Called only where MutatingAdmissionPolicy is not enforced."""
POLICY = "/policy"

_PODS: dict[str, Json] = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}
_EPHEMERAL: dict[str, Json] = {**_PODS, "operations": ["UPDATE"], "resources": ["pods/ephemeralcontainers"]}


def webhook_configurations(
    settings: Settings, ca_bundle: bytes, *, kinds: Iterable[tuple[str, str]], gate: bool = False
) -> list[dict[str, Json]]:
    """Returns the mutating and the validating webhook configuration.

    Args:
        settings: the chart's.
        ca_bundle: PEM of every authority that the webhook's certificate may come from now.
        kinds: API group and plural resource of every kind that runs pods, pods among them.
        gate: the webhook adds the gate, because the API server does not.
    """
    make = _Maker(settings, ca_bundle)
    mutating = [make.workloads(kinds), make.ephemeral(MUTATE), make.ephemeral_lenient(MUTATE)]
    if gate and settings.rollout != "audit":
        mutating = [make.gate(), make.gate_probe(), *mutating]
    validating = [make.policies(), make.node(), make.ephemeral(VALIDATE), make.ephemeral_lenient(VALIDATE)]
    return [
        _configuration("MutatingWebhookConfiguration", mutating),
        _configuration("ValidatingWebhookConfiguration", validating),
    ]


class _Maker:
    """The webhooks of one set of settings."""

    def __init__(self, settings: Settings, ca_bundle: bytes) -> None:
        self._settings = settings
        self._bundle = base64.b64encode(ca_bundle).decode()
        self._closed = "Ignore" if settings.rollout == "audit" else "Fail"

    def workloads(self, kinds: Iterable[tuple[str, str]]) -> dict[str, Json]:
        """Everything that runs pods: refused, warned about, and pods' tags pinned."""
        groups: dict[str, set[str]] = {}
        for group, plural in kinds:
            groups.setdefault(group, set()).add(plural)
        rule = {"apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "scope": "Namespaced"}
        conditions = {
            # Labels, finalizers, owners and status are no reason to judge again.
            "something-to-judge": (
                "request.operation != 'UPDATE' || object.?spec != oldObject.?spec || object.?template != oldObject.?template"
                " || object.metadata.?annotations != oldObject.metadata.?annotations"
            ),
            # The release was judged by the one who sends it.
            "not-our-release": f"!{is_account(self._settings, self._settings.releaser)}",
            # It runs already, whatever is said here.
            "no-mirror-pod": f"!{IS_MIRROR}",
            # ReplicaSets of Deployments and Jobs of CronJobs: the person has been told, and their pods are judged.
            "not-kubernetes-own": (
                "request.resource.resource == 'pods' || !request.userInfo.username.startsWith('system:serviceaccount:kube-system:')"
            ),
        }
        return {
            **self._webhook("workloads.mlwarden.io", MUTATE, governed(self._settings), policy="Ignore", conditions=conditions),
            "rules": [{**rule, "apiGroups": [group], "resources": sorted(plurals)} for group, plurals in sorted(groups.items())],
            "reinvocationPolicy": "Never",
        }

    def gate(self) -> dict[str, Json]:
        """The gate where the API server cannot add it. Put back after other webhooks; the guard refuses what still lacks it."""
        conditions = {"names-no-node": f"!({NAMES_NODE})"}
        return {
            **self._webhook("gate.mlwarden.io", GATE_PATH, holding(self._settings), policy="Fail", conditions=conditions),
            "rules": [_PODS],
            "sideEffects": "None",
            "reinvocationPolicy": "IfNeeded",
        }

    def gate_probe(self) -> dict[str, Json]:
        """The same for the pod that finds out whether the gate is in force, which alone has this label in mlwarden's namespace."""
        selector = {"matchLabels": {NAME_LABEL: self._settings.namespace}}
        return {
            **self._webhook("gate-probe.mlwarden.io", GATE_PATH, selector, policy="Ignore", conditions={}),
            "objectSelector": {"matchLabels": {PROBE_LABEL: revision(self._settings)}},
            "rules": [_PODS],
            "sideEffects": "None",
            "reinvocationPolicy": "Never",
        }

    def policies(self) -> dict[str, Json]:
        """Policies that do not compile are refused; while nobody answers they come in, and are Unknown wherever they would be in force."""
        rule = {"apiGroups": ["mlwarden.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["wardenpolicies"]}
        changed = {"says-something-else": "oldObject == null || object.?spec != oldObject.?spec"}
        return {
            **self._webhook("policies.mlwarden.io", POLICY, {}, policy="Ignore", conditions=changed),
            "rules": [{**rule, "scope": "Cluster"}],
            "sideEffects": "None",
        }

    def ephemeral(self, path: str) -> dict[str, Json]:
        """Ephemeral containers where pods are held: pinned, then judged as they will be."""
        return self._of_pods("ephemeral.mlwarden.io", path, holding(self._settings), policy=self._closed, rule=_EPHEMERAL)

    def ephemeral_lenient(self, path: str) -> dict[str, Json] | None:
        """Ephemeral containers elsewhere. `kubectl debug` works during an outage."""
        selector = lenient(self._settings)
        if selector is None:
            return None
        return self._of_pods("ephemeral-lenient.mlwarden.io", path, selector, policy="Ignore", rule=_EPHEMERAL)

    def node(self) -> dict[str, Json]:
        """Pods that name their node: the guard of the gate lets them through because this one does not."""
        conditions = {"names-node": NAMES_NODE, "no-mirror-pod": f"!{IS_MIRROR}"}
        return self._of_pods("node.mlwarden.io", VALIDATE, holding(self._settings), policy=self._closed, rule=_PODS, conditions=conditions)

    def _of_pods(
        self,
        name: str,
        path: str,
        selector: dict[str, Json],
        *,
        policy: str,
        rule: dict[str, Json],
        conditions: dict[str, str] | None = None,
    ) -> dict[str, Json]:
        webhook = {**self._webhook(name, path, selector, policy=policy, conditions=conditions or {}), "rules": [rule]}
        return {**webhook, "reinvocationPolicy": "Never"} if path == MUTATE else webhook

    def _webhook(self, name: str, path: str, selector: dict[str, Json], *, policy: str, conditions: dict[str, str]) -> dict[str, Json]:
        webhook: dict[str, Json] = {
            "name": name,
            "clientConfig": {**self._address(path), "caBundle": self._bundle},
            "namespaceSelector": selector,
            "objectSelector": {},
            "matchPolicy": "Equivalent",
            "failurePolicy": policy,
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": self._settings.webhook_timeout,
            "admissionReviewVersions": ["v1"],
        }
        if conditions:
            webhook["matchConditions"] = [{"name": key, "expression": value} for key, value in conditions.items()]
        return webhook

    def _address(self, path: str) -> dict[str, Json]:
        if self._settings.webhook_url:
            return {"url": self._settings.webhook_url.rstrip("/") + path}
        return {"service": {"name": self._settings.webhook, "namespace": self._settings.namespace, "path": path, "port": 443}}


def _configuration(kind: str, webhooks: list[dict[str, Json]] | list[dict[str, Json] | None]) -> dict[str, Json]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": WEBHOOKS, "labels": dict(MANAGED_BY)},
        "webhooks": [webhook for webhook in webhooks if webhook is not None],
    }
