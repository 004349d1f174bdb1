"""Arguments that headers repeat."""

import base64
import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.mcp.modern.errors import ModernError
from fjmcp_broker.mcp.modern.parameter_headers import (
    KEYWORD,
    HeaderParameter,
    InvalidAnnotationError,
    annotated_tools,
    check,
    header_parameters,
)
from fjmcp_broker.mcp.modern.requests import ModernRequest

from .cases import modern

REGION = HeaderParameter("Region", ("region",), "string")
COUNT = HeaderParameter("Count", ("at", "count"), "integer")


def schema(**properties: object) -> dict[str, object]:
    """
    @param properties: of an object.
    @return: its schema.
    """
    return {"type": "object", "properties": properties}


def marked(kind: object = "string", name: object = "Region") -> dict[str, object]:
    """
    @param kind: the type of an argument.
    @param name: what its annotation says.
    @return: its schema.
    """
    return {"type": kind, KEYWORD: name}


class SchemaTests(SynchronousTestCase):
    """MCP 2026-07-28, transports, schema extension."""

    def read(self, value: object) -> tuple[HeaderParameter, ...]:
        """
        @return: the annotated arguments of a schema.
        """
        return header_parameters(msgspec.json.encode(value))

    def test_annotated_arguments(self) -> None:
        """At any depth that properties alone lead to."""
        found = self.read(
            schema(
                region=marked(),
                at=schema(count=marked("integer", "Count"), x={"type": "string"}),
                flag=marked(["boolean", "null"], "Flag"),
            )
        )
        flag = HeaderParameter("Flag", ("flag",), "boolean")
        self.assertEqual(found, (REGION, COUNT, flag))

    def test_nothing_to_find(self) -> None:
        """Most schemas, and whatever cannot be read; data is no schema."""
        for value in (
            {},
            None,
            7,
            schema(a={"type": "string"}),
            schema(a={"type": "object", "default": {KEYWORD: 1}}),
            schema(a={"enum": [{KEYWORD: 1}], "const": {KEYWORD: 2}}),
            {"$defs": {KEYWORD: {"type": "string"}}},
        ):
            self.assertEqual(self.read(value), ())
        self.assertEqual(header_parameters(b'{"x-mcp-header"'), ())
        self.assertEqual(header_parameters(b"[" * 100_000 + b'"x-mcp-header"'), ())

    def test_escaped_keyword(self) -> None:
        """It is the same name."""
        raw = (
            b'{"properties":{"region":{"type":"string","x\\u002dmcp-header":"Region"}}}'
        )
        self.assertEqual(header_parameters(raw), (REGION,))

    def test_invalid_annotations(self) -> None:
        """Each rule of the specification once."""
        for value in (
            schema(a=marked(name="")),
            schema(a=marked(name="a b")),
            schema(a=marked(name="a\r\n")),
            schema(a=marked(name="é")),
            schema(a=marked(name=7)),
            schema(a=marked("number")),
            schema(a=marked("object")),
            schema(a=marked(["string", "integer"])),
            schema(a={KEYWORD: "A"}),
            schema(a=marked(), b=marked(name="REGION")),
            {"type": "string", KEYWORD: "A"},
            schema(a={"type": "array", "items": marked()}),
            schema(a={"items": schema(b=marked())}),
            schema(a={"anyOf": [marked()]}),
            {"oneOf": [schema(a=marked())]},
            {"not": schema(a=marked())},
            {"if": schema(a=marked())},
            {"$defs": {"x": marked()}},
            {"patternProperties": {"x": marked()}},
            {"additionalProperties": marked()},
        ):
            with self.assertRaises(InvalidAnnotationError, msg=repr(value)):
                self.read(value)

    def test_lists_of_tools(self) -> None:
        """Every named tool; one with a bad annotation has none."""
        tools = [
            {"name": "good", "inputSchema": schema(region=marked())},
            {"name": "bad", "inputSchema": schema(region=marked("number"))},
            {"name": "plain", "inputSchema": schema()},
            {"name": "bare"},
            {"name": 7, "inputSchema": schema(region=marked())},
            5,
        ]
        found = annotated_tools(json.dumps({"tools": tools}).encode())
        expected = {"good": (REGION,), "bad": (), "plain": (), "bare": ()}
        self.assertEqual(found, expected)
        for odd in (b"7", b"{}", b'{"tools":null}', b"{"):
            self.assertEqual(annotated_tools(odd), {})


class CheckTests(SynchronousTestCase):
    """MCP 2026-07-28, transports, server behavior for custom headers."""

    def call(self, arguments: object, **headers: str) -> ModernRequest:
        """
        @return: a call with headers.
        """
        asked = modern("tools/call", {"name": "t", "arguments": arguments})
        return replace(asked, parameters=tuple(headers.items()))

    def refused(self, asked: ModernRequest, *parameters: HeaderParameter) -> None:
        """
        Expect -32020.
        """
        with self.assertRaises(ModernError) as caught:
            check(asked, parameters)
        self.assertEqual(
            (caught.exception.status, caught.exception.code), (400, -32020)
        )

    def test_equal(self) -> None:
        """As text, encoded, or as the same number."""
        for value, header in (
            ("Hello", "Hello"),
            ("Hello", "=?base64?SGVsbG8=?="),
            ("SGVsbG8=", "SGVsbG8="),
            ("=?base64?SGVsbG8=", "=?base64?SGVsbG8="),
            ("", ""),
            (True, "true"),
            (False, "false"),
            (42, "42"),
            (42, "42.0"),
            (42.0, "42"),
            (-7, "-7"),
            (0, "-0"),
            (9007199254740991, "9007199254740991"),
        ):
            check(self.call({"region": value}, region=header), [REGION])

    def test_different(self) -> None:
        """Missing, other, unreadable, or there without an argument."""
        cases: tuple[tuple[object, str], ...] = (
            ("Hello", "hello"),
            ("Hello", "=?base64?SGVsbG8?="),
            ("Hello", "=?base64?SGVs!!!bG8=?="),
            ("é", "é"),
            (True, "True"),
            (1, "true"),
            (42, "43"),
            (42, "0x2a"),
            (42, "4_2"),
            (42, "NaN"),
            (42, "4" * 100),
            (9007199254740993, "9007199254740992"),
            (None, ""),
            (None, "null"),
            ({}, "{}"),
            ([1], "[1]"),
        )
        for value, header in cases:
            self.refused(self.call({"region": value}, region=header), REGION)
        self.refused(self.call({"region": "x"}), REGION)
        self.refused(self.call({}, region="x"), REGION)
        self.refused(self.call(7, region="x"), REGION)

    def test_no_value_no_header(self) -> None:
        """Absent and null are the same; an unknown header is ignored."""
        for arguments in ({}, {"region": None}, None, 7):
            check(self.call(arguments, other="x"), [REGION])
        check(self.call({"at": 7}), [COUNT])
        check(self.call({"at": {"count": 3}}, count="3"), [COUNT])
        self.refused(self.call({"at": {"count": 3}}), COUNT)

    @given(st.text(st.characters(blacklist_categories=["Cs"])))
    def test_every_text_can_be_sent(self, text: str) -> None:
        """And nothing else fits its argument."""
        header = f"=?base64?{base64.b64encode(text.encode()).decode()}?="
        check(self.call({"region": text}, region=header), [REGION])
        self.refused(self.call({"region": text + "x"}, region=header), REGION)

    @given(st.integers(-(2**53) + 1, 2**53 - 1), st.integers(-3, 3))
    def test_numbers(self, value: int, off: int) -> None:
        """Equal exactly when they are the same number."""
        asked = self.call({"region": value}, region=f"{value + off}.0")
        if off:
            self.refused(asked, REGION)
        else:
            check(asked, [REGION])
