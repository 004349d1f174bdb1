"""
What forgejo-mcp answers, checked on the stand-in and on the real ones.
"""

import json
from typing import Any

from twisted.internet.task import deferLater

from tests.real.standin_driver import DrivenTestCase, held, reactor

REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
HELLO = {"owner": "alice", "repo": "hello"}


class StandInProtocolTests(DrivenTestCase):
    """The stand-in; subclasses name the real ones."""

    has_resources = False

    async def test_negotiation(self) -> None:
        """Known revisions are taken, others answered with the newest, none with
        2025-03-26; initialize may be repeated."""
        child = await self.serving()
        capabilities: dict[str, Any] = {"logging": {}, "tools": {"listChanged": True}}
        if self.has_resources:
            capabilities["resources"] = {}
        for wanted, answered in (
            *((revision, revision) for revision in REVISIONS),
            ("2026-07-28", "2025-11-25"),
            ("nonsense", "2025-11-25"),
            (None, "2025-03-26"),
        ):
            params: dict[str, Any] = {"capabilities": {}}
            params["clientInfo"] = {"name": "test", "version": "1"}
            if wanted is not None:
                params["protocolVersion"] = wanted
            answer = await child.ask(
                {"id": 1, "method": "initialize", "params": params}
            )
            result = answer["result"]
            self.assertEqual(result["protocolVersion"], answered)
            self.assertEqual(result["capabilities"], capabilities)
            self.assertEqual(result["serverInfo"]["name"], "Forgejo MCP Server")

    async def test_initialize_without_params(self) -> None:
        """Params may be missing."""
        child = await self.serving()
        answer = await child.ask({"id": 1, "method": "initialize"})
        self.assertEqual(answer["result"]["protocolVersion"], "2025-03-26")

    async def test_errors(self) -> None:
        """Lines and the errors that they get."""
        child = await self.serving()
        for line, answer_id, code, message in (
            (b"{garbage", None, -32700, "Parse error"),
            (b"", None, -32700, "Parse error"),
            (b'"text"', None, -32700, "Failed to parse message"),
            (
                b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
                None,
                -32700,
                "Failed to parse message",
            ),
            (b"{}", None, -32600, "Invalid JSON-RPC version"),
            (
                b'{"jsonrpc":"1.0","id":5,"method":"ping"}',
                5,
                -32600,
                "Invalid JSON-RPC version",
            ),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"nope"}',
                5,
                -32601,
                "Method nope not found",
            ),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"server/discover"}',
                5,
                -32601,
                "Method server/discover not found",
            ),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"prompts/list"}',
                5,
                -32601,
                "prompts not supported",
            ),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"completion/complete"}',
                5,
                -32601,
                "completions not supported",
            ),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"tools/call"}',
                5,
                -32602,
                "tool '' not found: tool not found",
            ),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"tools/call",'
                b'"params":{"name":"nope"}}',
                5,
                -32602,
                "tool 'nope' not found: tool not found",
            ),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"tools/list",'
                b'"params":{"cursor":"?"}}',
                5,
                -32602,
                "illegal base64 data at input byte 0",
            ),
            (
                b'{"jsonrpc":"2.0","id":5,"method":"logging/setLevel",'
                b'"params":{"level":"debug"}}',
                5,
                -32603,
                "session not properly initialized",
            ),
        ):
            child.write(line + b"\n")
            answer = await child.message()
            self.assertEqual(
                answer,
                {
                    "jsonrpc": "2.0",
                    "id": answer_id,
                    "error": {"code": code, "message": message},
                },
                line,
            )

    async def test_resources(self) -> None:
        """Resources are unknown to the older version."""
        child = await self.serving()
        answer = await child.ask({"id": 1, "method": "resources/list"})
        if self.has_resources:
            self.assertEqual(answer["result"], {"resources": []})
        else:
            self.assertEqual(answer["error"]["code"], -32601)

    async def test_ids(self) -> None:
        """Texts and small numbers come back; large ones lose precision."""
        child = await self.serving()
        for sent, answered in (
            (b'"x"', "x"),
            (b'""', ""),
            (b"0", 0),
            (b"-7", -7),
            (b"1.5", 1.5),
            (b"9007199254740993", 9007199254740992),
        ):
            child.write(b'{"jsonrpc":"2.0","method":"ping","id":%s}\n' % sent)
            self.assertEqual((await child.message())["id"], answered)

    async def test_unanswered_messages(self) -> None:
        """Notifications, a null id, and answers nobody waits for get no answer."""
        child = await self.serving()
        child.send({"method": "notifications/initialized"})
        child.send({"method": "notifications/cancelled", "params": {"requestId": 9}})
        child.send({"id": None, "method": "ping"})
        child.send({"id": 7, "result": {}})
        answer = await child.ask({"id": "next", "method": "ping"})
        self.assertEqual(answer["id"], "next")

    async def test_names_in_any_case(self) -> None:
        """Member names are matched without regard to case."""
        child = await self.serving()
        child.write(b'{"JSONRPC":"2.0","Id":1,"METHOD":"tools/call",')
        child.write(b'"Params":{"NAME":"get_my_user_info"}}\n')
        answer = await child.message()
        self.assertEqual(answer["id"], 1)
        self.assertIn("result", answer)

    async def test_tools_list(self) -> None:
        """One line, sorted, without pages; every tool claims to be destructive."""
        child = await self.serving()
        result = (await child.ask({"id": 1, "method": "tools/list"}))["result"]
        self.assertEqual(set(result), {"tools"})
        names = [tool["name"] for tool in result["tools"]]
        self.assertEqual(names, sorted(names))
        for tool in result["tools"]:
            self.assertEqual(
                tool["annotations"],
                {
                    "readOnlyHint": False,
                    "destructiveHint": True,
                    "idempotentHint": False,
                    "openWorldHint": True,
                },
            )

    async def test_tools_exist_in_the_real_ones(self) -> None:
        """Names, arguments and required arguments of common tools are the same."""
        child = await self.serving()
        result = (await child.ask({"id": 1, "method": "tools/list"}))["result"]
        schemas = {tool["name"]: tool["inputSchema"] for tool in result["tools"]}
        for name, arguments, required in (
            ("get_my_user_info", set(), set()),
            ("list_my_repos", {"page", "limit"}, {"page", "limit"}),
            ("search_repos", {"keyword", "sort", "order", "page", "limit"}, set()),
            (
                "list_repo_issues",
                {"owner", "repo", "state", "type", "labels", "milestones"},
                {"owner", "repo"},
            ),
            (
                "get_issue_by_index",
                {"owner", "repo", "index"},
                {"owner", "repo", "index"},
            ),
            (
                "list_issue_comments",
                {"owner", "repo", "index", "since", "before", "page", "limit"},
                {"owner", "repo", "index"},
            ),
            (
                "list_branches",
                {"owner", "repo", "page", "limit"},
                {"owner", "repo", "page", "limit"},
            ),
            (
                "get_file_content",
                {"owner", "repo", "ref", "filePath"},
                {"owner", "repo", "ref", "filePath"},
            ),
            (
                "create_issue",
                {"owner", "repo", "title", "body"},
                {"owner", "repo", "title"},
            ),
            (
                "create_issue_comment",
                {"owner", "repo", "index", "body"},
                {"owner", "repo", "index", "body"},
            ),
            (
                "edit_issue_comment",
                {"owner", "repo", "comment_id", "body"},
                {"owner", "repo", "comment_id", "body"},
            ),
            (
                "issue_state_change",
                {"owner", "repo", "index", "state"},
                {"owner", "repo", "index", "state"},
            ),
            (
                "create_repo",
                {"name", "description", "private", "auto_init"},
                {"name"},
            ),
        ):
            schema = schemas[name]
            self.assertEqual(set(schema.get("required", ())), required, name)
            self.assertEqual(arguments - set(schema.get("properties", {})), set(), name)

    # Calls

    async def test_result_is_one_text_block(self) -> None:
        """A text block with a JSON object of one member, Result."""
        child = await self.serving()
        params = {"name": "get_my_user_info", "arguments": {}}
        answer = await child.ask({"id": 1, "method": "tools/call", "params": params})
        (block,) = answer["result"]["content"]
        self.assertEqual(block["type"], "text")
        self.assertEqual(json.loads(block["text"])["Result"]["login"], "alice")

    async def test_calls_do_what_they_say(self) -> None:
        """An issue and a comment are there for everybody."""
        child = await self.serving()
        made = await child.call("create_issue", **HELLO, title="T", body="B")
        index = made["number"]
        await child.call("create_issue_comment", **HELLO, index=index, body="hi")
        await child.call("issue_state_change", **HELLO, index=index, state="closed")
        repository = self.forgejo.world.find("alice", "hello")
        assert repository is not None
        issue = repository.issues[index]
        self.assertEqual(
            (issue.author.login, issue.state, [each.body for each in issue.comments]),
            ("alice", "closed", ["hi"]),
        )
        found = await child.call("list_repo_issues", **HELLO, state="closed")
        self.assertEqual([each["title"] for each in found], ["T"])

    async def test_failed_tool_is_an_error(self) -> None:
        """-32603 with Forgejo's text; no isError, no status."""
        child = await self.serving()
        for arguments, text in (
            ({**HELLO, "index": 99}, "get issue err: The target couldn't be found."),
            ({}, "get issue err: path segment [0] is empty"),
        ):
            params = {"name": "get_issue_by_index", "arguments": arguments}
            answer = await child.ask(
                {"id": 1, "method": "tools/call", "params": params}
            )
            self.assertEqual(
                answer, {"id": 1, "error": {"code": -32603, "message": text}}
            )

    async def test_missing_scope(self) -> None:
        """The refusal names the scope."""
        self.controls.grant("alice").scope = "read:user read:issue"
        child = await self.serving()
        text = await child.call("create_issue", **HELLO, title="T", body="")
        self.assertIn("required scope(s): [write:issue]", text)

    async def test_revoked_token_in_v16_texts(self) -> None:
        """Forgejo 16 repeats the token, and the child passes it on."""
        child = await self.serving()
        self.controls.set_message_style("v16")
        self.controls.revoke_grant("alice")
        text = await child.call("get_my_user_info")
        self.assertIn(self.token, text)

    async def test_out_of_order(self) -> None:
        """A held call lets others pass."""
        child, hold = await self.with_a_call_running()
        found = await child.call("list_repo_issues", **HELLO)
        self.assertEqual([each["number"] for each in found], [2, 1])
        self.assertEqual((await child.ask({"id": 2, "method": "ping"}))["id"], 2)
        hold.end()
        self.assertEqual((await child.message())["id"], "held")

    async def test_five_calls_run_at_once(self) -> None:
        """Five workers: the sixth call waits."""
        child = await self.serving()
        hold = self.controls.hold_request("/api/v1/user")
        for number in range(6):
            child.send(
                {
                    "id": number,
                    "method": "tools/call",
                    "params": {"name": "get_my_user_info", "arguments": {}},
                }
            )
        await held(hold, 5)
        await deferLater(reactor, 0.2)
        self.assertEqual(hold.waiting, 5)
        hold.end()
        ids = {(await child.message())["id"] for _ in range(6)}
        self.assertEqual(ids, set(range(6)))


class Real2180ProtocolTests(StandInProtocolTests):
    """The real forgejo-mcp 2.18.0."""

    real_version = "2.18.0"


class Real2341ProtocolTests(StandInProtocolTests):
    """The real forgejo-mcp 2.34.1."""

    real_version = "2.34.1"
    has_resources = True
