"""An operator acts on running workflows, and reads what the application's database says."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from harness import App, Executor, Journal, Launch, Problem, eventually
from harness.api import moment

Begin = Callable[..., Executor]


@pytest.fixture
def begin(journal: Journal, launch: Launch) -> Begin:
    """An executor inside step 3 of a workflow of 5: `begin("workflow-id", version="v1")`."""

    def start(workflow_id: str, version: str = "v1") -> Executor:
        executor = launch(f"executor-{version}", version)
        journal.let_pass(workflow_id, 2)
        executor.start(workflow_id, 5)
        journal.await_attempt(workflow_id, 3)
        return executor

    return start


def assert_refused(status: int, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    with pytest.raises(Problem) as caught:
        call(*arguments, **options)
    problem = caught.value
    assert (problem.status, problem.content_type) == (status, "application/problem+json")
    assert problem.body is not None and problem.body["status"] == status and problem.body["detail"]


def test_cancel_and_resume(app: App, journal: Journal, begin: Begin) -> None:
    executor = begin("wf")

    app.cancel("wf")

    cancelled = app.workflow("wf")
    assert (cancelled["status"], cancelled["output"]) == ("CANCELLED", None)
    assert moment(cancelled["completedAt"]) >= moment(cancelled["createdAt"])
    # The step that is running ends; the next one does not begin.
    journal.let_pass("wf")
    [(_, left_by)] = eventually(
        lambda: journal.ways_left("wf"), lambda ways: all(left for _, left in ways)
    )
    # SDK 3 does not even record the step that ended too late, and runs it again after a resume.
    done = journal.checkpoints("wf")
    expected = {2: "DBOSWorkflowConflictIDError", 3: "DBOSWorkflowCancelledError"}
    assert left_by == expected[len(done)]
    assert journal.attempts("wf") == {step: [executor.id] for step in (1, 2, 3)}
    app.cancel("wf")  # once more changes nothing
    assert app.workflow("wf")["status"] == "CANCELLED"

    app.resume("wf")

    assert app.await_workflow("wf")["output"] == "leg 1, leg 2, leg 3, leg 4, leg 5"
    attempts = journal.attempts("wf")
    assert sorted(attempts) == [1, 2, 3, 4, 5]
    for step, by in attempts.items():
        assert len(by) == 1 or (step == 3 and 3 not in done), f"step {step} ran again: {attempts}"
    app.resume("wf")  # what has ended stays so
    assert app.workflow("wf")["status"] == "SUCCESS"
    # The SDK ignores a cancel of what is not there, and refuses to resume it.
    app.cancel("wf-unknown")
    assert_refused(404, app.resume, "wf-unknown")


def test_fork_from_a_step(app: App, journal: Journal, begin: Begin) -> None:
    executor = begin("wf")
    journal.let_pass("wf-fork")

    asked = {"startStep": 2, "newWorkflowId": "wf-fork", "appVersion": "v1"}
    response = app.request("POST", "/workflows/wf/fork", 201, json=asked)

    assert response.json()["workflowId"] == "wf-fork"
    assert response.headers["location"].endswith(f"/apps/{app.name}/workflows/wf-fork")
    fork = app.await_workflow("wf-fork")
    assert (fork["forkedFrom"], fork["appVersion"], fork["wasForkedFrom"]) == ("wf", "v1", False)
    assert fork["output"] == "leg 1, leg 2, leg 3, leg 4, leg 5"
    # Step 1 was copied, not run.
    assert journal.attempts("wf-fork") == {step: [executor.id] for step in (2, 3, 4, 5)}
    assert [step["stepId"] for step in app.steps("wf-fork")] == [1, 2, 3, 4, 5]
    # The original runs on as if nothing had happened.
    original = app.workflow("wf")
    assert (original["status"], original["wasForkedFrom"]) == ("PENDING", True)
    journal.let_pass("wf")
    app.await_workflow("wf")
    assert journal.attempts("wf") == {step: [executor.id] for step in (1, 2, 3, 4, 5)}

    assert_refused(409, app.fork, "wf", newWorkflowId="wf-fork")
    assert_refused(404, app.fork, "wf-unknown")
    assert_refused(422, app.fork, "wf", startStep=-1)
    generated = app.fork("wf", startStep=5, appVersion="v1")
    journal.let_pass(generated)
    app.await_workflow(generated)
    assert list(journal.attempts(generated)) == [5]
    assert {found["workflowId"] for found in app.search(forkedFrom=["wf"])} == {
        "wf-fork",
        generated,
    }


def test_fork_under_another_version(
    app: App, journal: Journal, begin: Begin, launch: Launch
) -> None:
    old, new = begin("wf", "v1"), launch("executor-v2", "v2")
    for workflow_id in ("wf-old", "wf-new"):
        journal.let_pass(workflow_id)

    app.fork("wf", startStep=3, newWorkflowId="wf-new", appVersion="v2")
    app.fork("wf", startStep=3, newWorkflowId="wf-old", appVersion="v1")

    for workflow_id, executor in (("wf-old", old), ("wf-new", new)):
        fork = app.await_workflow(workflow_id)
        assert (fork["appVersion"], fork["executorId"]) == (executor.version, executor.id)
        assert journal.attempts(workflow_id) == {step: [executor.id] for step in (3, 4, 5)}
        assert {effect.app_version for effect in journal.effects(workflow_id)} == {executor.version}


def test_delete_a_running_workflow(app: App, journal: Journal, begin: Begin) -> None:
    executor = begin("wf")

    app.delete("wf")

    assert_refused(404, app.workflow, "wf")
    assert app.steps("wf") == []
    assert app.search(workflowIds=["wf"]) == []
    assert journal.status("wf") is None
    # Its process is not told; it finds out by itself and lives on.
    journal.let_pass("wf")
    eventually(lambda: all(left for _, left in journal.ways_left("wf")))
    journal.let_pass("wf-next")
    executor.start("wf-next", 2)
    app.await_workflow("wf-next")
    assert app.await_executor(executor.id)["status"] == "HEALTHY"
    app.delete("wf")  # nothing left to delete is no error


def test_get_and_steps(app: App, journal: Journal, begin: Begin) -> None:
    executor = begin("wf/with a slash & more")
    workflow_id = "wf/with a slash & more"

    running = app.workflow(workflow_id)

    assert running["workflowId"] == workflow_id
    assert running["workflowName"] == "journey"
    assert (running["status"], running["executorId"]) == ("PENDING", executor.id)
    assert (running["appVersion"], running["applicationName"]) == ("v1", app.name)
    assert running["input"] == "{'args': (5,), 'kwargs': {}}"
    assert (running["output"], running["error"], running["completedAt"]) == (None, None, None)
    assert (running["priority"], running["wasForkedFrom"], running["queueName"]) == (0, False, None)
    first, second = app.steps(workflow_id)
    assert [(step["stepId"], step["stepName"], step["output"]) for step in (first, second)] == [
        (1, "leg", "leg 1"),
        (2, "leg", "leg 2"),
    ]
    for step in (first, second):
        assert (step["error"], step["childWorkflowId"]) == (None, None)
        assert moment(step["startedAt"]) <= moment(step["completedAt"])
    assert moment(first["completedAt"]) <= moment(second["startedAt"])
    assert app.steps(workflow_id, limit=1, offset=1) == [second]
    assert app.steps("wf-unknown") == []

    journal.let_pass(workflow_id)
    done = app.await_workflow(workflow_id)
    assert done["output"] == "leg 1, leg 2, leg 3, leg 4, leg 5"
    assert moment(done["completedAt"]) >= moment(done["createdAt"])
    assert len(app.steps(workflow_id)) == 5


def test_list_and_search(app: App, journal: Journal, begin: Begin) -> None:
    executor = begin("wf-running")
    for number in range(4):
        journal.let_pass(f"wf-done-{number}")
        executor.start(f"wf-done-{number}", 1)
        app.await_workflow(f"wf-done-{number}")
    journal.let_pass("wf-queued", 0)
    executor.enqueue("wf-queued", 1)
    journal.await_attempt("wf-queued", 1)
    stored = [
        workflow_id
        for (workflow_id,) in journal.database.rows(
            "SELECT workflow_uuid FROM dbos.workflow_status ORDER BY created_at"
        )
    ]
    done = [f"wf-done-{number}" for number in range(4)]
    assert stored == ["wf-running", *done, "wf-queued"]

    def ids(found: list[dict[str, Any]]) -> list[str]:
        return [workflow["workflowId"] for workflow in found]

    assert ids(app.workflows()) == stored
    assert ids(app.workflows(sortDesc=True)) == stored[::-1]
    assert ids(app.workflows(limit=2, offset=1)) == stored[1:3]
    assert ids(app.workflows(status="SUCCESS", workflowName="journey")) == done
    assert ids(app.workflows(workflowName="unheard-of")) == []
    assert app.workflows(limit=0) == []
    for bare in app.workflows(status="SUCCESS"):
        assert (bare["input"], bare["output"]) == (None, None)
    for full in app.workflows(status="SUCCESS", loadInput=True, loadOutput=True):
        assert (full["input"], full["output"]) == ("{'args': (1,), 'kwargs': {}}", "leg 1")

    assert ids(app.search()) == stored
    assert ids(app.search(status=["SUCCESS", "PENDING"], limit=3)) == stored[:3]
    assert ids(app.search(workflowIds=["wf-done-2", "wf-running"])) == ["wf-running", "wf-done-2"]
    assert ids(app.search(workflowIdPrefix=["wf-done-"], sortDesc=True)) == done[::-1]
    assert ids(app.search(executorId=[executor.id], appVersion=["v1"])) == stored
    assert ids(app.search(appVersion=["v2"])) == []
    assert ids(app.search(queueName=["journeys"])) == ["wf-queued"]
    assert ids(app.search(queuesOnly=True)) == ["wf-queued"]
    assert ids(app.search(hasParent=True)) == []
    created = {workflow["workflowId"]: workflow["createdAt"] for workflow in app.search()}
    window = {"startTime": created["wf-done-0"], "endTime": created["wf-done-3"]}
    assert ids(app.search(**window)) == done
    later = moment(created["wf-queued"]) + timedelta(milliseconds=1)
    assert ids(app.search(startTime=later.isoformat())) == []
    assert_refused(422, app.search, unheardOf=1)
    assert_refused(422, app.search, startTime="yesterday")
    assert_refused(422, app.workflows, limit=-1)

    for listed in app.search(loadInput=True, loadOutput=True):
        assert listed == app.workflow(listed["workflowId"])


def test_without_an_executor_there_is_nobody_to_ask(
    app: App, journal: Journal, begin: Begin
) -> None:
    executor = begin("wf")
    executor.kill()
    app.await_recovery(executor.id, "STRANDED")

    for call in (app.workflow, app.cancel, app.resume, app.fork, app.delete, app.steps):
        assert_refused(503, call, "wf")
    assert_refused(503, app.workflows)
    assert_refused(503, app.search)
    assert journal.status("wf") == "PENDING"
