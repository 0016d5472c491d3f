"""A running pod is what its kubelet says it is."""

from typing import Any

import pytest

from mlwarden.controllers.imageids import as_running, digests

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def pod(image: str, reported: str = "", **changes: Any) -> dict[str, Any]:
    status = {"containerStatuses": [{"name": "main", "imageID": reported}]}
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": image}], **changes}, "status": status}


def runs(body: dict[str, Any], revoked: Any = ()) -> str:
    return str(as_running(body, revoked)["spec"]["containers"][0]["image"])


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (f"registry.example/app@{A}", f"registry.example/app@{A}"),
        (f"docker-pullable://registry.example/app@{A}", f"registry.example/app@{A}"),
        (f"mirror.example/other@{A}", f"registry.example/app@{A}"),  # the same bytes, by the name that policies know
        (A, "registry.example/app:1"),  # a configuration, not a manifest
        ("", "registry.example/app:1"),
        (f"registry.example/app@{A}0", "registry.example/app:1"),
    ],
)
def test_what_was_pulled_is_judged_and_not_the_tag(reported: str, expected: str) -> None:
    assert runs(pod("registry.example/app:1", reported)) == expected


def test_a_digest_in_the_spec_stays_unless_the_manifest_itself_is_revoked() -> None:
    body = pod(f"registry.example/app@{A}", f"registry.example/app@{B}")
    assert runs(body) == f"registry.example/app@{A}"
    assert runs(body, {B}) == f"registry.example/app@{B}"
    assert digests(body) == (A, B)


def test_wherever_the_image_hides() -> None:
    names = {"initContainers": A, "ephemeralContainers": B}
    body = pod("app:1", f"app@{C}", **{field: [{"name": field, "image": "app:1"}] for field in names})
    body["spec"]["volumes"] = [{"name": "weights", "image": {"reference": "weights:1"}}, {"name": "scratch", "emptyDir": {}}]
    body["status"] |= {f"{field[:-1]}Statuses": [{"name": field, "imageID": f"app@{digest}"}] for field, digest in names.items()}
    mounted = {"name": "weights", "mountPath": "/w", "volumeStatus": {"image": {"imageRef": f"weights@{A}"}}}
    body["status"]["containerStatuses"][0]["volumeMounts"] = [mounted, {"name": "scratch", "mountPath": "/s"}]
    spec = as_running(body)["spec"]
    images = [spec[field][0]["image"] for field in ("containers", *names)] + [spec["volumes"][0]["image"]["reference"]]
    assert [image.rpartition("@")[2] for image in images] == [C, A, B, A]
    assert spec["volumes"][1] == {"name": "scratch", "emptyDir": {}}
    assert digests(body) == (A, B, C)
    assert body["spec"]["containers"][0]["image"] == "app:1"  # the pod as stored is left alone


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {}, "spec": {}},
        {"metadata": {}, "spec": {"containers": None, "volumes": [7]}, "status": None},
        pod("NOT AN IMAGE", f"x@{A}"),
        {**pod("app:1"), "status": {"containerStatuses": [{"name": "main", "imageID": None, "volumeMounts": [{"volumeStatus": None}]}]}},
    ],
)
def test_whatever_is_there_it_does_not_stumble(body: dict[str, Any]) -> None:
    as_running(body)
    digests(body)
