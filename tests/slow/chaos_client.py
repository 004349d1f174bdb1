"""Clients that call on one session each, through everything that happens."""

from __future__ import annotations

import http.client
import json
import random
import time
from typing import Any, Final

import attrs

from tests.real.browser import Browser, Page
from tests.real.client import McpClient, message_of
from tests.slow.chaos import Run

LOG_LEVEL: Final = "warning"
PAUSE_SECONDS: Final = (0.1, 0.5)
SLOW_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 60.0
WRITE, LIST = "write", "list"
"""What a client may be asked to do next."""


class Failed(Exception):  # noqa: N818 - it is no error of the test
    """A call did not work, and may be excused."""


@attrs.define
class ChaosClient(McpClient):
    """
    One session for the whole run.

    @ivar name: of the session, unique; what its client calls itself.
    @ivar strangers: sessions of other users.
    """

    run: Run = attrs.field(kw_only=True)
    login: str = attrs.field(kw_only=True)
    password: str = attrs.field(kw_only=True, repr=False)
    name: str = attrs.field(kw_only=True)
    draw: random.Random = attrs.field(kw_only=True)
    strangers: list[str] = attrs.Factory(list)
    made: int = 0

    def open(self) -> None:
        """
        Open the session.
        """
        self.number += 1
        answer = self.send(
            {
                "jsonrpc": "2.0",
                "id": self.number,
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "clientInfo": {"name": self.name, "version": "1"},
                },
            }
        )
        assert answer.status == 200, answer
        self.session_id = answer.headers["Mcp-Session-Id"]
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert self.send(note).status == 202
        assert "result" in message_of(self.request("logging/setLevel", level=LOG_LEVEL))

    def work(self) -> None:
        """
        Call until the run is over; then once more.
        """
        try:
            while not self.run.over.wait(self.draw.uniform(*PAUSE_SECONDS)):
                if self.name not in self.run.resting:
                    self.one()
            self.finish()
        except Exception as error:
            # A thread that ended unnoticed would look like one that found nothing.
            self.run.problem(f"{self.name}: {type(error).__name__}: {error}")

    def one(self) -> bool:
        """
        Make one call of some kind.

        @return: whether it worked.
        """
        sent = time.monotonic()
        wanted = self.run.wanted.pop(self.name, None)
        try:
            if wanted is not None:
                {WRITE: self._write, LIST: self._list}[wanted]()
            else:
                self._something()
        except (Failed, OSError, http.client.HTTPException) as error:
            self._failed(sent, error)
            return False
        self.run.succeeded(sent, self.name)
        return True

    def _something(self) -> None:
        lot = self.draw.random()
        if lot < 0.04 and self.strangers:
            self._steal()
        elif lot < 0.15:
            self._write()
        elif lot < 0.2:
            self._list()
        elif lot < 0.5 or not self.run.has_ledger:
            self._who()
        elif lot < 0.8:
            self._echo()
        elif lot < 0.9:
            self._ask("slow", seconds=SLOW_SECONDS)
        else:
            self._told()

    def finish(self) -> None:
        """
        The session is still there, and ends when it is told to.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.one():
            if time.monotonic() > deadline:
                self.run.problem(f"{self.name} never worked again")
                return
        answer = self.send(b"", "DELETE")
        if answer.status != 204:
            self.run.problem(f"{self.name}: DELETE {answer.status} {answer.text}")
        self.run.count("sessions that lasted")

    # Calls

    def _unique(self) -> str:
        self.made += 1
        return f"{self.name}.{self.made}"

    def _ask(self, tool: str, **arguments: Any) -> Any:
        """
        @return: what the tool said.
        @raise Failed: nothing, or that it failed.
        """
        key = self._unique()
        self.run.keys[key] = False
        if self.run.has_ledger:
            arguments["key"] = key
        result = self._result("tools/call", name=tool, arguments=arguments)
        self.run.keys[key] = True
        text = result["content"][0]["text"]
        try:
            said = json.loads(text)
        except ValueError:
            return text
        return said.get("Result", said) if isinstance(said, dict) else said

    def _result(self, method: str, **params: Any) -> Any:
        """
        @return: what a request was answered with.
        @raise Failed: nothing, or an error.
        """
        self.browser = Browser()
        sent = time.monotonic()
        answer = self.request(method, **params)
        self.run.count("calls")
        what = params.get("name", method)
        if answer.status == 401:
            self._signed_out(sent, answer)
        if answer.status in (400, 403, 404, 409):
            self.run.problem(
                f"{self.name}: {what} answered {answer.status} {answer.text}"
            )
        if answer.status != 200:
            raise Failed(f"{answer.status} {answer.text[:300]}")
        try:
            message = message_of(answer)
        except (ValueError, IndexError) as error:
            raise Failed(f"broken off: {answer.text[:100]}") from error
        if message.get("id") != self.number:
            self.run.problem(f"{self.name} got the answer to another request")
        if "result" not in message or message["result"].get("isError"):
            raise Failed(json.dumps(message)[:300])
        return message["result"]

    def _list(self) -> None:
        names = {tool["name"] for tool in self._result("tools/list")["tools"]}
        if not {"get_my_user_info", "create_issue"} <= names:
            self.run.problem(f"{self.name} was told of other tools: {sorted(names)}")

    def _who(self) -> None:
        login = self._ask("get_my_user_info")["login"]
        if login != self.login:
            self.run.problem(f"{self.name} got an answer of {login}")

    def _echo(self) -> None:
        text = self._unique()
        said = self._ask("echo", text=text)
        if said != text:
            self.run.problem(f"{self.name} said {text} and heard {said}")

    def _told(self) -> None:
        received = self._ask("process_info")["received"]
        name = received.get("initialize", {}).get("clientInfo", {}).get("name")
        if (name, received.get("log_level")) != (self.name, LOG_LEVEL):
            self.run.problem(
                f"the child of {self.name} was told {name}, {received.get('log_level')}"
            )

    def _write(self) -> None:
        title = self._unique()
        self.run.written[title] = False
        self._ask(
            "create_issue", owner=self.login, repo="chaos", title=title, body="chaos"
        )
        self.run.written[title] = True

    def _steal(self) -> None:
        """
        Present one's own token with another user's session.
        """
        own, self.session_id = self.session_id, self.draw.choice(self.strangers)
        self.browser = Browser()
        try:
            answer = self.request("tools/call", name="get_my_user_info", arguments={})
        finally:
            self.session_id = own
        if answer.status == 401:
            raise Failed("401")
        if answer.status >= 500:
            raise Failed(f"{answer.status} {answer.text[:300]}")
        if answer.status == 404 and self.run.over.is_set():
            return  # that session has ended, as this one is about to
        self.run.count("refused thefts")
        if answer.status != 403:
            self.run.problem(
                f"{self.name} used a session of somebody else: {answer.status}"
            )

    # Failures

    def _signed_out(self, sent: float, answer: Page) -> None:
        """
        A 401 is right when an answer of Forgejo's was lost; one sign-in of another
        client then revives this one.
        """
        with self.run.signing_in:
            if sent <= self.run.revived.get(self.login, 0):
                raise Failed("401")
            if not self.run.tokens_lost(self.login):
                self.run.problem(f"{self.name} was signed out: {answer.text}")
            McpClient(self.url).sign_in(self.login, self.password)
            self.run.revived[self.login] = time.monotonic()
            self.run.count("signed in again")
        raise Failed("401")

    def _failed(self, sent: float, error: Exception) -> None:
        if str(error) == "401":
            self.run.count("asked to sign in")
            return
        if "user_suspended" in str(error) and (
            self.run.tokens_lost(self.login)
            or sent <= self.run.revived.get(self.login, 0)
        ):
            self.run.count("in flight when a refresh answer was lost")
            return
        window = self.run.excuse(sent, self.name)
        if window is None:
            took = time.monotonic() - sent
            self.run.problem(
                f"{self.name}: no fault, but after {took:.1f} s"
                f" {type(error).__name__}: {error}"
            )
            self.run.count("failed without a fault")
            return
        self.run.count("excused failures")
        with self.run.lock:
            self.run.failures[window.what] += 1
