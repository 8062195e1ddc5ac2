"""An executor that answers like an application that was busy in the last minute."""

import json
import threading
from contextlib import ExitStack
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

OLDEST = 1_767_323_045_500


def _row(status: str, name: str, queue: str | None, count: int) -> dict[str, Any]:
    return {
        "group": {"status": status, "name": name, "queue_name": queue},
        "count": count,
        "min_created_at": OLDEST,
        "max_queue_wait_ms": 1500,
        "max_total_latency_ms": 2500,
    }


def _step(status: str, count: int) -> dict[str, Any]:
    group = {"function_name": 'charge "card"\\n', "status": status}
    return {"group": group, "count": count, "max_duration_ms": 250}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    body = request.get("body") or {}
    match request["type"]:
        case "executor_info":
            return {
                "executor_id": "busy",
                "application_version": "v1",
                "hostname": "here",
                "language": "python",
                "dbos_version": "3.2.0",
            }
        case "get_workflow_aggregates" if body.get("start_time"):
            return {"output": [_row("", "checkout", "q", 60)]}
        case "get_workflow_aggregates" if body.get("dequeued_after"):
            return {"output": [_row("", "checkout", "q", 30)]}
        case "get_workflow_aggregates" if body.get("completed_after"):
            ended = [("SUCCESS", 120), ("ERROR", 6), ("CANCELLED", 3)]
            return {"output": [_row(status, "checkout", "q", count) for status, count in ended]}
        case "get_workflow_aggregates":
            return {"output": [_row("ENQUEUED", "checkout", "q", 7), _row("PENDING", "we\"ird\\\n", None, 2)]}
        case "get_step_aggregates":
            return {"output": [_step("SUCCESS", 12), _step("ERROR", 6)]}
        case _:
            return {"success": True, "exist": False, "output": [], "metrics": []}


class Executor:
    """Connected until closed."""

    def __init__(self, address: tuple[str, int], app: str, key: str, prefix: str = "") -> None:
        host, port = address
        self._open = ExitStack()
        url = f"ws://{host}:{port}{prefix}/websocket/{app}/{key}"
        self._socket = self._open.enter_context(connect(url))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            for text in self._socket:
                request = json.loads(text)
                same = {"type": request["type"], "request_id": request["request_id"]}
                self._socket.send(json.dumps(answer(request) | same))
        except ConnectionClosed:
            pass

    def close(self) -> None:
        self._open.close()
        self._thread.join()
