"""From the server as it was before to this one and back, with applications of the official SDK connected throughout.

The binary of before is what previous.sh builds: of the commit before, or of the one that SEGNO_UPGRADE_FROM names;
in a clone without history it is this one, with a warning."""

import os
import subprocess
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from harness import App, Executor, Journal, Launch, clients, eventually
from harness.api import Api
from harness.server import free_port, program
from instance import ADMIN_KEY, Instance, said, segno
from stores import VERSIONS, Store, within
from tools import ROOT, run

NEWEST = VERSIONS[-1]
PREVIOUS = ROOT / "tests" / "deploy" / "previous.sh"


@pytest.fixture(scope="module")
def previous() -> Path:
    commit = os.environ.get("SEGNO_UPGRADE_FROM")
    binary = Path(run(PREVIOUS, *([commit] if commit else [])).strip())
    if binary == program():
        warnings.warn("no history here: upgraded from the same sources", stacklevel=1)
    return binary


@dataclass
class Fleet:
    """An application's executors; their workflows' progress is in the journal."""

    app: App
    journal: Journal
    launch: Launch
    executors: list[Executor] = field(default_factory=list)

    def start(self, *names: str) -> list[Executor]:
        self.executors += [self.launch(name) for name in names]
        return self.executors

    def connected(self) -> None:
        for each in self.executors:
            self.app.await_executor(each.id)

    def undisturbed(self) -> None:
        """Nobody was taken for dead."""
        assert {each["status"] for each in self.app.recoveries()} <= {"REJOINED"}, self.app.recoveries()


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Any]:
    made: list[Fleet] = []

    def make(api: Api, address: tuple[str, int], name: str, grace: int) -> Fleet:
        app, journal = App(api, name), Journal()
        directory = tmp_path / name
        directory.mkdir()
        server: Any = SimpleNamespace(address=address)
        client = clients("python")[-1]
        made.append(Fleet(app, journal, Launch(client, app, app.register(grace), journal, server, directory)))
        return made[-1]

    yield make
    for each in made:
        each.launch.close()
        each.journal.database.drop()


#: What is the server's own, below the organization, and does not change by itself.
KEPT = ("/apps", "/tokens", "/alert-channels", "/audit-logs", "/apps/shop", "/apps/shop/views",
        "/apps/shop/alerting-rules", "/apps/shop/autoscaling-policy", "/apps/desk/recoveries")  # fmt: skip


def write_down(api: Api) -> None:
    """Some of everything that an operator sets."""
    org = "/v2/orgs/local"
    secret = "whsec_" + "c2VjcmV0" * 5
    channel = {"name": "ops", "kind": "webhook", "url": "https://hooks.example.com/x", "signingSecret": secret}
    api.call("POST", f"{org}/alert-channels", 201, json=channel)
    rule = {"ruleType": "StrandedRecovery", "ruleMetadata": {}, "channels": ["ops"]}
    api.call("POST", f"{org}/apps/shop/alerting-rules", 201, json=rule)
    api.call("PUT", f"{org}/apps/shop/views/failed", json={"query": "status=ERROR"})
    api.call("PUT", f"{org}/apps/shop/autoscaling-policy", json={"queue": "narrow"})
    api.call("PATCH", f"{org}/apps/shop", 204, json={"recoveryPolicy": "latest"})


def kept(api: Api) -> dict[str, Any]:
    found = {path: api.call("GET", f"/v2/orgs/local{path}").json() for path in KEPT}
    for app in (*found["/apps"], found["/apps/shop"]):
        # Whether somebody is connected at the moment.
        app.pop("status")
    return found


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """All that was there is; a newer version may say more."""
    for path, was in before.items():
        assert within(was, after[path]), f"{path}: {was} is not in {after[path]}"


def version(store: Store) -> int:
    return store.rows("SELECT MAX(version) FROM _sqlx_migrations")[0][0]


def take_back(store: Store, was: int, previous: Path) -> None:
    """What the page says, once nobody serves."""
    if was == NEWEST:
        return
    refused = segno("serve", "--listen", "127.0.0.1:0", "--database-url", store.url, binary=previous)
    assert refused.returncode == 1 and f"newer than this binary knows ({was})" in refused.stderr
    said(segno("migrate", "--to", str(was), "--database-url", store.url))


def test_one_instance_on_sqlite_is_upgraded_and_rolled_back(previous: Path, fleets: Any, tmp_path: Path) -> None:
    store = Store("sqlite", tmp_path)
    server = Instance(tmp_path, store.url).start(previous)
    try:
        shop, desk = (fleets(server.api, server.address, name, grace) for name, grace in (("shop", 30), ("desk", 1)))
        [steady] = shop.start("steady")
        shop.journal.let_pass("wf", 1)
        steady.start("wf", 6)
        shop.journal.await_attempt("wf", 2)
        # Work that nobody can take is written down before, and taken after.
        [doomed] = desk.start("doomed")
        desk.journal.let_pass("orphan", 1)
        doomed.start("orphan", 3)
        desk.journal.await_attempt("orphan", 2)
        doomed.kill()
        desk.app.await_recovery(doomed.id, "STRANDED")
        write_down(server.api)
        before, was = kept(server.api), version(store)

        server.stop()
        server.start()
        assert version(store) == NEWEST
        same(before, kept(server.api))
        shop.connected()
        shop.journal.let_pass("wf", 3)
        shop.journal.await_attempt("wf", 4)
        desk.executors.clear()
        [heir] = desk.start("heir")
        assert desk.app.await_recovery(doomed.id, "RECOVERED")["recoveredBy"] == heir.id
        desk.journal.let_pass("orphan")
        desk.app.await_workflow("orphan")

        server.stop()
        take_back(store, was, previous)
        server.start(previous)
        after = kept(server.api)
        same({path: what for path, what in before.items() if path != "/apps/desk/recoveries"}, after)
        assert after["/apps/desk/recoveries"][0]["status"] == "RECOVERED"
        shop.connected()
        shop.journal.let_pass("wf")
        shop.app.await_workflow("wf")
        assert shop.journal.attempts("wf") == {step: [steady.id] for step in range(1, 7)}
        shop.undisturbed()
    finally:
        server.close()


# ---- two instances --------------------------------------------------------------------------------


class Balancer:
    """Caddy with the file of deploy/proxy, before these instances."""

    def __init__(self, directory: Path, instances: list[Instance]) -> None:
        self.address = ("127.0.0.1", free_port())
        text = (ROOT / "deploy" / "proxy" / "Caddyfile").read_text()
        for old, instance in zip(("segno:8090", "segno-2:8090"), instances, strict=True):
            assert f" {old}" in text
            text = text.replace(f" {old}", f" 127.0.0.1:{instance.address[1]}")
        text = text.replace("\n:8090 {", f"\nhttp://127.0.0.1:{self.address[1]} {{")
        file = directory / "Caddyfile"
        file.write_text("{\n\tadmin off\n}\n" + text)
        with (directory / "caddy.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)], stdout=log, stderr=log
            )
        self.api = Api(f"http://127.0.0.1:{self.address[1]}", ADMIN_KEY)

    def ready(self) -> bool:
        try:
            return self.api.call("GET", "/readyz").status_code == 200
        except (httpx.TransportError, Exception):
            return False

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Traffic(threading.Thread):
    """Workflows begin, and somebody looks at the API, all the time."""

    def __init__(self, fleet: Fleet, balancer: Balancer) -> None:
        super().__init__(daemon=True)
        self.started: list[str] = []
        self.failed: list[str] = []
        self._fleet, self._balancer = fleet, balancer
        self._enough = threading.Event()

    def run(self) -> None:
        while not self._enough.wait(0.1):
            workflow = f"quick-{len(self.started)}"
            self._fleet.journal.let_pass(workflow)
            executor = self._fleet.executors[len(self.started) % len(self._fleet.executors)]
            executor.start(workflow, 2)
            self.started.append(workflow)
            try:
                self._balancer.api.call("GET", "/v2/orgs/local/apps/shop")
            except Exception as error:  # noqa: BLE001 - told at the end
                self.failed.append(repr(error))

    def end(self) -> None:
        self._enough.set()
        self.join()
        assert not self.failed, f"{len(self.failed)} requests failed: {self.failed[:3]}"
        for workflow in self.started:
            eventually(
                lambda workflow=workflow: self._fleet.journal.status(workflow), lambda status: status == "SUCCESS"
            )
            attempts = self._fleet.journal.attempts(workflow)
            assert all(len(each) == 1 for each in attempts.values()), f"{workflow}: a step was done twice: {attempts}"


def test_two_instances_on_postgres_are_replaced_one_after_the_other(
    previous: Path, fleets: Any, tmp_path: Path
) -> None:
    store = Store("postgres", tmp_path)
    instances = [Instance(tmp_path, store.url, name).start(previous) for name in ("a", "b")]
    balancer = Balancer(tmp_path, instances)
    try:
        eventually(balancer.ready, what="the proxy")
        shop = fleets(balancer.api, balancer.address, "shop", 30)
        desk = fleets(balancer.api, balancer.address, "desk", 6)
        shop.start("one", "two", "three")
        desk.start("left", "right", "third")
        write_down(balancer.api)
        before, was = kept(balancer.api), version(store)
        traffic = Traffic(shop, balancer)
        traffic.start()

        def replace(instance: Instance, binary: Path | None) -> None:
            instance.stop()
            instance.start(binary)
            for fleet in (shop, desk):
                fleet.connected()
            for each in instances:
                same(before, kept(each.api))
                # Asked of an executor, wherever its socket is.
                eventually(lambda each=each: App(each.api, "shop").workflows(limit=5), what="an answer of an executor")

        replace(instances[0], None)
        # One of each version: a death is noticed once, and confirmed.
        doomed = desk.executors.pop(0)
        desk.journal.let_pass("orphan", 1)
        doomed.start("orphan", 2)
        desk.journal.await_attempt("orphan", 2)
        doomed.kill()
        record = desk.app.await_recovery(doomed.id, "RECOVERED")
        assert record["recoveredBy"] in {each.id for each in desk.executors}
        desk.journal.let_pass("orphan")
        desk.app.await_workflow("orphan")
        replace(instances[1], None)
        assert version(store) == NEWEST
        traffic.end()
        shop.undisturbed()

        if was == NEWEST:
            for each in instances:
                replace(each, previous)
        else:
            for each in instances:
                each.stop()
            take_back(store, was, previous)
            for each in instances:
                each.start(previous)
            before.pop("/apps/desk/recoveries")
            for each in instances:
                same(before, kept(each.api))
        for fleet in (shop, desk):
            fleet.connected()
        shop.undisturbed()
        assert len(desk.app.recoveries(status="RECOVERED")) == 1
    finally:
        balancer.close()
        for each in instances:
            each.close()
        store.close()
