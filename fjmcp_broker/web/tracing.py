"""
What sign-in traces hear of requests: which attempt each belongs to, and how it ended.

The endpoints say what they know on the way; the wrapper around them says the rest.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from fjmcp_broker.limits.addresses import Address, shown_network
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.vocabulary import (
    AUTHORIZATION_SERVER_PATH,
    AUTHORIZE_PATH,
    CALLBACK_PATH,
    CONSENT_PATH,
    MCP_PATH,
    PROTECTED_RESOURCE_PATH,
    REGISTER_PATH,
    TOKEN_PATH,
)
from fjmcp_broker.store.audit import AuditEvent, Kind
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.store.trail import AuditTrail
from fjmcp_broker.trace.attempts import OK, UNKNOWN_NETWORK, Step, StepName
from fjmcp_broker.trace.book import (
    Book,
    client_key,
    grant_key,
    pending_key,
    state_key,
)
from fjmcp_broker.web.app import Route
from fjmcp_broker.web.request import BrokerRequest

_STEPS: Final[Mapping[str, StepName]] = {
    REGISTER_PATH: StepName.REGISTER,
    AUTHORIZE_PATH: StepName.AUTHORIZE,
    CONSENT_PATH: StepName.CONSENT,
    CALLBACK_PATH: StepName.CALLBACK,
    TOKEN_PATH: StepName.TOKEN,
}

#: Others could be anybody's, and anything may stand in a path.
_TOLD_PATHS: Final = frozenset(
    (
        MCP_PATH,
        AUTHORIZATION_SERVER_PATH,
        PROTECTED_RESOURCE_PATH,
        PROTECTED_RESOURCE_PATH + MCP_PATH,
        AUTHORIZATION_SERVER_PATH + MCP_PATH,
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/mcp",
        "/mcp/.well-known/openid-configuration",
        "/mcp/.well-known/oauth-authorization-server",
        "/authorize",
        "/token",
        "/register",
        "/sse",
        "/mcp/",
        *_STEPS,
    )
)
_TOLD_METHODS: Final = frozenset(
    ("initialize", "server/discover", "tools/list", "tools/call", "ping")
)


class SignInStep:
    """
    One step on its way: what the endpoint that takes it says about it.
    """

    def __init__(self, book: Book, name: StepName, network: str, now: int) -> None:
        """
        @param book: has the attempts.
        @param name: which step.
        @param network: that it comes from.
        @param now: seconds since the epoch.
        """
        self._book = book
        self._name = name
        self._network = network
        self._now = now
        self._trace_id: str | None = None
        self._outcome: str | None = None
        self._detail = ""
        self._facts: dict[str, Any] = {}
        self._is_none = False

    @property
    def trace_id(self) -> str | None:
        """
        @return: the attempt that it belongs to. One begins with a registration or an
            authorization request; nothing else begins any.
        """
        begins = self._name in (StepName.REGISTER, StepName.AUTHORIZE)
        if self._trace_id is None and begins and not self._is_none:
            self._trace_id = self._book.begin(self._network, self._now)
        return self._trace_id

    @property
    def facts(self) -> Mapping[str, Any]:
        """
        @return: what is known of the attempt by this step.
        """
        return self._facts

    @property
    def outcome(self) -> str:
        """
        @return: what was said last.
        """
        return self._outcome or OK

    def about(
        self,
        *,
        client_id: str | None = None,
        pending_id: str | None = None,
        state_digest: bytes | None = None,
        grant_id: str | None = None,
        user_id: int | None = None,
    ) -> None:
        """
        Say what the step is about. The first of these that leads to an attempt names
        it, and the others will lead there too.

        @param client_id: of a client that is known here.
        @param pending_id: of a pending authorization.
        @param state_digest: SHA-256 of the state sent to Forgejo.
        @param grant_id: of a grant.
        @param user_id: who signs in.
        """
        facts = {
            "client_id": client_id,
            "pending_id": pending_id,
            "grant_id": grant_id,
            "user_id": user_id,
        }
        self._facts.update({k: v for k, v in facts.items() if v is not None})
        keys = []
        if pending_id is not None:
            keys.append(pending_key(pending_id))
        if state_digest is not None:
            keys.append(state_key(state_digest))
        if grant_id is not None:
            keys.append(grant_key(grant_id))
        if client_id is not None and self._name is StepName.AUTHORIZE:
            # Only the first request of a client continues its registration: others
            # may be those of other people.
            key = client_key(client_id)
            if self._trace_id is None:
                self._trace_id = self._book.find(key)
            self._book.untie(key)
        if client_id is not None and self._name is StepName.REGISTER:
            keys.append(client_key(client_id))
        for key in keys:
            if self._trace_id is None:
                self._trace_id = self._book.find(key)
        if self.trace_id is not None:
            for key in keys:
                self._book.tie(self.trace_id, key)

    def says(self, outcome: str, detail: str = "") -> None:
        """
        @param outcome: one of our own words.
        @param detail: a clause for people, in our own words.
        """
        self._outcome, self._detail = outcome, detail

    def is_none(self) -> None:
        """It is no step of a sign-in after all."""
        self._is_none = True

    def failed(self, outcome: str, detail: str = "") -> None:
        """
        @param outcome: unless the endpoint has said one.
        @param detail: likewise.
        """
        if self._outcome is None:
            self.says(outcome, detail)

    def over(self, now: int, milliseconds: int) -> bool:
        """
        @param now: seconds since the epoch.
        @param milliseconds: it took.
        @return: whether it was a step.
        """
        trace_id = self.trace_id
        if self._is_none:
            return False
        if trace_id is not None:
            step = Step(
                now,
                self._name,
                self.outcome,
                self._detail,
                milliseconds,
                self._network,
            )
            self._book.add(trace_id, step, **self._facts)
        return True


class _Nobody(SignInStep):
    """What is said to it is for nobody."""

    def __init__(self) -> None:
        super().__init__(Book(bytes), StepName.TOKEN, UNKNOWN_NETWORK, 0)


def step_of(request: IRequest) -> SignInStep:
    """
    @param request: any.
    @return: the step that it is; what is said about others is for nobody.
    """
    step = getattr(request, "sign_in_step", None)
    return step if isinstance(step, SignInStep) else _Nobody()


class Tracing:
    """
    Stands around the endpoints of a sign-in.
    """

    def __init__(
        self,
        book: Book,
        trail: AuditTrail,
        address: Callable[[Any], Address | None],
        reactor: IReactorTime,
    ) -> None:
        """
        @param book: has the attempts.
        @param trail: takes audit events of sign-ins.
        @param address: of a request's client, C{None} when it is not known.
        @param reactor: tells how much time has passed.
        """
        self._book = book
        self._trail = trail
        self._address = address
        self._reactor = reactor

    def guard(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        """
        @param routes: of the service.
        @return: the same, those of a sign-in traced.
        """
        return tuple(
            replace(route, handler=self._traced(route, _STEPS[route.path]))
            if route.path in _STEPS
            else route
            for route in routes
        )

    def answered(self, request: BrokerRequest) -> None:
        """
        @param request: of any kind; it has been answered.
        """
        principal = request.principal
        if principal is not None:
            trace_id = self._book.awaits(principal.grant_id)
            if trace_id is not None:
                self._first_request(request, trace_id)
            return
        path = (request.path or b"").decode("latin-1")
        if path in _STEPS and request.code != 429:
            return
        if path == MCP_PATH:
            has_token = request.requestHeaders.hasHeader(b"authorization")
            what = f"{MCP_PATH} with{'' if has_token else 'out'} a token"
        elif path in _TOLD_PATHS:
            what = path
        elif request.code == 404:
            what = "a path that is not ours"
        else:
            return
        network, now = self._network(request), self._trail.now
        self._book.saw(network, f"{what}: {int(request.code)}", now)

    def _network(self, request: Any) -> str:
        address = self._address(request)
        return UNKNOWN_NETWORK if address is None else shown_network(address)

    def _first_request(self, request: BrokerRequest, trace_id: str) -> None:
        method = request.rpc_method
        detail = method if method in _TOLD_METHODS else "a request"
        seconds = self._reactor.seconds() - request.started_at
        step = Step(
            self._trail.now,
            StepName.REQUEST,
            str(int(request.code)),
            detail or "",
            round(seconds * 1000),
            self._network(request),
        )
        self._book.add(trace_id, step)

    def _traced(
        self, route: Route, name: StepName
    ) -> Callable[[IRequest], Awaitable[bytes]]:
        handler = route.handler

        async def traced(request: IRequest) -> bytes:
            began = self._reactor.seconds()
            step = SignInStep(self._book, name, self._network(request), self._trail.now)
            anything: Any = request
            anything.sign_in_step = step
            try:
                return await handler(request)
            except OAuthError as error:
                step.failed(str(error.code), error.description)
                raise
            except CancelledError:
                step.failed("client_left")
                raise
            except StoreError:
                step.failed("store_unavailable", "the store cannot be used")
                raise
            except Exception:
                step.failed("fault", "an unexpected error")
                raise
            finally:
                taken = round((self._reactor.seconds() - began) * 1000)
                if step.over(self._trail.now, taken):
                    self._tell_trail(name, step, taken)

        return traced

    def _tell_trail(self, name: StepName, step: SignInStep, milliseconds: int) -> None:
        facts = step.facts
        cancelled = name is StepName.CONSENT and step.outcome == "cancelled"
        returned = name is StepName.CALLBACK and "client_id" in facts
        # Of a grant whose return was told of as one without: the browser had gone.
        found = name is StepName.CONSENT and "grant_id" in facts
        if not (cancelled or returned or found):
            return
        self._trail.note(
            AuditEvent(
                at=self._trail.now,
                kind=Kind.SIGN_IN,
                outcome=step.outcome,
                user_id=facts.get("user_id"),
                client_id=facts.get("client_id"),
                grant_id=facts.get("grant_id"),
                duration_ms=milliseconds,
            )
        )
