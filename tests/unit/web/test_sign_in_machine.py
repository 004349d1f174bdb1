"""Every order of pages, answers, returns and restarts, by a state machine."""

from typing import Any, Final, Literal

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store.collector import collect
from fjmcp_broker.upstream.errors import CodeRefused, UpstreamUnavailable
from tests.unit.web.signin import (
    Answer,
    Browser,
    Site,
    authorize_target,
    callback_target,
)

LIFETIME: Final = 600

browsers = st.sampled_from([0, 1])
decisions = st.sampled_from(["full", "read-only"])
#: Mostly the page's own browser, else little would come of anything.
strangers = st.sampled_from([False, False, False, True])
Stand = Literal["open", "left", "tried", "over"]


@attrs.define(eq=False)
class Shown:
    """
    A consent page and what has come of it.

    @ivar browser: that was shown it.
    @ivar key: that sealed it.
    @ivar stand: C{left}: its browser may come back from Forgejo; C{tried}: it has, and
        that came to nothing.
    @ivar leaving: the newest redirect to Forgejo.
    @ivar decision: that led there.
    @ivar ended: the answer that ended it and the redirect to the client, as long as the
        process remembers.
    @ivar is_elsewhere: it goes on under another id, as long as the process remembers.
    @ivar is_lost: the process has forgotten where it goes on.
    @ivar issued: how many codes it has come to.
    """

    page: Answer
    browser: int
    made_at: float
    key: bytes
    stand: Stand = "open"
    leaving: Answer | None = None
    decision: str = ""
    ended: tuple[str, str] | None = None
    is_elsewhere: bool = False
    is_lost: bool = False
    issued: int = 0


@attrs.frozen(eq=False)
class Leaving:
    """
    A redirect to Forgejo, and the page that it belongs to.
    """

    shown: Shown
    answer: Answer


class SignIns(RuleBasedStateMachine):
    """
    Two browsers with one client. The model knows of each page whose it is, when it was
    made, and whether it still stands for anything.
    """

    pages = Bundle("pages")
    leavings = Bundle("leavings")
    test: SynchronousTestCase

    def __init__(self) -> None:
        super().__init__()
        self.site = Site(self.test)
        self.keys = [b"k" * 32]
        self.browsers = [Browser(self.site), Browser(self.site)]
        self.all: list[Shown] = []
        self.other_rows = 0

    @initialize()
    def register(self) -> None:
        """There is one client."""
        self.client_id = self.site.register()

    @property
    def now(self) -> float:
        """
        @return: the time.
        """
        return float(self.site.clock.seconds())

    def is_live(self, shown: Shown) -> bool:
        """
        @return: whether an answer to it would count.
        """
        return shown.stand != "over" and not shown.is_lost and self.is_readable(shown)

    def is_readable(self, shown: Shown) -> bool:
        """
        @return: whether its form can be used.
        """
        return self.now < shown.made_at + LIFETIME and shown.key in self.keys

    def is_repeated(self, shown: Shown, decision: str, answer: Answer) -> bool:
        """
        @return: whether that is the answer which ended it, and leads there again.
        """
        if shown.ended is None or not self.is_readable(shown):
            return False
        return shown.ended == (decision, answer.location)

    @rule(browser=browsers, decisions=st.lists(decisions, min_size=1, max_size=2))
    def whole(self, browser: int, decisions: list[str]) -> None:
        """All at once, and then the same page again: nothing comes of that."""
        shown: Any = self.open(browser)  # Any: a rule gives a bundle's value
        leavings = [self.allow(shown, False, decision) for decision in decisions]
        self.come_back(leavings[-1], False, "code")
        assert shown.issued == 1
        self.come_back(leavings[-1], False, "code")
        self.allow(shown, False, decisions[0])
        self.cancel(shown, False)

    @rule(target=pages, browser=browsers)
    def open(self, browser: int) -> Shown:
        """A client sends a browser; nothing is written."""
        before = self.site.dump()
        page = self.browsers[browser].get(authorize_target(self.client_id))
        assert page.status == 200
        assert self.site.dump() == before
        shown = Shown(page, browser, self.now, self.keys[0])
        self.all.append(shown)
        return shown

    @rule(
        target=leavings,
        shown=pages,
        is_stranger=strangers,
        decision=decisions,
    )
    def allow(self, shown: Shown, is_stranger: bool, decision: str) -> Leaving:
        """Of any number of clicks the last one counts, in the page's own browser."""
        before = self.site.dump()
        answer = self.browser(shown, is_stranger).submit(shown.page, decision)
        if not is_stranger and self.is_live(shown):
            assert answer.status == 303, answer.text
            if shown.stand == "tried":
                shown.is_elsewhere = True
                self.other_rows += 1
            shown.stand, shown.leaving = "left", answer
            shown.decision = decision
            return Leaving(shown, answer)
        if is_stranger or not self.is_repeated(shown, decision, answer):
            assert answer.status == (403 if is_stranger else 400)
            assert (
                shown.ended is None
                or shown.ended[0] != decision
                or (is_stranger or not self.is_readable(shown))
            )
        assert self.site.dump() == before
        return Leaving(shown, shown.leaving or answer)

    @rule(shown=pages, is_stranger=strangers)
    def cancel(self, shown: Shown, is_stranger: bool) -> None:
        """It is over; nobody comes back from Forgejo any more."""
        answer = self.browser(shown, is_stranger).submit(shown.page, "cancel")
        if not is_stranger and self.is_live(shown):
            assert answer.query["error"] == "access_denied"
            if shown.stand == "tried":
                self.other_rows += 1
            shown.stand, shown.ended = "over", ("cancel", answer.location)
        elif is_stranger or not self.is_repeated(shown, "cancel", answer):
            assert answer.status == (403 if is_stranger else 400)

    def browser(self, shown: Shown, is_stranger: bool) -> Browser:
        """
        @return: the one that was shown the page, or the other one.
        """
        return self.browsers[shown.browser ^ is_stranger]

    @rule(shown=pages, other=pages, field=st.sampled_from(["pending", "request"]))
    def mix(self, shown: Shown, other: Shown, field: str) -> None:
        """A form with a field of another one is nobody's."""
        if shown is other:
            return
        before = self.site.dump()
        fields = {**shown.page.form.fields, "decision": "full"}
        fields[field] = other.page.form.fields[field]
        answer = self.browsers[shown.browser].post("/oauth/consent", fields)
        assert answer.status in (400, 403)
        assert self.site.dump() == before

    @rule(
        leaving=leavings,
        is_stranger=strangers,
        outcome=st.sampled_from(["code", "code", "error", "outage", "burnt"]),
    )
    def come_back(self, leaving: Leaving, is_stranger: bool, outcome: str) -> None:
        """Once, with the newest state, in the browser that went."""
        shown = leaving.shown
        if not leaving.answer.headers.hasHeader("Location"):
            return
        counts = (
            shown.stand == "left"
            and leaving.answer is shown.leaving
            and not is_stranger
            and self.now < shown.made_at + LIFETIME
        )
        upstream = self.site.upstream
        if outcome == "outage":
            upstream.outcomes = [UpstreamUnavailable("away")]
        elif outcome == "burnt":
            upstream.outcomes = [CodeRefused("burnt", restart=True)]
        calls = len(upstream.calls)
        given = {"error": "server_error"} if outcome == "error" else {"code": "gta_x"}
        browser = self.browser(shown, is_stranger)
        answer = browser.get(callback_target(leaving.answer, **given))
        upstream.outcomes = []
        if not counts:
            assert answer.status == 400, (answer.status, answer.location)
            assert len(upstream.calls) == calls
            return
        shown.stand = "tried" if outcome == "outage" else "over"
        assert answer.status == 303
        if outcome == "burnt":
            # At once, without a question.
            self.other_rows += 1
            answer = browser.get(callback_target(answer, code="gta_y"))
        if outcome in ("code", "burnt"):
            assert "code" in answer.query, answer.query
            shown.issued += 1
        else:
            assert "error" in answer.query
        if shown.stand == "over":
            shown.ended = (shown.decision, answer.location)

    @rule(seconds=st.sampled_from([0, 1, 1, 9, 60, 599, 600]))
    def wait(self, seconds: int) -> None:
        """Time passes; the collector comes by."""
        self.site.clock.advance(seconds)
        now = int(self.now)
        self.site.write(lambda c: collect(c, now))

    @rule(key=st.sampled_from([b"k" * 32, b"l" * 32, b"m" * 32]), forgets=st.booleans())
    def restart(self, key: bytes, forgets: bool) -> None:
        """With the same keys, with another one in front, or without the older ones."""
        kept = [] if forgets else [other for other in self.keys if other != key]
        if forgets and any(shown.stand in ("left", "tried") for shown in self.all):
            # A sealed verifier would be lost: the daemon does not start like that.
            return
        self.keys = [key, *kept]
        for shown in self.all:
            shown.ended = None
            shown.is_lost |= shown.is_elsewhere
        self.site = Site(self.test, before=self.site, keys=self.keys)
        cookies = [browser.cookies for browser in self.browsers]
        self.browsers = [Browser(self.site), Browser(self.site)]
        for browser, kept_cookies in zip(self.browsers, cookies, strict=True):
            browser.cookies = kept_cookies

    @invariant()
    def one_code_for_each_page(self) -> None:
        """And none that nobody has allowed."""
        assert all(shown.issued <= 1 for shown in self.all)
        issued = sum(shown.issued for shown in self.all)
        assert self.site.count("grants") == issued

    @invariant()
    def rows_only_of_answers(self) -> None:
        """Who only opens a page leaves nothing."""
        answered = sum(shown.stand != "open" for shown in self.all)
        rows = self.site.count("pending_authorizations")
        assert rows <= answered + self.other_rows


class SignInMachineTests(SynchronousTestCase):
    """The machine at work."""

    def test_every_order(self) -> None:
        """Each example has a store of its own."""

        class Bound(SignIns):
            test = self

            def teardown(self) -> None:
                self.test.doCleanups()

        machine: Any = Bound
        run_state_machine_as_test(
            machine,
            settings=settings(max_examples=30, stateful_step_count=25, deadline=None),
        )
