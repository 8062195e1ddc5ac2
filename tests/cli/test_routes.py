"""Acceptance checks 1 to 7: fixed routes, the document, prefixes, and what each mode serves."""

import http.server
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from world import APP, World

LOCKED = [
    ("POST", "/v2/users"),
    ("GET", "/v2/users/me"),
    ("GET", "/v2/orgs/local"),
    ("PATCH", "/v2/orgs/local"),
    ("POST", "/v2/orgs/local/join"),
    ("POST", "/v2/orgs/local/secrets"),
    ("GET", "/v2/orgs/local/members"),
    ("DELETE", "/v2/orgs/local/members/somebody"),
    ("GET", "/v2/orgs/local/domain-claims"),
    ("POST", "/v2/orgs/local/domain-claims"),
    ("DELETE", "/v2/orgs/local/domain-claims/example.com"),
    ("GET", "/v2/orgs/local/roles"),
    ("POST", "/v2/orgs/local/roles"),
    ("DELETE", "/v2/orgs/local/roles/some"),
    ("PUT", "/v2/orgs/local/members/somebody/roles/some"),
]


def test_open_routes_need_no_credential(world: World) -> None:
    assert world.http("GET", "/healthz", token="").status_code == 200
    document = world.http("GET", "/openapi.json", token="").json()
    assert document["openapi"].startswith("3.1") and len(document["paths"]) > 40
    assert world.http("GET", "/openapi.yaml", token="").text.count("operationId:") > 60
    downgraded = world.http("GET", "/openapi-3.0.json", token="").json()
    assert downgraded["openapi"].startswith("3.0")
    assert world.http("GET", "/docs", token="").headers["content-type"].startswith("text/html")
    schema = world.http("GET", "/schemas/Application.json", token="").json()
    assert schema["properties"]["executorTimeoutSecs"]


def test_the_downgraded_document_is_valid(world: World) -> None:
    from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

    OpenAPIV30SpecValidator(world.http("GET", "/openapi-3.0.json", token="").json()).validate()
    OpenAPIV31SpecValidator(world.http("GET", "/openapi.json", token="").json()).validate()


@pytest.fixture
def prefixed(world: World) -> Iterator[str]:
    """A proxy that serves the API under /conductor-api and strips that prefix."""

    class Proxy(http.server.BaseHTTPRequestHandler):
        def relay(self) -> None:
            assert self.path.startswith("/conductor-api/")
            length = int(self.headers.get("content-length") or 0)
            request = urllib.request.Request(
                world.url + self.path.removeprefix("/conductor-api"),
                data=self.rfile.read(length) if length else None,
                method=self.command,
                headers={
                    name: value
                    for name, value in self.headers.items()
                    if name.lower() not in ("host", "connection")
                },
            )
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                answer = opener.open(request, timeout=30)
            except urllib.error.HTTPError as error:
                answer = error
            body = answer.read()
            self.send_response(answer.status)
            for name in ("content-type", "location"):
                if value := answer.headers.get(name):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = relay  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/conductor-api"
    server.shutdown()


def test_works_under_a_stripped_prefix(world: World, prefixed: str) -> None:
    ctl = world.ctl.with_environment(DBOS_URL=prefixed)
    assert APP in [row["name"] for row in ctl.list("app", "list")]
    ctl("app", "get", "nope", code=4)


def test_location_does_not_leave_the_prefix(world: World, shop: object, prefixed: str) -> None:
    """A path that is absolute would: it has to be relative, or made from X-Forwarded-Prefix."""
    shop.start("buy", "for-location", "tea")  # type: ignore[attr-defined]
    world.await_status("for-location", "SUCCESS")
    request = urllib.request.Request(
        f"{prefixed}{world.app}/workflows/for-location/fork",
        data=b"{}",
        method="POST",
        headers={
            "content-type": "application/json",
            "authorization": f"Bearer {world.token}",
            "x-forwarded-prefix": "/conductor-api",
        },
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as answer:
        assert answer.status == 201
        fork = json.load(answer)["workflowId"]
        assert answer.headers["location"] == f"/conductor-api{world.app}/workflows/{fork}"


@pytest.mark.modes("none", "keys")
@pytest.mark.parametrize(("method", "path"), LOCKED)
def test_identity_operations_are_unknown_without_oidc(world: World, method: str, path: str) -> None:
    world.http(method, path, 404)


@pytest.mark.modes("none")
def test_no_audit_log_without_credentials(world: World) -> None:
    world.http("GET", "/v2/orgs/local/audit-logs", 404)


def test_unknown_paths_are_problems(world: World) -> None:
    for path in ("/v2/nonsense", "/v1/nonsense", "/v1alpha1/nonsense"):
        world.http("GET", path, 404)
    assert world.http("DELETE", f"/v2/orgs/{world.org}/apps", None).status_code in (404, 405)


@pytest.mark.modes("none")
def test_junk_credentials_are_ignored_without_authentication(world: World) -> None:
    assert world.ctl_as("junk").list("app", "list")


@pytest.mark.modes("keys", "oidc")
def test_exit_codes_of_refusals(world: World) -> None:
    assert world.ctl_as("")("app", "list", code=None).code == 3
    world.http("GET", f"/v2/orgs/{world.org}/apps", 401, token="")
    limited = world.ctl("api-key", "create", "limited", "--permission", "metric.read").out.strip()
    world.ctl_as(limited)("app", "list", code=1)
    world.http("GET", f"/v2/orgs/{world.org}/apps", 403, token=limited)
    revoked = world.ctl("api-key", "create", "revoked", "--permission", "application.read").out.strip()
    assert world.ctl_as(revoked).list("app", "list")
    world.ctl("api-key", "delete", "revoked")
    world.ctl_as(revoked)("app", "list", code=3)


@pytest.mark.modes("none")
def test_python_clients_can_be_generated(world: World, tmp_path: Path) -> None:
    """openapi-python-client reads the whole document, and what it writes can be imported and used."""
    document = tmp_path / "openapi.json"
    document.write_bytes(world.http("GET", "/openapi.json", token="").content)
    generate = [
        *(sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document)),
        *("--meta", "none", "--output-path", str(tmp_path / "conductor"), "--fail-on-warning"),
    ]
    settings = tmp_path / "settings.yaml"
    settings.write_text("post_hooks: []\n")
    done = subprocess.run(
        [*generate, "--config", str(settings)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    use = (
        "import pkgutil, importlib, conductor\n"
        "for each in pkgutil.walk_packages(conductor.__path__, 'conductor.'):\n"
        "    importlib.import_module(each.name)\n"
        "from conductor import Client\n"
        "from conductor.api.applications import list_apps, get_app\n"
        f"client = Client(base_url='{world.url}')\n"
        "assert 'shop' in [app.name for app in list_apps.sync('local', client=client)]\n"
        "assert get_app.sync('local', 'nope', client=client).status == 404\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", use], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
