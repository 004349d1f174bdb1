"""The first words with a child of a program that nobody has met."""

import json
from typing import Any

from fjmcp_broker.mcp.modern.profiles import ChildEra
from fjmcp_broker.sessions.children.greeting import PROBE_SECONDS
from fjmcp_broker.sessions.children.profiles import ChildProfiles
from tests.fakes import FakeProcess
from tests.unit.sessions.test_waking import WakingWorld
from tests.unit.web.mcp_world import initialize


class GreetingWorld(WakingWorld):
    """
    Children that are asked.

    @ivar versions: what they say to C{server/discover}; C{None} for an error.
    """

    versions: list[str] | None = None

    def build(self) -> None:
        """Nothing is known."""
        super().build()
        self.identity = b"a"
        self.profiles = ChildProfiles(lambda: self.identity)
        self.registry.profiles = self.profiles

    def read(self, process: FakeProcess, message: dict[str, Any]) -> None:
        """Children of any era."""
        if message.get("method") != "server/discover":
            super().read(process, message)
        elif "server/discover" not in self.manual:
            answer: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
            if self.versions is None:
                answer["error"] = {"code": -32601, "message": "Method not found"}
            else:
                answer["result"] = {"supportedVersions": self.versions}
            process.say(json.dumps(answer).encode())

    @property
    def era(self) -> ChildEra | None:
        """What was found out."""
        known = self.profiles.known()
        return None if known is None else known.era


class LegacySessionTests(GreetingWorld):
    """Of sessions with C{initialize}."""

    def test_old_child(self) -> None:
        """Is asked once, before anything else, and goes on."""
        self.check_call(self.open())
        self.open()
        first, second = self.spawner.processes
        self.assertEqual(
            self.methods(first),
            ["server/discover", "initialize", "notifications/initialized", "x"],
        )
        self.assertEqual(self.methods(second)[0], "initialize")
        self.assertIs(self.era, ChildEra.LEGACY)
        known = self.profiles.known()
        assert known is not None
        self.assertIn(b"serverInfo", known.initialize_result or b"")

    def test_another_program(self) -> None:
        """Is asked again."""
        self.open()
        self.identity = b"b"
        self.open()
        self.assertEqual(
            [self.methods(process)[0] for process in self.spawner.processes],
            ["server/discover"] * 2,
        )

    def test_child_that_hangs(self) -> None:
        """Is replaced by one that is not asked, and no other is asked again."""
        self.manual.add("server/discover")
        wire = self.send(initialize())
        self.clock.advance(PROBE_SECONDS - 0.1)
        self.assertEqual(len(self.spawner.processes), 1)
        self.clock.advance(0.2)
        self.assertEqual(wire.status, 200)
        first, second = self.spawner.processes
        self.assertEqual((first.exited, second.exited), (True, False))
        self.assertEqual(self.methods(second)[0], "initialize")
        self.open()
        self.assertEqual(self.methods(self.spawner.processes[2])[0], "initialize")
        self.assertIs(self.era, ChildEra.LEGACY)

    def test_child_that_dies_of_the_question(self) -> None:
        """Likewise; and that is not held against the session."""
        self.manual.add("server/discover")
        wire = self.send(initialize())
        self.spawner.processes[0].exit(1)
        self.assertEqual(wire.status, 200)
        self.assertEqual(len(self.living), 1)
        self.assertIs(self.era, ChildEra.LEGACY)

    def test_child_that_dies_of_anything(self) -> None:
        """Tells nothing about its kind."""
        self.manual.update(("server/discover", "initialize"))
        wire = self.send(initialize())
        self.spawner.processes[0].exit(1)
        self.spawner.processes[1].complain(b"no such host\n")
        self.spawner.processes[1].exit(1)
        self.assertEqual(wire.status, 502)
        self.assertIn("no such host", wire.json["error"]["message"])
        self.assertIsNone(self.era)

    def test_session_that_ends_meanwhile(self) -> None:
        """No second child is started."""
        self.manual.add("server/discover")
        self.send(initialize())
        self.registry.close_grant("g_1")
        self.clock.advance(PROBE_SECONDS)
        self.assertEqual((len(self.spawner.processes), self.living), (1, []))

    def test_child_of_both_eras(self) -> None:
        """A process of its own gets the handshake, once per program."""
        self.versions = ["2026-07-28", "2025-11-25"]
        self.check_call(self.open())
        self.check_call(self.open())
        self.assertEqual(
            [self.methods(process)[0] for process in self.spawner.processes],
            ["server/discover", "initialize", "initialize"],
        )
        self.assertIs(self.era, ChildEra.DUAL)

    def test_child_that_does_not_name_its_older_era(self) -> None:
        """Is of both when it answers."""
        self.versions = ["2026-07-28"]
        self.check_call(self.open())
        self.assertIs(self.era, ChildEra.DUAL)
        known = self.profiles.known()
        assert known is not None
        self.assertIsNotNone(known.initialize_result)
        self.assertIsNotNone(known.discover_result)

    def test_child_of_the_new_era_alone(self) -> None:
        """Its refusal reaches the client."""
        self.versions = ["2026-07-28"]
        self.manual.add("initialize")
        wire = self.send(initialize())
        refusal = {"code": -32022, "message": "Unsupported protocol version"}
        answer = {"jsonrpc": "2.0", "id": 1, "error": refusal}
        self.spawner.processes[1].say(json.dumps(answer).encode())
        self.assertEqual(wire.json["error"], refusal)
        self.assertIs(self.era, ChildEra.MODERN)
