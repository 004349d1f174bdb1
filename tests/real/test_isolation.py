"""Two users on shared connections, with ids that collide: nobody gets another's."""

from __future__ import annotations

import http.client
import json
import queue
import random
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread

from tests import SEED
from tests.real.broken_broker import runner
from tests.real.broker_case import BrokerCase
from tests.real.client import McpClient
from tests.real.daemon import Daemon, free_port, processes

CALLS: Final = 10_000
SECONDS: Final = 20.0
"""Of the processor that the daemon may take for all of them."""
CONNECTIONS: Final = 6
CHILD: Final = f"{sys.executable},{Path(__file__).with_name('login_child.py')}"
LOGINS: Final = ("alice", "bob")
IDS: Final = (1, "1", 0, "0", -1, "")
"""Of the requests of every session."""
PROGRESS_TOKEN: Final = 1
STOLEN: Final = re.compile("(alice|bob) used a session of (alice|bob): 200 ")


@attrs.frozen
class Place:
    """
    One request at a time: a session and an id that nothing else in flight has there.
    """

    login: str
    headers: dict[str, str]
    request_id: int | float | str


class Callers:
    """
    Calls from several threads, one connection each, whose next call may be anybody's.
    """

    def __init__(self, port: int, clients: list[tuple[str, McpClient]]) -> None:
        """
        @param port: of the broker.
        @param clients: with live sessions, and their users.
        """
        self._port = port
        self._places: queue.SimpleQueue[Place] = queue.SimpleQueue()
        places = [
            Place(login, client.headers(), request_id)
            for login, client in clients
            for request_id in IDS
        ]
        self._random = random.Random(SEED)  # noqa: S311 - not a secret
        self._random.shuffle(places)
        for place in places:
            self._places.put(place)
        self._everybody = places
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()

    def work(self, number: int, calls: int) -> None:
        """
        Make calls on one connection.

        @param number: of the connection.
        @param calls: how many.
        """
        draw = random.Random(SEED + number)  # noqa: S311 - not a secret
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.connect()
            local = connection.sock.getsockname()
            for count in range(calls):
                place = self._places.get(timeout=30)
                try:
                    self._call(connection, place, f"{number}.{count}", draw)
                finally:
                    self._places.put(place)
            if connection.sock.getsockname() != local:
                self.problems.append(f"connection {number} was not kept")
        finally:
            connection.close()

    def _call(
        self,
        connection: http.client.HTTPConnection,
        place: Place,
        unique: str,
        draw: random.Random,
    ) -> None:
        lot = draw.random()
        if lot < 0.02:
            self._steal(connection, place, draw)
            return
        tool: str
        arguments: dict[str, Any]
        if lot < 0.05:
            tool, arguments, expected = "progress", {"steps": 2}, "2"
        elif lot < 0.30:
            tool, arguments, expected = "who_am_i", {}, place.login
        else:
            tool, arguments = "echo", {"text": unique}
            expected = f"{place.login}: {unique}"
        status, text, kind = _post(connection, place.headers, place, tool, arguments)
        self.counts[tool] += 1
        messages = _messages(text, kind)
        answer = messages[-1] if messages else None
        if (
            status != 200
            or not isinstance(answer, dict)
            or type(answer.get("id")) is not type(place.request_id)
            or answer["id"] != place.request_id
            or _text(answer) not in (expected, json.dumps(expected))
        ):
            self.problems.append(
                f"{place.login} asked {tool} {arguments}: {status} {text[:200]}"
            )
        steps = [
            (message["params"]["progressToken"], message["params"]["progress"])
            for message in messages[:-1]
        ]
        wanted = [(PROGRESS_TOKEN, 1), (PROGRESS_TOKEN, 2)]
        if steps != (wanted if tool == "progress" else []):
            self.problems.append(f"{place.login} got progress {steps} of {tool}")

    def _steal(
        self,
        connection: http.client.HTTPConnection,
        place: Place,
        draw: random.Random,
    ) -> None:
        """
        Present one's own token with another user's session.
        """
        other = draw.choice([o for o in self._everybody if o.login != place.login])
        own = {"Authorization": place.headers["Authorization"]}
        status, text, _ = _post(connection, other.headers | own, place, "echo", {})
        self.counts["refused"] += 1
        if status != 403:
            self.problems.append(
                f"{place.login} used a session of {other.login}: {status} {text[:200]}"
            )


def _post(
    connection: http.client.HTTPConnection,
    headers: dict[str, str],
    place: Place,
    tool: str,
    arguments: dict[str, Any],
) -> tuple[int, str, str]:
    message = {
        "jsonrpc": "2.0",
        "id": place.request_id,
        "method": "tools/call",
        "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {"progressToken": PROGRESS_TOKEN},
        },
    }
    connection.request("POST", "/mcp", json.dumps(message), headers)
    answer = connection.getresponse()
    kind = answer.headers.get_content_type()
    return answer.status, answer.read().decode(), kind


def _messages(text: str, kind: str) -> list[Any]:
    if kind == "application/json":
        return [json.loads(text)]
    return [
        json.loads(line.removeprefix("data: "))
        for line in text.splitlines()
        if line.startswith("data: ") and line != "data: "
    ]


def _text(answer: dict[str, Any]) -> str | None:
    result = answer.get("result")
    if not isinstance(result, dict):
        return None
    text: str = result["content"][0]["text"]
    try:
        wrapped = json.loads(text)
    except ValueError:
        return text
    return str(wrapped["Result"]) if isinstance(wrapped, dict) else text


class IsolationTests(BrokerCase):
    """Everybody gets his own answers, and only these."""

    async def call(self, calls: int, fault: str | None = None) -> Callers:
        """
        Let both users call, from four sessions each.

        @param calls: how many, in all.
        @param fault: of the broker, if any.
        @return: what came of it.
        """
        port = free_port()
        settings, forgejo = await self.settings(port)
        settings["FJMCP_BROKER_CHILD_COMMAND"] = CHILD
        daemon = Daemon.launch(settings, port=port, runner=runner(fault))
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        clients = []
        for login in LOGINS * 2:
            client = await self.session(daemon, forgejo, login)
            second = attrs.evolve(client)
            await deferToThread(second.initialize)
            clients += [(login, client), (login, second)]
        callers = Callers(port, clients)
        began = daemon.processor_seconds()
        share = calls // CONNECTIONS + 1
        await gatherResults(
            [
                deferToThread(callers.work, number, share)
                for number in range(CONNECTIONS)
            ],
            consumeErrors=True,
        )
        self.seconds = daemon.processor_seconds() - began
        await daemon.stop()
        self.assertEqual(processes(forgejo.stand_in.base_url), [])
        return callers

    async def test_ten_thousand_calls(self) -> None:
        """
        Of interleaved calls over shared connections, each answer carries the login
        that Forgejo knows the caller's child under, and the call's own id and text.
        """
        callers = await self.call(CALLS)
        took = f"{self.seconds:.1f} s of the daemon's processor time"
        sys.stderr.write(f"{dict(callers.counts)} in {took}\n")
        self.assertEqual(callers.problems, [])
        self.assertGreaterEqual(callers.counts.total(), CALLS)
        self.assertLess(self.seconds, SECONDS)

    async def test_it_would_be_seen(self) -> None:
        """A broker that does not ask whose a session is is found out."""
        callers = await self.call(300, "ignore-owners")
        self.assertGreater(callers.counts["refused"], 0)
        # What is stolen may also be in the way of its owner's calls, by its id.
        stolen = [each for each in callers.problems if STOLEN.match(each)]
        self.assertTrue(stolen, callers.problems)
