"""Edits of an object touch nothing else."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.modern.edits import (
    JsonObject,
    edited,
    members_of,
    object_of,
    without,
)
from tests.unit.mcp.test_scanner import objects, pairs_of, spaces, values

texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=3)


class EditTests(SynchronousTestCase):
    """What leaves, changes and comes."""

    @settings(max_examples=400)
    @given(objects(values), spaces, spaces, st.data())
    def test_agrees_with_the_standard_library(
        self, text: str, before: str, after: str, data: st.DataObject
    ) -> None:
        """The members are those of a dictionary that was edited the same way."""
        body = (before + text + after).encode()
        expected = dict(pairs_of(text))
        names = st.one_of(texts, st.sampled_from([*expected, "x"]))
        without = data.draw(st.sets(names, max_size=2))
        replaced = data.draw(st.dictionaries(names, st.integers(), max_size=2))
        result = edited(
            body,
            without=without,
            replaced={name: b"%d" % value for name, value in replaced.items()},
        )
        for name in without:
            expected.pop(name, None)
        expected.update(replaced)
        pairs = pairs_of(result.decode())
        self.assertEqual(dict(pairs), expected)
        self.assertEqual(len(pairs), len(expected))

    @settings(max_examples=200)
    @given(objects(values))
    def test_no_edit_changes_no_byte(self, text: str) -> None:
        """Unless a key is repeated, which cannot be edited in place."""
        pairs = pairs_of(text)
        if len(dict(pairs)) == len(pairs):
            self.assertEqual(edited(text.encode()), text.encode())
            self.assertEqual(
                members_of(text.encode()),
                {
                    name: value
                    for name in dict(pairs)
                    if (found := JsonObject.read(text.encode())) is not None
                    and (value := found.get(name)) is not None
                },
            )

    def test_bytes_around_stay(self) -> None:
        """White space, number forms and escapes are the peer's own."""
        body = b' { "a" : 1.50 , "\\u0062":2e5,\t"c" : [1, 2] } '
        self.assertEqual(
            edited(body, without=["b"]), b' { "a" : 1.50 ,\t"c" : [1, 2] } '
        )
        self.assertEqual(edited(body, without=["a", "b", "c"]), b" {} ")
        self.assertEqual(
            edited(body, replaced={"b": b"0", "d": b"{}"}),
            b' { "a" : 1.50 , "\\u0062":0,\t"c" : [1, 2] ,"d":{}} ',
        )
        self.assertEqual(edited(b"{ }", replaced={"d": b"1"}), b'{"d":1 }')

    def test_what_is_no_object(self) -> None:
        """It is not touched, and has no members."""
        for body in (b"[]", b"null", b"{", b'"x"', b"", b'{"a":}', b"\xff{}"):
            self.assertEqual(edited(body, without=["a"]), body)
            self.assertIsNone(JsonObject.read(body))
        self.assertIsNone(JsonObject.read(None))
        self.assertIsNone(members_of(None))

    def test_repeated_keys(self) -> None:
        """The last one counts, for every reader behind."""
        body = b'{"a":1,"b":2,"a":3}'
        self.assertEqual(edited(body, replaced={"b": b"4"}), b'{"a":3,"b":4}')
        self.assertEqual(edited(b'{"a":1,"a":1}', without=["a"]), b"{}")

    @given(
        st.lists(
            st.sampled_from(("_meta", "a", "é", 'q"', "args")), unique=True, min_size=1
        ),
        st.sampled_from((b"1", b'{"_meta":{}}', b"{}", b'",\\"_meta\\":{}"', b"[{}]")),
        st.sampled_from((b",", b", ", b" ,")),
        st.booleans(),
    )
    def test_one_member_that_is_known(
        self, names: list[str], value: bytes, comma: bytes, escaped: bool
    ) -> None:
        """Wherever it stands, it leaves as with any other edit."""
        members = dict.fromkeys(names, value)
        written = [
            json.dumps(name, ensure_ascii=escaped).encode() + b":" + value
            for name in names
        ]
        data = b"{" + comma.join(written) + b"}"
        for name in names:
            self.assertEqual(
                without(data, members, name), edited(data, without=[name]), data
            )

    def test_written_anew(self) -> None:
        """Names are escaped as JSON asks for."""
        written = object_of({'a"b': b"1", "\n": b"{}"})
        self.assertEqual(json.loads(written), {'a"b': 1, "\n": {}})
