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

    def test_goes_on_under_another_id(self) -> None:
        """Only what that one comes to counts, and is found under every id."""
        self.outcomes.go_on("p", 600, "q")
        self.assertEqual(self.outcomes.current("p"), "q")
        self.outcomes.go_on("p", 600, "r")
        self.outcomes.remember("p", 600, END)
        self.outcomes.remember("q", 600, END)
        self.assertIsNone(self.outcomes.find("p", "full"))
        self.outcomes.remember("r", 1200, END)
        for known in ("p", "q", "r"):
            self.assertEqual(self.outcomes.current(known), "r")
            self.assertEqual(self.outcomes.find(known, "full"), END)
        self.assertEqual(self.outcomes.current("s"), "s")

    def test_oldest_are_forgotten(self) -> None:
        """Beyond the limit."""
        for number in range(5):
            self.outcomes.remember(str(number), 600, END)
        kept = [n for n in range(5) if self.outcomes.find(str(n), "full")]
        self.assertEqual(kept, [2, 3, 4])

    def test_says_no_code(self) -> None:
        """Should somebody log it."""
        self.assertNotIn("secret", repr(END))
