"""
Judging a request of the stateless revisions: its headers against its body, and the
protocol's own members of C{_meta} (MCP 2026-07-28, basic, C{_meta}; transports,
Streamable HTTP, request metadata).
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from fjmcp_broker.mcp.envelope import NULL, Notification, Request, text_of
from fjmcp_broker.mcp.modern import errors
from fjmcp_broker.mcp.modern.edits import members_of
from fjmcp_broker.mcp.versions import META_VERSION, SUPPORTED, is_modern
from fjmcp_broker.secret import Confidential

META_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT: Final = "io.modelcontextprotocol/clientInfo"
META_LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
PARAMETER_PREFIX: Final = "mcp-param-"

LOG_LEVELS: Final = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)
"""From the least severe on (RFC 5424 section 6.2.1)."""

NAMED: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
}
"""The member of C{params} that C{Mcp-Name} repeats. The same three methods may be
answered with questions (MCP 2026-07-28, multi round-trip requests)."""

REMOVED: Final = frozenset(
    (
        "initialize",
        "logging/setLevel",
        "ping",
        "resources/subscribe",
        "resources/unsubscribe",
    )
)
"""Methods of the older revisions that these do not have."""


class RequestHeaders(msgspec.Struct, frozen=True):
    """
    The headers that repeat something of the body, as texts without white space around
    them. Everything in them is controlled by the client.

    @ivar version: C{MCP-Protocol-Version}, or None.
    @ivar method: C{Mcp-Method}, or None.
    @ivar name: C{Mcp-Name}, or None.
    @ivar parameters: names, in lower case and without C{Mcp-Param-}, and values.
    """

    version: str | None = None
    method: str | None = None
    name: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_raw(
        cls, headers: Iterable[tuple[bytes, Sequence[bytes]]]
    ) -> "RequestHeaders":
        """
        @param headers: names in any case, and the values of each: what
            C{twisted.web.http_headers.Headers.getAllRawHeaders} gives. A repeated
            header is joined as RFC 9110 section 5.3 has it, and so matches nothing.
        @return: the headers that matter here.
        """
        found: dict[str, str] = {}
        parameters: list[tuple[str, str]] = []
        for raw_name, values in headers:
            lowered = raw_name.lower()
            if not lowered.startswith(b"mcp-"):
                continue
            name = lowered.decode("latin-1")
            text = ", ".join(raw.decode("latin-1").strip(" \t") for raw in values)
            if name.startswith(PARAMETER_PREFIX):
                parameters.append((name.removeprefix(PARAMETER_PREFIX), text))
            else:
                found[name] = text
        return cls(
            found.get("mcp-protocol-version"),
            found.get("mcp-method"),
            found.get("mcp-name"),
            tuple(parameters),
        )


class ModernRequest(Confidential, msgspec.Struct, frozen=True):
    """
    A request that may be served.

    @ivar request: as the client sent it.
    @ivar version: the revision that it names.
    @ivar capabilities: raw JSON object: what the client declares for this request.
    @ivar client_info: raw JSON object, or None; for display and logs only.
    @ivar log_level: one of L{LOG_LEVELS}, or None for no log messages.
    @ivar input_responses: raw JSON of each answer by key; None when there is no
        C{inputResponses}. Only for the methods of L{NAMED}.
    @ivar request_state: what the client repeats of an earlier answer, or None.
    @ivar parameters: the C{Mcp-Param-} headers, see L{RequestHeaders}.
    """

    request: Request
    version: str
    capabilities: bytes
    client_info: bytes | None = None
    log_level: str | None = None
    input_responses: Mapping[str, bytes] | None = None
    request_state: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> bytes:
        """
        Raw JSON of the id, as the client wrote it.
        """
        return self.request.id

    @property
    def method(self) -> str:
        """
        The method.
        """
        return self.request.method

    @property
    def may_be_asked(self) -> bool:
        """
        Whether the answer may be a question.
        """
        return self.request.method in NAMED


def judge(
    request: Request,
    headers: RequestHeaders,
    *,
    supported: Sequence[str] = SUPPORTED,
) -> ModernRequest:
    """
    Check a request. First what tells the revision, because a client of another one
    needs to hear that; then what this revision asks of every request, then the method.

    @param request: what the client sent, from L{fjmcp_broker.mcp.messages.parse}.
    @param headers: its headers.
    @param supported: the revisions that are spoken here, for the refusal.
    @return: the request with its parts.
    @raise ModernError: -32602 for missing or malformed members of C{_meta}, -32020 for
        a header that is missing or differs, -32022 for a revision that is not spoken
        here, all with status 400; -32601 with 404 for a method that was removed.
    """
    id, meta = request.id, request.meta
    version = _version(id, meta, headers, supported)
    capabilities = meta.get(META_CAPABILITIES, NULL)
    if capabilities != b"{}" and members_of(capabilities) is None:
        raise errors.invalid_params(id, f"_meta has no object {META_CAPABILITIES}")
    client_info = meta.get(META_CLIENT)
    if client_info is not None and not client_info.startswith(b"{"):
        # It only serves display and logs, so a malformed one is as good as none.
        client_info = None
    log_level = None
    if meta.get(META_LOG_LEVEL, NULL) != NULL:
        # Some libraries write what they leave out; null stands for that.
        log_level = text_of(meta[META_LOG_LEVEL])
        if log_level not in LOG_LEVELS:
            raise errors.invalid_params(id, f"{META_LOG_LEVEL} is no log level")
    _check_method(request, headers)
    _check_name(request, headers)
    if request.method in REMOVED:
        raise errors.method_not_found(id)
    responses, state = _retry(request)
    return ModernRequest(
        request,
        version,
        capabilities,
        client_info,
        log_level,
        responses,
        state,
        headers.parameters,
    )


def judge_notification(
    notification: Notification,
    headers: RequestHeaders,
    *,
    supported: Sequence[str] = SUPPORTED,
) -> None:
    """
    Check a notification. These revisions define none for this transport, and ask for no
    header; so only what is there is held against the rest.

    @param notification: what the client sent.
    @param headers: its headers.
    @param supported: the revisions that are spoken here, for the refusal.
    @raise ModernError: as L{judge}, with the id C{null}.
    """
    named = text_of(notification.meta.get(META_VERSION))
    version = named if headers.version is None else headers.version
    if named is not None and named != version:
        raise errors.header_mismatch(NULL, "MCP-Protocol-Version and body differ")
    if version is not None and not (is_modern(version) and version in supported):
        raise errors.unsupported_version(NULL, version, supported)
    if headers.method is not None and headers.method != notification.method:
        raise errors.header_mismatch(NULL, "Mcp-Method and body differ")


def decoded(value: str) -> str | None:
    """
    Undo the encoding of a header value (MCP 2026-07-28, transports, value encoding).

    @param value: of C{Mcp-Name} or C{Mcp-Param-...}, controlled by the client.
    @return: the text that it stands for; None when it has characters that a header
        must not have, or is marked as Base64 and is not such UTF-8.
    """
    if not (value.isascii() and value.replace("\t", " ").isprintable()):
        return None
    if not (value.startswith("=?base64?") and value.endswith("?=")) or len(value) < 11:
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def _version(
    id: bytes,
    meta: Mapping[str, bytes],
    headers: RequestHeaders,
    supported: Sequence[str],
) -> str:
    """The revision of a request, the same in body and header."""
    version = text_of(meta.get(META_VERSION))
    if version is None:
        raise errors.invalid_params(id, f"_meta has no text {META_VERSION}")
    if headers.version is None:
        raise errors.header_mismatch(id, "MCP-Protocol-Version is missing")
    if headers.version != version:
        raise errors.header_mismatch(id, "MCP-Protocol-Version and body differ")
    if not (is_modern(version) and version in supported):
        raise errors.unsupported_version(id, version, supported)
    return version


def _check_method(request: Request, headers: RequestHeaders) -> None:
    if headers.method is None:
        raise errors.header_mismatch(request.id, "Mcp-Method is missing")
    if headers.method != request.method:
        raise errors.header_mismatch(request.id, "Mcp-Method and body differ")


def _check_name(request: Request, headers: RequestHeaders) -> None:
    member = NAMED.get(request.method)
    if member is None:
        return
    name = text_of(request.members.get(member))
    if name is None:
        raise errors.invalid_params(request.id, f"params has no text {member}")
    if headers.name is None:
        raise errors.header_mismatch(request.id, "Mcp-Name is missing")
    if decoded(headers.name) != name:
        raise errors.header_mismatch(request.id, "Mcp-Name and body differ")


def _retry(request: Request) -> tuple[Mapping[str, bytes] | None, str | None]:
    """C{inputResponses} and C{requestState} of the methods that have them."""
    if request.method not in NAMED:
        return None, None
    responses = state = None
    if "inputResponses" in request.members:
        responses = members_of(request.members["inputResponses"])
        if responses is None:
            raise errors.invalid_params(request.id, "inputResponses is an object")
    if request.members.get("requestState", NULL) != NULL:
        state = text_of(request.members["requestState"])
        if state is None:
            raise errors.invalid_params(request.id, "requestState is a text")
    return responses, state
