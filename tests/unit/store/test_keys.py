"""
The keys of a store.
"""

import base64
import os
import stat

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.key_text import decode_key
from fjmcp_broker.secret import Secret
from fjmcp_broker.store.errors import StoreRefused
from fjmcp_broker.store.keys import key_path, load_or_create_keys


class DecodeTests(SynchronousTestCase):
    @given(st.binary(min_size=32, max_size=32))
    def test_every_form_of_a_key_is_read(self, key: bytes) -> None:
        """
        Standard and url-safe base64, padded or not, and hexadecimal mean the same.
        """
        for text in (
            base64.b64encode(key).decode(),
            base64.urlsafe_b64encode(key).decode(),
            base64.urlsafe_b64encode(key).decode().rstrip("="),
            f" {key.hex()}\n",
            key.hex().upper(),
        ):
            self.assertEqual(decode_key(text), key)

    @given(st.text(max_size=80))
    def test_anything_else_is_refused_without_repeating_it(self, text: str) -> None:
        """
        A wrong key is refused; the message does not contain it.
        """
        try:
            self.assertEqual(len(decode_key(text)), 32)
        except ValueError as error:
            self.assertEqual(
                str(error), "a key is 32 bytes in base64 or as 64 hexadecimal digits"
            )


class KeyFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        os.mkdir(folder := self.mktemp())
        self.path = os.path.join(folder, "store.db")
        self.key_path = key_path(self.path)

    def load(self, *configured: bytes, sealed: bool = False) -> tuple[bytes, ...]:
        return load_or_create_keys(
            self.path,
            [Secret(key.hex()) for key in configured],
            store_has_sealed_rows=sealed,
        )

    def refusal(self, *configured: bytes, sealed: bool = False) -> str:
        return str(
            self.assertRaises(
                StoreRefused, lambda: self.load(*configured, sealed=sealed)
            )
        )

    def put(self, content: bytes, mode: int = 0o600) -> None:
        with open(self.key_path, "wb") as file:
            file.write(content)
        os.chmod(self.key_path, mode)

    def test_key_is_made_once(self) -> None:
        """
        A new store gets a random key that only its owner can read; the next start
        finds it.
        """
        before = os.umask(0)
        try:
            keys = self.load()
        finally:
            os.umask(before)
        self.assertEqual([len(key) for key in keys], [32])
        self.assertEqual(stat.S_IMODE(os.stat(self.key_path).st_mode), 0o600)
        self.assertEqual(self.load(sealed=True), keys)

    def test_no_key_is_made_for_sealed_rows(self) -> None:
        """
        A new key could not open what is there, so none is made.
        """
        self.assertEqual(
            self.refusal(sealed=True),
            f"the store {self.path} holds sealed values, but there is no key:"
            f" configure database.encryption_keys or put {self.key_path} back;"
            " no new key was made",
        )
        self.assertFalse(os.path.exists(self.key_path))

    def test_configured_keys_make_no_file(self) -> None:
        """
        With keys in the configuration nothing is written.
        """
        keys = (b"a" * 32, b"b" * 32)
        self.assertEqual(self.load(*keys, keys[0]), keys)
        self.assertFalse(os.path.exists(self.key_path))

    def test_file_still_opens_when_keys_are_configured(self) -> None:
        """
        A site that began with the file can configure a key and lose nothing: the
        configured one seals from now on.
        """
        (own,) = self.load()
        self.assertEqual(self.load(b"a" * 32), (b"a" * 32, own))

    def test_file_may_hold_several_keys(self) -> None:
        """
        One key a line, the one that seals first.
        """
        self.put(b"61" * 32 + b"\n" + b"62" * 32 + b"\n")
        self.assertEqual(self.load(), (b"a" * 32, b"b" * 32))

    def test_file_that_others_can_read_is_refused(self) -> None:
        """
        A key that others could have read is not used silently.
        """
        self.put(b"61" * 32, 0o640)
        self.assertEqual(
            self.refusal(),
            f"the key file {self.key_path} can be read by others; run chmod 600"
            f" {self.key_path}",
        )

    def test_unusable_file_is_refused_without_repeating_it(self) -> None:
        """
        An empty, binary or mistyped key file is refused; its content is not shown.
        """
        for content, reason in (
            (b" \n", "is empty"),
            (b"\xff\xfe", "holds no key"),
            (
                b"swordfish\n",
                "holds no key: a key is 32 bytes in base64 or as 64 hexadecimal digits",
            ),
        ):
            self.put(content)
            self.assertEqual(self.refusal(), f"the key file {self.key_path} {reason}")

    def test_directory_in_its_place_is_refused(self) -> None:
        """
        The reason is named in one line.
        """
        os.mkdir(self.key_path)
        self.assertEqual(
            self.refusal(),
            f"the key file {self.key_path} cannot be read: Is a directory",
        )

    def test_unwritable_place_is_refused(self) -> None:
        """
        A key that cannot be kept is not used.
        """
        path = "/proc/store.db"
        error = self.assertRaises(
            StoreRefused, load_or_create_keys, path, [], store_has_sealed_rows=False
        )
        self.assertEqual(
            str(error),
            "the key file /proc/store.db.key cannot be written: No such file or"
            " directory",
        )

    def test_wrong_configured_key_is_refused(self) -> None:
        """
        The configuration is named, the key is not shown.
        """
        error = self.assertRaises(
            StoreRefused,
            load_or_create_keys,
            self.path,
            [Secret("swordfish")],
            store_has_sealed_rows=False,
        )
        self.assertEqual(
            str(error),
            "database.encryption_keys: a key is 32 bytes in base64 or as 64"
            " hexadecimal digits",
        )
