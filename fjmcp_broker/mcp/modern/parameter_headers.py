"""
Arguments of a tool that clients repeat in C{Mcp-Param-} headers, because the schema of
the tool says C{x-mcp-header} (MCP 2026-07-28, transports, Streamable HTTP, custom
headers from tool parameters).
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from fjmcp_broker.errors import BrokerError
from fjmcp_broker.mcp.envelope import NULL, text_of
from fjmcp_broker.mcp.modern.edits import members_of
from fjmcp_broker.mcp.modern.errors import header_mismatch
from fjmcp_broker.mcp.modern.requests import ModernRequest, decoded

KEYWORD: Final = "x-mcp-header"

_KINDS: Final = frozenset(("boolean", "integer", "string"))
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")
_MAXIMUM_NUMBER_CHARACTERS: Final = 64
_MAPS: Final = frozenset(
    ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
)
"""Keywords whose value holds a schema for each name."""

_DATA: Final = frozenset(("const", "default", "enum", "examples"))
"""Keywords whose value is no schema."""

_UNREADABLE: Final = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_ANY: Final = msgspec.json.Decoder()


class InvalidAnnotationError(BrokerError):
    """
    A schema uses C{x-mcp-header} where or as it must not: the child's fault. Clients
    leave such a tool out.
    """


class HeaderParameter(msgspec.Struct, frozen=True):
    """
    One annotated argument.

    @ivar header: what follows C{Mcp-Param-}, as the schema writes it.
    @ivar path: the names that lead to its value from C{arguments}.
    @ivar kind: C{string}, C{integer} or C{boolean}.
    """

    header: str
    path: tuple[str, ...]
    kind: str


def header_parameters(input_schema: bytes) -> tuple[HeaderParameter, ...]:
    """
    @param input_schema: raw JSON of a tool's C{inputSchema}, as the child wrote it.
    @return: its annotated arguments; none for a schema that cannot be read.
    @raise InvalidAnnotationError: when an annotation breaks a rule of the
        specification.
    """
    if KEYWORD.encode() not in input_schema and b"\\" not in input_schema:
        # Nearly every schema, and reading it would be for nothing.
        return ()
    found: list[HeaderParameter] = []
    try:
        schema: object = _ANY.decode(input_schema)
        _collect(schema, (), True, found)
    except _UNREADABLE:
        return ()
    names = [parameter.header.lower() for parameter in found]
    if len(set(names)) != len(names):
        raise InvalidAnnotationError(f"two arguments have the same {KEYWORD}")
    return tuple(found)


def annotated_tools(result: bytes) -> Mapping[str, tuple[HeaderParameter, ...]]:
    """
    @param result: raw result of C{tools/list}, as the child wrote it.
    @return: the annotated arguments by tool, for every tool of the page: none for a
        tool without, or with annotations that a client must refuse.
    """
    try:
        tools = _TOOLS.decode(result).tools
    except _UNREADABLE:
        return {}
    found: dict[str, tuple[HeaderParameter, ...]] = {}
    for raw in tools:
        members = members_of(bytes(raw)) or {}
        name = text_of(members.get("name"))
        if name is None:
            continue
        try:
            found[name] = header_parameters(members.get("inputSchema", NULL))
        except InvalidAnnotationError:
            found[name] = ()
    return found


def check(modern: ModernRequest, parameters: Sequence[HeaderParameter]) -> None:
    """
    Hold the headers of a C{tools/call} against its arguments. Headers that the tool
    does not know are ignored (RFC 9110 section 5.1).

    @param modern: the request.
    @param parameters: of the tool that it calls.
    @raise ModernError: -32020 when a header is missing, differs, is unreadable, or is
        there although its argument is not.
    """
    if not parameters:
        return
    headers = dict(modern.parameters)
    arguments = modern.request.members.get("arguments")
    for parameter in parameters:
        given = headers.get(parameter.header.lower())
        value = _value_at(arguments, parameter.path)
        name = f"Mcp-Param-{parameter.header}"
        if value is None:
            if given is not None:
                raise header_mismatch(modern.id, f"{name} has no argument")
        elif given is None:
            raise header_mismatch(modern.id, f"{name} is missing")
        elif not _equal(given, value):
            raise header_mismatch(modern.id, f"{name} and its argument differ")


def _collect(
    schema: object,
    path: tuple[str, ...],
    reachable: bool,
    found: list[HeaderParameter],
) -> None:
    """Walk a schema; C{reachable} as long as only C{properties} led here."""
    if isinstance(schema, list):
        for item in schema:
            _collect(item, path, False, found)
    if not isinstance(schema, dict):
        return
    if KEYWORD in schema:
        if not reachable or not path:
            raise InvalidAnnotationError(f"{KEYWORD} stands where no value is certain")
        found.append(_annotated(schema, path))
    for keyword, value in schema.items():
        if keyword in _MAPS and isinstance(value, dict):
            for name, inner in value.items():
                onward = reachable and keyword == "properties"
                _collect(inner, (*path, name), onward, found)
        elif keyword not in _DATA and keyword != KEYWORD:
            _collect(value, path, False, found)


def _annotated(schema: Mapping[str, object], path: tuple[str, ...]) -> HeaderParameter:
    header, kind = schema[KEYWORD], schema.get("type")
    if isinstance(kind, list):
        # An argument that may be null too is still of one type when it is there.
        kinds = [name for name in kind if name != "null"]
        kind = kinds[0] if len(kinds) == 1 else None
    if not isinstance(header, str) or _TOKEN.fullmatch(header) is None:
        raise InvalidAnnotationError(f"{KEYWORD} is no name of a header")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InvalidAnnotationError(f"{KEYWORD} is for texts, integers and booleans")
    return HeaderParameter(header, path, kind)


def _value_at(arguments: bytes | None, path: Sequence[str]) -> bytes | None:
    """The raw argument, or None when there is none or it is null."""
    value = arguments
    for name in path:
        value = (members_of(value) or {}).get(name)
    return None if value == NULL else value


def _equal(given: str, value: bytes) -> bool:
    """Whether a header says what the argument is."""
    text = decoded(given)
    if text is None:
        return False
    if value.startswith(b'"'):
        return text == text_of(value)
    if value in (b"true", b"false"):
        return text.encode() == value
    if value[:1] in (b"{", b"["):
        return False
    number = value.decode()
    if text == number:
        return True
    if max(len(text), len(number)) > _MAXIMUM_NUMBER_CHARACTERS:
        return False
    if _NUMBER.fullmatch(text) is None or _NUMBER.fullmatch(number) is None:
        return False
    return Decimal(text) == Decimal(number)


class _Tools(msgspec.Struct):
    tools: list[msgspec.Raw] = []


_TOOLS: Final = msgspec.json.Decoder(_Tools)
