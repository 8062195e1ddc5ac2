"""The server is not in the way of the work, and forgets nothing when it dies."""

import time
from datetime import datetime, timedelta, timezone

import pytest

from harness import App, Journal, Launch, Server, eventually
from harness.api import moment


@pytest.mark.grace(4)
def test_the_server_is_killed_and_restarted(
    app: App, own_server: Server, journal: Journal, launch: Launch, grace_secs: int
) -> None:
    steady, busy, doomed = launch("steady"), launch("busy"), launch("doomed")
    journal.let_pass("wf-busy", 1)
    busy.start("wf-busy", 3)
    journal.await_attempt("wf-busy", 2)
    journal.let_pass("wf-orphan", 1)
    doomed.start("wf-orphan", 3)
    journal.await_attempt("wf-orphan", 2)

    own_server.kill()
    killed = time.monotonic()

    # Work goes on, and new work begins, without it.
    journal.let_pass("wf-during")
    steady.start("wf-during", 2)
    eventually(lambda: journal.status("wf-during") == "SUCCESS")
    journal.let_pass("wf-busy", 2)
    journal.await_attempt("wf-busy", 3)
    doomed.kill()
    # Longer than grace: a server that counted its own absence would declare all of them dead now.
    eventually(lambda: time.monotonic() - killed > grace_secs + 1)

    own_server.start()
    restarted = datetime.now(timezone.utc)

    for executor in (steady, busy):
        app.await_executor(executor.id)
    record = app.await_recovery(doomed.id, "RECOVERED")
    # `restarted` was read when the server answered already, up to one look later than it did.
    assert moment(record["deadAt"]) - restarted > timedelta(seconds=grace_secs - 0.5)
    assert record["pendingWorkflows"] == 1
    assert record["recoveredBy"] in (steady.id, busy.id)
    for workflow_id in ("wf-orphan", "wf-busy"):
        journal.let_pass(workflow_id)
        app.await_workflow(workflow_id)
    assert journal.attempts("wf-busy") == {step: [busy.id] for step in (1, 2, 3)}
    assert journal.attempts("wf-during") == {step: [steady.id] for step in (1, 2)}
    orphan = journal.attempts("wf-orphan")
    assert (orphan[1], orphan[2][0], len(orphan[2])) == ([doomed.id], doomed.id, 2)
    assert orphan[3] == [orphan[2][1]]
    # Those who came back in time left no trace.
    assert app.recoveries() == [app.await_recovery(doomed.id, "RECOVERED")]


@pytest.mark.grace(3)
def test_a_death_just_before_the_servers_own(
    app: App, own_server: Server, journal: Journal, launch: Launch, grace_secs: int
) -> None:
    """What the server knew about a dead executor survives it, and no grace is cut short."""
    survivor, doomed = launch("survivor"), launch("doomed")
    journal.let_pass("wf-orphan", 1)
    doomed.start("wf-orphan", 2)
    journal.await_attempt("wf-orphan", 2)
    doomed.kill()
    grace = app.await_recovery(doomed.id, "GRACE")
    own_server.kill()

    own_server.start()
    restarted = datetime.now(timezone.utc)

    recovered = app.await_recovery(doomed.id, "RECOVERED")
    assert recovered["id"] == grace["id"]
    assert recovered["disconnectedAt"] == grace["disconnectedAt"]
    assert moment(recovered["deadAt"]) - restarted > timedelta(seconds=grace_secs - 0.5)
    assert recovered["recoveredBy"] == survivor.id
    journal.let_pass("wf-orphan")
    app.await_workflow("wf-orphan")
    assert journal.attempts("wf-orphan") == {1: [doomed.id], 2: [doomed.id, survivor.id]}


@pytest.mark.grace(1)
def test_stranded_work_outlives_the_server(
    app: App, own_server: Server, journal: Journal, launch: Launch
) -> None:
    doomed, other = launch("doomed", "v1"), launch("other", "v2")
    journal.let_pass("wf-stranded", 1)
    doomed.start("wf-stranded", 2)
    journal.await_attempt("wf-stranded", 2)
    doomed.kill()
    stranded = app.await_recovery(doomed.id, "STRANDED")

    own_server.kill()
    own_server.start()

    app.await_executor(other.id)
    # Until somebody is back who can be asked, the reason is that nobody is.
    again = app.await_recovery(doomed.id, "STRANDED", reason="NO_MATCHING_VERSION")
    assert again["id"] == stranded["id"]
    heir = launch("heir", "v1")
    journal.let_pass("wf-stranded")
    app.await_workflow("wf-stranded")
    assert app.await_recovery(doomed.id, "RECOVERED")["recoveredBy"] == heir.id
    assert journal.attempts("wf-stranded") == {1: [doomed.id], 2: [doomed.id, heir.id]}
