"""What the server says about applications, their executors and their versions."""

import socket
from datetime import datetime, timedelta, timezone

import pytest

from harness import App, Executor, Launch, Problem, eventually
from harness.api import moment


def test_an_application_and_its_executors(
    app: App, executor_key: str, launch: Launch, sdk: str
) -> None:
    before = app.get()
    assert (before["status"], before["language"], before["executorTimeoutSecs"]) == (
        "UNAVAILABLE",
        None,
        1,
    )
    assert app.executors() == []

    first, second = launch("first", "v1"), launch("second", "v2")

    after = app.get()
    assert (after["status"], after["language"], after["id"]) == (
        "AVAILABLE",
        "python",
        before["id"],
    )
    listed = {executor["executorId"]: executor for executor in app.executors()}
    assert set(listed) == {first.id, second.id}
    for name, executor in (("first", first), ("second", second)):
        row = listed[executor.id]
        assert row["appId"] == after["id"]
        assert row["appVersion"] == executor.version
        assert (row["language"], row["dbosVersion"]) == ("python", sdk)
        assert row["hostname"] == socket.gethostname()
        assert row["executorMetadata"] == {"name": name}
        assert row["status"] == "HEALTHY"
        created, updated = moment(row["createdAt"]), moment(row["updatedAt"])
        assert created <= updated
        assert datetime.now(timezone.utc) - created < timedelta(minutes=5)


def test_versions_are_listed_newest_first(app: App, executor_key: str, launch: Launch) -> None:
    with pytest.raises(Problem) as caught:
        app.versions()
    assert caught.value.status == 503

    launch("old", "v1")
    launch("new", "v2")

    newest, oldest = app.versions()
    assert (newest["versionName"], oldest["versionName"]) == ("v2", "v1")
    for version in (newest, oldest):
        assert version["versionId"]
        moment(version["createdAt"])
    assert moment(newest["versionTimestamp"]) >= moment(oldest["versionTimestamp"])

    app.call("PATCH", "/versions/latest", 204, json={"versionName": "v1"})
    assert [version["versionName"] for version in app.versions()] == ["v1", "v2"]
    with pytest.raises(Problem) as caught:
        app.call("PATCH", "/versions/latest", 204, json={"versionName": "v3"})
    assert caught.value.status == 404


@pytest.mark.grace(30)
def test_a_revoked_key_ends_its_connections(app: App, launch: Launch) -> None:
    executor: Executor = launch("connected")

    app.revoke_key()

    app.await_executor(executor.id, "DISCONNECTED")
    # The SDK dials again every second and is told why not.
    eventually(lambda: "401" in executor.log.read_text(), what="a refused dial")
    assert executor.running()
    assert app.await_executor(executor.id, "DISCONNECTED")["status"] == "DISCONNECTED"
