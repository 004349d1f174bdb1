"""What can go wrong between the broker and Forgejo, by what has to be done about it."""

# The names say what to do about it; an "Error" behind each would add nothing.
# ruff: noqa: N818

from typing import Final

from fjmcp_broker.errors import BrokerError

DEFAULT_RETRY_AFTER_SECONDS: Final = 5
MAXIMUM_RETRY_AFTER_SECONDS: Final = 300


class UpstreamError(BrokerError):
    """
    A call to Forgejo did not give what it was made for.

    Messages are our own words. They never repeat a body of Forgejo's, because
    its version 16 puts the rejected token into the text.
    """


class SignInNeeded(UpstreamError):
    """
    Only the user can help, by signing in through Forgejo again: there is no usable
    token set, or Forgejo itself refused the newest one.
    """


class NotAllowed(SignInNeeded):
    """
    The operator's list of those who may sign in does not have this user. What the
    user allowed before is suspended, and lives on when the user is allowed again and
    signs in.
    """

    def __init__(self, login: str) -> None:
        """
        @param login: the user's name at Forgejo; escape it before it goes into a
            page.
        """
        super().__init__("the user is not among those who may sign in")
        self.login = login


class UpstreamUnavailable(UpstreamError):
    """
    Forgejo cannot be used now and nothing is known to be lost: no connection, a
    timeout, a server error, or an answer that is not one of Forgejo's. Never a
    reason to end a grant.
    """

    def __init__(
        self, message: str, retry_after_seconds: int = DEFAULT_RETRY_AFTER_SECONDS
    ) -> None:
        """
        @param message: what happened, without anything that the peer wrote.
        @param retry_after_seconds: when to try again; kept within 1 to
            L{MAXIMUM_RETRY_AFTER_SECONDS}, since it may come from the peer.
        """
        super().__init__(message)
        self.retry_after_seconds = max(
            1, min(retry_after_seconds, MAXIMUM_RETRY_AFTER_SECONDS)
        )


class UpstreamMisconfigured(UpstreamError):
    """
    Only the operator can help: Forgejo does not know the OAuth application, or its
    secret was changed. Tokens are kept, since they work again after the repair.
    """


class CodeRefused(UpstreamError):
    """
    Forgejo did not exchange the authorization code; it is of no more use.
    """

    def __init__(self, message: str, *, restart: bool) -> None:
        """
        @param message: why, in our own words.
        @param restart: true when another token request of the same user burnt the
            code ("cannot increase the grant counter"): sending the browser to
            Forgejo's authorize page again works without asking the user anything.
        """
        super().__init__(message)
        self.restart = restart


class ScopeMismatch(UpstreamError):
    """
    Forgejo granted other scopes than it was asked for: it freezes them at the
    first consent. The user has to remove the application in Forgejo (Settings,
    Applications, Authorized OAuth2 applications) and try again.

    The token set is stored all the same, because it is the newest one and other
    grants of this user live on it.
    """

    def __init__(self, requested: str, granted: str) -> None:
        """
        @param requested: the configured scopes, space separated.
        @param granted: what introspection shows, space separated, written by
            Forgejo; escape it before it goes into a page.
        """
        super().__init__("Forgejo's grant has other scopes than those configured")
        self.requested = requested
        self.granted = granted


class IdentityMismatch(UpstreamError):
    """
    The id_token and the userinfo of one exchange name different users. Nothing
    may be built on such an answer.
    """
