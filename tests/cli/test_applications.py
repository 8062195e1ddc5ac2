"""Acceptance checks 8 to 15: applications and their settings."""

import pytest
from world import APP, World

FIELDS = {
    "dbosCloud", "executorTimeoutSecs", "gcRowsThreshold", "gcTimeThresholdMs", "globalTimeoutMs",
    "id", "language", "name", "orgId", "privateMode", "status",
}  # fmt: skip


@pytest.fixture
def bare(world: World) -> str:
    """An application without executors."""
    world.ctl("app", "register", "bare")
    return "bare"


def test_registering_twice_is_fine(world: World) -> None:
    world.ctl("app", "register", "twice")
    world.ctl("app", "register", "twice")
    rows = [row for row in world.ctl.list("app", "list") if row["name"] == "twice"]
    assert len(rows) == 1 and set(rows[0]) >= FIELDS


def test_names_are_checked(world: World) -> None:
    for name in ("ab", "UPPER", "a%2Fb", "a b", "x" * 257):
        problem = world.http("PUT", f"/v2/orgs/{world.org}/apps/{name}", 422, json={}).json()
        assert problem["errors"][0]["location"] == "path.appName", problem
    for name in ("n" * 31, "n" * 256):
        world.ctl("app", "register", name)
        world.ctl("app", "delete", name, "--force")


def test_a_new_application(world: World, bare: str) -> None:
    world.ctl("app", "get", "nope", code=4)
    app = world.ctl("app", "get", bare, "-o", "json").json
    assert (app["status"], app["executorTimeoutSecs"]) == ("UNAVAILABLE", 60)
    table = world.ctl("app", "executors", bare)
    assert len(table.lines) == 1, "only the header"
    assert world.ctl.list("app", "executors", bare) == []
    failed = world.ctl("app", "versions", bare, code=1)
    problem = world.http("GET", f"/v2/orgs/{world.org}/apps/{bare}/versions", 503).json()
    assert problem["detail"] in failed.err


def test_settings_change_one_by_one(world: World, bare: str) -> None:
    before = world.ctl("app", "get", bare, "-o", "json").json
    world.ctl("app", "update", bare, "--executor-timeout-secs", "42", "--private-mode=true")
    after = world.ctl("app", "get", bare, "-o", "json").json
    assert after == before | {"executorTimeoutSecs": 42, "privateMode": True}
    path = f"/v2/orgs/{world.org}/apps/{bare}"
    for value, expected in ((1000, 1000), (-1, None)):
        world.http("PATCH", path, 204, json={"gcRowsThreshold": value})
        assert world.http("GET", path).json()["gcRowsThreshold"] == expected
    world.http("PATCH", path, 204, json={})
    world.http("PATCH", path, 400)


def test_deleting_forgets_everything(world: World) -> None:
    world.ctl("app", "register", "doomed")
    path = f"/v2/orgs/{world.org}/apps/doomed"
    executor = world.executor(name="doomed")
    rule = {"ruleType": "WorkflowFailure", "ruleMetadata": {"threshold": 3}}
    world.http("POST", f"{path}/alerting-rules", None, json=rule)
    first = world.http("GET", path).json()["id"]
    world.ctl("app", "delete", "doomed", "--force")
    assert "doomed" not in [row["name"] for row in world.ctl.list("app", "list")]
    # The executor keeps knocking; it may only come back to the new application, as a new one.
    executor.kill()
    world.ctl("app", "register", "doomed")
    assert world.http("GET", path).json()["id"] != first
    assert world.ctl.list("app", "executors", "doomed") == []
    assert world.http("GET", f"{path}/alerting-rules").json() == []
    world.http("GET", f"{path}/autoscaling-policy", 404)


def test_deleting_needs_force_without_a_terminal(world: World, bare: str) -> None:
    assert world.ctl("app", "delete", bare, code=None).code in (1, 2)
    assert world.http("GET", f"/v2/orgs/{world.org}/apps/{APP}").json()["name"] == APP
