"""Hooks of Schemathesis: keeps most requests on the application that is there, and says which
failures of the server are documented. Settings come from FUZZ_* variables.
"""

import os
import re
from typing import Any

import jsonschema
import schemathesis
from schemathesis.checks import CHECKS
from schemathesis.core.failures import Failure

#: What is there: in the organisation, and in the application that has a live executor.
PLACES = {"orgName": os.environ["FUZZ_ORG"], "appName": os.environ["FUZZ_APP"]}
THINGS = {"workflowId": os.environ["FUZZ_WORKFLOW"], "scheduleName": "nightly", "queueName": "q"}
VALID = {"orgName": re.compile("[a-z0-9_]{3,30}"), "appName": re.compile("[a-z0-9_-]{3,256}")}
#: They would take away what the others need, or keep it busy for minutes; so they get what is not there …
SPARED = {
    "deleteApp": "appName",
    "deleteWorkflow": "workflowId",
    "evictExecutor": "executorId",
    "backfillSchedule": "scheduleName",
}
#: … or would give it another name.
RENAMING = {"updateOrg", "updateApp"}
#: An executor failed, is not there, or is too old for the request; see the document's default answer.
DOCUMENTED = {501, 502, 503, 504}
#: Cases that were valid before they were changed here: afterwards Schemathesis looks again, at names that
#: are percent-encoded by then, and may find them too long.
made_valid: set[str] = set()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Asks for what is there instead of most of what is made up, or every answer would be 404. What is
    invalid stays.
    """
    if case.meta is not None and not case.meta.generation.mode.is_negative:
        made_valid.add(case.id)
    operation = operation_id(case.operation)
    for name, given in case.path_parameters.items():
        if not isinstance(given, str):
            continue
        if name in PLACES and not VALID[name].fullmatch(given):
            continue
        if name == SPARED.get(operation) and 0 < len(given) < 100:
            case.path_parameters[name] = "gone"
        elif name in PLACES:
            case.path_parameters[name] = PLACES[name]
        elif name in THINGS and 0 < len(given) < 100 and len(given) % 3 == 1:
            case.path_parameters[name] = THINGS[name]
    if operation in RENAMING and isinstance(case.body, dict):
        case.body.pop("newName", None)


def operation_id(operation: Any) -> str | None:
    return operation.definition.raw.get("operationId")


@schemathesis.check
def documented_failures_only(context: Any, response: Any, case: Any) -> None:
    status = response.status_code
    assert status < 500 or status in DOCUMENTED, f"status {status} is not documented"
    if status >= 400:
        kind = response.headers.get("content-type", [""])[0]
        assert kind == "application/problem+json", f"an error of type {kind}"
        assert response.json()["status"] == status


@schemathesis.check
def invalid_is_refused(context: Any, response: Any, case: Any) -> None:
    """negative_data_rejection, except that null may stand for a member that need not be there: clients
    of old send that, and are answered as if it were absent (rest-api, acceptance check 52).
    """
    if case.id in made_valid:
        return
    try:
        CHECKS.get_one("negative_data_rejection")(context, response, case)
    except Failure:
        shortened = without_nulls(case.body)
        if shortened == case.body or not is_valid_body(shortened, case):
            raise


def without_nulls(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    return {name: value for name, value in body.items() if value is not None}


def is_valid_body(body: Any, case: Any) -> bool:
    documented = case.operation.definition.raw["requestBody"]["content"]["application/json"]["schema"]
    components = case.operation.schema.raw_schema["components"]
    return jsonschema.Draft202012Validator(documented | {"components": components}).is_valid(body)
