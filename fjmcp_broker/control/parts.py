"""
What commands on a running daemon work with, and who carries them out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime

from fjmcp_broker import attrs
from fjmcp_broker.control.protocol import Request
from fjmcp_broker.control.server import Perform
from fjmcp_broker.late import Late
from fjmcp_broker.secret import Secret
from fjmcp_broker.sessions.children.roles import Resident
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.trail import AuditTrail

if TYPE_CHECKING:
    from fjmcp_broker.control.administration import Administration


@attrs.frozen(kw_only=True)
class Parts:
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


def performed_with(parts: Parts, reactor: Any) -> Perform:
    """
    @param parts: of the daemon.
    @param reactor: Twisted's; it is C{Any} because it provides a dozen interfaces.
    @return: carries out requests; what it needs is loaded with the first one.
    """
    administration: Late[Administration] = Late(
        reactor,
        "fjmcp_broker.control.administration",
        lambda module: module.Administration(parts),
    )

    async def perform(request: Request, actor: str) -> object:
        return await (await administration.get()).perform(request, actor)

    return perform
