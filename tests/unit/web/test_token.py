"""The token endpoint over HTTP, on a store in memory."""

from base64 import b64encode
from collections.abc import Callable
from sqlite3 import Connection
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import Site

from fjmcp_broker.store.database import Database
from tests.unit.web.token_fixture import (
    ACCESS_LIFETIME,
    BACK,
    REFRESH_LIFETIME,
    SECRET,
    VERIFIER,
    TokenWorld,
)

T = TypeVar("T")


class TokenTestCase(SynchronousTestCase):
    """A world for each test."""

    def setUp(self) -> None:
        self.world = TokenWorld(self)


class CodeExchangeTests(TokenTestCase):
    """RFC 6749 section 4.1.3 and 5.1."""

    def test_code_gets_tokens(self) -> None:
        """The answer has every member, and nobody may keep it."""
        answer = self.world.exchange(self.world.code())
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.headers["pragma"], "no-cache")
        document = answer.document
        self.assertRegex(document.pop("access_token"), r"\Afjmcp_at_[\w-]{43}\Z")
        self.assertRegex(document.pop("refresh_token"), r"\Afjmcp_rt_[\w-]{43}\Z")
        self.assertEqual(
            document,
            {"token_type": "Bearer", "expires_in": 3600, "scope": "read write"},
        )

    def test_only_digests_are_stored(self) -> None:
        """No token, code or verifier can be read out of the store."""
        code = self.world.code()
        document = self.world.exchange(code).document
        refreshed = self.world.refresh(document["refresh_token"]).document
        stored = repr(self.world.dump())
        for text in (code, VERIFIER):
            self.assertNotIn(text, stored)
        for tokens in (document, refreshed):
            self.assertNotIn(tokens["access_token"], stored)
            self.assertNotIn(tokens["refresh_token"], stored)

    def test_code_works_once(self) -> None:
        """RFC 6749 section 4.1.2: MUST NOT be used more than once."""
        code = self.world.code()
        first = self.world.exchange(code).document
        before = self.world.dump()
        self.assertEqual(self.world.exchange(code).error, (400, "invalid_grant"))
        self.assertEqual(self.world.dump(), before)
        self.assertTrue(self.world.use(first["access_token"]))

    def test_code_replayed_later_ends_what_it_produced(self) -> None:
        """RFC 6749 section 4.1.2: SHOULD revoke all tokens issued before."""
        code = self.world.code()
        first = self.world.exchange(code).document
        self.assertTrue(self.world.use(first["access_token"]))
        self.world.clock.advance(61)
        self.assertEqual(self.world.exchange(code).error, (400, "invalid_grant"))
        self.assertEqual(len(self.world.ended), 1)
        self.assertFalse(self.world.use(first["access_token"]))
        refused = self.world.refresh(first["refresh_token"])
        self.assertEqual(refused.error, (400, "invalid_grant"))

    def test_code_replayed_by_others_logs_nobody_out(self) -> None:
        """
        OAuth 2.1 draft 13 section 7.5.3: only a request that is valid otherwise. Who
        has seen the code of somebody, in a history or a log, lacks the verifier.
        """
        code = self.world.code()
        first = self.world.exchange(code).document
        for seconds in (0, 61, 3600):
            self.world.clock.advance(seconds)
            for changes in ({"client_id": "other"}, {"code_verifier": "x" * 43}):
                refused = self.world.exchange(**{"code": code, **changes})
                self.assertEqual(refused.error, (400, "invalid_grant"), changes)
        self.assertEqual(self.world.ended, [])
        again = self.world.refresh(first["refresh_token"]).document
        self.assertTrue(self.world.use(again["access_token"]))

    def test_refused_exchanges_change_nothing(self) -> None:
        """RFC 6749 section 5.2, RFC 7636 section 4.6, RFC 8707 section 2."""
        code = self.world.code()
        before = self.world.dump()
        for changes, error in [
            ({"code_verifier": "x" * 43}, "invalid_grant"),
            ({"code_verifier": "short"}, "invalid_grant"),
            ({"code_verifier": ""}, "invalid_request"),
            ({"code": "fjmcp_code_unknown"}, "invalid_grant"),
            ({"code": ""}, "invalid_request"),
            ({"redirect_uri": BACK + "/"}, "invalid_grant"),
            ({"client_id": "other"}, "invalid_grant"),
            ({"resource": "https://other.example.org/mcp"}, "invalid_target"),
            ({"grant_type": "password"}, "unsupported_grant_type"),
        ]:
            refused = self.world.exchange(**{"code": code, **changes})
            self.assertEqual(refused.error, (400, error), changes)
            self.assertEqual(refused.headers["cache-control"], "no-store")
        self.assertEqual(self.world.dump(), before)
        # redirect_uri may be absent (OAuth 2.1): PKCE is always required.
        self.assertEqual(self.world.exchange(code, redirect_uri="").status, 200)

    def test_expired_code_is_refused(self) -> None:
        """RFC 6749 section 4.1.2: ten minutes."""
        code = self.world.code()
        self.world.clock.advance(600)
        self.assertEqual(self.world.exchange(code).error, (400, "invalid_grant"))

    def test_resource_may_be_repeated(self) -> None:
        """RFC 8707 section 2: each value is ours."""
        form = [
            ("grant_type", "authorization_code"),
            ("client_id", "public"),
            ("code", self.world.code()),
            ("code_verifier", VERIFIER),
            ("resource", "https://mcp.example.org/mcp"),
            ("resource", "https://mcp.example.org"),
        ]
        self.assertEqual(self.world.post("/oauth/token", form).status, 200)

    def test_repeated_parameter_is_refused(self) -> None:
        """RFC 6749 section 3.2: MUST NOT be included more than once."""
        form = [("grant_type", "authorization_code"), ("grant_type", "x")]
        refused = self.world.post("/oauth/token", form)
        self.assertEqual(refused.error, (400, "invalid_request"))

    def test_read_only_sign_in(self) -> None:
        """The scope of the answer is what the user allowed."""
        self.assertEqual(self.world.signed_in(scope=("read",))["scope"], "read")

    def test_sign_in_is_noted_at_client_and_grant(self) -> None:
        """The collector keeps clients that are in use."""
        self.world.signed_in()
        self.assertEqual(
            self.world.write(
                lambda connection: connection.execute(
                    "SELECT last_used_at FROM clients WHERE client_id = 'public'"
                ).fetchone()
            ),
            (self.world.now,),
        )


class ClientAuthenticationTests(TokenTestCase):
    """RFC 6749 section 2.3."""

    def basic(self, user: str, password: str) -> str:
        """
        @return: an C{Authorization} header.
        """
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode()

    def exchange(self, **headers: str) -> tuple[int, dict[str, str]]:
        """
        @return: status and headers of an exchange that names the client only there.
        """
        form = {
            "grant_type": "authorization_code",
            "code": self.world.code(client_id="secret"),
            "code_verifier": VERIFIER,
        }
        answer = self.world.post("/oauth/token", form, **headers)
        return answer.status, dict(answer.headers)

    def test_secret_in_the_header(self) -> None:
        """C{client_secret_basic}."""
        status, _ = self.exchange(Authorization=self.basic("secret", SECRET))
        self.assertEqual(status, 200)

    def test_secret_in_the_body(self) -> None:
        """C{client_secret_post}."""
        answer = self.world.exchange(
            self.world.code(client_id="secret"),
            client_id="secret",
            client_secret=SECRET,
        )
        self.assertEqual(answer.status, 200)

    def test_wrong_secret_in_the_header_is_challenged(self) -> None:
        """RFC 6749 section 5.2: MUST respond with 401 and WWW-Authenticate."""
        for user in ("secret", "unknown"):
            status, headers = self.exchange(Authorization=self.basic(user, "wrong"))
            self.assertEqual(status, 401)
            self.assertTrue(headers["www-authenticate"].startswith("Basic realm="))

    def test_missing_or_wrong_secret_is_refused(self) -> None:
        """A confidential client must authenticate, a public one cannot."""
        code = self.world.code(client_id="secret")
        before = self.world.dump()
        for changes in (
            {"client_id": "secret"},
            {"client_id": "secret", "client_secret": "wrong"},
            {"client_id": "public", "client_secret": SECRET},
            {"client_id": "nobody"},
        ):
            refused = self.world.exchange(code, **changes)
            self.assertEqual(refused.error, (401, "invalid_client"), changes)
        refused = self.world.exchange(code, client_id="")
        self.assertEqual(refused.error, (400, "invalid_request"))
        self.assertEqual(self.world.dump(), before)

    def test_two_headers_are_refused(self) -> None:
        """RFC 6749 section 2.3: one method, once."""
        form = {"grant_type": "refresh_token", "refresh_token": "x"}
        answer = self.world.request(
            "POST",
            "/oauth/token",
            body="&".join(f"{a}={b}" for a, b in form.items()).encode(),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Authorization": self.basic("secret", SECRET)
                + ", "
                + self.basic("secret", SECRET),
            },
        )
        self.assertEqual(answer.error, (401, "invalid_client"))


class RefreshTests(TokenTestCase):
    """RFC 6749 section 6, rotating and idempotent."""

    def pair(self, token: str, **changes: str) -> tuple[str, str]:
        """
        @return: access and refresh token that a refresh gives.
        """
        answer = self.world.refresh(token, **changes)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.document["access_token"], answer.document["refresh_token"]

    def refused(self, token: str) -> None:
        """
        Require C{invalid_grant}.
        """
        self.assertEqual(self.world.refresh(token).error, (400, "invalid_grant"))

    def test_refresh_rotates(self) -> None:
        """Both tokens are new, the old access token lives on."""
        first = self.world.signed_in()
        access, refresh = self.pair(first["refresh_token"])
        self.assertNotEqual(refresh, first["refresh_token"])
        self.assertNotEqual(access, first["access_token"])
        self.assertTrue(self.world.use(access))
        self.assertTrue(self.world.use(first["access_token"]))

    def test_same_pair_within_a_minute_although_used(self) -> None:
        """Clients refresh from several addresses at once."""
        first = self.world.signed_in()["refresh_token"]
        pair = self.pair(first)
        self.assertTrue(self.world.use(pair[0]))
        self.world.clock.advance(60)
        answer = self.world.refresh(first).document
        self.assertEqual((answer["access_token"], answer["refresh_token"]), pair)
        self.assertEqual(answer["expires_in"], ACCESS_LIFETIME - 60)

    def test_same_pair_although_used_at_the_end_of_the_minute(self) -> None:
        """The last second of the minute belongs to it."""
        first = self.world.signed_in()["refresh_token"]
        pair = self.pair(first)
        self.world.clock.advance(60)
        self.assertTrue(self.world.use(pair[0]))
        self.assertEqual(self.pair(first), pair)
        self.assertEqual(self.world.refresh(pair[1]).status, 200)
        self.assertEqual(self.pair(first), pair)

    def test_same_pair_later_while_unused(self) -> None:
        """The answer was lost."""
        first = self.world.signed_in()["refresh_token"]
        pair = self.pair(first)
        self.world.clock.advance(3000)
        self.assertEqual(self.pair(first), pair)

    def test_reuse_after_a_minute_revokes(self) -> None:
        """RFC 9700 section 4.14.2: thief or victim, the grant ends."""
        first = self.world.signed_in()["refresh_token"]
        access, refresh = self.pair(first)
        self.assertTrue(self.world.use(access))
        self.world.clock.advance(61)
        self.refused(first)
        self.assertEqual(len(self.world.ended), 1)
        self.assertFalse(self.world.use(access))
        self.refused(refresh)

    def test_chain_within_a_minute(self) -> None:
        """T0 to T1 to T2, each asked for twice."""
        first = self.world.signed_in()["refresh_token"]
        second = self.pair(first)
        third = self.pair(second[1])
        self.world.clock.advance(60)
        self.assertEqual(self.pair(first), second)
        self.assertEqual(self.pair(second[1]), third)
        self.world.clock.advance(1)
        self.assertEqual(self.pair(second[1]), third)
        self.refused(first)

    def test_successor_that_expired_unused_gets_a_new_access_token(self) -> None:
        """A client lost the answer and slept overnight."""
        first = self.world.signed_in()["refresh_token"]
        access, refresh = self.pair(first)
        self.world.clock.advance(ACCESS_LIFETIME)
        self.assertFalse(self.world.use(access))
        answer = self.world.refresh(first).document
        self.assertEqual(answer["refresh_token"], refresh)
        self.assertNotEqual(answer["access_token"], access)
        self.assertEqual(answer["expires_in"], ACCESS_LIFETIME)
        self.assertEqual(self.pair(first), (answer["access_token"], refresh))
        self.assertTrue(self.world.use(answer["access_token"]))
        self.refused(first)

    def test_each_rotation_restarts_the_lifetime(self) -> None:
        """A client in use never has to sign in again."""
        token = self.world.signed_in()["refresh_token"]
        for _ in range(3):
            self.world.clock.advance(REFRESH_LIFETIME - 1)
            _, token = self.pair(token)
        self.world.clock.advance(REFRESH_LIFETIME)
        self.refused(token)
        self.assertEqual(self.world.ended, [])

    def test_access_token_does_not_outlive_its_refresh_token(self) -> None:
        """A repeated refresh does not extend the grant."""
        first = self.world.signed_in()["refresh_token"]
        self.pair(first)
        self.world.clock.advance(REFRESH_LIFETIME - 10)
        self.assertEqual(self.world.refresh(first).document["expires_in"], 10)

    def test_narrowed_scope(self) -> None:
        """RFC 6749 section 6: the access token alone gets narrower."""
        first = self.world.signed_in()
        narrow = self.world.refresh(first["refresh_token"], scope="read").document
        self.assertEqual(narrow["scope"], "read")
        principal = self.world.result(
            self.world.bearer.authenticate(b"Bearer " + narrow["access_token"].encode())
        )
        self.assertEqual(principal.policy, "read-only-requested")
        whole = self.world.refresh(narrow["refresh_token"]).document
        self.assertEqual(whole["scope"], "read write")

    def test_wider_scope_is_refused(self) -> None:
        """RFC 6749 section 6."""
        first = self.world.signed_in(scope=("read",))["refresh_token"]
        before = self.world.dump()
        refused = self.world.refresh(first, scope="read write")
        self.assertEqual(refused.error, (400, "invalid_scope"))
        self.assertEqual(self.world.dump(), before)

    def test_other_clients_token_is_refused(self) -> None:
        """RFC 6749 section 6: bound to the client it was issued to."""
        first = self.world.signed_in()["refresh_token"]
        before = self.world.dump()
        refused = self.world.refresh(first, client_id="other")
        self.assertEqual(refused.error, (400, "invalid_grant"))
        self.assertEqual(self.world.dump(), before)

    def test_access_token_is_no_refresh_token(self) -> None:
        """And the other way round."""
        tokens = self.world.signed_in()
        self.refused(tokens["access_token"])
        self.assertFalse(self.world.use(tokens["refresh_token"]))

    def test_suspended_user_is_refused_and_revived(self) -> None:
        """C{invalid_grant}, and nothing is revoked: a sign-in revives everything."""
        tokens = self.world.signed_in()
        self.assertTrue(self.world.use(tokens["access_token"]))
        self.world.suspend()
        before = self.world.dump()
        self.refused(tokens["refresh_token"])
        self.assertFalse(self.world.use(tokens["access_token"]))
        self.assertEqual(self.world.dump(), before)
        self.world.suspend(state="usable")
        self.assertTrue(self.world.use(tokens["access_token"]))
        self.pair(tokens["refresh_token"])
        self.assertEqual(self.world.ended, [])


class DerivationKeyTests(TokenTestCase):
    """The key from which an answer can be derived again lives no longer than that."""

    def keys(self) -> int:
        """
        @return: how many keys the store holds.
        """
        rows = self.world.dump()["refresh_tokens"]
        return sum(row[4] is not None for row in rows)

    def test_key_is_sealed_under_its_row(self) -> None:
        """A copy of the store and the token is not enough."""
        first = self.world.signed_in()["refresh_token"]
        self.assertEqual(self.keys(), 0)
        self.world.refresh(first)
        self.assertEqual(self.keys(), 1)

    def test_key_is_erased_with_the_first_use_after_a_minute(self) -> None:
        """From then on a repetition is reuse."""
        first = self.world.signed_in()["refresh_token"]
        access = self.world.refresh(first).document["access_token"]
        self.world.clock.advance(61)
        self.assertEqual(self.keys(), 1)
        self.assertTrue(self.world.use(access))
        self.assertEqual(self.keys(), 0)

    def test_key_is_erased_with_the_next_rotation(self) -> None:
        """A successor used within the minute leaves it until then."""
        first = self.world.signed_in()["refresh_token"]
        tokens = self.world.refresh(first).document
        self.assertTrue(self.world.use(tokens["access_token"]))
        self.assertEqual(self.keys(), 1)
        self.world.clock.advance(3000)
        self.world.refresh(tokens["refresh_token"])
        self.assertEqual(self.keys(), 1)

    def test_key_is_erased_with_the_grant(self) -> None:
        """Nothing can be derived any more."""
        first = self.world.signed_in()["refresh_token"]
        refresh = self.world.refresh(first).document["refresh_token"]
        self.world.refresh(refresh)
        self.assertEqual(self.keys(), 2)
        answer = self.world.post(
            "/oauth/revoke", {"client_id": "public", "token": refresh}
        )
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(self.keys(), 0)


class TroubleTests(TokenTestCase):
    """What is not the client's fault is never C{invalid_grant}."""

    def test_closed_store_is_503(self) -> None:
        """Clients keep their tokens and come again."""
        token = self.world.signed_in()["refresh_token"]
        self.world.result(self.world.database.close())
        answer = self.world.refresh(token)
        self.assertEqual(answer.error, (503, "temporarily_unavailable"))
        self.assertEqual(answer.headers["retry-after"], "5")
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_lost_sealing_key_is_503(self) -> None:
        """An operator's mistake logs nobody out."""
        first = self.world.signed_in()["refresh_token"]
        self.world.refresh(first)
        self.world.write(
            lambda connection: (
                connection.execute(
                    "UPDATE refresh_tokens SET sealed_derivation_key = zeroblob(60)"
                    " WHERE sealed_derivation_key IS NOT NULL"
                ).rowcount
            )
        )
        before = self.world.dump()
        answer = self.world.refresh(first)
        self.assertEqual(answer.error, (503, "temporarily_unavailable"))
        self.assertEqual(self.world.dump(), before)


class HeldDatabase(Database):
    """
    A database whose transactions are done at once, and whose commits are reported
    when the test says so.
    """

    held: "list[Deferred[None]] | None" = None

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """
        @return: what the transaction gave, after the test has let it go.
        """
        result = await super().write(transaction)
        if self.held is not None:
            released: Deferred[None] = Deferred()
            self.held.append(released)
            await released
        return result


class CommitTests(TokenTestCase):
    """No answer leaves before the commit; what follows a commit always follows."""

    def held(self) -> "list[Deferred[None]]":
        """
        @return: the commits that are held back, from now on.
        """
        database = self.world.database
        database.__class__ = HeldDatabase
        assert isinstance(database, HeldDatabase)
        database.held = []
        return database.held

    def post(self, **form: str) -> "Deferred[object]":
        """
        @return: fires with the response to a token request.
        """
        answer: Deferred[object] = self.world.treq.post(
            "https://mcp.example.org/oauth/token", data=form
        )
        return answer

    def test_no_token_leaves_before_its_commit(self) -> None:
        """Code exchange and refresh alike."""
        code = self.world.code()
        token = self.world.signed_in()["refresh_token"]
        held = self.held()
        for form in (
            {
                "grant_type": "authorization_code",
                "code": code,
                "code_verifier": VERIFIER,
            },
            {"grant_type": "refresh_token", "refresh_token": token},
        ):
            answer = self.post(client_id="public", **form)
            self.world.treq.flush()
            self.assertNoResult(answer)
            held.pop().callback(None)
            self.world.treq.flush()
            self.successResultOf(answer)

    def test_revocation_is_told_although_the_client_has_gone(self) -> None:
        """A thief cannot keep a revoked token alive by hanging up."""
        code = self.world.code()
        access = self.world.exchange(code).document["access_token"]
        self.assertTrue(self.world.use(access))
        self.world.clock.advance(100)
        held = self.held()
        site = Site(self.world.resource, reactor=Clock(), parsePOSTFormSubmission=False)
        protocol = site.buildProtocol(None)
        assert protocol is not None
        protocol.makeConnection(StringTransport())
        body = f"grant_type=authorization_code&client_id=public&code={code}"
        body += f"&code_verifier={VERIFIER}"
        protocol.dataReceived(
            b"POST /oauth/token HTTP/1.1\r\nHost: mcp.example.org\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        self.assertEqual(len(held), 1)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.world.ended, [])
        held.pop().callback(None)
        self.assertEqual(len(self.world.ended), 1)
        self.assertIsNone(self.world.bearer.cached(b"Bearer " + access.encode()))
