#!/usr/bin/env python3
"""Writes docs/reference/{cli,configuration,api,permissions,metrics}.md from the program itself:

    docs/generate.py [SEGNO [DIRECTORY]]     default: target/debug/segno, docs/reference

tests/deploy checks that they are up to date. Needs nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Written by docs/generate.py; do not edit. -->\n\n"
METHODS = ("get", "put", "post", "patch", "delete")


class Program:
    def __init__(self, path: Path) -> None:
        self._path = path

    def says(self, *arguments: str) -> str:
        # Neither the terminal's width nor the caller's settings may show.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("SEGNO_", "DBOS_"))}
        done = subprocess.run(
            [str(self._path), *arguments],
            env=environment | {"COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip() + "\n"

    def commands(self, *path: str) -> list[tuple[str, ...]]:
        """Every command below `path`, itself included, as its help lists them."""
        found = [path]
        listed = re.search(r"(?ms)^Commands:\n(.*?)(?:\n\n|\Z)", self.says(*path, "--help"))
        for name in re.findall(r"(?m)^  ([a-z-]+)  ", listed[1] if listed else ""):
            if name != "help":
                found += self.commands(*path, name)
        return found


def cli(program: Program) -> str:
    parts = ["# Command line\n"]
    for command in program.commands():
        title = " ".join(("segno", *command))
        parts.append(f"## {title}\n\n```text\n{program.says(*command, '--help')}```\n")
    return NOTE + "\n".join(parts)


def configuration(program: Program) -> str:
    intro = (
        "# Configuration\n\n"
        "Every setting is a flag of `segno serve`, a variable of its environment and a key of one TOML file\n"
        "(`--config`, `SEGNO_CONFIG`). `segno config check` says which value each has and where it comes from.\n\n"
    )
    return NOTE + intro + program.says("config", "reference")


def api(document: dict) -> str:
    parts = [
        "# REST API\n",
        "Every operation with the permission that it needs and the name under which the audit log has it. The",
        "server itself has the whole document, with parameters and schemas: `/docs`, `/openapi.json`. Operations",
        "marked ✦ are Segno's own.\n",
    ]
    by_tag: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]
            own = " ✦" if operation.get("x-segno-extension") else ""
            audit = operation.get("x-segno-audit")
            audited = f"`{audit}`" if audit and audit != "read" else ""
            summary = operation.get("summary", "").replace("|", "\\|")
            row = f"| {summary}{own} | `{method.upper()} {path}` | `{operation['x-segno-permission']}` | {audited} |"
            by_tag.setdefault((operation.get("tags") or ["Other"])[0], []).append(row)
    for tag, rows in by_tag.items():
        parts += [f"## {tag}\n", "| | Request | Permission | Audited as |", "| --- | --- | --- | --- |", *rows, ""]
    return NOTE + "\n".join(parts)


def permissions(document: dict) -> str:
    allowed: dict[str, list[str]] = {}
    audited: dict[str, str] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                operation = item[method]
                allowed.setdefault(operation["x-segno-permission"], []).append(operation["operationId"])
                audit = operation.get("x-segno-audit")
                if audit and audit != "read":
                    audited.setdefault(audit, f"`{method.upper()} {path}`")
    kinds = {
        "any": "members of the organization and its keys",
        "authenticated": "whoever has a valid credential",
        "user": "people, registered or not",
    }
    parts = ["# Permissions and audit\n", "| Permission | Operations |", "| --- | --- |"]
    for name in sorted(allowed):
        parts.append(f"| `{name}`{': ' + kinds[name] if name in kinds else ''} | {', '.join(allowed[name])} |")
    parts += ["| `websocket.connect` | connecting as an executor; what a new key has |", ""]
    parts += ["## What the audit log names\n", "| Name | By |", "| --- | --- |"]
    parts += [f"| `{name}` | {by} |" for name, by in sorted(audited.items())]
    return NOTE + "\n".join(parts) + "\n"


def metrics() -> str:
    own = (ROOT / "server" / "src" / "telemetry" / "mod.rs").read_text()
    parts = [
        "# Metrics\n",
        "Both endpoints need a key with `metric.read`. Dashboards and alert rules for them are in",
        "`deploy/observability`.\n",
        "## The server: `/metrics`\n",
        "| Metric | What it is | Labels |",
        "| --- | --- | --- |",
    ]
    for name, text, labels in re.findall(r'"(segno_[a-z_]+)",\s*"([^"]+)",?\s*(?:&\[([^\]]*)\])?', own):
        shown = ", ".join(f"`{label}`" for label in re.findall(r'"([a-z]+)"', labels))
        parts.append(f"| `{name}` | {text} | {shown} |")
    apps = (ROOT / "server" / "src" / "telemetry" / "applications.rs").read_text()
    prefix = re.search(r'const PREFIX: &str = "([^"]+)"', apps)
    assert prefix
    parts += [
        "\n## Applications: `/v1/metrics`\n",
        "Gauges with the label `application`, about the last full minute.\n",
        "| Metric | What it is |",
        "| --- | --- |",
    ]
    for name, text in re.findall(r'=> \(\s*"([a-z_]+)",\s*[A-Z][a-z]+,\s*"([^"]+)"', apps):
        parts.append(f"| `{prefix[1]}{name}` | {text} |")
    return NOTE + "\n".join(parts) + "\n"


def main(arguments: list[str]) -> None:
    program = Program(Path(arguments[0] if arguments else ROOT / "target" / "debug" / "segno").resolve())
    target = Path(arguments[1]) if len(arguments) > 1 else ROOT / "docs" / "reference"
    document = json.loads(program.says("openapi"))
    pages = {
        "cli": cli(program),
        "configuration": configuration(program),
        "api": api(document),
        "permissions": permissions(document),
        "metrics": metrics(),
    }
    for name, text in pages.items():
        (target / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
