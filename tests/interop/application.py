"""The applications of README.md as processes, and the databases they share."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "sdk"))

import environments  # noqa: E402
from harness.database import Database  # noqa: E402

#: An order that takes longer hangs.
PATIENCE = 60.0


class Refused(Exception):
    """An order ended with an error of the application's."""


class Application:
    """A process that takes one order a line and gives one answer for each."""

    def __init__(self, name: str, sdk: str, command: list[str], database: Database, log: Path) -> None:
        self.name = name
        #: Which SDK it is built on: `language-version`.
        self.sdk = f"{name}-{sdk}"
        env = {
            **os.environ,
            "APP_NAME": name,
            "APP_SDK": sdk,
            "APP_DATABASE_URL": database.url,
            "PYTHONUNBUFFERED": "1",
        }
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, args=(log.with_suffix(".out"),), daemon=True).start()
        self._answer()

    def _listen(self, log: Path) -> None:
        assert self._process.stdout is not None
        with log.open("w") as out:
            for line in self._process.stdout:
                if line.startswith("answer: "):
                    self._answers.put(json.loads(line.removeprefix("answer: ")))
                else:
                    out.write(line)
                    out.flush()
        self._answers.put(None)

    def _answer(self) -> dict[str, Any]:
        answer = self._answers.get(timeout=PATIENCE)
        assert answer is not None, f"{self.name} is gone"
        return answer

    def order(self, what: str, **details: Any) -> Any:
        """What the application answers."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **details}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise Refused(answer["error"])
        return (answer["done"] or {}).get("value")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def peers() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The official SDKs: `language-version` with the version and the command."""
    return {
        f"{manifest.language.removeprefix('interop-')}-{version}": (version, command)
        for manifest in environments.manifests(HERE)
        for version, command in manifest.releases
    }
