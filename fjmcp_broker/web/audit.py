"""
What the audit trail hears of calls of tools: each of them once, however it ended.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from fjmcp_broker.mcp.messages import NULL, Request, Response, text_of
from fjmcp_broker.mcp.modern.answers import failed
from fjmcp_broker.mcp.modern.edits import members_of
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.sessions.stateless.shared import digest_of_grant
from fjmcp_broker.store.audit import AuditEvent, Kind
from fjmcp_broker.store.trail import AuditTrail

CALL: Final = "tools/call"

_TOOL: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
"""MCP 2025-11-25, tools, tool names, and a little more. What does not look like one is
not written down: it could be anything."""

ODD_TOOL: Final = "?"

_INPUT_REQUIRED: Final = b'"input_required"'

_ENDS_WITH: Final = {401: "unauthorized", 403: "refused", 404: "no_session"}


class ToolCall:
    """
    One call on its way.
    """

    def __init__(self, end: Callable[[str], None]) -> None:
        """
        @param end: is told the outcome, once.
        """
        self._end: Callable[[str], None] | None = end
        self.is_relayed = False

    def over(self, outcome: str) -> None:
        """
        @param outcome: one of our own words. The first one counts.
        """
        end, self._end = self._end, None
        if end is not None:
            end(outcome)

    def answered(self, response: Response) -> None:
        """
        @param response: of the child, or of whoever speaks for one that has gone.
        """
        self.over(outcome_of(response))

    def answered_at_once(self, status: int) -> None:
        """
        The endpoint is done with the call. If nobody else answers it, it was over
        before it came to a child.

        @param status: of the answer; 0: there is none, the client has gone.
        """
        if not self.is_relayed:
            self.over("abandoned" if not status else _ENDS_WITH.get(status, "failed"))


class ToolCalls:
    """
    Makes them.
    """

    def __init__(self, trail: AuditTrail, seconds: Callable[[], float]) -> None:
        """
        @param trail: takes the events.
        @param seconds: tells how much time has passed.
        """
        self._trail = trail
        self._seconds = seconds

    def begin(
        self,
        message: object,
        principal: Principal,
        session_id: bytes | None,
        began_at: float,
    ) -> ToolCall | None:
        """
        @param message: of the client.
        @param principal: who sent it.
        @param session_id: C{Mcp-Session-Id}, controlled by the client; C{None} in the
            stateless revisions.
        @param began_at: when its request did, in seconds of the same clock.
        @return: the call, or C{None}: it is none.
        """
        if not isinstance(message, Request) or message.method != CALL:
            return None
        tool = text_of(message.members.get("name", NULL)) or ""

        def end(outcome: str) -> None:
            self._trail.note(
                AuditEvent(
                    at=self._trail.now,
                    kind=Kind.TOOL_CALL,
                    outcome=outcome,
                    user_id=principal.user_id,
                    client_id=principal.client_id,
                    grant_id=principal.grant_id,
                    session=_session_name(session_id, principal.grant_id),
                    tool=tool if _TOOL.fullmatch(tool) else ODD_TOOL,
                    duration_ms=max(0, round((self._seconds() - began_at) * 1000)),
                )
            )

        return ToolCall(end)


def outcome_of(response: Response) -> str:
    """
    @param response: the answer to a call.
    @return: C{ok}; C{tool_error}: the tool says that it failed; C{input_required}: it
        asks its client something first; C{error}: of JSON-RPC.
    """
    if response.error is not None:
        return "error"
    if failed(response):
        return "tool_error"
    result = response.result or NULL
    if _INPUT_REQUIRED not in result:
        return "ok"
    kind = (members_of(result) or {}).get("resultType")
    return "input_required" if kind == _INPUT_REQUIRED else "ok"


def _session_name(session_id: bytes | None, grant_id: str) -> str:
    if session_id is None:
        return f"g{digest_of_grant(grant_id).hex()[:9]}"
    return sha256(session_id).hexdigest()[:10]
