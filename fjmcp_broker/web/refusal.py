"""What is said to a request that is turned away."""

from collections.abc import Mapping

import msgspec


class Refusal(msgspec.Struct, frozen=True):
    """
    A complete answer that needs nothing of the body.

    @ivar status: HTTP status.
    @ivar headers: response headers, C{Content-Type} among them.
    @ivar body: the whole body.
    """

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes
