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
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
SDK_TESTS = ROOT / "tests" / "sdk" / "python"
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
    """One command. `needs` names what the machine must have, see `lacking`."""

    name: str
    command: list[str]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    seconds: float = 0.0
    verdict: str = "not run"


def cargo(*arguments: str) -> list[str]:
    return ["cargo", *arguments]


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
        Stage("build", cargo("build", "--workspace", "--bins"), needs=("cargo",)),
        # With what successful tests print: the kill loop's seeds and times are worth reading.
        Stage(
            "rust",
            cargo("test", "--workspace", "--no-fail-fast", "--", "--show-output"),
            needs=("cargo", "postgres"),
            after=("build",),
        ),
        Stage(
            "sdk/python",
            [
                str(ROOT / ".cache" / "python" / "tests" / "bin" / "python"),
                *("-m", "pytest", str(SDK_TESTS), "--numprocesses=4"),
            ],
            needs=("cargo", "postgres"),
            after=("build", "python environments"),
            env={"SEGNO_BIN": str(segno)},
        ),
    ]


# ---- what the machine has -----------------------------------------------------------------------


def lacking(need: str) -> str | None:
    """Why `need` is not met, or None."""
    if need == "cargo" and shutil.which("cargo") is None:
        return "no Rust toolchain (https://rustup.rs)"
    if need == "postgres" and not os.environ.get("SEGNO_TEST_POSTGRES_URL"):
        return "no PostgreSQL (install it, or set SEGNO_TEST_POSTGRES_URL)"
    return None


# ---- running ------------------------------------------------------------------------------------


def counted(line: str) -> Counts | None:
    """The counts in a runner's summary line: cargo's per test program, pytest's at its end."""
    if line.startswith("test result: "):
        return counts_in(line, passed="passed", failed="failed", skipped="ignored")
    if re.fullmatch(r"=+ .*\bin [\d.]+s( \([\d:]+\))? =+", line):
        counts = counts_in(line, passed="passed", failed="failed", skipped="skipped")
        counts.failed += sum(map(int, re.findall(r"(\d+) errors?\b", line)))
        return counts
    return None


def counts_in(line: str, **words: str) -> Counts:
    found = {key: re.search(rf"(\d+) {word}\b", line) for key, word in words.items()}
    return Counts(**{key: int(match[1]) for key, match in found.items() if match})


def run(stage: Stage) -> None:
    """Runs the stage's command with its output passed on, and counts along."""
    print(f"\n==> {stage.name}: {' '.join(stage.command)}", flush=True)
    process = subprocess.Popen(
        stage.command,
        cwd=ROOT,
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


# ---- Python environments ------------------------------------------------------------------------


class PythonEnvironments(threading.Thread):
    """Makes a virtual environment per requirements file, while the compiler runs.

    They are kept in .cache/python and made anew when their file or the interpreter changes.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stage = Stage("python environments", [])

    def run(self) -> None:
        started = time.monotonic()
        try:
            for requirements in sorted((SDK_TESTS / "requirements").glob("*.txt")):
                self.make(requirements)
            self.stage.verdict = "ok"
        except subprocess.CalledProcessError as error:
            print(f"\n==> {self.stage.name}: {error}\n{error.stdout}", flush=True)
            self.stage.counts.failed = 1
            self.stage.verdict = "failed"
        self.stage.seconds = time.monotonic() - started

    def make(self, requirements: Path) -> None:
        home = ROOT / ".cache" / "python" / requirements.stem
        stamp = home / "made-from.txt"
        # The path too: the scripts of an environment do not survive a move of the clone.
        wanted = f"{sys.version}\n{home}\n{requirements.read_text()}"
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        shutil.rmtree(home, ignore_errors=True)
        self.call(sys.executable, "-m", "venv", str(home))
        python = str(home / "bin" / "python")
        self.call(python, "-m", "pip", "install", "--quiet", "--requirement", str(requirements))
        stamp.write_text(wanted)

    @staticmethod
    def call(*command: str) -> None:
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


# ---- the whole ----------------------------------------------------------------------------------


def main(names: list[str]) -> int:
    os.environ["PATH"] += os.pathsep + str(Path.home() / ".cargo" / "bin")
    chosen = [stage for stage in stages() if not names or stage.name in names]
    if unknown := set(names) - {stage.name for stage in chosen}:
        print(f"no such stage: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2

    environments = PythonEnvironments()
    if any(environments.stage.name in stage.after for stage in chosen):
        environments.start()
    verdicts: dict[str, str] = {}
    for stage in chosen:
        if environments.stage.name in stage.after:
            environments.join()
            verdicts[environments.stage.name] = environments.stage.verdict
        settle(stage, verdicts)
        verdicts[stage.name] = stage.verdict

    done = [environments.stage, *chosen] if environments.ident else chosen
    total = Counts()
    print(f"\n{'stage':<20} {'seconds':>8}  {'tests':<36} verdict")
    for stage in done:
        total.add(stage.counts)
        print(f"{stage.name:<20} {stage.seconds:>8.1f}  {str(stage.counts):<36} {stage.verdict}")
    print(f"\n{total}", flush=True)
    return 1 if total.failed or (total.skipped and os.environ.get("CI") == "true") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
