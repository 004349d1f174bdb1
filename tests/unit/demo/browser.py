"""
A browser and a program that talk to the stand-in Forgejo in memory.
"""

import json
from base64 import b64encode, urlsafe_b64encode
from hashlib import sha256
from html import unescape
from re import findall
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import attrs
from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo

NOW = 1_800_000_000
REDIRECT_URI = "https://broker.test/oauth/callback"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


@attrs.frozen
class Answer:
    """
    One HTTP answer.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """
        @return: the JSON value of the body.
        """
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """
        @return: the body as text.
        """
        return self.body.decode()

    @property
    def location(self) -> str:
        """
        @return: where it redirects to.
        """
        return self.headers["location"]

    @property
    def parameters(self) -> dict[str, str]:
        """
        @return: the query parameters of the redirect.
        """
        return dict(parse_qsl(urlsplit(self.location).query, keep_blank_values=True))


class StandInTestCase(SynchronousTestCase):
    """
    A stand-in with one confidential application, and ways to talk to it.
    """

    base_url = "http://forgejo.test"

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.forgejo = StandInForgejo(self.clock, self.base_url)
        self.controls = self.forgejo.controls
        self.application = self.forgejo.add_application(REDIRECT_URI)
        self.client = in_memory(self.forgejo)

    def send(
        self,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """
        Send a request that is answered at once; cookies are kept.

        @param path: below the base URL, or absolute.
        """
        url = path if path.startswith("http") else self.forgejo.base_url + path
        response = self.successResultOf(
            self.client.request(
                method,
                url,
                data=body,
                headers=Headers(
                    {name: [value] for name, value in (headers or {}).items()}
                ),
                allow_redirects=False,
            )
        )
        content = self.successResultOf(response.content())
        named = {
            name.decode().lower(): values[0].decode()
            for name, values in response.headers.getAllRawHeaders()
        }
        return Answer(response.code, named, content)

    def get(self, path: str, **headers: str) -> Answer:
        """
        Fetch something; underscores in header names become dashes.
        """
        return self.send("GET", path, headers=_dashed(headers))

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        """
        Submit a form.
        """
        return self.send(
            "POST",
            path,
            body=urlencode(fields).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"}
            | _dashed(headers),
        )

    # The browser's part

    def sign_in(self, login: str = "alice") -> Answer:
        """
        Fill in the sign-in form.
        """
        password = self.controls.user(login).password
        return self.post("/user/login", {"user_name": login, "password": password})

    def authorize(self, **parameters: str | None) -> Answer:
        """
        Open the authorize URL; parameters that are None are left out.
        """
        given: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.application.client_id,
            "redirect_uri": REDIRECT_URI,
            "state": "st",
            "scope": "openid read:user",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        given.update(parameters)
        present = {name: value for name, value in given.items() if value is not None}
        return self.get(f"/login/oauth/authorize?{urlencode(present)}")

    def press(self, consent_page: Answer, granted: str = "true") -> Answer:
        """
        Press a button of the consent page.
        """
        return self.post(
            "/login/oauth/grant", form_of(consent_page) | {"granted": granted}
        )

    # The program's part

    def exchange(self, code: str, **fields: str) -> Answer:
        """
        Send a code to the token endpoint.
        """
        return self.token(
            grant_type="authorization_code",
            code=code,
            **({"redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER} | fields),
        )

    def refresh(self, refresh_token: str, **fields: str) -> Answer:
        """
        Send a refresh token to the token endpoint.
        """
        return self.token(
            grant_type="refresh_token", refresh_token=refresh_token, **fields
        )

    def token(self, **fields: str) -> Answer:
        """
        Send anything to the token endpoint, authenticated in the body.
        """
        credentials = {
            "client_id": self.application.client_id,
            "client_secret": self.application.client_secret,
        }
        return self.post("/login/oauth/access_token", credentials | fields)

    def code(self, login: str = "alice", scope: str = "openid read:user") -> str:
        """
        @return: an authorization code, without the browser.
        """
        return self.controls.issue_code(
            login, REDIRECT_URI, code_challenge=CHALLENGE, scope=scope
        )

    def api(
        self,
        path: str,
        token: str | None,
        method: str = "GET",
        body: object = None,
    ) -> Answer:
        """
        Call the API.
        """
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"token {token}"
        content = b"" if body is None else json.dumps(body).encode()
        return self.send(method, f"/api/v1{path}", body=content, headers=headers)

    def assert_refused(self, answer: Answer, code: str, description: str) -> None:
        """
        Assert that the token endpoint refused with Forgejo's words.
        """
        self.assertEqual(
            (answer.status, answer.json),
            (400, {"error": code, "error_description": description}),
        )


def in_memory(forgejo: StandInForgejo) -> HTTPClient:
    """
    @return: a client of one stand-in, with cookies of its own.
    """
    # StubTreq has the methods of HTTPClient without being one.
    return cast(HTTPClient, StubTreq(forgejo.resource))


def basic(name: str, password: str) -> str:
    """
    @return: an Authorization header of the Basic scheme.
    """
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


def form_of(page: Answer) -> dict[str, str]:
    """
    @return: the hidden fields of a page.
    """
    found = findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
    return {name: unescape(value) for name, value in found}


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
