"""Policies that executors carry out, and the executors' own."""

from collections.abc import Callable, Iterator

import pytest

from harness import Proxy, Server, eventually
from scenarios.fleet import Fleet, ids, refused

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def cable(shared_server: Server) -> Iterator[Proxy]:
    proxy = Proxy(shared_server.address)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def fleet(fleets: Callable[[str], Fleet], cable: Proxy) -> Fleet:
    fleet = fleets("policies")
    fleet.main = fleet.launch("main", cable=cable, metadata_only=True)
    return fleet


@pytest.mark.check("metadata-only mode of the executor")
def test_metadata_only(fleet: Fleet, not_applicable: Callable[[str], None]) -> None:
    app = fleet.app
    fleet.finished(fleet.main, "wf-secret")
    fleet.main.start("wf-failed", "shut", workflow="passage")
    fleet.app.await_workflow("wf-failed", "ERROR")
    fleet.main.start("wf-talk", "eve", workflow="talk")
    said = "SELECT count(*) FROM dbos.workflow_events WHERE workflow_uuid = 'wf-talk'"
    eventually(lambda: fleet.value(said) == 2)
    secret, steps = app.workflow("wf-secret"), app.steps("wf-secret")
    assert fleet.main.metadata_only == fleet.traits.metadata_only
    if not fleet.traits.metadata_only:
        assert secret["input"] == fleet.traits.arguments(2)
        assert app.call("GET", "/workflows/wf-talk/events") != []
        not_applicable("this SDK has no such mode; the application's private mode does the same")
        return
    assert (secret["input"], secret["output"]) == (None, None)
    assert secret["status"] == "SUCCESS"
    assert app.workflow("wf-failed")["error"] is None
    assert [(step["stepName"], step["output"]) for step in steps] == [("leg", None)] * 2
    [found] = app.search(workflowIds=["wf-secret"], loadInput=True, loadOutput=True)
    assert found == secret
    for payloads in ("events", "notifications", "streams", "export"):
        why = refused(403, app.call, "GET", f"/workflows/wf-talk/{payloads}")
        assert "metadata-only mode" in why
    blob = {"serializedWorkflow": "bm8gZXhwb3J0"}
    refused(403, app.call, "POST", "/workflows/import", 201, json=blob)


@pytest.mark.check("retention and global timeout")
def test_retention(fleet: Fleet, cable: Proxy) -> None:
    app, journal, database = fleet.app, fleet.journal, fleet.journal.database
    for workflow_id in ("wf-old", "wf-young"):
        fleet.finished(fleet.main, workflow_id)
    for workflow_id in ("wf-overdue", "wf-punctual"):
        fleet.held(fleet.main, workflow_id, 1, 2)
    database.rows(
        "UPDATE dbos.workflow_status SET created_at = created_at - %s,"
        " completed_at = completed_at - %s WHERE workflow_uuid IN ('wf-old', 'wf-overdue')",
        *(2 * HOUR_MS, 2 * HOUR_MS),
    )
    # The newer SDKs delete steps by their own age.
    aged = "UPDATE dbos.operation_outputs SET retention_timestamp = retention_timestamp - %s"
    if fleet.value(
        "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'dbos'"
        " AND table_name = 'operation_outputs' AND column_name = 'retention_timestamp'"
    ):
        database.rows(f"{aged} WHERE workflow_uuid = 'wf-old'", 2 * HOUR_MS)
    app.call("PATCH", "", 204, json={"gcTimeThresholdMs": HOUR_MS, "globalTimeoutMs": HOUR_MS})

    # Rounds are minutes apart, but one is due soon after an application's executors come back.
    cable.cut()
    app.await_recovery(fleet.main.id, "STRANDED")
    cable.restore()
    app.await_executor(fleet.main.id)

    eventually(lambda: journal.status("wf-old") is None, within=90, what="retention")
    eventually(lambda: journal.status("wf-overdue") == "CANCELLED", what="the global timeout")
    assert journal.status("wf-young") == "SUCCESS"
    assert journal.status("wf-punctual") == "PENDING"
    assert "wf-old" not in ids(app.search())
    steps = "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = 'wf-old'"
    eventually(lambda: fleet.value(steps) == 0, what="the steps to go, too")
    app.call("PATCH", "", 204, json={"gcTimeThresholdMs": -1, "globalTimeoutMs": -1})
    settings = app.get()
    assert (settings["gcTimeThresholdMs"], settings["globalTimeoutMs"]) == (None, None)
