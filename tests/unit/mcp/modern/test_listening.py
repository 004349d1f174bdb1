"""Streams of notifications that clients chose."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.envelope import Notification
from fjmcp_broker.mcp.messages import parse_child_line
from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.mcp.modern.listening import (
    LISTEN,
    MAXIMUM_SUBSCRIPTIONS,
    META_SUBSCRIPTION,
    UPDATED,
    Changed,
    Filter,
    Listeners,
    acknowledgement,
    completion,
    ended,
    requested,
    subscription_of,
    tagged,
    tagged_result,
)
from fjmcp_broker.mcp.modern.translation import META_SERVER

from .cases import SERVER, modern

EVERYTHING = (
    b'{"tools":{"listChanged":true},"prompts":{"listChanged":true},'
    b'"resources":{"listChanged":true,"subscribe":true}}'
)
TOOLS_CHANGED = Notification("notifications/tools/list_changed")


def said(line: bytes) -> Notification:
    """
    @param line: of a child.
    @return: the notification.
    """
    message = parse_child_line(line)
    assert isinstance(message, Notification)
    return message


def updated(uri: str) -> Notification:
    """
    @param uri: of a resource.
    @return: what a child says when it changes.
    """
    written = {"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": uri}}
    return said(json.dumps(written).encode())


class FilterTests(SynchronousTestCase):
    """MCP 2026-07-28, subscriptions, notification filter."""

    def test_requested(self) -> None:
        """What is left out is not wanted; unknown kinds are ignored."""
        for notifications, expected in (
            ({}, Filter()),
            ({"toolsListChanged": None, "resourceSubscriptions": None}, Filter()),
            ({"toolsListChanged": True, "x": 1}, Filter(tools=True)),
            (
                {"promptsListChanged": True, "toolsListChanged": False},
                Filter(prompts=True),
            ),
            (
                {
                    "resourcesListChanged": True,
                    "resourceSubscriptions": ["b", "a", "b"],
                },
                Filter(resources=True, uris=("b", "a")),
            ),
        ):
            asked = modern(LISTEN, {"notifications": notifications})
            self.assertEqual(requested(asked), expected)

    def test_malformed(self) -> None:
        """Missing, of another type, or too much."""
        many = [str(i) for i in range(MAXIMUM_SUBSCRIPTIONS + 1)]
        cases: tuple[dict[str, object], ...] = (
            {},
            {"notifications": None},
            {"notifications": []},
            {"notifications": {"toolsListChanged": 1}},
            {"notifications": {"resourceSubscriptions": "a"}},
            {"notifications": {"resourceSubscriptions": [1]}},
            {"notifications": {"resourceSubscriptions": many}},
        )
        for params in cases:
            with self.assertRaises(ModernError) as caught:
                requested(modern(LISTEN, params))
            self.assertEqual(
                (caught.exception.status, caught.exception.code), (400, -32602)
            )

    def test_what_the_child_can(self) -> None:
        """Only that is acknowledged."""
        everything = Filter(True, True, True, ("a",))
        self.assertEqual(everything.supported_by(EVERYTHING), everything)
        self.assertEqual(everything.supported_by(b"{}"), Filter())
        partly = b'{"tools":{"listChanged":true},"resources":{"listChanged":false}}'
        self.assertEqual(everything.supported_by(partly), Filter(tools=True))
        odd = (
            b'{"tools":{"listChanged":"true"},"resources":{"subscribe":1},"prompts":7}'
        )
        self.assertEqual(everything.supported_by(odd), Filter())
        self.assertEqual(Filter().supported_by(EVERYTHING), Filter())

    def test_wants(self) -> None:
        """Exactly the chosen kinds; parts of a resource count as the resource."""
        prompts = Filter(prompts=True, uris=("file:///a", "repo://x/"))
        for notification, expected in (
            (TOOLS_CHANGED, False),
            (Notification("notifications/prompts/list_changed"), True),
            (Notification("notifications/message"), False),
            (Notification("notifications/progress"), False),
            (updated("file:///a"), True),
            (updated("file:///a/b"), True),
            (updated("file:///ab"), False),
            (updated("repo://x/y"), True),
            (Notification(UPDATED), False),
        ):
            self.assertEqual(prompts.wants(notification), expected, notification)


class MessageTests(SynchronousTestCase):
    """Everything on the stream names its subscription."""

    def test_acknowledgement(self) -> None:
        """MCP 2026-07-28, subscriptions, acknowledgment."""
        accepted = Filter(tools=True, uris=("file:///project/config.json",))
        self.assertEqual(
            json.loads(acknowledgement(b'"listen-1"', accepted)),
            {
                "jsonrpc": "2.0",
                "method": "notifications/subscriptions/acknowledged",
                "params": {
                    "_meta": {META_SUBSCRIPTION: "listen-1"},
                    "notifications": {
                        "toolsListChanged": True,
                        "resourceSubscriptions": ["file:///project/config.json"],
                    },
                },
            },
        )
        params = json.loads(acknowledgement(b"1", Filter()))["params"]
        self.assertEqual(params["notifications"], {})

    def test_the_end(self) -> None:
        """MCP 2026-07-28, subscriptions, graceful closure."""
        found = json.loads(ended(b"1", SERVER))
        self.assertEqual(
            found,
            {
                "jsonrpc": "2.0",
                "id": 1,
                "result": {
                    "resultType": "complete",
                    "_meta": {META_SUBSCRIPTION: 1, META_SERVER: json.loads(SERVER)},
                },
            },
        )
        self.assertEqual(
            json.loads(completion(b"1").result or b"")["_meta"], {META_SUBSCRIPTION: 1}
        )

    def test_tags(self) -> None:
        """The rest of the params keeps its bytes."""
        for params, expected in (
            (b'{ "uri":"u", "n":1.0 }', b'{ "uri":"u", "n":1.0 ,"_meta":%s}'),
            (b'{"_meta":{ "x": 1 },"uri":"u"}', b'{"_meta":{ "x": 1 ,%s,"uri":"u"}'),
            (b'{"_meta":null}', b'{"_meta":%s}'),
        ):
            line = b'{"jsonrpc":"2.0","method":"m","params":' + params + b"}"
            tag = b'{"%s":"s"}' % META_SUBSCRIPTION.encode()
            inner = tag[1:] if b'"x"' in params else tag
            found = tagged(said(line), b'"s"')
            wanted = b'{"jsonrpc":"2.0","method":"m","params":' + expected % inner
            self.assertEqual(found, wanted + b"}")
        bare = json.loads(tagged(TOOLS_CHANGED, b"2"))
        self.assertEqual(bare["params"], {"_meta": {META_SUBSCRIPTION: 2}})

    def test_tags_of_a_modern_child(self) -> None:
        """Its id of the subscription gives way to the client's."""
        line = b'{"jsonrpc":"2.0","method":"m","params":{"_meta":{"%s":17}}}'
        notification = said(line % META_SUBSCRIPTION.encode())
        self.assertEqual(subscription_of(notification), b"17")
        again = said(tagged(notification, b'"mine"'))
        self.assertEqual(subscription_of(again), b'"mine"')
        self.assertIsNone(subscription_of(TOOLS_CHANGED))
        result = b'{"resultType":"complete","_meta":{"%s":17}}'
        found = tagged_result(result % META_SUBSCRIPTION.encode(), b'"mine"')
        self.assertEqual(json.loads(found)["_meta"], {META_SUBSCRIPTION: "mine"})
        self.assertEqual(
            json.loads(tagged_result(b"{}", b"1"))["_meta"], {META_SUBSCRIPTION: 1}
        )
        self.assertEqual(tagged_result(b"7", b"1"), b"7")


class ListenersTests(SynchronousTestCase):
    """The streams of one child."""

    def test_deliveries(self) -> None:
        """Each gets what it chose, under its own id."""
        listeners: Listeners[str] = Listeners()
        listeners.add("a", b"1", Filter(tools=True))
        listeners.add("b", b'"1"', Filter(tools=True, prompts=True))
        listeners.add("c", b"1", Filter(uris=("u",)))
        self.assertEqual(len(listeners), 3)
        found = listeners.deliveries(TOOLS_CHANGED)
        self.assertEqual(
            [(key, json.loads(message)["params"]["_meta"]) for key, message in found],
            [("a", {META_SUBSCRIPTION: 1}), ("b", {META_SUBSCRIPTION: "1"})],
        )
        keys = [key for key, _message in listeners.deliveries(updated("u"))]
        self.assertEqual(keys, ["c"])
        with self.assertRaises(ValueError):
            listeners.add("a", b"2", Filter())
        self.assertEqual(listeners.remove("nobody"), Changed())

    @given(
        st.lists(
            st.tuples(st.integers(0, 3), st.lists(st.sampled_from("uvwx"), unique=True))
        )
    )
    def test_resources_are_counted(self, steps: list[tuple[int, list[str]]]) -> None:
        """The child watches exactly what some stream names, said once each way."""
        listeners: Listeners[int] = Listeners()
        open: dict[int, list[str]] = {}
        watched: set[str] = set()
        for key, uris in steps:
            if key in open:
                changed = listeners.remove(key)
                del open[key]
            else:
                changed = listeners.add(key, b"1", Filter(uris=tuple(uris)))
                open[key] = uris
            self.assertTrue(watched.isdisjoint(changed.subscribe))
            self.assertTrue(watched.issuperset(changed.unsubscribe))
            watched |= set(changed.subscribe)
            watched -= set(changed.unsubscribe)
            self.assertEqual(watched, {uri for uris in open.values() for uri in uris})
            self.assertEqual(set(listeners.uris), watched)
            self.assertEqual(len(listeners), len(open))
