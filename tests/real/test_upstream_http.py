"""Speaking to Forgejo over real sockets: trust, limits, timeouts, proxies."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec.structs import replace
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort, IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.tcp import Client
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import Site

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.secret import Secret
from fjmcp_broker.upstream.errors import UpstreamMisconfigured, UpstreamUnavailable
from fjmcp_broker.upstream.forgejo import Forgejo, ForgejoSettings
from fjmcp_broker.upstream.http import build_http

# Its type is that of a module.
reactor: Any = installed_reactor

PUBLIC_URL = "https://broker.test"
REDIRECT_URI = f"{PUBLIC_URL}/oauth/callback"
SETTINGS = ForgejoSettings(
    url="http://127.0.0.1:1",
    client_id="id",
    client_secret=Secret("secret"),
    scopes=tuple(DEFAULT_SCOPES.split()),
    public_url=PUBLIC_URL,
    token_timeout_seconds=5,
    call_timeout_seconds=5,
)


class CountedConnection(Protocol):
    """
    Accepts, answers with what the factory says as soon as a request comes, and
    tells when the client has gone.
    """

    def connectionMade(self) -> None:
        cast(ScriptedServer, self.factory).connected.append(self)

    def dataReceived(self, data: bytes) -> None:
        server = cast(ScriptedServer, self.factory)
        server.received += data
        transport: Any = self.transport
        if server.answer:
            transport.write(server.answer)
        if server.is_deaf:
            # Below TLS: not even a closing alert is read.
            transport.transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        server = cast(ScriptedServer, self.factory)
        if not server.lost.called:
            server.lost.callback(None)


class ScriptedServer(Factory):
    """
    A server that says one thing.

    @ivar lost: fires when the first client has gone.
    """

    noisy = False

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.is_deaf = False
        self.received = b""
        self.connected: list[CountedConnection] = []
        self.lost: Deferred[None] = Deferred()

    def buildProtocol(self, address: object) -> CountedConnection:
        """A connection."""
        connection = CountedConnection()
        connection.factory = self
        return connection


class HttpTestCase(TestCase):
    """Servers and clients that are gone when the test is."""

    timeout = 60

    def listen(self, factory: Any, *, tls: Any = None) -> int:
        """Serve on a free port of the loopback address."""
        if tls is None:
            port: IListeningPort = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        host: Any = port.getHost()
        number: int = host.port
        return number

    def client(self, settings: ForgejoSettings, **how: Any) -> Forgejo:
        """Our client of Forgejo, with real connections."""
        http = build_http(reactor, **how)
        self.addCleanup(lambda: Deferred.fromCoroutine(http.close()))
        return Forgejo(settings, http.client, reactor)

    async def unavailable(self, forgejo: Forgejo) -> str:
        """What a call says that must fail."""
        try:
            await forgejo.userinfo(Secret("x"))
        except UpstreamUnavailable as error:
            return str(error)
        self.fail("the call succeeded")

    def scripted(self, answer: bytes, **changes: Any) -> tuple[ScriptedServer, Forgejo]:
        """A server with one answer, and a client of it."""
        server = ScriptedServer(answer)
        url = f"http://127.0.0.1:{self.listen(server)}"
        return server, self.client(replace(SETTINGS, url=url, **changes))


class StandInTests(HttpTestCase):
    """The stand-in Forgejo on a port."""

    async def journey(self, path: str, **how: Any) -> None:
        """Exchange, ask, refresh; also all at once."""
        stand_in = StandInForgejo(reactor)
        site = Site(stand_in.resource)
        port = self.listen(site, tls=how.pop("tls", None))
        scheme = "https" if how else "http"
        stand_in.base_url = f"{scheme}://127.0.0.1:{port}{path}"
        application = stand_in.add_application(REDIRECT_URI)
        settings = replace(
            SETTINGS,
            url=stand_in.base_url,
            client_id=application.client_id,
            client_secret=Secret(application.client_secret),
        )
        forgejo = self.client(settings, **how)
        code = stand_in.controls.issue_code("bob", REDIRECT_URI, scope=DEFAULT_SCOPES)
        first = await forgejo.exchange_code(code, "")
        second = await forgejo.refresh(first.refresh_token)
        user = await forgejo.userinfo(second.access_token)
        self.assertEqual((user.user_id, user.login), (first.user_id, "bob"))
        seen = await forgejo.introspect(second.refresh_token)
        self.assertEqual((seen.active, seen.scope), (True, DEFAULT_SCOPES))
        users = await gatherResults(
            [
                Deferred.fromCoroutine(forgejo.userinfo(second.access_token))
                for _ in range(20)
            ]
        )
        self.assertEqual({each.login for each in users}, {"bob"})

    async def test_at_the_root(self) -> None:
        """The usual place."""
        await self.journey("")

    async def test_below_a_path(self) -> None:
        """Forgejo may share its host."""
        await self.journey("/code/forge")

    async def test_private_authority(self) -> None:
        """A certificate of the configured authority is trusted."""
        authority, server = certificates(Path(self.mktemp()), "127.0.0.1")
        await self.journey("", tls=server, ca_file=str(authority))

    async def test_connection_is_shared_in_sequence(self) -> None:
        """The calls of one sign-in need one connection."""
        body = b'{"sub":"1","preferred_username":"a"}'
        server, forgejo = self.scripted(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        for _ in range(3):
            await forgejo.userinfo(Secret("x"))
        self.assertEqual(len(server.connected), 1)


class TroubleTests(HttpTestCase):
    """Servers that do not behave."""

    async def test_nobody_there(self) -> None:
        """A refused connection is an outage with a name."""
        port: Any = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        url = f"http://127.0.0.1:{port.getHost().port}"
        await port.stopListening()
        forgejo = self.client(replace(SETTINGS, url=url))
        self.assertIn("ConnectionRefusedError", await self.unavailable(forgejo))

    async def test_silence(self) -> None:
        """A server that never answers is given up in time and hung up on."""
        server, forgejo = self.scripted(b"", call_timeout_seconds=0.2)
        self.assertIn("within 0.2 seconds", await self.unavailable(forgejo))
        await server.lost

    async def test_silence_in_the_middle(self) -> None:
        """So is one that stops in the middle of a body."""
        server, forgejo = self.scripted(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
            call_timeout_seconds=0.2,
        )
        self.assertIn("within 0.2 seconds", await self.unavailable(forgejo))
        await server.lost

    async def test_silence_in_the_middle_of_tls(self) -> None:
        """TLS does not keep the connection open by waiting for a polite goodbye."""
        authority, options = certificates(Path(self.mktemp()), "127.0.0.1")
        server = ScriptedServer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        settings = replace(
            SETTINGS,
            url=f"https://127.0.0.1:{self.listen(server, tls=options)}",
            call_timeout_seconds=1,
        )
        # A peer that hangs does not even answer the closing of TLS.
        server.is_deaf = True
        forgejo = self.client(settings, ca_file=str(authority))
        self.assertIn("within 1 seconds", await self.unavailable(forgejo))
        await tick()
        left = [each for each in reactor.getReaders() if isinstance(each, Client)]
        self.assertEqual(left, [])
        transport: Any = server.connected[0].transport
        transport.abortConnection()
        await server.lost

    async def test_stop_with_a_deaf_peer(self) -> None:
        """An idle connection whose peer does not say goodbye does not hold a stop."""
        authority, options = certificates(Path(self.mktemp()), "127.0.0.1")
        server = ScriptedServer(
            b"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n"
            b'{"sub":"1","preferred_username":"a"}'
        )
        server.is_deaf = True
        url = f"https://127.0.0.1:{self.listen(server, tls=options)}"
        http = build_http(reactor, ca_file=str(authority))
        forgejo = Forgejo(replace(SETTINGS, url=url), http.client, reactor)
        await forgejo.userinfo(Secret("x"))
        await http.close()
        transport: Any = server.connected[0].transport
        transport.abortConnection()
        await server.lost
        await tick()

    async def test_endless_body(self) -> None:
        """A body has a limit, and what is beyond is not read."""
        server, forgejo = self.scripted(
            b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 * 1024 * 1024)
        )
        self.assertIn("longer", await self.unavailable(forgejo))
        await server.lost

    async def test_cut_body(self) -> None:
        """A body that ends before its length is no answer."""
        server, forgejo = self.scripted(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"
        )
        call = Deferred.fromCoroutine(self.unavailable(forgejo))
        while not server.received:
            await tick()
        transport = server.connected[0].transport
        assert transport is not None
        transport.loseConnection()
        self.assertIn("no answer", await call)

    async def test_not_http(self) -> None:
        """Something else on the port is no answer."""
        _, forgejo = self.scripted(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        self.assertIn("no answer", await self.unavailable(forgejo))

    async def test_redirect_is_not_followed(self) -> None:
        """Tokens go to the configured address and nowhere else."""
        other = ScriptedServer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        port = self.listen(other)
        _, forgejo = self.scripted(
            b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:%d/\r\n"
            b"Content-Length: 0\r\n\r\n" % port
        )
        self.assertIn("redirect", await self.unavailable(forgejo))
        self.assertEqual(other.connected, [])

    async def test_cookies_are_not_kept(self) -> None:
        """One client serves all users, so no answer may mark the next request."""
        body = b'{"sub":"1","preferred_username":"a"}'
        server, forgejo = self.scripted(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: session=alice; Path=/\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await forgejo.userinfo(Secret("x"))
        await forgejo.userinfo(Secret("x"))
        self.assertEqual(server.received.count(b"GET "), 2)
        self.assertNotIn(b"cookie", server.received.lower())


class TrustTests(HttpTestCase):
    """Certificates that must not be trusted."""

    async def test_unknown_authority(self) -> None:
        """Without the file a private certificate is refused, and the text says TLS."""
        _, server = certificates(Path(self.mktemp()), "127.0.0.1")
        port = self.listen(Site(Resource()), tls=server)
        forgejo = self.client(replace(SETTINGS, url=f"https://127.0.0.1:{port}"))
        reason = await self.unavailable(forgejo)
        self.assertIn("certificate verify failed", reason)

    async def test_another_host(self) -> None:
        """A certificate of the authority for another name is refused."""
        authority, server = certificates(Path(self.mktemp()), "127.0.0.2")
        port = self.listen(Site(Resource()), tls=server)
        forgejo = self.client(
            replace(SETTINGS, url=f"https://127.0.0.1:{port}"),
            ca_file=str(authority),
        )
        await self.unavailable(forgejo)


class ProxyTests(HttpTestCase):
    """Sites whose only way out is an HTTP proxy."""

    def proxied(
        self, *, tls: bool, password: str = "me:s%40fe@", **how: Any
    ) -> tuple["TunnelProxy", Forgejo]:
        """A server, a proxy, and a client that has to go through it."""
        authority, server = certificates(Path(self.mktemp()), "127.0.0.1")
        port = self.listen(Site(Answering()), tls=server if tls else None)
        proxy = TunnelProxy(**how)
        address = f"http://{password}127.0.0.1:{self.listen(proxy)}"
        scheme = "https" if tls else "http"
        return proxy, self.client(
            replace(SETTINGS, url=f"{scheme}://127.0.0.1:{port}"),
            ca_file=str(authority),
            proxy=address,
        )

    async def test_tunnel(self) -> None:
        """For https the proxy only sees where to, and its own password."""
        proxy, forgejo = self.proxied(tls=True)
        user = await forgejo.userinfo(Secret("the-token"))
        self.assertEqual(user.login, "via")
        self.assertTrue(proxy.heads[0].startswith(b"CONNECT 127.0.0.1:"))
        self.assertIn(b"Proxy-Authorization: Basic bWU6c0BmZQ==", proxy.heads[0])
        self.assertNotIn(b"the-token", b"".join(proxy.heads))

    async def test_forwarding(self) -> None:
        """Plain http is sent to the proxy as it is."""
        proxy, forgejo = self.proxied(tls=False)
        user = await forgejo.userinfo(Secret("x"))
        self.assertEqual(user.login, "via")
        self.assertTrue(proxy.heads[0].startswith(b"GET http://127.0.0.1:"))
        self.assertIn(b"Proxy-Authorization: Basic bWU6c0BmZQ==", proxy.heads[0])

    async def test_without_a_password(self) -> None:
        """Most proxies ask for none."""
        for tls in (True, False):
            proxy, forgejo = self.proxied(tls=tls, password="")
            user = await forgejo.userinfo(Secret("x"))
            self.assertEqual(user.login, "via")
            self.assertNotIn(b"Proxy-Authorization", proxy.heads[0])

    async def test_silent_proxy(self) -> None:
        """A proxy that says nothing is given up with the call."""
        server = ScriptedServer(b"")
        forgejo = self.client(
            replace(SETTINGS, url="https://127.0.0.1:9", call_timeout_seconds=0.3),
            proxy=f"http://127.0.0.1:{self.listen(server)}",
        )
        self.assertIn("within 0.3 seconds", await self.unavailable(forgejo))
        await server.lost

    async def test_slow_proxy(self) -> None:
        """The connection timeout covers the proxy's answer too, in pieces or not."""
        server = ScriptedServer(b"HTTP/1.1 200 Conn")
        forgejo = self.client(
            replace(SETTINGS, url="https://127.0.0.1:9"),
            proxy=f"http://127.0.0.1:{self.listen(server)}",
            connect_timeout_seconds=0.3,
        )
        self.assertIn("TimeoutError", await self.unavailable(forgejo))
        await server.lost

    async def test_refusals(self) -> None:
        """A proxy that opens no tunnel is an outage."""
        for refusal in (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nsurprise",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"x" * 20_000,
        ):
            _, forgejo = self.proxied(tls=True, refusal=refusal)
            self.assertIn("TunnelRefused", await self.unavailable(forgejo))

    async def test_proxy_that_hangs_up(self) -> None:
        """So is one that closes the connection."""
        _, forgejo = self.proxied(tls=True, refusal=None)
        self.assertIn("TunnelRefused", await self.unavailable(forgejo))


class ConfigurationTests(SynchronousTestCase):
    """What the operator may get wrong."""

    def refused(self, **how: str) -> str:
        """The message for the operator."""
        error = self.assertRaises(UpstreamMisconfigured, build_http, reactor, **how)
        return str(error)

    def test_certificate_file(self) -> None:
        """A missing file and one without certificates are told apart."""
        path = Path(self.mktemp())
        self.assertIn("No such file", self.refused(ca_file=str(path)))
        path.write_text("not a certificate")
        self.assertIn("no certificates", self.refused(ca_file=str(path)))

    def test_proxy(self) -> None:
        """Only plain proxies can be used."""
        for url in (
            "https://proxy.test",
            "socks5://proxy.test",
            "proxy.test:3128",
            "http://",
            "http://proxy.test/path",
            "http://proxy.test:port",
        ):
            self.assertIn("proxy", self.refused(proxy=url), url)


class Answering(Resource):
    """
    A userinfo endpoint for everybody.
    """

    isLeaf = True

    def render_GET(self, request: IRequest) -> bytes:
        """Whoever asks is the same user."""
        return b'{"sub":"1","preferred_username":"via"}'


class TunnelProxy(Factory):
    """
    A proxy for one target, as small as it gets.

    @ivar heads: what clients said to the proxy itself.
    """

    noisy = False

    def __init__(self, refusal: bytes | None = b"") -> None:
        """
        @param refusal: said instead of opening a way; C{None} hangs up.
        """
        self.refusal = refusal
        self.heads: list[bytes] = []

    def buildProtocol(self, address: object) -> "ProxyConnection":
        """A connection of a client."""
        return ProxyConnection(self)


class ProxyConnection(Protocol):
    """
    Reads one head, then copies bytes in both directions.
    """

    def __init__(self, proxy: TunnelProxy) -> None:
        self._proxy = proxy
        self._head = b""
        self._other: Protocol | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._other is not None:
            send(self._other, data)
            return
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        head, self._head = self._head, b""
        self._proxy.heads.append(head)
        if self._proxy.refusal:
            send(self, self._proxy.refusal)
        elif self._proxy.refusal is None:
            hang_up(self)
        else:
            method, target = head.split(b" ")[:2]
            address = target.removeprefix(b"http://").split(b"/")[0]
            port = int(address.rpartition(b":")[2])
            greeting = b"" if method == b"CONNECT" else head
            Deferred.fromCoroutine(self._connect(port, greeting))

    async def _connect(self, port: int, greeting: bytes) -> None:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        other = Copying(self)
        await connectProtocol(endpoint, other)
        self._other = other
        if greeting:
            path = greeting.split(b" ")[1].split(b"/", 3)[3]
            send(other, greeting.replace(greeting.split(b" ")[1], b"/" + path, 1))
        else:
            send(self, b"HTTP/1.1 200 Connection established\r\n\r\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        hang_up(self._other)


class Copying(Protocol):
    """
    The far side of a way through the proxy.
    """

    def __init__(self, near: Protocol) -> None:
        self._near = near

    def dataReceived(self, data: bytes) -> None:
        send(self._near, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        hang_up(self._near)


def send(protocol: Protocol, data: bytes) -> None:
    """Write, if there is still somebody."""
    if protocol.transport is not None:
        protocol.transport.write(data)


def hang_up(protocol: IProtocol | None) -> None:
    """Close, if there is something to close."""
    transport = getattr(protocol, "transport", None)
    if transport is not None:
        transport.loseConnection()


def tick() -> Deferred[None]:
    """Let the reactor turn once."""
    turned: Deferred[None] = Deferred()
    reactor.callLater(0, turned.callback, None)
    return turned


def certificates(directory: Path, address: str) -> tuple[Path, CertificateOptions]:
    """
    @return: the file of a fresh authority, and a server with a certificate of its.
    """
    now = datetime.now(UTC)

    def builder(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")]
    )
    authority = (
        builder("test authority", authority_key)
        .issuer_name(authority_name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = (
        builder(address, server_key)
        .issuer_name(authority_name)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    directory.mkdir()
    path = directory / "authority.pem"
    path.write_bytes(authority.public_bytes(Encoding.PEM))
    # Twisted's types ask for pyOpenSSL's objects, which pyOpenSSL has deprecated.
    options = CertificateOptions(
        privateKey=server_key,  # type: ignore[arg-type]
        certificate=server,  # type: ignore[arg-type]
    )
    return path, options
