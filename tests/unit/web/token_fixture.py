"""
A store with a signed-in user, and the token side of the service on top of it.
"""

import json
import secrets
from collections.abc import Mapping
from sqlite3 import Connection
from typing import Any, cast
from urllib.parse import urlencode

import attrs
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.grants import AuthorizationCode, Grant
from fjmcp_broker.oauth.tokens import (
    CODE_PREFIX,
    GRANT_ID_PREFIX,
    code_challenge,
    digest,
    new_id,
    new_token,
)
from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import clients, grants, tokens, upstream_tokens, users
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.token_endpoint import TokenTransactions
from fjmcp_broker.web.app import Route, build_web_resource
from fjmcp_broker.web.bearer import BearerAuthenticator
from fjmcp_broker.web.health import Health
from fjmcp_broker.web.oauth.discovery import Discovery
from fjmcp_broker.web.oauth.revoke import RevocationEndpoint
from fjmcp_broker.web.oauth.token import TokenEndpoint
from fjmcp_broker.web.origins import OriginPolicy
from fjmcp_broker.web.routes import token_side_routes
from tests.unit.store.memory import memory_database

NOW = 1_800_000_000
PUBLIC_URL = "https://mcp.example.org"
HOST = "mcp.example.org"
BACK = "https://client.example.org/back"
VERIFIER = "verifier-verifier-verifier-verifier-verifier"
SECRET = "fjmcp_cs_secret"
ACCESS_LIFETIME = 3600
REFRESH_LIFETIME = 90 * 86_400
USER_ID = 7


@attrs.frozen
class Answer:
    """
    An HTTP answer, read to its end.

    @ivar status: HTTP status.
    @ivar headers: values by lower-case name; several are joined.
    @ivar body: the bytes.
    @ivar length: as announced.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    length: object

    @property
    def document(self) -> dict[str, Any]:
        """
        The body as a JSON object.
        """
        assert self.headers["content-type"] == "application/json", self.headers
        return cast("dict[str, Any]", json.loads(self.body))

    @property
    def error(self) -> tuple[int, str]:
        """
        Status and error code of a refusal.
        """
        document = self.document
        assert set(document) <= {"error", "error_description", "incident"}, document
        return self.status, document["error"]


def insert_upstream_set(connection: Connection, sealer: Sealer) -> None:
    """
    What a sign-in at Forgejo brings.
    """
    upstream_tokens.save(
        connection,
        sealer,
        upstream_tokens.UpstreamSet(
            user_id=USER_ID,
            access_token=Secret("upstream-access"),
            refresh_token=Secret("upstream-refresh"),
            expires_at=NOW + 3600,
            updated_at=NOW,
        ),
    )


def insert_people(connection: Connection, sealer: Sealer) -> None:
    """
    A user with a usable upstream set, a public client, another one, and a
    confidential one.
    """
    users.upsert_user(connection, USER_ID, "alice", "Alice", NOW)
    insert_upstream_set(connection, sealer)
    for client_id, secret in (("public", None), ("other", None), ("secret", SECRET)):
        method = "none" if secret is None else "client_secret_basic"
        clients.insert(
            connection,
            Client(
                client_id=client_id,
                kind="dynamic",
                redirect_uris=(BACK,),
                name=client_id,
                token_endpoint_auth_method=method,
                application_type="web",
                metadata={
                    "redirect_uris": [BACK],
                    "token_endpoint_auth_method": method,
                    "application_type": "web",
                },
                secret_digest=None if secret is None else digest(secret),
                created_at=NOW,
            ),
        )


def insert_code(
    connection: Connection,
    now: int,
    *,
    client_id: str = "public",
    scope: tuple[str, ...] = ("read", "write"),
    policy: Policy = Policy.FULL,
) -> tuple[str, str]:
    """
    What a completed sign-in leaves behind.

    @return: grant id and text of the authorization code.
    """
    grant_id = new_id(GRANT_ID_PREFIX, secrets.token_bytes)
    code = new_token(CODE_PREFIX, secrets.token_bytes)
    grants.insert(
        connection,
        Grant(
            grant_id=grant_id,
            user_id=USER_ID,
            client_id=client_id,
            scope=scope,
            resource=f"{PUBLIC_URL}/mcp",
            policy=policy,
            created_at=now,
            last_used_at=now,
        ),
    )
    tokens.insert_code(
        connection,
        AuthorizationCode(
            code_digest=digest(code),
            grant_id=grant_id,
            redirect_uri=BACK,
            code_challenge=code_challenge(VERIFIER),
            expires_at=now + 600,
        ),
    )
    return grant_id, code


def dump(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """
    @return: the rows of all tables.
    """
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
        ).fetchall()
    ]
    return {
        name: sorted(
            connection.execute(f"SELECT * FROM {name}").fetchall(),  # noqa: S608
            key=repr,
        )
        for name in names
    }


class TokenWorld:
    """
    The token side of the service in memory, and a client for it.
    """

    def __init__(
        self,
        test: SynchronousTestCase,
        *,
        database: Database | None = None,
        public_url: str = PUBLIC_URL,
        more_routes: tuple[Route, ...] = (),
    ) -> None:
        self.test = test
        self.clock = Clock()
        self.clock.advance(NOW)
        self.database = memory_database(test) if database is None else database
        self.sealer = Sealer([b"k" * 32])
        self.ended: list[str] = []
        self.ready = True
        self.bearer = BearerAuthenticator(self.database, self.clock, public_url)
        self.transactions = TokenTransactions(
            self.sealer,
            secrets.token_bytes,
            access_lifetime_seconds=ACCESS_LIFETIME,
            refresh_lifetime_seconds=REFRESH_LIFETIME,
            resource=f"{public_url}/mcp",
        )
        token = TokenEndpoint(
            self.database,
            self.transactions,
            self.clock,
            public_url,
            on_grant_ended=self._grant_ended,
        )
        revocation = RevocationEndpoint(
            self.database,
            self.clock,
            on_grant_ended=self._grant_ended,
            on_token_revoked=self.bearer.forget_token,
        )
        discovery = Discovery(public_url)
        health = Health(
            self.database,
            self.clock,
            version="1.2.3",
            revision="abcdef",
            build_date="2026-11-21T00:00:00Z",
            instance="0123",
            is_ready=lambda: self.ready,
        )
        self.resource = build_web_resource(
            (
                *token_side_routes(token, revocation, discovery, health),
                *more_routes,
            ),
            OriginPolicy(public_url),
        )
        # Its methods are made at run time.
        self.treq: Any = StubTreq(self.resource)
        self.write(lambda connection: insert_people(connection, self.sealer))

    def _grant_ended(self, grant_id: str) -> None:
        self.ended.append(grant_id)
        self.bearer.forget_grant(grant_id)

    @property
    def now(self) -> int:
        """
        The time.
        """
        return int(self.clock.seconds())

    def write(self, transaction: Any) -> Any:
        """
        @return: what the transaction gave.
        """
        return self.result(self.database.write(transaction))

    def result(self, work: Any) -> Any:
        """
        @return: the result of a coroutine that is done at once.
        """
        return self.test.successResultOf(Deferred.fromCoroutine(work))

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """
        @return: the rows of all tables.
        """
        return cast("dict[str, list[tuple[Any, ...]]]", self.write(dump))

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str | bytes] | None = None,
    ) -> Answer:
        """
        @return: the answer to a request for C{public_url}.
        """
        response = self.test.successResultOf(
            self.treq.request(
                method, f"{PUBLIC_URL}{path}", data=body, headers=dict(headers or {})
            )
        )
        content = self.test.successResultOf(self.treq.content(response))
        return Answer(
            response.code,
            {
                name.decode("ascii").lower(): b", ".join(values).decode("ascii")
                for name, values in response.headers.getAllRawHeaders()
            },
            content,
            response.length,
        )

    def post(
        self,
        path: str,
        form: Mapping[str, str] | list[tuple[str, str]],
        **headers: str,
    ) -> Answer:
        """
        @return: the answer to a form.
        """
        return self.request(
            "POST",
            path,
            body=urlencode(form).encode("ascii"),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
        )

    def code(self, **keywords: Any) -> str:
        """
        @return: a fresh authorization code.
        """
        _, code = self.write(
            lambda connection: insert_code(connection, self.now, **keywords)
        )
        return cast(str, code)

    def exchange(self, code: str, **changes: str) -> Answer:
        """
        @return: the answer to a code exchange by the public client.
        """
        form = {
            "grant_type": "authorization_code",
            "client_id": "public",
            "code": code,
            "code_verifier": VERIFIER,
            "redirect_uri": BACK,
            **changes,
        }
        return self.post("/oauth/token", form)

    def refresh(self, token: str, **changes: str) -> Answer:
        """
        @return: the answer to a refresh by the public client.
        """
        form = {
            "grant_type": "refresh_token",
            "client_id": "public",
            "refresh_token": token,
            **changes,
        }
        return self.post("/oauth/token", form)

    def signed_in(self, **keywords: Any) -> dict[str, Any]:
        """
        @return: the tokens of a new sign-in.
        """
        # It went with the last grant before.
        self.write(lambda connection: insert_upstream_set(connection, self.sealer))
        answer = self.exchange(self.code(**keywords))
        assert answer.status == 200, answer
        return answer.document

    def use(self, access_token: str) -> bool:
        """
        Present an access token to the MCP endpoint.

        @return: whether it was accepted.
        """
        done = Deferred.fromCoroutine(
            self.bearer.authenticate(b"Bearer " + access_token.encode("ascii"))
        )
        accepted: list[bool] = []
        done.addCallbacks(
            lambda principal: accepted.append(True),
            lambda failure: accepted.append(False),
        )
        return accepted[0]

    def suspend(self, user_id: int = USER_ID, state: str = "needs_sign_in") -> None:
        """
        Forgejo refused the user's refresh token, or accepted a new sign-in.
        """
        self.write(
            lambda connection: (
                connection.execute(
                    "UPDATE upstream_tokens SET state = ? WHERE user_id = ?",
                    (state, user_id),
                ).rowcount
            )
        )
        self.bearer.forget_user(user_id)
