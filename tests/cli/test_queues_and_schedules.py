"""Acceptance checks 46 to 49: queues, schedules, autoscaling."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from harness import eventually
from world import Executor, World


def test_queues(world: World, shop: Executor) -> None:
    assert "q" in [row["name"] for row in world.ctl.list("queue", "list")]
    row = world.ctl("queue", "get", "q", "-o", "json").json
    assert row["workerConcurrency"] == 2 and row["concurrency"] is None
    assert row["pollingIntervalSecs"] == 0.2
    world.ctl("queue", "get", "unheard-of", code=4)


def test_schedules(world: World, shop: Executor) -> None:
    assert [row["scheduleName"] for row in world.ctl.list("schedule", "list")] == ["nightly"]
    world.ctl("schedule", "get", "unheard-of", code=4)
    world.ctl("schedule", "pause", "nightly")
    assert world.ctl("schedule", "get", "nightly", "-o", "json").json["status"] == "PAUSED"
    world.ctl("schedule", "resume", "nightly")
    assert world.ctl("schedule", "get", "nightly", "-o", "json").json["status"] == "ACTIVE"
    [triggered] = world.ctl("schedule", "trigger", "nightly").lines
    assert world.await_status(triggered, "SUCCESS")["workflowName"] == "nightly"


def test_backfill(world: World, shop: Executor) -> None:
    """The application's schedule fires every ten minutes: an hour holds six or, on the dot, seven."""
    ids = world.ctl("schedule", "backfill", "nightly", "--since", "1h", "--until", "0s").lines
    assert len(ids) in (6, 7)
    for one in ids:
        world.await_status(one, "SUCCESS")


def test_an_unreasonable_backfill_is_refused(world: World, shop: Executor) -> None:
    """The executor would insert 52,560 workflows one by one."""
    now = datetime.now(UTC)
    body = {"startTime": (now - timedelta(days=365)).isoformat(), "endTime": now.isoformat()}
    problem = world.http("POST", "schedules/nightly/backfill", 400, json=body).json()
    assert "10000" in problem["detail"]


@pytest.mark.modes("none", "oidc")
def test_autoscaling(world: World, shop: Executor) -> None:
    world.http("PUT", "autoscaling-policy", 400, json={"queue": "unheard-of"})
    made = world.http("PUT", "autoscaling-policy", json={"queue": "q"}).json()
    assert made["policy"]["queue"] == "q"
    waiting = [f"scale-{uuid.uuid4().hex[:8]}" for _ in range(5)]
    for one in waiting:
        shop.enqueue("wait", one, "go")
    eventually(
        lambda: world.http("GET", "autoscale").json(),
        lambda answer: [row["desiredExecutors"] for row in answer if row["isLatest"]] == [3],
        what="three executors to be wanted for five workflows, two at a time",
    )
    # Not cancelled: a cancelled workflow that waits holds its place in the SDK's count until it wakes.
    for one in waiting:
        shop.send(one, "go", "on")
    world.http("GET", "autoscale/versions/unheard-of", 404)
    assert world.http("GET", "autoscale/versions/latest").json()["queueDepth"] == 5
    eventually(
        lambda: world.http("GET", "autoscale/versions/v1").json(),
        lambda answer: answer["desiredExecutors"] == 1,
        what="one executor to be wanted for no work",
    )
    for _ in range(2):
        world.http("DELETE", "autoscaling-policy", 204)
