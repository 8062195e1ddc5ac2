"""The image, built from the Dockerfile by buildah and run as it says, with the binary of the tests.

`make image-test` does the same with the release binary, whose size counts; this one is larger, for it is not optimised."""

import os
import shutil
import sys
from pathlib import Path

from harness.server import program
from tools import ROOT, run


def test_the_image_is_built_healthy_read_only_and_stops_when_told(tmp_path: Path) -> None:
    assert shutil.which("buildah"), "install buildah"
    for name in ("segno", "checkout"):
        run("strip", "-o", tmp_path / name, program().with_name(name))
    settings = os.environ | {"PYTHON": sys.executable, "MAX_MIB": "100"}
    told = run(ROOT / "deploy" / "image-test.sh", tmp_path / "segno", tmp_path / "checkout", env=settings)
    assert "healthy, served an executor, stopped by SIGTERM with 0, read-only as 65532:65532" in told
