"""
C{twistd} with one promise of the broker broken, for tests of the tests.

Usage: C{python broken_broker.py FAULT -n fjmcp}; everything behind the fault is as
for C{twistd}.
"""

from __future__ import annotations

import secrets
import sqlite3
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec.structs import replace
from twisted.enterprise import adbapi
from twisted.scripts.twistd import run

from fjmcp_broker.mcp.messages import Request
from fjmcp_broker.oauth.bearer import Principal
from fjmcp_broker.oauth.tokens import Successor
from fjmcp_broker.sessions.children.greeting import Greeter
from fjmcp_broker.sessions.errors import SessionForbidden, SessionGone
from fjmcp_broker.sessions.handshake import Told
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.store import token_endpoint, tokens
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.upstream_tokens import UpstreamSet
from fjmcp_broker.upstream.tokens import UpstreamTokens

COMMIT_DELAY_SECONDS = 2.0


def commit_late() -> None:
    """
    Answers leave before what they tell is committed.
    """

    async def write(self: Any, transaction: Callable[[sqlite3.Connection], Any]) -> Any:
        from twisted.internet import reactor

        clock: Any = reactor

        def uncommitted(connection: sqlite3.Connection) -> Any:
            if not connection.in_transaction:
                connection.execute("BEGIN IMMEDIATE")
                clock.callFromThread(clock.callLater, COMMIT_DELAY_SECONDS, commit)
            return transaction(connection)

        def commit() -> None:
            if self._writer is not None:
                self._run(self._writer, committed)

        def committed(connection: sqlite3.Connection) -> None:
            connection.execute("COMMIT")

        return await self._run(self._opened(self._writer), uncommitted)

    patched: Any = Database
    # Only the writer's own connection sees what is not committed.
    patched.write = patched.read = write
    # adbapi commits by itself after each piece of work.
    of_adbapi: Any = adbapi.ConnectionPool
    of_adbapi._runWithConnection = lambda self, work: work(self.connectionFactory(self))


def forget_pairs() -> None:
    """
    A refresh token that is presented again gets another pair.
    """

    def invented(presented: str, key: bytes, access_number: int) -> Successor:
        return Successor(
            access_token=f"fjmcp_at_{secrets.token_urlsafe(32)}",
            refresh_token=f"fjmcp_rt_{secrets.token_urlsafe(32)}",
        )

    patched: Any = token_endpoint
    patched.derive_successor = invented


def forget_uses() -> None:
    """
    The first use of an access token is not written down.
    """
    patched: Any = tokens
    patched.mark_first_use = lambda connection, digest, now: True


def ignore_owners() -> None:
    """
    Whoever presents a session's id may use it.
    """
    everybody: dict[str, Principal] = {}
    patched: Any = SessionRegistry
    find = patched.find

    async def find_anybodys(self: Any, session_id: str, principal: Principal) -> Any:
        everybody[principal.grant_id] = principal
        try:
            return await find(self, session_id, principal)
        except SessionForbidden:
            for other in list(everybody.values()):
                with suppress(SessionForbidden, SessionGone):
                    return await find(self, session_id, other)
            raise

    patched.find = find_anybodys


def forget_handshakes() -> None:
    """
    Only a session's first child is told what the client said when it came.
    """
    known: set[bytes] = set()
    patched: Any = Greeter
    greet = patched.greet

    async def greet_plainly(
        self: Any, attachment: Any, initialize: Request, **how: Any
    ) -> Any:
        if attachment._digest in known:
            initialize = replace(initialize, params=b"{}")
        known.add(attachment._digest)
        return await greet(self, attachment, initialize, **how)

    patched.greet = greet_plainly
    forgetful: Any = Told
    forgetful.repeat = lambda self, ask: None


def refresh_apart() -> None:
    """
    Whoever needs a fresh token of a user's refreshes on his own.
    """
    patched: Any = UpstreamTokens
    refresh = patched._refresh

    def alone(self: Any, seen: UpstreamSet) -> Any:
        self._refreshes.pop(seen.user_id, None)
        return refresh(self, seen)

    patched._refresh = alone


FAULTS = {
    "commit-late": commit_late,
    "forget-handshakes": forget_handshakes,
    "forget-pairs": forget_pairs,
    "forget-uses": forget_uses,
    "ignore-owners": ignore_owners,
    "refresh-apart": refresh_apart,
}


def runner(fault: str | None) -> tuple[str, ...]:
    """
    @param fault: one of L{FAULTS}, or C{None}: the broker as it is.
    @return: for C{Daemon.launch}.
    """
    if fault is None:
        return ("twistd", "-n", "--pidfile=", "fjmcp")
    return (sys.executable, __file__, fault, "-n", "--pidfile=", "fjmcp")


if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    run()
