"""
What the audit trail hears of calls of tools: each of them once, however it ended.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Final

import msgspec

from fjmcp_broker.mcp.messages import NULL, Request, Response, text_of
from fjmcp_broker.mcp.modern.answers import IS_ERROR, failed
from fjmcp_broker.mcp.modern.edits import members_of
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.secret import Confidential
from fjmcp_broker.sessions.stateless.shared import name_of_shared
from fjmcp_broker.store.trail import AuditTrail

CALL: Final = "tools/call"

_TOOL: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
"""MCP 2025-11-25, tools, tool names, and a little more. What does not look like one is
not written down: it could be anything."""

ODD_TOOL: Final = "?"

_LONGEST_NAME: Final = 2 + 128 * 6
"""Bytes of raw JSON: the quotes, and each character escaped."""

_REMEMBERED: Final = 512
"""Names of tools. Clients repeat the few that they have."""

_INPUT_REQUIRED: Final = b'"input_required"'

_ENDS_WITH: Final = {401: "unauthorized", 403: "refused", 404: "no_session"}


class ToolCall(Confidential, msgspec.Struct, eq=False):
    """
    One call on its way.

    @ivar calls: is told the outcome, once; C{None} from then on.
    @ivar principal: who calls.
    @ivar session_id: as for L{ToolCalls.begin}.
    @ivar tool: as the trail shows it.
    @ivar began_at: as for L{ToolCalls.begin}.
    @ivar session: what the log calls the session, C{None} before a child has it.
    """

    calls: "ToolCalls | None"
    principal: Principal
    session_id: bytes | None
    tool: str
    began_at: float
    session: str | None = None

    def relayed(self, session: str) -> None:
        """
        A child has it: whoever waits for it tells the end.

        @param session: what the log calls the session; else that is made of its id.
        """
        self.session = session

    def over(self, outcome: str) -> None:
        """
        @param outcome: one of our own words. The first one counts.
        """
        calls, self.calls = self.calls, None
        if calls is not None:
            calls.trail.called(
                self.principal,
                self.session or _session_name(self.session_id, self.principal),
                self.tool,
                outcome,
                calls.seconds() - self.began_at,
            )

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
        if self.session is None:
            self.over("abandoned" if not status else _ENDS_WITH.get(status, "failed"))


class ToolCalls:
    """
    Makes them.

    @ivar trail: takes the events.
    @ivar seconds: tells how much time has passed.
    """

    def __init__(self, trail: AuditTrail, seconds: Callable[[], float]) -> None:
        """
        @param trail: takes the events.
        @param seconds: tells how much time has passed.
        """
        self.trail = trail
        self.seconds = seconds

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
        name = message.members.get("name", NULL)
        tool = _shown_tool(name) if len(name) <= _LONGEST_NAME else ODD_TOOL
        return ToolCall(self, principal, session_id, tool, began_at)


def outcome_of(response: Response) -> str:
    """
    @param response: the answer to a call.
    @return: C{ok}; C{tool_error}: the tool says that it failed; C{input_required}: it
        asks its client something first; C{error}: of JSON-RPC.
    """
    if response.error is not None:
        return "error"
    result = response.result or NULL
    if result.rfind(IS_ERROR) < 0 and result.rfind(_INPUT_REQUIRED) < 0:
        return "ok"
    if failed(response):
        return "tool_error"
    kind = (members_of(result) or {}).get("resultType")
    return "input_required" if kind == _INPUT_REQUIRED else "ok"


@lru_cache(maxsize=_REMEMBERED)
def _shown_tool(name: bytes) -> str:
    """
    @param name: raw JSON, controlled by the client, of L{_LONGEST_NAME} at most.
    @return: what the trail calls the tool.
    """
    tool = text_of(name) or ""
    return tool if _TOOL.fullmatch(tool) else ODD_TOOL


def _session_name(session_id: bytes | None, principal: Principal) -> str:
    if session_id is None:
        return name_of_shared(principal.grant_id)
    return sha256(session_id).hexdigest()[:10]
