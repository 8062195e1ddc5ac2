"""What a release consists of, packed from the binaries of the tests; `deploy/release.sh` alone builds them first."""

import json
import subprocess
import tarfile
from pathlib import Path

from tools import run


def test_the_checksums_are_those_of_the_tarball_and_the_chart(dist: Path) -> None:
    assert run("sha256sum", "--check", "SHA256SUMS", cwd=dist).count(": OK") == 2


def test_the_tarball_has_everything_and_nobodys_name(dist: Path) -> None:
    (tarball,) = dist.glob("*.tar.gz")
    with tarfile.open(tarball) as packed:
        members = {each.name: each for each in packed.getmembers()}
    wanted = {"segno", "checkout", "LICENSE", "CHANGELOG.md", "segno.service", "openapi.json", "man/segno.1",
              "man/segno-serve.1", "completions/segno.bash", "completions/segno.zsh", "completions/segno.fish",
              "sbom/console.cdx.json"}  # fmt: skip
    assert wanted <= set(members)
    assert all(each.uid == 0 and not each.uname for each in members.values())
    assert len({each.mtime for each in members.values()}) == 1
    assert members["segno"].mode & 0o111


def test_what_is_packed_can_be_read_by_whom_it_is_for(dist: Path) -> None:
    run("bash", "-n", dist / "completions" / "segno.bash")
    for page in (dist / "man").glob("*.1"):
        assert ".TH segno" in page.read_text(), page
    assert json.loads((dist / "sbom" / "console.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    assert json.loads((dist / "openapi.json").read_text())["openapi"].startswith("3.1")


def test_the_systemd_unit_is_one(dist: Path) -> None:
    unit = dist / "segno.service"
    if subprocess.run(["which", "systemd-analyze"], capture_output=True, check=False).returncode != 0:
        # Where systemd is not installed: each line is a section, a comment or a setting.
        lines = [line for line in unit.read_text().splitlines() if line and not line.startswith(("#", "["))]
        assert all("=" in line for line in lines)
        return
    copy = unit.with_name("copy.service")
    copy.write_text(unit.read_text().replace("/usr/local/bin/segno", str(dist / "segno")))
    run("systemd-analyze", "verify", "--man=no", copy)
