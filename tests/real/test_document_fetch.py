"""
Fetching client metadata documents over real TLS, and what attackers make of it.

The server is on loopback. Names, and the address that a connection goes to in the
end, come from the test; what may be contacted is judged by the real rules.
"""

import gzip
import json
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from fjmcp_broker.oauth.document_cache import CacheHeaders
from fjmcp_broker.upstream.bounded import BoundedEndpoint
from fjmcp_broker.upstream.document_http import (
    DocumentError,
    DocumentLimitError,
    FetchedBody,
    GuardedFetcher,
    is_own_address,
)
from fjmcp_broker.upstream.errors import UpstreamMisconfigured
from fjmcp_broker.upstream.resolver import (
    SystemResolver,
    TooManyLookups,
    system_look_up,
)
from tests.real.certificates import authority_for

# Its type is that of a module.
reactor: Any = installed_reactor

HOST: Final = "app.example.com"
URL: Final = f"https://{HOST}/oauth/client.json?v=1"
PUBLIC: Final = "1.1.1.1"
OTHER: Final = "8.8.8.8"
OWN_HOST: Final = "mcp.example.org"
OWN_ADDRESS: Final = "9.9.9.9"
ENDLESS_BYTES: Final = 4 * 1024 * 1024
BODY: Final = json.dumps({"client_id": URL}).encode()


def response(
    body: bytes = BODY,
    *headers: str,
    status: str = "200 OK",
    kind: str | None = "application/json",
) -> bytes:
    """
    @return: a whole HTTP response.
    """
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(Protocol):
    """Answers what the server was told to, as soon as a request comes."""

    def connectionMade(self) -> None:
        server: Any = self.factory
        server.connections += 1

    def dataReceived(self, data: bytes) -> None:
        server: Any = self.factory
        transport: Any = self.transport
        server.received += data
        transport.write(server.answer)
        if server.goes_on:
            transport.registerProducer(self, False)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        server: Any = self.factory
        if not server.lost.called:
            server.lost.callback(None)

    def resumeProducing(self) -> None:
        """More of the same, much longer than anybody should listen."""
        server: Any = self.factory
        transport: Any = self.transport
        server.sent += len(server.goes_on)
        transport.write(server.goes_on)
        # Twisted goes on to ask a producer on a TLS connection that has ended.
        if server.sent > ENDLESS_BYTES:
            transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The other side has had enough."""


class Server(Factory):
    """
    Says one thing, and perhaps one more without end.

    @ivar lost: fires when the first client has gone.
    """

    protocol = Connection
    noisy = False

    def __init__(self, answer: bytes = b"", goes_on: bytes = b"") -> None:
        self.answer = answer
        self.goes_on = goes_on
        self.connections = 0
        self.sent = 0
        self.received = b""
        self.lost: Deferred[None] = Deferred()


class FetchCase(TestCase):
    """A server, a resolver and a fetcher."""

    timeout = 60

    def setUp(self) -> None:
        self.names: dict[str, list[list[str]]] = {
            HOST: [[PUBLIC]],
            OWN_HOST: [[OWN_ADDRESS]],
        }
        self.looked_up: list[str] = []
        self.contacted: list[str] = []
        self.ports: dict[str, int] = {}
        self.authority, self.tls = authority_for(self.mktemp(), HOST)

    def resolve(self, host: str) -> Deferred[Sequence[str]]:
        """
        @return: the next answer for a name; the last one again and again.
        """
        self.looked_up.append(host)
        answers = self.names.get(host, [[]])
        return succeed(answers.pop(0) if len(answers) > 1 else answers[0])

    def connect(self, address: str) -> IStreamClientEndpoint:
        """
        @return: the way to the server that stands for an address.
        """
        self.contacted.append(address)
        port = self.ports.get(address, self.ports.get("", 1))
        endpoint: IStreamClientEndpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        return endpoint

    def listen(self, server: Any, *, tls: Any = None, address: str = "") -> None:
        """
        Serve at an address, or at all of them.
        """
        port: IListeningPort = reactor.listenSSL(
            0, server, tls or self.tls, interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        host: Any = port.getHost()
        self.ports[address] = host.port

    def fetcher(self, **how: Any) -> GuardedFetcher:
        """
        @return: one that trusts the test's authority.
        """
        given = {"ca_file": self.authority, "connect": self.connect, **how}
        return GuardedFetcher(reactor, self.resolve, own_host=OWN_HOST, **given)

    async def fetch(self, url: str = URL, **how: Any) -> FetchedBody:
        """
        @return: what came.
        """
        return await self.fetcher(**how).fetch(url, lambda address: None)

    async def refused(self, url: str = URL, **how: Any) -> DocumentError:
        """
        @return: what a fetch says that must fail.
        """
        try:
            await self.fetch(url, **how)
        except DocumentError as error:
            return error
        self.fail("the document was fetched")

    async def served(self, answer: bytes, goes_on: bytes = b"") -> DocumentError:
        """
        @return: what a fetch says when a server says that.
        """
        self.server = Server(answer, goes_on)
        self.listen(self.server)
        error = await self.refused()
        await self.server.lost
        return error


class FetchTests(FetchCase):
    """Servers that behave."""

    async def test_document(self) -> None:
        """The body and what its freshness depends on; one plain request."""
        server = Server(
            response(BODY, "Cache-Control: max-age=60", "Age: 5", "Set-Cookie: a=b")
        )
        self.listen(server)
        fetched = await self.fetch()
        self.assertEqual(fetched.body, BODY)
        self.assertEqual(fetched.headers, CacheHeaders(["max-age=60"], "5"))
        await server.lost
        head = server.received.decode().lower()
        self.assertTrue(head.startswith("get /oauth/client.json?v=1 http/1.1\r\n"))
        self.assertIn(f"\r\nhost: {HOST}\r\n", head)
        self.assertIn("\r\naccept-encoding: identity\r\n", head)
        for word in ("cookie", "authorization", "referer"):
            self.assertNotIn(word, head)
        self.assertEqual(self.contacted, [PUBLIC])

    async def test_server_name_is_sent(self) -> None:
        """SNI names the host of the URL, though the connection goes to an address."""
        names: list[bytes | None] = []
        context: Any = self.tls.getContext()
        context.set_tlsext_servername_callback(
            lambda connection: names.append(connection.get_servername())
        )
        self.listen(Server(response()))
        await self.fetch()
        self.assertEqual(names, [HOST.encode()])

    async def test_other_json_types(self) -> None:
        """Draft section 4: application/…+json is JSON too."""
        kind = "Application/Client-Metadata+JSON; charset=utf-8"
        self.listen(Server(response(kind=kind)))
        self.assertEqual((await self.fetch()).body, BODY)

    async def test_chunked(self) -> None:
        """A body need not have a length."""
        head = response(b"", "Transfer-Encoding: chunked").replace(
            b"Content-Length: 0\r\n", b""
        )
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
        self.listen(Server(head + chunks))
        self.assertEqual((await self.fetch()).body, BODY)

    async def test_other_kind_of_address_is_tried(self) -> None:
        """Where IPv4 leads nowhere, IPv6 may."""
        self.names[HOST] = [[OTHER, PUBLIC, "2606:4700::1111"]]
        self.ports[PUBLIC] = 1
        self.listen(Server(response()), address="2606:4700::1111")
        await self.fetch()
        self.assertEqual(self.contacted, [PUBLIC, "2606:4700::1111"])

    async def test_second_address_of_one_kind(self) -> None:
        """One that does not answer is not the end."""
        self.names[HOST] = [[OTHER, PUBLIC, "8.8.4.4"]]
        self.ports[PUBLIC] = 1
        self.listen(Server(response()), address="8.8.4.4")
        await self.fetch()
        self.assertEqual(self.contacted, [PUBLIC, "8.8.4.4"])


class ServerTests(FetchCase):
    """Servers that have no document to use."""

    async def test_status(self) -> None:
        """Draft section 4: everything but 200 is an error."""
        for status, is_passing in (
            ("404 Not Found", False),
            ("203 Other", False),
            ("500 Oops", True),
            ("429 Slow", True),
        ):
            error = await self.served(response(status=status))
            self.assertIn(status[:3], str(error))
            self.assertEqual(error.is_passing, is_passing)

    async def test_type(self) -> None:
        """A page is no document, whatever it says."""
        for kind in ("text/html", "text/json", "application/jsonp", "json", None):
            self.assertIn(
                "application/json", str(await self.served(response(kind=kind)))
            )
        two = response(BODY, "Content-Type: application/json")
        self.assertIn("application/json", str(await self.served(two)))

    async def test_encoding(self) -> None:
        """Nothing is unpacked: a few bytes could become very many."""
        packed = response(gzip.compress(BODY), "Content-Encoding: gzip")
        self.assertIn("compressed", str(await self.served(packed)))

    async def test_certificate_of_another_host(self) -> None:
        """The name is proven although the connection went to an address."""
        authority, tls = authority_for(self.mktemp(), "www.example.com")
        self.listen(Server(response()), tls=tls)
        error = await self.refused(ca_file=authority)
        self.assertIn("another host", str(error))

    async def test_unknown_authority(self) -> None:
        """Without the file the system's authorities count, and they do not know it."""
        server = Server(response())
        self.listen(server)
        error = await self.refused(ca_file=None)
        self.assertIn("TLS", str(error))
        self.assertEqual(server.received, b"")

    async def test_not_http(self) -> None:
        """Something else behind TLS."""
        error = await self.served(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        self.assertTrue(error.is_passing)

    async def test_nobody_there(self) -> None:
        """A refused connection passes."""
        error = await self.refused()
        self.assertIn("ConnectionRefusedError", str(error))
        self.assertTrue(error.is_passing)

    async def test_useless_authority_file(self) -> None:
        """The operator hears of it at the start."""
        self.assertRaises(UpstreamMisconfigured, self.fetcher, ca_file="/missing")


class ServerSideRequestForgeryTests(FetchCase):
    """What attackers would like to reach (draft section 8.6)."""

    async def nowhere(self, *addresses: str, url: str = URL) -> None:
        """
        A name that resolves so is not connected to, and the text does not tell why.
        """
        self.names[HOST] = [list(addresses)]
        error = await self.refused(url)
        self.assertEqual(
            str(error), "cannot be fetched: its host has no public address"
        )
        self.assertEqual(self.contacted, [])

    async def test_private(self) -> None:
        """RFC 1918, ULA, CGNAT, loopback, this network."""
        for address in (
            *("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1"),
            *("0.0.0.0", "::1", "::", "fd00::1", "198.18.0.1", "224.0.0.1"),
        ):
            await self.nowhere(address)
        await self.nowhere("10.0.0.1", "fd00::1", "127.0.0.1")

    async def test_link_local(self) -> None:
        """The metadata service of clouds, and IPv6 with a zone."""
        for address in ("169.254.169.254", "fe80::1", "fe80::1%1", "fd00:ec2::254"):
            await self.nowhere(address)

    async def test_v4_mapped(self) -> None:
        """IPv4 in the clothes of IPv6."""
        for address in ("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::7f00:1"):
            await self.nowhere(address)

    async def test_nat64_and_6to4(self) -> None:
        """IPv4 behind a translator or a tunnel."""
        for address in (
            *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1"),
            *("2002:7f00:1::1", "2001:0:7f00:1::1"),
        ):
            await self.nowhere(address)

    async def test_no_such_host(self) -> None:
        """Told like the rest, so that names of the local network cannot be probed."""
        await self.nowhere()

    async def test_mixed_answer(self) -> None:
        """Only the public one of several addresses is contacted, even if it is down."""
        self.names[HOST] = [["10.0.0.1", PUBLIC, "::1", "fe80::1"]]
        self.ports[PUBLIC] = 1
        await self.refused()
        self.assertEqual(self.contacted, [PUBLIC])

    async def test_rebinding(self) -> None:
        """The name is looked up once; its second answer changes nothing."""
        self.names[HOST] = [[PUBLIC], ["127.0.0.1"]]
        self.listen(Server(response()))
        await self.fetch()
        self.assertEqual(self.looked_up.count(HOST), 1)
        self.assertEqual(self.contacted, [PUBLIC])
        await self.refused()
        self.assertEqual(self.contacted, [PUBLIC])

    async def test_rebinding_between_fetches(self) -> None:
        """The next fetch looks again, and judges again."""
        self.names[HOST] = [[PUBLIC], ["169.254.169.254"]]
        self.listen(Server(response()))
        await self.fetch()
        await self.refused()
        self.assertEqual(self.contacted, [PUBLIC])

    async def test_redirect(self) -> None:
        """Draft section 4: none is followed, wherever it leads."""
        for target in ("https://app.example.com/x", "http://127.0.0.1/", "file:///x"):
            for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
                answer = response(BODY, f"Location: {target}", status=status)
                self.assertIn("redirects", str(await self.served(answer)))
                self.assertEqual(self.server.connections, 1)
        self.assertEqual(set(self.looked_up), {HOST, OWN_HOST})

    async def test_own_host(self) -> None:
        """Neither by our name, nor by our address under another name."""
        error = await self.refused(f"https://{OWN_HOST}/oauth/client.json")
        self.assertIn("no public address", str(error))
        self.assertEqual(self.looked_up, [])
        await self.nowhere(OWN_ADDRESS)

    async def test_own_interface(self) -> None:
        """Nor by an address of this machine that its name does not tell."""
        self.assertTrue(is_own_address("127.0.0.1"))
        self.assertFalse(is_own_address(PUBLIC))
        self.assertFalse(is_own_address("2606:4700::1111"))
        self.names[HOST] = [[OTHER]]
        error = await self.refused(is_own=lambda address: address == OTHER)
        self.assertIn("no public address", str(error))
        self.assertEqual(self.contacted, [])

    async def test_large_body(self) -> None:
        """16 KiB at the most, said or unsaid; the connection is cut."""
        announced = response(b"").replace(b"Length: 0", b"Length: 16385")
        self.assertIn("longer", str(await self.served(announced, b" " * 4096)))
        unsaid = response(b"").replace(b"Content-Length: 0\r\n", b"")
        self.assertIn("longer", str(await self.served(unsaid, b" " * 4096)))
        chunked = unsaid.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
        self.assertIn("longer", str(await self.served(chunked, chunk)))

    async def test_exactly_as_large_as_allowed(self) -> None:
        """The limit itself is allowed."""
        body = BODY + b" " * (16 * 1024 - len(BODY))
        self.listen(Server(response(body)))
        self.assertEqual(len((await self.fetch()).body), 16 * 1024)

    async def test_endless_head(self) -> None:
        """Headers, early responses and long lines have an end too, not only a time."""
        for answer, goes_on in (
            (b"HTTP/1.1 200 OK\r\n", b"X-More: %b\r\n" % (b"x" * 4096)),
            (b"", b"HTTP/1.1 103 Early Hints\r\nLink: %b\r\n\r\n" % (b"x" * 4096)),
            (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096),
        ):
            self.assertIn("ConnectionLost", str(await self.served(answer, goes_on)))

    async def test_wire_is_bounded(self) -> None:
        """So many bytes reach the other side of the meter, and not one more."""
        taken: list[bytes] = []

        class Taker(Protocol):
            """Keeps what comes."""

            def dataReceived(self, data: bytes) -> None:
                taken.append(data)

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                lost.callback(None)

        lost: Deferred[None] = Deferred()
        port: Any = reactor.listenTCP(0, Server(b"x" * 50_000), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        inner: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        endpoint = BoundedEndpoint(inner, 10_000)
        self.assertFalse(endpoint.was_connected)
        endpoint.abort()
        protocol: Any = await endpoint.connect(Factory.forProtocol(Taker))
        self.assertTrue(endpoint.was_connected)
        protocol.transport.write(b"go")
        await lost
        self.assertLessEqual(len(b"".join(taken)), 10_000)

    async def test_slow(self) -> None:
        """All together has a time, and then the connection is cut."""
        for answer in (b"", b"HTTP/1.1 200 OK\r\n", response()[:-1]):
            server = Server(answer)
            self.listen(server)
            error = await self.refused(timeout_seconds=0.3)
            self.assertIn("0.3 seconds", str(error))
            self.assertTrue(error.is_passing)
            await server.lost

    async def test_slow_handshake(self) -> None:
        """TLS that never begins is as slow as silence."""
        server = Server()
        port: Any = reactor.listenTCP(0, server, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.ports[""] = port.getHost().port
        # What it gets is a hello of TLS, to which it says nothing.
        error = await self.refused(timeout_seconds=0.3)
        self.assertIn("0.3 seconds", str(error))
        await server.lost

    async def test_slow_name_server(self) -> None:
        """Waiting for a name counts."""
        waiting: Deferred[Sequence[str]] = Deferred()
        fetcher = GuardedFetcher(
            reactor, lambda host: waiting, own_host="localhost", timeout_seconds=0.2
        )
        with self.assertRaises(DocumentError):
            await fetcher.fetch(URL, lambda address: None)

    async def test_too_many_connections_to_an_address(self) -> None:
        """Whoever counts them is asked before each."""
        asked: list[str] = []

        def admit(address: str) -> None:
            asked.append(address)
            raise DocumentLimitError

        with self.assertRaises(DocumentLimitError):
            await self.fetcher().fetch(URL, admit)
        self.assertEqual((asked, self.contacted), ([PUBLIC], []))

    async def test_too_many_lookups(self) -> None:
        """Strangers do not get all the threads that look up names."""
        held: list[Deferred[Sequence[str]]] = []
        names: list[str] = []

        def look_up(name: str) -> Deferred[Sequence[str]]:
            names.append(name)
            held.append(Deferred())
            return held[-1]

        resolve = SystemResolver(look_up, 2)
        first, second = resolve("a.example"), resolve("b.example")
        with self.assertRaises(TooManyLookups):
            await resolve("c.example")
        fetcher = GuardedFetcher(reactor, resolve, own_host="localhost")
        with self.assertRaises(DocumentLimitError):
            await fetcher.fetch(URL, lambda address: None)
        self.assertEqual(names, ["a.example", "b.example"])
        first.addErrback(lambda failure: None)
        first.cancel()
        # Nobody waits, but the thread is still taken.
        self.assertEqual(resolve.under_way, 2)
        held[0].errback(OSError("no more files"))
        held[1].callback([PUBLIC])
        self.assertEqual(list(await second), [PUBLIC])
        self.assertEqual(resolve.under_way, 0)

    async def test_lookup_that_fails(self) -> None:
        """It gives its place back and is told as trouble that passes."""

        def look_up(name: str) -> Deferred[Sequence[str]]:
            return fail(OSError("no more files"))

        resolve = SystemResolver(look_up, 1)
        fetcher = GuardedFetcher(reactor, resolve, own_host="localhost")
        for _ in range(3):
            with self.assertRaises(DocumentError) as refused:
                await fetcher.fetch(URL, lambda address: None)
            self.assertTrue(refused.exception.is_passing)
            self.assertNotIsInstance(refused.exception, DocumentLimitError)

    async def test_system_resolver(self) -> None:
        """The real one gives addresses in numbers, and none for no such name."""
        resolve = SystemResolver(system_look_up(reactor))
        self.assertEqual(list(await resolve("nothing.invalid")), [])
        self.assertEqual(resolve.under_way, 0)
