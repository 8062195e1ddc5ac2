"""A `segno serve` process with a database of its own."""

import os
import secrets
import socket
import subprocess
from pathlib import Path

import httpx

from .api import Api
from .database import Database
from .waiting import eventually

ROOT = Path(__file__).resolve().parents[3]


def program() -> Path:
    """The binary under test: SEGNO_BIN, else the one that cargo built."""
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    path = Path(os.environ.get("SEGNO_BIN", target / "debug" / "segno"))
    assert path.is_file(), f"{path} is missing: run `cargo build --bins` or set SEGNO_BIN"
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """The server in mode `keys` on PostgreSQL, unless `settings` say otherwise (variables; empty ones
    are left out). Killed and started again it keeps its address.
    """

    def __init__(self, directory: Path, settings: dict[str, str] | None = None) -> None:
        self._settings = settings or {}
        self.admin_key = f"dbos_{secrets.token_hex(24)}"
        self.log = directory / "server.log"
        self._database = Database("server")
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ("127.0.0.1", free_port())
        self.start()
        self.api = Api(f"http://127.0.0.1:{self.address[1]}", self.admin_key)

    def start(self) -> None:
        """Starts it and returns when it answers."""
        # On another port if somebody took the first one meanwhile; a restarted server has clients
        # that know its port, so it gets no second chance.
        chances = 1 if self._process else 3
        for _ in range(chances):
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [str(program()), "serve"],
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            if eventually(
                self._answers, lambda answer: answer is not None, what="the server to start"
            ):
                return
            self.address = ("127.0.0.1", free_port())
        raise AssertionError(f"the server ended at once:\n{self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """Ends it without a chance to say goodbye."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._database.drop()

    def _environment(self) -> dict[str, str]:
        own = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SEGNO_", "DBOS_"))
        }
        settings = {
            "SEGNO_LISTEN": f"127.0.0.1:{self.address[1]}",
            "SEGNO_DATABASE_URL": self._database.url,
            "SEGNO_AUTH": "keys",
            "SEGNO_ADMIN_KEY": self.admin_key,
            "RUST_LOG": os.environ.get(
                "RUST_LOG", "info,segno_server=debug,segno_server::access=warn"
            ),
        } | self._settings
        return own | {name: value for name, value in settings.items() if value}

    def _answers(self) -> bool | None:
        """True: it is up. False: it has ended. None: neither yet."""
        assert self._process is not None
        if self._process.poll() is not None:
            return False
        try:
            url = f"http://127.0.0.1:{self.address[1]}/healthz"
            return True if httpx.get(url, trust_env=False).status_code == 200 else None
        except httpx.TransportError:
            return None
