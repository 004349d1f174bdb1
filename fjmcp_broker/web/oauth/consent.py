"""
C{POST /oauth/consent}: the user's decision.

Nothing here is believed that another site could have sent, or that another browser's
page could have been made to send. Only after that is the approval cookie set, and the
browser goes to Forgejo with a fresh state that belongs to this cookie.
"""

from collections.abc import Callable
from sqlite3 import Connection
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.authorization import error_redirect
from fjmcp_broker.oauth.errors import OAuthError, invalid_request
from fjmcp_broker.oauth.tokens import code_challenge, digest
from fjmcp_broker.oauth.vocabulary import ErrorCode, Policy
from fjmcp_broker.store import clients, pending
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import SealError
from fjmcp_broker.store.lane import Lane
from fjmcp_broker.store.pending import PendingAuthorization
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.trace.attempts import OK
from fjmcp_broker.web.forms import read_form
from fjmcp_broker.web.oauth.carried import Asked, CarriedRequests
from fjmcp_broker.web.oauth.cookies import BrowserCookies, form_token_matches
from fjmcp_broker.web.pages.consent import (
    CANCEL,
    CARRIED_FIELD,
    DECISION_FIELD,
    PENDING_FIELD,
    TOKEN_FIELD,
    offered_policies,
)
from fjmcp_broker.web.pages.html import element
from fjmcp_broker.web.pages.page import GO_BACK, MAY_BE_DONE, problem, see_other
from fjmcp_broker.web.tracing import step_of

#: First characters of the state sent to Forgejo; its digest in the row vouches for
#: them, so the callback can tell a second attempt without another column.
FIRST_ATTEMPT: Final = "a"
SECOND_ATTEMPT: Final = "b"


@attrs.frozen
class Approval:
    """
    What belongs to one visit at Forgejo.

    @ivar state: sent to Forgejo, comes back.
    @ivar cookie: value of the approval cookie.
    @ivar verifier: PKCE verifier towards Forgejo.
    """

    state: str = attrs.field(repr=False)
    cookie: str = attrs.field(repr=False)
    verifier: str = attrs.field(repr=False)


class Departure:
    """
    Sends an approved browser to Forgejo.
    """

    def __init__(
        self,
        cookies: BrowserCookies,
        authorize_url: Callable[[str, str], str],
        sealer: Sealer,
    ) -> None:
        """
        @param cookies: the browser's.
        @param authorize_url: makes Forgejo's address for a state and a PKCE
            challenge, see L{IForgejo
            <fjmcp_broker.upstream.interfaces.IForgejo.authorize_url>}.
        @param sealer: for the PKCE verifier at rest.
        """
        self._cookies = cookies
        self._authorize_url = authorize_url
        self._sealer = sealer

    def prepare(self, attempt: str) -> Approval:
        """
        @param attempt: L{FIRST_ATTEMPT} or L{SECOND_ATTEMPT}.
        @return: fresh random values.
        """
        return Approval(
            state=attempt + self._cookies.new_value(),
            cookie=self._cookies.new_value(),
            verifier=self._cookies.new_value(),
        )

    def approved(
        self, undecided: PendingAuthorization, policy: Policy, approval: Approval
    ) -> PendingAuthorization:
        """
        @param undecided: the sign-in.
        @param policy: what the user chose.
        @param approval: of this visit.
        @return: the same, approved.
        """
        row = pending.verifier_row(undecided.pending_id)
        return attrs.evolve(
            undecided,
            state_digest=digest(approval.state),
            approval_digest=digest(approval.cookie),
            policy=policy,
            sealed_upstream_verifier=self._sealer.seal(
                approval.verifier.encode("ascii"), row=row
            ),
        )

    def open_verifier(self, row: PendingAuthorization) -> str:
        """
        @param row: an approved one.
        @return: the PKCE verifier of its visit.
        @raise SealError: the key is gone.
        """
        name = pending.verifier_row(row.pending_id)
        sealed = row.sealed_upstream_verifier or b""
        return self._sealer.open(sealed, row=name).decode("ascii")

    def leave(self, request: IRequest, approval: Approval) -> bytes:
        """
        @param request: gets the cookie and the redirect.
        @param approval: committed.
        @return: the body of the redirect.
        """
        self._cookies.set_approval(request, approval.state, approval.cookie)
        challenge = code_challenge(approval.verifier)
        url = self._authorize_url(approval.state, challenge)
        return see_other(request, url)


class ConsentEndpoint:
    """
    Takes the posted consent form.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database | Lane,
        cookies: BrowserCookies,
        departure: Departure,
        carried: CarriedRequests,
        *,
        clock: IReactorTime,
        public_url: str,
    ) -> None:
        """
        @param database: the store.
        @param cookies: the browser's.
        @param departure: the way to Forgejo.
        @param carried: opens what the form brings back.
        @param clock: tells the time.
        @param public_url: the issuer, an origin without trailing slash.
        """
        self._database = database
        self._cookies = cookies
        self._departure = departure
        self._carried = carried
        self._clock = clock
        self._public_url = public_url

    async def post(self, request: IRequest) -> bytes:
        """
        @param request: POST of our own form by the browser that was shown it.
        @return: a redirect to Forgejo, or back to the client when the user cancels,
            or a page that says why not.
        @raise OAuthError: C{invalid_request}: not a form of ours.
        """
        form = read_form(request)
        pending_id = form.require(PENDING_FIELD)
        token = form.require(TOKEN_FIELD)
        decision = form.require(DECISION_FIELD)
        step_of(request).about(pending_id=pending_id)
        cookie = self._cookies.consent_value(request)
        if (
            not self._is_same_origin(request)
            or cookie is None
            or not form_token_matches(token, cookie, pending_id)
        ):
            self._log.warn("consent refused: not from our page in this browser")
            step_of(request).says("not_our_page")
            return _foreign(request)
        carried = form.get(CARRIED_FIELD)
        try:
            # The page of a version that had a row for it by then carries nothing.
            asked = self._carried.open(carried, pending_id) if carried else None
        except SealError as error:
            self._log.warn("consent refused: {reason}", reason=str(error))
            return expired(request)
        if decision == CANCEL:
            return await self._cancel(request, pending_id, asked)
        try:
            policy = Policy(decision)
        except ValueError:
            raise invalid_request("the decision is not one of those offered") from None
        return await self._approve(request, pending_id, asked, policy)

    def _is_same_origin(self, request: IRequest) -> bool:
        site = request.requestHeaders.getRawHeaders(b"sec-fetch-site") or []
        if site:
            return site == [b"same-origin"]
        # Browsers without Sec-Fetch-Site, and all of them on plain http.
        origin = request.requestHeaders.getRawHeaders(b"origin") or []
        return [value.decode("latin-1") for value in origin] == [self._public_url]

    async def _cancel(
        self, request: IRequest, pending_id: str, asked: Asked | None
    ) -> bytes:
        now = int(self._clock.seconds())

        def cancel(undecided: PendingAuthorization) -> PendingAuthorization:
            return attrs.evolve(undecided, returned_at=now)

        row = await self._decide(pending_id, asked, now, cancel)
        if row is None:
            return expired(request)
        step = step_of(request)
        step.about(client_id=row.client_id)
        step.says("cancelled")
        self._log.info("sign-in for {client} cancelled", client=row.client_id)
        error = OAuthError(ErrorCode.ACCESS_DENIED, "the user did not allow it")
        url = error_redirect(
            row.request.redirect_uri,
            row.request.state,
            error,
            issuer=self._public_url,
        )
        return see_other(request, url)

    async def _approve(
        self, request: IRequest, pending_id: str, asked: Asked | None, policy: Policy
    ) -> bytes:
        now = int(self._clock.seconds())
        approval = self._departure.prepare(FIRST_ATTEMPT)

        def approve(undecided: PendingAuthorization) -> PendingAuthorization:
            if policy not in offered_policies(undecided.request):
                raise invalid_request("the decision is not one of those offered")
            return self._departure.approved(undecided, policy, approval)

        if await self._decide(pending_id, asked, now, approve) is None:
            return expired(request)
        step = step_of(request)
        step.about(state_digest=digest(approval.state))
        step.says(OK, f"policy {policy}")
        return self._departure.leave(request, approval)

    async def _decide(
        self,
        pending_id: str,
        asked: Asked | None,
        now: int,
        decide: Callable[[PendingAuthorization], PendingAuthorization],
    ) -> PendingAuthorization | None:
        """
        Write down what the user decided. This is the first that the store hears of a
        sign-in.

        @param asked: what the form carried; C{None}: there is a row.
        @return: the sign-in, decided; C{None}: expired, over, or without its client or
            that one's redirect URI, and nothing has changed.
        """

        def write(connection: Connection) -> PendingAuthorization:
            undecided = (
                pending.find(connection, pending_id, now)
                if asked is None
                else asked.pending
            )
            if undecided is None:
                raise _Over
            decided = decide(undecided)
            if asked is not None and asked.document is not None:
                document = asked.document
                clients.save_document(connection, document.client, document.save_until)
            # Since the page was made the collector may have removed the client, or the
            # operator or its document the address.
            target = decided.request.redirect_uri
            goes_on = clients.may_redirect(connection, decided.client_id, target)
            if not goes_on or not pending.decide(connection, decided, now):
                raise _Over
            return decided

        try:
            return await self._database.write(write)
        except _Over:
            return None


class _Over(Exception):  # noqa: N818 - says what the sign-in is
    """Takes back what its transaction has written."""


def expired(request: IRequest) -> bytes:
    """
    @param request: gets status and headers.
    @return: the page for a sign-in that is over or was never begun.
    """
    step_of(request).says("expired")
    return problem(
        request,
        400,
        "This sign-in is no longer valid",
        element(
            "p",
            "It took longer than ten minutes, or it has been finished already.",
        ),
        MAY_BE_DONE,
    )


def _foreign(request: IRequest) -> bytes:
    return problem(
        request,
        403,
        "This answer did not come from our page",
        element(
            "p",
            "The form was not sent by the page that this browser was shown, or the "
            "browser does not keep cookies. Nothing was allowed.",
        ),
        GO_BACK,
    )
