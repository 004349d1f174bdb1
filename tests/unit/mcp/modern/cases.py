"""What the tests of the stateless revisions share."""

import json
from collections.abc import Mapping
from typing import Final

from fjmcp_broker.mcp.envelope import Notification, Request
from fjmcp_broker.mcp.messages import parse
from fjmcp_broker.mcp.modern.requests import (
    META_CAPABILITIES,
    NAMED,
    ModernRequest,
    RequestHeaders,
    judge,
)
from fjmcp_broker.mcp.versions import FIRST_MODERN, META_VERSION

SERVER: Final = b'{"name":"child","version":"1"}'


def meta(
    capabilities: object = None, more: Mapping[str, object] | None = None
) -> dict[str, object]:
    """
    @param capabilities: what the client declares; nothing by default.
    @param more: other members.
    @return: a complete C{_meta}.
    """
    declared = {} if capabilities is None else capabilities
    return {META_VERSION: FIRST_MODERN, META_CAPABILITIES: declared, **(more or {})}


def request(method: str, params: Mapping[str, object], id: object = 1) -> Request:
    """
    @param method: any.
    @param params: the params.
    @param id: the id.
    @return: the request as it is parsed from a client.
    """
    written = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    message = parse(json.dumps(written).encode())
    assert isinstance(message, Request)
    return message


def notification(
    method: str, params: Mapping[str, object] | None = None
) -> Notification:
    """
    @param method: any.
    @param params: the params, or None.
    @return: the notification as it is parsed.
    """
    written: dict[str, object] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        written["params"] = params
    message = parse(json.dumps(written).encode())
    assert isinstance(message, Notification)
    return message


def headers_for(asked: Request) -> RequestHeaders:
    """
    @param asked: a request.
    @return: the headers that a client sends with it.
    """
    params: dict[str, object] = json.loads(asked.params or b"{}")
    name = params.get(NAMED.get(asked.method, ""))
    return RequestHeaders(
        FIRST_MODERN, asked.method, name if isinstance(name, str) else None
    )


def modern(
    method: str = "tools/call",
    params: Mapping[str, object] | None = None,
    *,
    capabilities: object = None,
    id: object = 1,
    more: Mapping[str, object] | None = None,
) -> ModernRequest:
    """
    @param method: any.
    @param params: without C{_meta}; a call of C{t} by default.
    @param capabilities: what the client declares.
    @param id: the id.
    @param more: other members of C{_meta}.
    @return: a judged request.
    """
    given = {"name": "t"} if params is None else params
    asked = request(method, {**given, "_meta": meta(capabilities, more)}, id)
    return judge(asked, headers_for(asked))
