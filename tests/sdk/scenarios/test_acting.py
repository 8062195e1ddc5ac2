"""An operator cancels, resumes, forks, rewinds, deletes and moves workflows."""

import base64
import gzip
import itertools
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from urllib.parse import quote

import pytest

from harness import eventually
from scenarios.fleet import Fleet, ids, path_of, refused


@pytest.fixture(scope="module")
def fleet(fleets: Callable[[str], Fleet]) -> Fleet:
    fleet = fleets("acting")
    fleet.main = fleet.launch("main")
    return fleet


def held_child(fleet: Fleet, parent_id: str) -> str:
    """Starts a parent and returns the id of its child, which waits inside its first leg."""
    child_id = f"{parent_id}-{fleet.traits.first_step}"
    fleet.main.start(parent_id, 2, workflow="parent")
    fleet.journal.await_attempt(child_id, 1)
    assert fleet.app.workflow(child_id)["parentWorkflowId"] == parent_id
    return child_id


def failed(fleet: Fleet, workflow_id: str, gate: str) -> None:
    """Runs a passage until it fails at its gate."""
    fleet.main.start(workflow_id, gate, workflow="passage")
    fleet.app.await_workflow(workflow_id, "ERROR")


def open_gate(fleet: Fleet, gate: str) -> None:
    fleet.journal.database.rows("INSERT INTO app.gates VALUES (%s)", gate)


def steps_of(fleet: Fleet, workflow_id: str) -> dict[int, int]:
    """Step → how often it was attempted."""
    return {step: len(by) for step, by in fleet.journal.attempts(workflow_id).items()}


# ---- cancel and resume --------------------------------------------------------------------------


@pytest.mark.check("cancel")
def test_cancel(fleet: Fleet) -> None:
    app, journal = fleet.app, fleet.journal
    fleet.held(fleet.main, "wf-cancel", 2, 4)

    app.cancel("wf-cancel")

    assert app.workflow("wf-cancel")["status"] == journal.status("wf-cancel") == "CANCELLED"
    # The step that is running ends; the next one does not begin.
    journal.let_pass("wf-cancel")
    eventually(lambda: all(left for _, left in journal.ways_left("wf-cancel")))
    assert set(steps_of(fleet, "wf-cancel")) == {1, 2}
    assert app.workflow("wf-cancel")["status"] == "CANCELLED"
    app.cancel("wf-unknown")  # SDKs ignore what is not there


@pytest.mark.check("cancel with children")
def test_cancel_children(fleet: Fleet) -> None:
    app, journal = fleet.app, fleet.journal
    spared, doomed = held_child(fleet, "wf-family-1"), held_child(fleet, "wf-family-2")

    app.call("POST", "/workflows/wf-family-1/cancel", 204, json={"cancelChildren": False})
    app.call("POST", "/workflows/wf-family-2/cancel", 204, json={"cancelChildren": True})

    assert [journal.status(each) for each in ("wf-family-1", "wf-family-2")] == ["CANCELLED"] * 2
    assert (journal.status(spared), journal.status(doomed)) == ("PENDING", "CANCELLED")
    for workflow_id in (spared, doomed):
        journal.let_pass(workflow_id)
    app.await_workflow(spared)
    eventually(lambda: all(left for _, left in journal.ways_left(doomed)))


@pytest.mark.check("resume")
def test_resume(fleet: Fleet) -> None:
    app, journal = fleet.app, fleet.journal
    fleet.held(fleet.main, "wf-resume", 2, 4)
    app.cancel("wf-resume")
    journal.let_pass("wf-resume")
    eventually(lambda: all(left for _, left in journal.ways_left("wf-resume")))

    app.resume("wf-resume")

    assert app.await_workflow("wf-resume")["output"] == fleet.traits.text(path_of("1-4"))
    attempts = steps_of(fleet, "wf-resume")
    # Some SDKs record the step during which the cancellation came, others run it again.
    assert attempts in ({1: 1, 2: 1, 3: 1, 4: 1}, {1: 1, 2: 2, 3: 1, 4: 1})
    app.resume("wf-resume")  # what has ended stays so
    assert app.workflow("wf-resume")["status"] == "SUCCESS"
    if fleet.traits.refuses_unknown_resume:
        refused(404, app.resume, "wf-unknown")
    else:
        app.resume("wf-unknown")


@pytest.mark.check("bulk cancel, resume, delete")
def test_bulk(fleet: Fleet) -> None:
    app, journal = fleet.app, fleet.journal
    both = ["wf-bulk-1", "wf-bulk-2"]
    for workflow_id in both:
        fleet.held(fleet.main, workflow_id, 1, 2)

    def every(operation: str) -> None:
        app.call("POST", f"/workflows/bulk-{operation}", 204, json={"workflowIds": both})

    every("cancel")
    assert [journal.status(each) for each in both] == ["CANCELLED"] * 2
    for workflow_id in both:
        journal.let_pass(workflow_id)
    eventually(lambda: all(left for each in both for _, left in journal.ways_left(each)))
    every("resume")
    for workflow_id in both:
        app.await_workflow(workflow_id)
    every("delete")
    assert [journal.status(each) for each in both] == [None] * 2


@pytest.mark.check("operation on what a filter finds")
def test_operation(fleet: Fleet) -> None:
    app, journal = fleet.app, fleet.journal
    found = ["wf-many-1", "wf-many-2", "wf-many-3"]
    for workflow_id in found:
        fleet.held(fleet.main, workflow_id, 1, 2)
    asked = {"kind": "cancel", "filter": {"workflowIdPrefix": ["wf-many-"], "status": ["PENDING"]}}

    def done(**options: Any) -> dict[str, Any]:
        begun = app.call("POST", "/operations", 201, json=asked | options)
        return eventually(
            lambda: app.call("GET", f"/operations/{begun['id']}"),
            lambda operation: operation["state"] == "DONE",
            what="the operation to end",
        )

    preview = done(dryRun=True)
    assert (preview["counts"]["total"], sorted(ids(preview["sample"]))) == (3, found)
    assert [journal.status(each) for each in found] == ["PENDING"] * 3
    counts = done()["counts"]
    assert counts == {"total": 3, "succeeded": 3, "failed": 0, "remaining": 0}
    assert [journal.status(each) for each in found] == ["CANCELLED"] * 3
    for workflow_id in found:
        journal.let_pass(workflow_id)
    assert done(dryRun=True)["counts"]["total"] == 0


# ---- fork and rewind ----------------------------------------------------------------------------


@pytest.mark.check("fork")
def test_fork(fleet: Fleet) -> None:
    app, journal = fleet.app, fleet.journal
    fleet.finished(fleet.main, "wf-fork", 4)
    journal.let_pass("wf-forked")
    third = fleet.traits.first_step + 2

    asked = {"startStep": third, "newWorkflowId": "wf-forked", "appVersion": "v1"}
    response = app.request("POST", "/workflows/wf-fork/fork", 201, json=asked)

    assert response.json()["workflowId"] == "wf-forked"
    assert response.headers["location"].endswith(f"/apps/{app.name}/workflows/wf-forked")
    fork = app.await_workflow("wf-forked")
    assert (fork["forkedFrom"], fork["output"]) == ("wf-fork", fleet.traits.text(path_of("1-4")))
    assert steps_of(fleet, "wf-forked") == {3: 1, 4: 1}
    assert len(app.steps("wf-forked")) == 4
    assert app.workflow("wf-fork")["wasForkedFrom"] is True
    generated = app.fork("wf-fork", appVersion="v1")
    journal.let_pass(generated)
    app.await_workflow(generated)
    assert steps_of(fleet, generated) == {1: 1, 2: 1, 3: 1, 4: 1}
    forks = {found["workflowId"] for found in app.search(forkedFrom=["wf-fork"])}
    assert forks == {"wf-forked", generated}
    refused(409, app.fork, "wf-fork", newWorkflowId="wf-forked")
    refused(404, app.fork, "wf-unknown")
    refused(422, app.fork, "wf-fork", startStep=-1)


@pytest.mark.check("fork without a version")
def test_fork_without_a_version(fleet: Fleet) -> None:
    """While a newer version is registered than the one that runs."""
    app, journal = fleet.app, fleet.journal
    fleet.finished(fleet.main, "wf-unbound", 1)
    journal.let_pass("wf-unbound-fork")
    registered = fleet.journal.database.rows
    registered(
        "INSERT INTO dbos.application_versions (version_id, version_name, version_timestamp,"
        " created_at) SELECT 'v-next', 'v-next', max(version_timestamp) + 1000, max(created_at)"
        " FROM dbos.application_versions"
    )
    try:
        app.fork("wf-unbound", newWorkflowId="wf-unbound-fork")
        if fleet.traits.forks_to_latest:
            waiting = app.workflow("wf-unbound-fork")
            assert (waiting["status"], waiting["appVersion"]) == ("ENQUEUED", None)
        else:
            assert app.await_workflow("wf-unbound-fork")["appVersion"] == "v1"
    finally:
        registered("DELETE FROM dbos.application_versions WHERE version_id = 'v-next'")
    assert app.await_workflow("wf-unbound-fork")["appVersion"] == "v1"


@pytest.mark.check("fork from failure")
def test_fork_from_failure(fleet: Fleet) -> None:
    app = fleet.app
    failed(fleet, "wf-failed-1", "fork")
    failed(fleet, "wf-failed-2", "fork")
    open_gate(fleet, "fork")

    def forked(originals: list[str], **mode: Any) -> list[str]:
        asked = {"workflowIds": originals, "appVersion": "v1"} | mode
        return app.call("POST", "/workflows/bulk-fork-from-failure", 200, json=asked)["workflowIds"]

    forks = forked(["wf-failed-2", "wf-failed-1"], fromLastFailure=True)

    for fork_id, original in zip(forks, ("wf-failed-2", "wf-failed-1"), strict=True):
        fork = app.await_workflow(fork_id)
        assert (fork["forkedFrom"], fork["output"]) == (original, fleet.traits.text("passed fork"))
        assert steps_of(fleet, fork_id) == {2: 1, 3: 1}
        assert app.workflow(original)["status"] == "ERROR"
    [by_name] = forked(["wf-failed-1"], fromStepName="approach")
    app.await_workflow(by_name)
    assert steps_of(fleet, by_name) == {1: 1, 2: 1, 3: 1}
    [by_number] = forked(["wf-failed-1"], fromStep=fleet.traits.first_step + 1)
    app.await_workflow(by_number)
    assert steps_of(fleet, by_number) == {2: 1, 3: 1}
    refused(404, forked, ["wf-failed-1", "wf-unknown"], fromLastFailure=True)
    refused(404, forked, ["wf-failed-1"], fromStepName="unheard-of")
    refused(400, forked, ["wf-failed-1"], fromLastFailure=True, fromLastStep=True)


@pytest.mark.check("rewind")
def test_rewind(fleet: Fleet, not_applicable: Callable[[str], None]) -> None:
    app, journal = fleet.app, fleet.journal
    failed(fleet, "wf-rewind", "rewind")
    open_gate(fleet, "rewind")

    def rewind(workflow_id: str, **body: Any) -> None:
        app.call("POST", f"/workflows/{workflow_id}/rewind", 204, json=body)

    if not fleet.traits.rewinds:
        why = refused(501, rewind, "wf-rewind")
        assert fleet.client.version in why, why
        assert journal.status("wf-rewind") == "ERROR"
        not_applicable(f"501: {why}")
        return
    rewind("wf-rewind", startStep=fleet.traits.first_step + 1)
    assert app.await_workflow("wf-rewind")["output"] == fleet.traits.text("passed rewind")
    assert steps_of(fleet, "wf-rewind") == {1: 1, 2: 2, 3: 1}
    rewind("wf-rewind")
    eventually(lambda: steps_of(fleet, "wf-rewind") == {1: 2, 2: 3, 3: 2})
    app.await_workflow("wf-rewind")
    fleet.held(fleet.main, "wf-running", 1, 1)
    refused(409, rewind, "wf-running")
    refused(404, rewind, "wf-unknown")
    journal.let_pass("wf-running")
    app.await_workflow("wf-running")


# ---- delete, export, import ---------------------------------------------------------------------


@pytest.mark.check("delete")
def test_delete(fleet: Fleet) -> None:
    app, journal = fleet.app, fleet.journal
    children = [held_child(fleet, parent) for parent in ("wf-house-1", "wf-house-2")]
    for workflow_id in children:
        journal.let_pass(workflow_id)
    for parent in ("wf-house-1", "wf-house-2"):
        app.await_workflow(parent)

    app.delete("wf-house-1")
    app.call("DELETE", "/workflows/wf-house-2", 204, params={"deleteChildren": True})

    refused(404, app.workflow, "wf-house-1")
    assert ids(app.search(workflowIdPrefix=["wf-house-"])) == [children[0]]
    left = "SELECT DISTINCT workflow_uuid FROM dbos.operation_outputs WHERE workflow_uuid LIKE 'wf-house-%'"
    assert fleet.column(left) == [children[0]]
    app.delete("wf-house-1")  # nothing left to delete is no error


@pytest.mark.check("export, import into another application")
def test_export_and_import(fleet: Fleet, fleets: Callable[[str], Fleet]) -> None:
    app = fleet.app
    child = held_child(fleet, "wf/move")
    fleet.journal.let_pass(child)
    fleet.main.start("wf-move-talk", "eve", workflow="talk")
    eventually(lambda: app.call("GET", "/workflows/wf-move-talk/events"))
    fleet.main.send("wf-move-talk", "mailbox", "good news")
    moved = ["wf/move", "wf-move-talk"]
    for workflow_id in moved:
        app.await_workflow(workflow_id)
    other = fleets("importing")
    other.launch("importer")

    def export(workflow_id: str) -> str:
        path = f"/workflows/{quote(workflow_id, safe='')}/export"
        return app.call("GET", path, params={"exportChildren": True})["serializedWorkflow"]

    def import_(blob: str) -> None:
        other.app.call("POST", "/workflows/import", 201, json={"serializedWorkflow": blob})

    blobs = {workflow_id: export(workflow_id) for workflow_id in moved}
    for blob in blobs.values():
        import_(blob)

    for workflow_id in (*moved, child):
        assert other.app.workflow(workflow_id) == app.workflow(workflow_id)
        assert other.app.steps(workflow_id) == app.steps(workflow_id)
    for said in ("events", "streams"):
        path = f"/workflows/wf-move-talk/{said}"
        assert other.app.call("GET", path) == app.call("GET", path) != []
    # Whose they are moves with them: an application of another name finds them by their ids only.
    assert set(ids(other.app.search())) == (set() if fleet.traits.scoped else {*moved, child})
    refused(409, import_, blobs["wf/move"])
    refused(404, export, "wf-unknown")
    refused(400, import_, "bm8gZXhwb3J0")


@pytest.mark.check("large export beside other requests")
def test_large_export(fleet: Fleet) -> None:
    """Some SDKs answer in pieces; one of them lets other answers in between, and loses one of two
    that it sends at the same moment.
    """
    app, journal = fleet.app, fleet.journal
    fleet.main.start("wf-large", "eve", workflow="talk")
    eventually(lambda: journal.status("wf-large"), what="the workflow to be there")
    fleet.main.send("wf-large", "mailbox", secrets.token_hex(1 << 18))
    app.await_workflow("wf-large")
    over = Event()

    def read() -> int:
        for count in itertools.count(1):
            assert len(app.workflows(limit=1)) == 1
            if over.is_set():
                return count

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            exports = [app.call("GET", "/workflows/wf-large/export") for _ in range(3)]
        finally:
            over.set()
        assert all(reader.result() >= 3 for reader in readers)
    for export in exports:
        payload = gzip.decompress(base64.b64decode(export["serializedWorkflow"], validate=True))
        assert len(payload) > 1 << 19
    assert app.executor(fleet.main.id)["status"] == "HEALTHY"
