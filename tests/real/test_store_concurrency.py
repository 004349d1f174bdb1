"""
What must happen once happens once, whoever asks at the same time.

Every caller has a thread and a connection of its own here, which is harder than the
daemon's one writer: the statements themselves have to hold.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from sqlite3 import Connection
from threading import Barrier

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.store import grants, pending, sessions, tokens, upstream_tokens
from fjmcp_broker.store.instance import Instance
from fjmcp_broker.store.preflight import prepare
from fjmcp_broker.store.sealing import Sealer
from tests.unit.store import rows
from tests.unit.store.memory import NOW, inline_database
from tests.unit.store.rows import GRANT_ID, USER_ID, digest

CALLERS = 6
X, Y = digest("x"), digest("y")
SEALER = Sealer([b"k" * 32])


class OnceTests(SynchronousTestCase):
    timeout = 120

    def setUp(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "store.db")
        prepare(path, [], Instance("https://git.example", "app"), NOW)
        self.databases = [inline_database(path) for _ in range(CALLERS)]
        self.threads = ThreadPoolExecutor(CALLERS)
        for database in self.databases:
            self.successResultOf(Deferred.fromCoroutine(database.open()))
        self.write(rows.insert_grant)

    def tearDown(self) -> None:
        # Connections are closed by the thread that made them or by this one alike.
        self.threads.shutdown()
        for database in self.databases:
            self.successResultOf(Deferred.fromCoroutine(database.close()))

    def write(self, transaction: Callable[[Connection], object]) -> object:
        return self.successResultOf(
            Deferred.fromCoroutine(self.databases[0].write(transaction))
        )

    def at_once(
        self, callers: int, ask: Callable[[Connection, int], object]
    ) -> list[object]:
        """
        @return: the answers of so many callers who ask at the same time.
        """
        start = Barrier(callers, timeout=20)

        def call(number: int) -> object:
            start.wait()
            asked = self.databases[number].write(lambda c: ask(c, number))
            return self.successResultOf(Deferred.fromCoroutine(asked))

        return list(self.threads.map(call, range(callers)))

    @settings(max_examples=15, deadline=None)
    @given(st.integers(min_value=2, max_value=CALLERS), st.text(max_size=5))
    def test_code_is_used_once(self, callers: int, text: str) -> None:
        """
        RFC 6749 section 4.1.2: of any number of exchanges of one code exactly one
        gets it.
        """
        code = digest(f"code {text}")
        self.write(lambda c: c.execute("DELETE FROM authorization_codes").rowcount)
        self.write(lambda c: tokens.insert_code(c, rows.code(code_digest=code)))
        answers = self.at_once(callers, lambda c, n: tokens.use_code(c, code, NOW + n))
        self.assertEqual(sorted(answers, key=bool), [False] * (callers - 1) + [True])

    @settings(max_examples=10, deadline=None)
    @given(st.integers(min_value=2, max_value=CALLERS))
    def test_refresh_token_is_rotated_once(self, callers: int) -> None:
        """
        Of any number of refreshes exactly one makes the successors; what is stored
        is that one's.
        """
        self.write(lambda c: c.execute("DELETE FROM refresh_tokens").rowcount)
        self.write(lambda c: tokens.insert_refresh(c, rows.refresh()))

        def rotate(connection: Connection, number: int) -> bool:
            return tokens.rotate_refresh(
                connection,
                digest("refresh"),
                NOW,
                sealed_derivation_key=bytes([number]),
                successor_refresh_digest=digest(f"refresh {number}"),
                successor_access_digest=digest(f"access {number}"),
            )

        answers = self.at_once(callers, rotate)
        self.assertEqual(answers.count(True), 1)
        stored = self.write(lambda c: tokens.find_refresh(c, digest("refresh")))
        winner = answers.index(True)
        self.assertEqual(
            getattr(stored, "successor_refresh_digest", None),
            digest(f"refresh {winner}"),
        )

    def test_everything_else_that_happens_once(self) -> None:
        """
        Callbacks, first uses, revocations, renewals, refusals, closings and
        cancellations: one of all callers each.
        """

        def insert(connection: Connection) -> None:
            tokens.insert_access(connection, rows.access())
            tokens.insert_refresh(
                connection,
                rows.refresh("rotated", rotated_at=NOW, sealed_derivation_key=b"k"),
            )
            approved = rows.pending(
                state_digest=X, approval_digest=Y, policy=Policy.FULL
            )
            pending.decide(connection, approved, NOW)
            sessions.insert(connection, rows.session())
            upstream_tokens.save(connection, SEALER, rows.upstream())

        self.write(insert)
        access, session = digest("access"), digest("session")
        cancelled = rows.pending("p_cancelled", returned_at=NOW)
        once: list[Callable[[Connection], object]] = [
            lambda c: pending.take(c, X, Y, NOW),
            lambda c: tokens.mark_first_use(c, access, NOW),
            lambda c: tokens.revoke_access(c, access, NOW),
            lambda c: tokens.replace_successor_access(c, digest("rotated"), X, 1),
            lambda c: upstream_tokens.mark_needs_sign_in(
                c, USER_ID, unless_changed_since=rows.upstream(), now=NOW
            ),
            lambda c: sessions.close(c, session, NOW, "x"),
            lambda c: grants.revoke(c, GRANT_ID, NOW, "x"),
            lambda c: pending.decide(c, cancelled, NOW),
        ]
        for number, ask in enumerate(once):
            answers = self.at_once(CALLERS, lambda c, n, ask=ask: ask(c))  # type: ignore[misc]
            self.assertEqual((number, sum(map(bool, answers))), (number, 1))

    @settings(max_examples=10, deadline=None)
    @given(st.permutations(range(1, CALLERS + 1)))
    def test_newest_upstream_set_stays(self, counters: list[int]) -> None:
        """
        In whatever order sets of one user arrive, the one with the highest counter
        is there in the end.
        """
        self.write(lambda c: c.execute("DELETE FROM upstream_tokens").rowcount)

        def save(connection: Connection, number: int) -> bool:
            counter = counters[number]
            return upstream_tokens.save_if_newer(
                connection,
                SEALER,
                rows.upstream(str(counter), grant_number=1, counter=counter),
            )

        self.at_once(CALLERS, save)
        stored = self.write(
            partial(upstream_tokens.find, sealer=SEALER, user_id=USER_ID)
        )
        self.assertEqual(getattr(stored, "counter", None), CALLERS)
