"""The documentation: built strictly, its generated pages up to date, its outputs the program's own."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import environments
import pytest
from harness.server import free_port, program
from tools import ROOT, run

DOCS = ROOT / "docs"
GENERATED = ("cli", "configuration", "api", "permissions", "metrics")


def test_it_builds_without_a_broken_link_or_anchor(tmp_path: Path) -> None:
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    mkdocs = Path(sys.executable).with_name("mkdocs")
    run(mkdocs, "build", "--strict", "--site-dir", tmp_path / "site", cwd=ROOT, env=quiet)
    assert (tmp_path / "site" / "operate" / "troubleshooting" / "index.html").is_file()


def test_the_generated_reference_is_up_to_date(tmp_path: Path) -> None:
    run(sys.executable, DOCS / "generate.py", program(), tmp_path)
    for name in GENERATED:
        fresh, kept = (tmp_path / f"{name}.md").read_text(), (DOCS / "reference" / f"{name}.md").read_text()
        assert fresh == kept, f"docs/reference/{name}.md is out of date: run docs/generate.py"
        assert len(fresh.splitlines()) > 20


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), ROOT / "README.md"], ids=lambda page: page.name)
def test_files_and_settings_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    # Whole paths; those with a … or a placeholder are not.
    for path in re.findall(r"(?<![\w./$])(?:deploy|docs|examples)/[\w./-]+\w", text):
        if "agent/" not in path and "deploy/secrets/" not in path and not path.endswith("deploy/.env"):
            assert (ROOT / path).exists(), f"{page.name} names {path}"
    known = (DOCS / "reference" / "configuration.md").read_text()
    # The library's own, and those of the programs behind the reliability report.
    sources = [ROOT / "agent" / "src", ROOT / "tests" / "library", ROOT / "tests" / "chaos" / "src"]
    agents = "\n".join(file.read_text() for folder in sources for file in folder.rglob("*.rs"))
    for name in set(re.findall(r"\bSEGNO_[A-Z_]+[A-Z]\b", text)):
        plain = name.removesuffix("_FILE")
        assert plain in known or plain in agents or plain in run(program(), "--help") + run(
            program(), "healthcheck", "--help"
        ) or plain.startswith(("SEGNO_TEST_", "SEGNO_BIN")), f"{page.name} names {name}"


#: Settings that do not work, and the line that troubleshooting.md has for it.
FAILURES = [
    (["serve", "--database-url", "mysql://x"], {}),
    (["serve"], {"SEGNO_ADMIN_KEY": "short"}),
    (["serve", "--auth", "oidc"], {}),
    (["serve"], {"SEGNO_DATABASE_URL_FILE": "/nope"}),
    (["serve", "--no-migrate"], {}),
]


@pytest.mark.parametrize(("arguments", "settings"), FAILURES, ids=str)
def test_the_troubleshooting_page_quotes_the_program(
    arguments: list[str], settings: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [str(program()), *arguments],
        env={"SEGNO_LISTEN": f"127.0.0.1:{free_port()}", "SEGNO_DATA_DIR": str(tmp_path)} | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    told = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    page = (DOCS / "operate" / "troubleshooting.md").read_text()
    quoted = re.findall(r"(?m)^\| `([^`]+)` \|", page)
    # Versions and ports differ from run to run.
    plain = re.sub(r"\d+", "0", told.removeprefix("error: ").replace("`", ""))
    known = [re.sub(r"\d+", "0", each) for each in quoted]
    assert any(plain.startswith(each) for each in known), f"troubleshooting.md does not have: {plain}"


def test_the_releases_of_the_protocol_page_are_those_under_test() -> None:
    rows = re.findall(r"(?m)^\| (\w+) `[^`]+` \| ([^|]+) \|", (DOCS / "reference" / "protocol.md").read_text())
    told = {language.lower(): set(re.split(r",\s*", releases.strip())) for language, releases in rows}
    told.pop("rust")
    tested = {each.language: {version for version, _ in each.releases} for each in environments.manifests()}
    assert told == tested


def test_what_the_image_is_built_from_has_every_crate() -> None:
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    kept = re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text())
    assert [each for each in members if not any(each == path or each.startswith(f"{path}/") for path in kept)] == []


def test_the_scripts_are_executable_and_parse() -> None:
    for script in [*(ROOT / "deploy").rglob("*.sh"), *(ROOT / "tests" / "deploy").rglob("*.sh")]:
        assert os.access(script, os.X_OK), script
        run("bash", "-n", script)
