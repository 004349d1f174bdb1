"""
Sign-ins that have begun.
"""

from sqlite3 import IntegrityError

from msgspec.structs import replace

from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.store import pending
from fjmcp_broker.store.pending import PendingAuthorization

from . import rows
from .memory import NOW
from .rows import PENDING_ID, StoreTestCase, digest

STATE, COOKIE = digest("state"), digest("cookie")

#: What is left of a sign-in that is over.
FORGOTTEN = rows.pending(
    request=replace(rows.pending().request, state=None), returned_at=NOW
)


class PendingTests(StoreTestCase):
    def decide(self, decided: PendingAuthorization, now: int = NOW) -> bool:
        return self.write(lambda c: pending.decide(c, decided, now))

    def approve(
        self, state: bytes = STATE, cookie: bytes = COOKIE, now: int = NOW
    ) -> bool:
        approved = rows.pending(
            state_digest=state,
            approval_digest=cookie,
            policy=Policy.FULL,
            sealed_upstream_verifier=b"sealed",
        )
        return self.decide(approved, now)

    def cancel(self, now: int = NOW) -> bool:
        return self.decide(rows.pending(returned_at=now), now)

    def take(self, state: bytes = STATE, now: int = NOW) -> PendingAuthorization | None:
        return self.write(lambda c: pending.take(c, state, COOKIE, now))

    def park(self) -> bool:
        return self.write(lambda c: pending.park_upstream_tokens(c, PENDING_ID, b"set"))

    def test_sign_in_comes_back(self) -> None:
        """
        The validated request is found again, until it expires.
        """
        self.write(lambda c: pending.insert(c, rows.pending()))
        self.assertEqual(
            self.read(lambda c: pending.find(c, PENDING_ID, NOW + 599)),
            rows.pending(),
        )
        self.assertIsNone(self.read(lambda c: pending.find(c, PENDING_ID, NOW + 600)))
        self.assertIsNone(self.read(lambda c: pending.find(c, "p_other", NOW)))

    def test_approved_sign_in_is_taken_once(self) -> None:
        """
        State and approval cookie are single use: the second callback gets nothing.
        """
        self.assertTrue(self.approve())
        taken = self.take(now=NOW + 9)
        self.assertEqual(
            taken,
            rows.pending(
                state_digest=STATE,
                approval_digest=COOKIE,
                policy=Policy.FULL,
                sealed_upstream_verifier=b"sealed",
                returned_at=NOW + 9,
            ),
        )
        self.assertIsNone(self.take(now=NOW + 9))
        self.assertFalse(self.approve(digest("again")))

    def test_cookie_of_another_browser_takes_nothing(self) -> None:
        """
        RFC 6819 section 4.4.1.7: a state without its browser's cookie is of no use,
        and does not spend the sign-in either.
        """
        self.approve()
        self.assertIsNone(
            self.write(lambda c: pending.take(c, STATE, digest("other"), NOW))
        )
        self.assertIsNotNone(self.take())

    def test_unapproved_sign_in_is_not_taken(self) -> None:
        """
        Nobody comes back who was never sent.
        """
        self.write(lambda c: pending.insert(c, rows.pending()))
        self.assertIsNone(self.take())

    def test_expired_sign_in_is_neither_approved_nor_taken(self) -> None:
        """
        After ten minutes it is over.
        """
        for decide in (self.approve, self.cancel):
            self.assertFalse(decide(now=NOW + 600))
        self.assertEqual(self.count("pending_authorizations"), 0)
        self.assertTrue(self.approve(now=NOW + 599))
        self.assertIsNone(self.take(now=NOW + 600))

    def test_second_click_overwrites_the_first(self) -> None:
        """
        After a double click the browser follows the second answer; only that works.
        """
        self.approve()
        self.assertTrue(self.approve(digest("state 2"), COOKIE))
        self.assertIsNone(self.take())
        self.assertIsNotNone(self.take(digest("state 2")))

    def test_cancelled_sign_in_stays_cancelled(self) -> None:
        """
        Also one that was approved before; nothing of the approval is left.
        """
        self.assertTrue(self.approve())
        self.assertTrue(self.cancel())
        self.assertIsNone(self.take())
        self.assertFalse(self.approve())
        self.assertFalse(self.cancel())
        found = self.read(lambda c: pending.find(c, PENDING_ID, NOW))
        self.assertEqual(found, FORGOTTEN)

    def test_finished_sign_in_stays_finished(self) -> None:
        """
        Of its way nothing is left but that it was there.
        """
        self.approve()
        self.take()
        self.assertTrue(self.write(lambda c: pending.finish(c, PENDING_ID)))
        self.assertFalse(self.write(lambda c: pending.finish(c, PENDING_ID)))
        found = self.read(lambda c: pending.find(c, PENDING_ID, NOW))
        self.assertEqual(found, FORGOTTEN)
        self.assertIsNone(self.take())
        self.assertFalse(self.approve())
        self.assertFalse(self.cancel())

    def test_only_what_has_returned_is_finished(self) -> None:
        """
        Neither an unknown one nor one that may still come back.
        """
        self.assertFalse(self.write(lambda c: pending.finish(c, PENDING_ID)))
        self.approve()
        self.assertFalse(self.write(lambda c: pending.finish(c, PENDING_ID)))
        self.assertIsNotNone(self.take())

    def test_client_has_to_be_known(self) -> None:
        """
        The collector may have removed it since.
        """
        stranger = replace(rows.pending(), client_id="gone", returned_at=NOW)
        with self.assertRaises(AssertionError) as raised:
            self.decide(stranger)
        self.assertIn(IntegrityError.__name__, str(raised.exception))

    def test_parked_tokens_are_found_after_expiry(self) -> None:
        """
        An exchanged set whose user is not known yet is not lost with its sign-in.
        """
        self.assertEqual(self.read(pending.parked), [])
        self.approve()
        self.take()
        self.assertTrue(self.park())
        self.write(lambda c: pending.finish(c, PENDING_ID))
        self.assertEqual(
            self.read(pending.parked),
            [replace(FORGOTTEN, sealed_upstream_tokens=b"set")],
        )
        for expected in (True, False):
            self.assertEqual(
                self.write(lambda c: pending.unpark_upstream_tokens(c, PENDING_ID)),
                expected,
            )
        self.assertEqual(self.read(pending.parked), [])

    def test_nothing_is_parked_in_a_sign_in_that_is_gone(self) -> None:
        """
        The caller learns that the set is not kept.
        """
        self.assertFalse(self.park())
