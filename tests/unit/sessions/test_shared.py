"""Requests of the stateless revisions that share the child of their grant."""

from twisted.internet.defer import Deferred

from fjmcp_broker.mcp.modern.profiles import ChildEra
from fjmcp_broker.sessions.children.population import Limits
from fjmcp_broker.sessions.errors import SessionGone, Stopping, TooManySessions
from fjmcp_broker.sessions.stateless.workplace import DOUBT_SECONDS
from fjmcp_broker.upstream.errors import SignInNeeded
from tests.relay_stubs import principal
from tests.unit.sessions.shared_world import INFO, Client, SharedWorld, modern

IDLE_SECONDS = 900
UNUSED_SECONDS = 30 * 24 * 3600


class SharingTests(SharedWorld):
    """Connections that know nothing of each other."""

    def test_equal_ids(self) -> None:
        """Each gets its own answer, and one child serves all."""
        one = self.send_modern(modern(1, arguments={"who": "one"}))
        two = self.send_modern(modern(1, arguments={"who": "two"}))
        three = self.send_modern(modern("1", arguments={"who": "three"}))
        for call in reversed(self.calls(self.child)):
            self.reply(self.child, call["id"], call["params"]["arguments"])
        for client, who in ((one, "one"), (two, "two"), (three, "three")):
            self.assertEqual(client.answer["result"]["who"], who)
            self.assertEqual(client.status, 200)
        self.assertEqual((one.answer["id"], three.answer["id"]), (1, "1"))
        self.assertEqual(len(self.spawner.processes), 1)

    def test_other_people(self) -> None:
        """Have a child of their own."""
        self.send_modern(modern())
        self.send_modern(modern(), self.bob)
        tokens = [
            process.environment["FORGEJO_ACCESS_TOKEN"]
            for process in self.spawner.processes
        ]
        self.assertEqual(tokens, ["forgejo-token-of-1", "forgejo-token-of-2"])

    def test_what_goes_to_an_old_child(self) -> None:
        """Nothing that it would not know; the broker has introduced itself."""
        self.send_modern(modern(7, name="echo", arguments={"a": 1}))
        first, second, third, call = self.received(self.child)
        self.assertEqual(first["method"], "server/discover")
        self.assertEqual(second["params"]["clientInfo"]["name"], "fjmcp-broker")
        self.assertEqual(third["method"], "notifications/initialized")
        self.assertEqual(call["params"], {"name": "echo", "arguments": {"a": 1}})

    def test_what_comes_back(self) -> None:
        """The form of the revision."""
        client = self.send_modern(modern(7, "tools/list"))
        result = client.answer["result"]
        self.assertEqual(result["resultType"], "complete")
        self.assertEqual(result["cacheScope"], "private")
        self.assertEqual(result["_meta"]["io.modelcontextprotocol/serverInfo"], INFO)
        client = self.send_modern(modern(8))
        error = {"code": -32601, "message": "no"}
        self.say(self.child, id=self.calls(self.child)[-1]["id"], error=error)
        self.assertEqual((client.answer["error"], client.status), (error, 404))

    def test_progress(self) -> None:
        """Comes with the client's own token, to that client alone."""
        one = self.send_modern(modern(1, token="t"))
        two = self.send_modern(modern(2, token="t"))
        three = self.send_modern(modern(3))
        for number, call in enumerate(self.calls(self.child)):
            token = call["params"].get("_meta", {}).get("progressToken", call["id"])
            self.notify(
                self.child,
                "notifications/progress",
                progressToken=token,
                progress=number,
            )
        for number, client in enumerate((one, two)):
            (message,) = client.messages
            self.assertEqual(
                message["params"], {"progressToken": "t", "progress": number}
            )
        self.assertEqual(three.messages, [])

    def test_client_that_leaves(self) -> None:
        """Its request is cancelled, and a late answer goes nowhere."""
        one, two = self.send_modern(modern(1)), self.send_modern(modern(1))
        first, second = self.calls(self.child)
        one.leave()
        (cancelled,) = self.calls(self.child, "notifications/cancelled")
        self.assertEqual(cancelled["params"]["requestId"], first["id"])
        self.reply(self.child, first["id"], {})
        self.reply(self.child, second["id"], {})
        self.assertEqual((one.answers, len(two.answers)), ([], 1))
        one.leave()
        two.leave()
        self.assertEqual(len(self.calls(self.child, "notifications/cancelled")), 1)

    def test_child_that_ends(self) -> None:
        """Every waiting one is told, nothing is made again, the next one works."""
        clients = [self.send_modern(modern(number)) for number in range(3)]
        old = self.child
        old.exit(9)
        for number, client in enumerate(clients):
            self.assertEqual(client.answer["id"], number)
            self.assertEqual(client.answer["error"]["data"], {"reason": "child_exited"})
        client = self.send_modern(modern(9, name="echo"))
        self.assertIn("result", client.answer)
        self.assertEqual(len(self.calls(self.child)), 1)

    def test_catalogue(self) -> None:
        """Is that of the child."""
        self.assertEqual(dict(self.lease(modern()).catalogue.tools), {})
        self.assertIs(self.profiles.known() and self.profiles.known().era, LEGACY)  # type: ignore[union-attr]


LEGACY = ChildEra.LEGACY


class LogTests(SharedWorld):
    """Messages of an old child that name no request."""

    def log(self, level: str, data: str) -> None:
        """The child logs."""
        self.notify(self.child, "notifications/message", level=level, data=data)

    def test_only_one_in_flight(self) -> None:
        """Gets what it asked for."""
        client = self.send_modern(modern(log_level="warning"))
        for level in ("debug", "warning", "error"):
            self.log(level, level)
        said = [message["params"]["data"] for message in client.messages]
        self.assertEqual(said, ["warning", "error"])
        self.assertEqual(self.calls(self.child, "logging/setLevel"), [])

    def test_nobody_asked(self) -> None:
        """Nobody gets any."""
        client = self.send_modern(modern())
        self.log("error", "x")
        self.assertEqual(client.messages, [])

    def test_two_in_flight(self) -> None:
        """Nobody gets any: it could be the other's."""
        one = self.send_modern(modern(log_level="debug"))
        two = self.send_modern(modern())
        self.log("error", "x")
        self.assertEqual(one.messages + two.messages, [])

    def test_one_was_given_up(self) -> None:
        """The child may still be at it, for a while."""
        one = self.send_modern(modern())
        two = self.send_modern(modern(log_level="debug"))
        one.leave()
        self.log("error", "early")
        self.clock.advance(DOUBT_SECONDS)
        self.log("error", "late")
        self.assertEqual([m["params"]["data"] for m in two.messages], ["late"])

    def test_unknown_notification(self) -> None:
        """Passes likewise."""
        client = self.send_modern(modern())
        self.notify(self.child, "notifications/com.example/x", a=1)
        self.assertEqual(client.methods, ["notifications/com.example/x"])


class LifeTests(SharedWorld):
    """Children that come and go."""

    limits = Limits(total=2, per_user=1)

    def reap(self) -> None:
        """One tick."""
        self.successResultOf(
            Deferred.fromCoroutine(self.registry.reap(IDLE_SECONDS, UNUSED_SECONDS))
        )

    def test_idle_child_sleeps(self) -> None:
        """And the next request wakes another one."""
        self.send_modern(modern(name="echo"))
        self.clock.advance(IDLE_SECONDS)
        self.reap()
        self.assertEqual((self.living, len(self.registry)), ([], 0))
        self.assertIn("result", self.send_modern(modern(name="echo")).answer)

    def test_busy_child_does_not(self) -> None:
        """However long its call takes."""
        self.send_modern(modern())
        self.clock.advance(3000)
        self.reap()
        self.assertEqual(len(self.living), 1)

    def test_limits(self) -> None:
        """Hold as for any other session."""
        other = principal(1, "g_other")
        self.send_modern(modern())
        self.assertIsInstance(self.refused(modern(), other), TooManySessions)
        self.reply(self.child, self.calls(self.child)[0]["id"], {})
        self.send_modern(modern(), other)
        self.assertEqual(len(self.living), 1)

    def test_user_who_has_to_sign_in(self) -> None:
        """Is told so, and goes on afterwards."""
        client = self.send_modern(modern())
        self.registry.suspend_user(1)
        self.assertEqual(client.answer["error"]["data"], {"reason": "user_suspended"})
        self.assertEqual(self.living, [])
        self.tokens.error = SignInNeeded("again")
        self.assertIsInstance(self.refused(modern()), SignInNeeded)
        self.tokens.error = None
        self.send_modern(modern())

    def test_grant_that_ends(self) -> None:
        """Its children are killed, and a request that is on its way finds nothing."""
        client = self.send_modern(modern())
        session = self.registry.shared(self.alice)
        self.registry.close_grant("g_1")
        self.assertEqual(client.answer["error"]["data"], {"reason": "grant_ended"})
        self.assertEqual((self.living, len(self.registry)), ([], 0))
        self.assertRaises(SessionGone, self.registry.shared, self.alice)
        self.failureResultOf(
            Deferred.fromCoroutine(session.awake(modern())), SessionGone
        )
        self.send_modern(modern(), self.bob)

    def test_child_that_is_there(self) -> None:
        """A request goes to it at once, for as long as its token is good."""
        session = self.registry.shared(self.alice)
        self.assertIsNone(session.take_up(modern()))
        self.send_modern(modern())
        lease = session.take_up(modern())
        assert lease is not None
        lease.begin(modern(id=2), Client())
        self.assertEqual(len(self.calls(self.child)), 2)
        self.clock.advance(3600 - 25)
        self.assertIsNone(session.take_up(modern()))
        self.registry.close_grant("g_1")
        self.assertIsNone(session.take_up(modern()))

    def test_grant_that_ends_before_its_first_child(self) -> None:
        """None is started for a request that is on its way."""
        session = self.registry.shared(self.alice)
        self.registry.close_grant("g_1")
        self.failureResultOf(
            Deferred.fromCoroutine(session.awake(modern())), SessionGone
        )
        self.assertEqual(self.spawner.processes, [])

    def test_grant_that_ends_while_its_child_starts(self) -> None:
        """No child stays."""
        self.manual.add("initialize")
        session = self.registry.shared(self.alice)
        waiting = Deferred.fromCoroutine(session.awake(modern()))
        self.registry.close_grant("g_1")
        self.failureResultOf(waiting, SessionGone)
        self.assertEqual(self.living, [])

    def test_rotation(self) -> None:
        """New requests go to the new child; the old one finishes what it has."""
        client = self.send_modern(modern())
        old = self.child
        later = int(self.clock.seconds()) + 3600
        self.clock.advance(10)
        self.registry.population.rotate_user(1, later + 1)
        self.send_modern(modern(2, name="echo"))
        self.assertEqual((len(self.calls(old)), len(self.calls(self.child))), (1, 1))
        self.reply(old, self.calls(old)[0]["id"], {})
        self.assertIn("result", client.answer)
        self.assertTrue(old.exited)

    def test_stop(self) -> None:
        """Waits for calls, then takes nothing more."""
        client = self.send_modern(modern())
        stopping = Deferred.fromCoroutine(self.registry.stop(10))
        self.assertRaises(Stopping, self.registry.shared, self.alice)
        self.assertNoResult(stopping)
        self.reply(self.child, self.calls(self.child)[0]["id"], {})
        self.assertIn("result", client.answer)
        self.clock.advance(0)
        self.successResultOf(stopping)
