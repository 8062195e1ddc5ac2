"""What stands for the images of the compose files, and a topology that is gone after its test."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import environments
import pytest
from harness.server import program
from tools import ROOT, run, tool
from topology import IMAGES, Image, Topology, python_image


def postgres_programs() -> str:
    return run(ROOT / "tests" / "postgres.sh", "--find").strip()


@pytest.fixture(scope="session")
def images() -> dict[str, Image]:
    segno = program()
    python = environments.CACHE / "python" / "3.2.0" / "bin" / "python"
    assert python.exists(), "run tests/sdk/environments.py python"
    provider = ROOT / "tests" / "oidc"
    return {
        "docker.io/library/postgres:17": Image(
            entrypoint=["/entrypoint.sh"],
            user=0,
            files={"/entrypoint.sh": IMAGES / "postgres.sh"},
            path=f"{postgres_programs()}:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        "segno:latest": Image(
            entrypoint=["/usr/bin/segno"], command=["serve"], files={"/usr/bin/segno": segno}
        ),
        "segno-samples:latest": Image(
            entrypoint=["/usr/local/bin/checkout"],
            files={"/usr/local/bin/checkout": segno.with_name("checkout")},
        ),
        "segno-sample-orders:latest": python_image(python, ROOT / "deploy" / "samples" / "orders"),
        "docker.io/library/caddy:2": Image(entrypoint=[], user=0),
        # Another provider than Keycloak, which is not among the packages: same network, same name.
        "quay.io/keycloak/keycloak:26.4": Image(
            entrypoint=["node", "/srv/oidc/provider.mjs", "--host", "0.0.0.0"],
            files={"/srv/oidc": provider},
        ),
    }


@pytest.fixture
def topology(tmp_path: Path, images: dict[str, Image]) -> Iterator[Callable[..., Topology]]:
    if os.geteuid() != 0:
        pytest.skip("needs root: each service gets a network and a file system of its own")
    made: list[Topology] = []

    def make(*files: str, **settings: str) -> Topology:
        made.append(Topology(tmp_path, list(files), images, settings))
        return made[-1]

    yield make
    for each in made:
        for name, service in each.services.items():
            print(f"---- {name}\n{service.said()[-3000:]}")
        each.down()
    left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=False).stdout
    assert not any(each.id in left for each in made)


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, packed from the binaries of the tests."""
    folder = tmp_path_factory.mktemp("release") / "dist"
    settings = os.environ | {"DIST": str(folder), "SBOM": "npm", "HELM": str(tool("helm"))}
    run(ROOT / "deploy" / "release.sh", program().parent, env=settings)
    return folder
