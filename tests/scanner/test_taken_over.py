"""The process that reads layers has been taken over, and answers everything: about signatures and excuses it is not believed."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from mlwarden.embedded import images
from mlwarden.embedded.signer import Signer
from mlwarden.model.evidence import Scan, Suppressed, Vulnerability
from mlwarden.model.signing import Proof, Proven
from mlwarden.model.signing import Signer as Signed
from mlwarden.scanner.protocol import Answer, Documented, Failed, Look, Report, Scanned, State, Verified, Verify, encode, question

if TYPE_CHECKING:
    from mlwarden.embedded.cluster import EmbeddedCluster
    from mlwarden.embedded.processes import Process

pytestmark = pytest.mark.cluster
POLICIES = "/apis/mlwarden.io/v1alpha1/wardenpolicies"


class TakenOver(socketserver.ThreadingUnixStreamServer):
    """A worker that says yes to everything, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.asked: list[str] = []
        self.signer = Signed(key="sha256:" + "f" * 64)
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(encode(owner.forged(self.rfile.readline())))

        super().__init__(str(path), Handler)

    def forged(self, line: bytes) -> Answer:
        asked, now = question(line), datetime.now(UTC)
        self.asked.append(type(asked).__name__)
        match asked:
            case Report():
                return State(trivy="0.72.0", database_at=now, canary_at=now, scans=4, roots={})
            case Verify(demands=demands):
                proofs = [Proof(demand=name, outcome=Proven.VERIFIED, signer=self.signer, at=now) for name in demands]
                return Verified(proofs=tuple(proofs))
            case Look():
                found = Vulnerability(id="CVE-2026-1", package="openssl", installed="1", fixed="2", severity="CRITICAL")
                sources = ["security", *(document.source for document in asked.documents)]
                excused = tuple(
                    Suppressed(id=found.id, package="openssl", status="fixed", source=each, signer=self.signer) for each in sources
                )
                made = Scan(scanner="trivy 0.72.0", scanned_at=now, packages=1, os="debian 13", vulnerabilities=(found,))
                return Scanned(scan=msgspec.structs.replace(made, suppressed=excused))
            case _:
                return Documented(documents=()) if "Documents" in self.asked[-1] else Failed(definitive=False, reason="not now")


@pytest.fixture
def taken_over(tmp_path: Path) -> Iterator[TakenOver]:
    with TakenOver(tmp_path / "s") as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def key(cluster: "EmbeddedCluster", evidence_crd: None, tmp_path: Path) -> Iterator[Any]:
    """Policies want a signature by this key, and let it excuse."""
    made = Signer(tmp_path).key_pair("ours")
    for name, requirement in (
        ("over-signed", {"imageSignature": {"authorities": [{"name": "ours", "key": made.pem}]}}),
        ("over-excused", {"imageScan": {"vex": [{"name": "ours", "key": made.pem}]}}),
    ):
        spec = {"profiles": {"production": "Deny"}, "requirement": requirement, "message": "m", "why": "w", "fix": {"text": "f"}}
        body = {"apiVersion": "mlwarden.io/v1alpha1", "kind": "WardenPolicy", "metadata": {"name": name}, "spec": spec}
        cluster.api().apply(f"{POLICIES}/{name}", body)
    yield made
    for name in ("over-signed", "over-excused"):
        cluster.api().delete(f"{POLICIES}/{name}")


def test_a_layer_worker_cannot_answer_for_the_verifier(
    cluster: "EmbeddedCluster",
    ask: Callable[[str], str],
    scanner: "Callable[..., Process]",
    until: Callable[..., dict[str, Any]],
    attack: Callable[[str, str, str], None],
    *,
    taken_over: TakenOver,
    key: Any,
    tmp_path: Path,
) -> None:
    signed, unsigned = (images.push_image(cluster.registry, f"over/{name}:1", files={"x": name.encode()}) for name in ("a", "b"))
    Signer(tmp_path).sign(f"{cluster.registry}/over/a@{signed}", key)
    scanner(f"--socket={tmp_path}/s", f"--verifier-socket={tmp_path}/v", mode="agent", name="agent")
    scanner(f"--socket={tmp_path}/v", mode="verifier", name="verifier")
    outcomes = {}
    for name, digest in (("a", signed), ("b", unsigned)):
        scanned = until(ask(f"{cluster.registry}/over/{name}@{digest}"), lambda status: status.get("phase") == "Ready")
        assert scanned["scan"]["vulnerabilities"][0]["id"] == "CVE-2026-1"
        assert scanned["scan"]["suppressed"] == []
        status = until(digest.replace("sha256:", "signatures-"), lambda status: status.get("phase") == "Ready")
        outcomes[name] = [each["outcome"] for each in status["proofs"]]
    assert outcomes == {"a": ["Verified"], "b": ["Missing"]}  # by the real cosign, in the other process
    assert set(taken_over.asked) == {"Report", "Look"}
    attack(
        "trivy is taken over by a layer and says that everything is signed and excused",
        "believed: cosign ran in the same process and under the same user",
        "not asked: a container of its own verifies, and what no document says is no excuse",
    )
