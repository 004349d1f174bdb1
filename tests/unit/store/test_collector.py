"""
What is removed, and what has to stay.
"""

from functools import partial
from sqlite3 import Connection

from fjmcp_broker.oauth.tokens import GRACE_SECONDS
from fjmcp_broker.store import (
    clients,
    collector,
    grants,
    pending,
    sessions,
    tokens,
    upstream_tokens,
)
from fjmcp_broker.store.collector import Collected, collect

from . import rows
from .memory import NOW
from .rows import CLIENT_ID, GRANT_ID, PENDING_ID, USER_ID, StoreTestCase, digest

DAY = 24 * 3600


class CollectorTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(lambda c: tokens.insert_refresh(c, rows.refresh()))

    def collect(self, now: int, limit: int = 1000) -> Collected:
        return self.write(lambda c: collect(c, now, limit=limit))

    def test_young_rows_stay(self) -> None:
        """
        Nothing that somebody may still ask for is removed.
        """

        def insert(connection: Connection) -> None:
            tokens.insert_code(connection, rows.code())
            tokens.insert_access(connection, rows.access())
            pending.insert(connection, rows.pending())
            sessions.insert(connection, rows.session())

        self.write(insert)
        self.assertEqual(
            self.collect(NOW + 1), Collected((), 0, 0, 0, 0, 0, 0, 0, True)
        )

    def test_used_code_stays_and_unused_one_goes(self) -> None:
        """
        A used code is needed to see its replay; an expired unused one is not.
        """
        self.write(lambda c: tokens.insert_code(c, rows.code()))
        self.write(lambda c: tokens.insert_code(c, rows.code("used", used_at=NOW)))
        self.assertEqual(self.collect(NOW + 599).codes, 0)
        self.assertEqual(self.collect(NOW + 600).codes, 1)
        self.assertIsNotNone(self.read(lambda c: tokens.find_code(c, digest("used"))))

    def test_pending_sign_in_goes_an_hour_after_it_expired(self) -> None:
        """
        A callback that is at work when the row expires can finish.
        """
        self.write(lambda c: pending.insert(c, rows.pending()))
        self.assertEqual(self.collect(NOW + 600 + 3599).pending, 0)
        self.assertEqual(self.collect(NOW + 600 + 3600).pending, 1)

    def test_parked_tokens_stay_as_long_as_they_may_work(self) -> None:
        """
        A parked set may be its user's only one; it stays while Forgejo knows it.
        """
        self.write(lambda c: pending.insert(c, rows.pending()))
        self.write(lambda c: pending.park_upstream_tokens(c, PENDING_ID, b"set"))
        self.assertEqual(self.collect(NOW + 29 * DAY).pending, 0)
        self.assertEqual(self.collect(NOW + 31 * DAY).pending, 1)

    def test_expired_access_token_goes(self) -> None:
        """
        An expired access token is answered like an unknown one anyway.
        """
        self.write(lambda c: tokens.insert_access(c, rows.access()))
        self.assertEqual(self.collect(NOW + 3599).access_tokens, 0)
        self.assertEqual(self.collect(NOW + 3600).access_tokens, 1)

    def test_tokens_of_nobody_go_after_an_hour(self) -> None:
        """
        Forgejo's tokens of a user who has no grant, after a sign-in that failed say.
        """
        self.write(lambda c: upstream_tokens.save(c, self.sealer, rows.upstream()))
        self.assertEqual(self.collect(NOW + 3 * 3600).upstream_sets, 0)
        self.write(lambda c: grants.revoke(c, GRANT_ID, NOW, "test"))
        self.assertEqual(self.collect(NOW + 3599).upstream_sets, 0)
        self.assertEqual(self.collect(NOW + 3600).upstream_sets, 1)
        self.assertIsNone(self.read(lambda c: upstream_tokens.state_of(c, USER_ID)))

    def rotate(self, *, first_used_at: int | None) -> None:
        def rotate(connection: Connection) -> None:
            tokens.rotate_refresh(
                connection,
                digest("refresh"),
                NOW,
                sealed_derivation_key=b"key",
                successor_refresh_digest=digest("refresh 2"),
                successor_access_digest=digest("access 2"),
            )
            tokens.insert_refresh(connection, rows.refresh("refresh 2"))
            tokens.insert_access(
                connection, rows.access("access 2", first_used_at=first_used_at)
            )

        self.write(rotate)

    def test_unused_successor_stays_while_its_rotation_is_answered(self) -> None:
        """
        A client that lost the answer may sleep overnight: what says that its
        successor was never used stays, and so does the key.
        """
        self.rotate(first_used_at=None)
        collected = self.collect(NOW + DAY)
        self.assertEqual((collected.access_tokens, collected.erased_keys), (0, 0))

    def test_key_of_a_settled_rotation_is_erased(self) -> None:
        """
        Once a successor was used and the minute is over, no answer can need the
        key; the successor then goes when it has expired.
        """
        self.rotate(first_used_at=NOW)
        self.assertEqual(self.collect(NOW + GRACE_SECONDS).erased_keys, 0)
        self.assertEqual(self.collect(NOW + GRACE_SECONDS + 1).erased_keys, 1)
        self.assertEqual(self.collect(NOW + 3600).access_tokens, 1)

    def test_rotated_refresh_token_stays_with_its_grant(self) -> None:
        """
        RFC 9700 section 4.14.2: reuse of a rotated token is seen for as long as the
        grant lives.
        """
        self.rotate(first_used_at=NOW)
        self.collect(NOW + 89 * DAY)
        self.assertIsNotNone(
            self.read(lambda c: tokens.find_refresh(c, digest("refresh")))
        )

    def test_grant_without_a_way_to_refresh_ends(self) -> None:
        """
        A grant whose newest refresh token has expired ends, its sessions with it.
        """
        self.write(lambda c: sessions.insert(c, rows.session()))
        collected = self.collect(NOW + 90 * DAY)
        self.assertEqual(collected.ended_grants, (GRANT_ID,))
        grant = self.read(lambda c: grants.find(c, GRANT_ID))
        assert grant is not None
        self.assertEqual((grant.revoked_at, grant.reason), (NOW + 90 * DAY, "expired"))
        session = self.read(lambda c: sessions.find(c, digest("session")))
        assert session is not None
        self.assertEqual(session.closed_at, NOW + 90 * DAY)
        self.assertEqual(self.collect(NOW + 90 * DAY).ended_grants, ())

    def test_grant_with_an_unused_code_does_not_end(self) -> None:
        """
        Between callback and exchange a grant has only its code.
        """
        self.write(lambda c: grants.insert(c, rows.grant("g_2")))
        self.write(lambda c: tokens.insert_code(c, rows.code(grant_id="g_2")))
        self.assertEqual(self.collect(NOW + 599).ended_grants, ())
        self.assertEqual(self.collect(NOW + 600).ended_grants, ("g_2",))

    def test_ended_grant_goes_with_all_it_issued(self) -> None:
        """
        A month after its end nothing of a grant is left.
        """
        self.write(lambda c: tokens.insert_code(c, rows.code(used_at=NOW)))
        self.write(lambda c: sessions.insert(c, rows.session()))
        self.write(lambda c: grants.revoke(c, GRANT_ID, NOW, "test"))
        self.assertEqual(self.collect(NOW + 30 * DAY - 1).grants, 0)
        self.assertEqual(self.collect(NOW + 30 * DAY).grants, 1)
        for table in ("authorization_codes", "refresh_tokens", "sessions"):
            self.assertEqual((table, self.count(table)), (table, 0))

    def test_closed_session_goes_after_a_week(self) -> None:
        """
        Closed sessions are 404 like unknown ones; a week is for the operator.
        """
        self.write(lambda c: sessions.insert(c, rows.session(closed_at=NOW)))
        self.assertEqual(self.collect(NOW + 7 * DAY - 1).sessions, 0)
        self.assertEqual(self.collect(NOW + 7 * DAY).sessions, 1)

    def test_client_that_never_signed_in_goes_after_three_days(self) -> None:
        """
        Only dynamic clients without grant and pending sign-in go.
        """

        def insert(connection: Connection) -> None:
            clients.insert(connection, rows.client("unused"))
            clients.insert(connection, rows.client("static", kind="static"))
            clients.insert(connection, rows.client("busy"))
            clients.insert(connection, rows.client("new", created_at=NOW + 1))
            pending.insert(
                connection,
                rows.pending(client_id="busy", expires_at=NOW + 72 * 3600),
            )

        self.write(insert)
        self.assertEqual(self.collect(NOW + 72 * 3600).clients, 1)
        self.assertIsNone(self.read(lambda c: clients.find(c, "unused")))

    def test_document_that_nobody_signed_in_with_goes_after_two_hours(self) -> None:
        """
        It can be fetched again; whoever has a web server has very many of them.
        """

        def insert(connection: Connection) -> None:
            for name in ("https://a.example/1", "https://a.example/2"):
                clients.insert(connection, rows.client(name, kind="metadata-document"))
            clients.insert(connection, rows.client("dynamic"))
            pending.insert(
                connection,
                rows.pending(client_id="https://a.example/2", expires_at=NOW + 7200),
            )

        self.write(insert)
        self.assertEqual(self.collect(NOW + 7199).clients, 0)
        self.assertEqual(self.collect(NOW + 7200).clients, 1)
        self.assertIsNone(self.read(lambda c: clients.find(c, "https://a.example/1")))

    def test_client_goes_400_days_after_its_last_use(self) -> None:
        """
        Clients keep their id: it is known for long after the last refresh, not only
        after the last sign-in.
        """
        used = NOW + 200 * DAY
        self.write(lambda c: clients.mark_used(c, CLIENT_ID, NOW))
        self.write(lambda c: grants.mark_used(c, GRANT_ID, used))
        self.write(lambda c: grants.revoke(c, GRANT_ID, used, "test"))
        self.assertEqual(self.collect(used + 31 * DAY).grants, 1)
        self.assertEqual(self.collect(used + 400 * DAY - 1).clients, 0)
        self.assertEqual(self.collect(used + 400 * DAY).clients, 1)

    def test_runs_are_small(self) -> None:
        """
        A run removes so many rows of a kind and says whether there may be more.
        """
        for number in range(5):
            session = rows.session(str(number), closed_at=NOW)
            self.write(partial(sessions.insert, session=session))
        now = NOW + collector.CLOSED_SESSION_KEPT_SECONDS
        runs = [self.collect(now, limit=2) for _ in range(3)]
        self.assertEqual([run.sessions for run in runs], [2, 2, 1])
        self.assertEqual([run.is_complete for run in runs], [False, False, True])
