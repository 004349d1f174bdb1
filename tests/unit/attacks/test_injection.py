"""Line breaks and the like in whatever a client controls."""

from urllib.parse import quote, urlencode

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.web.signin import (
    WEB_REDIRECT,
    Answer,
    Browser,
    Site,
    authorize_target,
)

BREAK = "x\r\nSet-Cookie: planted=1\r\n\r\n<script>alert(1)</script>"
LOOPBACK = "http://127.0.0.1:1234/back"
PARAMETERS = (
    "state",
    "scope",
    "resource",
    "client_id",
    "redirect_uri",
    "code_challenge",
    "code_challenge_method",
    "response_type",
    "nonce",
)


class HeaderInjectionTests(SynchronousTestCase):
    """RFC 9110 section 5.5: a line break begins another header, or another answer."""

    def setUp(self) -> None:
        self.site = Site(self)

    def check(self, answer: Answer, what: str) -> None:
        """No header and no page has it."""
        for name, values in answer.headers.getAllRawHeaders():
            for value in values:
                self.assertNotIn(b"\r", value, what)
                self.assertNotIn(b"\n", value, what)
                self.assertNotIn(b"planted", name + value, what)
        self.assertNotIn(b"<script", answer.body, what)

    def test_parameters_of_a_request(self) -> None:
        """Escaped in every way, in each parameter, towards programs and websites."""
        client_id = self.site.register(redirect_uris=[LOOPBACK, WEB_REDIRECT])
        for target in (LOOPBACK, WEB_REDIRECT):
            for name in PARAMETERS:
                for text in (
                    BREAK,
                    quote(BREAK),
                    BREAK.replace("\r\n", "\u010d\u010a"),
                ):
                    changes = {"redirect_uri": target, name: text}
                    client = changes.pop("client_id", client_id)
                    answer = Browser(self.site).get(authorize_target(client, **changes))
                    self.check(answer, name)

    def test_what_comes_back_from_forgejo(self) -> None:
        """State, code and error of a callback that nobody began."""
        for name in ("state", "code", "error", "error_description", "iss"):
            query = urlencode({"state": "s", "code": "c", name: BREAK})
            answer = Browser(self.site).get(f"/oauth/callback?{query}")
            self.assertGreaterEqual(answer.status, 400)
            self.check(answer, name)

    def test_name_of_a_client(self) -> None:
        """It is shown as text, without its line breaks."""
        client_id = self.site.register(client_name=BREAK)
        answer = Browser(self.site).get(authorize_target(client_id))
        self.assertEqual(answer.status, 200)
        self.check(answer, "client_name")
