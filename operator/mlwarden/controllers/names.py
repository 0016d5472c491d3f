"""Under which names the controller keeps what it generates.

RBAC knows names and no prefixes, and admission policies are exempt from admission: what the controller's account may write can be said by
names only. So every name is known beforehand, and the chart grants these and no others (`names.yaml`). Gate, guards and policies that come
with mlwarden have their own; a policy of the cluster's own is put into one of the numbered places, and an annotation says whose it is.

Rejected: the right to change every admission policy (who takes over the controller could then take away any guard of anybody), and a list
of the cluster's own policies in the chart's values (a policy that is applied would not be in force until the next upgrade).
"""

import itertools
import logging
from collections.abc import Iterable, Mapping

from mlwarden import policy
from mlwarden.controllers import generated
from mlwarden.controllers.acceptance import NEXT
from mlwarden.model.finding import Action
from mlwarden.model.policy import Settings
from mlwarden.model.workload import Json
from mlwarden.policy.bindings import PREFIX

LOG = logging.getLogger(__name__)
PLACES = tuple(f"mlwarden-own-{number:02}" for number in range(100))
"""For what is compiled of the cluster's own policies."""
POLICY_OF = "mlwarden.io/policy"
"""Annotation on such a ValidatingAdmissionPolicy: the name of its `WardenPolicy`."""
RETIRED: tuple[str, ...] = ()
"""Policies that earlier versions came with; they go when the administrator accepts a version without them."""
_SUFFIXES = tuple(f".{action.value.lower()}{default}" for action in Action for default in ("", ".default"))


def shipped() -> tuple[str, ...]:
    """Returns the name of every `WardenPolicy` that the controller may write."""
    return tuple(sorted(f"{name}{more}" for name in (*(each.name for each in policy.shipped()), *RETIRED) for more in ("", NEXT)))


def known() -> dict[str, tuple[str, ...]]:
    """Returns plural resource → the names under which any settings and any policies make objects of it."""
    found: dict[str, set[str]] = {kind.plural: set() for kind in generated.KINDS.values()}
    for rollout, enforced in itertools.product(("enforce", "audit"), (True, False)):
        settings = Settings(rollout=rollout)
        for obj in (*generated.before_gate(settings, b"", enforced=enforced), *generated.after_gate(settings, (), enforced=enforced)):
            found[generated.KINDS[obj["kind"]].plural].add(obj["metadata"]["name"])
    policies = (*(PREFIX + name for name in shipped()), *PLACES)
    found["validatingadmissionpolicies"].update(policies)
    found["validatingadmissionpolicybindings"].update(f"{name}{suffix}" for name in policies for suffix in _SUFFIXES)
    found["wardenpolicies"].update(shipped())
    return {plural: tuple(sorted(names)) for plural, names in found.items()}


def placed(objects: Iterable[Mapping[str, Json]], stored: Iterable[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Returns the objects under names that the controller may write; what finds no place is left out, and said in the log.

    Args:
        objects: ValidatingAdmissionPolicies of guards and policies, and their bindings.
        stored: ValidatingAdmissionPolicies as they are: who has a place keeps it, and an empty one is taken before one that was left.
    """
    every, own = list(objects), frozenset(known()["validatingadmissionpolicies"])
    wanted = [obj["metadata"]["name"] for obj in every if obj["kind"] == "ValidatingAdmissionPolicy" and obj["metadata"]["name"] not in own]
    before = {obj["metadata"]["name"]: whose(obj) for obj in stored if obj["metadata"]["name"] in PLACES}
    places = {PREFIX + name: place for place, name in before.items() if PREFIX + name in wanted}
    free = sorted((place for place in PLACES if place not in places.values()), key=lambda place: (place in before, place))
    new = [name for name in wanted if name not in places]
    places |= dict(zip(new, free, strict=False))
    for name in new[len(free) :]:
        LOG.error("policy %s finds no place: webhook and release go by it, the API server does not", name.removeprefix(PREFIX))
    return [renamed for obj in every if (renamed := _renamed(obj, own, places)) is not None]


def left(objects: Iterable[Mapping[str, Json]], found: Iterable[Mapping[str, Json]]) -> frozenset[str]:
    """Returns the names of the cluster's own policies that found no place: those of `objects` that `placed` left out."""
    own = frozenset(known()["validatingadmissionpolicies"])
    names = {obj["metadata"]["name"] for obj in objects if obj["kind"] == "ValidatingAdmissionPolicy"} - own
    return frozenset(name.removeprefix(PREFIX) for name in names) - {whose(obj) for obj in found}


def whose(obj: Mapping[str, Json]) -> str:
    """Returns the name of the `WardenPolicy` that a stored ValidatingAdmissionPolicy in a place was made of."""
    return str((obj["metadata"].get("annotations") or {}).get(POLICY_OF, ""))


def _renamed(obj: Mapping[str, Json], own: frozenset[str], places: Mapping[str, str]) -> Mapping[str, Json] | None:
    metadata, spec = obj["metadata"], obj["spec"]
    if obj["kind"] == "ValidatingAdmissionPolicy":
        name = metadata["name"]
        if name in own:
            return obj
        about = {**metadata, "name": places.get(name, ""), "annotations": {POLICY_OF: name.removeprefix(PREFIX)}}
        return {**obj, "metadata": about} if name in places else None
    name = spec.get("policyName", "")
    if obj["kind"] != "ValidatingAdmissionPolicyBinding" or name in own:
        return obj
    if name not in places:
        return None
    place = places[name]
    return {**obj, "metadata": {**metadata, "name": place + metadata["name"].removeprefix(name)}, "spec": {**spec, "policyName": place}}
