"""What is remembered of sign-ins that are over."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.web.oauth.outcomes import Outcome, Outcomes

END = Outcome("full", "https://client.test/?code=secret", "ok", b"digest")


class OutcomesTests(SynchronousTestCase):
    """Until the form expires, of a bounded number."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.outcomes = Outcomes(self.clock, maximum=3)

    def test_found_by_its_decision(self) -> None:
        """And by no other."""
        self.outcomes.remember("p", 600, END)
        self.assertEqual(self.outcomes.find("p", "full"), END)
        self.assertIsNone(self.outcomes.find("p", "cancel"))
        self.assertIsNone(self.outcomes.find("q", "full"))

    def test_expires(self) -> None:
        """And is not kept any longer than that."""
        self.outcomes.remember("p", 600, END)
        self.clock.advance(600)
        self.assertIsNone(self.outcomes.find("p", "full"))
        self.outcomes.remember("q", 1200, END)
        self.clock.advance(-1)
        self.assertIsNone(self.outcomes.find("p", "full"))
        self.assertIsNotNone(self.outcomes.find("q", "full"))

    def current(self, pending_id: str, stored: str = "pqr") -> str:
        """
        @param stored: the ids that the store has.
        @return: where a form leads.
        """
        return self.outcomes.current(pending_id, lambda known: known in stored)

    def test_goes_on_under_another_id(self) -> None:
        """What that one comes to is found under every id."""
        self.outcomes.go_on("p", 600, "q")
        self.assertEqual(self.current("p"), "q")
        self.outcomes.go_on("q", 600, "r")
        self.assertIsNone(self.outcomes.find("p", "full"))
        self.outcomes.remember("r", 1200, END)
        for known in ("p", "q", "r"):
            self.assertEqual(self.current(known), "r")
            self.assertEqual(self.outcomes.find(known, "full"), END)
        self.assertEqual(self.current("s"), "s")

    def test_transaction_that_came_to_nothing(self) -> None:
        """The store has no such sign-in, and another one goes on or ends."""
        self.outcomes.go_on("p", 600, "q")
        self.outcomes.go_on("q", 600, "r")
        self.assertEqual(self.current("p", "pq"), "q")
        self.assertEqual(self.current("p", "p"), "p")
        self.outcomes.go_on("q", 600, "s")
        self.assertEqual(self.current("p", "pqrs"), "s")
        self.assertIsNone(self.outcomes.find("r", "full"))
        self.outcomes.remember("p", 600, END)
        self.assertEqual(self.current("p", "pqrs"), "p")
        self.assertEqual(self.outcomes.find("p", "full"), END)

    def test_oldest_are_forgotten(self) -> None:
        """Beyond the limit."""
        for number in range(5):
            self.outcomes.remember(str(number), 600, END)
        kept = [n for n in range(5) if self.outcomes.find(str(n), "full")]
        self.assertEqual(kept, [2, 3, 4])

    def test_says_no_code(self) -> None:
        """Should somebody log it."""
        self.assertNotIn("secret", repr(END))
