"""The REST API, as a client without any library would use it."""

from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from .waiting import eventually

FINAL = {"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}


class Problem(Exception):
    """An answer other than the documented success; `status` and `body` as they came."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(
            f"{response.request.method} {response.url}: {response.status_code} {response.text}"
        )
        self.status = response.status_code
        self.content_type = response.headers.get("content-type", "")
        self.body = response.json() if "json" in self.content_type else None


def moment(text: str) -> datetime:
    """A time of the API, always with its zone."""
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert parsed.tzinfo is not None, f"{text!r} has no zone"
    return parsed


class Api:
    def __init__(self, base: str, key: str) -> None:
        self._http = httpx.Client(
            base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )

    def call(self, method: str, path: str, success: int = 200, **options: Any) -> httpx.Response:
        response = self._http.request(method, path, **options)
        if response.status_code != success:
            raise Problem(response)
        return response


class App:
    """One application of organisation `local`."""

    def __init__(self, api: Api, name: str) -> None:
        self.name = name
        self._api = api
        self._path = f"/v2/orgs/local/apps/{name}"
        self._key_path = f"/v2/orgs/local/tokens/{name}"

    def request(self, method: str, path: str, success: int = 200, **options: Any) -> httpx.Response:
        """Calls below the application."""
        return self._api.call(method, self._path + path, success, **options)

    def call(self, method: str, path: str, success: int = 200, **options: Any) -> Any:
        """Calls below the application and returns the decoded body, or None without one."""
        response = self.request(method, path, success, **options)
        body = response.json() if response.content else None
        if isinstance(body, dict):
            # Objects may name their schema, elements of lists do not: without, they compare.
            body.pop("$schema", None)
        return body

    # -- the application itself

    def register(self, grace_secs: int) -> str:
        """Registers it and returns a new key for its executors."""
        self.call("PUT", "", 204)
        self.call("PATCH", "", 204, json={"executorTimeoutSecs": grace_secs})
        created = self._api.call("POST", self._key_path, 201, json={"appNames": [self.name]})
        return created.json()["token"]

    def revoke_key(self) -> None:
        """Revokes the key that `register` made."""
        self._api.call("DELETE", self._key_path, 204)

    def get(self) -> dict[str, Any]:
        return self.call("GET", "")

    # -- executors

    def executors(self) -> list[dict[str, Any]]:
        return self.call("GET", "/executors")

    def executor(self, executor_id: str, version: str | None = None) -> dict[str, Any] | None:
        """The executor of that id (and version), or None if the server does not know it."""
        found = [
            executor
            for executor in self.executors()
            if executor["executorId"] == executor_id and version in (None, executor["appVersion"])
        ]
        assert len(found) <= 1, f"one executor is listed more than once: {found}"
        return found[0] if found else None

    def await_executor(
        self, executor_id: str, status: str = "HEALTHY", version: str | None = None
    ) -> dict[str, Any]:
        return eventually(
            lambda: self.executor(executor_id, version),
            lambda executor: executor is not None and executor["status"] == status,
            what=f"executor {executor_id} to be {status}",
        )  # type: ignore[return-value]

    # -- recoveries

    def recoveries(self, **filters: Any) -> list[dict[str, Any]]:
        return self.call("GET", "/recoveries", params=filters)

    def await_recovery(
        self,
        executor_id: str,
        status: str,
        version: str | None = None,
        reason: str | None = None,
        within: float = 40.0,
    ) -> dict[str, Any]:
        """Waits until the newest record of that executor (and version) has that status (and reason)."""

        def newest() -> dict[str, Any] | None:
            filters = {"executorId": executor_id}
            if version is not None:
                filters["appVersion"] = version
            records = self.recoveries(**filters)
            return records[0] if records else None

        return eventually(
            newest,
            lambda record: record is not None
            and record["status"] == status
            and reason in (None, record["reason"]),
            within=within,
            what=f"recovery of {executor_id} to be {status} {reason or ''}",
        )  # type: ignore[return-value]

    # -- workflows

    def workflow(self, workflow_id: str) -> dict[str, Any]:
        return self.call("GET", f"/workflows/{quote(workflow_id, safe='')}")

    def workflows(self, **query: Any) -> list[dict[str, Any]]:
        return self.call("GET", "/workflows", params=query)

    def search(self, **body: Any) -> list[dict[str, Any]]:
        return self.call("POST", "/workflows/search", json=body)

    def steps(self, workflow_id: str, **query: Any) -> list[dict[str, Any]]:
        return self.call("GET", f"/workflows/{quote(workflow_id, safe='')}/steps", params=query)

    def cancel(self, workflow_id: str) -> None:
        self.call("POST", f"/workflows/{quote(workflow_id, safe='')}/cancel", 204)

    def resume(self, workflow_id: str) -> None:
        self.call("POST", f"/workflows/{quote(workflow_id, safe='')}/resume", 204)

    def fork(self, workflow_id: str, **body: Any) -> str:
        """Forks it and returns the new workflow's id."""
        path = f"/workflows/{quote(workflow_id, safe='')}/fork"
        return self.call("POST", path, 201, json=body)["workflowId"]

    def delete(self, workflow_id: str) -> None:
        self.call("DELETE", f"/workflows/{quote(workflow_id, safe='')}", 204)

    def await_workflow(
        self, workflow_id: str, status: str = "SUCCESS", within: float = 40.0
    ) -> dict[str, Any]:
        """Waits until it has that status; fails at once if it ends in another."""
        seen = eventually(
            lambda: self.workflow(workflow_id),
            lambda workflow: workflow["status"] in FINAL | {status},
            within=within,
            what=f"workflow {workflow_id} to be {status}",
        )
        assert seen["status"] == status, f"{workflow_id} ended as {seen}"
        return seen

    # -- versions

    def versions(self) -> list[dict[str, Any]]:
        return self.call("GET", "/versions")
