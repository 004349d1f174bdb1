"""JSON that every reader understands in the same way."""

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.strict_json import MAXIMUM_DEPTH, JsonRefused, parse_object

#: Bodies that must be refused, with what a developer is told.
JUNK = {
    b"": "not JSON",
    b"{": "not JSON",
    b"\xff\xfe{}": "not UTF-8",
    b'{"a": "\xff"}': "not UTF-8",
    b"[]": "not a JSON object",
    b"null": "not a JSON object",
    b'"text"': "not a JSON object",
    b"1": "not a JSON object",
    b'{"a": 1} x': "not JSON",
    b'{"a": NaN}': "NaN is not JSON",
    b'{"a": -Infinity}': "-Infinity is not JSON",
    b'{"a": 1, "a": 2}': "key twice",
    b'{"a": 1, "A": 2}': "key twice",
    b'{"x": {"a": 1, "a": 2}}': "key twice",
    b'{"ss": 1, "\xc3\x9f": 2}': "key twice",
    b'{"a": "\\u0000"}': "character",
    b'{"a\\u0000": 1}': "character",
    b'{"a": "\\ud800"}': "character",
    b'{"a": ["\\udfff"]}': "character",
    b'{"a": "\x00"}': "not JSON",
    b'{"a": ' + b"9" * 5000 + b"}": "not JSON",
    b"[" * 10_000: "nested too deep",
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000: "nested too deep",
    b'{"a":' + b"[" * MAXIMUM_DEPTH + b"]" * MAXIMUM_DEPTH + b"}": "nested too deep",
}

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


class ParseTests(SynchronousTestCase):
    """RFC 8259 section 4 warns of duplicate names; RFC 7493 forbids them."""

    def test_junk_is_refused_with_its_reason(self) -> None:
        """Every kind of junk gets one clause that says what is wrong."""
        for body, reason in JUNK.items():
            with self.assertRaises(JsonRefused) as caught:
                parse_object(body)
            self.assertIn(reason, str(caught.exception), body[:40])

    @given(st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=4))
    def test_ordinary_objects_are_read_as_they_are(
        self, value: dict[str, object]
    ) -> None:
        """What a client serialises is what is read."""
        self.assertEqual(parse_object(json.dumps(value).encode()), value)

    @given(st.binary(max_size=200))
    def test_any_bytes_have_an_answer(self, body: bytes) -> None:
        """No bytes raise anything but the refusal."""
        try:
            value = parse_object(body)
        except JsonRefused:
            return
        self.assertIsInstance(value, dict)
