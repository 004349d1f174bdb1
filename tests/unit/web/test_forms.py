"""Reading forms and queries of requests."""

from collections.abc import Callable
from io import BytesIO
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IRequest
from twisted.web.test.requesthelper import DummyRequest

from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.parameters import Parameters
from fjmcp_broker.web.forms import read_form, read_query

FORM = b"application/x-www-form-urlencoded"


def posted(body: bytes, *content_types: bytes) -> IRequest:
    """
    @return: a request with that body.
    """
    request: Any = DummyRequest([b""])
    request.content = BytesIO(body)
    request.requestHeaders.setRawHeaders(b"content-type", list(content_types))
    return cast(IRequest, request)


def fetched(uri: bytes) -> IRequest:
    """
    @return: a request for that target.
    """
    request = DummyRequest([b""])
    request.uri = uri
    return cast(IRequest, request)


class FormsTestCase(SynchronousTestCase):
    """Refusals told apart by status."""

    def refused(
        self, read: Callable[..., Parameters], *arguments: Any, status: int = 400
    ) -> None:
        """
        Require C{invalid_request} with that status.
        """
        error = self.assertRaises(OAuthError, read, *arguments)
        self.assertEqual((error.code, error.status), ("invalid_request", status))


class FormTests(FormsTestCase):
    """RFC 6749 section 4.1.3: form-encoded, UTF-8, in the body."""

    def test_form_is_read(self) -> None:
        """With and without a charset, in any case."""
        for kind in (FORM, FORM.upper(), FORM + b"; charset=UTF-8", FORM + b";x"):
            self.assertEqual(
                read_form(posted(b"a=1", kind)), Parameters({"a": "1"}), kind
            )

    def test_other_types_are_refused(self) -> None:
        """A form in JSON clothes is not guessed at."""
        for kinds in (
            (),
            (b"",),
            (b"application/json",),
            (b"multipart/form-data; boundary=x",),
            (FORM + b"; charset=latin-1",),
            (FORM, b"text/plain"),
        ):
            self.refused(read_form, posted(b"a=1", *kinds), status=415)

    def test_long_body_is_refused(self) -> None:
        """Without reading on."""
        self.refused(read_form, posted(b"a=123", FORM), 4, status=413)
        self.assertEqual(read_form(posted(b"a=12", FORM), 4), Parameters({"a": "12"}))

    @given(st.binary(), st.binary())
    def test_any_bytes_are_judged(self, body: bytes, kind: bytes) -> None:
        """Junk is refused or understood."""
        for content_type in (FORM, kind.replace(b"\n", b"").replace(b"\r", b"")):
            try:
                read_form(posted(body, content_type))
            except OAuthError as error:
                self.assertIn(error.status, (400, 415))


class QueryTests(FormsTestCase):
    """RFC 6749 section 4.1.1: in the request target."""

    def test_query_is_read(self) -> None:
        """From the raw target, so that nothing was decoded before."""
        for uri, values in [
            (b"/x", {}),
            (b"/x?", {}),
            (b"/x?a=1&b=%3F", {"a": "1", "b": "?"}),
            (b"/x?a=?", {"a": "?"}),
        ]:
            self.assertEqual(read_query(fetched(uri)), Parameters(values))

    def test_long_query_is_refused(self) -> None:
        """16 KiB are plenty."""
        self.refused(read_query, fetched(b"/x?a=" + b"b" * 20_000), status=414)
