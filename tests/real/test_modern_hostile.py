"""
Odd and hostile clients of the stateless revision in front of a child of the older ones.
What a call has done is read from the child's ledger and from Forgejo.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread

from tests.real import real_forgejo_mcp
from tests.real.client import McpClient
from tests.real.daemon import CLOCK, pause
from tests.real.modern import CAPABILITIES, VERSION, ModernCase, call, modern, said
from tests.real.relay import Answer
from tests.real.test_shared_sessions import ChildCase
from tests.real.test_slow_reader import resident_bytes

reactor: Any = _reactor  # a module to mypy
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, CAPABILITIES: {}}
READS = "get_my_user_info"
WRITES = "create_issue"
ISSUE = {"owner": "alice", "repo": "hello", "title": "t", "body": "b"}
CHANGED = "notifications/tools/list_changed"


def encoded(data: bytes) -> bytes:
    """A header value in the Base64 form."""
    return b"=?base64?" + base64.b64encode(data) + b"?="


class SmugglingTests(ModernCase):
    """A grant that may only read, and two readings of one request."""

    async def raw(
        self, client: McpClient, body: bytes, *headers: tuple[str, bytes]
    ) -> Answer:
        """Bytes as they are, repeated headers included."""
        fields = [
            ("Host", f"127.0.0.1:{self.port}".encode()),
            ("Connection", b"close"),
            ("Content-Length", b"%d" % len(body)),
            *((name, value.encode()) for name, value in client.headers().items()),
            *headers,
        ]
        head = b"".join(
            name.encode() + b": " + value + b"\r\n" for name, value in fields
        )
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        answer: Answer = await connectProtocol(endpoint, Answer())
        transport: Any = answer.transport
        transport.write(b"POST /mcp HTTP/1.1\r\n" + head + b"\r\n" + body)
        await answer.until(lambda: False)
        return answer

    async def test_nothing_is_written(self) -> None:
        """No pair of readings carries a write past the policy."""
        program = str(real_forgejo_mcp.require("2.34.1"))
        await self.begin(FJMCP_BROKER_CHILD_COMMAND=f"{program},--transport,stdio")
        client = McpClient(self.daemon.url)
        password = self.forgejo.password("alice")
        await deferToThread(client.sign_in, "alice", password, decision="read-only")
        self.forgejo.stand_in.controls.forget_requests()
        for params, status in (
            ('"name":"%r","Name":"%w","arguments":%a,"_meta":%m', 400),
            ('"Name":"%w","name":"%r","arguments":%a,"_meta":%m', 400),
            ('"name":"%r","name":"%w","arguments":%a,"_meta":%m', 400),
            ('"name":"%r","n\\u0061me":"%w","arguments":%a,"_meta":%m', 400),
            ('"name":"%r","_meta":%m,"_Meta":{"x":1},"arguments":%a', 400),
            ('"name":"%r","_meta":%m,"_meta":%m,"arguments":%a', 400),
            ('"_Meta":%m,"name":"%w","arguments":%a', 400),
            ('"name":"%w","_meta":%m,"arguments":%a', 400),
            ('"name":["%r"],"_meta":%m,"arguments":%a', 400),
            ('"name":null,"_meta":%m,"arguments":%a', 400),
            ('"name":"%r","_meta":%m,"arguments":{}', 200),
            ('"n\\u0061me":"%r","_m\\u0065ta":%m,"arguments":{}', 200),
        ):
            text = params.replace("%r", READS).replace("%w", WRITES)
            text = text.replace("%m", json.dumps(META)).replace("%a", json.dumps(ISSUE))
            await self.tried(client, f"{{{text}}}", status)
        await self.tried(client, "null", 400)
        for name in (WRITES, WRITES.upper(), f"{WRITES} ", f"{WRITES}\0"):
            params = json.dumps({"name": name, "arguments": ISSUE, "_meta": META})
            sent = (("Mcp-Name", encoded(name.encode())),)
            await self.tried(client, params, 403, name=sent)
        for method in ("Tools/Call", "tools/Call", "prompts/get", "x/y"):
            params = json.dumps({"name": WRITES, "arguments": ISSUE, "_meta": META})
            answer = await self.tried(client, params, 403, method=method, name=())
            self.assertIn("insufficient_scope", answer.headers["www-authenticate"])
        self.assertEqual(self.forgejo.stand_in.controls.writes(), [])

    async def tried(
        self,
        client: McpClient,
        params: str,
        status: int,
        *,
        method: str = "tools/call",
        name: tuple[tuple[str, bytes], ...] = (("Mcp-Name", READS.encode()),),
    ) -> Answer:
        """A request that is answered so."""
        body = f'{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}'
        if name == () and method not in ("x/y", "tools/Call", "Tools/Call"):
            name = (("Mcp-Name", WRITES.encode()),)
        answer = await self.raw(
            client,
            body.encode(),
            ("MCP-Protocol-Version", VERSION.encode()),
            ("Mcp-Method", method.encode()),
            *name,
        )
        self.assertEqual(answer.status, status, (params, answer.raw))
        return answer

    async def test_headers(self) -> None:
        """What is there twice, or as a list, or cannot be decoded, matches nothing."""
        await self.begin()
        client = await self.signed_in()
        params = {"name": READS, "arguments": {}, "_meta": META}
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        ).encode()
        version = ("MCP-Protocol-Version", VERSION.encode())
        method, name = ("Mcp-Method", b"tools/call"), ("Mcp-Name", READS.encode())
        good = (version, method, name)
        for headers, status in (
            (good, 200),
            ((*good[:2], ("mcp-name", encoded(READS.encode()))), 200),
            ((*good[:2], ("Mcp-Name", b" \t" + READS.encode() + b" ")), 200),
            ((*good, method), 400),
            ((*good, ("mcp-method", b"tools/list")), 400),
            ((*good, name), 400),
            ((*good, ("MCP-NAME", WRITES.encode())), 400),
            ((*good, version), 400),
            ((*good, ("MCP-Protocol-Version", b"2025-11-25")), 400),
            ((version, ("Mcp-Method", b"tools/call, tools/list"), name), 400),
            ((version, ("Mcp-Method", b"tools/list"), name), 400),
            ((version, ("Mcp-Method", encoded(b"tools/call")), name), 400),
            ((version, ("Mcp-Method", b"tools/call\xff"), name), 400),
            ((version, ("Mcp-Method", b""), name), 400),
            ((version, method, ("Mcp-Name", b"")), 400),
            ((version, method, ("Mcp-Name", b"=?base64??=")), 400),
            ((version, method, ("Mcp-Name", b"=?base64?****?=")), 400),
            (
                (version, method, ("Mcp-Name", b"=?base64?" + READS.encode() + b"?=")),
                400,
            ),
            ((version, method, ("Mcp-Name", encoded(b"\xff\xfe"))), 400),
            ((version, method, ("Mcp-Name", encoded(encoded(READS.encode())))), 400),
            ((version, method, ("Mcp-Name", encoded(READS.encode() + b"\n"))), 400),
            ((version, method, ("Mcp-Name", READS.encode() + b"\xc3\xa9")), 400),
            ((version, method, ("Mcp-Name", READS.upper().encode())), 400),
        ):
            answer = await self.raw(client, body, *headers)
            self.assertEqual(answer.status, status, (headers, answer.raw))
            if status == 400:
                self.assertEqual(answer.json["error"]["code"], -32020, answer.raw)
        meta = {**META, "huge": "x" * 8_000_000, "deep": [[[[]]]]}
        params = {"name": "echo", "arguments": {"text": "t"}, "_meta": meta}
        answer = await self.exchange(client, modern(1, "tools/call", **params))
        self.assertEqual(said(answer.message["result"]), "t")


class StateTests(ChildCase):
    """C{requestState} in the wrong hands, changed, and twice."""

    child = "interactive = true"

    async def refused(self, client: McpClient, message: Any) -> None:
        """Told that it is not valid, nothing else."""
        answer = await self.exchange(client, message)
        self.assertEqual(answer.status, 400, answer.raw)
        error = answer.message["error"]
        self.assertEqual((error["code"], error.get("data")), (-32602, None))

    async def test_wrong_states(self) -> None:
        """They are refused, and the call that waits goes on waiting."""
        await self.begin()
        client = await self.signed_in()
        again, other = await self.signed_in(), await self.signed_in("bob")
        retry = await self.asked(client)
        state = retry["requestState"]
        theirs = (await self.asked(again, "again"))["requestState"]
        for wrong in (
            "",
            "x",
            state[:-1],
            state[1:],
            state + "A",
            state + "=",
            state + "\n",
            state.swapcase(),
            state[:40] + ("A" if state[40] != "A" else "B") + state[41:],
            state * 20,
            "\u00e9" * 40,
            theirs,
        ):
            changed = {**retry, "requestState": wrong}
            await self.refused(client, self.question(2, **changed))
        await self.refused(again, self.question(2, **retry))
        await self.refused(other, self.question(2, **retry))
        for name, value in (
            ("name", "who_am_i"),
            ("name", "crash"),
            ("arguments", {"method": "ping", "key": "k"}),
            ("arguments", {}),
            ("extra", 1),
        ):
            message = self.question(2, **retry)
            message["params"][name] = value
            await self.refused(client, message)
        message = self.question(2, **retry)
        arguments = message["params"]["arguments"]
        message["params"]["arguments"] = dict(reversed(arguments.items()))
        result = await self.result(client, message)
        self.assertEqual(said(result)["result"]["content"], {"which": "k"})
        self.assertEqual(sorted(self.made("ask")), ["again", "k"])
        self.assertEqual(self.made("crash"), [])

    async def test_the_same_state_at_once(self) -> None:
        """One goes on with the call, the others hear that it is too late."""
        await self.begin()
        client = await self.signed_in()
        retry = await self.asked(client)
        answers: Any = await gatherResults(
            [
                Deferred.fromCoroutine(self.exchange(client, self.question(1, **retry)))
                for _ in range(20)
            ]
        )
        kinds = Counter(
            answer.message.get("error", {}).get("data", {}).get("reason", "result")
            for answer in answers
        )
        self.assertEqual(kinds, {"result": 1, "generation_lost": 19})
        self.assertEqual(self.made("ask"), ["k"])

    async def test_many_questions_that_nobody_answers(self) -> None:
        """They take up what one user may have, and nothing of anybody else's."""
        await self.begin(FJMCP_BROKER_SESSIONS_MAX_PER_USER="4")
        client, other = await self.signed_in(), await self.signed_in("bob")
        retries = [await self.asked(client, f"k{number}") for number in range(4)]
        for message in (self.question(9, "k9"), call(9, "who_am_i")):
            refused = await self.exchange(client, message)
            self.assertEqual(refused.status, 503, refused.raw)
            self.assertIn("retry-after", refused.headers)
        await self.check_user(other, "bob")
        await self.asked(other, "bob")
        # One that is answered makes room.
        result = await self.result(client, self.question(2, "k0", **retries[0]))
        self.assertEqual(said(result)["result"]["content"], {"which": "k0"})
        await self.check_user(client)
        self.assertNotIn("k9", self.made("ask"))


class CrowdTests(ModernCase):
    """Very many at once."""

    async def test_listeners(self) -> None:
        """A grant has a hundred streams; one more is told to wait until one ends."""
        await self.begin()
        client, same = await self.signed_in(), await self.signed_in()
        message = modern(
            "l", "subscriptions/listen", notifications={"toolsListChanged": True}
        )
        crowd = [await self.post(client, message) for _ in range(300)]
        for answer in crowd:
            await answer.until(lambda a=answer: b"\r\n\r\n" in a.raw)  # type: ignore[misc]
        counted = Counter(answer.status for answer in crowd)
        self.assertEqual(counted, {200: 100, 503: 200})
        stranger = await self.listen(same, "l", toolsListChanged=True)
        await self.result(client, call(1, "notify", method=CHANGED))
        for answer in crowd:
            if answer.status == 200:
                await answer.until(lambda a=answer: CHANGED.encode() in a.raw)  # type: ignore[misc]
        self.assertEqual(len(stranger.events), 1)
        for answer in crowd:
            transport: Any = answer.transport
            transport.abortConnection()
        await self.until(lambda: all(a.is_closed for a in crowd), "still open")
        deadline = CLOCK.seconds() + 60
        while True:
            answer = await self.post(client, message)
            await answer.until(lambda a=answer: b"\r\n\r\n" in a.raw)  # type: ignore[misc]
            if answer.status == 200:
                break
            self.assertLess(CLOCK.seconds(), deadline, answer.raw)
            await pause(0.05)
        self.assertEqual(len(self.children()), 2)

    async def test_abandoned_calls(self) -> None:
        """Whoever stays gets an answer; memory and children are as before."""
        await self.begin()
        client = await self.signed_in()
        await self.check_user(client)
        before = resident_bytes(self.daemon.pid)
        slow = call("same", "slow", seconds=0.05)
        for _ in range(3):
            crowd = [await self.post(client, slow) for _ in range(100)]
            stays = Deferred.fromCoroutine(
                self.result(client, call("same", "who_am_i"))
            )
            for answer in crowd:
                transport: Any = answer.transport
                transport.abortConnection()
            self.assertEqual(said(await stays), "alice")
        self.assertLess(resident_bytes(self.daemon.pid) - before, 8 * 2**20)
        self.assertEqual(len(self.children()), 1)


class AbandonedLeaseTests(ChildCase):
    """Calls with children for themselves, whose clients leave."""

    child = "interactive = true"

    async def test_children_go(self) -> None:
        """Before their child is there, during the call, and while it waits."""
        await self.begin()
        client = await self.signed_in()
        await self.check_user(client)
        capable: Any = {CAPABILITIES: {"elicitation": {"form": {}}}}
        # With the busy ones and the shared one less than a user's twenty.
        for _ in range(9):
            gone: Any = await self.post(client, call(1, "slow", capable, seconds=3))
            gone.transport.abortConnection()
        busy = [
            await self.post(client, call(1, "slow", capable, seconds=3))
            for _ in range(8)
        ]
        await self.until(lambda: len(self.made("slow")) >= 8, "no call arrives")
        for answer in busy:
            transport: Any = answer.transport
            transport.abortConnection()
        # The shared one and at most two that are kept.
        await self.until(lambda: len(self.children()) <= 3, "children stay")
        await self.check_user(client)

    async def test_log_messages_of_another_call(self) -> None:
        """A child that was talkative for one call is silent for the next one."""
        await self.begin()
        client = await self.signed_in()
        await self.check_user(client)
        log = {
            "method": "notifications/message",
            "params": {"level": "debug", "data": "secret"},
        }
        heard = await self.exchange(
            client, call(1, "notify", {LOG_LEVEL: "debug"}, **log)
        )
        self.assertIn(b"secret", heard.raw)
        capable: Any = {CAPABILITIES: {"elicitation": {"form": {}}}}
        for meta in (capable, {}, {LOG_LEVEL: "error"}, {**capable, LOG_LEVEL: "info"}):
            silent = await self.exchange(client, call(1, "notify", meta, **log))
            self.assertEqual(silent.status, 200, silent.raw)
            self.assertNotIn(b"secret", silent.raw, meta)
