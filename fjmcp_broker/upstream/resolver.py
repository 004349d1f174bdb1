"""
Looking up names that strangers chose.

A name server that does not answer holds a thread for as long as the system's resolver
is patient. The threads are the same that look up Forgejo, so strangers get only some.
"""

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

LOOKUPS_AT_ONCE: Final = 4


class TooManyLookups(Exception):  # noqa: N818 - the name says what happened
    """All threads for this are taken."""


@implementer(IResolutionReceiver)
class _Receiver:
    def __init__(self, resolver: "SystemResolver") -> None:
        self.done: Deferred[Sequence[str]] = Deferred()
        self._resolver = resolver
        self._addresses: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N802, N803 - Twisted's
        """It cannot be cut short, so this is of no use."""

    def addressResolved(self, address: IAddress) -> None:  # noqa: N802 - Twisted's
        if isinstance(address, IPv4Address | IPv6Address):
            self._addresses.append(address.host)

    def resolutionComplete(self) -> None:  # noqa: N802 - Twisted's
        self._resolver.under_way -= 1
        if not self.done.called:
            self.done.callback(list(dict.fromkeys(self._addresses)))


class SystemResolver:
    """
    The system's resolver, a few lookups at a time. A lookup that nobody waits for
    any more still counts until it has ended.

    @ivar under_way: lookups that have not ended.
    """

    def __init__(self, resolver: IHostnameResolver, at_once: int = LOOKUPS_AT_ONCE):
        """
        @param resolver: the reactor's.
        @param at_once: how many lookups.
        """
        self._resolver = resolver
        self._at_once = at_once
        self.under_way = 0

    def __call__(self, host: str) -> Deferred[Sequence[str]]:
        """
        @param host: a DNS name, ASCII.
        @return: fires with its addresses in numbers, none when there are none; fails
            with L{TooManyLookups}.
        """
        receiver = _Receiver(self)
        if self.under_way >= self._at_once:
            receiver.done.errback(TooManyLookups())
            return receiver.done
        self.under_way += 1
        resolver: Any = self._resolver
        # With its dot a name is not tried in the domains of the local network.
        resolver.resolveHostName(receiver, f"{host}.")
        return receiver.done
