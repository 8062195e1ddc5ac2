"""Registers applications and makes a key for the executors of each: setup.py APPLICATION…

Safe to repeat: an application whose key is in KEYS already is left alone. Needs only the standard library.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

URL = os.environ["SEGNO_URL"]
ADMIN_KEY = Path(os.environ["SEGNO_ADMIN_KEY_FILE"]).read_text().strip()
KEYS = Path(os.environ["KEYS"])


def call(method: str, path: str, body: object = None) -> bytes:
    request = urllib.request.Request(
        f"{URL}/v2/orgs/local{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from error


def set_up(app: str) -> None:
    file = KEYS / app
    if file.exists():
        print(f"{app}: is there")
        return
    call("PUT", f"/apps/{app}")
    # A name of its own for each key: should the volume be lost, the next one does not collide.
    answer = json.loads(call("POST", f"/tokens/{app}-{int(time.time())}", {"appNames": [app]}))
    # Written whole or not at all: the applications wait for it.
    half = file.with_suffix(".new")
    half.write_text(answer["token"])
    half.rename(file)
    print(f"{app}: registered, with a key for its executors")


for name in sys.argv[1:]:
    set_up(name)
