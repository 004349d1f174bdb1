"""
C{GET /oauth/callback}: the browser comes back from Forgejo.

The state and the approval cookie must belong to one pending row, which is taken by one
statement. From then on nothing is decided twice: Forgejo's code goes to the upstream
side, which finishes its work even when the browser leaves, and what we issue is
written in one transaction, with what Forgejo said of the user meanwhile.
"""

from collections.abc import Callable
from secrets import token_hex
from sqlite3 import Connection
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.authorization import error_redirect, success_redirect
from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.grants import AuthorizationCode, Grant
from fjmcp_broker.oauth.parameters import Parameters
from fjmcp_broker.oauth.tokens import (
    CODE_LIFETIME_SECONDS,
    CODE_PREFIX,
    GRANT_ID_PREFIX,
    PENDING_ID_PREFIX,
    digest,
    new_id,
    new_token,
)
from fjmcp_broker.oauth.vocabulary import ErrorCode, Policy, Scope
from fjmcp_broker.store import clients, grants, pending, tokens
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreError
from fjmcp_broker.store.pending import PendingAuthorization
from fjmcp_broker.trace.attempts import OK
from fjmcp_broker.upstream.errors import (
    CodeRefused,
    NotAllowed,
    ScopeMismatch,
    SignInNeeded,
    UpstreamError,
    UpstreamUnavailable,
)
from fjmcp_broker.upstream.interfaces import IUpstreamTokens, SignedInUser
from fjmcp_broker.upstream.sign_ins import note_user
from fjmcp_broker.web.forms import read_query
from fjmcp_broker.web.oauth.consent import expired
from fjmcp_broker.web.oauth.cookies import BrowserCookies
from fjmcp_broker.web.oauth.departure import SECOND_ATTEMPT, Departure
from fjmcp_broker.web.oauth.outcomes import Outcome, Outcomes
from fjmcp_broker.web.pages.callback import not_allowed, other_scopes, wrong_browser
from fjmcp_broker.web.pages.page import see_other
from fjmcp_broker.web.tracing import step_of

#: Forgejo's error codes that a client may hear of as they are. Others are Forgejo's
#: business with us: C{unauthorized_client}, relayed, makes clients throw their
#: registration away.
_RELAYED: Final = {
    "access_denied": ErrorCode.ACCESS_DENIED,
    "temporarily_unavailable": ErrorCode.TEMPORARILY_UNAVAILABLE,
}

_DESCRIPTIONS: Final = {
    ErrorCode.ACCESS_DENIED: "the user did not allow it at Forgejo",
    ErrorCode.TEMPORARILY_UNAVAILABLE: "the sign-in cannot be finished at the moment",
    ErrorCode.SERVER_ERROR: "Forgejo did not complete the sign-in",
}


class CallbackEndpoint:
    """
    Finishes sign-ins.
    """

    _log = Logger()

    def __init__(
        self,
        database: Database,
        cookies: BrowserCookies,
        departure: Departure,
        outcomes: Outcomes,
        upstream: IUpstreamTokens,
        *,
        clock: IReactorTime,
        random_bytes: Callable[[int], bytes],
        public_url: str,
        forgejo_url: str,
        may_redirect: Callable[[Connection, PendingAuthorization], bool],
    ) -> None:
        """
        @param database: the store.
        @param cookies: the browser's.
        @param departure: the way to Forgejo, for a second attempt.
        @param outcomes: hears how sign-ins end.
        @param upstream: exchanges Forgejo's codes.
        @param clock: tells the time.
        @param random_bytes: gives that many cryptographically random bytes.
        @param public_url: the issuer, an origin without trailing slash.
        @param forgejo_url: where people use Forgejo.
        @param may_redirect: whether a sign-in may still lead to its client.
        """
        self._may_redirect = may_redirect
        self._database = database
        self._cookies = cookies
        self._departure = departure
        self._outcomes = outcomes
        self._upstream = upstream
        self._at_work: set[str] = set()
        self._clock = clock
        self._random_bytes = random_bytes
        self._public_url = public_url
        self._forgejo_url = forgejo_url

    async def get(self, request: IRequest) -> bytes:
        """
        @param request: from Forgejo by way of the browser: C{state}, and C{code} or
            C{error} (RFC 6749 sections 4.1.2 and 4.1.2.1).
        @return: a redirect to the client's pinned redirect URI, or a page.
        @raise OAuthError: C{invalid_request}: not an answer of Forgejo's; or HEAD,
            which must not spend the sign-in (RFC 9110 section 9.2.1).
        @raise StoreError: nothing is spent, the same address can be opened again.
        """
        if request.method == b"HEAD":
            raise OAuthError(
                ErrorCode.METHOD_NOT_ALLOWED,
                "the method is not allowed here",
                405,
                headers={"Allow": "GET"},
            )
        form = read_query(request)
        state = form.require("state")
        if form.get("error") is None:
            form.require("code")
        step = step_of(request)
        step.about(state_digest=digest(state))
        cookie = self._cookies.approval_value(request, state)
        if cookie is None:
            self._log.warn("callback refused: no approval cookie for its state")
            step.says("wrong_browser")
            return wrong_browser(request)
        now = int(self._clock.seconds())
        row = await self._database.write(
            lambda c: pending.take(c, digest(state), digest(cookie), now)
        )
        if row is None:
            return await self._came_again(request, state, cookie, now)
        step.about(client_id=row.client_id, pending_id=row.pending_id)
        self._cookies.clear_approval(request, state)
        self._at_work.add(row.pending_id)
        try:
            return await self._returned(request, row, state, form)
        except StoreError as unavailable:
            # The row is spent: only the client can begin again.
            code = ErrorCode.TEMPORARILY_UNAVAILABLE
            return self._give_up(request, row, code, str(unavailable))
        finally:
            self._at_work.discard(row.pending_id)

    async def _came_again(
        self, request: IRequest, state: str, cookie: str, now: int
    ) -> bytes:
        """
        The browser opens the address once more, because it got no answer: nobody
        wanted to wait, the connection broke, or this service was killed, and what
        Forgejo's code brought is lost. As long as nothing has come of the sign-in, and
        nobody waits for it, it begins again; once, not in circles.
        """
        row = None
        if not state.startswith(SECOND_ATTEMPT):
            row = await self._database.read(
                lambda c: pending.find_taken(c, digest(state), digest(cookie), now)
            )
        if row is None or row.pending_id in self._at_work:
            self._log.warn("callback refused: no pending sign-in for its state")
            return expired(request)
        step_of(request).about(client_id=row.client_id, pending_id=row.pending_id)
        self._cookies.clear_approval(request, state)
        return await self._restart(request, row, "the browser got no answer before")

    async def _returned(
        self,
        request: IRequest,
        row: PendingAuthorization,
        state: str,
        form: Parameters,
    ) -> bytes:
        error = form.get("error")
        if error is not None:
            code = _RELAYED.get(error, ErrorCode.SERVER_ERROR)
            outcome = Outcome(str(row.policy), self._error_url(row, code), str(code))
            if not await self._database.write(lambda c: self._end(c, row, outcome)):
                return expired(request)
            outcome.is_told = True
            return self._give_up(request, row, code, "Forgejo answered with an error")
        verifier = self._departure.open_verifier(row)
        try:
            user = await self._upstream.sign_in(
                row.pending_id, form.require("code"), verifier
            )
        except CodeRefused as refused:
            if refused.restart and not state.startswith(SECOND_ATTEMPT):
                return await self._restart(request, row, "Forgejo had spent the code")
            return self._give_up(request, row, ErrorCode.SERVER_ERROR, str(refused))
        except ScopeMismatch as mismatch:
            self._log.warn("sign-in stopped: {reason}", reason=str(mismatch))
            step_of(request).says("other_scopes", str(mismatch))
            return other_scopes(request, row.request, mismatch, self._forgejo_url)
        except UpstreamUnavailable as unavailable:
            code = ErrorCode.TEMPORARILY_UNAVAILABLE
            return self._give_up(request, row, code, str(unavailable))
        except NotAllowed as refused:
            return self._not_allowed(request, row, refused)
        except SignInNeeded as needed:
            return self._give_up(request, row, ErrorCode.ACCESS_DENIED, str(needed))
        except UpstreamError as fault:
            return self._fault(request, row, fault)
        return await self._issue(request, row, user)

    async def _restart(
        self, request: IRequest, row: PendingAuthorization, why: str
    ) -> bytes:
        """
        Go to Forgejo once more, which answers the second time without a question.
        """
        now = int(self._clock.seconds())
        again = PendingAuthorization(
            pending_id=new_id(PENDING_ID_PREFIX, self._random_bytes),
            client_id=row.client_id,
            request=row.request,
            created_at=now,
            expires_at=now + (row.expires_at - row.created_at),
        )
        approval = self._departure.prepare(SECOND_ATTEMPT)

        def restart(connection: Connection) -> bool:
            if not self._may_redirect(connection, row):
                return False
            if not pending.finish(connection, row.pending_id):
                return False
            self._outcomes.go_on(row.pending_id, row.expires_at, again.pending_id)
            approved = self._departure.approved(again, _policy(row), approval)
            return pending.decide(connection, approved, now)

        if not await self._database.write(restart):
            return expired(request)
        step = step_of(request)
        step.about(pending_id=again.pending_id, state_digest=digest(approval.state))
        step.says("again", f"{why}, and Forgejo is asked once more")
        self._log.info("sign-in for {client} begins again", client=row.client_id)
        return self._departure.leave(request, approval)

    async def _issue(
        self, request: IRequest, row: PendingAuthorization, user: SignedInUser
    ) -> bytes:
        now = int(self._clock.seconds())
        policy = _policy(row)
        full = (str(Scope.READ), str(Scope.WRITE))
        grant = Grant(
            grant_id=new_id(GRANT_ID_PREFIX, self._random_bytes),
            user_id=user.user_id,
            client_id=row.client_id,
            scope=full if policy is Policy.FULL else (str(Scope.READ),),
            resource=row.request.resource,
            policy=policy,
            created_at=now,
            last_used_at=now,
        )
        text = new_token(CODE_PREFIX, self._random_bytes)
        code = AuthorizationCode(
            code_digest=digest(text),
            grant_id=grant.grant_id,
            redirect_uri=row.request.redirect_uri,
            code_challenge=row.request.code_challenge,
            expires_at=now + CODE_LIFETIME_SECONDS,
        )
        url = success_redirect(row.request, code=text, issuer=self._public_url)
        outcome = Outcome(str(policy), url, OK, code.code_digest, grant.grant_id)

        def issue(connection: Connection) -> bool:
            # True of the user whatever has become of the client.
            note_user(connection, user, now)
            if not self._may_redirect(connection, row):
                return False
            if not self._end(connection, row, outcome):
                return False
            grants.insert(connection, grant)
            tokens.insert_code(connection, code)
            clients.mark_used(connection, row.client_id, now)
            return True

        if not await self._database.write(issue):
            return expired(request)
        step_of(request).about(grant_id=grant.grant_id, user_id=user.user_id)
        outcome.is_told = True
        self._log.info(
            "user {user} signed in for {client}, grant {grant}, policy {policy}",
            user=user.user_id,
            client=row.client_id,
            grant=grant.grant_id,
            policy=str(policy),
        )
        return see_other(request, url)

    def _end(
        self,
        connection: Connection,
        row: PendingAuthorization,
        outcome: Outcome,
    ) -> bool:
        """
        @return: whether it was under way until now: nobody has answered its page again.
        """
        if not pending.finish(connection, row.pending_id):
            return False
        self._outcomes.remember(row.pending_id, row.expires_at, outcome)
        return True

    def _error_url(
        self,
        row: PendingAuthorization,
        code: ErrorCode,
        description: str | None = None,
    ) -> str:
        error = OAuthError(code, description or _DESCRIPTIONS[code])
        wanted = row.request
        return error_redirect(
            wanted.redirect_uri, wanted.state, error, issuer=self._public_url
        )

    def _give_up(
        self,
        request: IRequest,
        row: PendingAuthorization,
        code: ErrorCode,
        reason: str,
        description: str | None = None,
    ) -> bytes:
        """
        Tell the client that there will be no code.

        @param reason: for the log.
        """
        step_of(request).says(str(code), reason)
        self._log.warn(
            "sign-in for {client} ended with {code}: {reason}",
            client=row.client_id,
            code=str(code),
            reason=reason,
        )
        return see_other(request, self._error_url(row, code, description))

    def _not_allowed(
        self, request: IRequest, row: PendingAuthorization, refused: NotAllowed
    ) -> bytes:
        self._log.warn(
            "sign-in for {client} refused: {reason}",
            client=row.client_id,
            reason=str(refused),
        )
        step_of(request).says("not_allowed", str(refused))
        why = "this account may not sign in"
        back = self._error_url(row, ErrorCode.ACCESS_DENIED, why)
        return not_allowed(request, row.request, refused.login, back)

    def _fault(
        self, request: IRequest, row: PendingAuthorization, fault: UpstreamError
    ) -> bytes:
        """
        Only the operator can help; the client hears where the log says more.
        """
        incident = token_hex(8)
        self._log.error(
            "sign-in failed, incident {incident}: {reason}",
            incident=incident,
            reason=str(fault),
        )
        description = (
            "the sign-in at Forgejo failed, an administrator can look up "
            f"incident {incident}"
        )
        code = ErrorCode.SERVER_ERROR
        return self._give_up(request, row, code, str(fault), description)


def _policy(row: PendingAuthorization) -> Policy:
    if row.policy is None:
        # The row was found by its approval, so this is a fault of ours.
        raise ValueError("an approved sign-in has no policy")
    return row.policy
