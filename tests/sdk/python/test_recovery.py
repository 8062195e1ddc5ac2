"""A process dies; its workflows go on in another of the same version, or wait for one visibly."""

from datetime import timedelta

import pytest

from harness import App, Journal, Launch, eventually
from harness.api import moment


def assert_in_order(*moments: str) -> None:
    times = [moment(text) for text in moments]
    assert times == sorted(times), f"out of order: {moments}"


@pytest.mark.grace(2)
def test_another_executor_of_the_version_finishes(
    app: App, journal: Journal, launch: Launch, grace_secs: int
) -> None:
    doomed, survivor = launch("doomed"), launch("survivor")
    # Where each workflow is when its process dies: (steps done, steps in all).
    positions = {"wf-early": (0, 4), "wf-middle": (2, 5), "wf-late": (3, 4)}
    for workflow_id, (done, steps) in positions.items():
        journal.let_pass(workflow_id, done)
        doomed.start(workflow_id, steps)
    survivor.start("wf-survivors-own", 3)
    journal.let_pass("wf-survivors-own", 1)
    for workflow_id, (done, _) in positions.items():
        journal.await_attempt(workflow_id, done + 1)
        assert journal.checkpoints(workflow_id) == list(range(1, done + 1))
    listed = app.executor(doomed.id)
    assert listed is not None

    doomed.kill()

    record = app.await_recovery(doomed.id, "RECOVERED")
    assert record["executorId"] == doomed.id
    assert record["hostname"] == listed["hostname"]
    assert record["appVersion"] == "v1"
    assert record["reason"] is None
    assert record["pendingWorkflows"] == len(positions)
    assert record["recoveredBy"] == survivor.id
    assert_in_order(
        *(record[at] for at in ("disconnectedAt", "deadAt", "dispatchedAt", "completedAt"))
    )
    waited = moment(record["deadAt"]) - moment(record["disconnectedAt"])
    assert timedelta(seconds=grace_secs) <= waited < timedelta(seconds=grace_secs + 1)
    [attempt] = record["attempts"]
    assert attempt["executorId"] == survivor.id
    assert attempt["outcome"] == "ACCEPTED"
    assert attempt["error"] is None
    assert_in_order(record["dispatchedAt"], attempt["at"], record["completedAt"])
    assert app.call("GET", f"/recoveries/{record['id']}") == record
    assert app.recoveries(status="RECOVERED", appVersion="v1") == [record]
    assert app.recoveries(status="STRANDED") == []

    # They go on before anybody lets them pass: the step that the death interrupted begins again.
    for workflow_id, (done, _) in positions.items():
        began = journal.await_attempt(workflow_id, done + 1, by=survivor.id).began_at
        # The SDK looks at its queue once a second.
        assert began - moment(record["dispatchedAt"]) < timedelta(seconds=2)

    for workflow_id in (*positions, "wf-survivors-own"):
        journal.let_pass(workflow_id)
    for workflow_id, (done, steps) in positions.items():
        finished = app.await_workflow(workflow_id)
        assert finished["output"] == ", ".join(f"leg {step}" for step in range(1, steps + 1))
        assert finished["executorId"] == survivor.id
        assert journal.attempts(workflow_id) == {
            step: [doomed.id] if step <= done
            else [doomed.id, survivor.id] if step == done + 1
            else [survivor.id]
            for step in range(1, steps + 1)
        }  # fmt: skip
    app.await_workflow("wf-survivors-own")
    assert journal.attempts("wf-survivors-own") == {step: [survivor.id] for step in (1, 2, 3)}

    # Nobody needs the dead one's row any more.
    eventually(lambda: app.executor(doomed.id) is None, what="the dead executor to be forgotten")


def test_queued_workflows_go_on_too(app: App, journal: Journal, launch: Launch) -> None:
    doomed = launch("doomed")
    journal.let_pass("wf-queued", 1)
    doomed.enqueue("wf-queued", 3)
    journal.await_attempt("wf-queued", 2, by=doomed.id)
    survivor = launch("survivor")

    doomed.kill()

    app.await_recovery(doomed.id, "RECOVERED")
    journal.await_attempt("wf-queued", 2, by=survivor.id)
    journal.let_pass("wf-queued")
    finished = app.await_workflow("wf-queued")
    assert finished["queueName"] == "journeys"
    assert journal.attempts("wf-queued") == {
        1: [doomed.id],
        2: [doomed.id, survivor.id],
        3: [survivor.id],
    }


def test_nothing_pending_ends_quietly(app: App, journal: Journal, launch: Launch) -> None:
    leaving, staying = launch("leaving"), launch("staying")
    journal.let_pass("wf-done")
    leaving.start("wf-done", 2)
    app.await_workflow("wf-done")

    leaving.kill()

    record = app.await_recovery(leaving.id, "NOTHING_PENDING")
    assert record["pendingWorkflows"] == 0
    assert record["recoveredBy"] is None
    assert record["attempts"] == []
    assert record["dispatchedAt"] is None
    eventually(lambda: [executor["executorId"] for executor in app.executors()] == [staying.id])
    assert journal.attempts("wf-done") == {1: [leaving.id], 2: [leaving.id]}


def test_two_deaths_at_once(app: App, journal: Journal, launch: Launch) -> None:
    doomed = [launch("first"), launch("second")]
    survivor = launch("survivor")
    for number, executor in enumerate(doomed):
        journal.let_pass(f"wf-{number}", 1)
        executor.start(f"wf-{number}", 3)
        journal.await_attempt(f"wf-{number}", 2)

    for executor in doomed:
        executor.kill()

    for number, executor in enumerate(doomed):
        record = app.await_recovery(executor.id, "RECOVERED")
        assert (record["recoveredBy"], record["pendingWorkflows"]) == (survivor.id, 1)
        journal.let_pass(f"wf-{number}")
        app.await_workflow(f"wf-{number}")
        assert journal.attempts(f"wf-{number}") == {
            1: [executor.id],
            2: [executor.id, survivor.id],
            3: [survivor.id],
        }


def test_work_of_a_version_that_nobody_runs_is_stranded_until_somebody_does(
    app: App, journal: Journal, launch: Launch
) -> None:
    doomed, other = launch("doomed", "v1"), launch("other", "v2")
    stranded = {"wf-one": (1, 3), "wf-two": (2, 4)}
    for workflow_id, (done, steps) in stranded.items():
        journal.let_pass(workflow_id, done)
        doomed.start(workflow_id, steps)
        journal.await_attempt(workflow_id, done + 1)

    doomed.kill()

    record = app.await_recovery(doomed.id, "STRANDED")
    assert record["reason"] == "NO_MATCHING_VERSION"
    assert record["pendingWorkflows"] == len(stranded)
    assert (record["appVersion"], record["recoveredBy"]) == ("v1", None)
    assert (record["attempts"], record["dispatchedAt"], record["completedAt"]) == ([], None, None)
    assert_in_order(record["disconnectedAt"], record["deadAt"])
    dead = app.executor(doomed.id)
    assert dead is not None and dead["status"] == "DEAD"

    # The other version takes from its queues meanwhile, twice in a row, and still not this.
    for workflow_id in ("wf-other-1", "wf-other-2"):
        journal.let_pass(workflow_id)
        other.enqueue(workflow_id, 1)
        app.await_workflow(workflow_id)
    for workflow_id, (done, _) in stranded.items():
        journal.let_pass(workflow_id, done + 1)
        waiting = app.workflow(workflow_id)
        assert (waiting["status"], waiting["executorId"]) == ("PENDING", doomed.id)
        assert {effect.app_version for effect in journal.effects(workflow_id)} == {"v1"}

    heir = launch("heir", "v1")

    # The server saw it connect no later than it lists as the row's creation.
    connected = moment(app.await_executor(heir.id)["createdAt"])
    for workflow_id, (done, _) in stranded.items():
        resumed = journal.await_attempt(workflow_id, done + 1, by=heir.id)
        assert resumed.began_at - connected < timedelta(seconds=2)
    recovered = app.await_recovery(doomed.id, "RECOVERED")
    assert recovered["id"] == record["id"]
    assert (recovered["recoveredBy"], recovered["reason"]) == (heir.id, None)
    assert recovered["pendingWorkflows"] == len(stranded)
    for workflow_id, (done, steps) in stranded.items():
        journal.let_pass(workflow_id)
        app.await_workflow(workflow_id)
        attempts = journal.attempts(workflow_id)
        assert attempts == {
            step: [doomed.id] if step <= done
            else [doomed.id, heir.id] if step == done + 1
            else [heir.id]
            for step in range(1, steps + 1)
        }  # fmt: skip
        assert {effect.app_version for effect in journal.effects(workflow_id)} == {"v1"}
    eventually(lambda: app.executor(doomed.id) is None)


def test_the_last_executor_dies(app: App, journal: Journal, launch: Launch) -> None:
    doomed = launch("doomed")
    journal.let_pass("wf-alone", 1)
    doomed.start("wf-alone", 2)
    journal.await_attempt("wf-alone", 2)

    doomed.kill()

    record = app.await_recovery(doomed.id, "STRANDED")
    assert (record["reason"], record["pendingWorkflows"]) == ("NO_EXECUTOR", None)
    assert app.get()["status"] == "UNAVAILABLE"

    heir = launch("heir")
    journal.let_pass("wf-alone")
    app.await_workflow("wf-alone")
    recovered = app.await_recovery(doomed.id, "RECOVERED")
    assert (recovered["recoveredBy"], recovered["pendingWorkflows"]) == (heir.id, 1)
    assert journal.attempts("wf-alone") == {1: [doomed.id], 2: [doomed.id, heir.id]}
