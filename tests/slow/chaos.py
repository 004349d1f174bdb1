"""What clients find wrong while things go wrong, and what they have to put up with."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import attrs

RECOVERY_SECONDS: Final = 5.0
"""A promise to clients; two are usual."""


@attrs.define
class Window:
    """
    A fault: calls that were under way between its two ends may have failed.

    @ivar over: when it was over; C{ended} may be later, until when it may be seen.
    @ivar sessions: how many may be hit, C{None} for all.
    @ivar hit: those that were.
    """

    what: str
    began: float
    ended: float | None = None
    sessions: int | None = None
    hit: set[str] = attrs.Factory(set)
    over: float | None = None
    recovered: set[str] = attrs.Factory(set)

    def covers(self, sent: float, answered: float, session: str) -> bool:
        """
        @return: whether it excuses a call of that session.
        """
        if answered < self.began or (self.ended is not None and sent > self.ended):
            return False
        if self.sessions is None or session in self.hit:
            return True
        return len(self.hit) < self.sessions


@attrs.define
class Run:
    """
    What the clients' threads and the schedule share.

    @ivar over: set when the clients are to stop.
    @ivar tokens_lost: tells whether Forgejo has issued tokens for a user that the store
        has not.
    @ivar revived: when each user has signed in again.
    @ivar written: titles of issues, and whether the client was told of success.
    @ivar keys: likewise, of all calls.
    @ivar resting: sessions that are to make no calls.
    @ivar wanted: what a session is to do next.
    """

    tokens_lost: Callable[[str], bool]
    has_ledger: bool = True
    over: threading.Event = attrs.Factory(threading.Event)
    windows: list[Window] = attrs.Factory(list)
    problems: list[str] = attrs.Factory(list)
    counts: Counter[str] = attrs.Factory(Counter)
    failures: Counter[str] = attrs.Factory(Counter)
    revived: dict[str, float] = attrs.Factory(dict)
    written: dict[str, bool] = attrs.Factory(dict)
    keys: dict[str, bool] = attrs.Factory(dict)
    resting: set[str] = attrs.Factory(set)
    wanted: dict[str, str] = attrs.Factory(dict)
    slowest: float = 0.0
    slowest_recovery: float = 0.0
    lock: threading.Lock = attrs.Factory(threading.Lock)
    signing_in: threading.Lock = attrs.Factory(threading.Lock)

    def count(self, what: str) -> None:
        """
        Count something.
        """
        with self.lock:
            self.counts[what] += 1

    def problem(self, text: str) -> None:
        """
        Note what must not be.
        """
        with self.lock:
            self.problems.append(text[:600])

    def begin(self, what: str, sessions: int | None = None) -> Window:
        """
        @return: a fault that begins now.
        """
        window = Window(what, time.monotonic(), sessions=sessions)
        with self.lock:
            self.windows.append(window)
        return window

    def end(self, window: Window, grace_seconds: float = 0.0) -> None:
        """
        A fault is over, or will be seen no more after the grace.
        """
        window.over = time.monotonic()
        window.ended = window.over + grace_seconds

    def pin(self, window: Window, sessions: set[str]) -> None:
        """
        It has become known which sessions a fault has hit: no others.
        """
        with self.lock:
            if strangers := window.hit - sessions:
                self.problems.append(f"{window.what}: not only of {sessions} but")
                self.problems[-1] += f" calls of {strangers} failed"
            window.hit |= sessions
            window.sessions = 0

    def excuse(self, sent: float, session: str) -> Window | None:
        """
        @return: the fault that a call of that session may have failed of.
        """
        answered = time.monotonic()
        with self.lock:
            for window in self.windows:
                if window.covers(sent, answered, session):
                    window.hit.add(session)
                    return window
        return None

    def succeeded(self, sent: float, session: str) -> None:
        """
        Note how long a call took that worked, and since when the session could work.
        """
        now = time.monotonic()
        with self.lock:
            self.counts["succeeded"] += 1
            self.slowest = max(self.slowest, now - sent)
            fresh = [
                window
                for window in self.windows
                if window.over is not None and session not in window.recovered
            ]
            for window in fresh:
                window.recovered.add(session)
            # One fault may come before the session has got over another.
            hit = [window.over or 0 for window in fresh if session in window.hit]
            if hit and session not in self.resting:
                self.slowest_recovery = max(self.slowest_recovery, now - max(hit))
