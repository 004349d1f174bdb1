"""
The way of an approved browser to Forgejo.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace
from twisted.web.iweb import IRequest

from fjmcp_broker.oauth.tokens import code_challenge, digest
from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.secret import Confidential
from fjmcp_broker.store import pending
from fjmcp_broker.store.pending import PendingAuthorization
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.web.oauth.cookies import BrowserCookies
from fjmcp_broker.web.pages.page import see_other

#: First characters of the state sent to Forgejo; its digest in the row vouches for
#: them, so the callback can tell a second attempt without another column.
FIRST_ATTEMPT: Final = "a"
SECOND_ATTEMPT: Final = "b"


class Approval(Confidential, msgspec.Struct, frozen=True):
    """
    What belongs to one visit at Forgejo.

    @ivar state: sent to Forgejo, comes back.
    @ivar cookie: value of the approval cookie.
    @ivar verifier: PKCE verifier towards Forgejo.
    """

    state: str
    cookie: str
    verifier: str


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
        return replace(
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
