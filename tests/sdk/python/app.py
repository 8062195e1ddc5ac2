"""The application of ../README.md in Python. Runs under each release under test, so it uses only what
all of them have."""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

import psycopg
from dbos import (
    DBOS,
    DBOSContextSetAuth,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
)

DATABASE_URL = os.environ["APP_DATABASE_URL"]
MAJOR = int(os.environ["APP_SDK"].split(".")[0])
METADATA_ONLY = os.environ.get("APP_METADATA_ONLY") == "true" and MAJOR >= 3


# ---- the journal --------------------------------------------------------------------------------


def execute(statement: str, *values: Any) -> list[tuple]:
    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def recorded(step: int) -> Iterator[None]:
    """An attempt at a step: that it began and, unless it fails, that it ended."""
    attempt = uuid.uuid4()
    execute(
        "INSERT INTO app.effects (attempt, workflow_id, step, executor_id, app_version)"
        " VALUES (%s, %s, %s, %s, %s)",
        *(attempt, DBOS.workflow_id, step, DBOS.executor_id, DBOS.application_version),
    )
    yield
    execute("UPDATE app.effects SET ended_at = clock_timestamp() WHERE attempt = %s", attempt)


# ---- workflows ----------------------------------------------------------------------------------


@DBOS.step(name="leg")
def leg(number: int) -> str:
    with recorded(number), psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        may_pass = "SELECT 1 FROM app.pace WHERE workflow_id = %s AND steps >= %s"
        while not connection.execute(may_pass, (DBOS.workflow_id, number)).fetchone():
            time.sleep(0.02)
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


@DBOS.workflow(name="parent")
def parent(steps: int) -> str:
    return f"child: {DBOS.start_workflow(journey, steps).get_result()}"


@DBOS.step(name="approach")
def approach() -> str:
    with recorded(1):
        return "approached"


@DBOS.step(name="gate")
def gate(name: str) -> str:
    with recorded(2):
        if not execute("SELECT 1 FROM app.gates WHERE name = %s", name):
            raise RuntimeError(f"gate {name} is closed")
        return "open"


@DBOS.step(name="arrive")
def arrive() -> str:
    with recorded(3):
        return "arrived"


@DBOS.workflow(name="passage")
def passage(name: str) -> str:
    approach()
    gate(name)
    arrive()
    return f"passed {name}"


@DBOS.workflow(name="talk")
def talk(name: str) -> str:
    DBOS.set_event("mood", "curious")
    DBOS.set_event("mood", "glad")
    DBOS.set_event("name", name)
    DBOS.write_stream("log", "first")
    DBOS.write_stream("log", "second")
    DBOS.close_stream("log")
    DBOS.write_stream("open", "only")
    heard = DBOS.recv("mailbox", timeout_seconds=120)
    DBOS.set_event("heard", heard)
    return heard


@DBOS.workflow(name="tick")
def tick(scheduled_at: datetime, context: Any) -> str:
    return f"tick {context}"


# ---- alerts -------------------------------------------------------------------------------------


def alert(name: str, message: str, metadata: dict[str, str]) -> None:
    execute(
        "INSERT INTO app.alerts (name, message, metadata, executor_id) VALUES (%s, %s, %s, %s)",
        *(name, message, json.dumps(metadata), DBOS.executor_id),
    )


# ---- orders -------------------------------------------------------------------------------------

WORKFLOWS = {"journey": journey, "parent": parent, "passage": passage, "talk": talk}


def start(order: dict[str, Any]) -> None:
    with ExitStack() as options:
        options.enter_context(SetWorkflowID(order["id"]))
        if "user" in order:
            options.enter_context(DBOSContextSetAuth(order["user"], order.get("roles")))
        if "attributes" in order:
            options.enter_context(SetWorkflowAttributes(order["attributes"]))
        workflow = WORKFLOWS[order["workflow"]]
        if "queue" not in order:
            DBOS.start_workflow(workflow, order["input"])
            return
        enqueue = SetEnqueueOptions(
            priority=order.get("priority"),
            deduplication_id=order.get("deduplication_id"),
            queue_partition_key=order.get("partition"),
        )
        options.enter_context(enqueue)
        DBOS.enqueue_workflow(order["queue"], workflow, order["input"])


def schedule(order: dict[str, Any]) -> None:
    DBOS.create_schedule(
        schedule_name=order["name"],
        workflow_fn=tick,
        schedule=order["cron"],
        context=order.get("context"),
        cron_timezone=order.get("timezone"),
    )


def send(order: dict[str, Any]) -> None:
    DBOS.send(order["to"], order["message"], order["topic"])


ORDERS = {"start": start, "schedule": schedule, "send": send}


def answer(**message: Any) -> None:
    print(f"answer: {json.dumps(message)}", flush=True)


def obey(line: str) -> None:
    order = json.loads(line)
    try:
        ORDERS[order["do"]](order)
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
    else:
        answer(done=True)


# ---- the process --------------------------------------------------------------------------------


def configuration() -> dict[str, Any]:
    config: dict[str, Any] = {
        "name": os.environ["APP_NAME"],
        "system_database_url": DATABASE_URL,
        "application_version": os.environ["APP_VERSION"],
        "log_level": "INFO",
        "scheduler_polling_interval_sec": 1.0,
    }
    if os.environ.get("DBOS__CLOUD") != "true":
        config["conductor_url"] = os.environ["APP_CONDUCTOR_URL"]
        config["conductor_key"] = os.environ["APP_CONDUCTOR_KEY"]
        config["conductor_executor_metadata"] = json.loads(os.environ["APP_METADATA"])
    if METADATA_ONLY:
        config["conductor_metadata_only_mode"] = True
    if MAJOR == 2:
        # Its port is fixed: two applications on one machine would meet on it.
        config["run_admin_server"] = False
    return config


def register_queues() -> None:
    DBOS.register_queue("journeys")
    choice = {"priority_enabled": True} if MAJOR == 2 else {}
    DBOS.register_queue(
        "narrow",
        global_concurrency=2,
        worker_concurrency=1,
        limiter={"limit": 50, "period": 10.0},
        polling_interval_sec=0.5,
        **choice,
    )
    DBOS.register_queue("lanes", partition_concurrency=1)


def main() -> None:
    DBOS(config=configuration())
    DBOS.alert_handler(alert)
    DBOS.launch()
    register_queues()
    answer(
        executor_id=DBOS.executor_id,
        app_version=DBOS.application_version,
        metadata_only=METADATA_ONLY,
    )
    for line in sys.stdin:
        obey(line)
    os._exit(0)


if __name__ == "__main__":
    main()
