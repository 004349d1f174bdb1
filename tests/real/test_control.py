"""Administration of a real daemon, and of its store while none runs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from fjmcp_broker.control.protocol import reachable, socket_path
from fjmcp_broker.store.keys import key_path
from tests import skip_visibly
from tests.real.broker_case import BrokerCase
from tests.real.client import McpClient
from tests.real.daemon import CLOCK, Daemon, Program, pause, processes
from tests.real.forgejo import RunningForgejo
from tests.real.modern import VERSION, call

LAST_CHUNK = b"0\r\n\r\n"


class ControlCase(BrokerCase):
    """A daemon and the command."""

    @property
    def store(self) -> str:
        """Where the store is."""
        return f"{self.directory}/broker.db"

    async def command(self, *arguments: str, expect: int = 0) -> str:
        """
        @return: what the command wrote.
        """
        program = Program.start(["fjmcp-broker", *arguments, "--store", self.store])
        await program.wait()
        self.assertEqual(program.exit_code, expect, program.text)
        return program.text

    async def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """
        @return: what the command says to programs.
        """
        text = await self.command(*arguments, "--json")
        return [json.loads(line) for line in text.splitlines()]

    async def children(self, daemon: Daemon, forgejo: RunningForgejo) -> list[int]:
        """The children that run."""
        found = await deferToThread(processes, forgejo.stand_in.base_url)
        return [pid for pid in found if pid != daemon.pid]

    async def until_children(
        self, count: int, daemon: Daemon, forgejo: RunningForgejo
    ) -> None:
        """Within a second so many are left."""
        deadline = CLOCK.seconds() + 1
        while len(found := await self.children(daemon, forgejo)) != count:
            if CLOCK.seconds() > deadline:
                self.fail(f"still there after a second: {found}")
            await pause(0.02)


class ListTests(ControlCase):
    """What there is."""

    async def test_lists(self) -> None:
        """Users, clients, grants, sessions, calls of tools; for people and programs."""
        daemon, forgejo = await self.launch()
        alice = await self.session(daemon, forgejo)
        bob = await self.session(daemon, forgejo, "bob", decision="read-only")
        await deferToThread(alice.call, "who_am_i")
        await deferToThread(bob.call, "create_issue")
        users = await self.rows("users", "list")
        self.assertEqual({row["login"] for row in users}, {"alice", "bob"})
        self.assertEqual({row["forgejo"] for row in users}, {"usable"})
        clients = await self.rows("clients", "list")
        self.assertEqual(
            {row["client_id"] for row in clients}, {alice.client_id, bob.client_id}
        )
        grants = await self.rows("grants", "list", "--user", "ALICE")
        self.assertEqual([row["policy"] for row in grants], ["full"])
        sessions = await self.rows("sessions", "list")
        self.assertEqual([row["state"] for row in sessions], ["live", "live"])
        calls = [row for row in await self.rows("audit") if row["tool"]]
        self.assertEqual(
            [(row["login"], row["tool"], row["outcome"]) for row in calls],
            [("alice", "who_am_i", "ok"), ("bob", "create_issue", "refused")],
        )
        names = {row["session"] for row in sessions}
        self.assertTrue({row["session"] for row in calls} <= names)
        kinds = {row["kind"] for row in await self.rows("audit", "--user", "bob")}
        self.assertEqual(kinds, {"sign_in", "tool_call"})
        for name in ("users", "clients", "grants", "sessions"):
            text = await self.command(name, "list")
            self.assertEqual(len(text.splitlines()), 3, text)
        self.assertIn("who_am_i", await self.command("audit", "--since", "5m"))

    async def test_stateless_clients(self) -> None:
        """They have no sessions, but children; revoking ends those, too."""
        daemon, forgejo = await self.launch()
        client = McpClient(daemon.url)
        await deferToThread(client.sign_in, "alice", forgejo.password("alice"))
        body = json.dumps(call(1, "who_am_i")).encode()
        headers = {
            **client.headers(),
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": "who_am_i",
        }
        answer = await daemon.fetch("POST", "/mcp", body, headers)
        self.assertIn("alice", answer.text)
        for who in ("alice", "1"):
            (row,) = await self.rows("sessions", "list", "--user", who)
            self.assertEqual((row["login"], row["state"]), ("alice", "live"))
        await self.command("sessions", "list")
        (event,) = [e for e in await self.rows("audit") if e["kind"] == "tool_call"]
        self.assertEqual(event["session"], row["session"])
        await self.command("revoke", "--grant", row["grant_id"])
        await self.until_children(0, daemon, forgejo)
        answer = await daemon.fetch("POST", "/mcp", body, headers)
        self.assertEqual(answer.status, 401)

    async def test_wrong_questions(self) -> None:
        """One line each, status 1."""
        await self.launch()
        for arguments, words in (
            (("revoke",), "say whose"),
            (("revoke", "--user", "nobody"), "nobody called 'nobody'"),
            (("revoke", "--grant", "g_x"), "no such client or grant"),
            (("trace", "nonsense!"), "no such trace"),
        ):
            text = await self.command(*arguments, expect=1)
            self.assertIn(words, text)
            self.assertEqual(len(text.splitlines()), 1)


class RevokeTests(ControlCase):
    """What is ended ends everywhere."""

    runs_alone = True

    async def test_user(self) -> None:
        """Children within a second, tokens at once, streams; others go on."""
        daemon, forgejo = await self.launch()
        alice = await self.session(daemon, forgejo)
        bob = await self.session(daemon, forgejo, "bob")
        await deferToThread(bob.call, "who_am_i")
        stream = await self.stream(daemon, alice)
        self.assertEqual(len(await self.children(daemon, forgejo)), 2)
        text = await self.command("revoke", "--user", "alice")
        await self.until_children(1, daemon, forgejo)
        self.assertIn("revoked g_", text)
        # Nothing was asked of the token since; it is in no cache any more.
        answer = await deferToThread(alice.request, "tools/list")
        self.assertEqual(answer.status, 401)
        self.assertEqual(await deferToThread(self.refresh_status, alice), 400)
        # The last chunk: the stream ends as it should.
        rest = await deferToThread(self.rest_of, stream)
        self.assertTrue(rest.endswith(LAST_CHUNK), rest)
        self.assertIn("alice", str(await self.rows("grants", "list", "--all")))
        self.assertNotIn("alice", str(await self.rows("grants", "list")))
        self.assertIn("bob", str(await deferToThread(bob.call, "who_am_i")))
        again = await self.command("revoke", "--user", "alice")
        self.assertIn("nothing to revoke", again)
        ended = [
            (row["kind"], row["outcome"])
            for row in await self.rows("audit", "--user", "alice")
            if row["kind"] in ("grant_ended", "revoke")
        ]
        self.assertEqual(
            ended,
            [
                ("grant_ended", "revoked_by_administrator"),
                ("revoke", "ok"),
                ("revoke", "nothing_left"),
            ],
        )
        await daemon.stop()
        self.assertEqual(daemon.exit_code, 0, daemon.text)

    async def test_nothing_of_forgejos_stays(self) -> None:
        """The last grant of a user takes the tokens along; others keep theirs."""
        daemon, forgejo = await self.launch()
        first = await self.session(daemon, forgejo)
        second = await self.session(daemon, forgejo)
        bob = await self.session(daemon, forgejo, "bob")
        numbers = {
            row["login"]: row["user_id"] for row in await self.rows("users", "list")
        }
        await self.command("revoke", "--client", first.client_id)
        self.assertEqual(self.with_tokens(), set(numbers.values()))
        self.assertIn("alice", str(await deferToThread(second.call, "who_am_i")))
        await self.command("revoke", "--user", "alice")
        self.assertEqual(self.with_tokens(), {numbers["bob"]})
        states = {
            row["login"]: row["forgejo"] for row in await self.rows("users", "list")
        }
        self.assertEqual(states, {"alice": None, "bob": "usable"})
        # Nothing is missing at the next sign-in, and a client may end it itself.
        again = await self.session(daemon, forgejo)
        self.assertIn("alice", str(await deferToThread(again.call, "who_am_i")))
        self.assertEqual(self.with_tokens(), set(numbers.values()))
        self.assertEqual(await self.revoke_token(daemon, again, "refresh_token"), 200)
        self.assertEqual(self.with_tokens(), {numbers["bob"]})
        self.assertIn("bob", str(await deferToThread(bob.call, "who_am_i")))

    async def test_nothing_is_left_in_the_file(self) -> None:
        """Deleted tokens are overwritten: a copy of the store has nothing to open."""
        daemon, forgejo = await self.launch()
        await self.session(daemon, forgejo)
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as store:
            sealed = store.execute(
                "SELECT sealed_access_token, sealed_refresh_token FROM upstream_tokens"
            ).fetchone()
        await self.command("revoke", "--user", "alice")
        await daemon.stop()
        # With the last connection the log in front of the store goes, too.
        self.assertFalse(os.path.lexists(f"{self.store}-wal"))
        content = Path(self.store).read_bytes()
        for value in sealed:
            for piece in (value[:40], value[-40:]):
                self.assertNotIn(piece, content)

    async def test_out_and_in_at_once(self) -> None:
        """The end of the old grant leaves the new one the tokens that it needs."""
        daemon, forgejo = await self.launch()
        old = await self.session(daemon, forgejo)
        controls = forgejo.stand_in.controls
        held = controls.hold_request("/login/oauth/introspect")
        signing_in = self.session(daemon, forgejo)
        coming = Deferred.fromCoroutine(signing_in)
        deadline = CLOCK.seconds() + 20
        while not held.waiting:
            self.assertLess(CLOCK.seconds(), deadline, "nobody came back")
            await pause(0.02)
        self.assertEqual(await self.revoke_token(daemon, old, "refresh_token"), 200)
        self.assertEqual(await self.rows("grants", "list"), [])
        controls.end_faults()
        new = await coming
        self.assertIn("alice", str(await deferToThread(new.call, "who_am_i")))
        self.assertEqual((await deferToThread(old.request, "tools/list")).status, 401)

    async def test_one_access_token(self) -> None:
        """A client may end one alone (RFC 7009): the audit trail has that, not it."""
        daemon, forgejo = await self.launch()
        alice = await self.session(daemon, forgejo)
        token = alice.access_token
        self.assertEqual(await self.revoke_token(daemon, alice, "access_token"), 200)
        self.assertEqual((await deferToThread(alice.request, "tools/list")).status, 401)
        await deferToThread(alice.refresh)
        self.assertIn("alice", str(await deferToThread(alice.call, "who_am_i")))
        text = await self.command("audit", "--json")
        (event,) = [
            row for row in await self.rows("audit") if row["kind"] == "token_revoked"
        ]
        self.assertEqual(
            (event["login"], event["client_id"], event["outcome"]),
            ("alice", alice.client_id, "revoked_by_client"),
        )
        self.assertNotIn(token, text)
        self.assertEqual(len(self.with_tokens()), 1)

    async def revoke_token(self, daemon: Daemon, client: McpClient, kind: str) -> int:
        """The status of the answer to a client that ends one of its tokens."""
        form = urlencode(
            {"client_id": client.client_id, "token": getattr(client, kind)}
        )
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await daemon.fetch("POST", "/oauth/revoke", form.encode(), headers)
        return answer.status

    def with_tokens(self) -> set[int]:
        """The users whose tokens towards Forgejo are in the store."""
        with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as store:
            rows = store.execute("SELECT user_id FROM upstream_tokens").fetchall()
        return {user_id for (user_id,) in rows}

    async def test_client_and_grant(self) -> None:
        """One of several, and both together."""
        daemon, forgejo = await self.launch()
        first = await self.session(daemon, forgejo)
        second = await self.session(daemon, forgejo)
        grants = await self.rows("grants", "list")
        of_first = [g for g in grants if g["client_id"] == first.client_id]
        # Of all that is named: nothing belongs to both.
        await self.command(
            "revoke", "--client", second.client_id, "--grant", of_first[0]["grant_id"]
        )
        for client in (first, second):
            self.assertIn("alice", str(await deferToThread(client.call, "who_am_i")))
        await self.command("revoke", "--client", second.client_id)
        self.assertIn("alice", str(await deferToThread(first.call, "who_am_i")))
        answer = await deferToThread(second.request, "tools/list")
        self.assertEqual(answer.status, 401)
        await self.command("revoke", "--grant", of_first[0]["grant_id"])
        answer = await deferToThread(first.request, "tools/list")
        self.assertEqual(answer.status, 401)
        await self.until_children(0, daemon, forgejo)

    def refresh_status(self, client: McpClient) -> int:
        """What a refresh is answered with."""
        with contextlib.suppress(AssertionError):
            client.refresh()
            return 200
        return 400

    async def stream(self, daemon: Daemon, client: McpClient) -> socket.socket:
        """An open GET stream of a client, its head read."""
        connection = socket.create_connection(("127.0.0.1", daemon.port), 20)
        self.addCleanup(connection.close)
        head = "".join(f"{n}: {v}\r\n" for n, v in client.headers().items())
        request = f"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1:{daemon.port}\r\n{head}\r\n"
        connection.sendall(request.encode())
        got = await deferToThread(connection.recv, 65536)
        self.assertIn(b"200", got)
        return connection

    def rest_of(self, stream: socket.socket) -> bytes:
        """What still comes, up to the last chunk or the end of the connection."""
        rest = b""
        while not rest.endswith(LAST_CHUNK) and (piece := stream.recv(65536)):
            rest += piece
        return rest


class OfflineTests(ControlCase):
    """While no daemon runs."""

    async def test_lists_and_revocation(self) -> None:
        """The store is used directly; what is revoked stays so."""
        daemon, forgejo = await self.launch()
        alice = await self.session(daemon, forgejo)
        await daemon.stop()
        self.assertFalse(os.path.lexists(socket_path(self.store)))
        sessions = await self.rows("sessions", "list")
        self.assertEqual([row["state"] for row in sessions], ["dormant"])
        await self.command("revoke", "--user", "alice")
        kinds = [row["kind"] for row in await self.rows("audit", "--user", "alice")]
        self.assertEqual(kinds[-2:], ["grant_ended", "revoke"])
        (user,) = await self.rows("users", "list")
        self.assertEqual((user["login"], user["forgejo"]), ("alice", None))
        port = daemon.port
        settings = {
            **forgejo.settings,
            "FJMCP_BROKER_STORE_PATH": self.store,
            "FJMCP_BROKER_CHILD_COMMAND": sys.executable,
        }
        later = Daemon.launch(settings, port=port)
        self.addCleanup(later.stop)
        await later.until_ready()
        answer = await deferToThread(alice.request, "tools/list")
        self.assertEqual(answer.status, 401)

    async def test_as_root(self) -> None:
        """Nothing of root's stays where the daemon could not use it."""
        if os.geteuid() != 0:
            skip_visibly("commands as root", "the tests do not run as root")
        daemon, forgejo = await self.launch()
        await self.session(daemon, forgejo)
        await daemon.stop()
        nobody = 65534
        # Whoever the daemon is can reach its own store.
        for above in Path(self.directory).parents[:-2]:
            above.chmod(0o755)
        for path in (Path(self.directory), *Path(self.directory).iterdir()):
            os.chown(path, nobody, nobody)
        os.unlink(f"{self.store}.lock")
        await self.command("rotate-key")
        self.assertEqual(len(await self.rows("users", "list")), 1)
        for path in Path(self.directory).iterdir():
            self.assertEqual(path.stat().st_uid, nobody, path)

    async def test_no_store(self) -> None:
        """A mistyped path makes nothing."""
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.assertIn("no store", await self.command("users", "list", expect=1))
        self.assertEqual(os.listdir(self.directory), [])

    async def test_daemon_without_a_socket(self) -> None:
        """Its lock says that it is there; nothing is done behind its back."""
        await self.launch()
        os.unlink(socket_path(self.store))
        text = await self.command("users", "list", expect=1)
        self.assertIn("nobody listens", text)


class SocketTests(ControlCase):
    """Who may speak, and how."""

    def connect(self) -> socket.socket:
        """A connection."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        self.addCleanup(connection.close)
        with reachable(socket_path(self.store)) as name:
            connection.connect(name)
        return connection

    def said(self, line: bytes) -> bytes:
        """What comes back."""
        with (
            self.connect() as connection,
            contextlib.suppress(BrokenPipeError, ConnectionResetError),
        ):
            connection.sendall(line)
            with connection.makefile("rb") as lines:
                return lines.readline()
        return b""

    async def test_nobody_else(self) -> None:
        """Its mode keeps others out."""
        await self.launch()
        mode = os.stat(socket_path(self.store)).st_mode & 0o777
        self.assertEqual(mode, 0o600)

    async def test_nonsense(self) -> None:
        """An answer for every line, none for what is too long; the daemon goes on."""
        daemon, _ = await self.launch()
        for line in (
            b"\n",
            b"[]\n",
            b"{\n",
            b'{"command":1}\n',
            b'{"command":"users","arguments":[]}\n',
            b'{"command":"drop"}\n',
            b'{"command":"users","arguments":{"after":"x"}}\n',
            b'{"command":"users","arguments":{"after":-1}}\n',
            b'{"command":"sessions","arguments":{"after":"xyz"}}\n',
            b'{"command":"audit","arguments":{"after":[1]}}\n',
            b'{"command":"trace","arguments":{"id":[]}}\n',
            b"\xff\xfe\n",
            b"[" * 10_000 + b"\n",
        ):
            answer = await deferToThread(self.said, line)
            self.assertIn(b'{"error"', answer, line[:60])
        self.assertEqual(await deferToThread(self.said, b"x" * 100_000), b"")
        self.assertIn(b"rows", await deferToThread(self.said, b'{"command":"users"}\n'))
        await daemon.stop()
        self.assertNotIn("Traceback", daemon.text)

    async def test_connections_are_bounded(self) -> None:
        """Whoever holds all of them keeps nobody else's clients from anything."""
        daemon, _ = await self.launch()
        for _ in range(8):
            self.connect()
        await self.until(lambda: self.said(b'{"command":"users"}\n') == b"")
        self.assertEqual((await daemon.fetch("GET", "/healthz")).status, 200)

    async def until(self, holds: Any) -> None:
        """Wait until something is so."""
        deadline = CLOCK.seconds() + 20
        while not await deferToThread(holds):
            self.assertLess(CLOCK.seconds(), deadline)
            await pause(0.05)

    async def test_socket_of_a_killed_daemon(self) -> None:
        """The next one takes its place; without one the store is used."""
        daemon, forgejo = await self.launch()
        await self.session(daemon, forgejo)
        daemon.signal_with(9)
        await daemon.wait()
        self.assertTrue(os.path.lexists(socket_path(self.store)))
        self.assertEqual(len(await self.rows("users", "list")), 1)
        settings = {**forgejo.settings, "FJMCP_BROKER_STORE_PATH": self.store}
        later = Daemon.launch(
            {**settings, "FJMCP_BROKER_CHILD_COMMAND": sys.executable},
            port=daemon.port,
        )
        self.addCleanup(later.stop)
        await later.until_ready()
        answer = await deferToThread(self.said, b'{"command":"users"}\n')
        self.assertIn(b"alice", answer)

    async def test_another_file_in_its_place(self) -> None:
        """The daemon serves its users, and says what is missing."""
        settings, _ = await self.settings(1)
        Path(socket_path(self.store)).write_text("precious")
        daemon = Daemon.launch(settings)
        self.addCleanup(daemon.stop)
        await daemon.until_ready()
        await self.until(lambda: "no control socket" in daemon.text)
        self.assertEqual(Path(socket_path(self.store)).read_text(), "precious")


class RotateTests(ControlCase):
    """Another key."""

    def sealed_with(self) -> set[str]:
        """The ids of the keys that something is sealed with."""
        with closing(sqlite3.connect(self.store)) as connection:
            rows = connection.execute(
                "SELECT hex(substr(sealed_access_token, 1, 4)) FROM upstream_tokens"
                " UNION SELECT hex(substr(sealed_initialize, 1, 4)) FROM sessions"
                " UNION SELECT hex(substr(sealed_derivation_key, 1, 4))"
                " FROM refresh_tokens WHERE sealed_derivation_key IS NOT NULL"
            ).fetchall()
        return {key_id.lower() for (key_id,) in rows}

    async def test_key_file(self) -> None:
        """
        Sessions, tokens and open refresh windows live on, also after a restart; the
        old key is nowhere.
        """
        daemon, forgejo = await self.launch()
        alice = await self.session(daemon, forgejo)
        asleep = alice.refresh_token
        lost = await deferToThread(alice.refresh)
        before = Path(key_path(self.store)).read_text()
        text = await self.command("rotate-key")
        after = Path(key_path(self.store)).read_text()
        self.assertNotEqual(before, after)
        self.assertEqual(len(after.split()), 1)
        self.assertEqual(os.stat(key_path(self.store)).st_mode & 0o777, 0o600)
        (key_id,) = self.sealed_with()
        self.assertIn(key_id, text)
        # The answer was lost, says the client: it gets the same pair again.
        again = await deferToThread(
            alice.token, grant_type="refresh_token", refresh_token=asleep
        )
        self.assertEqual(again["refresh_token"], lost["refresh_token"])
        self.assertIn("alice", str(await deferToThread(alice.call, "who_am_i")))
        await daemon.stop()
        settings = {**forgejo.settings, "FJMCP_BROKER_STORE_PATH": self.store}
        later = Daemon.launch(
            {
                **settings,
                "FJMCP_BROKER_CHILD_COMMAND": f"{sys.executable},-m,fjmcp_broker.demo"
                ".child,--transport,stdio",
            },
            port=daemon.port,
        )
        self.addCleanup(later.stop)
        await later.until_ready()
        self.assertIn("alice", str(await deferToThread(alice.call, "who_am_i")))
        await later.stop()
        # And without a daemon.
        await self.command("rotate-key")
        self.assertNotEqual(Path(key_path(self.store)).read_text(), after)
        (third,) = self.sealed_with()
        self.assertNotEqual(third, key_id)

    async def test_while_clients_work(self) -> None:
        """Nobody is refused anything, whenever it happens."""
        daemon, forgejo = await self.launch()
        alice = await self.session(daemon, forgejo)
        enough = threading.Event()

        def work() -> None:
            count = 0
            while count < 5 or not enough.is_set():
                assert "alice" in str(alice.call("who_am_i"))
                alice.refresh()
                if count % 5 == 4:
                    assert alice.initialize().status == 200
                count += 1

        working: Deferred[None] = deferToThread(work)
        try:
            for _ in range(4):
                await self.command("rotate-key")
        finally:
            enough.set()
            await working
        self.assertEqual(len(self.sealed_with()), 1)
        self.assertNotIn("Traceback", daemon.text)

    async def test_configured_keys(self) -> None:
        """The operator puts a new one in front; the command seals with it."""
        old, new = "11" * 32, "22" * 32
        daemon, forgejo = await self.launch(FJMCP_BROKER_ENCRYPTION_KEYS=old)
        alice = await self.session(daemon, forgejo)
        await daemon.stop()
        settings = {
            **forgejo.settings,
            "FJMCP_BROKER_STORE_PATH": self.store,
            "FJMCP_BROKER_CHILD_COMMAND": f"{sys.executable},-m,fjmcp_broker.demo"
            ".child,--transport,stdio",
        }
        for keys in (f"{new},{old}", new):
            later = Daemon.launch(
                {**settings, "FJMCP_BROKER_ENCRYPTION_KEYS": keys}, port=daemon.port
            )
            self.addCleanup(later.stop)
            await later.until_ready()
            self.assertIn("alice", str(await deferToThread(alice.call, "who_am_i")))
            text = await self.command("rotate-key")
            self.assertEqual(len(self.sealed_with()), 1)
            self.assertEqual("take them out" in text, "," in keys)
            await later.stop()
        self.assertFalse(os.path.exists(key_path(self.store)))
        # Whoever does not know the key changes nothing.
        text = await self.command("rotate-key", expect=1)
        self.assertIn("there is no key", text)
