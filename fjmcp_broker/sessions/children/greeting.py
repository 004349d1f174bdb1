"""
The first words with a child: which era it speaks, and what it says about itself (MCP
2026-07-28, transports, stdio, backward compatibility).

A program that nobody has met is asked with C{server/discover}. One that dies of it or
does not answer is started again without the question, and speaks the older revisions.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.mcp.messages import Request, Response, encode, parse
from fjmcp_broker.mcp.modern.profiles import (
    ChildEra,
    ChildProfile,
    judge_probe,
    probe,
)
from fjmcp_broker.sessions.children.attachment import Attachment
from fjmcp_broker.sessions.children.profiles import ChildProfiles
from fjmcp_broker.sessions.children.waiting import Opening
from fjmcp_broker.sessions.errors import ChildCannotStart, ChildGone
from fjmcp_broker.version import VERSION

PROBE_SECONDS: Final = 2.0
"""How long a child may think about C{server/discover}."""


class StartAgain(Exception):  # noqa: N818 - it says what to do
    """
    Another process is needed, which is spoken to in another way.
    """


class Greeter:
    """
    Makes the children of one session ready.
    """

    def __init__(
        self,
        profiles: ChildProfiles,
        clock: IReactorTime,
        on_started: Callable[[Attachment], None],
        *,
        stateless: bool,
    ) -> None:
        """
        @param profiles: what is known of children, and is learnt from them.
        @param clock: for the wait.
        @param on_started: called while the child of an attachment starts and has time
            to answer.
        @param stateless: whether the session is one of the stateless revisions.
        """
        self._profiles = profiles
        self._clock = clock
        self._on_started = on_started
        self._stateless = stateless

    async def greet(
        self, attachment: Attachment, initialize: Request, *, is_second: bool
    ) -> Response:
        """
        Start the child of an attachment and make it ready.

        @param attachment: with a child that was not started.
        @param initialize: what it is told if it speaks the older revisions, or if the
            session is one of those.
        @param is_second: whether the process before failed to answer the question.
        @return: its answer to C{initialize} or C{server/discover}: a result, or an
            error.
        @raise ChildCannotStart: it ended or took too long.
        @raise StartAgain: see there. Not when it C{is_second}.
        """
        identity = self._profiles.identity()
        known = self._profiles.known(identity)
        if known is None and not is_second:
            try:
                response = await self._inquire(attachment, QUESTION, PROBE_SECONDS)
            except ChildCannotStart:
                raise StartAgain from None
            if self._judge(identity, response):
                if not self._stateless:
                    # Some lock themselves into the era of the first request.
                    raise StartAgain
                attachment.begin_stateless()
                return response
        elif known is not None and known.era is not ChildEra.LEGACY and self._stateless:
            response = await self._inquire(attachment, QUESTION)
            if self._judge(identity, response):
                attachment.begin_stateless()
                return response
            self._profiles.forget(identity)
        return await self._initialize(attachment, initialize, identity, is_second)

    async def _initialize(
        self,
        attachment: Attachment,
        initialize: Request,
        identity: bytes,
        is_second: bool,
    ) -> Response:
        began = self._clock.seconds()
        response = await self._inquire(attachment, initialize)
        if response.result is None:
            return response
        attachment.begin_session()
        known = self._profiles.known(identity)
        if known is None or self._stateless or known.initialize_result is None:
            era = ChildEra.LEGACY if known is None else known.era
            if era is ChildEra.MODERN:
                # It did not say so, but it does.
                era = ChildEra.DUAL
            # A child that takes long for everything has only been slow to answer.
            took = self._clock.seconds() - began
            self._profiles.learnt(
                identity,
                ChildProfile(
                    era,
                    response.result,
                    None if known is None else known.discover_result,
                ),
                certain=not is_second or took < PROBE_SECONDS,
            )
        return response

    def _judge(self, identity: bytes, response: Response) -> bool:
        """
        @return: whether it speaks the stateless revisions.
        """
        era = judge_probe(response.id, encode(response))
        if era is None or era is ChildEra.LEGACY:
            return False
        known = self._profiles.known(identity)
        if known is not None and known.era is ChildEra.DUAL:
            era = ChildEra.DUAL
        self._profiles.learnt(
            identity, ChildProfile(era, discover_result=response.result)
        )
        return True

    async def _inquire(
        self, attachment: Attachment, request: Request, seconds: float | None = None
    ) -> Response:
        """
        Make a request of our own and wait for the answer.

        @raise ChildCannotStart: the child ended or took too long.
        """
        child = attachment.child
        if child is None:
            raise ChildCannotStart("there is no child")
        opening = Opening()
        response: Response | None = None
        try:
            attachment.start()
            attachment.put(request, opening.answered)
            self._on_started(attachment)
            if seconds is not None:
                opening.response.addTimeout(seconds, self._clock)
            response = await opening.response
        except TimeoutError:
            raise ChildCannotStart("the child did not answer in time") from None
        except ChildGone:
            # Between start and send; what it said is still on its way.
            await child.when_ended()
        if response is None or not child.usable():
            said = f": {child.last_stderr}" if child.last_stderr else ""
            raise ChildCannotStart(f"the child ended before it was ready{said}")
        return response


def _question() -> Request:
    question = parse(probe(b'"probe"', VERSION))
    assert isinstance(question, Request)  # noqa: S101 - it was made as one
    return question


QUESTION: Final = _question()
"""What a child is asked to find out its era."""

STATELESS_PARAMS: Final[Mapping[str, object]] = json.loads(QUESTION.params or b"{}")
"""What every request of our own has in the stateless revisions."""
