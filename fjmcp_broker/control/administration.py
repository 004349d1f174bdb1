"""
Commands on a running daemon.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from sqlite3 import Connection
from typing import Any

import msgspec
from msgspec.structs import asdict
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.control import commands
from fjmcp_broker.control.commands import REVOKE, ROTATE_KEY, SESSIONS
from fjmcp_broker.control.protocol import Request
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.roles import Resident
from fjmcp_broker.sessions.stateless.workplace import Workplace
from fjmcp_broker.store import administration
from fjmcp_broker.store.audit import AuditEvent, Kind
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.rotation import KeyRotation
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.trail import AuditTrail


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What of the daemon commands reach.

    @ivar database: the store.
    @ivar database_path: of the store, absolute.
    @ivar sealer: seals and opens.
    @ivar configured_keys: C{database.encryption_keys}.
    @ivar clock: tells the time.
    @ivar trail: takes audit events.
    @ivar flush: writes what waits, so that lists are up to date.
    @ivar residents: the sessions that are more than their rows.
    @ivar on_grant_ended: called with the grant id after the commit that ended it.
    """

    database: Database
    database_path: str
    sealer: Sealer
    configured_keys: Sequence[Secret]
    clock: IReactorTime
    trail: AuditTrail
    flush: Callable[[], Awaitable[None]]
    residents: Iterable[Resident]
    on_grant_ended: Callable[[str], None]


class Administration:
    """
    Carries out requests.
    """

    log = Logger()

    def __init__(self, parts: Parts) -> None:
        """
        @param parts: of the daemon.
        """
        self._parts = parts
        self._rotating = DeferredLock()

    async def perform(self, request: Request, actor: str) -> object:
        """
        @param request: of an operator.
        @param actor: who that is.
        @return: the result, JSON values.
        @raise ControlError: it cannot be done.
        @raise StoreError: the store cannot be used.
        """
        if request.command == ROTATE_KEY:
            return await self._rotating.run(
                lambda: Deferred.fromCoroutine(self._rotate_key(actor))
            )
        parts = self._parts
        if request.command in ("audit", "trace"):
            await parts.flush()
        command = commands.command(request)
        now = int(parts.clock.seconds())

        def work(connection: Connection) -> commands.Outcome:
            return command.perform(connection, request, now)

        if command.writes:
            outcome = await parts.database.write(work)
        else:
            outcome = await parts.database.read(work)
        for grant_id in outcome.ended:
            parts.on_grant_ended(grant_id)
        if request.command == REVOKE:
            self._revoked(request, actor, outcome)
        if request.command == SESSIONS:
            return await self._with_states(outcome.result, request.text("user"))
        return outcome.result

    def _revoked(self, request: Request, actor: str, outcome: commands.Outcome) -> None:
        count = len(outcome.ended)
        self.log.warn("{count} grants revoked by {actor}", count=count, actor=actor)
        self._parts.trail.note(
            AuditEvent(
                at=self._parts.trail.now,
                kind=Kind.REVOKE,
                outcome="ok" if count else "nothing_left",
                user_id=outcome.user_id,
                client_id=request.text("client"),
                grant_id=request.text("grant"),
                actor=actor,
            )
        )

    async def _with_states(self, page: Any, user: str | None) -> object:
        """
        Say which sessions have a child; those of the stateless revisions have no row.
        """
        residents = list(self._parts.residents)
        states = {each.digest.hex(): each for each in residents}
        rows = page["rows"]
        for row in rows:
            found = states.get(row["digest"])
            if found is not None:
                row["state"] = str(found.children.state.value)
        if page["after"] is None:
            rows += await self._stateless(residents, user)
        return page

    async def _stateless(
        self, residents: Sequence[Resident], user: str | None
    ) -> list[administration.Row]:
        shared = [each for each in residents if isinstance(each, Workplace)]
        owners = await self._parts.database.read(
            partial(
                administration.grant_owners,
                grant_ids=sorted({each.grant_id for each in shared}),
            )
        )
        rows = [
            {
                **owners[each.grant_id],
                "session": each.name,
                "protocol_version": "stateless",
                "state": str(each.children.state.value),
                "created_at": None,
                "last_active_at": int(each.children.used_at),
            }
            for each in shared
            if each.grant_id in owners
        ]
        if user is None:
            return rows
        wanted = (user.lower(), user)
        return [
            row
            for row in rows
            if row["login"].lower() == wanted[0] or str(row["user_id"]) == wanted[1]
        ]

    async def _rotate_key(self, actor: str) -> object:
        parts = self._parts
        rotation = KeyRotation(parts.database_path, parts.configured_keys)
        parts.sealer.replace(await parts.database.write(rotation.prepare))
        step = partial(rotation.step, sealer=parts.sealer)
        while await parts.database.write(step):
            pass  # requests come in between
        rotated = await parts.database.write(rotation.finish)
        self.log.warn(
            "the store's key was rotated by {actor}, {count} values sealed anew with"
            " {key}",
            actor=actor,
            count=rotated.resealed,
            key=rotated.key_id,
        )
        parts.trail.note(
            AuditEvent(
                at=parts.trail.now, kind=Kind.ROTATE_KEY, outcome="ok", actor=actor
            )
        )
        return asdict(rotated)
