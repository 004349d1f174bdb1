"""
What went to the stand-in Forgejo, and what is made to go wrong there.
"""

from typing import Final, cast

import msgspec
from klein import Response
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.web.iweb import IRequest
from twisted.web.server import Request

from fjmcp_broker.demo.forgejo.http import page

ENDPOINTS: Final = {
    "/user/login": "login",
    "/login/oauth/authorize": "authorize",
    "/login/oauth/grant": "grant",
    "/login/oauth/access_token": "token",
    "/login/oauth/userinfo": "userinfo",
    "/login/oauth/introspect": "introspect",
    "/login/oauth/keys": "keys",
    "/.well-known/openid-configuration": "discovery",
}


# A demo may run for weeks; tests never come near.
LONGEST_RECORD: Final = 20_000


def endpoint_of(path: str) -> str:
    """
    @param path: a path below the base path.
    @return: the short name that counters and faults use: one of L{ENDPOINTS},
        C{api}, or C{page} for everything else.
    """
    if path.startswith("/api/"):
        return "api"
    return ENDPOINTS.get(path.rstrip("/"), "page")


class RecordedRequest(msgspec.Struct):
    """
    One request that arrived.

    @ivar detail: for the token endpoint the grant type, else empty.
    @ivar login: the user whose token or session came with it, if any.
    @ivar status: of the answer; 0 while there is none.
    """

    method: str
    path: str
    endpoint: str
    at_seconds: float
    detail: str = ""
    login: str | None = None
    status: int = 0
    is_finished: bool = False

    @property
    def is_write(self) -> bool:
        """
        @return: whether the method is neither GET nor HEAD.
        """
        return self.method not in ("GET", "HEAD")


class Fault(msgspec.Struct, eq=False):
    """
    Something that happens to matching requests until it is used up or ended.

    @ivar target: an endpoint name, a path prefix that begins with a slash, or
        None for everything; C{token:refresh_token} and
        C{token:authorization_code} name one grant type.
    @ivar remaining: how many requests it still hits; None for no limit.
    """

    kind: str
    target: str | None
    remaining: int | None
    seconds: float = 0.0
    is_ended: bool = False
    hits: int = 0
    _waiting: list[Deferred[None]] = msgspec.field(default_factory=list)

    @property
    def waiting(self) -> int:
        """
        @return: how many requests it holds now.
        """
        return len(self._waiting)

    def end(self) -> None:
        """
        Hit nothing more, and let go of what is held.
        """
        self.is_ended = True
        self.release()

    def release(self) -> None:
        """
        Let go of everything that is held now.
        """
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    def hold(self) -> Deferred[None]:
        """
        @return: fires on release; a cancelled one is forgotten.
        """
        held: Deferred[None] = Deferred(self._forget)
        self._waiting.append(held)
        return held

    def _forget(self, held: Deferred[None]) -> None:
        if held in self._waiting:
            self._waiting.remove(held)

    def matches(self, record: RecordedRequest) -> bool:
        """
        @return: whether it would hit this request now.
        """
        if self.is_ended or self.remaining == 0:
            return False
        if self.target is None:
            return True
        if self.target.startswith("/"):
            return record.path.startswith(self.target)
        return self.target in (record.endpoint, f"{record.endpoint}:{record.detail}")

    def hit(self) -> None:
        """
        Count one request.
        """
        self.hits += 1
        if self.remaining is not None:
            self.remaining -= 1


class Traffic:
    """
    Records every request, and applies the faults to them.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: for delays and the times of records.
        """
        self._clock = clock
        self._open: dict[IRequest, RecordedRequest] = {}
        self.requests: list[RecordedRequest] = []
        self.faults: list[Fault] = []

    def arrived(self, request: IRequest, path: str, detail: str) -> RecordedRequest:
        """
        Record a request.

        @param path: the path below the base path.
        @param detail: the grant type at the token endpoint, else empty.
        """
        record = RecordedRequest(
            request.method.decode("ascii", "replace"),
            path,
            endpoint_of(path),
            self._clock.seconds(),
            detail,
        )
        if len(self.requests) >= LONGEST_RECORD:
            del self.requests[: LONGEST_RECORD // 2]
        self.requests.append(record)
        self._open[request] = record
        cast(Request, request).notifyFinish().addBoth(self._finished, request, record)
        return record

    def _finished(
        self, result: object, request: IRequest, record: RecordedRequest
    ) -> None:
        record.is_finished = True
        record.status = record.status or cast(Request, request).code
        self._open.pop(request, None)

    def name_user(self, request: IRequest, login: str) -> None:
        """
        Note whose request it is.
        """
        if request in self._open:
            self._open[request].login = login

    def _take(self, record: RecordedRequest, *kinds: str) -> Fault | None:
        for fault in self.faults:
            if fault.kind in kinds and fault.matches(record):
                fault.hit()
                return fault
        return None

    async def before(self, record: RecordedRequest) -> Response | None:
        """
        Apply what happens before a request is handled.

        @return: an answer that replaces the handler's, or None.
        """
        late = self._take(record, "delay")
        if late is not None:
            await self._sleep(late.seconds)
        held = self._take(record, "hold-request")
        if held is not None:
            await held.hold()
        if self._take(record, "bad-gateway") is not None:
            return page("502 Bad Gateway", "<p>nginx</p>", 502)
        return None

    async def deliver(self, request: IRequest, response: Response) -> Response:
        """
        Apply what happens between handling a request and answering it.

        @return: the same answer; never, when the answer is dropped.
        """
        record = self._open.get(request)
        if record is None:
            return response
        record.status = response.code
        held = self._take(record, "hold-answer")
        if held is not None:
            await held.hold()
        if self._take(record, "drop") is not None:
            transport = cast(Request, request).transport
            if transport is not None:
                cast(ITCPTransport, transport).abortConnection()
            # Klein cancels the route when the connection is gone.
            lost: Deferred[None] = Deferred()
            await lost
        return response

    async def _sleep(self, seconds: float) -> None:
        awake: Deferred[None] = Deferred()
        call = self._clock.callLater(seconds, awake.callback, None)
        try:
            await awake
        except CancelledError:
            call.cancel()
            raise


class FaultControls:
    """
    The part of the controls that is about traffic.
    """

    def __init__(self, traffic: Traffic) -> None:
        """
        @param traffic: the records and faults of one stand-in.
        """
        self._traffic = traffic

    @property
    def requests(self) -> list[RecordedRequest]:
        """
        @return: everything that arrived, oldest first.
        """
        return self._traffic.requests

    def count(self, target: str | None = None) -> int:
        """
        @param target: as L{Fault.target}.
        @return: how many matching requests arrived.
        """
        return len(self.matching(target))

    def in_flight(self, target: str | None = None) -> int:
        """
        @return: how many matching requests are not answered yet.
        """
        return sum(not each.is_finished for each in self.matching(target))

    def matching(self, target: str | None = None) -> list[RecordedRequest]:
        """
        @return: the matching requests, oldest first.
        """
        probe = Fault("count", target, None)
        return [each for each in self.requests if probe.matches(each)]

    def writes(self) -> list[RecordedRequest]:
        """
        @return: API requests with a method other than GET and HEAD.
        """
        return [each for each in self.matching("api") if each.is_write]

    def forget_requests(self) -> None:
        """
        Empty the record; counters start from zero.
        """
        self._traffic.requests.clear()

    def delay(
        self, seconds: float, target: str | None = None, times: int | None = None
    ) -> Fault:
        """
        Answer late: handling begins C{seconds} after arrival.
        """
        return self._add(Fault("delay", target, times, seconds))

    def hold_request(
        self, target: str | None = None, times: int | None = None
    ) -> Fault:
        """
        Hang before handling; C{release()} of the result goes on.
        """
        return self._add(Fault("hold-request", target, times))

    def hold_answer(self, target: str | None = None, times: int | None = None) -> Fault:
        """
        Hang after handling (counters are bumped), before anything is sent.
        """
        return self._add(Fault("hold-answer", target, times))

    def drop_answer(self, target: str | None = None, times: int | None = 1) -> Fault:
        """
        Handle the request, then close the connection without an answer.
        """
        return self._add(Fault("drop", target, times))

    def bad_gateway(self, target: str | None = None, times: int | None = None) -> Fault:
        """
        Answer 502 with an HTML page and do nothing else, as a proxy would.
        """
        return self._add(Fault("bad-gateway", target, times))

    def end_faults(self) -> None:
        """
        Remove every fault and let go of what they hold.
        """
        faults, self._traffic.faults = self._traffic.faults, []
        for fault in faults:
            fault.end()

    def _add(self, fault: Fault) -> Fault:
        self._traffic.faults.append(fault)
        return fault
