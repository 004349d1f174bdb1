"""
Sign-ins that have begun.
"""

from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.store import pending

from . import rows
from .memory import NOW
from .rows import PENDING_ID, StoreTestCase, digest

STATE, COOKIE = digest("state"), digest("cookie")


class PendingTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(lambda c: pending.insert(c, rows.pending()))

    def approve(
        self, state: bytes = STATE, cookie: bytes = COOKIE, now: int = NOW
    ) -> bool:
        return self.write(
            lambda c: pending.approve(
                c, PENDING_ID, state, cookie, Policy.FULL, b"sealed", now
            )
        )

    def test_sign_in_comes_back(self) -> None:
        """
        The validated request is found again, until it expires.
        """
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
        taken = self.write(lambda c: pending.take(c, STATE, COOKIE, NOW + 9))
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
        self.assertIsNone(self.write(lambda c: pending.take(c, STATE, COOKIE, NOW + 9)))
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
        self.assertIsNotNone(self.write(lambda c: pending.take(c, STATE, COOKIE, NOW)))

    def test_unapproved_sign_in_is_not_taken(self) -> None:
        """
        Nobody comes back who was never sent.
        """
        self.assertIsNone(self.write(lambda c: pending.take(c, STATE, COOKIE, NOW)))

    def test_expired_sign_in_is_neither_approved_nor_taken(self) -> None:
        """
        After ten minutes it is over.
        """
        self.assertFalse(self.approve(now=NOW + 600))
        self.approve()
        self.assertIsNone(
            self.write(lambda c: pending.take(c, STATE, COOKIE, NOW + 600))
        )

    def test_second_click_overwrites_the_first(self) -> None:
        """
        After a double click the browser follows the second answer; only that works.
        """
        self.approve()
        self.assertTrue(self.approve(digest("state 2"), digest("cookie 2")))
        self.assertIsNone(self.write(lambda c: pending.take(c, STATE, COOKIE, NOW)))
        self.assertIsNotNone(
            self.write(
                lambda c: pending.take(c, digest("state 2"), digest("cookie 2"), NOW)
            )
        )

    def test_parked_tokens_are_found_after_expiry(self) -> None:
        """
        An exchanged set whose user is not known yet is not lost with its sign-in.
        """
        self.assertEqual(self.read(pending.parked), [])
        self.assertTrue(
            self.write(lambda c: pending.park_upstream_tokens(c, PENDING_ID, b"set"))
        )
        self.assertEqual(
            self.read(pending.parked), [rows.pending(sealed_upstream_tokens=b"set")]
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
        for expected in (True, False):
            self.assertEqual(
                self.write(lambda c: pending.delete(c, PENDING_ID)), expected
            )
        self.assertFalse(
            self.write(lambda c: pending.park_upstream_tokens(c, PENDING_ID, b"set"))
        )
