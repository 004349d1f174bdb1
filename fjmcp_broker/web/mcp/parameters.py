"""
Holding C{Mcp-Param-*} headers against the arguments of a tool (MCP 2026-07-28,
transports, Streamable HTTP, custom headers from tool parameters).

Which arguments have a header stands in the child's list of tools. It is remembered for
each grant: from what clients list by themselves, else the child is asked once.
"""

from collections.abc import Mapping
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import msgspec
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.logs import background
from fjmcp_broker.mcp.messages import NULL, Request, Response, text_of
from fjmcp_broker.mcp.modern.edits import members_of
from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.mcp.modern.parameter_headers import (
    HeaderParameter,
    annotated_tools,
    check,
)
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.versions import FIRST_MODERN
from fjmcp_broker.sessions.stateless.calls import Lease

LIST: Final = "tools/list"
FRESH_SECONDS: Final = 300.0
"""How long a list is believed."""

AGAIN_SECONDS: Final = 10.0
"""How old a list has to be so that the child is asked again because of a call that
does not fit it."""

ANSWER_SECONDS: Final = 5.0
"""How long a child may take for all pages, its start aside."""

MAXIMUM_PAGES: Final = 20

Tools = Mapping[str, tuple[HeaderParameter, ...]]


class ListsTools(Protocol):
    """
    What is needed of the shared child of a grant.
    """

    async def awake(self, modern: ModernRequest) -> Lease:
        """
        @param modern: what will be asked.
        @return: the right to ask it.
        """


class _Known(msgspec.Struct, frozen=True):
    """
    A list of tools.

    @ivar identity: of the kind of child that gave it.
    @ivar at: when.
    @ivar tools: the annotated arguments of each.
    """

    identity: bytes
    at: float
    tools: Tools


class ToolParameters:
    """
    Knows which arguments of which tools have headers.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: for the age of lists.
        """
        self._clock = clock
        self._known: WeakKeyDictionary[ListsTools, _Known] = WeakKeyDictionary()
        self._asking: WeakKeyDictionary[ListsTools, list[Deferred[None]]] = (
            WeakKeyDictionary()
        )

    def fit(self, session: ListsTools, identity: bytes, modern: ModernRequest) -> bool:
        """
        @param session: of the grant.
        @param identity: of the kind of child that would answer now.
        @param modern: the request.
        @return: whether L{check} has nothing to wait for and nothing to refuse.
        """
        if modern.method != "tools/call":
            return True
        known = self._known.get(session)
        return (
            modern.request_state is None
            and self._is_younger(known, identity, FRESH_SECONDS)
            and _fits(modern, known, text_of(modern.request.members.get("name")) or "")
        )

    async def check(
        self, session: ListsTools, identity: bytes, modern: ModernRequest
    ) -> None:
        """
        Check a C{tools/call}; other requests have no such headers. When the child
        does not list its tools in time, nothing is held against the call.

        @param session: of the grant.
        @param identity: of the kind of child that would answer now.
        @param modern: the request.
        @raise ModernError: a header is missing, differs or is unreadable.
        """
        if modern.method != "tools/call":
            return
        name = text_of(modern.request.members.get("name")) or ""
        known = self._known.get(session)
        if modern.request_state is not None:
            # Its call is at a child already, and must not wake another one.
            if known is not None:
                check(modern, known.tools.get(name, ()))
            return
        if not self._is_younger(known, identity, FRESH_SECONDS):
            known = await self._ask(session, identity)
        elif not _fits(modern, known, name) and not self._is_younger(
            known, identity, AGAIN_SECONDS
        ):
            known = await self._ask(session, identity)
        if known is not None:
            check(modern, known.tools.get(name, ()))

    def heard(
        self,
        session: ListsTools,
        identity: bytes,
        request: Request,
        result: bytes,
    ) -> None:
        """
        @param session: of the grant.
        @param identity: of the kind of child that answered.
        @param request: a C{tools/list} of a client.
        @param result: raw result, as the child wrote it.
        """
        if "cursor" not in request.members and _next_cursor(result) is None:
            self._remember(session, identity, annotated_tools(result))

    # Inside

    def _is_younger(
        self, known: _Known | None, identity: bytes, seconds: float
    ) -> bool:
        return (
            known is not None
            and known.identity == identity
            and self._clock.seconds() - known.at < seconds
        )

    def _remember(self, session: ListsTools, identity: bytes, tools: Tools) -> None:
        self._known[session] = _Known(identity, self._clock.seconds(), tools)

    async def _ask(self, session: ListsTools, identity: bytes) -> _Known | None:
        """Let one ask for all that wait."""
        waiting: Deferred[None] = Deferred()
        if session in self._asking:
            self._asking[session].append(waiting)
        else:
            self._asking[session] = [waiting]
            background(self._fetch(session, identity), "listing the tools of a child")
        await waiting
        known = self._known.get(session)
        fresh = self._is_younger(known, identity, FRESH_SECONDS)
        return known if fresh else None

    async def _fetch(self, session: ListsTools, identity: bytes) -> None:
        failure: Exception | None = None
        try:
            tools = await self._list(session)
            if tools is not None:
                self._remember(session, identity, tools)
        except TimeoutError:
            self._log.warn("a child did not list its tools in time")
        except Exception as error:
            failure = error
        finally:
            for waiting in self._asking.pop(session, []):
                if failure is None:
                    waiting.callback(None)
                else:
                    waiting.errback(failure)

    async def _list(self, session: ListsTools) -> Tools | None:
        """All pages; C{None} when the child has no such list."""
        tools: dict[str, tuple[HeaderParameter, ...]] = {}
        cursor: str | None = None
        left = ANSWER_SECONDS
        for _ in range(MAXIMUM_PAGES):
            modern = _listing(cursor)
            lease = await session.awake(modern)
            began = self._clock.seconds()
            page = _Page()
            call = lease.begin(modern, page)
            try:
                response = await page.response.addTimeout(left, self._clock)
            finally:
                call.abandon()
            left = max(0.0, left - (self._clock.seconds() - began))
            if response.result is None:
                return None
            tools.update(annotated_tools(response.result))
            cursor = _next_cursor(response.result)
            if cursor is None:
                break
        return tools


class _Page:
    """Waits for one page of the list."""

    takes_messages = False

    def __init__(self) -> None:
        """
        Nothing came yet.
        """
        self.response: Deferred[Response] = Deferred()

    def notified(self, message: bytes) -> None:
        """
        @param message: dropped.
        """

    def finished(self, response: Response, status: int) -> None:
        """
        @param response: the answer.
        @param status: of no interest.
        """
        if not self.response.called:
            self.response.callback(response)


def _fits(modern: ModernRequest, known: _Known | None, name: str) -> bool:
    if known is None or name not in known.tools:
        return False
    try:
        check(modern, known.tools[name])
    except ModernError:
        return False
    return True


def _next_cursor(result: bytes) -> str | None:
    return text_of((members_of(result) or {}).get("nextCursor", NULL))


def _listing(cursor: str | None) -> ModernRequest:
    """A C{tools/list} of our own."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": FIRST_MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params: dict[str, object] = {"_meta": meta}
    if cursor is not None:
        params["cursor"] = cursor
    members = {name: msgspec.json.encode(value) for name, value in params.items()}
    request = Request(
        b'"tools"',
        LIST,
        msgspec.json.encode(params),
        members,
        {name: msgspec.json.encode(value) for name, value in meta.items()},
    )
    return ModernRequest(request, FIRST_MODERN, b"{}")
