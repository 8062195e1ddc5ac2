"""Acceptance checks 28 to 43: workflows."""

import base64
import json
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import psycopg
import pytest
from harness import Proxy, eventually
from wire import messages
from world import APP, Executor, World


def path(world: World, workflow_id: str, tail: str = "") -> str:
    return f"{world.app}/workflows/{quote(workflow_id, safe='')}{tail}"


def ids(world: World, *flags: str) -> list[str]:
    return [row["workflowId"] for row in world.ctl.list("workflow", "list", *flags)]


@pytest.fixture(scope="session")
def bought(world: World, shop: Executor) -> str:
    shop.start("buy", "bought", "tea")
    world.await_status("bought", "SUCCESS")
    return "bought"


@pytest.fixture
def waiting(world: World, shop: Executor) -> Iterator[list[str]]:
    """Three workflows that wait."""
    made = [f"waiting-{uuid.uuid4().hex[:8]}-{number}" for number in range(3)]
    for one in made:
        shop.start("wait", one, "go")
        world.await_status(one, "PENDING")
    yield made
    world.http("POST", "workflows/bulk-cancel", 204, json={"workflowIds": made})


def test_a_list_is_complete(world: World, bought: str) -> None:
    """2,500 more rows, copied beside the one the SDK wrote: nothing is cut off."""
    with psycopg.connect(world.database().url, autocommit=True) as connection:
        columns = [
            name
            for (name,) in connection.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = 'dbos' AND table_name = 'workflow_status'"
            )
        ]
        rest = ", ".join(name for name in columns if name != "workflow_uuid")
        connection.execute(
            f"INSERT INTO dbos.workflow_status (workflow_uuid, {rest})"
            f" SELECT 'many-' || n, {rest} FROM dbos.workflow_status, generate_series(1, 2500) n"
            " WHERE workflow_uuid = %s",
            (bought,),
        )
    rows = world.ctl.list("workflow", "list")
    assert len([row for row in rows if row["workflowId"].startswith("many-")]) == 2500
    assert all(row["input"] is None and row["output"] is None for row in rows)
    with psycopg.connect(world.database().url, autocommit=True) as connection:
        connection.execute("DELETE FROM dbos.workflow_status WHERE workflow_uuid LIKE 'many-%'")


def test_filters(world: World, shop: Executor, bought: str, waiting: list[str]) -> None:
    """Each filter against what the application's database says."""

    def expected(condition: str, order: str = "created_at") -> list[str]:
        with psycopg.connect(world.database().url) as connection:
            query = f"SELECT workflow_uuid FROM dbos.workflow_status WHERE {condition} ORDER BY {order}"
            return [row[0] for row in connection.execute(query)]

    shop.enqueue("wait", "on-the-queue", "go")
    for flags, condition in (
        (["--status", "PENDING"], "status = 'PENDING'"),
        (["--status", "SUCCESS", "--status", "CANCELLED"], "status IN ('SUCCESS', 'CANCELLED')"),
        (["--name", "buy"], "name = 'buy'"),
        (["--id", bought, "--id", waiting[0]], f"workflow_uuid IN ('{bought}', '{waiting[0]}')"),
        (["--queue", "q"], "queue_name = 'q'"),
        (["--app-version", "v1"], "application_version = 'v1'"),
        (["--user", "nobody"], "false"),
        (["--since", "1h"], "true"),
        (["--until", "2026-01-01T00:00:00+02:00"], "false"),
    ):
        # Compared until equal: workflows of the checks before may be ending.
        eventually(
            lambda flags=flags, condition=condition: (
                sorted(ids(world, *flags)),
                sorted(expected(condition)),
            ),
            lambda pair: pair[0] == pair[1],
            what=f"{flags} to find what the database has",
        )
    assert ids(world, "--queued") == ["on-the-queue"]
    everything = expected("true", "created_at DESC")
    assert ids(world, "--limit", "2", "--offset", "1", "--desc") == everything[1:3]
    shop.send("on-the-queue", "go", "on")


def test_one_row_with_its_output(world: World, bought: str) -> None:
    rows = world.http("GET", "workflows?status=SUCCESS&limit=1&loadOutput=true").json()
    assert len(rows) == 1 and rows[0]["output"]
    assert world.http("GET", "workflows?status=NOPE").json() == []


def test_one_workflow(world: World, shop: Executor, bought: str) -> None:
    row = world.ctl("workflow", "get", bought, "-o", "json").json
    assert (row["workflowName"], row["status"]) == ("buy", "SUCCESS")
    assert "tea" in row["input"] and "bought tea" in row["output"] and row["error"] is None
    assert row["createdAt"].endswith("Z")
    shop.start("fail", "failed", "no tea")
    failed = world.await_status("failed", "ERROR")
    assert "no tea" in failed["error"] and failed["output"] is None
    world.ctl("workflow", "get", "unheard-of", code=4)


def test_any_id(world: World, shop: Executor) -> None:
    for one in ("a/b", "50%", "two words", "çay-☕", "search", "a?b#c"):
        shop.start("wait", one, "go")
        assert world.ctl("workflow", "get", one, "-o", "json").json["workflowId"] == one
        world.ctl("workflow", "steps", one)
        world.ctl("workflow", "cancel", one)
        assert world.await_status(one, "CANCELLED")["workflowId"] == one
        world.ctl("workflow", "delete", one)
        world.ctl("workflow", "get", one, code=4)


def test_what_a_workflow_left(world: World, bought: str) -> None:
    steps = world.ctl.list("workflow", "steps", bought)
    assert [step["stepName"] for step in steps[:2]] == ["reserve", "charge"]
    assert all(step["completedAt"] for step in steps[:2])
    [event] = world.ctl.list("workflow", "events", bought)
    assert event["key"] == "progress" and "bought tea" in event["value"]
    [entry] = world.http("GET", path(world, bought, "/streams")).json()
    assert entry["key"] == "log" and "one tea" in str(entry)
    assert world.http("GET", path(world, bought, "/notifications")).json() == []
    assert world.ctl.list("workflow", "steps", "unheard-of") == []


def test_notifications(world: World, shop: Executor, waiting: list[str]) -> None:
    shop.send(waiting[0], "other", "hello")
    [note] = world.http("GET", path(world, waiting[0], "/notifications")).json()
    assert note["topic"] == "other" and "hello" in note["message"]


def test_children_are_steps(world: World, shop: Executor) -> None:
    shop.start("family", "ancestor", 2)
    world.await_status("ancestor-child-child", "PENDING")
    steps = world.ctl.list("workflow", "steps", "ancestor")
    assert steps[0]["childWorkflowId"] == "ancestor-child"
    world.ctl("workflow", "cancel", "ancestor", "--children")
    for one in ("ancestor", "ancestor-child", "ancestor-child-child"):
        world.await_status(one, "CANCELLED")


def test_cancel(world: World, waiting: list[str]) -> None:
    world.ctl("workflow", "cancel", waiting[0])
    assert world.workflow(waiting[0])["status"] == "CANCELLED"
    world.ctl("workflow", "cancel", "-", stdin="\n".join(waiting[1:]) + "\n")
    assert [world.workflow(one)["status"] for one in waiting] == ["CANCELLED"] * 3


def test_cancelling_several(world: World, waiting: list[str]) -> None:
    world.ctl("workflow", "cancel", *waiting[:2])
    assert [world.workflow(one)["status"] for one in waiting] == [
        "CANCELLED",
        "CANCELLED",
        "PENDING",
    ]


def test_resume(world: World, shop: Executor, waiting: list[str]) -> None:
    world.ctl("workflow", "cancel", *waiting[:2])
    world.ctl("workflow", "resume", waiting[0])
    world.ctl("workflow", "resume", waiting[1], "--queue", "q")
    assert world.workflow(waiting[1])["queueName"] == "q"
    for one in waiting[:2]:
        world.await_status(one, "PENDING")
        shop.send(one, "go", "done")
        assert world.await_status(one, "SUCCESS")["output"] in ('done', '"done"')
    world.ctl("workflow", "resume", "unheard-of", code=4)


def test_fork(world: World, bought: str) -> None:
    done = world.ctl(
        *("workflow", "fork", bought, "--start-step", "2"),
        *("--app-version", "v1", "--new-id", "forked"),
    )
    assert done.lines == ["forked"]
    forked = world.await_status("forked", "SUCCESS")
    assert (forked["forkedFrom"], forked["appVersion"]) == (bought, "v1")
    [copied] = [
        step
        for step in world.ctl.list("workflow", "steps", bought)
        if step["stepName"] == "reserve"
    ]
    again = next(
        step
        for step in world.ctl.list("workflow", "steps", "forked")
        if step["stepName"] == "reserve"
    )
    assert again["completedAt"] == copied["completedAt"], "the step was copied, not run again"
    answer = world.http("POST", path(world, bought, "/fork"), 201, json={})
    assert answer.headers["location"].endswith(answer.json()["workflowId"])
    world.ctl("workflow", "fork", "unheard-of", code=4)


def test_fork_without_anything(world: World, bought: str) -> None:
    assert len(world.ctl("workflow", "fork", bought).lines) == 1
    world.http("POST", path(world, bought, "/fork"), 201)


def test_delete(world: World, shop: Executor) -> None:
    for one in ("gone-1", "gone-2", "gone-3"):
        shop.start("buy", one, "tea")
        world.await_status(one, "SUCCESS")
    world.ctl("workflow", "delete", "gone-1")
    world.ctl("workflow", "get", "gone-1", code=4)
    world.http(
        "POST",
        "workflows/bulk-delete",
        204,
        json={"workflowIds": ["gone-2", "gone-3"], "deleteChildren": True},
    )
    world.ctl("workflow", "get", "gone-3", code=4)


def test_fork_from_failure(world: World, shop: Executor) -> None:
    failures = ["broken-1", "broken-2"]
    for one in failures:
        shop.start("fail", one, "always")
        world.await_status(one, "ERROR")
    body = {"workflowIds": failures}
    forks = world.http("POST", "workflows/bulk-fork-from-failure", json=body).json()
    assert [world.workflow(one)["forkedFrom"] for one in forks["workflowIds"]] == failures
    both = body | {"fromLastFailure": True, "fromLastStep": True}
    world.http("POST", "workflows/bulk-fork-from-failure", 400, json=both)


def test_export_and_import(world: World, bought: str) -> None:
    world.ctl("app", "register", "copies")
    copies = world.executor(name="copies")
    blob = world.http("GET", path(world, bought, "/export")).json()
    body = {"serializedWorkflow": blob["serializedWorkflow"]}
    target = f"/v2/orgs/{world.org}/apps/copies/workflows"
    assert world.http("POST", f"{target}/import", 201, json=body).content == b""
    steps = [
        world.http("GET", f"/v2/orgs/{world.org}/apps/{app}/workflows/{bought}/steps").json()
        for app in (APP, "copies")
    ]
    assert steps[0] == steps[1] and steps[0]
    for garbage in ("nonsense", base64.b64encode(b"{}").decode()):
        world.http("POST", f"{target}/import", 400, json={"serializedWorkflow": garbage})
    copies.kill()


def test_import_takes_five_mebibytes(world: World, shop: Executor) -> None:
    """The blob is garbage; what counts is that its size is not what it is refused for."""
    body = json.dumps({"serializedWorkflow": "A" * (5 << 20)})
    headers = {"content-type": "application/json"}
    world.http("POST", "workflows/import", 400, content=body, headers=headers)


def test_rewind(world: World, shop: Executor) -> None:
    shop.start("buy", "rewound", "milk")
    before = world.await_status("rewound", "SUCCESS")
    world.http("POST", path(world, "rewound", "/rewind"), 204, json={"startStep": 1})
    after = world.await_status("rewound", "SUCCESS")
    assert after["workflowId"] == before["workflowId"] and after["output"] == before["output"]


def test_aggregates(world: World, bought: str) -> None:
    body = {"groupByStatus": True, "groupByQueueName": True, "selectCount": True}
    rows = world.http("POST", "workflows/aggregates", json=body).json()
    success = [row for row in rows if row["group"].get("status") == "SUCCESS"]
    assert sum(row["count"] for row in success) >= 1
    assert all("maxTotalLatencyMs" not in row for row in rows), "not asked for"
    world.http("POST", "workflows/aggregates", 400, json={"selectCount": True})
    steps = world.http(
        "POST", "steps/aggregates", json={"groupByFunctionName": True, "selectCount": True}
    ).json()
    assert any("reserve" in row["group"].values() for row in steps)
    world.http("POST", "steps/aggregates", 400, json={"selectCount": True})


def test_private_mode_shows_no_payload(world: World, shop: Executor, bought: str) -> None:
    world.ctl("app", "update", APP, "--private-mode=true")
    try:
        row = world.ctl("workflow", "get", bought, "-o", "json").json
        assert row["input"] is None and row["output"] is None
        everything = world.http(
            "POST", "workflows/search", json={"loadInput": True, "loadOutput": True}
        )
        assert "bought tea" not in everything.text
        assert "tea" not in world.http("GET", path(world, bought, "/steps")).text
        for tail in ("/events", "/streams", "/notifications"):
            assert world.http("GET", path(world, bought, tail)).json() == []
        world.http("GET", path(world, bought, "/export"), 403)
    finally:
        world.ctl("app", "update", APP, "--private-mode=false")


@pytest.mark.modes("none")
def test_in_private_mode_no_payload_leaves_the_executor(world: World) -> None:
    """Not hidden by the server, but never sent: checked on the wire."""
    app = f"/v2/orgs/{world.org}/apps/secretive"
    world.ctl("app", "register", "secretive")
    cable = Proxy(world.server.address)
    executor = world.executor(name="secretive", cable=cable)

    def ask_for_everything() -> str:
        asked = {"loadInput": True, "loadOutput": True}
        for tail in ("", "/steps", "/events", "/streams", "/notifications", "/export"):
            world.http("GET", f"{app}/workflows/whisper{tail}", None)
        world.http("GET", f"{app}/workflows?loadInput=true&loadOutput=true")
        world.http("POST", f"{app}/workflows/search", json=asked)
        return "\n".join(text for sent in cable.sent for text in messages(bytes(sent)))

    world.http("PATCH", app, 204, json={"privateMode": True})
    executor.start("buy", "whisper", "saffron")
    eventually(
        lambda: world.http("GET", f"{app}/workflows/whisper").json()["status"],
        lambda status: status == "SUCCESS",
    )
    said = ask_for_everything()
    assert "whisper" in said and "saffron" not in said
    world.http("PATCH", app, 204, json={"privateMode": False})
    assert "saffron" in ask_for_everything(), "the check itself would have seen it"
    executor.kill()
    cable.close()
