"""
The seams of the upstream side and the records that cross them.

The web and session layers are written against these, so their tests can put a
small fake in the place of either.
"""

# Methods of a zope Interface have no self.
# ruff: noqa: N805

from collections.abc import Callable
from sqlite3 import Connection
from typing import TypeAlias

import msgspec
from zope.interface import Interface

from fjmcp_broker.secret import Secret


class TokenAnswer(msgspec.Struct, frozen=True):
    """
    A success of Forgejo's token endpoint.

    @ivar access_token: for the API; 1 to 65,536 visible ASCII characters.
    @ivar refresh_token: single use; the same alphabet.
    @ivar expires_in: remaining life of the access token, whole seconds, from 1.
    @ivar user_id: C{sub} of the id_token, or C{None} when there was none to trust.
    @ivar login: C{preferred_username} of the id_token.
    @ivar display_name: C{name} of the id_token.
    @ivar grant_number: C{gnt} of the refresh token, read unverified: for ordering.
    @ivar counter: C{cnt} of the refresh token, likewise.
    """

    access_token: Secret
    refresh_token: Secret
    expires_in: int
    user_id: int | None = None
    login: str | None = None
    display_name: str | None = None
    grant_number: int | None = None
    counter: int | None = None


class UserInfo(msgspec.Struct, frozen=True):
    """
    Who an access token belongs to, as Forgejo says.

    @ivar user_id: Forgejo's number, which never changes; from 1.
    @ivar login: the user name, which may change.
    @ivar name: the full name, chosen by the user; may be empty.
    @ivar groups: names of the user's organizations, and C{organization:team} for each
        of the user's teams there.
    """

    user_id: int
    login: str
    name: str
    groups: tuple[str, ...] = ()


class Introspection(msgspec.Struct, frozen=True):
    """
    Forgejo's word on a token (RFC 7662).

    @ivar active: whether it is a valid token of the application that we are.
    @ivar scope: as frozen at the first consent, space separated.
    @ivar audience: the client ids it was issued to.
    @ivar username: the login.
    """

    active: bool
    scope: str = ""
    audience: tuple[str, ...] = ()
    username: str = ""


#: Makes the token set of a user usable who was found to be allowed, in a transaction.
Release: TypeAlias = Callable[[Connection], None]


class SignedInUser(msgspec.Struct, frozen=True):
    """
    Who has just come back from Forgejo and may go on; the user's token set is
    committed, and this is to be, with what the sign-in is for, by L{note_user
    <fjmcp_broker.upstream.sign_ins.note_user>}.

    @ivar user_id: Forgejo's number.
    @ivar login: the user name.
    @ivar display_name: the full name; may be empty.
    @ivar scope: Forgejo's scopes as introspected, space separated.
    @ivar release: when the user's token set becomes usable only then: not everybody
        may sign in, and this user was suspended or has never been here.
    """

    user_id: int
    login: str
    display_name: str
    scope: str
    release: Release | None = None


class UpstreamAccessToken(msgspec.Struct, frozen=True):
    """
    A user's access token towards Forgejo.

    @ivar text: the token.
    @ivar expires_at: seconds since the epoch.
    @ivar user_id: whose it is.
    """

    text: Secret
    expires_at: int
    user_id: int


class IForgejo(Interface):
    """
    Forgejo as an OAuth client sees it. Every call has a timeout of its own.
    """

    def authorize_url(state: str, code_challenge: str) -> str:
        """
        @param state: ours, up to 100 characters: Forgejo keeps the whole URL in a
            cookie of 4 KB.
        @param code_challenge: PKCE with S256 (RFC 7636 section 4.2).
        @return: where to send the browser.
        """

    async def exchange_code(code: str, verifier: str) -> TokenAnswer:
        """
        @param code: from the callback; controlled by whoever calls it.
        @param verifier: the PKCE verifier that belongs to the state.
        @return: the new token set.
        @raise CodeRefused: the code is of no use.
        @raise UpstreamMisconfigured: the application or its secret is not known.
        @raise UpstreamUnavailable: anything else; the code may be spent.
        """

    async def refresh(refresh_token: Secret) -> TokenAnswer:
        """
        @param refresh_token: the newest of the user; spent by this call.
        @return: the successor set.
        @raise SignInNeeded: Forgejo refuses it.
        @raise UpstreamMisconfigured: the application or its secret is not known.
        @raise UpstreamUnavailable: anything else; the token may be spent.
        """

    async def userinfo(access_token: Secret) -> UserInfo:
        """
        @param access_token: of the user in question.
        @return: who that is.
        @raise SignInNeeded: Forgejo refuses the token.
        @raise UpstreamUnavailable: anything else.
        """

    async def introspect(token: Secret) -> Introspection:
        """
        @param token: an access or refresh token.
        @return: what Forgejo knows; inactive for tokens of other applications.
        @raise UpstreamMisconfigured: the application or its secret is not known.
        @raise UpstreamUnavailable: anything else.
        """


class IUpstreamTokens(Interface):
    """
    The one token set per Forgejo user. No caller that is cancelled ever cancels a
    request to Forgejo.
    """

    async def sign_in(pending_id: str, code: str, verifier: str) -> SignedInUser:
        """
        Exchange a code, commit the token set under its user, learn who it is.

        @param pending_id: the pending authorization. It has been taken just now: that
            commit proves that the store can be written, before the code is spent.
        @param code: from the callback.
        @param verifier: the PKCE verifier towards Forgejo.
        @return: the user, who is in the C{users} table as the id_token says.
        @raise CodeRefused: see its C{restart}.
        @raise NotAllowed: the user is not on the list of those who may sign in.
        @raise ScopeMismatch: the user has to remove the application in Forgejo.
        @raise IdentityMismatch: Forgejo contradicted itself.
        @raise SignInNeeded: Forgejo refused the token it had just issued.
        @raise UpstreamMisconfigured: operator fault.
        @raise UpstreamUnavailable: Forgejo is in trouble, or we are stopping.
        @raise StoreError: the store cannot be written; the set is kept in memory and
            committed as soon as that works.
        """

    async def access_token(
        user_id: int, minimum_life_seconds: int = 120
    ) -> UpstreamAccessToken:
        """
        @param user_id: Forgejo's number.
        @param minimum_life_seconds: refresh first when it would expire sooner. A
            token fresh from Forgejo is returned whatever its life.
        @return: a token whose set is committed.
        @raise SignInNeeded: no set, or one that Forgejo has refused.
        @raise UpstreamMisconfigured: operator fault; tokens are kept.
        @raise UpstreamUnavailable: Forgejo is in trouble, or we are stopping.
        @raise StoreError: the store cannot be used.
        """
