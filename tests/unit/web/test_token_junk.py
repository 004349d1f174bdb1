"""Junk at every endpoint of the token side: refused in shape, nothing changed."""

import json
from base64 import b64encode
from urllib.parse import quote_plus

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from fjmcp_broker.oauth.vocabulary import ErrorCode
from tests.unit.web.token_fixture import BACK, VERIFIER, TokenWorld

FORM = b"application/x-www-form-urlencoded"
PATHS = (b"/oauth/token", b"/oauth/revoke")
#: What Twisted answers to what is no HTTP.
NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"

JUNK = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", "\0", "\r\n", "é", "\ud800", "%", "&", "=", "a" * 5000, "[" * 10_000]
    ),
)
HEADER_BYTES = st.binary(max_size=60).map(
    lambda raw: raw.replace(b"\r", b"").replace(b"\n", b"")
)


def encode(text: str) -> str:
    """
    @return: the text, form-encoded; lone surrogates become bytes that are no UTF-8.
    """
    return quote_plus(text.encode("utf-8", "surrogatepass"))


class JunkTests(SynchronousTestCase):
    """RFC 6749 section 5.2: every refusal is a 4xx with a JSON object."""

    def setUp(self) -> None:
        self.world = TokenWorld(self)
        self.tokens = self.world.signed_in()
        self.world.refresh(self.tokens["refresh_token"])
        self.code = self.world.code()
        self.before = self.world.dump()
        self.site = Site(
            self.world.resource, reactor=Clock(), parsePOSTFormSubmission=False
        )
        self.addCleanup(self.check_tables)

    def send(
        self,
        path: bytes,
        body: bytes,
        *,
        method: bytes = b"POST",
        content_type: bytes = FORM,
        authorization: bytes | None = None,
        origin: bytes | None = None,
        host: bytes = b"mcp.example.org",
    ) -> tuple[int, bytes]:
        """
        Send bytes as they are.

        @return: status and body.
        """
        head = [
            b"%s %s HTTP/1.1" % (method, path),
            b"Host: " + host,
            b"Connection: close",
            b"Content-Type: " + content_type,
            b"Content-Length: %d" % len(body),
        ]
        if authorization is not None:
            head.append(b"Authorization: " + authorization)
        if origin is not None:
            head.append(b"Origin: " + origin)
        transport = StringTransport()
        protocol = self.site.buildProtocol(None)
        assert protocol is not None
        protocol.makeConnection(transport)
        protocol.dataReceived(b"\r\n".join(head) + b"\r\n\r\n" + body)
        protocol.connectionLost(Failure(ConnectionDone()))
        answer = transport.value()
        if answer == NOT_HTTP:
            return 400, b'{"error":"invalid_request"}'
        status_line, _, rest = answer.partition(b"\r\n")
        _, _, content = rest.partition(b"\r\n\r\n")
        return int(status_line.split()[1]), content

    def check(self, answer: tuple[int, bytes]) -> None:
        """
        Require a refusal of the right shape.
        """
        status, body = answer
        self.assertIn(status, range(400, 500), body)
        document = json.loads(body)
        self.assertIn(document["error"], set(ErrorCode))
        self.assertNotIn("incident", document)

    def check_tables(self) -> None:
        """
        Whatever was sent, no table has changed.
        """
        self.assertEqual(self.world.dump(), self.before)

    @given(st.sampled_from(PATHS), st.binary(max_size=300), HEADER_BYTES)
    def test_any_body_and_type(self, path: bytes, body: bytes, kind: bytes) -> None:
        """As a form and as anything else."""
        self.check(self.send(path, body))
        self.check(self.send(path, body, content_type=kind))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        "grant_type",
                        "client_id",
                        "client_secret",
                        "code",
                        "code_verifier",
                        "redirect_uri",
                        "refresh_token",
                        "scope",
                        "resource",
                    ]
                ),
                st.one_of(
                    JUNK,
                    st.sampled_from(
                        [
                            "authorization_code",
                            "refresh_token",
                            "public",
                            "other",
                            "secret",
                            BACK,
                            "read",
                            "https://mcp.example.org/mcp",
                        ]
                    ),
                ),
            ),
            max_size=12,
        )
    )
    def test_any_parameters(self, pairs: list[tuple[str, str]]) -> None:
        """Known names with right, wrong and broken values, repeated or missing."""
        body = "&".join(f"{name}={encode(value)}" for name, value in pairs)
        self.check(self.send(b"/oauth/token", body.encode("ascii")))

    @given(
        st.sampled_from(["code", "code_verifier", "client_id", "redirect_uri"]),
        JUNK.filter(lambda text: text not in ("public", BACK)),
    )
    def test_one_wrong_parameter(self, name: str, junk: str) -> None:
        """An exchange that would succeed but for that."""
        form = {
            "grant_type": "authorization_code",
            "client_id": "public",
            "code": self.code,
            "code_verifier": VERIFIER,
            "redirect_uri": BACK,
            name: junk,
        }
        if name == "redirect_uri" and not junk:
            return  # It may be absent.
        body = "&".join(f"{key}={encode(value)}" for key, value in form.items())
        self.check(self.send(b"/oauth/token", body.encode("ascii")))

    @given(st.sampled_from(PATHS), HEADER_BYTES | HEADER_BYTES.map(b64encode))
    def test_any_authorization(self, path: bytes, junk: bytes) -> None:
        """Not Basic, or not of a client."""
        body = (
            f"token={self.tokens['refresh_token']}&grant_type=refresh_token"
            f"&refresh_token={self.tokens['refresh_token']}"
        ).encode()
        self.check(self.send(path, body, authorization=junk))
        self.check(self.send(path, body, authorization=b"Basic " + junk))

    @given(
        st.text(
            st.sampled_from(
                "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_!#$%&'*+.^`|~"
            ),
            min_size=1,
            max_size=12,
        ).filter(lambda word: word not in ("POST", "OPTIONS")),
        st.sampled_from(PATHS),
    )
    def test_any_method(self, method: str, path: bytes) -> None:
        """Another method is refused; HEAD has no body to look at."""
        status, body = self.send(path, b"", method=method.encode())
        if method != "HEAD":
            self.check((status, body))
        self.assertIn(status, (400, 405))

    @given(st.binary(min_size=1, max_size=40))
    def test_any_path(self, raw: bytes) -> None:
        """Paths that are not there, in any bytes."""
        for junk in (b"".join(raw.split()), quote_plus(raw).encode("ascii")):
            status, body = self.send(b"/oauth/x" + junk, b"", method=b"GET")
            self.check((status, body))

    @given(HEADER_BYTES, HEADER_BYTES)
    def test_any_host_and_origin(self, host: bytes, origin: bytes) -> None:
        """They are not ours."""
        self.check(self.send(b"/oauth/token", b"", host=host, origin=origin))
        self.check(self.send(b"/oauth/nowhere", b"", origin=origin))

    @given(st.binary(max_size=200).map(lambda raw: b"".join(raw.split())))
    def test_any_query(self, query: bytes) -> None:
        """Documents do not care; the token endpoint never reads one."""
        for path in (b"/healthz", b"/readyz", b"/.well-known/oauth-protected-resource"):
            status, _ = self.send(path + b"?" + query, b"", method=b"GET")
            self.assertIn(status, (200, 400))
        self.check(self.send(b"/oauth/token?" + query, b""))

    def test_huge_body(self) -> None:
        """RFC 9110 section 15.5.14."""
        status, body = self.send(b"/oauth/token", b"a=" + b"b" * 100_000)
        self.assertEqual(status, 413)
        self.check((status, body))

    def test_secret_in_the_query_is_no_secret(self) -> None:
        """RFC 6749 section 2.3.1: MUST NOT be included in the request URI."""
        query = (
            f"grant_type=authorization_code&client_id=public&code={self.code}"
            f"&code_verifier={VERIFIER}"
        ).encode()
        self.check(self.send(b"/oauth/token?" + query, b""))
