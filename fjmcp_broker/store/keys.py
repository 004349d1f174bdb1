"""
The keys that seal columns: configured ones, and the file beside the store.
"""

import base64
import os
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from fjmcp_broker.key_text import KEY_BYTES, decode_key
from fjmcp_broker.secret import Secret

from .errors import StoreRefused


def key_path(database_path: str) -> str:
    """
    @param database_path: of the store.
    @return: where its key file is, when there is one.
    """
    return f"{database_path}.key"


def load_or_create_keys(
    database_path: str,
    configured: Sequence[Secret],
    *,
    store_has_sealed_rows: bool,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[bytes, ...]:
    """
    Gather the keys of a store; make one when there is none and nothing needs it yet.

    The keys of the file still open when others are configured, so that a site can
    begin with the file and configure keys later.

    @param database_path: of the store.
    @param configured: keys as text, the one that seals first.
    @param store_has_sealed_rows: whether a key is needed to read what is there.
    @param random_bytes: makes a key.
    @return: the keys, the one that seals first, without repetitions.
    @raise StoreRefused: a key or the file is not usable, or there is none and the
        store has sealed rows.
    """
    try:
        keys = [decode_key(key.reveal()) for key in configured]
    except ValueError as error:
        raise StoreRefused(f"database.encryption_keys: {error}") from None
    keys += _read(key_path(database_path))
    if not keys:
        if store_has_sealed_rows:
            raise StoreRefused(
                f"the store {database_path} holds sealed values, but there is no key:"
                " configure database.encryption_keys or put"
                f" {key_path(database_path)} back; no new key was made"
            )
        keys = [random_bytes(KEY_BYTES)]
        _create(key_path(database_path), keys[0])
    return tuple(dict.fromkeys(keys))


def _read(path: str) -> list[bytes]:
    """
    Read a key file: one key a line, the one that seals first.
    """
    try:
        with open(path, encoding="ascii") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise StoreRefused(
                    f"the key file {path} can be read by others; run chmod 600 {path}"
                )
            lines = file.read().split()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreRefused(
            f"the key file {path} cannot be read: {error.strerror}"
        ) from error
    except UnicodeDecodeError:
        raise StoreRefused(f"the key file {path} holds no key") from None
    if not lines:
        raise StoreRefused(f"the key file {path} is empty")
    try:
        return [decode_key(line) for line in lines]
    except ValueError as error:
        raise StoreRefused(f"the key file {path} holds no key: {error}") from None


def _create(path: str, key: bytes) -> None:
    """
    Write a key file that survives a loss of power before anything is sealed with it.
    """
    try:
        _write(path, [key], os.O_EXCL)
        _sync_folder(path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_keys(path: str, keys: Sequence[bytes]) -> None:
    """
    Replace a key file by another one, so that in each moment one of the two is there
    as a whole, also after a loss of power.

    @param path: of the key file.
    @param keys: the one that seals first.
    @raise StoreRefused: it cannot be written; then the old one is there.
    """
    beside = f"{path}.new"
    try:
        # Left by a crash; nobody has ever read it.
        Path(beside).unlink(missing_ok=True)
        _write(beside, keys, os.O_EXCL)
        if os.geteuid() == 0:
            # It is the daemon that has to read it.
            owner = os.stat(path if os.path.exists(path) else Path(path).parent)
            os.chown(beside, owner.st_uid, owner.st_gid)
        os.replace(beside, path)
        _sync_folder(path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def _write(path: str, keys: Sequence[bytes], flags: int) -> None:
    text = b"".join(base64.urlsafe_b64encode(key) + b"\n" for key in keys)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600)
    with open(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: str) -> None:
    folder = os.open(Path(path).absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _cannot_write(path: str, error: OSError) -> StoreRefused:
    return StoreRefused(f"the key file {path} cannot be written: {error.strerror}")
