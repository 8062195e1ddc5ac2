"""Dashboards, rules and the scrapers' settings: what they ask for is what a server emits."""

import json
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from docs import headings, substituted
from executor import Executor
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from harness import App, Server, eventually
from harness.server import free_port
from prometheus_client.parser import text_string_to_metric_families as families
from tools import ROOT, run

register_default_plugins()
PACK = ROOT / "deploy" / "observability"
DASHBOARDS = sorted((PACK / "grafana").glob("*.json"))
RULES = PACK / "prometheus" / "rules.yml"
DOCS = ROOT / "docs"
METRIC = re.compile(r"\b(?:segno|dbos_conductor)_[a-z0-9_]+\b")
#: Label matchers and groupings, by the metric they are on: name{label=…}.
MATCHER = re.compile(r"\b((?:segno|dbos_conductor)_[a-z0-9_]+)\{([^}]*)\}")


def queries() -> dict[str, str]:
    """Every query of the pack, by where it is."""
    found = {}
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                found[f"{file.stem}: {panel['title']} {target['refId']}"] = target["expr"]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                found[f"{file.stem}: ${variable['name']}"] = variable["query"]["query"]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            found[f"rule {rule['alert']}"] = rule["expr"]
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a busy application."""
    server = Server(tmp_path_factory.mktemp("server"))
    name = f"app-{uuid.uuid4().hex[:12]}"
    executor = Executor(server.address, name, App(server.api, name).register(60))
    eventually(lambda: App(server.api, name).call("GET", "/executors"), what="the executor to be listed")
    yield server
    executor.close()
    server.close()


@pytest.fixture(scope="module")
def emitted(server: Server) -> dict[str, set[str]]:
    """The labels of each series that a server emits, by the series' name."""
    seen: dict[str, set[str]] = {}
    for path in ("/metrics", "/v1/metrics"):
        for family in families(server.api.call("GET", path).text):
            for sample in family.samples:
                seen.setdefault(sample.name, set()).update(sample.labels)
    return seen


def declared() -> set[str]:
    """Names in the server's registry. One with labels shows no series before its first event."""
    source = (ROOT / "server" / "src" / "telemetry" / "mod.rs").read_text()
    return set(re.findall(r'"(segno_[a-z_]+)"', source))


def labels_declared() -> dict[str, set[str]]:
    source = (ROOT / "server" / "src" / "telemetry" / "mod.rs").read_text()
    found = re.findall(r'"(segno_[a-z_]+)",\s*"[^"]*",\s*&\[([^\]]*)\]', source)
    return {name: set(re.findall(r'"([a-z]+)"', labels)) for name, labels in found}


def base(name: str) -> str:
    return re.sub("_(bucket|sum|count)$", "", name) if name.startswith("segno_") else name


def test_no_query_names_a_metric_that_is_not_emitted(emitted: dict[str, set[str]]) -> None:
    known = set(emitted) | {base(name) for name in emitted} | declared()
    assert len(queries()) > 40
    for where, expression in queries().items():
        names = set(METRIC.findall(expression))
        missing = {each for each in names if each not in known and base(each) not in known}
        assert not missing, f"{where}: {missing}"
        assert names or "up{" in expression, f"{where} asks for nothing of ours"


def test_no_query_matches_a_label_that_is_not_there(emitted: dict[str, set[str]]) -> None:
    labels = {base(name): set(found) for name, found in emitted.items()}
    for name, found in labels_declared().items():
        labels.setdefault(name, set()).update(found)
    # Of the scraper, and of histograms.
    everywhere = {"job", "instance", "le"}
    for where, expression in queries().items():
        for name, matchers in MATCHER.findall(expression):
            used = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", matchers))
            assert used <= labels[base(name)] | everywhere, f"{where}: {name}{{{matchers}}}"
        if "vector" in expression or not (names := METRIC.findall(expression)):
            continue
        reachable = everywhere.union(*(labels[base(name)] for name in names))
        for grouping in re.findall(r"\bby \(([^)]*)\)", expression):
            wanted = {each.strip() for each in grouping.split(",")}
            assert wanted <= reachable, f"{where}: by ({grouping})"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_is_whole(file: Path) -> None:
    dashboard = json.loads(file.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) and dashboard["uid"].startswith("segno-")
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]+)\b", json.dumps(dashboard["panels"]))) <= variables
    places: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & places, panel["title"]
        places |= cells
        assert panel["type"] == "row" or panel["description"], panel["title"]


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where `kept` lacks something of `given`, or has something else."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key, value in given.items():
            yield from lost(value, kept.get(key), f"{path}.{key}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif given != kept:
        yield f"{path}: {given!r}, {kept!r}"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_grafanas_own_types_read_all_of_a_dashboard(file: Path) -> None:
    """Grafana itself is in none of the registries; its types are."""
    given = json.loads(file.read_text())
    read = Dashboard.from_json(json.loads(file.read_text()))
    assert not list(lost(given, json.loads(JSONEncoder().encode(read))))


def test_every_expression_is_promql(tmp_path: Path) -> None:
    """promtool parses what Grafana would send, its variables filled in."""
    rules = []
    for number, (where, expression) in enumerate(sorted(queries().items())):
        if expression.startswith("label_values"):
            continue
        filled = re.sub(r"\$__rate_interval", "5m", expression)
        rules.append({"record": f"q:{number}", "expr": re.sub(r"\$\w+", ".*", filled), "labels": {"where": where}})
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    run("promtool", "check", "rules", file)


def test_the_rules_fire_when_they_should() -> None:
    run("promtool", "check", "rules", RULES)
    run("promtool", "test", "rules", RULES.with_name("rules_test.yml"))


@pytest.fixture
def prometheus(server: Server, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """What a Prometheus with the pack's own settings answers, by the path of its API; it only looks more often."""
    (tmp_path / "token").write_text(server.admin_key)
    (tmp_path / "rules.yml").write_text(RULES.read_text())
    changes = {
        "/etc/prometheus/segno-token": str(tmp_path / "token"),
        "segno:8090": f"127.0.0.1:{server.address[1]}",
        "scrape_interval: 30s": "scrape_interval: 1s",
        "evaluation_interval: 30s": "evaluation_interval: 1s",
        "scrape_timeout: 25s": "scrape_timeout: 1s",
    }
    file = tmp_path / "prometheus.yml"
    file.write_text(substituted((PACK / "prometheus" / "prometheus.yml").read_text(), changes))
    run("promtool", "check", "config", file)
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("prometheus", f"--config.file={file}", f"--web.listen-address={address}"),
                f"--storage.tsdb.path={tmp_path / 'data'}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def ask(path: str, **parameters: str) -> Any:
        try:
            answer = httpx.get(f"http://{address}/api/v1/{path}", params=parameters, trust_env=False)
        except httpx.TransportError:
            return None
        if answer.status_code == 503:  # it is starting
            return None
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    yield ask
    process.kill()
    process.wait()


def test_a_prometheus_loads_the_pack_and_answers_every_panel(
    prometheus: Callable[..., Any], emitted: dict[str, set[str]]
) -> None:
    up = eventually(lambda: prometheus("query", query="sum(up) == 2"), lambda told: told and told["result"])
    assert up, "both jobs of prometheus.yml scrape"

    def rules() -> list[dict[str, Any]]:
        return [rule for group in (prometheus("rules") or {"groups": []})["groups"] for rule in group["rules"]]

    wanted = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    loaded = eventually(rules, lambda found: found and all(each["health"] == "ok" for each in found))
    assert {each["name"] for each in loaded} == wanted
    stored = set(prometheus("label/__name__/values"))
    assert set(emitted) <= stored
    for where, expression in queries().items():
        if expression.startswith("label_values"):
            continue
        filled = re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "5m"))
        assert "result" in prometheus("query", query=filled), where


def test_every_rule_leads_to_a_runbook() -> None:
    known = headings(DOCS / "operate" / "troubleshooting.md")
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            page, anchor = rule["annotations"]["runbook_url"].rsplit("#", 1)
            assert page.endswith("/operate/troubleshooting/") and anchor in known, rule["alert"]


def test_the_collectors_scrapes_are_prometheus_settings(tmp_path: Path) -> None:
    """The pipelines name what is configured; what it scrapes is checked as Prometheus' own settings are."""
    config: dict[str, Any] = yaml.safe_load((PACK / "collector" / "config.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for part, names in pipeline.items():
            assert set(names) <= set(config[part]), (part, names)
    scrape = tmp_path / "scrape.yml"
    scrape.write_text(json.dumps(config["receivers"]["prometheus"]["config"]))
    subprocess.run(["promtool", "check", "config", str(scrape)], check=True, capture_output=True)
