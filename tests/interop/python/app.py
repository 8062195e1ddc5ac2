"""The application of ../README.md on the official Python SDK."""

import base64
import gzip
import json
import os
import sys

from dbos import DBOS, DBOSClient, WorkflowSerializationFormat

NAME = os.environ["APP_NAME"]
URL = os.environ["APP_DATABASE_URL"]
WAIT = 60
PORTABLE = WorkflowSerializationFormat.PORTABLE


@DBOS.step(name="answer")
def respond(given):
    return {"from": NAME, "input": given}


@DBOS.workflow(name="echo", serialization_type=PORTABLE)
def echo(given):
    return respond(given)


@DBOS.workflow(name="fail", serialization_type=PORTABLE)
def fail(given):
    raise ValueError(f"broken on purpose: {given}")


@DBOS.workflow(name="talk", serialization_type=PORTABLE)
def talk(given):
    DBOS.set_event("mood", {"of": given})
    DBOS.write_stream("log", "first")
    DBOS.write_stream("log", {"second": 2})
    DBOS.close_stream("log")
    return {"heard": DBOS.recv("mailbox", timeout_seconds=WAIT)}


class Orders:
    def __init__(self, client):
        self.client = client

    def enqueue(self, order):
        options = {
            "workflow_name": order["workflow"],
            "queue_name": f"{order['to']}-work",
            "workflow_id": order["id"],
            "serialization_type": PORTABLE,
            "application_name": order["to"],
        }
        self.client.enqueue(options, order["input"])

    def result(self, order):
        return {"value": DBOS.retrieve_workflow(order["id"]).get_result()}

    def send(self, order):
        DBOS.send(order["id"], order["input"], order["key"], serialization_type=PORTABLE)

    def event(self, order):
        return {"value": DBOS.get_event(order["id"], order["key"], timeout_seconds=WAIT)}

    def stream(self, order):
        return {"value": list(DBOS.read_stream(order["id"], order["key"]))}

    def status(self, order):
        return {"value": DBOS.retrieve_workflow(order["id"]).get_status().status}

    def cancel(self, order):
        DBOS.cancel_workflow(order["id"])

    def resume(self, order):
        DBOS.resume_workflow(order["id"])

    def fork(self, order):
        return {"value": self.client.fork_workflow(order["id"], order.get("from", 0)).workflow_id}

    def steps(self, order):
        found = self.client.list_workflow_steps(order["id"])
        return {"value": [[each["function_id"], each["function_name"]] for each in found]}

    def database(self, operation):
        """Python 3 has left export and import to others."""
        database = self.client._sys_db
        if not hasattr(database, operation):
            raise NotImplementedError(f"this SDK has no {operation}")
        return database

    def export(self, order):
        # For the control plane it pickles this list; as JSON it is what all others exchange.
        database = self.database("export_workflow")
        exported = database.export_workflow(order["id"], export_children=True)
        return {"value": base64.b64encode(gzip.compress(json.dumps(exported).encode())).decode()}

    def load(self, order):
        database = self.database("import_workflow")
        database.import_workflow(json.loads(gzip.decompress(base64.b64decode(order["key"]))))

    def list(self, order):
        found = self.client.list_workflows(
            workflow_id_prefix=order["key"], status=order.get("status"), name=order.get("workflow")
        )
        return {"value": [each.workflow_id for each in found]}


def answer(message):
    print(f"answer: {json.dumps(message)}", flush=True)


def main():
    DBOS(
        config={
            "name": NAME,
            "system_database_url": URL,
            "application_version": f"interop-{NAME}",
            "run_admin_server": False,
        }
    )
    DBOS.launch()
    DBOS.register_queue(f"{NAME}-work")
    orders = Orders(DBOSClient(system_database_url=URL))
    answer({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            # `import` is a word of the language.
            obey = getattr(orders, {"import": "load"}.get(order["do"], order["do"]))
            answer({"done": obey(order)})
        except Exception as error:  # What failed is for the tests to judge.
            answer({"error": f"{type(error).__name__}: {error}"})
    os._exit(0)


main()
