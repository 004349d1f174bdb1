"""What the endpoint reads of the headers of a POST."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from fjmcp_broker.mcp.modern.requests import RequestHeaders
from fjmcp_broker.sessions.streams.formats import Formats
from fjmcp_broker.web.heads import Head
from fjmcp_broker.web.mcp.headers import headers_of


class FakeRequest:
    """Its headers are complete."""

    def __init__(self, head: Head | None = None, **fields: str) -> None:
        """With these."""
        names = {name.replace("_", "-"): [value] for name, value in fields.items()}
        self.requestHeaders = Headers(names)
        self.head = head
        self.asked: list[bytes] = []

    def getHeader(self, name: bytes) -> bytes | None:  # noqa: N802 - Twisted's
        """As Twisted's."""
        self.asked.append(name)
        values = self.requestHeaders.getRawHeaders(name)
        return None if values is None else values[-1]


def read(request: Any) -> Any:
    """As the endpoint does."""
    return headers_of(request)


class HeadersTests(SynchronousTestCase):
    """Read once for each head."""

    def test_all_of_them(self) -> None:
        """They are what the client says."""
        headers = read(
            FakeRequest(
                mcp_session_id="s\xe9",
                MCP_Protocol_Version="2026-07-28",
                mcp_method="tools/call",
                Mcp_Name="t",
                Mcp_Param_Region="eu",
                Accept="application/json",
                Host="h",
            )
        )
        self.assertEqual(headers.session_id, "s\xe9".encode())
        self.assertEqual(headers.version, "2026-07-28")
        self.assertTrue(headers.has_method)
        self.assertIs(headers.formats, Formats.JSON)
        self.assertEqual(
            headers.named,
            RequestHeaders("2026-07-28", "tools/call", "t", (("region", "eu"),)),
        )

    def test_none_of_them(self) -> None:
        """Some clients say nothing."""
        headers = read(FakeRequest())
        self.assertEqual((headers.session_id, headers.version), (None, None))
        self.assertFalse(headers.has_method)
        self.assertIs(headers.formats, Formats.BOTH)
        self.assertEqual(headers.named, RequestHeaders())

    def test_once_for_each_head(self) -> None:
        """Only the same head is not read again."""
        head = Head((b"POST", b"/mcp", b"HTTP/1.1"), {})
        first = read(FakeRequest(head, Mcp_Session_Id="a"))
        again = FakeRequest(head, Mcp_Session_Id="a")
        self.assertIs(read(again), first)
        self.assertEqual(again.asked, [])
        other = Head((b"POST", b"/mcp", b"HTTP/1.1"), {})
        self.assertEqual(read(FakeRequest(other, Mcp_Session_Id="b")).session_id, b"b")
        self.assertEqual(read(FakeRequest(Mcp_Session_Id="c")).session_id, b"c")
