"""In what the SDKs differ, as far as it can be seen through the server. The checks assert each of it."""

import json
from typing import Any

from harness import Client


class Traits:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.language = client.language
        self.newest_line = client.major >= {"python": 3, "typescript": 5}.get(client.language, 99)

    @property
    def first_step(self) -> int:
        """The number of a workflow's first step."""
        return 1 if self.language == "python" else 0

    def text(self, value: str) -> str:
        """How a string is shown: as an output, an event, a message or an entry of a stream."""
        return {"python": value, "typescript": f"'{value}'"}.get(self.language, json.dumps(value))

    def arguments(self, value: Any) -> str:
        """How the input of a workflow of one argument is shown."""
        if self.language == "python":
            return str({"args": (value,), "kwargs": {}})
        if self.language == "typescript":
            return f"[ {value!r} ]"
        return json.dumps(value if self.language == "go" else [value], separators=(",", ":"))

    @property
    def no_output(self) -> str | None:
        """The output of what failed."""
        return '""' if self.language == "go" else None

    def roles(self, roles: list[str]) -> str:
        """How roles are shown."""
        return str(roles) if self.language == "python" else json.dumps(roles, separators=(",", ":"))

    @property
    def rewinds(self) -> bool:
        """Whether it knows how to rewind a workflow."""
        return self.newest_line

    @property
    def metadata_only(self) -> bool:
        """Whether it can be told to keep payloads to itself."""
        return self.newest_line

    @property
    def scoped(self) -> bool:
        """Whether its rows say which application they belong to."""
        return self.language != "java"

    @property
    def forks_to_latest(self) -> bool:
        """Whether a fork without a version runs on the latest one, instead of on the original's."""
        return self.language == "python"

    @property
    def refuses_unknown_resume(self) -> bool:
        """Whether resuming a workflow that is not there fails."""
        return self.language == "python" or (self.language == "typescript" and self.newest_line)

    @property
    def refuses_unknown_pause(self) -> bool:
        """Whether pausing a schedule that is not there fails."""
        return self.language == "go"

    @property
    def shows_finished_on_queues(self) -> bool:
        """Whether a search of queues with a final status finds anything."""
        return self.language != "typescript"

    @property
    def grace_secs(self) -> int:
        """How long an executor may be away. Java's drops a healthy connection when its ping meets a
        pong that is being sent, or when the answer is there before it waits; it is back a second later."""
        return 3 if self.language == "java" else 1

    @property
    def ignored_when_counting(self) -> tuple[str, ...]:
        """Filters that it ignores in aggregates of workflows; the server refuses them."""
        java = ("hasParent", "parentWorkflowId", "scheduleName", "user", "workflowIds")
        return {"go": ("scheduleName",), "java": java}.get(self.language, ())

    @property
    def backfills_the_end(self) -> bool:
        """Whether an occurrence at the very end of a backfilled window belongs to it."""
        return self.language == "java"
