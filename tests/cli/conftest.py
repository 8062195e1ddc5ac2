"""Fixtures: each check runs in every mode of the server it is about, `none`, `keys` and `oidc`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctl import build_client, dbosctl
from world import World

MODES = ["none", "keys", "oidc"]


def pytest_report_header() -> str:
    found = dbosctl()
    return f"ctl: {found}" if found else "ctl: the client generated from our document (no dbosctl on this machine)"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A check without `@pytest.mark.modes(…)` runs in all of them, in one process each."""
    if "world" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("modes")
        modes = mark.args if mark else MODES
        grouped = [pytest.param(mode, marks=pytest.mark.xdist_group(mode)) for mode in modes]
        metafunc.parametrize("world", grouped, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if dbosctl() is None:
        own = [item for item in items if item.get_closest_marker("dbosctl")]
        config.hook.pytest_deselected(items=own)
        items[:] = [item for item in items if item not in own]


@pytest.fixture(scope="session")
def ctl_binary() -> Path:
    return dbosctl() or build_client()


@pytest.fixture(scope="session")
def world(
    request: pytest.FixtureRequest, ctl_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    world = World(request.param, ctl_binary, tmp_path_factory.mktemp(request.param))
    yield world
    world.close()


@pytest.fixture(scope="session")
def shop(world: World) -> Iterator[object]:
    """An executor of `shop`, version v1, that the checks share and leave running."""
    executor = world.executor()
    yield executor
    executor.kill()
