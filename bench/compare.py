#!/usr/bin/env python3
"""Compares this library with the official SDKs: bench/compare.py [--peers rust,go] [--cases W3:64,W3:512] …

Builds the drivers of bench/peers under .cache/peers and segno-bench, then runs each case with each of them in turn,
several rounds, every run on a database of its own. See README.md for what the columns mean. Needs a Postgres on this
machine on which it is superuser (SEGNO_TEST_POSTGRES_URL), and the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "bench" / "peers"
CACHE = Path(os.environ.get("SEGNO_BENCH_CACHE", ROOT / ".cache" / "peers"))
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
JAVA_RELEASE = "1.1.0-m6"
CASES = "W1:64,W2:64,W3:64,W4:64,W3:512,W2:1,W3:1"

#: Workflows a second that a driver can do, roughly, for a case of 64 callers: decides how many it is given.
ROUGHLY = {"W1": 2000, "W2": 1000, "W3": 200, "W4": 400}


def call(*command: str | Path, folder: Path = ROOT) -> None:
    subprocess.run([str(part) for part in command], cwd=folder, check=True, stdout=sys.stderr)


def segno() -> list[str]:
    call("cargo", "build", "--release", "--quiet", "--bin", "segno-bench")
    return [str(TARGET / "release" / "segno-bench")]


def rust() -> list[str]:
    target = CACHE / "rust"
    call("cargo", "build", "--release", "--quiet", "--locked", "--target-dir", target, folder=PEERS / "rust")
    return [str(target / "release" / "peer-rust")]


def python() -> list[str]:
    interpreter = CACHE / "python" / "bin" / "python"
    if not interpreter.exists():
        call(sys.executable, "-m", "venv", CACHE / "python")
        call(interpreter, "-m", "pip", "install", "--quiet", "-r", PEERS / "python" / "requirements.txt")
    return [str(interpreter), str(PEERS / "python" / "bench.py")]


def typescript() -> list[str]:
    folder = CACHE / "typescript"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bench.mjs", "package.json", "package-lock.json", ".npmrc"):
        shutil.copy(PEERS / "typescript" / name, folder)
    if not (folder / "node_modules").exists():
        call("npm", "ci", "--omit=optional", "--omit=peer", "--loglevel=error", folder=folder)
    return ["node", str(folder / "bench.mjs")]


def go() -> list[str]:
    call("go", "build", "-mod=readonly", "-o", CACHE / "go" / "bench", ".", folder=PEERS / "go")
    return [str(CACHE / "go" / "bench")]


def java() -> list[str]:
    libraries, classes = CACHE / "java" / "lib", CACHE / "java" / "classes"
    if not libraries.exists():
        copy = ("dependency:copy-dependencies", f"-DoutputDirectory={libraries}")
        call("mvn", "--batch-mode", "--quiet", *copy, folder=PEERS / "java")
    call("javac", "-cp", f"{libraries}/*", "-d", classes, "Bench.java", folder=PEERS / "java")
    return ["java", f"-Dbench.version={JAVA_RELEASE}", "-cp", f"{classes}:{libraries}/*", "Bench"]


BUILDERS: dict[str, Callable[[], list[str]]] = {
    "segno": segno,
    "rust": rust,
    "python": python,
    "typescript": typescript,
    "go": go,
    "java": java,
}


class Server:
    """The Postgres, asked through psql."""

    def __init__(self, url: str) -> None:
        self.url = urlsplit(url)._replace(scheme="postgresql")
        self.postmaster = int(self.ask("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"))

    def ask(self, statement: str, database: str | None = None) -> str:
        url = self.url if database is None else self.url._replace(path=f"/{database}")
        command = ["psql", "-qAtX", url.geturl(), "-c", statement]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def of(self, database: str) -> str:
        return self.url._replace(path=f"/{database}").geturl()

    def transactions(self) -> int:
        """Transactions that wrote, ever."""
        return int(self.ask("SELECT pg_current_xact_id()"))

    def quiet(self, database: str) -> None:
        """Waits until nobody is connected any more: only then all time is accounted for."""
        deadline = time.monotonic() + 30
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
        while self.ask(query) != "0" and time.monotonic() < deadline:
            time.sleep(0.05)

    def processor(self) -> float:
        """Seconds of processor time that its processes took, those that are over included."""
        ticks = sum(times(self.postmaster))
        children = Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children").read_text().split()
        ticks += sum(sum(times(int(child))[:2]) for child in children)
        return ticks / os.sysconf("SC_CLK_TCK")

    def ceilings(self, clients: int) -> dict[str, float]:
        """Commits a second of one row by one client and by many, and rows a second in commits of a hundred."""
        name = f"segno_ceiling_{uuid.uuid4().hex[:8]}"
        self.ask(f'CREATE DATABASE "{name}"')
        try:
            self.ask("CREATE TABLE t (id bigserial PRIMARY KEY, body text)", name)
            one = "INSERT INTO t (body) VALUES ('a row like any other')"
            many = "INSERT INTO t (body) SELECT 'a row like any other' FROM generate_series(1, 100)"
            return {
                "single-row commits/s, 1 client": pgbench(self.of(name), one, 1),
                f"single-row commits/s, {clients} clients": pgbench(self.of(name), one, clients),
                "rows/s in 100-row commits, 4 clients": 100 * pgbench(self.of(name), many, 4),
            }
        finally:
            self.ask(f'DROP DATABASE "{name}" WITH (FORCE)')


def times(pid: int) -> list[int]:
    """Ticks in user mode and in the kernel, and those of children that were waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return [0, 0, 0, 0]
    return [int(field) for field in fields[11:15]]


def pgbench(url: str, statement: str, clients: int) -> float:
    binary = shutil.which("pgbench") or max(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement + ";\n")
        script.flush()
        options = ["-n", "-M", "prepared", "-T", "3", "-c", str(clients), "-j", str(min(clients, 2))]
        done = subprocess.run(
            [str(binary), *options, "-f", script.name, url], check=True, capture_output=True, text=True
        )
    line = next(line for line in done.stdout.splitlines() if line.startswith("tps = "))
    return float(line.split()[2])


def run(server: Server, command: list[str], workload: str, n: int, concurrency: int) -> dict[str, float]:
    """One run on a fresh database, with what it cost."""
    database = f"segno_compare_{uuid.uuid4().hex[:8]}"
    server.ask(f'CREATE DATABASE "{database}"')
    arguments = ["--workload", workload, "--concurrency", str(concurrency), "--db", server.of(database)]
    try:
        # Makes the tables, which is no part of what is measured.
        subprocess.run([*command, *arguments, "--n", "1"], check=True, capture_output=True)
        server.quiet(database)
        before = (server.transactions(), server.processor(), client_time())
        done = subprocess.run(
            [*command, *arguments, "--n", str(n)], check=True, capture_output=True, text=True
        )
        client = client_time() - before[2]
        server.quiet(database)
        after = (server.transactions(), server.processor())
        figures = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
        workflows = n + max(20, 2 * concurrency)
        return {
            "wf_per_s": figures["wf_per_s"],
            "p50_ms": figures["p50_ms"],
            "p99_ms": figures["p99_ms"],
            "commits": (after[0] - before[0]) / workflows,
            "client_ms": client / workflows * 1000,
            "server_ms": (after[1] - before[1]) / workflows * 1000,
        }
    finally:
        server.ask(f'DROP DATABASE "{database}" WITH (FORCE)')


def client_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def count(peer: str, workload: str, concurrency: int, seconds: float) -> int:
    """How many workflows keep a driver busy for about so long."""
    rate = ROUGHLY[workload] * (0.3 if concurrency == 1 else 1)
    rate *= {"segno": 6 if concurrency > 1 else 1, "rust": 1, "go": 0.7}.get(peer, 0.3)
    return max(20, int(rate * seconds))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--postgres", default=os.environ.get("SEGNO_TEST_POSTGRES_URL"))
    parser.add_argument("--peers", default=",".join(BUILDERS))
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    if not args.postgres:
        parser.error("no Postgres: give --postgres or set SEGNO_TEST_POSTGRES_URL")
    server = Server(args.postgres)
    settings = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
    print(", ".join(f"{name} {server.ask(f'SHOW {name}')}" for name in settings))
    commands = {peer: BUILDERS[peer]() for peer in args.peers.split(",")}
    for name, rate in server.ceilings(64).items():
        print(f"{name}: {rate:,.0f}", flush=True)
    print(
        f"\n{'case':<8} {'':<11} {'wf/s':>8} {'p50 ms':>9} {'p99 ms':>9} {'commits/wf':>11} "
        f"{'client ms/wf':>13} {'server ms/wf':>13} {'wf/s : rust':>12} {'p50 : rust':>11}"
    )
    for case in args.cases.split(","):
        workload, concurrency = case.split(":")[0], int(case.split(":")[1])
        rounds: dict[str, list[dict[str, float]]] = {peer: [] for peer in commands}
        for _ in range(args.rounds):
            for peer, command in commands.items():
                n = count(peer, workload, concurrency, args.seconds)
                rounds[peer].append(run(server, command, workload, n, concurrency))
        medians = {
            peer: {name: statistics.median(each[name] for each in runs) for name in runs[0]}
            for peer, runs in rounds.items()
        }
        for peer, median in medians.items():
            base = medians.get("rust", median)
            print(
                f"{case:<8} {peer:<11} {median['wf_per_s']:>8.0f} {median['p50_ms']:>9.2f} {median['p99_ms']:>9.2f} "
                f"{median['commits']:>11.2f} {median['client_ms']:>13.3f} {median['server_ms']:>13.3f} "
                f"{median['wf_per_s'] / base['wf_per_s']:>12.2f} {median['p50_ms'] / base['p50_ms']:>11.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
