"""Schemathesis on everything the document lists, valid and invalid, in every mode, with a live executor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from world import APP, World

HERE = Path(__file__).parent
#: More than CI's: SEGNO_FUZZ_EXAMPLES=1000.
EXAMPLES = os.environ.get("SEGNO_FUZZ_EXAMPLES", "12")
#: The same requests in each run of CI; others with SEGNO_FUZZ_SEED=$RANDOM.
SEED = os.environ.get("SEGNO_FUZZ_SEED", "1")
CHECKS = [
    "documented_failures_only",
    "status_code_conformance",
    "content_type_conformance",
    "invalid_is_refused",
    "response_schema_conformance",
    "unsupported_method",
]


@pytest.fixture
def playground(request: pytest.FixtureRequest, world: World, ctl_binary: Path, tmp_path: Path):
    """A world of its own: what the fuzzer leaves behind is nobody's."""
    playground = World(world.mode, ctl_binary, tmp_path)
    yield playground
    playground.close()


@pytest.mark.timeout(900)
def test_answers_are_as_documented(playground: World, tmp_path: Path) -> None:
    executor = playground.executor()
    executor.start("buy", "bought", "tea")
    playground.await_status("bought", "SUCCESS")
    document = tmp_path / "openapi.json"
    document.write_bytes(playground.http("GET", "/openapi.json", token="").content)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(document)),
        # One worker: CPython 3.11 miscounts its depth when two threads parse Python at once.
        *("--url", playground.url, "--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1"),
        *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"),
        # An endless stream; its own tests are in server/tests/executors/stream.rs.
        *("--exclude-operation-id", "streamChanges"),
        *("--request-timeout", "60", "--suppress-health-check", "all", "--warnings", "off"),
        *("--max-failures", "20", "--no-color"),
    ]
    if playground.token:
        command += ["--header", f"Authorization: Bearer {playground.token}"]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "fuzz_hooks",
        "PYTHONPATH": str(HERE),
        "FUZZ_ORG": playground.org,
        "FUZZ_APP": APP,
        "FUZZ_WORKFLOW": "bought",
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-3000:]
    assert executor.process.poll() is None, "the executor did not survive"
