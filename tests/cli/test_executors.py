"""Acceptance checks 23 to 27 and 44: executors come, are refused, die, freeze."""

import time

import httpx
import pytest
from world import APP, World

UPGRADE = {
    "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


def upgrade(world: World, app: str, key: str) -> httpx.Response:
    return httpx.get(f"{world.url}/websocket/{app}/{key}", headers=UPGRADE, trust_env=False)


def test_a_connected_executor(world: World, shop: object) -> None:
    rows = world.ctl.list("app", "executors", APP)
    row = next(row for row in rows if row["executorId"] == shop.id)  # type: ignore[attr-defined]
    assert (row["status"], row["appVersion"], row["language"]) == ("HEALTHY", "v1", "python")
    assert row["hostname"] and row["dbosVersion"] == "3.2.0"
    assert world.ctl("app", "get", APP, "-o", "json").json["status"] == "AVAILABLE"


def test_refusals_can_be_read(world: World) -> None:
    refused = upgrade(world, "unheard-of", world.key)
    assert refused.status_code == 404 and "unheard-of" in refused.text
    if world.mode != "none":
        wrong = upgrade(world, APP, "dbos_wrong")
        assert wrong.status_code in (401, 403) and "key" in wrong.text


def test_an_application_registered_too_late(world: World) -> None:
    """The SDK keeps knocking and needs no restart."""
    from world import Executor

    executor = Executor(world, "v1", "too-late", world.key)
    world.executors.append(executor)
    executor.await_ready()
    world.ctl("app", "register", "too-late")
    world.await_executor(executor, "HEALTHY", "too-late")
    executor.kill()


def test_killed_work_ends_once_elsewhere(world: World) -> None:
    world.ctl("app", "register", "mortal")
    world.ctl("app", "update", "mortal", "--executor-timeout-secs", "1")
    first = world.executor(name="mortal")
    first.start("wait", "orphan", "go")
    path = f"/v2/orgs/{world.org}/apps/mortal"
    second = world.executor(name="mortal")
    first.kill()
    status = world.await_executor(first, "DISCONNECTED", "mortal")["status"]
    assert status == "DISCONNECTED"
    deadline = time.monotonic() + 30
    while any(
        row["executorId"] == first.id for row in world.http("GET", f"{path}/executors").json()
    ):
        assert time.monotonic() < deadline, "the dead executor is still listed"
        time.sleep(0.05)
    second.send("orphan", "go", "on")
    while (found := world.http("GET", f"{path}/workflows/orphan").json())["status"] != "SUCCESS":
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    assert "on" in found["output"] and found["executorId"] == second.id
    second.kill()


def test_versions(world: World, shop: object) -> None:
    assert world.ctl.list("app", "versions", APP)
    world.ctl("app", "set-version", APP, "unheard-of", code=4)
    world.ctl("app", "set-version", APP, "v1")
    assert world.ctl.list("app", "versions", APP)[0]["versionName"] == "v1"


def test_resume_needs_the_latest_version_and_cancel_does_not(world: World) -> None:
    world.ctl("app", "register", "two-versions")
    old = world.executor("a", "two-versions")
    new = world.executor("b", "two-versions")
    old.start("wait", "held", "go")
    ctl = world.ctl.with_environment(DBOS_APP="two-versions")
    ctl("app", "set-version", "two-versions", "b")
    new.kill()
    world.await_executor(new, "DISCONNECTED", "two-versions")
    ctl("workflow", "cancel", "held")
    failed = ctl("workflow", "resume", "held", code=1)
    world.http("POST", f"/v2/orgs/{world.org}/apps/two-versions/workflows/held/resume", 503)
    assert failed.err
    old.kill()


@pytest.mark.modes("none")
def test_nobody_there_and_somebody_deaf(world: World) -> None:
    """Without executors 503 at once; a frozen one delays a read, and loses no mutation twice."""
    world.ctl("app", "register", "away")
    path = f"/v2/orgs/{world.org}/apps/away"
    began = time.monotonic()
    for method, tail, body in (
        ("GET", "/workflows", None), ("GET", "/workflows/x", None), ("GET", "/queues", None),
        ("POST", "/workflows/x/cancel", {}), ("POST", "/workflows/x/resume", {}),
        ("GET", "/schedules", None), ("GET", "/versions", None),
        ("POST", "/workflows/search", {}),
    ):  # fmt: skip
        world.http(method, path + tail, 503, json=body)
    assert time.monotonic() - began < 8, "each within a second"
    frozen = world.executor(name="away")
    frozen.start("wait", "held", "go")
    frozen.freeze()
    began = time.monotonic()
    world.http("GET", f"{path}/workflows/held", 502)
    assert time.monotonic() - began < 30
    other = world.executor(name="away")
    assert world.http("GET", f"{path}/workflows/held").json()["status"] == "PENDING"
    # A cancel that the frozen one was asked first is not sent to the other as well.
    answer = world.http("POST", f"{path}/workflows/held/cancel", None, json={})
    assert answer.status_code in (204, 502), answer.text
    frozen.thaw()
    other.kill()
    frozen.kill()
