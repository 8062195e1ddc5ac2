"""A connection is lost but the process lives: its work stays its own as far as that is possible."""

import pytest

from harness import App, Journal, Launch, Proxy, eventually


@pytest.mark.grace(10)
def test_back_within_grace_nothing_is_recovered(
    app: App, journal: Journal, launch: Launch, cable: Proxy
) -> None:
    away, bystander = launch("away", cable=cable), launch("bystander")
    journal.let_pass("wf-kept", 1)
    away.start("wf-kept", 4)
    journal.await_attempt("wf-kept", 2)

    cable.cut()
    app.await_executor(away.id, "DISCONNECTED")
    record = app.await_recovery(away.id, "GRACE")
    assert (record["deadAt"], record["reason"], record["pendingWorkflows"]) == (None, None, None)
    # It works on, with nobody to tell.
    journal.let_pass("wf-kept", 2)
    journal.await_attempt("wf-kept", 3)
    cable.restore()

    app.await_executor(away.id)
    rejoined = app.await_recovery(away.id, "REJOINED")
    assert rejoined["id"] == record["id"]
    assert rejoined["completedAt"] is not None
    assert (rejoined["deadAt"], rejoined["dispatchedAt"]) == (None, None)
    assert (rejoined["recoveredBy"], rejoined["attempts"]) == (None, [])
    journal.let_pass("wf-kept")
    assert app.await_workflow("wf-kept")["executorId"] == away.id
    assert journal.attempts("wf-kept") == {step: [away.id] for step in (1, 2, 3, 4)}
    assert journal.ways_left("wf-kept") == [(away.id, "return")]
    assert app.recoveries() == [rejoined]
    assert {executor["executorId"] for executor in app.executors()} == {away.id, bystander.id}


@pytest.mark.grace(2)
def test_back_after_grace_nothing_is_taken_any_more(
    app: App, journal: Journal, launch: Launch, cable: Proxy
) -> None:
    """It was declared dead, but nobody could take its work before it returned."""
    away, other = launch("away", "v1", cable=cable), launch("other", "v2")
    journal.let_pass("wf-kept", 1)
    away.start("wf-kept", 3)
    journal.await_attempt("wf-kept", 2)

    cable.cut()
    stranded = app.await_recovery(away.id, "STRANDED")
    assert (stranded["reason"], stranded["pendingWorkflows"]) == ("NO_MATCHING_VERSION", 1)
    cable.restore()

    app.await_executor(away.id)
    rejoined = app.await_recovery(away.id, "REJOINED")
    assert rejoined["id"] == stranded["id"]
    assert (rejoined["recoveredBy"], rejoined["attempts"]) == (None, [])
    # Now somebody could take it; but its owner is back.
    newcomer = launch("newcomer", "v1")
    journal.let_pass("wf-newcomer")
    newcomer.enqueue("wf-newcomer", 1)
    app.await_workflow("wf-newcomer")
    journal.let_pass("wf-kept")
    assert app.await_workflow("wf-kept")["executorId"] == away.id
    assert journal.attempts("wf-kept") == {step: [away.id] for step in (1, 2, 3)}
    assert journal.ways_left("wf-kept") == [(away.id, "return")]
    listed = {executor["executorId"]: executor["status"] for executor in app.executors()}
    assert listed == {away.id: "HEALTHY", other.id: "HEALTHY", newcomer.id: "HEALTHY"}


@pytest.mark.grace(2)
def test_taken_while_away_and_not_again_after_the_return(
    app: App, journal: Journal, launch: Launch, cable: Proxy
) -> None:
    """Its work was taken after grace. What it starts after its return is not."""
    away, taker = launch("away", cable=cable), launch("taker")
    journal.let_pass("wf-taken", 1)
    away.start("wf-taken", 3)
    journal.await_attempt("wf-taken", 2)

    cable.cut()
    recovered = app.await_recovery(away.id, "RECOVERED")
    assert recovered["recoveredBy"] == taker.id
    # Handed back means put on a queue, from which the absent one, which still has its database, may
    # take it again itself. It then need not run a second time what it is running.
    again = eventually(
        lambda: app.workflow("wf-taken"),
        lambda workflow: workflow["status"] == "PENDING" and workflow["dequeuedAt"],
        what="wf-taken to be taken from the queue",
    )
    if again["executorId"] == taker.id:
        journal.await_attempt("wf-taken", 2, by=taker.id)
    cable.restore()
    app.await_executor(away.id)
    journal.let_pass("wf-own", 1)
    away.start("wf-own", 3)
    journal.await_attempt("wf-own", 2)

    # If two executions are inside step 2 of the workflow that was taken, the database lets one go on.
    journal.let_pass("wf-taken")
    finished = app.await_workflow("wf-taken")
    assert finished["output"] == "leg 1, leg 2, leg 3"
    eventually(lambda: all(left for _, left in journal.ways_left("wf-taken")))
    attempts = journal.attempts("wf-taken")
    assert (attempts[1], len(attempts[3])) == ([away.id], 1)
    assert sorted(attempts[2]) in (
        sorted([away.id, again["executorId"]]),
        [again["executorId"]],
    )
    journal.let_pass("wf-own")
    app.await_workflow("wf-own")
    assert journal.attempts("wf-own") == {step: [away.id] for step in (1, 2, 3)}
    assert [record["id"] for record in app.recoveries()] == [recovered["id"]]


@pytest.mark.grace(3)
def test_an_id_that_returns_with_another_version(
    app: App, journal: Journal, launch: Launch
) -> None:
    """The new version is another executor; the old one's work is neither its own nor forgotten."""
    old = launch("old", "v1", vmid="vm-7")
    journal.let_pass("wf-old", 1)
    old.start("wf-old", 3)
    journal.await_attempt("wf-old", 2)
    old.kill()

    new = launch("new", "v2", vmid="vm-7")

    assert (new.id, old.id) == ("vm-7", "vm-7")
    record = app.await_recovery("vm-7", "STRANDED", version="v1")
    assert (record["reason"], record["pendingWorkflows"]) == ("NO_MATCHING_VERSION", 1)
    listed = {executor["appVersion"]: executor["status"] for executor in app.executors()}
    assert listed == {"v1": "DEAD", "v2": "HEALTHY"}
    journal.let_pass("wf-new")
    new.start("wf-new", 2)
    app.await_workflow("wf-new")

    heir = launch("heir", "v1", vmid="vm-8")
    recovered = app.await_recovery("vm-7", "RECOVERED", version="v1")
    assert recovered["recoveredBy"] == heir.id
    journal.let_pass("wf-old")
    app.await_workflow("wf-old")
    assert journal.attempts("wf-old") == {1: ["vm-7"], 2: ["vm-7", "vm-8"], 3: ["vm-8"]}
    assert {effect.app_version for effect in journal.effects("wf-old")} == {"v1"}
    eventually(lambda: app.executor("vm-7", "v1") is None)
    assert app.executor("vm-7", "v2") is not None


@pytest.mark.grace(20)
def test_a_process_that_restarts_under_its_id_rejoins(
    app: App, journal: Journal, launch: Launch
) -> None:
    """The same id and version within grace: to the server it merely came back."""
    first = launch("first", vmid="vm-7")
    journal.let_pass("wf-finished")
    first.start("wf-finished", 1)
    app.await_workflow("wf-finished")
    first.kill()
    app.await_executor("vm-7", "DISCONNECTED")

    launch("second", vmid="vm-7")

    record = app.await_recovery("vm-7", "REJOINED")
    assert record["attempts"] == []
    [listed] = app.executors()
    assert (listed["executorId"], listed["status"]) == ("vm-7", "HEALTHY")


@pytest.mark.grace(1)
def test_a_process_that_freezes(app: App, journal: Journal, launch: Launch) -> None:
    """Its socket stays open; only silence betrays it. It thaws when its work is done elsewhere."""
    frozen, taker = launch("frozen"), launch("taker")
    journal.let_pass("wf-taken", 1)
    frozen.start("wf-taken", 3)
    journal.await_attempt("wf-taken", 2)

    frozen.freeze()

    # The server gives up on a silent socket after 30 s.
    recovered = app.await_recovery(frozen.id, "RECOVERED", within=60)
    assert (recovered["recoveredBy"], recovered["pendingWorkflows"]) == (taker.id, 1)
    journal.let_pass("wf-taken")
    assert app.await_workflow("wf-taken")["executorId"] == taker.id

    frozen.thaw()

    app.await_executor(frozen.id)
    eventually(lambda: all(left for _, left in journal.ways_left("wf-taken")))
    assert app.workflow("wf-taken")["output"] == "leg 1, leg 2, leg 3"
    assert journal.attempts("wf-taken") == {
        1: [frozen.id],
        2: [frozen.id, taker.id],
        3: [taker.id],
    }
