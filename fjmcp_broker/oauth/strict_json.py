"""
JSON that can be read in one way only (RFC 8259, with the rules of RFC 7493, I-JSON).

Python's own parser takes duplicate keys, C{NaN}, lone surrogates and NUL; programs
that read the same text differently disagree about what was asked for.
"""

import json
import re
from typing import Final, NoReturn

MAXIMUM_DEPTH: Final = 16

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


class JsonRefused(ValueError):  # noqa: N818 - the name says what happened
    """
    The text is not JSON that we accept; the message says why, without quoting it.
    """


def parse_object(body: bytes) -> dict[str, object]:
    """
    Read one JSON object.

    @param body: UTF-8 text of bounded length, controlled by the client.
    @return: its members; arrays and objects nest at most L{MAXIMUM_DEPTH} deep, no
        text has NUL or a lone surrogate, no object has two keys that are equal
        without regard to case.
    @raise JsonRefused: it is anything else.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise JsonRefused("the body is not UTF-8") from None
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except JsonRefused:
        raise
    except RecursionError:
        raise JsonRefused("the body is nested too deep") from None
    except ValueError:
        raise JsonRefused("the body is not JSON") from None
    if not isinstance(value, dict):
        raise JsonRefused("the body is not a JSON object")
    _check(value)
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key.casefold() for key, _ in pairs}) != len(pairs):
        raise JsonRefused("the body has a key twice")
    return dict(pairs)


def _refuse_constant(constant: str) -> NoReturn:
    raise JsonRefused(f"{constant} is not JSON")


def _check(value: object) -> None:
    layer = [value]
    for _ in range(MAXIMUM_DEPTH):
        below: list[object] = []
        for item in layer:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                for key, member in item.items():
                    _check_text(key)
                    below.append(member)
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        layer = below
    raise JsonRefused("the body is nested too deep")


def _check_text(text: str) -> None:
    if _UNSTORABLE.search(text) is not None:
        raise JsonRefused("the body has a character that text must not have")
