"""Keyless signing with nothing from outside: Fulcio, a transparency log and a timestamp authority, on free ports of the loopback interface.

Who signs proves who he is with a token of a Kubernetes service account; the embedded cluster is the identity provider. Fulcio turns that
into a certificate of ten minutes, the timestamp authority says when it was used, the log (rekor-tiles, in a folder) keeps an entry. What
somebody needs to verify all this stands in one file, the trust root. So certificates, log entries and timestamps are real, offline, and the
test's own: another `Sigstore` is another world that must not be believed.

Rejected: recorded signatures of the public Sigstore (they show one identity that nobody here can sign as, and nothing can be got wrong).
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from mlwarden.embedded import build
from mlwarden.embedded.api import ApiError
from mlwarden.embedded.cluster import EmbeddedCluster, StartError
from mlwarden.embedded.oldlog import OldLog
from mlwarden.embedded.processes import Process, free_port, wait_until
from mlwarden.embedded.signer import Signer

AUDIENCE = "sigstore"
_DISCOVERY = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/sigstore-issuer-discovery"
_READY_SECONDS = 60.0
_ATTEMPTS = 4
_LOG_NAME = "127.0.0.1"
"""cosign derives a log's origin from the host of its URL, without the port; a checkpoint with another origin does not verify."""


class Sigstore:
    """One set of services. Use as a context manager, or call `start` and `close`.

    Args:
        cluster: started; its service accounts are who signs.

    Attributes:
        directory: keys, logs, and the files below.
        issuer: the identity provider's URL, as it stands in certificates.
        trust_root: what verifiers need: `--trusted-root`.
        signing_config: what signers need: `--signing-config`.
        signing_config_without_log: the same, but signatures leave no entry in the log.
        old_log: the log of signatures in the older form.
    """

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self._cluster = cluster
        self._processes: list[Process] = []
        self._fulcio = self._rekor = self._timestamps = 0
        self.issuer = cluster.server
        self.directory: Path
        self.trust_root: Path
        self.signing_config: Path
        self.signing_config_without_log: Path
        self.old_log: OldLog

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Starts the services and returns when all of them answer.

        Raises:
            BuildError: a tool is missing and could not be built.
            StartError: a service did not start.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="sigstore-", dir=self._cluster.directory))
        self._signer = Signer(self.directory)
        self._let_everybody_read_the_keys()
        key = ed25519.Ed25519PrivateKey.generate()
        private = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.directory / "rekor.key").write_bytes(key.private_bytes(*private))
        public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (self.directory / "rekor.pub").write_bytes(public)
        self.old_log = OldLog(self.directory / "old-log.pub")
        known = {self.issuer: {"issuer-url": self.issuer, "client-id": AUDIENCE, "type": "kubernetes"}}
        # As YAML proper: what parses as JSON is read with other names for the same settings.
        (self.directory / "fulcio.yaml").write_text(yaml.safe_dump({"oidc-issuers": known}), encoding="utf-8")
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                self._start_all()
                if wait_until(self._settled, seconds=_READY_SECONDS) and self._answers():
                    break
                self._give_up_unless_a_port_was_taken(last=attempt == _ATTEMPTS)
            self._write_files()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kills the services. The files stay until the cluster goes: what was signed can still be verified."""
        for process in self._processes:
            process.kill()
        self._processes.clear()

    def subject(self, account: str, namespace: str = "default") -> str:
        """Returns the identity of a service account, as it stands in certificates."""
        return f"https://kubernetes.io/namespaces/{namespace}/serviceaccounts/{account}"

    def token(self, account: str, namespace: str = "default") -> str:
        """Returns a token of a service account for Fulcio; the account is made when there is none."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self._cluster.api().apply(f"{accounts}/{account}", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
        spec = {"audiences": [AUDIENCE], "expirationSeconds": 600}
        return str(self._cluster.api().create(f"{accounts}/{account}/token", {"spec": spec})["status"]["token"])

    def sign(
        self, image: str, *, account: str = "signer", namespace: str = "default", config: Path | None = None, unchecked: bool = False
    ) -> None:
        """Signs `repository@sha256:…` as a service account, as an OCI referrer.

        Args:
            image: with its digest.
            account: who signs.
            namespace: of the account.
            config: another signing configuration.
            unchecked: cosign need not be able to verify what it made.
        """
        self._cosign("sign", account, namespace, config, image, unchecked=unchecked)

    def sign_in_the_older_form(self, image: str, *, account: str = "signer", namespace: str = "default", logged: bool = True) -> None:
        """Signs `repository@sha256:…` as a service account, as a `.sig` tag, with the promise of `old_log` or without one."""
        services = ("--fulcio-url", _url(self._fulcio), "--use-signing-config=false", "--tlog-upload=false", "--insecure-skip-verify")
        environment = {"SIGSTORE_ID_TOKEN": self.token(account, namespace)}
        form = ("--new-bundle-format=false", "--allow-http-registry", "--yes")
        self._signer.cosign("sign", *services, *form, image, environment=environment)
        if logged:
            self.old_log.enter(image)

    def attest(
        self,
        image: str,
        *,
        type: str,  # noqa: A002 -- cosign's word
        predicate: Mapping[str, Any],
        account: str = "signer",
        namespace: str = "default",
        config: Path | None = None,
    ) -> None:
        """Attests something of `repository@sha256:…` as a service account, as an OCI referrer; as `sign` and `Signer.attest`."""
        path = self._signer.predicate(predicate)
        self._cosign("attest", account, namespace, config, "--type", type, "--predicate", str(path), image)

    def signing_config_with(self, log: Sigstore) -> Path:
        """Writes a signing configuration with this Fulcio and this timestamp authority, but another log."""
        return self._write_signing_config("another-log.json", log._rekor)

    def _cosign(self, verb: str, account: str, namespace: str, config: Path | None, *arguments: str, unchecked: bool = False) -> None:
        # Not --identity-token: everybody can read a list of processes.
        environment = {"SIGSTORE_ID_TOKEN": self.token(account, namespace)}
        files = ["--signing-config", str(config or self.signing_config)]
        files += [] if unchecked else ["--trusted-root", str(self.trust_root)]
        self._signer.cosign(verb, *files, "--allow-http-registry", "--yes", *arguments, environment=environment)

    # Starting.

    def _let_everybody_read_the_keys(self) -> None:
        """Fulcio fetches the issuer's public keys without credentials."""
        body = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "sigstore-issuer-discovery"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:service-account-issuer-discovery"},
        }
        self._cluster.api().apply(_DISCOVERY, body)
        discovery = self._cluster.server.removeprefix("https://")
        if not wait_until(lambda: self._can_be_discovered(discovery), seconds=_READY_SECONDS):
            raise StartError("the API server does not let Fulcio read its OpenID configuration")

    def _can_be_discovered(self, address: str) -> bool:
        context = ssl.create_default_context(cafile=str(self._cluster.pki.ca))
        connection = http.client.HTTPSConnection(address, timeout=5, context=context)
        try:
            connection.request("GET", "/.well-known/openid-configuration")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _start_all(self) -> None:
        self._fulcio, self._rekor, self._timestamps, *others = (free_port() for _ in range(7))
        self._spawn(
            "fulcio",
            *("serve", "--ca", "ephemeralca", "--ct-log-url=", "--config-path", str(self.directory / "fulcio.yaml")),
            *("--host", "127.0.0.1"),
            *("--port", str(self._fulcio), "--grpc-host", "127.0.0.1", "--grpc-port", str(others[0]), "--metrics-port", str(others[1])),
            *(
                "--legacy-unix-domain-socket",
                str(self.directory / f"fulcio-{self._fulcio}.socket"),
            ),  # else an abstract one that is everybody's
        )
        self._spawn("timestamp-server", "--port", str(self._timestamps))
        self._spawn(
            "rekor",
            *("serve", "--http-address", "127.0.0.1", "--http-port", str(self._rekor), "--grpc-port", str(others[2])),
            *("--http-metrics-port", str(others[3]), "--hostname", _LOG_NAME, "--signer-filepath", str(self.directory / "rekor.key")),
            *("--storage-dir", str(self.directory / f"log-{self._rekor}"), "--checkpoint-interval", "200ms", "--batch-max-age", "50ms"),
        )

    def _give_up_unless_a_port_was_taken(self, *, last: bool) -> None:
        tails = "\n".join(f"--- {process.name}\n{process.tail(5)}" for process in self._processes)
        self.close()
        if last or "address already in use" not in tails:
            raise StartError(f"Sigstore's services did not start:\n{tails}", hint="the last lines of their logs say why")

    def _spawn(self, name: str, *arguments: str) -> None:
        environment = {"HOME": str(self.directory), "PATH": os.defpath, "SSL_CERT_FILE": str(self._cluster.pki.ca)}
        log = self.directory / f"{name}.log"
        process = Process(
            name, [build.binary(name), *arguments], log=log, keeper=self._cluster.keeper, environment=environment, cwd=self.directory
        )
        self._processes.append(process)

    def _settled(self) -> bool:
        """Whether all of them answer, or one of them ended."""
        return any(not process.alive for process in self._processes) or self._answers()

    def _answers(self) -> bool:
        if any(not process.alive for process in self._processes):
            return False
        try:
            self._get(self._fulcio, "/api/v2/trustBundle")
            self._get(self._timestamps, "/api/v1/timestamp/certchain")
            self._get(self._rekor, "/healthz")
        except ApiError:
            return False
        return True

    def _get(self, port: int, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"GET {path}: {error}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise ApiError(f"GET {path}: {response.status}", code=response.status)
        return content

    # What signers and verifiers need.

    def _write_files(self) -> None:
        chains = json.loads(self._get(self._fulcio, "/api/v2/trustBundle"))["chains"]
        fulcio, timestamps = self.directory / "fulcio.pem", self.directory / "timestamps.pem"
        fulcio.write_text("".join(chains[0]["certificates"]), encoding="ascii")
        timestamps.write_bytes(self._get(self._timestamps, "/api/v1/timestamp/certchain"))
        self.trust_root = self.directory / "trusted-root.json"
        log = f"url={_url(self._rekor)},public-key={self.directory / 'rekor.pub'},start-time={_yesterday()},origin={_LOG_NAME}"
        old_log = f"url=https://old-log.invalid,public-key={self.directory / 'old-log.pub'},start-time={_yesterday()}"
        self._signer.cosign(
            *("trusted-root", "create", "--out", str(self.trust_root), f"--rekor={log}", f"--rekor={old_log}"),
            f"--fulcio=url={_url(self._fulcio)},certificate-chain={fulcio}",
            f"--tsa=url={_url(self._timestamps)},certificate-chain={timestamps}",
        )
        self.signing_config = self._write_signing_config("signing-config.json", self._rekor)
        self.signing_config_without_log = self._write_signing_config("without-log.json", 0)

    def _write_signing_config(self, name: str, rekor: int) -> Path:
        since = f"start-time={_yesterday()},operator=test"
        log = [f"--rekor=url={_url(rekor)},api-version=2,{since}", "--rekor-config=ANY"] if rekor else []
        path = self.directory / name
        self._signer.cosign(
            *("signing-config", "create", "--out", str(path), f"--fulcio=url={_url(self._fulcio)},api-version=1,{since}", *log),
            *(f"--tsa=url={_url(self._timestamps)}/api/v1/timestamp,api-version=1,{since}", "--tsa-config=ANY"),
        )
        return path


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _yesterday() -> str:
    return (dt.datetime.now(dt.UTC) - dt.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
