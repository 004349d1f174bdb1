"""
What all endpoints of the stand-in Forgejo share: state, clock, settings, tokens.
"""

import secrets
from collections import Counter
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.demo.forgejo.faults import Traffic
from fjmcp_broker.demo.forgejo.state import Application, ForgejoState, Grant, User
from fjmcp_broker.demo.forgejo.tokens import (
    ACCESS,
    REFRESH,
    InvalidTokenError,
    TokenSigner,
)

ACCESS_LIFETIME_SECONDS: Final = 3600
REFRESH_LIFETIME_SECONDS: Final = 730 * 3600
VERSION: Final = "15.0.3+gitea-1.22.0"


class LostRaces:
    """
    Races at the token endpoint that the next requests will lose.
    """

    def __init__(self) -> None:
        self._due: Counter[str] = Counter()

    def add(self, kind: str, times: int) -> None:
        """
        @param kind: C{code} or C{counter}.
        """
        self._due[kind] += times

    def take(self, kind: str) -> bool:
        """
        @return: whether this request loses.
        """
        if not self._due[kind]:
            return False
        self._due[kind] -= 1
        return True


class ForgejoCore:
    """
    The collaborators and settings of one stand-in; settings may change any time.

    @ivar base_url: where browsers find it, without a trailing slash; may have a
        path.
    @ivar issuer_has_slash: as Forgejo up to v11.
    @ivar invalidates_refresh_tokens: off, the counter never moves.
    @ivar additional_grant_scopes: Forgejo's C{ENABLE_ADDITIONAL_GRANT_SCOPES}.
    @ivar message_style: C{v15} or C{v16}: the texts of 401 answers.
    """

    def __init__(
        self,
        clock: IReactorTime,
        base_url: str,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param clock: the time of tokens and delays.
        @param base_url: see above.
        @param random_bytes: the source of ids, codes and secrets.
        """
        self._clock = clock
        self.base_url = base_url.rstrip("/")
        self.random_bytes = random_bytes
        self.state = ForgejoState(random_bytes)
        self.traffic = Traffic(clock)
        self.lost_races = LostRaces()
        self.signer = TokenSigner()
        self.version = VERSION
        self.access_lifetime_seconds = ACCESS_LIFETIME_SECONDS
        self.refresh_lifetime_seconds = REFRESH_LIFETIME_SECONDS
        self.issuer_has_slash = False
        self.invalidates_refresh_tokens = True
        self.additional_grant_scopes = False
        self.message_style = "v15"

    def now(self) -> int:
        """
        @return: epoch seconds.
        """
        return int(self._clock.seconds())

    @property
    def base_path(self) -> str:
        """
        @return: the path of the base URL, empty or with a leading slash.
        """
        return urlsplit(self.base_url).path

    def url(self, path: str) -> str:
        """
        @param path: below the base, with a leading slash.
        @return: the absolute URL.
        """
        return self.base_url + path

    def issuer(self) -> str:
        """
        @return: the issuer, with or without a trailing slash.
        """
        return self.base_url + ("/" if self.issuer_has_slash else "")

    def tokens_for(self, grant: Grant) -> tuple[str, str]:
        """
        @return: a new access and a new refresh token for a grant.
        """
        now = self.now()
        access = self.signer.token(
            grant.id, ACCESS, 0, now, self.access_lifetime_seconds
        )
        refresh = self.signer.token(
            grant.id, REFRESH, grant.counter, now, self.refresh_lifetime_seconds
        )
        return access, refresh

    def authenticate(self, token: str, kind: int | None) -> tuple[User, Grant]:
        """
        @param token: as presented.
        @param kind: the kind it must have; None for any.
        @return: whose it is. Only the existence of the grant is checked, so an
            access token outlives a refresh.
        @raise InvalidTokenError: when it is of no use.
        """
        claims = self.signer.read(token, self.now())
        if kind is not None and claims.kind != kind:
            raise InvalidTokenError("wrong kind of token")
        grant = self.state.grants.get(claims.grant_id)
        user = self.state.users.get(grant.user_id) if grant else None
        if grant is None or user is None:
            raise InvalidTokenError("grant is gone")
        return user, grant

    def consent(
        self, user: User, application: Application, scope: str, nonce: str
    ) -> Grant | None:
        """
        Record a user's consent.

        @return: the grant; None when one with another scope exists.
        """
        grant = self.state.grant_of(user.id, application.id)
        if grant is None:
            grant = self.state.add_grant(user, application, scope)
        elif grant.scope != scope:
            return None
        if nonce:
            grant.nonce = nonce
        return grant
