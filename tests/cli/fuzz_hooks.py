"""Hooks of Schemathesis: keeps most requests on the application that is there, and says which
failures of the server are documented. Settings come from FUZZ_* variables.
"""

import os
import re
from typing import Any

import schemathesis

ORG = os.environ["FUZZ_ORG"]
APP = os.environ["FUZZ_APP"]
VALID = re.compile("[a-z0-9_]{3,30}")
#: An executor failed, is not there, or is too old for the request; see the document's default answer.
DOCUMENTED = {501, 502, 503, 504}


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> Any:
    """The real organisation and application instead of made-up ones (invalid ones stay), except where
    that would delete what the others need.
    """
    operation = context.operation.definition.raw.get("operationId")
    for name, real in (("orgName", ORG), ("appName", APP)):
        given = (path_parameters or {}).get(name)
        if isinstance(given, str) and VALID.fullmatch(given) and operation != "deleteApp":
            path_parameters[name] = real
    return path_parameters


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """The organisation keeps its name, or every later request would be about one that is not there."""
    if context.operation.definition.raw.get("operationId") == "updateOrg" and isinstance(body, dict):
        body.pop("newName", None)
    return body


@schemathesis.check
def documented_failures_only(context: Any, response: Any, case: Any) -> None:
    status = response.status_code
    assert status < 500 or status in DOCUMENTED, f"status {status} is not documented"
    if status >= 400:
        kind = response.headers.get("content-type", [""])[0]
        assert kind == "application/problem+json", f"an error of type {kind}"
        assert response.json()["status"] == status
