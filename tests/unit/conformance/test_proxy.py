"""What the bearer proxy does to requests."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.proxy import MAXIMUM_HEAD_BYTES, Requests

OWN = b"127.0.0.1:1000"
TARGET = b"127.0.0.1:2000"
SENT = (
    b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:1000\r\nMCP-METHOD:   ping  \r\n"
    b"content-length: 9\r\nOrigin: http://127.0.0.1:1000\r\n\r\nbody\r\n\r\nX"
    b"GET /mcp HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n"
)
PASSED_ON = (
    b"POST /mcp HTTP/1.1\r\nAuthorization: Bearer secret\r\n"
    b"Host: 127.0.0.1:2000\r\nMCP-METHOD:   ping  \r\n"
    b"content-length: 9\r\nOrigin: http://127.0.0.1:2000\r\n\r\nbody\r\n\r\nX"
    b"GET /mcp HTTP/1.1\r\nAuthorization: Bearer secret\r\n"
    b"Host: evil.example\r\nOrigin: http://evil.example\r\n\r\n"
)


class RequestsTests(SynchronousTestCase):
    """A header is added to each request; nothing else changes."""

    @given(st.lists(st.integers(0, len(SENT)), max_size=6))
    def test_however_it_arrives(self, cuts: list[int]) -> None:
        """Own C{Host} and C{Origin} become the server's, foreign ones stay."""
        requests = Requests("secret", OWN, TARGET)
        places = [0, *sorted(cuts), len(SENT)]
        parts = [SENT[a:b] for a, b in pairwise(places)]
        passed_on = b"".join(requests.receive(part) for part in parts)
        self.assertEqual(passed_on, PASSED_ON)

    def test_what_it_cannot_pass_on(self) -> None:
        """A chunked request, and a head without an end."""
        requests = Requests("secret", OWN, TARGET)
        with self.assertRaises(ValueError):
            requests.receive(
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            )
        with self.assertRaises(ValueError):
            requests.receive(b"x" * (MAXIMUM_HEAD_BYTES + 1))
