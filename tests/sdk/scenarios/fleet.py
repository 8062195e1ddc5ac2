"""An application of one client that the checks of a module share: start-up is what takes long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import App, Client, Executor, Journal, Launch, Problem, Server
from scenarios.traits import Traits


class Fleet:
    """Its executors, its database, and what is known about its SDK. Checks use ids of their own."""

    # What modules prepare for their checks.
    main: Executor
    heir: Executor
    rule: dict[str, Any]
    child: str
    listening: dict[str, Any]

    def __init__(self, client: Client, server: Server, name: str, directory: Path) -> None:
        self.client = client
        self.traits = Traits(client)
        self.app = App(server.api, name)
        self.journal = Journal()
        self.directory = directory
        key = self.app.register(grace_secs=self.traits.grace_secs)
        self.launch = Launch(client, self.app, key, self.journal, server, directory)

    def close(self) -> None:
        self.launch.close()
        self.journal.database.drop()

    def finished(self, executor: Executor, workflow_id: str, steps: int = 2, **options: Any) -> None:
        """Runs a journey to its end."""
        self.journal.let_pass(workflow_id)
        executor.start(workflow_id, steps, **options)
        self.app.await_workflow(workflow_id)

    def held(self, executor: Executor, workflow_id: str, step: int, steps: int, **options: Any) -> None:
        """Starts a journey and returns when it waits inside `step`."""
        self.journal.let_pass(workflow_id, step - 1)
        executor.start(workflow_id, steps, **options)
        self.journal.await_attempt(workflow_id, step)

    def column(self, statement: str, *values: Any) -> list[Any]:
        """The first column of what the application's database answers."""
        return [row[0] for row in self.journal.database.rows(statement, *values)]

    def value(self, statement: str, *values: Any) -> Any:
        """The one value that the application's database answers."""
        [value] = self.column(statement, *values)
        return value


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [workflow["workflowId"] for workflow in found]


def path_of(journey: str) -> str:
    """What a journey of that many steps, given as `1-3`, returns."""
    first, last = map(int, journey.split("-"))
    return ", ".join(f"leg {number}" for number in range(first, last + 1))


def refused(status: int, call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Asserts a documented refusal and returns what it says."""
    with pytest.raises(Problem) as caught:
        call(*arguments, **options)
    problem = caught.value
    assert (problem.status, problem.content_type) == (status, "application/problem+json"), problem
    assert problem.body is not None and problem.body["status"] == status
    return problem.body["detail"]
