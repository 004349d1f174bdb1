"""
Commands on the store itself, while no daemon runs.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

from msgspec.structs import asdict

from fjmcp_broker.control import commands
from fjmcp_broker.control.commands import REVOKE, ROTATE_KEY
from fjmcp_broker.control.protocol import ControlError, Request
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import audit, migrations
from fjmcp_broker.store.audit import AuditEvent, Kind
from fjmcp_broker.store.connection import (
    connection_target,
    reading,
    set_up_writer,
    writing,
)
from fjmcp_broker.store.lock import StoreLock
from fjmcp_broker.store.rotation import KeyRotation
from fjmcp_broker.store.sealing import Sealer

_BUSY_SECONDS: Final = 5.0


class OfflineStore:
    """
    A store that is ours alone, as long as the block lasts.
    """

    def __init__(
        self, database_path: str, lock: StoreLock, configured: Sequence[Secret]
    ) -> None:
        """
        @param database_path: of the store.
        @param lock: of it, held.
        @param configured: C{database.encryption_keys}.
        """
        self._path = database_path
        self._lock = lock
        self._configured = configured
        self._open = ExitStack()

    def __enter__(self) -> "OfflineStore":
        """
        Open the store.

        @raise ControlError: it cannot be used.
        """
        try:
            self._connection = self._open.enter_context(
                closing(
                    sqlite3.connect(
                        connection_target(self._path),
                        uri=True,
                        isolation_level=None,
                        timeout=_BUSY_SECONDS,
                    )
                )
            )
            if migrations.check(self._connection) < len(migrations.embedded()):
                raise ControlError(
                    f"the store {self._path} is of an earlier version: start the"
                    " daemon once"
                )
            set_up_writer(self._connection)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Close it, and let others have it."""
        self._open.close()
        self._lock.release()

    def perform(self, request: Request) -> Any:
        """
        @param request: of the operator.
        @return: the result, JSON values.
        @raise ControlError: it cannot be done.
        @raise StoreError: the store cannot be used.
        """
        if request.command == ROTATE_KEY:
            return self._rotate_key()
        command, now = commands.command(request), int(time.time())

        def work(connection: sqlite3.Connection) -> commands.Outcome:
            outcome = command.perform(connection, request, now)
            if request.command == REVOKE:
                self._note_ends(connection, request, outcome, now)
            return outcome

        run = writing(work) if command.writes else reading(work)
        return run(self._connection).result

    def _note_ends(
        self,
        connection: sqlite3.Connection,
        request: Request,
        outcome: commands.Outcome,
        now: int,
    ) -> None:
        ends = [
            AuditEvent(at=now, kind=Kind.GRANT_ENDED, outcome="", grant_id=grant_id)
            for grant_id in outcome.ended
        ]
        asked = AuditEvent(
            at=now,
            kind=Kind.REVOKE,
            outcome="ok" if outcome.ended else "nothing_left",
            user_id=outcome.user_id,
            client_id=request.text("client"),
            grant_id=request.text("grant"),
            actor=_actor(),
        )
        audit.insert_many(connection, [*ends, asked])

    def _rotate_key(self) -> Any:
        connection = self._connection
        rotation = KeyRotation(self._path, self._configured)
        sealer = Sealer(writing(rotation.prepare)(connection))
        while writing(lambda c: rotation.step(c, sealer))(connection):
            pass  # one transaction after the other, as the daemon does it
        rotated = writing(rotation.finish)(connection)
        event = AuditEvent(
            at=int(time.time()), kind=Kind.ROTATE_KEY, outcome="ok", actor=_actor()
        )
        writing(lambda c: audit.insert_many(c, [event]))(connection)
        return asdict(rotated)


def _actor() -> str:
    return f"uid {os.getuid()}"
