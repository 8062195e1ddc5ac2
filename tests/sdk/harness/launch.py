"""Starting executors of one application."""

import json
from pathlib import Path

from .api import App
from .executor import Client, Executor
from .journal import Journal
from .proxy import Proxy
from .server import Server


class Launch:
    """Starts executors of one client in one application, on one database: `launch("name")`."""

    def __init__(
        self,
        client: Client,
        app: App,
        executor_key: str,
        journal: Journal,
        server: Server,
        directory: Path,
    ) -> None:
        self.client = client
        self.app = app
        self.journal = journal
        self._key = executor_key
        self._server = server
        self._directory = directory
        self.executors: list[Executor] = []

    def __call__(
        self,
        name: str,
        version: str = "v1",
        *,
        cable: Proxy | None = None,
        vmid: str | None = None,
        metadata_only: bool = False,
    ) -> Executor:
        """Returns when it is connected.

        With `vmid` the process believes that it runs on the vendor's platform, which gives it its id:
        the one way to make an official SDK come back under an id that it had before.
        """
        host, port = cable.address if cable else self._server.address
        settings = {
            "APP_NAME": self.app.name,
            "APP_VERSION": version,
            "APP_DATABASE_URL": self.journal.database.url,
            "APP_CONDUCTOR_URL": f"ws://{host}:{port}",
            "APP_CONDUCTOR_KEY": self._key,
            "APP_METADATA": json.dumps({"name": name}),
        }
        if metadata_only:
            settings["APP_METADATA_ONLY"] = "true"
        if vmid is not None:
            settings |= self._platform(vmid, version, f"ws://{host}:{port}")
        executor = Executor(name, self.client, settings, self._directory)
        self.executors.append(executor)
        executor.await_ready()
        self.app.await_executor(executor.id, version=version)
        return executor

    def close(self) -> None:
        for executor in self.executors:
            executor.kill()

    def _platform(self, vmid: str, version: str, url: str) -> dict[str, str]:
        # SDK 2 takes the name from this file, in the directory where the process runs.
        (self._directory / "dbos-config.yaml").write_text(f"name: {self.app.name}\n")
        return {
            "DBOS__CLOUD": "true",
            "DBOS__VMID": vmid,
            "DBOS__APPVERSION": version,
            "DBOS_APP_NAME": self.app.name,
            "DBOS_SYSTEM_DATABASE_URL": self.journal.database.url,
            "DBOS_DATABASE_URL": self.journal.database.url,
            "DBOS__CONDUCTOR_APP_NAME": self.app.name,
            "DBOS__CONDUCTOR_KEY": self._key,
            "DBOS__CONDUCTOR_URL": url,
        }
