"""
The stand-in's controls: records, delays, holds, lost answers, and the panel.
"""

import json
from typing import cast

from treq.client import HTTPClient
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.web.client import ResponseNeverReceived
from twisted.web.iweb import IResponse

from fjmcp_broker.demo.forgejo.stand_in import StandInForgejo
from tests.unit.demo.browser import StandInTestCase, in_memory


class FaultTests(StandInTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stub = StubTreq(self.forgejo.resource)
        self.tokens = self.controls.issue_tokens("alice", "read:user")

    def begin_refresh(self) -> Deferred[IResponse]:
        """
        Send a refresh without expecting an answer yet.
        """
        started = cast(HTTPClient, self.stub).post(
            f"{self.base_url}/login/oauth/access_token",
            data={
                "client_id": self.application.client_id,
                "client_secret": self.application.client_secret,
                "grant_type": "refresh_token",
                "refresh_token": self.tokens.refresh_token,
            },
        )
        return cast(Deferred[IResponse], started)

    def status(self, started: Deferred[IResponse]) -> int:
        """
        @return: the status of an answer that must have arrived.
        """
        self.stub.flush()
        response = self.successResultOf(started)
        return int(response.code)

    def test_drop_after_the_counter_moved(self) -> None:
        """The answer is lost, and the refresh token is spent all the same."""
        self.controls.drop_answer("token:refresh_token")
        started = self.begin_refresh()
        self.stub.flush()
        self.failureResultOf(started, ResponseNeverReceived)
        self.assertEqual(self.controls.grant("alice").counter, 3)
        self.assertEqual(self.refresh(self.tokens.refresh_token).status, 400)

    def test_hold_answer(self) -> None:
        """Handled, but not answered until it is released."""
        held = self.controls.hold_answer("token", times=1)
        started = self.begin_refresh()
        self.assertNoResult(started)
        self.assertEqual(self.controls.grant("alice").counter, 3)
        self.assertEqual((held.waiting, self.controls.in_flight("token")), (1, 1))
        held.release()
        self.assertEqual(self.status(started), 200)
        self.assertEqual(self.controls.in_flight("token"), 0)

    def test_hold_request(self) -> None:
        """Not even handled until it is released."""
        held = self.controls.hold_request("token")
        started = self.begin_refresh()
        self.assertNoResult(started)
        self.assertEqual(self.controls.grant("alice").counter, 2)
        held.end()
        self.assertEqual(self.status(started), 200)

    def test_held_request_of_a_client_that_left(self) -> None:
        """A client that gives up is forgotten, and nothing is handled."""
        held = self.controls.hold_request("token")
        started = self.begin_refresh()
        started.cancel()
        self.failureResultOf(started)
        self.stub.flush()
        held.end()
        self.assertEqual(self.controls.grant("alice").counter, 2)

    def test_delay(self) -> None:
        """Handling begins later, by the stand-in's own clock."""
        self.controls.delay(5, "token")
        started = self.begin_refresh()
        self.clock.advance(4)
        self.stub.flush()
        self.assertNoResult(started)
        self.clock.advance(1)
        self.assertEqual(self.status(started), 200)

    def test_client_leaves_during_delay(self) -> None:
        """No delayed call stays behind."""
        self.controls.delay(5, "token")
        started = self.begin_refresh()
        started.cancel()
        self.failureResultOf(started)
        self.stub.flush()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bad_gateway(self) -> None:
        """502 with HTML, and nothing happened."""
        self.controls.bad_gateway("token", times=1)
        answer = self.refresh(self.tokens.refresh_token)
        self.assertEqual(answer.status, 502)
        self.assertIn("text/html", answer.headers["content-type"])
        self.assertEqual(self.refresh(self.tokens.refresh_token).status, 200)

    def test_targets(self) -> None:
        """A fault hits an endpoint, a grant type, a path prefix, or everything."""
        for target, path, hit in (
            ("api", "/api/v1/version", True),
            ("token", "/api/v1/version", False),
            ("/api/v1/ver", "/api/v1/version", True),
            ("/api/v1/user", "/api/v1/version", False),
            ("page", "/", True),
            (None, "/.well-known/openid-configuration", True),
        ):
            self.controls.bad_gateway(target)
            self.assertEqual(self.get(path).status == 502, hit, f"{target} {path}")
            self.controls.end_faults()
        self.assertEqual(self.get("/api/v1/version").status, 200)

    def test_grant_types_are_told_apart(self) -> None:
        """Exchanges and refreshes can be hit and counted separately."""
        fault = self.controls.bad_gateway("token:authorization_code")
        self.assertEqual(self.exchange(self.code()).status, 502)
        self.assertEqual(self.refresh(self.tokens.refresh_token).status, 200)
        self.assertEqual(fault.hits, 1)
        self.assertEqual(self.controls.count("token:refresh_token"), 1)
        self.assertEqual(self.controls.count("token"), 2)

    def test_end_faults_releases(self) -> None:
        """What is held goes on when all faults end."""
        self.controls.hold_request()
        started = self.begin_refresh()
        self.controls.end_faults()
        self.assertEqual(self.status(started), 200)


class RecordTests(StandInTestCase):
    def test_requests_are_recorded(self) -> None:
        """Method, path, endpoint, user and status of every request."""
        token = self.controls.issue_tokens("bob", "all").access_token
        self.api("/user", token)
        self.api("/repos/bob/website/issues", token, "POST", {"title": "T"})
        self.api("/user", "bad")
        self.assertEqual(
            [
                (each.method, each.path, each.endpoint, each.login, each.status)
                for each in self.controls.requests
            ],
            [
                ("GET", "/api/v1/user", "api", "bob", 200),
                ("POST", "/api/v1/repos/bob/website/issues", "api", "bob", 201),
                ("GET", "/api/v1/user", "api", None, 401),
            ],
        )
        (written,) = self.controls.writes()
        self.assertEqual(written.method, "POST")
        self.controls.forget_requests()
        self.assertEqual(self.controls.count(), 0)

    def test_unknown_names(self) -> None:
        """Mistakes in tests are noticed."""
        for call in (self.controls.user, self.controls.application):
            self.assertRaises(KeyError, call, "nobody")
        self.assertRaises(KeyError, self.controls.grant, "bob")

    def test_secrets_are_not_in_texts(self) -> None:
        """Passwords, secrets and tokens stay out of the repr of records."""
        tokens = self.controls.issue_tokens("alice")
        for record, secret in (
            (self.controls.user("alice"), self.controls.user("alice").password),
            (self.application, self.application.client_secret),
            (tokens, tokens.access_token),
        ):
            self.assertNotIn(secret, repr(record))


class PanelTests(StandInTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.forgejo = StandInForgejo(self.clock, self.base_url, controls_key="k3y")
        self.controls = self.forgejo.controls
        self.application = self.forgejo.add_application("https://broker.test/cb")
        self.client = in_memory(self.forgejo)

    def press_control(self, name: str, **arguments: object) -> tuple[int, object]:
        """
        @return: status and result of a control.
        """
        answer = self.send(
            "POST",
            f"/-/controls/k3y/{name}",
            body=json.dumps(arguments).encode(),
            headers={"Content-Type": "application/json"},
        )
        return answer.status, answer.json.get("result")

    def test_controls(self) -> None:
        """Whoever has the key may do what tests do."""
        self.controls.issue_tokens("alice")
        self.assertEqual(self.press_control("revoke_grant", login="alice")[0], 200)
        self.assertRaises(KeyError, self.controls.grant, "alice")
        _, secret = self.press_control("regenerate_secret")
        self.assertEqual(secret, self.application.client_secret)
        self.press_control("bad_gateway", target="api", times=1)
        self.assertEqual(self.get("/api/v1/version").status, 502)
        listed = self.get("/-/controls/k3y/requests").json
        self.assertEqual([each["path"] for each in listed], ["/api/v1/version"])

    def test_mistakes(self) -> None:
        """Unknown controls and arguments are refused."""
        self.assertEqual(self.press_control("issue_tokens", login="alice")[0], 404)
        self.assertEqual(self.press_control("__init__")[0], 404)
        self.assertEqual(self.press_control("revoke_grant")[0], 422)
        self.assertEqual(self.press_control("revoke_grant", login="eve")[0], 422)
        self.assertEqual(self.get("/-/controls/k3y/revoke_grant").status, 404)

    def test_wrong_key(self) -> None:
        """Another key is a page that does not exist."""
        for path in ("/-/controls/", "/-/controls/other/requests", "/-/controls//x"):
            self.assertEqual(self.get(path).status, 404)

    def test_no_key_no_panel(self) -> None:
        """Without a key there is no panel, not even for the empty key."""
        for key in (None, ""):
            self.forgejo = StandInForgejo(self.clock, self.base_url, controls_key=key)
            self.client = in_memory(self.forgejo)
            self.assertEqual(self.get("/-/controls//requests").status, 404)
