"""What every answer has, and what becomes of errors."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.test.requesthelper import DummyRequest
from zope.interface import provider

from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.vocabulary import ErrorCode
from fjmcp_broker.store.errors import SealError, StoreUnavailable
from fjmcp_broker.web.app import Route
from fjmcp_broker.web.errors import ErrorAnswer, answer_bytes
from tests.unit.web.token_fixture import TokenWorld


def page(request: IRequest, answer: ErrorAnswer) -> bytes:
    """
    @return: an error as a person sees it.
    """
    if answer.description == "no page":
        raise LookupError("no page")
    return f"<p>{answer.code} {answer.incident is not None}".encode()


class Endpoint:
    """
    Does what the test says.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.wait: Deferred[None] | None = None
        self.is_cancelled = False

    async def handle(self, request: IRequest) -> bytes:
        """
        @return: one word.
        """
        if self.wait is not None:
            try:
                await self.wait
            except CancelledError:
                self.is_cancelled = True
                if self.error is None:
                    raise
        if self.error is not None:
            raise self.error
        return answer_bytes(request, b"done", "text/plain")


class AppTestCase(SynchronousTestCase):
    """An application with one endpoint of each kind."""

    def setUp(self) -> None:
        self.endpoint = Endpoint()
        handle = self.endpoint.handle
        self.world = TokenWorld(
            self,
            more_routes=(
                Route("GET", "/oauth/authorize", handle, error_page=page),
                Route("GET", "/oauth/callback", handle, error_page=page),
                Route("POST", "/oauth/consent", handle, error_page=page),
                Route("POST", "/oauth/register", handle),
                Route("POST", "/oauth/other", handle),
                Route("GET", "/", handle, error_page=page),
            ),
        )


class RoutingTests(AppTestCase):
    """Paths are exact."""

    def test_root(self) -> None:
        """The shortest path works."""
        self.assertEqual(self.world.request("GET", "/").body, b"done")

    def test_unknown_path_is_404(self) -> None:
        """As JSON, also where a prefix is known."""
        for path in ("/x", "/oauth", "/oauth/", "/oauth/token/", "/healthz/x", "/mcp"):
            answer = self.world.request("GET", path)
            self.assertEqual(answer.error, (404, "not_found"), path)

    def test_disguised_path_is_404(self) -> None:
        """Routing would decode it, and other rules would not."""
        for path in (
            "//oauth/other",
            "/%6fauth/other",
            "/%2Foauth/other",
            "/oauth%2Fother",
            "/oauth/other%00",
            "/oauth/%ff",
            "/x/..%2foauth/other",
        ):
            answer = self.world.request("POST", path, headers={"Origin": "https://e"})
            self.assertEqual(answer.error, (404, "not_found"), path)

    def test_wrong_method_is_405(self) -> None:
        """RFC 9110 section 15.5.6: with Allow."""
        for method, path, allow in [
            ("GET", "/oauth/token", "OPTIONS, POST"),
            ("PUT", "/oauth/token", "OPTIONS, POST"),
            ("DELETE", "/healthz", "GET, HEAD"),
            ("OPTIONS", "/oauth/other", "POST"),
            ("BREW", "/oauth/other", "POST"),
        ]:
            answer = self.world.request(method, path)
            self.assertEqual(answer.error, (405, "method_not_allowed"), (method, path))
            self.assertEqual(answer.headers["allow"], allow)

    def test_mounted_deeper_it_finds_the_whole_path(self) -> None:
        """A site may put other resources beside it."""
        root = Resource()
        root.putChild(b"oauth", self.world.resource)
        self.world.treq = type(self.world.treq)(root)
        answer = self.world.request("POST", "/oauth/other", body=b"")
        self.assertEqual(answer.body, b"done")

    def test_junk_host_fails_nowhere(self) -> None:
        """Paths outside /oauth are answered whatever it says."""
        for host in (b"", b"\xff", b"a" * 300, b"xn--\x80", b"[", b"a..b", b"::"):
            answer = self.world.request("GET", "/healthz", headers={"Host": host})
            self.assertEqual(answer.status, 200, host)


class HeaderTests(AppTestCase):
    """Headers of every answer."""

    def test_security_headers(self) -> None:
        """On success, error and refusal alike."""
        for method, path, headers in [
            ("GET", "/healthz", {}),
            ("GET", "/nowhere", {}),
            ("GET", "/oauth/authorize", {}),
            ("POST", "/oauth/token", {}),
            ("POST", "/oauth/other", {"Host": "evil.example"}),
        ]:
            answer = self.world.request(method, path, headers=headers)
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertEqual(answer.headers["referrer-policy"], "no-referrer")
            self.assertIn(
                "frame-ancestors 'none'", answer.headers["content-security-policy"]
            )

    def test_errors_are_not_stored(self) -> None:
        """Nor is a 404 remembered when the path comes to be."""
        answer = self.world.request("GET", "/nowhere")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.length, len(answer.body))

    def test_only_some_paths_answer_every_origin(self) -> None:
        """Also when they refuse, else the script cannot read why."""
        origin = {"Origin": "https://inspector.example"}
        for path in ("/oauth/token", "/oauth/register", "/oauth/revoke"):
            for method in ("POST", "GET", "OPTIONS"):
                answer = self.world.request(method, path, headers=origin)
                self.assertEqual(answer.headers["access-control-allow-origin"], "*")
                self.assertIn(
                    "Retry-After", answer.headers["access-control-expose-headers"]
                )
        for path in (
            *("/", "/oauth/authorize", "/oauth/callback", "/oauth/consent"),
            *("/healthz", "/oauth/token/x", "/.well-known", "/x/.well-known/y"),
        ):
            for method in ("POST", "GET", "OPTIONS"):
                answer = self.world.request(method, path, headers=origin)
                for name in answer.headers:
                    self.assertFalse(name.startswith("access-control"), (path, name))


class GuardTests(AppTestCase):
    """Host and Origin under /oauth."""

    def test_foreign_host_is_403(self) -> None:
        """DNS rebinding; on every path, even one that is not there."""
        for method, path in [
            ("POST", "/oauth/token"),
            ("OPTIONS", "/oauth/token"),
            ("POST", "/oauth/register"),
            ("POST", "/oauth/other"),
            ("GET", "/oauth/nowhere"),
        ]:
            answer = self.world.request(method, path, headers={"Host": "evil.example"})
            self.assertEqual(answer.error, (403, "access_denied"), path)

    def test_foreign_host_is_403_on_pages(self) -> None:
        """People see a page."""
        answer = self.world.request(
            "GET", "/oauth/authorize", headers={"Host": "evil.example"}
        )
        self.assertEqual((answer.status, answer.body), (403, b"<p>access_denied False"))

    def test_foreign_origin_is_403(self) -> None:
        """A script of another site has no business here."""
        for origin in ("https://evil.example", "null"):
            answer = self.world.request(
                "POST", "/oauth/other", headers={"Origin": origin}
            )
            self.assertEqual(answer.error, (403, "access_denied"))

    def test_own_origin_is_allowed(self) -> None:
        """And none at all."""
        for headers in ({}, {"Origin": "https://mcp.example.org"}):
            answer = self.world.request("POST", "/oauth/other", headers=headers)
            self.assertEqual(answer.body, b"done")

    def test_navigations_are_not_broken(self) -> None:
        """
        A browser that comes from another site may say so. The consent form has its
        own, stricter rule.
        """
        for origin in ("https://git.example.org", "null"):
            for method, path in [
                ("GET", "/oauth/authorize"),
                ("GET", "/oauth/callback"),
                ("POST", "/oauth/consent"),
                ("POST", "/oauth/register"),
            ]:
                answer = self.world.request(method, path, headers={"Origin": origin})
                self.assertEqual(answer.body, b"done", path)


class ErrorTests(AppTestCase):
    """What an endpoint raises."""

    def setUp(self) -> None:
        super().setUp()
        self.logged = ""

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            self.logged += formatEvent(event) + "\n"

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def answer(self, error: BaseException, path: str = "/oauth/other") -> Any:
        """
        @return: the answer of an endpoint that raises that.
        """
        self.endpoint.error = error
        method = "POST" if path == "/oauth/other" else "GET"
        return self.world.request(method, path)

    def test_protocol_error(self) -> None:
        """RFC 6749 section 5.2, with its own headers."""
        error = OAuthError(
            ErrorCode.INVALID_CLIENT, "no", 401, headers={"WWW-Authenticate": "Basic"}
        )
        answer = self.answer(error)
        self.assertEqual(
            answer.document, {"error": "invalid_client", "error_description": "no"}
        )
        self.assertEqual(answer.status, 401)
        self.assertEqual(answer.headers["www-authenticate"], "Basic")

    def test_store_that_is_busy(self) -> None:
        """503 with Retry-After, never an error that makes clients forget tokens."""
        for error in (StoreUnavailable("busy"), SealError("no key"), CancelledError()):
            answer = self.answer(error)
            self.assertEqual(answer.error, (503, "temporarily_unavailable"))
            self.assertEqual(answer.headers["retry-after"], "5")
            self.assertNotIn(b"no key", answer.body)

    def test_unexpected_error_has_an_id_that_is_in_the_log(self) -> None:
        """And says nothing else."""
        answer = self.answer(ValueError("fjmcp_at_secret"))
        self.assertEqual(answer.error, (500, "server_error"))
        incident = answer.document["incident"]
        self.assertRegex(incident, r"\A[0-9a-f]{16}\Z")
        self.assertNotIn(b"secret", answer.body)
        [failure] = self.flushLoggedErrors(ValueError)
        self.assertIsNotNone(failure)
        self.assertIn(incident, self.logged)

    def test_people_see_a_page(self) -> None:
        """On the paths that they visit, whatever went wrong."""
        for error, status, text in [
            (OAuthError(ErrorCode.ACCESS_DENIED, "no"), 400, b"<p>access_denied False"),
            (StoreUnavailable("busy"), 503, b"<p>temporarily_unavailable False"),
            (KeyError("x"), 500, b"<p>server_error True"),
        ]:
            answer = self.answer(error, "/oauth/authorize")
            self.assertEqual((answer.status, answer.body), (status, text))
            self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
            self.assertEqual(answer.length, len(text))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_page_that_fails(self) -> None:
        """The client has an answer even so."""
        error = OAuthError(ErrorCode.INVALID_REQUEST, "no page")
        answer = self.answer(error, "/oauth/authorize")
        self.assertEqual(answer.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)


class PartingTests(AppTestCase):
    """A client goes away before its answer is there."""

    def leave(self, error: Exception | None) -> DummyRequest:
        """
        @param error: what the endpoint raises when it is told to stop.
        @return: the request, whose client has gone.
        """
        self.endpoint.wait, self.endpoint.error = Deferred(), error
        request = DummyRequest([b""])
        request.uri = b"/"
        self.world.resource.render(request)
        self.assertFalse(self.endpoint.is_cancelled)
        request.processingFailed(Failure(ConnectionDone()))
        return request

    def test_work_is_cancelled(self) -> None:
        """And nothing is written."""
        request = self.leave(None)
        self.assertTrue(self.endpoint.is_cancelled)
        self.assertEqual((request.written, request.finished), ([], 0))

    def test_what_fails_then_is_logged(self) -> None:
        """Nobody else can be told."""
        request = self.leave(ValueError("too late"))
        self.assertEqual((request.written, request.finished), ([], 0))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
