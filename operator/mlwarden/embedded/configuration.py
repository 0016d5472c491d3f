"""The configuration files of the control plane's parts: users, kubeconfigs, admission, audit, kwok."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlwarden.embedded import stages
from mlwarden.embedded.pki import Pki


def write(
    directory: Path, *, server: str, pki: Pki, tokens: Mapping[str, str], names: Mapping[str, str], groups: Mapping[str, Sequence[str]]
) -> None:
    """Writes every file into the cluster's directory; nobody else may read them.

    Args:
        directory: with a folder `users` in it.
        server: URL of the API server.
        pki: the certificates.
        tokens: by user.
        names: what Kubernetes calls the user.
        groups: by user.
    """
    lines = [f'{token},{names[user]},{user},"{",".join(groups[user])}"\n' for user, token in tokens.items()]
    _write(directory / "tokens.csv", "".join(lines))
    for user, token in tokens.items():
        _dump(directory / "users" / f"{user}.kubeconfig", _kubeconfig(user, token, server=server, ca=pki.ca))
    _dump(directory / "webhooks.kubeconfig", _webhook_users(pki))
    _dump(directory / "admission.yaml", _admission(directory / "webhooks.kubeconfig"))
    _dump(directory / "audit.yaml", _audit())
    _write(directory / "kwok.yaml", stages.configuration())


def kubeconfig(path: Path, user: str, token: str, *, server: str, ca: Path) -> Path:
    """Writes the kubeconfig of one more user, and returns its path."""
    _dump(path, _kubeconfig(user, token, server=server, ca=ca))
    return path


def encoded(certificate: Path) -> str:
    """Returns a certificate as a `caBundle` has it."""
    return base64.b64encode(certificate.read_bytes()).decode()


def _kubeconfig(user: str, token: str, *, server: str, ca: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "embedded", "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": user}}],
        "current-context": "embedded",
    }


def _webhook_users(pki: Pki) -> dict[str, Any]:
    """What the API server shows to webhooks. A user here is named after the server it is for; `*` is every server."""
    certificate = {"client-certificate": str(pki.webhook_client_certificate), "client-key": str(pki.webhook_client_key)}
    return {"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": certificate}]}


def _admission(webhook_users: Path) -> dict[str, Any]:
    group = "apiserver.config.k8s.io/v1"
    webhook = {"apiVersion": group, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": str(webhook_users)}
    plugins = [{"name": name, "configuration": webhook} for name in ("MutatingAdmissionWebhook", "ValidatingAdmissionWebhook")]
    return {"apiVersion": group, "kind": "AdmissionConfiguration", "plugins": plugins}


def _audit() -> dict[str, Any]:
    rules = [
        # What mlwarden reads, too: its rights are measured by it.
        {"level": "Metadata", "userGroups": ["system:serviceaccounts:mlwarden-system"]},
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ]
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}


def _dump(path: Path, content: dict[str, Any]) -> None:
    _write(path, yaml.safe_dump(content, sort_keys=False))


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
