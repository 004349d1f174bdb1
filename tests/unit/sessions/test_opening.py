"""Rows that are written while the child of a new session starts."""

from twisted.internet.defer import Deferred

from fjmcp_broker.store.errors import StoreUnavailable
from tests.unit.web.mcp_world import McpWorld, initialize


class WrittenWhileStartingTests(McpWorld):
    """Nobody waits for the disk and for the child one after the other."""

    def setUp(self) -> None:
        """A child that has not answered yet."""
        super().setUp()
        self.manual.add("initialize")

    def hold(self) -> "list[Deferred[None]]":
        """Hold up what is written, from now on."""
        held: list[Deferred[None]] = []
        self.ledger.holding = held
        return held

    def answer(self, version: str = "2025-06-18") -> None:
        """The newest child answers."""
        self.reply(self.spawner.processes[-1], 1, {"protocolVersion": version})

    def states(self) -> list[str]:
        """What the rows say."""
        return [*self.ledger.rows.values()]

    def test_both_at_once(self) -> None:
        """Whichever is there first."""
        held = self.hold()
        wire = self.send(initialize())
        self.assertEqual(len(held), 1)
        held.pop().callback(None)
        self.assertEqual(wire.value(), b"")
        self.answer()
        self.assertEqual(wire.status, 200)
        wire = self.send(initialize())
        self.answer()
        self.assertEqual(wire.value(), b"")
        held.pop().callback(None)
        self.assertEqual(wire.status, 200)
        self.assertEqual(held, [])
        self.assertEqual(self.states(), ["open", "open"])

    def test_nothing_is_written_without_a_child(self) -> None:
        """A child that cannot be launched costs the disk nothing."""
        self.spawner.refuse = OSError("no")
        self.assertEqual(self.send(initialize()).status, 502)
        self.assertEqual(self.states(), [])

    def test_child_that_refuses(self) -> None:
        """The row is closed; its id was told to nobody."""
        wire = self.send(initialize())
        self.assertEqual(self.states(), ["open"])
        self.spawner.processes[0].say(
            b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}'
        )
        self.assertIn("error", wire.json)
        self.assertEqual(self.states(), ["refused_by_child"])

    def test_child_that_ends(self) -> None:
        """Likewise, also when it ends before the row is there."""
        wire = self.send(initialize())
        self.spawner.processes[0].exit(1)
        self.assertEqual(wire.status, 502)
        self.assertEqual(self.states(), ["not_opened"])
        held = self.hold()
        wire = self.send(initialize())
        self.spawner.processes[1].exit(1)
        self.assertEqual(wire.status, 502)
        held.pop().callback(None)
        self.assertEqual(self.states(), ["not_opened", "not_opened"])

    def test_neither_child_nor_row(self) -> None:
        """The client hears of the child, the log of the store; nothing is left."""
        held = self.hold()
        wire = self.send(initialize())
        self.spawner.processes[0].exit(1)
        self.ledger.error = StoreUnavailable("busy")
        held.pop().callback(None)
        self.assertEqual(wire.status, 502)
        self.assertEqual((self.states(), len(self.registry)), ([], 0))


class RevisionTests(McpWorld):
    """What the row says of the child's answer before that is there."""

    def revision(self) -> str:
        """That of the newest row."""
        return [*self.ledger.stored.values()][-1].revision

    def written(self) -> str:
        """That of a new row, before the child has answered."""
        self.manual.add("initialize")
        wire = self.send(initialize("2025-11-25"))
        expected = self.revision()
        self.manual.clear()
        version = self.child_version or "2025-11-25"
        self.reply(self.spawner.processes[-1], 1, {"protocolVersion": version})
        self.assertEqual(wire.status, 200)
        return expected

    def test_the_one_that_is_asked_for(self) -> None:
        """Until a child says otherwise: then it is corrected, and remembered."""
        self.assertEqual(self.written(), "2025-11-25")
        self.child_version = "2025-06-18"
        self.assertEqual(self.written(), "2025-11-25")
        self.assertEqual(self.revision(), "2025-06-18")
        self.assertEqual(self.written(), "2025-06-18")
        self.assertEqual(self.revision(), "2025-06-18")
        self.open(version="2025-03-26")
        self.child_version = None
        self.assertEqual(self.written(), "2025-06-18")
        self.assertEqual(self.revision(), "2025-11-25")

    def test_it_cannot_be_corrected(self) -> None:
        """Then there is no session, as when nothing could be written."""
        self.manual.add("initialize")
        wire = self.send(initialize("2025-11-25"))
        self.ledger.error = StoreUnavailable("busy")
        self.reply(self.spawner.processes[0], 1, {"protocolVersion": "2025-06-18"})
        self.assertEqual(wire.status, 503)
        self.assertEqual([*self.ledger.rows.values()], ["not_opened"])
        self.assertTrue(self.spawner.processes[0].exited)

    def test_it_was_closed_meanwhile(self) -> None:
        """A grant that has just ended, say."""
        self.manual.add("initialize")
        wire = self.send(initialize("2025-11-25"))
        for digest in self.ledger.rows:
            self.ledger.rows[digest] = "grant_ended"
        self.reply(self.spawner.processes[0], 1, {"protocolVersion": "2025-06-18"})
        self.assertEqual(wire.status, 404)
        self.assertEqual([*self.ledger.rows.values()], ["grant_ended"])
