"""The application's database, seen by the tests: how far workflows may go, and what they did."""

from dataclasses import dataclass
from datetime import datetime

from .database import Database
from .waiting import eventually

SCHEMA = """
CREATE SCHEMA app;
-- How many steps a workflow may finish. A step waits inside until it may; without a row it may not.
CREATE TABLE app.pace (
    workflow_id text PRIMARY KEY,
    steps int NOT NULL
);
-- One row per attempt at a step, written when it begins and completed when it ends.
CREATE TABLE app.effects (
    attempt uuid PRIMARY KEY,
    workflow_id text NOT NULL,
    step int NOT NULL,
    executor_id text NOT NULL,
    app_version text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz
);
-- One row per execution of a workflow's function; how it was left is added when that happens.
CREATE TABLE app.runs (
    run uuid PRIMARY KEY,
    workflow_id text NOT NULL,
    executor_id text NOT NULL,
    app_version text NOT NULL,
    left_by text
);
-- Gates that are open.
CREATE TABLE app.gates (
    name text PRIMARY KEY
);
-- Alerts that the handler was called with.
CREATE TABLE app.alerts (
    name text NOT NULL,
    message text NOT NULL,
    metadata jsonb NOT NULL,
    executor_id text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


@dataclass(frozen=True)
class Effect:
    """One attempt at one step."""

    step: int
    executor_id: str
    app_version: str
    began_at: datetime
    ended_at: datetime | None


class Journal:
    def __init__(self) -> None:
        self.database = Database("app")
        self.database.rows(SCHEMA)

    def let_pass(self, workflow_id: str, steps: int = 1000) -> None:
        """Lets a workflow finish its first `steps` steps, and begin the next one."""
        self.database.rows(
            "INSERT INTO app.pace VALUES (%s, %s)"
            " ON CONFLICT (workflow_id) DO UPDATE SET steps = EXCLUDED.steps",
            *(workflow_id, steps),
        )

    def effects(self, workflow_id: str) -> list[Effect]:
        """All attempts at its steps, in the order in which they began."""
        rows = self.database.rows(
            "SELECT step, executor_id, app_version, began_at, ended_at FROM app.effects"
            " WHERE workflow_id = %s ORDER BY began_at",
            workflow_id,
        )
        return [Effect(*row) for row in rows]

    def attempts(self, workflow_id: str) -> dict[int, list[str]]:
        """Step → the executors that attempted it, in order."""
        found: dict[int, list[str]] = {}
        for effect in self.effects(workflow_id):
            found.setdefault(effect.step, []).append(effect.executor_id)
        return found

    def await_attempt(self, workflow_id: str, step: int, by: str | None = None) -> Effect:
        """Waits until that step began (by that executor); the one before it is durable then."""

        def last() -> Effect | None:
            matching = [
                effect
                for effect in self.effects(workflow_id)
                if effect.step == step and by in (None, effect.executor_id)
            ]
            return matching[-1] if matching else None

        effect = eventually(last, what=f"step {step} of {workflow_id} to begin")
        assert effect is not None
        return effect

    def ways_left(self, workflow_id: str) -> list[tuple[str, str | None]]:
        """(executor, how it left the function; None: it has not) of every execution."""
        rows = self.database.rows(
            "SELECT executor_id, left_by FROM app.runs WHERE workflow_id = %s", workflow_id
        )
        return [(executor_id, left_by) for executor_id, left_by in rows]

    def checkpoints(self, workflow_id: str) -> list[int]:
        """The steps that the SDK has recorded as completed."""
        rows = self.database.rows(
            "SELECT function_id FROM dbos.operation_outputs WHERE workflow_uuid = %s ORDER BY 1",
            workflow_id,
        )
        return [function_id for (function_id,) in rows]

    def status(self, workflow_id: str) -> str | None:
        """The workflow's status as the SDK stored it; None if there is no such row."""
        rows = self.database.rows(
            "SELECT status FROM dbos.workflow_status WHERE workflow_uuid = %s", workflow_id
        )
        return rows[0][0] if rows else None
