"""Signing in at a daemon that is killed, raced and shouted at."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress as passing_over  # trial takes the other name
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from fjmcp_broker.oauth.tokens import code_challenge
from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser, Page
from tests.real.client import REDIRECT_URI, McpClient
from tests.real.daemon import Daemon, free_port, pause

ENDPOINTS: Final = (
    "/",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource/mcp",
    "/healthz",
    "/mcp",
    "/nothing",
    "/oauth/authorize",
    "/oauth/callback",
    "/oauth/consent",
    "/oauth/register",
    "/oauth/revoke",
    "/oauth/token",
    "/readyz",
)


class SignIn:
    """
    One sign-in of alice's, step by step. Every method blocks.
    """

    def __init__(self, url: str, password: str) -> None:
        self.client = McpClient(url)
        self.browser = self.client.browser
        self._password = password
        self._verifier = secrets.token_urlsafe(32)

    def ask(self) -> Page:
        """
        @return: the consent page.
        """
        query = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": REDIRECT_URI,
            "state": "theirs",
            "code_challenge": code_challenge(self._verifier),
            "code_challenge_method": "S256",
        }
        return self.browser.visit(
            f"{self.client.url}/oauth/authorize?{urlencode(query)}"
        )

    def allow(self, page: Page) -> Page:
        """
        @return: Forgejo's sign-in page.
        """
        return self.browser.submit(page, button="full")

    def at_forgejo(self, page: Page) -> str:
        """
        @return: the address that Forgejo sends the browser back to, not opened yet.
        """
        callback = f"{self.client.url}/oauth/callback"
        values = {"user_name": "alice", "password": self._password}
        while page.status == 200:
            page = self.browser.submit(page, values, stop_at=callback)
            values = {}
        assert page.status == 0, page
        return page.url

    def come_back(self, url: str) -> Page:
        """
        @return: the answer of the callback.
        """
        return self.browser.request("GET", url)

    def exchange(self, answer: Page) -> None:
        """
        Get tokens for the code.
        """
        assert answer.status == 303, (answer.status, answer.text)
        query = parse_qs(urlsplit(answer.headers["Location"]).query)
        self.client.token(
            grant_type="authorization_code",
            code=query["code"][0],
            code_verifier=self._verifier,
            redirect_uri=REDIRECT_URI,
        )


class RestartTests(BrokerCase):
    """A person signs in while the operator is at work."""

    async def test_sign_in_goes_on_after_a_kill_between_any_two_steps(self) -> None:
        """Consent page open, at Forgejo, on the way back, before the token request:
        everything that counts is in the page or in the store."""
        port = free_port()
        settings, forgejo = await self.settings(port)
        daemon = Daemon.launch(settings, port=port)
        self.addCleanup(lambda: daemon.stop())
        await daemon.until_ready()

        async def killed() -> None:
            nonlocal daemon
            daemon.signal_with(9)
            await daemon.wait()
            daemon = Daemon.launch(settings, port=port)
            await daemon.until_ready()

        sign_in = SignIn(daemon.url, forgejo.password("alice"))
        await deferToThread(sign_in.client.register)
        await killed()
        page = await deferToThread(sign_in.ask)
        await killed()
        page = await deferToThread(sign_in.allow, page)
        await killed()
        url = await deferToThread(sign_in.at_forgejo, page)
        await killed()
        answer = await deferToThread(sign_in.come_back, url)
        await killed()
        await deferToThread(sign_in.exchange, answer)
        await killed()
        await deferToThread(sign_in.client.refresh)
        answer = await deferToThread(sign_in.client.initialize)
        self.assertEqual(answer.status, 200, answer.text)

    async def test_reload_after_a_kill_between_answer_and_commit(self) -> None:
        """
        Forgejo has answered the code exchange, and the answer is lost with the daemon:
        the refresh token from before is dead. The person opens the address again, and
        both the new client and the one from before go on.
        """
        port = free_port()
        settings, forgejo = await self.settings(port)
        daemon = Daemon.launch(settings, port=port)
        self.addCleanup(lambda: daemon.stop())
        await daemon.until_ready()
        before = await self.session(daemon, forgejo, "alice")
        sign_in = SignIn(daemon.url, forgejo.password("alice"))

        def prepare() -> str:
            sign_in.client.register()
            return sign_in.at_forgejo(sign_in.allow(sign_in.ask()))

        url = await deferToThread(prepare)
        controls = forgejo.stand_in.controls
        counter = controls.grant("alice").counter
        fault = controls.hold_answer("token:authorization_code")
        lost = deferToThread(sign_in.come_back, url)
        while not fault.waiting:
            await pause(0.02)
        daemon.signal_with(9)
        await daemon.wait()
        with passing_over(OSError):
            await lost
        fault.end()
        self.assertEqual(controls.grant("alice").counter, counter + 1)
        daemon = Daemon.launch(settings, port=port)
        await daemon.until_ready()

        def reload() -> None:
            away = sign_in.come_back(url).headers["Location"]
            callback = f"{sign_in.client.url}/oauth/callback"
            back = sign_in.browser.visit(away, stop_at=callback)
            sign_in.exchange(sign_in.come_back(back.url))

        await deferToThread(reload)
        for client in (sign_in.client, before):
            await deferToThread(client.refresh)
            opened = await deferToThread(client.initialize)
            self.assertEqual(opened.status, 200, opened.text)


class RaceTests(BrokerCase):
    """The same thing many times at once."""

    async def test_one_of_many_callbacks_counts(self) -> None:
        """Browsers, extensions and impatient people open an address again."""
        daemon, forgejo = await self.launch()
        sign_in = SignIn(daemon.url, forgejo.password("alice"))

        def prepare() -> tuple[str, list[Browser]]:
            sign_in.client.register()
            url = sign_in.at_forgejo(sign_in.allow(sign_in.ask()))
            browsers = [Browser() for _ in range(10)]
            for browser in browsers:
                for cookie in sign_in.browser.cookies:
                    browser.cookies.set_cookie(cookie)
            return url, browsers

        url, browsers = await deferToThread(prepare)
        answers: list[Page] = await gatherResults(
            [deferToThread(browser.request, "GET", url) for browser in browsers]
        )
        self.assertEqual(sorted(answer.status for answer in answers), [303] + [400] * 9)
        (redirect,) = [answer for answer in answers if answer.status == 303]
        await deferToThread(sign_in.exchange, redirect)
        self.assertEqual(daemon.text.count("signed in for"), 1)

    async def test_one_of_many_refusals_counts(self) -> None:
        """A page that is answered many times at once comes to one end: after the first
        no a yes does not count, and every other no leads where the first one led."""
        daemon, forgejo = await self.launch()
        sign_in = SignIn(daemon.url, forgejo.password("alice"))

        def prepare() -> tuple[Page, list[Browser]]:
            sign_in.client.register()
            page = sign_in.ask()
            browsers = [Browser() for _ in range(10)]
            for browser in browsers:
                for cookie in sign_in.browser.cookies:
                    browser.cookies.set_cookie(cookie)
            return page, browsers

        def answer(number: int, browser: Browser) -> str:
            button = "full" if number % 2 else "cancel"
            came = browser.submit(page, button=button, stop_at="http")
            if came.status:
                return str(came.status)
            return "no" if came.url.startswith(REDIRECT_URI) else "yes"

        page, browsers = await deferToThread(prepare)
        answers: list[str] = await gatherResults(
            [deferToThread(answer, *each) for each in enumerate(browsers)]
        )
        self.assertEqual(answers.count("no"), 5, answers)
        self.assertEqual(answers.count("400"), 5 - answers.count("yes"), answers)
        self.assertEqual(await deferToThread(answer, 1, sign_in.browser), "400")
        self.assertEqual(daemon.text.count(" cancelled"), 1)


def bad_requests(path: str, host: str) -> dict[str, bytes]:
    """
    @return: by name, requests that no client sends.
    """
    head = f" {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
    form = "Content-Type: application/x-www-form-urlencoded\r\n"
    chunked = f"POST{head}{form}Transfer-Encoding: chunked\r\n"
    texts = {
        "HTTP/0.9": f"GET {path}\r\n\r\n",
        "HTTP/1.0 without a host": f"GET {path} HTTP/1.0\r\n\r\n",
        "HTTP/1.1 without a host": f"GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n",
        "HTTP/9.9": f"GET {path} HTTP/9.9\r\nHost: {host}\r\n\r\n",
        "two hosts": f"GET{head}Host: evil.test\r\n\r\n",
        "bad host": f"GET {path} HTTP/1.1\r\nHost: [::\r\nConnection: close\r\n\r\n",
        "absolute form": f"GET http://evil.test{path} HTTP/1.1\r\n"
        f"Host: {host}\r\nConnection: close\r\n\r\n",
        "no method": f"G-T{head}\r\n",
        "junk query": f"GET {path}?%ff%zz=%&&=\xff HTTP/1.1\r\nHost: {host}\r\n"
        "Connection: close\r\n\r\n",
        "control character": f"GET {path}\x1b[31m HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "no colon": f"GET{head}nonsense\r\n\r\n",
        "many headers": f"GET{head}" + "X: y\r\n" * 500 + "\r\n",
        "junk cookies": f"GET{head}Cookie: \xff=;;;==; fjmcp_consent=\r\n\r\n",
        "junk type": f"POST{head}Content-Type: \xff;;=\r\nContent-Length: 1\r\n\r\nx",
        "expect": f"POST{head}{form}Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        "chunks": f"{chunked}\r\n3;a=b\r\na=b\r\n0\r\nX: y\r\n\r\n",
        "bad chunk": f"{chunked}\r\nzz\r\n",
        "two lengths": f"{chunked}Content-Length: 3\r\n\r\n0\r\n\r\n",
        "negative length": f"POST{head}Content-Length: -1\r\n\r\n",
        "long body": f"POST{head}{form}Content-Length: 60000\r\n\r\n" + "&" * 60000,
        "deep body": f"POST{head}Content-Type: application/json\r\n"
        "Content-Length: 60000\r\n\r\n" + "[" * 60000,
        "pipelined": f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n" * 4
        + f"HEAD{head}\r\n",
    }
    return {name: text.encode("latin-1") for name, text in texts.items()}


def exchange_bytes(port: int, request: bytes) -> bytes:
    """
    @return: everything that came before the other side closed the connection.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


class JunkTests(BrokerCase):
    """Bytes that are not from a client."""

    takes_long = True

    async def test_junk_is_refused_everywhere(self) -> None:
        """No endpoint hangs, says 5xx or leaves a traceback in the log."""
        daemon, _ = await self.launch()
        host = f"127.0.0.1:{daemon.port}"

        def check(path: str) -> Callable[[], None]:
            def run() -> None:
                for name, request in bad_requests(path, host).items():
                    answer = exchange_bytes(daemon.port, request)
                    for line in answer.split(b"\r\n"):
                        if line.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
                            self.assertNotEqual(line[9:10], b"5", (path, name, line))
                    self.assertTrue(answer.startswith(b"HTTP/1."), (path, name))

            return run

        for path in ENDPOINTS:
            await deferToThread(check(path))
        await daemon.stop()
        events = [json.loads(line) for line in daemon.output.splitlines()]
        self.assertNotIn("Traceback", daemon.text)
        levels = {event["level"] for event in events}
        self.assertIn("info", levels)
        self.assertLessEqual(levels, {"debug", "info", "warn"}, daemon.text)
