"""Clients whose id is the URL of their metadata document."""

import re
from html import unescape
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.token_request import (
    ClientCredentials,
    CodeRequest,
    RefreshRequest,
)
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import clients, upstream_tokens
from fjmcp_broker.store.collector import collect
from fjmcp_broker.store.revocation import Refused
from fjmcp_broker.store.token_endpoint import TokenAnswer, TokenTransactions
from fjmcp_broker.store.upstream_tokens import UpstreamSet
from fjmcp_broker.upstream.document_http import DocumentError, DocumentLimitError
from tests.unit.store.memory import NOW
from tests.unit.web.sign_in_fakes import USER, CountingBytes
from tests.unit.web.signin import (
    PUBLIC_URL,
    VERIFIER,
    Answer,
    Browser,
    Site,
    authorize_target,
    callback_target,
)

URL = "https://app.example.com/oauth/client.json"
CALLBACK = "https://app.example.com/callback"
DAY = 24 * 3600


class DocumentCase(SynchronousTestCase):
    """A site and a small Internet."""

    def setUp(self) -> None:
        self.site = Site(self)
        self.fetcher = self.site.fetcher
        self.browser = Browser(self.site)
        self.transactions = TokenTransactions(
            self.site.sealer,
            CountingBytes(),
            access_lifetime_seconds=3600,
            refresh_lifetime_seconds=90 * DAY,
            resource=f"{PUBLIC_URL}/mcp",
        )

    def authorize(self, client_id: str = URL, **changes: str | None) -> Answer:
        """
        @return: what the authorization endpoint answers.
        """
        wanted = {"redirect_uri": CALLBACK, **changes}
        return self.browser.get(authorize_target(client_id, **wanted))

    def sign_in(self, client_id: str = URL) -> str:
        """
        @return: the authorization code of a whole journey.
        """
        leaving = self.browser.submit(self.authorize(client_id), "full")
        arrived = self.browser.get(callback_target(leaving, code="x"))
        self.assertEqual(arrived.status, 303, arrived.text)
        code: str = arrived.query["code"]
        self.site.write(
            lambda c: upstream_tokens.save(
                c,
                self.site.sealer,
                UpstreamSet(USER.user_id, Secret("a"), Secret("r"), NOW + 3600),
            )
        )
        return code

    def token(
        self, asked: CodeRequest | RefreshRequest, client_id: str = URL
    ) -> TokenAnswer | Refused:
        """
        @return: what the token endpoint would answer.
        """
        now = int(self.site.clock.seconds())
        return self.site.write(
            lambda c: self.transactions.answer(
                c, ClientCredentials(client_id), asked, now
            )
        )

    def exchange(self, code: str) -> TokenAnswer:
        """
        @return: the tokens for a code.
        """
        answer = self.token(CodeRequest(code, VERIFIER, CALLBACK))
        assert isinstance(answer, TokenAnswer)
        return answer

    def stored(self) -> Client | None:
        """
        @return: the client as the store has it.
        """
        return self.site.read(lambda c: clients.find(c, URL))


class SignInTests(DocumentCase):
    """The whole way."""

    def test_journey(self) -> None:
        """From a URL nobody has heard of to tokens; the token endpoint knows it."""
        page = self.authorize()
        self.assertEqual(page.status, 200)
        self.assertIn(">App<", page.text)
        # Draft section 6.4: the host that is certain, beside the name that is not.
        self.assertIn(">Verified: <bdi>app.example.com</bdi><", page.text)
        self.assertEqual(self.fetcher.fetched, [URL])
        answer = self.exchange(self.sign_in())
        client = self.stored()
        assert client is not None
        self.assertEqual(client.kind, "metadata-document")
        self.assertEqual((client.created_at, client.last_used_at), (NOW, NOW))
        self.assertIsNone(client.secret_digest)
        again = self.token(RefreshRequest(answer.refresh_token))
        self.assertIsInstance(again, TokenAnswer)

    def test_authorize_twice_fetches_once(self) -> None:
        """Some clients probe the endpoint before they send the browser."""
        self.authorize()
        self.authorize()
        self.assertEqual(len(self.fetcher.fetched), 1)
        self.assertEqual(self.site.count("clients"), 0)

    def test_fetched_again_when_stale(self) -> None:
        """Not before, not by others, and the store remembers it over a restart."""
        self.sign_in()
        self.site.clock.advance(599)
        self.authorize()
        self.assertEqual(len(self.fetcher.fetched), 1)
        self.site.clock.advance(1)
        self.authorize()
        self.assertEqual(len(self.fetcher.fetched), 2)

    def test_stored_document_survives_a_restart(self) -> None:
        """A fresh row needs no fetch."""
        other = Site(self, wrap=lambda database: self.site.real_database)
        self.browser.submit(self.authorize(), "full")
        # Random bytes of two sites are the same here.
        self.site.write(
            lambda c: c.execute("DELETE FROM pending_authorizations").rowcount
        )
        other.clock.advance(1)
        page = Browser(other).get(authorize_target(URL, redirect_uri=CALLBACK))
        self.assertEqual((page.status, other.fetcher.fetched), (200, []))
        other.clock.advance(600)
        page = Browser(other).get(authorize_target(URL, redirect_uri=CALLBACK))
        self.assertEqual((page.status, other.fetcher.fetched), (200, [URL]))

    def test_row_from_the_future_is_not_believed(self) -> None:
        """The clock was wrong when it was written."""
        self.browser.submit(self.authorize(), "full")
        self.site.write(
            lambda c: (
                c.execute(
                    "UPDATE clients SET metadata_expires_at = ?", (NOW + 9 * DAY,)
                ).rowcount
            )
        )
        self.site.clock.advance(601)
        self.authorize()
        self.assertEqual(len(self.fetcher.fetched), 2)

    def test_changed_redirect_uris_take_effect(self) -> None:
        """The new one works, the old one does not."""
        self.sign_in()
        new = "https://app.example.com/other"
        self.fetcher.redirect_uris = [new]
        self.assertEqual(self.authorize(redirect_uri=new).status, 400)
        self.site.clock.advance(600)
        page = self.authorize(redirect_uri=new)
        self.assertEqual(page.status, 200)
        self.assertEqual(self.authorize().status, 400)
        self.browser.submit(page, "full")
        client = self.stored()
        assert client is not None
        self.assertEqual(client.redirect_uris, (new,))
        self.assertEqual((client.created_at, client.last_used_at), (NOW, NOW))

    def test_access_that_goes_elsewhere_is_pointed_out(self) -> None:
        """
        Draft section 6.1: anybody can put a document on a host where many people
        have files, and be introduced by its name.
        """
        elsewhere = "https://evil.example.net/callback"
        local = "http://127.0.0.1/callback"
        self.fetcher.redirect_uris = [CALLBACK, elsewhere, local]
        words = "another address than the one that was checked"
        self.assertIn(words, self.authorize(redirect_uri=elsewhere).text)
        for uri in (CALLBACK, local):
            page = self.authorize(redirect_uri=uri)
            self.assertEqual(page.status, 200)
            self.assertNotIn(words, page.text)

    def test_changed_name_is_shown(self) -> None:
        """The page says what the document says now."""
        self.authorize()
        self.fetcher.name = "Renamed"
        self.site.clock.advance(600)
        self.assertIn(">Renamed<", self.authorize().text)

    def test_vanished_document(self) -> None:
        """No new sign-in; those who are signed in go on."""
        answer = self.exchange(self.sign_in())
        self.site.clock.advance(DAY)
        self.fetcher.error = DocumentError("is not there: its server answered 404")
        page = self.authorize()
        self.assertEqual(page.status, 400)
        self.assertIn("is not there", page.text)
        refreshed = self.token(RefreshRequest(answer.refresh_token))
        assert isinstance(refreshed, TokenAnswer)
        self.site.clock.advance(80 * DAY)
        self.assertIsInstance(
            self.token(RefreshRequest(refreshed.refresh_token)), TokenAnswer
        )

    def test_concurrent_requests_share_one_fetch(self) -> None:
        """Single flight for each URL."""
        self.fetcher.is_slow = True
        stub: Any = self.site.stub()
        target = PUBLIC_URL + authorize_target(URL, redirect_uri=CALLBACK)
        answers = [Deferred.fromCoroutine(_get(stub, target)) for _ in range(5)]
        self.assertEqual(len(self.fetcher.fetched), 1)
        self.fetcher.answer()
        stub.flush()
        self.assertEqual([self.successResultOf(each) for each in answers], [200] * 5)

    def test_host_is_shown_in_punycode(self) -> None:
        """A name in other letters cannot be taken for another one."""
        page = self.authorize("https://xn--pple-43d.example/client.json")
        self.assertIn(">xn--pple-43d.example<", page.text)

    def test_whole_address_is_shown(self) -> None:
        """Not everybody on a host is the same; what is long is cut, and says so."""
        url = "https://files.example/people/mallory/client.json"
        page = self.authorize(url)
        self.assertIn(f"<bdi>{url}</bdi>", page.text)
        page = self.authorize("https://files.example/" + "x" * 200)
        self.assertIn("https://files.example/" + "x" * 97 + "…</bdi>", page.text)
        self.assertNotIn("x" * 98, page.text)

    def test_loopback_port_may_differ(self) -> None:
        """As for every native client (RFC 8252 section 7.3)."""
        self.fetcher.redirect_uris = ["http://127.0.0.1:3000/callback"]
        page = self.authorize(redirect_uri="http://127.0.0.1:51234/callback")
        self.assertEqual(page.status, 200)


async def _get(stub: Any, target: str) -> int:
    response = await stub.get(target)
    await response.content()
    status: int = response.code
    return status


class RefusalTests(DocumentCase):
    """What is not fetched, or not used."""

    def test_bad_urls_are_never_fetched(self) -> None:
        """A page says why; nothing is stored."""
        for url, why in (
            ("https://127.0.0.1/x", "public DNS name"),
            ("https://localhost/x", "public DNS name"),
            ("https://app.example.com:8443/x", "another port"),
            ("https://app.example.com/a/../b", "dot segments"),
            ("https://user@app.example.com/x", "user information"),
            ("https://app.example.com", "a path"),
            ("https://app.example.com/<script>", "characters"),
        ):
            page = self.authorize(url)
            self.assertEqual(page.status, 400)
            self.assertIn(why, page.text)
            self.assertNotIn("<script>", page.text)
            self.assertEqual(page.cookies, [])
        self.assertEqual(self.fetcher.fetched, [])
        self.assertEqual(self.site.count("clients"), 0)

    def test_http_is_no_document(self) -> None:
        """Only https; anything else is a client id that nobody registered."""
        page = self.authorize("http://app.example.com/x")
        self.assertEqual(page.status, 400)
        self.assertIn("not registered", page.text)

    def test_document_that_asks_for_more_than_there_is(self) -> None:
        """private_key_jwt and secrets are refused, not downgraded."""
        for number, changes in enumerate(
            (
                {"token_endpoint_auth_method": "private_key_jwt"},
                {"token_endpoint_auth_method": "client_secret_basic"},
                {"client_secret": "x"},
                {"client_id": "https://other.example.com/x"},
            )
        ):
            self.fetcher.changes = dict(changes)
            page = self.authorize(f"{URL}?{number}")
            self.assertEqual(page.status, 400, changes)
            self.assertIn(next(iter(changes)), page.text)
        self.assertEqual(self.site.count("clients"), 0)

    def test_passing_trouble(self) -> None:
        """503 with the time to try again; nothing is redirected."""
        self.fetcher.error = DocumentLimitError()
        page = self.authorize()
        self.assertEqual(page.status, 503)
        self.assertEqual(page.header("Retry-After"), "30")
        self.assertEqual(page.headers.getRawHeaders("Location"), None)
        self.fetcher.error = None
        (again,) = re.findall('href="([^"]+)"[^>]*>Try again<', page.text)
        self.assertEqual(self.browser.get(unescape(again)).status, 200)

    def test_failure_is_not_asked_for_again_at_once(self) -> None:
        """Half a minute later it is."""
        self.fetcher.error = DocumentError("did not come", is_passing=True)
        for _ in range(5):
            self.assertEqual(self.authorize().status, 503)
        self.assertEqual(len(self.fetcher.fetched), 1)
        self.site.clock.advance(30)
        self.authorize()
        self.assertEqual(len(self.fetcher.fetched), 2)

    def test_wrong_redirect_uri_leaves_nothing_behind(self) -> None:
        """A request that comes to nothing fills neither the store nor the wire."""
        for _ in range(3):
            page = self.authorize(redirect_uri="https://evil.example/")
            self.assertEqual(page.status, 400)
        self.assertEqual(len(self.fetcher.fetched), 1)
        self.assertEqual(self.site.count("clients"), 0)
        self.assertEqual(self.site.count("pending_authorizations"), 0)

    def test_switched_off(self) -> None:
        """Without egress such a client is as unknown as any other."""
        site = Site(self, has_documents=False)
        page = Browser(site).get(authorize_target(URL, redirect_uri=CALLBACK))
        self.assertEqual(page.status, 400)
        self.assertIn("not registered", page.text)
        self.assertEqual(site.fetcher.fetched, [])

    def test_switched_off_later(self) -> None:
        """No new sign-in, but tokens live on."""
        answer = self.exchange(self.sign_in())
        other = Site(
            self, has_documents=False, wrap=lambda database: self.site.real_database
        )
        page = Browser(other).get(authorize_target(URL, redirect_uri=CALLBACK))
        self.assertEqual(page.status, 400)
        again = self.token(RefreshRequest(answer.refresh_token))
        self.assertIsInstance(again, TokenAnswer)

    def test_token_endpoint_does_not_fetch(self) -> None:
        """A URL that nobody signed in with is an unknown client there."""
        answer = self.token(CodeRequest("x", VERIFIER))
        assert isinstance(answer, Refused)
        self.assertEqual(str(answer.error.code), "invalid_client")
        self.assertEqual(self.fetcher.fetched, [])

    def test_configured_client_goes_first(self) -> None:
        """A URL that the operator registered is never fetched."""
        self.site.write(
            lambda c: clients.insert(
                c,
                Client.from_metadata(
                    client_id=URL,
                    kind="static",
                    metadata={
                        "redirect_uris": [CALLBACK],
                        "token_endpoint_auth_method": "none",
                        "application_type": "web",
                        "client_name": "Ours",
                    },
                    secret_digest=None,
                    created_at=NOW,
                ),
            )
        )
        self.assertIn(">Ours<", self.authorize().text)
        self.assertEqual(self.fetcher.fetched, [])


class CollectorTests(DocumentCase):
    """Rows of documents come and go."""

    def test_unused_one_goes(self) -> None:
        """It can be fetched again, so nobody misses it."""
        self.authorize()
        now = NOW + 4 * DAY
        self.site.write(lambda c: collect(c, now))
        self.assertIsNone(self.stored())

    def test_used_one_stays_for_400_days(self) -> None:
        """Its grants hang on it."""
        self.sign_in()
        self.site.write(lambda c: collect(c, NOW + 390 * DAY))
        self.assertIsNotNone(self.stored())
