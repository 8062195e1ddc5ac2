"""Programs of the Go ecosystem that the tests need, built once into .cache/deploy."""

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("SEGNO_TEST_DEPLOY_CACHE", ROOT / ".cache" / "deploy")) / "bin"
#: By name: what `go build` builds, in which folder.
PROGRAMS = {
    "compose": (ROOT / "tests" / "deploy" / "compose", "."),
    "helm": (ROOT / "tests" / "deploy" / "helm", "helm.sh/helm/v3/cmd/helm"),
}


@cache
def tool(name: str) -> Path:
    """The program's path; builds it first unless it was built from the same versions."""
    folder, package = PROGRAMS[name]
    sources = sorted(each for each in folder.iterdir() if each.suffix in (".go", ".mod", ".sum"))
    version = hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:12]
    path = BIN / f"{name}-{version}"
    if not path.exists():
        subprocess.run(["go", "build", "-o", str(path), package], cwd=folder, check=True)
    return path


def run(*command: str | Path, **options: object) -> str:
    """What `command` printed; its complaint as an assertion if it fails."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


if __name__ == "__main__":
    for each in PROGRAMS:
        print(tool(each))
