"""C{Mcp-Param-*} headers against the arguments of a tool."""

import json
from typing import Any

from fjmcp_broker.sessions.errors import ChildCannotStart
from tests.unit.web.mcp_world import Wire
from tests.unit.web.modern_case import FakeCall, FakeShared, ModernCase, modern

REGION = {"type": "string", "x-mcp-header": "Region"}


def tools(*names: str, cursor: str | None = None, **properties: Any) -> bytes:
    """A page of tools that all have those arguments."""
    page: dict[str, Any] = {
        "tools": [
            {"name": name, "inputSchema": {"type": "object", "properties": properties}}
            for name in names
        ]
    }
    if cursor is not None:
        page["nextCursor"] = cursor
    return json.dumps(page).encode()


class ParameterTests(ModernCase):
    """The list of a child's tools says which there are."""

    def setUp(self) -> None:
        """A child with one tool that has one."""
        super().setUp()
        self.shared.tools = tools("query", region=REGION)

    def query(self, arguments: Any, header: str | None, tool: str = "query") -> Wire:
        """A call."""
        message = modern(1, name=tool, arguments=arguments)
        return self.ask(message, headers={"Mcp-Param-Region": header})

    def refused(self, arguments: Any, header: str | None) -> None:
        """Check that a call is."""
        before = len(self.shared.calls)
        wire = self.query(arguments, header)
        self.assertEqual((wire.status, wire.json["error"]["code"]), (400, -32020))
        self.assertEqual(len(self.shared.calls), before)

    def accepted(self, *arguments: Any) -> None:
        """Check that a call is."""
        before = len(self.shared.calls)
        self.query(*arguments)
        self.assertEqual(len(self.shared.calls), before + 1)

    def test_headers(self) -> None:
        """As the table of the specification has it; the child is asked once."""
        self.accepted({"region": "eu"}, "eu")
        self.accepted({"region": "é"}, "=?base64?w6k=?=")
        self.accepted({"region": None}, None)
        self.accepted({}, None)
        self.refused({"region": "eu"}, "us")
        self.refused({"region": "eu"}, None)
        self.refused({"region": "eu"}, "=?base64?!?=")
        self.refused({}, "eu")
        self.assertEqual(self.shared.listings, 1)

    def test_header_that_no_tool_knows(self) -> None:
        """Is ignored."""
        self.shared.tools = tools("query")
        self.accepted({"region": "eu"}, "us")

    def test_list_of_a_client(self) -> None:
        """Is as good as asking."""
        self.ask(modern(1, "tools/list"))
        self.call.result(self.shared.tools)
        self.refused({"region": "eu"}, "us")
        self.assertEqual(self.shared.listings, 0)

    def test_page_of_a_client(self) -> None:
        """Is not: there are other tools."""
        for message, page in (
            (modern(1, "tools/list"), tools("other", cursor="c")),
            (modern(1, "tools/list", cursor="c"), tools("other")),
        ):
            self.ask(message)
            self.call.result(page)
        self.refused({"region": "eu"}, "us")
        self.assertEqual(self.shared.listings, 1)

    def test_pages(self) -> None:
        """All of them count."""
        pages = [tools("query", region=REGION), tools("other", cursor="b\u00e9")]
        asked: list[Any] = []

        def listed(call: FakeCall) -> None:
            asked.append(json.loads(call.modern.request.params or b"")["_meta"])
            asked[-1] = json.loads(call.modern.request.members.get("cursor", b"null"))
            call.result(pages.pop())

        self.shared.listed = listed
        self.refused({"region": "eu"}, "us")
        self.assertEqual(asked, [None, "b\u00e9"])

    def test_pages_without_end(self) -> None:
        """Are given up at some time."""
        self.shared.tools = tools("other", cursor="again")
        self.accepted({"region": "eu"}, "us")
        self.assertEqual(self.shared.listings, 20)

    def test_list_that_has_changed(self) -> None:
        """A call that does not fit an older list lets the child be asked again."""
        self.accepted({"region": "eu"}, "eu")
        self.clock.advance(9)
        self.refused({"region": "eu"}, None)
        self.shared.tools = tools("query", "new", region={"type": "string"})
        self.refused({"region": "eu"}, None)
        self.clock.advance(1)
        self.accepted({"region": "eu"}, None)
        self.assertEqual(self.shared.listings, 2)

    def test_new_tool(self) -> None:
        """So does a tool that it does not have."""
        self.accepted({"region": "eu"}, "eu")
        self.clock.advance(10)
        self.shared.tools = tools("query", "new", region=REGION)
        wire = self.query({"region": "eu"}, None, "new")
        self.assertEqual(wire.status, 400)

    def test_old_list(self) -> None:
        """Is fetched again, and when another program is to be started."""
        self.accepted({"region": "eu"}, "eu")
        self.clock.advance(300)
        self.accepted({"region": "eu"}, "eu")
        self.fakes.profiles.name = b"another program"
        self.accepted({"region": "eu"}, "eu")
        self.assertEqual(self.shared.listings, 3)

    def test_child_that_does_not_answer(self) -> None:
        """Nothing is held against the call; the question is taken back."""
        asked: list[FakeCall] = []
        self.shared.listed = asked.append
        for _ in range(3):
            self.query({"region": "eu"}, "us")
        self.assertEqual((len(asked), self.shared.calls), (1, []))
        self.clock.advance(5)
        self.assertEqual((asked[0].abandoned, len(self.shared.calls)), (1, 3))

    def test_pages_that_come_slowly(self) -> None:
        """All of them have five seconds together."""
        asked: list[FakeCall] = []
        self.shared.listed = asked.append
        self.query({"region": "eu"}, "us")
        for number in (1, 2):
            self.clock.advance(2)
            asked[-1].result(tools("other", cursor="again"))
            self.assertEqual((len(asked), self.shared.calls), (number + 1, []))
        self.clock.advance(1)
        self.assertEqual(asked[-1].abandoned, 1)
        self.assertEqual((len(asked), len(self.shared.calls)), (3, 1))

    def test_child_without_tools(self) -> None:
        """The call goes to it all the same."""

        def listed(call: FakeCall) -> None:
            call.error(b'{"code":-32601,"message":"no"}', 404)

        self.shared.listed = listed
        self.accepted({"region": "eu"}, "us")

    def test_child_that_cannot_start(self) -> None:
        """Everybody who waits is told."""
        self.shared.holding = []
        wires = [self.query({"region": "eu"}, "eu") for _ in range(2)]
        self.shared.error = ChildCannotStart("no")
        self.shared.release()
        self.assertEqual([wire.status for wire in wires], [502, 502])
        self.shared.error = None
        self.accepted({"region": "eu"}, "eu")

    def test_client_leaves_meanwhile(self) -> None:
        """The call is not made."""
        asked: list[FakeCall] = []
        self.shared.listed = asked.append
        wire = self.query({"region": "eu"}, "eu")
        wire.depart()
        asked[0].result(self.shared.tools)
        self.assertEqual(self.shared.calls, [])

    def test_retry(self) -> None:
        """Is held against what is known; no child is asked for its sake."""
        arguments = {"region": "eu"}
        for region, known in (("us", False), ("eu", True), ("us", True)):
            message = modern(1, name="query", arguments=arguments, requestState="s")
            if known:
                self.accepted(arguments, "eu")
            wire = self.ask(message, headers={"Mcp-Param-Region": region})
            is_refused = known and region == "us"
            self.assertEqual(wire.status, 400 if is_refused else None)
            self.assertEqual(self.shared.listings, int(known))

    def test_other_grants(self) -> None:
        """Have children of their own."""
        self.accepted({"region": "eu"}, "eu")
        other = self.fakes.by_grant["g_2"] = FakeShared()
        message = modern(1, name="query", arguments={"region": "eu"})
        self.ask(message, token="bob")
        self.assertEqual((other.listings, len(other.calls)), (1, 1))
