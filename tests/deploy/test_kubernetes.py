"""The chart: linted, rendered in every shape, each object checked against Kubernetes' own schemas."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from harness.server import program
from tools import ROOT, run, tool

CHART = ROOT / "deploy" / "helm" / "segno"
PLAIN = ROOT / "deploy" / "kubernetes"
#: The oldest release that the chart allows, and the newest that the package of schemas knows.
RELEASES = ["1.27", "1.37"]
#: Kinds of add-ons, which are not in those schemas.
ELSEWHERE = {"HTTPRoute", "ServiceMonitor", "ScaledObject", "TriggerAuthentication"}

POSTGRES = {"database": {"existingSecret": "db"}, "auth": {"adminKey": {"existingSecret": "admin"}}}
SHAPES: dict[str, dict[str, Any]] = {
    "embedded": {},
    "postgres": POSTGRES,
    "url": {"database": {"url": "postgres://segno:secret@db/segno", "migration": "none"}},
    "everything": {
        "replicas": 3,
        "image": {"digest": "sha256:" + "a" * 64},
        "imagePullSecrets": [{"name": "pull"}],
        "database": {"existingSecret": "db", "migration": "hook"},
        "auth": {
            "mode": "oidc",
            "adminKey": {"existingSecret": "admin"},
            "oidc": {"issuer": "https://l/x", "audience": "a", "clientId": "c", "scopes": "openid profile"},
        },
        "encryptionKey": {"existingSecret": "enc"},
        "config": {"log": "debug", "max_connections": 20000, "trusted_proxies": ["10.0.0.1"], "alert_allow_http": True},
        "ingress": {"enabled": True, "className": "nginx", "tls": [{"secretName": "t", "hosts": ["segno.example.com"]}]},
        "gateway": {"enabled": True, "parentRefs": [{"name": "public"}]},
        "networkPolicy": {
            "enabled": True,
            "from": [{"namespaceSelector": {}}],
            "egress": [{"ports": [{"port": 5432, "protocol": "TCP"}]}],
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "extraEnv": [{"name": "A", "value": "b"}],
        "extraEnvFrom": [{"configMapRef": {"name": "x"}}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ssl/certs"}],
        "priorityClassName": "high",
        "nodeSelector": {"a": "b"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"a": "b"},
        "podLabels": {"team": "x"},
    },
}
#: Values that are refused, and what the refusal names.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 2}, "needs PostgreSQL"),
    ({"replicas": 2, "database": {"existingSecret": "db"}}, "auth.adminKey.existingSecret"),
    ({"database": {"url": "postgres://x", "migration": "hook"}}, "database.migration"),
    ({"auth": {"mode": "oidc"}}, "issuer and audience"),
    ({"auth": {"mode": "password"}}, "auth"),
    ({"replica": 2}, "replica"),
    ({"database": {"url": "mysql://x"}}, "url"),
    ({"gateway": {"enabled": True}}, "parentRefs"),
]


def rendered(values: dict[str, Any], tmp_path: Path, release: str = RELEASES[-1]) -> list[dict[str, Any]]:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    text = run(tool("helm"), "template", "x", CHART, "--kube-version", f"{release}.0", "--values", file)
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [each for each in objects if each["kind"] == kind]
    assert len(found) == 1, f"one {kind} among {[each['kind'] for each in objects]}"
    return found[0]


def check(objects: list[dict[str, Any]], release: str) -> None:
    assert objects
    for each in objects:
        if each["kind"] in ELSEWHERE:
            continue
        kubernetes_validate.validate(each, release, strict=True)


def test_helm_lints_the_chart() -> None:
    run(tool("helm"), "lint", "--strict", "--kube-version", f"{RELEASES[-1]}.0", CHART)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_what_kubernetes_takes(shape: str, release: str, tmp_path: Path) -> None:
    check(rendered(SHAPES[shape], tmp_path, release), release)


def test_the_check_can_fail() -> None:
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, RELEASES[-1], strict=True)


@pytest.mark.parametrize(("values", "named"), REFUSED, ids=str)
def test_what_cannot_work_is_refused(values: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as refusal:
        rendered(values, tmp_path)
    assert named in str(refusal.value)


def test_a_pod_is_locked_down_and_finds_its_peers(tmp_path: Path) -> None:
    pod = of_kind(rendered(SHAPES["everything"], tmp_path), "Deployment")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    security = container["securityContext"]
    assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"]
    assert security["capabilities"] == {"drop": ["ALL"]} and not security["allowPrivilegeEscalation"]
    environment = {each["name"]: each for each in container["env"]}
    assert environment["POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    assert environment["SEGNO_ADVERTISE_ADDRESS"]["value"] == "$(POD_IP)"
    names = list(environment)
    assert names.index("POD_IP") < names.index("SEGNO_ADVERTISE_ADDRESS"), "only what came before is replaced"
    # The server lets requests under way end for 25 s.
    assert pod["terminationGracePeriodSeconds"] > 25


def test_secrets_are_files_and_in_no_environment(tmp_path: Path) -> None:
    objects = rendered(SHAPES["url"] | {"encryptionKey": {"existingSecret": "e"}}, tmp_path)
    assert of_kind(objects, "Secret")["stringData"]["database-url"].startswith("postgres://")
    assert "secret@db" not in json.dumps(of_kind(objects, "Deployment"))


def test_the_settings_become_toml_that_the_server_reads(tmp_path: Path) -> None:
    values = SHAPES["everything"]
    text = of_kind(rendered(values, tmp_path), "ConfigMap")["data"]["segno.toml"]
    assert tomllib.loads(text) == values["config"]
    file = tmp_path / "segno.toml"
    file.write_text(text)
    told = run(program(), "config", "check", "--config", file, env={})
    assert re.search(r"max_connections +20000 +.*segno.toml", told), told


def test_the_plain_manifests_are_what_the_chart_renders(tmp_path: Path) -> None:
    fresh = tmp_path / "segno.yaml"
    run(PLAIN / "render.sh", fresh, env={"HELM": str(tool("helm")), "PATH": "/usr/bin:/bin"})
    assert fresh.read_text() == (PLAIN / "segno.yaml").read_text(), "run deploy/kubernetes/render.sh"
    check([each for each in yaml.safe_load_all(fresh.read_text()) if each], RELEASES[-1])

