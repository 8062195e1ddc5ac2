"""What the library and the official SDKs do for each other on one database. See README.md."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from application import Application, Database, Refused, peers

PEERS = peers()
#: These leave export and import to a closed package, or have none.
WITHOUT_EXPORT = {"python-3.4.0", "typescript-5.3.0", "rust-0.5.0"}
INPUT = {"text": "grüß dich", "number": 1.5, "list": [1, None, True]}


@dataclass
class Pair:
    """Who asks, and who runs the workflows. `both` share a database."""

    caller: Application
    worker: Application
    #: The official SDK among them.
    peer: str

    def id(self) -> str:
        return f"{self.caller.name}-to-{self.worker.name}-{uuid.uuid4().hex[:8]}"

    def enqueue(self, workflow: str, given: object, workflow_id: str | None = None) -> str:
        workflow_id = workflow_id or self.id()
        self.caller.order("enqueue", to=self.worker.name, workflow=workflow, id=workflow_id, input=given)
        return workflow_id


@pytest.fixture(scope="module", params=["ours", "theirs"])
def creator(request: pytest.FixtureRequest) -> str:
    """Who made the tables: whoever launches first."""
    return request.param


@pytest.fixture(
    scope="module",
    params=[pytest.param(peer, marks=pytest.mark.xdist_group(peer)) for peer in PEERS],
)
def applications(
    request: pytest.FixtureRequest, creator: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Application, Application]]:
    """Ours and a peer."""
    version, command = PEERS[request.param]
    logs = tmp_path_factory.mktemp("logs")
    database = Database("interop")
    running: dict[str, Application] = {}

    def launch(name: str, sdk: str, command: list[str]) -> None:
        running[name] = Application(name, sdk, command, database, logs / f"{name}.log")

    launches = [
        ("segno", "", [os.environ["SEGNO_INTEROP_BIN"]]),
        (request.param.split("-")[0], version, list(command)),
    ]
    try:
        for each in launches if creator == "ours" else reversed(launches):
            launch(*each)
        yield running["segno"], running[launches[1][0]]
    finally:
        for each in running.values():
            each.close()
        database.drop()


@pytest.fixture(params=["we ask", "they ask"])
def pair(request: pytest.FixtureRequest, applications: tuple[Application, Application]) -> Pair:
    ours, theirs = applications
    asking = (ours, theirs) if request.param == "we ask" else (theirs, ours)
    return Pair(*asking, peer=theirs.sdk)


def test_portable_work_is_done_and_its_result_awaited(pair: Pair) -> None:
    workflow_id = pair.enqueue("echo", INPUT)
    expected = {"from": pair.worker.name, "input": INPUT}
    assert pair.caller.order("result", id=workflow_id) == expected
    # The worker reads its own answer, too.
    assert pair.worker.order("result", id=workflow_id) == expected


def test_an_error_is_awaited(pair: Pair) -> None:
    workflow_id = pair.enqueue("fail", "why")
    with pytest.raises(Refused, match="broken on purpose: why"):
        pair.caller.order("result", id=workflow_id)
    assert pair.caller.order("status", id=workflow_id) == "ERROR"


def test_events_messages_and_streams_pass(pair: Pair) -> None:
    workflow_id = pair.enqueue("talk", "glad")
    assert pair.caller.order("event", id=workflow_id, key="mood") == {"of": "glad"}
    # Go knows only its own mark of a stream's end; that of others it hands out as an entry and waits on.
    live = pair.caller.name != "go"
    if live:
        read_stream(pair, workflow_id)
    pair.caller.order("send", id=workflow_id, key="mailbox", input={"said": "hello"})
    assert pair.caller.order("result", id=workflow_id) == {"heard": {"said": "hello"}}
    if not live:
        read_stream(pair, workflow_id)


def read_stream(pair: Pair, workflow_id: str) -> None:
    if "rust" in (pair.caller.name, pair.worker.name):
        return  # It has no streams.
    entries = pair.caller.order("stream", id=workflow_id, key="log")
    # To Go the end of another language's stream is one more entry.
    assert entries[:2] == ["first", {"second": 2}]
    assert len(entries) == 2 or pair.caller.name == "go"


def test_a_cancelled_run_goes_on_when_it_is_resumed(pair: Pair) -> None:
    workflow_id = pair.enqueue("talk", "calm")
    assert pair.caller.order("event", id=workflow_id, key="mood") == {"of": "calm"}
    pair.caller.order("cancel", id=workflow_id)
    assert pair.worker.order("status", id=workflow_id) == "CANCELLED"
    pair.caller.order("resume", id=workflow_id)
    pair.caller.order("send", id=workflow_id, key="mailbox", input="again")
    assert pair.caller.order("result", id=workflow_id) == {"heard": "again"}


def test_a_fork_runs_where_its_source_ran(pair: Pair) -> None:
    workflow_id = pair.enqueue("echo", INPUT)
    expected = pair.caller.order("result", id=workflow_id)
    fork = pair.caller.order("fork", id=workflow_id)
    assert fork != workflow_id
    assert pair.caller.order("result", id=fork) == expected


def test_a_fork_from_a_step_takes_over_what_happened_before(pair: Pair) -> None:
    workflow_id = pair.enqueue("talk", "old")
    pair.caller.order("send", id=workflow_id, key="mailbox", input="once")
    assert pair.caller.order("result", id=workflow_id) == {"heard": "once"}
    steps = pair.worker.order("steps", id=workflow_id)
    fork = pair.caller.order("fork", id=workflow_id, **{"from": steps[-1][0] + 1})
    # Nobody sends it anything.
    assert pair.caller.order("result", id=fork) == {"heard": "once"}
    assert pair.worker.order("steps", id=fork) == steps
    for reader in (pair.caller, pair.worker):
        assert reader.order("event", id=fork, key="mood") == {"of": "old"}


def test_listings_and_steps_show_what_the_other_did(pair: Pair) -> None:
    prefix = pair.id()
    done = pair.enqueue("echo", 7, f"{prefix}-done")
    failed = pair.enqueue("fail", "on purpose", f"{prefix}-failed")
    pair.caller.order("result", id=done)
    with pytest.raises(Refused):
        pair.caller.order("result", id=failed)
    # They belong to whoever runs them, wherever they came from.
    where = {"key": prefix, "to": pair.worker.name}
    for reader in (pair.caller, pair.worker):
        assert sorted(reader.order("list", **where)) == [done, failed]
        assert reader.order("list", **where, status="ERROR") == [failed]
        assert reader.order("list", **where, workflow="echo") == [done]
        assert [name for _, name in reader.order("steps", id=done)] == ["answer"]


def test_a_run_is_exported_by_one_and_imported_by_the_other(
    pair: Pair, applications: tuple[Application, Application]
) -> None:
    ours, theirs = applications
    workflow_id = pair.enqueue("talk", "packed")
    pair.caller.order("event", id=workflow_id, key="mood")
    pair.caller.order("send", id=workflow_id, key="mailbox", input={"said": "goodbye"})
    expected = {"heard": {"said": "goodbye"}}
    assert pair.caller.order("result", id=workflow_id) == expected
    if pair.peer in WITHOUT_EXPORT:
        for operation in ("export", "import"):
            with pytest.raises(Refused, match="this SDK has no|no such order"):
                theirs.order(operation, id=workflow_id, key="")
        return

    exported = pair.caller.order("export", id=workflow_id)
    ours.order("delete", id=workflow_id)
    assert ours.order("list", key=workflow_id) == []
    pair.worker.order("import", id=workflow_id, key=exported)
    for reader in (ours, theirs):
        assert reader.order("status", id=workflow_id) == "SUCCESS"
        assert reader.order("result", id=workflow_id) == expected
        assert reader.order("event", id=workflow_id, key="mood") == {"of": "packed"}
    # It is there: twice is once too often.
    with pytest.raises(Refused):
        pair.worker.order("import", id=workflow_id, key=exported)
