"""How long a fetched document counts."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.oauth.document_cache import (
    CEILING_SECONDS,
    DEFAULT_SECONDS,
    FLOOR_SECONDS,
    CacheHeaders,
    RecentOutcomes,
    lifetime_seconds,
)

NOW = 784_111_777  # Sun, 06 Nov 1994 08:49:37 GMT
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = "Sun, 06 Nov 1994 08:59:37 GMT"


class LifetimeTests(SynchronousTestCase):
    """RFC 9111 section 4.2, within bounds of ours."""

    def lifetime(self, *cache_control: str, **headers: str) -> int:
        """
        @return: seconds.
        """
        return lifetime_seconds(CacheHeaders(cache_control, **headers), NOW)

    def test_max_age(self) -> None:
        """As the server says."""
        self.assertEqual(self.lifetime("max-age=600"), 600)
        self.assertEqual(self.lifetime("public, MAX-AGE=600"), 600)
        self.assertEqual(self.lifetime('max-age="600"'), 600)
        self.assertEqual(self.lifetime("public", "max-age=600"), 600)

    def test_shared_caches_have_their_own(self) -> None:
        """s-maxage goes before max-age, and both before Expires."""
        self.assertEqual(self.lifetime("max-age=600, s-maxage=700"), 700)
        self.assertEqual(self.lifetime("max-age=700", expires=LATER, date=DATE), 700)

    def test_expires(self) -> None:
        """Against the server's own clock, when it tells the time."""
        self.assertEqual(self.lifetime(expires=LATER, date=DATE), 600)
        self.assertEqual(self.lifetime(expires=LATER), 600)
        self.assertEqual(self.lifetime(expires="0", date=DATE), FLOOR_SECONDS)
        self.assertEqual(self.lifetime(expires=DATE, date=LATER), FLOOR_SECONDS)

    def test_age_is_taken_off(self) -> None:
        """What was old already is stale earlier."""
        self.assertEqual(self.lifetime("max-age=600", age="100"), 500)
        self.assertEqual(self.lifetime("max-age=600", age="junk"), 600)

    def test_nothing_said(self) -> None:
        """An hour."""
        self.assertEqual(self.lifetime(), DEFAULT_SECONDS)
        self.assertEqual(self.lifetime("public"), DEFAULT_SECONDS)

    def test_floor(self) -> None:
        """Nobody makes us fetch without pause."""
        for value in ("no-store", "no-cache", "private", "max-age=0", "max-age=junk"):
            self.assertEqual(self.lifetime(value), FLOOR_SECONDS)
        self.assertEqual(self.lifetime("no-store, max-age=600"), FLOOR_SECONDS)

    def test_ceiling(self) -> None:
        """Changes of redirect URIs take effect within a day."""
        self.assertEqual(self.lifetime("max-age=31536000"), CEILING_SECONDS)
        self.assertEqual(self.lifetime("max-age=9999999999"), CEILING_SECONDS)

    @given(
        st.lists(st.text(max_size=40), max_size=3),
        st.text(max_size=20),
        st.text(max_size=40),
        st.text(max_size=40),
    )
    def test_any_headers(
        self, control: list[str], age: str, date: str, expires: str
    ) -> None:
        """Whatever they say, the result is within the bounds."""
        headers = CacheHeaders(control, age, date, expires)
        seconds = lifetime_seconds(headers, NOW)
        self.assertTrue(FLOOR_SECONDS <= seconds <= CEILING_SECONDS)


class RecentOutcomesTests(SynchronousTestCase):
    """The bounded memory."""

    def test_kept_until_it_expires(self) -> None:
        """Not a second longer."""
        recent: RecentOutcomes[str] = RecentOutcomes()
        recent.keep("a", "x", 100)
        self.assertEqual(recent.find("a", 99), "x")
        self.assertIsNone(recent.find("a", 100))
        self.assertIsNone(recent.find("b", 0))
        self.assertEqual(len(recent), 0)

    def test_newer_one_replaces(self) -> None:
        """There is one outcome for a URL."""
        recent: RecentOutcomes[str] = RecentOutcomes()
        recent.keep("a", "x", 100)
        recent.keep("a", "y", 200)
        self.assertEqual(recent.find("a", 150), "y")
        self.assertEqual(len(recent), 1)

    def test_bounded(self) -> None:
        """The one that nobody asked for goes."""
        recent: RecentOutcomes[int] = RecentOutcomes(3)
        for number in range(3):
            recent.keep(str(number), number, 100)
        recent.find("0", 1)
        recent.keep("3", 3, 100)
        self.assertEqual(len(recent), 3)
        self.assertEqual([recent.find(each, 1) for each in "0123"], [0, None, 2, 3])
