"""
C{subscriptions/listen}: one stream for the notifications that a client chooses
(MCP 2026-07-28, subscriptions).
"""

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import msgspec

from fjmcp_broker.mcp.envelope import (
    NULL,
    Notification,
    Response,
    encode,
    encode_notification,
    text_of,
)
from fjmcp_broker.mcp.modern.edits import JsonObject, members_of, object_of
from fjmcp_broker.mcp.modern.errors import invalid_params
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.modern.translation import META_SERVER

LISTEN: Final = "subscriptions/listen"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
UPDATED: Final = "notifications/resources/updated"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"
MAXIMUM_SUBSCRIPTIONS: Final = 1000
"""Resources that one stream may name."""

K = TypeVar("K", bound=Hashable)

_LISTS: Final = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}


class Filter(msgspec.Struct, frozen=True):
    """
    Which notifications a client wants.

    @ivar tools: whether the list of tools is among them.
    @ivar prompts: whether the list of prompts is.
    @ivar resources: whether the list of resources is.
    @ivar uris: the resources whose changes are; each once.
    """

    tools: bool = False
    prompts: bool = False
    resources: bool = False
    uris: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """
        @return: raw JSON, without what is not wanted.
        """
        written: dict[str, object] = {}
        for name in ("tools", "prompts", "resources"):
            if getattr(self, name):
                written[f"{name}ListChanged"] = True
        if self.uris:
            written["resourceSubscriptions"] = list(self.uris)
        return msgspec.json.encode(written)

    def supported_by(self, capabilities: bytes) -> "Filter":
        """
        @param capabilities: raw JSON object: what the child declares.
        @return: the part of the filter that the child can serve.
        """
        declared = members_of(capabilities) or {}

        def offers(feature: str, part: str) -> bool:
            return (members_of(declared.get(feature)) or {}).get(part) == b"true"

        return Filter(
            self.tools and offers("tools", "listChanged"),
            self.prompts and offers("prompts", "listChanged"),
            self.resources and offers("resources", "listChanged"),
            self.uris if offers("resources", "subscribe") else (),
        )

    def wants(self, notification: Notification) -> bool:
        """
        @param notification: what a child sent.
        @return: whether it belongs on the stream.
        """
        kind = _LISTS.get(notification.method)
        if kind is not None:
            return bool(getattr(self, kind))
        if notification.method != UPDATED:
            return False
        uri = text_of(notification.members.get("uri", NULL))
        return uri is not None and any(_covers(own, uri) for own in self.uris)


def requested(modern: ModernRequest) -> Filter:
    """
    @param modern: a C{subscriptions/listen} request.
    @return: what it asks for. Unknown kinds are ignored, null is not asked for.
    @raise ModernError: -32602 when C{notifications} is missing or malformed, or names
        more than L{MAXIMUM_SUBSCRIPTIONS} resources.
    """
    raw = modern.request.members.get("notifications", NULL)
    try:
        asked = _FILTER.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise invalid_params(modern.id, "notifications is no filter") from error
    uris = tuple(dict.fromkeys(asked.resource_subscriptions or ()))
    if len(uris) > MAXIMUM_SUBSCRIPTIONS:
        raise invalid_params(modern.id, "too many resources for one stream")
    return Filter(
        bool(asked.tools_list_changed),
        bool(asked.prompts_list_changed),
        bool(asked.resources_list_changed),
        uris,
    )


def acknowledgement(id: bytes, accepted: Filter) -> bytes:
    """
    @param id: raw JSON of the request's id, which names the subscription too.
    @param accepted: what will be served.
    @return: the encoded notification that comes first on the stream.
    """
    meta = object_of({META_SUBSCRIPTION: id})
    params = object_of({"_meta": meta, "notifications": accepted.to_bytes()})
    return encode_notification(ACKNOWLEDGED, params)


def completion(id: bytes, server_info: bytes | None = None) -> Response:
    """
    @param id: raw JSON of the request's id.
    @param server_info: raw JSON object: who the child says it is; None to leave it out.
    @return: the answer that ends the stream when the server wants to.
    """
    meta = {META_SUBSCRIPTION: id}
    if server_info is not None:
        meta[META_SERVER] = server_info
    result = object_of({"resultType": b'"complete"', "_meta": object_of(meta)})
    return Response(id, result)


def ended(id: bytes, server_info: bytes | None = None) -> bytes:
    """
    @param id: as for L{completion}.
    @param server_info: as for L{completion}.
    @return: the same answer, encoded.
    """
    return encode(completion(id, server_info))


def tagged(notification: Notification, id: bytes) -> bytes:
    """
    @param notification: what a child sent.
    @param id: raw JSON of the request's id.
    @return: the encoded notification that names its subscription; every other byte of
        its params as before.
    """
    tag = {META_SUBSCRIPTION: id}
    found = JsonObject.read(notification.params)
    if found is None:
        params = object_of({"_meta": object_of(tag)})
    else:
        meta = JsonObject.read(found.get("_meta"))
        raw = object_of(tag) if meta is None else meta.edited(replaced=tag)
        params = found.edited(replaced={"_meta": raw})
    return encode_notification(notification.method, params)


def subscription_of(notification: Notification) -> bytes | None:
    """
    @param notification: of a child that speaks these revisions.
    @return: raw JSON of the id of the C{subscriptions/listen} that it belongs to, as
        the child knows it, or None.
    """
    return notification.meta.get(META_SUBSCRIPTION)


def tagged_result(result: bytes, id: bytes) -> bytes:
    """
    @param result: raw result of C{subscriptions/listen} of a child that speaks these
        revisions.
    @param id: raw JSON of the id that the client knows it by.
    @return: the result under that id.
    """
    found = JsonObject.read(result)
    if found is None:
        return result
    meta = JsonObject.read(found.get("_meta"))
    tag = {META_SUBSCRIPTION: id}
    raw = object_of(tag) if meta is None else meta.edited(replaced=tag)
    return found.edited(replaced={"_meta": raw})


class Changed(msgspec.Struct, frozen=True):
    """
    What has to be said to the child when a stream comes or goes.

    @ivar subscribe: resources that nobody named before.
    @ivar unsubscribe: resources that nobody names any more.
    """

    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()


class Listeners(Generic[K]):
    """
    The open streams of one child.
    """

    def __init__(self) -> None:
        """
        Nobody listens.
        """
        self._streams: dict[K, tuple[bytes, Filter]] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """
        @return: how many streams are open.
        """
        return len(self._streams)

    @property
    def uris(self) -> tuple[str, ...]:
        """
        The resources that the child has to watch: all of them again for a new child.
        """
        return tuple(self._counts)

    def add(self, key: K, id: bytes, accepted: Filter) -> Changed:
        """
        @param key: names the stream; not in use.
        @param id: raw JSON of the request's id.
        @param accepted: what it gets.
        @return: what the child must hear.
        @raise ValueError: when the key is in use.
        """
        if key in self._streams:
            raise ValueError("this stream is open already")
        self._streams[key] = (id, accepted)
        new = []
        for uri in accepted.uris:
            count = self._counts.get(uri, 0)
            self._counts[uri] = count + 1
            if not count:
                new.append(uri)
        return Changed(subscribe=tuple(new))

    def remove(self, key: K) -> Changed:
        """
        @param key: names the stream; an unknown one changes nothing.
        @return: what the child must hear.
        """
        _id, accepted = self._streams.pop(key, (NULL, Filter()))
        old = []
        for uri in accepted.uris:
            self._counts[uri] -= 1
            if not self._counts[uri]:
                del self._counts[uri]
                old.append(uri)
        return Changed(unsubscribe=tuple(old))

    def deliveries(self, notification: Notification) -> list[tuple[K, bytes]]:
        """
        @param notification: what the child sent.
        @return: the streams that get it, oldest first, and what each gets.
        """
        return [
            (key, tagged(notification, id))
            for key, (id, accepted) in self._streams.items()
            if accepted.wants(notification)
        ]


class _Filter(msgspec.Struct, rename="camel"):
    tools_list_changed: bool | None = None
    prompts_list_changed: bool | None = None
    resources_list_changed: bool | None = None
    resource_subscriptions: list[str] | None = None


_FILTER: Final = msgspec.json.Decoder(_Filter)


def _covers(own: str, uri: str) -> bool:
    """
    Whether a change of C{uri} is one of C{own}: the same, or a part of it (MCP
    2026-07-28, schema, C{ResourceUpdatedNotificationParams}).
    """
    return uri == own or uri.startswith(own if own.endswith("/") else own + "/")
