"""
Protocol revisions: which there are, what each asks for, and which era a request
belongs to. Revisions are dates, so they compare as text.
"""

from enum import Enum
from typing import Final

import msgspec

from fjmcp_broker.errors import BrokerError

LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""The revisions with C{initialize} and sessions, the newest first."""

LATEST_LEGACY: Final = LEGACY[0]
WITHOUT_HEADER: Final = "2025-03-26"
"""What a client without C{MCP-Protocol-Version} speaks (MCP 2025-11-25, transports)."""

FIRST_MODERN: Final = "2026-07-28"
"""From here on requests are stateless."""

SUPPORTED: Final = (FIRST_MODERN, *LEGACY)
"""All revisions that are spoken here, the newest first."""

META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"

_BATCHES: Final = "2025-03-26"
_PRIMING: Final = "2025-11-25"
_MODERN_METHODS: Final = frozenset(("server/discover", "subscriptions/listen"))


class VersionError(BrokerError):
    """
    C{MCP-Protocol-Version} names no revision that is spoken here: the peer's fault.
    """


class Era(Enum):
    """
    The two ways to use the endpoint.

    @cvar LEGACY: C{initialize}, then a session.
    @cvar MODERN: every request for itself.
    """

    LEGACY = "legacy"
    MODERN = "modern"


def era(
    method: str | None,
    *,
    has_session_id: bool,
    has_meta_version: bool,
    version_header: str | None,
    has_method_header: bool,
) -> Era:
    """
    Which era a POST belongs to.

    @param method: the method of the message; None for an answer or a batch.
    @param has_session_id: whether there is an C{Mcp-Session-Id}.
    @param has_meta_version: whether C{params._meta} has L{META_VERSION}; it wins over
        a session id.
    @param version_header: C{MCP-Protocol-Version}, controlled by the client, or None.
    @param has_method_header: whether there is an C{Mcp-Method}.
    @return: the era.
    """
    if has_meta_version:
        return Era.MODERN
    if has_session_id or method == "initialize":
        return Era.LEGACY
    if has_method_header or method in _MODERN_METHODS:
        return Era.MODERN
    return Era.MODERN if is_modern(version_header) else Era.LEGACY


def is_modern(version: str | None) -> bool:
    """
    @param version: any text of a peer, or None.
    @return: whether it names a revision from L{FIRST_MODERN} on, known or not.
    """
    return version == FIRST_MODERN or (
        version is not None and _is_date(version) and version >= FIRST_MODERN
    )


def revision_of_session(answered: str | None) -> str:
    """
    Whose rules a session follows.

    @param answered: C{protocolVersion} of the child's answer to C{initialize}.
    @return: the revision: 2024-11-05 counts as 2025-03-26, whose transport is offered
        in its place, and an unknown one as the latest with sessions.
    """
    if answered not in LEGACY:
        return LATEST_LEGACY
    return max(answered, WITHOUT_HEADER)


def check_header(version_header: str | None) -> None:
    """
    Check C{MCP-Protocol-Version} of a request in a session. Any revision with sessions
    is accepted, not only the negotiated one: some clients always send their newest.

    @param version_header: the value, controlled by the client; None when absent, which
        is allowed (MCP 2025-11-25, transports, protocol version header).
    @raise VersionError: when it is none of L{LEGACY}; the answer MUST be 400.
    """
    if version_header is not None and version_header not in LEGACY:
        raise VersionError("MCP-Protocol-Version names no supported revision")


def allows_batches(revision: str) -> bool:
    """
    @param revision: from L{revision_of_session}.
    @return: whether a client may send arrays of messages: 2025-03-26 alone says that a
        receiver MUST accept them, and 2025-06-18 took them away.
    """
    return revision == _BATCHES


def primes_streams(revision: str) -> bool:
    """
    @param revision: from L{revision_of_session}.
    @return: whether a stream begins with an event that has an id and no data
        (MCP 2025-11-25, transports: SHOULD). Older clients parse the empty data.
    """
    return revision >= _PRIMING


def answered_version(result: bytes) -> str | None:
    """
    @param result: raw result of C{initialize}, as the child wrote it.
    @return: its C{protocolVersion}, or None when there is none.
    """
    try:
        return _RESULT.decode(result).protocol_version
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


class _InitializeResult(msgspec.Struct, rename="camel"):
    """The one member of the answer that matters here."""

    protocol_version: str | None = None


_RESULT = msgspec.json.Decoder(_InitializeResult)


def _is_date(text: str) -> bool:
    return (
        len(text) == 10
        and text[4] == text[7] == "-"
        and text.isascii()
        and text.replace("-", "").isdigit()
    )
