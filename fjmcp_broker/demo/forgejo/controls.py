"""
The controls of the stand-in Forgejo: what an administrator, a user or a bad day
does to it. Tests call them directly.
"""

import msgspec

from fjmcp_broker.demo.forgejo.core import ForgejoCore
from fjmcp_broker.demo.forgejo.faults import FaultControls
from fjmcp_broker.demo.forgejo.state import Application, Grant, User
from fjmcp_broker.demo.forgejo.tokens import TokenSigner, new_key
from fjmcp_broker.secret import Confidential


class IssuedTokens(Confidential, msgspec.Struct, frozen=True):
    """
    A token set made without the browser's part of a sign-in.
    """

    access_token: str
    refresh_token: str


class Controls(FaultControls):
    """
    Everything that a test may do to a stand-in.

    Users are named by login, applications by client id; with only one
    application its id may be left out.
    """

    def __init__(self, core: ForgejoCore) -> None:
        """
        @param core: the stand-in to control.
        """
        super().__init__(core.traffic)
        self._core = core

    def user(self, login: str) -> User:
        """
        @raise KeyError: when there is none.
        """
        return self._core.state.user_named(login)

    def add_user(self, login: str) -> User:
        """
        @param login: letters and digits; nobody else's.
        @return: the new account, with a random password.
        """
        return self._core.state.add_user(login, f"{login.capitalize()} Example")

    def application(self, client_id: str | None = None) -> Application:
        """
        @raise KeyError: when there is none.
        """
        if client_id is None:
            (application,) = self._core.state.applications.values()
            return application
        found = self._core.state.application_of(client_id)
        if found is None:
            raise KeyError(client_id)
        return found

    def grant(self, login: str, client_id: str | None = None) -> Grant:
        """
        @return: the user's grant; its counter may be read and changed.
        @raise KeyError: when there is none.
        """
        application = self.application(client_id)
        grant = self._core.state.grant_of(self.user(login).id, application.id)
        if grant is None:
            raise KeyError(login)
        return grant

    # Shortcuts past the browser

    def issue_code(
        self,
        login: str,
        redirect_uri: str,
        *,
        code_challenge: str = "",
        scope: str = "",
        nonce: str = "",
        client_id: str | None = None,
    ) -> str:
        """
        What a browser brings back from the consent page. An existing grant keeps
        its scope.

        @param code_challenge: an S256 challenge; empty for none.
        @return: an authorization code.
        """
        application = self.application(client_id)
        grant = self._grant_for(login, application, scope)
        grant.nonce = nonce or grant.nonce
        code = self._core.state.add_code(
            grant, redirect_uri, code_challenge, "S256" if code_challenge else ""
        )
        return code.text

    def issue_tokens(
        self, login: str, scope: str = "", client_id: str | None = None
    ) -> IssuedTokens:
        """
        What a code exchange answers; moves the counter as one does.

        @param scope: of a new grant; an existing one keeps its own.
        """
        grant = self._grant_for(login, self.application(client_id), scope)
        if self._core.invalidates_refresh_tokens:
            self._core.state.bump(grant, grant.counter)
        return IssuedTokens(*self._core.tokens_for(grant))

    def _grant_for(self, login: str, application: Application, scope: str) -> Grant:
        user = self.user(login)
        return self._core.state.grant_of(
            user.id, application.id
        ) or self._core.state.add_grant(user, application, scope)

    # What users and administrators do

    def revoke_grant(self, login: str, client_id: str | None = None) -> None:
        """
        The user removes the application in the settings.
        """
        self._core.state.remove_grant(self.grant(login, client_id))

    def delete_application(self, client_id: str | None = None) -> None:
        """
        The application and all its grants go.
        """
        self._core.state.remove_application(self.application(client_id))

    def regenerate_secret(self, client_id: str | None = None) -> str:
        """
        @return: the application's new client secret.
        """
        application = self.application(client_id)
        application.client_secret = f"gto_{self._core.state.random_text()}"
        return application.client_secret

    def disable_user(self, login: str, *, disabled: bool = True) -> None:
        """
        Prohibit an account's sign-in, or allow it again.
        """
        self.user(login).prohibit_login = disabled

    def delete_user(self, login: str) -> None:
        """
        The account and its grants go.
        """
        self._core.state.remove_user(self.user(login))

    def set_groups(self, login: str, *groups: str, hidden: bool = False) -> None:
        """
        Put an account into organizations and teams, and out of all others.

        @param groups: C{organization}, and C{organization:team} for its teams.
        @param hidden: the memberships are private.
        """
        user = self.user(login)
        user.groups = groups
        user.hidden_organizations = tuple(
            group for group in groups if hidden and ":" not in group
        )

    def rotate_signing_key(self) -> None:
        """
        No token issued before is valid any more.
        """
        self._core.signer = TokenSigner(new_key())

    # How this Forgejo is configured

    def set_lifetimes(
        self,
        *,
        access_seconds: int | None = None,
        refresh_seconds: int | None = None,
    ) -> None:
        """
        The lifetimes of tokens issued from now on.
        """
        if access_seconds is not None:
            self._core.access_lifetime_seconds = access_seconds
        if refresh_seconds is not None:
            self._core.refresh_lifetime_seconds = refresh_seconds

    def invalidate_refresh_tokens(self, enabled: bool) -> None:
        """
        Forgejo's C{INVALIDATE_REFRESH_TOKENS}.
        """
        self._core.invalidates_refresh_tokens = enabled

    def set_additional_grant_scopes(self, enabled: bool) -> None:
        """
        Forgejo's C{ENABLE_ADDITIONAL_GRANT_SCOPES}.
        """
        self._core.additional_grant_scopes = enabled

    def set_message_style(self, style: str) -> None:
        """
        @param style: C{v15}, or C{v16} whose 401 texts repeat the token.
        """
        if style not in ("v15", "v16"):
            raise ValueError(style)
        self._core.message_style = style

    def set_issuer_slash(self, enabled: bool) -> None:
        """
        Whether the issuer ends with a slash, as up to v11.
        """
        self._core.issuer_has_slash = enabled

    def set_version(self, version: str) -> None:
        """
        @param version: what C{/api/v1/version} answers.
        """
        self._core.version = version

    def lose_code_race(self, times: int = 1) -> None:
        """
        The next exchanges find their code just used by a parallel request.
        """
        self._core.lost_races.add("code", times)

    def lose_counter_race(self, times: int = 1) -> None:
        """
        The next exchanges or refreshes lose the race for the counter; a code is
        burnt by it.
        """
        self._core.lost_races.add("counter", times)
