"""The command line under which the checks run: `dbosctl` itself, or our client with its commands.

`dbosctl` is used when SEGNO_DBOSCTL names it or it is on PATH. Otherwise, and when SEGNO_DBOSCTL is
`none`, the program in client/ is: it is made of the code that oapi-codegen generates from the very
document that the server under test publishes, so it also proves that such clients compile.
"""

import fcntl
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.server import ROOT, program

CLIENT = Path(__file__).parent / "client"


def dbosctl() -> Path | None:
    """The vendor's program, if this machine has it."""
    named = os.environ.get("SEGNO_DBOSCTL") or shutil.which("dbosctl")
    if not named or named == "none":
        return None
    path = Path(named)
    assert path.is_file(), f"SEGNO_DBOSCTL={named} is not a program"
    return path


def build_client() -> Path:
    """Generates and compiles our client, in .cache/cli. Go's caches make a second time quick."""
    cache = ROOT / ".cache" / "cli"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        # The checks run in several processes that all want it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        sources = cache / "client"
        shutil.rmtree(sources, ignore_errors=True)
        shutil.copytree(CLIENT, sources)
        openapi = [str(program()), "openapi", "--spec-version", "3.0"]
        (sources / "openapi.json").write_text(run(openapi, sources))
        run(["go", "tool", "oapi-codegen", "-config", "api/oapi-codegen.yaml", "openapi.json"], sources)
        run(["go", "build", "-o", str(cache / "ctl"), "."], sources)
    return cache / "ctl"


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Ctl:
    """Runs commands against one server, as somebody with a home directory of their own."""

    def __init__(self, binary: Path, url: str, home: Path, **environment: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._binary = binary
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home),
            "DBOS_URL": url,
            **environment,
        }

    def with_environment(self, **environment: str) -> "Ctl":
        """The same with other variables; an empty one is removed."""
        other = object.__new__(Ctl)
        other._binary = self._binary
        merged = self._environment | environment
        other._environment = {key: value for key, value in merged.items() if value}
        return other

    def __call__(self, *arguments: str, stdin: str = "", code: int | None = 0) -> Done:
        """Runs a command and checks its exit code (None: any)."""
        process = subprocess.run(
            [str(self._binary), *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        done = Done(process.returncode, process.stdout, process.stderr)
        assert code is None or done.code == code, f"ctl {' '.join(arguments)}: {done}"
        return done

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command that waits for somebody."""
        return subprocess.Popen(
            [str(self._binary), *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def list(self, *arguments: str) -> list[dict[str, Any]]:
        """The rows of a listing."""
        rows = self(*arguments, "-o", "json").json
        assert isinstance(rows, list), rows
        return rows
