"""The compose files: read by compose's own parser, and run."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from harness import eventually
from tools import ROOT, run, tool
from topology import Service, Topology

BASE, TWO, OIDC = "compose.yaml", "compose.two-instances.yaml", "compose.oidc.yaml"


class Api:
    """The server's API as `asker`'s network sees it."""

    def __init__(self, topology: Topology, asker: str, base: str) -> None:
        self._asker = topology.services[asker]
        host, port = base.split(":")
        self._base = f"http://{topology.services[host].address}:{port}"
        self._key = topology.secret("admin_key")

    def get(self, path: str, key: str | None = None) -> Any:
        """The decoded answer, or None while there is none."""
        headers = {"Authorization": f"Bearer {key or self._key}"}

        def ask() -> Any:
            try:
                answer = httpx.get(self._base + path, headers=headers, timeout=10, trust_env=False)
            except httpx.TransportError:
                return None
            return answer.json() if answer.status_code == 200 else None

        return self._asker.within(ask)

    def executors(self, app: str) -> list[str]:
        found = self.get(f"/v2/orgs/local/apps/{app}/executors") or []
        return [each["status"] for each in found]

    def finished(self, app: str) -> set[str]:
        """The newest workflows that ended well."""
        path = f"/v2/orgs/local/apps/{app}/workflows?status=SUCCESS&limit=100&sortDesc=true"
        return {each["workflowId"] for each in self.get(path) or []}


@pytest.mark.parametrize("files", [[BASE], [BASE, TWO], [BASE, OIDC]], ids="+".join)
def test_composes_own_parser_accepts_the_files(files: list[str]) -> None:
    model = json.loads(run(tool("compose"), *files, cwd=ROOT / "deploy", env={"PATH": "/usr/bin:/bin"}))
    for name, service in model["services"].items():
        if name not in ("setup", "orders", "checkout"):
            assert service.get("healthcheck"), f"{name} has a health check"
        for other, how in (service.get("depends_on") or {}).items():
            assert how["condition"] != "service_started", f"{name} waits until {other} works"
    servers = [each for each in model["services"].values() if each["image"].startswith("segno:")]
    assert all(each["read_only"] and each["cap_drop"] == ["ALL"] for each in servers)
    # A secret is in a file, never in the environment.
    environment = json.dumps([each.get("environment") for each in model["services"].values()])
    assert not re.search(r"dbos_[0-9a-f]{10}|postgres(ql)?://", environment)


def test_the_example_settings_are_those_of_the_files() -> None:
    used = set()
    for file in (BASE, TWO, OIDC):
        used |= set(re.findall(r"(?<!\$)\$\{([A-Z_]+):-([^}]*)\}", (ROOT / "deploy" / file).read_text()))
    example = (ROOT / "deploy" / ".env.example").read_text()
    assert set(re.findall(r"^#([A-Z_]+)=(.*)$", example, re.MULTILINE)) == used


def working(api: Api) -> None:
    for app in ("orders", "checkout"):
        eventually(
            lambda app=app: api.executors(app),
            lambda seen: "HEALTHY" in seen,
            within=150,
            what=f"an executor of {app}",
        )
        before = api.finished(app)
        eventually(
            lambda app=app: api.finished(app), lambda seen: seen - before, within=150, what=f"workflows of {app}"
        )


def stopped_well(service: Service) -> None:
    assert service.stop() == 0, service.said()[-3000:]
    assert '"stopped"' in service.said()


def test_the_stack_comes_up_works_and_stops(topology: Callable[..., Topology]) -> None:
    stack = topology(BASE)
    stack.up()
    working(Api(stack, "segno", "segno:8090"))
    stopped_well(stack.services["segno"])
    assert stack.secret("admin_key") not in stack.services["segno"].said()


def test_two_instances_behind_a_proxy_outlive_either(topology: Callable[..., Topology]) -> None:
    stack = topology(BASE, TWO)
    stack.up()
    api = Api(stack, "proxy", "proxy:8090")
    working(api)
    # Whichever instance has the executors, both are lost once.
    for name in ("segno", "segno-2"):
        service = stack.services[name]
        service.kill()
        working(api)
        service.start()
        service.wait("service_healthy")
    working(api)


def test_people_log_in_with_the_identity_provider(topology: Callable[..., Topology]) -> None:
    issuer = "http://keycloak.localhost:8081"
    stack = topology(BASE, OIDC, SEGNO_OIDC_ISSUER=issuer)
    audience = "https://segno.example/api"
    provider = stack.services["keycloak"]
    provider.spec["command"] = ["--port", "8081", "--issuer", issuer, "--audience", audience]
    address = f"http://{provider.address}:8081"
    provider.spec["healthcheck"] = {"test": ["CMD", "wget", "-qO/dev/null", "-T3", "-t1", f"{address}/jwks"]}
    stack.up()
    api = Api(stack, "segno", "segno:8090")
    working(api)
    config = api.get("/console/session-config")
    assert config["mode"] == "oidc" and config["oidc"]["issuer"] == issuer
    assert config["oidc"]["authorizationEndpoint"].startswith(issuer)
