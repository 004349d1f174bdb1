"""
Clients without a session in front of children that ask, and of children of both eras:
the daemon, the stand-in Forgejo and the stand-in child are real processes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from fjmcp_broker.sessions.stateless.shared import MAXIMUM_SPARE
from tests.real import real_forgejo_mcp
from tests.real.client import McpClient
from tests.real.daemon import Daemon
from tests.real.modern import CAPABILITIES, ModernCase, call, modern, said
from tests.real.relay import Answer

QUESTION = {
    "message": "Which one?",
    "requestedSchema": {"type": "object", "properties": {"which": {"type": "string"}}},
}


class ChildCase(ModernCase):
    """
    A daemon whose child is told something.

    @ivar child: keys of C{[child]}.
    @ivar variables: the child's own, without their prefix.
    """

    child: str = ""
    variables: str = ""

    async def start(self) -> None:
        """The daemon, once more."""
        self.ledger = Path(self.directory, "ledger")
        file = Path(self.directory, "broker.toml")
        file.write_text(
            f"[child]\n{self.child}\n[child.env]\n{self.variables}\n"
            f'STANDIN_CHILD_LEDGER = "{self.ledger}"\n'
        )
        self.daemon = Daemon.launch(
            self.environment,
            port=self.port,
            runner=("twistd", "-n", "--pidfile=", "fjmcp", "--config", str(file)),
        )
        self.addCleanup(self.daemon.stop)
        await self.daemon.until_ready()

    def question(self, id: Any, key: str = "k", **retry: Any) -> dict[str, Any]:
        """A call that makes the child ask."""
        message = call(
            id,
            "ask",
            {CAPABILITIES: {"elicitation": {"form": {}}}},
            method="elicitation/create",
            params=QUESTION,
            key=key,
        )
        message["params"].update(retry)
        return message

    async def asked(self, client: McpClient, key: str = "k") -> dict[str, Any]:
        """What has to be repeated with an answer, after the question came."""
        result = await self.result(client, self.question(1, key))
        self.assertEqual(result["resultType"], "input_required", result)
        ((name, question),) = result["inputRequests"].items()
        self.assertEqual(question["method"], "elicitation/create")
        self.assertEqual(question["params"], QUESTION)
        content = {"action": "accept", "content": {"which": key}}
        return {
            "requestState": result["requestState"],
            "inputResponses": {name: content},
        }

    async def lost(self, client: McpClient, retry: dict[str, Any]) -> None:
        """The retry comes too late, and the call is not made again."""
        answer: Answer = await self.exchange(client, self.question(2, **retry))
        self.assertEqual(
            answer.message["error"]["data"], {"reason": "generation_lost"}, answer.raw
        )
        self.assertEqual(self.made("ask"), ["k"])

    def made(self, name: str) -> list[Any]:
        """The keys of the calls of a tool, of all children."""
        lines = map(json.loads, self.ledger.read_text().splitlines())
        return [line["key"] for line in lines if line["name"] == name]


class QuestionTests(ChildCase):
    """A child of the older revisions asks in the middle of a call."""

    async def test_answer(self) -> None:
        """The child gets it, and the call goes on where it was."""
        await self.begin()
        client = await self.signed_in()
        retry = await self.asked(client)
        result = await self.result(client, self.question(2, **retry))
        self.assertEqual(result["resultType"], "complete")
        self.assertEqual(said(result)["result"]["content"], {"which": "k"})
        self.assertEqual(self.made("ask"), ["k"])
        await self.lost(client, retry)

    async def test_child_is_killed(self) -> None:
        """The call is lost, and the next one works."""
        await self.begin()
        client = await self.signed_in()
        retry = await self.asked(client)
        await self.crash()
        await self.lost(client, retry)
        await self.check_user(client)

    async def test_daemon_is_started_again(self) -> None:
        """Likewise; and the stop does not wait for anybody's answer."""
        await self.begin()
        client = await self.signed_in()
        retry = await self.asked(client)
        await self.daemon.stop()
        self.assertEqual(self.daemon.exit_code, 0, self.daemon.text)
        await self.start()
        await self.lost(client, retry)
        await self.check_user(client)

    async def test_client_leaves(self) -> None:
        """A call that nobody waits for asks nobody else."""
        await self.begin()
        client = await self.signed_in()
        slow: Any = await self.post(client, call(1, "slow", seconds=60))
        await self.until_told(client, "tools/call", 1)
        slow.transport.abortConnection()
        await self.until_told(client, "notifications/cancelled", 1)
        result = await self.result(client, self.question(1))
        self.assertIn("no client can be asked now", json.dumps(result))


class LeaseTests(ChildCase):
    """C{child.interactive}: each call that may be asked has a child for itself."""

    child = "interactive = true"

    async def test_many_at_once(self) -> None:
        """Each question reaches its own client; few children stay for the next."""
        await self.begin()
        client = await self.signed_in()
        await self.check_user(client)
        keys = [f"k{number}" for number in range(5)]
        retries: Any = await gatherResults(
            [Deferred.fromCoroutine(self.asked(client, key)) for key in keys]
        )
        await self.until_children(6)
        results: Any = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self.result(client, self.question(2, key, **retry))
                )
                for key, retry in zip(keys, retries, strict=True)
            ]
        )
        answers = [said(result)["result"]["content"]["which"] for result in results]
        self.assertEqual(answers, keys)
        self.assertEqual(sorted(self.made("ask")), keys)
        await self.until_children(1 + MAXIMUM_SPARE)

    async def test_log_messages(self) -> None:
        """Of the level that the request wants, on its own stream."""
        await self.begin()
        client = await self.signed_in()
        await self.check_user(client)
        log = call(
            1,
            "notify",
            {"io.modelcontextprotocol/logLevel": "warning"},
            method="notifications/message",
            params={"level": "error", "data": "x"},
        )
        answer = await self.exchange(client, log)
        methods = [event.get("method") for event in answer.events]
        self.assertEqual(methods, ["notifications/message", None], answer.raw)
        await self.until_children(2)
        again = await self.asked(client)
        await self.result(client, self.question(2, **again))
        await self.until_children(2)


class DualChildTests(ChildCase):
    """A child of both eras: what it says passes as it is."""

    variables = 'STANDIN_CHILD_ERA = "dual"'

    async def test_journey(self) -> None:
        """No handshake; its own C{requestState}; its own description."""
        await self.begin()
        client = await self.signed_in()
        retry = await self.asked(client)
        self.assertEqual(retry["requestState"], "the stand-in remembers nothing")
        result = await self.result(client, self.question(2, **retry))
        self.assertEqual(said(result)["result"]["content"], {"which": "k"})
        info = said(await self.result(client, call(3, "process_info")))
        methods = info["received"]["methods"]
        self.assertEqual(methods[0], "server/discover")
        self.assertNotIn("initialize", methods)
        await self.check_user(client)
        await self.until_children(1)

    async def test_retry_at_another_child(self) -> None:
        """The child keeps nothing, so that nothing is lost with it."""
        await self.begin()
        client = await self.signed_in()
        retry = await self.asked(client)
        await self.crash()
        result = await self.result(client, self.question(2, **retry))
        self.assertEqual(said(result)["result"]["content"], {"which": "k"})

    async def test_listener(self) -> None:
        """Hears what the child says on its stream, from each child."""
        await self.begin()
        client = await self.signed_in()
        stream = await self.listen(client, "mine", toolsListChanged=True)
        method = "notifications/tools/list_changed"
        for count in (1, 2):
            await self.result(client, call(1, "notify", method=method))
            await stream.until(lambda n=count: len(stream.events) > n)  # type: ignore[misc]
            await self.crash()
        ids = [
            event["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"]
            for event in stream.events
        ]
        self.assertEqual(ids, ["mine"] * 3)

    async def test_both_eras(self) -> None:
        """A session beside it has the handshake, at a child of its own."""
        await self.begin()
        client = await self.signed_in()
        await self.check_user(client)
        old = await self.session(self.daemon, self.forgejo)
        answer = await deferToThread(old.call, "process_info")
        self.assertIn("initialize", json.dumps(answer))
        self.assertNotIn("server/discover", json.dumps(answer))
        await self.until_children(2)


class ModernChildTests(ChildCase):
    """A child that knows nothing of sessions."""

    variables = 'STANDIN_CHILD_ERA = "modern"'

    async def test_clients(self) -> None:
        """One without a session works; another one hears why it cannot."""
        await self.begin()
        client = await self.signed_in()
        await self.check_user(client)
        fresh = McpClient(self.daemon.url)
        await deferToThread(fresh.sign_in, "alice", self.forgejo.password("alice"))
        page = await deferToThread(fresh.initialize)
        self.assertIn("-32022", page.text)


class ForgejoMcpTests(ModernCase):
    """The real child, which knows nothing of the newer revision."""

    async def check_version(self, version: str) -> None:
        """It is asked what it speaks, and the process goes on."""
        program = str(real_forgejo_mcp.require(version))
        self.daemon, self.forgejo = await self.launch(FORGEJO_MCP_BINARY=program)
        self.port = int(self.daemon.url.rpartition(":")[2])
        client = await self.signed_in()
        result = await self.result(client, call(1, "get_my_user_info"))
        self.assertEqual(result["resultType"], "complete")
        self.assertIn("alice", json.dumps(result))
        known = await self.result(client, modern("d", "server/discover"))
        self.assertGreater(known["ttlMs"], 0)
        self.assertEqual(self.daemon.text.count("children speak legacy"), 1)
        await self.until_children(1)
        self.assertEqual(self.daemon.text.count("MCP stdio server shutdown"), 0)

    async def test_older(self) -> None:
        """The version of distributions."""
        await self.check_version("2.18.0")

    async def test_newer(self) -> None:
        """The version of today."""
        await self.check_version("2.34.1")
