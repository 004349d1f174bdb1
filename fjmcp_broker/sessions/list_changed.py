"""
What a session's client has seen of its children, so that it hears when another child
offers something else.

This is remembered in memory for the newest sessions, and in every session's row, where
it is written behind the calls.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from typing import Any, Final

import msgspec

from fjmcp_broker.mcp.messages import Request, encode_notification
from fjmcp_broker.sessions.processes.backoff import Backoff

MAXIMUM_SIGHTS: Final = 10_000

_KINDS: Final = {"tools/list": "tools", "prompts/list": "prompts"}
LISTS: Final = frozenset(_KINDS)
"""Methods whose answers L{Sight.client_saw} has to see."""

_LISTED: Final = ("tools", "prompts", "resources")


def _nothing(sight: "Sight") -> None:
    """Nobody wants to know."""


def _bytes(digests: Mapping[str, str]) -> dict[str, bytes]:
    return {name: bytes.fromhex(digest) for name, digest in digests.items()}


def _hexadecimal(digests: Mapping[str, bytes]) -> dict[str, str]:
    return {name: digest.hex() for name, digest in digests.items()}


class _Initialized(msgspec.Struct):
    capabilities: dict[str, msgspec.Raw] = {}


class _Listed(msgspec.Struct):
    tools: list[msgspec.Raw] = []
    prompts: list[msgspec.Raw] = []


class _Text(msgspec.Struct):
    capabilities: dict[str, str] | None = None
    lists: dict[str, str] = {}
    untold: list[str] = []


_KEPT: Final = ("capabilities", "lists", "untold")


class Sight(msgspec.Struct, weakref=True):
    """
    What one client has seen.

    Dictionaries and lists in it are replaced, never changed, so that each change is
    seen.

    @ivar capabilities: digests of what the child said of the lists that it has, by
        name; C{None} before any child.
    @ivar lists: digests of the lists that the client has asked for, by method.
    @ivar untold: what it could not be told yet.
    @ivar backoff: knows how the children ended.
    @ivar on_change: called with this when one of the first three is about to change.
    """

    capabilities: dict[str, bytes] | None = None
    lists: dict[str, bytes] = msgspec.field(default_factory=dict)
    untold: list[bytes] = msgspec.field(default_factory=list)
    backoff: Backoff = msgspec.field(default_factory=Backoff)
    on_change: "Callable[[Sight], None]" = _nothing

    # Of the one who keeps it: any value of any attribute.
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _KEPT:
            self.on_change(self)
        super().__setattr__(name, value)

    @classmethod
    def restored(cls, text: str) -> "Sight":
        """
        @param text: as L{text} gave it to an earlier daemon.
        @return: the same again; of a text that cannot be read, nothing.
        """
        try:
            known = msgspec.json.decode(text, type=_Text)
            return cls(
                None if known.capabilities is None else _bytes(known.capabilities),
                _bytes(known.lists),
                [message.encode() for message in known.untold],
            )
        except ValueError:
            return cls()

    def text(self) -> str:
        """
        @return: what a later daemon has to know of it.
        """
        said = self.capabilities
        return json.dumps(
            {
                "capabilities": None if said is None else _hexadecimal(said),
                "lists": _hexadecimal(self.lists),
                "untold": [message.decode() for message in self.untold],
            },
            separators=(",", ":"),
        )

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
        now: dict[str, bytes] = {
            kind: _digest([said[kind]]) for kind in _LISTED if kind in said
        }
        if before != now:
            self.capabilities = now
        if before is None:
            return []
        return [changed(kind) for kind in _LISTED if before.get(kind) != now.get(kind)]

    def client_saw(self, request: Request, result: bytes) -> None:
        """
        @param request: of the client.
        @param result: the raw answer of the child.
        """
        if request.method in _KINDS and "cursor" not in request.members:
            digest = _digest_of_list(request.method, result)
            if digest is not None and self.lists.get(request.method) != digest:
                self.lists = {**self.lists, request.method: digest}

    def child_listed(self, method: str, result: bytes) -> list[bytes]:
        """
        @param method: of a list.
        @param result: raw, by a new child.
        @return: what the client has to be told.
        """
        digest = _digest_of_list(method, result)
        if digest is None or self.lists.get(method, digest) == digest:
            return []
        self.lists = {**self.lists, method: digest}
        return [changed(_KINDS[method])]


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
        self._changed: dict[bytes, Sight] = {}

    def of(self, digest: bytes, stored: str | None = None) -> Sight:
        """
        @param digest: of a session id.
        @param stored: what its row says of it, if it is not in memory.
        @return: what its client has seen.
        """
        sight = self._sights.get(digest) or self._changed.get(digest)
        if sight is None:
            sight = Sight() if stored is None else Sight.restored(stored)
            sight.on_change = partial(self._note, digest)
        self._sights[digest] = sight
        self._sights.move_to_end(digest)
        while len(self._sights) > self._maximum:
            self._sights.popitem(last=False)
        return sight

    def forget(self, digest: bytes) -> None:
        """
        @param digest: of a session that was closed.
        """
        self._sights.pop(digest, None)
        self._changed.pop(digest, None)

    def mark_changed(self, digest: bytes) -> None:
        """
        @param digest: of a session that has got its row: what was written down of it
            before went nowhere.
        """
        if digest in self._sights:
            self._changed[digest] = self._sights[digest]

    def take_changed(self) -> dict[bytes, Sight]:
        """
        @return: what changed since the last time, by the digests of the session ids.
        """
        changed, self._changed = self._changed, {}
        return changed

    def _note(self, digest: bytes, sight: Sight) -> None:
        self._changed[digest] = sight

    def put_back(self, changed: Mapping[bytes, Sight]) -> None:
        """
        @param changed: could not be written down.
        """
        self._changed = {**changed, **self._changed}


def changed(kind: str) -> bytes:
    """
    @param kind: C{tools}, C{prompts} or C{resources}.
    @return: the notification that such a list has changed.
    """
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
