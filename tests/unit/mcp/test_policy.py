"""What a grant may do, and what clients are told about the tools."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.catalogue import CatalogueError, Tool, ToolCatalogue
from fjmcp_broker.mcp.messages import (
    Message,
    MessageError,
    Notification,
    Request,
    Response,
    parse,
)
from fjmcp_broker.mcp.policy import Allowed, Policy, Refused, decide, overlay
from fjmcp_broker.oauth import vocabulary

CATALOGUE = ToolCatalogue.packaged()
READ_ONLY = (Policy.READ_ONLY, Policy.READ_ONLY_REQUESTED)
FORGEJO_MCP = b'{"serverInfo":{"name":"Forgejo MCP Server","version":"dev"}}'


def call(name: object) -> Message:
    """A call as a client would send it."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}
    return parse(json.dumps(body).encode())


class DecideTests(SynchronousTestCase):
    """Which messages pass."""

    def assert_allowed(self, policy: Policy, message: Message) -> None:
        """The message passes."""
        self.assertIsInstance(decide(policy, message, CATALOGUE), Allowed, message)

    def assert_refused(
        self, message: Message, catalogue: ToolCatalogue = CATALOGUE
    ) -> None:
        """A read-only grant is told what scope it needs, and a full one passes."""
        for policy in READ_ONLY:
            decision = decide(policy, message, catalogue)
            assert isinstance(decision, Refused), message
            self.assertEqual(decision.scope, "write")
        self.assertIsInstance(decide(Policy.FULL, message, catalogue), Allowed)

    def test_reading_tools(self) -> None:
        """A read-only grant may read."""
        for policy in Policy:
            self.assert_allowed(policy, call("get_issue_by_index"))

    def test_writing_tools_need_the_write_scope(self) -> None:
        """403 insufficient_scope (RFC 6750 section 3.1)."""
        self.assert_refused(call("create_issue"))

    def test_default_deny(self) -> None:
        """Unclassified tools, unknown methods, a name that is no name."""
        for name in ("", "no_such_tool", "Get_issue_by_index", "get_issue_by_index "):
            self.assert_refused(call(name))
        for value in (None, 1, ["get_issue_by_index"], {"a": 1}):
            self.assert_refused(call(value))
        self.assert_refused(Request(b"1", "tools/call"))
        for method in ("tools/Call", "x/y", "tasks/cancel", "completion/complete"):
            self.assert_refused(Request(b"1", method))

    def test_messages_without_an_id(self) -> None:
        """A call without an id is no way around; real notifications are."""
        for policy in Policy:
            self.assert_allowed(policy, Notification("notifications/cancelled"))
            self.assert_allowed(policy, Response(b"1", b"{}"))
        self.assert_refused(
            Notification("tools/call", b"{}", {"name": b'"get_issue_by_index"'})
        )
        self.assert_refused(Notification("tools/list"))

    def test_protocol_methods(self) -> None:
        """Without them there would be no session to read in."""
        for policy in Policy:
            for method in ("initialize", "ping", "tools/list", "resources/read"):
                self.assert_allowed(policy, Request(b"1", method))

    def test_denied_to_everybody(self) -> None:
        """
        It can send the token to a foreign host. No scope helps, no spelling of the
        name, and no other name of the child.
        """
        other = CATALOGUE.for_server(b'{"serverInfo":{"name":"other"}}')
        body = (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
            b'{"name":"download\\u005frelease_attachment"}}'
        )
        for policy in Policy:
            for catalogue in (CATALOGUE, other):
                decision = decide(policy, parse(body), catalogue)
                assert isinstance(decision, Refused)
                self.assertIsNone(decision.scope)

    def test_operator_may_allow_a_denied_tool(self) -> None:
        """Then it counts as what it is classified as."""
        catalogue = CATALOGUE.allowing(["download_release_attachment"])
        message = call("download_release_attachment")
        self.assertIsInstance(decide(Policy.READ_ONLY, message, catalogue), Allowed)

    def test_other_children_are_not_classified(self) -> None:
        """Their tool of the same name may do anything."""
        for result in (b'{"serverInfo":{"name":"other"}}', b"{}", b"x", b"[" * 20_000):
            other = CATALOGUE.for_server(result)
            self.assert_refused(call("get_issue_by_index"), other)
            self.assert_refused(Request(b"1", "resources/read"), other)
        self.assertIs(CATALOGUE.for_server(FORGEJO_MCP), CATALOGUE)

    def test_name_variants_cannot_pass(self) -> None:
        """Go would read the last of these names (design, relay: key rules)."""
        for params in (
            '{"name":"get_org","Name":"delete_org"}',
            '{"name":"get_org","name":"delete_org"}',
            '{"name":"get_org","\\u006eame":"delete_org"}',
            '{"NAME":"delete_org","name":"get_org"}',
        ):
            head = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
            body = head + params + "}"
            self.assertRaises(MessageError, parse, body.encode())

    def test_values_are_those_of_the_grants(self) -> None:
        """The two halves of the software say the same; what nobody knows is refused."""
        self.assertIs(vocabulary.Policy, Policy)
        self.assertIsInstance(decide("", call("create_issue"), CATALOGUE), Refused)


class CatalogueTests(SynchronousTestCase):
    """The data file."""

    def test_packaged_file(self) -> None:
        """Every tool has a title, and what reads destroys nothing."""
        self.assertGreaterEqual(len(CATALOGUE.tools), 141)
        for tool in CATALOGUE.tools.values():
            self.assertTrue(tool.title[0].isupper() and not tool.title.endswith("."))
            if not tool.writes:
                self.assertTrue(tool.idempotent and not tool.destructive, tool.name)
        titles = {tool.title for tool in CATALOGUE.tools.values()}
        self.assertEqual(len(titles), len(CATALOGUE.tools))
        self.assertEqual(
            set(CATALOGUE.denied),
            {f"download_{of}_attachment" for of in ("comment", "issue", "release")},
        )

    def test_mistakes_in_the_file_are_found(self) -> None:
        """At start, not when a tool is called."""
        head = "servers = []\nmethods = []\n[denied]\n"
        group = '[[groups]]\nclass = "%s"\ndestructive = false\nidempotent = true\n'
        for text in (
            "servers = [",
            "servers = []",
            head + group % "reads" + "[groups.tools]\n",
            head + group % "read" + "tools = 5\n",
            head + group % "read" + "typo = 1\n[groups.tools]\n",
            head + (group % "read" + '[groups.tools]\na = "A"\n') * 2,
        ):
            self.assertRaises(CatalogueError, ToolCatalogue.from_toml, text)


KNOWN = ToolCatalogue(
    {
        "get": Tool("get", "Get it", False, False, True, False),
        "put": Tool("put", "Put it", True, True, False),
    },
    {"bad": "why"},
)


class OverlayTests(SynchronousTestCase):
    """The list of tools as the client sees it."""

    def test_known_tools_get_title_and_hints(self) -> None:
        """Every byte that this is not about stays."""
        result = (
            b'{ "x":1e400,"tools" : [ {"name":"get","inputSchema":{"x" : 1.0},'
            b'"annotations":{"readOnlyHint":false,"custom":1e5}} , {"name":"put"},'
            b'{"name":"other", "annotations":null}], "nextCursor":"\\u0061"}'
        )
        self.assertEqual(
            overlay(result, KNOWN, False),
            b'{ "x":1e400,"tools" : [{"name":"get","inputSchema":{"x" : 1.0},'
            b'"annotations":{"readOnlyHint":true,"custom":1e5,"destructiveHint":false,'
            b'"idempotentHint":true,"openWorldHint":false,"title":"Get it"},'
            b'"title":"Get it"},'
            b'{"name":"put","title":"Put it","annotations":{"readOnlyHint":false,'
            b'"destructiveHint":true,"idempotentHint":false,"title":"Put it"}},'
            b'{"name":"other", "annotations":null}], "nextCursor":"\\u0061"}',
        )

    def test_title_of_the_child_is_kept(self) -> None:
        """Wherever it stands."""
        for tool in (
            {"name": "get", "title": "Mine"},
            {"name": "get", "annotations": {"title": "Mine"}},
        ):
            result = json.dumps({"tools": [tool]}).encode()
            shown = json.loads(overlay(result, KNOWN, False))["tools"][0]
            self.assertNotIn("Get it", json.dumps(shown))
            self.assertIs(shown["annotations"]["readOnlyHint"], True)

    def test_hidden_tools(self) -> None:
        """
        Who chose read-only sees what reads; who may step up sees all but what nobody
        may call.
        """
        result = (
            b'{"tools":[{"name":"put"},{"name":"get"},{"name":"bad"},{"name":"x"}]}'
        )

        def names(hide: bool, annotate: bool) -> list[str]:
            shown = json.loads(overlay(result, KNOWN, hide, annotate=annotate))
            return [tool["name"] for tool in shown["tools"]]

        self.assertEqual(names(False, True), ["put", "get", "x"])
        self.assertEqual(names(True, True), ["get"])
        self.assertEqual(names(True, False), ["get"])

    def test_switched_off_changes_nothing(self) -> None:
        """The bytes of the child."""
        result = b'{"tools":[{"name":"bad"}, {"name":"get"}]}'
        self.assertIs(overlay(result, KNOWN, False, annotate=False), result)

    def test_what_is_not_understood_is_unchanged(self) -> None:
        """Calls are judged anyway; a list is only told."""
        for result in (
            *(b"{}", b"[]", b"null", b"x", b'{"tools":{}}', b'{"tools":[1]}'),
            *(
                b'{"tools":[{}]}',
                b'{"tools":[{"name":1}]}',
                b'{"tools":[],"tools":[{}]}',
            ),
            *(
                b'{"tools":[{"name":"get","annotations":[]}]}',
                b'{"tools":' + b"[" * 20_000,
            ),
        ):
            self.assertEqual(overlay(result, KNOWN, True), result)

    @given(
        st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["get", "put", "bad", "other"])},
                optional={
                    "title": st.text(max_size=3),
                    "annotations": st.none()
                    | st.dictionaries(
                        st.sampled_from(["title", "readOnlyHint", "x"]),
                        st.booleans() | st.integers(),
                    ),
                    "inputSchema": st.dictionaries(
                        st.text(), st.floats(allow_nan=False, allow_infinity=False)
                    ),
                },
            )
        ),
        st.sampled_from([None, 1]),
    )
    def test_only_titles_and_hints_change(
        self, tools: list[dict[str, object]], indent: int | None
    ) -> None:
        """Whatever a child lists, the rest arrives as it was."""
        result = json.dumps({"a": 1, "tools": tools, "b": 2}, indent=indent).encode()
        changed = json.loads(overlay(result, KNOWN, False))
        expected = [tool for tool in tools if tool["name"] != "bad"]
        self.assertEqual([changed["a"], changed["b"]], [1, 2])
        for shown, tool in zip(changed["tools"], expected, strict=True):
            for key in ("name", "inputSchema"):
                self.assertEqual(repr(shown.get(key)), repr(tool.get(key)))
            if tool["name"] == "get":
                self.assertIs(shown["annotations"]["readOnlyHint"], True)
