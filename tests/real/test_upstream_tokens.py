"""The token sets with real threads, a real store and a real port."""

from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from fjmcp_broker.oauth.forgejo_scopes import DEFAULT_SCOPES
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import preflight, upstream_tokens
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.upstream.errors import SignInNeeded
from fjmcp_broker.upstream.forgejo import Forgejo, ForgejoSettings
from fjmcp_broker.upstream.http import build_http
from fjmcp_broker.upstream.tokens import UpstreamTokens

# Its type is that of a module.
reactor: Any = installed_reactor

REDIRECT_URI = "https://broker.test/oauth/callback"
VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


class TokenStoreTests(TestCase):
    """A broker's upstream half, whole."""

    timeout = 60

    # trial waits for coroutines here too; unittest's types do not know.
    async def setUp(self) -> None:  # type: ignore[override]
        """A stand-in on a port, a store in a file, everything between them."""
        self.stand_in = StandInForgejo(reactor)
        port = reactor.listenTCP(0, Site(self.stand_in.resource), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.stand_in.base_url = f"http://127.0.0.1:{port.getHost().port}/forge"
        application = self.stand_in.add_application(REDIRECT_URI)
        self.http = build_http(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.http.close()))
        self.secrets = [application.client_secret, VERIFIER]
        forgejo = Forgejo(
            ForgejoSettings(
                url=self.stand_in.base_url,
                client_id=application.client_id,
                client_secret=Secret(application.client_secret),
                scopes=tuple(DEFAULT_SCOPES.split()),
                public_url="https://broker.test",
            ),
            self.http.client,
            reactor,
        )
        self.path = Path(self.mktemp()) / "broker.db"
        keys = preflight.prepare(
            str(self.path),
            (),
            Instance(self.stand_in.base_url, application.client_id),
            int(reactor.seconds()),
        )
        self.sealer = Sealer(keys)
        self.database = Database(str(self.path), reactor=reactor)
        await self.database.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.database.close()))
        self.suspended: list[int] = []
        self.tokens = UpstreamTokens(
            self.database,
            self.sealer,
            forgejo,
            reactor,
            self.suspended.append,
            requested_scope=DEFAULT_SCOPES,
        )
        await self.tokens.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.tokens.stop()))

    async def sign_in(self, login: str) -> int:
        """A user comes back from Forgejo."""
        code = self.stand_in.controls.issue_code(
            login, REDIRECT_URI, code_challenge=CHALLENGE, scope=DEFAULT_SCOPES
        )
        self.secrets.append(code)
        user = await self.tokens.sign_in("p_gone", code, VERIFIER)
        return user.user_id

    async def remember(self, user_id: int) -> None:
        """Note the secrets of a stored set."""
        found = await self.database.read(
            lambda c: upstream_tokens.find(c, self.sealer, user_id)
        )
        assert found is not None
        self.secrets += [found.access_token.reveal(), found.refresh_token.reveal()]

    async def test_many_callers_of_two_users(self) -> None:
        """Sixty demands at once: two refreshes, and everybody the right token."""
        users = [await self.sign_in("alice"), await self.sign_in("bob")]
        # Whoever comes to the store after the refreshes finds enough there.
        self.stand_in.controls.set_lifetimes(access_seconds=4 * 7200)
        callers = [
            Deferred.fromCoroutine(self.tokens.access_token(user_id, 7200))
            for user_id in users * 30
        ]
        tokens = await gatherResults(callers)
        self.assertEqual([token.user_id for token in tokens], users * 30)
        self.assertEqual(len({token.text for token in tokens}), 2)
        self.assertEqual(self.stand_in.controls.count("token:refresh_token"), 2)

    async def test_sign_ins_and_refreshes_side_by_side(self) -> None:
        """Whatever overlaps for real, the user stays signed in."""
        user_id = await self.sign_in("alice")
        for _ in range(5):
            work: list[Deferred[Any]] = [
                Deferred.fromCoroutine(self.tokens.access_token(user_id, 7200)),
                Deferred.fromCoroutine(self.sign_in("alice")),
                Deferred.fromCoroutine(self.tokens.access_token(user_id, 7200)),
                Deferred.fromCoroutine(self.sign_in("alice")),
            ]
            await gatherResults(work)
        await self.tokens.access_token(user_id, 7200)
        self.assertEqual(self.suspended, [])

    async def test_nothing_secret_is_logged_or_stored_in_the_clear(self) -> None:
        """The log of good and bad moments and the store's files hold no secret."""
        events: list[Any] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        user_id = await self.sign_in("alice")
        await self.remember(user_id)
        await self.tokens.access_token(user_id, 7200)
        await self.remember(user_id)
        self.stand_in.controls.set_message_style("v16")
        self.stand_in.controls.revoke_grant("alice")
        try:
            await self.tokens.access_token(user_id, 7200)
        except SignInNeeded as error:
            self.assertNotIn(self.secrets[-1], str(error))
        self.assertEqual(self.suspended, [user_id])
        self.assertTrue(events)
        seen = repr(events).encode()
        for path in self.path.parent.iterdir():
            seen += b"" if path.suffix == ".key" else path.read_bytes()
        for secret in self.secrets:
            self.assertNotIn(secret.encode(), seen)
