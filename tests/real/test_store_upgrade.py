"""A store of an earlier version, with clients that know nothing of an upgrade."""

from __future__ import annotations

import os
import time

from msgspec.structs import astuple
from twisted.internet.threads import deferToThread

from tests.real.broker_case import BrokerCase
from tests.real.daemon import Daemon, free_port
from tests.real.store_dump import Upstream, restore


class UpgradeTests(BrokerCase):
    """Tokens, sessions and rights survive."""

    async def test_store_of_version_1(self) -> None:
        """Sessions answer under their ids, tokens refresh, rights are the same."""
        port = free_port()
        settings, forgejo = await self.settings(port)
        path = settings["FJMCP_BROKER_STORE_PATH"]
        controls = forgejo.stand_in.controls
        upstream = Upstream(
            forgejo.stand_in.base_url,
            settings["FORGEJO_OAUTH_CLIENT_ID"],
            lambda login: astuple(controls.issue_tokens(login)),
        )
        key, holders = restore(
            "store-v1", path, f"http://127.0.0.1:{port}", upstream, int(time.time())
        )
        os.chmod(path, 0o600)
        daemon = Daemon.launch(
            {**settings, "FJMCP_BROKER_ENCRYPTION_KEYS": key}, port=port
        )
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        self.assertEqual(len(holders), 3)
        for holder in holders:
            client = holder.client(daemon.url)
            answer = await deferToThread(client.call, "who_am_i")
            if holder.decision == "full":
                self.assertIn(holder.login, str(answer["result"]))
            else:
                self.assertNotIn("result", answer)
            listed = await deferToThread(client.request, "tools/list")
            self.assertEqual(listed.status, 200, daemon.text)
            self.assertEqual("create_issue" in listed.text, holder.decision == "full")
            await deferToThread(client.refresh)
            listed = await deferToThread(client.request, "tools/list")
            self.assertEqual(listed.status, 200, daemon.text)
        await daemon.stop()
        self.assertNotIn("Traceback", daemon.text)
