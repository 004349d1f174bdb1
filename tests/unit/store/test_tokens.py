"""
Codes and tokens: what must happen once happens once.
"""

from functools import partial

from fjmcp_broker.oauth.vocabulary import Policy
from fjmcp_broker.store import grants, tokens, upstream_tokens

from . import rows
from .memory import NOW
from .rows import StoreTestCase, digest

CODE, ACCESS, REFRESH = digest("code"), digest("access"), digest("refresh")


class CodeTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(lambda c: tokens.insert_code(c, rows.code()))

    def test_code_comes_back(self) -> None:
        """
        A code is found by its digest, used or not.
        """
        self.assertEqual(self.read(lambda c: tokens.find_code(c, CODE)), rows.code())
        self.assertIsNone(self.read(lambda c: tokens.find_code(c, digest("x"))))
        self.write(lambda c: tokens.use_code(c, CODE, NOW + 1))
        self.assertEqual(
            self.read(lambda c: tokens.find_code(c, CODE)), rows.code(used_at=NOW + 1)
        )

    def test_code_is_used_once(self) -> None:
        """
        RFC 6749 section 4.1.2: a code MUST NOT be used more than once.
        """
        self.assertTrue(self.write(lambda c: tokens.use_code(c, CODE, NOW)))
        self.assertFalse(self.write(lambda c: tokens.use_code(c, CODE, NOW)))

    def test_expired_code_is_not_used(self) -> None:
        """
        RFC 6749 section 4.1.2: a code MUST expire; its last second is the one before.
        """
        self.assertFalse(self.write(lambda c: tokens.use_code(c, CODE, NOW + 600)))
        self.assertTrue(self.write(lambda c: tokens.use_code(c, CODE, NOW + 599)))


class AccessTokenTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(lambda c: tokens.insert_access(c, rows.access()))

    def test_token_comes_back(self) -> None:
        """
        An access token is found by its digest, with a scope of its own or without.
        """
        narrow = rows.access("narrow", scope=("read",))
        self.write(lambda c: tokens.insert_access(c, narrow))
        for token in (narrow, rows.access()):
            self.assertEqual(
                self.read(partial(tokens.find_access, digest=token.token_digest)),
                token,
            )
        self.assertIsNone(self.read(lambda c: tokens.find_access(c, digest("x"))))

    def test_first_use_is_noted_once(self) -> None:
        """
        Only the first use is written; the time of it stays.
        """
        self.assertTrue(self.write(lambda c: tokens.mark_first_use(c, ACCESS, NOW)))
        self.assertFalse(
            self.write(lambda c: tokens.mark_first_use(c, ACCESS, NOW + 1))
        )
        found = self.read(lambda c: tokens.find_access(c, ACCESS))
        self.assertEqual(found, rows.access(first_used_at=NOW))

    def test_dead_token_is_not_used(self) -> None:
        """
        An expired or revoked token has no first use.
        """
        self.assertFalse(
            self.write(lambda c: tokens.mark_first_use(c, ACCESS, NOW + 3600))
        )
        self.assertTrue(self.write(lambda c: tokens.revoke_access(c, ACCESS, NOW)))
        self.assertFalse(self.write(lambda c: tokens.revoke_access(c, ACCESS, NOW)))
        self.assertFalse(self.write(lambda c: tokens.mark_first_use(c, ACCESS, NOW)))


class RefreshTokenTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(lambda c: tokens.insert_refresh(c, rows.refresh()))

    def rotate(self, successor: str, now: int = NOW) -> bool:
        return self.write(
            lambda c: tokens.rotate_refresh(
                c,
                REFRESH,
                now,
                sealed_derivation_key=successor.encode(),
                successor_refresh_digest=digest(f"refresh {successor}"),
                successor_access_digest=digest(f"access {successor}"),
            )
        )

    def test_token_is_rotated_once(self) -> None:
        """
        Exactly one pair of successors exists, the first one.
        """
        self.assertTrue(self.rotate("1"))
        self.assertFalse(self.rotate("2"))
        self.assertEqual(
            self.read(lambda c: tokens.find_refresh(c, REFRESH)),
            rows.refresh(
                rotated_at=NOW,
                sealed_derivation_key=b"1",
                successor_refresh_digest=digest("refresh 1"),
                successor_access_digest=digest("access 1"),
            ),
        )
        self.assertIsNone(self.read(lambda c: tokens.find_refresh(c, digest("x"))))

    def test_expired_token_is_not_rotated(self) -> None:
        """
        A refresh token that has expired gets no successor.
        """
        self.assertFalse(self.rotate("1", NOW + 90 * 24 * 3600))

    def test_access_successor_is_replaced_in_order(self) -> None:
        """
        Two callers who both see an expired successor make one new token, not two.
        """

        def replace(number: int, text: str) -> bool:
            return self.write(
                lambda c: tokens.replace_successor_access(
                    c, REFRESH, digest(text), number
                )
            )

        self.assertFalse(replace(1, "not rotated"))
        self.rotate("1")
        self.assertTrue(replace(1, "a"))
        self.assertFalse(replace(1, "b"))
        self.assertTrue(replace(2, "c"))
        found = self.read(lambda c: tokens.find_refresh(c, REFRESH))
        assert found is not None
        self.assertEqual(
            (found.successor_access_number, found.successor_access_digest),
            (2, digest("c")),
        )


class PrincipalTests(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write(lambda c: tokens.insert_access(c, rows.access(scope=("read",))))

    def test_facts_of_a_bearer_come_together(self) -> None:
        """
        Token, grant, user and upstream state are read in one statement.
        """
        self.write(lambda c: upstream_tokens.save(c, self.sealer, rows.upstream()))
        facts = self.read(lambda c: tokens.principal(c, ACCESS))
        assert facts is not None
        self.assertEqual(facts.token, rows.access(scope=("read",)))
        self.assertEqual(facts.grant, rows.grant())
        self.assertEqual(facts.login, "ada")
        self.assertTrue(facts.upstream_usable)
        self.assertIs(facts.grant.policy, Policy.FULL)

    def test_refused_or_missing_upstream_set_is_seen(self) -> None:
        """
        A user who has to sign in again, or has no tokens at all, is suspended.
        """
        for state in (None, "needs_sign_in"):
            if state is not None:
                refused = rows.upstream(state=state)
                self.write(
                    partial(upstream_tokens.save, sealer=self.sealer, tokens=refused)
                )
            facts = self.read(lambda c: tokens.principal(c, ACCESS))
            assert facts is not None
            self.assertFalse(facts.upstream_usable)

    def test_ended_grant_is_seen(self) -> None:
        """
        With its grant, a token ends.
        """
        self.write(lambda c: grants.revoke(c, rows.GRANT_ID, NOW, "test"))
        facts = self.read(lambda c: tokens.principal(c, ACCESS))
        assert facts is not None
        self.assertEqual(facts.grant.revoked_at, NOW)

    def test_unknown_token_has_no_facts(self) -> None:
        """
        A token that was never issued finds nothing.
        """
        self.assertIsNone(self.read(lambda c: tokens.principal(c, digest("x"))))
