"""
Another key for everything that is sealed.

In each moment all keys that anything is sealed with stand where the next start looks:
the new one is in the key file before anything is sealed with it, and the old ones leave
the file when nothing needs them any more. A crash in between costs nothing but another
try.
"""

import secrets
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Final

import msgspec

from fjmcp_broker.key_text import KEY_BYTES
from fjmcp_broker.secret import Secret

from .errors import StoreRefused
from .keys import key_path, load_or_create_keys, write_keys
from .resealing import key_ids_in_use, reseal
from .sealing import Sealer, key_id

#: Values that are sealed anew in one transaction.
BATCH: Final = 500


class Rotated(msgspec.Struct, frozen=True):
    """
    What came of it.

    @ivar key_id: of the key that seals now, 8 hexadecimal digits; it tells nothing
        of the key.
    @ivar resealed: how many values were sealed with another one.
    @ivar new_key: whether the key was made now.
    @ivar spare: how many configured keys open nothing any more.
    @ivar key_file_is_spare: whether keys are configured and the file is of no use.
    """

    key_id: str
    resealed: int
    new_key: bool
    spare: int
    key_file_is_spare: bool


class KeyRotation:
    """
    One rotation: L{prepare}, L{step} until it gives 0, L{finish}.
    """

    def __init__(
        self,
        database_path: str,
        configured: Sequence[Secret],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param database_path: of the store.
        @param configured: C{database.encryption_keys}. Only the operator can put a
            new key in front of these; with none, a new key goes into the key file.
        @param random_bytes: makes the key.
        """
        self._path = database_path
        self._configured = configured
        self._random_bytes = random_bytes
        self._keys: tuple[bytes, ...] = ()
        self._resealed = 0

    def prepare(self, connection: Connection) -> tuple[bytes, ...]:
        """
        Make the new key and have it found by the next start, before anything is sealed
        with it.

        @param connection: in a transaction that may write: nobody else comes between.
        @return: all keys, the one that seals from now on first.
        @raise StoreRefused: a key file cannot be read or written.
        """
        keys = load_or_create_keys(
            self._path, self._configured, store_has_sealed_rows=True
        )
        missing = key_ids_in_use(connection) - Sealer(keys).key_ids
        if missing:
            ids = ", ".join(sorted(each.hex() for each in missing))
            raise StoreRefused(
                f"the store {self._path} holds values sealed with another key (id"
                f" {ids}), which is not known here; nothing was changed"
            )
        if not self._configured:
            keys = (self._random_bytes(KEY_BYTES), *keys)
            write_keys(key_path(self._path), keys)
        self._keys = keys
        return keys

    def step(self, connection: Connection, sealer: Sealer) -> int:
        """
        Seal some values anew.

        @param connection: in a transaction that may write.
        @param sealer: has the keys from L{prepare}.
        @return: how many there were.
        @raise SealError: a value cannot be opened.
        """
        # What an old key opens must not stay in the free parts of the file.
        connection.execute("PRAGMA secure_delete = ON")
        count = reseal(connection, sealer, limit=BATCH)
        self._resealed += count
        return count

    def finish(self, connection: Connection) -> Rotated:
        """
        Take away the keys that nothing needs any more.

        @param connection: in a transaction that may write: whatever was sealed before
            L{prepare} is written by now, or never.
        @return: what came of it.
        @raise StoreRefused: the key file cannot be written; it still has all keys.
        """
        first = self._keys[0]
        stale = key_ids_in_use(connection) - {key_id(first)}
        if stale:
            raise StoreRefused("values sealed with another key came in between")
        if not self._configured:
            write_keys(key_path(self._path), self._keys[:1])
        connection.execute("PRAGMA secure_delete = OFF")
        configured = len(self._configured)
        return Rotated(
            key_id=key_id(first).hex(),
            resealed=self._resealed,
            new_key=not configured,
            spare=max(0, configured - 1),
            key_file_is_spare=bool(configured) and len(self._keys) > configured,
        )
