"""The quick starts, command by command as their pages have them, from what is installed to what is asked in the end:
a process is killed, another one goes on."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import environments
import pytest
from docs import blocks, substituted
from harness import Database, eventually
from harness.server import free_port, program
from tools import ROOT

PAGES = ROOT / "docs" / "start"


@contextmanager
def shell(script: str, folder: Path) -> Iterator[Path]:
    """Runs `script` with everything that it starts; gives the log."""
    log = folder / "log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SEGNO_", "DBOS_"))}
    environment["PATH"] = f"{program().parent}:{environment['PATH']}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-ec", script + "\nwait"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Guide:
    """What is particular to a language: the page, its source and where that goes, and what it installs."""

    page: str
    code: str
    file: str
    installs: str
    postgres: bool = True


GUIDES = {
    "python": Guide("python.md", "python", "app.py", "dbos=={}"),
    "typescript": Guide("typescript.md", "js", "app.mjs", "@dbos-inc/dbos-sdk@{}"),
    "rust": Guide("rust.md", "rust", "main.rs", "", postgres=False),
}


def prepare(language: str, source: str, folder: Path) -> None:
    guide = GUIDES[language]
    if language == "rust":
        built = (ROOT / "examples" / "journeys" / "src" / "main.rs").read_text()
        assert built.endswith(source), "the page shows another program than examples/journeys"
    else:
        (folder / guide.file).write_text(source)


def newest(language: str) -> str:
    (manifest,) = (each for each in environments.manifests() if each.language == language)
    return manifest.releases[-1][0]


@pytest.mark.parametrize("language", GUIDES)
def test_a_killed_process_is_replaced(language: str, tmp_path: Path) -> None:
    guide = GUIDES[language]
    (source,) = blocks(PAGES / guide.page, guide.code)
    prepare(language, source, tmp_path)
    install, *commands, asking = blocks(PAGES / guide.page, "sh")
    if guide.installs:
        # The release under test, for the newest ones connect to nobody.
        assert guide.installs.format(newest(language)) + "\n" in install
    # Rust's is built in the clone, where it was built with everything else.
    subprocess.run(["bash", "-euc", install], cwd=tmp_path if guide.installs else ROOT, check=True)
    database, port = Database("quickstart"), free_port()
    up = f"until segno healthcheck --url http://127.0.0.1:{port} 2>/dev/null; do sleep 0.1; done"
    changes = {
        "--auth none &": f"--auth none --data-dir {tmp_path}/server &\n{up}",
        "8090": str(port),
        "sleep 5": 'until grep -q "step 2$" log; do sleep 0.1; done',
    }
    if language == "rust":
        changes["$PWD/target/debug"] = str(program().parent)
    if guide.postgres:
        changes["postgresql://postgres:postgres@localhost:5432/journeys"] = database.url
    try:
        with shell(substituted("\n".join(commands), changes), tmp_path) as log:
            ask = ["bash", "-euc", asking.replace("8090", str(port))]

            def recoveries() -> str:
                return subprocess.run(ask, capture_output=True, text=True, check=False).stdout

            eventually(
                recoveries, lambda seen: '"RECOVERED"' in seen, within=120, what=f"a recovery; {log}"
            )
            eventually(log.read_text, lambda text: "arrived" in text, within=60, what="the journey's end")
            steps = re.findall(r"(?m)^(\d+): step (\d+)$", log.read_text())
            assert len({process for process, _ in steps}) == 2, "two processes had a part in it"
            assert {int(number) for _, number in steps} == set(range(1, 21))
    finally:
        database.drop()
