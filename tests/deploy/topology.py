"""Runs compose files for real without a container runtime: each service is a process of this machine in a network
and a file system of its own, with the command, the environment, the secrets, the volumes, the names of the network
and the health checks that the files say.

What a container runtime would take from an image comes from this machine (IMAGES). A service's root is the machine's
own with a layer on top that is thrown away; a service that is `read_only` cannot write there. Needs root and Linux.
"""

import ctypes
import json
import os
import shlex
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

from tools import ROOT, run, tool

T = TypeVar("T")
IMAGES = Path(__file__).resolve().parent / "images"
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Image:
    """What stands for an image: its entry point, user, folder, and files of this machine by their path in it."""

    entrypoint: list[str]
    command: list[str] = field(default_factory=list)
    user: int = 65532
    folder: str = "/"
    files: dict[str, Path] = field(default_factory=dict)
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment: dict[str, str] = field(default_factory=dict)
    #: Folders of this machine that its user must reach, wherever they are.
    reach: tuple[Path, ...] = ()


class Service:
    """One of the services, started at most once at a time."""

    def __init__(self, topology: "Topology", name: str, spec: dict[str, Any], address: str) -> None:
        self.name, self.spec, self.address = name, spec, address
        self.image = topology.images[spec["image"]]
        self.namespace = f"{topology.id}-{len(topology.services)}"
        self.log = topology.directory / f"{name}.log"
        self._root = topology.directory / f"{name}.root"
        self._topology = topology
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        (self._root).mkdir(exist_ok=True)
        entrypoint = self.spec.get("entrypoint") or self.image.entrypoint
        command = self.spec.get("command") or ([] if self.spec.get("entrypoint") else self.image.command)
        script = "\n".join(
            [
                "set -e",
                f"root={shlex.quote(str(self._root))}",
                "mount -t tmpfs tmpfs $root && mkdir $root/top $root/work $root/all",
                "mount -t overlay overlay -o lowerdir=/,upperdir=$root/top,workdir=$root/work $root/all",
                "root=$root/all",
                "mount --rbind /proc $root/proc && mount --rbind /dev $root/dev",
                "rm -f $root/etc/hosts && cp " + shlex.quote(str(self._topology.hosts)) + " $root/etc/hosts",
                *(f"chmod o+x $root{shlex.quote(str(up))}" for each in self.image.reach for up in each.parents),
                *(mounted(*each) for each in self._mounts()),
                *(["mount -o remount,ro $root"] if self.spec.get("read_only") else []),
                f"exec env -i {shlex.join(self._environment())} $(command -v chroot) --userspec={self.image.user}:{self.image.user}"
                f" $root sh -c 'cd \"$1\" && shift && exec \"$@\"' sh {shlex.join([self.image.folder, *entrypoint, *command])}",
            ]
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _environment(self) -> list[str]:
        given = self.spec.get("environment") or {}
        if isinstance(given, list):
            given = dict(each.split("=", 1) for each in given)
        own = {"PATH": self.image.path, "HOME": "/tmp", **self.image.environment}
        return [f"{name}={value}" for name, value in (own | given).items() if value is not None]

    def _mounts(self) -> list[tuple[Path, str, bool]]:
        """What is seen where, and whether it may be written to."""
        mounts = [(path, target, False) for target, path in self.image.files.items()]
        for secret in self.spec.get("secrets") or []:
            source = Path(self._topology.model["secrets"][secret["source"]]["file"])
            mounts.append((source, secret.get("target") or f"/run/secrets/{secret['source']}", False))
        for volume in self.spec.get("volumes") or []:
            source = Path(volume["source"])
            if volume["type"] == "volume":
                source = self._topology.directory / f"volume-{volume['source']}"
                if not source.exists():
                    source.mkdir()
                    os.chown(source, self.image.user, self.image.user)
            mounts.append((source, volume["target"], not volume.get("read_only")))
        return mounts

    def healthy(self) -> bool:
        """Whether the service's own check says so."""
        assert self.process is not None
        check = self.spec["healthcheck"]["test"]
        command = ["sh", "-c", check[1]] if check[0] == "CMD-SHELL" else check[1:]
        inside = ["nsenter", f"--target={self.process.pid}", "--mount", "--net", "--root", "--wd"]
        environment = dict(each.split("=", 1) for each in self._environment())
        try:
            done = subprocess.run(
                [*inside, *command], env=environment, capture_output=True, timeout=6, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def wait(self, condition: str, within: float = 90) -> None:
        """Until it is as `condition` says, in the words of `depends_on`."""
        deadline = time.monotonic() + within
        while True:
            assert self.process is not None
            ended = self.process.poll()
            if condition == "service_completed_successfully" and ended == 0:
                return
            if condition == "service_started" or (condition == "service_healthy" and ended is None and self.healthy()):
                return
            failed = ended is not None and not (condition == "service_completed_successfully" and ended == 0)
            if failed or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not get {condition} (ended: {ended}):\n{self.said()[-4000:]}")
            time.sleep(0.1)

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self) -> int:
        """As `docker stop`: SIGTERM, and SIGKILL after the grace period. The exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def within(self, act: Callable[[], T]) -> T:
        """What `act` returns when its sockets are in this service's network."""
        outcome: list[Any] = []

        def there() -> None:
            with open(f"/run/netns/{self.namespace}") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
                    outcome.append(OSError(ctypes.get_errno(), "setns"))
                    return
            try:
                outcome.append((act(),))
            except BaseException as error:  # noqa: BLE001 - passed on to the caller
                outcome.append(error)

        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0][0]


def mounted(source: Path, target: str, writable: bool) -> str:
    """Shell that puts `source` at `target` below $root."""
    at = f'"$root"{shlex.quote(target)}'
    place = f"mkdir -p {at}" if source.is_dir() else f"mkdir -p \"$(dirname {at})\" && touch {at}"
    only = "" if writable else f" && mount -o remount,bind,ro {at}"
    return f"{place} && mount --bind {shlex.quote(str(source))} {at}{only}"


class Topology:
    """The services of compose files, by name."""

    def __init__(self, directory: Path, files: list[str], images: dict[str, Image], settings: dict[str, str]) -> None:
        self.directory, self.images = directory, images
        self.id = f"sg{uuid.uuid4().hex[:6]}"
        secrets = directory / "secrets"
        secrets.mkdir()
        run(ROOT / "deploy" / "secrets.sh", secrets)
        settings = {"SEGNO_SECRETS": str(secrets), **settings}
        self.model = json.loads(run(tool("compose"), *files, cwd=ROOT / "deploy", env=settings))
        self.hosts = directory / "hosts"
        self.services: dict[str, Service] = {}
        self._lay_network()

    def _lay_network(self) -> None:
        """A bridge in a network namespace of its own, a namespace for each service, and their names."""
        ipam = self.model["networks"]["default"].get("ipam") or {}
        network = ip_network((ipam.get("config") or [{"subnet": "172.30.91.0/24"}])[0]["subnet"])
        free = (str(each) for each in list(network.hosts())[20:])
        fixed = {
            name: ((spec.get("networks") or {}).get("default") or {}).get("ipv4_address")
            for name, spec in self.model["services"].items()
        }
        hub = f"{self.id}-hub"
        run("ip", "netns", "add", hub)
        run("ip", "-n", hub, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", hub, "link", "set", "bridge", "up")
        lines = ["127.0.0.1 localhost"]
        for number, (name, spec) in enumerate(self.model["services"].items()):
            service = Service(self, name, spec, fixed[name] or next(free))
            self.services[name] = service
            space = service.namespace
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            run("ip", "-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}", "netns", hub)
            run("ip", "-n", space, "address", "add", f"{service.address}/{network.prefixlen}", "dev", "eth0")
            run("ip", "-n", space, "link", "set", "eth0", "up")
            run("ip", "-n", hub, "link", "set", f"port{number}", "master", "bridge", "up")
            aliases = ((spec.get("networks") or {}).get("default") or {}).get("aliases") or []
            lines.append(" ".join([service.address, name, *aliases]))
        self.hosts.write_text("\n".join(lines) + "\n")

    def up(self) -> None:
        """Starts everything, each service after what it depends on is as it says."""
        waiting = dict(self.services)
        while waiting:
            ready = [
                each
                for each in waiting.values()
                if not any(name in waiting for name in each.spec.get("depends_on") or {})
            ]
            assert ready, f"a circle among {sorted(waiting)}"
            for service in ready:
                for name, how in (service.spec.get("depends_on") or {}).items():
                    self.services[name].wait(how["condition"])
                service.start()
                del waiting[service.name]

    def secret(self, name: str) -> str:
        return Path(self.model["secrets"][name]["file"]).read_text()

    def down(self) -> None:
        for service in reversed(self.services.values()):
            service.kill()
        for space in [f"{self.id}-hub", *(each.namespace for each in self.services.values())]:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)
        for name in self.services:
            shutil.rmtree(self.directory / f"{name}.root", ignore_errors=True)


def python_image(python: Path, application: Path) -> Image:
    """An image in which `python` is the interpreter of a virtual environment."""
    environment = python.parent.parent
    return Image(
        entrypoint=[],
        folder="/srv/app",
        files={str(environment): environment, "/srv/app": application},
        path=f"{python.parent}:/usr/bin:/bin",
        environment={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"},
        reach=(python.resolve(), environment / "bin"),
    )
