"""What the chart renders, judged by mlwarden itself."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from mlwarden import __version__, policy, workloads
from mlwarden.cli import check
from mlwarden.controllers import generated, names
from mlwarden.controllers.install import crds
from mlwarden.embedded import build, pki, tables
from mlwarden.embedded.installed import chart
from mlwarden.evidence.registries import Registries
from mlwarden.evidence.room import at_once
from mlwarden.model.policy import Settings
from mlwarden.model.reference import parse
from mlwarden.scanner.main import _parser as scanner_parser

PARTS = ("agent", "worker", "verifier")


@pytest.fixture(scope="module")
def private_ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pki.make(tmp_path_factory.mktemp("pki")).ca.read_text().strip()


def test_its_own_pods_pass_the_production_pack(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    build.binary("helm")
    monkeypatch.setenv("PATH", build.tools_path(), prepend=":")
    code = check.main([str(chart()), "--profile", "production"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert " 0 denied" in said
    assert "Deployment default/mlwarden-webhook" in said  # a note that its image was not scanned yet: it was looked at


def rendered(tmp_path: Path, /, trusted: Any = None, **values: Any) -> dict[tuple[str, str], dict[str, Any]]:
    """The chart's objects by kind and name; `values` are those of the scanner."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"scanner": values} | ({} if trusted is None else {"trustedRegistries": trusted})))
    done = subprocess.run(
        [build.binary("helm"), "template", "mlwarden", chart(), "--values", file], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    objects = [obj for obj in yaml.safe_load_all(done.stdout) if obj]
    return {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}


def container(objects: dict[tuple[str, str], dict[str, Any]], name: str) -> dict[str, Any]:
    spec = objects["Deployment", "mlwarden-scanner"]["spec"]["template"]["spec"]
    (found,) = [each for each in spec["containers"] if each["name"] == name]
    return found


def mounted(objects: dict[tuple[str, str], dict[str, Any]], name: str) -> set[str]:
    return {mount["name"] for mount in container(objects, name)["volumeMounts"]}


def test_secrets_of_pods_are_read_only_where_the_administrator_says_so_and_by_the_agent_alone(tmp_path: Path) -> None:
    def reads(objects: dict[tuple[str, str], dict[str, Any]], name: str) -> list[dict[str, Any]]:
        return [rule for rule in objects["ClusterRole", name]["rules"] if "secrets" in rule["resources"]]

    off, on = rendered(tmp_path), rendered(tmp_path, podPullSecrets=True)
    every = [name for kind, name in on if kind == "ClusterRole"]
    assert all(reads(off, name) == [] for name in every)
    assert {name: reads(on, name) for name in every if reads(on, name)} == {
        "mlwarden-scanner": [{"apiGroups": [""], "resources": ["secrets", "serviceaccounts"], "verbs": ["get"]}]
    }
    assert "--pod-pull-secrets" in container(on, "agent")["args"]
    assert "--pod-pull-secrets" not in container(off, "agent")["args"] + container(on, "worker")["args"]
    assert "token" not in mounted(on, "worker")


def test_registries_reach_the_worker_as_it_reads_them(tmp_path: Path, private_ca: str) -> None:
    hosts = {
        "docker.io": {"mirrors": ["mirror.example.com:5000/hub"], "tags": True},
        "mirror.example.com:5000": {"ca": private_ca, "realms": ["tokens.example.com"]},
        "plain.example.com": {"plainHTTP": True},
    }
    objects = rendered(tmp_path, registries=hosts)
    file = tmp_path / "registries.yaml"
    file.write_text(objects["ConfigMap", "mlwarden-registries"]["data"]["registries.yaml"])
    found = Registries.load(file)
    places = found.places(parse("nginx:1"), tag=True)
    assert [place.name for place in places] == ["mirror.example.com:5000/hub/library/nginx", "docker.io/library/nginx"]
    assert found.authorities == {"mirror.example.com:5000": private_ca}
    assert found.plain == {"plain.example.com"}
    for name in ("worker", "verifier"):
        assert "--registries=/etc/mlwarden/registries/registries.yaml" in container(objects, name)["args"]
        assert {"registries"} <= mounted(objects, name)
    before = rendered(tmp_path)["Deployment", "mlwarden-scanner"]["spec"]["template"]["metadata"]["annotations"]
    after = objects["Deployment", "mlwarden-scanner"]["spec"]["template"]["metadata"]["annotations"]
    assert before != after  # so that the pods are rolled


def test_a_pull_secret_for_every_image_is_mounted_where_it_is_used(tmp_path: Path) -> None:
    objects = rendered(tmp_path, pullSecret="regcred")
    for name in ("worker", "verifier"):
        assert "--docker-config=/etc/mlwarden/pull/.dockerconfigjson" in container(objects, name)["args"]
        assert "pull" in mounted(objects, name)
    assert "pull" not in mounted(objects, "agent") | mounted(rendered(tmp_path), "worker")


@pytest.mark.parametrize(
    "values",
    [
        {"registries": {"docker.io": {"insecure": True}}},
        {"registries": {"docker.io": {"caFile": "/etc/x"}}},
        {"registries": {"docker.io": {"mirrors": "mirror.example.com"}}},
        {"registries": {"https://docker.io": {}}},
        {"registries": {"docker.io": {"ca": "no PEM"}}},
        {"podPullSecrets": "yes"},
    ],
)
def test_values_that_mean_nothing_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="values don't meet the specifications"):
        rendered(tmp_path, **values)


def test_trust_roots_and_keys_reach_those_who_read_them_and_nobody_else(tmp_path: Path) -> None:
    objects = rendered(tmp_path, trustRoots={"": "{}", "ours": '{"a": 1}'}, keySecrets=["release-key"])
    assert objects["ConfigMap", "mlwarden-trust-roots"]["data"] == {"public.json": "{}", "ours.json": '{"a": 1}'}
    arguments = container(objects, "verifier")["args"]
    assert {
        "--trust-root==/etc/mlwarden/trust-roots/public.json",
        "--trust-root=ours=/etc/mlwarden/trust-roots/ours.json",
    } <= set(arguments)
    assert "trust-roots" in mounted(objects, "verifier") - mounted(objects, "worker") - mounted(objects, "agent")
    assert objects["Role", "mlwarden-scanner"]["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["release-key"], "verbs": ["get"]}
    ]
    assert objects["RoleBinding", "mlwarden-scanner"]["subjects"][0]["name"] == "mlwarden-scanner"
    assert ("Role", "mlwarden-scanner") not in rendered(tmp_path)


def test_the_database_and_the_packages_of_images_are_kept_where_the_administrator_says(tmp_path: Path) -> None:
    objects = rendered(
        tmp_path, cacheClaim="cache", scanners=["secret"], database={"repositories": ["mirror.example.com/db:2"], "every": 60}
    )
    arguments = container(objects, "worker")["args"]
    assert {
        "--trivy-cache=/cache/trivy",
        "--sboms=/cache/packages",
        "--scanners=secret",
        "--db-repository=mirror.example.com/db:2",
        "--database-every=60",
    } <= set(arguments)
    assert "cache" in mounted(objects, "worker")
    with pytest.raises(RuntimeError, match="scanners"):
        rendered(tmp_path, scanners=["license"])


def test_the_worker_has_no_token_and_a_root_filesystem_that_it_cannot_write(tmp_path: Path) -> None:
    objects = rendered(tmp_path)
    spec = objects["Deployment", "mlwarden-scanner"]["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "token" not in mounted(objects, "worker")
    security = container(objects, "worker")["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_who_verifies_shares_nothing_with_who_reads_layers(tmp_path: Path) -> None:
    objects = rendered(tmp_path, trustRoots={"ours": "{}"}, cacheClaim="cache")
    spec = objects["Deployment", "mlwarden-scanner"]["spec"]["template"]["spec"]
    assert mounted(objects, "worker") & mounted(objects, "verifier") == {"registries"}  # a ConfigMap
    assert mounted(objects, "agent") == {"worker-socket", "verifier-socket", "token"}
    users = [container(objects, name)["securityContext"].get("runAsUser", spec["securityContext"]["runAsUser"]) for name in PARTS]
    assert len(set(users)) == 3
    assert 0 not in users
    assert not spec.get("shareProcessNamespace")
    options = {name: dict(each[2:].split("=", 1) for each in container(objects, name)["args"] if "socket=" in each) for name in PARTS}
    assert options["agent"] == {"socket": options["worker"]["socket"], "verifier-socket": options["verifier"]["socket"]}
    for name in PARTS:
        path, mounts = options[name]["socket"], container(objects, name)["volumeMounts"]
        assert next(each["name"] for each in mounts if path.startswith(each["mountPath"])) == f"{name.replace('agent', 'worker')}-socket"
        scanner_parser(name).parse_args(container(objects, name)["args"][2:])


def test_the_scanner_reaches_registries_and_the_api_server_and_nothing_else(tmp_path: Path) -> None:
    objects = rendered(tmp_path)
    (egress,) = [obj for (kind, name), obj in objects.items() if kind == "NetworkPolicy" and "scanner" in name]
    ports = {port.get("port") for rule in egress["spec"]["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 6443}


@pytest.mark.parametrize("name", ["worker", "verifier"])
def test_what_touches_hostile_bytes_has_no_token_no_rights_and_a_scratch_directory_with_an_end(tmp_path: Path, name: str) -> None:
    objects = rendered(tmp_path)
    spec = objects["Deployment", "mlwarden-scanner"]["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "token" not in mounted(objects, name)
    assert {each["name"] for each in container(objects, name)["env"]} == {"TMPDIR"}
    security = container(objects, name)["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    (scratch,) = [volume for volume in spec["volumes"] if volume["name"] == f"{'verifier-' if name == 'verifier' else ''}scratch"]
    assert scratch["emptyDir"] == {"sizeLimit": "20480Mi" if name == "worker" else "1Gi"}
    assert "--scratch-size=16384" in container(objects, "worker")["args"]


def test_as_many_scans_as_are_asked_for_fit_into_the_memory_that_the_worker_has(tmp_path: Path) -> None:
    worker = container(rendered(tmp_path), "worker")
    assert worker["resources"]["limits"]["memory"] == "5Gi"
    heap = next(action.default for action in scanner_parser("worker")._actions if action.dest == "scan_memory")
    asked = [int(argument.partition("=")[2]) for argument in worker["args"] if "workers=" in argument]
    assert at_once(heap << 20, memory=5 << 30) == sum(asked)
    assert [argument for argument in container(rendered(tmp_path), "agent")["args"] if "workers=" in argument] == [
        argument for argument in worker["args"] if "workers=" in argument
    ]


def test_the_scanner_reaches_name_servers_the_api_server_and_registries_and_nothing_else(tmp_path: Path) -> None:
    spec = rendered(tmp_path)["NetworkPolicy", "mlwarden-scanner"]["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert all(set(rule) == {"ports"} for rule in spec["egress"])
    assert {(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]} == {
        *(("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 6443)),
    }
    assert [port for rule in spec["ingress"] for port in rule["ports"]] == [{"protocol": "TCP", "port": 8081}]


def test_the_chart_knows_since_when_each_shipped_policy_is_what_it_is() -> None:
    assert tables.path("packs.yaml").read_text() == tables.packs(), "python -m mlwarden.embedded.tables"


@pytest.mark.parametrize("component", ["controller", "releaser"])
def test_who_writes_events_may_read_every_kind_of_the_table_that_a_pod_may_belong_to(tmp_path: Path, component: str) -> None:
    rules = rendered(tmp_path)["ClusterRole", f"mlwarden-{component}"]["rules"]
    readable = {
        (group, resource) for rule in rules if "get" in rule["verbs"] for group in rule["apiGroups"] for resource in rule["resources"]
    }
    assert {(row.group, row.resource) for row in workloads.sent() if row.kind != "PodTemplate"} <= readable
    assert {(row.group, row.resource) for row in workloads.KINDS if not row.namespaced}.isdisjoint(readable)
    assert tables.path("owners.yaml").read_text() == tables.owners(), "python -m mlwarden.embedded.tables"
    assert ("", "podtemplates") not in readable


@pytest.mark.parametrize("trusted", [[], ["registry.example.com", "docker.io/pytorch", "localhost:5000/team/", "[::1]:5000/a/**"]])
def test_whose_images_are_trusted_reaches_every_process_as_it_was_written(tmp_path: Path, trusted: list[str]) -> None:
    settings = yaml.safe_load(rendered(tmp_path, trusted)["ConfigMap", "mlwarden-settings"]["data"]["settings.yaml"])
    assert settings["trustedRegistries"] == trusted
    assert policy.shipped(tuple(trusted))


@pytest.mark.parametrize("trusted", ["registry.example.com", ["https://r.example.com"], ["r.example.com/Team"], ["r*.example.com"], [""]])
def test_what_is_no_registry_is_not_installed(tmp_path: Path, trusted: Any) -> None:
    with pytest.raises(RuntimeError, match="values don't meet the specifications"):
        rendered(tmp_path, trusted)


def test_the_controller_writes_by_name_and_may_write_what_it_generates(tmp_path: Path) -> None:
    assert tables.path("names.yaml").read_text() == tables.written(), "python -m mlwarden.embedded.tables"
    rules = rendered(tmp_path)["ClusterRole", "mlwarden-controller"]["rules"]
    about = [rule for rule in rules if "admissionregistration.k8s.io" in rule["apiGroups"] or rule["resources"] == ["wardenpolicies"]]
    writing = [rule for rule in about if not set(rule["verbs"]) <= {"get", "list", "watch"}]
    granted = {resource: set(rule["resourceNames"]) for rule in writing for resource in rule["resources"]}
    assert granted == {plural: set(found) for plural, found in names.known().items()}
    assert len(writing) == len(granted)


@pytest.mark.parametrize("rollout", ["enforce", "audit"])
@pytest.mark.parametrize("gate", ["policy", "webhook"])
@pytest.mark.parametrize("profiles", [{"baseline": False, "production": True}, {"a": True}])
def test_whatever_the_settings_it_generates_nothing_under_another_name(rollout: str, gate: str, profiles: dict[str, bool]) -> None:
    settings = Settings(rollout=rollout, profiles=profiles, default_profile=min(profiles), require_profile=True)
    own = [msgspec.structs.replace(each, name=f"own-{each.name}") for each in policy.shipped()]
    compiled = [policy.compile_policy(each) for each in (*policy.shipped(), *own)]
    made = names.placed(generated.after_gate(settings, compiled, enforced=gate == "policy"), ())
    objects = [*generated.before_gate(settings, b"", enforced=gate == "policy"), *made]
    known = names.known()
    assert not [obj["metadata"]["name"] for obj in objects if obj["metadata"]["name"] not in known[generated.KINDS[obj["kind"]].plural]]
    assert len({(obj["kind"], obj["metadata"]["name"]) for obj in objects}) == len(objects)
    assert {names.whose(obj) for obj in made} - {""} == {each.name for each in own if not policy.not_compiled(each)}


def test_a_policy_keeps_its_place_and_takes_an_empty_one_before_one_that_was_left() -> None:
    any_ = next(each for each in policy.shipped() if not policy.not_compiled(each))
    own = [policy.compile_policy(msgspec.structs.replace(any_, name=name)) for name in ("b", "c")]
    made = generated.after_gate(Settings(), own, enforced=True)
    stored = [
        {"metadata": {"name": place, "annotations": {names.POLICY_OF: whose}}}
        for place, whose in (("mlwarden-own-00", "left"), ("mlwarden-own-07", "c"))
    ]
    places = {names.whose(obj): obj["metadata"]["name"] for obj in names.placed(made, stored) if names.whose(obj)}
    assert places == {"b": "mlwarden-own-01", "c": "mlwarden-own-07"}
    full = [{"metadata": {"name": place, "annotations": {names.POLICY_OF: "left"}}} for place in names.PLACES]
    assert len([obj for obj in names.placed(made, full) if names.whose(obj)]) == 2


def test_the_charts_version_is_the_programs(tmp_path: Path) -> None:
    labels = rendered(tmp_path)["ConfigMap", "mlwarden-settings"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/version"] == __version__


PAGES = sorted({*(chart().parents[1] / "docs").glob("*.md")} - {tables.document()})  # the fields of that one are those of others' kinds


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_documentation_names_values_and_fields_that_exist(page: Path) -> None:
    values = yaml.safe_load((chart() / "values.yaml").read_text())
    schemas = [crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in crds()]
    for name in re.findall(r"`([a-z][A-Za-z]*(?:\.[A-Za-z]+)+)(?:: [^`]*)?`", page.read_text()):
        if name.endswith(".mlwarden.io"):
            continue
        first, *rest = name.split(".")
        if first in values and isinstance(values[first], dict):
            assert _walk(values, [first, *rest], lambda found: found), name
        elif first in {"spec", "status"}:
            assert any(_walk(schema, [first, *rest], lambda found: found.get("properties", {})) for schema in schemas), name


def _walk(found: dict[str, Any], names: list[str], below: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    for name in names:
        if not isinstance(found, dict) or name not in below(found):
            return False
        found = below(found)[name]
    return True


def test_from_where_the_webhook_may_be_asked_is_said_only_where_somebody_knows_and_probes_are_for_all(tmp_path: Path) -> None:
    def ingress(**values: Any) -> list[dict[str, Any]]:
        file = tmp_path / "values.yaml"
        file.write_text(yaml.safe_dump({"networkPolicy": values}))
        done = subprocess.run(
            [build.binary("helm"), "template", "mlwarden", chart(), "--values", file], capture_output=True, text=True, check=True
        )
        objects = [obj for obj in yaml.safe_load_all(done.stdout) if obj and obj["kind"] == "NetworkPolicy"]
        (found,) = [obj["spec"]["ingress"] for obj in objects if obj["metadata"]["name"] == "mlwarden-webhook"]
        return list(found)

    probes = {"ports": [{"protocol": "TCP", "port": 8081}]}
    reviews = {"ports": [{"protocol": "TCP", "port": 8443}]}
    control_plane = [{"ipBlock": {"cidr": "10.0.0.0/28"}}]
    assert ingress() == [probes, reviews]
    assert ingress(webhookFrom=control_plane) == [probes, {**reviews, "from": control_plane}]


def test_templates_of_every_kind_of_the_table_are_seen_by_the_controller_and_by_nobody_else(tmp_path: Path) -> None:
    objects = rendered(tmp_path)
    table = {(row.group, row.resource) for row in workloads.sent() if row.resource not in {"pods", "podtemplates"}}

    def watched(name: str) -> set[tuple[str, str]]:
        rules = [rule for rule in objects["ClusterRole", name]["rules"] if {"list", "watch"} <= set(rule["verbs"])]
        return {(group, plural) for rule in rules for group in rule["apiGroups"] for plural in rule["resources"]} & table

    assert watched("mlwarden-controller") == table
    assert [watched(f"mlwarden-{each}") for each in ("webhook", "releaser", "scanner")] == [set()] * 3
