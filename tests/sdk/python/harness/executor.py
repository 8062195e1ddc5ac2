"""An application process under one release of the official SDK."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

from .server import ROOT
from .waiting import eventually

APP = Path(__file__).resolve().parents[1] / "app.py"
ENVIRONMENTS = Path(os.environ.get("SEGNO_TEST_PYTHON_ENVIRONMENTS", ROOT / ".cache" / "python"))


class Executor:
    """A running app.py. `name` is for its log; `id` and `version` are what it told about itself."""

    def __init__(self, name: str, sdk: str, settings: dict[str, str], directory: Path) -> None:
        python = ENVIRONMENTS / f"dbos-{sdk}" / "bin" / "python"
        assert python.is_file(), f"{python} is missing; `make test` makes it"
        self.log = directory / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("DBOS_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(python), str(APP)],
                cwd=directory,
                env=inherited | settings | {"APP_SDK": sdk},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answers: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        self.id = ""
        self.version = ""

    def await_ready(self) -> "Executor":
        """Waits until it has launched; whether it also connected, only the server can tell."""
        hello = self._answer(0)
        self.id = hello["executor_id"]
        self.version = hello["app_version"]
        return self

    def start(self, workflow_id: str, steps: int) -> None:
        """Starts a workflow in this process."""
        self._order(start=workflow_id, steps=steps)

    def enqueue(self, workflow_id: str, steps: int) -> None:
        """Puts a workflow on the queue that all executors of this version take from."""
        self._order(enqueue=workflow_id, steps=steps)

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

    def _order(self, **order: Any) -> None:
        assert self._process.stdin is not None
        count = len(self._answers)
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._answer(count)

    def _answer(self, index: int) -> dict[str, Any]:
        def given() -> dict[str, Any] | None:
            if len(self._answers) > index:
                return self._answers[index]
            assert self.running(), f"the application ended:\n{self.log.read_text()[-4000:]}"
            return None

        answer = eventually(given, within=60, what=f"an answer of the application, see {self.log}")
        assert answer is not None
        return answer

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.append(json.loads(line))
