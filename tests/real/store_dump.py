"""
Dumps of stores with live sessions, made by earlier versions and never made again:
upgrades are tested from them.

C{python -m twisted.trial tests.real.store_dump} writes one into C{FJMCP_DUMP_DIR}.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
from msgspec.structs import replace
from twisted.internet.threads import deferToThread

from fjmcp_broker.key_text import decode_key
from fjmcp_broker.secret import Secret
from fjmcp_broker.store import upstream_tokens
from fjmcp_broker.store.sealing import Sealer
from tests.real.broker_case import BrokerCase
from tests.real.client import McpClient

DATA: Final = Path(__file__).parent.parent / "data"
KEY: Final = bytes(range(32)).hex()
"""Everybody may know it: the tokens in a dump are good for nothing."""

USERS: Final = {"alice": 1, "bob": 2}


@attrs.frozen
class Holder:
    """
    What a client of the dumped store has.

    @ivar decision: what its user chose on the consent page.
    """

    login: str
    decision: str
    client_id: str
    access_token: str
    refresh_token: str
    session_id: str

    def client(self, url: str) -> McpClient:
        """
        @return: a client that goes on where this one was.
        """
        return McpClient(
            url,
            client_id=self.client_id,
            access_token=self.access_token,
            refresh_token=self.refresh_token,
            session_id=self.session_id,
            number=100,
        )


@attrs.frozen
class Upstream:
    """
    The Forgejo of a store that is restored.

    @ivar issue: gives a user's access token and refresh token.
    """

    url: str
    client_id: str
    issue: Callable[[str], tuple[str, str]]


class MakeDump(BrokerCase):
    """Not a test: makes a dump with this version's code."""

    async def test_make(self) -> None:
        """Sign in, open sessions, refresh, stop; dump the store."""
        target = Path(os.environ["FJMCP_DUMP_DIR"])
        name = os.environ["FJMCP_DUMP_NAME"]
        daemon, forgejo = await self.launch(FJMCP_BROKER_ENCRYPTION_KEYS=KEY)
        holders = []
        for login, decision in (
            ("alice", "full"),
            ("alice", "read-only"),
            ("bob", "full"),
        ):
            client = await self.session(daemon, forgejo, login, decision=decision)
            await deferToThread(client.refresh)
            await deferToThread(client.call, "who_am_i")
            assert client.session_id is not None
            holders.append(
                Holder(
                    login,
                    decision,
                    client.client_id,
                    client.access_token,
                    client.refresh_token,
                    client.session_id,
                )
            )
        await daemon.stop()
        with closing(sqlite3.connect(f"{self.directory}/broker.db")) as store:
            dump = "\n".join(store.iterdump())
        (target / f"{name}.sql").write_text(dump + "\n")
        facts = {
            "made_at": int(time.time()),
            "key": KEY,
            "holders": [attrs.asdict(holder) for holder in holders],
        }
        (target / f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")


def restore(
    name: str, path: str, broker_url: str, forgejo: Upstream, now: int
) -> tuple[str, list[Holder]]:
    """
    Make a store from a dump, as if it had been made just now and its Forgejo were
    this one.

    @param name: of the dump.
    @param path: of the store to be.
    @param broker_url: the public URL of the broker to be.
    @return: the key that the daemon needs, and who has tokens and sessions.
    """
    facts: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    age = now - facts["made_at"]
    with closing(sqlite3.connect(path)) as store, store:
        store.executescript((DATA / f"{name}.sql").read_text())
        tables = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            columns = store.execute(f"PRAGMA table_info({table})").fetchall()
            for column in (each[1] for each in columns if each[1].endswith("_at")):
                store.execute(
                    f"UPDATE {table} SET {column} = {column} + ?",  # noqa: S608
                    (age,),
                )
        store.execute(
            "UPDATE instance SET forgejo_url = ?, oauth_client_id = ?",
            (forgejo.url, forgejo.client_id),
        )
        store.execute("UPDATE grants SET resource = ?", (f"{broker_url}/mcp",))
        sealer = Sealer([decode_key(facts["key"])])
        for login, user_id in USERS.items():
            known = upstream_tokens.find(store, sealer, user_id)
            assert known is not None
            access_token, refresh_token = forgejo.issue(login)
            fresh = replace(
                known,
                access_token=Secret(access_token),
                refresh_token=Secret(refresh_token),
                expires_at=now + 3600,
            )
            upstream_tokens.save(store, sealer, fresh)
    return facts["key"], [Holder(**each) for each in facts["holders"]]
