"""A DBOS application whose workflows the tests can hold at any step, with a record of every act.

It runs under each SDK version under test, so it uses only what all of them have. Settings come
from APP_* variables; orders come as JSON lines on stdin and are answered on stdout:

    {"start": "workflow-id", "steps": 5}     start a journey here, now
    {"enqueue": "workflow-id", "steps": 5}   put it on the queue that every executor listens to

The first line on stdout says who this process is. It ends when stdin does, so that no process
outlives the tests.

How far workflows may go, and what they did, is in schema `app` of the same database;
harness/journal.py makes it and explains it.
"""

import json
import os
import sys
import time
import uuid
from typing import Any

import psycopg
from dbos import DBOS, SetWorkflowID

DATABASE_URL = os.environ["APP_DATABASE_URL"]
QUEUE = "journeys"


def execute(statement: str, *values: Any) -> list[tuple]:
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


@DBOS.step(name="leg")
def leg(number: int) -> str:
    """Records that it began, waits until the workflow may pass, records that it ended."""
    workflow_id = DBOS.workflow_id
    attempt = uuid.uuid4()
    execute(
        "INSERT INTO app.effects (attempt, workflow_id, step, executor_id, app_version)"
        " VALUES (%s, %s, %s, %s, %s)",
        *(attempt, workflow_id, number, DBOS.executor_id, DBOS.application_version),
    )
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        may_pass = "SELECT 1 FROM app.pace WHERE workflow_id = %s AND steps >= %s"
        while not connection.execute(may_pass, (workflow_id, number)).fetchone():
            time.sleep(0.02)
        connection.execute(
            "UPDATE app.effects SET ended_at = clock_timestamp() WHERE attempt = %s", (attempt,)
        )
    return f"leg {number}"


@DBOS.workflow(name="journey")
def journey(steps: int) -> str:
    run = uuid.uuid4()
    execute(
        "INSERT INTO app.runs (run, workflow_id, executor_id, app_version) VALUES (%s, %s, %s, %s)",
        *(run, DBOS.workflow_id, DBOS.executor_id, DBOS.application_version),
    )
    left_by = "an exception"
    try:
        result = ", ".join(leg(number) for number in range(1, steps + 1))
        left_by = "return"
        return result
    except BaseException as error:
        left_by = type(error).__name__
        raise
    finally:
        execute("UPDATE app.runs SET left_by = %s WHERE run = %s", left_by, run)


def configuration() -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": os.environ["APP_NAME"],
        "system_database_url": DATABASE_URL,
        "application_version": os.environ["APP_VERSION"],
        "log_level": "INFO",
    }
    if os.environ.get("DBOS__CLOUD") != "true":
        config["conductor_url"] = os.environ["APP_CONDUCTOR_URL"]
        config["conductor_key"] = os.environ["APP_CONDUCTOR_KEY"]
        config["conductor_executor_metadata"] = json.loads(os.environ["APP_METADATA"])
    if os.environ["APP_SDK"].startswith("2."):
        # Its port is fixed: two applications on one machine would meet on it.
        config["run_admin_server"] = False
    return config


def obey(order: dict[str, Any]) -> None:
    if "start" in order:
        with SetWorkflowID(order["start"]):
            DBOS.start_workflow(journey, order["steps"])
    else:
        with SetWorkflowID(order["enqueue"]):
            DBOS.enqueue_workflow(QUEUE, journey, order["steps"])


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    DBOS(config=configuration())
    DBOS.launch()
    DBOS.register_queue(QUEUE)
    say(executor_id=DBOS.executor_id, app_version=DBOS.application_version)
    for line in sys.stdin:
        order = json.loads(line)
        obey(order)
        say(done=order)
    os._exit(0)


if __name__ == "__main__":
    main()
