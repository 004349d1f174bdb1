"""Everything that the daemon does again and again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from fjmcp_broker.clocks import LifetimeClock
from fjmcp_broker.config import Config
from fjmcp_broker.sessions.children.liveness import LOOK_SECONDS
from fjmcp_broker.sessions.registry import SessionRegistry
from fjmcp_broker.sessions.rotation import Rotation
from fjmcp_broker.sessions.streams.replay import Replays
from fjmcp_broker.store.collector import collect
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.upstream_tokens import dormant
from fjmcp_broker.timers import steady_timer
from fjmcp_broker.upstream.tokens import UpstreamTokens

COLLECT_SECONDS: Final = 3600.0
REAP_SECONDS: Final = 30.0
ROTATE_SECONDS: Final = 60.0


class Periodic:
    """
    The timers and their work.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        lifetimes: LifetimeClock,
        *,
        database: Database,
        registry: SessionRegistry,
        upstream: UpstreamTokens,
        replays: Replays,
        on_grant_ended: Callable[[str], None],
    ) -> None:
        """
        @param config: how long sessions live and audit events are kept.
        @param reactor: Twisted's, for the periods.
        @param lifetimes: tells what has expired.
        @param database: the store.
        @param registry: the sessions.
        @param upstream: the users' tokens.
        @param replays: what is kept of streams.
        @param on_grant_ended: called with the id of each grant that the collector has
            found to be over.
        """
        self._sessions = config.sessions
        self._audit_retention_seconds = config.audit.retention_seconds
        self._reactor = reactor
        self._database = database
        self._registry = registry
        self._replays = replays
        self._on_grant_ended = on_grant_ended
        population = registry.population
        rotation = Rotation(population, upstream, self._dormant_users, lifetimes)
        idle_seconds = self._sessions.idle_timeout_seconds
        reap_seconds = min(REAP_SECONDS, max(1.0, idle_seconds / 2))
        looking = population.look_after_children
        self._timers = [
            steady_timer(COLLECT_SECONDS, self._collect, "collect garbage", reactor),
            steady_timer(reap_seconds, self._reap, "look after idle sessions", reactor),
            steady_timer(ROTATE_SECONDS, rotation.run, "rotate tokens", reactor),
            steady_timer(LOOK_SECONDS, looking, "look after children", reactor),
        ]

    async def start(self) -> None:
        """Start all of it."""
        for timer in self._timers:
            timer.startService()

    async def stop(self) -> None:
        """End all of it, after work in progress."""
        for timer in self._timers:
            await timer.stopService()

    async def _collect(self) -> None:
        is_complete = False
        while not is_complete:
            # Time that has passed: a wrong system clock must not delete anything.
            now = int(self._reactor.seconds())
            work = partial(
                collect, now=now, audit_retention_seconds=self._audit_retention_seconds
            )
            done = await self._database.write(work)
            for grant_id in done.ended_grants:
                self._on_grant_ended(grant_id)
            is_complete = done.is_complete

    async def _reap(self) -> None:
        self._replays.expire()
        limits = self._sessions
        await self._registry.reap(limits.idle_timeout_seconds, limits.max_idle_seconds)

    async def _dormant_users(self, now: int, before: int) -> list[int]:
        return await self._database.read(
            partial(dormant, now=now, updated_before=before)
        )
