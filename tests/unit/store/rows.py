"""
A store for each test, and rows to put in it.
"""

from collections.abc import Callable
from hashlib import sha256
from sqlite3 import Connection
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.authorization import AuthorizationRequest
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.grants import (
    AccessToken,
    AuthorizationCode,
    Grant,
    RefreshToken,
)
from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import clients, grants, users
from fjmcp_broker.store.pending import PendingAuthorization
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.sessions import SessionRecord
from fjmcp_broker.store.upstream_tokens import UpstreamSet

from .memory import NOW, memory_database

T = TypeVar("T")

CLIENT_ID = "fjmcp_client_abcdefghijklmnopqrstuv"
GRANT_ID = "g_abcdefghijklmnopqrstuv"
PENDING_ID = "p_abcdefghijklmnopqrstuv"
USER_ID = 7
RESOURCE = "https://broker.example/mcp"
REDIRECT_URI = "http://127.0.0.1:4000/callback"


def digest(text: str) -> bytes:
    """
    @return: as the store keeps a token of this text.
    """
    return sha256(text.encode()).digest()


def client(client_id: str = CLIENT_ID, **changes: object) -> Client:
    """
    @return: a public client, registered now.
    """
    values: dict[str, object] = {
        "client_id": client_id,
        "kind": "dynamic",
        "metadata": (
            '{"redirect_uris":["http://127.0.0.1/callback"],"client_name":"Tests",'
            '"token_endpoint_auth_method":"none","application_type":"native"}'
        ),
        "secret_digest": None,
        "created_at": NOW,
        "last_used_at": None,
    }
    return Client.restore(**{**values, **changes})  # type: ignore[arg-type]


def grant(grant_id: str = GRANT_ID, **changes: object) -> Grant:
    """
    @return: a grant of everything, made now.
    """
    values: dict[str, object] = {
        "grant_id": grant_id,
        "user_id": USER_ID,
        "client_id": CLIENT_ID,
        "scope": ("read", "write"),
        "resource": RESOURCE,
        "policy": Policy.FULL,
        "created_at": NOW,
        "last_used_at": NOW,
    }
    return Grant(**{**values, **changes})  # type: ignore[arg-type]


def code(text: str = "code", **changes: object) -> AuthorizationCode:
    """
    @return: an unused code.
    """
    values: dict[str, object] = {
        "code_digest": digest(text),
        "grant_id": GRANT_ID,
        "redirect_uri": REDIRECT_URI,
        "code_challenge": "c" * 43,
        "expires_at": NOW + 600,
    }
    return AuthorizationCode(**{**values, **changes})  # type: ignore[arg-type]


def access(text: str = "access", **changes: object) -> AccessToken:
    """
    @return: an unused access token, good for an hour.
    """
    values: dict[str, object] = {
        "token_digest": digest(text),
        "grant_id": GRANT_ID,
        "expires_at": NOW + 3600,
    }
    return AccessToken(**{**values, **changes})  # type: ignore[arg-type]


def refresh(text: str = "refresh", **changes: object) -> RefreshToken:
    """
    @return: a refresh token, not rotated, good for 90 days.
    """
    values: dict[str, object] = {
        "token_digest": digest(text),
        "grant_id": GRANT_ID,
        "expires_at": NOW + 90 * 24 * 3600,
    }
    return RefreshToken(**{**values, **changes})  # type: ignore[arg-type]


def pending(pending_id: str = PENDING_ID, **changes: object) -> PendingAuthorization:
    """
    @return: a sign-in that nobody has approved yet.
    """
    values: dict[str, object] = {
        "pending_id": pending_id,
        "client_id": CLIENT_ID,
        "request": AuthorizationRequest(
            client_id=CLIENT_ID,
            redirect_uri=REDIRECT_URI,
            redirect_uri_given=True,
            state="the client's",
            scope=None,
            code_challenge="c" * 43,
            resource=RESOURCE,
        ),
        "created_at": NOW,
        "expires_at": NOW + 600,
    }
    return PendingAuthorization(**{**values, **changes})  # type: ignore[arg-type]


def session(text: str = "session", **changes: object) -> SessionRecord:
    """
    @return: an open session.
    """
    values: dict[str, object] = {
        "session_digest": digest(text),
        "grant_id": GRANT_ID,
        "protocol_version": "2025-06-18",
        "sealed_initialize": b"sealed",
        "created_at": NOW,
        "last_active_at": NOW,
    }
    return SessionRecord(**{**values, **changes})  # type: ignore[arg-type]


def upstream(text: str = "upstream", **changes: object) -> UpstreamSet:
    """
    @return: a usable set, good for an hour.
    """
    values: dict[str, object] = {
        "user_id": USER_ID,
        "access_token": Secret(f"access {text}"),
        "refresh_token": Secret(f"refresh {text}"),
        "expires_at": NOW + 3600,
        "updated_at": NOW,
    }
    return UpstreamSet(**{**values, **changes})  # type: ignore[arg-type]


def insert_grant(connection: Connection) -> None:
    """
    Store the user, the client and the grant that the other rows name.
    """
    users.upsert_user(connection, USER_ID, "ada", "Ada L.", NOW)
    clients.insert(connection, client())
    grants.insert(connection, grant())


class StoreTestCase(SynchronousTestCase):
    """
    A test with a store of its own, which has one user, one client and one grant.
    """

    def setUp(self) -> None:
        self.database = memory_database(self)
        self.sealer = Sealer([b"k" * 32])
        self.write(insert_grant)

    def write(self, transaction: Callable[[Connection], T]) -> T:
        """
        @return: what the transaction returned.
        """
        result = self.successResultOf(
            Deferred.fromCoroutine(self.database.write(transaction))
        )
        return result

    def read(self, query: Callable[[Connection], T]) -> T:
        """
        @return: what the query returned.
        """
        result = self.successResultOf(Deferred.fromCoroutine(self.database.read(query)))
        return result

    def count(self, table: str) -> int:
        """
        @return: how many rows the table has.
        """
        number: int = self.read(
            lambda c: c.execute(
                f"SELECT count(*) FROM {table}"  # noqa: S608 - constants
            ).fetchone()[0]
        )
        return number
