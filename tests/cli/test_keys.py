"""Acceptance checks 16 to 22: API keys."""

import httpx
import pytest
from harness import eventually
from world import APP, World

PERMISSIONS = {
    "application.read", "application.write", "metric.read", "organization.read",
    "organization.write", "token.read", "token.write", "websocket.connect",
}  # fmt: skip


def made(world: World, name: str, *flags: str) -> str:
    """A new key; its secret is all that is printed."""
    lines = world.ctl("api-key", "create", name, *flags).lines
    assert len(lines) == 1 and lines[0].startswith("dbos_"), lines
    return lines[0]


def listed(world: World, name: str) -> dict:
    return next(row for row in world.ctl.list("api-key", "list") if row["tokenName"] == name)


def test_a_key_may_connect_and_nothing_else(world: World) -> None:
    key = made(world, "plain")
    row = listed(world, "plain")
    assert (row["appIds"], row["permissions"]) == ([], ["websocket.connect"])
    assert key not in str(row)
    if world.mode != "none":
        world.http("GET", f"/v2/orgs/{world.org}/apps", 403, token=key)


def test_a_key_of_one_application(world: World) -> None:
    key = made(world, "scoped", "--app", APP, "--permission", "application.read")
    row = listed(world, "scoped")
    shop_id = world.ctl("app", "get", APP, "-o", "json").json["id"]
    assert (row["appIds"], row["permissions"]) == ([shop_id], ["application.read"])
    if world.mode == "none":
        return
    world.ctl("app", "register", "other")
    ctl = world.ctl_as(key)
    ctl("app", "get", APP)
    ctl("app", "get", "other", code=1)
    world.http("GET", f"/v2/orgs/{world.org}/apps/other", 403, token=key)
    ctl("app", "update", APP, "--executor-timeout-secs", "60", code=1)
    world.http("PATCH", world.app, 403, token=key, json={"executorTimeoutSecs": 60})


def test_what_cannot_be_made(world: World) -> None:
    made(world, "taken")
    for flags, status, code in (
        (["x1", "--permission", "nope"], 400, 1),
        (["x1", "--permission", "token.write"], 400, 1),
        (["taken"], 409, 1),
        (["x1", "--app", "nowhere"], 404, 4),
    ):
        failed = world.ctl("api-key", "create", *flags, code=code)
        assert failed.out == ""
        body = {}
        if "--permission" in flags:
            body["permissions"] = [flags[-1]]
        if "--app" in flags:
            body["appNames"] = [flags[-1]]
        world.http("POST", f"/v2/orgs/{world.org}/tokens/{flags[0]}", status, json=body)


def test_renaming_keeps_the_secret(world: World) -> None:
    key = made(world, "before", "--permission", "application.read")
    made(world, "in-use")
    path = f"/v2/orgs/{world.org}/tokens"
    world.http("PATCH", f"{path}/before", 204, json={"newName": "after"})
    world.http("GET", world.app, token=key)
    world.http("PATCH", f"{path}/after", 409, json={"newName": "in-use"})
    world.http("PATCH", f"{path}/before", 404, json={"newName": "x"})
    assert listed(world, "after")["permissions"] == ["application.read"]


@pytest.mark.modes("keys", "oidc")
def test_revoking_cuts_executors_and_callers(world: World) -> None:
    key = made(world, "revoked-soon", "--permission", "websocket.connect", "--permission", "application.read")
    world.ctl("app", "register", "guest")
    executor = world.executor(name="guest", key=key)
    world.ctl("api-key", "delete", "revoked-soon")
    world.http("GET", f"/v2/orgs/{world.org}/apps", 401, token=key)
    row = world.await_executor(executor, "DISCONNECTED", "guest")
    assert row["executorId"] == executor.id
    executor.kill()


def test_the_permissions(world: World) -> None:
    assert set(world.ctl("permission", "list", "-o", "json").json) == PERMISSIONS
    if world.mode == "none":
        assert world.ctl_as("")("permission", "list").code == 0


@pytest.mark.modes("keys", "oidc")
def test_secrets_stay_secret(world: World) -> None:
    """Not in the log, not in the audit log, not in errors, whether used well or badly."""
    key = made(world, "quiet")
    world.http("GET", f"/v2/orgs/{world.org}/apps", 403, token=key)
    upgrade = {
        "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip
    # Refused after the key was read: no such application.
    refused = httpx.get(f"{world.url}/websocket/nowhere/{key}", headers=upgrade, trust_env=False)
    assert refused.status_code == 404 and key not in refused.text
    entries = eventually(
        lambda: world.http("GET", f"/v2/orgs/{world.org}/audit-logs").json(),
        lambda found: any("quiet" in str(entry) for entry in found),
    )
    secret = key.rsplit("_", 1)[1]
    assert secret not in str(entries)
    assert secret not in world.server.log.read_text()
