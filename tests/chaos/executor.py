"""The application of the chaos runs on the official Python SDK; src/executor/main.rs is the same in Rust."""

import argparse
import itertools
import logging
import os
import random
import signal
import threading
import time
import uuid
from types import FrameType

import psycopg
import sqlalchemy
from dbos import DBOS, DBOSConfig, SetWorkflowID, SQLAlchemyDatasource

#: Between two attempts at what the database refused, in seconds.
AGAIN = 0.2
QUEUE = "errands"
#: Queued errands that one process runs at a time.
AT_ONCE = 50
#: A database whose host went silent is given up for another attempt.
PATIENCE = "connect_timeout=5&tcp_user_timeout=10000"

arguments = argparse.ArgumentParser()
arguments.add_argument("--app", required=True)
arguments.add_argument("--rate", type=float, required=True)
arguments.add_argument("--step-ms", type=int, required=True)
args = arguments.parse_args()
DATABASE_URL = f"{os.environ['APP_DATABASE_URL']}?{PATIENCE}"
datasource = SQLAlchemyDatasource.create(DATABASE_URL.replace("postgres://", "postgresql+psycopg://"))
stopping = threading.Event()
local = threading.local()

EFFECT = (
    "INSERT INTO chaos.effects (attempt, workflow_id, step, executor_id, app_version)"
    " VALUES ({}) ON CONFLICT DO NOTHING"
)


def write(statement: str, *values: str) -> None:
    """Writes, again and again while the database is away; `statement` bears being done twice."""
    while True:
        try:
            if getattr(local, "connection", None) is None:
                local.connection = psycopg.connect(DATABASE_URL, autocommit=True)
            local.connection.execute(statement, values)
            return
        except psycopg.Error:
            local.connection = None
            time.sleep(AGAIN)


def work(step: str, step_ms: int) -> str:
    """Notes that a step was executed, then takes its time."""
    assert DBOS.workflow_id
    write(
        EFFECT.format("%s, %s, %s, %s, %s"),
        *(str(uuid.uuid4()), DBOS.workflow_id, step, DBOS.executor_id, DBOS.application_version),
    )
    time.sleep(random.uniform(0, step_ms) / 1000)
    return step


@DBOS.step(name="first")
def first(step_ms: int) -> str:
    return work("first", step_ms)


@DBOS.step(name="second")
def second(step_ms: int) -> str:
    return work("second", step_ms)


@datasource.transaction(name="settle", isolation_level="READ COMMITTED")
def settle() -> str:
    traces = {
        "attempt": str(uuid.uuid4()),
        "workflow": DBOS.workflow_id,
        "executor": DBOS.executor_id,
        "version": DBOS.application_version,
    }
    session = datasource.sql_session()
    session.execute(sqlalchemy.text(EFFECT.format(":attempt, :workflow, 'settle', :executor, :version")), traces)
    session.execute(
        sqlalchemy.text(
            "INSERT INTO chaos.ledger (workflow_id, executor_id, app_version)"
            " VALUES (:workflow, :executor, :version)"
        ),
        traces,
    )
    return "settled"


@DBOS.step(name="third")
def third(step_ms: int) -> str:
    return work("third", step_ms)


@DBOS.workflow(name="errand")
def errand(step_ms: int) -> str:
    return " ".join([first(step_ms), second(step_ms), settle(), third(step_ms)])


def start(workflow_id: str) -> None:
    """Starts an errand, and notes that the start was acknowledged: from then on it must not be lost."""
    while not stopping.is_set():
        try:
            with SetWorkflowID(workflow_id):
                if ".direct." in workflow_id:
                    DBOS.start_workflow(errand, args.step_ms)
                else:
                    DBOS.enqueue_workflow(QUEUE, errand, args.step_ms)
            break
        except Exception:
            logging.exception("%s is not started yet", workflow_id)
            time.sleep(AGAIN)
    else:
        return
    write("INSERT INTO chaos.submitted (workflow_id) VALUES (%s) ON CONFLICT DO NOTHING", workflow_id)


def start_errands() -> None:
    prefix = uuid.uuid4().hex
    for number in itertools.count():
        if stopping.wait(1 / args.rate):
            return
        how = "direct" if number % 2 == 0 else "queued"
        start(f"{DBOS.application_version}.{how}.{prefix}-{number}")


def stop(_signal: int, _frame: FrameType | None) -> None:
    stopping.set()


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    config: DBOSConfig = {
        "name": args.app,
        "system_database_url": DATABASE_URL,
        "application_version": os.environ["APP_VERSION"],
        "conductor_url": os.environ["APP_CONDUCTOR_URL"],
        "conductor_key": os.environ["APP_CONDUCTOR_KEY"],
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, polling_interval_sec=0.5, worker_concurrency=AT_ONCE)
    print(f"executor {DBOS.executor_id}", flush=True)
    if args.rate > 0:
        threading.Thread(target=start_errands, daemon=True).start()
    stopping.wait()
    DBOS.destroy(workflow_completion_timeout_sec=2)
    os._exit(0)


if __name__ == "__main__":
    main()
