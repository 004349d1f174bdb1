"""
What a read-only grant tries in order to write: keys and names in other letters, told
twice, hidden in other places, in both eras and with the real forgejo-mcp.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from twisted.internet.threads import deferToThread

from tests.real import real_forgejo_mcp
from tests.real.broker_case import BrokerCase
from tests.real.browser import Page
from tests.real.client import McpClient
from tests.real.daemon import Daemon
from tests.real.forgejo import RunningForgejo

MODERN = "2026-07-28"
READS = "get_my_user_info"
WRITES = "create_issue"
LISTS, REPOSITORIES = "list_my_repos", "/api/v1/user/repos"
ISSUE = '{"owner":"alice","repo":"hello","title":"t","body":"b"}'
META = (
    '"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    '"io.modelcontextprotocol/clientCapabilities":{}}'
)
FOREIGN = f"{sys.executable},-m,tests.real.foreign_child,--transport,stdio"

#: Go's decoder matches keys by simple case folding: K is the Kelvin sign there, and
#: the long s an s.
KEYS = {
    "name": ("Name", "NAME", "nAme", "\\u004eame", "name"),
    "arguments": ("Arguments", "ARGUMENTS", "argument\u017f", "argument\\u017f"),
}


def params() -> Iterator[str]:
    """
    @return: the members of C{params}, as JSON, that could be a call of what writes to
        one reader and a call of what reads to another.
    """
    for key in KEYS["name"]:
        both = f'"name":"{READS}"', f'"{key}":"{WRITES}"'
        for first, second in (both, both[::-1]):
            yield f'{first},{second},"arguments":{ISSUE}'
        yield f'"{key}":"{WRITES}","arguments":{ISSUE}'
    for key in KEYS["arguments"]:
        yield f'"name":"{WRITES}","{key}":{ISSUE}'
        yield f'"name":"{READS}","arguments":{{}},"{key}":{ISSUE}'
    for name in (
        "Create_Issue",
        "CREATE_ISSUE",
        " create_issue",
        "create_issue\\u0000",
    ):
        yield f'"name":"{name}","arguments":{ISSUE}'
    for value in ('["create_issue"]', '{"name":"create_issue"}', "null", "1"):
        yield f'"name":{value},"arguments":{ISSUE}'


def messages(meta: str) -> Iterator[str]:
    """
    @param meta: another member of C{params}, with a comma at its end; may be empty.
    @return: whole messages.
    """
    head = '{"jsonrpc":"2.0","id":1,'
    for members in params():
        yield f'{head}"method":"tools/call","params":{{{meta}{members}}}}}'
    write = f'{{{meta}"name":"{WRITES}","arguments":{ISSUE}}}'
    read = f'{{{meta}"name":"{READS}","arguments":{{}}}}'
    for method in ("Method", "METHOD", "\\u004dethod", "method"):
        both = '"method":"tools/list"', f'"{method}":"tools/call"'
        for first, second in (both, both[::-1]):
            yield f'{head}{first},{second},"params":{write}}}'
    for key in ("Params", "PARAMS", "param\u017f", "params"):
        yield f'{head}"method":"tools/call","params":{read},"{key}":{write}}}'
        yield f'{head}"method":"tools/call","{key}":{write},"params":{read}}}'
    for method in ("Tools/Call", "tools/call ", "tools\\/Call", "TOOLS/CALL"):
        yield f'{head}"method":"{method}","params":{write}}}'
    # Without an id nobody would be told, and the child might do it all the same.
    yield f'{{"jsonrpc":"2.0","method":"tools/call","params":{write}}}'
    yield f'{{"jsonrpc":"2.0","ID":1,"method":"tools/call","params":{write}}}'


class Attacker(BrokerCase):
    """Somebody with a read-only grant."""

    async def reader(self, daemon: Daemon, forgejo: RunningForgejo) -> McpClient:
        """
        @return: a client that may read, with a session.
        """
        client = await self.session(daemon, forgejo, decision="read-only")
        forgejo.stand_in.controls.forget_requests()
        return client

    async def send(
        self, client: McpClient, text: str, *, modern: bool, told: str = READS
    ) -> Page:
        """
        @param text: a message.
        @param modern: whether by the revision without sessions.
        @param told: the name in the header that this revision has.
        @return: the answer.
        """

        def exchange() -> Page:
            if not modern:
                return client.send(text.encode())
            headers = client.headers()
            del headers["Mcp-Session-Id"]
            headers["MCP-Protocol-Version"] = MODERN
            return client.browser.request(
                "POST",
                f"{client.url}/mcp",
                text.encode(),
                {**headers, "Mcp-Method": "tools/call", "Mcp-Name": told},
            )

        page: Page = await deferToThread(exchange)
        return page


class CaseVariantTests(Attacker):
    """The child decodes without regard to case; the broker must not differ from it."""

    async def attack(self, version: str) -> None:
        """Everything is refused, in both eras, and Forgejo hears of no write."""
        program = str(real_forgejo_mcp.require(version))
        daemon, forgejo = await self.launch(FORGEJO_MCP_BINARY=program)
        client = await self.reader(daemon, forgejo)
        for modern, told in ((False, READS), (True, READS), (True, WRITES)):
            tried = list(messages(META + "," if modern else ""))
            self.assertGreater(len(tried), 50)
            for text in tried:
                answer = await self.send(client, text, modern=modern, told=told)
                # A message without an id is answered by nobody in the modern era.
                wanted = (400, 403, 404) if '"id":1' in text else (202, 400, 403)
                self.assertIn(answer.status, wanted, (text, answer.text))
                self.assertNotIn('"result"', answer.text)
            read = f'"name":"{READS}","arguments":{{}}'
            head = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{'
            meta = META + "," if modern else ""
            # What it may do it still can: nothing of it reached the child.
            answer = await self.send(client, f"{head}{meta}{read}}}}}", modern=modern)
            self.assertEqual(answer.status, 200, answer.text)
            self.assertIn("alice", answer.text)
        self.assertEqual(forgejo.stand_in.controls.writes(), [])

    async def test_oldest(self) -> None:
        """forgejo-mcp 2.18.0"""
        await self.attack("2.18.0")

    async def test_newest(self) -> None:
        """forgejo-mcp 2.34.1"""
        await self.attack("2.34.1")


class BatchTests(Attacker):
    """Sessions of 2025-03-26 may send several messages at once."""

    async def test_writes_among_reads(self) -> None:
        """Each message is judged by itself; what may be read is still read."""
        daemon, forgejo = await self.launch()
        client = await self.reader(daemon, forgejo)
        opened = await deferToThread(
            client.request,
            "initialize",
            protocolVersion="2025-03-26",
            capabilities={},
            clientInfo={"name": "test", "version": "1"},
        )
        client.session_id = opened.headers["Mcp-Session-Id"]
        inner = f'"params":{{"name":"{WRITES}","arguments":{ISSUE}}}'
        write = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call",{inner}}}'
        silent = f'{{"jsonrpc":"2.0","method":"tools/call",{inner}}}'
        read = (
            '{"jsonrpc":"2.0","id":2,"method":"tools/call",'
            f'"params":{{"name":"{READS}","arguments":{{}}}}}}'
        )
        for text, results in (
            (f"[{read},{write}]", 1),
            (f"[{write},{read}]", 1),
            (f"[{silent},{read}]", 1),
            (f"[{silent}]", 0),
            (f"[[{write}]]", 0),
        ):
            answer = await self.send(client, text, modern=False)
            self.assertEqual(answer.text.count('"result"'), results, answer.text)
        self.assertEqual(forgejo.stand_in.controls.writes(), [])


class DefaultDenyTests(Attacker):
    """What nobody has classified counts as writing."""

    def call(self, tool: str, meta: str = "") -> str:
        """
        @return: a call of a tool without arguments.
        """
        inner = f'{meta}"name":{json.dumps(tool)},"arguments":{{}}'
        head = '{"jsonrpc":"2.0","id":1,"method":"tools/call"'
        return f'{head},"params":{{{inner}}}}}'

    async def test_unclassified_tool(self) -> None:
        """A tool that the child offers and the catalogue does not know."""
        daemon, forgejo = await self.launch()
        client = await self.reader(daemon, forgejo)
        listed = await deferToThread(client.request, "tools/list")
        self.assertIn(READS, listed.text)
        self.assertNotIn('"who_am_i"', listed.text)
        answer = await self.send(client, self.call("who_am_i"), modern=False)
        self.assertEqual(answer.status, 403)
        self.assertIn('error="insufficient_scope"', answer.headers["WWW-Authenticate"])
        writer = await self.session(daemon, forgejo)
        answer = await self.send(writer, self.call("who_am_i"), modern=False)
        self.assertEqual(answer.status, 200)

    async def test_foreign_child(self) -> None:
        """
        Of a child that is not forgejo-mcp nothing is known: even what is called like a
        reading tool is refused and not listed, in both eras; a full grant may call it.
        """
        daemon, forgejo = await self.launch(FJMCP_BROKER_CHILD_COMMAND=FOREIGN)
        client = await self.reader(daemon, forgejo)
        listed = await deferToThread(client.request, "tools/list")
        self.assertIn('"tools":[]', listed.text)
        for modern in (False, True):
            text = self.call(LISTS, META + "," if modern else "")
            answer = await self.send(client, text, modern=modern, told=LISTS)
            self.assertEqual(answer.status, 403, answer.text)
        asked = [each.path for each in forgejo.stand_in.controls.requests]
        self.assertNotIn(REPOSITORIES, asked)
        writer = await self.session(daemon, forgejo)
        answer = await self.send(writer, self.call(LISTS), modern=False)
        self.assertEqual(answer.status, 200)
        self.assertIn("hello", answer.text)
        asked = [each.path for each in forgejo.stand_in.controls.requests]
        self.assertIn(REPOSITORIES, asked)
