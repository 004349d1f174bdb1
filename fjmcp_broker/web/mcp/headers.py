"""What the endpoint asks of the headers of a POST, read once for each head."""

from fjmcp_broker.mcp.modern.requests import RequestHeaders
from fjmcp_broker.sessions.registry import digest_of
from fjmcp_broker.sessions.streams.formats import Formats
from fjmcp_broker.web.mcp.answers import accepted_formats
from fjmcp_broker.web.request import BrokerRequest


class McpHeaders:
    """
    The headers of a POST that say where its message goes and how it is answered.
    Everything in them is controlled by the client.

    @ivar session_id: C{Mcp-Session-Id}, or C{None}.
    @ivar session_digest: what its session is known by, if there is one.
    @ivar version: C{MCP-Protocol-Version}, or C{None}.
    @ivar has_method: whether there is an C{Mcp-Method}.
    @ivar formats: what the answer may come in.
    """

    __slots__ = (
        "_all",
        "_named",
        "formats",
        "has_method",
        "session_digest",
        "session_id",
        "version",
    )

    def __init__(self, request: BrokerRequest) -> None:
        """
        @param request: its headers are complete.
        """
        version = request.getHeader(b"mcp-protocol-version")
        self.session_id = id = request.getHeader(b"mcp-session-id")
        self.session_digest = b"" if id is None else digest_of(id.decode("latin-1"))
        self.version = None if version is None else version.decode("latin-1")
        self.has_method = request.getHeader(b"mcp-method") is not None
        self.formats = accepted_formats(request.getHeader(b"accept")) or Formats.BOTH
        self._all = request.requestHeaders
        self._named: RequestHeaders | None = None

    @property
    def named(self) -> RequestHeaders:
        """
        @return: what repeats something of a message of the stateless revisions.
        """
        if self._named is None:
            self._named = RequestHeaders.from_raw(self._all.getAllRawHeaders())
        return self._named


def headers_of(request: BrokerRequest) -> McpHeaders:
    """
    @param request: its headers are complete.
    @return: what they say. The same head says the same each time, so that it is read
        once.
    """
    head = request.head
    if head is None:
        return McpHeaders(request)
    if head.reading is None:
        head.reading = McpHeaders(request)
    reading: McpHeaders = head.reading
    return reading
