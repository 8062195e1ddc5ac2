"""Acceptance checks 58 to 61: people, organisations, roles, the audit log, and what stays apart."""

import re
import subprocess
import threading
from urllib.parse import quote

import pytest
from ctl import Ctl, dbosctl
from harness import eventually
from world import APP, Executor, World

pytestmark = pytest.mark.modes("oidc")


@pytest.fixture(scope="module")
def people(world: World) -> dict[str, str]:
    """Tokens of bob, who joined with a secret, and cat, whose e-mail's domain is claimed."""
    assert world.issuer
    org = f"/v2/orgs/{world.org}"
    tokens = {name: world.issuer.token(name) for name in ("bob", "cat", "dan")}
    world.http("GET", "/v2/users/me", 404, token=tokens["bob"])
    unregistered = world.http("GET", f"{org}/apps", None, token=tokens["bob"])
    assert unregistered.status_code in (403, 404)
    secret = world.http("POST", f"{org}/secrets", 201).json()["secret"]
    joining = {"name": "bobby", "secret": secret}
    world.http("POST", "/v2/users", 201, token=tokens["bob"], json=joining)
    again = world.http("POST", "/v2/users", None, token=tokens["dan"], json={"name": "danny", "secret": secret})
    assert again.status_code in (400, 404), "a secret works once"
    claim = world.http("POST", f"{org}/domain-claims", 201, json={"domain": "corp.example"}).json()
    assert claim["status"] == "approved"
    world.http("POST", "/v2/users", 201, token=tokens["cat"], json={"name": "catty"})
    return tokens


def me(world: World, token: str) -> dict:
    return world.http("GET", "/v2/users/me", token=token).json()


def test_who_is_who(world: World, people: dict[str, str]) -> None:
    mine = me(world, world.token)
    assert (mine["name"], mine["email"], mine["role"]["name"]) == (
        "alice",
        "ann@example.com",
        "organization_admin",
    )
    for name in ("bob", "cat"):
        other = me(world, people[name])
        assert (other["orgName"], other["role"]["name"]) == (world.org, "organization_member")
    members = world.http("GET", f"/v2/orgs/{world.org}/members").json()["users"]
    assert set(members) == {"alice", "bobby", "catty"}
    if dbosctl() is None:  # which asks only after a login, see below
        shown = world.ctl("whoami").out
        assert "alice" in shown and "ann@example.com" in shown


def test_an_unverified_address_claims_nothing(world: World, people: dict[str, str]) -> None:
    """dan's address is of the claimed domain, but nobody has verified that it is his."""
    world.http("POST", "/v2/users", 201, token=people["dan"], json={"name": "danny"})
    assert me(world, people["dan"])["orgName"] != world.org


def test_members_may_not_administer(world: World, people: dict[str, str]) -> None:
    org = f"/v2/orgs/{world.org}"
    bob = people["bob"]
    world.http("GET", f"{org}/members", token=bob)
    for method, tail, body in (
        ("PATCH", "", {"auditLogRetentionDays": 30}),
        ("POST", "/secrets", None),
        ("POST", "/domain-claims", {"domain": "bob.example"}),
        ("POST", "/roles", {"name": "bobs", "permissions": []}),
        ("DELETE", "/members/alice", None),
    ):
        world.http(method, org + tail, 403, token=bob, json=body)


def test_roles(world: World, people: dict[str, str]) -> None:
    org = f"/v2/orgs/{world.org}"
    reader = {"name": "reader", "permissions": ["application.read"]}
    world.http("POST", f"{org}/roles", 201, json=reader)
    world.http("POST", f"{org}/roles", 409, json=reader)
    world.http("POST", f"{org}/roles", 409, json={"name": "organization_admin"})
    world.http("POST", f"{org}/roles", 400, json={"name": "odd", "permissions": ["nope"]})
    world.http("PUT", f"{org}/members/bobby/roles/reader", 204)
    bob = people["bob"]
    world.http("GET", world.app, token=bob)
    world.http("PATCH", world.app, 403, token=bob, json={"executorTimeoutSecs": 61})
    world.http("DELETE", f"{org}/roles/reader", 409)
    world.http("DELETE", f"{org}/roles/organization_member", 403)
    world.http("PUT", f"{org}/members/bobby/roles/organization_member", 204)
    world.http("DELETE", f"{org}/roles/reader", 204)


def test_the_last_administrator_stays(world: World, people: dict[str, str]) -> None:
    org = f"/v2/orgs/{world.org}"
    world.http("PUT", f"{org}/members/alice/roles/organization_member", 409)
    world.http("DELETE", f"{org}/members/alice", 409)


def test_removed_and_back(world: World, people: dict[str, str]) -> None:
    org = f"/v2/orgs/{world.org}"
    gone = world.http("DELETE", f"{org}/members/catty").json()
    assert (gone["name"], gone["email"]) == ("catty", "cat@corp.example")
    answer = world.http("GET", f"{org}/apps", None, token=people["cat"])
    assert answer.status_code in (403, 404)


def test_organisations_stay_apart(world: World, people: dict[str, str], shop: Executor) -> None:
    """dan has an organisation of his own: nothing of this one is his, under either name."""
    dan = people["dan"]
    if world.http("GET", "/v2/users/me", None, token=dan).status_code == 404:
        world.http("POST", "/v2/users", 201, token=dan, json={"name": "danny"})
    own = me(world, dan)["orgName"]
    ruled = world.http(
        "POST", "alerting-rules", 201, json={"ruleType": "SlowQueue", "ruleMetadata": {"threshold_secs": 60}}
    ).json()
    rule = ruled.get("ruleId") or ruled["id"]
    for method, tail, body in (
        ("GET", "", None), ("PATCH", "", {"executorTimeoutSecs": 61}), ("DELETE", "", None),
        ("GET", "/executors", None), ("GET", "/workflows", None), ("POST", "/workflows/search", {}),
        ("POST", "/workflows/x/cancel", {}), ("GET", "/schedules", None), ("GET", "/queues", None),
        ("GET", "/alerting-rules", None), ("DELETE", f"/alerting-rules/{rule}", None),
        ("GET", "/recoveries", None), ("GET", "/stream", None), ("GET", "/operations", None),
    ):  # fmt: skip
        for org in (world.org, own):
            answer = world.http(method, f"/v2/orgs/{org}/apps/{APP}{tail}", None, token=dan, json=body)
            assert answer.status_code in (403, 404), f"{method} {org} {tail}: {answer.text}"
    for tail in ("/tokens", "/members", "/roles", "/audit-logs", "/domain-claims", "", "/apps"):
        answer = world.http("GET", f"/v2/orgs/{world.org}{tail}", None, token=dan)
        assert answer.status_code in (403, 404), tail
    # A key of his organisation is no key of this one, on the socket either.
    key = world.http("POST", f"/v2/orgs/{own}/tokens/his", 201, token=dan, json={}).json()["token"]
    stolen = world.http("GET", f"/v2/orgs/{world.org}/apps", None, token=key)
    assert stolen.status_code in (403, 404)
    with pytest.raises(AssertionError):
        stranger = Executor(world, "v1", APP, key)
        world.executors.append(stranger)
        stranger.await_ready()
        eventually(lambda: stranger.id in world.http("GET", "executors").text, bool, within=3)
    stranger.kill()


def test_the_audit_log(world: World, people: dict[str, str]) -> None:
    org = f"/v2/orgs/{world.org}"
    world.ctl("app", "register", "audited")
    world.ctl("api-key", "create", "audited-key")
    world.http("POST", f"{org}/secrets", 403, token=people["bob"])

    def entries(**filters: str) -> list[dict]:
        return world.http("GET", f"{org}/audit-logs", params=filters).json()

    [created] = eventually(
        lambda: [entry for entry in entries(operation="token.create") if "audited-key" in str(entry)], bool
    )
    assert created["status"] == "success" and created["sourceIp"] == "127.0.0.1"
    assert created["subject"]["type"] == "user" and created["subject"]["display"] == "ann@example.com"
    assert created["target"]["type"] == "token" and created["target"]["id"] == "audited-key"
    denied = eventually(lambda: [entry for entry in entries() if entry["status"] == "failure"], bool)
    assert any("bob@example.com" == entry["subject"]["display"] for entry in denied)
    assert not [entry for entry in entries(limit="1000") if entry["operation"].endswith((".list", ".get"))]
    world.http("GET", f"{org}/audit-logs", 422, params={"limit": 1001})
    legacy = world.http("GET", f"/v1alpha1/api/{world.org}/audit-logs").json()["entries"]
    assert [entry["id"] for entry in legacy][:5] == [entry["id"] for entry in entries()][:5]


@pytest.mark.dbosctl
def test_logging_in_with_a_device(world: World, people: dict[str, str]) -> None:
    """The real dbosctl, from its configuration to an answer and out again."""
    assert world.issuer
    ctl = world.ctl_as("").with_environment(DBOS_ORG="", DBOS_URL="")
    ctl(
        *("config", "set", "segno", "--url", world.url, "--issuer", world.issuer.url),
        *("--client-id", world.issuer.client, "--audience", world.issuer.audience),
    )
    ctl("config", "use", "segno")
    assert "login" in ctl("app", "list", code=None).err
    login(world, ctl)
    assert "ann@example.com" in ctl("whoami").out
    assert APP in [row["name"] for row in ctl.list("app", "list")]
    ctl("app", "get", "nope", code=4)
    ctl("logout")
    assert "login" in ctl("app", "list", code=None).err


def login(world: World, ctl: Ctl) -> None:
    """Starts `login`, and approves the address that it prints."""
    assert world.issuer
    process = ctl.popen("login")
    printed = ""
    assert process.stderr is not None and process.stdout is not None
    threading.Thread(target=process.stdout.read, daemon=True).start()
    while not (found := re.search(r"http\S+user_code=\S+", printed)):
        line = process.stderr.readline()
        assert line, f"login ended: {printed}"
        printed += line
    world.issuer.approve(found[0], "ann")
    try:
        assert process.wait(timeout=60) == 0, printed
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def test_any_name_can_be_asked_for(world: World) -> None:
    """Names from a path are compared, never interpreted."""
    for name in ("../admin", "alice' OR 1=1", "☕"):
        world.http("DELETE", f"/v2/orgs/{world.org}/members/{quote(name, safe='')}", None)
    assert me(world, world.token)["name"] == "alice"
