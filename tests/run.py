#!/usr/bin/env python3
"""Runs every check of the repository and ends with one line: `N passed, N failed, N skipped`.

Normally called by `make test`, which sets up what is needed first and starts a PostgreSQL.
The counts are sums over the test runners; a stage that fails without counting (a compile error,
say) is one failure, and one that this machine cannot run is one skip. Exits with 1 after any
failure, and, when CI=true, after any skip.

    tests/run.py [STAGE…]     only these stages, by the names in the table it prints
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SDK_TESTS = ROOT / "tests" / "sdk"
sys.path.insert(0, str(SDK_TESTS))

import environments  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
LANGUAGES = environments.manifests()
INTEROP_TESTS = ROOT / "tests" / "interop"
INTEROP_LANGUAGES = environments.manifests(INTEROP_TESTS)
WEB = ROOT / "web"
CLI_TESTS = ROOT / "tests" / "cli"
CONSOLE_TESTS = ROOT / "tests" / "console"
DEPLOY_TESTS = ROOT / "tests" / "deploy"
OIDC_TESTS = ROOT / "tests" / "oidc"
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Counts) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass
class Stage:
    """One command. `needs` names what the machine must have, see `lacking`; `after` the stages without
    which it is pointless, `waits` those that only have to be over."""

    name: str
    command: list[str]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    folder: Path = ROOT
    env: dict[str, str] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    verdict: str = "not run"


CONSOLE_BUILD = "console build"
NPM_CI = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]


def cargo(*arguments: str) -> list[str]:
    return ["cargo", *arguments]


def environment(name: str) -> str:
    """The name of the stage that makes what the applications of a language need, or the tests."""
    return f"environment: {name}"


def sdk_stage(folder: str, segno: Path, clients: tuple[str, ...], waits: tuple[str, ...] = ()) -> Stage:
    """Tests of tests/sdk: pointless without `clients`; tests of `waits` that are missing are skipped."""
    return Stage(
        f"sdk/{folder}",
        [
            str(environments.CACHE / "tests" / "bin" / "python"),
            *("-m", "pytest", str(SDK_TESTS / folder), "--numprocesses=4"),
        ],
        needs=("cargo", "postgres"),
        after=("build", environment("tests"), *map(environment, clients)),
        waits=tuple(map(environment, waits)),
        env={"SEGNO_BIN": str(segno)},
    )


def stages() -> list[Stage]:
    segno = ROOT / TARGET / "debug" / "segno"
    return [
        Stage("format", cargo("fmt", "--all", "--check"), needs=("cargo",)),
        Stage(
            "lint",
            cargo("clippy", "--workspace", "--all-targets", "--", "-D", "warnings"),
            needs=("cargo",),
        ),
        # The programs that tests start as processes; same profile as the tests, so built once.
        Stage("build", cargo("build", "--workspace", "--bins"), needs=("cargo",), waits=(CONSOLE_BUILD,)),
        # With what successful tests print: the kill loop's seeds and times are worth reading.
        Stage(
            "rust",
            cargo("test", "--workspace", "--no-fail-fast", "--", "--show-output"),
            needs=("cargo", "postgres"),
            after=("build",),
        ),
        # What touches Postgres, again, with a transaction pooler between.
        Stage(
            "pooler",
            [
                *(str(ROOT / "tests" / "pooler.sh"), *cargo("test", "--workspace", "--test", "executors", "--")),
                *("cluster::", "_postgres"),
            ],
            needs=("cargo", "postgres", "pgbouncer"),
            after=("build",),
        ),
        sdk_stage("python", segno, clients=("python",)),
        sdk_stage("scenarios", segno, clients=(), waits=tuple(each.language for each in LANGUAGES)),
        Stage(
            "metrics",
            [
                str(environments.CACHE / "tests" / "bin" / "python"),
                *("-m", "pytest", str(ROOT / "tests" / "metrics")),
            ],
            needs=("cargo", "postgres", "prometheus"),
            after=("build", environment("tests")),
            env={"SEGNO_BIN": str(segno)},
        ),
        Stage(
            "interop",
            [
                str(environments.CACHE / "tests" / "bin" / "python"),
                *("-m", "pytest", "-c", str(INTEROP_TESTS / "pytest.ini"), str(INTEROP_TESTS)),
                *("--numprocesses=4", "--dist=loadgroup"),
            ],
            needs=("cargo", "postgres", "node", "go"),
            after=("build", environment("tests"), *(environment(each.language) for each in INTEROP_LANGUAGES)),
            env={"SEGNO_INTEROP_BIN": str(ROOT / TARGET / "debug" / "segno-interop")},
        ),
        Stage("deploy environment", [str(ROOT / "tests" / "deploy" / "environment.sh")], after=(environment("tests"),)),
        # Before those who would all build them at once.
        Stage("deploy tools", [sys.executable, str(DEPLOY_TESTS / "tools.py")], needs=("go",)),
        Stage("oidc modules", NPM_CI, needs=("node",), folder=OIDC_TESTS),
        Stage("oidc", ["npm", "test"], needs=("node",), after=("oidc modules",), folder=OIDC_TESTS),
        Stage(
            "cli",
            [
                str(environments.CACHE / "tests" / "bin" / "python"),
                *("-m", "pytest", "-c", str(CLI_TESTS / "pytest.ini"), str(CLI_TESTS), "--numprocesses=3"),
            ],
            needs=("cargo", "postgres", "go", "node"),
            after=("build", environment("tests"), environment("python"), "oidc modules"),
            env={"SEGNO_BIN": str(segno)},
        ),
        # What the upgrade test upgrades from; about two minutes, for only the server is compiled again. In a clone
        # without history nothing is, and it says so.
        Stage(
            "previous server",
            [str(DEPLOY_TESTS / "previous.sh")],
            needs=("cargo",),
            after=("build",),
            env={"SEGNO_BIN": str(segno)},
        ),
        Stage(
            "deploy",
            [
                str(ROOT / ".cache" / "deploy" / "python" / "bin" / "python"),
                *("-m", "pytest", "-c", str(DEPLOY_TESTS / "pytest.ini"), str(DEPLOY_TESTS), "--numprocesses=3"),
            ],
            needs=("cargo", "postgres", "go", "node", "prometheus", "caddy", "nginx", "sqlite3", "buildah", "root"),
            after=(
                *("build", "deploy environment", environment("python"), environment("typescript")),
                *("deploy tools", "oidc modules"),
            ),
            waits=("previous server",),
            env={"SEGNO_BIN": str(segno)},
        ),
        # It brings databases of its own. Five minutes, with what comes before and after the faults.
        Stage(
            "chaos",
            [str(ROOT / TARGET / "debug" / "chaos"), "--minutes=5", "--rate=8", "--instances=2"],
            needs=("cargo", "postgres"),
            after=("build", environment("python")),
        ),
        Stage("console modules", NPM_CI, needs=("node",), folder=CONSOLE_TESTS),
        Stage(
            "console",
            ["npm", "test"],
            needs=("cargo", "node", "chromium", "postgres"),
            after=("build", CONSOLE_BUILD, "console modules", "oidc modules", environment("python")),
            folder=CONSOLE_TESTS,
        ),
    ]


# ---- what the machine has -----------------------------------------------------------------------


def lacking(need: str) -> str | None:
    """Why `need` is not met, or None."""
    if need == "node" and (version_of("node", "--version") < (20, 19) or shutil.which("npm") is None):
        return "no Node.js 20.19 or later with npm (https://nodejs.org)"
    if need == "chromium" and not Path(os.environ.get("SEGNO_CHROMIUM", "/usr/bin/chromium")).exists():
        return "no Chromium (install it, or set SEGNO_CHROMIUM to its path)"
    if need == "go" and version_of("go", "version") < (1, 25):
        return "no Go 1.25 or later (https://go.dev)"
    if need == "java" and (version_of("javac", "-version") < (17,) or shutil.which("mvn") is None):
        return "no JDK 17 or later with Maven (https://adoptium.net, https://maven.apache.org)"
    if need == "prometheus" and not (shutil.which("promtool") and shutil.which("prometheus")):
        return "no Prometheus with promtool (https://prometheus.io)"
    if need == "caddy" and shutil.which("caddy") is None:
        return "no Caddy (https://caddyserver.com)"
    if need == "nginx" and not (shutil.which("nginx") or Path("/usr/sbin/nginx").exists()):
        return "no nginx (https://nginx.org)"
    if need == "sqlite3" and shutil.which("sqlite3") is None:
        return "no sqlite3 (https://sqlite.org)"
    if need == "buildah" and shutil.which("buildah") is None:
        return "no buildah (https://buildah.io)"
    if need == "pgbouncer" and not (shutil.which("pgbouncer") or Path("/usr/sbin/pgbouncer").exists()):
        return "no PgBouncer (https://www.pgbouncer.org)"
    if need == "root" and (os.geteuid() != 0 or shutil.which("ip") is None):
        return "not root on Linux with iproute2: services get networks and file systems of their own"
    if need == "cargo" and shutil.which("cargo") is None:
        return "no Rust toolchain (https://rustup.rs)"
    if need == "postgres" and not os.environ.get("SEGNO_TEST_POSTGRES_URL"):
        return "no PostgreSQL (install it, or set SEGNO_TEST_POSTGRES_URL)"
    return None


def version_of(program: str, *asking: str) -> tuple[int, ...]:
    """The first version number in what `program` answers; empty without the program."""
    if shutil.which(program) is None:
        return ()
    answer = subprocess.run([program, *asking], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)*", answer)
    return tuple(map(int, found[0].split("."))) if found else ()


# ---- running ------------------------------------------------------------------------------------


def counted(line: str) -> Counts | None:
    """The counts in a runner's summary line: cargo's per test program, the others' at their end."""
    if line.startswith("test result: "):
        return counts_in(line, passed="passed", failed="failed", skipped="ignored")
    if re.fullmatch(r"=+ .*\bin [\d.]+s( \([\d:]+\))? =+", line):
        counts = counts_in(line, passed="passed", failed="failed", skipped="skipped")
        counts.failed += sum(map(int, re.findall(r"(\d+) errors?\b", line)))
        return counts
    if re.match(r"Tests +\d", line):  # Vitest
        return counts_in(line, passed="passed", failed="failed", skipped="skipped")
    if found := re.fullmatch(r"ℹ (pass|fail|skipped|cancelled|todo) (\d+)", line):  # node --test
        word = {"pass": "passed", "fail": "failed", "cancelled": "failed"}.get(found[1], "skipped")
        return Counts(**{word: int(found[2])})
    return None


def counts_in(line: str, **words: str) -> Counts:
    found = {key: re.search(rf"(\d+) {word}\b", line) for key, word in words.items()}
    return Counts(**{key: int(match[1]) for key, match in found.items() if match})


def run(stage: Stage) -> None:
    """Runs the stage's command with its output passed on, and counts along."""
    print(f"\n==> {stage.name}: {' '.join(stage.command)}", flush=True)
    process = subprocess.Popen(
        stage.command,
        cwd=stage.folder,
        env={**os.environ, **stage.env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if counts := counted(ANSI.sub("", line).strip()):
            stage.counts.add(counts)
    if process.wait() != 0 and stage.counts.failed == 0:
        stage.counts.failed = 1
    stage.verdict = "failed" if stage.counts.failed else "ok"


def settle(stage: Stage, earlier: dict[str, str]) -> None:
    """Runs the stage unless the machine lacks something or a stage it builds on did not work."""
    started = time.monotonic()
    reason = next((why for need in stage.needs if (why := lacking(need))), None)
    broken = next((name for name in stage.after if earlier.get(name, "ok") != "ok"), None)
    if reason is None and broken is not None:
        reason = f"{broken!r} did not work"
    if reason is not None:
        stage.counts.skipped = 1
        stage.verdict = f"skipped: {reason}"
        print(f"\n==> {stage.name}: {stage.verdict}", flush=True)
    else:
        run(stage)
    stage.seconds = time.monotonic() - started


# ---- beside the compiler ------------------------------------------------------------------------


class Background(threading.Thread):
    """A stage that runs beside the compiler; its output is kept and printed if it fails."""

    def __init__(self, name: str, *needs: str) -> None:
        super().__init__(daemon=True)
        self.stage = Stage(name, [], needs=needs)

    def work(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        started = time.monotonic()
        try:
            if reason := next((why for need in self.stage.needs if (why := lacking(need))), None):
                self.stage.counts.skipped = 1
                self.stage.verdict = f"skipped: {reason}"
            else:
                self.work()
                self.stage.verdict = "failed" if self.stage.counts.failed else "ok"
        except subprocess.CalledProcessError as error:
            print(f"\n==> {self.stage.name}: {error}\n{error.stdout}", flush=True)
            self.stage.counts.failed = max(1, self.stage.counts.failed)
            self.stage.verdict = "failed"
        self.stage.seconds = time.monotonic() - started

    def call(self, *command: str, folder: Path = ROOT) -> None:
        """Runs a command to its end and counts the tests it reports."""
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        for line in done.stdout.splitlines():
            if counts := counted(ANSI.sub("", line).strip()):
                self.stage.counts.add(counts)
        done.check_returncode()


class Environment(Background):
    """Makes what the applications of a language need; see tests/sdk/environments.py."""

    def __init__(self, manifest: environments.Manifest) -> None:
        super().__init__(environment(manifest.language), *manifest.needs)
        self.manifest = manifest

    def work(self) -> None:
        self.call(sys.executable, str(SDK_TESTS / "environments.py"), self.manifest.language)


class ConsoleBuild(Background):
    """Lints, checks, tests and builds the console, which the binary then embeds."""

    def __init__(self) -> None:
        super().__init__(CONSOLE_BUILD, "node")

    def work(self) -> None:
        self.call(*NPM_CI, folder=WEB)
        self.call("npm", "run", "check", folder=WEB)
        self.call("npm", "run", "build", folder=WEB)
        # Cargo does not notice a folder that was not there before; see server/build.rs.
        (ROOT / "server" / "build.rs").touch()


# ---- the whole ----------------------------------------------------------------------------------


def main(names: list[str]) -> int:
    os.environ["PATH"] += os.pathsep + str(Path.home() / ".cargo" / "bin")
    chosen = [stage for stage in stages() if not names or stage.name in names]
    if unknown := set(names) - {stage.name for stage in chosen}:
        print(f"no such stage: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2

    beside = [
        each
        for each in (ConsoleBuild(), Environment(environments.of_tests()), *map(Environment, [*LANGUAGES, *INTEROP_LANGUAGES]))
        if any(each.stage.name in stage.after + stage.waits for stage in chosen)
    ]
    for each in beside:
        each.start()
    verdicts: dict[str, str] = {}
    for stage in chosen:
        for each in beside:
            if each.stage.name in stage.after + stage.waits:
                each.join()
                verdicts[each.stage.name] = each.stage.verdict
        settle(stage, verdicts)
        verdicts[stage.name] = stage.verdict

    done = [*(each.stage for each in beside), *chosen]
    total = Counts()
    print(f"\n{'stage':<20} {'seconds':>8}  {'tests':<36} verdict")
    for stage in done:
        total.add(stage.counts)
        print(f"{stage.name:<20} {stage.seconds:>8.1f}  {str(stage.counts):<36} {stage.verdict}")
    print(f"\n{total}", flush=True)
    return 1 if total.failed or (total.skipped and os.environ.get("CI") == "true") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
