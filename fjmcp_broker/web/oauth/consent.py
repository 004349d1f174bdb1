"""
C{POST /oauth/consent}: the user's decision.

Nothing here is believed that another site could have sent, or that another browser's
page could have been made to send. Only after that is the approval cookie set, and the
browser goes to Forgejo with a fresh state that belongs to this cookie.
"""

from collections.abc import Callable
from sqlite3 import Connection

from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.authorization import error_redirect
from fjmcp_broker.oauth.errors import OAuthError, invalid_request
from fjmcp_broker.oauth.tokens import PENDING_ID_PREFIX, digest, new_id
from fjmcp_broker.oauth.vocabulary import ErrorCode, Policy
from fjmcp_broker.store import clients, pending, tokens
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import SealError
from fjmcp_broker.store.lane import Lane
from fjmcp_broker.store.pending import PendingAuthorization
from fjmcp_broker.trace.attempts import OK
from fjmcp_broker.web.forms import read_form
from fjmcp_broker.web.oauth.carried import Asked, CarriedRequests
from fjmcp_broker.web.oauth.cookies import BrowserCookies, form_token_matches
from fjmcp_broker.web.oauth.departure import FIRST_ATTEMPT, Departure
from fjmcp_broker.web.oauth.outcomes import Outcome, Outcomes
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
        outcomes: Outcomes,
        *,
        clock: IReactorTime,
        random_bytes: Callable[[int], bytes],
        public_url: str,
        may_redirect: Callable[[Connection, PendingAuthorization], bool],
    ) -> None:
        """
        @param database: the store.
        @param cookies: the browser's.
        @param departure: the way to Forgejo.
        @param carried: opens what the form brings back.
        @param outcomes: knows how sign-ins ended, for an answer that comes again.
        @param clock: tells the time.
        @param random_bytes: gives that many cryptographically random bytes.
        @param public_url: the issuer, an origin without trailing slash.
        @param may_redirect: whether a sign-in may still lead to its client.
        """
        self._may_redirect = may_redirect
        self._database = database
        self._cookies = cookies
        self._departure = departure
        self._carried = carried
        self._outcomes = outcomes
        self._clock = clock
        self._random_bytes = random_bytes
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
            return _unreadable(request)
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
            return replace(undecided, returned_at=now)

        def cancelled(row: PendingAuthorization) -> Outcome:
            error = OAuthError(ErrorCode.ACCESS_DENIED, "the user did not allow it")
            wanted = row.request
            url = error_redirect(
                wanted.redirect_uri, wanted.state, error, issuer=self._public_url
            )
            outcome = Outcome(CANCEL, url, "cancelled")
            self._outcomes.remember(row.pending_id, row.expires_at, outcome)
            return outcome

        def decide(connection: Connection) -> tuple[PendingAuthorization, Outcome]:
            row = self._decide(connection, pending_id, asked, now, cancel)
            return row, cancelled(row)

        try:
            row, outcome = await self._database.write(decide)
        except _Over:
            return await self._again(request, pending_id, CANCEL, now)
        step = step_of(request)
        step.about(client_id=row.client_id)
        step.says(outcome.says)
        outcome.is_told = True
        self._log.info("sign-in for {client} cancelled", client=row.client_id)
        return see_other(request, outcome.url)

    async def _approve(
        self, request: IRequest, pending_id: str, asked: Asked | None, policy: Policy
    ) -> bytes:
        now = int(self._clock.seconds())
        approval = self._departure.prepare(FIRST_ATTEMPT)

        def approve(undecided: PendingAuthorization) -> PendingAuthorization:
            if policy not in offered_policies(undecided.request):
                raise invalid_request("the decision is not one of those offered")
            return self._departure.approved(undecided, policy, approval)

        try:
            row = await self._database.write(
                lambda c: self._decide(c, pending_id, asked, now, approve)
            )
        except _Over:
            return await self._again(request, pending_id, str(policy), now)
        step = step_of(request)
        step.about(pending_id=row.pending_id, state_digest=digest(approval.state))
        step.says(OK, f"policy {policy}")
        return self._departure.leave(request, approval)

    async def _again(
        self, request: IRequest, pending_id: str, decision: str, now: int
    ) -> bytes:
        """
        An answer has come that does not count any more. When it is the one that did
        count, it leads to the same place: a browser shows what its last click brought.
        """
        outcome = self._outcomes.find(pending_id, decision)
        if outcome is None:
            return expired(request)
        code = outcome.code_digest

        def still_leads_there(connection: Connection) -> bool:
            row = pending.find(connection, pending_id, now)
            if row is None or not self._may_redirect(connection, row):
                return False
            return code is None or tokens.is_code_unused(connection, code, now)

        if not await self._database.read(still_leads_there):
            return expired(request)
        step = step_of(request)
        step.about(grant_id=outcome.grant_id)
        if outcome.is_told:
            step.is_none()
        else:
            step.says(outcome.says, "chosen again, the browser had gone before")
            outcome.is_told = True
            self._log.info(
                "an answer given again leads to the client: {outcome}, grant {grant}",
                outcome=outcome.says,
                grant=outcome.grant_id,
            )
        return see_other(request, outcome.url)

    def _decide(
        self,
        connection: Connection,
        pending_id: str,
        asked: Asked | None,
        now: int,
        decide: Callable[[PendingAuthorization], PendingAuthorization],
    ) -> PendingAuthorization:
        """
        Write down what the user decided. This is the first that the store hears of a
        sign-in.

        @param asked: what the form carried; C{None}: there is a row.
        @return: the sign-in, decided.
        @raise _Over: expired, over, or without its client or that one's redirect URI,
            and nothing is to be changed.
        """
        undecided = (
            pending.find(connection, pending_id, now)
            if asked is None
            else asked.pending
        )
        if undecided is None:
            raise _Over
        if asked is not None and asked.document is not None:
            new = asked.document
            clients.save_document(
                connection, new.client, new.save_until, in_place_of=new.in_place_of
            )
        # Since the page was made the collector may have removed the client, or the
        # operator or its document the address.
        if not self._may_redirect(connection, undecided):
            raise _Over
        decided = decide(undecided)
        if pending.decide(connection, decided, now):
            return decided
        return self._decide_again(connection, undecided, now, decide)

    def _decide_again(
        self,
        connection: Connection,
        undecided: PendingAuthorization,
        now: int,
        decide: Callable[[PendingAuthorization], PendingAuthorization],
    ) -> PendingAuthorization:
        """
        The browser has come back from Forgejo, but not on to the client: it waited for
        us, the user did not and chose once more. The new answer counts, and the return
        that is at work issues nothing.
        """
        if undecided.expires_at <= now:
            raise _Over
        current = self._outcomes.current(
            undecided.pending_id,
            lambda pending_id: pending.find(connection, pending_id, now) is not None,
        )
        if current != undecided.pending_id:
            decided = decide(_afresh(undecided, current))
            if pending.decide(connection, decided, now):
                return decided
        if not pending.finish(connection, current):
            raise _Over
        later = new_id(PENDING_ID_PREFIX, self._random_bytes)
        decided = decide(_afresh(undecided, later))
        if not pending.decide(connection, decided, now):
            raise _Over
        self._outcomes.go_on(current, undecided.expires_at, later)
        return decided


def _afresh(asked: PendingAuthorization, pending_id: str) -> PendingAuthorization:
    return PendingAuthorization(
        pending_id=pending_id,
        client_id=asked.client_id,
        request=asked.request,
        created_at=asked.created_at,
        expires_at=asked.expires_at,
    )


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


def _unreadable(request: IRequest) -> bytes:
    step_of(request).says("old_page")
    return problem(
        request,
        400,
        "This page is out of date",
        element(
            "p",
            "The service has been given a new key since the page was made, or the "
            "form has been damaged on its way. Nothing was allowed.",
        ),
        GO_BACK,
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
