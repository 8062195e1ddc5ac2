"""Acceptance checks 50 to 52: what is wrong with a request, and where."""

import httpx
import pytest
from world import Executor, World


def locations(problem: dict) -> list[str]:
    return sorted(error["location"] for error in problem["errors"])


def test_everything_wrong_is_told_at_once(world: World) -> None:
    body = {"workflowIds": "x", "zzz": 1}
    problem = world.http("POST", "workflows/bulk-cancel", 422, json=body).json()
    assert locations(problem) == ["body.workflowIds", "body.zzz"]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        ('{"workflowIds": [', "application/json", 400),
        (None, "application/json", 400),
        ("workflowIds", "text/plain", 415),
        ('{"workflowIds": ["' + "x" * (2 << 20) + '"]}', "application/json", 413),
    ],
    ids=["truncated", "none", "plain text", "2 MiB"],
)
def test_bodies(world: World, content: str | None, content_type: str, status: int) -> None:
    headers = {"content-type": content_type}
    world.http("POST", "workflows/bulk-cancel", status, content=content, headers=headers)


def test_queries(world: World) -> None:
    problem = world.http("GET", "workflows?limit=ten", 422).json()
    assert locations(problem) == ["query.limit"]
    problem = world.http("GET", "metrics", 422).json()
    assert locations(problem) == ["query.endTime", "query.startTime"]


def test_schema_and_nulls_are_accepted(world: World, shop: Executor) -> None:
    body = {"$schema": "/schemas/WorkflowSearchBody.json", "status": None, "limit": 1}
    assert isinstance(world.http("POST", "workflows/search", json=body).json(), list)


@pytest.mark.parametrize(
    "workflow_id",
    ["x" * 10_000, "☕" * 1_000, "%2F..%2F..%2Fetc%2Fpasswd", "%00", "a%0d%0aSet-Cookie:x", "%ff%fe"],
    ids=["10 kB", "unicode", "traversal", "NUL", "line break", "not UTF-8"],
)
def test_paths_cannot_trick(world: World, shop: Executor, workflow_id: str) -> None:
    """Each is an id of nothing, or refused as one; none is another route or breaks the executor."""
    answer = world.http("GET", f"{world.app}/workflows/{workflow_id}", None)
    assert answer.status_code in (400, 404, 414, 422, 431), answer.text
    # An SDK may say that it cancelled what is not there.
    answer = world.http("POST", f"{world.app}/workflows/{workflow_id}/cancel", None, json={})
    assert answer.status_code in (204, 400, 404, 414, 422, 431), answer.text
    assert world.await_executor(shop, "HEALTHY")


@pytest.mark.modes("keys", "oidc")
def test_credentials_only_count_in_their_header(world: World) -> None:
    apps = f"/v2/orgs/{world.org}/apps"
    for query in ("access_token", "token", "key", "Authorization"):
        world.http("GET", f"{apps}?{query}={world.token}", 401, token="")
    world.http("GET", apps, 401, token="", headers={"cookie": f"token={world.token}"})
    world.http("GET", apps, 401, token="", headers={"x-api-key": world.token})
    world.http("GET", apps, 401, token="", headers={"authorization": f"Basic {world.token}"})
    both = [("authorization", "Bearer dbos_wrong"), ("authorization", f"Bearer {world.token}")]
    twice = httpx.get(world.url + apps, headers=both, trust_env=False)
    assert twice.status_code in (400, 401), "two credentials are no credential"
