"""Both metrics endpoints, read by the tools that will read them: promtool, the official Python parsers
and a real Prometheus."""

import json
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from executor import OLDEST, Executor
from harness import App, Server
from harness.server import free_port
from harness.waiting import eventually
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus_text

PREFIX = "dbos_conductor_v1_"
FAMILIES = {
    PREFIX + name
    for name in (
        "workflow_started_rate",
        "workflow_dequeued_rate",
        "workflow_success_rate",
        "workflow_failed_rate",
        "workflow_cancelled_rate",
        "workflow_enqueued_count",
        "workflow_pending_count",
        "workflow_oldest_enqueued_timestamp_seconds",
        "workflow_oldest_pending_timestamp_seconds",
        "workflow_max_queue_wait_seconds",
        "workflow_max_total_latency_seconds",
        "step_success_rate",
        "step_failed_rate",
        "step_max_duration_seconds",
        "executor_count",
    )
}
#: What a team watches of the server itself.
OWN = {
    "segno_executor_sessions",
    "segno_executor_request_seconds",
    "segno_executor_requests_outstanding",
    "segno_recoveries_open",
    "segno_http_request_seconds",
    "segno_store_seconds",
    "segno_alert_outbox",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def app(server: Server) -> Iterator[str]:
    """The name of a busy application."""
    name = f"app-{uuid.uuid4().hex[:12]}"
    executor = Executor(server.address, name, App(server.api, name).register(60))
    path = f"/v2/orgs/local/apps/{name}/executors"
    eventually(lambda: server.api.call("GET", path).json(), bool, what="the executor to be listed")
    yield name
    executor.close()


def scrape(server: Server, path: str, accept: str = "text/plain") -> str:
    return server.api.call("GET", path, headers={"Accept": accept}).text


@pytest.mark.parametrize("path", ["/v1/metrics", "/metrics"])
def test_promtool_finds_no_fault(server: Server, app: str, path: str) -> None:
    text = scrape(server, path)
    assert text.strip(), "there is something to check"
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    # Exit code 3 is advice on style: the names of the families are given.
    faults = [line for line in done.stderr.splitlines() if line and not about_names(line)]
    assert done.returncode in (0, 3) and not faults, f"{done.stderr}\n{text}"


def about_names(line: str) -> bool:
    return line.startswith(PREFIX) and "should not" in line


def test_the_official_parsers_read_the_same_from_both_formats(server: Server, app: str) -> None:
    def values(families: Any) -> dict[tuple[Any, ...], float]:
        samples = (sample for family in families for sample in family.samples)
        return {
            (each.name, *sorted(each.labels.items())): each.value
            for each in samples
            if each.labels["application"] == app
        }

    text = scrape(server, "/v1/metrics", "application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    families = list(openmetrics(text))
    assert {family.name for family in families} == FAMILIES
    assert {family.type for family in families} == {"gauge"}
    modern = values(families)
    assert modern == values(prometheus_text(scrape(server, "/v1/metrics")))
    labels = (("application", app), ("queue_name", "q"), ("workflow_name", "checkout"))
    assert modern[(f"{PREFIX}workflow_success_rate", *labels)] == 2
    assert modern[(f"{PREFIX}workflow_oldest_enqueued_timestamp_seconds", *labels)] == OLDEST / 1000
    names = {dict(key[1:]).get("workflow_name") for key in modern}
    assert 'we"ird\\\n' in names, "labels come back as they were"


def test_label_values_of_the_server_are_few_and_its_own(server: Server, app: str) -> None:
    strange = [uuid.uuid4().hex for _ in range(10)]
    for word in strange:
        for path in (f"/{word}", f"/v2/{word}", f"/v2/orgs/local/apps/{app}/workflows/{word}"):
            base = f"http://127.0.0.1:{server.address[1]}"
            httpx.get(base + path, trust_env=False, headers={"x-word": word})
    before = list(prometheus_text(scrape(server, "/metrics")))
    assert {family.name for family in before} >= OWN
    labels = {
        (name, value)
        for family in before
        for sample in family.samples
        for name, value in sample.labels.items()
        if name != "le"
    }
    known = {"language", "message", "outcome", "status", "operation", "reason", "rule", "kind"}
    assert {name for name, _ in labels} <= known
    text = repr(labels)
    assert not any(word in text for word in [*strange, app, "busy", "checkout"])
    document = server.api.call("GET", "/openapi.json").json()
    operations = {
        operation["operationId"]
        for item in document["paths"].values()
        for operation in item.values()
    }
    fixed = {"websocket", "healthz", "readyz", "other"}
    of_http = {
        sample.labels["operation"]
        for family in before
        if family.name == "segno_http_request_seconds"
        for sample in family.samples
    }
    assert of_http <= operations | fixed
    assert len(labels) < 200


@pytest.fixture
def prometheus(server: Server, tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes both endpoints every second."""
    token = tmp_path / "token"
    token.write_text(server.admin_key)
    target = f"127.0.0.1:{server.address[1]}"
    jobs = [
        {
            "job_name": name,
            "metrics_path": path,
            "honor_timestamps": True,
            "authorization": {"credentials_file": str(token)},
            "static_configs": [{"targets": [target]}],
        }
        for name, path in (("applications", "/v1/metrics"), ("segno", "/metrics"))
    ]
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    # JSON is YAML.
    file = tmp_path / "prometheus.yml"
    file.write_text(json.dumps(config))
    subprocess.run(["promtool", "check", "config", str(file)], check=True, capture_output=True)
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield address
    process.kill()
    process.wait()


def test_a_prometheus_scrapes_and_answers_queries(app: str, prometheus: str) -> None:
    def query(promql: str) -> list[dict[str, Any]]:
        try:
            url = f"http://{prometheus}/api/v1/query"
            response = httpx.get(url, params={"query": promql}, trust_env=False)
        except httpx.TransportError:
            return []
        if response.status_code == 503:  # it is starting
            return []
        answer = response.json()
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def names(of: str) -> set[str]:
        found = query(f'count by (__name__) ({{__name__=~"{of}.+"}})')
        return {each["metric"]["__name__"] for each in found}

    def own() -> set[str]:
        return {re.sub("_(bucket|sum|count)$", "", name) for name in names("segno_")}

    eventually(
        lambda: names(PREFIX), lambda found: found == FAMILIES, what="the 15 families in Prometheus"
    )
    eventually(own, lambda found: found >= OWN, what="the server's own metrics in Prometheus")
    assert query("sum(up)")[0]["value"][1] == "2", "both endpoints are up"
    rate = query(f'{PREFIX}workflow_success_rate{{application="{app}"}}')[0]
    assert float(rate["value"][1]) == 2
    # The sample's own time: the end of a full minute.
    stamped = query(f'timestamp({PREFIX}workflow_success_rate{{application="{app}"}})')[0]
    assert float(stamped["value"][1]) % 60 == 0
