"""Executors come, die and are replaced; the versions they leave; alerts that reach their handler."""

import socket
from collections.abc import Callable

import pytest

from harness import eventually
from harness.api import moment
from scenarios.fleet import Fleet, path_of, refused

PERIOD_SECS = 600


@pytest.fixture(scope="module")
def fleet(fleets: Callable[[str], Fleet]) -> Fleet:
    """One executor of version v1, and a reason for an alert: rules are looked at now and then, so
    that it is delivered while the other checks run."""
    fleet = fleets("lifecycle")
    fleet.main = fleet.launch("main")
    fleet.main.start("wf-alarming", "shut", workflow="passage")
    fleet.app.await_workflow("wf-alarming", "ERROR")
    metadata = {"workflow_name": "passage", "threshold": 1, "period_secs": PERIOD_SECS}
    rule = {"ruleType": "WorkflowFailure", "ruleMetadata": metadata, "minIntervalSecs": 3600}
    fleet.rule = fleet.app.call("POST", "/alerting-rules", 201, json=rule)
    return fleet


@pytest.mark.check("connect")
def test_connect(fleet: Fleet) -> None:
    app, main = fleet.app.get(), fleet.main
    assert (app["status"], app["language"]) == ("AVAILABLE", fleet.client.language)
    listed = fleet.app.executor(main.id)
    assert listed is not None
    assert (listed["status"], listed["appVersion"], listed["appId"]) == ("HEALTHY", "v1", app["id"])
    assert (listed["language"], listed["dbosVersion"]) == (
        fleet.client.language,
        fleet.client.version,
    )
    assert listed["hostname"] == socket.gethostname()
    assert listed["executorMetadata"] == {"name": "main"}


@pytest.mark.check("kill -9, recovered by a peer")
def test_recovered_by_a_peer(fleet: Fleet) -> None:
    app, journal, main = fleet.app, fleet.journal, fleet.main
    doomed = fleet.launch("doomed")
    fleet.held(doomed, "wf-started", 2, 3)
    fleet.held(doomed, "wf-not-begun", 1, 2)

    doomed.kill()

    record = app.await_recovery(doomed.id, "RECOVERED")
    assert (record["recoveredBy"], record["pendingWorkflows"]) == (main.id, 2)
    journal.await_attempt("wf-started", 2, by=main.id)
    for workflow_id in ("wf-started", "wf-not-begun"):
        journal.let_pass(workflow_id)
        assert app.await_workflow(workflow_id)["executorId"] == main.id
    assert app.workflow("wf-started")["output"] == fleet.traits.text(path_of("1-3"))
    assert journal.attempts("wf-started") == {
        1: [doomed.id],
        2: [doomed.id, main.id],
        3: [main.id],
    }
    assert journal.attempts("wf-not-begun") == {1: [doomed.id, main.id], 2: [main.id]}
    eventually(lambda: app.executor(doomed.id) is None, what="the dead executor to be forgotten")


@pytest.mark.check("no such version: stranded, then recovered")
def test_stranded_by_its_version(fleet: Fleet) -> None:
    app, journal = fleet.app, fleet.journal
    doomed = fleet.launch("doomed-v0", "v0")
    fleet.held(doomed, "wf-old", 2, 3)

    doomed.kill()

    stranded = app.await_recovery(doomed.id, "STRANDED")
    assert (stranded["reason"], stranded["pendingWorkflows"]) == ("NO_MATCHING_VERSION", 1)
    [held] = [each for each in app.call("GET", "/deployments") if each["appVersion"] == "v0"]
    assert (held["stranded"], held["drained"], held["executors"]["healthy"]) == (1, False, 0)
    assert journal.status("wf-old") == "PENDING"
    explanation = app.call("GET", "/workflows/wf-old/explain")
    assert explanation["code"] == "NO_EXECUTOR_OF_VERSION", explanation

    fleet.heir = fleet.launch("heir-v0", "v0")

    recovered = app.await_recovery(doomed.id, "RECOVERED")
    assert (recovered["id"], recovered["recoveredBy"]) == (stranded["id"], fleet.heir.id)
    journal.let_pass("wf-old")
    assert app.await_workflow("wf-old")["appVersion"] == "v0"
    attempts = {1: [doomed.id], 2: [doomed.id, fleet.heir.id], 3: [fleet.heir.id]}
    assert journal.attempts("wf-old") == attempts
    assert {effect.app_version for effect in journal.effects("wf-old")} == {"v0"}


@pytest.mark.check("versions")
def test_versions(fleet: Fleet) -> None:
    app = fleet.app
    newest_first = "SELECT version_name FROM dbos.application_versions ORDER BY version_timestamp DESC"

    def listed() -> list[str]:
        return [version["versionName"] for version in app.versions()]

    assert set(listed()) == {"v0", "v1"}
    assert listed() == fleet.column(newest_first)
    for version in app.versions():
        assert version["versionId"]
        assert moment(version["versionTimestamp"]) >= moment(version["createdAt"])
    for latest in reversed(listed()):
        app.call("PATCH", "/versions/latest", 204, json={"versionName": latest})
        assert listed()[0] == latest
        assert listed() == fleet.column(newest_first)
    refused(404, app.call, "PATCH", "/versions/latest", 204, json={"versionName": "v9"})


@pytest.mark.check("alert reaches its handler")
def test_alert(fleet: Fleet) -> None:
    [(name, message, metadata, executor_id)] = eventually(
        lambda: fleet.journal.database.rows(
            "SELECT name, message, metadata, executor_id FROM app.alerts"
        ),
        within=60,
        what="the alert to be delivered",
    )
    assert name == fleet.rule["ruleType"]
    assert message
    assert metadata == {
        "workflow_name": "passage",
        "failed_workflow_count": "1",
        "threshold": "1",
        "period_secs": str(PERIOD_SECS),
    }
    assert executor_id in {executor.id for executor in fleet.launch.executors}

    def fired() -> str | None:
        [rule] = fleet.app.call("GET", "/alerting-rules")
        assert rule["id"] == fleet.rule["id"]
        return rule["lastFiredAt"]

    assert eventually(fired, what="the delivery to be noted")
