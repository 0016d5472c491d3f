"""Which images which policies demand signatures of, and the keys that they keep in Secrets, on the real API server."""

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mlwarden.evidence.history import merged
from mlwarden.model.signing import MAX_PROOFS, Authority, Certificate, Demand, Identity, Keyless, Proof, Proven, SecretKey
from mlwarden.scanner import keys
from mlwarden.scanner.demands import Demands
from mlwarden.scanner.keys import GONE, Keys, material

if TYPE_CHECKING:
    from mlwarden.cluster import Client
    from mlwarden.embedded.cluster import EmbeddedCluster

DIGEST = "sha256:" + "a" * 64
PEM = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
DEMAND = Demand(authority=Authority(name="team", key_secret=SecretKey(name="team-key")))


def policy(*, images: str = "**", key: str = "PEM") -> dict[str, Any]:
    return {
        "apiVersion": "mlwarden.io/v1alpha1",
        "kind": "WardenPolicy",
        "metadata": {"name": "signed"},
        "spec": {
            "profiles": {"production": "Deny"},
            "requirement": {"imageSignature": {"images": [images], "authorities": [{"name": "team", "key": key}]}},
            "message": "unsigned",
            "why": "w",
            "fix": {"text": "f"},
        },
    }


def test_a_policy_demands_of_the_images_it_is_about_until_it_is_gone() -> None:
    demands = Demands()
    assert demands.changed("signed", policy(images="a.example/**"))
    assert not demands.changed("signed", policy(images="a.example/**"))
    assert demands.about([f"a.example/x@{DIGEST}"])
    assert not demands.about([f"b.example/x@{DIGEST}"])
    assert demands.about([f"b.example/x@{DIGEST}", f"a.example/x@{DIGEST}"])
    assert demands.changed("signed", policy(images="b.example/**"))
    assert demands.about([f"b.example/x@{DIGEST}"])
    assert demands.changed("signed", None)
    assert demands.every == {}


def test_a_policy_that_does_not_compile_demands_nothing() -> None:
    demands = Demands()
    assert not demands.changed("signed", {"spec": "nonsense"})
    assert demands.every == {}


def test_no_more_is_demanded_than_there_is_room_for_and_always_the_same() -> None:
    """What does not fit would be missing from every answer, and be asked again at once, for ever."""
    demands = Demands()
    for number in range(MAX_PROOFS + 6):
        demands.changed(f"signed-{number}", policy(key=f"PEM {number}"))
    assert len(demands.every) == MAX_PROOFS + 6
    about = demands.about([f"a.example/x@{DIGEST}"])
    assert len(about) == MAX_PROOFS
    demands.changed("signed-0", None)
    demands.changed("signed-0", policy(key="PEM 0"))
    assert demands.about([f"b.example/x@{DIGEST}"]) == about


async def test_a_key_is_read_from_its_secret_and_noticed_when_it_is_exchanged(
    client: "Client", cluster: "EmbeddedCluster", namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_FRESH_SECONDS", 0.0)
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    reader = Keys(client, namespace)
    _, failed = await reader.filled({"one": DEMAND})
    assert str(failed["one"]) == "the key in Secret team-key cannot be read (404)"
    assert await reader.materials({"one": DEMAND}) == {"one": GONE}

    cluster.api().create(secrets, {"metadata": {"name": "team-key"}, "data": {"cosign.pub": base64.b64encode(PEM.encode()).decode()}})
    found, failed = await reader.filled({"one": DEMAND})
    assert failed == {}
    assert found["one"].authority.key == PEM
    assert found["one"].authority.key_secret is None
    before = await reader.materials({"one": DEMAND})
    assert before == {"one": material(found["one"])}

    other = base64.b64encode(PEM.replace("MFkw", "MFkx").encode()).decode()
    cluster.api().patch(f"{secrets}/team-key", {"data": {"cosign.pub": other}})
    assert await reader.materials({"one": DEMAND}) != before

    cluster.api().patch(f"{secrets}/team-key", {"data": {"cosign.pub": base64.b64encode(b"a private key").decode()}})
    _, failed = await reader.filled({"one": DEMAND})
    assert str(failed["one"]) == "Secret team-key has no public key under cosign.pub"
    assert await reader.materials({"one": DEMAND}) == {"one": GONE}


def test_a_trust_root_that_is_exchanged_is_another_one_to_what_was_proven_by_it() -> None:
    identities = (Identity(issuer="https://a", subject="x"),)
    by = {
        "keyless": Authority(name="a", keyless=Keyless(identities=identities), trust_root="own"),
        "certificate": Authority(name="a", certificate=Certificate(chain="PEM", identities=identities), trust_root="own"),
        "log": Authority(name="a", key=PEM, log=True, trust_root="own"),
        "key": Authority(name="a", key=PEM),
        "public": Authority(name="a", keyless=Keyless(identities=identities)),
    }
    old, new = ({name: material(Demand(authority=each), {"own": root}) for name, each in by.items()} for root in ("1" * 64, "2" * 64))
    assert {name for name in by if old[name] != new[name]} == {"keyless", "certificate", "log"}
    assert all(len(each) == 16 for name, each in new.items() if name != "public")


@pytest.mark.parametrize(("material", "outcome"), [("old", Proven.VERIFIED), ("new", Proven.UNKNOWN), (GONE, Proven.UNKNOWN)])
def test_what_an_exchanged_key_had_proven_is_not_kept_by_a_registry_that_does_not_answer(material: str, outcome: Proven) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    before = Proof(demand="one", outcome=Proven.VERIFIED, material="old", at=now - timedelta(hours=1))
    made = Proof(demand="one", outcome=Proven.UNKNOWN, reason="the registry answers 503", material=material, at=now)
    assert merged(before, made, now, complete=False).outcome is outcome
