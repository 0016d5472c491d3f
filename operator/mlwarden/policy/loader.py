"""From manifests to `Policy`: what the API server would refuse is refused here, with the path of the field.

`load` takes texts, not paths: reading files is the business of whoever knows where they are. The one exception are the packs that are part
of the package itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import msgspec

from mlwarden.errors import InputError, PolicyError
from mlwarden.model import glob
from mlwarden.model.documents import numbered, yaml_loads
from mlwarden.model.policy import Policy, PolicySpec
from mlwarden.model.workload import Json
from mlwarden.policy import trusted as trusted_registries
from mlwarden.policy.crd import API_VERSION, KIND, NAME

_NO_EXCEPTIONS = "there are no exceptions yet: nobody could grant one, and the API server would not enforce the policy"
_PODS = "Pod Security Standards"


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class _Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Metadata and status are the API server's business; only the spec is strict."""

    api_version: str
    kind: str
    metadata: _Metadata
    spec: PolicySpec


def parse(manifest: Json, *, pack: str = "") -> Policy:
    """Returns the policy of a decoded `WardenPolicy` object.

    Raises:
        PolicyError: where the API server would refuse it, with the path of the field.
    """
    if not isinstance(manifest, Mapping) or manifest.get("apiVersion") != API_VERSION or manifest.get("kind") != KIND:
        raise PolicyError(f"not a {KIND} of {API_VERSION}")
    try:
        found = msgspec.convert(_without_nulls(manifest), _Manifest)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{_name(manifest)}: {_readable(error)}") from None
    except RecursionError:
        raise PolicyError(f"{_name(manifest)}: nested too deeply") from None
    if not re.fullmatch(NAME, found.metadata.name):
        raise PolicyError(f"{_name(manifest)}: metadata.name is a DNS label of at most 63 characters (a-z, 0-9 and -)")
    return Policy(name=found.metadata.name, spec=found.spec, pack=pack)


def accepted(policy: Policy) -> Policy:
    """Returns the policy, if it may be written. What an earlier version stored is read by `parse` alone, and stays in force.

    Raises:
        PolicyError: for exceptions, which nobody can grant yet, and for a glob that matches no image.
    """
    requirement = policy.spec.requirement
    if policy.spec.exceptions:
        raise PolicyError(f"policy {policy.name}: spec.exceptions: {_NO_EXCEPTIONS}", hint="leave the field out")
    for name in ("image_signature", "image_attestation"):
        asked = getattr(requirement, name)
        for problem in filter(None, map(glob.useless, asked.images if asked else ())):
            raise PolicyError(f"policy {policy.name}: images: {problem}")
    return policy


def load(texts: Iterable[tuple[str, str]]) -> tuple[Policy, ...]:
    """Returns the policies of texts of YAML, sorted by name; the pack is the folder a file is in.

    Args:
        texts: file name (`production/run-as-non-root.yaml`) and content.

    Raises:
        InputError: for a file that cannot be read as YAML.
        PolicyError: for a policy that the API server would refuse, and for two of one name.
    """
    found: dict[str, Policy] = {}
    for file, text in texts:
        try:
            documents = yaml_loads(text)
        except InputError as error:
            raise InputError(f"{file}: {error.message}", hint=error.hint) from None
        for which, document in numbered(_listed(documents)):
            where = f"{file} ({which})" if which else file
            try:
                policy = accepted(parse(document, pack=file.rpartition("/")[0].rpartition("/")[2]))
            except PolicyError as error:
                raise PolicyError(f"{where}: {error.message}", hint=error.hint) from None
            if policy.name in found:
                raise PolicyError(
                    f"{where}: there is another policy called {policy.name}", hint="names are unique in a cluster: rename one"
                )
            found[policy.name] = policy
    return tuple(found[name] for name in sorted(found))


@cache
def shipped(trusted: tuple[str, ...] = ()) -> tuple[Policy, ...]:
    """Returns the policies that come with mlwarden, sorted by name.

    Args:
        trusted: registries that are trusted, as in `trustedRegistries` of the chart.

    Raises:
        InputError: an entry of `trusted` is none.
    """
    return tuple(trusted_registries.decided(each, trusted) for each in _as_written())


def _listed(documents: Iterable[Json]) -> list[Json]:
    """The documents, and in the place of a List what `kubectl get -o yaml` puts into it."""
    found: list[Json] = []
    for document in documents:
        is_list = isinstance(document, Mapping) and document.get("kind") == "List" and isinstance(document.get("items"), list)
        found += document["items"] if is_list else [document]
    return found


def total(policy: Policy) -> bool:
    """Whether its expression has a value for every pod that is not too large, which the tests show of the shipped ones only."""
    requirement = policy.spec.requirement
    written = any(each.spec.requirement == requirement for each in _as_written())
    return not policy.spec.match.conditions and (written or trusted_registries.is_shape(requirement, _as_written()))


@cache
def _as_written() -> tuple[Policy, ...]:
    packs = files("mlwarden") / "packs"
    return load(
        (f"{pack.name}/{file.name}", file.read_text(encoding="utf-8"))
        for pack in _sorted(packs)
        if pack.is_dir()
        for file in _sorted(pack)
        if file.name.endswith(".yaml")
    )


def pod_security(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """Returns those that are controls of the Pod Security Standards; of the shipped ones, together "restricted"."""
    return tuple(policy for policy in policies if any(text.startswith(_PODS) for text in policy.spec.references))


def _sorted(folder: Traversable) -> Iterator[Traversable]:
    return iter(sorted(folder.iterdir(), key=lambda entry: entry.name))


def _name(manifest: Mapping[str, Any]) -> str:
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f"policy {name[:80]}" if isinstance(name, str) and name else "policy without a name"


def _readable(error: msgspec.ValidationError) -> str:
    """`Expected `int`, got `str` - at `$.spec.x`` → `spec.x: expected int, got str`."""
    text, _, path = str(error).partition(" - at `")
    text = text.replace("`", "")
    path = path.rstrip("`").removeprefix("key in ").removeprefix("$").lstrip(".")
    if text.startswith(("Expected ", "Object ", "Invalid ")):  # msgspec's own words; ours begin with names of fields
        text = text[:1].lower() + text[1:]
    return f"{path}: {text}" if path else text


def _without_nulls(value: Json) -> Json:
    """The API server prunes nulls of fields that are not nullable; a patch (`fix.patch`) keeps its own."""
    if not isinstance(value, Mapping):
        return [_without_nulls(item) for item in value] if isinstance(value, list) else value
    return {key: item if key == "patch" else _without_nulls(item) for key, item in value.items() if item is not None}
