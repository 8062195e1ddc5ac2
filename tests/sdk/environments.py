#!/usr/bin/env python3
"""Makes what the applications need to run, under .cache/sdk: tests/sdk/environments.py [LANGUAGE…]

Each folder with a client.json is a language; README.md explains the file. What was made is kept and
made anew when the manifest, one of its inputs, this Python or the clone's path changes.
`tests` is the environment of the tests themselves. Needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("SEGNO_TEST_SDK_CACHE", HERE.parents[1] / ".cache" / "sdk"))
#: Its applications are the smallest that show whether SDKs understand each other.
INTEROP = HERE.parent / "interop"
STAMP = "made-from.txt"


@dataclass(frozen=True)
class Manifest:
    """One client.json. Commands are lists of arguments with {here}, {cache} and {python} filled in."""

    language: str
    here: Path
    needs: tuple[str, ...]
    inputs: tuple[Path, ...]
    prepare: tuple[tuple[str, ...], ...]
    #: `prepare` as it was written: filled in, it differs between those who ask whether it was done.
    recipe: str
    releases: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def cache(self) -> Path:
        return CACHE / self.language

    def wanted(self) -> str:
        """What the environment is made from, as its stamp says it."""
        digest = hashlib.sha256(repr((sys.version, self.cache, self.recipe)).encode())
        for path in self.inputs:
            digest.update(f"{path.relative_to(self.here)}\n".encode() + path.read_bytes())
        return digest.hexdigest()

    def made(self) -> bool:
        stamp = self.cache / STAMP
        return stamp.is_file() and stamp.read_text() == self.wanted()

    def make(self) -> None:
        shutil.rmtree(self.cache, ignore_errors=True)
        self.cache.mkdir(parents=True)
        for command in self.prepare:
            subprocess.run(command, cwd=self.here, stdin=subprocess.DEVNULL, check=True)
        (self.cache / STAMP).write_text(self.wanted())


def read(path: Path) -> Manifest:
    here = path.parent
    content: dict[str, Any] = json.loads(path.read_text())
    places = {"here": here, "cache": CACHE / content["language"], "python": sys.executable}

    def filled(command: list[str]) -> tuple[str, ...]:
        return tuple(argument.format(**places) for argument in command)

    return Manifest(
        language=content["language"],
        here=here,
        needs=tuple(content["needs"]),
        inputs=tuple(sorted(file for glob in content["inputs"] for file in here.glob(glob))),
        prepare=tuple(map(filled, content["prepare"])),
        recipe=repr(content["prepare"]),
        releases=tuple((each["version"], filled(each["command"])) for each in content["releases"]),
    )


def manifests(folder: Path = HERE) -> list[Manifest]:
    """Of every language with an application in the folder, by its name."""
    return [read(path) for path in sorted(folder.glob("*/client.json"))]


def of_tests() -> Manifest:
    """The environment in which pytest runs."""
    python = str(CACHE / "tests" / "bin" / "python")
    requirements = HERE / "requirements.txt"
    return Manifest(
        language="tests",
        here=HERE,
        needs=(),
        inputs=(requirements,),
        prepare=(
            (sys.executable, "-m", "venv", str(CACHE / "tests")),
            (python, "-m", "pip", "install", "--quiet", "--requirement", str(requirements)),
        ),
        recipe="",
        releases=(),
    )


def main(names: list[str]) -> int:
    known = {each.language: each for each in (of_tests(), *manifests(), *manifests(INTEROP))}
    if unknown := set(names) - set(known):
        print(f"no such language: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    for name in names or known:
        if not known[name].made():
            known[name].make()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
