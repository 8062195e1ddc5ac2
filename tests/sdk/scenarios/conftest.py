"""Every check runs once per client. The checks of one module and client share a process of the tests
and an application; their results make up the table that is printed at the end."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

from harness import Client, Server, clients, unprepared
from scenarios.fleet import Fleet
from scenarios.table import Table

HERE = Path(__file__).resolve().parent
CLIENTS = clients()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table([str(client) for client in CLIENTS]), "table")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test says which cell of the table it fills, even one that is skipped before it begins."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        mark = item.get_closest_marker("check")
        assert mark is not None, f"{item.nodeid} lacks its name: @pytest.mark.check(…)"
        assert isinstance(item, pytest.Function)
        item.user_properties.append(("cell", [mark.args[0], str(item.callspec.params["client"])]))


class Groups(LoadScopeScheduling):
    """Checks of one module and client go to one process, one after another."""

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        return f"{module} {test.partition('[')[2]}"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    return Groups(config, log)


@pytest.fixture(params=CLIENTS, ids=str, scope="module")
def client(request: pytest.FixtureRequest) -> Client:
    return request.param


@pytest.fixture
def not_applicable(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """For the end of a check that has asserted what the server answers instead: `not_applicable(why)`."""
    return lambda why: request.node.user_properties.append(("not applicable", why))


@pytest.fixture(scope="module")
def prepared(client: Client) -> Client:
    """A client that can run here."""
    if reason := unprepared(client):
        pytest.skip(reason)
    return client


@pytest.fixture(scope="module")
def fleets(
    prepared: Client, shared_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Fleet]]:
    """Makes applications with nobody in them."""
    made: list[Fleet] = []

    def make(purpose: str) -> Fleet:
        directory = tmp_path_factory.mktemp(purpose)
        fleet = Fleet(prepared, shared_server, f"{purpose}-{uuid.uuid4().hex[:12]}", directory)
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.close()
