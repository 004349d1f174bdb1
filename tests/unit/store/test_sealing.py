"""
Sealed columns.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.store import pending, sessions, tokens, upstream_tokens
from fjmcp_broker.store.errors import SealError
from fjmcp_broker.store.resealing import key_ids_in_use, reseal, sealed_columns
from fjmcp_broker.store.sealing import Sealer, key_id, row_name

from . import rows
from .rows import StoreTestCase

OLD, NEW = b"o" * 32, b"n" * 32


class SealerTests(SynchronousTestCase):
    @given(st.binary(max_size=200), st.text(max_size=20), st.booleans())
    def test_opens_what_it_sealed(self, text: bytes, key: str, newer: bool) -> None:
        """
        Every text comes back, also after a newer key was put in front.
        """
        row = row_name("users", "sealed_x", key)
        sealed = Sealer([OLD]).seal(text, row=row)
        sealer = Sealer([NEW, OLD] if newer else [OLD])
        self.assertEqual(sealer.open(sealed, row=row), text)
        self.assertEqual(sealer.is_current(sealed), not newer)

    @given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
    def test_changed_byte_does_not_open(self, place: int, change: int) -> None:
        """
        No byte of a sealed value can be changed.
        """
        sealer = Sealer([OLD])
        sealed = bytearray(sealer.seal(b"secret", row="t/c/1"))
        sealed[place % len(sealed)] ^= change
        with self.assertRaises(SealError):
            sealer.open(bytes(sealed), row="t/c/1")

    def test_value_of_another_row_does_not_open(self) -> None:
        """
        A sealed value copied to another user's row is of no use there.
        """
        sealer = Sealer([OLD])
        sealed = sealer.seal(b"secret", row="upstream_tokens/sealed_access_token/1")
        error = self.assertRaises(
            SealError, sealer.open, sealed, row="upstream_tokens/sealed_access_token/2"
        )
        self.assertEqual(
            str(error),
            "a sealed value in upstream_tokens/sealed_access_token is damaged or was"
            " sealed elsewhere",
        )

    def test_unknown_key_is_named_by_its_id(self) -> None:
        """
        The operator learns which key is missing, and nothing else.
        """
        sealed = Sealer([OLD]).seal(b"secret", row="t/c/1")
        error = self.assertRaises(SealError, Sealer([NEW]).open, sealed, row="t/c/1")
        self.assertEqual(
            str(error),
            f"a sealed value in t/c needs the key with id {key_id(OLD).hex()},"
            " which is not configured",
        )

    def test_short_value_does_not_open(self) -> None:
        """
        A truncated value is refused as such.
        """
        error = self.assertRaises(SealError, Sealer([OLD]).open, b"x" * 31, row="t/c/1")
        self.assertEqual(str(error), "a sealed value in t/c is too short")

    def test_same_text_is_sealed_differently_each_time(self) -> None:
        """
        Nonces are random: equal secrets do not look equal.
        """
        sealer = Sealer([OLD])
        self.assertNotEqual(sealer.seal(b"x", row="r"), sealer.seal(b"x", row="r"))

    def test_keys_must_be_usable(self) -> None:
        """
        No key, or a short one, is a bug of the caller.
        """
        self.assertRaises(ValueError, Sealer, [])
        self.assertRaises(ValueError, Sealer, [b"short"])


class ResealingTests(StoreTestCase):
    def test_all_sealed_columns_are_found(self) -> None:
        """
        The schema itself says what is sealed.
        """
        found = self.read(sealed_columns)
        self.assertEqual(
            {(place.table, place.column, place.key) for place in found},
            {
                ("upstream_tokens", "sealed_access_token", "user_id"),
                ("upstream_tokens", "sealed_refresh_token", "user_id"),
                (
                    "pending_authorizations",
                    "sealed_upstream_verifier",
                    "pending_id",
                ),
                ("pending_authorizations", "sealed_upstream_tokens", "pending_id"),
                ("refresh_tokens", "sealed_derivation_key", "token_digest"),
                ("sessions", "sealed_initialize", "session_digest"),
            },
        )

    def test_everything_opens_with_the_new_key_alone(self) -> None:
        """
        After resealing the old key is not needed any more, in any column.
        """
        old = Sealer([OLD])
        digest = rows.digest("refresh")
        session = rows.digest("session")
        names = {
            "verifier": pending.verifier_row(rows.PENDING_ID),
            "parked": pending.upstream_tokens_row(rows.PENDING_ID),
            "key": tokens.derivation_key_row(digest),
            "initialize": sessions.initialize_row(session),
        }
        sealed = {what: old.seal(b"x", row=row) for what, row in names.items()}
        self.write(lambda c: upstream_tokens.save(c, old, rows.upstream()))
        self.write(
            lambda c: pending.insert(
                c,
                rows.pending(
                    sealed_upstream_verifier=sealed["verifier"],
                    sealed_upstream_tokens=sealed["parked"],
                ),
            )
        )
        self.write(
            lambda c: tokens.insert_refresh(
                c, rows.refresh(sealed_derivation_key=sealed["key"])
            )
        )
        self.write(
            lambda c: sessions.insert(
                c, rows.session(sealed_initialize=sealed["initialize"])
            )
        )
        self.assertEqual(self.read(key_ids_in_use), {key_id(OLD)})
        self.assertEqual(self.write(lambda c: reseal(c, Sealer([NEW, OLD]))), 6)
        self.assertEqual(self.write(lambda c: reseal(c, Sealer([NEW, OLD]))), 0)
        self.assertEqual(self.read(key_ids_in_use), {key_id(NEW)})
        new = Sealer([NEW])
        tokens_set = self.read(lambda c: upstream_tokens.find(c, new, rows.USER_ID))
        self.assertEqual(tokens_set, rows.upstream())
        found = self.read(lambda c: sessions.find(c, session))
        assert found is not None
        self.assertEqual(
            new.open(found.sealed_initialize, row=names["initialize"]), b"x"
        )
