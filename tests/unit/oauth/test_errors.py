"""Protocol errors keep to the alphabet of the specification."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.errors import OAuthError, invalid_request
from fjmcp_broker.oauth.vocabulary import ErrorCode


class OAuthErrorTests(SynchronousTestCase):
    """What an error says, and how."""

    @given(st.text())
    def test_description_keeps_to_its_alphabet(self, text: str) -> None:
        """RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E."""
        error = OAuthError(ErrorCode.INVALID_REQUEST, text)
        self.assertRegex(error.description, r"\A[\x20\x21\x23-\x5b\x5d-\x7e]*\Z")
        self.assertEqual(len(error.description), len(text))

    def test_status_is_400_unless_said(self) -> None:
        """RFC 6749 section 5.2 has 400 for everything but invalid_client."""
        self.assertEqual(invalid_request("no").status, 400)
        self.assertEqual(invalid_request("too long", 413).status, 413)
