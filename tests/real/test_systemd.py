"""The daemon under systemd: readiness, watchdog, an inherited socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from fjmcp_broker.store.lock import StoreLock
from tests.real.daemon import SCRIPTS, Daemon, free_port, pause
from tests.real.inbox import SystemdCase

RUNNER = ("twistd", "-n", "--pidfile=", "fjmcp")


class NotifyTests(SystemdCase):
    """What systemd hears."""

    async def test_ready_when_it_answers_and_stopping_when_it_ends(self) -> None:
        """No READY=1 while it waits for the store; then /readyz is 200."""
        port = free_port()
        settings, _ = await self.settings(port)
        held = StoreLock(settings["FJMCP_BROKER_STORE_PATH"])
        self.assertTrue(held.try_acquire())
        self.addCleanup(held.release)
        inbox = self.inbox()
        daemon = Daemon.launch(
            {**settings, "NOTIFY_SOCKET": inbox.address}, port=port, runner=RUNNER
        )
        self.addCleanup(daemon.stop)
        await pause(1.5)
        self.assertFalse([m for m in inbox.look() if m.startswith("READY=1")])
        held.release()
        message = await inbox.until("READY=1")
        self.assertEqual((await daemon.fetch("GET", "/readyz")).status, 200)
        self.assertEqual(
            message, f"READY=1\nSTATUS=serving {daemon.url} on 127.0.0.1:{port}"
        )
        daemon.signal_with(signal.SIGTERM)
        await inbox.until("STOPPING=1")
        await daemon.wait()
        self.assertEqual(daemon.exit_code, 0, daemon.text)
        self.assertEqual(inbox.look(), [])

    async def test_the_watchdog(self) -> None:
        """It hears from a daemon that runs, and nothing from one that hangs."""
        inbox = self.inbox()
        daemon, _ = await self.launch(
            NOTIFY_SOCKET=inbox.address, WATCHDOG_USEC="400000"
        )
        await inbox.until("READY=1")
        for _ in range(3):
            await inbox.until("WATCHDOG=1", 2)
        daemon.signal_with(signal.SIGSTOP)
        await pause(0.1)
        inbox.look().clear()
        await pause(1)
        self.assertEqual(inbox.look(), [])
        daemon.signal_with(signal.SIGCONT)
        await inbox.until("WATCHDOG=1", 5)

    async def test_children_hear_nothing_of_it(self) -> None:
        """Neither variables nor descriptors of systemd reach a child."""
        inbox = self.inbox()
        daemon, forgejo = await self.launch(
            NOTIFY_SOCKET=inbox.address, WATCHDOG_USEC="60000000"
        )
        await self.session(daemon, forgejo)
        [child] = _children(daemon.pid)
        variables = Path(f"/proc/{child}/environ").read_text()
        self.assertIn("FORGEJO_URL", variables)
        self.assertNotIn("NOTIFY", variables)
        self.assertNotIn("WATCHDOG", variables)
        self.assertNotIn("LISTEN", variables)


class InheritedSocketTests(SystemdCase):
    """The listening socket is systemd's, and outlives the daemon."""

    def listening(self) -> socket.socket:
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        return listener

    def launch_with(
        self,
        listener: socket.socket,
        settings: Mapping[str, str],
        address: str = "systemd:domain=INET:index=0",
    ) -> Daemon:
        """
        @return: a daemon that gets the socket as systemd passes it. A shell stands
            between, since only the process itself knows its id.
        """
        daemon = Daemon.launch(
            {
                **settings,
                "FJMCP_BROKER_LISTEN": address,
                "LISTEN_FDS": "1",
                "LISTEN_FDNAMES": "web",
            },
            port=listener.getsockname()[1],
            runner=(
                "/bin/sh",
                "-c",
                'LISTEN_PID=$$ exec "$0" "$@"',
                str(SCRIPTS / RUNNER[0]),
                *RUNNER[1:],
            ),
            descriptors={3: listener.fileno()},
        )
        self.addCleanup(daemon.stop)
        return daemon

    async def test_by_index_and_by_name(self) -> None:
        """Preflight leaves it alone, the daemon answers on it, children lack it."""
        for which in ("index=0", "name=web"):
            listener = self.listening()
            port = listener.getsockname()[1]
            settings, forgejo = await self.settings(port)
            daemon = self.launch_with(
                listener, settings, f"systemd:domain=INET:{which}"
            )
            await daemon.until_ready()
            await self.session(daemon, forgejo)
            [child] = _children(daemon.pid)
            inode = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
            self.assertIn(inode, _open_files(daemon.pid))
            self.assertNotIn(inode, _open_files(child))
            await daemon.stop()
            self.assertEqual(daemon.exit_code, 0, daemon.text)
            self.assertNotIn("Traceback", daemon.text)

    async def test_requests_wait_for_the_next_daemon(self) -> None:
        """Whoever connects during a restart is answered after it."""
        listener = self.listening()
        port = listener.getsockname()[1]
        settings, forgejo = await self.settings(port)
        daemon = self.launch_with(listener, settings)
        await daemon.until_ready()
        client = await self.session(daemon, forgejo)
        daemon.signal_with(signal.SIGTERM)
        await daemon.wait()
        waiting = [deferToThread(client.initialize)]
        waiting += [
            Deferred.fromCoroutine(daemon.fetch("GET", "/healthz")) for _ in range(5)
        ]
        await pause(0.5)
        self.assertFalse(any(answer.called for answer in waiting))
        self.launch_with(listener, settings)
        for answer in waiting:
            self.assertEqual((await answer).status, 200)
        self.assertIn("result", await deferToThread(client.call, "who_am_i"))

    async def test_started_by_the_first_request(self) -> None:
        """What systemd has for trying it out: the daemon starts when it is needed."""
        activator = shutil.which("systemd-socket-activate")
        if activator is None:
            raise SkipTest("systemd-socket-activate is not installed")
        port = free_port()
        settings, _ = await self.settings(port)
        settings["FJMCP_BROKER_LISTEN"] = "systemd:domain=INET:name=web"
        passed = [f"--setenv={name}" for name in settings]
        passed.append("--setenv=FJMCP_BROKER_PUBLIC_URL")
        daemon = Daemon.launch(
            settings,
            port=port,
            runner=(
                activator,
                f"--listen=127.0.0.1:{port}",
                "--fdname=web",
                *passed,
                str(SCRIPTS / RUNNER[0]),
                *RUNNER[1:],
            ),
        )
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        await daemon.stop()
        self.assertEqual(daemon.exit_code, 0, daemon.text)

    async def test_no_socket(self) -> None:
        """One line and status 1, where none was passed or none fits."""
        port = free_port()
        settings, _ = await self.settings(port)
        for address, reason in (
            ("systemd:domain=INET:index=0", "no such socket was inherited"),
            ("systemd:domain=INET:name=web", "no such socket was inherited"),
            ("systemd:domain=UNIX:index=0", "must be INET or INET6"),
            ("systemd:domain=INET", "not a usable endpoint"),
        ):
            daemon = Daemon.launch(
                {**settings, "FJMCP_BROKER_LISTEN": address}, port=port
            )
            await daemon.wait()
            self.assertEqual(daemon.exit_code, 1, daemon.text)
            self.assertIn(f"server.listen_addr: {address}: ", daemon.text)
            self.assertIn(reason, daemon.text)
            self.assertNotIn("Traceback", daemon.text)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def _open_files(pid: int) -> list[str]:
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(path))
    return found
