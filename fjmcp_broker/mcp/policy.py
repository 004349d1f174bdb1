"""
What a grant may do, and what clients are told about the tools.

Read-only is default deny: only what is known to change nothing passes. The answer to a
refusal is C{insufficient_scope}, so that a client can ask for more (RFC 6750 section
3.1; MCP 2025-11-25, authorization, scope challenges).
"""

from typing import Final

import msgspec

from fjmcp_broker.mcp import scanner
from fjmcp_broker.mcp.catalogue import Tool, ToolCatalogue
from fjmcp_broker.mcp.messages import Message, Notification, Response, text_of
from fjmcp_broker.rights import Policy, Scope

__all__ = ["Allowed", "Policy", "Refused", "ToolCatalogue", "decide", "overlay"]

_PROTOCOL_METHODS: Final = frozenset(
    (
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "tools/list",
    )
)


class Allowed(msgspec.Struct, frozen=True):
    """
    The message may go to the child.
    """


class Refused(msgspec.Struct, frozen=True):
    """
    The message must not go to the child.

    @ivar scope: what would be needed, for C{insufficient_scope}; None when no scope
        helps, because the tool is denied to everybody.
    @ivar reason: one sentence for the person; repeats nothing of the message.
    """

    scope: str | None
    reason: str


_ALLOWED: Final = Allowed()


def decide(
    policy: str, message: Message, catalogue: ToolCatalogue
) -> Allowed | Refused:
    """
    @param policy: of the grant whose token came with the message, a value of
        L{Policy}; any other counts as read-only.
    @param message: what the client sent.
    @param catalogue: from L{ToolCatalogue.for_server} of the session's child.
    @return: whether it may go to the child.
    """
    if isinstance(message, Response):
        return _ALLOWED
    tool = None
    if message.method == "tools/call":
        tool = text_of(message.members.get("name"))
        why = None if tool is None else catalogue.denied.get(tool)
        if why is not None:
            return Refused(None, f"this tool is disabled here: {why}")
    if policy == Policy.FULL:
        return _ALLOWED
    if isinstance(message, Notification):
        if message.method.startswith("notifications/"):
            return _ALLOWED
    elif message.method == "tools/call":
        if tool is not None and catalogue.reads(tool):
            return _ALLOWED
    elif (
        message.method in _PROTOCOL_METHODS or message.method in catalogue.read_methods
    ):
        return _ALLOWED
    return Refused(Scope.WRITE, "this connection may only read")


def overlay(
    result: bytes,
    catalogue: ToolCatalogue,
    hide_writes: bool,
    *,
    annotate: bool = True,
) -> bytes:
    """
    Tell clients what is known of the tools. Only the members that this is about change;
    every other byte stays. A title that the child gives is kept. What nobody may call
    is left out.

    @param result: raw result of C{tools/list}, as the child wrote it.
    @param catalogue: from L{ToolCatalogue.for_server} of the session's child.
    @param hide_writes: whether to leave out what a read-only grant may not call; for
        L{Policy.READ_ONLY} only, since other clients step up when they are refused.
    @param annotate: whether the overlay is switched on. When it is not and nothing is
        to be hidden for this grant, the result comes back as it is.
    @return: the result for the client. One that cannot be understood is unchanged.
    """
    if not annotate and not hide_writes:
        return result
    try:
        start, end = scanner.value_span(result, "tools")
        tools = _TOOLS.decode(result[start:end])
        shown: list[bytes] = []
        for raw in tools:
            item = bytes(raw)
            name = _NAMED.decode(item).name
            if name in catalogue.denied or (hide_writes and not catalogue.reads(name)):
                continue
            known = catalogue.tools.get(name)
            if annotate and known is not None:
                item = _annotated(item, known)
            shown.append(item)
    except (KeyError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return result
    return b"".join((result[:start], b"[", b",".join(shown), b"]", result[end:]))


def _annotated(item: bytes, tool: Tool) -> bytes:
    """One entry of the list, with our hints in the place of the child's."""
    members = _OBJECT.decode(item)
    hints: dict[str, msgspec.Raw] = {}
    if "annotations" in members and bytes(members["annotations"]) != b"null":
        hints = _OBJECT.decode(members["annotations"])
    known: dict[str, object] = {
        "readOnlyHint": not tool.writes,
        "destructiveHint": tool.destructive,
        "idempotentHint": tool.idempotent,
    }
    if tool.open_world is not None:
        known["openWorldHint"] = tool.open_world
    if "title" not in members and "title" not in hints:
        # Revisions before 2025-06-18 know the one among the annotations only.
        item = _with_member(item, members, "title", msgspec.json.encode(tool.title))
        members = _OBJECT.decode(item)
        known["title"] = tool.title
    merged = msgspec.json.encode({**hints, **known})
    return _with_member(item, members, "annotations", merged)


def _with_member(
    item: bytes, members: dict[str, msgspec.Raw], name: str, value: bytes
) -> bytes:
    """The object with one member replaced, or added in front of its end."""
    if name in members:
        start, end = scanner.value_span(item, name)
        return b"".join((item[:start], value, item[end:]))
    end = item.rindex(b"}")
    comma = b"," if members else b""
    return b"".join((item[:end], comma, b'"', name.encode(), b'":', value, item[end:]))


class _Named(msgspec.Struct):
    """The one member of a tool that matters here."""

    name: str


_NAMED = msgspec.json.Decoder(_Named)
_TOOLS = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
