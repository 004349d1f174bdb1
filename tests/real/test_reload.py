"""SIGHUP: what changes at once, what does not, and that no session notices."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
from pathlib import Path

from twisted.internet.threads import deferToThread

from tests.real.certificates import write_certificate
from tests.real.client import McpClient
from tests.real.daemon import Daemon, Program, free_port, pause
from tests.real.forgejo import RunningForgejo
from tests.real.inbox import SystemdCase

REQUEST = b'"path": "/mcp"'
RUNNER = ("twistd", "-n", "--pidfile=", "fjmcp")


class ReloadTests(SystemdCase):
    """SIGHUP, under every runner."""

    async def test_the_certificate_changes_under_a_call(self) -> None:
        """New handshakes get the new one; calls, connections, sessions go on."""
        port = free_port()
        settings, forgejo = await self.secure_settings(port)
        first = Path(self.directory, "certificate.pem").read_text()
        inbox = self.inbox()
        daemon = Daemon.launch(
            {**settings, "NOTIFY_SOCKET": inbox.address}, port=port, runner=RUNNER
        )
        self.addCleanup(daemon.stop)
        await inbox.until("READY=1")
        client = await self.secure_session(port, forgejo)
        open_before = _connect(port)
        self.addCleanup(open_before.close)
        await deferToThread(_get, open_before, "/healthz")
        self.assertEqual(await deferToThread(_certificate, port), first)

        held = forgejo.stand_in.controls.hold_request("/api/v1/user")
        calling = deferToThread(client.call, "who_am_i")
        while not held.waiting:
            await pause(0.01)
        write_certificate(self.directory)
        second = Path(self.directory, "certificate.pem").read_text()
        daemon.signal_with(signal.SIGHUP)
        self.assertIn("MONOTONIC_USEC=", await inbox.until("RELOADING=1"))
        status = await inbox.until("READY=1")
        self.assertIn("STATUS=reloaded: new certificate, valid until ", status)
        self.assertFalse(calling.called)
        self.assertEqual(held.waiting, 1)

        self.assertEqual(await deferToThread(_certificate, port), second)
        self.assertEqual(await deferToThread(_get, open_before, "/healthz"), 200)
        held.end()
        self.assertIn("result", await calling)
        self.assertIn("result", await deferToThread(client.call, "who_am_i"))
        self.assertIn("new certificate", await _until_logged(daemon, "reloaded: "))
        self.assertNotIn("Traceback", daemon.text)

    async def test_a_wrong_configuration_changes_nothing(self) -> None:
        """All problems are logged; certificate, level and sessions stay."""
        port = free_port()
        settings, forgejo = await self.secure_settings(port)
        file = Path(self.directory, "broker.toml")
        file.write_text('[log]\nlevel = "info"\n')
        inbox = self.inbox()
        daemon = Daemon.launch(
            {**settings, "NOTIFY_SOCKET": inbox.address},
            port=port,
            runner=(*RUNNER, "--config", str(file)),
        )
        self.addCleanup(daemon.stop)
        await inbox.until("READY=1")
        client = await self.secure_session(port, forgejo)
        before = await deferToThread(_certificate, port)

        file.write_text('[log]\nlevel = "loud"\n[sessions]\nmax = "many"\n')
        Path(self.directory, "certificate.pem").write_text("junk")
        daemon.signal_with(signal.SIGHUP)
        status = await inbox.until("READY=1")
        self.assertIn("STATUS=reload failed, nothing changed; see the log", status)
        line = await _until_logged(daemon, "nothing changed")
        for key in ("log.level", "sessions.max", "server.tls_cert"):
            self.assertIn(key, line)
        self.assertEqual(await deferToThread(_certificate, port), before)
        self.assertIn("result", await deferToThread(client.call, "who_am_i"))
        self.assertNotIn("Traceback", daemon.text)

    async def test_the_log_level(self) -> None:
        """It changes both ways; what cannot change is named, and stays."""
        port = free_port()
        settings, forgejo = await self.settings(port)
        file = Path(self.directory, "broker.toml")
        file.write_text('[log]\nlevel = "info"\n')
        inbox = self.inbox()
        daemon = Daemon.launch(
            {**settings, "NOTIFY_SOCKET": inbox.address},
            port=port,
            runner=(*RUNNER, "--config", str(file)),
        )
        self.addCleanup(daemon.stop)
        await inbox.until("READY=1")
        client = await self.session(daemon, forgejo)
        for level, said, logged in (
            ("info", "nothing changed", False),
            ("debug", "log.level is debug", True),
            ("error", "log.level is error", False),
        ):
            text = f'[log]\nlevel = "{level}"\n'
            if level == "error":
                text += "[sessions]\nmax = 7\n"
                said += "; a restart is needed for sessions.max"
            file.write_text(text)
            daemon.signal_with(signal.SIGHUP)
            status = await inbox.until("READY=1")
            self.assertEqual(status, f"READY=1\nSTATUS=reloaded: {said}")
            await _until_logged(daemon, f"reloaded: {said}")
            before = len(daemon.output)
            self.assertIn("result", await deferToThread(client.call, "who_am_i"))
            if logged:
                while REQUEST not in daemon.output[before:]:
                    await pause(0.01)
            else:
                await pause(0.2)
                self.assertNotIn(REQUEST, daemon.output[before:], level)

    async def test_under_twist(self) -> None:
        """It reloads; the log is twist's own, and that is said."""
        port = free_port()
        settings, _ = await self.settings(port)
        file = Path(self.directory, "broker.toml")
        file.write_text("")
        daemon = Daemon.launch(
            settings, port=port, runner=("twist", "fjmcp", "--config", str(file))
        )
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        file.write_text('[log]\nlevel = "debug"\n')
        daemon.signal_with(signal.SIGHUP)
        await _until_logged(daemon, "log.level has no effect")
        self.assertEqual((await daemon.fetch("GET", "/readyz")).status, 200)

    async def test_as_a_daemon(self) -> None:
        """After the fork, too, and with a file that was named relatively."""
        port = free_port()
        settings, _ = await self.settings(port)
        Path(self.directory, "broker.toml").write_text('[log]\nlevel = "info"\n')
        Path(self.directory, "elsewhere").mkdir()
        pid_file = Path(self.directory, "twistd.pid")
        log_file = Path(self.directory, "twistd.log")
        launcher = Program.start(
            [
                "twistd",
                f"--pidfile={pid_file}",
                f"--logfile={log_file}",
                f"--rundir={self.directory}/elsewhere",
                "fjmcp",
                "--config=broker.toml",
            ],
            environment={
                **settings,
                "FJMCP_BROKER_PUBLIC_URL": f"http://127.0.0.1:{port}",
                "FJMCP_BROKER_LISTEN": f"127.0.0.1:{port}",
            },
            directory=self.directory,
        )
        await launcher.wait()
        self.assertEqual(launcher.exit_code, 0, launcher.text)
        daemon = Daemon()
        daemon.port, daemon.url = port, f"http://127.0.0.1:{port}"
        await daemon.until_ready()
        pid = int(pid_file.read_text())
        self.addCleanup(_end, pid)
        Path(self.directory, "broker.toml").write_text('[log]\nlevel = "debug"\n')
        os.kill(pid, signal.SIGHUP)
        while "reloaded: log.level is debug" not in log_file.read_text():
            await pause(0.02)
        self.assertEqual((await daemon.fetch("GET", "/readyz")).status, 200)

    async def secure_settings(self, port: int) -> tuple[dict[str, str], RunningForgejo]:
        settings, forgejo = await self.settings(port)
        url = f"https://127.0.0.1:{port}"
        application = forgejo.stand_in.add_application(f"{url}/oauth/callback")
        certificate, key = write_certificate(self.directory)
        return {
            **settings,
            "FORGEJO_OAUTH_CLIENT_ID": application.client_id,
            "FORGEJO_OAUTH_CLIENT_SECRET": application.client_secret,
            "FJMCP_BROKER_PUBLIC_URL": url,
            "FJMCP_BROKER_SERVER_TLS": "required",
            "FJMCP_BROKER_SERVER_TLS_CERT": certificate,
            "FJMCP_BROKER_SERVER_TLS_KEY": key,
        }, forgejo

    async def secure_session(self, port: int, forgejo: RunningForgejo) -> McpClient:
        client = McpClient(f"https://127.0.0.1:{port}")
        client.browser.trust(_trusting())
        await deferToThread(client.sign_in, "alice", forgejo.password("alice"))
        await deferToThread(client.initialize)
        return client


async def _until_logged(daemon: Daemon, text: str) -> str:
    # What it wrote arrives by another way than what it told systemd.
    while text not in daemon.text:
        await pause(0.01)
    [line] = [line for line in daemon.text.splitlines() if text in line]
    return line


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # two self-signed ones, compared by the test
    return context


def _connect(port: int) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("127.0.0.1", port, context=_trusting())


def _get(connection: http.client.HTTPConnection, path: str) -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def _certificate(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        with _trusting().wrap_socket(plain) as secure:
            certificate = secure.getpeercert(binary_form=True)
            assert certificate is not None
            return ssl.DER_cert_to_PEM_cert(certificate)


async def _end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    while os.path.exists(f"/proc/{pid}"):
        await pause(0.02)
