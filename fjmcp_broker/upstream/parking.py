"""
Token sets whose user is not known yet, sealed into their pending authorization.
"""

from sqlite3 import Connection
from typing import Final

import msgspec
from twisted.logger import Logger

from fjmcp_broker.secret import Confidential, Secret
from fjmcp_broker.store import pending
from fjmcp_broker.store.database import Database
from fjmcp_broker.store.errors import SealError, StoreUnavailable
from fjmcp_broker.store.sealing import Sealer
from fjmcp_broker.store.upstream_tokens import UpstreamSet

from .interfaces import TokenAnswer


class HomelessTokens(msgspec.Struct, frozen=True):
    """
    What a token endpoint answered, less what an id_token would have told.

    @ivar access_token: for the API.
    @ivar refresh_token: single use.
    @ivar expires_at: of the access token, seconds since the epoch.
    @ivar grant_number: C{gnt} of the refresh token, for ordering only.
    @ivar counter: C{cnt} of the refresh token, for ordering only.
    """

    access_token: Secret
    refresh_token: Secret
    expires_at: int
    grant_number: int | None
    counter: int | None

    @classmethod
    def of(cls, answer: TokenAnswer, asked_at: int) -> "HomelessTokens":
        """
        @param answer: of the token endpoint.
        @param asked_at: when the request began, so that the life is never overrated.
        @return: the tokens in it.
        """
        return cls(
            answer.access_token,
            answer.refresh_token,
            asked_at + answer.expires_in,
            answer.grant_number,
            answer.counter,
        )

    def at_home(self, user_id: int, now: int) -> UpstreamSet:
        """
        @param user_id: whose they are.
        @param now: seconds since the epoch.
        @return: the set to store; its scope is not known yet.
        """
        return UpstreamSet(
            user_id=user_id,
            access_token=self.access_token,
            refresh_token=self.refresh_token,
            expires_at=self.expires_at,
            grant_number=self.grant_number,
            counter=self.counter,
            updated_at=now,
        )


class _Stored(Confidential, msgspec.Struct):
    """
    The form under the seal.
    """

    access_token: str
    refresh_token: str
    expires_at: int
    grant_number: int | None
    counter: int | None


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(_Stored)


class Parking:
    """
    Puts homeless tokens into the store and takes them out again.
    """

    _log = Logger()

    def __init__(self, database: Database, sealer: Sealer) -> None:
        """
        @param database: the store.
        @param sealer: for the column.
        """
        self._database = database
        self._sealer = sealer

    async def park(self, pending_id: str, tokens: HomelessTokens) -> None:
        """
        @param pending_id: of the sign-in that brought them.
        @param tokens: to keep.
        @raise StoreError: not stored; L{StoreUnavailable} also when the sign-in is
            not there any more.
        """
        stored = _Stored(
            tokens.access_token.reveal(),
            tokens.refresh_token.reveal(),
            tokens.expires_at,
            tokens.grant_number,
            tokens.counter,
        )
        sealed = self._sealer.seal(
            _ENCODER.encode(stored), row=pending.upstream_tokens_row(pending_id)
        )
        if not await self._database.write(
            lambda c: pending.park_upstream_tokens(c, pending_id, sealed)
        ):
            raise StoreUnavailable("the sign-in that brought them is not stored")

    async def all(self) -> list[tuple[str, HomelessTokens]]:
        """
        @return: what is parked, with its pending id, oldest first. What no key
            opens is left where it is.
        @raise StoreError: the store cannot be read.
        """
        found: list[tuple[str, HomelessTokens]] = []
        for row in await self._database.read(pending.parked):
            try:
                plain = self._sealer.open(
                    row.sealed_upstream_tokens or b"",
                    row=pending.upstream_tokens_row(row.pending_id),
                )
                stored = _DECODER.decode(plain)
            except (SealError, msgspec.DecodeError) as error:
                self._log.error(
                    "tokens of an interrupted sign-in cannot be read: {error}",
                    error=str(error),
                )
                continue
            found.append(
                (
                    row.pending_id,
                    HomelessTokens(
                        Secret(stored.access_token),
                        Secret(stored.refresh_token),
                        stored.expires_at,
                        stored.grant_number,
                        stored.counter,
                    ),
                )
            )
        return found

    def clear(self, connection: Connection, pending_id: str) -> None:
        """
        @param connection: in a transaction that may write.
        @param pending_id: of the sign-in whose tokens are at home, or dead.
        """
        pending.unpark_upstream_tokens(connection, pending_id)
