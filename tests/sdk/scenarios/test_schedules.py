"""Schedules that the application keeps in its database."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from harness import eventually
from harness.api import moment
from scenarios.fleet import Fleet, refused

CONTEXT = "inventory"


@pytest.fixture(scope="module")
def fleet(fleets: Callable[[str], Fleet]) -> Fleet:
    """One schedule that does not fire by itself during the tests, and one that fires every second."""
    fleet = fleets("schedules")
    fleet.main = fleet.launch("main")
    fleet.main.schedule("nightly", "0 3 * * *", context=CONTEXT, timezone="Europe/Berlin")
    fleet.main.schedule("always", "* * * * * *")
    return fleet


@pytest.mark.check("schedules: list, get")
def test_list_and_get(fleet: Fleet) -> None:
    app = fleet.app

    def listed(**query: Any) -> list[str]:
        found = app.call("GET", "/schedules", params=query)
        return sorted(schedule["scheduleName"] for schedule in found)

    assert listed() == ["always", "nightly"]
    assert listed(scheduleNamePrefix="night") == ["nightly"]
    assert listed(status="ACTIVE", workflowName="tick") == ["always", "nightly"]
    assert listed(status="PAUSED") == listed(workflowName="unheard-of") == []
    assert listed(status="UNHEARD_OF") == []
    nightly = app.call("GET", "/schedules/nightly")
    [row] = fleet.journal.database.rows(
        "SELECT schedule_id, workflow_name, schedule, cron_timezone, automatic_backfill"
        " FROM dbos.workflow_schedules WHERE schedule_name = 'nightly'"
    )
    keys = ("scheduleId", "workflowName", "cronExpression", "cronTimezone", "automaticBackfill")
    assert tuple(nightly[key] for key in keys) == row
    assert (nightly["workflowName"], nightly["cronTimezone"]) == ("tick", "Europe/Berlin")
    assert (nightly["status"], nightly["context"]) == ("ACTIVE", fleet.traits.text(CONTEXT))
    assert nightly["applicationName"] == (app.name if fleet.traits.scoped else None)
    [bare] = app.call("GET", "/schedules", params={"scheduleNamePrefix": "nightly"})
    assert bare == nightly | {"context": None}
    [loaded] = app.call("GET", "/schedules", params={"scheduleNamePrefix": "n", "loadContext": True})
    assert loaded == nightly
    refused(404, app.call, "GET", "/schedules/unheard-of")


@pytest.mark.check("schedules: pause, resume")
def test_pause_and_resume(fleet: Fleet) -> None:
    app = fleet.app

    def status() -> tuple[str, str]:
        shown = app.call("GET", "/schedules/always")["status"]
        kept = "SELECT status FROM dbos.workflow_schedules WHERE schedule_name = 'always'"
        return shown, fleet.value(kept)

    def fired_since(then: datetime) -> bool:
        runs = app.search(scheduleName=["always"], startTime=then.isoformat(timespec="milliseconds"))
        return any(moment(run["createdAt"]) > then for run in runs)

    def now() -> datetime:
        return fleet.value("SELECT clock_timestamp()").astimezone(timezone.utc)

    started = now()
    eventually(lambda: fired_since(started), within=45, what="the schedule to fire")
    eventually(lambda: app.call("GET", "/schedules/always")["lastFiredAt"])

    app.call("POST", "/schedules/always/pause", 204)

    assert status() == ("PAUSED", "PAUSED")

    # Executors notice within a second, those that cannot be told so within thirty. Then two seconds
    # go by without a run: it would have been due in each.
    def silent() -> bool:
        quiet = now() - timedelta(seconds=2.5)
        return not fired_since(quiet)

    eventually(silent, within=45, what="the schedule to be silent")
    app.call("POST", "/schedules/always/resume", 204)
    assert status() == ("ACTIVE", "ACTIVE")
    resumed = now()
    eventually(lambda: fired_since(resumed), within=45, what="the schedule to fire again")
    app.call("POST", "/schedules/always/pause", 204)
    if fleet.traits.refuses_unknown_pause:
        refused(404, app.call, "POST", "/schedules/unheard-of/pause", 204)
    else:
        app.call("POST", "/schedules/unheard-of/pause", 204)


@pytest.mark.check("schedules: trigger")
def test_trigger(fleet: Fleet) -> None:
    app = fleet.app
    app.call("POST", "/schedules/nightly/pause", 204)  # which does not matter

    response = app.request("POST", "/schedules/nightly/trigger", 201)

    workflow_id = response.json()["workflowId"]
    assert workflow_id.startswith("sched-nightly-trigger-")
    assert "/workflows/sched-nightly-trigger-" in response.headers["location"]
    run = app.await_workflow(workflow_id)
    assert (run["workflowName"], run["scheduleName"]) == ("tick", "nightly")
    assert run["output"] == fleet.traits.text(f"tick {CONTEXT}")
    again = app.call("POST", "/schedules/nightly/trigger", 201)["workflowId"]
    assert again != workflow_id
    app.await_workflow(again)
    refused(404, app.call, "POST", "/schedules/unheard-of/trigger", 201)


@pytest.mark.check("schedules: backfill")
def test_backfill(fleet: Fleet) -> None:
    app = fleet.app
    # At three in Berlin it is two by UTC, in winter.
    first = datetime(2026, 1, 1, 2, tzinfo=timezone.utc)
    window = {"startTime": "2026-01-01T02:00:00Z", "endTime": "2026-01-04T02:00:00Z"}

    def backfilled() -> list[str]:
        return app.call("POST", "/schedules/nightly/backfill", json=window)["workflowIds"]

    found = backfilled()

    # The occurrence at the very start never belongs to the window.
    days = (1, 2, 3) if fleet.traits.backfills_the_end else (1, 2)
    assert all(each.startswith("sched-nightly-") for each in found)
    # Every language writes the time its own way; Java adds the name of the zone in brackets.
    times = [each.removeprefix("sched-nightly-").partition("[")[0] for each in found]
    occurrences = [moment(time) for time in times]
    assert occurrences == [first + timedelta(days=day) for day in days]
    for workflow_id in found:
        assert app.await_workflow(workflow_id)["output"] == fleet.traits.text(f"tick {CONTEXT}")
    assert backfilled() == found  # and nothing runs twice
    made = "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid LIKE 'sched-nightly-2026-01-0%'"
    assert fleet.value(made) == len(found)
    reverse = {"startTime": window["endTime"], "endTime": window["startTime"]}
    refused(400, app.call, "POST", "/schedules/nightly/backfill", json=reverse)
    refused(404, app.call, "POST", "/schedules/unheard-of/backfill", json=window)
