"""What is known of kinds of children."""

from sqlite3 import IntegrityError

from twisted.internet.defer import Deferred

from fjmcp_broker.mcp.modern.profiles import ChildEra, ChildProfile
from fjmcp_broker.store import child_profiles
from fjmcp_broker.store.child_profiles import KEPT

from .memory import NOW
from .rows import StoreTestCase, digest


class ChildProfileTests(StoreTestCase):
    def put(self, name: str, profile: ChildProfile, now: int = NOW) -> None:
        """Write one down."""
        identity = digest(name)
        self.write(lambda c: child_profiles.put(c, identity, profile, now))

    def test_profile_comes_back(self) -> None:
        """
        Byte for byte, and the newest one.
        """
        first = ChildProfile(ChildEra.LEGACY, b'{ "a": "\xc3\xa4" }')
        second = ChildProfile(ChildEra.DUAL, b"{}", b'{"b":1}')
        self.put("one", first)
        self.put("two", first)
        self.put("one", second)
        self.assertEqual(
            self.read(child_profiles.find_all),
            {digest("one"): second, digest("two"): first},
        )

    def test_the_oldest_are_forgotten(self) -> None:
        """
        And never the one that is just written down, whatever the clock says.
        """
        profile = ChildProfile(ChildEra.LEGACY)
        for number in range(KEPT + 2):
            self.put(str(number), profile, NOW + number)
        self.put("late", profile, 0)
        known = self.read(child_profiles.find_all)
        self.assertEqual(len(known), KEPT)
        self.assertIn(digest("late"), known)
        self.assertNotIn(digest("2"), known)
        self.assertIn(digest("3"), known)

    def test_eras_are_the_known_ones(self) -> None:
        """
        The schema refuses any other.
        """
        self.failureResultOf(
            Deferred.fromCoroutine(
                self.database.write(
                    lambda c: c.execute(
                        "INSERT INTO child_profiles"
                        " VALUES (x'00', 'old', NULL, NULL, 0)"
                    )
                )
            ),
            IntegrityError,
        )
