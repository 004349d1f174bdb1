"""
What a client declares that it can do, request by request (MCP 2026-07-28, schema,
C{ClientCapabilities}).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from fjmcp_broker.mcp.envelope import NULL, Request, text_of
from fjmcp_broker.mcp.modern.edits import members_of

ELICITATION: Final = "elicitation/create"
ROOTS: Final = "roots/list"
SAMPLING: Final = "sampling/createMessage"

Required = Mapping[str, Mapping[str, object]]
"""Capabilities in the shape of C{ClientCapabilities}, nothing else in it."""


def required_for(request: Request) -> Required | None:
    """
    @param request: a question of the child.
    @return: what a client has to declare so that it may be asked: C{{"sampling":
        {"tools": {}}}}; None when no client can be asked this way.
    """
    if request.method == ROOTS:
        return {"roots": {}}
    if request.method == ELICITATION:
        # An absent mode is form, as in the revision that had no other.
        mode = text_of(request.members.get("mode")) or "form"
        return {"elicitation": {} if mode == "form" else {mode: {}}}
    if request.method == SAMPLING:
        parts: dict[str, object] = {}
        if "tools" in request.members or "toolChoice" in request.members:
            parts["tools"] = {}
        context = text_of(request.members.get("includeContext")) or "none"
        if context != "none":
            parts["context"] = {}
        return {"sampling": parts}
    return None


def declares(capabilities: bytes, required: Required) -> bool:
    """
    @param capabilities: raw JSON object that a client sent.
    @param required: from L{required_for}.
    @return: whether all of it is declared. C{elicitation} without any mode stands for
        C{form} (MCP 2026-07-28, elicitation, capabilities).
    """
    declared = members_of(capabilities) or {}
    for name, parts in required.items():
        own = members_of(declared.get(name))
        if own is None:
            return False
        if name == "elicitation" and not parts and own and "form" not in own:
            return False
        if any(own.get(part, NULL) == NULL for part in parts):
            return False
    return True


def merged(one: Required | None, other: Required) -> Required:
    """
    @param one: required capabilities, or None for none yet.
    @param other: more of them.
    @return: both.
    """
    both = {name: dict(parts) for name, parts in (one or {}).items()}
    for name, parts in other.items():
        both.setdefault(name, {}).update(parts)
    return both


def interactive(capabilities: bytes) -> bool:
    """
    @param capabilities: raw JSON object that a client sent.
    @return: whether it declares anything that a child could ask for.
    """
    declared = members_of(capabilities) or {}
    return any(
        declared.get(name, NULL) != NULL
        for name in ("elicitation", "roots", "sampling")
    )


FULL: Final = msgspec.json.encode(
    {
        "elicitation": {"form": {}, "url": {}},
        "roots": {"listChanged": True},
        "sampling": {"context": {}, "tools": {}},
    }
)
"""What the broker itself declares to a child whose clients are of these revisions."""
