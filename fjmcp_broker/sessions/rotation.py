"""
Fresh tokens before the old ones expire: children are replaced while they work, and
users who have been away for long keep their sign-in.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.sessions.children.population import Population
from fjmcp_broker.upstream.interfaces import UpstreamAccessToken

LEAD_SECONDS: Final = 120
"""A token that lives no longer than that is replaced; twice the time between looks."""

DORMANT_EVERY_SECONDS: Final = 3600
DORMANT_AFTER_SECONDS: Final = 14 * 24 * 3600
"""Forgejo forgets a refresh token after 730 hours without use."""

_BEYOND_ANY_LIFE: Final = 10 * 365 * 24 * 3600


class Refresher(Protocol):
    """
    What L{fjmcp_broker.upstream.tokens.UpstreamTokens} does for a rotation.
    """

    async def refresh_due(
        self, user_ids: Iterable[int], minimum_life_seconds: int = 120
    ) -> dict[int, UpstreamAccessToken | BrokerError]:
        """
        @param user_ids: those to look after.
        @param minimum_life_seconds: what would expire sooner is refreshed.
        @return: for each user the token or what went wrong.
        """


class Rotation:
    """
    The body of a timer.
    """

    log = Logger()

    def __init__(
        self,
        population: Population,
        tokens: Refresher,
        dormant_users: Callable[[int, int], Awaitable[list[int]]],
        clock: IReactorTime,
    ) -> None:
        """
        @param population: the sessions with children.
        @param tokens: refreshes the users' tokens.
        @param dormant_users: given now and an earlier moment, both seconds since the
            epoch, finds the users whose tokens were not refreshed since then.
        @param clock: tells the time.
        """
        self._population = population
        self._tokens = tokens
        self._dormant_users = dormant_users
        self._clock = clock
        self._dormant_at = 0.0

    async def run(self) -> None:
        """
        Refresh what expires soon and begin to replace the children that have it.

        @raise StoreError: the store cannot be read.
        """
        now = self._clock.seconds()
        due = self._population.users_with_expiring_children(now + LEAD_SECONDS)
        for user_id, got in (await self._refresh(due, LEAD_SECONDS)).items():
            self._population.rotate_user(user_id, got.expires_at)
        # A clock that was set back must not put this off.
        if not 0 <= self._dormant_at - now <= DORMANT_EVERY_SECONDS:
            self._dormant_at = now + DORMANT_EVERY_SECONDS
            long_ago = int(now) - DORMANT_AFTER_SECONDS
            users = await self._dormant_users(int(now), long_ago)
            await self._refresh(users, _BEYOND_ANY_LIFE)

    async def _refresh(
        self, users: Iterable[int], minimum_life_seconds: int
    ) -> dict[int, UpstreamAccessToken]:
        """
        @return: the tokens of those for whom it worked.
        """
        fresh = {}
        results = await self._tokens.refresh_due(users, minimum_life_seconds)
        for user_id, result in results.items():
            if isinstance(result, UpstreamAccessToken):
                fresh[user_id] = result
            else:
                self.log.warn(
                    "the tokens of user {user_id} were not refreshed: {problem}",
                    user_id=user_id,
                    problem=str(result),
                )
        return fresh
