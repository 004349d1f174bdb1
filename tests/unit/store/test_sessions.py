"""
Session rows.
"""

from fjmcp_broker.store import grants, sessions

from . import rows
from .memory import NOW
from .rows import GRANT_ID, StoreTestCase, digest

SESSION = digest("session")


class SessionTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(lambda c: grants.insert(c, rows.grant("g_2")))
        self.write(lambda c: sessions.insert(c, rows.session()))

    def found(self, text: str = "session") -> sessions.SessionRecord:
        found = self.read(lambda c: sessions.find(c, digest(text)))
        assert found is not None
        return found

    def test_session_comes_back(self) -> None:
        """
        A session is found again with everything a restart needs.
        """
        full = rows.session(
            "full", log_level="debug", subscriptions=("a://b", "ü"), closed_at=NOW
        )
        self.write(lambda c: sessions.insert(c, full))
        self.assertEqual(self.found("full"), full)
        self.assertEqual(self.found(), rows.session())
        self.assertIsNone(self.read(lambda c: sessions.find(c, digest("x"))))

    def test_settings_are_kept(self) -> None:
        """
        Log level and subscriptions are there for the next child.
        """
        self.assertTrue(
            self.write(lambda c: sessions.set_log_level(c, SESSION, "info"))
        )
        self.assertTrue(
            self.write(lambda c: sessions.set_subscriptions(c, SESSION, ["a://b"]))
        )
        self.assertEqual(
            self.found(), rows.session(log_level="info", subscriptions=("a://b",))
        )

    def test_activity_never_goes_back(self) -> None:
        """
        Batches may be written in any order.
        """
        self.write(
            lambda c: sessions.touch_many(c, [(SESSION, NOW + 5), (SESSION, NOW + 2)])
        )
        self.assertEqual(self.found().last_active_at, NOW + 5)

    def test_session_is_closed_once(self) -> None:
        """
        A closed session stays closed, with its first reason, and changes no more.
        """
        self.assertTrue(self.write(lambda c: sessions.close(c, SESSION, NOW, "one")))
        self.assertFalse(self.write(lambda c: sessions.close(c, SESSION, NOW, "two")))
        self.assertFalse(
            self.write(lambda c: sessions.set_log_level(c, SESSION, "info"))
        )
        self.assertFalse(
            self.write(lambda c: sessions.set_subscriptions(c, SESSION, []))
        )
        self.write(lambda c: sessions.touch_many(c, [(SESSION, NOW + 5)]))
        self.assertEqual(self.found(), rows.session(closed_at=NOW, reason="one"))

    def test_open_session_moves_to_another_grant(self) -> None:
        """
        A client that authorised again takes its session along, once.
        """
        self.assertTrue(
            self.write(lambda c: sessions.move(c, SESSION, GRANT_ID, "g_2"))
        )
        self.assertFalse(
            self.write(lambda c: sessions.move(c, SESSION, GRANT_ID, "g_2"))
        )
        self.assertEqual(self.found().grant_id, "g_2")

    def test_closed_session_does_not_move(self) -> None:
        """
        What is closed cannot be adopted.
        """
        self.write(lambda c: sessions.close(c, SESSION, NOW, "one"))
        self.assertFalse(
            self.write(lambda c: sessions.move(c, SESSION, GRANT_ID, "g_2"))
        )

    def test_sessions_of_a_grant_are_closed_together(self) -> None:
        """
        The end of a grant closes its open sessions and names them; others stay.
        """
        other = rows.session("other", grant_id="g_2")
        self.write(
            lambda c: sessions.insert(c, rows.session("2", last_active_at=NOW - 1))
        )
        self.write(lambda c: sessions.insert(c, other))
        self.assertEqual(
            self.read(lambda c: sessions.open_of_grant(c, GRANT_ID)),
            [digest("2"), SESSION],
        )
        closed = self.write(
            lambda c: sessions.close_of_grant(c, GRANT_ID, NOW, "ended")
        )
        self.assertEqual(set(closed), {SESSION, digest("2")})
        self.assertEqual(self.found("other"), other)
        self.assertEqual(self.read(lambda c: sessions.open_of_grant(c, GRANT_ID)), [])
        self.assertEqual(
            self.write(lambda c: sessions.close_of_grant(c, GRANT_ID, NOW, "x")), []
        )

    def test_all_open_sessions_are_closed(self) -> None:
        """
        Until sessions survive a restart, a start closes what the last one left.
        """
        self.write(lambda c: sessions.insert(c, rows.session("2", closed_at=NOW)))
        self.assertEqual(
            self.write(lambda c: sessions.close_all_open(c, NOW, "restart")), 1
        )

    def test_sessions_unused_for_long_are_closed(self) -> None:
        """
        Only sessions whose last activity is that old are closed.
        """
        self.write(
            lambda c: sessions.insert(c, rows.session("2", last_active_at=NOW - 9))
        )
        closed = self.write(
            lambda c: sessions.close_idle(c, NOW, "idle", unused_since=NOW - 9)
        )
        self.assertEqual(closed, [digest("2")])

    def test_session_goes_with_its_grant(self) -> None:
        """
        No session outlives the row of its grant.
        """
        self.write(
            lambda c: (
                c.execute("DELETE FROM grants WHERE grant_id = ?", (GRANT_ID,)).rowcount
            )
        )
        self.assertEqual(self.count("sessions"), 0)
