"""
A client that opens no session in front of a child that knows nothing else: the daemon,
the stand-in Forgejo and the stand-in child are real processes.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from tests.real.client import McpClient
from tests.real.modern import SUBSCRIPTION, ModernCase, call, modern, said

CHANGED = "notifications/tools/list_changed"


class JourneyTests(ModernCase):
    """From nothing to a result, without a handshake."""

    async def test_discover_list_call(self) -> None:
        """No session id appears, and no child is started for a discovery."""
        await self.begin()
        client = await self.signed_in()
        first = await self.result(client, modern("d", "server/discover"))
        self.assertEqual(first["supportedVersions"][0], "2026-07-28")
        self.assertEqual(first["ttlMs"], 0)
        self.assertEqual(self.children(), [])
        answer = await self.exchange(client, modern(1, "tools/list"))
        self.assertNotIn("mcp-session-id", answer.headers)
        listed = answer.message["result"]
        names = [tool["name"] for tool in listed["tools"]]
        self.assertEqual(names, sorted(names))
        self.assertEqual(listed["resultType"], "complete")
        self.assertEqual(listed["cacheScope"], "private")
        self.assertGreaterEqual(listed["ttlMs"], 0)
        user = next(t for t in listed["tools"] if t["name"] == "get_my_user_info")
        self.assertTrue(user["annotations"]["readOnlyHint"])
        result = await self.result(client, call(1, "who_am_i"))
        self.assertEqual(said(result), "alice")
        self.assertEqual(
            result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
            "Forgejo MCP Server",
        )
        known = await self.result(client, modern("d", "server/discover"))
        self.assertIn("logging", known["capabilities"])
        self.assertGreater(known["ttlMs"], 0)
        self.assertEqual(len(self.children()), 1)
        # What a child is outlives the daemon.
        await self.daemon.stop()
        self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
        await self.start()
        again = await self.result(client, modern("d", "server/discover"))
        self.assertEqual(again, known)
        self.assertEqual(self.children(), [])

    async def test_statuses(self) -> None:
        """What depends on the child, and what does not."""
        await self.begin()
        client = await self.signed_in()
        for message, headers, status, code in (
            (modern(1, "x/y"), {}, 404, -32601),
            (modern(1, "prompts/list"), {}, 404, -32601),
            (modern(1, "initialize"), {}, 404, -32601),
            (modern(1, "ping"), {}, 404, -32601),
            (call(1, "no_such_tool"), {}, 200, -32602),
            (call(1, "echo"), {"Mcp_Name": "slow"}, 400, -32020),
            (call(1, "echo"), {"MCP_Protocol_Version": None}, 400, -32020),
            (modern(1, "tools/list"), {"Mcp_Session_Id": "x"}, 200, None),
            (call(1, "download_release_attachment"), {}, 200, 403),
        ):
            answer = await self.exchange(client, message, **headers)
            self.assertEqual(answer.status, status, answer.raw)
            error = answer.message.get("error", {})
            self.assertEqual(error.get("code"), code, answer.raw)
        stranger = attrs.evolve(client, access_token="nobody")
        refused = await self.exchange(stranger, modern(1, "tools/list"))
        self.assertEqual(refused.status, 401)
        note = {"jsonrpc": "2.0", "method": "notifications/x"}
        accepted = await self.exchange(client, note)
        self.assertEqual((accepted.status, accepted.body), (202, b""))

    async def test_read_only_grants(self) -> None:
        """One that may ask for more is told so; one that chose it sees no more."""
        await self.begin()
        asked = await self.signed_in(scope="read")
        chosen = await self.signed_in(decision="read-only")
        for client, sees in ((asked, True), (chosen, False)):
            listed = await self.result(client, modern(1, "tools/list"))
            names = {tool["name"] for tool in listed["tools"]}
            self.assertIn("list_my_repos", names)
            self.assertEqual("create_issue" in names, sees)
            await self.result(client, call(1, "list_my_repos"))
            refused = await self.exchange(client, call(1, "create_issue"))
            self.assertEqual(refused.status, 403)
            challenge = refused.headers["www-authenticate"]
            self.assertIn('error="insufficient_scope"', challenge)
            await self.listen(client, 1, toolsListChanged=True)

    async def test_progress(self) -> None:
        """On the stream of the request alone, with the client's own token."""
        await self.begin()
        client = await self.signed_in()
        token = {"progressToken": "p"}
        calls = [call(1, "progress", token, steps=3, seconds=0.1) for _ in range(3)]
        answers = await gatherResults(
            [Deferred.fromCoroutine(self.exchange(client, each)) for each in calls]
        )
        for answer in answers:
            self.assertEqual(answer.headers["content-type"], "text/event-stream")
            steps = [event["params"] for event in answer.events[:-1]]
            self.assertEqual([step["progress"] for step in steps], [1, 2, 3])
            self.assertEqual({step["progressToken"] for step in steps}, {"p"})
            self.assertEqual(said(answer.message["result"]), 3)
            self.assertNotIn(b"\nid: ", answer.body)

    async def test_two_clients_with_equal_ids(self) -> None:
        """Of one grant and of another one of the same user, at the same time."""
        await self.begin()
        client = await self.signed_in()
        other = await self.signed_in()
        numbers = range(12)
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self.result((client, other)[n % 2], call(1, "echo", text=f"t{n}"))
                )
                for n in numbers
            ]
        )
        self.assertEqual([said(each) for each in answers], [f"t{n}" for n in numbers])
        self.assertEqual(len(self.children()), 2)

    async def test_both_eras_at_once(self) -> None:
        """A client with a session beside one without."""
        await self.begin()
        client = await self.signed_in()
        legacy = attrs.evolve(client)
        await deferToThread(legacy.initialize)
        modern_call = Deferred.fromCoroutine(
            self.result(client, call(1, "slow", seconds=0.5))
        )
        self.assertEqual(await self.legacy_user(legacy), "alice")
        self.assertEqual(said(await modern_call), "done")
        with_both = await self.exchange(
            client, call(1, "who_am_i"), Mcp_Session_Id=legacy.session_id
        )
        self.assertEqual(said(with_both.message["result"]), "alice")
        self.assertEqual(await self.legacy_user(legacy), "alice")

    async def legacy_user(self, client: McpClient) -> Any:
        """Who the session's child is."""
        return said((await self.call(client, "who_am_i"))["result"])


class CancellationTests(ModernCase):
    """Closing the connection is the cancellation."""

    async def test_closed_connection(self) -> None:
        """The child hears of it, and goes on for others."""
        await self.begin()
        client = await self.signed_in()
        answer = await self.post(client, call("a", "slow", seconds=60))
        await self.until_told(client, "tools/call", 1)
        assert answer.transport is not None
        answer.transport.loseConnection()
        await self.until_told(client, "notifications/cancelled", 1)
        self.assertEqual(
            said(await self.result(client, call("a", "who_am_i"))), "alice"
        )
        self.assertEqual(len(self.children()), 1)

    async def test_closed_stream(self) -> None:
        """In the middle of its events."""
        await self.begin()
        client = await self.signed_in()
        message = call(1, "progress", {"progressToken": 1}, steps=600, seconds=0.1)
        answer = await self.post(client, message)
        await answer.until(lambda: b"step 2" in answer.raw)
        transport: Any = answer.transport
        transport.abortConnection()
        await self.until_told(client, "notifications/cancelled", 1)


class LoadTests(ModernCase):
    """Many requests, and somebody who does not read."""

    runs_alone = True

    async def test_many_requests_with_one_id(self) -> None:
        """Each gets its own answer, forty at a time, from two users' children."""
        await self.begin()
        clients = [await self.signed_in(), await self.signed_in("bob")]
        numbers = iter(range(400))

        async def work() -> None:
            for number in numbers:
                message = call(1, "echo", text=f"text {number}")
                result = await self.result(clients[number % 2], message)
                self.assertEqual(said(result), f"text {number}")

        await gatherResults([Deferred.fromCoroutine(work()) for _ in range(40)])
        self.assertEqual(len(self.children()), 2)

    async def test_client_that_does_not_read(self) -> None:
        """
        The others wait for a few seconds at most, its connection is cut, and its
        request is cancelled.
        """
        await self.begin()
        client = await self.signed_in()
        flood = call("f", "progress", {"progressToken": "p" * 500}, steps=100_000)
        answer = await self.post(client, flood)
        await answer.until(lambda: b"step 1" in answer.raw)
        transport: Any = answer.transport
        transport.pauseProducing()
        before = time.monotonic()
        await self.check_user(client)
        self.assertLess(time.monotonic() - before, 15)
        await self.until_told(client, "notifications/cancelled", 1)
        transport.resumeProducing()
        await answer.until(lambda: False)
        self.assertTrue(answer.is_closed)
        self.assertNotIn(b'"result"', answer.raw)
        self.assertIn("its reader is too slow", self.daemon.text)


class ListenTests(ModernCase):
    """C{subscriptions/listen}."""

    async def test_listener(self) -> None:
        """Acknowledged first; then what it asked for, with its id; nobody else's."""
        await self.begin()
        client = await self.signed_in()
        other = await self.signed_in("bob")
        listening = await self.listen(client, "l", toolsListChanged=True)
        silent = await self.listen(client, 7)
        stranger = await self.listen(other, "l", toolsListChanged=True)
        acknowledged = listening.events[0]["params"]
        self.assertEqual(acknowledged["notifications"], {"toolsListChanged": True})
        self.assertEqual(acknowledged["_meta"], {SUBSCRIPTION: "l"})
        await self.result(client, call(1, "notify", method=CHANGED))
        await listening.until(lambda: CHANGED.encode() in listening.raw)
        self.assertEqual(listening.events[1]["method"], CHANGED)
        self.assertEqual(listening.events[1]["params"]["_meta"], {SUBSCRIPTION: "l"})
        for others in (silent, stranger):
            self.assertEqual(len(others.events), 1)

    async def test_daemon_stops(self) -> None:
        """The stream ends in good order, and holds nothing up."""
        await self.begin()
        client = await self.signed_in()
        listening = await self.listen(client, "l", toolsListChanged=True)
        before = time.monotonic()
        await self.daemon.stop()
        self.assertLess(time.monotonic() - before, 4)
        self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
        await listening.until(lambda: False)
        self.assertEqual(
            listening.events[-1],
            {
                "jsonrpc": "2.0",
                "id": "l",
                "result": {
                    "resultType": "complete",
                    "_meta": listening.events[-1]["result"]["_meta"],
                },
            },
        )
        meta = listening.events[-1]["result"]["_meta"]
        self.assertEqual(meta[SUBSCRIPTION], "l")
        self.assertTrue(listening.raw.endswith(b"0\r\n\r\n"))
        await self.start()
        await self.listen(client, "l", toolsListChanged=True)

    async def test_child_is_replaced(self) -> None:
        """A crash behind it is not seen on the stream."""
        await self.begin()
        client = await self.signed_in()
        listening = await self.listen(client, "l", toolsListChanged=True)
        await self.result(client, call(1, "who_am_i"))
        await self.crash()
        await self.result(client, call(1, "who_am_i"))
        seen = len(listening.events)
        await self.result(client, call(1, "notify", method=CHANGED))
        await listening.until(lambda: len(listening.events) > seen)
        self.assertFalse(listening.is_closed)


class RestartTests(ModernCase):
    """Daemons and children come and go."""

    async def test_restarts(self) -> None:
        """The next request is answered, whatever happened in between."""
        await self.begin()
        client = await self.signed_in()
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.assertEqual(
                said(await self.result(client, call(1, "who_am_i"))), "alice"
            )
            self.daemon.signal_with(number)
            await self.daemon.wait()
            await self.start()
        await self.check_user(client)
        await self.crash()
        await self.check_user(client)

    async def test_restart_in_the_middle_of_a_call(self) -> None:
        """A call that can finish does; a later one is served by the next daemon."""
        await self.begin()
        client = await self.signed_in()
        await self.result(client, call(0, "who_am_i"))
        answer = await self.post(client, call(1, "slow", seconds=2))
        await self.until_told(client, "tools/call", 2)
        await self.daemon.stop()
        await answer.until(lambda: False)
        self.assertEqual(said(answer.message["result"]), "done")
        await self.start()
        await self.check_user(client)

    async def test_crash_in_the_middle_of_a_call(self) -> None:
        """An error that says why; it is not run again."""
        await self.begin()
        client = await self.signed_in()
        for tool in ("crash", "crash"):
            answer = await self.exchange(client, call(1, tool))
            error = answer.message["error"]
            self.assertEqual(error["code"], -32603)
            self.assertEqual(error["data"]["reason"], "child_exited")

    async def test_reaped_child(self) -> None:
        """One slower call."""
        await self.begin(FJMCP_BROKER_SESSION_IDLE_TIMEOUT="1s")
        client = await self.signed_in()
        await self.result(client, call(1, "who_am_i"))
        await self.until(lambda: not self.children(), "the child stays", 60)
        await self.check_user(client)

    async def test_refresh_and_sign_out(self) -> None:
        """The same child through a refresh; none after the end of the grant."""
        await self.begin()
        client = await self.signed_in()
        await self.result(client, call(1, "who_am_i"))
        before = self.children()
        await deferToThread(client.refresh)
        await self.result(client, call(1, "who_am_i"))
        self.assertEqual(self.children(), before)
        form = f"client_id={client.client_id}&token={client.refresh_token}".encode()
        revoked = await deferToThread(
            client.browser.request,
            "POST",
            f"{client.url}/oauth/revoke",
            form,
            {"Content-Type": "application/x-www-form-urlencoded"},
        )
        self.assertEqual(revoked.status, 200)
        await self.until(lambda: not self.children(), "the child stays")
        refused = await self.exchange(client, call(1, "who_am_i"))
        self.assertEqual(refused.status, 401)
