"""Stateless requests at the endpoint: statuses, policy, what reaches a child."""

import json
from typing import Any

from fjmcp_broker.mcp.correlation import TooManyPendingError
from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.mcp.modern.profiles import ChildEra, ChildProfile
from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.sessions.errors import (
    ChildBusy,
    ChildCannotStart,
    SessionGone,
    Stopping,
    TooManySessions,
)
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.upstream.errors import SignInNeeded, UpstreamUnavailable
from fjmcp_broker.web.mcp import waiters
from tests.relay_stubs import principal
from tests.unit.web.mcp_world import Wire
from tests.unit.web.modern_case import (
    META,
    VERSION,
    FakeCall,
    FakeShared,
    ModernCase,
    modern,
)

META_VERSION = "io.modelcontextprotocol/protocolVersion"
SUPPORTED = ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]


class AnswerTests(ModernCase):
    """What a client gets."""

    def test_result(self) -> None:
        """JSON when nothing comes before it; no session id is made."""
        wire = self.ask(modern("a", name="x"))
        self.assertIsNone(wire.status)
        self.call.result(b'{"resultType":"complete"}')
        self.assertEqual(wire.status, 200)
        self.assertEqual(
            wire.body, b'{"jsonrpc":"2.0","id":"a","result":{"resultType":"complete"}}'
        )
        self.assertEqual(wire.headers["content-type"], "application/json")
        self.assertEqual(wire.headers["cache-control"], "no-store")
        self.assertNotIn("mcp-session-id", wire.headers)

    def test_session_id_means_nothing(self) -> None:
        """Whosever it is: C{_meta} wins."""
        for session in ("x" * 43, ""):
            wire = self.ask(modern(1, "tools/list"), session)
            self.call.result()
            self.assertEqual(wire.status, 200)

    def test_answer_at_once(self) -> None:
        """Before the call has begun, as from a child that is very quick."""
        self.shared.at_once = lambda call: call.error(b'{"code":-32601}', 404)
        wire = self.ask(modern(1, "x/y"))
        self.assertEqual((wire.status, wire.json["error"]["code"]), (404, -32601))

    def test_status_of_an_error(self) -> None:
        """As the session says, as long as nothing was sent."""
        for status in (200, 400, 404):
            wire = self.ask(modern(1, "x/y"))
            self.clock.advance(4.9)
            self.call.error(b'{"code":-1,"message":"m"}', status)
            self.assertEqual(wire.status, status)
            self.assertEqual(wire.json["error"], {"code": -1, "message": "m"})

    def test_slow_answer(self) -> None:
        """After five seconds a stream, without ids, kept alive."""
        wire = self.ask(modern(1, "x/y"))
        self.clock.advance(5)
        self.assertEqual(wire.status, 200)
        self.assertEqual(wire.headers["content-type"], "text/event-stream")
        self.assertEqual(wire.headers["x-accel-buffering"], "no")
        self.assertEqual(wire.headers["cache-control"], "no-store")
        self.clock.advance(15)
        self.call.error(b'{"code":-32601}', 404)
        self.assertEqual(wire.events[0]["error"]["code"], -32601)
        self.assertNotIn(b"id: ", wire.body)
        self.assertIn(b": keepalive\n\n", wire.body)

    def test_notification_first(self) -> None:
        """Decides the status at once; the answer ends the stream."""
        wire = self.ask(modern(1, name="x"))
        self.assertTrue(self.call.observer.takes_messages)
        self.call.observer.notified(b'{"method":"n"}')
        self.assertEqual(wire.status, 200)
        self.call.result()
        self.assertEqual(wire.events[0], {"method": "n"})
        self.assertEqual(wire.events[1]["id"], 1)
        self.assertTrue(wire.body.endswith(b"\n\n"))

    def test_formats(self) -> None:
        """One of the two is enough."""
        json_only = {"Accept": "application/json"}
        wire = self.ask(modern(1, name="x"), headers=json_only)
        self.assertFalse(self.call.observer.takes_messages)
        self.clock.advance(60)
        self.call.result()
        self.assertEqual(wire.json["id"], 1)
        events_only = {"Accept": "text/event-stream"}
        wire = self.ask(modern(2, name="x"), headers=events_only)
        self.call.result()
        self.assertEqual(wire.events[0]["id"], 2)
        wire = self.ask(modern(3, name="x"), headers=events_only)
        self.call.error(b'{"code":-32601}', 404)
        self.assertEqual((wire.status, wire.json["id"]), (404, 3))

    def test_every_request_for_itself(self) -> None:
        """Equal ids at the same time are no matter of the endpoint."""
        first, second = (self.ask(modern(1, name="x")) for _ in range(2))
        self.shared.calls[1].result(b'"second"')
        self.shared.calls[0].result(b'"first"')
        self.assertEqual(first.json["result"], "first")
        self.assertEqual(second.json["result"], "second")

    def test_grants_are_apart(self) -> None:
        """Each has a child of its own."""
        self.ask(modern(1, name="x"), token="bob")
        self.assertEqual(self.shared.calls, [])
        self.assertEqual(len(self.fakes.by_grant["g_2"].calls), 1)

    def test_every_lease_ends(self) -> None:
        """With a call, without one, with an error."""
        self.ask(modern(1, name="x"))
        self.ask(modern(1, name="download_release_attachment"))
        self.shared.begin_error = ChildBusy("busy")
        self.ask(modern(1, name="x"))
        self.assertGreaterEqual(len(self.shared.leases), 3)
        self.assertTrue(all(lease.is_over for lease in self.shared.leases))


class DepartureTests(ModernCase):
    """A client that closes its connection takes its request back."""

    def test_before_and_after_the_status(self) -> None:
        """The child is told once."""
        for seconds in (0, 5):
            wire = self.ask(modern(1, name="x"))
            self.clock.advance(seconds)
            wire.depart()
            self.assertEqual(self.call.abandoned, 1)
            self.call.result()
            self.assertEqual(self.call.abandoned, 1)

    def test_after_the_answer(self) -> None:
        """It is not told."""
        wire = self.ask(modern(1, name="x"))
        self.call.result()
        wire.depart()
        self.assertEqual(self.call.abandoned, 0)

    def test_while_a_child_starts(self) -> None:
        """The call is not made."""
        self.shared.holding = []
        wire = self.ask(modern(1, name="x"))
        wire.depart()
        self.shared.release()
        self.assertEqual(self.shared.calls, [])
        self.assertTrue(self.shared.leases[0].is_over)

    def test_slow_reader(self) -> None:
        """Its child is held back for five seconds, then its request is cancelled."""
        wire = self.ask(modern(1, name="x"))
        self.call.observer.notified(b"{}")
        assert wire.producer is not None
        wire.producer.pauseProducing()
        for _ in range(6):
            self.call.observer.notified(b'"' + b"x" * 1_000_000 + b'"')
        self.assertEqual(len(self.call.child.pausers), 1)
        self.assertEqual(self.call.abandoned, 0)
        self.clock.advance(5)
        self.assertTrue(wire.aborted)
        self.assertEqual(self.call.abandoned, 1)
        self.assertEqual(self.call.child.pausers, set())

    def test_slow_reader_that_catches_up(self) -> None:
        """Nothing is lost."""
        wire = self.ask(modern(1, name="x"))
        self.call.observer.notified(b"{}")
        assert wire.producer is not None
        wire.producer.pauseProducing()
        for _ in range(6):
            self.call.observer.notified(b'"' + b"x" * 1_000_000 + b'"')
        self.clock.advance(4)
        wire.producer.resumeProducing()
        self.assertEqual(self.call.child.pausers, set())
        self.call.result()
        self.assertEqual(len(wire.events), 8)
        self.assertEqual(self.call.abandoned, 0)

    def test_revoked_token(self) -> None:
        """What it listens to ends in good order; a call is finished all the same."""
        listen = self.ask(modern("s", "subscriptions/listen", notifications={}))
        listening = self.call
        listening.observer.notified(b'{"method":"acknowledged"}')
        calling = self.ask(modern(2, name="x"))
        self.site.end_streams(lambda who: who.user_id == 2)
        self.assertEqual(listening.abandoned, 0)
        self.site.end_streams(lambda who: who.user_id == 1)
        self.assertEqual(listening.abandoned, 1)
        self.assertEqual(listen.events[-1]["id"], "s")
        self.call.result()
        self.assertEqual(calling.status, 200)

    def test_daemon_stops(self) -> None:
        """What listens is told that it is over; a call is finished."""
        listen = self.ask(modern("s", "subscriptions/listen", notifications={}))
        listening = self.call
        listening.observer.notified(b'{"method":"acknowledged"}')
        calling = self.ask(modern(2, name="x"))
        for wire in (listen, calling):
            wire.protocol.close_when_idle()
        self.assertEqual(listening.abandoned, 1)
        self.assertEqual(listen.events[-1]["id"], "s")
        self.assertEqual(
            listen.events[-1]["result"]["_meta"],
            {"io.modelcontextprotocol/subscriptionId": "s"},
        )
        self.assertTrue(listen.disconnecting)
        self.assertIsNone(calling.status)
        self.assertEqual(self.call.abandoned, 0)
        self.call.result()
        self.assertEqual(calling.status, 200)


class RefusalTests(ModernCase):
    """What is refused before anything is asked of a child."""

    def refused(self, status: int, code: int, *arguments: Any, **named: Any) -> Wire:
        """Check a refusal."""
        return self.check(status, code, self.ask(*arguments, **named))

    def check(self, status: int, code: int, wire: Wire) -> Wire:
        """Check an answer."""
        self.assertEqual(wire.status, status, wire.value())
        self.assertEqual(wire.headers["content-type"], "application/json")
        self.assertEqual(wire.json["error"]["code"], code, wire.json)
        self.assertEqual(self.shared.calls, [])
        return wire

    def test_headers(self) -> None:
        """Each that is missing or differs (server validation)."""
        message = modern(7, name="x")
        for changed in (
            {"MCP-Protocol-Version": None},
            {"MCP-Protocol-Version": "2025-11-25"},
            {"Mcp-Method": None},
            {"Mcp-Method": "tools/list"},
            {"Mcp-Method": "TOOLS/CALL"},
            {"Mcp-Name": None},
            {"Mcp-Name": "y"},
            {"Mcp-Name": "=?base64?eQ==?="},
            {"Mcp-Name": "=?base64?!?="},
        ):
            wire = self.refused(400, -32020, message, headers=changed)
            self.assertEqual(wire.json["id"], 7)
        self.assertEqual(self.shared.leases, [])

    def test_encoded_name(self) -> None:
        """The Base64 sentinel; the case of header names does not matter."""
        message = modern(1, name="é")
        self.ask(message, headers={"mCP-nAME": "=?base64?w6k=?="})
        self.assertEqual(self.call.modern.request.members["name"], b'"\\u00e9"')

    def test_meta(self) -> None:
        """What each request has to say about itself."""
        wrong: tuple[dict[str, Any], ...] = (
            {"io.modelcontextprotocol/clientCapabilities": None},
            {"io.modelcontextprotocol/clientCapabilities": []},
            {"io.modelcontextprotocol/logLevel": "loud"},
            {META_VERSION: 3},
        )
        for meta in wrong:
            self.refused(400, -32602, modern(1, "tools/list", meta=meta))
        plain = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        self.check(400, -32602, self.ask(plain))

    def test_client_info_is_optional(self) -> None:
        """And serves display alone, so that none is too strange."""
        for info in ({"name": "x", "version": "1"}, {}, None, "x"):
            meta = {"io.modelcontextprotocol/clientInfo": info}
            self.ask(modern(1, "tools/list", meta=meta))
        self.assertEqual(len(self.shared.calls), 4)

    def test_unknown_version(self) -> None:
        """The list, with the older ones for clients that speak both."""
        for version in ("2027-01-01", "1900-01-01", "2025-11-25", "x"):
            wire = self.refused(
                400,
                -32022,
                modern(1, "tools/list", meta={META_VERSION: version}),
                headers={"MCP-Protocol-Version": version},
            )
            data = wire.json["error"]["data"]
            self.assertEqual(data, {"supported": SUPPORTED, "requested": version})

    def test_removed_methods(self) -> None:
        """404, and the body tells it from a server that has no endpoint here."""
        for method in ("initialize", "ping", "logging/setLevel", "resources/subscribe"):
            self.refused(404, -32601, modern(1, method))

    def test_modern_by_its_headers_alone(self) -> None:
        """A missing C{_meta} is refused as this era asks."""
        plain = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers in (
            {"MCP-Protocol-Version": VERSION},
            {"Mcp-Method": "tools/list"},
        ):
            self.check(400, -32602, self.send(plain, headers=headers))
        for method in ("server/discover", "subscriptions/listen"):
            self.check(400, -32602, self.send({**plain, "method": method}))

    def test_answers_of_clients(self) -> None:
        """There are none in this era."""
        message = {"jsonrpc": "2.0", "id": 1, "result": {}}
        headers = {"MCP-Protocol-Version": VERSION}
        self.check(400, -32600, self.send(message, headers=headers))

    def test_batches(self) -> None:
        """Nor are there batches."""
        self.check(400, -32600, self.send([modern(1, "tools/list")]))

    def test_subscriptions_need_events(self) -> None:
        """JSON would wait for ever."""
        self.refused(
            406,
            -32600,
            modern(1, "subscriptions/listen", notifications={}),
            headers={"Accept": "application/json"},
        )

    def test_bad_filter(self) -> None:
        """Before a child is asked anything."""
        for wanted in ({}, {"notifications": 1}, {"notifications": {"x": 1, "y": 2}}):
            wire = self.ask(modern(1, "subscriptions/listen", **wanted))
            is_fine = "x" in str(wanted)
            self.assertEqual(wire.status, None if is_fine else 400)

    def test_notifications(self) -> None:
        """202 and nothing else; those that contradict their headers are refused."""
        note = {"jsonrpc": "2.0", "method": "notifications/x", "params": {}}
        with_meta = {**note, "params": {"_meta": META}}
        for message, headers in (
            (note, {"MCP-Protocol-Version": VERSION}),
            (with_meta, {}),
            (with_meta, {"Mcp-Method": "notifications/x"}),
        ):
            wire = self.send(message, headers=headers)
            self.assertEqual((wire.status, wire.body), (202, b""))
        self.check(
            400, -32020, self.send(with_meta, headers={"Mcp-Method": "something/else"})
        )
        self.check(
            400, -32020, self.send(with_meta, headers={"MCP-Protocol-Version": "2025"})
        )

    def test_other_methods_of_http(self) -> None:
        """GET and DELETE belong to sessions (backward compatibility)."""
        headers = {"MCP-Protocol-Version": VERSION}
        for method in ("GET", "DELETE"):
            wire = self.send(b"", method=method, headers=headers)
            self.assertEqual((wire.status, wire.headers["allow"]), (405, "POST"))


class TroubleTests(ModernCase):
    """What goes wrong on the way to the child."""

    def test_statuses(self) -> None:
        """Each trouble has its status, its reason, and says when to come back."""
        for error, status, reason in (
            (TooManySessions("full", 7), 503, "too_many_sessions"),
            (Stopping("bye"), 503, "stopping"),
            (ChildCannotStart("no"), 502, "child_cannot_start"),
            (UpstreamUnavailable("down", 9), 503, "forgejo_unavailable"),
            (StoreUnavailable("busy"), 503, "store_unavailable"),
            (SignInNeeded("x"), 401, None),
        ):
            self.shared.error = error
            wire = self.ask(modern(1, name="x"))
            self.assertEqual(wire.status, status, error)
            if reason is None:
                self.assertIn("invalid_token", wire.headers["www-authenticate"])
            else:
                self.assertEqual(wire.json["error"]["data"], {"reason": reason})
                self.assertIn("retry-after", wire.headers)
                self.assertEqual(wire.json["id"], 1)

    def test_call_that_cannot_begin(self) -> None:
        """The child is busy, or does not know what the client repeats."""
        for error, status, reason in (
            (TooManyPendingError("many"), 503, "child_busy"),
            (ChildBusy("busy"), 503, "child_busy"),
            (
                ModernError(
                    400, -32602, "lost", {"reason": "generation_lost"}, id=b'"a"'
                ),
                400,
                "generation_lost",
            ),
        ):
            self.shared.begin_error = error
            wire = self.ask(modern("a", name="x"))
            self.assertEqual(wire.status, status)
            self.assertEqual(wire.json["id"], "a")
            self.assertEqual(wire.json["error"]["data"]["reason"], reason)

    def test_grant_ends_meanwhile(self) -> None:
        """401, never 404: that would be a method that is not there."""
        self.shared.holding = []
        wire = self.ask(modern(1, name="x"))
        self.shared.error = SessionGone("closed")
        del self.authenticator.principals["alice"]
        self.shared.release()
        self.assertEqual(wire.status, 401)
        self.assertIn("invalid_token", wire.headers["www-authenticate"])

    def test_session_ends_and_the_grant_does_not(self) -> None:
        """The client comes again."""
        self.shared.error = SessionGone("closed")
        wire = self.ask(modern(1, name="x"))
        self.assertEqual(wire.status, 503)
        self.assertIn("retry-after", wire.headers)

    def test_too_many_wait_for_a_child(self) -> None:
        """The rest is told to come again, those of other grants wait."""
        self.shared.holding = []
        self.patch(self.endpoint.waking, "maximum", 3)
        wires = [self.ask(modern(number, name="x")) for number in range(5)]
        self.assertEqual([wire.status for wire in wires], [None] * 3 + [503] * 2)
        self.ask(modern(1, name="x"), token="bob")
        self.assertEqual(len(self.fakes.by_grant["g_2"].calls), 1)
        self.shared.release()
        self.assertEqual(len(self.shared.calls), 3)

    def test_fault_of_ours(self) -> None:
        """500 with an incident that the log has."""
        self.shared.error = ZeroDivisionError("inner detail")
        wire = self.ask(modern(1, name="x"))
        self.assertEqual(wire.status, 500)
        self.assertNotIn(b"inner detail", wire.body)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_of_ours_in_an_answer(self) -> None:
        """The request gets an error; nobody else would answer it."""

        def broken(*arguments: Any, **named: Any) -> bytes:
            raise ZeroDivisionError

        self.patch(waiters, "overlay", broken)
        wire = self.ask(modern("a", "tools/list"))
        self.call.result(b'{"tools":[]}')
        self.assertEqual(wire.status, 200)
        self.assertEqual(wire.json["id"], "a")
        self.assertEqual(wire.json["error"]["data"], {"reason": "unexpected"})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_call_that_cannot_begin_after_all(self) -> None:
        """Its observer was asked already, and the refusal still goes out."""

        def at_once(call: FakeCall) -> None:
            self.assertTrue(call.observer.takes_messages)
            raise ChildBusy("busy")

        self.shared.at_once = at_once
        self.assertEqual(self.ask(modern(1, name="x")).status, 503)
        json_only = {"Accept": "application/json"}

        def refusing(call: FakeCall) -> None:
            self.assertFalse(call.observer.takes_messages)
            raise ChildBusy("busy")

        self.shared.at_once = refusing
        wire = self.ask(modern(1, name="x"), headers=json_only)
        self.assertEqual(wire.status, 503)


class DiscoveryTests(ModernCase):
    """C{server/discover} needs no child and fails for no trouble of one."""

    def test_nothing_known(self) -> None:
        """The versions, tools, and to ask again."""
        self.shared.error = ChildCannotStart("no")
        wire = self.ask(modern("d", "server/discover"))
        self.assertEqual(wire.status, 200)
        result = wire.json["result"]
        self.assertEqual(result["supportedVersions"], SUPPORTED)
        self.assertEqual(result["capabilities"], {"tools": {}})
        self.assertEqual((result["ttlMs"], result["cacheScope"]), (0, "private"))
        self.assertEqual(self.shared.leases, [])

    def test_known(self) -> None:
        """What a child of its kind said."""
        said = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "x", "version": "1"},
        }
        self.fakes.profiles.profile = ChildProfile(
            ChildEra.LEGACY, json.dumps(said).encode()
        )
        result = self.ask(modern("d", "server/discover")).json["result"]
        self.assertEqual(result["capabilities"], said["capabilities"])
        self.assertEqual(
            result["_meta"]["io.modelcontextprotocol/serverInfo"], said["serverInfo"]
        )
        self.assertEqual(self.shared.leases, [])

    def test_events(self) -> None:
        """For a client that accepts nothing else."""
        wire = self.ask(
            modern("d", "server/discover"), headers={"Accept": "text/event-stream"}
        )
        self.assertEqual(wire.events[0]["id"], "d")


class PolicyTests(ModernCase):
    """The rights of the grant, as for sessions."""

    def setUp(self) -> None:
        """Readers of both kinds."""
        super().setUp()
        self.authenticator.principals["chosen"] = principal(4, policy=Policy.READ_ONLY)

    def of(self, token: str) -> FakeShared:
        """The shared child of somebody."""
        return self.fakes.shared(self.authenticator.principals[token])

    def test_reader_writes(self) -> None:
        """403 with the scope to ask for."""
        for token in ("reader", "chosen"):
            wire = self.ask(modern(1, name="create_issue"), token=token)
            self.assertEqual(wire.status, 403)
            challenge = wire.headers["www-authenticate"]
            self.assertIn('error="insufficient_scope"', challenge)
            self.assertEqual(
                wire.json["error"]["data"], {"reason": "insufficient_scope"}
            )
            self.assertEqual(self.of(token).calls, [])

    def test_reader_reads(self) -> None:
        """Tools that only read, lists, resources, and hearing of their changes."""
        messages = (
            modern(1, name="list_my_repos"),
            modern(1, "tools/list"),
            modern(1, "resources/read", uri="forgejo://x"),
            modern(1, "subscriptions/listen", notifications={"toolsListChanged": True}),
            modern(
                1,
                "subscriptions/listen",
                notifications={"resourceSubscriptions": ["forgejo://x"]},
            ),
        )
        for message in messages:
            self.ask(message, token="reader")
        self.assertEqual(len(self.of("reader").calls), len(messages))

    def test_reader_of_another_child(self) -> None:
        """Nothing is known of its resources, so that nothing of them is told."""
        shared = self.of("reader")
        shared.catalogue = shared.catalogue.for_server(b"{}")
        wanted = {"resourceSubscriptions": ["x://y"]}
        wire = self.ask(
            modern(1, "subscriptions/listen", notifications=wanted), token="reader"
        )
        self.assertEqual(wire.status, 403)

    def test_denied_tool(self) -> None:
        """For everybody: an error of the call, with a code outside the reserved."""
        wire = self.ask(modern(1, name="download_release_attachment"))
        self.assertEqual(wire.status, 200)
        self.assertEqual(wire.json["error"]["code"], 403)
        self.assertEqual(self.shared.calls, [])

    def test_overlay(self) -> None:
        """Lists of tools are annotated; what was chosen to be hidden is."""
        tools = b'{"tools":[{"name":"create_issue"},{"name":"list_my_repos"}],"a":1.0}'
        for token, shown in (
            ("alice", ["create_issue", "list_my_repos"]),
            ("reader", ["create_issue", "list_my_repos"]),
            ("chosen", ["list_my_repos"]),
        ):
            wire = self.ask(modern(1, "tools/list"), token=token)
            self.of(token).calls[-1].result(tools)
            listed = wire.json["result"]["tools"]
            self.assertEqual([tool["name"] for tool in listed], shown)
            self.assertTrue(listed[-1]["annotations"]["readOnlyHint"])
            self.assertTrue(wire.body.endswith(b'"a":1.0}}'))
