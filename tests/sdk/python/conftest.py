"""Every test here runs once per release of the Python SDK, with an application of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import App, Client, Journal, Launch, Server, clients


@pytest.fixture(params=clients("python"), ids=str)
def client(request: pytest.FixtureRequest) -> Client:
    return request.param


@pytest.fixture
def sdk(client: Client) -> str:
    return client.version


@pytest.fixture
def launch(
    client: Client, app: App, executor_key: str, journal: Journal, server: Server, tmp_path: Path
) -> Iterator[Launch]:
    launch = Launch(client, app, executor_key, journal, server, tmp_path)
    yield launch
    launch.close()
