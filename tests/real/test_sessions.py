"""
What a client sees of restarts, crashes, reaped children and rotated tokens: nothing, or
one slower call. The daemon, the stand-in Forgejo and the children are real processes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread

from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser, Page
from tests.real.client import McpClient, message_of
from tests.real.daemon import Daemon, children_of, free_port, pause, processes
from tests.real.relay import Answer

reactor: Any = _reactor  # a module to mypy


class SessionCase(BrokerCase):
    """A daemon that can be started again, and hands for its children."""

    async def begin(self, **more: str) -> None:
        """A Forgejo and a daemon."""
        self.port = free_port()
        settings, self.forgejo = await self.settings(self.port)
        self.environment = {**settings, **more}
        await self.start()

    async def start(self) -> None:
        """The daemon, once more."""
        self.daemon = Daemon.launch(self.environment, port=self.port)
        self.addCleanup(self.daemon.stop)
        await self.daemon.until_ready()

    async def signed_in(self, login: str = "alice") -> McpClient:
        """A client with a live session."""
        return await self.session(self.daemon, self.forgejo, login)

    def children(self) -> list[int]:
        """The children that run."""
        return children_of(self.daemon, self.forgejo.stand_in.base_url)

    async def until_children(self, count: int) -> None:
        """Wait until so many run: one that is not needed any more takes a moment."""
        await self.until(lambda: len(self.children()) == count, f"not {count} children")

    async def settled(self) -> None:
        """Wait until no child is being replaced: each session has one or none."""
        await self.until(
            lambda: len(self.children()) == self.states().count("live"),
            "more children than sessions",
        )

    async def crash(self) -> None:
        """
        Kill the children that serve; the daemon has noticed when this returns. One that
        is just being replaced has to be gone first: nobody notices its death.
        """
        await self.settled()
        children = self.children()
        before = self.daemon.text.count("-> dormant")
        for child in children:
            os.kill(child, signal.SIGKILL)
        await self.until(
            lambda: self.daemon.text.count("-> dormant") >= before + len(children),
            "the daemon does not notice",
        )

    def states(self) -> list[str]:
        """The state of each session that the daemon has told of."""
        told = re.findall(r"session (\w+): \w+ -> (\w+)", self.daemon.text)
        return list(dict(told).values())

    async def until(self, true: Any, what: str, seconds: float = 60) -> None:
        """Wait for something."""
        deadline = time.monotonic() + seconds
        while not true():
            self.assertLess(time.monotonic(), deadline, f"{what}\n{self.daemon.text}")
            await pause(0.05)

    async def call(self, client: McpClient, tool: str, **arguments: Any) -> Any:
        """The message that answers a call, on a connection of its own."""
        return message_of(await self.send(client, tool, **arguments))

    async def send(self, client: McpClient, tool: str, **arguments: Any) -> Page:
        """The HTTP answer to a call, on a connection of its own."""
        client.number += 1
        other = attrs.evolve(client, browser=Browser(), number=client.number * 1000)
        page: Page = await deferToThread(
            other.request, "tools/call", name=tool, arguments=arguments
        )
        return page

    async def ask(
        self, client: McpClient, method: str, message: Any = None, **headers: str
    ) -> Answer:
        """A request on a connection of its own; returns when the answer begins."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        answer: Answer = await connectProtocol(endpoint, Answer())
        body = b"" if message is None else json.dumps(message).encode()
        fields = {
            "Host": f"127.0.0.1:{self.port}",
            "Content-Length": str(len(body)),
            **client.headers(),
            "Accept": "text/event-stream",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        transport: Any = answer.transport
        transport.write(f"{method} /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
        self.addCleanup(lambda: answer.closed)
        self.addCleanup(transport.abortConnection)
        await answer.until(lambda: b"data: " in answer.raw or b"}" in answer.raw)
        return answer

    async def check(self, client: McpClient, login: str = "alice") -> None:
        """A call that works, as the right user."""
        message = await self.call(client, "who_am_i")
        self.assertIn("result", message, self.daemon.text)
        self.assertEqual(text_of(message), login)


def text_of(message: Any) -> str:
    """What a tool said."""
    text = message["result"]["content"][0]["text"]
    try:
        said = json.loads(text)
    except ValueError:
        return str(text)
    return str(said["Result"]) if isinstance(said, dict) else str(said)


class RestartTests(SessionCase):
    """Another daemon goes on with the same store."""

    async def test_sigterm_and_start_again(self) -> None:
        """An upgrade: the same session id answers afterwards."""
        await self.begin()
        clients = [await self.signed_in(login) for login in ("alice", "bob", "alice")]
        for _ in range(2):
            await self.daemon.stop()
            self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
            await self.start()
            for client, login in zip(clients, ("alice", "bob", "alice"), strict=True):
                await self.check(client, login)
        stranger = attrs.evolve(clients[1], session_id=clients[0].session_id)
        self.assertEqual((await self.send(stranger, "who_am_i")).status, 403)

    async def test_sigkill_in_the_middle_of_calls(self) -> None:
        """Those break off; the same session id answers; no child is left."""
        await self.begin()
        client = await self.signed_in()
        calls = [self.call(client, "slow", seconds=30) for _ in range(3)]
        waiting = [Deferred.fromCoroutine(each) for each in calls]
        await pause(0.5)
        self.daemon.signal_with(signal.SIGKILL)
        await self.daemon.wait()
        for each in waiting:
            with self.assertRaises(Exception):  # noqa: B017 - whatever breaks first
                await each
        await self.until(
            lambda: not processes(self.forgejo.stand_in.base_url), "children stay"
        )
        await self.start()
        await self.check(client)
        await deferToThread(client.refresh)
        await self.check(client)


class ChildTests(SessionCase):
    """Children come and go."""

    async def test_reaped_child(self) -> None:
        """One slower call."""
        await self.begin(FJMCP_BROKER_SESSION_IDLE_TIMEOUT="1s")
        client = await self.signed_in()
        await self.until(lambda: "-> dormant" in self.daemon.text, "the child stays")
        self.assertIn("-> live", self.daemon.text)
        await self.until(lambda: not self.children(), "the child stays")
        await self.check(client)

    async def test_child_crashed_during_calls(self) -> None:
        """Those say so, and the next call works."""
        await self.begin()
        client = await self.signed_in()
        held = self.forgejo.stand_in.controls.hold_request("/api/v1/user", times=3)
        waiting = [
            Deferred.fromCoroutine(self.call(client, "who_am_i")) for _ in range(3)
        ]
        await self.until(lambda: held.waiting == 3, "the calls do not arrive")
        os.kill(self.children()[0], signal.SIGKILL)
        for each in waiting:
            message = await each
            self.assertEqual(message["error"]["code"], -32603)
            self.assertEqual(message["error"]["data"], {"reason": "child_exited"})
        await self.check(client)

    async def test_child_crashed_between_calls(self) -> None:
        """The client sees nothing."""
        await self.begin()
        client = await self.signed_in()
        await self.crash()
        await self.check(client)

    async def test_sessions_max_reached(self) -> None:
        """The longest idle child sleeps, and nobody notices."""
        await self.begin(FJMCP_BROKER_MAX_SESSIONS="2")
        logins = ("alice", "bob", "alice", "bob")
        clients = [await self.signed_in(login) for login in logins]
        for _ in range(2):
            for client, login in zip(clients, logins, strict=True):
                await self.check(client, login)
        await self.until(lambda: len(self.children()) <= 2, "children stay")


class TokenTests(SessionCase):
    """The user's Forgejo token, refreshed, lost and refused."""

    async def hammer(
        self, client: McpClient, login: str, over: Callable[[int], bool]
    ) -> tuple[int, list[str]]:
        """Call until so many calls are enough; each answer has to be right."""
        count, wrong = 0, []
        while not over(count):
            key = f"{login}-{count}"
            message = await self.call(client, "slow", seconds=0.3, key=key)
            who = await self.call(client, "who_am_i")
            count += 1
            for answer, expected in ((message, "done"), (who, login)):
                if "result" not in answer or text_of(answer) != expected:
                    wrong.append(json.dumps(answer))
        return count, wrong

    async def test_rotation_under_load(self) -> None:
        """No call fails, none is lost, none is made twice."""
        await self.begin()
        # So short that nearly every call finds a token that is about to expire.
        self.forgejo.stand_in.controls.set_lifetimes(access_seconds=28)
        clients = [(await self.signed_in(name), name) for name in ("alice", "bob")]
        again = await self.signed_in("alice")
        self.forgejo.stand_in.controls.forget_requests()
        began = time.monotonic()

        def rotations() -> int:
            return self.daemon.text.count("live -> rotating")

        def over(count: int) -> bool:
            lasted = time.monotonic() - began
            return lasted > 60 or (lasted > 12 and count > 3 and rotations() > 3)

        running = [
            Deferred.fromCoroutine(self.hammer(client, login, over))
            for client, login in [*clients, *clients, (again, "alice")]
        ]
        # A second client of the same user signs in meanwhile.
        await pause(4)
        clients.append((await self.signed_in("alice"), "alice"))
        results = await gatherResults(running, consumeErrors=True)
        for count, wrong in results:
            self.assertGreater(count, 3)
            self.assertEqual(wrong, [], self.daemon.text[-5000:])
        self.assertGreater(rotations(), 3)
        # A child that is still on its way has not asked for everything yet.
        await self.settled()
        paths = [request.path for request in self.forgejo.stand_in.controls.requests]
        # Each child asks for both at its start, each call of who_am_i for the user.
        made = paths.count("/api/v1/user") - paths.count("/api/v1/version")
        self.assertEqual(made, sum(count for count, _ in results))
        for client, login in clients:
            await self.check(client, login)
        await self.until(lambda: len(self.children()) <= 4, "old children stay")

    async def test_forgejo_is_down_for_a_while(self) -> None:
        """Errors that say so, nobody is signed out, and it recovers by itself."""
        await self.begin(FJMCP_BROKER_SESSION_IDLE_TIMEOUT="1s")
        client = await self.signed_in()
        controls = self.forgejo.stand_in.controls
        controls.set_lifetimes(access_seconds=20)
        await deferToThread(client.refresh)
        fresh = await self.signed_in()
        controls.bad_gateway()
        message = await self.call(fresh, "who_am_i")
        said = json.dumps(message)
        self.assertTrue("error" in message or message["result"]["isError"], said)
        await self.until(lambda: not self.children(), "the children stay")
        answer = await self.send(fresh, "who_am_i")
        self.assertEqual(answer.status, 503, answer.text)
        self.assertIn("forgejo_unavailable", answer.text)
        controls.set_lifetimes(access_seconds=3600)
        controls.end_faults()
        await self.check(client)
        await self.check(fresh)

    async def test_user_removes_the_application(self) -> None:
        """401 with a challenge, no children; other users go on; sign-in revives."""
        await self.begin()
        self.forgejo.stand_in.controls.set_lifetimes(access_seconds=60)
        client, other = await self.signed_in(), await self.signed_in("bob")
        self.forgejo.stand_in.controls.revoke_grant("alice")
        await self.crash()
        refused = await self.send(client, "who_am_i")
        self.assertEqual(refused.status, 401, refused.text)
        self.assertIn("resource_metadata", refused.headers["WWW-Authenticate"])
        await self.check(other, "bob")
        await self.until_children(1)
        await self.signed_in()
        await self.check(client)
