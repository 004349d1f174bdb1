"""Sign-in traces in the store: the short list, and all of them."""

from sqlite3 import Connection

from twisted.internet.defer import Deferred

from fjmcp_broker.control import commands
from fjmcp_broker.control.protocol import ControlError, Request
from fjmcp_broker.store import traces
from fjmcp_broker.trace.attempts import Attempt

from .memory import NOW
from .rows import USER_ID, StoreTestCase


class ListTests(StoreTestCase):
    """What an operator finds, whoever else comes."""

    def keep(self, network: str, number: int, at: int, user_id: int | None) -> None:
        """Store an attempt."""
        attempt = Attempt(
            trace_id=f"{network[:4]:a<4}{number:04}",
            network=network,
            began_at=at,
            updated_at=at,
            user_id=user_id,
        )
        self.write(lambda c: traces.write(c, [attempt], []))

    def asked(self, **arguments: object) -> "Deferred[commands.Outcome]":
        """What the command does."""
        request = Request("trace", arguments)

        def perform(connection: Connection) -> commands.Outcome:
            return commands.command(request).perform(connection, request, NOW)

        return Deferred.fromCoroutine(self.database.read(perform))

    def listed(self, **arguments: object) -> list[str]:
        """The networks of what the command shows, page by page."""
        shown: list[str] = []
        after = None
        while True:
            outcome = self.successResultOf(self.asked(**arguments, after=after))
            shown += [row["network"] for row in outcome.result["rows"]]
            after = outcome.result.get("after")
            if after is None:
                return shown

    def flood(self) -> None:
        """One attempt of a user's, and then 200 from somewhere else."""
        self.keep("quiet", 0, NOW, USER_ID)
        for number in range(200):
            self.keep("loud", number, NOW + 1 + number // 100, None)

    def test_flood_hides_nobody(self) -> None:
        """The short list has room for others; the flood fills what is left."""
        self.flood()
        shown = self.listed()
        self.assertEqual(len(shown), 50)
        self.assertEqual(shown[-1], "quiet")
        self.assertEqual(shown.count("loud"), 49)

    def test_newest_first(self) -> None:
        """Whichever network they are of."""
        for number, network in enumerate(("one", "two", "one", "two")):
            self.keep(network, number, NOW + number, None)
        self.assertEqual(self.listed(), ["two", "one", "two", "one"])

    def test_all(self) -> None:
        """Each once, over several pages, also those of the same second."""
        self.flood()
        shown = self.listed(all=True)
        self.assertEqual((len(shown), shown.count("loud")), (201, 200))
        self.assertEqual(shown[-1], "quiet")

    def test_of_a_user(self) -> None:
        """By login or number."""
        self.flood()
        self.assertEqual(self.listed(user=str(USER_ID)), ["quiet"])
        self.failureResultOf(self.asked(user="nobody"), ControlError)

    def test_wrong_page(self) -> None:
        """One line."""
        wrong: tuple[object, ...] = (1, [1], [1, 2], ["1", "a"], {})
        for after in wrong:
            self.failureResultOf(self.asked(all=True, after=after), ControlError)
