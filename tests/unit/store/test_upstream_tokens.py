"""
One token set per user.
"""

from hypothesis import given
from hypothesis import strategies as st

from fjmcp_broker.store import tokens, upstream_tokens, users
from fjmcp_broker.store.errors import SealError
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import UpstreamSet

from . import rows
from .memory import NOW
from .rows import USER_ID, StoreTestCase

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
