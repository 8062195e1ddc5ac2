"""A `segno serve` process of a chosen binary, on a database that outlives it."""

import os
import secrets
import subprocess
from pathlib import Path

import httpx
from harness import eventually
from harness.api import Api
from harness.server import free_port, program

ADMIN_KEY = f"dbos_{secrets.token_hex(24)}"


def segno(*arguments: str, binary: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command of the binary, without any settings of the caller's."""
    return subprocess.run(
        [str(binary or program()), *arguments],
        env={"PATH": os.environ["PATH"]},
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What it printed; fails with what it complained about."""
    assert done.returncode == 0, f"{done.args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Instance:
    """Keeps its port, whichever binary runs. With `ready` it returns when it is."""

    def __init__(self, directory: Path, database_url: str, name: str = "server") -> None:
        self.address = ("127.0.0.1", free_port())
        self.log = directory / f"{name}.log"
        self._database_url = database_url
        self._process: subprocess.Popen[bytes] | None = None
        self.api = Api(f"http://127.0.0.1:{self.address[1]}", ADMIN_KEY)

    def start(self, binary: Path | None = None) -> "Instance":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(binary or program()), "serve"],
                env={
                    "SEGNO_LISTEN": f"127.0.0.1:{self.address[1]}",
                    "SEGNO_DATABASE_URL": self._database_url,
                    "SEGNO_ADMIN_KEY": ADMIN_KEY,
                    "SEGNO_ENCRYPTION_KEY": "k" * 32,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        eventually(self.ready, what=f"the server to be ready, see {self.log}")
        return self

    def ready(self) -> bool:
        assert self._process and self._process.poll() is None, f"it ended:\n{self.log.read_text()[-4000:]}"
        try:
            url = f"http://127.0.0.1:{self.address[1]}/readyz"
            return httpx.get(url, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """As an operator does: SIGTERM, and it ends well."""
        assert self._process
        self._process.terminate()
        assert self._process.wait(40) == 0, self.log.read_text()[-4000:]

    def close(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
