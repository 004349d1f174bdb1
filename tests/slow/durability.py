"""Clients that sign in and refresh through kills, and what they hold against it."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import attrs

from tests.real.browser import Page
from tests.real.client import FORM, McpClient

REPEATABLE_SECONDS: Final = 40.0
"""How long after its first use a refresh token is presented again: the broker promises
a minute, used or not."""

SIGN_IN, REFRESH, REPEAT, OPEN = "sign in", "refresh", "repeat", "open"
WEIGHTS: Final = {SIGN_IN: 10, REFRESH: 65, REPEAT: 15, OPEN: 10}


class AskedToSignIn(Exception):  # noqa: N818 - it says what happened
    """The broker wants a sign-in, and may: the kill cost it Forgejo's answer."""


class CodeSpent(Exception):  # noqa: N818 - likewise
    """The answer to the code's exchange was lost; the sign-in has to start again."""


@attrs.frozen
class Pair:
    """Tokens that a client received."""

    access: str = attrs.field(repr=False)
    refresh: str = attrs.field(repr=False)


@attrs.define
class Chain:
    """
    Everything that came of one sign-in.

    @ivar pairs: in the order of rotation.
    @ivar presented_at: when the refresh token of each pair but the last was first
        presented, seconds of the monotonic clock.
    """

    pairs: list[Pair]
    presented_at: list[float] = attrs.Factory(list)

    def repeatable(self) -> list[int]:
        """
        @return: which refresh tokens may be presented again.
        """
        oldest = time.monotonic() - REPEATABLE_SECONDS
        known = self.presented_at[: len(self.pairs) - 1]
        return [place for place, at in enumerate(known) if at > oldest]


@attrs.define
class Run:
    """
    What the clients' threads and the killer share.

    @ivar up: set while a daemon answers.
    @ivar generation: how many daemons there have been.
    @ivar wanted: what the killer waits for one of the clients to do.
    @ivar excused: users of whom Forgejo has issued tokens that the store has not.
    @ivar received: what each code and refresh token yielded.
    @ivar counters: of Forgejo's grants: at least so far the stored ones have to be,
        by the sign-ins that came to their end.
    @ivar used: digests of the access tokens that were accepted.
    """

    operations: int
    up: threading.Event = attrs.Factory(threading.Event)
    generation: int = 0
    wanted: str | None = None
    over: bool = False
    excused: set[str] = attrs.Factory(set)
    problems: list[str] = attrs.Factory(list)
    counts: Counter[str] = attrs.Factory(Counter)
    received: dict[str, Pair] = attrs.field(factory=dict, repr=False)
    counters: dict[str, int] = attrs.Factory(dict)
    used: set[bytes] = attrs.Factory(set)
    lock: threading.Lock = attrs.Factory(threading.Lock)

    def count(self, what: str) -> None:
        """
        Count something.
        """
        with self.lock:
            self.counts[what] += 1

    def yielded(self, presented: str, pair: Pair) -> None:
        """
        Note what was received for a code or refresh token.
        """
        with self.lock:
            first = self.received.setdefault(presented, pair)
        if first != pair:
            self.problems.append(f"{presented[:9]}… yielded two different pairs")

    def reached(self, login: str, counter: int) -> None:
        """
        Note that a sign-in came to its end, which moved the user's counter.
        """
        with self.lock:
            self.counters[login] = max(counter, self.counters.get(login, 0))

    @property
    def done(self) -> int:
        """
        @return: how many sign-ins and refreshes were answered.
        """
        return sum(self.counts[what] for what in (SIGN_IN, REFRESH, REPEAT))


@attrs.define
class DurableClient(McpClient):
    """
    A client that never gives up and trusts nobody.

    @ivar counter: tells the present counter of a user's grant at Forgejo.
    """

    run: Run = attrs.field(kw_only=True)
    login: str = attrs.field(kw_only=True)
    password: str = attrs.field(kw_only=True, repr=False)
    draw: random.Random = attrs.field(kw_only=True)
    counter: Callable[[str], int] = attrs.field(kw_only=True)
    chains: list[Chain] = attrs.Factory(list)
    checked: int = 0

    def work(self) -> None:
        """
        Sign in, refresh and check until the run is over.
        """
        try:
            while not self.run.over:
                self._check_after_restart()
                what = self._next()
                try:
                    self._do(what)
                except AskedToSignIn:
                    self.run.count("asked to sign in")
                    self._persist(self._sign_in)
            self.check_everything()
        except Exception as error:
            # Nobody else may go on as if nothing had happened.
            self.run.problems.append(f"{type(error).__name__}: {str(error)[:500]}")
            self.run.over = True

    def check_everything(self) -> None:
        """
        Every token that was received works, or is answered with its successors.
        """
        for _ in range(2):
            try:
                for chain in self.chains:
                    for pair in chain.pairs:
                        self._use(pair)
                    for place in chain.repeatable():
                        self._refresh(chain, place)
                    self._refresh(chain, len(chain.pairs) - 1)
                    self._use(chain.pairs[-1])
            except AskedToSignIn:
                self.run.count("asked to sign in")
                self._persist(self._sign_in)
            else:
                return
        self.run.problems.append(f"{self.login} has to sign in again and again")

    # What to do

    def _next(self) -> str:
        wanted = self.run.wanted
        if not self.chains:
            return SIGN_IN
        if wanted is not None and self.draw.random() < 0.5:
            return wanted
        (what,) = self.draw.choices(list(WEIGHTS), list(WEIGHTS.values()))
        return what

    def _do(self, what: str) -> None:
        if what == SIGN_IN:
            self._persist(self._sign_in)
        elif what == OPEN:
            self._open(self.draw.choice(self.chains).pairs[-1])
        else:
            chain = self.draw.choice(self.chains)
            places = chain.repeatable() if what == REPEAT else []
            newest = len(chain.pairs) - 1
            self._refresh(chain, self.draw.choice(places) if places else newest)

    def _persist(self, sign_in: Callable[[], None]) -> None:
        """
        A sign-in that a kill broke off is started again.
        """
        while True:
            generation = self.run.generation
            try:
                sign_in()
                return
            except CodeSpent:
                self.run.count("codes spent without an answer")
            except (OSError, http.client.HTTPException) as error:
                self._broken(generation, error)
                self.run.count("sign-ins started again")

    def _sign_in(self) -> None:
        excused, generation = self._is_excused(), self.run.generation
        before = self.counter(self.login)
        self.sign_in(self.login, self.password)
        self.run.reached(self.login, before + 1)
        if excused and generation == self.run.generation:
            self.run.excused.discard(self.login)
        self.chains.append(Chain([Pair(self.access_token, self.refresh_token)]))
        self.run.count(SIGN_IN)

    def _refresh(self, chain: Chain, place: int) -> None:
        presented = chain.pairs[place].refresh
        if place == len(chain.presented_at):
            chain.presented_at.append(time.monotonic())
        self.token(grant_type="refresh_token", refresh_token=presented)
        pair = Pair(self.access_token, self.refresh_token)
        if place == len(chain.pairs) - 1:
            chain.pairs.append(pair)
            self.run.count(REFRESH)
        else:
            self.run.count(REPEAT)

    def token(self, **parameters: str) -> dict[str, Any]:
        """
        As of any client, but it tries again and keeps account.

        @raise AskedToSignIn: with a reason.
        @raise CodeSpent: likewise.
        """
        presented = parameters.get("code") or parameters["refresh_token"]
        form = urlencode({"client_id": self.client_id, **parameters}).encode()
        url, was_broken = f"{self.url}/oauth/token", False
        while True:
            excused, generation = self._is_excused(), self.run.generation
            try:
                answer = self.browser.request("POST", url, form, FORM)
            except (OSError, http.client.HTTPException) as error:
                self._broken(generation, error)
                was_broken = True
                continue
            if answer.status == 200:
                break
            if "sign in again" in answer.text and (excused or self._is_excused()):
                raise AskedToSignIn
            if was_broken and "code" in parameters and "been used" in answer.text:
                raise CodeSpent
            raise AssertionError(f"{presented[:9]}… of {self.login}: {_told(answer)}")
        tokens: dict[str, Any] = json.loads(answer.text)
        self.access_token = tokens["access_token"]
        self.refresh_token = tokens["refresh_token"]
        self.run.yielded(presented, Pair(self.access_token, self.refresh_token))
        return tokens

    def _open(self, pair: Pair) -> None:
        """
        Open a session and close it: that takes a fresh token of Forgejo's.
        """
        self.access_token, self.session_id = pair.access, None
        excused, generation = self._is_excused(), self.run.generation
        try:
            answer = self.initialize()
            if self.session_id is not None:
                self.send(b"", "DELETE")
        except (OSError, http.client.HTTPException) as error:
            self._broken(generation, error)
            return
        finally:
            self.session_id = None
        if answer.status == 401 and (excused or self._is_excused()):
            raise AskedToSignIn
        if answer.status != 200:
            raise AssertionError(f"a session of {self.login}: {_told(answer)}")
        self.run.count(OPEN)

    # What is held against the broker

    def _check_after_restart(self) -> None:
        """
        The newest tokens of each chain and some old ones work after a restart.
        """
        generation = self.run.generation
        if generation == self.checked:
            return
        self.checked = generation
        try:
            for chain in self.chains[-4:]:
                older = self.draw.sample(chain.pairs, min(2, len(chain.pairs)))
                for pair in chain.pairs[-2:] + older:
                    self._use(pair)
        except AskedToSignIn:
            self.run.count("asked to sign in")
            self._persist(self._sign_in)

    def _use(self, pair: Pair) -> None:
        """
        Use an access token as cheaply as one can: a stray notification.
        """
        body = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        while True:
            self.access_token = pair.access
            excused, generation = self._is_excused(), self.run.generation
            connection = http.client.HTTPConnection(
                urlsplit(self.url).netloc, timeout=20
            )
            try:
                connection.request("POST", "/mcp", body, self.headers())
                answer = connection.getresponse()
                text = answer.read().decode()
            except (OSError, http.client.HTTPException) as error:
                self._broken(generation, error)
                continue
            finally:
                connection.close()
            if answer.status == 202:
                self.run.count("access tokens used")
                self.run.used.add(hashlib.sha256(pair.access.encode()).digest())
                return
            if answer.status == 401 and (excused or self._is_excused()):
                raise AskedToSignIn
            raise AssertionError(
                f"an access token of {self.login}: {answer.status} {text}"
            )

    def _is_excused(self) -> bool:
        return self.login in self.run.excused

    def _broken(self, generation: int, error: Exception) -> None:
        """
        Wait until there is a daemon again.

        @param generation: when the request was sent.
        @raise AssertionError: the daemon was not killed meanwhile.
        """
        self.run.count("requests broken off")
        if not self.run.up.wait(60):
            raise AssertionError("there is no daemon any more") from error
        if self.run.generation == generation:
            raise AssertionError(f"a request failed without a kill: {error}")


def _told(answer: Page) -> str:
    return f"{answer.status} {answer.text[:300]}"
