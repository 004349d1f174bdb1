"""What clients without a session listen to."""

from typing import Any

from twisted.internet.defer import Deferred

from fjmcp_broker.mcp.correlation import TooManyPendingError
from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.sessions.stateless.subscriptions import MAXIMUM_STREAMS
from tests.fakes import FakeProcess
from tests.unit.sessions.shared_world import Client, SharedWorld, modern

ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class ListeningWorld(SharedWorld):
    """Clients that listen."""

    def listen(self, id: Any = 1, **notifications: Any) -> Client:
        """Open a stream."""
        return self.send_modern(
            modern(id, "subscriptions/listen", notifications=notifications)
        )

    def heard(self, client: Client) -> list[tuple[str, Any]]:
        """What came after the acknowledgement, and for which subscription."""
        first, *others = client.messages
        self.assertEqual(first["method"], ACKNOWLEDGED)
        return [(m["method"], m["params"]["_meta"][SUBSCRIPTION]) for m in others]

    def uris(self, process: FakeProcess, method: str) -> list[str]:
        """What a child was asked to watch, or not to."""
        return [m["params"]["uri"] for m in self.calls(process, f"resources/{method}")]


class OldChildTests(ListeningWorld):
    """The broker hands round what the child says."""

    def test_acknowledgement(self) -> None:
        """Comes first, and names what the child can do."""
        client = self.listen("s", toolsListChanged=True, promptsListChanged=True)
        (message,) = client.messages
        self.assertEqual(message["params"]["_meta"], {SUBSCRIPTION: "s"})
        self.assertEqual(message["params"]["notifications"], {"toolsListChanged": True})

    def test_each_gets_what_it_wants(self) -> None:
        """Under its own id, and nothing else."""
        tools = self.listen(1, toolsListChanged=True)
        files = self.listen(1, resourceSubscriptions=["x:a", "x:b"])
        nothing = self.listen(2)
        call = self.send_modern(modern(3, log_level="debug"))
        self.notify(self.child, TOOLS)
        self.notify(self.child, UPDATED, uri="x:b")
        self.notify(self.child, UPDATED, uri="x:c")
        self.assertEqual(self.heard(tools), [(TOOLS, 1)])
        self.assertEqual(self.heard(files), [(UPDATED, 1)])
        self.assertEqual((self.heard(nothing), call.messages), ([], []))

    def test_resources_are_watched_once(self) -> None:
        """As long as anybody listens."""
        one = self.listen(1, resourceSubscriptions=["x:a", "x:b"])
        two = self.listen(2, resourceSubscriptions=["x:b", "x:c"])
        self.assertEqual(self.uris(self.child, "subscribe"), ["x:a", "x:b", "x:c"])
        one.leave()
        self.assertEqual(self.uris(self.child, "unsubscribe"), ["x:a"])
        two.leave()
        self.assertEqual(self.uris(self.child, "unsubscribe"), ["x:a", "x:b", "x:c"])
        self.notify(self.child, UPDATED, uri="x:b")
        self.assertEqual((self.heard(one), self.heard(two)), ([], []))
        self.assertEqual((one.answers, two.answers), ([], []))

    def test_next_child_is_told(self) -> None:
        """What it has to watch; the client notices nothing."""
        client = self.listen(1, resourceSubscriptions=["x:a"])
        self.child.exit(1)
        self.send_modern(modern(2, name="echo"))
        self.assertEqual(self.uris(self.child, "subscribe"), ["x:a"])
        self.notify(self.child, UPDATED, uri="x:a")
        self.assertEqual(self.heard(client), [(UPDATED, 1)])

    def test_next_child_offers_something_else(self) -> None:
        """Those who listen hear it."""
        self.send_modern(modern(1, "tools/list"))
        tools = self.listen(2, toolsListChanged=True)
        resources = self.listen(3, resourcesListChanged=True)
        self.child.exit(1)
        self.send_modern(modern(4, name="echo"))
        self.assertEqual(self.heard(tools), [])
        self.tools.append("more")
        self.child.exit(1)
        self.clock.advance(60)
        self.send_modern(modern(5, name="echo"))
        self.assertEqual(self.heard(tools), [(TOOLS, 2)])
        self.assertEqual(self.heard(resources), [])
        self.capabilities["resources"] = {"listChanged": True}
        self.child.exit(1)
        self.clock.advance(60)
        self.send_modern(modern(6, name="echo"))
        self.assertEqual(len(self.heard(resources)), 1)

    def test_two_children_for_a_while(self) -> None:
        """Only the newer one is heard."""
        client = self.listen(1, resourceSubscriptions=["x:a"])
        self.send_modern(modern(2))
        old = self.child
        self.clock.advance(10)
        self.registry.population.rotate_user(1, int(self.clock.seconds()) + 3600)
        for process in (old, self.child):
            self.notify(process, UPDATED, uri="x:a")
        self.assertEqual(len(self.heard(client)), 1)

    def test_child_sleeps(self) -> None:
        """Nobody's stream keeps it awake, and none ends by that."""
        client = self.listen(1, resourceSubscriptions=["x:a"])
        self.clock.advance(900)
        self.successResultOf(Deferred.fromCoroutine(self.registry.reap(900, 10**6)))
        self.assertEqual((self.living, len(self.registry)), ([], 1))
        self.send_modern(modern(2, name="echo"))
        self.assertEqual(self.uris(self.child, "subscribe"), ["x:a"])
        client.leave()
        self.assertEqual(self.uris(self.child, "unsubscribe"), ["x:a"])
        self.clock.advance(900)
        self.successResultOf(Deferred.fromCoroutine(self.registry.reap(900, 10**6)))
        self.assertEqual(len(self.registry), 0)

    def test_end(self) -> None:
        """Of the grant or the daemon: in good order."""
        one = self.listen("s", toolsListChanged=True)
        self.registry.close_grant("g_1")
        two = self.send_modern(
            modern("t", "subscriptions/listen", notifications={}), self.bob
        )
        self.successResultOf(Deferred.fromCoroutine(self.registry.stop(3)))
        for client, id in ((one, "s"), (two, "t")):
            self.assertEqual(client.answer["id"], id)
            result = client.answer["result"]
            self.assertEqual(result["resultType"], "complete")
            self.assertEqual(result["_meta"][SUBSCRIPTION], id)
            client.leave()

    def test_malformed_filter(self) -> None:
        """Is refused; no stream is open."""
        request = modern(1, "subscriptions/listen", notifications=[])
        lease = self.lease(request)
        self.assertRaises(ModernError, lease.begin, request, Client())
        self.assertEqual(len(self.registry), 1)
        self.child.exit(0)
        self.assertEqual(len(self.registry), 0)

    def test_too_many(self) -> None:
        """One more than there may be."""
        for number in range(MAXIMUM_STREAMS):
            self.listen(number)
        self.assertRaises(TooManyPendingError, self.listen, "more")


class ModernChildTests(ListeningWorld):
    """Children of both eras: everything passes as it is."""

    versions: tuple[str, ...] | None = ("2026-07-28", "2025-11-25")

    def acknowledge(self, process: FakeProcess) -> None:
        """The child accepts what was asked last."""
        request = self.calls(process, "subscriptions/listen")[-1]
        self.notify(
            process,
            ACKNOWLEDGED,
            _meta={SUBSCRIPTION: request["id"]},
            notifications=request["params"]["notifications"],
        )

    def tell(self, process: FakeProcess, number: int, method: str = TOOLS) -> None:
        """Something on a stream of the child."""
        request = self.calls(process, "subscriptions/listen")[number]
        self.notify(process, method, _meta={SUBSCRIPTION: request["id"]})

    def test_no_handshake(self) -> None:
        """The question is the handshake, and requests keep what they say."""
        request = modern(
            5, capabilities={"roots": {}}, token="t", inputResponses={"a": {}}
        )
        client = self.send_modern(request)
        first, call = self.received(self.child)
        self.assertEqual(first["method"], "server/discover")
        meta = dict(call["params"].pop("_meta"))
        self.assertEqual(meta.pop("progressToken"), call["id"])
        self.assertEqual(len(meta), 2)
        self.assertEqual(call["params"], {"name": "hold", "inputResponses": {"a": {}}})
        result = {"resultType": "input_required", "requestState": "theirs", "x": 1}
        self.reply(self.child, call["id"], result)
        self.assertEqual(client.answer["result"], result)
        self.send_modern(modern(6, requestState="theirs"))
        self.assertEqual(self.calls(self.child)[1]["params"]["requestState"], "theirs")
        self.assertEqual(len(self.spawner.processes), 1)

    def test_errors_keep_their_numbers(self) -> None:
        """And have their status."""
        for code, status in ((-32601, 404), (-32021, 400), (-32603, 200), (7, 200)):
            client = self.send_modern(modern(code))
            error = {"code": code, "message": "x"}
            self.say(self.child, id=self.calls(self.child)[-1]["id"], error=error)
            self.assertEqual((client.answer["error"], client.status), (error, status))

    def test_child_that_ends(self) -> None:
        """Is an error of ours, under the client's id."""
        client = self.send_modern(modern("x"))
        self.child.exit(1)
        self.assertEqual(client.answer["error"]["data"], {"reason": "child_exited"})
        self.assertEqual(client.answer["id"], "x")

    def test_log_messages(self) -> None:
        """Belong to the only request that wants any."""
        self.send_modern(modern(1))
        client = self.send_modern(modern(2, log_level="error"))
        self.notify(self.child, "notifications/message", level="error", data=1)
        self.assertEqual(len(client.messages), 1)
        other = self.send_modern(modern(3, log_level="error"))
        self.notify(self.child, "notifications/message", level="error", data=2)
        self.assertEqual((len(client.messages), other.messages), (1, []))

    def test_sign_of_life(self) -> None:
        """Is asked for in the way of the revision, which has no ping."""
        self.send_modern(modern(1))
        for _ in range(14):
            self.clock.advance(5)
            looking = self.registry.population.look_after_children()
            self.successResultOf(Deferred.fromCoroutine(looking))
        first, second = self.calls(self.child, "server/discover")
        self.assertEqual(first["params"], second["params"])

    def test_questions_as_requests(self) -> None:
        """Are against the revision, and refused."""
        self.send_modern(modern(1))
        self.elicit(self.child)
        self.assertEqual(self.said_to(self.child)[0]["error"]["code"], -32601)

    def test_streams(self) -> None:
        """Each is one of the child's, under the client's id."""
        one, two = self.listen("s", toolsListChanged=True), self.listen("s")
        self.assertEqual(one.messages, [])
        for number, client in enumerate((one, two)):
            self.tell(self.child, number, ACKNOWLEDGED)
            (message,) = client.messages
            self.assertEqual(message["params"]["_meta"], {SUBSCRIPTION: "s"})
        self.tell(self.child, 0)
        self.assertEqual((self.heard(one), self.heard(two)), ([(TOOLS, "s")], []))
        self.notify(self.child, TOOLS, _meta={SUBSCRIPTION: 99})
        self.notify(self.child, TOOLS)
        self.assertEqual((len(self.heard(one)), len(self.heard(two))), (1, 0))

    def test_client_that_leaves(self) -> None:
        """Its stream is cancelled at the child."""
        client = self.listen(1)
        self.acknowledge(self.child)
        client.leave()
        (cancelled,) = self.calls(self.child, "notifications/cancelled")
        request = self.calls(self.child, "subscriptions/listen")[0]
        self.assertEqual(cancelled["params"]["requestId"], request["id"])

    def test_end_by_the_child(self) -> None:
        """As an answer, or taken back: in good order for the client."""
        one, two = self.listen("s"), self.listen("t")
        first, second = self.calls(self.child, "subscriptions/listen")
        self.acknowledge(self.child)
        meta = {SUBSCRIPTION: first["id"]}
        self.reply(self.child, first["id"], {"resultType": "complete", "_meta": meta})
        self.assertEqual(one.answer["result"]["_meta"], {SUBSCRIPTION: "s"})
        self.notify(self.child, "notifications/cancelled", requestId=second["id"])
        self.assertEqual(two.answer["id"], "t")
        self.assertEqual(two.answer["result"]["_meta"][SUBSCRIPTION], "t")

    def test_refused_stream(self) -> None:
        """The client gets the error."""
        client = self.listen("s")
        request = self.calls(self.child, "subscriptions/listen")[0]
        error = {"code": -32601, "message": "no"}
        self.say(self.child, id=request["id"], error=error)
        self.assertEqual((client.answer["error"], client.status), (error, 404))
        self.assertEqual(client.answer["id"], "s")

    def test_next_child(self) -> None:
        """Has the same streams; its acknowledgement is not repeated."""
        client = self.listen("s", toolsListChanged=True)
        self.acknowledge(self.child)
        self.child.exit(1)
        self.assertEqual(client.answers, [])
        self.send_modern(modern(2, name="echo"))
        self.acknowledge(self.child)
        self.tell(self.child, 0)
        self.assertEqual(self.heard(client), [(TOOLS, "s")])

    def test_two_children_for_a_while(self) -> None:
        """The end of the older one is not the end of the stream."""
        client = self.listen("s", toolsListChanged=True)
        self.acknowledge(self.child)
        for call in (False, True):
            old = self.child
            if call:
                self.send_modern(modern(2))
            self.clock.advance(10)
            later = int(self.clock.seconds()) + 3600
            self.registry.population.rotate_user(1, later + 1)
            self.assertEqual(len(self.living), 1 + call)
            self.acknowledge(self.child)
            self.tell(self.child, 0)
            if call:
                self.tell(old, 0)
                self.reply(old, self.calls(old)[0]["id"], {})
        self.assertEqual(len(self.living), 1)
        self.assertEqual((len(self.heard(client)), client.answers), (2, []))
        client.leave()
        self.assertEqual(len(self.calls(self.child, "notifications/cancelled")), 1)

    def test_child_of_another_era(self) -> None:
        """After an upgrade, and back again: the stream goes on."""
        client = self.listen("s", toolsListChanged=True)
        self.acknowledge(self.child)
        for number, versions in enumerate((None, self.versions), 1):
            self.versions = versions
            self.identity = b"%d" % number
            self.child.exit(1)
            self.clock.advance(60)
            self.send_modern(modern(2, name="echo"))
            if versions is None:
                self.notify(self.child, TOOLS)
            else:
                self.acknowledge(self.child)
                self.tell(self.child, 0)
            self.assertEqual(len(self.heard(client)), number)

    def test_stream_does_not_keep_the_child_awake(self) -> None:
        """As for any other child."""
        client = self.listen("s")
        self.clock.advance(900)
        self.successResultOf(Deferred.fromCoroutine(self.registry.reap(900, 10**6)))
        self.assertEqual((self.living, client.answers), ([], []))
        client.leave()
        self.assertEqual(len(self.registry), 0)

    def test_program_that_speaks_less_than_before(self) -> None:
        """What was known is forgotten, and the child asked anew."""
        self.send_modern(modern(1, name="echo"))
        self.child.exit(1)
        self.versions = None
        client = self.send_modern(modern(2, name="echo"))
        self.assertIn("result", client.answer)
        self.assertEqual(len(self.calls(self.child, "initialize")), 1)
        self.child.exit(1)
        self.clock.advance(60)
        self.send_modern(modern(3, name="echo"))
        self.assertEqual(self.calls(self.child, "server/discover"), [])
