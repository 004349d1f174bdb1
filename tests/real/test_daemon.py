"""The daemon as an operator runs it: start, wrong configuration, stop, kill."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
from pathlib import Path

from twisted.internet.threads import deferToThread

from tests.real.broker_case import STAND_IN, BrokerCase
from tests.real.certificates import write_certificate
from tests.real.daemon import CLOCK, Daemon, Program, free_port, pause, processes

RUNNERS = {
    "twistd -n": ("twistd", "-n", "--pidfile=", "fjmcp"),
    "twist": ("twist", "fjmcp"),
}


class StartTests(BrokerCase):
    """Every way to start it."""

    async def test_from_the_environment_alone(self) -> None:
        """No file is needed, under twistd and under twist; SIGTERM ends with 0."""
        for name, runner in RUNNERS.items():
            port = free_port()
            settings, _ = await self.settings(port)
            daemon = Daemon.launch(settings, port=port, runner=runner)
            self.addCleanup(daemon.stop)
            await daemon.until_ready()
            before = CLOCK.seconds()
            await daemon.stop()
            self.assertLess(CLOCK.seconds() - before, 2.0, name)
            self.assertEqual(daemon.exit_code, 0, f"{name}: {daemon.text}")
            self.assertNotIn("Traceback", daemon.text)

    async def test_from_a_file_as_a_daemon(self) -> None:
        """twistd without -n forks, keeps the store open and stops on SIGTERM."""
        port = free_port()
        settings, forgejo = await self.settings(port)
        file = Path(self.directory, "broker.toml")
        file.write_text(
            f"""
            [server]
            public_url = "http://127.0.0.1:{port}"
            listen_addr = "127.0.0.1:{port}"
            [forgejo]
            url = "{settings["FORGEJO_URL"]}"
            oauth_client_id = "{settings["FORGEJO_OAUTH_CLIENT_ID"]}"
            oauth_client_secret = "{settings["FORGEJO_OAUTH_CLIENT_SECRET"]}"
            [child]
            command = {STAND_IN.split(",")}
            [database]
            path = "{self.directory}/sub/broker.db"
            """
        )
        pid_file = Path(self.directory, "twistd.pid")
        log_file = Path(self.directory, "twistd.log")
        launcher = Program.start(
            [
                "twistd",
                f"--pidfile={pid_file}",
                f"--logfile={log_file}",
                f"--rundir={self.directory}",
                "fjmcp",
                "--config",
                str(file),
            ]
        )
        await launcher.wait()
        self.assertEqual(launcher.exit_code, 0, launcher.text)
        daemon = Daemon()
        daemon.port, daemon.url = port, f"http://127.0.0.1:{port}"
        await daemon.until_ready()
        pid = int(pid_file.read_text())
        self.addCleanup(_kill, pid)
        self.assertEqual((await daemon.fetch("GET", "/healthz")).status, 200)
        client = await self.session(daemon, forgejo)
        answer = await deferToThread(client.call, "who_am_i")
        self.assertIn("result", answer)
        os.kill(pid, signal.SIGTERM)
        while os.path.exists(f"/proc/{pid}"):
            await pause(0.02)
        self.assertIn('"message": "session', log_file.read_text())
        self.assertNotIn("Traceback", log_file.read_text())
        self.assertFalse(pid_file.exists())
        self.assertEqual(processes(forgejo.stand_in.base_url), [])

    async def test_health_says_what_runs(self) -> None:
        """/healthz has status, store, version, revision and build date."""
        daemon, _ = await self.launch()
        text = (await daemon.fetch("GET", "/healthz")).text
        for member in ("status", "store", "version", "revision", "build_date"):
            self.assertIn(f'"{member}"', text)

    async def test_application_schemes(self) -> None:
        """The operator decides which applications may take redirects."""
        daemon, _ = await self.launch(FJMCP_BROKER_CLIENTS_APPLICATION_SCHEMES="ours")
        for scheme, status in (("ours", 201), ("cursor", 400)):
            document = json.dumps({"redirect_uris": [f"{scheme}://done"]})
            answer = await daemon.fetch(
                "POST",
                "/oauth/register",
                document.encode(),
                {"Content-Type": "application/json"},
            )
            self.assertEqual(answer.status, status, answer.text)

    async def test_tls_is_1_3_only(self) -> None:
        """With server.tls=required nothing older than TLS 1.3 is spoken."""
        port = free_port()
        settings, _ = await self.settings(port)
        certificate, key = write_certificate(self.directory)
        daemon = Daemon.launch(
            {
                **settings,
                "FJMCP_BROKER_SERVER_TLS": "required",
                "FJMCP_BROKER_SERVER_TLS_CERT": certificate,
                "FJMCP_BROKER_SERVER_TLS_KEY": key,
                "FJMCP_BROKER_PUBLIC_URL": f"https://127.0.0.1:{port}",
            },
            port=port,
        )
        self.addCleanup(daemon.stop)
        while "listening on" not in daemon.text:
            self.assertIsNone(daemon.exit_code, daemon.text)
            await pause(0.05)
        version = await deferToThread(_tls, port, certificate, None)
        self.assertEqual(version, "TLSv1.3")
        with self.assertRaises(ssl.SSLError):
            await deferToThread(_tls, port, certificate, ssl.TLSVersion.TLSv1_2)


class RefusalTests(BrokerCase):
    """A wrong set-up is one message and exit status 1, however it is started."""

    async def refused(self, environment: dict[str, str], *options: str) -> str:
        """
        @return: the one message, the same under every runner.
        """
        runners = {**RUNNERS, "twistd": ("twistd", "--pidfile=", "fjmcp")}
        messages = []
        for name, runner in runners.items():
            program = Program.start(
                [*runner, *options], environment=environment, directory=self.directory
            )
            await program.wait()
            self.assertEqual(program.exit_code, 1, f"{name}: {program.text}")
            self.assertNotIn("Traceback", program.text, name)
            messages.append(program.errors.decode().strip())
        self.assertEqual(len(set(messages)), 1, messages)
        return messages[0]

    async def environment(self, port: int | None = None) -> dict[str, str]:
        port = port or free_port()
        settings, _ = await self.settings(port)
        return {
            **settings,
            "FJMCP_BROKER_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "FJMCP_BROKER_LISTEN": f"127.0.0.1:{port}",
        }

    async def test_nothing_is_configured(self) -> None:
        """All missing keys at once, each by file key, variable and option."""
        await self.environment()
        message = await self.refused({})
        for name in (
            "server.public_url",
            "FJMCP_BROKER_PUBLIC_URL",
            "--server-public-url",
            "forgejo.url",
            "FORGEJO_URL",
            "--forgejo-url",
            "forgejo.oauth_client_id",
            "forgejo.oauth_client_secret",
            "FORGEJO_OAUTH_CLIENT_SECRET",
        ):
            self.assertIn(name, message)

    async def test_a_mistyped_scope(self) -> None:
        """A scope list that Forgejo would take for full access does not start."""
        for scopes in ("openid profile", "read:repo", "read:user,read:repository"):
            environment = await self.environment()
            message = await self.refused(
                {**environment, "FORGEJO_OAUTH_SCOPES": scopes}
            )
            self.assertIn("forgejo.oauth_scopes", message)

    async def test_the_port_is_taken(self) -> None:
        """One line that names the address."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            message = await self.refused(await self.environment(port))
        self.assertEqual(
            message,
            f"fjmcp-broker: server.listen_addr: cannot listen on 127.0.0.1:{port}:"
            " Address already in use",
        )

    async def test_an_endpoint_cannot_be_opened(self) -> None:
        """What only the start can find out is one line of the log, and status 1."""
        for endpoint in ("unix:/nowhere/broker.sock", "tcp:99999"):
            environment = await self.environment()
            environment["FJMCP_BROKER_LISTEN"] = endpoint
            program = Program.start(
                RUNNERS["twistd -n"], environment=environment, directory=self.directory
            )
            await program.wait()
            self.assertEqual(program.exit_code, 1, program.text)
            self.assertIn("server.listen_addr: ", program.text)
            self.assertNotIn("Traceback", program.text)

    async def test_the_store_cannot_be_written(self) -> None:
        """One line that names the store."""
        environment = await self.environment()
        environment["FJMCP_BROKER_STORE_PATH"] = "/proc/broker/broker.db"
        message = await self.refused(environment)
        self.assertRegex(message, r"^fjmcp-broker: the store /proc/broker/broker\.db ")
        self.assertNotIn("\n", message)

    async def test_the_child_is_missing(self) -> None:
        """One line that names the program."""
        environment = await self.environment()
        del environment["FJMCP_BROKER_CHILD_COMMAND"]
        environment["FORGEJO_MCP_BINARY"] = "/nowhere/forgejo-mcp"
        message = await self.refused(environment)
        self.assertIn("there is no program '/nowhere/forgejo-mcp'", message)
        self.assertNotIn("\n", message)

    async def test_the_key_is_missing(self) -> None:
        """A store with sealed rows and no key is not opened with a new one."""
        daemon, forgejo = await self.launch()
        await self.session(daemon, forgejo)
        await daemon.stop()
        os.unlink(f"{self.directory}/broker.db.key")
        directory = self.directory
        environment = await self.environment()
        environment["FJMCP_BROKER_STORE_PATH"] = f"{directory}/broker.db"
        environment["FORGEJO_URL"] = forgejo.settings["FORGEJO_URL"]
        environment["FORGEJO_OAUTH_CLIENT_ID"] = forgejo.settings[
            "FORGEJO_OAUTH_CLIENT_ID"
        ]
        message = await self.refused(environment)
        self.assertIn("holds sealed values, but there is no key", message)
        self.assertFalse(os.path.exists(f"{directory}/broker.db.key"))

    async def test_another_daemon_has_the_store(self) -> None:
        """The second one waits without listening, and takes over at the end."""
        first, _ = await self.launch()
        path = f"{self.directory}/broker.db"
        port = free_port()
        environment = {
            name: value
            for name, value in (await self.environment(port)).items()
            if not name.startswith("FORGEJO_")
        }
        # The same Forgejo, read from where the first daemon has it.
        for line in Path(f"/proc/{first.pid}/environ").read_bytes().split(b"\0"):
            name, _, value = line.decode().partition("=")
            if name.startswith("FORGEJO_"):
                environment[name] = value
        second = Daemon.launch(
            {**environment, "FJMCP_BROKER_STORE_PATH": path}, port=port
        )
        self.addCleanup(second.stop)
        await pause(1.0)
        self.assertIsNone(second.exit_code, second.text)
        with self.assertRaises(OSError):
            await second.fetch("GET", "/readyz")
        await first.stop()
        await second.until_ready()


class StopTests(BrokerCase):
    """What a stop does to calls in flight and to children."""

    async def test_a_call_in_flight_is_answered(self) -> None:
        """SIGTERM lets a call finish, then stops the child and exits with 0."""
        daemon, forgejo = await self.launch()
        client = await self.session(daemon, forgejo)
        calling = deferToThread(client.call, "slow", seconds=3)
        await self.until_called(client)
        daemon.signal_with(signal.SIGTERM)
        answer = await calling
        self.assertIn("result", answer)
        await daemon.wait(10)
        self.assertEqual(daemon.exit_code, 0, daemon.text)
        self.assertEqual(processes(forgejo.stand_in.base_url), [])

    async def test_a_large_answer_leaves_whole(self) -> None:
        """A stop waits until the client has read the last answer."""
        daemon, forgejo = await self.launch()
        client = await self.session(daemon, forgejo)
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
        self.addCleanup(connection.close)
        body = (
            '{"jsonrpc":"2.0","id":9,"method":"tools/call",'
            '"params":{"name":"big","arguments":{"bytes":30000000}}}'
        )
        connection.request("POST", "/mcp", body, client.headers())
        answer = await deferToThread(connection.getresponse)
        # The rest waits in the daemon: nobody has read more than the headers.
        daemon.signal_with(signal.SIGTERM)
        while "stopping on SIGTERM" not in daemon.text:
            await pause(0.02)
        text = await deferToThread(answer.read)
        self.assertGreater(len(text), 30_000_000)
        await daemon.wait(15)
        self.assertEqual(daemon.exit_code, 0, daemon.text)

    async def test_the_deadline_ends_the_wait(self) -> None:
        """A call that takes longer than server.shutdown_timeout is broken off."""
        daemon, forgejo = await self.launch(FJMCP_BROKER_SERVER_SHUTDOWN_TIMEOUT="2s")
        client = await self.session(daemon, forgejo)
        calling = deferToThread(client.call, "slow", seconds=60)
        await self.until_called(client)
        before = CLOCK.seconds()
        daemon.signal_with(signal.SIGTERM)
        answer = await calling
        self.assertIn("error", answer)
        await daemon.wait(10)
        self.assertLess(CLOCK.seconds() - before, 4.5)
        self.assertEqual(daemon.exit_code, 0, daemon.text)
        self.assertEqual(processes(forgejo.stand_in.base_url), [])

    async def test_a_killed_daemon_leaves_no_child(self) -> None:
        """SIGKILL takes the children along, stopped ones included."""
        daemon, forgejo = await self.launch()
        await self.session(daemon, forgejo)
        await self.session(daemon, forgejo)
        children = [
            pid for pid in processes(forgejo.stand_in.base_url) if pid != daemon.pid
        ]
        self.assertEqual(len(children), 2)
        os.kill(children[0], signal.SIGSTOP)
        daemon.signal_with(signal.SIGKILL)
        await daemon.wait()
        while processes(forgejo.stand_in.base_url):
            await pause(0.02)

    async def test_a_child_ends_with_its_token(self) -> None:
        """The next call goes to another child, with a fresh token."""
        port = free_port()
        settings, forgejo = await self.settings(port)
        forgejo.stand_in.controls.set_lifetimes(access_seconds=10)
        daemon = Daemon.launch(settings, port=port)
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        client = await self.session(daemon, forgejo)
        self.assertIn("result", await deferToThread(client.call, "who_am_i"))
        while "token_expired" not in daemon.text:
            await pause(0.1)
        forgejo.stand_in.controls.set_lifetimes(access_seconds=3600)
        self.assertIn("result", await deferToThread(client.call, "who_am_i"))


def _kill(pid: int) -> None:
    if os.path.exists(f"/proc/{pid}"):
        os.kill(pid, signal.SIGKILL)


def _tls(port: int, authority: str, maximum: ssl.TLSVersion | None) -> str | None:
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    if maximum is not None:
        context.maximum_version = maximum
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        with context.wrap_socket(plain) as secure:
            return secure.version()
