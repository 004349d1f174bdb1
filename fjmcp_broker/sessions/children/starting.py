"""The starts of a session's children, one after another."""

from collections.abc import Iterable

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from fjmcp_broker.mcp.messages import Request, Response
from fjmcp_broker.sessions.children.attachment import Attachment
from fjmcp_broker.sessions.children.greeting import Greeter
from fjmcp_broker.sessions.children.liveness import Liveness
from fjmcp_broker.sessions.children.roles import (
    AttachmentOwner,
    ChildrenKeeper,
)
from fjmcp_broker.sessions.children.waking import PATIENCE_SECONDS
from fjmcp_broker.sessions.children.whose import Whose
from fjmcp_broker.sessions.processes.backoff import Backoff
from fjmcp_broker.upstream.interfaces import UpstreamAccessToken


class Starter:
    """
    Makes the children of one session and has them greeted.
    """

    def __init__(
        self,
        whose: Whose,
        owner: ChildrenKeeper,
        backoff: Backoff,
        *,
        stateless: bool,
    ) -> None:
        """
        @param whose: children they are.
        @param owner: the registry.
        @param backoff: knows how the children before ended.
        @param stateless: whether the session is of the stateless revisions.
        """
        self._whose = whose
        self._owner = owner
        self._backoff = backoff
        self._greeter = Greeter(
            owner.profiles,
            owner.clock,
            lambda attachment: owner.child_started(attachment.session),
            stateless=stateless,
        )
        self._label = f"{whose.name}-{int(owner.clock.seconds() * 1000):x}"
        self._count = 0
        self._began_at = 0.0
        self._liveness: dict[Attachment, Liveness] = {}
        self._pause: Deferred[None] | None = None

    def attachment(self, keeper: AttachmentOwner) -> Attachment:
        """
        @param keeper: the session's children.
        @return: for the next child.
        """
        self._count += 1
        self._began_at = self._owner.clock.seconds()
        return Attachment(keeper, self._whose.session, f"{self._label}-{self._count}")

    def is_late(self) -> bool:
        """
        @return: whether the last one has taken longer than anybody waits who has
            another child.
        """
        return self._owner.clock.seconds() >= self._began_at + PATIENCE_SECONDS

    async def wait(self) -> None:
        """Wait until the next child may be started after those that ended quickly."""
        left = self._backoff.left(self._owner.clock.seconds())
        if left:
            self._pause = deferLater(self._owner.clock, left, lambda: None)
            try:
                await self._pause
            finally:
                self._pause = None

    def cancel(self) -> None:
        """End L{wait} with an error: there is to be no next child."""
        if self._pause is not None:
            self._pause.cancel()

    def look(self, attachments: Iterable[Attachment]) -> None:
        """
        Give up children that will not answer. To be called every few seconds.

        @param attachments: of those that live.
        """
        for attachment in attachments:
            liveness = self._liveness.get(attachment)
            if liveness is not None:
                liveness.look(attachment)

    async def greet(
        self,
        attachment: Attachment,
        token: UpstreamAccessToken,
        initialize: Request,
        *,
        is_second: bool = False,
    ) -> Response:
        """
        Start a child and have it answer for the first time, as L{Greeter.greet}, which
        says what is raised.

        @param attachment: of the child to be.
        @param token: the user's.
        @param initialize: the client's request, or the same again.
        @param is_second: whether the one before was started in vain.
        @return: its answer.
        """
        liveness = self._liveness[attachment] = Liveness(attachment, self._owner.clock)
        child = self._owner.make_child(liveness, token.text, self._whose.name)
        attachment.attach(child, token.expires_at)
        try:
            response = await self._greeter.greet(
                attachment, initialize, is_second=is_second
            )
        except BaseException:
            # It may never have been launched, and then does not end either.
            self._liveness.pop(attachment, None)
            raise
        child.when_ended().addCallback(lambda _: self._liveness.pop(attachment, None))
        return response
