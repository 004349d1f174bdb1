"""What clients see of children, tokens and a Forgejo that do not behave."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from tests.real.broker_case import STAND_IN
from tests.real.client import McpClient
from tests.real.daemon import pause
from tests.real.relay import Answer, call
from tests.real.test_sessions import SessionCase, text_of

RECOVERY_SECONDS = 5
"""After these crashes a session waits up to four for its next child."""

REFRESH = "token:refresh_token"


class CrashingChildTests(SessionCase):
    """Children that end, or stand still."""

    takes_long = True

    async def quick(self, client: McpClient, login: str = "alice") -> None:
        """A call that works soon."""
        before = time.monotonic()
        await self.check(client, login)
        self.assertLess(time.monotonic() - before, RECOVERY_SECONDS)

    async def test_killed_again_and_again(self) -> None:
        """By somebody else: each next call works."""
        await self.begin()
        client = await self.signed_in()
        for _ in range(8):
            await self.crash()
            await self.quick(client)

    async def test_crashes_again_and_again(self) -> None:
        """By itself, in a call: that one fails with the reason, the next one works."""
        await self.begin()
        client = await self.signed_in()
        for _ in range(5):
            message = await self.call(client, "crash")
            self.assertEqual(message["error"]["data"], {"reason": "child_exited"})
            await self.quick(client)

    async def test_stopped_during_a_call(self) -> None:
        """The call ends long before the token does, and the next one works."""
        await self.begin()
        client, other = await self.signed_in(), await self.signed_in("bob")
        (busy,) = self.children()[:1]
        held = Deferred.fromCoroutine(self.call(client, "slow", seconds=3))
        other_held = Deferred.fromCoroutine(self.call(other, "slow", seconds=3))
        await pause(0.3)
        os.kill(busy, signal.SIGSTOP)
        before = time.monotonic()
        answers = await gatherResults([held, other_held])
        self.assertLess(time.monotonic() - before, 25)
        # Whose child it was, the other one has noticed nothing.
        reasons = [answer.get("error", {}).get("data") for answer in answers]
        self.assertEqual(sorted(map(str, reasons)), ["None", str(EXITED)])
        await self.quick(client)
        await self.quick(other, "bob")


class LimitTests(SessionCase):
    """How many children one user may have."""

    async def test_most_of_one_user(self) -> None:
        """The longest idle one sleeps; when all are busy, that user has to wait, and
        nobody else."""
        await self.begin(FJMCP_BROKER_SESSIONS_MAX_PER_USER="2")
        first, second, third = [await self.signed_in() for _ in range(3)]
        other = await self.signed_in("bob")
        for client in (first, second, third, first):
            await self.check(client)
        await self.until(lambda: len(self.children()) == 3, "children stay")
        controls = self.forgejo.stand_in.controls
        held = controls.hold_request("/api/v1/user", times=2)
        busy = [
            Deferred.fromCoroutine(self.call(client, "who_am_i"))
            for client in (first, third)
        ]
        await self.until(lambda: held.waiting == 2, "the calls do not arrive")
        refused = await self.send(second, "who_am_i")
        self.assertEqual(refused.status, 503, refused.text)
        self.assertGreater(int(refused.headers["Retry-After"]), 0)
        self.assertIn("too_many_sessions", refused.text)
        await self.check(other, "bob")
        self.assertEqual(held.waiting, 2)
        held.end()
        for answer in await gatherResults(busy):
            self.assertEqual(text_of(answer), "alice")
        await self.check(second)


class ForgejoTests(SessionCase):
    """Forgejo does not answer."""

    takes_long = True

    async def without_child(self) -> tuple[McpClient, McpClient, McpClient]:
        """Two clients of one user and one of another, whose tokens are due."""
        await self.begin(
            FJMCP_BROKER_SESSION_IDLE_TIMEOUT="1s",
            FJMCP_BROKER_CHILD_START_TIMEOUT="8s",
        )
        controls = self.forgejo.stand_in.controls
        other = await self.signed_in("bob")
        controls.set_lifetimes(access_seconds=20)
        clients = await self.signed_in(), await self.signed_in()
        controls.set_lifetimes(access_seconds=3600)
        await self.until(lambda: not self.children(), "the children stay")
        return (*clients, other)

    async def test_hangs_at_a_refresh(self) -> None:
        """503, nobody is signed out, other users go on, and it recovers by itself."""
        client, second, other = await self.without_child()
        held = self.forgejo.stand_in.controls.hold_request(REFRESH)
        waiting = [
            Deferred.fromCoroutine(self.send(each, "who_am_i"))
            for each in (client, second)
        ]
        await self.check(other, "bob")
        for answer in await gatherResults(waiting):
            self.assertEqual(answer.status, 503, answer.text)
            self.assertIn("forgejo_unavailable", answer.text)
            self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assertEqual(held.hits, 1)
        # What has been given up is not carried out later.
        await self.until(lambda: not held.waiting, "Forgejo keeps the request")
        held.end()
        await self.check(client)
        await self.check(second)

    async def test_hangs_for_children(self) -> None:
        """They contact it before they answer: 502 in time, then all is well."""
        client, _, other = await self.without_child()
        controls = self.forgejo.stand_in.controls
        held = controls.hold_request("api")
        waiting = [
            Deferred.fromCoroutine(self.send(each, "who_am_i"))
            for each in (client, other)
        ]
        for answer in await gatherResults(waiting):
            self.assertEqual(answer.status, 502, answer.text)
            self.assertIn("child_cannot_start", answer.text)
            self.assertGreater(int(answer.headers["Retry-After"]), 0)
        held.end()
        await self.check(client)
        await self.check(other, "bob")

    async def test_answer_to_a_refresh_is_lost(self) -> None:
        """401 asks for a sign-in, which revives every client of that user; others
        notice nothing."""
        client, second, other = await self.without_child()
        self.forgejo.stand_in.controls.drop_answer(REFRESH)
        statuses: list[int] = []
        while not statuses or (statuses[-1] != 401 and len(statuses) < 5):
            answer = await self.send(client, "who_am_i")
            statuses.append(answer.status)
        self.assertEqual(statuses[-1], 401, answer.text)
        self.assertLessEqual(set(statuses[:-1]), {503})
        self.assertIn("resource_metadata", answer.headers["WWW-Authenticate"])
        self.assertEqual((await self.send(second, "who_am_i")).status, 401)
        await self.check(other, "bob")
        await self.signed_in()
        for each in (client, second):
            await self.check(each)
            await deferToThread(each.refresh)
            await self.check(each)


class RotationTests(SessionCase):
    """A call that is under way while its child is replaced."""

    takes_long = True

    async def until_due(self, before: float) -> None:
        """Wait until the next call replaces the child."""
        while time.monotonic() < before + 4:
            await pause(0.1)

    async def rotate(self, client: McpClient) -> None:
        """Replace the child, under a call."""
        before = self.daemon.text.count("live -> rotating")
        await self.check(client)
        await self.until(
            lambda: self.daemon.text.count("live -> rotating") > before, "no rotation"
        )

    async def test_progress(self) -> None:
        """Every step arrives, under the client's own token, and then the answer."""
        await self.begin()
        self.forgejo.stand_in.controls.set_lifetimes(access_seconds=28)
        client = await self.signed_in()
        born = time.monotonic()
        message = call(7, "progress", {"steps": 24, "seconds": 0.5})
        message["params"]["_meta"] = {"progressToken": "my own"}
        running = await self.ask(client, "POST", message)
        await self.until_due(born)
        await self.rotate(client)
        self.assertEqual(len(self.children()), 2)
        await running.until(lambda: b'"result"' in running.raw)
        *steps, answer = running.events
        told = [(m["params"]["progressToken"], m["params"]["progress"]) for m in steps]
        self.assertEqual(told, [("my own", step) for step in range(1, 25)])
        self.assertEqual(answer["id"], 7)
        await self.until(lambda: len(self.children()) == 1, "the old child stays")

    async def test_replacement_hangs(self) -> None:
        """Calls go on with the old child as long as its token is good; then they are
        told in time."""
        hangs = Path(self.mktemp()).resolve()
        script = f"test -e {hangs} && exec sleep 600; exec {STAND_IN.replace(',', ' ')}"
        program = Path(self.mktemp()).resolve()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)
        await self.begin(
            FJMCP_BROKER_CHILD_COMMAND=str(program),
            FJMCP_BROKER_CHILD_START_TIMEOUT="8s",
        )
        self.forgejo.stand_in.controls.set_lifetimes(access_seconds=34)
        client = await self.signed_in()
        born = time.monotonic()
        hangs.touch()
        await self.until_due(born + 6)
        before = time.monotonic()
        await self.check(client)
        self.assertLess(time.monotonic() - before, 7)
        # Whoever comes later does not wait again.
        before = time.monotonic()
        await self.check(client)
        self.assertLess(time.monotonic() - before, 2)
        while time.monotonic() < born + 24:
            await pause(0.1)
        before = time.monotonic()
        refused = await self.send(client, "who_am_i")
        self.assertLess(time.monotonic() - before, 12)
        self.assertEqual(refused.status, 502, refused.text)
        self.assertIn("child_cannot_start", refused.text)
        self.assertGreater(int(refused.headers["Retry-After"]), 0)
        hangs.unlink()
        await self.check(client)

    async def test_question(self) -> None:
        """The answer goes to the child that asked, and only there."""
        await self.begin()
        self.forgejo.stand_in.controls.set_lifetimes(access_seconds=28)
        client = await self.signed_in()
        born = time.monotonic()
        running = await self.ask(
            client, "POST", call(7, "ask", {"method": "roots/list"})
        )
        await running.until(lambda: bool(questions(running)))
        (question,) = questions(running)
        await self.until_due(born)
        await self.rotate(client)
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}}
        for _ in range(2):  # the second one is dropped
            accepted = await deferToThread(client.send, answer)
            self.assertEqual(accepted.status, 202, accepted.text)
        await running.until(lambda: b'"id":7' in bytes(running.raw).replace(b" ", b""))
        said = json.dumps(running.events[-1])
        self.assertIn("roots", said)
        self.assertEqual(running.events[-1]["id"], 7)
        await self.until(lambda: len(self.children()) == 1, "the old child stays")
        await self.check(client)


EXITED = {"reason": "child_exited"}


def questions(running: Answer) -> list[dict[str, object]]:
    """What the child has asked on this stream."""
    return [event for event in running.events if event.get("method") == "roots/list"]
