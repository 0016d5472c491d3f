"""Guards for what the gate hangs on: a namespace's profile, mlwarden's identity, its memory and its webhook configurations.

Admission policies themselves are exempt from admission: no object here can guard them, only RBAC can.
Impersonation is invisible to admission; `scope.is_account` says what still stands in its way.

Rejected: one guard over everything in mlwarden's namespace. Evictions, injected ConfigMaps and other controllers' work pass through there
too, and a fail-closed rule that breaks `kubectl drain` is worse than the hole it closes.
"""

from mlwarden.controllers.certificates import CA_SECRET, TLS_SECRET
from mlwarden.controllers.scope import ACCEPTED, NAME_LABEL, may, validating
from mlwarden.model.policy import PROFILE_LABEL, Settings
from mlwarden.model.workload import Json
from mlwarden.policy.account import cel, is_account, username

WEBHOOKS = "mlwarden"
"""Name of the mutating and of the validating webhook configuration."""

_POD = "'authentication.kubernetes.io/pod-name'"
_STATUS = "request.?subResource.orValue('') == 'status'"
_ANSWER = ("phase", "digest", "scan", "proofs")
"""Of evidence's status, what judges go by; of a tag the time, too (`scanner.provenance.answer`)."""
_CORE: dict[str, Json] = {"apiGroups": [""], "apiVersions": ["*"]}
_KUBERNETES = (
    "(request.userInfo.username.startsWith('system:serviceaccount:kube-system:')"
    " || request.userInfo.username in ['system:kube-controller-manager', 'system:kube-scheduler', 'system:apiserver']"
    " || (has(request.userInfo.groups) && 'system:nodes' in request.userInfo.groups))"
)


def guard_objects(settings: Settings) -> list[dict[str, Json]]:
    """Returns the guards of namespaces, identity, evidence and webhook configurations, each with its binding."""
    return [*_namespaces(settings), *_identity(settings), *_evidence(settings), *_webhooks(settings)]


def _namespaces(settings: Settings) -> list[dict[str, Json]]:
    """Who may say how a namespace is judged. `namespaces/status` and `namespaces/finalize` write labels too.

    Free for everybody who may write the namespace: to set the default, and to go from a default that does not hold to a profile that does.
    Everything else can make the judgement weaker and needs the verb; so does creating a namespace of an exempt name.
    """
    none = "(none)"  # no valid label value: absent and empty are two things
    now, before = (f"{of}.metadata.?labels[?'{PROFILE_LABEL}'].orValue('{none}')" for of in ("object", "oldObject"))
    exempt = f"oldObject == null && object.metadata.?name.orValue('') in {cel(settings.never_governed)}"
    stricter = sorted(name for name, holds in settings.profiles.items() if holds)
    free = [settings.default_profile] if settings.holds(settings.default_profile) else [settings.default_profile, *stricter]
    always = "true || " if settings.require_profile else ""
    return validating(
        "mlwarden-namespaces",
        constraints={
            "resourceRules": [
                {**_CORE, "operations": ["CREATE", "UPDATE"], "resources": ["namespaces"]},
                {**_CORE, "operations": ["UPDATE"], "resources": ["namespaces/status", "namespaces/finalize"]},
            ],
        },
        conditions={
            "profile-changes": f"oldObject == null ? ({always}{now} != '{none}' || ({exempt})) : {now} != {before}",
        },
        variables={"now": now, "before": f"oldObject == null ? '{none}' : {before}", "exempt": exempt},
        validations=[
            {
                "expression": f"variables.now == '{none}' || variables.now in {cel(sorted(settings.profiles))}",
                "message": f"{PROFILE_LABEL} is one of {', '.join(sorted(settings.profiles))}",
            },
            *(_born_with_a_profile(none) if settings.require_profile else ()),
            {
                "expression": (
                    f"(variables.before == '{none}' && variables.now in {cel([none, *free])} && !variables.exempt)"
                    f" || {may('change', 'profiles', name='object.metadata.name')}"
                ),
                "message": f"changing {PROFILE_LABEL} to what may be weaker needs the verb change on profiles.mlwarden.io",
            },
        ],
        actions=("Warn", "Audit") if settings.rollout == "audit" else ("Deny", "Audit"),
    )


def _born_with_a_profile(none: str) -> list[dict[str, str]]:
    """Deleted and made anew without its label, a namespace would be one that does not hold."""
    return [
        {
            "expression": f"oldObject != null || variables.now != '{none}' || {may('change', 'profiles', name='object.metadata.name')}",
            "message": f"a new namespace carries {PROFILE_LABEL}",
        }
    ]


def _identity(settings: Settings) -> list[dict[str, Json]]:
    """The identity that mlwarden's rights hang on, and what it runs from.

    Tokens only from a kubelet, no token Secrets; workloads, settings, certificates, leases, the webhook's endpoints and what Helm remembers
    are written by Kubernetes' own controllers, by mlwarden (only what it must), or by somebody with the verb `change` on
    `profiles.mlwarden.io` there. What an administrator put there (`own_secrets`) is not for others either.
    """
    changes = {"apiVersions": ["*"], "operations": ["CREATE", "UPDATE"]}
    writes = {"apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"]}
    named = (
        "request.resource.resource in ['secrets', 'configmaps', 'services', 'leases', 'serviceaccounts', 'networkpolicies',"
        " 'poddisruptionbudgets']"
    )
    name = "(object == null ? oldObject : object).metadata.?name.orValue('')"
    # What Helm remembers of a release is what it makes of it the next time: `helm rollback` would create what somebody wrote there.
    helms = (
        f"{name}.startsWith('sh.helm.release.') || [object, oldObject].exists(o, o != null && o.?type.orValue('') == 'helm.sh/release.v1')"
        " || [object, oldObject].exists(o, o != null && o.metadata.?labels[?'owner'].orValue('') == 'helm')"
    )
    ours = f"{name}.startsWith('mlwarden') || {name} in {cel(settings.own_secrets)} || {helms}"
    return validating(
        "mlwarden-identity",
        constraints={
            "resourceRules": [
                {**_CORE, "operations": ["CREATE"], "resources": ["serviceaccounts/token"]},
                {**changes, "apiGroups": [""], "resources": ["pods", "replicationcontrollers", "endpoints"]},
                {**writes, "apiGroups": [""], "resources": ["secrets", "configmaps", "services", "serviceaccounts"]},
                {**writes, "apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"]},
                {**writes, "apiGroups": ["policy"], "resources": ["poddisruptionbudgets"]},
                {**_CORE, "operations": ["CREATE", "UPDATE"], "resources": ["pods/ephemeralcontainers"]},
                {**_CORE, "operations": ["CONNECT"], "resources": ["pods/exec", "pods/attach"]},
                {**writes, "apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"]},
                {**changes, "apiGroups": ["apps"], "resources": ["replicasets", "statefulsets", "daemonsets"]},
                {**changes, "apiGroups": ["batch"], "resources": ["jobs", "cronjobs"]},
                {**changes, "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]},
                {**changes, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"]},
            ],
            "namespaceSelector": {"matchLabels": {NAME_LABEL: settings.namespace}},
        },
        variables={
            "token": "request.?subResource.orValue('') == 'token'",
            # Of these kinds only what bears our name matters; other software keeps its own beside us.
            "foreign": f"({named}) && !({ours}) && !variables.token",
            "kubernetes": _KUBERNETES,
            "own": _own(settings),
            "installer": may("change", "profiles", name=cel(settings.namespace)),
        },
        validations=[
            {
                "expression": "!variables.token || (has(request.userInfo.groups) && 'system:nodes' in request.userInfo.groups)",
                "message": "tokens of mlwarden's service accounts come from the kubelet only",
            },
            {
                "expression": (
                    "request.resource.resource != 'secrets' || object == null"
                    " || object.?type.orValue('') != 'kubernetes.io/service-account-token'"
                ),
                "message": "no service account token Secrets in mlwarden's namespace",
            },
            {
                "expression": "variables.token || variables.foreign || variables.kubernetes || variables.own || variables.installer",
                "message": f"what runs in {settings.namespace} is for those with the verb change on profiles.mlwarden.io",
            },
        ],
    )


def _own(settings: Settings) -> str:
    """CEL: one of mlwarden's accounts writes what it must: its Lease, its certificates, what was accepted, a pod that is never stored."""
    controller, releaser = is_account(settings, settings.controller), is_account(settings, settings.releaser)
    leads = f"({controller} || {is_account(settings, settings.uninstaller)})"
    kind = "request.resource.resource"
    return (
        f"{kind} == 'leases' && (request.name == 'mlwarden-controller' && {leads} || request.name == 'mlwarden-releaser' && {releaser})"
        f" || {controller} && ({kind} == 'secrets' && request.name in {cel([CA_SECRET, TLS_SECRET, ACCEPTED])}"
        f" || {kind} == 'pods' && request.?subResource.orValue('') == '' && request.?dryRun.orValue(false))"
    )


def _evidence(settings: Settings) -> list[dict[str, Json]]:
    """Evidence is what mlwarden knows: nobody else writes it, a cluster administrator included. To delete some only makes it ask again.

    Whoever writes an answer, or a second look at one, or claims it, does so under the name of the pod that its token was made for: a stolen
    token cannot speak in another pod's name, and the pod that it belongs to knows what it wrote (`scanner.provenance`).
    """
    group: dict[str, Json] = {"apiGroups": ["mlwarden.io"], "apiVersions": ["*"]}
    makes_room = validating(
        "mlwarden-evidence-room",
        constraints={"resourceRules": [{**group, "operations": ["DELETE"], "resources": ["imageevidences"]}]},
        conditions={"releaser": f"request.userInfo.username == {cel(username(settings, settings.releaser))}"},
        validations=[
            {
                "expression": "oldObject.?status.?phase.orValue('') != 'Ready'",
                "message": "whoever releases pods takes away requests without an answer, and nothing that is known",
            }
        ],
    )
    return makes_room + validating(
        "mlwarden-evidence",
        constraints={
            "resourceRules": [{**group, "operations": ["CREATE", "UPDATE"], "resources": ["imageevidences", "imageevidences/status"]}]
        },
        conditions={
            # Finalizers, owners, managed fields: the storage migrator and the garbage collector write those.
            "says-something": ("oldObject == null || object.?spec != oldObject.?spec || object.?status != oldObject.?status"),
        },
        variables={
            "pod": f"has(request.userInfo.extra) && {_POD} in request.userInfo.extra ? request.userInfo.extra[{_POD}][0] : ''",
            "by": "object.?status.?answeredBy.orValue('')",
            "answers": " || ".join(f"{_said('object', each)} != {_said('oldObject', each)}" for each in (*_ANSWER, "answeredBy"))
            + f" || object.metadata.name.startsWith('tag-') && {_said('object', 'at')} != {_said('oldObject', 'at')}",
        },
        validations=[
            {
                "expression": (
                    f"{_STATUS}"
                    f" ? {is_account(settings, settings.scanner)}"
                    f" : {is_account(settings, settings.webhook, settings.controller, settings.releaser, settings.scanner)}"
                ),
                "message": "only mlwarden writes evidence; delete it to have it gathered again",
            },
            {
                "expression": f"!({_STATUS}) || !variables.answers || (variables.pod != '' && variables.by == variables.pod)",
                "message": "an answer carries the name of the pod that writes it, in status.answeredBy",
            },
            {
                "expression": f"!({_STATUS}) || {_signed('secondLook', '.by')}",
                "message": "a second look carries the name of the pod that writes it, in status.secondLook.by",
            },
            {
                "expression": f"!({_STATUS}) || {_signed('claimedBy')}",
                "message": "a claim carries the name of the pod that writes it, in status.claimedBy",
            },
        ],
    )


def _said(of: str, field: str) -> str:
    """CEL for a field of the status; who claims what is new writes `Pending` where nothing stood, which is no answer."""
    return f"{of}.?status.?phase.orValue('Pending')" if field == "phase" else f"{of}.?status.?{field}"


def _signed(field: str, name: str = "") -> str:
    """CEL that is true where a field of the status has not changed, is gone, or carries the name of the pod that writes it."""
    return (
        f"object.?status.?{field} == oldObject.?status.?{field} || !object.?status.?{field}.hasValue()"
        f" || object.status.{field}{name} == variables.pod"
    )


def _webhooks(settings: Settings) -> list[dict[str, Json]]:
    """What cannot be held is judged by fail-closed webhooks: whoever may edit webhook configurations is not thereby let out of them."""
    return validating(
        "mlwarden-webhooks",
        constraints={
            "resourceRules": [
                {
                    "apiGroups": ["admissionregistration.k8s.io"],
                    "apiVersions": ["*"],
                    "operations": ["CREATE", "UPDATE", "DELETE"],
                    "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
                }
            ],
        },
        # Not by `resourceNames`: a request that deletes a whole collection has no name, and each of its objects comes by here.
        conditions={"ours": f"(oldObject == null ? object : oldObject).metadata.?name.orValue('') == '{WEBHOOKS}'"},
        validations=[
            {
                "expression": (
                    f"{is_account(settings, settings.controller, settings.uninstaller)} || {_KUBERNETES} || {may('change', 'profiles')}"
                ),
                "message": "mlwarden's webhook configurations are for those with the verb change on profiles.mlwarden.io",
            },
        ],
    )
