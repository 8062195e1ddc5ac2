"""An application process under one release of an official SDK."""

import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environments

from .waiting import eventually


@dataclass(frozen=True)
class Client:
    """A release of an SDK, and how its application is started (../README.md)."""

    language: str
    version: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.language}-{self.version}"

    @property
    def major(self) -> int:
        return int(self.version.removeprefix("v").split(".")[0])


def clients(language: str | None = None) -> list[Client]:
    """All of them, or those of a language, in the order of the manifests."""
    return [
        Client(manifest.language, version, command)
        for manifest in environments.manifests()
        if language in (None, manifest.language)
        for version, command in manifest.releases
    ]


def unprepared(client: Client) -> str | None:
    """Why this client cannot run here, or None."""
    [manifest] = [each for each in environments.manifests() if each.language == client.language]
    if manifest.made():
        return None
    return f"{manifest.cache} is missing or old: run tests/sdk/environments.py {client.language}"


class Executor:
    """A running application. `name` is for its log; the rest is what it told about itself."""

    def __init__(
        self, name: str, client: Client, settings: dict[str, str], directory: Path
    ) -> None:
        self.log = directory / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("DBOS_")}
        self._log = self.log.open("ab")
        self._process = subprocess.Popen(
            client.command,
            cwd=directory,
            env=inherited | settings | {"APP_SDK": client.version},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._answers: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        self.name = name
        self.id = ""
        self.version = ""
        self.metadata_only = False

    def await_ready(self) -> "Executor":
        """Waits until it has launched; whether it also connected, only the server can tell."""
        hello = self._answer(0)
        self.id = hello["executor_id"]
        self.version = hello["app_version"]
        self.metadata_only = hello["metadata_only"]
        return self

    def start(self, workflow_id: str, given: Any, workflow: str = "journey", **options: Any) -> None:
        """Starts a workflow in this process, or puts it on the queue that `options` name."""
        self._order("start", workflow=workflow, id=workflow_id, input=given, **options)

    def enqueue(self, workflow_id: str, steps: int) -> None:
        """Puts a journey on the queue that all executors of this version take from."""
        self.start(workflow_id, steps, queue="journeys")

    def send(self, to: str, topic: str, message: str) -> None:
        """Sends a workflow a message."""
        self._order("send", to=to, topic=topic, message=message)

    def schedule(self, name: str, cron: str, **options: Any) -> None:
        """Creates a schedule of the workflow `tick`."""
        self._order("schedule", name=name, cron=cron, **options)

    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """Stops all its threads where they are; its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def _order(self, do: str, **order: Any) -> None:
        assert self._process.stdin is not None
        count = len(self._answers)
        self._process.stdin.write(json.dumps({"do": do} | order).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer(count)
        assert answer == {"done": True}, f"{do} {order}: {answer}"

    def _answer(self, index: int) -> dict[str, Any]:
        def given() -> dict[str, Any] | None:
            if len(self._answers) > index:
                return self._answers[index]
            assert self.running(), f"the application ended:\n{self.log.read_text()[-4000:]}"
            return None

        answer = eventually(given, within=120, what=f"an answer of the application, see {self.log}")
        assert answer is not None
        return answer

    def _listen(self) -> None:
        """Answers are kept; whatever else is on stdout belongs to the log."""
        assert self._process.stdout is not None
        with self._log:
            for line in self._process.stdout:
                if line.startswith(b"answer: "):
                    self._answers.append(json.loads(line.removeprefix(b"answer: ")))
                else:
                    self._log.write(line)
                    self._log.flush()
