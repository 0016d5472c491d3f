"""`mlwarden webhook` as a process, asked by a real API server: from its first certificate to its last answer."""

import json
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mlwarden import evidence
from mlwarden.admission import certificate
from mlwarden.admission.review import LARGEST
from mlwarden.controllers.certificates import TLS_SECRET
from mlwarden.embedded import pki
from mlwarden.embedded.api import STRATEGIC_PATCH, ApiError
from mlwarden.errors import InputError
from mlwarden.model.policy import GATE

from .conftest import review  # type: ignore[import-not-found]
from .serving import DENIED, EVIDENCE, REVOKED, Installed, Serving, backdated, bad_pod, good_pod, load, said, until  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster

DEBUGGER = "registry.example/debug:1@sha256:" + "d" * 64


class TestTheStart:
    def test_is_ready_once_policies_and_certificate_are_there(self, installed: Installed, serving: Serving) -> None:
        installed.admin.delete(f"{installed.secrets}/{TLS_SECRET}")
        installed.write_token("nobody's")
        serving.start()
        until(lambda: serving.probe() == "the policies were not read yet")
        assert serving.probe("/healthz") == "ok"
        installed.write_token(installed.token)
        until(lambda: serving.probe() == f"the Secret {TLS_SECRET} holds no certificate yet; the controller makes it")
        assert serving.probe("/healthz") == "ok"
        serving.write(serving.certificates.tls)
        until(lambda: serving.probe() == "ok")
        assert serving.probe("/healthz") == "ok"

    def test_opens_no_port_for_reviews_before_it_can_answer(self, installed: Installed, serving: Serving) -> None:
        installed.admin.delete(f"{installed.secrets}/{TLS_SECRET}")
        serving.start()
        until(lambda: "holds no certificate yet" in serving.probe())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", serving.port), timeout=5)

    def test_can_be_ended_while_it_waits(self, installed: Installed, serving: Serving) -> None:
        installed.admin.delete(f"{installed.secrets}/{TLS_SECRET}")
        serving.start("--drain=600")
        until(lambda: "holds no certificate yet" in serving.probe())
        serving.terminate()
        assert serving.exit_code() == 0

    def test_ends_with_the_reason_where_the_port_is_taken(self, serving: Serving) -> None:
        with socket.create_server(("127.0.0.1", serving.port)):
            serving.start()
            assert serving.exit_code() == 2
        assert f"cannot listen on 127.0.0.1:{serving.port}: Address already in use" in serving.log()
        assert "Traceback" not in serving.log()


class TestProbes:
    def test_have_a_port_of_their_own_without_tls(self, serving: Serving) -> None:
        serving.serve()
        answers = [serving.probe(path) for path in ("/healthz", "/readyz", "/elsewhere")]
        assert answers == ["ok", "ok", "there is /healthz, /readyz and /metrics"]

    def test_include_what_the_request_path_counts(self, serving: Serving) -> None:
        serving.serve()
        expires = x509.load_pem_x509_certificate(serving.certificates.tls["tls.crt"]).not_valid_after_utc
        assert serving.metric("mlwarden_certificate_expires_timestamp_seconds") == expires.timestamp()
        assert serving.metric("mlwarden_admission_requests_total") > 0
        assert serving.metric("mlwarden_admission_seconds_count") > 0
        assert serving.metric("mlwarden_snapshot_revision") > 0
        assert serving.metric("mlwarden_policies_broken") == 0


class TestClientCertificates:
    """With `--client-ca`."""

    @pytest.fixture
    def strict(self, installed: Installed, serving: Serving) -> Serving:
        serving.serve(f"--client-ca={installed.cluster.webhook_client_ca}")
        return serving

    def test_of_the_api_server_are_let_in(self, installed: Installed, strict: Serving) -> None:
        own = installed.cluster.pki
        assert DENIED in installed.try_bad()
        assert anew(strict, client=(own.webhook_client_certificate, own.webhook_client_key)).status == 400

    def test_are_demanded(self, strict: Serving) -> None:
        refused_in_the_handshake(strict)

    def test_of_another_authority_are_refused(self, strict: Serving, tmp_path: Path) -> None:
        strange = pki.make(tmp_path)
        refused_in_the_handshake(strict, client=(strange.webhook_client_certificate, strange.webhook_client_key))


class TestRotation:
    def test_of_the_certificate_drops_no_request(self, installed: Installed, serving: Serving) -> None:
        serving.serve()
        before = installed.failed_open()
        context = ssl.create_default_context(cadata=serving.certificates.bundle.decode())

        def by_hand() -> str:
            """A handshake for every request; the API server has one for every `caBundle`."""
            _, answer = post(serving, review(bad_pod(), namespace=installed.space), context=context)
            return str(answer["status"]["message"])

        with load(installed.try_bad, by_hand) as loads:
            for _ in range(5):
                serving.renew()
                until(lambda: serving.presented() == serving.certificates.tls["tls.crt"])
                installed.configure(serving.certificates.bundle)
                for each in loads:
                    each.go_on()
        assert all(DENIED in answer for answer in loads[0].answers)
        assert all(answer.startswith("Pod") for answer in loads[1].answers)
        assert installed.failed_open() == before

    def test_of_the_authority_drops_none_either_once_it_was_announced(self, installed: Installed, serving: Serving) -> None:
        del serving.certificates
        serving.issue(now=backdated(days=500))  # two thirds of its life are over
        announced = serving.issue(now=backdated(days=2))
        assert "next.crt" in announced.ca
        installed.configure(announced.bundle)
        serving.write(announced.tls)
        serving.serve()
        before, old = installed.failed_open(), serving.presented()
        with load(installed.try_bad, installed.try_bad) as loads:
            promoted = serving.issue()
            assert promoted.tls["ca.crt"] == announced.ca["next.crt"]
            serving.write(promoted.tls)
            until(lambda: serving.presented() == promoted.tls["tls.crt"] != old)
            for bundle in (announced.bundle + b"\n", promoted.bundle, promoted.bundle + b"\n"):
                installed.configure(bundle)
                for each in loads:
                    each.go_on()
        assert all(DENIED in answer for each in loads for answer in each.answers)
        assert installed.failed_open() == before


class TestAnExpiredCertificate:
    @pytest.fixture
    def expired(self, installed: Installed, serving: Serving) -> Serving:
        del serving.certificates
        installed.configure(serving.issue(now=backdated(days=60)).bundle)
        serving.write(serving.certificates.tls)
        serving.start()
        until(lambda: serving.probe() == "ok")
        return serving

    def test_refuses_no_pod_and_starts_none(self, installed: Installed, expired: Serving) -> None:
        before = installed.failed_open()
        created = installed.create(good_pod(f"p-{secrets.token_hex(3)}"))
        assert created["spec"]["schedulingGates"] == [{"name": GATE}]
        assert installed.failed_open() == before + 1

    def test_refuses_a_pod_that_names_its_node_and_says_why(self, installed: Installed, expired: Serving) -> None:
        message = said(lambda: installed.create(good_pod("p", nodeName="node-0")))
        assert "node.mlwarden.io" in message
        assert "x509: certificate has expired" in message

    def test_refuses_an_ephemeral_container_and_says_why(self, installed: Installed, expired: Serving) -> None:
        message = said(debugging(installed))
        assert "ephemeral.mlwarden.io" in message
        assert "x509: certificate has expired" in message

    def test_shows_in_the_metrics(self, expired: Serving) -> None:
        assert expired.metric("mlwarden_certificate_expires_timestamp_seconds") < backdated(days=1).timestamp()

    def test_is_over_with_the_next_one_without_a_restart(self, installed: Installed, expired: Serving) -> None:
        debug = debugging(installed)
        assert installed.try_bad() == "created"
        expired.write(expired.issue().tls)
        until(lambda: DENIED in installed.try_bad())
        assert '"ephemeral.mlwarden.io" denied the request' in said(debug)


class TestRubbishInTheSecret:
    def test_leaves_the_serving_certificate_in_place(self, installed: Installed, serving: Serving) -> None:
        serving.serve()
        good, before = serving.presented(), installed.failed_open()
        for complaints, data in enumerate(rubbish(serving).values(), start=1):
            serving.write(data)
            until(lambda seen=complaints: serving.log().count("holds no usable certificate") == seen)
            assert serving.presented() == good
            assert DENIED in installed.try_bad()
        assert installed.failed_open() == before
        serving.renew()
        until(lambda: serving.presented() == serving.certificates.tls["tls.crt"])

    def test_is_an_error_that_says_so_whatever_it_is(self) -> None:
        context = certificate.server_context()
        for data in (None, {}, {"tls.crt": "%%%"}, {"tls.crt": "YWJj", "tls.key": "="}, {"tls.crt": 7}, {"tls.crt": "ä"}):
            with pytest.raises(InputError, match="holds no usable certificate"):
                certificate.load(context, {"data": data})

    def test_is_as_good_as_a_secret_that_is_gone(self, installed: Installed, serving: Serving) -> None:
        serving.serve()
        good = serving.presented()
        installed.admin.delete(f"{installed.secrets}/{TLS_SECRET}")
        until(lambda: "is gone; serving on" in serving.log())
        assert serving.presented() == good
        assert serving.probe() == "ok"
        assert DENIED in installed.try_bad()


class TestTheEnd:
    def test_goes_on_answering_and_sends_its_clients_elsewhere(self, serving: Serving) -> None:
        serving.serve("--drain=5")
        with serving.connect() as kept:
            before = ask(kept).headers["connection"]
            serving.terminate()
            until(lambda: serving.probe() == "going away")
            after = [ask(kept).headers["connection"]]
        after += [anew(serving).headers["connection"] for _ in range(60)]  # more than fit between the signal and the end without a drain
        assert before is None
        assert set(after) == {"close"}
        assert serving.exit_code() == 0

    def test_of_one_of_two_fails_no_request(self, installed: Installed, serving: Serving) -> None:
        serving.serve("--drain=1", name="old")
        before = installed.failed_open()
        with load(installed.try_bad, installed.try_bad) as loads:
            serving.start(name="new")
            until(lambda: serving.probe(name="new") == "ok")
            serving.terminate("old")
            assert serving.exit_code("old") == 0
            for each in loads:
                each.go_on()
        assert all(DENIED in answer for each in loads for answer in each.answers)
        assert installed.failed_open() == before


class TestHttp:
    def test_a_review_that_is_too_large_is_refused_in_words(self, installed: Installed, serving: Serving) -> None:
        serving.serve()
        body = review(good_pod("large"), namespace=installed.space)
        body["request"]["object"]["metadata"]["annotations"] = {"a": "x" * (LARGEST + 1)}
        status, answer = post(serving, body)
        assert (status, answer["uid"], answer["allowed"], answer["status"]["code"]) == (200, "1-2-3", False, 413)
        assert "larger than 8 MiB" in answer["status"]["message"]

    def test_an_unknown_path_is_404_and_a_get_is_405(self, serving: Serving) -> None:
        serving.serve()
        assert anew(serving, "POST", "/elsewhere").status == 404
        assert anew(serving, "GET", "/mutate").status == 405


class TestTheApiServer:
    def test_may_restart_and_is_followed_again(self, installed: Installed, serving: Serving) -> None:
        serving.serve()
        installed.cluster.restart_apiserver(kill=True)
        until(lambda: DENIED in installed.try_bad())
        unwanted = good_pod("unwanted", nodeSelector={"unwanted": ""})
        with installed.policy("!('unwanted' in object.spec.?nodeSelector.orValue({}))") as name:
            until(lambda: name in said(lambda: installed.create(unwanted, dryRun="All")))


class TestEvidence:
    def test_is_asked_for_of_what_is_refused_without_it_and_not_by_a_dry_run_nor_of_what_is_stored(
        self, installed: Installed, serving: Serving
    ) -> None:
        serving.serve(f"--client-ca={installed.cluster.webhook_client_ca}")
        tried, stored, refused = (f"registry.example/{word}-{secrets.token_hex(4)}:1" for word in ("tried", "stored", "refused"))
        bound = {"nodeName": "node-0", "imagePullSecrets": [{"name": "theirs"}]}
        with pytest.raises(ApiError, match="try again"):
            installed.create(good_pod("p", tried, **bound), dryRun="All")
        installed.create(good_pod(f"p-{secrets.token_hex(3)}", stored))  # the releaser asks, which sees it
        with pytest.raises(ApiError, match="try again"):
            installed.create(good_pod("p", refused, **bound))
        until(lambda: said(lambda: installed.admin.get(about(refused))) == "created")
        assert "pullers" not in installed.admin.get(about(refused))["spec"]
        for reference in (tried, stored):
            with pytest.raises(ApiError, match="not found"):  # it would have been asked for first
                installed.admin.get(about(reference))


class TestARevocation:
    def test_refuses_new_pods_at_once_in_every_profile_and_lets_them_in_again(self, installed: Installed, serving: Serving) -> None:
        serving.serve()
        digest = "sha256:" + secrets.token_hex(32)
        body = good_pod("p", image=f"registry.example/app@{digest}")
        lenient = installed.cluster.create_namespace(f"{installed.settings.namespace}-lenient")

        def tried(space: str) -> str:
            return said(lambda: installed.admin.create(f"/api/v1/namespaces/{space}/pods", body, dryRun="All"))

        assert (tried(lenient), tried(installed.space)) == ("created", "created")
        spec = {"digest": digest, "reason": "a miner was found in it", "reference": "SEC-17"}
        kind = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "RevokedArtifact"}
        began = time.monotonic()
        installed.admin.create(REVOKED, {**kind, "metadata": {"name": "mined"}, "spec": spec})
        try:
            until(lambda: "a miner was found in it [SEC-17]" in tried(lenient))
            print(f"refused {time.monotonic() - began:.3f} s after it was revoked")  # noqa: T201 -- a figure, not an assertion
            until(lambda: "mlwarden-revoked" in tried(installed.space))
            assert "a miner was found in it" in said(lambda: installed.admin.create(f"/api/v1/namespaces/{lenient}/pods", body))
        finally:
            installed.admin.delete(f"{REVOKED}/mined")
        until(lambda: tried(lenient) == tried(installed.space) == "created")


class TestAPolicyThatDoesNotCompile:
    BROKEN = "object.spec.containers.all(c, c.image"

    def test_is_refused_while_somebody_answers(self, installed: Installed, serving: Serving) -> None:
        serving.serve()
        with pytest.raises(ApiError, match="this policy does not compile"), installed.policy(self.BROKEN):
            pass

    def test_that_came_in_before_holds_with_a_warning_that_names_it_and_is_counted(self, installed: Installed, serving: Serving) -> None:
        with installed.policy(self.BROKEN) as name:
            serving.serve()
            assert serving.metric("mlwarden_policies_broken") == 1
            arguments = ("create", "-f", "-", "--dry-run=server", "-n", installed.space)
            output = installed.cluster.kubectl(*arguments, input=json.dumps(good_pod("p")), check=False)
            assert f"Warning: held, {name}: policy {name} does not compile" in output
            assert "pod/p created" in output
        until(lambda: serving.metric("mlwarden_policies_broken") == 0)


def about(reference: str) -> str:
    return f"{EVIDENCE}/{evidence.name_for(reference)}"


def debugging(installed: Installed) -> Callable[[], Any]:
    """What `kubectl debug` sends, for a pod that is there."""
    name = f"p-{secrets.token_hex(3)}"
    installed.create(good_pod(name))
    patch = {"spec": {"ephemeralContainers": [{"name": "debug", "image": DEBUGGER}]}}
    path = f"/api/v1/namespaces/{installed.space}/pods/{name}/ephemeralcontainers"
    return lambda: installed.admin.patch(path, patch, content_type=STRATEGIC_PATCH)


def ask(connection: Any, method: str = "POST", path: str = "/mutate", body: bytes = b"{}") -> Any:
    """One request on a connection that stays open; returns the answer, read."""
    connection.request(method, path, body)
    answer = connection.getresponse()
    answer.content = answer.read()
    return answer


def anew(serving: Serving, *request: Any, **options: Any) -> Any:
    """One request on a connection of its own."""
    with serving.connect(**options) as connection:
        return ask(connection, *request)


def post(serving: Serving, body: Any, **options: Any) -> tuple[int, dict[str, Any]]:
    """Posts a review on a connection of its own; returns the status and the `response`."""
    answer = anew(serving, "POST", "/mutate", json.dumps(body).encode(), **options)
    return answer.status, json.loads(answer.content)["response"]


def refused_in_the_handshake(serving: Serving, **client: Any) -> None:
    """In TLS 1.2 the handshake itself fails; in 1.3 the client is done before it is judged, and hears of it with its first request."""
    before = serving.metric("mlwarden_admission_requests_total")
    context = ssl.create_default_context(cadata=serving.certificates.bundle.decode())
    with pytest.raises((ssl.SSLError, ConnectionError)):
        anew(serving, context=context, **client)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving.connect(context=context, **client) as connection, pytest.raises((ssl.SSLError, ConnectionError)):
        connection.connect()
    assert serving.metric("mlwarden_admission_requests_total") == before


def rubbish(serving: Serving) -> dict[str, dict[str, bytes]]:
    """Secrets that the API server takes, and no server can serve with."""
    good = serving.certificates.tls
    other = serving.issue(renew=True).tls
    key = serialization.load_pem_private_key(good["tls.key"], password=None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    locked = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    return {
        "no key": {**good, "tls.key": b""},
        "no certificate": {**good, "tls.crt": b""},
        "another key": {**good, "tls.key": other["tls.key"]},
        "another certificate": {**good, "tls.crt": other["tls.crt"]},
        "a locked key": {**good, "tls.key": locked},
        "garbage": {"tls.crt": b"\x00\xff" * 40, "tls.key": b"garbage"},
        "half a certificate": {**good, "tls.crt": good["tls.crt"][:200]},
    }


class TestLimitRanges:
    """What a namespace fills into pods counts for their templates."""

    def test_a_template_and_its_pod_get_the_same_answer(self, installed: Installed, serving: Serving) -> None:
        serving.serve()
        pod = good_pod("limited")
        del pod["spec"]["containers"][0]["resources"]
        labels = {"app": "limited"}
        template = {"metadata": {"labels": labels}, "spec": pod["spec"]}
        deployment = {"metadata": {"name": "limited"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
        where = f"/apis/apps/v1/namespaces/{installed.space}/deployments"
        ranges = f"/api/v1/namespaces/{installed.space}/limitranges"
        defaults = {"type": "Container", "default": {"memory": "1Gi"}}

        def answers() -> tuple[bool, bool]:
            objects = (lambda: installed.create(pod, dryRun="All")), (lambda: installed.admin.create(where, deployment, dryRun="All"))
            return tuple("is not wanted" in said(each) for each in objects)  # type: ignore[return-value]

        with installed.policy("object.spec.containers.all(each, each.?resources.?limits[?'memory'].hasValue())"):
            until(lambda: answers() == (True, True))
            installed.admin.create(ranges, {"metadata": {"name": "defaults"}, "spec": {"limits": [defaults]}})
            until(lambda: answers() == (False, False))
            installed.admin.delete(f"{ranges}/defaults")
            until(lambda: answers() == (True, True))
