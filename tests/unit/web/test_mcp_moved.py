"""GET streams whose session moves to another grant, or whose right has ended."""

import json
from typing import Any

from msgspec.structs import replace

from fjmcp_broker.oauth.vocabulary import Policy
from tests.fakes import FakeProcess
from tests.relay_stubs import principal
from tests.unit.web.mcp_world import Wire, request
from tests.unit.web.test_mcp_streams import CHANGED, StreamCase


class MovedTests(StreamCase):
    """A session that another grant adopts while somebody listens."""

    def setUp(self) -> None:
        """The client may read, and its person allows it more later."""
        super().setUp()
        self.authenticator.principals |= {
            "hidden": principal(1, "g_hidden", policy=Policy.READ_ONLY),
            "asked": principal(1, "g_asked", policy=Policy.READ_ONLY_REQUESTED),
        }

    def listening(self, token: str) -> Wire:
        """Open a session and its GET stream with a token."""
        self.session = self.open(token, version="2025-11-25")
        wire = self.get(token=token)
        self.assertEqual(wire.status, 200)
        return wire

    def test_stepping_up(self) -> None:
        """
        The stream of the old token ends with the first request of the new one, whose
        answer says that there are more tools. The next stream is the new grant's.
        """
        old = self.listening("hidden")
        listed = self.send(request(2, "tools/list"), self.session)
        self.assertEqual(listed.events[0], CHANGED)
        self.assertEqual(listed.events[1]["id"], 2)
        self.assertTrue(old.body.endswith(b"\n\n"))
        self.assertEqual((old.events, self.is_over(old)), ([], True))
        wire = self.get()
        self.child_of(self.session).say(json.dumps(CHANGED).encode())
        self.assertEqual((wire.events, old.events), ([CHANGED], []))
        self.registry.close_grant("g_hidden")
        self.assertFalse(self.is_over(wire))

    def test_stream_comes_first(self) -> None:
        """A client whose stream comes back before any call is told on it."""
        old = self.listening("hidden")
        wire = self.get(last=self.ids(old)[-1])
        self.assertEqual((wire.events, self.is_over(old)), ([CHANGED], True))
        again = self.send(request(2, "tools/list"), self.session)
        self.assertEqual(again.headers["content-type"], "application/json")

    def test_same_tools(self) -> None:
        """What was listed before, only refused, is no news."""
        old = self.listening("asked")
        again = self.send(request(2, "tools/list"), self.session)
        self.assertEqual(again.headers["content-type"], "application/json")
        self.assertTrue(self.is_over(old))

    def test_fewer_tools(self) -> None:
        """A person who takes the writing tools away is no different."""
        self.listening("asked")
        again = self.send(request(2, "tools/list"), self.session, token="hidden")
        self.assertEqual(again.events[0], CHANGED)

    def test_notification(self) -> None:
        """It moves the session as well, and what it leaves untold comes later."""
        old = self.listening("hidden")
        sent = self.send({"jsonrpc": "2.0", "method": "notifications/x"}, self.session)
        self.assertEqual((sent.status, self.is_over(old)), (202, True))
        listed = self.send(request(2, "tools/list"), self.session)
        self.assertEqual(listed.events[0], CHANGED)

    def test_reader_that_stopped_reading(self) -> None:
        """It holds nothing up, and gets nothing of what comes later."""
        old = self.listening("hidden")
        producer: Any = old.producer
        producer.pauseProducing()
        self.send(request(2, "tools/list"), self.session)
        wire = self.get()
        self.child_of(self.session).say(json.dumps(CHANGED).encode())
        self.assertEqual((wire.events, old.events), ([CHANGED], []))

    def is_over(self, wire: Wire) -> bool:
        """Whether the answer has had its end."""
        return bool(wire.value().endswith(b"0\r\n\r\n"))

    def child_of(self, session: str) -> FakeProcess:
        """The child of the newest session."""
        return self.spawner.processes[-1]


class EndedRightTests(StreamCase):
    """Whose right has ended keeps nothing open."""

    def setUp(self) -> None:
        """Two tokens of one grant."""
        super().setUp()
        known = self.authenticator.principals
        known["other"] = replace(known["alice"], token_digest=b"other")

    def test_revoked_token(self) -> None:
        """The stream that it opened ends; the other token's, and calls, go on."""
        ends, stays = self.get(token="other"), self.get()
        call, id = self.call()
        self.site.end_streams(lambda who: who.token_digest == b"other")
        self.assertTrue(ends.value().endswith(b"0\r\n\r\n"))
        self.say(CHANGED)
        self.assertEqual(stays.events, [CHANGED])
        self.say({"jsonrpc": "2.0", "id": id, "result": {}})
        self.assertEqual(call.events[-1]["result"], {})

    def test_ended_grant_whose_session_has_moved(self) -> None:
        """Its call is cut off with its connection; the child lives for the other."""
        self.authenticator.principals["again"] = principal(1, "g_again")
        call, id = self.call()
        mine = self.get(token="again")
        self.registry.close_grant("g_1")
        self.site.end_streams(lambda who: who.grant_id == "g_1", calls=True)
        self.assertTrue(call.disconnecting)
        self.assertFalse(mine.disconnecting)
        self.say({"jsonrpc": "2.0", "id": id, "result": {}})
        self.say(CHANGED)
        self.assertEqual(mine.events, [CHANGED])

    def test_token_revoked_during_the_look_up(self) -> None:
        """It opens nothing."""
        self.authenticator.holding = []
        wire = self.get()
        del self.authenticator.principals["alice"]
        self.authenticator.release()
        self.assertEqual(wire.status, 401)
        self.assertIn("invalid_token", wire.headers["www-authenticate"])
