"""The OpenID provider of tests/oidc, and people who log in to it with a device code."""

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import httpx

PROVIDER = Path(__file__).resolve().parents[1] / "oidc"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class Issuer:
    """`ann`, `bob`, `cat` and `dan` may log in; who has which e-mail is in provider.mjs."""

    def __init__(self) -> None:
        assert (PROVIDER / "node_modules").is_dir(), f"run `npm ci` in {PROVIDER}; `make test` does"
        self._process = subprocess.Popen(
            ["node", str(PROVIDER / "provider.mjs")], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self.url: str = told["issuer"]
        self.audience: str = told["audience"]
        self.client: str = told["clients"]["cli"]
        self._http = httpx.Client(trust_env=False, timeout=30)

    def settings(self) -> dict[str, str]:
        """Of a server that believes it."""
        return {"SEGNO_OIDC_ISSUER": self.url, "SEGNO_OIDC_AUDIENCE": self.audience}

    def token(self, user: str) -> str:
        """An access token, by the device flow."""
        metadata = self._http.get(f"{self.url}/.well-known/openid-configuration").json()
        asked = {"client_id": self.client, "scope": "openid", "audience": self.audience}
        device = self._http.post(metadata["device_authorization_endpoint"], data=asked).json()
        self.approve(device["verification_uri_complete"], user)
        grant = {"client_id": self.client, "grant_type": DEVICE, "device_code": device["device_code"]}
        answer = self._http.post(metadata["token_endpoint"], data=grant)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def approve(self, address: str, user: str) -> None:
        """What a person does at the address that a device shows: confirm the code, say who they are."""
        with httpx.Client(follow_redirects=True, trust_env=False, timeout=30) as browser:
            page = browser.get(address)
            for _ in range(5):
                if "You have logged in" in page.text:
                    return
                form = re.search(r'<form[^>]*action="([^"]*)"', page.text)
                assert form, page.text
                fields = {
                    name: unescape(value)
                    for name, value in re.findall(r'<input[^>]*name="([^"]*)"[^>]*value="([^"]*)"', page.text)
                }
                if "Who are you?" in page.text:
                    fields["user"] = user
                page = browser.post(urljoin(str(page.url), unescape(form[1])), data=fields)
        raise AssertionError(f"not logged in: {page.text}")

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait()
