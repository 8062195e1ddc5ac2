"""The quick starts, command by command as their pages have them: a process is killed, another one goes on."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import environments
import httpx
import pytest
from harness import Database, eventually
from harness.server import free_port, program
from tools import ROOT

PAGES = ROOT / "docs" / "start"
PYTHON = environments.CACHE / "python" / "3.2.0" / "bin" / "python"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", (PAGES / page).read_text())


def substituted(commands: list[str], changes: dict[str, str]) -> str:
    """The commands with what differs here put in; each of the changes must be for something that is there."""
    text = "\n".join(commands)
    for old, new in changes.items():
        assert old in text, f"the page does not have {old!r}"
        text = text.replace(old, new)
    return text


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


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_killed_process_is_replaced(language: str, tmp_path: Path) -> None:
    page, code, file = {
        "python": ("python.md", "python", "app.py"),
        "typescript": ("typescript.md", "js", "app.mjs"),
    }[language]
    (source,) = blocks(page, code)
    if language == "typescript":
        # Installed beside other releases, under a name that says which.
        modules = environments.CACHE / "typescript" / "node_modules"
        source = source.replace('"@dbos-inc/dbos-sdk"', '"dbos-5"')
        (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / file).write_text(source)
    database, port = Database("quickstart"), free_port()
    # The first installs the SDK, which is there; the last asks for what is asked for below.
    *commands, asking = blocks(page, "sh")[1:]
    up = f"until segno healthcheck --url http://127.0.0.1:{port} 2>/dev/null; do sleep 0.1; done"
    changes = {
        "--auth none &": f"--auth none --data-dir {tmp_path}/server &\n{up}",
        "8090": str(port),
        "postgresql://postgres:postgres@localhost:5432/journeys": database.url,
        "sleep 5": 'until grep -q "step 2$" log; do sleep 0.1; done',
    }
    if language == "python":
        changes[".venv/bin/python"] = str(PYTHON)
    try:
        with shell(substituted(commands, changes), tmp_path) as log:
            url = re.search(r"http://\S+", asking.replace("8090", str(port)))
            assert url

            def recoveries() -> list[str]:
                try:
                    answer = httpx.get(url[0], trust_env=False)
                except httpx.TransportError:
                    return []
                return [each["status"] for each in answer.json()] if answer.status_code == 200 else []

            eventually(
                recoveries, lambda seen: "RECOVERED" in seen, within=120, what=f"a recovery; {log}"
            )
            eventually(log.read_text, lambda text: "arrived" in text, within=60, what="the journey's end")
            steps = re.findall(r"(?m)^(\d+): step (\d+)$", log.read_text())
            assert len({process for process, _ in steps}) == 2, "two processes had a part in it"
            assert {int(number) for _, number in steps} == set(range(1, 21))
    finally:
        database.drop()
