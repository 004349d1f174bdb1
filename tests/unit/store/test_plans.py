"""
Statements find their rows by an index: what SQLite itself says about each of them.
"""

from collections.abc import Callable
from sqlite3 import Connection

from fjmcp_broker.store import (
    audit,
    bearer_check,
    clients,
    collector,
    grants,
    pending,
    sessions,
    tokens,
    upstream_tokens,
    users,
)
from fjmcp_broker.store.audit import AuditEvent, Kind

from . import rows
from .memory import NOW
from .rows import CLIENT_ID, GRANT_ID, PENDING_ID, USER_ID, StoreTestCase, digest

X = digest("x")


class PlanTests(StoreTestCase):
    def statements(self, work: Callable[[Connection], object]) -> list[str]:
        """
        @return: the statements that the work executes, with their values.
        """
        seen: list[str] = []

        def run(connection: Connection) -> None:
            connection.set_trace_callback(seen.append)
            try:
                work(connection)
            finally:
                connection.set_trace_callback(None)

        self.write(run)
        # Lines that begin with a comment sign tell about cascades and triggers.
        return [text for text in seen if not text.startswith("--")]

    def scans(self, statement: str) -> set[str]:
        """
        @return: the tables that the statement reads as a whole, by its plan.
        """
        plan = self.read(
            lambda c: c.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        )
        details = [detail for *_, detail in plan]
        return {
            detail
            for detail in details
            if detail.startswith("SCAN") and "CONSTANT ROW" not in detail
        }

    def assert_searches(self, *works: Callable[[Connection], object]) -> None:
        for work in works:
            statements = self.statements(work)
            self.assertNotEqual(statements, [])
            for statement in statements:
                self.assertEqual((statement, self.scans(statement)), (statement, set()))

    def test_a_missing_index_would_be_seen(self) -> None:
        """
        The test itself tells a scan from a search.
        """
        self.assertNotEqual(
            self.scans("SELECT * FROM users WHERE login = 'ada'"), set()
        )
        self.assertEqual(self.scans("SELECT * FROM users WHERE user_id = 7"), set())

    def test_mcp_calls_search(self) -> None:
        """
        The path of an MCP call: bearer check, first use, session, activity.
        """
        self.write(lambda c: upstream_tokens.save(c, self.sealer, rows.upstream()))
        self.write(lambda c: tokens.insert_access(c, rows.access()))
        access = digest("access")
        self.assert_searches(
            lambda c: tokens.principal(c, access),
            lambda c: bearer_check.first_use(c, access, NOW),
            lambda c: sessions.find(c, X),
            lambda c: sessions.touch_many(c, [(X, NOW)]),
            lambda c: sessions.open_of_grant(c, GRANT_ID),
            lambda c: sessions.set_protocol_version(c, X, "2025-06-18"),
            lambda c: sessions.move(c, X, GRANT_ID, GRANT_ID),
            lambda c: sessions.close(c, X, NOW, "x"),
            lambda c: sessions.close_of_grant(c, GRANT_ID, NOW, "x"),
            lambda c: sessions.close_idle(c, NOW, "x", unused_since=NOW),
            lambda c: upstream_tokens.find(c, self.sealer, USER_ID),
            lambda c: upstream_tokens.save_if_newer(c, self.sealer, rows.upstream()),
        )

    def test_sign_in_and_refresh_search(self) -> None:
        """
        The paths of the OAuth endpoints.
        """
        self.assert_searches(
            lambda c: clients.find(c, CLIENT_ID),
            lambda c: clients.mark_used(c, CLIENT_ID, NOW),
            lambda c: pending.find(c, PENDING_ID, NOW),
            lambda c: pending.decide(c, rows.pending(), NOW),
            lambda c: pending.take(c, X, X, NOW),
            lambda c: pending.find_taken(c, X, X, NOW),
            lambda c: pending.park_upstream_tokens(c, PENDING_ID, b""),
            lambda c: pending.finish(c, PENDING_ID),
            lambda c: users.upsert_user(c, USER_ID, "ada", "Ada", NOW),
            lambda c: grants.find(c, GRANT_ID),
            lambda c: grants.grants_of_user(c, USER_ID),
            lambda c: grants.is_live(c, GRANT_ID, NOW),
            lambda c: grants.mark_used(c, GRANT_ID, NOW),
            lambda c: grants.revoke(c, GRANT_ID, NOW, "x"),
            lambda c: tokens.find_code(c, X),
            lambda c: tokens.is_code_unused(c, X, NOW),
            lambda c: tokens.use_code(c, X, NOW),
            lambda c: tokens.find_access(c, X),
            lambda c: tokens.revoke_access(c, X, NOW),
            lambda c: tokens.find_refresh(c, X),
            lambda c: tokens.rotate_refresh(
                c,
                X,
                NOW,
                sealed_derivation_key=b"",
                successor_refresh_digest=X,
                successor_access_digest=X,
            ),
            lambda c: tokens.replace_successor_access(c, X, X, 1),
            lambda c: bearer_check.erase_spent_keys(c, NOW, GRANT_ID),
            lambda c: upstream_tokens.mark_needs_sign_in(
                c, USER_ID, unless_changed_since=rows.upstream(), now=NOW
            ),
            lambda c: upstream_tokens.is_stored(c, rows.upstream()),
            lambda c: upstream_tokens.mark_usable(c, USER_ID),
        )

    def test_audit_searches(self) -> None:
        """
        There are millions of events.
        """
        ended = AuditEvent(at=NOW, kind=Kind.GRANT_ENDED, outcome="", grant_id="g")
        call = NOW, USER_ID, CLIENT_ID, GRANT_ID, "session", "tool", "ok", 1
        self.assert_searches(
            lambda c: audit.insert_rows(c, [audit.row_of(ended), call]),
            lambda c: audit.select(c, limit=5, since=NOW),
            lambda c: audit.select(c, limit=5, user_id=USER_ID, after=(NOW, 7)),
            lambda c: audit.delete_before(c, NOW, 5),
        )

    def test_collector_reads_only_what_is_live_as_a_whole(self) -> None:
        """
        The collector looks at every live grant and at every user's token set, of which
        there is one; everything else it finds by an index.
        """
        seen: set[str] = set()
        for statement in self.statements(lambda c: collector.collect(c, NOW)):
            seen |= self.scans(statement)
        # One of these is the list of grants just found to be past their month.
        expected = ("grants_not_revoked", "ended", "SCAN leftover")
        self.assertEqual(
            [scan for scan in seen if not any(name in scan for name in expected)], []
        )

    def test_open_sessions_are_counted_in_their_index(self) -> None:
        """
        Not among the closed ones, of which there are many.
        """
        (statement,) = self.statements(sessions.count_open)
        (scan,) = self.scans(statement)
        self.assertIn("INDEX sessions_open_by_activity", scan)

    def test_cascades_search(self) -> None:
        """
        Every foreign key has an index on the side that has to be found.
        """

        def unindexed(connection: Connection) -> list[tuple[str, str]]:
            keys = connection.execute(
                'SELECT tables.name, keys."from" FROM sqlite_schema AS tables,'
                " pragma_foreign_key_list(tables.name) AS keys"
                " WHERE tables.type = 'table'"
            ).fetchall()
            indexed = set(
                connection.execute(
                    "SELECT tables.name, columns.name FROM sqlite_schema AS tables,"
                    " pragma_index_list(tables.name) AS indexes,"
                    " pragma_index_info(indexes.name) AS columns"
                    " WHERE columns.seqno = 0 AND indexes.partial = 0"
                    " UNION SELECT tables.name, columns.name"
                    " FROM sqlite_schema AS tables,"
                    " pragma_table_info(tables.name) AS columns WHERE columns.pk = 1"
                )
            )
            return [key for key in keys if key not in indexed]

        self.assertEqual(self.read(unindexed), [])
