import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from mlwarden.cluster import (
    JSON_PATCH,
    NAMESPACE,
    POD,
    STRATEGIC_PATCH,
    ApiError,
    Client,
    ConflictError,
    ForbiddenError,
    Informer,
    InvalidError,
    Kind,
    NotFoundError,
    UnreachableError,
)
from mlwarden.cluster.client import Token
from mlwarden.embedded.cluster import EmbeddedCluster
from mlwarden.errors import ClusterError, InputError

from .conftest import until  # type: ignore[import-not-found]

pytestmark = pytest.mark.cluster
CONFIG = Kind(group="", version="v1", plural="configmaps")


def config(name: str, value: str = "1") -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}


async def test_it_creates_reads_patches_applies_lists_and_deletes(client: Client, namespace: str) -> None:
    await client.create(CONFIG, config("one"), namespace=namespace)
    await client.patch(CONFIG, "one", {"data": {"value": "2"}}, namespace=namespace)
    assert (await client.get(CONFIG, "one", namespace=namespace))["data"] == {"value": "2"}
    two = {**config("two"), "metadata": {"name": "two", "namespace": namespace}}
    await client.apply(CONFIG, two)
    names = [each["metadata"]["name"] for each in await client.list(CONFIG, namespace=namespace)]
    assert {"one", "two"} <= set(names)
    await client.delete(CONFIG, "one", namespace=namespace)
    with pytest.raises(NotFoundError):
        await client.get(CONFIG, "one", namespace=namespace)


async def test_what_the_api_server_refuses_can_be_told_apart(client: Client, namespace: str) -> None:
    made = await client.create(CONFIG, config("one"), namespace=namespace)
    with pytest.raises(ConflictError):
        await client.create(CONFIG, config("one"), namespace=namespace)
    await client.update(CONFIG, {**made, "data": {"value": "2"}})
    with pytest.raises(ConflictError):
        await client.update(CONFIG, {**made, "data": {"value": "3"}})
    with pytest.raises(InvalidError):
        await client.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {}}, namespace=namespace)


async def test_a_server_that_is_gone_is_an_error_with_words(cluster: EmbeddedCluster, client: Client) -> None:
    client._server = "https://127.0.0.1:1"
    with pytest.raises(UnreachableError, match="no answer from the API server"):
        await client.get(NAMESPACE, "default")


async def test_a_kubeconfig_that_is_not_there_is_said_so() -> None:
    with pytest.raises(InputError, match="kubeconfig"):
        await Client.from_kubeconfig("/nowhere/at/all")


async def test_an_informer_follows_what_happens_and_survives_the_api_server(
    cluster: EmbeddedCluster, client: Client, namespace: str
) -> None:
    seen: list[tuple[str, bool]] = []
    informer = Informer(client, CONFIG, namespace=namespace, on_change=lambda key, obj: seen.append((key[1], obj is not None)))
    task = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), 15)
        await client.create(CONFIG, config("one"), namespace=namespace)
        await until(lambda: informer.get("one", namespace=namespace))
        await asyncio.to_thread(cluster.restart_apiserver, kill=True)
        await client.create(CONFIG, config("two"), namespace=namespace)
        await client.delete(CONFIG, "one", namespace=namespace)
        await until(lambda: informer.get("two", namespace=namespace) and not informer.get("one", namespace=namespace), 40)
        assert ("one", False) in seen
        assert not informer.unreadable
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_list_is_read_page_by_page(client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlwarden.cluster.client._PAGE", 2)
    for number in range(5):
        await client.create(
            CONFIG, {**config(f"c{number}"), "metadata": {"name": f"c{number}", "labels": {"of": "test"}}}, namespace=namespace
        )
    sizes = [len(page.items) async for page in client.pages(CONFIG, namespace=namespace, query={"labelSelector": "of=test"})]
    assert sizes == [2, 2, 1]
    found = await client.list(CONFIG, namespace=namespace, labelSelector="of=test")
    assert [each["metadata"]["name"] for each in found] == [f"c{number}" for number in range(5)]


async def test_it_patches_in_every_dialect_and_applies_as_mlwarden(client: Client, namespace: str) -> None:
    await client.apply(CONFIG, {**config("one"), "metadata": {"name": "one", "namespace": namespace}})
    applied = await client.get(CONFIG, "one", namespace=namespace)
    assert [(each["manager"], each["operation"]) for each in applied["metadata"]["managedFields"]] == [("mlwarden", "Apply")]
    operations = [{"op": "test", "path": "/data/value", "value": "1"}, {"op": "replace", "path": "/data/value", "value": "2"}]
    await client.patch(CONFIG, "one", operations, namespace=namespace, content_type=JSON_PATCH)
    with pytest.raises(InvalidError):  # the test fails now
        await client.patch(CONFIG, "one", operations, namespace=namespace, content_type=JSON_PATCH)
    await client.patch(CONFIG, "one", {"data": {"more": "3"}}, namespace=namespace, content_type=STRATEGIC_PATCH)
    assert (await client.get(CONFIG, "one", namespace=namespace))["data"] == {"value": "2", "more": "3"}


async def test_it_writes_subresources_and_tries_without_doing(client: Client, namespace: str) -> None:
    tried = await client.create(CONFIG, config("tried"), namespace=namespace, dry_run=True)
    assert tried["metadata"]["uid"]
    with pytest.raises(NotFoundError):
        await client.get(CONFIG, "tried", namespace=namespace)
    condition = {"type": "Tried", "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    await client.patch(NAMESPACE, namespace, {"status": {"conditions": [condition]}}, subresource="status", content_type=STRATEGIC_PATCH)
    found = await client.get(NAMESPACE, namespace)
    assert [each["type"] for each in found["status"]["conditions"]] == ["Tried"]


async def test_a_service_accounts_token_is_read_again_when_it_was_replaced(
    cluster: EmbeddedCluster, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes(cluster.pki.ca.read_bytes())
    (tmp_path / "token").write_text("out-of-date")
    host, port = cluster.server.removeprefix("https://").split(":")
    async with Client.in_cluster(service_account_dir=str(tmp_path), host=host, port=port) as client:
        with pytest.raises(ForbiddenError):
            await client.get(NAMESPACE, namespace)
        (tmp_path / "token").write_text(cluster.token() + "\n")
        os.utime(tmp_path / "token", (1, 1))
        assert (await client.get(NAMESPACE, namespace))["metadata"]["name"] == namespace
        (tmp_path / "token").unlink()  # being replaced at this moment
        assert (await client.get(NAMESPACE, namespace))["metadata"]["name"] == namespace
        (tmp_path / "token").write_text("")
        assert (await client.get(NAMESPACE, namespace))["metadata"]["name"] == namespace


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
def test_a_directory_that_is_no_service_accounts_is_said_so(tmp_path: Path, missing: str) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(ClusterError, match="no certificate authority"):
        Client.in_cluster(service_account_dir=str(tmp_path), host="h", port="1")
    (tmp_path / missing).unlink()
    with pytest.raises(ClusterError, match="no service account token"):
        Client.in_cluster(service_account_dir=str(tmp_path), host="h", port="1")


async def test_a_kubeconfig_with_a_credential_plugin_works(cluster: EmbeddedCluster, namespace: str, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": cluster.token()}}
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    plugin.chmod(0o700)
    content = yaml.safe_load(cluster.kubeconfig().read_text())
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    content["users"][0]["user"] = {"exec": command}
    content["clusters"][0]["cluster"] = {
        "server": cluster.server,
        "certificate-authority-data": base64.b64encode(cluster.pki.ca.read_bytes()).decode(),
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    async with await Client.from_kubeconfig(path) as client:
        assert (await client.get(NAMESPACE, namespace))["metadata"]["name"] == namespace
    with pytest.raises(InputError):
        await Client.from_kubeconfig(path, "no-such-context")


async def test_no_redirect_is_followed_whatever_is_asked() -> None:
    asked: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path_qs}")
        return web.Response(text="{}")

    async def redirects(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://127.0.0.1:{other.port}/stolen")

    async with TestServer(_answering(elsewhere)) as other, TestServer(_answering(redirects)) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with Client(server=url, context=ssl.create_default_context(), token=Token(text="secret")) as client:
            with pytest.raises(ApiError) as refused:
                await client.get(NAMESPACE, "default")
            assert refused.value.code == 307
            with pytest.raises(ApiError) as refused:
                async for _ in client.watch(NAMESPACE, version="1"):
                    pass
            assert refused.value.code == 307
    assert asked == []


def _answering(handler: Any) -> web.Application:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    return app


async def test_every_call_has_a_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with Client(server=url, context=ssl.create_default_context(), token=Token(), timeout=0.2) as client:
            with pytest.raises(UnreachableError, match="no answer"):
                await client.get(NAMESPACE, "default")
            with pytest.raises(UnreachableError):
                async for _ in client.watch(NAMESPACE, version="1", silence=0.2):
                    pass


def test_what_reads_a_kubeconfig_is_loaded_only_for_one() -> None:
    code = "import sys, mlwarden.admission.serve; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
