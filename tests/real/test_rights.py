"""What a grant may do, from the consent page to the child."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from twisted.internet.threads import deferToThread

from tests.real import real_forgejo_mcp
from tests.real.broker_case import BrokerCase
from tests.real.client import McpClient, message_of
from tests.real.forgejo import RunningForgejo


class Rights(BrokerCase):
    """What the tests of rights share."""

    async def tools(self, client: McpClient) -> list[dict[str, Any]]:
        answer = message_of(await deferToThread(client.request, "tools/list"))
        tools: list[dict[str, Any]] = answer["result"]["tools"]
        return tools


class ReadOnlyTests(Rights):
    """Read-only is default deny, whoever asked for it."""

    async def test_chosen_by_the_user(self) -> None:
        """Writing tools are neither listed nor callable; reading ones work."""
        daemon, forgejo = await self.launch()
        client = await self.session(daemon, forgejo, "alice", decision="read-only")
        names = {tool["name"] for tool in await self.tools(client)}
        self.assertIn("list_my_repos", names)
        self.assertNotIn("create_issue", names)
        forgejo.stand_in.controls.forget_requests()
        refused = await deferToThread(
            client.request,
            "tools/call",
            name="create_issue",
            arguments={"owner": "alice", "repo": "hello", "title": "t", "body": "b"},
        )
        self.assertEqual(refused.status, 403)
        challenge = refused.headers["WWW-Authenticate"]
        self.assertIn('error="insufficient_scope"', challenge)
        self.assertIn('scope="read write"', challenge)
        self.assertEqual(forgejo.stand_in.controls.writes(), [])

    async def test_requested_by_the_client(self) -> None:
        """A client that asked for read sees the writing tools, to step up to them."""
        daemon, forgejo = await self.launch()
        client = await self.session(
            daemon, forgejo, "alice", decision="read-only", scope="read"
        )
        names = {tool["name"] for tool in await self.tools(client)}
        self.assertIn("create_issue", names)
        refused = await deferToThread(
            client.request, "tools/call", name="create_issue", arguments={}
        )
        self.assertEqual(refused.status, 403)
        await deferToThread(
            client.sign_in, "alice", forgejo.password("alice"), scope="read write"
        )
        await deferToThread(client.initialize)
        answer = await deferToThread(
            client.call,
            "create_issue",
            owner="alice",
            repo="hello",
            title="t",
            body="b",
        )
        self.assertIn("result", answer)

    async def test_the_real_child(self) -> None:
        """Case variants do not carry a write past the policy to forgejo-mcp."""
        program = str(real_forgejo_mcp.require("2.18.0"))
        daemon, forgejo = await self.launch(FORGEJO_MCP_BINARY=program)
        client = await self.session(daemon, forgejo, "alice", decision="read-only")
        forgejo.stand_in.controls.forget_requests()
        arguments = {"owner": "alice", "repo": "hello", "title": "t", "body": "b"}
        for text in (
            '{"name":"get_my_user_info","Name":"create_issue","arguments":%s}',
            '{"name":"get_my_user_info","NAME":"create_issue","arguments":%s}',
            '{"name":"get_my_user_info","name":"create_issue","arguments":%s}',
            '{"Name":"create_issue","arguments":%s}',
            '{"name":"get_my_user_info","\\u004eame":"create_issue","arguments":%s}',
            '{"name":"get_my_user_info","argument\u017f":{},"arguments":%s}',
        ):
            params = text % json.dumps(arguments)
            body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'
            answer = await deferToThread(client.send, body.encode())
            self.assertIn(answer.status, (400, 403), (text, answer.text))
        self.assertEqual(forgejo.stand_in.controls.writes(), [])


class IsolationTests(Rights):
    """Two users on one daemon."""

    async def test_everybody_is_himself(self) -> None:
        """Each session's child acts with the rights of the user who signed in."""
        daemon, forgejo = await self.launch()
        alice = await self.session(daemon, forgejo, "alice")
        bob = await self.session(daemon, forgejo, "bob")
        for client, login in ((alice, "alice"), (bob, "bob"), (alice, "alice")):
            answer = await deferToThread(client.call, "who_am_i")
            self.assertIn(f'\\"{login}\\"', json.dumps(answer))
        bob.session_id = alice.session_id
        stolen = await deferToThread(bob.request, "tools/list")
        self.assertEqual(stolen.status, 403)


class OverlayTests(Rights):
    """The titles and hints that forgejo-mcp does not set."""

    async def test_switched_off_it_changes_nothing(self) -> None:
        """With annotations off a list of tools is the child's own, byte for byte."""
        for version in real_forgejo_mcp.VERSIONS:
            program = str(real_forgejo_mcp.require(version))
            daemon, forgejo = await self.launch(
                FORGEJO_MCP_BINARY=program, FJMCP_BROKER_CHILD_ANNOTATIONS="off"
            )
            client = await self.session(daemon, forgejo, "alice")
            answer = await deferToThread(client.request, "tools/list")
            direct = await deferToThread(
                _direct_list, program, forgejo, forgejo.stand_in.base_url
            )
            through = _result_bytes(answer.text.encode())
            self.assertEqual(through, _result_bytes(direct))
            self.assertGreater(len(through), 10_000)


def _direct_list(program: str, forgejo: RunningForgejo, url: str) -> bytes:
    token = forgejo.stand_in.controls.issue_tokens("alice").access_token
    lines = (
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":'
        b'"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n'
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
        b'{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}\n'
    )
    done = subprocess.run(  # noqa: S603 - the program under test
        [program, "--transport", "stdio"],
        input=lines,
        capture_output=True,
        env={"FORGEJO_URL": url, "FORGEJO_ACCESS_TOKEN": token},
        timeout=30,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def _result_bytes(message: bytes) -> bytes:
    """
    @return: the bytes of C{result}, the last member of a message.
    """
    start = message.index(b'"result":') + len(b'"result":')
    return message[start : message.rindex(b"}")]
