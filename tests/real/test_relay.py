"""The relay from the HTTP request to the real child and back."""

import hashlib
import random
import time
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.upstream.errors import (
    SignInNeeded,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from tests.real.relay import RelayTestCase, call, reactor
from tests.relay_stubs import key_of, principal


async def arrived(case: RelayTestCase, session: str, token: str = "alice") -> None:
    """Wait until what was sent before has come to the child: it reads in order."""
    await case.send(call("behind", "echo"), session, token=token)


class SessionTests(RelayTestCase):
    """A session from its first to its last message."""

    async def test_whole_life(self) -> None:
        """initialize, list, call, delete; the child ends with the session."""
        session = await self.open()
        self.assertEqual(len(session), 43)
        self.assertEqual(self.ledger.rows, {key_of(session): "open"})
        listed = await self.send(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, session
        )
        tools = {tool["name"]: tool for tool in listed.message["result"]["tools"]}
        self.assertTrue(tools["list_my_repos"]["annotations"]["readOnlyHint"])
        self.assertFalse(tools["create_issue"]["annotations"]["readOnlyHint"])
        answer = await self.send(call(2, "echo", {"n": 1}), session)
        self.assertEqual(
            answer.message,
            {"jsonrpc": "2.0", "id": 2, "result": {"value": {"n": 1}}},
        )
        deleted = await self.send(b"", session, method="DELETE")
        self.assertEqual((deleted.status, deleted.body), (204, b""))
        again = await self.send(call(3, "echo"), session)
        self.assertEqual(again.status, 404)
        await self.children[0].when_ended()
        self.assertEqual(self.ledger.rows, {key_of(session): "deleted_by_client"})

    async def test_initialized_is_sent_once(self) -> None:
        """By the broker; the client's own is accepted and goes no further."""
        session = await self.open()
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        for where in (session, None):
            accepted = await self.send(note, where)
            self.assertEqual((accepted.status, accepted.body), (202, b""))
        answer = await self.send(call(1, "seen"), session)
        self.assertEqual(
            answer.message["result"]["value"], ["notifications/initialized"]
        )

    async def test_hundred_calls_at_once_out_of_order(self) -> None:
        """Everybody gets their own answer, ids of equal look but other type too."""
        session = await self.open()
        shuffled = random.Random(7)  # noqa: S311 - any order will do
        ids: list[Any] = [n // 2 if n % 2 else str(n // 2) for n in range(100)]
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self.send(
                        call(
                            id,
                            "sleep",
                            {"seconds": shuffled.random() / 2, "me": repr(id)},
                        ),
                        session,
                        # However long it takes, these get no stream.
                        headers={"Accept": "application/json"} if n % 4 == 0 else None,
                    )
                )
                for n, id in enumerate(ids)
            ]
        )
        kinds = set()
        for id, answer in zip(ids, answers, strict=True):
            self.assertEqual(answer.status, 200)
            kinds.add(answer.headers["content-type"])
            self.assertEqual(answer.message["id"], id)
            self.assertEqual(answer.message["result"]["value"]["me"], repr(id))
        self.assertEqual(kinds, {"application/json", "text/event-stream"})

    async def test_duplicate_id_in_flight(self) -> None:
        """The second gets 409 and the first its answer."""
        session = await self.open()
        first = await self.begin(call(1, "sleep", {"seconds": 2}), session)
        await arrived(self, session)
        second = await self.send(call(1, "echo"), session)
        self.assertEqual(second.status, 409)
        self.assertEqual((await first.closed).message["id"], 1)

    async def test_two_users_are_strangers(self) -> None:
        """Each has a child with a token of their own; neither may use the other's."""
        alice, bob = await self.open("alice"), await self.open("bob")
        for token, session, user in (("alice", alice, 1), ("bob", bob, 2)):
            answer = await self.send(call(1, "who"), session, token=token)
            expected = hashlib.sha256(f"forgejo-token-of-{user}".encode()).hexdigest()
            self.assertEqual(answer.message["result"]["value"], expected)
        for method in ("POST", "DELETE"):
            stolen = await self.send(call(1, "who"), alice, token="bob", method=method)
            self.assertEqual(stolen.status, 403)
        answer = await self.send(call(2, "echo"), alice)
        self.assertEqual(answer.status, 200)

    async def test_another_grant_adopts_the_session(self) -> None:
        """After a new sign-in of the same client; other clients find nothing."""
        session = await self.open()
        known = self.authenticator.principals
        known["again"] = principal(1, "g_new")
        known["other"] = principal(1, "g_other", client_id="other")
        known["dead"] = principal(1, "g_dead")
        self.ledger.dead_grants.add("g_dead")
        for token, status in (("other", 404), ("dead", 404), ("again", 200)):
            answer = await self.send(call(1, "echo"), session, token=token)
            self.assertEqual(answer.status, status, token)
        self.assertEqual(self.ledger.grants[key_of(session)], "g_new")
        self.registry.close_grant("g_1")
        answer = await self.send(call(2, "echo"), session, token="again")
        self.assertEqual(answer.status, 200)

    async def test_ended_grant_kills_its_children(self) -> None:
        """A call in flight is answered with an error; then the session is unknown."""
        session = await self.open()
        waiting = await self.begin(call(1, "mute"), session)
        await arrived(self, session)
        self.registry.close_grant("g_1")
        answer = await waiting.closed
        self.assertEqual(answer.message["error"]["data"], {"reason": "grant_ended"})
        self.assertEqual((await self.send(call(2, "echo"), session)).status, 404)
        await self.children[0].when_ended()

    async def test_token_expiry_ends_the_child(self) -> None:
        """A child does not outlive the token that it was given."""
        self.tokens.life_seconds = 1
        session = await self.open()
        answer = await self.send(call(1, "mute"), session)
        self.assertEqual(answer.message["error"]["data"], {"reason": "token_expired"})
        await self.children[0].when_ended()
        self.assertEqual(self.ledger.rows, {key_of(session): "open"})
        self.tokens.life_seconds = 3600
        again = await self.send(call(1, "echo", {"n": 1}), session)
        self.assertIn("result", again.message)


class FailureTests(RelayTestCase):
    """When something behind the endpoint does not work."""

    limits = Limits(total=3, per_user=2)

    async def test_crash_answers_everybody(self) -> None:
        """Nobody is left hanging; the next call finds another child."""
        session = await self.open()
        waiting = [await self.begin(call(n, "mute"), session) for n in range(5)]
        await arrived(self, session)
        crashed = await self.send(call("c", "crash"), session)
        for answer in (crashed, *[await each.closed for each in waiting]):
            self.assertEqual(answer.status, 200)
            error = answer.message["error"]
            self.assertEqual(error["code"], -32603)
            self.assertEqual(error["data"], {"reason": "child_exited"})
        again = await self.send(call(9, "echo"), session)
        self.assertIn("result", again.message)
        self.assertEqual(self.ledger.rows, {key_of(session): "open"})
        self.assertEqual(len(self.children), 2)

    async def test_limits(self) -> None:
        """A user's, then everybody's: when all are busy, 503 and when to come back."""
        for token in ("alice", "alice", "bob"):
            first = await self.open(token)
            await self.begin(call(1, "mute"), first, token=token)
            await arrived(self, first, token)
        for token in ("alice", "bob"):
            answer = await self.send(INITIALIZE, token=token)
            self.assertEqual(answer.status, 503)
        self.assertEqual(answer.json["error"]["data"], {"reason": "too_many_sessions"})
        self.assertIn("retry-after", answer.headers)
        await self.send(b"", first, token="bob", method="DELETE")
        answer = await self.send(INITIALIZE, token="bob")
        self.assertEqual(answer.status, 200)

    async def test_idle_children_make_room(self) -> None:
        """At the limit the longest idle one sleeps, and its client notices nothing."""
        opened = [await self.open("alice") for _ in range(3)]
        self.assertEqual(len(self.registry), 2)
        for number, session in enumerate([*opened, *opened]):
            answer = await self.send(call(number, "echo"), session)
            self.assertIn("result", answer.message)
        self.assertEqual(len(self.registry), 2)

    async def test_child_that_cannot_start(self) -> None:
        """502 with the reason, as often as it is tried; no session is left behind."""
        for command in (
            ("no-such-program-anywhere",),
            ("false",),
            ("sh", "-c", "echo Forgejo says no >&2; exit 1"),
        ):
            self.child_command = command
            answer = await self.send(INITIALIZE)
            self.assertEqual(answer.status, 502)
            self.assertEqual(
                answer.json["error"]["data"], {"reason": "child_cannot_start"}
            )
            self.assertEqual(answer.json["id"], 0)
        self.assertIn("Forgejo says no", answer.json["error"]["message"])
        self.assertEqual(len(self.registry), 0)
        # Their rows were written while the children started, and are closed.
        self.assertEqual({*self.ledger.rows.values()}, {"not_opened"})

    async def test_upstream_errors(self) -> None:
        """Each has its own answer; an outage never looks like a refusal."""
        for error, status, header in (
            (SignInNeeded("x"), 401, "www-authenticate"),
            (UpstreamUnavailable("x", 7), 503, "retry-after"),
            (UpstreamMisconfigured("x"), 502, "retry-after"),
        ):
            self.tokens.error = error
            answer = await self.send(INITIALIZE)
            self.assertEqual(answer.status, status)
            self.assertIn(header, answer.headers)
            self.assertEqual(answer.json["id"], None if status == 401 else 0)
        self.tokens.error = RuntimeError("secret detail")
        answer = await self.send(INITIALIZE)
        self.assertEqual(answer.status, 500)
        self.assertNotIn(b"secret detail", answer.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_client_leaves_while_its_session_opens(self) -> None:
        """The session that nobody knows the id of is closed again."""
        self.tokens.holding = []
        answer = await self.begin(INITIALIZE)
        while not self.tokens.holding:
            await deferLater(reactor, 0.01)
        transport: Any = answer.transport
        transport.abortConnection()
        await answer.closed
        held, self.tokens.holding = self.tokens.holding, None
        held[0].callback(None)
        while "client_left" not in self.ledger.rows.values():
            await deferLater(reactor, 0.01)
        self.assertEqual(len(self.registry), 0)

    async def test_child_that_prints_noise(self) -> None:
        """A line that is no message disturbs nobody."""
        self.child_command = (
            "sh",
            "-c",
            f'echo hello; echo "[1,2"; exec {" ".join(self.child_command)}',
        )
        session = await self.open()
        answer = await self.send(call(1, "echo"), session)
        self.assertEqual(answer.message["id"], 1)


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18"},
}


class PolicyTests(RelayTestCase):
    """What a read-only grant may do."""

    async def test_read_only_grant(self) -> None:
        """Writing, unknown and unclassified tools: ask for more scope."""
        session = await self.open("reader")
        for name in ("create_issue", "echo", "no_such_tool"):
            answer = await self.send(call(1, name), session, token="reader")
            self.assertEqual(answer.status, 403)
            self.assertIn("insufficient_scope", answer.headers["www-authenticate"])
            self.assertEqual(answer.json["id"], 1)
        allowed = await self.send(call(1, "list_my_repos"), session, token="reader")
        self.assertEqual(allowed.status, 200)

    async def test_lists_of_tools(self) -> None:
        """Who chose read-only sees no writing tool; who was asked for it does."""
        for token, count in (("reader", 3), ("hider", 1)):
            session = await self.open(token)
            listed = await self.send(
                {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
                session,
                token=token,
            )
            self.assertEqual(len(listed.message["result"]["tools"]), count)

    async def test_tool_denied_to_everybody(self) -> None:
        """An error of the call: no other token would help."""
        session = await self.open()
        answer = await self.send(call(1, "download_release_attachment"), session)
        self.assertEqual(answer.status, 200)
        self.assertIn("disabled", answer.json["error"]["message"])


class StopTests(RelayTestCase):
    """The end of the daemon."""

    async def test_idle_stop_is_quick(self) -> None:
        """Nothing in flight: within two seconds, and no child is left."""
        for token in ("alice", "bob", "bob"):
            await self.open(token)
        before = time.monotonic()
        await self.registry.stop(10)
        self.assertLess(time.monotonic() - before, 2)
        self.assertEqual([child.pid for child in self.children], [None] * 3)
        self.assertEqual(set(self.ledger.rows.values()), {"open"})

    async def test_requests_in_flight_finish(self) -> None:
        """They are answered; new ones are sent away meanwhile."""
        session = await self.open()
        answer = await self.begin(call(1, "sleep", {"seconds": 0.5}), session)
        await arrived(self, session)
        stopped = Deferred.fromCoroutine(self.registry.stop(10))
        refused = await self.send(call(2, "echo"), session)
        self.assertEqual(refused.status, 503)
        self.assertEqual((await self.send(INITIALIZE)).status, 503)
        self.assertIn("result", (await answer.closed).message)
        await stopped

    async def test_deadline_holds(self) -> None:
        """A request that never ends is given up in time, a deaf child killed."""
        session = await self.open()
        answer = await self.begin(call(1, "mute"), session)
        await arrived(self, session)
        before = time.monotonic()
        await self.registry.stop(1)
        self.assertLess(time.monotonic() - before, 2)
        self.assertEqual(
            (await answer.closed).message["error"]["data"],
            {"reason": "daemon_stopping"},
        )
