"""What an operator sees of workflows and queues is what the application's database says."""

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from harness import eventually
from harness.api import moment
from scenarios.fleet import Fleet, ids, path_of, refused

ROLES = ["admin", "ops"]
ATTRIBUTES = {"region": "eu"}


@pytest.fixture(scope="module")
def fleet(fleets: Callable[[str], Fleet]) -> Fleet:
    """One executor and one workflow of each kind; nothing changes any more while the checks look."""
    fleet = fleets("reading")
    main = fleet.main = fleet.launch("main")
    fleet.child = f"wf-parent-{fleet.traits.first_step}"
    fleet.finished(main, "wf-a", user="ada", roles=ROLES, attributes=ATTRIBUTES)
    fleet.finished(main, "wf-b", steps=1)
    fleet.journal.let_pass(fleet.child)
    main.start("wf-parent", 1, workflow="parent")
    fleet.app.await_workflow("wf-parent")
    main.start("wf-failed", "shut", workflow="passage")
    fleet.app.await_workflow("wf-failed", "ERROR")
    fleet.finished(main, "wf-lane", queue="lanes", partition="north")
    fleet.held(main, "wf-held", 2, 3)
    fleet.held(main, "wf-q1", 1, 1, queue="narrow", priority=2, deduplication_id="d-1")
    main.start("wf-q2", 1, queue="narrow", priority=5)
    return fleet


@pytest.fixture(scope="module")
def talked(fleet: Fleet) -> Fleet:
    """With a workflow that said and heard all that it will."""
    fleet.main.start("wf-talk", "eve", workflow="talk")
    # A message needs its receiver's row, which is there once an event is.
    eventually(lambda: len(fleet.app.call("GET", "/workflows/wf-talk/events")) == 2)
    fleet.listening = explained(fleet, "wf-talk", {"WAITING_FOR_MESSAGE", "WAITING_UNTIL"})
    fleet.main.send("wf-talk", "other", "nobody asked")
    fleet.main.send("wf-talk", "mailbox", "good news")
    fleet.app.await_workflow("wf-talk")
    return fleet


def stored(fleet: Fleet, condition: str, *values: Any) -> list[str]:
    """Ids of the workflows of which the condition holds, oldest first."""
    found = "SELECT workflow_uuid FROM dbos.workflow_status WHERE {} ORDER BY created_at"
    return fleet.column(found.format(condition), *values)


def explained(fleet: Fleet, workflow_id: str, codes: set[str]) -> dict[str, Any]:
    """Why it does not move, once that is one of these reasons."""
    return eventually(
        lambda: fleet.app.call("GET", f"/workflows/{workflow_id}/explain"),
        lambda explanation: explanation["code"] in codes,
        what=f"{workflow_id} to be explained by one of {codes}",
    )


def since_epoch(text: str | None) -> int | None:
    """A time of the API as the database stores it."""
    return None if text is None else round(moment(text).timestamp() * 1000)


# ---- workflows ----------------------------------------------------------------------------------


@pytest.mark.check("list")
def test_list(fleet: Fleet) -> None:
    app, text = fleet.app, fleet.traits.text
    everything = stored(fleet, "true")
    assert len(everything) == 9
    assert ids(app.workflows()) == everything
    assert ids(app.workflows(sortDesc=True)) == everything[::-1]
    assert ids(app.workflows(limit=2, offset=3)) == everything[3:5]
    assert ids(app.workflows(status="SUCCESS")) == stored(fleet, "status = 'SUCCESS'")
    assert ids(app.workflows(workflowName="passage", status="ERROR")) == ["wf-failed"]
    assert ids(app.workflows(workflowName="unheard-of")) == []
    for bare in app.workflows():
        assert (bare["input"], bare["output"], bare["error"]) == (None, None, None)
    [full] = app.workflows(workflowName="parent", loadInput=True, loadOutput=True)
    assert (full["input"], full["output"]) == (fleet.traits.arguments(1), text("child: leg 1"))
    [failed] = app.workflows(status="ERROR", loadOutput=True)
    assert "gate shut is closed" in failed["error"]
    assert failed["output"] == fleet.traits.no_output


@pytest.mark.check("search")
def test_search(fleet: Fleet) -> None:
    app = fleet.app
    middle, later = (
        fleet.value(
            "SELECT created_at FROM dbos.workflow_status WHERE workflow_uuid = %s", workflow_id
        )
        for workflow_id in ("wf-b", "wf-lane")
    )

    def at(epoch_ms: int) -> str:
        return datetime.fromtimestamp(epoch_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")

    waiting = "queue_name IS NOT NULL AND status IN ('ENQUEUED', 'PENDING', 'DELAYED')"
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "true"),
        ({"workflowIds": ["wf-held", "wf-a"]}, "workflow_uuid IN ('wf-held', 'wf-a')"),
        ({"workflowName": ["passage", "parent"]}, "name IN ('passage', 'parent')"),
        ({"status": ["ERROR", "PENDING"]}, "status IN ('ERROR', 'PENDING')"),
        ({"user": ["ada"]}, "authenticated_user = 'ada'"),
        ({"appVersion": ["v1", "v9"]}, "application_version = 'v1'"),
        ({"appVersion": ["v9"]}, "false"),
        ({"executorId": [fleet.main.id]}, f"executor_id = '{fleet.main.id}'"),
        ({"queueName": ["narrow"]}, "queue_name = 'narrow'"),
        ({"queuesOnly": True}, waiting),
        ({"hasParent": True}, "parent_workflow_id IS NOT NULL"),
        ({"hasParent": False}, "parent_workflow_id IS NULL"),
        ({"parentWorkflowId": ["wf-parent"]}, "parent_workflow_id = 'wf-parent'"),
        ({"wasForkedFrom": True}, "was_forked_from"),
        ({"workflowIdPrefix": ["wf-q"]}, "workflow_uuid LIKE 'wf-q%'"),
        ({"attributes": ATTRIBUTES}, "attributes @> '{\"region\": \"eu\"}'"),
        ({"startTime": at(middle)}, f"created_at >= {middle}"),
        ({"startTime": at(middle), "endTime": at(later)}, f"created_at BETWEEN {middle} AND {later}"),
        ({"completedAfter": at(later)}, f"completed_at >= {later}"),
        ({"completedBefore": at(later)}, f"completed_at <= {later}"),
        ({"dequeuedAfter": at(middle)}, f"started_at_epoch_ms >= {middle}"),
        ({"scheduleName": ["nightly"]}, "false"),
        ({"status": ["SUCCESS"], "workflowName": ["journey"]}, "status = 'SUCCESS' AND name = 'journey'"),
    ]
    for body, condition in cases:
        assert ids(app.search(**body)) == stored(fleet, condition), body
    everything = stored(fleet, "true")
    assert ids(app.search(limit=3, offset=1, sortDesc=True)) == everything[::-1][1:4]
    on_queues = ids(app.search(queuesOnly=True, status=["SUCCESS"]))
    assert on_queues == (["wf-lane"] if fleet.traits.shows_finished_on_queues else [])


@pytest.mark.check("get")
def test_get(fleet: Fleet) -> None:
    app, traits = fleet.app, fleet.traits
    a = app.workflow("wf-a")
    assert (a["input"], a["output"], a["error"]) == (
        traits.arguments(2),
        traits.text(path_of("1-2")),
        None,
    )
    assert (a["user"], a["roles"]) == ("ada", traits.roles(ROLES))
    assert json.loads(a["attributes"]).items() >= ATTRIBUTES.items()
    assert a["applicationName"] == (app.name if traits.scoped else None)
    lane, first, second = (app.workflow(each) for each in ("wf-lane", "wf-q1", "wf-q2"))
    assert (first["status"], second["status"]) == ("PENDING", "ENQUEUED")
    assert (first["priority"], second["priority"]) == (2, 5)
    assert (first["queueName"], first["deduplicationId"]) == ("narrow", "d-1")
    assert (lane["queueName"], lane["queuePartitionKey"]) == ("lanes", "north")
    assert app.workflow(fleet.child)["parentWorkflowId"] == "wf-parent"
    for workflow in app.search(loadInput=True, loadOutput=True):
        assert workflow == app.workflow(workflow["workflowId"])
        [row] = fleet.journal.database.rows(
            "SELECT status, name, executor_id, application_version, created_at, updated_at,"
            " completed_at, priority FROM dbos.workflow_status WHERE workflow_uuid = %s",
            workflow["workflowId"],
        )
        seen = [workflow[key] for key in ("status", "workflowName", "executorId", "appVersion")]
        seen += [since_epoch(workflow[key]) for key in ("createdAt", "updatedAt", "completedAt")]
        assert (*seen, workflow["priority"]) == row
    refused(404, app.workflow, "wf-unknown")


@pytest.mark.check("steps")
def test_steps(fleet: Fleet) -> None:
    app, traits = fleet.app, fleet.traits
    first, second = app.steps("wf-a")
    for number, step in enumerate((first, second)):
        assert (step["stepId"], step["stepName"]) == (traits.first_step + number, "leg")
        assert (step["output"], step["error"]) == (traits.text(f"leg {number + 1}"), None)
        assert moment(step["startedAt"]) <= moment(step["completedAt"])
    assert moment(first["completedAt"]) <= moment(second["startedAt"])
    assert app.steps("wf-a", limit=1, offset=1) == [second]
    approach, gate = app.steps("wf-failed")
    assert (approach["stepName"], approach["output"]) == ("approach", traits.text("approached"))
    assert (gate["stepName"], gate["output"]) == ("gate", fleet.traits.no_output)
    assert "gate shut is closed" in gate["error"]
    assert len(app.steps("wf-held")) == 1
    for workflow_id in stored(fleet, "true"):
        rows = fleet.journal.database.rows(
            "SELECT function_id, function_name, child_workflow_id FROM dbos.operation_outputs"
            " WHERE workflow_uuid = %s ORDER BY 1",
            workflow_id,
        )
        keys = ("stepId", "stepName", "childWorkflowId")
        assert [tuple(step[key] for key in keys) for step in app.steps(workflow_id)] == rows
    assert fleet.child in {step["childWorkflowId"] for step in app.steps("wf-parent")}
    assert app.steps("wf-unknown") == []


@pytest.mark.check("explain")
def test_explain(talked: Fleet) -> None:
    """What the SDKs' messages cannot tell is left out, so a wait has the reason that its record gives."""
    for workflow_id, codes in {
        "wf-a": {"ENDED"},
        "wf-failed": {"ENDED"},
        "wf-held": {"RUNNING"},
        "wf-q1": {"RUNNING"},
        "wf-q2": {"QUEUE_FULL"},
    }.items():
        explanation = explained(talked, workflow_id, codes)
        assert explanation["text"], explanation
    assert talked.listening["text"]
    refused(404, talked.app.call, "GET", "/workflows/wf-unknown/explain")


@pytest.mark.check("aggregates of workflows")
def test_workflow_aggregates(fleet: Fleet) -> None:
    def ask(**body: Any) -> list[dict[str, Any]]:
        return fleet.app.call("POST", "/workflows/aggregates", json=body)

    grouped = ask(groupByStatus=True, groupByWorkflowName=True, selectCount=True, selectMinCreatedAt=True)
    rows = fleet.journal.database.rows(
        "SELECT status, name, count(*), min(created_at) FROM dbos.workflow_status GROUP BY 1, 2"
    )
    assert sorted(
        (row["group"]["status"], row["group"]["name"], row["count"], since_epoch(row["minCreatedAt"]))
        for row in grouped
    ) == sorted(rows)
    [narrow] = ask(groupByQueueName=True, queueName=["narrow"])
    assert (narrow["group"], narrow["count"]) == ({"queue_name": "narrow"}, 2)
    [lane] = ask(groupByAppVersion=True, queueName=["lanes"], selectMaxQueueWaitMs=True)
    waited = "SELECT started_at_epoch_ms - created_at FROM dbos.workflow_status WHERE queue_name = 'lanes'"
    assert lane["group"] == {"application_version": "v1"} and "count" not in lane
    assert lane["maxQueueWaitMs"] == fleet.value(waited)
    [day] = ask(timeBucketSizeMs=10 * 366 * 86_400_000, status=["SUCCESS"])
    assert day["count"] == len(stored(fleet, "status = 'SUCCESS'"))
    assert ask(groupByStatus=True, workflowName=["unheard-of"]) == []
    cases: list[tuple[dict[str, Any], str]] = [
        ({"hasParent": True}, "parent_workflow_id IS NOT NULL"),
        ({"parentWorkflowId": ["wf-parent"]}, "parent_workflow_id = 'wf-parent'"),
        ({"scheduleName": ["nightly"]}, "schedule_name = 'nightly'"),
        ({"user": ["ada"]}, "authenticated_user = 'ada'"),
        ({"workflowIds": ["wf-a", "wf-b"]}, "workflow_uuid IN ('wf-a', 'wf-b')"),
        ({"workflowIdPrefix": ["wf-q"]}, "workflow_uuid LIKE 'wf-q%'"),
        ({"attributes": ATTRIBUTES}, "attributes @> '{\"region\": \"eu\"}'"),
    ]
    for filters, condition in cases:
        if set(filters) <= set(fleet.traits.ignored_when_counting):
            refused(501, ask, groupByStatus=True, **filters)
            continue
        counted = sum(row["count"] for row in ask(groupByStatus=True, **filters))
        assert counted == len(stored(fleet, condition)), filters
    refused(400, ask, selectCount=True)


@pytest.mark.check("aggregates of steps")
def test_step_aggregates(fleet: Fleet) -> None:
    def ask(**body: Any) -> list[dict[str, Any]]:
        return fleet.app.call("POST", "/steps/aggregates", json=body)

    grouped = ask(groupByFunctionName=True, groupByStatus=True, selectCount=True, selectMaxDurationMs=True)
    rows = fleet.journal.database.rows(
        "SELECT function_name, CASE WHEN error IS NULL THEN 'SUCCESS' ELSE 'ERROR' END, count(*),"
        " max(completed_at_epoch_ms - started_at_epoch_ms) FROM dbos.operation_outputs GROUP BY 1, 2"
    )
    assert sorted(
        (*(row["group"][key] for key in ("function_name", "status")), row["count"], row.get("maxDurationMs"))
        for row in grouped
    ) == sorted(rows)
    [gate] = ask(groupByFunctionName=True, status=["ERROR"])
    assert (gate["group"], gate["count"]) == ({"function_name": "gate"}, 1)
    [legs] = ask(groupByFunctionName=True, stepName=["leg"], workflowIdPrefix=["wf-a"])
    assert legs["count"] == 2
    refused(400, ask, selectCount=True)


@pytest.mark.check("queues")
def test_queues(fleet: Fleet) -> None:
    app = fleet.app
    columns = {
        "name": "name",
        "concurrency": "concurrency",
        "workerConcurrency": "worker_concurrency",
        "rateLimitMax": "rate_limit_max",
        "rateLimitPeriodSecs": "rate_limit_period_sec",
        "priorityEnabled": "priority_enabled",
        "partitionQueue": "partition_queue",
        "pollingIntervalSecs": "polling_interval_sec",
    }
    rows = fleet.journal.database.rows(
        f"SELECT {', '.join(columns.values())} FROM dbos.queues ORDER BY name"
    )
    listed = sorted(app.call("GET", "/queues"), key=lambda queue: queue["name"])
    assert [tuple(queue[key] for key in columns) for queue in listed] == rows
    journeys, lanes, narrow = listed
    assert [queue["name"] for queue in listed] == ["journeys", "lanes", "narrow"]
    assert (narrow["concurrency"], narrow["workerConcurrency"]) == (2, 1)
    assert (narrow["rateLimitMax"], narrow["rateLimitPeriodSecs"]) == (50, 10)
    assert (narrow["priorityEnabled"], narrow["pollingIntervalSecs"]) == (True, 0.5)
    assert (lanes["partitionQueue"], journeys["partitionQueue"]) == (True, False)
    assert 1 in (lanes["partitionConcurrency"], lanes["concurrency"])
    for queue in listed:
        assert queue["applicationName"] == (app.name if fleet.traits.scoped else None)
        assert app.call("GET", f"/queues/{queue['name']}") == queue
    refused(404, app.call, "GET", "/queues/unheard-of")


# ---- what workflows say -------------------------------------------------------------------------


@pytest.mark.check("events")
def test_events(talked: Fleet) -> None:
    text = talked.traits.text
    said = talked.app.call("GET", "/workflows/wf-talk/events")
    assert {event["key"]: event["value"] for event in said} == {
        "mood": text("glad"),
        "name": text("eve"),
        "heard": text("good news"),
    }
    assert len(said) == 3
    assert talked.app.call("GET", "/workflows/wf-a/events") == []
    assert talked.app.call("GET", "/workflows/wf-unknown/events") == []


@pytest.mark.check("notifications")
def test_notifications(talked: Fleet) -> None:
    text = talked.traits.text
    heard = talked.app.call("GET", "/workflows/wf-talk/notifications")
    assert {(each["topic"], each["message"], each["consumed"]) for each in heard} == {
        ("other", text("nobody asked"), False),
        ("mailbox", text("good news"), True),
    }
    sent = "SELECT created_at_epoch_ms FROM dbos.notifications WHERE topic = %s"
    for each in heard:
        assert since_epoch(each["createdAt"]) == talked.value(sent, each["topic"])
    assert talked.app.call("GET", "/workflows/wf-unknown/notifications") == []


@pytest.mark.check("streams")
def test_streams(talked: Fleet) -> None:
    text = talked.traits.text
    written = talked.app.call("GET", "/workflows/wf-talk/streams")
    assert {stream["key"]: stream["values"] for stream in written} == {
        "log": [text("first"), text("second")],
        "open": [text("only")],
    }
    assert talked.app.call("GET", "/workflows/wf-unknown/streams") == []


@pytest.mark.check("private mode of the application")
def test_private_mode(talked: Fleet) -> None:
    app = talked.app
    talk = "/workflows/wf-talk"
    open_view, open_steps = app.workflow("wf-a"), app.steps("wf-a")
    app.call("PATCH", "", 204, json={"privateMode": True})
    try:
        private = app.workflow("wf-a")
        assert (private["input"], private["output"]) == (None, None)
        assert private == open_view | {"input": None, "output": None}
        assert app.workflow("wf-failed")["error"] is None
        [listed] = app.search(workflowIds=["wf-a"], loadInput=True, loadOutput=True)
        assert listed == private
        assert app.steps("wf-a") == [step | {"output": None} for step in open_steps]
        for payloads in ("events", "notifications", "streams"):
            assert app.call("GET", f"{talk}/{payloads}") == []
        refused(403, app.call, "GET", f"{talk}/export")
    finally:
        app.call("PATCH", "", 204, json={"privateMode": False})
    assert app.workflow("wf-a") == open_view
    assert app.call("GET", f"{talk}/events") != []
