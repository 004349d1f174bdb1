"""The browser goes away while its sign-in is being finished."""

from collections.abc import Callable
from sqlite3 import Connection
from typing import Any, TypeVar
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import server
from twisted.web.test.requesthelper import DummyChannel

from fjmcp_broker.store.database import Database
from tests.unit.web.signin import (
    PUBLIC_URL,
    Browser,
    Site,
    authorize_target,
    callback_target,
)

T = TypeVar("T")


class Gate:
    """
    Lets everything pass but the step that it was told to hold.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.hold_at: int | None = None
        self.held: Deferred[None] | None = None

    def arm(self, step: int | None) -> None:
        """
        Count from here, and hold that step.
        """
        self.passed, self.hold_at = 0, step

    def __call__(self) -> Deferred[None]:
        """
        @return: fired, or never fired for the held step.
        """
        self.passed += 1
        if self.passed == self.hold_at:
            self.held = Deferred()
            return self.held
        return succeed(None)


class GatedDatabase(Database):
    """
    Can be held before and after every transaction.
    """

    def __init__(self, inner: Database, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """
        As the real one, between two steps.
        """
        await self._gate()
        result = await self._inner.write(transaction)
        await self._gate()
        return result

    async def read(self, query: Callable[[Connection], T]) -> T:
        """
        As the real one, between two steps.
        """
        await self._gate()
        result = await self._inner.read(query)
        await self._gate()
        return result


class DisconnectTests(SynchronousTestCase):
    """An endpoint is cancelled when its client disconnects: nothing half is left."""

    def make(self) -> tuple[Site, Gate]:
        gate = Gate()
        site = Site(self, wrap=lambda database: GatedDatabase(database, gate))
        site.upstream.before_answer = gate
        return site, gate

    def leave_at(
        self, step: int, site: Site, gate: Gate, target: str, browser: Browser
    ) -> None:
        """
        Send a request, and be gone while the store is at work for it.

        @param step: the transaction that is held.
        """
        gate.arm(step)
        request = self.send(site, target, browser.cookies)
        request.connectionLost(Failure(ConnectionDone()))
        gate.arm(None)

    def send(
        self,
        site: Site,
        target: str,
        cookies: dict[str, str],
        method: bytes = b"GET",
        body: bytes = b"",
    ) -> Any:
        """
        @return: a request that has arrived on a connection of its own.
        """
        channel = DummyChannel()
        root: Any = site.resource
        channel.site = server.Site(root)
        request = server.Request(channel, False)
        headers = request.requestHeaders
        headers.setRawHeaders("Host", [urlsplit(PUBLIC_URL).netloc])
        headers.setRawHeaders("Sec-Fetch-Site", ["same-origin"])
        headers.setRawHeaders("Content-Type", ["application/x-www-form-urlencoded"])
        pairs = [f"{name}={value}" for name, value in cookies.items()]
        headers.setRawHeaders("Cookie", ["; ".join(pairs)])
        request.gotLength(len(body))
        request.handleContentChunk(body)
        request.requestReceived(method, target.encode("ascii"), b"HTTP/1.1")
        return request

    def assert_consistent(self, site: Site) -> None:
        """
        Every grant has its code and every code its grant.
        """
        self.assertEqual(site.count("grants"), site.count("authorization_codes"))

    def test_steps_are_held_at_all(self) -> None:
        """The loop below has something to do: transactions and the exchange."""
        site, gate = self.make()
        browser = Browser(site)
        page = browser.get(authorize_target(site.register()))
        leaving = browser.submit(page, "full")
        gate.arm(None)
        browser.get(callback_target(leaving, code="gta_x"))
        # Taking the row, the exchange, issuing: before and after, the exchange after.
        self.assertEqual(gate.passed, 5)

    def test_callback_may_be_left_at_every_step(self) -> None:
        """A closed tab loses no more than this one attempt: either there are grant
        and code, or neither, and the next sign-in works."""
        for step in range(1, 6):
            site, gate = self.make()
            client_id = site.register()
            browser = Browser(site)
            page = browser.get(authorize_target(client_id))
            leaving = browser.submit(page, "full")
            gate.arm(step)
            target = callback_target(leaving, code="gta_x")
            request = self.send(site, target, browser.cookies)
            assert gate.held is not None, step
            written = request.channel.transport.written
            request.connectionLost(Failure(ConnectionDone()))
            self.assertTrue(gate.held.called, step)
            self.assertEqual(written.getvalue(), b"")
            self.assert_consistent(site)
            self.assertEqual(site.count("grants"), 1 if step == 5 else 0)
            gate.arm(None)
            page = browser.get(authorize_target(client_id))
            leaving = browser.submit(page, "full")
            answer = browser.get(callback_target(leaving, code="gta_y"))
            self.assertIn("code", answer.query)
            self.assert_consistent(site)

    def test_abandoned_callback_can_be_repeated_before_it_counts(self) -> None:
        """Until the row was taken, a reload finishes the sign-in."""
        site, gate = self.make()
        browser = Browser(site)
        page = browser.get(authorize_target(site.register()))
        target = callback_target(browser.submit(page, "full"), code="gta_x")
        self.leave_at(1, site, gate, target, browser)
        self.assertIn("code", browser.get(target).query)

    def test_reload_at_every_step(self) -> None:
        """Whoever does not want to wait, and whoever got no answer, opens the address
        again and comes to the client, over Forgejo if need be. There is one grant."""
        for step in range(1, 6):
            site, gate = self.make()
            browser = Browser(site)
            page = browser.get(authorize_target(site.register()))
            target = callback_target(browser.submit(page, "full"), code="gta_x")
            self.leave_at(step, site, gate, target, browser)
            answer = browser.get(target)
            if step == 5:
                # It was over; the page that led there leads there again.
                self.assertEqual(answer.status, 400)
                answer = browser.submit(page, "full")
            if "code" not in answer.query:
                self.assertIn("/login/oauth/authorize", answer.location, step)
                answer = browser.get(callback_target(answer, code="gta_y"))
            self.assertIn("code", answer.query, step)
            self.assertEqual(site.count("grants"), 1, step)
            self.assert_consistent(site)

    def test_address_opened_twice_at_once(self) -> None:
        """Some extensions do: the browser that waits is not disturbed."""
        for step in range(3, 6):
            site, gate = self.make()
            browser = Browser(site)
            page = browser.get(authorize_target(site.register()))
            target = callback_target(browser.submit(page, "full"), code="gta_x")
            gate.arm(step)
            request = self.send(site, target, browser.cookies)
            held = gate.held
            assert held is not None
            gate.arm(None)
            self.assertEqual(browser.get(target).status, 400)
            transport = request.channel.transport
            held.callback(None)
            self.assertIn(b"code=fjmcp_code_", transport.written.getvalue())
            self.assertEqual(site.count("grants"), 1, step)

    def test_reload_begins_again_once(self) -> None:
        """Nothing goes round in a circle when each return is left."""
        site, gate = self.make()
        browser = Browser(site)
        page = browser.get(authorize_target(site.register()))
        answer = browser.submit(page, "full")
        for number in (1, 2):
            target = callback_target(answer, code="gta_x")
            self.leave_at(3, site, gate, target, browser)
            answer = browser.get(target)
            self.assertEqual(answer.status, 303 if number == 1 else 400)
        # The page still has an answer.
        answer = browser.submit(page, "full")
        self.assertIn("code", browser.get(callback_target(answer, code="gta_y")).query)
        self.assertEqual(site.count("grants"), 1)

    def test_reload_needs_the_browser_that_went(self) -> None:
        """State and cookie, as at the first time."""
        site, gate = self.make()
        browser = Browser(site)
        page = browser.get(authorize_target(site.register()))
        target = callback_target(browser.submit(page, "full"), code="gta_x")
        self.leave_at(3, site, gate, target, browser)
        before = site.dump()
        self.assertEqual(Browser(site).get(target).status, 400)
        name = next(name for name in browser.cookies if "approval" in name)
        other = Browser(site)
        other.cookies = {**browser.cookies, name: "x" * 43}
        self.assertEqual(other.get(target).status, 400)
        self.assertEqual(site.dump(), before)

    def test_reload_after_a_kill(self) -> None:
        """What Forgejo's code brought was lost with the process: the next one asks
        for another, and the sign-in goes on."""
        site, gate = self.make()
        browser = Browser(site)
        page = browser.get(authorize_target(site.register()))
        target = callback_target(browser.submit(page, "full"), code="gta_x")
        gate.arm(3)
        self.send(site, target, browser.cookies)
        after = Site(self, before=site)
        again = Browser(after)
        again.cookies = browser.cookies
        answer = again.get(callback_target(again.get(target), code="gta_y"))
        self.assertIn("code", answer.query)
        self.assertEqual(
            [code for _, code, _ in after.upstream.calls],
            ["gta_y"],
        )

    def test_consent_may_be_left_at_every_step(self) -> None:
        """The decision was written or not; pressing the button again works."""
        for step in (1, 2):
            site, gate = self.make()
            browser = Browser(site)
            page = browser.get(authorize_target(site.register()))
            fields = {**page.form.fields, "decision": "full"}
            body = "&".join(f"{name}={value}" for name, value in fields.items())
            gate.arm(step)
            request = self.send(
                site, "/oauth/consent", browser.cookies, b"POST", body.encode()
            )
            assert gate.held is not None
            request.connectionLost(Failure(ConnectionDone()))
            gate.arm(None)
            leaving = browser.submit(page, "full")
            answer = browser.get(callback_target(leaving, code="gta_x"))
            self.assertIn("code", answer.query)
            self.assert_consistent(site)

    def allow_again(self, step: int, *, is_left: bool) -> None:
        """
        Choose once more while the return stands at a step; what the browser is shown
        then is followed.
        """
        site, gate = self.make()
        browser = Browser(site)
        page = browser.get(authorize_target(site.register()))
        target = callback_target(browser.submit(page, "full"), code="gta_x")
        gate.arm(step)
        request = self.send(site, target, browser.cookies)
        held = gate.held
        assert held is not None
        if is_left:
            request.connectionLost(Failure(ConnectionDone()))
        gate.arm(None)
        answer = browser.submit(page, "full")
        self.assertEqual(answer.status, 303, step)
        if "code" not in answer.query:
            answer = browser.get(callback_target(answer, code="gta_y"))
        if not held.called:
            held.callback(None)
        self.assertIn("code", answer.query, step)
        self.assertEqual(site.count("grants"), 1, step)
        self.assert_consistent(site)
        self.assertEqual(browser.submit(page, "full").location, answer.location)

    def test_second_click_at_every_step_of_the_return(self) -> None:
        """Whoever does not want to wait and clicks again comes to the client with the
        one code that there is, whether or not the first request was given up."""
        for step in range(1, 6):
            for is_left in (True, False):
                self.allow_again(step, is_left=is_left)

    def test_refused_at_forgejo_after_a_second_click(self) -> None:
        """The sign-in has gone on, so the client is not told that it is over."""
        site, gate = self.make()
        browser = Browser(site)
        page = browser.get(authorize_target(site.register()))
        target = callback_target(browser.submit(page, "full"), error="access_denied")
        gate.arm(3)
        transport = self.send(site, target, browser.cookies).channel.transport
        held = gate.held
        assert held is not None
        gate.arm(None)
        leaving = browser.submit(page, "full")
        held.callback(None)
        self.assertIn(b" 400 ", transport.written.getvalue())
        self.assertNotIn(b"access_denied", transport.written.getvalue())
        answer = browser.get(callback_target(leaving, code="gta_x"))
        self.assertIn("code", answer.query)

    def test_cancel_at_every_step_of_the_return(self) -> None:
        """It counts until there is a grant."""
        for step in range(1, 6):
            site, gate = self.make()
            browser = Browser(site)
            page = browser.get(authorize_target(site.register()))
            target = callback_target(browser.submit(page, "full"), code="gta_x")
            gate.arm(step)
            self.send(site, target, browser.cookies)
            held = gate.held
            assert held is not None
            gate.arm(None)
            answer = browser.submit(page, "cancel")
            held.callback(None)
            if step == 5:
                self.assertEqual(answer.status, 400)
                self.assertEqual(site.count("grants"), 1)
                continue
            self.assertEqual(answer.query["error"], "access_denied")
            self.assertEqual(site.count("grants"), 0, step)
            again = browser.submit(page, "cancel")
            self.assertEqual(again.location, answer.location)

    def test_authorize_may_be_left_at_every_step(self) -> None:
        """Nothing stays of it."""
        for step in (1, 2):
            site, gate = self.make()
            target = authorize_target(site.register())
            gate.arm(step)
            request = self.send(site, target, {})
            assert gate.held is not None
            request.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(site.count("pending_authorizations"), 0)
            gate.arm(None)
            self.assertEqual(Browser(site).get(target).status, 200)
