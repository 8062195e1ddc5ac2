"""Acceptance checks 53 and 55 to 57: metrics, alerts, retention."""

import uuid

from harness import eventually
from world import APP, Executor, World


def test_metrics_are_collected(world: World, shop: Executor) -> None:
    shop.start("buy", f"counted-{uuid.uuid4().hex[:8]}", "tea")
    rows = eventually(
        lambda: world.ctl.list("app", "metrics", APP, "--since", "1h"), bool, within=20
    )
    assert all(isinstance(row["value"], int) and isinstance(row["granularity"], int) for row in rows)


def test_failures_alert(world: World, shop: Executor) -> None:
    rule = {
        "ruleType": "WorkflowFailure",
        "ruleMetadata": {"threshold": 3, "period_secs": 300},
        "receivingAppName": APP,
        "minIntervalSecs": 3600,
    }
    made = world.http("POST", "alerting-rules", 201, json=rule).json()
    for number in range(3):
        shop.start("fail", f"alarming-{number}-{uuid.uuid4().hex[:6]}", "no tea")

    def delivered() -> list[dict]:
        return [alert for alert in shop.alerts if alert["alert"] == "WorkflowFailure"]

    [alert] = eventually(delivered, bool, within=90, what="the alert to be delivered")
    keys = {"workflow_name", "failed_workflow_count", "threshold", "period_secs"}
    assert set(alert["metadata"]) == keys
    assert all(isinstance(value, str) for value in alert["metadata"].values())
    ruled = made.get("ruleId") or made["id"]
    world.http("DELETE", f"alerting-rules/{ruled}", 204)


def test_an_application_cannot_report_its_own_silence(world: World) -> None:
    rule = {"ruleType": "UnresponsiveApplication", "ruleMetadata": {}}
    world.http("POST", "alerting-rules", 400, json=rule | {"receivingAppName": APP})


def test_retention_keeps_the_newest(world: World) -> None:
    world.ctl("app", "register", "tidy")
    tidy = world.executor(name="tidy")
    for number in range(20):
        tidy.start("buy", f"old-{number}", "tea")
    path = f"/v2/orgs/{world.org}/apps/tidy"

    def successes() -> int:
        return len(world.http("GET", f"{path}/workflows?status=SUCCESS").json())

    eventually(successes, lambda count: count == 20, within=30)
    world.http("PATCH", path, 204, json={"gcRowsThreshold": 10})
    eventually(successes, lambda count: count <= 10, within=90, what="retention to run")
    tidy.kill()
