"""Kinds of configuration values that are secret."""

import base64
import binascii
import re
from typing import Final

from fjmcp_broker.secret import REDACTED, Secret

from .kinds import Kind, listing, plain_text, scalar

KEY_BYTES: Final = 32


def _secret(text: str) -> Secret:
    return Secret(plain_text(text))


SECRET: Final = scalar("secret", _secret, lambda secret: REDACTED)


def decode_key(text: str) -> bytes:
    """
    Read an encryption key.

    @param text: url-safe or standard base64 of 32 bytes, with or without padding, or
        64 hexadecimal digits.
    @return: the 32 bytes.
    @raise ValueError: if it is anything else; the message does not repeat it.
    """
    text = text.strip()
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return bytes.fromhex(text)
    body = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            "must be keys of 32 bytes each, in base64 or as 64 hexadecimal digits"
        )
    return key


def _key(text: str) -> Secret:
    decode_key(text)
    return Secret(text.strip())


def _keys() -> Kind[tuple[Secret, ...]]:
    commas = listing("list of secrets", _key, lambda secret: REDACTED)

    def from_text(text: str) -> tuple[Secret, ...]:
        # A key file has one key a line.
        assert commas.from_text is not None  # noqa: S101 - listing() always sets it
        return commas.from_text(",".join(text.split()))

    return Kind(commas.name, commas.from_toml, from_text, commas.to_toml)


KEYS: Final = _keys()
