"""The keys of an object, read in one way only."""

import itertools
import json
from typing import NoReturn

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.scanner import (
    MAXIMUM_MEMBERS,
    AmbiguousKeysError,
    Names,
    member_spans,
    read_object,
    value_span,
)

NAMES = Names("name", "_meta", "task", "clientInfo")
UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)

spaces = st.text(" \t\n\r", max_size=2)


def quoted(text: str) -> st.SearchStrategy[str]:
    """The spellings of a string: each character as it is or escaped."""

    def spell(character: str, escape: bool) -> str:
        if escape or character in '"\\' or ord(character) < 32:
            units = character.encode("utf-16-be")
            return "".join(
                f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}"
                for at in range(0, len(units), 2)
            )
        return character

    flags = st.lists(st.booleans(), min_size=len(text), max_size=len(text))
    return flags.map(lambda escapes: '"' + "".join(map(spell, text, escapes)) + '"')


odd_keys = (
    *(
        "name",
        "Name",
        "nAME",
        "_meta",
        "_META",
        "task",
        "tasK",
        "ta\u017fk",
        "tas\u212a",
    ),
    *("a", "A", "\u0131", "i", "I", "\u0130", "ß", "ss", "SS", "", "\0", "x\0", '"\\'),
    *("clientInfo", "clientinfo", "\U00010400", "\U00010428"),
)
keys = st.one_of(
    st.sampled_from(odd_keys),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=3),
).flatmap(quoted)

scalars = st.one_of(
    st.sampled_from(["1", "12", "1.5", "-0", "1e5", "1E+5", "null", "true", "false"]),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=4).flatmap(quoted),
)


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """An object as text, with repeated keys and white space anywhere."""
    members = draw(st.lists(st.tuples(keys, values), max_size=5))
    parts: list[str] = []
    for key, value in members:
        before, between, after, end = (draw(spaces) for _ in range(4))
        parts.append(before + key + between + ":" + after + value + end)
    return "{" + (",".join(parts) or draw(spaces)) + "}"


values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        objects(inner),
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    ),
    max_leaves=6,
)


def pairs_of(text: str) -> list[tuple[str, object]]:
    """The members of the outermost object as the standard library reads them."""
    pairs: list[tuple[str, object]] = json.loads(text, object_pairs_hook=list)
    return pairs


def ambiguous(found: list[str]) -> bool:
    """The rule, said once more in other words."""
    folded = [key.casefold() for key in found]
    if len(set(folded)) < len(folded) or any("\0" in key for key in found):
        return True
    meaning = {"name": "name", "_meta": "_meta", "task": "task"}
    meaning["clientinfo"] = "clientInfo"
    return any(meaning.get(key.casefold(), key) != key for key in found)


class ReadObjectTests(SynchronousTestCase):
    """Read as the standard library reads, or refused."""

    @settings(max_examples=400)
    @given(objects(values), spaces, spaces)
    def test_agrees_with_the_standard_library(
        self, text: str, before: str, after: str
    ) -> None:
        """Every key and value is found; ambiguity is found in whatever spelling."""
        body = (before + text + after).encode()
        pairs = pairs_of(text)
        try:
            members = read_object(body, NAMES)
        except AmbiguousKeysError:
            self.assertTrue(ambiguous([key for key, _ in pairs]), body)
            return
        self.assertFalse(ambiguous([key for key, _ in pairs]), body)
        again = [
            (key, json.loads(value, object_pairs_hook=list))
            for key, value in members.items()
        ]
        self.assertEqual(again, pairs)
        for key, value in members.items():
            start, end = value_span(body, key)
            self.assertEqual(body[start:end], value)

    @settings(max_examples=300)
    @given(st.text('{}[]":,\\ u0061ntrue1.e-"\n', max_size=24))
    def test_junk_is_refused_as_the_standard_library_refuses(self, junk: str) -> None:
        """Nothing passes that another parser would not take for an object."""

        def no(constant: str) -> NoReturn:
            raise ValueError(constant)

        body = ('{"a":' + junk + "}").encode()
        try:
            expected = json.loads(body, parse_constant=no)
        except (ValueError, RecursionError):
            expected = None
        try:
            read_object(body, Names())
        except AmbiguousKeysError:
            self.assertIsNotNone(expected)
        except UNREADABLE:
            # Lone surrogate escapes are refused on purpose; nothing else differs.
            self.assertTrue(expected is None or "\\u" in junk, body)
        else:
            self.assertIsNotNone(expected, body)

    def test_repeated_keys_are_refused(self) -> None:
        """One reader takes the first of two equal keys, another the last."""
        for body in (
            b'{"name":1,"name":2}',
            b'{"name":1,"name":1}',
            b'{"name":1,"name":12}',
            b'{"name":12,"name":1}',
            b'{"name":1.5,"b":0,"name":1}',
            b'{"name":1e5,"name":1}',
            b'{"name":"a","x":1,"name":"a"}',
            b'{"name":{"a":1},"name":{"a":1}}',
            b'{"a":1,"\\u0061":2}',
            b'{"\\u0061":2,"a":1}',
            b'{"\\/":2,"/":1}',
        ):
            self.assertRaises(AmbiguousKeysError, read_object, body, Names())

    def test_case_variants_of_routing_keys_are_refused(self) -> None:
        """
        Go matches keys without regard to case, so "Name" would bypass a policy that
        reads "name"; also alone, with escapes, a Kelvin sign or a long s.
        """
        for key in ("Name", "NAME", "\\u004eame", "tas\u212a", "ta\u017fk", "_Meta"):
            body = f'{{"{key}":1}}'.encode()
            self.assertRaises(AmbiguousKeysError, read_object, body, NAMES)

    def test_two_other_keys_that_differ_in_case_are_refused(self) -> None:
        """Nobody knows which of them the child would take."""
        for one, other in (("a", "A"), ("k", "\u212a"), ("s", "\u017f"), ("é", "É")):
            body = f'{{"{one}":1,"{other}":2}}'.encode()
            self.assertRaises(AmbiguousKeysError, read_object, body, NAMES)

    def test_escaped_routing_key_is_the_key(self) -> None:
        """An escape is another spelling of the same text, not of the key."""
        self.assertEqual(read_object(b'{"\\u006eame":1}', NAMES), {"name": b"1"})

    def test_nul_in_a_key_is_refused(self) -> None:
        """Some readers would end the key there."""
        body = b'{"name\\u0000x":1}'
        self.assertRaises(AmbiguousKeysError, read_object, body, NAMES)

    def test_lone_surrogates_are_refused(self) -> None:
        """Readers replace them, each in its own way, so two keys could become one."""
        for body in (b'{"\\ud800":1}', b'{"a":"\\udc00"}', b'{"a":{"b":["\\ud83d"]}}'):
            self.assertRaises(msgspec.DecodeError, read_object, body, NAMES)
        pair = read_object(b'{"\\ud83d\\ude00":1}', NAMES)
        self.assertEqual(pair, {"\U0001f600": b"1"})

    def test_too_many_members_are_refused(self) -> None:
        """The walk takes a step per member, so their number is bounded."""
        members = [f'"k{number}":1' for number in range(MAXIMUM_MEMBERS + 1)]
        body = ("{" + ",".join(members) + "}").encode()
        self.assertRaises(AmbiguousKeysError, read_object, body, NAMES)
        body = ("{" + ",".join(members[1:]) + "}").encode()
        self.assertEqual(len(read_object(body, NAMES)), MAXIMUM_MEMBERS)

    def test_values_are_not_looked_into(self) -> None:
        """What stands deeper is the tool's own business."""
        body = b'{"arguments":{"Name":1,"Name":2,"name":3}}'
        self.assertEqual(
            read_object(body, NAMES), {"arguments": b'{"Name":1,"Name":2,"name":3}'}
        )


class ValueSpanTests(SynchronousTestCase):
    """Where a value stands."""

    def test_missing_member(self) -> None:
        """There is nothing to replace."""
        self.assertRaises(KeyError, value_span, b'{"a":1}', "b")
        self.assertRaises(KeyError, value_span, b"{}", "b")

    def test_repeated_keys_have_no_place(self) -> None:
        """A child that repeats a key gets no edit at a doubtful place."""
        self.assertRaises(KeyError, value_span, b'{"a":1,"a":12,"b":1}', "b")
        self.assertRaises(KeyError, value_span, b'{"a":{},"a":12,"b":1}', "b")


class SpanTests(SynchronousTestCase):
    """Where members stand."""

    @settings(max_examples=300)
    @given(objects(values), spaces, spaces)
    def test_spans_cover_the_object(self, text: str, before: str, after: str) -> None:
        """Key, value and white space between the marks, or none for a repeated key."""
        body = (before + text + after).encode()
        pairs = pairs_of(text)
        spans = member_spans(body)
        if len(dict(pairs)) < len(pairs):
            self.assertIsNone(spans)
            return
        assert spans is not None
        found = []
        for span in spans:
            raw = body[span.value_start : span.end]
            found.append((span.name, json.loads(raw, object_pairs_hook=list)))
            key = body[span.start : span.value_start].decode().strip()
            self.assertEqual(json.loads(key.removesuffix(":")), span.name)
            self.assertIn(body[span.after : span.after + 1], (b",", b"}"))
        self.assertEqual(found, pairs)
        for one, other in itertools.pairwise(spans):
            self.assertEqual(other.start, one.after + 1)


_PAIRS = st.lists(
    st.tuples(
        st.sampled_from(
            ("name", "Name", "n\\u0061me", "uri", "URI", "odd", "na me", "\\u0000")
        ),
        st.sampled_from(
            ("1", '""', '"a,b"', "{}", '{"name":1}', "[1, 2]", "null", '"\u00e9"')
        ),
    ),
    max_size=5,
)
_SPACES = st.sampled_from(("", "", "", " ", "\n"))


class CompactTests(SynchronousTestCase):
    """Objects that are written as short as they can be are not walked."""

    @settings(max_examples=1000)
    @given(_PAIRS, st.lists(_SPACES, min_size=12, max_size=12))
    @example([("name", "1"), ("uri", '""')], [""] * 12)
    @example([("name", "1"), ("name", "1")], [""] * 12)
    @example([("name", "12345678"), ("name", "1")], [" "] * 12)
    def test_as_the_walk(self, pairs: list[tuple[str, str]], spaces: list[str]) -> None:
        """What is read, and what is refused, is the same."""
        gaps = iter(spaces)
        members = ",".join(
            f'{next(gaps)}"{name}":{next(gaps)}{value}' for name, value in pairs
        )
        data = f"{{{members}{next(gaps)}}}".encode()
        outcomes = []
        for is_walked in (False, True):
            names = Names("name", "uri")
            if is_walked:
                self.patch(names, "all", frozenset())
            try:
                outcomes.append(repr(read_object(data, names)))
            except AmbiguousKeysError as error:
                outcomes.append(str(error))
        self.assertEqual(*outcomes)
