"""
Sealed columns: AES-256-GCM with the key's id in front and the row as associated data.

A sealed value is 4 bytes of key id, 12 bytes of nonce, then ciphertext and tag. The
associated data names table, column and row, so that a value copied to another place
does not open there.
"""

import secrets
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fjmcp_broker.key_text import KEY_BYTES

from .errors import SealError

KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_DOMAIN: Final = b"fjmcp-broker sealed column 1\0"


def row_name(table: str, column: str, key: str | int | bytes) -> str:
    """
    Name one value of one row, as associated data.

    @param table: its table.
    @param column: its column, C{sealed_...}.
    @param key: the row's primary key; bytes are written in hexadecimal.
    @return: C{table/column/key}.
    """
    text = key.hex() if isinstance(key, bytes) else str(key)
    return f"{table}/{column}/{text}"


def key_id(key: bytes) -> bytes:
    """
    @param key: 32 bytes.
    @return: the 4 bytes that stand for it in sealed values.
    """
    return sha256(b"fjmcp-broker key id\0" + key).digest()[:KEY_ID_BYTES]


class Sealer:
    """
    Seals and opens columns with a list of keys: the first one seals, all of them open.
    """

    def __init__(
        self,
        keys: Sequence[bytes],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param keys: at least one key of 32 bytes.
        @param random_bytes: gives nonces.
        @raise ValueError: no key, or one of another length.
        """
        if not keys:
            raise ValueError("a sealer needs at least one key")
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._random_bytes = random_bytes
        self._ciphers: dict[bytes, AESGCM] = {}
        self.replace(keys)

    def replace(self, keys: Sequence[bytes]) -> None:
        """
        Take other keys, while threads go on to seal and open. The ones before open on:
        what was sealed with them may still come back.

        @param keys: the one that seals from now on first.
        """
        ciphers = {key_id(key): AESGCM(key) for key in reversed(keys)}
        self._ciphers = {**self._ciphers, **ciphers}
        self._current = key_id(keys[0])

    @property
    def key_ids(self) -> frozenset[bytes]:
        """
        The ids of all keys that open.
        """
        return frozenset(self._ciphers)

    def is_current(self, sealed: bytes) -> bool:
        """
        @param sealed: a sealed value.
        @return: whether the first key sealed it.
        """
        return sealed[:KEY_ID_BYTES] == self._current

    def seal(self, plaintext: bytes, *, row: str) -> bytes:
        """
        @param plaintext: what to keep secret.
        @param row: what L{row_name} gives for the place it is stored at.
        @return: the sealed value.
        """
        nonce = self._random_bytes(_NONCE_BYTES)
        current = self._current
        ciphertext = self._ciphers[current].encrypt(
            nonce, plaintext, _DOMAIN + row.encode()
        )
        return current + nonce + ciphertext

    def open(self, sealed: bytes, *, row: str) -> bytes:
        """
        @param sealed: a sealed value.
        @param row: what L{row_name} gives for the place it was stored at.
        @return: the plaintext.
        @raise SealError: sealed with an unknown key, for another place, or forged.
        """
        table_column = row.rpartition("/")[0]
        nonce_end = KEY_ID_BYTES + _NONCE_BYTES
        if len(sealed) < nonce_end + _TAG_BYTES:
            raise SealError(f"a sealed value in {table_column} is too short")
        cipher = self._ciphers.get(sealed[:KEY_ID_BYTES])
        if cipher is None:
            raise SealError(
                f"a sealed value in {table_column} needs the key with id "
                f"{sealed[:KEY_ID_BYTES].hex()}, which is not configured"
            )
        try:
            return cipher.decrypt(
                sealed[KEY_ID_BYTES:nonce_end],
                sealed[nonce_end:],
                _DOMAIN + row.encode(),
            )
        except InvalidTag:
            raise SealError(
                f"a sealed value in {table_column} is damaged or was sealed elsewhere"
            ) from None
