"""C{fjmcp-broker demo}: what a newcomer runs first."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.real import real_forgejo_mcp
from tests.real.browser import Browser
from tests.real.client import McpClient
from tests.real.daemon import Program, free_port, pause, processes


class DemoTests(TestCase):
    """The demo as a process, and what it leaves behind."""

    timeout = 180

    async def start(self, **environment: str) -> tuple[Program, str, str]:
        """
        @return: the program, the broker's URL and Forgejo's.
        """
        self.temporary = os.path.abspath(self.mktemp())
        os.mkdir(self.temporary)
        broker, forgejo = free_port(), free_port()
        program = Program.start(
            ["fjmcp-broker", "demo", f"--port={broker}", f"--forgejo-port={forgejo}"],
            environment={"TMPDIR": self.temporary, **environment},
        )
        self.addCleanup(self.stop, program)
        while b"Ctrl-C" not in program.output:
            self.assertIsNone(program.exit_code, program.text)
            await pause(0.05)
        return program, f"http://127.0.0.1:{broker}", f"http://127.0.0.1:{forgejo}"

    async def stop(self, program: Program) -> None:
        program.signal_with(signal.SIGINT)
        await program.wait()

    async def call(self, program: Program, url: str, tool: str) -> str:
        """
        @return: the answer, after everything a person does.
        """
        found = re.search(r"bob / (\S+)", program.text)
        assert found is not None
        client = McpClient(url)
        await deferToThread(client.sign_in, "bob", found[1])
        await deferToThread(client.initialize)
        return str(await deferToThread(client.call, tool))

    async def test_from_the_banner_to_a_tool_call_to_nothing(self) -> None:
        """The banner is enough to sign in and call; Ctrl-C leaves nothing."""
        # With nothing on PATH the child is the packaged stand-in.
        program, url, forgejo = await self.start(PATH="/nowhere")
        for text in (
            f"{url}/mcp",
            forgejo,
            f"claude mcp add --transport http fjmcp-demo {url}/mcp",
            "@modelcontextprotocol/inspector",
            f"-m fjmcp_broker.demo.client {url}/mcp",
            "the packaged stand-in",
        ):
            self.assertIn(text, program.text)
        self.assertIn("bob", await self.call(program, url, "who_am_i"))
        self.assertTrue(processes(forgejo))
        await self.stop(program)
        self.assertEqual(program.exit_code, 0, program.text)
        self.assertEqual(processes(forgejo), [])
        self.assertEqual(list(Path(self.temporary).iterdir()), [])
        self.assertNotIn("Traceback", program.text)

    async def test_the_real_forgejo_mcp_is_preferred(self) -> None:
        """FORGEJO_MCP_BINARY, or forgejo-mcp on PATH, is the child."""
        binary = real_forgejo_mcp.require("2.18.0")
        program, url, _ = await self.start(FORGEJO_MCP_BINARY=str(binary))
        self.assertIn(f"{binary}  (real)", program.text)
        self.assertIn("bob", await self.call(program, url, "get_my_user_info"))

    async def test_only_loopback(self) -> None:
        """Known users and passwords are not shown to a network."""
        for host in ("0.0.0.0", "192.0.2.1", "::", "example.org"):
            program = Program.start(["fjmcp-broker", "demo", "--host", host])
            await program.wait()
            self.assertEqual(program.exit_code, 2, program.text)
            self.assertIn("only", program.text)

    async def test_a_taken_port(self) -> None:
        """One line, and status 1."""
        _, url, _ = await self.start()
        port = url.rpartition(":")[2]
        second = Program.start(["fjmcp-broker", "demo", f"--port={port}"])
        await second.wait()
        self.assertEqual(second.exit_code, 1)
        self.assertIn("Address already in use", second.text)
        self.assertNotIn("Traceback", second.text)

    async def test_the_controls_need_the_key(self) -> None:
        """Nobody who merely reaches the stand-in can make it fail."""
        _, _, forgejo = await self.start()
        for path in ("/-/controls/", "/-/controls/count", "/-/controls/x/count"):
            answer = await deferToThread(Browser().request, "GET", forgejo + path)
            self.assertEqual(answer.status, 404)

    async def test_the_python_client_of_the_banner(self) -> None:
        """The one-line Python client signs in through the browser and calls tools."""
        program, url, _ = await self.start()
        found = re.search(r"bob / (\S+)", program.text)
        assert found is not None
        client = Program.start(
            [sys.executable, "-m", "fjmcp_broker.demo.client", f"{url}/mcp"],
            environment={
                "BROWSER": f"{sys.executable} -m tests.real.person %s &",
                "DEMO_LOGIN": "bob",
                "DEMO_PASSWORD": found[1],
            },
        )
        await client.wait(90)
        self.assertEqual(client.exit_code, 0, client.text)
        self.assertIn("protocol 2026-07-28: ", client.text)
        self.assertIn('"login":"bob"', client.text)
