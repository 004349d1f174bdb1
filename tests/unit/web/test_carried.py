"""What the consent form carries: sealed, for one browser and one answer."""

import json
from base64 import urlsafe_b64decode
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.authorization import AuthorizationRequest
from fjmcp_broker.oauth.clients import Client
from fjmcp_broker.oauth.document_cache import CacheHeaders
from fjmcp_broker.oauth.tokens import url_safe_text
from fjmcp_broker.store import clients, pending
from fjmcp_broker.store.errors import SealError
from fjmcp_broker.store.pending import PendingAuthorization, verifier_row
from fjmcp_broker.store.sealing import KEY_ID_BYTES, Sealer
from fjmcp_broker.upstream.errors import CodeRefused
from fjmcp_broker.web.forms import MAXIMUM_FORM_BYTES, MAXIMUM_QUERY_BYTES
from fjmcp_broker.web.oauth.carried import Asked, CarriedRequests, NewDocument
from tests.unit.store.memory import NOW
from tests.unit.store.rows import PENDING_ID
from tests.unit.web.signin import (
    CHALLENGE,
    PUBLIC_URL,
    WEB_REDIRECT,
    Answer,
    Browser,
    Site,
    authorize_target,
    callback_target,
)

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
DOCUMENT: Final = "https://app.example.com/oauth/client.json"
CALLBACK: Final = "https://app.example.com/callback"
OTHER: Final = "https://app.example.com/other"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """
    @return: what a page might ask about.
    """
    client_id = draw(texts)
    request = AuthorizationRequest(
        client_id=client_id,
        redirect_uri=draw(texts),
        redirect_uri_given=draw(st.booleans()),
        state=draw(st.none() | texts),
        scope=draw(st.sampled_from([None, ("read",), ("read", "write")])),
        code_challenge=draw(texts),
        resource=draw(texts),
    )
    begun = draw(st.integers(0, 2**40))
    row = PendingAuthorization(PENDING_ID, client_id, request, begun, begun + 600)
    if draw(st.booleans()):
        return Asked(row)
    # JSON may say "\ud800", and what is not looked at is not refused for that.
    metadata = {
        "redirect_uris": draw(st.lists(texts, min_size=1, max_size=3)),
        "token_endpoint_auth_method": "none",
        "application_type": "web",
        "client_name": draw(texts),
        "software_id": draw(st.text(max_size=8)),
    }
    client = Client.from_metadata(
        client_id=client_id,
        kind="metadata-document",
        metadata=metadata,
        secret_digest=None,
        created_at=draw(st.integers(0, 2**40)),
    )
    return Asked(row, NewDocument(client, draw(st.integers(0, 2**40))))


class SealTests(SynchronousTestCase):
    """What was sealed comes back, or nothing does."""

    def setUp(self) -> None:
        self.sealer = Sealer([KEY])
        self.carried = CarriedRequests(self.sealer)
        request = AuthorizationRequest(
            "client", CALLBACK, True, "state", None, CHALLENGE, f"{PUBLIC_URL}/mcp"
        )
        row = PendingAuthorization(PENDING_ID, "client", request, NOW, NOW + 600)
        self.asked = Asked(row)

    def assert_refused(self, text: str, pending_id: str = PENDING_ID) -> None:
        """
        It opens nothing.
        """
        with self.assertRaises(SealError) as raised:
            self.carried.open(text, pending_id)
        self.assertNotIn(pending_id, str(raised.exception))

    @settings(max_examples=200, deadline=None)
    @given(asked())
    def test_comes_back(self, sent: Asked) -> None:
        """Every request, with a document and without one; in the URL's alphabet."""
        text = self.carried.seal(sent)
        self.assertRegex(text, r"\A[A-Za-z0-9_-]+\Z")
        self.assertEqual(self.carried.open(text, PENDING_ID), sent)

    @settings(max_examples=200, deadline=None)
    @given(st.data())
    def test_any_change_is_noticed(self, data: st.DataObject) -> None:
        """One bit anywhere, any cut, anything in front or behind."""
        text = self.carried.seal(self.asked)
        raw = bytearray(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        kind = data.draw(st.sampled_from(["bit", "cut", "more", "before"]))
        if kind == "bit":
            place = data.draw(st.integers(0, 8 * len(raw) - 1))
            raw[place // 8] ^= 1 << place % 8
        elif kind == "cut":
            raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
        else:
            more = data.draw(st.binary(min_size=1, max_size=20))
            raw = raw + more if kind == "more" else bytearray(more) + raw
        self.assert_refused(url_safe_text(bytes(raw)))

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=200) | st.text("AZaz09-_=+/. ", max_size=200))
    def test_any_text_is_refused(self, text: str) -> None:
        """Nothing but a SealError comes of what a browser makes up."""
        self.assert_refused(text)

    def test_of_another_form(self) -> None:
        """It belongs to one pending id."""
        text = self.carried.seal(self.asked)
        for other in ("p_other", PENDING_ID + "x", PENDING_ID[:-1], "a/b"):
            self.assert_refused(text, other)

    def test_neither_column_nor_form_stands_for_the_other(self) -> None:
        """One key seals both, each for its own place."""
        sealed = self.sealer.seal(b"{}", row=verifier_row(PENDING_ID))
        self.assert_refused(url_safe_text(sealed))
        text = self.carried.seal(self.asked)
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        for row in (verifier_row, pending.upstream_tokens_row):
            with self.assertRaises(SealError):
                self.sealer.open(raw, row=row(PENDING_ID))

    def test_keys(self) -> None:
        """A page outlives a rotation for as long as the old key is there."""
        text = self.carried.seal(self.asked)
        self.sealer.replace([OTHER_KEY])
        self.assertEqual(self.carried.open(text, PENDING_ID), self.asked)
        both = CarriedRequests(Sealer([OTHER_KEY, KEY]))
        self.assertEqual(both.open(text, PENDING_ID), self.asked)
        self.carried = CarriedRequests(Sealer([OTHER_KEY]))
        self.assert_refused(text)

    def test_other_version(self) -> None:
        """What has more or less than we know is not guessed at."""
        values = {
            "request": asdict(self.asked.pending.request),
            "document": None,
        }
        whole = {**values, "created_at": 1, "expires_at": 2}
        pieces: list[Any] = [
            values,
            [],
            None,
            1,
            {
                **whole,
                "request": {
                    **asdict(self.asked.pending.request),
                    "x": 1,
                },
            },
            {**whole, "request": None},
            {**whole, "document": {"metadata": {}}},
        ]
        sealer = _Watched([KEY])
        CarriedRequests(sealer).seal(self.asked)
        for piece in pieces:
            sealed = self.sealer.seal(json.dumps(piece).encode(), row=sealer.row)
            self.assert_refused(url_safe_text(sealed))


class _Watched(Sealer):
    """Tells for what place it has sealed."""

    row = ""

    def seal(self, plaintext: bytes, *, row: str) -> bytes:
        self.row = row
        return super().seal(plaintext, row=row)


class CarriedCase(SynchronousTestCase):
    """A browser that has been shown the consent page."""

    def setUp(self) -> None:
        self.site = Site(self)
        self.client_id = self.site.register()
        self.browser = Browser(self.site)
        self.page = self.browser.get(authorize_target(self.client_id))

    def assert_refused(self, answer: Answer, status: int = 400) -> None:
        """
        A page: no cookie, no redirect.
        """
        self.assertEqual(answer.status, status)
        self.assertIn("text/html", answer.header("Content-Type"))
        self.assertEqual(answer.cookies, [])
        self.assertFalse(answer.headers.hasHeader("Location"))

    def assert_over(
        self, page: Answer, decision: str = "", ended: Answer | None = None
    ) -> None:
        """
        No answer to it changes anything; of the sign-in nothing secret is left. The
        decision that ended it leads where it led.
        """
        before = self.site.dump()
        kept = self.site.read(
            lambda c: c.execute(
                "SELECT request FROM pending_authorizations"
                " WHERE returned_at IS NOT NULL"
            ).fetchall()
        )
        self.assertNotIn("client-state", str(kept))
        for chosen in ("full", "read-only", "cancel"):
            answer = self.browser.submit(page, chosen)
            if ended is not None and chosen == decision:
                self.assertEqual(answer.location, ended.location)
                continue
            self.assert_refused(answer)
            self.assertIn("no longer valid", answer.text)
        self.assertEqual(self.site.dump(), before)

    def restart(self, *keys: bytes) -> None:
        """
        Another process goes on with the store and the browser.
        """
        cookies = self.browser.cookies
        self.site = Site(self, before=self.site, keys=keys or (KEY,))
        self.browser = Browser(self.site)
        self.browser.cookies = cookies


class OnceTests(CarriedCase):
    """An answer counts once, however the sign-in went on."""

    def test_after_the_code(self) -> None:
        """Back, and allow once more: no second code for the client's state."""
        leaving = self.browser.submit(self.page, "full")
        ended = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assert_over(self.page, "full", ended)
        self.site.clock.advance(599)
        self.assert_over(self.page, "full", ended)
        self.site.clock.advance(1)
        self.assert_over(self.page)

    def test_after_cancel(self) -> None:
        """No is no, also after a yes."""
        ended = self.browser.submit(self.page, "cancel")
        self.assert_over(self.page, "cancel", ended)
        page = self.browser.get(authorize_target(self.client_id))
        leaving = self.browser.submit(page, "full")
        ended = self.browser.submit(page, "cancel")
        self.assert_over(page, "cancel", ended)
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertEqual(answer.status, 400)
        self.assertEqual(self.site.upstream.calls, [])

    def test_after_an_error_of_forgejos(self) -> None:
        """The client has heard of it."""
        leaving = self.browser.submit(self.page, "full")
        ended = self.browser.get(callback_target(leaving, error="access_denied"))
        self.assert_over(self.page, "full", ended)

    def test_after_a_second_attempt(self) -> None:
        """The row of the second attempt is another one; the form is that of both."""
        self.site.upstream.outcomes = [CodeRefused("counter", restart=True)]
        leaving = self.browser.submit(self.page, "full")
        again = self.browser.get(callback_target(leaving, code="gta_x"))
        answer = self.browser.get(callback_target(again, code="gta_y"))
        self.assertIn("code", answer.query)
        self.assert_over(self.page, "full", answer)

    def test_after_a_restart(self) -> None:
        """What is over is in the store, not in the process."""
        leaving = self.browser.submit(self.page, "full")
        self.browser.get(callback_target(leaving, code="gta_x"))
        self.restart()
        self.assert_over(self.page)

    def test_after_ten_minutes(self) -> None:
        """Answered or not. To the second."""
        self.site.clock.advance(599)
        self.assertEqual(self.browser.submit(self.page, "full").status, 303)
        self.site.clock.advance(1)
        self.assert_over(self.page)
        page = self.browser.get(authorize_target(self.client_id))
        self.site.clock.advance(600)
        self.assert_over(page)

    def test_each_page_is_one(self) -> None:
        """A reload, or another tab, is another sign-in, with an answer of its own."""
        again = self.browser.get(authorize_target(self.client_id))
        self.browser.submit(self.page, "cancel")
        leaving = self.browser.submit(again, "full")
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertIn("code", answer.query)


class ElsewhereTests(CarriedCase):
    """Forms that are not what this browser was shown."""

    def test_of_another_browser(self) -> None:
        """Its request does not open with this one's token, nor its token here."""
        other = Browser(self.site)
        theirs = other.get(authorize_target(self.client_id))
        before = self.site.dump()
        fields = theirs.form.fields
        self.assert_refused(self.browser.submit(theirs, "full"), 403)
        self.assert_refused(
            self.browser.submit(self.page, "full", request=fields["request"])
        )
        self.assert_refused(
            self.browser.submit(
                self.page, "full", request=fields["request"], pending=fields["pending"]
            ),
            403,
        )
        self.assertEqual(self.site.dump(), before)

    def test_of_another_sign_in(self) -> None:
        """Two requests of one browser cannot be mixed."""
        second = self.browser.get(authorize_target(self.client_id, scope="read"))
        before = self.site.dump()
        answer = self.browser.submit(
            self.page, "full", request=second.form.fields["request"]
        )
        self.assert_refused(answer)
        self.assertEqual(self.site.dump(), before)

    def test_damaged(self) -> None:
        """Cut, changed, of another alphabet, empty: one page, and nothing written."""
        text = self.page.form.fields["request"]
        before = self.site.dump()
        for changed in (
            text[:-1],
            text[: len(text) // 2],
            text[1:],
            text[:-1] + ("A" if text[-1] != "A" else "Q"),
            text + "A",
            text + "=",
            "é" + text,
            "A" * 40_000,
            "",
        ):
            for decision in ("full", "cancel"):
                answer = self.browser.submit(self.page, decision, request=changed)
                self.assert_refused(answer)
        self.assertEqual(self.site.dump(), before)
        self.assertEqual(self.browser.submit(self.page, "full").status, 303)

    def test_too_long(self) -> None:
        """No more is read than any form may have."""
        answer = self.browser.submit(self.page, "full", request="A" * 70_000)
        self.assert_refused(answer, 413)

    def test_client_that_has_gone(self) -> None:
        """The collector removed it meanwhile, or the operator did."""
        self.site.write(lambda c: c.execute("DELETE FROM clients").rowcount)
        self.assert_over(self.page)
        self.assertEqual(self.site.count("pending_authorizations"), 0)


class ChangedTests(CarriedCase):
    """The client gives up an address while somebody signs in."""

    def move(self, old: str, new: str) -> None:
        """
        Its metadata has the new address in place of the old one from here on.
        """
        self.site.write(
            lambda c: (
                c.execute(
                    "UPDATE clients SET metadata = replace(metadata, ?, ?)", (old, new)
                ).rowcount
            )
        )

    def test_before_the_answer(self) -> None:
        """Nothing is sent to the old one, neither a code nor that there is none."""
        self.move(WEB_REDIRECT, CALLBACK)
        self.assert_over(self.page)
        self.assertEqual(self.site.count("pending_authorizations"), 0)

    def test_before_the_return(self) -> None:
        """Likewise, also when Forgejo would have to be asked once more."""
        for outcome in (None, CodeRefused("counter", restart=True)):
            page = self.browser.get(authorize_target(self.client_id))
            leaving = self.browser.submit(page, "full")
            self.move(WEB_REDIRECT, CALLBACK)
            if outcome is not None:
                self.site.upstream.outcomes = [outcome]
            answer = self.browser.get(callback_target(leaving, code="gta_x"))
            self.assertEqual(answer.status, 400)
            self.assertFalse(answer.headers.hasHeader("Location"))
            self.assertEqual(self.site.count("grants"), 0)
            self.move(CALLBACK, WEB_REDIRECT)


class RestartTests(CarriedCase):
    """Nothing that an operator does shows."""

    def test_at_every_step(self) -> None:
        """A process for the page, one for the answer, one for the return."""
        self.restart()
        leaving = self.browser.submit(self.page, "full")
        self.assertEqual(leaving.status, 303)
        self.restart()
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertIn("code", answer.query)

    def test_with_another_key(self) -> None:
        """As long as the key of the page is there, in whatever place."""
        self.restart(OTHER_KEY, KEY)
        leaving = self.browser.submit(self.page, "full")
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertIn("code", answer.query)

    def test_without_its_key(self) -> None:
        """The page is over then, and says what to do; a new one works."""
        self.restart(OTHER_KEY)
        before = self.site.dump()
        for decision in ("full", "cancel"):
            answer = self.browser.submit(self.page, decision)
            self.assert_refused(answer)
            self.assertIn("a new key since the page was made", answer.text)
            self.assertIn("Nothing was allowed", answer.text)
            self.assertIn("Go back to the application", answer.text)
        self.assertEqual(self.site.dump(), before)
        page = self.browser.get(authorize_target(self.client_id))
        self.assertEqual(self.browser.submit(page, "full").status, 303)

    def test_page_of_the_version_before(self) -> None:
        """It names a row, and carries nothing. Each decision counts, once; the same one
        again leads to the same place."""
        for decision, status in (("full", 303), ("cancel", 303)):
            page = self.browser.get(authorize_target(self.client_id))
            fields = {**page.form.fields, "decision": decision}
            carried = CarriedRequests(self.site.sealer)
            row = carried.open(fields.pop("request"), fields["pending"]).pending
            self.site.write(lambda c, row=row: pending.insert(c, row))  # type: ignore[misc]
            answer = self.browser.post(page.form.action, fields)
            self.assertEqual(answer.status, status)
            if decision == "full":
                answer = self.browser.get(callback_target(answer, code="gta_x"))
                self.assertIn("code", answer.query)
            before = self.site.dump()
            again = self.browser.post(page.form.action, fields)
            self.assertEqual(again.location, answer.location)
            fields["decision"] = "read-only"
            self.assert_refused(self.browser.post(page.form.action, fields))
            self.assertEqual(self.site.dump(), before)

    def test_row_that_was_never_there(self) -> None:
        """Without a request there has to be one."""
        fields = {**self.page.form.fields, "decision": "full"}
        del fields["request"]
        self.assert_refused(self.browser.post(self.page.form.action, fields))
        self.assertEqual(self.site.count("pending_authorizations"), 0)


class DocumentTests(CarriedCase):
    """Clients that the store does not know before the answer."""

    def setUp(self) -> None:
        super().setUp()
        self.page = self.ask()

    def ask(self) -> Answer:
        """
        @return: the page.
        """
        return self.browser.get(authorize_target(DOCUMENT, redirect_uri=CALLBACK))

    def test_comes_with_the_answer(self) -> None:
        """With any of them; as the page showed it, however it reads by then."""
        self.assertIsNone(self.site.read(lambda c: clients.find(c, DOCUMENT)))
        self.site.fetcher.name = "Renamed"
        for decision in ("cancel", "full"):
            self.site.write(lambda c: c.execute("DELETE FROM clients").rowcount)
            page = self.page if decision == "full" else self.ask()
            self.browser.submit(page, decision)
            stored = self.site.read(lambda c: clients.find_stored(c, DOCUMENT))
            assert stored is not None
            self.assertEqual(stored.client.name, "App")
            self.assertEqual(stored.client.created_at, NOW)
            self.assertEqual(stored.metadata_expires_at, NOW + 600)
        self.assertEqual(len(self.site.fetcher.fetched), 1)

    def test_needs_no_second_fetch(self) -> None:
        """A restart forgets what was fetched; its server may be away by then."""
        self.restart()
        leaving = self.browser.submit(self.page, "full")
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertIn("code", answer.query)
        self.assertEqual(self.site.fetcher.fetched, [])

    def test_stays_away_when_the_answer_does_not_count(self) -> None:
        """Too late, not offered, or answered before."""
        answer = self.browser.submit(self.page, "read-only-requested")
        self.assert_refused(answer)
        self.assertEqual(self.site.count("clients"), 1)
        ended = self.browser.submit(self.page, "cancel")
        self.site.write(
            lambda c: c.execute("UPDATE clients SET metadata_expires_at = 1").rowcount
        )
        self.assert_over(self.page, "cancel", ended)
        self.site.write(
            lambda c: (
                c.execute(
                    "DELETE FROM clients WHERE client_id = ?", (DOCUMENT,)
                ).rowcount
            )
        )
        self.site.clock.advance(600)
        self.assert_over(self.page)

    def next_page(self, life: int, *redirect_uris: str) -> Answer:
        """
        @return: a page of what the document says after the one before has expired.
        """
        self.site.clock.advance(1)
        self.site.fetcher.headers = CacheHeaders([f"max-age={life}"])
        self.site.fetcher.redirect_uris = list(redirect_uris)
        return self.ask()

    def stored(self) -> tuple[str, ...]:
        """
        @return: the redirect URIs that count now.
        """
        found = self.site.read(lambda c: clients.find(c, DOCUMENT))
        assert found is not None
        return found.redirect_uris

    def test_older_one_overwrites_no_newer_one(self) -> None:
        """Its page was made before the document changed, and is answered later. An
        address that was given up gets nothing."""
        self.site.clock.advance(600)
        old = self.next_page(60, CALLBACK, OTHER)
        self.site.clock.advance(60)
        new = self.next_page(60, OTHER)
        self.assertEqual(new.status, 400)
        new = self.browser.get(authorize_target(DOCUMENT, redirect_uri=OTHER))
        self.assertEqual(self.browser.submit(new, "cancel").status, 303)
        self.assertEqual(self.stored(), (OTHER,))
        self.assert_refused(self.browser.submit(old, "full"))
        self.assertEqual(self.stored(), (OTHER,))

    def test_newer_one_overwrites_an_older_one(self) -> None:
        """In the order in which they were fetched, however they are answered."""
        self.site.clock.advance(600)
        old = self.next_page(60, CALLBACK, OTHER)
        self.site.clock.advance(60)
        new = self.next_page(60, CALLBACK)
        self.assertEqual(self.browser.submit(old, "full").status, 303)
        self.assertEqual(self.stored(), (CALLBACK, OTHER))
        self.assertEqual(self.browser.submit(new, "full").status, 303)
        self.assertEqual(self.stored(), (CALLBACK,))

    def test_one_from_a_time_that_never_was(self) -> None:
        """Stored while the clock was years ahead, it is replaced all the same."""
        self.browser.submit(self.page, "cancel")
        self.site.write(
            lambda c: (
                c.execute(
                    "UPDATE clients SET metadata_expires_at = ?"
                    " WHERE metadata_expires_at NOT NULL",
                    (NOW + 10**8,),
                ).rowcount
            )
        )
        self.site.clock.advance(600)
        page = self.next_page(60, CALLBACK, OTHER)
        self.assertEqual(self.browser.submit(page, "full").status, 303)
        self.assertEqual(self.stored(), (CALLBACK, OTHER))

    def test_page_of_the_version_before(self) -> None:
        """It does not say in whose place its document comes, and counts."""
        fields = {**self.page.form.fields, "decision": "full"}
        carried = CarriedRequests(self.site.sealer)
        asked = carried.open(fields["request"], fields["pending"])

        class Older(Sealer):
            """Seals what a version before would have."""

            def seal(self, plain: bytes, *, row: str) -> bytes:
                values = json.loads(plain)
                del values["document"]["in_place_of"]
                return super().seal(json.dumps(values).encode(), row=row)

        fields["request"] = CarriedRequests(Older([KEY])).seal(asked)
        answer = self.browser.post(self.page.form.action, fields)
        self.assertEqual(answer.status, 303)
        self.assertEqual(self.stored(), (CALLBACK,))

    def switch_off(self) -> None:
        """
        C{clients.metadata_documents = false}, and a restart.
        """
        cookies = self.browser.cookies
        self.site = Site(self, before=self.site, has_documents=False)
        self.browser = Browser(self.site)
        self.browser.cookies = cookies

    def test_switched_off_while_the_page_is_open(self) -> None:
        """Nobody comes in with a document any more."""
        self.switch_off()
        before = self.site.dump()
        for decision in ("full", "cancel"):
            answer = self.browser.submit(self.page, decision)
            self.assert_refused(answer)
            self.assertIn("connect again", answer.text)
        self.assertEqual(self.site.dump(), before)

    def test_switched_off_on_the_way(self) -> None:
        """Forgejo has answered, and the client gets nothing."""
        for outcomes in ([], [CodeRefused("counter", restart=True)]):
            self.site = Site(self, before=self.site)
            self.browser = Browser(self.site)
            leaving = self.browser.submit(self.ask(), "full")
            self.switch_off()
            self.site.upstream.outcomes = [*outcomes]
            answer = self.browser.get(callback_target(leaving, code="gta_x"))
            self.assertEqual(answer.status, 400)
            self.assertFalse(answer.headers.hasHeader("Location"))
            self.assertEqual(self.site.count("grants"), 0)

    def test_switched_off_for_others(self) -> None:
        """Clients of another kind go on."""
        page = self.browser.get(authorize_target(self.client_id))
        self.switch_off()
        leaving = self.browser.submit(page, "full")
        answer = self.browser.get(callback_target(leaving, code="gta_x"))
        self.assertIn("code", answer.query)

    def test_known_one_is_not_carried(self) -> None:
        """Its form is as short as that of any client."""
        self.browser.submit(self.page, "full")
        again = self.ask()
        carried = CarriedRequests(self.site.sealer)
        fields = again.form.fields
        self.assertIsNone(carried.open(fields["request"], fields["pending"]).document)

    def test_registered_under_the_same_id(self) -> None:
        """What the operator has entered meanwhile is left alone."""
        mine = Client.from_metadata(
            client_id=DOCUMENT,
            kind="static",
            metadata={
                "redirect_uris": [WEB_REDIRECT],
                "token_endpoint_auth_method": "none",
                "application_type": "web",
            },
            secret_digest=None,
            created_at=NOW,
        )
        self.site.write(lambda c: clients.insert(c, mine))
        self.browser.submit(self.page, "full")
        self.assertEqual(self.site.read(lambda c: clients.find(c, DOCUMENT)), mine)


class SizeTests(CarriedCase):
    """The longest request of the longest document still fits into a form."""

    def test_longest(self) -> None:
        """Whatever is accepted can be answered: 16 KiB of each, whatever is in it."""
        uri = "https://app.example.com/" + "y" * 2024
        self.site.fetcher.redirect_uris = [uri, CALLBACK]
        self.site.fetcher.changes = {
            "contacts": ["\u00e9" * 256] * 20,
            **{
                name: "https://app.example.com/" + "z" * 300
                for name in ("client_uri", "logo_uri", "policy_uri", "tos_uri")
            },
        }
        url = DOCUMENT + "?" + "x" * 900
        target = authorize_target(url, redirect_uri=uri, state="STATE")
        room = MAXIMUM_QUERY_BYTES - len(target)
        for letter in ("x", '"', "\\", "\u00e9", "\U0001f600"):
            number = min(4096, room // len(letter.encode()))
            page = self.get_raw(target.replace("STATE", letter * number))
            self.assertEqual(page.status, 200, page.text)
            size = len(page.form.fields["request"])
            self.assertLess(size, MAXIMUM_FORM_BYTES - 1000)
            self.assertEqual(self.browser.submit(page, "full").status, 303)
            pending_id = page.form.fields["pending"]
            row = self.site.read(lambda c, id=pending_id: pending.find(c, id, NOW))  # type: ignore[misc]
            assert row is not None
            self.assertEqual(row.request.state, letter * number)

    def get_raw(self, target: str) -> Answer:
        """
        @return: what is answered to an address that was not made by the book.
        """
        query = target.partition("?")[2]
        answer = self.site.request(
            "POST",
            "/oauth/authorize",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=query.encode(),
        )
        for cookie in answer.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.browser.cookies[name] = value
        return answer

    def test_short_one_is_short(self) -> None:
        """A page of an ordinary request grows by less than a kilobyte."""
        text = self.page.form.fields["request"]
        self.assertLess(len(text), 1000)
        self.assertGreater(len(text), KEY_ID_BYTES)
