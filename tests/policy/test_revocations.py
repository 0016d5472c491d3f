"""The API server takes a revocation that says what it is about, and refuses the rest exactly where the reader does."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from mlwarden import policy
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.processes import wait_until
from mlwarden.errors import PolicyError

DIGEST = "sha256:" + "a" * 64
GOOD: dict[str, Any] = {
    "apiVersion": "mlwarden.io/v1alpha1",
    "kind": "RevokedArtifact",
    "metadata": {"name": "sample"},
    "spec": {"digest": DIGEST, "reason": "a miner was found in it", "reference": "SEC-17"},
}
SIGNER = {"issuer": "https://issuer.example", "subject": "ci@example.com"}
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/revokedartifacts.mlwarden.io"
URL = "/apis/mlwarden.io/v1alpha1/revokedartifacts"


def revocation(**spec: Any) -> dict[str, Any]:
    return {**GOOD, "spec": {"reason": "r", **spec}}


WELL = [GOOD, revocation(key=DIGEST), revocation(signer=SIGNER), revocation(digest=DIGEST, running="Evict")]
ILL = [
    revocation(),
    revocation(digest=DIGEST, key=DIGEST),
    revocation(digest=DIGEST, signer=SIGNER),
    revocation(digest="sha256:" + "A" * 64),
    revocation(digest="sha256:short"),
    revocation(digest=DIGEST + "0"),
    revocation(key="a" * 64),
    revocation(signer={"issuer": "https://issuer.example"}),
    revocation(digest=DIGEST, running="Delete"),
    {**GOOD, "spec": {"digest": DIGEST}},
]


@pytest.mark.parametrize("obj", WELL)
def test_what_is_whole_is_read(obj: dict[str, Any]) -> None:
    assert policy.read_revocation(obj).name == "sample"


@pytest.mark.parametrize("obj", [*ILL, {}, {"metadata": {"name": "x"}, "spec": 7}])
def test_what_is_not_is_refused_by_the_reader(obj: dict[str, Any]) -> None:
    with pytest.raises(PolicyError):
        policy.read_revocation(obj)


def test_what_a_newer_version_adds_does_not_keep_it_from_revoking() -> None:
    assert policy.read_revocation(revocation(digest=DIGEST, later="x")).spec.digest == DIGEST


def test_a_list_keeps_what_cannot_be_read_by_name() -> None:
    found = policy.revoked([GOOD, {**ILL[0], "metadata": {"name": "torn"}}])
    assert (list(found.digests), list(found.unreadable)) == ([DIGEST], ["torn"])


@pytest.fixture(scope="module")
def api(cluster: Any) -> Iterator[Any]:
    found = cluster.api()

    def answers() -> bool:
        try:
            found.get(URL)
        except ApiError:
            return False
        return True

    existed = answers()
    found.apply(DEFINITION, policy.revocation_crd())
    assert wait_until(answers, seconds=30)
    yield found
    if not existed:
        found.delete(DEFINITION)
        assert wait_until(lambda: not answers(), seconds=30)


@pytest.mark.cluster
@pytest.mark.parametrize("obj", WELL)
def test_and_by_the_api_server(api: Any, obj: dict[str, Any]) -> None:
    assert api.create(URL, copy.deepcopy(obj), dryRun="All")["spec"] == obj["spec"]


@pytest.mark.cluster
@pytest.mark.parametrize("obj", [*ILL, revocation(digest=DIGEST, reason="two\nlines"), revocation(digest=DIGEST, reason="")])
def test_the_api_server_refuses_what_the_reader_does(api: Any, obj: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        api.create(URL, copy.deepcopy(obj), dryRun="All")
    assert refused.value.code == 422
