"""What clients were told about their sessions while the store could not be written."""

from __future__ import annotations

import sqlite3

from twisted.internet.threads import deferToThread

from tests.real.test_sessions import SessionCase


class LockedStoreTests(SessionCase):
    """Another program locks the store for a while."""

    async def test_deleted_session_stays_deleted(self) -> None:
        """Also when the daemon is stopped before the next try to write it down."""
        await self.begin()
        client, other = await self.signed_in(), await self.signed_in("bob")
        # Reads go on: only writers wait, and give up after five seconds.
        lock = sqlite3.connect(f"{self.directory}/broker.db", isolation_level=None)
        try:
            lock.execute("BEGIN IMMEDIATE")
            deleted = await deferToThread(client.send, b"", "DELETE")
            self.assertEqual(deleted.status, 204)
            self.assertEqual((await self.send(client, "who_am_i")).status, 404)
            await self.until(lambda: "is locked" in self.daemon.text, "no word of it")
            await self.check(other, "bob")
        finally:
            lock.close()
        await self.daemon.stop()
        self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
        self.assertNotIn('"level": "error"', self.daemon.text)
        self.assertNotIn("Traceback", self.daemon.text)
        await self.start()
        self.assertEqual((await self.send(client, "who_am_i")).status, 404)
        await self.check(other, "bob")
