"""What traces say of every way in which a sign-in can go."""

from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.bookkeeping import FLUSH_SECONDS, Bookkeeping
from fjmcp_broker.limits.addresses import parse_address
from fjmcp_broker.store import audit, traces
from fjmcp_broker.store.audit import AuditEvent, Kind, event_of
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import StoreUnavailable
from fjmcp_broker.trace.attempts import Attempt
from fjmcp_broker.trace.book import grant_key
from fjmcp_broker.upstream.document_http import DocumentError
from fjmcp_broker.upstream.errors import (
    CodeRefused,
    IdentityMismatch,
    NotAllowed,
    ScopeMismatch,
    SignInNeeded,
    UpstreamUnavailable,
)
from fjmcp_broker.web.oauth.outcomes import Outcome
from tests.relay_stubs import principal
from tests.unit.store.memory import NOW, memory_database
from tests.unit.web.callback_case import CallbackCase
from tests.unit.web.sign_in_fakes import USER
from tests.unit.web.signin import Browser, Site, authorize_target, callback_target

ADDRESS = parse_address("192.0.2.77")
NETWORK = "192.0.2.0/24"


@attrs.define
class Answered:
    """As much of a request as the end of one tells."""

    path: bytes
    code: int = 401
    principal: Any = None
    rpc_method: str | None = None
    started_at: float = NOW
    token: bool = False

    @property
    def requestHeaders(self) -> "Answered":  # noqa: N802 - Twisted's
        """Its headers."""
        return self

    def hasHeader(self, name: bytes) -> bool:  # noqa: N802 - Twisted's
        """Whether it has one."""
        return self.token


class TracedCase(CallbackCase):
    """A site whose sign-ins are traced."""

    def setUp(self) -> None:
        """The site, and what it writes down."""
        self.clock = Clock()
        self.clock.advance(NOW)
        self.books = Bookkeeping(memory_database(self), self.clock, self.clock)
        self.tracing = self.books.tracing(lambda request: ADDRESS)
        self.site = Site(self, guard=self.tracing.guard)
        self.client_id = self.site.register()
        self.browser = Browser(self.site)

    def waiting_events(self) -> list[AuditEvent]:
        """What the audit trail is going to have; no calls of tools are made here."""
        rows: Any = self.books.trail._waiting
        return [event_of(row) for row in rows]

    def attempts(self) -> list[Attempt]:
        """All of them, the oldest first."""
        return list(self.books._book._attempts.values())

    def steps(self, number: int = 0) -> list[tuple[str, str]]:
        """Names and outcomes of one."""
        found = self.attempts()[number].steps
        return [(str(step.name), step.outcome) for step in found]

    def outcome(self, number: int = 0) -> str:
        """Of the newest step of one."""
        return self.steps(number)[-1][1]


class JourneyTests(TracedCase):
    """Steps find their attempt."""

    def test_way_to_the_code(self) -> None:
        """One attempt, from the registration on, and an event of the audit trail."""
        self.browser.get(callback_target(self.leave(), code="gta_x"))
        self.assertEqual(
            self.steps(),
            [
                ("register", "ok"),
                ("authorize", "ok"),
                ("consent", "ok"),
                ("callback", "ok"),
            ],
        )
        (attempt,) = self.attempts()
        self.assertEqual(attempt.client_id, self.client_id)
        self.assertEqual(attempt.user_id, USER.user_id)
        self.assertEqual({step.network for step in attempt.steps}, {NETWORK})
        (event,) = self.waiting_events()
        self.assertEqual(
            (event.kind, event.outcome, event.user_id, event.grant_id),
            (Kind.SIGN_IN, "ok", USER.user_id, attempt.grant_id),
        )

    def test_second_sign_in_of_a_client(self) -> None:
        """It may be somebody else's, so that it is an attempt of its own."""
        self.leave()
        self.leave()
        self.assertEqual(len(self.attempts()), 2)
        self.assertEqual(self.steps(1), [("authorize", "ok"), ("consent", "ok")])

    def test_refusals(self) -> None:
        """Each has its word."""
        self.browser.get(authorize_target("unknown"))
        self.site.fetcher.error = DocumentError("is not there")
        self.browser.get(authorize_target("https://nobody.example/client.json"))
        self.browser.get(authorize_target(self.client_id, code_challenge=None))
        self.browser.get(authorize_target(self.client_id, redirect_uri="https://x"))
        self.site.request("POST", "/oauth/register", body=b"{}")
        self.assertEqual(self.outcome(1), "unknown_client")
        self.assertEqual(self.outcome(2), "no_document")
        self.assertEqual(self.outcome(0), "invalid_request")
        self.assertIsNone(self.attempts()[1].client_id)
        self.assertEqual(len(self.attempts()), 5)

    def test_consent(self) -> None:
        """Foreign forms, cancelled, too late."""
        page = self.browser.get(authorize_target(self.client_id))
        Browser(self.site).submit(page, "full")
        self.assertEqual(self.outcome(), "not_our_page")
        self.browser.submit(page, "cancel")
        self.assertEqual(self.outcome(), "cancelled")
        self.browser.submit(page, "full")
        self.assertEqual(self.outcome(), "expired")
        (event,) = self.waiting_events()
        self.assertEqual(event.outcome, "cancelled")

    def test_same_answer_again(self) -> None:
        """It is no step: whatever it leads to has been told."""
        page = self.browser.get(authorize_target(self.client_id))
        self.browser.submit(page, "cancel")
        before = self.steps()
        self.assertEqual(self.browser.submit(page, "cancel").status, 303)
        self.assertEqual((self.steps(), len(self.waiting_events())), (before, 1))
        page = self.browser.get(authorize_target(self.client_id))
        leaving = self.browser.submit(page, "full")
        self.browser.get(callback_target(leaving, code="gta_x"))
        before = self.steps(1)
        self.assertIn("code", self.browser.submit(page, "full").query)
        self.assertEqual((self.steps(1), len(self.waiting_events())), (before, 2))

    def test_answer_after_a_return_that_failed(self) -> None:
        """It goes on under another id, as the same attempt."""
        page = self.browser.get(authorize_target(self.client_id))
        self.site.upstream.outcomes = [UpstreamUnavailable("timeout")]
        for word in ("temporarily_unavailable", "ok"):
            leaving = self.browser.submit(page, "full")
            self.assertEqual(self.outcome(), "ok")
            self.browser.get(callback_target(leaving, code="gta_x"))
            self.assertEqual(self.outcome(), word)
        self.assertEqual(len(self.attempts()), 1)
        self.assertIsNotNone(self.attempts()[0].grant_id)

    def test_answer_after_the_browser_had_gone(self) -> None:
        """It tells what nobody has told, and leads on to the tokens."""
        page = self.browser.get(authorize_target(self.client_id))
        leaving = self.browser.submit(page, "full")
        self.browser.get(callback_target(leaving, code="gta_x"))
        pending_id = page.form.fields["pending"]
        end = Outcome("full", "https://client.test/", "ok", None, "g_1")
        self.site.outcomes.remember(pending_id, NOW + 600, end)
        for _ in range(2):
            self.assertEqual(self.browser.submit(page, "full").status, 303)
        self.assertEqual([name for name, _ in self.steps()].count("consent"), 2)
        key = grant_key("g_1")
        self.assertEqual(self.books._book.find(key), self.attempts()[0].trace_id)
        # The audit trail has each grant, once.
        events = [(event.outcome, event.grant_id) for event in self.waiting_events()]
        self.assertEqual(events[1:], [("ok", "g_1")])

    def test_nothing_else_begins_an_attempt(self) -> None:
        """Whoever sends junk to these fills nothing."""
        self.site.request("GET", "/oauth/callback?state=x&code=y")
        self.site.request("GET", "/oauth/callback")
        self.site.request("POST", "/oauth/consent", body=b"x=y")
        self.assertEqual(len(self.attempts()), 1)
        self.assertEqual(self.steps(), [("register", "ok")])


class CallbackTests(TracedCase):
    """What can happen at Forgejo."""

    def test_outcomes(self) -> None:
        """Each has its word, and an event."""
        cases: list[tuple[Exception, str]] = [
            (UpstreamUnavailable("timeout"), "temporarily_unavailable"),
            (CodeRefused("no", restart=False), "server_error"),
            (ScopeMismatch("openid", "all"), "other_scopes"),
            (NotAllowed("eve"), "not_allowed"),
            (SignInNeeded("again"), "access_denied"),
            (IdentityMismatch("two users"), "server_error"),
            (StoreUnavailable("full"), "temporarily_unavailable"),
        ]
        for number, (failure, word) in enumerate(cases):
            self.site.upstream.outcomes = [failure]
            self.browser.get(callback_target(self.leave(), code="gta_x"))
            self.assertEqual(self.outcome(number), word)
        outcomes = [event.outcome for event in self.waiting_events()]
        self.assertEqual(outcomes, [word for _, word in cases])

    def test_begun_again(self) -> None:
        """Forgejo is asked once more; it stays one attempt."""
        self.site.upstream.outcomes = [CodeRefused("no", restart=True), USER]
        again = self.browser.get(callback_target(self.leave(), code="gta_x"))
        self.assertEqual(self.outcome(), "again")
        self.browser.get(callback_target(again, code="gta_y"))
        self.assertEqual(self.outcome(), "ok")

    def test_another_browser(self) -> None:
        """Found by the state, which nobody else has."""
        target = callback_target(self.leave(), code="gta_x")
        Browser(self.site).get(target)
        self.assertEqual(self.outcome(), "wrong_browser")
        self.assertEqual(list(self.books.trail._waiting), [])


class AnsweredTests(TracedCase):
    """Requests to everything else."""

    def answered(self, path: bytes, **more: Any) -> None:
        """One of them."""
        request: Any = Answered(path, **more)
        self.tracing.answered(request)

    def seen(self) -> list[str]:
        """What may be related to a new attempt."""
        self.browser.get(authorize_target("unknown"))
        return [each.what for each in self.attempts()[-1].related]

    def test_possibly_related(self) -> None:
        """In our own words: nothing of what stands in a path or a query."""
        self.answered(b"/mcp")
        self.answered(b"/mcp", token=True)
        self.answered(b"/.well-known/openid-configuration", code=404)
        self.answered(b"/some-secret-of-a-client", code=404)
        self.answered(b"/oauth/token", code=429)
        self.answered(b"/oauth/token", code=400)
        self.answered(b"/healthz", code=200)
        self.assertEqual(
            self.seen(),
            [
                "/mcp without a token: 401",
                "/mcp with a token: 401",
                "/.well-known/openid-configuration: 404",
                "a path that is not ours: 404",
                "/oauth/token: 429",
            ],
        )

    def test_first_request(self) -> None:
        """Of the grant that got tokens; later ones are nobody's concern."""
        self.browser.get(callback_target(self.leave(), code="gta_x"))
        (attempt,) = self.attempts()
        grant_id = attempt.grant_id or ""
        who = principal(1, grant_id)
        self.answered(b"/mcp", principal=who, code=200)
        self.assertEqual(self.outcome(), "ok")
        self.books._book._waiting_grants[grant_id] = attempt.trace_id
        self.answered(b"/mcp", principal=principal(2), code=200)
        self.answered(b"/mcp", principal=who, code=200, rpc_method="initialize")
        self.answered(b"/mcp", principal=who, code=404)
        self.assertEqual(self.steps()[-1], ("request", "200"))
        self.assertEqual(self.attempts()[0].steps[-1].detail, "initialize")


class BookkeepingTests(SynchronousTestCase):
    """The way to the store."""

    def setUp(self) -> None:
        """A store that can be made to fail."""
        self.clock = Clock()
        self.clock.advance(NOW)
        self.database = memory_database(self)
        self.books = Bookkeeping(self.database, self.clock, self.clock)
        self.start(self.books)

    def start(self, books: Bookkeeping) -> None:
        """Begin to write."""
        self.successResultOf(Deferred.fromCoroutine(books.start()))

    def stop(self, books: Bookkeeping) -> None:
        """Write what is left."""
        self.successResultOf(Deferred.fromCoroutine(books.stop()))

    def stored(self) -> int:
        """How many attempts the store has."""
        found = self.successResultOf(
            Deferred.fromCoroutine(self.database.read(traces.load))
        )
        return len(found)

    def test_written_now_and_then_and_read_again(self) -> None:
        """A later daemon goes on; what went is gone there too."""
        self.books._book.begin(NETWORK, NOW)
        self.assertEqual(self.stored(), 0)
        self.clock.advance(FLUSH_SECONDS)
        self.assertEqual(self.stored(), 1)
        self.stop(self.books)
        later = Bookkeeping(self.database, self.clock, self.clock)
        self.start(later)
        self.assertEqual(len(later._book), 1)
        later._book.forget_before(NOW)
        self.stop(later)
        self.assertEqual(self.stored(), 0)

    def test_trouble_with_the_store(self) -> None:
        """It is tried again, and at the end said what is lost."""
        self.books._book.begin(NETWORK, NOW)
        self.books.trail.user_suspended(7)
        real = Database.write

        async def fail(*arguments: object) -> None:
            raise StoreUnavailable("the disk is full")

        patched = self.patch(Database, "write", fail)
        self.clock.advance(FLUSH_SECONDS)
        patched.restore()
        self.assertIs(Database.write, real)
        self.clock.advance(FLUSH_SECONDS)
        self.assertEqual(self.stored(), 1)
        events = self.successResultOf(
            Deferred.fromCoroutine(self.database.read(partial(audit.select, limit=9)))
        )
        self.assertEqual(len(events), 1)
        self.books.trail.user_suspended(7)
        self.patch(Database, "write", fail)
        self.stop(self.books)
        self.assertEqual(self.books.trail.waiting, 1)
