"""
The stand-in child's misbehaviour, and its tools for tests.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from tests.real.standin_driver import DrivenTestCase, held, reactor


def variable(name: str, value: str) -> dict[str, str]:
    """
    @return: one variable of the stand-in child.
    """
    return {f"STANDIN_CHILD_{name}": value}


class MisbehaviourTests(DrivenTestCase):
    async def silent(self, **variables: str) -> None:
        """Assert that a request gets no answer for a while."""
        child = self.spawn(**variables)
        child.send({"id": 1, "method": "initialize", "params": {}})
        child.end_input()
        await deferLater(reactor, 0.3)
        self.assertTrue(child.is_running)
        child.signal("KILL")
        self.assertEqual((await child.ended()).rest, b"")

    async def test_hang_at_start(self) -> None:
        """It never asks Forgejo."""
        await self.silent(**variable("HANG", "start"))
        self.assertEqual(self.controls.count(), 0)

    async def test_hang_in_a_call(self) -> None:
        """One tool never answers, others do; the end of stdin changes nothing."""
        child = await self.serving(**variable("HANG", "initialize,echo"))
        for request in (
            {"id": 1, "method": "initialize"},
            {"id": 2, "method": "tools/call", "params": {"name": "echo"}},
        ):
            child.send(request)
        self.assertEqual(await child.call("who_am_i"), "alice")
        child.end_input()
        await deferLater(reactor, 0.2)
        self.assertTrue(child.is_running)

    async def test_start_delay(self) -> None:
        """It starts late."""
        child = self.spawn(**variable("START_DELAY_SECONDS", "0.3"))
        child.send({"id": 1, "method": "ping"})
        await deferLater(reactor, 0.1)
        self.assertEqual(self.controls.count(), 0)
        self.assertEqual((await child.message())["id"], 1)

    async def test_no_api(self) -> None:
        """It starts without a Forgejo."""
        child = await self.serving(
            FORGEJO_URL="http://127.0.0.1:1", **variable("NO_API", "1")
        )
        self.assertEqual(await child.call("echo", text="hi"), "hi")

    async def test_panic_with_null_id(self) -> None:
        """An error without an id, and the call is never answered."""
        child = await self.serving(**variable("PANIC_NULL", "echo"))
        params = {"name": "echo", "arguments": {}}
        answer = await child.ask({"id": 1, "method": "tools/call", "params": params})
        self.assertEqual((answer["id"], answer["error"]["code"]), (None, -32603))
        self.assertEqual(await child.call("who_am_i"), "alice")

    async def test_panic_that_ends_the_process(self) -> None:
        """Exit 2 with a stack trace, as Go does."""
        child = await self.serving(**variable("PANIC_EXIT", "echo"))
        child.send({"id": 1, "method": "tools/call", "params": {"name": "echo"}})
        end = await child.ended()
        self.assertEqual((end.exit_code, end.rest), (2, b""))
        self.assertIn("goroutine 1 [running]", end.stderr)

    async def test_echo_of_the_token(self) -> None:
        """The token comes back in an error and on stderr."""
        child = await self.serving(**variable("ECHO_TOKEN", "echo"))
        self.assertIn(self.token, await child.call("echo"))
        child.end_input()
        self.assertIn(self.token, (await child.ended()).stderr)

    async def test_crash_around_initialize(self) -> None:
        """It ends before or after the answer, with the wanted exit code."""
        for moment, lines in (("before-initialize", 0), ("after-initialize", 1)):
            child = self.spawn(
                **variable("CRASH", moment), **variable("EXIT_CODE", "7")
            )
            child.send({"id": 1, "method": "initialize"})
            end = await child.ended()
            self.assertEqual((end.exit_code, end.rest.count(b"result")), (7, lines))

    async def test_deaf(self) -> None:
        """It stops neither at the end of stdin nor at SIGTERM."""
        child = await self.serving(**variable("IGNORE", "eof,term"))
        child.end_input()
        child.signal("TERM")
        await deferLater(reactor, 0.3)
        self.assertTrue(child.is_running)
        child.signal("KILL")
        self.assertEqual((await child.ended()).signal, 9)

    async def test_deaf_to_eof_only(self) -> None:
        """SIGTERM still ends it."""
        child = await self.serving(**variable("IGNORE", "eof"))
        child.end_input()
        await deferLater(reactor, 0.1)
        child.signal("TERM")
        self.assertEqual((await child.ended()).exit_code, 0)

    async def test_flood_of_stderr(self) -> None:
        """Megabytes on stderr before stdin is read."""
        child = await self.serving(**variable("FLOOD_STDERR_BYTES", "3000000"))
        child.end_input()
        self.assertGreater(len((await child.ended()).stderr), 3_000_000)

    async def test_junk_on_stdout(self) -> None:
        """A line that is no message."""
        child = self.spawn(**variable("JUNK", "hello?"))
        self.assertEqual(await child.line(), b"hello?")

    async def test_slow_reading(self) -> None:
        """It reads some bytes per second only."""
        child = await self.serving(**variable("READ_BYTES_PER_SECOND", "2000"))
        started = reactor.seconds()
        self.assertEqual(await child.call("echo", text="x" * 500), "x" * 500)
        self.assertGreater(reactor.seconds() - started, 0.2)

    async def test_long_tool_list(self) -> None:
        """A line of 200 kB, in small pieces if wanted."""
        child = await self.serving(
            **variable("TOOLS_BYTES", "200000"), **variable("WRITE_PIECE_BYTES", "999")
        )
        child.send({"id": 1, "method": "tools/list"})
        self.assertGreater(len(await child.line()), 200_000)

    async def test_changed_tool_list(self) -> None:
        """One more tool, announced once the client is ready."""
        child = await self.serving(**variable("NEW_TOOL", "brand_new"))
        child.send({"method": "notifications/initialized"})
        changed = await child.message()
        self.assertEqual(changed["method"], "notifications/tools/list_changed")
        tools = (await child.ask({"id": 1, "method": "tools/list"}))["result"]["tools"]
        self.assertIn("brand_new", [tool["name"] for tool in tools])
        self.assertEqual(await child.call("brand_new"), "new")


class ToolsForTestsTests(DrivenTestCase):
    async def test_who_am_i(self) -> None:
        """Through the API, so the token must work."""
        child = await self.serving()
        self.assertEqual(await child.call("who_am_i"), "alice")
        self.controls.revoke_grant("alice")
        self.assertIn("user does not exist", await child.call("who_am_i"))

    async def test_fail(self) -> None:
        """The message is the caller's."""
        child = await self.serving()
        self.assertEqual(await child.call("fail", message="no!"), "no!")

    async def test_wrong_arguments(self) -> None:
        """A call is answered whatever its arguments are."""
        child = await self.serving()
        wrong: tuple[dict[str, Any], ...] = ({}, {"seconds": []}, {"seconds": "x"})
        for arguments in wrong:
            self.assertIn("slow: ", await child.call("slow", **arguments))

    async def test_slow(self) -> None:
        """Others pass; at the end of stdin it is still answered."""
        child = await self.serving()
        params = {"name": "slow", "arguments": {"seconds": 0.5}}
        child.send({"id": 1, "method": "tools/call", "params": params})
        self.assertEqual(await child.call("echo", text="first"), "first")
        child.end_input()
        self.assertEqual((await child.message())["id"], 1)
        self.assertEqual((await child.ended()).exit_code, 0)

    async def test_cancel(self) -> None:
        """Ignored by default; honoured on request."""
        for honour, text in (("", "done"), ("1", "context canceled")):
            child = await self.serving(**variable("HONOUR_CANCEL", honour))
            params = {
                "name": "slow",
                "arguments": {"seconds": 0.4 if not honour else 9},
            }
            child.send({"id": "c", "method": "tools/call", "params": params})
            child.send(
                {"method": "notifications/cancelled", "params": {"requestId": "c"}}
            )
            self.assertIn(text, (await child.line()).decode())

    async def test_progress(self) -> None:
        """Notifications with the caller's token, then the answer; none without."""
        child = await self.serving()
        params: dict[str, Any] = {"name": "progress", "arguments": {"steps": 2}}
        child.send(
            {
                "id": 1,
                "method": "tools/call",
                "params": params | {"_meta": {"progressToken": "t"}},
            }
        )
        for step in (1, 2):
            message = await child.message()
            self.assertEqual(message["method"], "notifications/progress")
            self.assertEqual(
                (message["params"]["progressToken"], message["params"]["progress"]),
                ("t", step),
            )
        self.assertEqual((await child.message())["id"], 1)
        self.assertEqual(await child.call("progress", steps=2), 2)

    async def test_big(self) -> None:
        """Several megabytes on one line; the file tells how far it came."""
        counter = Path(self.mktemp())
        child = await self.serving(**variable("WRITTEN_FILE", str(counter.resolve())))
        self.assertEqual(len(await child.call("big", bytes=3_000_000)), 3_000_000)
        # It counts what it has written, so that we may know of it before.
        while int(counter.read_text()) <= 3_000_000:
            await deferLater(reactor, 0.01)

    async def test_full_stdout_blocks_it(self) -> None:
        """When nobody reads, it stops writing; the file shows where."""
        counter = Path(self.mktemp())
        child = await self.serving(**variable("WRITTEN_FILE", str(counter.resolve())))
        transport: Any = child.transport
        transport.pauseProducing()
        child.send(
            {
                "id": 1,
                "method": "tools/call",
                "params": {"name": "big", "arguments": {"bytes": 5_000_000}},
            }
        )
        await deferLater(reactor, 0.5)
        self.assertLess(int(counter.read_text()), 1_000_000)
        transport.resumeProducing()
        self.assertGreater(len(await child.line()), 5_000_000)

    async def test_ask(self) -> None:
        """A request to the client, and its answer as the result."""
        child = await self.serving()
        for answer in ({"result": {"action": "accept"}}, {"error": {"code": -1}}):
            child.send(
                {
                    "id": "a",
                    "method": "tools/call",
                    "params": {
                        "name": "ask",
                        "arguments": {
                            "method": "elicitation/create",
                            "params": {"message": "?"},
                        },
                    },
                }
            )
            request = await child.message()
            self.assertEqual(
                (request["method"], request["params"]),
                ("elicitation/create", {"message": "?"}),
            )
            child.send({"id": request["id"]} | answer)
            result = (await child.message())["result"]["content"][0]["text"]
            self.assertEqual(json.loads(result)["Result"], answer)

    async def test_ask_without_answer_ends_at_eof(self) -> None:
        """A question does not keep the process alive."""
        child = await self.serving()
        arguments = {"method": "roots/list"}
        child.send(
            {
                "id": 1,
                "method": "tools/call",
                "params": {"name": "ask", "arguments": arguments},
            }
        )
        await child.message()
        child.end_input()
        self.assertIn("did not answer", (await child.line()).decode())
        self.assertEqual((await child.ended()).exit_code, 0)

    async def test_notify(self) -> None:
        """A notification that belongs to no call."""
        child = await self.serving()
        child.send(
            {
                "id": 1,
                "method": "tools/call",
                "params": {
                    "name": "notify",
                    "arguments": {
                        "method": "notifications/message",
                        "params": {"level": "info", "data": "x"},
                    },
                },
            }
        )
        self.assertEqual((await child.message())["method"], "notifications/message")

    async def test_crash(self) -> None:
        """It ends in the middle of a call."""
        child = await self.serving()
        params = {"name": "crash", "arguments": {"exit_code": 9}}
        child.send({"id": 1, "method": "tools/call", "params": params})
        end = await child.ended()
        self.assertEqual((end.exit_code, end.rest), (9, b""))

    async def test_process_info(self) -> None:
        """What the process sees: environment names, directory, descriptors, and
        what it was told."""
        child = await self.serving(SPECIAL="1")
        child.send({"id": 1, "method": "initialize", "params": {"capabilities": {}}})
        await child.message()
        child.send({"id": 2, "method": "logging/setLevel", "params": {"level": "info"}})
        await child.message()
        info = await child.call("process_info")
        transport: Any = child.transport
        self.assertEqual((info["pid"], info["parent"]), (transport.pid, os.getpid()))
        self.assertIn("SPECIAL", info["environment"])
        self.assertEqual(info["descriptors"], [0, 1, 2])
        received = info["received"]
        self.assertEqual(received["initialize"], {"capabilities": {}})
        self.assertEqual(received["log_level"], "info")
        self.assertEqual(received["methods"][:2], ["ping", "initialize"])

    async def test_ledger(self) -> None:
        """One line for every call received, answered or not, of any process."""
        ledger = Path(self.mktemp()).resolve()
        for key in ("one", "two"):
            child = await self.serving(**variable("LEDGER", str(ledger)))
            await child.call("echo", text="x", key=key)
            await child.call("nope", key=key)
        entries = [json.loads(line) for line in ledger.read_text().splitlines()]
        self.assertEqual(
            [(each["name"], each["id"], each["key"]) for each in entries],
            [(name, name, key) for key in ("one", "two") for name in ("echo", "nope")],
        )
        self.assertEqual(len({each["pid"] for each in entries}), 2)

    async def test_full_queue_blocks_the_reader(self) -> None:
        """With all workers and the queue full, even a ping waits, as in
        forgejo-mcp."""
        child = await self.serving()
        hold = self.controls.hold_request("/api/v1/user")
        for number in range(106):
            params = {"name": "who_am_i", "arguments": {}}
            child.send({"id": number, "method": "tools/call", "params": params})
        await held(hold, 6)
        child.send({"id": "ping", "method": "ping"})
        answer = child.line()
        hold.end()
        first = json.loads(await answer)
        self.assertNotEqual(first["id"], "ping")
        rest = [(await child.message())["id"] for _ in range(106)]
        self.assertIn("ping", rest)


class WeightTests(DrivenTestCase):
    async def test_standard_library_only(self) -> None:
        """Starting it imports nothing that was installed: it starts often."""
        script = (
            "import sys, fjmcp_broker.demo.child.program;"
            "print(sorted(name for name, module in sys.modules.items()"
            " if 'site-packages' in (getattr(module, '__file__', None) or '')))"
        )
        self.program = (sys.executable,)
        end = await self.spawn("-c", script).ended()
        self.assertEqual(end.exit_code, 0, end.stderr)
        for name in ("attr", "twisted", "klein", "zope"):
            self.assertNotIn(name, end.rest.decode())
