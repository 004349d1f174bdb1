"""The programs as an operator starts them: their messages, status and log."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import TestCase

from fjmcp_broker.version import VERSION
from tests.real.daemon import Daemon, Program, free_port, pause

RUNNERS = {
    "twistd -n": ("twistd", "-n", "--pidfile=", "fjmcp"),
    "twistd": ("twistd", "fjmcp"),
    "twist": ("twist", "fjmcp"),
}
SETTINGS = {
    "FORGEJO_URL": "http://127.0.0.1:1",
    "FORGEJO_OAUTH_CLIENT_ID": "client",
    "FORGEJO_OAUTH_CLIENT_SECRET": "the-secret",
    "FORGEJO_MCP_BINARY": "/bin/cat",
}


class CommandLineCase(TestCase):
    """Gives each test a directory to run in."""

    timeout = 180

    def setUp(self) -> None:
        """Outside of the repository, as an operator would."""
        self.directory = tempfile.mkdtemp(prefix="fjmcp-test-")
        self.addCleanup(shutil.rmtree, self.directory)

    async def run_program(self, *arguments: str, **environment: str) -> Program:
        """
        @param arguments: program and arguments.
        @param environment: variables.
        @return: the program, ended.
        """
        program = Program.start(
            arguments, environment=environment, directory=self.directory
        )
        await program.wait()
        return program


class ProblemTests(CommandLineCase):
    """A wrong configuration."""

    async def test_every_runner_says_it_once_and_ends_with_1(self) -> None:
        """One message with every problem, no traceback, no file left behind."""
        for name, runner in RUNNERS.items():
            program = await self.run_program(
                *runner, "--sessions-max=none", FORGEJO_URL="nonsense"
            )
            self.assertEqual(program.exit_code, 1, name)
            self.assertNotIn("Traceback", program.text, name)
            for part in ("5 problems", "--sessions-max", "forgejo.url", "FORGEJO_URL"):
                self.assertEqual(program.text.count("5 problems"), 1, name)
                self.assertIn(part, program.text, name)
            self.assertEqual(os.listdir(self.directory), [], name)

    async def test_missing_file(self) -> None:
        """The path that was asked for stands in the message."""
        for runner in RUNNERS.values():
            program = await self.run_program(*runner, "--config", "none.toml")
            self.assertEqual(program.exit_code, 1)
            self.assertIn("none.toml: cannot be read", program.text)

    async def test_check_config(self) -> None:
        """The same reading, without a daemon, by the shipped example and nothing."""
        example = Path(__file__).parents[2] / "deploy/examples/fjmcp-broker.toml"
        right = await self.run_program(
            "fjmcp-broker", "check-config", "--config", str(example)
        )
        self.assertEqual((right.exit_code, right.errors), (0, b""))
        wrong = await self.run_program("fjmcp-broker", "check-config")
        self.assertEqual((wrong.exit_code, wrong.output), (1, b""))


class ServerTests(CommandLineCase):
    """C{fjmcp-broker server}, for who starts every service in that form."""

    async def test_runs_the_daemon(self) -> None:
        """In the foreground, by a file; PORT beats it. SIGTERM ends it."""
        file = Path(self.directory, "broker.toml")
        file.write_text('[server]\nlisten_addr = "127.0.0.1:1"\n')
        port = free_port()
        daemon = Daemon.launch(
            SETTINGS | {"FJMCP_BROKER_LISTEN": "", "PORT": str(port)},
            port=port,
            runner=("fjmcp-broker", "server", "--config", str(file)),
            directory=self.directory,
        )
        await daemon.until_ready()
        await daemon.stop()
        self.assertEqual(daemon.exit_code, 0, daemon.text)
        self.assertIn(f"listening on 0.0.0.0:{port}", daemon.text)
        self.assertFalse(Path(self.directory, "twistd.pid").exists())

    async def test_problems(self) -> None:
        """The same message and status as the others."""
        program = await self.run_program(
            "fjmcp-broker", "server", "--config", "no.toml"
        )
        self.assertEqual(program.exit_code, 1)
        self.assertIn("no.toml: cannot be read", program.text)
        self.assertNotIn("Traceback", program.text)


class HelpTests(CommandLineCase):
    """What can be asked without a configuration."""

    async def test_version_and_help(self) -> None:
        """Of each program, from another directory."""
        for arguments, part in (
            (("fjmcp-broker", "--version"), VERSION),
            (("twistd", "fjmcp", "--version"), VERSION),
            (("twistd", "fjmcp", "--help"), "FJMCP_BROKER_SESSIONS_MAX_IDLE"),
            (("twist", "fjmcp", "--help"), "--forgejo-oauth-client-secret-file"),
        ):
            program = await self.run_program(*arguments)
            self.assertEqual(program.exit_code, 0, arguments)
            self.assertIn(part, program.text, arguments)

    async def test_demo_on_a_public_address_is_refused(self) -> None:
        """Its passwords are shown to everybody who sees the terminal."""
        program = await self.run_program("fjmcp-broker", "demo", "--host", "0.0.0.0")
        self.assertEqual(program.exit_code, 2)
        self.assertIn("only", program.text)


class LogTests(CommandLineCase):
    """Where the log goes and what it looks like."""

    async def test_foreground_writes_json_lines(self) -> None:
        """Every line is an object, warnings of the configuration among them."""
        daemon = Daemon.launch(
            SETTINGS | {"FJMCP_BROKER_NONSENSE": "1"}, directory=self.directory
        )
        await daemon.until_ready()
        await daemon.stop()
        self.assertEqual(daemon.exit_code, 0, daemon.text)
        records = [json.loads(line) for line in daemon.output.splitlines()]
        for record in records:
            self.assertTrue({"time", "level", "namespace", "message"} <= set(record))
        warnings = [r["message"] for r in records if r["level"] == "warn"]
        self.assertTrue(any("FJMCP_BROKER_NONSENSE" in text for text in warnings))
        self.assertNotIn("the-secret", daemon.text)

    async def test_daemon_writes_the_same_to_its_file(self) -> None:
        """twistd.log unless told otherwise; the terminal gets nothing."""
        log = Path(self.directory, "twistd.log")
        pid_file = Path(self.directory, "twistd.pid")
        daemon = Daemon.launch(
            SETTINGS, runner=RUNNERS["twistd"], directory=self.directory
        )
        await daemon.wait()
        self.assertEqual((daemon.exit_code, daemon.text), (0, ""))
        while "listening on" not in log.read_text():
            await pause(0.05)
        os.kill(int(pid_file.read_text()), 15)
        while pid_file.exists():
            await pause(0.05)
        for line in log.read_text().splitlines():
            json.loads(line)

    async def test_level_and_format_are_obeyed(self) -> None:
        """Text at level error: nothing to say about an ordinary run."""
        daemon = Daemon.launch(
            SETTINGS
            | {"FJMCP_BROKER_LOG_LEVEL": "error", "FJMCP_BROKER_LOG_FORMAT": "text"},
            directory=self.directory,
        )
        await daemon.until_ready()
        await daemon.stop()
        self.assertEqual((daemon.exit_code, daemon.text), (0, ""))
