"""
Clients, users and grants.
"""

import json
from functools import partial
from sqlite3 import IntegrityError

from twisted.internet.defer import Deferred

from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.store import clients, grants, tokens, users
from fjmcp_broker.store.users import User

from . import rows
from .memory import NOW
from .rows import CLIENT_ID, GRANT_ID, USER_ID, StoreTestCase


class ClientTests(StoreTestCase):
    def test_confidential_client_comes_back(self) -> None:
        """
        A client is found again with all that it registered.
        """
        metadata = {
            "redirect_uris": ["https://client.example/back"],
            "client_name": "Ünicode",
            "token_endpoint_auth_method": "client_secret_post",
            "application_type": "web",
            "contacts": ["a", {"deep": [1, None, True]}],
        }
        client = rows.client(
            "other",
            metadata=json.dumps(metadata),
            secret_digest=rows.digest("secret"),
            last_used_at=NOW - 5,
        )
        self.write(lambda c: clients.insert(c, client))
        self.assertEqual(self.read(lambda c: clients.find(c, "other")), client)
        self.assertEqual(client.metadata, metadata)

    def test_unknown_client_is_not_found(self) -> None:
        """
        An id that was never given out finds nothing, whatever it looks like.
        """
        for client_id in ("", CLIENT_ID.upper(), CLIENT_ID + "\0", "' OR 1=1 --"):
            self.assertIsNone(self.read(partial(clients.find, client_id=client_id)))

    def test_id_is_given_out_once(self) -> None:
        """
        A second client of the same id is refused.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(
                self.database.write(lambda c: clients.insert(c, rows.client()))
            ),
            IntegrityError,
        )

    def test_use_is_noted_and_never_goes_back(self) -> None:
        """
        The newest sign-in counts, whatever order they are written in.
        """
        for at in (NOW + 5, NOW + 3):
            self.write(partial(clients.mark_used, client_id=CLIENT_ID, now=at))
        found = self.read(lambda c: clients.find(c, CLIENT_ID))
        assert found is not None
        self.assertEqual(found.last_used_at, NOW + 5)


class UserTests(StoreTestCase):
    def test_renamed_user_stays_the_same_user(self) -> None:
        """
        Forgejo's number identifies a user; name and times follow.
        """
        self.write(lambda c: users.upsert_user(c, USER_ID, "ada2", "", NOW + 9))
        self.assertEqual(
            self.read(lambda c: users.find_user(c, USER_ID)),
            User(USER_ID, "ada2", "", NOW, NOW + 9),
        )
        self.assertEqual(self.count("users"), 1)

    def test_unknown_user_is_not_found(self) -> None:
        """
        Nobody is invented.
        """
        self.assertIsNone(self.read(lambda c: users.find_user(c, 99)))


class GrantTests(StoreTestCase):
    def test_grant_comes_back(self) -> None:
        """
        A grant is found again as it was stored, its scope sorted.
        """
        grant = rows.grant(
            "g_2", scope=("read",), policy=Policy.READ_ONLY, created_at=NOW + 1
        )
        self.write(lambda c: grants.insert(c, grant))
        self.assertEqual(self.read(lambda c: grants.find(c, "g_2")), grant)
        self.assertEqual(
            self.read(lambda c: grants.grants_of_user(c, USER_ID)),
            [rows.grant(), grant],
        )
        self.assertIsNone(self.read(lambda c: grants.find(c, "g_3")))

    def test_grant_needs_user_and_client(self) -> None:
        """
        A grant of nobody, or for nobody, is refused.
        """
        for change in ({"user_id": 99}, {"client_id": "nobody"}):
            grant = rows.grant("g_2", **change)
            self.failureResultOf(
                Deferred.fromCoroutine(
                    self.database.write(partial(grants.insert, grant=grant))
                ),
                IntegrityError,
            )

    def test_grant_is_live_with_an_unexpired_refresh_token(self) -> None:
        """
        A grant lives as long as somebody can refresh.
        """

        def is_live(now: int) -> bool:
            return self.read(lambda c: grants.is_live(c, GRANT_ID, now))

        self.assertFalse(is_live(NOW))
        self.write(
            lambda c: tokens.insert_refresh(c, rows.refresh(expires_at=NOW + 10))
        )
        self.assertTrue(is_live(NOW + 9))
        self.assertFalse(is_live(NOW + 10))

    def test_rotated_token_alone_keeps_no_grant_alive(self) -> None:
        """
        Only the newest refresh token counts.
        """
        self.write(lambda c: tokens.insert_refresh(c, rows.refresh(rotated_at=NOW)))
        self.assertFalse(self.read(lambda c: grants.is_live(c, GRANT_ID, NOW)))

    def test_grant_is_revoked_once(self) -> None:
        """
        The first reason stays; keys that could repeat an answer are erased.
        """
        self.write(
            lambda c: tokens.insert_refresh(c, rows.refresh(sealed_derivation_key=b"x"))
        )
        self.assertTrue(
            self.write(lambda c: grants.revoke(c, GRANT_ID, NOW + 1, "first"))
        )
        self.assertFalse(
            self.write(lambda c: grants.revoke(c, GRANT_ID, NOW + 2, "second"))
        )
        found = self.read(lambda c: grants.find(c, GRANT_ID))
        assert found is not None
        self.assertEqual((found.revoked_at, found.reason), (NOW + 1, "first"))
        self.assertFalse(self.read(lambda c: grants.is_live(c, GRANT_ID, NOW)))
        token = self.read(lambda c: tokens.find_refresh(c, rows.digest("refresh")))
        assert token is not None
        self.assertIsNone(token.sealed_derivation_key)

    def test_use_is_noted(self) -> None:
        """
        The newest refresh counts.
        """
        for at in (NOW + 5, NOW + 3):
            self.write(partial(grants.mark_used, grant_id=GRANT_ID, now=at))
        found = self.read(lambda c: grants.find(c, GRANT_ID))
        assert found is not None
        self.assertEqual(found.last_used_at, NOW + 5)
