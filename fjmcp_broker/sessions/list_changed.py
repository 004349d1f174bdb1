"""
What a session's client has seen of its children, so that it hears when another child
offers something else.

This is remembered as long as the daemon runs, for the newest sessions.
"""

from collections import OrderedDict
from hashlib import sha256
from typing import Final

import attrs
import msgspec

from fjmcp_broker.mcp.messages import Request, encode_notification
from fjmcp_broker.sessions.backoff import Backoff

MAXIMUM_SIGHTS: Final = 10_000

_KINDS: Final = {"tools/list": "tools", "prompts/list": "prompts"}


class _Initialized(msgspec.Struct):
    capabilities: dict[str, msgspec.Raw] = {}


class _Listed(msgspec.Struct):
    tools: list[msgspec.Raw] = []
    prompts: list[msgspec.Raw] = []


@attrs.define
class Sight:
    """
    What one client has seen.

    @ivar capabilities: digests of what the child said it can do, by name; C{None}
        before any child.
    @ivar lists: digests of the lists that the client has asked for, by method.
    @ivar untold: what it could not be told yet.
    @ivar backoff: knows how the children ended.
    """

    capabilities: dict[str, bytes] | None = None
    lists: dict[str, bytes] = attrs.Factory(dict)
    untold: list[bytes] = attrs.Factory(list)
    backoff: Backoff = attrs.Factory(Backoff)

    def child_said(self, result: bytes) -> list[bytes]:
        """
        @param result: raw, of C{initialize}.
        @return: what the client has to be told.
        """
        try:
            said = msgspec.json.decode(result, type=_Initialized).capabilities
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return []
        before = self.capabilities
        self.capabilities = now = {name: _digest([raw]) for name, raw in said.items()}
        if before is None:
            return []
        return [
            _changed(kind)
            for kind in ("tools", "prompts", "resources")
            if before.get(kind) != now.get(kind)
        ]

    def client_saw(self, request: Request, result: bytes) -> None:
        """
        @param request: of the client.
        @param result: the raw answer of the child.
        """
        if request.method in _KINDS and "cursor" not in request.members:
            digest = _digest_of_list(request.method, result)
            if digest is not None:
                self.lists[request.method] = digest

    def child_listed(self, method: str, result: bytes) -> list[bytes]:
        """
        @param method: of a list.
        @param result: raw, by a new child.
        @return: what the client has to be told.
        """
        digest = _digest_of_list(method, result)
        if digest is None or self.lists.get(method, digest) == digest:
            return []
        self.lists[method] = digest
        return [_changed(_KINDS[method])]


class Sights:
    """
    The sights of the newest sessions.
    """

    def __init__(self, maximum: int = MAXIMUM_SIGHTS) -> None:
        """
        @param maximum: how many are remembered.
        """
        self._maximum = maximum
        self._sights: OrderedDict[bytes, Sight] = OrderedDict()

    def of(self, digest: bytes) -> Sight:
        """
        @param digest: of a session id.
        @return: what its client has seen.
        """
        sight = self._sights.setdefault(digest, Sight())
        self._sights.move_to_end(digest)
        while len(self._sights) > self._maximum:
            self._sights.popitem(last=False)
        return sight

    def forget(self, digest: bytes) -> None:
        """
        @param digest: of a session that was closed.
        """
        self._sights.pop(digest, None)


def _changed(kind: str) -> bytes:
    return encode_notification(f"notifications/{kind}/list_changed")


def _digest_of_list(method: str, result: bytes) -> bytes | None:
    """
    @return: the same for the same entries in any order.
    """
    try:
        listed = msgspec.json.decode(result, type=_Listed)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    entries: list[msgspec.Raw] = getattr(listed, _KINDS[method])
    return _digest(entries)


def _digest(entries: list[msgspec.Raw]) -> bytes:
    total = sha256()
    for entry in sorted(bytes(entry) for entry in entries):
        total.update(sha256(entry).digest())
    return total.digest()
