"""
The values that labels can have, as far as they are nobody else's words.
"""

from enum import StrEnum, unique
from typing import Final

from fjmcp_broker.mcp.lifecycle import State


@unique
class Limit(StrEnum):
    """
    The keys of the limits that are no rates, under their whole names.
    """

    CHILDREN = "sessions.max"
    CHILDREN_PER_USER = "sessions.max_per_user"
    DORMANT_PER_GRANT = "sessions.max_dormant_per_grant"
    REQUEST_BYTES = "server.max_request_bytes"
    BODY_MEMORY = "server.max_body_memory_bytes"


@unique
class Rotated(StrEnum):
    """
    How the replacement of a child ended.

    @cvar REPLACED: requests go to the new one.
    @cvar FAILED: the old one goes on, as long as its token lives.
    @cvar INTERRUPTED: the old one ended, was put to sleep or closed meanwhile.
    """

    REPLACED = "replaced"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@unique
class SessionKind(StrEnum):
    """
    Which revisions of the protocol a session is of.

    @cvar STATEFUL: with an C{Mcp-Session-Id} and a row in the store.
    @cvar STATELESS: without; each child that their requests have counts as one.
    """

    STATEFUL = "stateful"
    STATELESS = "stateless"


SHOWN_STATES: Final = (State.DORMANT, State.STARTING, State.LIVE, State.ROTATING)
"""Those of sessions that are not over."""
