"""What clients were told about their sessions while the store could not be written."""

from __future__ import annotations

import signal
import sqlite3

from twisted.internet.threads import deferToThread

from tests.real.test_sessions import SessionCase


class LockedStoreTests(SessionCase):
    """Another program locks the store for a while."""

    async def test_deleting_waits_for_the_store(self) -> None:
        """503 while it cannot be written down, and the session goes on; 204 is true
        whatever happens to the daemon in the next moment."""
        await self.begin()
        client, other = await self.signed_in(), await self.signed_in("bob")
        # Reads go on: only writers wait, and give up after five seconds.
        lock = sqlite3.connect(f"{self.directory}/broker.db", isolation_level=None)
        try:
            lock.execute("BEGIN IMMEDIATE")
            refused = await deferToThread(client.send, b"", "DELETE")
            self.assertEqual(refused.status, 503, refused.text)
            self.assertIn("Retry-After", refused.headers)
            await self.check(client)
        finally:
            lock.close()
        deleted = await deferToThread(client.send, b"", "DELETE")
        self.daemon.signal_with(signal.SIGKILL)
        self.assertEqual(deleted.status, 204)
        await self.daemon.wait()
        self.assertNotIn('"level": "error"', self.daemon.text)
        self.assertNotIn("Traceback", self.daemon.text)
        await self.start()
        self.assertEqual((await self.send(client, "who_am_i")).status, 404)
        await self.check(other, "bob")
