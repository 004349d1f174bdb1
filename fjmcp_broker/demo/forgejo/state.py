"""
What the stand-in Forgejo knows: users, OAuth applications, grants, codes.

A grant is unique per user and application and holds one counter, which every
code exchange and every refresh moves: the fact that most of the broker's handling
of upstream tokens is built on.
"""

from base64 import b32encode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from hashlib import sha256
from ipaddress import ip_address
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from fjmcp_broker.secret import Confidential


class User(Confidential, msgspec.Struct):
    """
    One account of the stand-in.
    """

    id: int
    login: str
    full_name: str
    email: str
    password: str
    is_active: bool = True
    prohibit_login: bool = False
    groups: tuple[str, ...] = ()
    hidden_organizations: tuple[str, ...] = ()

    def groups_seen(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """
        Organizations and teams as Forgejo tells them where
        C{ENABLE_ADDITIONAL_GRANT_SCOPES} is set: private memberships only to a token
        that may read organizations.

        @param scopes: of the grant; C{write:organization} is not looked for.
        """
        if {"all", "read:admin", "read:organization"}.intersection(scopes):
            return self.groups
        return tuple(
            group
            for group in self.groups
            if group.partition(":")[0] not in self.hidden_organizations
        )

    @property
    def may_sign_in(self) -> bool:
        """
        @return: whether the account is neither deactivated nor prohibited.
        """
        return self.is_active and not self.prohibit_login


class Application(Confidential, msgspec.Struct):
    """
    One registered OAuth application.
    """

    id: int
    name: str
    client_id: str
    client_secret: str
    redirect_uris: tuple[str, ...]
    is_confidential: bool = True

    def accepts(self, redirect_uri: str) -> bool:
        """
        Whether C{redirect_uri} is registered: case and one trailing slash are
        ignored, and for public applications the port of a loopback IP address.

        @param redirect_uri: as the client sent it.
        """
        wanted = {_comparable(redirect_uri)}
        if not self.is_confidential:
            wanted.add(_comparable(_without_loopback_port(redirect_uri)))
        return any(_comparable(known) in wanted for known in self.redirect_uris)


def _comparable(uri: str) -> str:
    return uri.lower().removesuffix("/")


def _without_loopback_port(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        loopback = ip_address(host).is_loopback
    except ValueError:
        return uri
    if parts.scheme != "http" or not loopback:
        return uri
    return parts._replace(netloc=f"[{host}]" if ":" in host else host).geturl()


class Grant(msgspec.Struct):
    """
    A user's consent to one application.
    """

    id: int
    user_id: int
    application_id: int
    scope: str
    nonce: str = ""
    counter: int = 1

    def scopes(self) -> tuple[str, ...]:
        """
        @return: the words of the scope.
        """
        return tuple(self.scope.split())


class Code(Confidential, msgspec.Struct):
    """
    An authorization code; it never expires, and leaves the state when used.
    """

    text: str
    grant_id: int
    redirect_uri: str
    challenge: str = ""
    challenge_method: str = ""

    def accepts(self, verifier: str) -> bool:
        """
        @param verifier: the PKCE code verifier, empty when absent.
        @return: whether it fits the challenge; a code without one fits all.
        """
        if self.challenge_method == "S256":
            digest = sha256(verifier.encode()).digest()
            return urlsafe_b64encode(digest).rstrip(b"=") == self.challenge.encode()
        if self.challenge_method == "plain":
            return verifier == self.challenge
        return True


class WebSession(msgspec.Struct):
    """
    A browser's session: who is signed in, and the latest authorization request.
    """

    user_id: int | None = None
    values: dict[str, str] = msgspec.field(default_factory=dict)


class ForgejoState:
    """
    The stand-in's whole memory, apart from repositories and issues.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        """
        @param random_bytes: the source of ids, codes and secrets.
        """
        self._random_bytes = random_bytes
        self._next_id = 0
        self.users: dict[int, User] = {}
        self.applications: dict[int, Application] = {}
        self.grants: dict[int, Grant] = {}
        self.codes: dict[str, Code] = {}
        self.web_sessions: dict[str, WebSession] = {}

    def new_id(self) -> int:
        """
        @return: a number never given before, rising.
        """
        self._next_id += 1
        return self._next_id

    def random_text(self, count: int = 32) -> str:
        """
        @param count: how many random bytes go into it.
        @return: lower-case letters and digits.
        """
        return b32encode(self._random_bytes(count)).decode().rstrip("=").lower()

    def add_user(self, login: str, full_name: str) -> User:
        """
        @param login: the account's name, letters and digits.
        @param full_name: the display name.
        @return: the new user, with a random password.
        """
        user = User(
            id=self.new_id(),
            login=login,
            full_name=full_name,
            email=f"{login}@example.org",
            password=self.random_text(8),
        )
        self.users[user.id] = user
        return user

    def add_application(
        self, name: str, redirect_uris: Iterable[str], *, is_confidential: bool = True
    ) -> Application:
        """
        @param name: shown on the consent page.
        @param redirect_uris: the registered redirect URIs.
        @param is_confidential: whether it has a secret.
        @return: the new application.
        """
        application = Application(
            id=self.new_id(),
            name=name,
            client_id=str(UUID(bytes=self._random_bytes(16), version=4)),
            client_secret=f"gto_{self.random_text()}",
            redirect_uris=tuple(redirect_uris),
            is_confidential=is_confidential,
        )
        self.applications[application.id] = application
        return application

    def user_named(self, login: str) -> User:
        """
        @param login: an account's name.
        @raise KeyError: when there is none.
        """
        for user in self.users.values():
            if user.login == login:
                return user
        raise KeyError(login)

    def application_of(self, client_id: str) -> Application | None:
        """
        @param client_id: as a client sent it.
        """
        for application in self.applications.values():
            if application.client_id == client_id:
                return application
        return None

    def grant_of(self, user_id: int, application_id: int) -> Grant | None:
        """
        @return: the one grant of this user to this application, if any.
        """
        for grant in self.grants.values():
            if (grant.user_id, grant.application_id) == (user_id, application_id):
                return grant
        return None

    def add_grant(self, user: User, application: Application, scope: str) -> Grant:
        """
        @return: a new grant, its counter at 1.
        """
        grant = Grant(self.new_id(), user.id, application.id, scope)
        self.grants[grant.id] = grant
        return grant

    def add_code(
        self, grant: Grant, redirect_uri: str, challenge: str, challenge_method: str
    ) -> Code:
        """
        @return: a new single-use code for C{grant}.
        """
        code = Code(
            f"gta_{self.random_text()}",
            grant.id,
            redirect_uri,
            challenge,
            challenge_method,
        )
        self.codes[code.text] = code
        return code

    def bump(self, grant: Grant, expected: int) -> bool:
        """
        Move a grant's counter, if it still has the expected value.

        @return: whether it moved.
        """
        if grant.counter != expected:
            return False
        grant.counter += 1
        return True

    def remove_grant(self, grant: Grant) -> None:
        """
        Forget a grant and its codes.
        """
        self.grants.pop(grant.id, None)
        self.codes = {
            text: code for text, code in self.codes.items() if code.grant_id != grant.id
        }

    def remove_application(self, application: Application) -> None:
        """
        Forget an application with all its grants.
        """
        self.applications.pop(application.id, None)
        for grant in list(self.grants.values()):
            if grant.application_id == application.id:
                self.remove_grant(grant)

    def remove_user(self, user: User) -> None:
        """
        Forget a user with all grants and browser sessions.
        """
        self.users.pop(user.id, None)
        for grant in list(self.grants.values()):
            if grant.user_id == user.id:
                self.remove_grant(grant)
        for session in self.web_sessions.values():
            if session.user_id == user.id:
                session.user_id = None
