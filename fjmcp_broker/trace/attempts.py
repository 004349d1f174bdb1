"""
One attempt to sign in, as it is written down: steps in our own words, and nothing with
which anybody could sign in.
"""

import json
from collections.abc import Sequence
from enum import StrEnum, unique
from typing import Any, Final

import msgspec
from msgspec.structs import force_setattr, replace

from fjmcp_broker.logs import redact

MAXIMUM_STEPS: Final = 30
"""Of one attempt: somebody who clicks again and again."""

MAXIMUM_RELATED: Final = 20
MAXIMUM_DETAIL: Final = 200
"""Characters."""

UNKNOWN_NETWORK: Final = "unknown"


@unique
class StepName(StrEnum):
    """
    The steps, in the order in which they come.

    @cvar REGISTER: the client registered itself (RFC 7591).
    @cvar AUTHORIZE: a browser came with an authorization request.
    @cvar CONSENT: the user answered the consent page.
    @cvar CALLBACK: the browser came back from Forgejo.
    @cvar TOKEN: the client exchanged its code.
    @cvar REQUEST: the first authenticated request came to the MCP endpoint.
    """

    REGISTER = "register"
    AUTHORIZE = "authorize"
    CONSENT = "consent"
    CALLBACK = "callback"
    TOKEN = "token"  # noqa: S105 - the name of a step
    REQUEST = "request"


OK: Final = "ok"
"""The outcome of a step after which the next one can come; others say why not."""


def harmless(text: str) -> str:
    """
    @param text: nearly our own words.
    @return: the same without anything that moves a cursor or looks like a token, cut.
    """
    printable = "".join(c if c.isprintable() else " " for c in text[:MAXIMUM_DETAIL])
    return redact(printable)


class Step(msgspec.Struct, frozen=True):
    """
    One step.

    @ivar at: when it was over, seconds since the epoch.
    @ivar name: which.
    @ivar outcome: L{OK} or one of our own words.
    @ivar detail: a clause for people; may be empty.
    @ivar milliseconds: how long it took.
    @ivar network: where it came from: a /24, of IPv6 a /48.
    """

    at: int
    name: StepName
    outcome: str
    detail: str = ""
    milliseconds: int = 0
    network: str = UNKNOWN_NETWORK

    def __post_init__(self) -> None:
        force_setattr(self, "detail", harmless(self.detail))

    @property
    def is_ok(self) -> bool:
        """
        @return: whether the next one can come.
        """
        return self.outcome == OK


class Sighting(msgspec.Struct, frozen=True):
    """
    A request without a valid token from the same network, possibly of the same client.

    @ivar at: seconds since the epoch.
    @ivar what: in our own words.
    """

    at: int
    what: str


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """
    One attempt.

    @ivar trace_id: eight letters and digits.
    @ivar network: that it began in.
    @ivar began_at: seconds since the epoch.
    @ivar updated_at: of the newest step.
    @ivar client_id: of the client, if it is known.
    @ivar pending_id: of the pending authorization, likewise.
    @ivar grant_id: of the grant, likewise.
    @ivar user_id: who signed in, likewise.
    @ivar steps: what has happened.
    @ivar related: what may belong to it.
    """

    trace_id: str
    network: str
    began_at: int
    updated_at: int
    client_id: str | None = None
    pending_id: str | None = None
    grant_id: str | None = None
    user_id: int | None = None
    steps: tuple[Step, ...] = ()
    related: tuple[Sighting, ...] = ()

    def with_step(self, step: Step) -> "Attempt":
        """
        @param step: the newest one.
        @return: the attempt with it; where there are too many, the first ones and the
            newest stay.
        """
        steps = (*self.steps[: MAXIMUM_STEPS - 1], step)
        return replace(self, steps=steps, updated_at=step.at)

    def with_related(self, seen: Sequence[Sighting]) -> "Attempt":
        """
        @param seen: what may belong to it.
        @return: the attempt with the newest of all.
        """
        related = (*self.related, *seen)[-MAXIMUM_RELATED:]
        return replace(self, related=related)

    def last(self, name: StepName) -> Step | None:
        """
        @param name: of a step.
        @return: the newest of that name, if there is one.
        """
        return next((step for step in reversed(self.steps) if step.name is name), None)


def steps_to_json(steps: Sequence[Step]) -> str:
    """
    @param steps: of an attempt.
    @return: as the store keeps them.
    """
    return json.dumps(
        [
            [s.at, str(s.name), s.outcome, s.detail, s.milliseconds, s.network]
            for s in steps
        ],
        separators=(",", ":"),
    )


def steps_from_json(text: str) -> tuple[Step, ...]:
    """
    @param text: from L{steps_to_json}.
    @return: the steps.
    """
    rows: list[list[Any]] = json.loads(text)
    return tuple(Step(at, StepName(name), *rest) for at, name, *rest in rows)


def related_to_json(related: Sequence[Sighting]) -> str:
    """
    @param related: of an attempt.
    @return: as the store keeps it.
    """
    rows = [[seen.at, seen.what] for seen in related]
    return json.dumps(rows, separators=(",", ":"))


def related_from_json(text: str) -> tuple[Sighting, ...]:
    """
    @param text: from L{related_to_json}.
    @return: the same.
    """
    return tuple(Sighting(at, what) for at, what in json.loads(text))
