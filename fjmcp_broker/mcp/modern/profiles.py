"""
What is known of a kind of child: which era it speaks and how it describes itself, so
that C{server/discover} needs no child.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

import msgspec

from fjmcp_broker.mcp.envelope import (
    NULL,
    MessageError,
    Response,
    encode_request,
    id_key,
)
from fjmcp_broker.mcp.messages import parse_child_line
from fjmcp_broker.mcp.modern.capabilities import FULL
from fjmcp_broker.mcp.modern.edits import (
    JsonObject,
    edited,
    members_of,
    object_of,
)
from fjmcp_broker.mcp.modern.requests import META_CAPABILITIES, META_CLIENT
from fjmcp_broker.mcp.modern.translation import META_SERVER
from fjmcp_broker.mcp.versions import (
    FIRST_MODERN,
    LATEST_LEGACY,
    LEGACY,
    META_VERSION,
    SUPPORTED,
    is_modern,
)

DISCOVER: Final = "server/discover"
DISCOVER_TTL_MILLISECONDS: Final = 300_000
"""
How long a client may keep what C{server/discover} said. It changes with the program
behind; five minutes are what a client lags after an upgrade at most.
"""


class ChildEra(Enum):
    """
    What a child speaks.

    @cvar LEGACY: the revisions with C{initialize} alone.
    @cvar DUAL: both.
    @cvar MODERN: the stateless revisions alone.
    """

    LEGACY = "legacy"
    DUAL = "dual"
    MODERN = "modern"


class ChildProfile(msgspec.Struct, frozen=True):
    """
    A kind of child.

    @ivar era: what it speaks.
    @ivar initialize_result: raw result of its last C{initialize}, or None.
    @ivar discover_result: raw result of its last C{server/discover}, or None.
    """

    era: ChildEra
    initialize_result: bytes | None = None
    discover_result: bytes | None = None

    @property
    def is_described_by_discovery(self) -> bool:
        """
        Whether what it said to C{server/discover} describes it best, and not what it
        said to C{initialize}.
        """
        return self.era is not ChildEra.LEGACY and self.discover_result is not None

    @property
    def server_info(self) -> bytes | None:
        """
        Raw JSON object of how the child calls itself, or None.
        """
        if self.is_described_by_discovery:
            members = members_of(self.discover_result) or {}
            meta = members_of(members.get("_meta")) or {}
            info = meta.get(META_SERVER)
        else:
            members = members_of(self.initialize_result) or {}
            info = members.get("serverInfo")
        return None if members_of(info) is None else info

    @property
    def capabilities(self) -> bytes:
        """
        Raw JSON object of what the child says it can do, as it wrote it.
        """
        discovered = self.is_described_by_discovery
        result = self.discover_result if discovered else self.initialize_result
        declared = (members_of(result) or {}).get("capabilities")
        return b"{}" if declared is None or members_of(declared) is None else declared

    @classmethod
    def from_stored(
        cls,
        era: str,
        initialize_result: bytes | None,
        discover_result: bytes | None,
    ) -> "ChildProfile":
        """
        @param era: a value of L{ChildEra}.
        @param initialize_result: as the attribute.
        @param discover_result: as the attribute.
        @return: the profile.
        @raise ValueError: for another era.
        """
        return cls(ChildEra(era), initialize_result, discover_result)


def discover_result(
    profile: ChildProfile | None, supported: Sequence[str] = SUPPORTED
) -> bytes:
    """
    The answer to C{server/discover} (MCP 2026-07-28, server, discovery).

    @param profile: what is known of the configured child, or None for nothing yet.
    @param supported: the revisions that the broker speaks, the newest first.
    @return: the raw result. Of a child that speaks these revisions it is what the child
        said, with only the revisions that the broker speaks too; of an older one, or
        one that was only asked in the older way yet, what its C{initialize} said.
        Nothing known: the revisions, tools, and C{ttlMs} 0, so that the client asks
        again.
    """
    supported = supported_by(profile, supported)
    if profile is None:
        return _unknown(supported)
    if profile.is_described_by_discovery:
        return _from_modern(profile.discover_result, supported)
    said = members_of(profile.initialize_result)
    if said is None:
        return _unknown(supported)
    result = {
        "resultType": b'"complete"',
        "supportedVersions": msgspec.json.encode(list(supported)),
        "capabilities": _capabilities(profile.capabilities),
    }
    instructions = said.get("instructions", NULL)
    if instructions != NULL:
        result["instructions"] = instructions
    if profile.server_info is not None:
        result["_meta"] = object_of({META_SERVER: profile.server_info})
    result["ttlMs"] = b"%d" % DISCOVER_TTL_MILLISECONDS
    result["cacheScope"] = b'"private"'
    return object_of(result)


def supported_by(
    profile: ChildProfile | None, supported: Sequence[str] = SUPPORTED
) -> tuple[str, ...]:
    """
    @param profile: what is known of the configured child, or None for nothing yet.
    @param supported: the revisions that the broker speaks, the newest first.
    @return: those that clients can use with this child: all of them, unless it speaks
        no older ones.
    """
    if profile is None or profile.era is not ChildEra.MODERN:
        return tuple(supported)
    return tuple(version for version in supported if is_modern(version))


def probe(id: bytes, broker_version: str) -> bytes:
    """
    The question that tells a child's era: the first line that it gets (MCP 2026-07-28,
    transports, stdio, backward compatibility).

    @param id: raw JSON of the id.
    @param broker_version: of this software.
    @return: the encoded request.
    """
    meta = object_of(
        {
            META_VERSION: msgspec.json.encode(FIRST_MODERN),
            META_CLIENT: _client_info(broker_version),
            META_CAPABILITIES: FULL,
        }
    )
    return encode_request(id, DISCOVER, object_of({"_meta": meta}))


def judge_probe(id: bytes, line: bytes | None) -> ChildEra | None:
    """
    @param id: raw JSON of the id that L{probe} got.
    @param line: what the child wrote, or None when it wrote nothing in time or ended.
    @return: what the child speaks; None when the line is no answer to the probe, and
        the wait goes on. MODERN means that the child names no older revision: when it
        answers C{initialize} nevertheless, it is DUAL.
    """
    if line is None:
        return ChildEra.LEGACY
    try:
        message = parse_child_line(line)
    except MessageError as error:
        known = error.id != NULL and id_key(error.id) == id_key(id)
        return ChildEra.LEGACY if known else None
    if not isinstance(message, Response):
        return None
    if message.id != NULL and id_key(message.id) != id_key(id):
        return None
    versions = supported_versions(message.result) if message.result else []
    if FIRST_MODERN not in versions:
        # An error, -32022 included, or a newer revision alone: nothing that a client of
        # 2026-07-28 could be passed through to.
        return ChildEra.LEGACY
    return ChildEra.DUAL if set(versions) & set(LEGACY) else ChildEra.MODERN


def supported_versions(result: bytes) -> list[str]:
    """
    @param result: raw result of C{server/discover}.
    @return: its C{supportedVersions}; empty when there are none that can be read.
    """
    try:
        return _DISCOVER.decode(result).supported_versions
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return []


def initialize_params(broker_version: str) -> bytes:
    """
    The broker's own C{initialize}, for a child of the older revisions whose clients are
    of the stateless ones. It declares everything, because each client declares for
    itself later, and what one cannot do is answered with an error.

    @param broker_version: of this software.
    @return: raw JSON of the params.
    """
    return object_of(
        {
            "protocolVersion": msgspec.json.encode(LATEST_LEGACY),
            "capabilities": FULL,
            "clientInfo": _client_info(broker_version),
        }
    )


class _Discover(msgspec.Struct, rename="camel"):
    supported_versions: list[str] = []


_DISCOVER: Final = msgspec.json.Decoder(_Discover)


def _client_info(broker_version: str) -> bytes:
    return msgspec.json.encode({"name": "fjmcp-broker", "version": broker_version})


def _unknown(supported: Sequence[str]) -> bytes:
    return msgspec.json.encode(
        {
            "resultType": "complete",
            "supportedVersions": list(supported),
            "capabilities": {"tools": {}},
            "ttlMs": 0,
            "cacheScope": "private",
        }
    )


def _from_modern(said: bytes | None, supported: Sequence[str]) -> bytes:
    found = JsonObject.read(said)
    if found is None:
        return _unknown(supported)
    versions = msgspec.json.encode(list(supported))
    replaced = {"supportedVersions": versions, "cacheScope": b'"private"'}
    return found.edited(replaced=replaced)


def _capabilities(declared: bytes) -> bytes:
    """What of a child's capabilities is true of the broker in front of it."""
    # Tasks were an experiment of 2025-11-25; what these revisions call by that name is
    # another protocol (MCP 2026-07-28, changelog).
    return edited(declared, without=("tasks",))
