"""The application that the checks act on: the official Python SDK, unmodified.

Settings come from SHOP_* variables. Orders come as JSON lines on stdin and are answered on stdout:

    {"start": "buy", "id": "…", "args": […]}      start a workflow here
    {"enqueue": "buy", "id": "…", "args": […]}    put it on queue `q`
    {"send": "…", "topic": "…", "message": …}     send a message to a workflow

An alert that is delivered becomes a line {"alert": name, "message": …, "metadata": {…}} of its own.
The first line says who this process is. It ends when stdin does.
"""

import json
import os
import sys
from datetime import datetime
from typing import Any

from dbos import DBOS, SetWorkflowID


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


@DBOS.step(name="reserve")
def reserve(item: str) -> str:
    return f"reserved {item}"


@DBOS.step(name="charge")
def charge(item: str) -> str:
    return f"charged {item}"


@DBOS.workflow(name="buy")
def buy(item: str) -> str:
    """Two steps, an event and a stream."""
    reserve(item)
    charge(item)
    DBOS.set_event("progress", f"bought {item}")
    DBOS.write_stream("log", f"one {item}")
    return f"bought {item}"


@DBOS.workflow(name="fail")
def fail(reason: str) -> None:
    reserve(reason)
    raise ValueError(reason)


@DBOS.workflow(name="wait")
def wait(topic: str) -> str:
    """Waits for a message for up to an hour."""
    return str(DBOS.recv(topic, timeout_seconds=3600))


@DBOS.workflow(name="family")
def family(generations: int) -> str:
    """Waits with its descendants: `{id}-child`, `{id}-child-child` …"""
    if generations > 0:
        with SetWorkflowID(f"{DBOS.workflow_id}-child"):
            DBOS.start_workflow(family, generations - 1)
    return str(DBOS.recv("go", timeout_seconds=3600))


@DBOS.workflow(name="nightly")
def nightly(scheduled_at: datetime, context: Any) -> str:
    return scheduled_at.isoformat()


def on_alert(name: str, message: str, metadata: dict[str, str]) -> None:
    say(alert=name, message=message, metadata=metadata)


WORKFLOWS = {"buy": buy, "fail": fail, "wait": wait, "family": family}


def obey(order: dict[str, Any]) -> None:
    if "send" in order:
        DBOS.send(order["send"], order["message"], topic=order["topic"])
        return
    workflow = WORKFLOWS[order.get("start") or order["enqueue"]]
    with SetWorkflowID(order["id"]):
        if "start" in order:
            DBOS.start_workflow(workflow, *order["args"])
        else:
            DBOS.enqueue_workflow("q", workflow, *order["args"])


def main() -> None:
    DBOS(
        config={
            "name": os.environ["SHOP_NAME"],
            "system_database_url": os.environ["SHOP_DATABASE_URL"],
            "application_version": os.environ["SHOP_VERSION"],
            "conductor_url": os.environ["SHOP_CONDUCTOR_URL"],
            "conductor_key": os.environ["SHOP_CONDUCTOR_KEY"],
        }
    )
    DBOS.alert_handler(on_alert)
    DBOS.launch()
    DBOS.register_queue("q", worker_concurrency=2, polling_interval_sec=0.2)
    # Often enough for a backfill of an hour to have several firings, and none during the test.
    DBOS.apply_schedules(
        [{"schedule_name": "nightly", "workflow_fn": nightly, "schedule": "*/10 * * * *"}]
    )
    say(executor_id=DBOS.executor_id, app_version=DBOS.application_version)
    for line in sys.stdin:
        order = json.loads(line)
        obey(order)
        say(done=order)
    os._exit(0)


if __name__ == "__main__":
    main()
