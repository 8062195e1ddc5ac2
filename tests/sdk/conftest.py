"""What the tests of all folders share: servers, applications, databases, the network."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import App, Journal, Proxy, Server


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


# ---- a failed test shows what its processes said -------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.when == "call" and report.failed:
        values = getattr(item, "funcargs", {})
        directories = (values.get("tmp_path"), getattr(values.get("fleet"), "directory", None))
        logs = [log for each in directories if each for log in sorted(each.glob("*.log"))]
        servers = (values.get("server"), values.get("shared_server"))
        logs += [each.log for each in servers if isinstance(each, Server)]
        for log in dict.fromkeys(logs):
            length = int(os.environ.get("SEGNO_TEST_LOG_TAIL", 4000))
            report.sections.append((f"end of {log}", log.read_text(errors="replace")[-length:]))
    return report
