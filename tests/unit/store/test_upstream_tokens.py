"""
One token set per user.
"""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from fjmcp_broker.store import grants, pending, tokens, upstream_tokens, users
from fjmcp_broker.store.errors import SealError
from fjmcp_broker.store.revocation import end_grant
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import SIGN_IN_SECONDS, UpstreamSet

from . import rows
from .memory import NOW
from .rows import GRANT_ID, PENDING_ID, USER_ID, StoreTestCase

Number = st.none() | st.integers(min_value=1, max_value=4)


class UpstreamTokenTests(StoreTestCase):
    def save(self, tokens_set: UpstreamSet) -> None:
        self.write(lambda c: upstream_tokens.save(c, self.sealer, tokens_set))

    def save_if_newer(self, tokens_set: UpstreamSet) -> bool:
        return self.write(
            lambda c: upstream_tokens.save_if_newer(c, self.sealer, tokens_set)
        )

    def found(self) -> UpstreamSet:
        found = self.read(lambda c: upstream_tokens.find(c, self.sealer, USER_ID))
        assert found is not None
        return found

    def test_set_comes_back(self) -> None:
        """
        The one set of a user is found again; there is none for others.
        """
        first = rows.upstream(scope="read:user", grant_number=3, counter=4)
        self.save(first)
        self.assertEqual(self.found(), first)
        self.assertIsNone(self.read(lambda c: upstream_tokens.find(c, self.sealer, 99)))

    def test_tokens_are_not_readable_in_the_file(self) -> None:
        """
        The store holds neither token in the clear.
        """
        self.save(rows.upstream("visible"))
        (row,) = self.read(
            lambda c: c.execute("SELECT * FROM upstream_tokens").fetchall()
        )
        self.assertNotIn(b"visible", b"".join(v for v in row if isinstance(v, bytes)))

    def test_set_needs_its_key(self) -> None:
        """
        Without the key a set does not open.
        """
        self.save(rows.upstream())
        other = Sealer([b"x" * 32])
        self.read(
            lambda c: self.assertRaises(
                SealError, upstream_tokens.find, c, other, USER_ID
            )
        )

    @given(Number, Number, Number, Number)
    def test_higher_grant_and_counter_win(
        self,
        grant: int | None,
        counter: int | None,
        new_grant: int | None,
        new_counter: int | None,
    ) -> None:
        """
        Of two sets the one with the higher (gnt, cnt) stays; when they cannot be
        compared or are equal, the later one.
        """
        self.save(rows.upstream("old", grant_number=grant, counter=counter))
        saved = self.save_if_newer(
            rows.upstream("new", grant_number=new_grant, counter=new_counter)
        )
        if None in (grant, counter, new_grant, new_counter):
            expected = True
        else:
            expected = (new_grant, new_counter) >= (grant, counter)
        self.assertEqual(saved, expected)
        self.assertEqual(
            self.found().refresh_token.reveal(),
            "refresh new" if expected else "refresh old",
        )

    def test_first_set_is_always_newer(self) -> None:
        """
        A user without a set gets one.
        """
        self.assertTrue(self.save_if_newer(rows.upstream()))

    def test_scope_survives_a_refresh(self) -> None:
        """
        Forgejo's scopes are frozen at the first consent; a refresh does not say
        them again.
        """
        self.save(rows.upstream("1"))
        self.assertTrue(
            self.write(lambda c: upstream_tokens.set_scope(c, USER_ID, "read:user"))
        )
        self.assertFalse(self.write(lambda c: upstream_tokens.set_scope(c, 99, "x")))
        self.save(rows.upstream("2"))
        self.assertEqual(self.found().scope, "read:user")

    def test_refused_set_needs_sign_in(self) -> None:
        """
        A refused set is marked once, and any new set revives the user.
        """
        refused = rows.upstream("1")
        self.save(refused)

        def mark() -> bool:
            return self.write(
                lambda c: upstream_tokens.mark_needs_sign_in(
                    c, USER_ID, unless_changed_since=refused, now=NOW + 1
                )
            )

        self.assertTrue(mark())
        self.assertFalse(mark())
        self.assertEqual(
            self.read(lambda c: upstream_tokens.state_of(c, USER_ID)), "needs_sign_in"
        )
        self.save(rows.upstream("2"))
        self.assertEqual(
            self.read(lambda c: upstream_tokens.state_of(c, USER_ID)), "usable"
        )
        self.assertIsNone(self.read(lambda c: upstream_tokens.state_of(c, 99)))

    def test_replaced_set_is_not_the_refused_one(self) -> None:
        """
        A refusal that comes after a new sign-in suspends nobody, even within the
        same second.
        """
        refused = rows.upstream("1")
        self.save(refused)
        self.save(rows.upstream("2"))
        self.assertFalse(
            self.write(
                lambda c: upstream_tokens.mark_needs_sign_in(
                    c, USER_ID, unless_changed_since=refused, now=NOW
                )
            )
        )
        self.assertEqual(self.found().state, "usable")

    def test_dormant_sets_of_live_grants_are_due(self) -> None:
        """
        Old usable sets of users with a live grant are due for a refresh, no others.
        """

        def due(now: int = NOW) -> list[int]:
            return self.read(lambda c: upstream_tokens.dormant(c, now, NOW + 1))

        self.write(lambda c: users.upsert_user(c, 8, "bob", "Bob", NOW))
        self.save(rows.upstream())
        self.save(rows.upstream(user_id=8))
        self.assertEqual(due(), [])
        self.write(lambda c: tokens.insert_refresh(c, rows.refresh()))
        self.assertEqual(due(), [USER_ID])
        self.assertEqual(due(NOW + 91 * 24 * 3600), [])
        self.save(rows.upstream("2", updated_at=NOW + 1))
        self.assertEqual(due(), [])


class EndTests(StoreTestCase):
    """
    Whose last grant has ended leaves nothing of Forgejo's behind.
    """

    def setUp(self) -> None:
        super().setUp()
        self.write(lambda c: upstream_tokens.save(c, self.sealer, rows.upstream()))

    def has_set(self) -> bool:
        return self.read(lambda c: upstream_tokens.state_of(c, USER_ID)) is not None

    def end(self, grant_id: str = GRANT_ID, now: int = NOW) -> None:
        self.assertTrue(self.write(lambda c: end_grant(c, grant_id, now, "test")))

    def forget(self, now: int = NOW) -> bool:
        return self.write(
            lambda c: upstream_tokens.delete_without_grant(c, USER_ID, now)
        )

    def come_back(self, at: int) -> None:
        """
        Somebody comes back from Forgejo.
        """
        sign_in = rows.pending(
            created_at=at,
            expires_at=at + 600,
            state_digest=rows.digest("state"),
            returned_at=at,
        )
        self.write(lambda c: pending.insert(c, sign_in))

    def test_last_grant_takes_the_set_along(self) -> None:
        """
        The set of a user serves all grants, and nothing without one.
        """
        for grant_id in ("g_second", "g_third"):
            another = rows.grant(grant_id=grant_id)
            self.write(partial(grants.insert, grant=another))
        for grant_id in (GRANT_ID, "g_second"):
            self.end(grant_id)
            self.assertTrue(self.has_set(), grant_id)
        self.end("g_third")
        self.assertFalse(self.has_set())

    def test_other_users_do_not_matter(self) -> None:
        """
        Their grants keep nobody else's set, and lose none.
        """
        self.write(lambda c: users.upsert_user(c, 99, "bob", "Bob", NOW))
        theirs = rows.upstream("theirs", user_id=99)
        self.write(lambda c: upstream_tokens.save(c, self.sealer, theirs))
        self.write(lambda c: grants.insert(c, rows.grant(grant_id="g_b", user_id=99)))
        self.end()
        self.assertFalse(self.has_set())
        self.assertEqual(self.read(lambda c: upstream_tokens.state_of(c, 99)), "usable")

    def test_live_grant_keeps_it(self) -> None:
        """
        Nothing is forgotten without a reason.
        """
        self.assertFalse(self.forget())
        self.assertTrue(self.has_set())

    def test_sign_in_under_way_keeps_its_set(self) -> None:
        """
        Clients sign out and in at once: the end of the old grant must not take what
        the new one will need.
        """
        self.come_back(NOW - 2)
        self.end()
        self.assertTrue(self.has_set())

    def test_older_set_goes_all_the_same(self) -> None:
        """
        A set from before anybody came back belongs to no sign-in under way.
        """
        self.come_back(NOW + 1)
        self.end(now=NOW + 2)
        self.assertFalse(self.has_set())

    def test_no_sign_in_takes_so_long(self) -> None:
        """
        One that failed long ago keeps nothing.
        """
        self.come_back(NOW)
        self.end(now=NOW + SIGN_IN_SECONDS - 1)
        self.assertTrue(self.has_set())
        self.assertTrue(self.forget(NOW + SIGN_IN_SECONDS))

    def test_sign_in_that_is_over_keeps_nothing(self) -> None:
        """
        It has come to its grant; its row only keeps the answer from counting twice.
        """
        self.come_back(NOW)
        self.write(lambda c: pending.finish(c, PENDING_ID))
        self.end()
        self.assertFalse(self.has_set())
