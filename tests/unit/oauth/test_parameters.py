"""Request parameters: strict about their form, indifferent to unknown ones."""

from urllib.parse import quote_plus, urlencode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.errors import OAuthError
from fjmcp_broker.oauth.parameters import Parameters, parse_parameters, read_pairs
from fjmcp_broker.oauth.vocabulary import ErrorCode

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\x7f", min_codepoint=32)
)
NAMES = TEXT.filter(lambda name: name not in ("", "resource"))


class ParseTests(SynchronousTestCase):
    """What a query or form says."""

    @given(st.dictionaries(NAMES, TEXT.filter(bool)), st.lists(TEXT.filter(bool)))
    def test_parse_undoes_encoding(
        self, values: dict[str, str], resources: list[str]
    ) -> None:
        """Whatever a client encodes properly arrives."""
        if len(values) + len(resources) > 100:
            return
        pairs = [*values.items(), *(("resource", value) for value in resources)]
        self.assertEqual(
            parse_parameters(urlencode(pairs).encode("ascii")),
            Parameters(values, tuple(resources)),
        )

    @given(st.binary())
    def test_any_bytes_are_judged(self, junk: bytes) -> None:
        """Junk is refused as C{invalid_request} or understood."""
        try:
            parse_parameters(junk)
        except OAuthError as error:
            self.assertEqual((error.code, error.status), ("invalid_request", 400))

    def test_empty_value_counts_as_absent(self) -> None:
        """RFC 6749 section 3.1."""
        parameters = parse_parameters(b"scope=&state&code=x&resource=")
        self.assertEqual(parameters, Parameters({"code": "x"}, ()))

    def test_resource_may_be_repeated(self) -> None:
        """RFC 8707 section 2."""
        parameters = parse_parameters(b"resource=a&x=1&resource=b")
        self.assertEqual(parameters.resources, ("a", "b"))

    def refused(self, encoded: bytes) -> None:
        """
        Require C{invalid_request} that repeats nothing of what was sent.
        """
        error = self.assertRaises(OAuthError, parse_parameters, encoded)
        self.assertEqual(error.code, "invalid_request")
        self.assertNotIn("secret", error.description)

    def test_repeated_parameter_is_refused(self) -> None:
        """RFC 6749 section 3.1: not more than once, empty or equal ones either."""
        for encoded in (b"secret=1&secret=2", b"a=1&a=1", b"a=&a=1", b"a&%61=2"):
            self.refused(encoded)

    def test_broken_encoding_is_refused(self) -> None:
        """Half an escape, or bytes that are no UTF-8, mean nothing."""
        for encoded in (b"a=%zz", b"a=%4", b"%=1", b"a=%ff", b"a=\xff", b"a=%c3"):
            self.refused(encoded)

    def test_control_character_is_refused(self) -> None:
        """RFC 6749 appendix A has none in any parameter."""
        for encoded in (b"a=%00", b"a=x%0d%0aSet-Cookie", b"%7f=1", b"a=\n"):
            self.refused(encoded)

    def test_too_many_parameters_are_refused(self) -> None:
        """The number is bounded before anything is decoded."""
        self.refused(b"&".join(b"p%d=1" % number for number in range(101)))
        allowed = b"&".join(b"p%d=1" % number for number in range(100))
        self.assertEqual(len(parse_parameters(allowed).values), 100)


class ParametersTests(SynchronousTestCase):
    """Looking parameters up."""

    def test_missing_parameter_is_named(self) -> None:
        """A developer reads which one is missing."""
        error = self.assertRaises(OAuthError, Parameters().require, "code")
        self.assertEqual(error.description, "code is missing")

    def test_values_are_not_in_the_representation(self) -> None:
        """Codes and secrets pass through here."""
        parameters = parse_parameters(f"code={quote_plus('s3cret')}".encode())
        self.assertNotIn("s3cret", repr(parameters))


class PairTests(SynchronousTestCase):
    """Reading a query without losing what is repeated."""

    def test_repeated_parameters_are_kept_in_order(self) -> None:
        """Several resources are legal, RFC 8707 section 2."""
        self.assertEqual(
            read_pairs(b"resource=a&x=1+2&resource=b%20c&&y"),
            [("resource", "a"), ("x", "1 2"), ("resource", "b c"), ("y", "")],
        )

    def test_undecodable_queries_are_refused(self) -> None:
        """Bytes that are not text, broken escapes and NUL are no parameters."""
        for query in (b"a=%ff", b"a=\xff", b"a=%zz", b"a=%", b"a=%00"):
            with self.assertRaises(OAuthError) as caught:
                read_pairs(query)
            self.assertEqual(caught.exception.code, ErrorCode.INVALID_REQUEST)

    def test_too_many_are_refused(self) -> None:
        """Empty ones count, so that nothing hides behind a row of separators."""
        for query in (b"a&" * 101, b"&" * 102 + b"a=1", b"a=1" + b"&" * 60_000):
            with self.assertRaises(OAuthError) as caught:
                read_pairs(query)
            self.assertEqual(caught.exception.code, ErrorCode.INVALID_REQUEST)

    @given(st.lists(st.tuples(st.text("ab&= ü%+", min_size=1), st.text("xy&=+%ä"))))
    def test_reading_undoes_urlencode(self, pairs: list[tuple[str, str]]) -> None:
        """What a client encodes is what is read."""
        self.assertEqual(list(read_pairs(urlencode(pairs).encode())), pairs)

    @given(st.binary(max_size=100))
    def test_any_bytes_have_an_answer(self, query: bytes) -> None:
        """No query raises anything but a refusal."""
        try:
            read_pairs(query)
        except OAuthError as error:
            self.assertEqual(error.code, ErrorCode.INVALID_REQUEST)
