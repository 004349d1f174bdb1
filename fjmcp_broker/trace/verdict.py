"""
What an operator wants to know of an attempt: one sentence about what became of it, and
one about what to do.
"""

from collections.abc import Sequence
from enum import StrEnum, unique
from typing import Final

import msgspec

from .attempts import Attempt, Step, StepName

PENDING_SECONDS: Final = 600
"""As long a sign-in may go on."""


@unique
class Status(StrEnum):
    """
    How an attempt stands.

    @cvar COMPLETE: the client made its first request.
    @cvar FAILED: it cannot go on.
    @cvar ENDED: the user did not want it.
    @cvar STUCK: what should have come next has not come in time.
    @cvar GOING_ON: it may come still.
    """

    COMPLETE = "complete"
    FAILED = "failed"
    ENDED = "ended"
    STUCK = "stuck"
    GOING_ON = "going on"


class Verdict(msgspec.Struct, frozen=True):
    """
    What became of an attempt.

    @ivar status: in a word.
    @ivar sentence: in plain words.
    @ivar advice: what to look at; empty when there is nothing to do.
    """

    status: Status
    sentence: str
    advice: str = ""


def judge(attempt: Attempt, now: int) -> Verdict:
    """
    @param attempt: any.
    @param now: seconds since the epoch.
    @return: what became of it.
    """
    if not attempt.steps:
        return Verdict(Status.GOING_ON, "Nothing has happened yet.")
    step = _telling(attempt.steps)
    if step.name is StepName.REQUEST:
        return _first_request(step)
    if step.is_ok:
        sentence, advice = _WAITING[step.name]
        if now - step.at <= PENDING_SECONDS:
            return Verdict(Status.GOING_ON, f"{sentence} so far.")
        if attempt.related and step.name is StepName.TOKEN:
            advice = (
                "Requests without a valid token came from the same network, see below: "
                "the client may keep its token to itself, or a proxy may drop the "
                f"Authorization header. {advice}"
            )
        return Verdict(Status.STUCK, f"{sentence}.", advice)
    return _refused(step)


def _telling(steps: Sequence[Step]) -> Step:
    """
    Find the step that says how it stands: the newest, unless that only repeats what
    can be done once, as a browser does that opens the callback again.
    """
    order = list(StepName)
    furthest = max(
        (step for step in steps if step.is_ok or step.name is StepName.REQUEST),
        key=lambda step: order.index(step.name),
        default=steps[-1],
    )
    last, reached = order.index(steps[-1].name), order.index(furthest.name)
    once = furthest.name in (StepName.CALLBACK, StepName.TOKEN, StepName.REQUEST)
    return furthest if last < reached or (last == reached and once) else steps[-1]


_WAITING: Final = {
    StepName.REGISTER: (
        "The client registered, and no browser came to sign in",
        "The user may have closed the window, or the client could not open one.",
    ),
    StepName.AUTHORIZE: (
        "The user was shown the consent page and did not answer it",
        "Some clients fetch that page once without a browser; then the next trace is "
        "the one of the user.",
    ),
    StepName.CONSENT: (
        "The user agreed, went to Forgejo and did not come back",
        "They may not have signed in there. If Forgejo showed an error about the "
        "redirect URI, compare the one of the application in Forgejo with the one that "
        "`fjmcp-broker doctor` prints.",
    ),
    StepName.CALLBACK: (
        "The browser was sent back to the client with a code, and the client never "
        "exchanged it",
        "The client may have stopped listening on its redirect URI, or it cannot reach "
        "the token endpoint: run `fjmcp-broker doctor`.",
    ),
    StepName.TOKEN: (
        "Token issued, the client never used it",
        "The client may call another address than the MCP endpoint.",
    ),
}

_SENTENCES: Final = {
    (StepName.AUTHORIZE, "unknown_client"): (
        "The client is not registered here.",
        "Remove the connection in the client and add it again, so that it registers "
        "anew.",
    ),
    (StepName.AUTHORIZE, "no_document"): (
        "The metadata document that the client's id names {detail}.",
        "docs/operations.md, Clients, says what it needs.",
    ),
    (StepName.CONSENT, "not_our_page"): (
        "The answer to the consent page did not come from our page in this browser.",
        "The browser may not keep cookies, or public_url is not the address that the "
        "browser sees.",
    ),
    (StepName.CONSENT, "old_page"): (
        "The consent page was made before the key of the store was changed, or its "
        "form was damaged.",
        "The user has to connect again.",
    ),
    (StepName.CALLBACK, "wrong_browser"): (
        "The browser that came back from Forgejo is not the one that went there.",
        "It may not keep cookies, or the sign-in was finished in another window.",
    ),
    (StepName.CALLBACK, "other_scopes"): (
        "Forgejo remembers an older permission with other scopes.",
        "The user has to remove this application under Settings, Applications in "
        "Forgejo and connect again; the page says so.",
    ),
    (StepName.CALLBACK, "not_allowed"): (
        "The user is not on the list of those who may sign in.",
        "access.allowed_users and access.allowed_organizations say who is.",
    ),
}

_PLACES: Final = {
    StepName.REGISTER: "The registration",
    StepName.AUTHORIZE: "The authorization request",
    StepName.CONSENT: "The answer to the consent page",
    StepName.CALLBACK: "The sign-in at Forgejo",
    StepName.TOKEN: "The token request",
}


def _refused(step: Step) -> Verdict:
    name, outcome, detail = step.name, step.outcome, step.detail
    if outcome == "cancelled":
        return Verdict(Status.ENDED, "The user chose Cancel on the consent page.")
    if outcome == "expired":
        sentence = "The sign-in took longer than ten minutes or was finished already."
        return Verdict(Status.FAILED, sentence, "The user has to connect again.")
    if outcome == "client_left":
        sentence = f"{_PLACES[name]} was broken off by the other side."
        return Verdict(Status.FAILED, sentence)
    if outcome in ("fault", "store_unavailable"):
        sentence = f"{_PLACES[name]} could not be answered: {detail or outcome}."
        advice = "The log has the reason under the trace id."
        return Verdict(Status.FAILED, sentence, advice)
    known = _SENTENCES.get((name, outcome))
    if known is not None:
        sentence, advice = known
        return Verdict(Status.FAILED, sentence.format(detail=detail), advice)
    why = f"{outcome}: {detail}" if detail else outcome
    return Verdict(Status.FAILED, f"{_PLACES[name]} was refused: {why}.")


def _first_request(step: Step) -> Verdict:
    status = int(step.outcome)
    if status < 400:
        sentence = "Signed in; the client made its first request."
        return Verdict(Status.COMPLETE, sentence)
    sentence = f"Signed in; the client's first request was answered with {status}."
    advice = "The log has the request; `fjmcp-broker doctor` looks at what it needs."
    return Verdict(Status.FAILED, sentence, advice)
