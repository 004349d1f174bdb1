"""Who may use a session, and for what; the child hears nothing of the rest."""

from typing import Any

from fjmcp_broker.oauth.vocabulary import Policy
from tests.relay_stubs import key_of, principal
from tests.unit.web.mcp_world import McpWorld, Wire, request


class OwnershipTests(McpWorld):
    """A session belongs to a grant."""

    def setUp(self) -> None:
        """A session of alice, and others who know its id."""
        super().setUp()
        self.session = self.open()
        self.child = self.spawner.processes[0]
        self.before = bytes(self.child.written)
        self.authenticator.principals.update(
            {
                "again": principal(1, "g_again"),
                "client": principal(1, "g_c", client_id="other"),
                "policy": principal(1, "g_p", policy=Policy.READ_ONLY),
                "dead": principal(1, "g_dead"),
            }
        )
        self.ledger.dead_grants.add("g_dead")

    def attempts(self, token: str) -> list[Wire]:
        """Everything that one can do with a session id."""
        return [
            self.send(request(1, "x"), self.session, token=token),
            self.send(
                {"jsonrpc": "2.0", "method": "notifications/x"},
                self.session,
                token=token,
            ),
            self.send(
                {"jsonrpc": "2.0", "id": 1, "result": {}}, self.session, token=token
            ),
            self.send(b"", self.session, token=token, method="DELETE"),
        ]

    def check_refused(self, token: str, status: int) -> None:
        """All of it is refused, and the session is as before."""
        for wire in self.attempts(token):
            self.assertEqual(wire.status, status)
        self.assertEqual(bytes(self.child.written), self.before)
        self.assertEqual(self.ledger.grants[key_of(self.session)], "g_1")
        self.assertEqual(self.send(request(2, "x"), self.session).status, 200)

    def test_another_user(self) -> None:
        """403, whatever is tried."""
        self.check_refused("bob", 403)

    def test_another_client_of_the_user(self) -> None:
        """404, as for an id that nobody has."""
        self.check_refused("client", 404)

    def test_another_policy(self) -> None:
        """A read-only grant does not take over a session that may write."""
        self.check_refused("policy", 404)

    def test_stepping_up(self) -> None:
        """
        A client that was allowed to read goes on in its session when it is allowed
        more, and its old token has no part in it from then on.
        """
        for number, policy in enumerate(
            (Policy.READ_ONLY, Policy.READ_ONLY_REQUESTED), start=10
        ):
            reading = principal(number, policy=policy)
            writing = principal(number, f"g_more_{number}")
            self.authenticator.principals |= {"reading": reading, "writing": writing}
            session = self.open("reading")
            message = request(1, name="create_issue")
            self.assertEqual(self.send(message, session, token="reading").status, 403)
            stepped = self.send(message, session, token="writing")
            self.assertEqual(stepped.status, 200)
            grants = self.ledger.grants
            self.assertEqual(grants[key_of(session)], writing.grant_id)
            for method in ("tools/list", "tools/call"):
                old = self.send(request(2, method), session, token="reading")
                self.assertEqual(old.status, 404)
            self.assertEqual(grants[key_of(session)], writing.grant_id)

    def test_ended_grant(self) -> None:
        """One that has ended since its token was looked up adopts nothing."""
        self.check_refused("dead", 404)

    def test_new_grant_of_the_same_client(self) -> None:
        """The session is its own from then on; the end of the old one is no matter."""
        wire = self.send(request(1, "x"), self.session, token="again")
        self.assertEqual(wire.status, 200)
        self.assertEqual(self.ledger.grants[key_of(self.session)], "g_again")
        self.registry.close_grant("g_1")
        wire = self.send(request(2, "x"), self.session, token="again")
        self.assertEqual(wire.status, 200)
        self.registry.close_grant("g_again")
        self.assertEqual(self.send(request(3, "x"), self.session).status, 404)


class PolicyTests(McpWorld):
    """A read-only grant is default deny."""

    def call(self, name: Any, session: str, token: str) -> Wire:
        """Call a tool."""
        return self.send(request(1, name=name), session, token=token)

    def test_what_may_write_is_refused(self) -> None:
        """403 with the scope to ask for; the child hears nothing."""
        session = self.open("reader")
        child = self.spawner.processes[0]
        before = bytes(child.written)
        for wire in (
            self.call("create_issue", session, "reader"),
            self.call("unknown_tool", session, "reader"),
            self.call(None, session, "reader"),
            self.call(["list_my_repos"], session, "reader"),
            self.send(request(1, "unknown/method"), session, token="reader"),
            self.send({"jsonrpc": "2.0", "method": "tools/call"}, session, "reader"),
        ):
            self.assertEqual(wire.status, 403)
            challenge = wire.headers["www-authenticate"]
            self.assertIn('error="insufficient_scope"', challenge)
            self.assertIn('scope="read write"', challenge)
        self.assertEqual(bytes(child.written), before)

    def test_what_reads_is_allowed(self) -> None:
        """Tools known to read, and the protocol's own methods."""
        session = self.open("reader")
        self.assertEqual(self.call("list_my_repos", session, "reader").status, 200)
        for method in ("tools/list", "ping"):
            wire = self.send(request(1, method), session, token="reader")
            self.assertEqual(wire.status, 200)

    def test_batch(self) -> None:
        """Each part is judged by itself."""
        session = self.open("reader", "2025-03-26")
        wire = self.send(
            [
                request(1, name="create_issue"),
                request(2, name="list_my_repos"),
                {"jsonrpc": "2.0", "method": "unknown"},
            ],
            session,
            token="reader",
        )
        outcome = {event["id"]: "result" in event for event in wire.events}
        self.assertEqual(outcome, {1: False, 2: True})
        names = [
            message["params"]["name"]
            for message in self.received(self.spawner.processes[0])
            if message["method"] not in ("initialize", "notifications/initialized")
        ]
        self.assertEqual(names, ["list_my_repos"])

    def test_policy_of_the_presented_token_counts(self) -> None:
        """Not the one that the session was opened with."""
        session = self.open()
        self.assertEqual(self.call("create_issue", session, "alice").status, 200)
        self.authenticator.principals["alice"] = principal(1, policy=Policy.READ_ONLY)
        self.assertEqual(self.call("create_issue", session, "alice").status, 403)

    def test_tool_that_is_denied_to_everybody(self) -> None:
        """No scope helps, so that none is asked for."""
        session = self.open()
        child = self.spawner.processes[0]
        before = bytes(child.written)
        wire = self.call("download_release_attachment", session, "alice")
        self.assertEqual(wire.status, 200)
        self.assertIn("disabled", wire.json["error"]["message"])
        self.assertEqual(bytes(child.written), before)
