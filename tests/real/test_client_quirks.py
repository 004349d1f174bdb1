"""
What known clients do beside the book, recorded: each of them gets on. Addresses are
those that a proxy on this machine reports.
"""

from __future__ import annotations

import json
import secrets
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread

from tests.real.broker_case import BrokerCase
from tests.real.browser import Browser, Page, sign_in
from tests.real.client import FORM, REDIRECT_URI, McpClient, message_of
from tests.real.modern import VERSION, ModernCase, call, modern, said
from tests.real.relay import Answer
from tests.real.test_sessions import SessionCase, text_of

reactor: Any = _reactor  # a module to mypy
HERE, THERE = "198.51.100.7", "203.0.113.9"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""RFC 7636, appendix B."""

INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class SignInQuirks(BrokerCase):
    """On the way to tokens."""

    def authorize(self, client: McpClient, **more: str) -> str:
        """The address that a client opens in a browser."""
        query = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": REDIRECT_URI,
            "state": secrets.token_urlsafe(8),
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            **more,
        }
        return f"{client.url}/oauth/authorize?{urlencode(query)}"

    def redeem(self, client: McpClient, url: str, password: str, **more: str) -> None:
        """A person signs in at that address, the client gets tokens, and they work."""
        back = sign_in(client.browser, url, REDIRECT_URI, "alice", password)
        (code,) = parse_qs(urlsplit(back).query)["code"]
        client.token(
            grant_type="authorization_code",
            code=code,
            code_verifier=VERIFIER,
            redirect_uri=REDIRECT_URI,
            **more,
        )
        assert client.initialize().status == 200
        assert "alice" in json.dumps(client.call("who_am_i"))

    async def test_registered_twice_within_a_second(self) -> None:
        """Some clients register once for each of their parts: both can sign in."""
        daemon, forgejo = await self.launch()
        browser = Browser()
        clients = [McpClient(daemon.url, browser=browser) for _ in range(2)]
        await gatherResults([deferToThread(each.register) for each in clients])
        self.assertNotEqual(clients[0].client_id, clients[1].client_id)
        password = forgejo.password("alice")
        # Both pages are open in one browser before either is answered.
        urls = [self.authorize(each) for each in clients]
        for url in urls:
            self.assertEqual((await deferToThread(browser.visit, url)).status, 200)
        for client, url in zip(clients, urls, strict=True):
            await deferToThread(self.redeem, client, url, password)

    async def test_resource(self) -> None:
        """It is missing, has a slash at its end, or names the origin."""
        daemon, forgejo = await self.launch()
        password = forgejo.password("alice")
        mcp = f"{daemon.url}/mcp"
        for at_first, later in (
            ({}, {}),
            ({}, {"resource": mcp}),
            ({"resource": f"{mcp}/"}, {"resource": f"{mcp}/"}),
            ({"resource": f"{mcp}/"}, {"resource": mcp}),
            ({"resource": daemon.url}, {"resource": f"{daemon.url}/"}),
        ):
            client = McpClient(daemon.url)
            await deferToThread(client.register)
            url = self.authorize(client, **at_first)
            await deferToThread(self.redeem, client, url, password, **later)
        page = await deferToThread(
            client.browser.visit, self.authorize(client, resource="https://x.example/")
        )
        self.assertIn("invalid_target", page.text)

    async def test_probe_without_a_browser(self) -> None:
        """Some clients look whether the address answers before they open it."""
        daemon, forgejo = await self.launch()
        client = McpClient(daemon.url)
        await deferToThread(client.register)
        url = self.authorize(client)
        for method in ("GET", "HEAD", "GET"):
            probe = await deferToThread(Browser().request, method, url)
            self.assertEqual(probe.status, 200)
        await deferToThread(self.redeem, client, url, forgejo.password("alice"))

    async def test_refresh_from_two_addresses(self) -> None:
        """A hosted client's machines share tokens, not what they do with them."""
        daemon, forgejo = await self.launch()
        client = await self.session(daemon, forgejo)
        form = {
            "grant_type": "refresh_token",
            "client_id": client.client_id,
            "refresh_token": client.refresh_token,
        }

        def refresh(address: str) -> Page:
            headers = {**FORM, "X-Forwarded-For": address}
            body = urlencode(form).encode()
            return Browser().request("POST", f"{daemon.url}/oauth/token", body, headers)

        pages: list[Page] = await gatherResults(
            [deferToThread(refresh, address) for address in (HERE, THERE) * 3]
        )
        self.assertEqual({page.status for page in pages}, {200}, pages)
        tokens = [json.loads(page.text) for page in pages]
        for name in ("access_token", "refresh_token"):
            self.assertEqual(len({each[name] for each in tokens}), 1)
        for each in (HERE, THERE):
            other = attrs.evolve(client, access_token=tokens[0]["access_token"])
            headers = {**other.headers(), "X-Forwarded-For": each}
            body = json.dumps(call(1, "who_am_i")).encode()
            headers.pop("MCP-Protocol-Version")
            page = await deferToThread(
                Browser().request,
                "POST",
                f"{daemon.url}/mcp",
                body,
                {
                    **headers,
                    "MCP-Protocol-Version": VERSION,
                    "Mcp-Method": "tools/call",
                    "Mcp-Name": "who_am_i",
                },
            )
            self.assertIn("alice", page.text)


class SessionQuirks(SessionCase):
    """With a session."""

    async def post(self, client: McpClient, message: Any, **headers: str) -> Page:
        """A message with other headers than usual."""
        fields = {**client.headers(), **headers}
        page: Page = await deferToThread(
            Browser().request,
            "POST",
            f"{client.url}/mcp",
            json.dumps(message).encode(),
            {name.replace("_", "-"): value for name, value in fields.items()},
        )
        return page

    async def test_lost_initialized(self) -> None:
        """It comes without the session's id, from another machine of the client."""
        await self.begin()
        client = McpClient(self.daemon.url)
        password = self.forgejo.password("alice")
        await deferToThread(client.sign_in, "alice", password)
        opened = await self.post(
            client,
            {
                "jsonrpc": "2.0",
                "id": 0,
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {},
                    "clientInfo": {"name": "quirk", "version": "1"},
                },
            },
            X_Forwarded_For=HERE,
        )
        lost = await self.post(client, INITIALIZED, X_Forwarded_For=THERE)
        self.assertEqual((lost.status, lost.text), (202, ""))
        client.session_id = opened.headers["Mcp-Session-Id"]
        await self.check(client)
        # The session is one of 2025-06-18; this client always names its newest.
        for version in ("2025-11-25", "2025-03-26"):
            listed = {"jsonrpc": "2.0", "id": 8, "method": "tools/list"}
            page = await self.post(client, listed, MCP_Protocol_Version=version)
            self.assertEqual(page.status, 200, page.text)

    async def test_sessions_that_are_never_deleted(self) -> None:
        """Their children go to sleep, and both work weeks later."""
        await self.begin(FJMCP_BROKER_SESSION_IDLE_TIMEOUT="1s")
        client = await self.signed_in()
        second = attrs.evolve(client, session_id=None)
        await deferToThread(second.initialize)
        self.assertNotEqual(client.session_id, second.session_id)
        await self.until(lambda: not self.children(), "the children stay")
        for each in (client, second, client):
            await self.check(each)
        # One that went to sleep between two calls may still be on its way out.
        await self.until(lambda: len(self.children()) <= 2, "more than one for each")

    async def test_dropped_get(self) -> None:
        """Proxies cut silent streams: each new one hears what comes, and no less."""
        await self.begin()
        client = await self.signed_in()
        (child,) = self.children()
        heard, last = 0, None
        for number in range(6):
            stream = await self.listen(client, last)
            note = {"level": "info", "data": f"news {number}"}
            method = "notifications/message"
            await self.call(client, "notify", method=method, params=note)
            await stream.until(lambda s=stream, n=number: b"news %d" % n in s.raw)  # type: ignore[misc]
            heard += sum("news" in json.dumps(event) for event in stream.events)
            ids = [line for line in stream.body.split(b"\n") if line[:4] == b"id: "]
            last = ids[-1][4:].decode()
            transport: Any = stream.transport
            transport.abortConnection()
        self.assertEqual(heard, 6)
        self.assertEqual(self.children(), [child])

    async def listen(self, client: McpClient, last: str | None) -> Answer:
        """A GET whose answer has begun, after an event or from now on."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        answer: Answer = await connectProtocol(endpoint, Answer())
        fields = {"Host": f"127.0.0.1:{self.port}", **client.headers()}
        if last is not None:
            fields["Last-Event-ID"] = last
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        transport: Any = answer.transport
        transport.write(f"GET /mcp HTTP/1.1\r\n{head}\r\n".encode())
        await answer.until(lambda: b"\r\n\r\n" in answer.raw)
        self.assertEqual(answer.status, 200)
        return answer

    async def test_accept_of_one_kind(self) -> None:
        """The specification wants both; one is answered in that one."""
        await self.begin()
        client = await self.signed_in()
        listed = {"jsonrpc": "2.0", "id": 8, "method": "tools/list"}
        for accept in ("application/json", "text/event-stream"):
            page = await self.post(client, listed, Accept=accept)
            self.assertEqual(page.headers.get_content_type(), accept)
            self.assertIn("result", message_of(page))
        page = await self.post(client, listed, Accept="text/html")
        self.assertEqual(page.status, 406)

    async def test_post_again_after_a_lost_connection(self) -> None:
        """
        While the first one runs it is not made twice; the answer of the first is read
        on by GET. Later the same id is another call.
        """
        await self.begin()
        client = await self.signed_in()
        message: Any = {
            "jsonrpc": "2.0",
            "id": "again",
            "method": "tools/call",
            "params": {"name": "slow", "arguments": {"seconds": 4}},
        }
        first = await self.ask(client, "POST", message)
        await first.until(lambda: b"id: " in first.raw)
        (line,) = [each for each in first.body.split(b"\n") if each[:4] == b"id: "]
        transport: Any = first.transport
        transport.abortConnection()
        retried = await self.post(client, message)
        self.assertEqual(retried.status, 409, retried.text)
        rest = await self.ask(client, "GET", Last_Event_ID=line[4:].decode())
        await rest.until(lambda: b"done" in rest.raw)
        message["params"]["arguments"] = {"seconds": 0}
        later = await self.post(client, message)
        self.assertEqual(text_of(message_of(later)), "done")


class StatelessQuirks(ModernCase):
    """Without a session."""

    async def test_discovery_and_nothing_else(self) -> None:
        """Costs no child and leaves nothing behind."""
        await self.begin()
        client = await self.signed_in()
        for _ in range(3):
            await self.result(client, modern("d", "server/discover"))
        self.assertEqual(self.children(), [])
        before = self.daemon.text
        self.assertNotIn("-> starting", before)
        await self.daemon.stop()
        self.assertEqual(self.daemon.exit_code, 0)

    async def test_ttl_is_ignored(self) -> None:
        """Who asks again gets the list again, from the same child."""
        await self.begin()
        client = await self.signed_in()
        lists = [
            await self.result(client, modern(number, "tools/list"))
            for number in range(5)
        ]
        self.assertGreater(lists[0]["ttlMs"], 0)
        self.assertEqual(lists, lists[:1] * 5)
        self.assertEqual(len(self.children()), 1)

    async def test_session_id_of_former_days(self) -> None:
        """A client of both eras still sends it; of nobody's session, too."""
        await self.begin()
        client = await self.signed_in()
        old = attrs.evolve(client)
        await deferToThread(old.initialize)
        await deferToThread(old.send, b"", "DELETE")
        for value in (old.session_id, "nobody's", ""):
            answer = await self.exchange(
                client, call(1, "who_am_i"), Mcp_Session_Id=value
            )
            self.assertEqual(answer.status, 200, answer.raw)
            self.assertEqual(said(answer.message["result"]), "alice")
            self.assertNotIn("mcp-session-id", answer.headers)

    async def test_accept_of_one_kind(self) -> None:
        """Answered in that one, progress left out where there is no room for it."""
        await self.begin()
        client = await self.signed_in()
        for kind in ("application/json", "text/event-stream"):
            message = call(1, "progress", {"progressToken": 1}, steps=2)
            answer = await self.exchange(client, message, Accept=kind)
            self.assertEqual(answer.status, 200, answer.raw)
            self.assertEqual(answer.headers["content-type"], kind)
            self.assertEqual(said(answer.message["result"]), 2)
        answer = await self.exchange(client, call(1, "who_am_i"), Accept="text/html")
        self.assertEqual(answer.status, 406)

    async def test_post_again_after_a_lost_connection(self) -> None:
        """The first one is taken back, the second one is a call of its own."""
        await self.begin()
        client = await self.signed_in()
        message = call("again", "slow", seconds=4)
        first: Any = await self.post(client, message)
        await self.until_told(client, "tools/call", 1)
        first.transport.abortConnection()
        self.assertEqual(said(await self.result(client, message)), "done")
        await self.until_told(client, "notifications/cancelled", 1)
