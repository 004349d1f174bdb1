"""Tokens: form, digests, derivation, PKCE."""

from hashlib import sha256
from hmac import new as hmac

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth import tokens

KEYS = st.binary(min_size=32, max_size=32)
#: RFC 7636 appendix B.
RFC_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
RFC_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


class FormTests(SynchronousTestCase):
    """Tokens can be found by a scanner and not be guessed."""

    def test_token_is_prefix_and_43_characters(self) -> None:
        """The text carries all of the 32 random bytes after its prefix."""
        token = tokens.new_token(tokens.ACCESS_PREFIX, lambda count: b"\xfb" * count)
        self.assertRegex(token, r"\Afjmcp_at_[A-Za-z0-9_-]{43}\Z")

    def test_id_is_prefix_and_22_characters(self) -> None:
        """Ids that are no secrets are shorter."""
        made = tokens.new_id(tokens.GRANT_ID_PREFIX, lambda count: b"\xff" * count)
        self.assertRegex(made, r"\Ag_[A-Za-z0-9_-]{22}\Z")

    def test_digest_is_sha256_of_the_text(self) -> None:
        """The store's columns hold SHA-256 of the whole text."""
        self.assertEqual(tokens.digest("abc"), sha256(b"abc").digest())
        self.assertTrue(tokens.digest_matches("abc", sha256(b"abc").digest()))
        self.assertFalse(tokens.digest_matches("abd", sha256(b"abc").digest()))

    @given(st.text())
    def test_digest_takes_any_text(self, text: str) -> None:
        """No text that a client can send makes the digest fail."""
        try:
            text.encode()
        except UnicodeEncodeError:
            return
        self.assertEqual(len(tokens.digest(text)), 32)


class DerivationTests(SynchronousTestCase):
    """The successors of a refresh token depend on all of it and on the key."""

    @given(st.text(alphabet="abcdefgh_-", min_size=1), KEYS, st.integers(0, 1000))
    def test_derivation_is_repeatable(self, presented: str, key: bytes, n: int) -> None:
        """The same question has the same answer."""
        first = tokens.derive_successor(presented, key, n)
        self.assertEqual(first, tokens.derive_successor(presented, key, n))
        self.assertRegex(first.access_token, r"\Afjmcp_at_[A-Za-z0-9_-]{43}\Z")
        self.assertRegex(first.refresh_token, r"\Afjmcp_rt_[A-Za-z0-9_-]{43}\Z")

    @given(KEYS, KEYS)
    def test_another_key_gives_another_pair(self, one: bytes, other: bytes) -> None:
        """Whoever has the token and not the key learns nothing."""
        if one == other:
            return
        first = tokens.derive_successor("fjmcp_rt_x", one, 0)
        second = tokens.derive_successor("fjmcp_rt_x", other, 0)
        self.assertNotEqual(first.access_token, second.access_token)
        self.assertNotEqual(first.refresh_token, second.refresh_token)

    def test_access_number_changes_the_access_token_alone(self) -> None:
        """A renewed access token comes with the same refresh token."""
        first = tokens.derive_successor("fjmcp_rt_x", b"k" * 32, 0)
        second = tokens.derive_successor("fjmcp_rt_x", b"k" * 32, 1)
        self.assertEqual(first.refresh_token, second.refresh_token)
        self.assertNotEqual(first.access_token, second.access_token)

    def test_derivation_is_hmac_sha256(self) -> None:
        """The construction is HMAC-SHA256 under the key, with a label."""
        made = tokens.derive_successor("fjmcp_rt_x", b"k" * 32, 7)
        mac = hmac(b"k" * 32, b"access\x007\x00fjmcp_rt_x", "sha256").digest()
        self.assertEqual(
            made.access_token, tokens.new_token(tokens.ACCESS_PREFIX, lambda _: mac)
        )

    def test_short_key_is_refused(self) -> None:
        """A key that lost its length is a bug, not a weaker pair."""
        with self.assertRaises(ValueError):
            tokens.derive_successor("fjmcp_rt_x", b"short", 0)

    def test_pair_is_not_in_its_representation(self) -> None:
        """A logged pair shows nothing."""
        made = tokens.derive_successor("fjmcp_rt_x", b"k" * 32, 0)
        self.assertNotIn(made.access_token, repr(made))
        self.assertNotIn(made.refresh_token, repr(made))


class CodeVerifierTests(SynchronousTestCase):
    """PKCE with S256 (RFC 7636)."""

    def test_example_of_the_specification(self) -> None:
        """RFC 7636 appendix B."""
        self.assertEqual(tokens.code_challenge(RFC_VERIFIER), RFC_CHALLENGE)
        self.assertTrue(tokens.verifier_matches(RFC_VERIFIER, RFC_CHALLENGE))

    def test_challenge_itself_is_no_verifier(self) -> None:
        """C{plain} is not accepted (RFC 7636 section 7.2)."""
        self.assertFalse(tokens.verifier_matches(RFC_CHALLENGE, RFC_CHALLENGE))

    def test_form_of_a_verifier(self) -> None:
        """43 to 128 unreserved characters (RFC 7636 section 4.1)."""
        for text, valid in [
            ("a" * 42, False),
            ("a" * 43, True),
            ("-._~" * 32, True),
            ("a" * 129, False),
            ("a" * 43 + "\n", False),
            ("a" * 43 + "é", False),
            ("a" * 43 + "=", False),
        ]:
            self.assertEqual(tokens.is_code_verifier(text), valid, text)

    @given(st.text(), st.text())
    def test_any_text_is_judged(self, verifier: str, challenge: str) -> None:
        """Junk is a mismatch, never a failure."""
        try:
            challenge.encode()
        except UnicodeEncodeError:
            return
        tokens.verifier_matches(verifier, challenge)
