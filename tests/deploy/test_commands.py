"""Each command of the operator's pages and of the README is run as the page has it, on what the page is about.

What cannot be run here is read by a parser instead: VALIDATED says what. The quick starts are run by
test_quickstart.py; the library's guide is compiled by its own tests."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from docs import blocks, substituted
from executor import Executor
from harness import App, eventually
from harness.server import free_port, program
from instance import ADMIN_KEY, Instance
from stores import VERSIONS, Store, left_by
from tools import ROOT, run, tool

OPERATE = ROOT / "docs" / "operate"
#: Pages whose commands are run elsewhere, or whose commands run all of the tests.
ELSEWHERE = {"start", "agent", "reliability", "reference"}
#: What only a parser reads here: there is neither a container runtime nor a cluster.
VALIDATED = {
    "install.md: docker compose up": "compose's own parser",
    "install.md: kubectl create secret": "its arguments, against the keys that the chart mounts",
    "install.md: helm install": "helm template with the same arguments",
    "README.md: make demo, make test, make console, cargo build": "the Makefile has the targets; the tests are made by them",
}
#: Stand in for programs that need what is not here.
STAND_INS = r"""
docker() { # compose --file FILE… up --build --detach
    [[ $1 == compose ]] && shift
    local files=()
    while [[ $1 == --file ]]; do files+=("${2#deploy/}"); shift 2; done
    [[ "$*" == "up --build --detach" ]] && (cd deploy && "$COMPOSE" "${files[@]}" >/dev/null)
}
kubectl() { # create secret generic NAME --from-literal=KEY=VALUE…
    [[ "$1 $2 $3" == "create secret generic" ]] && shift 4
    for each in "$@"; do [[ $each == --from-literal=*=* ]] && echo "${each#--from-literal=}" >>"$SECRET"; done
}
helm() { [[ $1 == install ]] && shift && "$HELM" template --kube-version 1.30 "$@" >"$RENDERED"; }
"""


def steps(page: Path) -> list[str]:
    return blocks(page, "sh")


def shell(script: str, folder: Path, **settings: str) -> str:
    """What bash prints when it runs that; it ends at the first command that fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SEGNO_", "DBOS_"))}
    postgres = run(ROOT / "tests" / "postgres.sh", "--find").strip()
    environment["PATH"] = f"{program().parent}:{postgres}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment | {"SEGNO_LISTEN": f"127.0.0.1:{free_port()}", "SEGNO_DATA_DIR": str(folder / "data")} | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Instance]:
    instance = Instance(tmp_path, f"sqlite://{tmp_path}/server.db").start()
    yield instance
    instance.close()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(kind: str, filled: bool = False) -> Store:
        folder = tmp_path / f"store-{len(made)}"
        folder.mkdir()
        store = Store(kind, folder)
        made.append(store)
        if filled:
            run(program(), "migrate", "--database-url", store.url)
            for statement in left_by(VERSIONS[-1], int(time.time() * 1000)):
                store.rows(statement)
        return store

    yield make
    for each in made:
        each.close()


def test_every_page_with_commands_is_run() -> None:
    pages = [each for each in (ROOT / "docs").rglob("*.md") if each.relative_to(ROOT / "docs").parts[0] not in ELSEWHERE]
    with_commands = {page.stem for page in [*pages, ROOT / "README.md"] if steps(page)}
    here = re.findall(r"(?m)^def test_(\w+)_page\b", Path(__file__).read_text())
    assert {name.replace("-", "_").lower() for name in with_commands} == set(here)


def test_backup_page(stores: Callable[..., Store], tmp_path: Path) -> None:
    source, restored, moved, dumped = stores("postgres", filled=True), *(stores("postgres") for _ in range(3))
    file = stores("sqlite", filled=True)
    export, take, move, own, copy = steps(OPERATE / "backup.md")
    path = file.url.removeprefix("sqlite://")
    shell(export, tmp_path, SEGNO_DATABASE_URL=source.url)
    shell(take, tmp_path, SEGNO_DATABASE_URL=restored.url)
    shell(substituted(move, {"/var/lib/segno/segno.db": path}), tmp_path, POSTGRES=moved.url)
    shell(own, tmp_path, SEGNO_DATABASE_URL=source.url, POSTGRES=dumped.url)
    shell(substituted(copy, {"/var/lib/segno/segno.db": path}), tmp_path)
    for each in (restored, moved, dumped):
        assert each.rows("SELECT id, executor_timeout_secs FROM applications ORDER BY id") == [("app", 77), ("other", 60)]
    # What was copied is a whole database.
    shell("segno migrate --dry-run --database-url sqlite://segno-copy.db | grep -q 'stays at version'", tmp_path)


def test_upgrade_page(stores: Callable[..., Store], tmp_path: Path) -> None:
    store = stores("postgres")
    run(program(), "migrate", "--database-url", store.url, "--to", str(VERSIONS[-2]))
    tried, back = steps(OPERATE / "upgrade.md")
    assert f"{VERSIONS[-1]:04}" in shell(tried, tmp_path, SEGNO_DATABASE_URL=store.url)
    run(program(), "migrate", "--database-url", store.url)
    older = re.sub(r"--to \d+", f"--to {VERSIONS[-2]}", back)
    assert f"version {VERSIONS[-2]}." in shell(older, tmp_path, SEGNO_DATABASE_URL=store.url)


def test_authentication_page(server: Instance, tmp_path: Path) -> None:
    keys, settings = steps(OPERATE / "authentication.md")
    App(server.api, "shop").register(60)
    base = f"http://127.0.0.1:{server.address[1]}"
    made = shell(keys, tmp_path, ADMIN=ADMIN_KEY, SEGNO=base)
    assert made.count('"token":"dbos_') == 2
    names = {each["tokenName"] for each in server.api.call("GET", "/v2/orgs/local/tokens").json()}
    assert {"shop-executors", "prometheus"} <= names
    explained(settings, tmp_path)


def explained(settings: str, folder: Path, values: str = "https://login.example.com/x") -> None:
    """The settings are all known and the server could start with them."""
    script = "set -a\n" + settings.replace("…", values) + "\nsegno config check"
    assert "can start with these settings" in shell(script, folder)


def test_high_availability_page(stores: Callable[..., Store], tmp_path: Path) -> None:
    several, pooled = steps(OPERATE / "high-availability.md")
    explained(substituted(several, {"postgres://…": "postgres://db/segno"}), tmp_path)
    explained(pooled, tmp_path)


def test_observability_page(server: Instance, tmp_path: Path) -> None:
    (make,) = steps(OPERATE / "observability.md")
    base = f"http://127.0.0.1:{server.address[1]}"
    made = shell(make, tmp_path, ADMIN=ADMIN_KEY, SEGNO=base)
    token = re.search(r'"token":"(dbos_[^"]+)"', made)
    assert token
    for path in ("/metrics", "/v1/metrics"):
        answer = httpx.get(base + path, headers={"Authorization": f"Bearer {token[1]}"}, trust_env=False)
        assert answer.status_code == 200


def test_install_page(stores: Callable[..., Store], dist: Path, tmp_path: Path) -> None:
    containers, cluster, release, serve, rescue, check = steps(OPERATE / "install.md")
    version, triple = "0.1.0", re.search(r"segno-0\.1\.0-(\S+)\.tar\.gz", release)
    assert triple and f'version = "{version}"' in (ROOT / "Cargo.toml").read_text()
    for name in ("SHA256SUMS", f"segno-{version}-{triple[1]}.tar.gz"):
        (tmp_path / name).write_bytes((dist / name).read_bytes())
    local = tmp_path / "local"
    shell(substituted(release, {"/usr/local": str(local)}), tmp_path)
    installed = {"bin/segno", "share/man/man1/segno-serve.1", "share/bash-completion/completions/segno"}
    assert all((local / each).is_file() for each in installed)
    assert run(local / "bin" / "segno", "--version").startswith("segno ")

    subprocess.run(["cp", "-r", str(ROOT / "deploy"), str(tmp_path / "deploy")], check=True)
    secret, rendered = tmp_path / "secret", tmp_path / "rendered.yaml"
    shell(
        STAND_INS + containers + cluster,
        tmp_path,
        COMPOSE=str(tool("compose")),
        HELM=str(tool("helm")),
        SECRET=str(secret),
        RENDERED=str(rendered),
    )
    given = dict(line.split("=", 1) for line in secret.read_text().splitlines())
    assert re.fullmatch(r"dbos_[0-9a-f]{48}", given["admin-key"])
    mounted = {
        item["key"]
        for each in yaml.safe_load_all(rendered.read_text())
        if each and each["kind"] == "Deployment"
        for volume in each["spec"]["template"]["spec"]["volumes"]
        for source in [volume.get("secret") or {}, *(volume.get("projected") or {}).get("sources", [])]
        for item in (source.get("secret") or source).get("items", [])
    }
    assert mounted == set(given), "the chart mounts other keys than the page makes"

    store = stores("postgres")
    # In the background, until it is healthy; then as an operator stops it.
    started = serve.strip() + " & until segno healthcheck 2>/dev/null; do sleep 0.05; done; kill %1; wait %1"
    told = shell(substituted(started, {"postgres://segno@localhost/segno": store.url}), tmp_path)
    assert re.search(r"shown only this once: dbos_", told)
    key = shell(rescue, tmp_path, SEGNO_DATABASE_URL=store.url).strip()
    assert key.startswith("dbos_")
    assert "can start with these settings" in shell(check, tmp_path)


def test_troubleshooting_page(server: Instance, tmp_path: Path) -> None:
    (ask,) = steps(OPERATE / "troubleshooting.md")
    page = (OPERATE / "troubleshooting.md").read_text()
    base = f"http://127.0.0.1:{server.address[1]}"
    key = App(server.api, "shop").register(60)
    # A connection that is accepted stays open.
    bounded = substituted(ask, {"curl -i": "curl -sS -i --max-time 1"}).rstrip() + " || true"
    assert shell(bounded, tmp_path, SEGNO=base, KEY=key).startswith("HTTP/1.1 101")
    nobody = "dbos_unknown"
    for app, used, status in (("nope", ADMIN_KEY, 404), ("nope", key, 403), ("shop", nobody, 401)):
        answer = shell(substituted(bounded, {"/shop/": f"/{app}/"}), tmp_path, SEGNO=base, KEY=used)
        assert answer.startswith(f"HTTP/1.1 {status}")
        quoted = re.findall(r"(?m)^\| `([^`]+)` \|", page)
        told = answer.replace("`", "")
        assert any(each in told for each in quoted), f"troubleshooting.md does not have: {told}"


def test_the_problems_that_troubleshooting_shows_are_real(server: Instance) -> None:
    problems = blocks(OPERATE / "troubleshooting.md", "text")[-1].strip().splitlines()
    base = f"http://127.0.0.1:{server.address[1]}/v2/orgs/local/apps"
    App(server.api, "shop").register(60)
    asked = [(base, None), (base, "dbos_unknown"), (f"{base}/shop/workflows", ADMIN_KEY)]
    for quoted, (url, key) in zip(problems, asked, strict=True):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        assert httpx.get(url, headers=headers, trust_env=False).text.strip() == quoted


# ---- proxies ----------------------------------------------------------------------------------------


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def works_behind(port: int, server: Instance, prefix: str = "") -> None:
    """API and an executor's websocket through the proxy on that port."""

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}{prefix}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    eventually(answers, what="the proxy")
    name = f"behind-{port}{prefix.strip('/')}"
    app = App(server.api, name)
    executor = Executor(("127.0.0.1", port), name, app.register(60), prefix)
    eventually(app.executors, lambda seen: [each["status"] for each in seen] == ["HEALTHY"], what="the executor")
    executor.close()


def test_the_proxies_of_the_page_pass_everything_on(server: Instance, tmp_path: Path) -> None:
    page = OPERATE / "tls-and-proxies.md"
    upstream = f"127.0.0.1:{server.address[1]}"
    (caddyfile,) = blocks(page, "text")
    port = free_port()
    file = tmp_path / "Caddyfile"
    file.write_text(
        "{\n\tadmin off\n}\n"
        + substituted(caddyfile, {"segno.example.com": f"http://127.0.0.1:{port}", "segno:8090": upstream})
    )
    with running(["caddy", "run", "--adapter", "caddyfile", "--config", str(file)], tmp_path / "caddy.log"):
        works_behind(port, server)

    (nginx,) = blocks(page, "nginx")
    below = re.search(r"`(location /segno/ [^`]+)`", page.read_text())
    assert below
    port = free_port()
    # TLS is nginx's own business; the prefix of the next paragraph is taken off too.
    text = substituted(nginx, {"listen 443 ssl;": f"listen 127.0.0.1:{port};", "http://segno:8090": f"http://{upstream}"})
    inner = re.search(r"(?s)location / \{(.*?)\n    \}", text)
    assert inner
    options = inner[1].replace(f"proxy_pass http://{upstream};", "")
    prefix = substituted(below[1], {"http://segno:8090/;": f"http://{upstream}/;{options}"})
    text = text.rstrip()[:-1] + prefix + "\n}\n"
    temporary = "".join(f"{each}_temp_path {tmp_path}/{each};\n" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"daemon off;\npid {tmp_path}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}{text}}}\n"
    )
    run("nginx", "-t", "-c", conf)
    with running(["nginx", "-c", str(conf)], tmp_path / "nginx.log"):
        works_behind(port, server)
        works_behind(port, server, "/segno")


def test_the_settings_in_toml_are_settings(tmp_path: Path) -> None:
    for page in (OPERATE / "tls-and-proxies.md", ROOT / "README.md"):
        for text in blocks(page, "toml"):
            file = tmp_path / "segno.toml"
            secrets = re.findall(r'_file = "([^"]+)"', text)
            for number, path in enumerate(secrets):
                value = "postgres://db/segno" if "database" in path else f"dbos_{'a' * 48}"
                (tmp_path / f"secret-{number}").write_text(value)
                text = text.replace(path, str(tmp_path / f"secret-{number}"))
            file.write_text(text)
            run(program(), "config", "check", "--config", file, env={"PATH": os.environ["PATH"]})


# ---- README -----------------------------------------------------------------------------------------


def test_readme_page(server: Instance, tmp_path: Path) -> None:
    two, build, keys, looking, alerts, people = steps(ROOT / "README.md")
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)^make (\w+)", two + build):
        assert re.search(rf"(?m)^{target}:", makefile), target
    assert re.search(r"(?m)^SEGNO_DATABASE_URL=\S+ \./target/release/segno serve$", build)
    here = {"localhost:8090": f"http://127.0.0.1:{server.address[1]}"}
    shell(substituted(keys, here | {"dbos_…": ADMIN_KEY}), tmp_path)
    made = [shell(substituted(looking, here), tmp_path, ADMIN=ADMIN_KEY)]
    assert made == ["[][]"]
    told = substituted(alerts, here | {"https://hooks.slack.com/services/…": "https://hooks.slack.com/services/T/B/x"})
    answers = shell(told, tmp_path, ADMIN=ADMIN_KEY)
    assert '"name":"ops"' in answers and '"ruleType":"StrandedRecovery"' in answers
    explained(people, tmp_path)
