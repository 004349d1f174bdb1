"""Encryption keys as operators write them."""

import base64
import binascii
import re
from typing import Final

KEY_BYTES: Final = 32

_HEXADECIMAL: Final = re.compile(r"[0-9A-Fa-f]{64}")


def decode_key(text: str) -> bytes:
    """
    Read an encryption key.

    @param text: url-safe or standard base64 of 32 bytes, with or without padding, or
        64 hexadecimal digits.
    @return: the 32 bytes.
    @raise ValueError: it is anything else; the message does not repeat it.
    """
    text = text.strip()
    if _HEXADECIMAL.fullmatch(text):
        return bytes.fromhex(text)
    body = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"a key is {KEY_BYTES} bytes in base64 or as 64 hexadecimal digits"
        )
    return key
