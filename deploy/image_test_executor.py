"""For image-test.sh: connects an executor to the server on this machine, sees it listed as healthy, sends SIGTERM to
the server's process and sees itself let go. Arguments: an administrator's key, the process id."""

import json
import os
import signal
import sys
import time
import urllib.request

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

KEY, SERVER = sys.argv[1], int(sys.argv[2])
API = "http://127.0.0.1:8090/v2/orgs/local"


def call(method: str, path: str, body: object = None) -> bytes:
    request = urllib.request.Request(
        API + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


call("PUT", "/apps/shop")
token = json.loads(call("POST", "/tokens/shop", {"appNames": ["shop"]}))["token"]
with connect(f"ws://127.0.0.1:8090/websocket/shop/{token}") as socket:
    asked = json.loads(socket.recv(timeout=10))
    assert asked["type"] == "executor_info", asked
    about = {"executor_id": "one", "application_version": "v1", "hostname": "here", "language": "python"}
    socket.send(json.dumps({"type": asked["type"], "request_id": asked["request_id"], **about}))
    deadline = time.monotonic() + 20
    while not any(each["status"] == "HEALTHY" for each in json.loads(call("GET", "/apps/shop/executors"))):
        assert time.monotonic() < deadline, "the executor is not listed"
        time.sleep(0.05)
    began = time.monotonic()
    os.kill(SERVER, signal.SIGTERM)
    try:
        while True:
            socket.recv(timeout=20)
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else None
    print(f"image-test: the executor was let go with code {code} after {time.monotonic() - began:.2f} s")
    assert code is not None, "the server hung up without a word"
