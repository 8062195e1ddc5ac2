"""Fixtures: every test runs once per SDK release, with an application and a database of its own."""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import App, Executor, Journal, Proxy, Server

SDK_VERSIONS = ["2.31.1", "3.2.0"]


@pytest.fixture(params=SDK_VERSIONS, ids=lambda version: f"dbos-{version}")
def sdk(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests that leave it alone."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may kill."""
    server = Server(tmp_path)
    yield server
    server.close()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Server:
    """The server of this test: its own if it asks for `own_server`, else the shared one."""
    own = "own_server" in request.fixturenames
    return request.getfixturevalue("own_server" if own else "shared_server")


@pytest.fixture
def grace_secs(request: pytest.FixtureRequest) -> int:
    """How long an executor may be away: one second, or as `@pytest.mark.grace(seconds)` says."""
    mark = request.node.get_closest_marker("grace")
    return mark.args[0] if mark else 1


@pytest.fixture
def app(server: Server) -> App:
    """An application of the test's own; `launch` registers it."""
    return App(server.api, f"app-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def executor_key(app: App, grace_secs: int) -> str:
    return app.register(grace_secs)


@pytest.fixture
def journal() -> Iterator[Journal]:
    journal = Journal()
    yield journal
    journal.database.drop()


@pytest.fixture
def cable(server: Server) -> Iterator[Proxy]:
    """A network between an executor and the server that can be cut."""
    proxy = Proxy(server.address)
    yield proxy
    proxy.close()


Launch = Callable[..., Executor]


@pytest.fixture
def launch(
    sdk: str, app: App, executor_key: str, journal: Journal, server: Server, tmp_path: Path
) -> Iterator[Launch]:
    """Starts executors: `launch("name", version="v1", cable=None, vmid=None)`.

    With `vmid` the process believes that it runs on the vendor's platform, which gives it its id:
    the one way to make an official SDK come back under an id that it had before.
    """
    executors: list[Executor] = []

    def start(
        name: str, version: str = "v1", *, cable: Proxy | None = None, vmid: str | None = None
    ) -> Executor:
        host, port = cable.address if cable else server.address
        settings = {
            "APP_NAME": app.name,
            "APP_VERSION": version,
            "APP_DATABASE_URL": journal.database.url,
            "APP_CONDUCTOR_URL": f"ws://{host}:{port}",
            "APP_CONDUCTOR_KEY": executor_key,
            "APP_METADATA": json.dumps({"name": name}),
        }
        if vmid is not None:
            # SDK 2 takes the name from this file, in the directory where the process runs.
            (tmp_path / "dbos-config.yaml").write_text(f"name: {app.name}\n")
            settings |= {
                "DBOS__CLOUD": "true",
                "DBOS__VMID": vmid,
                "DBOS__APPVERSION": version,
                "DBOS_APP_NAME": app.name,
                "DBOS_SYSTEM_DATABASE_URL": journal.database.url,
                "DBOS_DATABASE_URL": journal.database.url,
                "DBOS__CONDUCTOR_APP_NAME": app.name,
                "DBOS__CONDUCTOR_KEY": executor_key,
                "DBOS__CONDUCTOR_URL": f"ws://{host}:{port}",
            }
        executor = Executor(name, sdk, settings, tmp_path)
        executors.append(executor)
        executor.await_ready()
        app.await_executor(executor.id, version=version)
        return executor

    yield start
    for executor in executors:
        executor.kill()


# ---- a failed test shows what its processes said -------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.when == "call" and report.failed:
        values = getattr(item, "funcargs", {})
        directory = values.get("tmp_path")
        logs = sorted(directory.glob("*.log")) if directory else []
        if isinstance(values.get("server"), Server):
            logs.append(values["server"].log)
        for log in dict.fromkeys(logs):
            tail = log.read_text(errors="replace")[
                -int(os.environ.get("SEGNO_TEST_LOG_TAIL", 4000)) :
            ]
            report.sections.append((f"end of {log}", tail))
    return report
