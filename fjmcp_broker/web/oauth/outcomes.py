"""
What sign-ins have come to, for as long as their consent forms can be sent.

Somebody who clicks twice is shown the answer to the second click alone, and what the
first one did is not undone by that. So an answer that is given once more leads where it
led before. Only this process remembers; of the code nothing else has the text.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from twisted.internet.interfaces import IReactorTime

from fjmcp_broker.secret import Confidential

MAXIMUM_IDS: Final = 2000
"""Ids of sign-ins that are remembered; beyond, the oldest are forgotten."""


class Outcome(Confidential, msgspec.Struct):
    """
    How a sign-in ended: with a redirect to its client.

    @ivar decision: the answer on the consent page that it came from.
    @ivar url: where the browser was sent.
    @ivar says: for the trace.
    @ivar code_digest: of the code that the URL carries; C{None}: an error.
    @ivar grant_id: likewise.
    @ivar is_told: whether a trace has it: not when the browser had gone by then.
    """

    decision: str
    url: str
    says: str
    code_digest: bytes | None = None
    grant_id: str | None = None
    is_told: bool = False


class _SignIn(msgspec.Struct, eq=False):
    """
    @ivar pending_ids: the one of its form, and those that it went on under since.
    @ivar until: when its consent form expires.
    """

    pending_ids: list[str]
    until: int
    outcome: Outcome | None = None


class Outcomes:
    """
    The outcomes of sign-ins. All changes are made inside transactions: so they come
    one after the other, and whoever finds a sign-in over in the store finds how it
    ended here. A transaction that comes to nothing after that leaves its change behind.
    So an outcome is asked for only when the store says that there is one, and of the
    ids those that it does not have are passed over.
    """

    def __init__(self, clock: IReactorTime, maximum: int = MAXIMUM_IDS) -> None:
        """
        @param clock: tells the time.
        @param maximum: ids to remember.
        """
        self._clock = clock
        self._maximum = maximum
        self._sign_ins: dict[str, _SignIn] = {}

    def remember(self, pending_id: str, until: int, outcome: Outcome) -> None:
        """
        @param pending_id: of a sign-in that is over now.
        @param until: when it expires, seconds since the epoch.
        @param outcome: how it ended.
        """
        self._at(pending_id, until).outcome = outcome

    def go_on(self, pending_id: str, until: int, later: str) -> None:
        """
        @param pending_id: of a sign-in that begins again: the one that it had last.
        @param until: when it expires, seconds since the epoch.
        @param later: the pending id that it has from now on.
        """
        sign_in = self._at(pending_id, until)
        sign_in.pending_ids.append(later)
        sign_in.outcome = None
        self._keep(later, sign_in)

    def current(self, pending_id: str, is_stored: Callable[[str], bool]) -> str:
        """
        @param pending_id: that a form names.
        @param is_stored: whether the store has such a sign-in.
        @return: the one that its sign-in has now.
        """
        sign_in = self._sign_ins.get(pending_id)
        later = () if sign_in is None else reversed(sign_in.pending_ids)
        return next(filter(is_stored, later), pending_id)

    def find(self, pending_id: str, decision: str) -> Outcome | None:
        """
        @param pending_id: that a form names.
        @param decision: as posted.
        @return: how its sign-in ended, when that answer had led there.
        """
        sign_in = self._sign_ins.get(pending_id)
        if sign_in is None or sign_in.until <= self._clock.seconds():
            return None
        outcome = sign_in.outcome
        return outcome if outcome and outcome.decision == decision else None

    def _at(self, pending_id: str, until: int) -> _SignIn:
        """
        @param pending_id: of a sign-in, by which the store has just found it.
        @return: the sign-in; ids after that one are of transactions that came to
            nothing.
        """
        sign_in = self._sign_ins.get(pending_id)
        if sign_in is None:
            sign_in = _SignIn([pending_id], until)
            self._keep(pending_id, sign_in)
        while sign_in.pending_ids[-1] != pending_id:
            self._sign_ins.pop(sign_in.pending_ids.pop(), None)
        return sign_in

    def _keep(self, pending_id: str, sign_in: _SignIn) -> None:
        self._sign_ins[pending_id] = sign_in
        now = self._clock.seconds()
        for known, kept in list(self._sign_ins.items()):
            if len(self._sign_ins) <= self._maximum and now < kept.until:
                break
            del self._sign_ins[known]
