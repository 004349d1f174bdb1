"""
C{_meta} of clients, read once. In every request of a stateless revision a client says
the same about itself, byte by byte, and who reads it again finds the same.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from fjmcp_broker.mcp.scanner import Names, read_object

REMEMBERED: Final = 256
"""So many of them, of all clients together."""

MAXIMUM_BYTES: Final = 2048
"""A longer one is read each time."""

META_NAMES: Final = Names(
    "progressToken",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/related-task",
    "io.modelcontextprotocol/subscriptionId",
)

_OF_ONE_REQUEST: Final = b"progressToken"


def read_meta(data: bytes) -> Mapping[str, bytes]:
    """
    @param data: one JSON object in UTF-8, controlled by the client.
    @return: its members, and what is raised, as L{read_object} has it.
    """
    if len(data) > MAXIMUM_BYTES or _OF_ONE_REQUEST in data:
        # The next request has another one.
        return read_object(data, META_NAMES)
    return _known(data)


@lru_cache(maxsize=REMEMBERED)
def _known(data: bytes) -> Mapping[str, bytes]:
    return MappingProxyType(read_object(data, META_NAMES))
