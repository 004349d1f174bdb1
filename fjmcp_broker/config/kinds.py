"""
Kinds of configuration values: how each is read from TOML, from the text of a
variable or option, and how it is written back.

A reader raises C{ValueError} with the end of a sentence that begins with the name
of the key, and never repeats the value: whoever reports it knows whether the value
may be shown.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

T = TypeVar("T", covariant=True)


class Kind(msgspec.Struct, Generic[T], frozen=True):
    """One kind of value."""

    name: str
    """What the documentation calls it."""

    from_toml: Callable[[object], T]
    """A value of the TOML file to the typed value."""

    from_text: Callable[[str], T] | None
    """The text of a variable or option; C{None}: the file only."""

    to_toml: Callable[[Any], object]
    """The typed value to what a TOML file would say. The argument is a C{T}; it is
    C{Any} because a C{Kind[Secret]} and a C{Kind[str]} stand in one table."""


def scalar(
    name: str,
    parse: Callable[[str], T],
    write: Callable[[Any], object] = lambda value: value,
    *,
    numbers: bool = False,
) -> Kind[T]:
    """
    Make a kind that is one piece of text.

    @param name: what the documentation calls it.
    @param parse: reads the text; raises C{ValueError}.
    @param write: the inverse.
    @param numbers: a TOML integer is accepted as well as a string.
    @return: the kind.
    """

    def from_toml(value: object) -> T:
        if numbers and isinstance(value, int) and not isinstance(value, bool):
            return parse(str(value))
        if isinstance(value, str):
            return parse(value)
        wanted = "a string or a whole number" if numbers else "a string"
        raise ValueError(f"must be {wanted}")

    return Kind(name, from_toml, parse, write)


def listing(
    name: str,
    parse_item: Callable[[str], T],
    write_item: Callable[[Any], object] = lambda value: value,
    *,
    minimum: int = 0,
) -> Kind[tuple[T, ...]]:
    """
    Make a kind that is a list in TOML and comma-separated in a variable.

    @param name: what the documentation calls it.
    @param parse_item: reads one item; raises C{ValueError}.
    @param write_item: the inverse.
    @param minimum: how many items there must be.
    @return: the kind.
    """

    def items(texts: list[str]) -> tuple[T, ...]:
        if len(texts) < minimum:
            raise ValueError("must not be empty")
        return tuple(parse_item(text) for text in texts)

    def from_toml(value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise ValueError("must be a list of strings")
        if not all(isinstance(item, str) for item in value):
            raise ValueError("must be a list of strings only")
        return items(value)

    def from_text(text: str) -> tuple[T, ...]:
        return items([part.strip() for part in text.split(",") if part.strip()])

    return Kind(name, from_toml, from_text, lambda v: [write_item(item) for item in v])


def choice(*names: str) -> Kind[str]:
    """
    Make a kind with a fixed set of words.

    @param names: the words.
    @return: the kind.
    """
    shown = ", ".join(names[:-1]) + f" or {names[-1]}"

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in names:
            raise ValueError(f"must be {shown}")
        return word

    return scalar(shown, parse)


def plain_text(text: str) -> str:
    """
    @param text: from the operator.
    @return: the text without surrounding space.
    @raise ValueError: if it is empty or has control characters.
    """
    text = text.strip()
    if not text:
        raise ValueError("must not be empty")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise ValueError("must not contain control characters")
    return text


TEXT: Final = scalar("text", plain_text)
PATH: Final = scalar("path", plain_text)


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError("must be true or false")


def _toml_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false, without quotes")
    return value


BOOLEAN: Final = Kind("true or false", _toml_boolean, _boolean, lambda value: value)

_MOST_DIGITS: Final = 15  # beyond any use, and well inside a 64-bit integer


def _count(text: str) -> int:
    text = text.strip()
    if not re.fullmatch(rf"[0-9]{{1,{_MOST_DIGITS}}}", text) or int(text) < 1:
        raise ValueError("must be a whole number from 1 up")
    return int(text)


COUNT: Final = scalar("number", _count, numbers=True)

_DURATION_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION: Final = re.compile(
    "".join(rf"(?:(?P<{unit}>[0-9]{{1,9}}){unit})?" for unit in _DURATION_UNITS)
)


def parse_duration(text: str) -> int:
    """
    Read C{15m}, C{90d}, C{1h30m} or plain seconds.

    @param text: from the operator.
    @return: whole seconds, 1 or more.
    @raise ValueError: if it is nothing of the kind.
    """
    text = text.strip()
    seconds = 0
    if re.fullmatch(rf"[0-9]{{1,{_MOST_DIGITS}}}", text):
        seconds = int(text)
    elif match := _DURATION.fullmatch(text):
        seconds = sum(
            int(match[unit] or 0) * size for unit, size in _DURATION_UNITS.items()
        )
    if seconds < 1:
        raise ValueError("must be a duration such as 30s, 15m, 1h30m or 90d")
    return seconds


def format_duration(seconds: int) -> str:
    """
    @param seconds: whole seconds, 1 or more.
    @return: the shortest text that L{parse_duration} reads as the same.
    """
    parts = []
    for unit, size in _DURATION_UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


DURATION: Final = scalar("duration", parse_duration, format_duration, numbers=True)

_SIZE_UNITS: Final = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1, "": 1}


def parse_size(text: str) -> int:
    """
    Read C{16MiB}, C{64KiB} or plain bytes.

    @param text: from the operator.
    @return: bytes, 1 or more.
    @raise ValueError: if it is nothing of the kind.
    """
    match = re.fullmatch(r"([0-9]{1,12})\s*(GiB|MiB|KiB|B|)", text.strip())
    if not match or not int(match[1]):
        raise ValueError("must be a size such as 64KiB, 16MiB, 1GiB or plain bytes")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def format_size(size_bytes: int) -> str:
    """
    @param size_bytes: 1 or more.
    @return: the shortest text that L{parse_size} reads as the same.
    """
    unit, size = next(item for item in _SIZE_UNITS.items() if not size_bytes % item[1])
    return f"{size_bytes // size}{unit}"


SIZE: Final = scalar("size", parse_size, format_size, numbers=True)

_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _variable_name(text: str) -> str:
    if not _VARIABLE_NAME.fullmatch(text.strip()):
        raise ValueError("must be the name of an environment variable")
    return text.strip()


VARIABLE_NAME: Final = scalar("variable name", _variable_name)

REFUSED_CHILD_VARIABLES: Final = ("FORGEJO_MCP_ALLOW_FILE_PATH_UPLOAD",)
"""They let tools of forgejo-mcp read files of the machine the broker runs on."""


def _variables(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be a table of variables")
    for name, text in value.items():
        if not _VARIABLE_NAME.fullmatch(name):
            raise ValueError("must have names of environment variables as its keys")
        if not isinstance(text, str) or "\0" in text:
            raise ValueError("must have strings as its values")
        if name in REFUSED_CHILD_VARIABLES:
            raise ValueError(f"must not set {name}: it opens this machine's files")
    return dict(value)


VARIABLES: Final = Kind("table of variables", _variables, None, dict)


def _argument(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL")
    return text


COMMAND: Final = listing("list", _argument, minimum=1)
