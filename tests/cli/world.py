"""A server in one mode with application `shop`, its executor, and everybody's credentials."""

import json
import os
import secrets
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from environments import CACHE
from harness import Database, Proxy, Server, eventually

from ctl import Ctl
from identity import Issuer

SHOP = Path(__file__).parent / "shop.py"
SDK = "3.2.0"
APP = "shop"


class World:
    """`http` and `ctl` act as the administrator unless told otherwise."""

    def __init__(self, mode: str, binary: Path, directory: Path) -> None:
        self.mode = mode
        self._binary = binary
        self.directory = directory
        self.issuer = Issuer() if mode == "oidc" else None
        settings = {"SEGNO_AUTH": mode, "DBOS__METRICS_COLLECTION_PERIOD": "1"}
        if mode == "none":
            # The other modes have PostgreSQL underneath.
            settings["SEGNO_DATABASE_URL"] = f"sqlite://{directory / 'segno.db'}"
            settings["SEGNO_ADMIN_KEY"] = ""
        if self.issuer:
            settings |= self.issuer.settings() | {"SEGNO_ADMIN_KEY": ""}
        self.server = Server(directory, settings)
        self.url = f"http://127.0.0.1:{self.server.address[1]}"
        self._client = httpx.Client(timeout=60, trust_env=False)
        self.org, self.token = self._administrator()
        self.ctl = self.ctl_as(self.token)
        self.databases: dict[str, Database] = {}
        self.executors: list[Executor] = []
        self.ctl("app", "register", APP)
        self.key = self.ctl("api-key", "create", "executors").out.strip()

    def _administrator(self) -> tuple[str, str]:
        """The organisation and the credential of who may do everything."""
        if self.issuer:
            token = self.issuer.token("ann")
            self.http("POST", "/v2/users", 201, token=token, json={"name": "alice"})
            me = self.http("GET", "/v2/users/me", token=token).json()
            return me["orgName"], token
        return "local", self.server.admin_key if self.mode == "keys" else ""

    def ctl_as(self, token: str, **environment: str) -> Ctl:
        home = self.directory / f"home-{secrets.token_hex(4)}"
        identity = {"DBOS_TOKEN": token} if token else {}
        if self.mode == "oidc":
            identity["DBOS_ORG"] = self.org
        return Ctl(self._binary, self.url, home, DBOS_APP=APP, **identity, **environment)

    @property
    def app(self) -> str:
        return f"/v2/orgs/{self.org}/apps/{APP}"

    def http(
        self,
        method: str,
        path: str,
        status: int | None = 200,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        """A request; paths that do not begin with / are below the application. Checks the status."""
        url = self.url + (path if path.startswith("/") else f"{self.app}/{path}")
        token = self.token if token is None else token
        credential = {"Authorization": f"Bearer {token}"} if token else {}
        response = self._client.request(method, url, headers=credential | (headers or {}), **options)
        assert status in (None, response.status_code), (
            f"{method} {path}: {response.status_code} instead of {status}: {response.text[:2000]}"
        )
        if response.status_code >= 400:
            assert response.headers["content-type"] == "application/problem+json", response.text
            assert response.json()["status"] == response.status_code
        return response

    def database(self, name: str = APP) -> Database:
        """The database of an application, made at the first call."""
        if name not in self.databases:
            self.databases[name] = Database(name)
        return self.databases[name]

    def executor(
        self, version: str = "v1", name: str = APP, key: str | None = None, cable: Proxy | None = None
    ) -> "Executor":
        """Starts an executor, behind `cable` if given, and returns once it is connected."""
        executor = Executor(self, version, name, self.key if key is None else key, cable)
        self.executors.append(executor)
        executor.await_ready()
        self.await_executor(executor, "HEALTHY", name)
        return executor

    def await_executor(self, executor: "Executor", status: str, name: str = APP) -> dict[str, Any]:
        def listed() -> dict[str, Any] | None:
            rows = self.http("GET", f"/v2/orgs/{self.org}/apps/{name}/executors").json()
            found = [row for row in rows if row["executorId"] == executor.id]
            return found[0] if found else None

        return eventually(
            listed,
            lambda row: row is not None and row["status"] == status,
            within=30,
            what=f"executor to be {status}",
        )  # type: ignore[return-value]

    def workflow(self, workflow_id: str) -> dict[str, Any]:
        return self.http("GET", f"workflows/{quote(workflow_id, safe='')}").json()

    def await_status(self, workflow_id: str, *status: str) -> dict[str, Any]:
        """Waits until the workflow exists and has one of these statuses."""

        def seen() -> dict[str, Any] | None:
            answer = self.http("GET", f"workflows/{quote(workflow_id, safe='')}", None)
            return answer.json() if answer.status_code == 200 else None

        return eventually(
            seen,
            lambda workflow: workflow is not None and workflow["status"] in status,
            within=30,
            what=f"{workflow_id} to be {status}",
        )  # type: ignore[return-value]

    def close(self) -> None:
        for executor in self.executors:
            executor.kill()
        self.server.close()
        for database in self.databases.values():
            database.drop()
        if self.issuer:
            self.issuer.close()
        self._client.close()


class Executor:
    """A running shop.py. `alerts` are those it was handed."""

    def __init__(
        self, world: World, version: str, name: str, key: str, cable: Proxy | None = None
    ) -> None:
        python = CACHE / "python" / SDK / "bin" / "python"
        assert python.is_file(), f"{python} is missing; `make test` makes it"
        self.log = world.directory / f"{name}-{version}-{secrets.token_hex(2)}.log"
        host, port = cable.address if cable else world.server.address
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("DBOS_", "SEGNO_"))
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(python), str(SHOP)],
                env=inherited
                | {
                    "SHOP_NAME": name,
                    "SHOP_VERSION": version,
                    "SHOP_DATABASE_URL": world.database(name).url,
                    "SHOP_CONDUCTOR_URL": f"ws://{host}:{port}",
                    "SHOP_CONDUCTOR_KEY": key or "any",
                },
                cwd=world.directory,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.answers: list[dict[str, Any]] = []
        self.alerts: list[dict[str, Any]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        self.id = ""

    def await_ready(self) -> None:
        self.id = self._answer(0)["executor_id"]

    def start(self, workflow: str, workflow_id: str, *arguments: Any) -> None:
        self._order(start=workflow, id=workflow_id, args=arguments)

    def enqueue(self, workflow: str, workflow_id: str, *arguments: Any) -> None:
        self._order(enqueue=workflow, id=workflow_id, args=arguments)

    def send(self, workflow_id: str, topic: str, message: Any) -> None:
        self._order(send=workflow_id, topic=topic, message=message)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _order(self, **order: Any) -> None:
        assert self.process.stdin is not None
        count = len(self.answers)
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        self._answer(count)

    def _answer(self, index: int) -> dict[str, Any]:
        def given() -> dict[str, Any] | None:
            if len(self.answers) > index:
                return self.answers[index]
            assert self.process.poll() is None, f"it ended:\n{self.log.read_text()[-4000:]}"
            return None

        answer = eventually(given, within=60, what=f"an answer of the application, see {self.log}")
        assert answer is not None
        return answer

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            message = json.loads(line)
            (self.alerts if "alert" in message else self.answers).append(message)
