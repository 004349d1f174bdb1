"""The sessions' rows in a store."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.sessions.rows import SessionRows
from fjmcp_broker.store import grants, sessions, tokens
from fjmcp_broker.store.sealing import Sealer
from tests.unit.store import rows
from tests.unit.store.memory import NOW, memory_database

T = TypeVar("T")
DIGEST = b"d" * 32


class SessionRowsTests(SynchronousTestCase):
    """What the registry has written down."""

    def setUp(self) -> None:
        """A store with one grant."""
        self.database = memory_database(self)
        self.sealer = Sealer([b"k" * 32])
        self.rows = SessionRows(self.database, self.sealer)
        self.run_(self.database.write(rows.insert_grant))

    def run_(self, work: "Coroutine[Deferred[Any], Any, T]") -> T:
        """Run to the end."""
        result: T = self.successResultOf(Deferred.fromCoroutine(work))
        return result

    def open(self) -> bool:
        """Write a session down."""
        return self.run_(
            self.rows.opened(DIGEST, rows.GRANT_ID, "2025-06-18", b'{"a":1}', NOW)
        )

    def row(self) -> sessions.SessionRecord | None:
        """The session's row."""
        return self.run_(self.database.read(lambda c: sessions.find(c, DIGEST)))

    def test_opened(self) -> None:
        """With the client's params sealed."""
        self.assertTrue(self.open())
        row = self.row()
        assert row is not None
        self.assertNotIn(b'{"a"', row.sealed_initialize)
        self.assertEqual(
            self.sealer.open(
                row.sealed_initialize, row=sessions.initialize_row(DIGEST)
            ),
            b'{"a":1}',
        )
        self.assertEqual((row.grant_id, row.closed_at), (rows.GRANT_ID, None))

    def test_not_opened_for_an_ended_grant(self) -> None:
        """Revoked, or not there at all."""
        self.run_(
            self.database.write(lambda c: grants.revoke(c, rows.GRANT_ID, NOW, "x"))
        )
        self.assertFalse(self.open())
        self.assertFalse(
            self.run_(self.rows.opened(DIGEST, "g_no", "2025-06-18", b"{}", NOW))
        )
        self.assertIsNone(self.row())

    def test_revised(self) -> None:
        """While it is open."""
        self.open()
        self.assertTrue(self.run_(self.rows.revised(DIGEST, "2025-11-25")))
        row = self.row()
        assert row is not None
        self.assertEqual(row.protocol_version, "2025-11-25")
        self.run_(self.rows.closed(DIGEST, NOW, "x"))
        self.assertFalse(self.run_(self.rows.revised(DIGEST, "2025-03-26")))

    def test_closed(self) -> None:
        """With the reason."""
        self.open()
        self.run_(self.rows.closed(DIGEST, NOW + 1, "child_exited"))
        row = self.row()
        assert row is not None
        self.assertEqual((row.closed_at, row.reason), (NOW + 1, "child_exited"))

    def test_found_again(self) -> None:
        """With everything that a new child is told."""
        self.open()
        self.run_(self.rows.told(DIGEST, "debug", ["a:1", "a:2"]))
        found = self.run_(self.rows.found(DIGEST))
        assert found is not None
        self.assertEqual(found.identity.grant_id, rows.GRANT_ID)
        self.assertEqual(found.revision, "2025-06-18")
        self.assertEqual(found.told.initialize.params, b'{"a":1}')
        self.assertEqual(found.told.log_level, "debug")
        self.assertEqual(found.told.subscriptions, ("a:1", "a:2"))

    def test_not_found_after_its_end(self) -> None:
        """Unknown, closed, or of a grant that has ended."""
        self.assertIsNone(self.run_(self.rows.found(DIGEST)))
        self.open()
        self.run_(
            self.database.write(lambda c: grants.revoke(c, rows.GRANT_ID, NOW, "test"))
        )
        self.assertIsNone(self.run_(self.rows.found(DIGEST)))

    def test_not_found_after_it_was_closed(self) -> None:
        """Its client has to begin anew."""
        self.open()
        self.run_(self.rows.closed(DIGEST, NOW, "test"))
        self.assertIsNone(self.run_(self.rows.found(DIGEST)))

    def test_unused_ones_are_closed(self) -> None:
        """When nobody has used them since."""
        self.open()
        self.assertEqual(self.run_(self.rows.close_unused(NOW, NOW - 1)), [])
        self.assertEqual(self.run_(self.rows.close_unused(NOW + 1, NOW)), [DIGEST])
        row = self.row()
        assert row is not None
        self.assertEqual(row.reason, "unused")

    def test_surplus_ones_are_closed(self) -> None:
        """The longest unused first, never those that are spared."""
        digests = [bytes([number]) * 32 for number in range(4)]
        for number, digest in enumerate(digests):
            self.run_(
                self.rows.opened(
                    digest, rows.GRANT_ID, "2025-06-18", b"{}", NOW + number
                )
            )
        closed = self.run_(self.rows.close_surplus(rows.GRANT_ID, 2, [digests[0]], NOW))
        self.assertEqual(closed, [digests[1]])
        again = self.run_(self.rows.close_surplus(rows.GRANT_ID, 2, [digests[0]], NOW))
        self.assertEqual(again, [])

    def test_touched(self) -> None:
        """When it was last used, and what its client has seen."""
        self.open()
        self.run_(self.rows.touched({DIGEST: NOW + 5}, {DIGEST: "{}"}))
        row = self.row()
        assert row is not None
        self.assertEqual(row.last_active_at, NOW + 5)
        found = self.run_(self.rows.found(DIGEST))
        assert found is not None
        self.assertEqual(found.seen, "{}")

    def test_moved(self) -> None:
        """To a grant that lives, and from the one that has it."""
        self.open()
        self.run_(
            self.database.write(lambda c: grants.insert(c, rows.grant("g_other")))
        )

        def move(source: str, target: str) -> bool:
            return self.run_(self.rows.moved(DIGEST, source, target, NOW))

        self.assertFalse(move(rows.GRANT_ID, "g_other"))
        token = rows.refresh(grant_id="g_other")
        self.run_(self.database.write(lambda c: tokens.insert_refresh(c, token)))
        self.assertTrue(move(rows.GRANT_ID, "g_other"))
        self.assertFalse(move(rows.GRANT_ID, "g_other"))
        row = self.row()
        assert row is not None
        self.assertEqual(row.grant_id, "g_other")
