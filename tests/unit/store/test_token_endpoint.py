"""
The token transactions against a simple model: whatever clients do, in whatever order,
a refresh token has one pair of successors inside the rules, and outside them its reuse
ends the grant.
"""

import secrets
import sqlite3
from collections.abc import Callable
from typing import TypeVar

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.bearer import judge_bearer
from fjmcp_broker.oauth.token_request import (
    ClientCredentials,
    CodeRequest,
    RefreshRequest,
)
from fjmcp_broker.oauth.tokens import digest
from fjmcp_broker.store import bearer_check, migrations, tokens
from fjmcp_broker.store.collector import collect
from fjmcp_broker.store.connection import set_up_writer
from fjmcp_broker.store.revocation import Refused, Revoked, revoke_token
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.token_endpoint import TokenAnswer, TokenTransactions
from tests.unit.web.token_fixture import (
    NOW,
    PUBLIC_URL,
    USER_ID,
    VERIFIER,
    insert_code,
    insert_people,
)

T = TypeVar("T")

ACCESS_LIFETIME = 3600
REFRESH_LIFETIME = 30 * 86_400
CLIENT = ClientCredentials("public")


@attrs.define
class Access:
    """
    An access token as the model sees it.
    """

    text: str
    expires_at: int
    used: bool = False
    revoked: bool = False


@attrs.define
class Refresh:
    """
    A refresh token as the model sees it; C{child} and C{access} once rotated.
    """

    text: str
    expires_at: int
    rotated_at: int | None = None
    child: "Refresh | None" = None
    access: Access | None = None


class RefreshMachine(RuleBasedStateMachine):
    """
    One grant, and everything that can happen to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        set_up_writer(self.connection)
        self.sealer = Sealer([b"k" * 32])
        self.transactions = TokenTransactions(
            self.sealer,
            secrets.token_bytes,
            access_lifetime_seconds=ACCESS_LIFETIME,
            refresh_lifetime_seconds=REFRESH_LIFETIME,
            resource=f"{PUBLIC_URL}/mcp",
        )
        self.now = NOW
        self.ended = False
        self.suspended = False
        self.refreshes: list[Refresh] = []
        self.accesses: list[Access] = []
        self.seen: set[str] = set()

    def teardown(self) -> None:
        """Leave no open connection."""
        self.connection.close()

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """
        @return: what the transaction gave.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        result = work(self.connection)
        self.connection.execute("COMMIT")
        return result

    def ask(
        self,
        asked: CodeRequest | RefreshRequest,
        client: ClientCredentials = CLIENT,
    ) -> TokenAnswer | Refused:
        """
        @return: what the token endpoint does.
        """
        return self.write(
            lambda connection: self.transactions.answer(
                connection, client, asked, self.now
            )
        )

    def note(self, answer: TokenAnswer) -> tuple[Refresh, Access]:
        """
        Note a pair that must be new.
        """
        for text in (answer.access_token, answer.refresh_token):
            assert text not in self.seen, "a token was issued twice"
            self.seen.add(text)
        assert answer.expires_in == ACCESS_LIFETIME
        refresh = Refresh(answer.refresh_token, self.now + REFRESH_LIFETIME)
        access = Access(answer.access_token, self.now + answer.expires_in)
        self.refreshes.append(refresh)
        self.accesses.append(access)
        return refresh, access

    @initialize()
    def sign_in(self) -> None:
        """A user comes back with a code, and the client exchanges it."""
        self.write(lambda connection: migrations.apply(connection, NOW))
        self.write(lambda connection: insert_people(connection, self.sealer))
        _, code = self.write(lambda connection: insert_code(connection, self.now))
        answer = self.ask(CodeRequest(code, VERIFIER))
        assert isinstance(answer, TokenAnswer)
        self.note(answer)

    @rule(
        seconds=st.one_of(
            st.integers(0, 70),
            st.sampled_from([1, 59, 60, 61, 61, 3599, 3600, 3600, 86_400]),
        )
    )
    def time_passes(self, seconds: int) -> None:
        """Nobody does anything."""
        self.now += seconds

    @precondition(lambda self: len(self.refreshes) > 2 and not self.ended)
    @rule(seconds=st.sampled_from([REFRESH_LIFETIME - 5, REFRESH_LIFETIME]))
    def long_time_passes(self, seconds: int) -> None:
        """A client is forgotten for a month."""
        self.now += seconds

    @rule(data=st.data())
    def present(self, data: st.DataObject) -> None:
        """Somebody presents a refresh token, new or old; the answer may get lost."""
        token = data.draw(st.sampled_from(self.refreshes[-4:]))
        answer = self.ask(RefreshRequest(token.text))
        if self.ended or self.suspended:
            assert isinstance(answer, Refused)
        elif token.rotated_at is None:
            if token.expires_at <= self.now:
                assert isinstance(answer, Refused)
                return
            assert isinstance(answer, TokenAnswer)
            token.rotated_at = self.now
            token.child, token.access = self.note(answer)
        else:
            self.present_again(token, answer)

    def present_again(self, token: Refresh, answer: TokenAnswer | Refused) -> None:
        """The rules of design section 3 for a token that was rotated."""
        child, access, rotated_at = token.child, token.access, token.rotated_at
        assert child is not None and access is not None and rotated_at is not None
        if child.rotated_at is None and child.expires_at <= self.now:
            assert isinstance(answer, Refused)
            return
        used = child.rotated_at is not None or access.used or access.revoked
        if used and self.now - rotated_at > 60:
            assert isinstance(answer, Refused)
            assert answer.ended_grant_id is not None
            self.ended = True
            return
        assert isinstance(answer, TokenAnswer), answer
        assert answer.refresh_token == child.text
        if used or access.expires_at > self.now:
            assert answer.access_token == access.text
            assert answer.expires_in == max(0, access.expires_at - self.now)
            return
        assert answer.access_token not in self.seen
        self.seen.add(answer.access_token)
        expires_at = min(self.now + ACCESS_LIFETIME, child.expires_at)
        assert answer.expires_in == expires_at - self.now
        token.access = Access(answer.access_token, expires_at)
        self.accesses.append(token.access)

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        """Somebody calls the MCP endpoint."""
        access = data.draw(st.sampled_from(self.accesses[-4:]))
        facts = self.write(
            lambda connection: bearer_check.first_use(
                connection, digest(access.text), self.now
            )
        )
        accepted = judge_bearer(facts, self.now) is not None
        assert accepted == (
            not self.ended
            and not self.suspended
            and not access.revoked
            and access.expires_at > self.now
        )
        access.used = access.used or accepted

    @precondition(lambda self: not self.ended)
    @rule(data=st.data())
    def foreign_client_presents(self, data: st.DataObject) -> None:
        """It gets nothing and breaks nothing."""
        token = data.draw(st.sampled_from(self.refreshes[-4:]))
        answer = self.ask(RefreshRequest(token.text), ClientCredentials("other"))
        assert isinstance(answer, Refused) and answer.ended_grant_id is None

    @precondition(lambda self: not self.ended and len(self.accesses) > 2)
    @rule(data=st.data())
    def revoke_access(self, data: st.DataObject) -> None:
        """The client drops an access token (RFC 7009)."""
        access = data.draw(st.sampled_from(self.accesses[-4:]))
        outcome = self.write(
            lambda connection: revoke_token(connection, CLIENT, access.text, self.now)
        )
        assert isinstance(outcome, Revoked) and outcome.ended_grant_id is None
        access.revoked = access.revoked or outcome.token_digest is not None

    @rule(data=st.data())
    def suspended_for_a_while(self, data: st.DataObject) -> None:
        """Forgejo refuses the user's refresh token; the user signs in again."""
        self.set_state("needs_sign_in")
        self.suspended = True
        self.present(data)
        self.use(data)
        self.set_state("usable")
        self.suspended = False

    def set_state(self, state: str) -> None:
        """
        Set the state of the user's upstream token set.
        """
        self.write(
            lambda connection: (
                connection.execute(
                    "UPDATE upstream_tokens SET state = ? WHERE user_id = ?",
                    (state, USER_ID),
                ).rowcount
            )
        )

    @rule()
    def collector_runs(self) -> None:
        """Garbage goes; no answer changes by that."""
        collected = self.write(lambda connection: collect(connection, self.now))
        if collected.ended_grants:
            assert not self.live()
            self.ended = True

    def live(self) -> list[Refresh]:
        """
        @return: the refresh tokens that are neither rotated nor expired.
        """
        return [
            token
            for token in self.refreshes
            if token.rotated_at is None and token.expires_at > self.now
        ]

    @invariant()
    def one_live_pair_at_most(self) -> None:
        """Exactly one pair ever exists."""
        if not self.refreshes:
            return
        unrotated = self.connection.execute(
            "SELECT count(*) FROM refresh_tokens WHERE rotated_at IS NULL"
        ).fetchone()
        assert unrotated[0] <= 1
        assert len(self.live()) <= 1

    @invariant()
    def keys_live_no_longer_than_needed(self) -> None:
        """A key in the store can be needed by an answer, or its minute is not over."""
        for token in self.refreshes:
            row = tokens.find_refresh(self.connection, digest(token.text))
            if row is None or token.child is None or token.access is None:
                continue
            used = token.child.rotated_at is not None or token.access.used
            assert token.rotated_at is not None
            if not used and token.child.expires_at > self.now and not self.ended:
                needed = not token.access.revoked
                assert not needed or row.sealed_derivation_key is not None
            if self.ended:
                assert row.sealed_derivation_key is None


class RefreshMachineTests(SynchronousTestCase):
    """Any sequence of events."""

    def test_any_sequence(self) -> None:
        """The store does what the model says."""
        run_state_machine_as_test(
            RefreshMachine,
            settings=settings(max_examples=250, stateful_step_count=30, deadline=None),
        )
