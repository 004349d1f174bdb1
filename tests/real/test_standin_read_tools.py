"""
Every reading tool of the real forgejo-mcp gets a result from the stand-in Forgejo.
"""

from typing import Any

from tests.real.standin_driver import DrivenTestCase

READING = ("get_", "list_", "search_", "check_", "download_")
ARGUMENTS: dict[str, Any] = {
    "attachment_id": 1,
    "comment_id": 1,
    "filePath": "README.md",
    "id": 1,
    "index": 1,
    "job_id": 1,
    "keyword": "e",
    "limit": 10,
    "org": "friends",
    "owner": "alice",
    "page": 1,
    "page_name": "Home",
    "path": "",
    "ref": "main",
    "release_id": 1,
    "repo": "hello",
    "rule": "main",
    "run_id": 1,
    "tag": "v1.0",
    "user": "bob",
}
# The one pull request of alice/hello.
PULL_INDEX = 2


def arguments_for(tool: dict[str, Any]) -> dict[str, Any]:
    """
    @param tool: an entry of C{tools/list}.
    @return: its required arguments.
    """
    chosen = {name: ARGUMENTS[name] for name in tool["inputSchema"].get("required", ())}
    if "pull" in tool["name"] and "index" in chosen:
        chosen["index"] = PULL_INDEX
    return chosen


class Real2180ReadToolsTests(DrivenTestCase):
    """forgejo-mcp 2.18.0."""

    real_version = "2.18.0"
    expected_tools = 37

    async def test_reading_tools_get_results_and_only_read(self) -> None:
        """Each gets a result, and Forgejo sees only GET and HEAD."""
        child = await self.serving()
        answer = await child.ask({"id": "list", "method": "tools/list"})
        tools = [
            tool
            for tool in answer["result"]["tools"]
            if tool["name"].startswith(READING)
        ]
        self.assertEqual(len(tools), self.expected_tools)
        for tool in tools:
            name, arguments = tool["name"], arguments_for(tool)
            params = {"name": name, "arguments": arguments}
            answer = await child.ask(
                {"id": name, "method": "tools/call", "params": params}
            )
            self.assertEqual(set(answer), {"id", "result"}, f"{name}: {answer}")
            self.assertFalse(answer["result"].get("isError"), f"{name}: {answer}")
        self.assertEqual(self.controls.writes(), [])

    async def test_a_writing_tool_is_seen(self) -> None:
        """The control: a writing tool produces something else than GET."""
        child = await self.serving()
        await child.call(
            "create_issue", owner="bob", repo="website", title="T", body=""
        )
        (write,) = self.controls.writes()
        self.assertEqual((write.method, write.login), ("POST", "alice"))


class Real2341ReadToolsTests(Real2180ReadToolsTests):
    """forgejo-mcp 2.34.1."""

    real_version = "2.34.1"
    expected_tools = 67
