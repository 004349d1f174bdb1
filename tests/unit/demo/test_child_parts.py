"""
The parts of the stand-in child that need no process.
"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.demo.child.api import ForgejoApi, ForgejoError, escape
from fjmcp_broker.demo.child.options import Options
from fjmcp_broker.demo.child.tools import ForgejoTools, Tool, ToolError, text_result


class RecordingApi(ForgejoApi):
    """
    Notes the calls instead of making them.
    """

    def __init__(self) -> None:
        super().__init__("http://forgejo.test", "token", "agent")
        self.calls: list[tuple[str, str, Any]] = []

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Note a call."""
        self.calls.append((method, path, body))
        if "refused" in path:
            raise ForgejoError("no")
        return {"data": []}


class ToolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.api = RecordingApi()
        self.tools = {tool.name: tool for tool in ForgejoTools(self.api).tools()}

    def test_paths_and_bodies(self) -> None:
        """Arguments go where Forgejo expects them, percent-encoded."""
        where = {"owner": "a/b", "repo": "r"}
        for name, arguments, call in (
            ("get_my_user_info", {}, ("GET", "/user", None)),
            (
                "list_my_repos",
                {"page": 1.0, "limit": 5},
                ("GET", "/user/repos?page=1&limit=5", None),
            ),
            (
                "search_repos",
                {"keyword": "ä b"},
                ("GET", "/repos/search?q=%C3%A4%20b", None),
            ),
            (
                "get_issue_by_index",
                where | {"index": 3.0},
                ("GET", "/repos/a%2Fb/r/issues/3", None),
            ),
            (
                "get_file_content",
                where | {"filePath": "x/y z", "ref": "main"},
                ("GET", "/repos/a%2Fb/r/contents/x/y%20z?ref=main", None),
            ),
            (
                "create_issue",
                where | {"title": "T", "body": "B", "key": "k"},
                ("POST", "/repos/a%2Fb/r/issues", {"title": "T", "body": "B"}),
            ),
        ):
            self.tools[name].run(arguments)
            self.assertEqual(self.api.calls.pop(), call)

    def test_errors_name_the_call(self) -> None:
        """What Forgejo says, after what was tried."""
        for arguments, text in (
            ({"owner": "refused", "repo": "r"}, "list branches err: no"),
            ({}, "list branches err: path segment [0] is empty"),
        ):
            error = self.assertRaises(
                ToolError, self.tools["list_branches"].run, arguments
            )
            self.assertEqual(str(error), text)

    def test_description(self) -> None:
        """A star marks a required argument; padding makes it longer."""
        tool = Tool("t", "d", "a:string* b:number", lambda _: None)
        described = tool.described("...")
        self.assertEqual(described["description"], "d...")
        self.assertEqual(
            described["inputSchema"],
            {
                "properties": {
                    "a": {"description": "a", "type": "string"},
                    "b": {"description": "b", "type": "number"},
                },
                "required": ["a"],
                "type": "object",
            },
        )

    def test_result(self) -> None:
        """One text block."""
        self.assertEqual(
            text_result("ä"), {"content": [{"type": "text", "text": '{"Result":"ä"}'}]}
        )


class TextTests(SynchronousTestCase):
    @given(st.text())
    def test_escape_leaves_safe_characters_only(self, text: str) -> None:
        """No text leaves its segment."""
        try:
            escaped = escape(text)
        except UnicodeEncodeError:
            return
        self.assertRegex(escaped, r"\A(?:[A-Za-z0-9._~-]|%[0-9A-F]{2})*\Z")

    def test_options(self) -> None:
        """Text, numbers and words, with defaults."""
        options = Options({"STANDIN_CHILD_A": "7", "STANDIN_CHILD_B": "x,,y", "C": "1"})
        self.assertEqual((options.number("A"), options.number("Z", 3)), (7, 3))
        self.assertEqual(options.words("B"), {"x", "y"})
        self.assertEqual((options.text("C"), options.words("C")), ("", frozenset()))
