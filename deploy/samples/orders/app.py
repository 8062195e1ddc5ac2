"""A shop's order desk with the official Python SDK: each order is a durable workflow of three steps."""

import os
import signal
import threading
import uuid
from pathlib import Path

from dbos import DBOS, SetWorkflowID

STOP = threading.Event()


def secret(name: str) -> str:
    return Path(os.environ[name]).read_text().strip()


@DBOS.step()
def reserve(order: str) -> str:
    STOP.wait(0.2)
    return f"reservation of {order}"


@DBOS.step()
def charge(order: str) -> str:
    STOP.wait(0.2)
    return f"charge for {order}"


@DBOS.step()
def ship(order: str) -> str:
    STOP.wait(0.2)
    return f"parcel of {order}"


@DBOS.workflow()
def place_order(order: str) -> list[str]:
    return [reserve(order), charge(order), ship(order)]


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: STOP.set())
    DBOS(
        config={
            "name": "orders",
            "system_database_url": secret("DATABASE_URL_FILE"),
            "conductor_url": os.environ["CONDUCTOR_URL"],
            "conductor_key": secret("CONDUCTOR_KEY_FILE"),
            "log_level": "INFO",
        }
    )
    DBOS.launch()
    pause = 1 / float(os.environ.get("ORDERS_PER_SECOND", "1"))
    while not STOP.wait(pause):
        order = f"order-{uuid.uuid4().hex[:12]}"
        with SetWorkflowID(order):
            DBOS.start_workflow(place_order, order)
    DBOS.destroy(workflow_completion_timeout_sec=5)


if __name__ == "__main__":
    main()
