"""
The calls of one grant whose children wait for a client's answer.

What the client repeats names the call, the child that has it and the round of
questions. It is good once and for ten minutes, and the call behind it is never made
again: when it is lost, the client hears that.
"""

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.mcp.messages import Request
from fjmcp_broker.mcp.modern.request_state import (
    LIFETIME_SECONDS,
    RequestState,
    Sealing,
    digest_of,
    generation_lost,
    opened,
)
from fjmcp_broker.mcp.modern.requests import ModernRequest
from fjmcp_broker.mcp.policy import ToolCatalogue
from fjmcp_broker.sessions.stateless.calls import Call, CallObserver

NONCE_BYTES = 16


class ParkedCall(Protocol):
    """
    A call that nobody waits for at the moment.
    """

    @property
    def generation(self) -> str:
        """
        @return: names the child that has it, of all children ever.
        """

    @property
    def number(self) -> str:
        """
        @return: names it among the calls of that child.
        """

    @property
    def catalogue(self) -> ToolCatalogue:
        """
        @return: what is known of the tools of its child.
        """

    def resume(self, modern: ModernRequest, observer: CallObserver) -> Call:
        """
        @param modern: the retry.
        @param observer: gets the answer.
        @return: the call, as long as this request lasts.
        """

    def forget(self, reason: str) -> None:
        """
        @param reason: why nobody will come back for it, for the child.
        """


class ParkedCalls:
    """
    Finds the call that a retry means.
    """

    def __init__(
        self,
        grant_id: str,
        sealing: Sealing,
        clock: IReactorTime,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """
        @param grant_id: whose calls.
        @param sealing: with the store's key.
        @param clock: tells the time, seconds since the epoch.
        @param random_bytes: for what is good once.
        """
        self._grant_id = grant_id
        self._sealing = sealing
        self._clock = clock
        self._random_bytes = random_bytes
        self._waiting: dict[str, ParkedCall] = {}

    def park(self, call: ParkedCall, request: Request) -> str:
        """
        @param call: its client is asked now.
        @param request: as the client sent it.
        @return: C{requestState}.
        """
        nonce = self._random_bytes(NONCE_BYTES).hex()
        self._waiting[nonce] = call
        state = RequestState(
            grant=self._grant_id,
            generation=call.generation,
            call=call.number,
            digest=digest_of(request),
            expires_at=int(self._clock.seconds()) + LIFETIME_SECONDS,
            nonce=nonce,
        )
        return state.sealed(self._sealing)

    def find(self, modern: ModernRequest) -> ParkedCall:
        """
        @param modern: a retry, which has a C{requestState}.
        @return: the call that it means.
        @raise ModernError: what it repeats is not from us, not for this request or too
            old; or the call is lost, or was answered already.
        """
        return self._find(modern)[1]

    def take(self, modern: ModernRequest) -> ParkedCall:
        """
        As L{find}, once.

        @param modern: a retry, which has a C{requestState}.
        @return: the call that it means.
        @raise ModernError: as L{find}.
        """
        nonce, call = self._find(modern)
        del self._waiting[nonce]
        return call

    def remove(self, call: ParkedCall) -> None:
        """
        @param call: is over.
        """
        if not self._waiting:
            return
        for nonce in [n for n, other in self._waiting.items() if other is call]:
            del self._waiting[nonce]

    def forget_all(self) -> None:
        """Nobody can come back any more."""
        for call in list(self._waiting.values()):
            call.forget("the service is restarting")

    def _find(self, modern: ModernRequest) -> tuple[str, ParkedCall]:
        state = opened(
            modern.request_state or "",
            self._sealing,
            grant=self._grant_id,
            request=modern.request,
            now=int(self._clock.seconds()),
        )
        call = self._waiting.get(state.nonce)
        if call is None or (call.generation, call.number) != (
            state.generation,
            state.call,
        ):
            raise generation_lost(modern.id)
        return state.nonce, call
