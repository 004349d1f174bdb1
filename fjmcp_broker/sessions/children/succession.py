"""
The children of one session of either kind: at most one that requests go to, one that
is being started, and some that finish what they have.

L{fjmcp_broker.mcp.lifecycle} says when which of them does what; this carries it out.
"""

from typing import Final

from twisted.logger import Logger

from fjmcp_broker.logs import background
from fjmcp_broker.mcp.lifecycle import Change, State, make_lifecycle
from fjmcp_broker.mcp.messages import Response
from fjmcp_broker.sessions.children.attachment import Attachment
from fjmcp_broker.sessions.children.greeting import StartAgain
from fjmcp_broker.sessions.children.roles import ChildrenKeeper, Resident
from fjmcp_broker.sessions.children.starting import Starter
from fjmcp_broker.sessions.children.waking import Waking
from fjmcp_broker.sessions.children.whose import Whose
from fjmcp_broker.sessions.errors import (
    ChildCannotStart,
    InitializeRefused,
    SessionGone,
)
from fjmcp_broker.sessions.handshake import Told
from fjmcp_broker.sessions.processes.backoff import Backoff
from fjmcp_broker.sessions.processes.ending import (
    EXPIRED,
    UNMISSED,
    ChildEnd,
    EndReason,
    Parting,
)

DRAIN_MARGIN_SECONDS: Final = 10.0
"""So long before its token expires, a child is used no more."""

FRESH_SECONDS: Final = 15.0
"""Beyond the margin: with less left, a call has no chance to end in time."""


class Children:
    """
    The children of a session.

    @ivar told: what each new child is told.
    @ivar opening: the first child's answer to C{initialize}, or C{None}.
    @ivar state: where the session stands.
    @ivar used_at: when it was last used, seconds since the epoch.
    @ivar current: the child that requests go to, if there is one.
    @ivar old: those that only finish what they have.
    """

    log = Logger()

    def __init__(
        self,
        session: Resident,
        told: Told,
        owner: ChildrenKeeper,
        backoff: Backoff,
        *,
        stateless: bool = False,
        is_replaced: bool = True,
    ) -> None:
        """
        @param session: whose they are; it hears of them.
        @param told: what each child is told.
        @param owner: the registry.
        @param backoff: knows how the children before ended.
        @param stateless: whether the session is one of the stateless revisions.
        @param is_replaced: whether another child follows before a token expires.
        """
        self.told = told
        self.opening: Response | None = None
        self.state = State.DORMANT
        self.used_at = owner.clock.seconds()
        self._whose = whose = Whose(session, owner)
        self._owner = owner
        self._machine = make_lifecycle(self)
        self.current: Attachment | None = None
        self._next: Attachment | None = None
        self.old: set[Attachment] = set()
        self._waking = Waking(owner.clock)
        self._failure: Exception = SessionGone("the session was closed")
        self._why = UNMISSED
        self._backoff = backoff
        self._starter = Starter(whose, owner, backoff, stateless=stateless)
        self._is_replaced = is_replaced
        self._closed = False

    @property
    def living(self) -> list[Attachment]:
        """
        @return: all that may be spoken to, the newest last.
        """
        return [*self.old] + ([] if self.current is None else [self.current])

    @property
    def expires_at(self) -> int | None:
        """
        @return: when its child's token expires, C{None} without a child.
        """
        return None if self.current is None else self.current.expires_at

    @property
    def in_flight(self) -> int:
        """
        @return: how many requests wait for an answer.
        """
        held = sum(attachment.in_flight for attachment in self.old)
        return held + (0 if self.current is None else self.current.in_flight)

    @property
    def are_needed(self) -> bool:
        """
        @return: whether there are any, or somebody waits for one.
        """
        has_none = self.state in (State.DORMANT, State.CLOSED)
        return not has_none or bool(self.old or self._waking)

    @property
    def is_busy(self) -> bool:
        """
        @return: whether somebody waits for an answer or a child.
        """
        return bool(self.in_flight or self._waking)

    @property
    def is_idle(self) -> bool:
        """
        @return: whether it has a child that nobody would miss.
        """
        return self.state is State.LIVE and not self.is_busy

    # Waking and sleeping

    def take_up(self) -> bool:
        """
        @return: whether a request may go to the child at once, as nearly all may: then
            L{awake} has nothing to wait for. It counts as a use.
        """
        current, now = self.current, self._owner.clock.seconds()
        if current is None or not current.usable():
            return False
        self.used_at = now
        return current.expires_at - now > DRAIN_MARGIN_SECONDS + FRESH_SECONDS

    async def awake(self) -> None:
        """
        Wait until there is a child: to be awaited right before L{request}, which is
        called without another wait in between. A session with a living child needs
        no wait. Only then L{catalogue} is certain to be that of the child.
        Notifications and answers need no child: without one they concern nobody and
        are dropped.

        @raise SessionGone: it is closed.
        @raise Stopping: the daemon is going down.
        @raise TooManySessions: every child is busy.
        @raise ChildCannotStart: no child could be made ready.
        @raise UpstreamError: there is no usable token.
        @raise StoreError: the store cannot be used.
        """
        if self._closed:
            raise SessionGone("the session was closed")
        if self.take_up():
            return
        self.used_at = now = self._owner.clock.seconds()
        current = self.current
        if current is not None and current.usable():
            # A replacement that hangs at its start must not hold up calls.
            is_late = self._next is not None and self._starter.is_late()
            if is_late and current.expires_at - now > DRAIN_MARGIN_SECONDS:
                return
        elif current is not None:
            # On its way out, and takes nothing more.
            self.old.add(current)
            self._machine.child_ended()
        if self.current is None and self._next is None:
            self._backoff.check(now)
        waiting = self._waking.join(None if self.current is None else self._has_current)
        self._machine.rotate()
        self._machine.wake()
        self._whose.changed()
        await waiting

    def rotate(self) -> None:
        """
        Replace the child, if there is one, by one with the user's newest token.
        """
        if self._is_replaced and not self._closed:
            self._machine.rotate()

    def sleep(
        self, reason: str, told: str = "", *, at_once: bool = False, error: Exception
    ) -> None:
        """
        Let the children go; the session stays.

        @param reason: short, for the log and C{data.reason} of those who wait.
        @param told: one sentence for them.
        @param at_once: kill the children instead of letting them finish.
        @param error: for those who wait for a child.
        """
        self._why = why = Parting(reason, told or UNMISSED.told, at_once)
        self._failure = error
        if at_once:
            self._stop_old(why)
        if not self._closed:
            self._machine.sleep()

    def close(self, reason: str, told: str, *, at_once: bool, error: Exception) -> None:
        """
        Let the children go; the session is over.

        @param reason: short, for the log and C{data.reason} of those who wait.
        @param told: one sentence for them.
        @param at_once: kill the children instead of letting them finish.
        @param error: for those who wait for a child.
        """
        self._closed = True
        self._why = why = Parting(reason, told, at_once)
        self._failure = error
        self._stop_old(why)
        self._machine.close()

    def look(self) -> None:
        """Give up children that will not answer. To be called every few seconds."""
        self._starter.look(self.living)

    # From attachments

    def answered(self, attachment: Attachment) -> None:
        """
        @param attachment: has one request less in flight.
        """
        self.used_at = self._owner.clock.seconds()
        if attachment in self.old and not attachment.in_flight:
            self._stop(attachment, UNMISSED)
        self._owner.session_answered(attachment.session)

    def ended(self, attachment: Attachment, end: ChildEnd) -> None:
        """
        @param attachment: its child is no more.
        @param end: how it ended.
        """
        self.old.discard(attachment)
        if attachment.ready_at is not None:
            now = self._owner.clock.seconds()
            lived = now - attachment.ready_at
            if end.reason is not EndReason.STOPPED:
                self.log.warn(
                    "session {session}: {end}",
                    session=self._whose.name,
                    end=end.describe(),
                )
            if end.is_nobodys_fault:
                self._backoff.stopped(lived)
            else:
                self._backoff.ended(now, lived, end.last_stderr)
        if attachment is self.current:
            self._machine.child_ended()
        self._owner.session_answered(attachment.session)
        self._whose.changed()

    # From the machine

    def entered(self, change: Change) -> None:
        """
        @param change: has just begun.
        """
        if change.source is not change.target:
            self.state = change.target
            self.log.info(
                "session {session}: {before} -> {after} ({event})",
                session=self._whose.name,
                before=change.source.value,
                after=change.target.value,
                event=change.event,
            )
            self._owner.session_moved(change)
            if change.target is State.CLOSED:
                del self._machine  # it would keep this, as a session would: see Whose
            self._whose.changed()

    def start_child(self) -> None:
        """Begin to start a child."""
        self._next = self._starter.attachment(self)
        background(self._start(self._next), "the start of a child")

    def abandon_start(self) -> None:
        """Give up the child that is being started."""
        attachment, self._next = self._next, None
        self._starter.cancel()
        if attachment is not None:
            self._stop(attachment, self._why)

    def promote(self) -> None:
        """Send requests to the started child."""
        before, self.current, self._next = self.current, self._next, None
        attachment = self.current
        if attachment is not None:
            clock = self._owner.clock
            attachment.ready_at = now = clock.seconds()
            left = max(1.0, attachment.expires_at - DRAIN_MARGIN_SECONDS - now)
            attachment.expiry = clock.callLater(left, self._expired, attachment)
            self.told.repeat(attachment.ask)
            attachment.session.child_promoted(attachment)
        if before is not None:
            self.old.add(before)
            if not before.in_flight:
                self._stop(before, UNMISSED)

    def stop_child(self) -> None:
        """Stop the child that requests go to."""
        self.log.info(
            "session {session}: child stopped: {reason}",
            session=self._whose.name,
            reason=self._why.reason,
        )
        attachment, self.current = self.current, None
        if attachment is not None:
            self._stop(attachment, self._why)

    def lose_child(self) -> None:
        """Forget the child that requests went to."""
        self.current = None

    def release_waiting(self) -> None:
        """There is a child."""
        self._waking.release()

    def fail_waiting(self) -> None:
        """There will be none."""
        self._waking.fail(self._failure)
        # While they waited it was needed, and there may be no child to end.
        self._whose.changed()

    # Inside

    async def _start(self, attachment: Attachment) -> None:
        try:
            if self.current is None:
                await self._starter.wait()
            token = await self._owner.token_for(attachment.session)
            if attachment is not self._next:
                return
            first = self.told.initialize
            try:
                response = await self._starter.greet(attachment, token, first)
            except StartAgain:
                if attachment is not self._next:
                    return
                self._stop(attachment, UNMISSED)
                attachment = self._next = self._starter.attachment(self)
                response = await self._starter.greet(
                    attachment, token, first, is_second=True
                )
            if response.result is None:
                raise InitializeRefused(response)
        except Exception as error:
            if attachment is self._next:
                self._start_failed(attachment, error)
            return
        if attachment is self._next:
            self.opening = self.opening or response
            attachment.session.child_answered(attachment, response.result)
            self._machine.child_ready()

    def _has_current(self) -> bool:
        return self.current is not None and self.current.usable()

    def _start_failed(self, attachment: Attachment, error: Exception) -> None:
        self._failure = error
        if isinstance(error, ChildCannotStart):
            said = "" if attachment.child is None else attachment.child.last_stderr
            self._backoff.ended(self._owner.clock.seconds(), None, said)
        self._next = None
        self._stop(attachment, UNMISSED)
        self._machine.child_failed()

    def _expired(self, attachment: Attachment) -> None:
        attachment.expiry = None
        self.log.info("session {session}: token_expired", session=self._whose.name)
        if attachment is self.current:
            # One that is being started goes on.
            self._machine.child_ended()
        self._stop(attachment, EXPIRED)

    def _stop_old(self, why: Parting) -> None:
        for attachment in list(self.old):
            self._stop(attachment, why)

    def _stop(self, attachment: Attachment, why: Parting) -> None:
        self.old.discard(attachment)
        attachment.fail_all(why.reason, why.told)
        if attachment.child is not None:
            self._owner.stop_child(attachment.child, at_once=why.at_once)
