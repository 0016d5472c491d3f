"""A webhook of somebody else, which changes pods as it likes."""

import http.server
import json
import ssl
import threading
from base64 import b64encode
from typing import Any


class HostileWebhook:
    """Somebody else's mutating webhook, which answers every pod with the JSON patch it was told."""

    def __init__(self, context: ssl.SSLContext, authority: str) -> None:
        self.authority = authority
        self.patch: list[dict[str, Any]] = []
        self.reviews: list[dict[str, Any]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.reviews.append(review)
                response: dict[str, Any] = {"uid": review["request"]["uid"], "allowed": True}
                if outer.patch:
                    response |= {"patchType": "JSONPatch", "patch": b64encode(json.dumps(outer.patch).encode()).decode()}
                body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- overrides
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.server_address[1]}/mutate"

    def configuration(self, namespace: str) -> dict[str, Any]:
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": f"hostile-{namespace}"},
            "webhooks": [
                {
                    "name": "hostile.example.com",
                    "clientConfig": {"url": self.url, "caBundle": b64encode(self.authority.encode()).decode()},
                    "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["pods"]}],
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "failurePolicy": "Fail",
                    "reinvocationPolicy": "IfNeeded",
                }
            ],
        }
