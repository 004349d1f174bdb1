"""The table of a scaling run."""

from twisted.trial.unittest import SynchronousTestCase

from bench.scaling import CONNECTIONS, SESSIONS, Figures, Turn, rows


def _measured() -> dict[Turn, Figures]:
    shapes = {*CONNECTIONS, *SESSIONS}
    found: dict[Turn, Figures] = {
        ("broker", a, b): (1000.0 + b, 0.01, 0.05) for a, b in shapes
    }
    found |= {("slow", a, b): (900.0, 0.02, 0.1) for a, b in shapes}
    found |= {("bare", a, b): (500.0 * b, 0.01, 0.1) for a, b in CONNECTIONS}
    return found


class RowsTests(SynchronousTestCase):
    """Ratios, and what failed."""

    def test_all(self) -> None:
        """Each shape is compared with the best of its own table."""
        measured = _measured()
        measured["broker", 1, 100] = (4400.0, 0.01, 0.025)
        by_connections = rows(measured, CONNECTIONS)
        self.assertEqual([row[0] for row in by_connections], ["1", "16", "100", "1000"])
        self.assertEqual(
            [row[2] for row in by_connections][:3], ["0.23", "0.23", "1.00"]
        )
        self.assertEqual(
            [row[5] for row in by_connections][:3], ["2.00", "2.00", "1.00"]
        )
        self.assertEqual([row[11] for row in by_connections][2:], ["0.10", "1.00"])
        by_sessions = rows(measured, SESSIONS)
        self.assertEqual(by_sessions[-1][:3], ["1000", "2000", "1.00"])
        self.assertEqual(by_sessions[-1][6:], ["900", "0.45", "20.0", "2.00"])

    def test_failed(self) -> None:
        """What failed leaves its place empty, and the others where they are."""
        measured = _measured()
        for turn in (("broker", 1000, 1000), ("slow", 1, 16), ("bare", 1, 100)):
            del measured[turn]
        self.assertEqual(len(rows(measured, SESSIONS)), len(SESSIONS) - 1)
        by_connections = rows(measured, CONNECTIONS)
        self.assertEqual(by_connections[1][6:10], ["-"] * 4)
        self.assertEqual(by_connections[2][10:], ["-"] * 2)
        self.assertEqual(rows({}, SESSIONS), [])
