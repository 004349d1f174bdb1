"""The ring of attempts: bounded, fair, and never at a loss whose step one is."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fjmcp_broker.trace.attempts import (
    MAXIMUM_DETAIL,
    MAXIMUM_RELATED,
    MAXIMUM_STEPS,
    Step,
    StepName,
    related_from_json,
    related_to_json,
    steps_from_json,
    steps_to_json,
)
from fjmcp_broker.trace.book import (
    MAXIMUM_KEYS,
    MAXIMUM_NETWORKS_SEEN,
    OF_A_NETWORK,
    OF_ALL,
    RELATED_SECONDS,
    Book,
    client_key,
    grant_key,
    pending_key,
)

NOW = 1_800_000_000
HERE, THERE = "192.0.2.0/24", "198.51.100.0/24"


class Numbers:
    """Random bytes that never repeat."""

    def __init__(self) -> None:
        """From the beginning."""
        self.count = 0

    def __call__(self, size: int) -> bytes:
        """
        @return: that many bytes.
        """
        self.count += 1
        return sha256(b"%d" % self.count).digest()[:size]


def step(name: StepName, outcome: str = "ok", at: int = NOW) -> Step:
    """
    @return: a step from here.
    """
    return Step(at, name, outcome, network=HERE)


class BookCase(SynchronousTestCase):
    """A book for ten attempts, four of a network."""

    def setUp(self) -> None:
        """Empty."""
        self.book = Book(Numbers(), maximum=10, maximum_of_a_network=4)

    def issued(self, grant_id: str = "g_1") -> str:
        """
        @return: an attempt that has got tokens.
        """
        trace_id = self.book.begin(HERE, NOW)
        self.book.add(trace_id, step(StepName.TOKEN), grant_id=grant_id)
        return trace_id


class RingTests(BookCase):
    """What is kept."""

    def test_a_network_pushes_out_its_own(self) -> None:
        """A flood from one place leaves the others alone."""
        other = self.book.begin(THERE, NOW)
        mine = [self.book.begin(HERE, NOW) for _ in range(50)]
        self.assertEqual(len(self.book), 5)
        self.assertIsNotNone(self.book.get(other))
        kept = [trace_id for trace_id in mine if self.book.get(trace_id)]
        self.assertEqual(kept, mine[-4:])
        self.assertEqual(self.book.lost, {OF_A_NETWORK: 46, OF_ALL: 0})

    def test_the_largest_network_makes_room(self) -> None:
        """A flood from many places is bounded as well."""
        for number in range(4):
            self.book.begin(HERE, NOW + number)
        for number in range(20):
            self.book.begin(f"203.0.{number}.0/24", NOW)
        self.assertEqual(len(self.book), 10)
        self.assertEqual(self.book.lost, {OF_A_NETWORK: 0, OF_ALL: 14})

    def test_what_went_leads_nowhere(self) -> None:
        """Its keys go along."""
        first = self.book.begin(HERE, NOW)
        self.book.tie(first, pending_key("p"))
        self.book.add(first, step(StepName.TOKEN), grant_id="g")
        for _ in range(4):
            self.book.begin(HERE, NOW)
        self.assertIsNone(self.book.find(pending_key("p")))
        self.assertIsNone(self.book.awaits("g"))
        self.book.tie(first, pending_key("p"))
        self.book.add(first, step(StepName.REQUEST))
        self.assertIsNone(self.book.find(pending_key("p")))

    def test_keys_are_bounded(self) -> None:
        """Whoever clicks for ever loses the oldest ways back; a key has one end."""
        trace_id = self.book.begin(HERE, NOW)
        for number in range(100):
            self.book.tie(trace_id, pending_key(str(number)))
        self.assertEqual(len(self.book._by_key), MAXIMUM_KEYS)
        self.assertEqual(self.book.find(pending_key("99")), trace_id)
        other = self.book.begin(HERE, NOW)
        self.book.tie(other, pending_key("99"))
        self.assertEqual(self.book.find(pending_key("99")), other)
        for _ in range(8):
            self.book.begin(HERE, NOW)
        self.assertEqual(self.book._by_key, {})

    def test_attempts_age(self) -> None:
        """Nobody asks after a month."""
        old = self.book.begin(HERE, NOW)
        young = self.book.begin(HERE, NOW + 5)
        self.book.forget_before(NOW)
        self.assertIsNone(self.book.get(old))
        self.assertIsNotNone(self.book.get(young))

    def test_steps_are_bounded(self) -> None:
        """The first ones and the newest stay."""
        trace_id = self.book.begin(HERE, NOW)
        for number in range(100):
            self.book.add(trace_id, step(StepName.CONSENT, f"n{number}"))
        attempt = self.book.get(trace_id)
        assert attempt is not None
        self.assertEqual(len(attempt.steps), MAXIMUM_STEPS)
        self.assertEqual(attempt.steps[0].outcome, "n0")
        self.assertEqual(attempt.steps[-1].outcome, "n99")

    def test_details_are_harmless(self) -> None:
        """No control characters, no tokens, no novels."""
        token = "fjmcp_at_" + "x" * 43
        made = Step(NOW, StepName.TOKEN, "no", f"\x1b[2J {token} " + "y" * 999)
        self.assertNotIn("\x1b", made.detail)
        self.assertNotIn(token, made.detail)
        self.assertLessEqual(len(made.detail), MAXIMUM_DETAIL)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("begin", "add", "see", "save", "fail", "age")),
                st.integers(0, 5),
            ),
            max_size=60,
        )
    )
    def test_always_bounded_and_written(self, acts: list[tuple[str, int]]) -> None:
        """Whatever happens, the store can be brought to what the book has."""
        book = Book(Numbers(), maximum=5, maximum_of_a_network=3)
        store: dict[str, object] = {}
        made: list[str] = []
        for number, (act, where) in enumerate(acts):
            if act == "begin":
                made.append(book.begin(f"n{where}", NOW + number))
            elif act == "add" and made:
                trace_id = made[where % len(made)]
                book.add(trace_id, step(StepName.TOKEN), grant_id=f"g{where}")
            elif act == "see":
                book.saw(f"n{where}", "a look", NOW + number)
            elif act == "age":
                book.forget_before(NOW + number - 30)
            changes = book.take_changes(2)
            if act == "fail":
                book.put_back(changes)
            else:
                for each in changes.saved:
                    store[each.trace_id] = each
                for removed in changes.removed:
                    store.pop(removed, None)
            self.assertLessEqual(len(book), 5)
        while changes := book.take_changes(2):
            for each in changes.saved:
                store[each.trace_id] = each
            for removed in changes.removed:
                store.pop(removed, None)
        kept = {trace_id: book.get(trace_id) for trace_id in made if book.get(trace_id)}
        self.assertEqual(store, kept)


class RelatedTests(BookCase):
    """Requests that may belong to an attempt."""

    def what(self, trace_id: str) -> list[str]:
        """
        @return: what may belong to it.
        """
        attempt = self.book.get(trace_id)
        assert attempt is not None
        return [seen.what for seen in attempt.related]

    def test_before_it_began(self) -> None:
        """Of the same network, not long ago."""
        self.book.saw(HERE, "old", NOW - RELATED_SECONDS)
        self.book.saw(HERE, "young", NOW - 1)
        self.book.saw(THERE, "foreign", NOW - 1)
        self.assertEqual(self.what(self.book.begin(HERE, NOW)), ["young"])

    def test_after_tokens_were_issued(self) -> None:
        """Until the first request that is authenticated."""
        trace_id = self.issued()
        self.book.saw(THERE, "foreign", NOW)
        self.book.saw(HERE, "without a token", NOW)
        self.assertEqual(self.what(trace_id), ["without a token"])
        self.assertEqual(self.book.awaits("g_1"), trace_id)
        self.book.add(trace_id, step(StepName.REQUEST, "200"))
        self.assertIsNone(self.book.awaits("g_1"))
        self.book.saw(HERE, "later", NOW)
        self.assertEqual(self.what(trace_id), ["without a token"])

    def test_memory_is_bounded(self) -> None:
        """Networks and what was seen of each."""
        for number in range(2 * MAXIMUM_NETWORKS_SEEN):
            self.book.saw(f"n{number}", "x", NOW)
        self.assertEqual(len(self.book._seen), MAXIMUM_NETWORKS_SEEN)
        for _ in range(100):
            self.book.saw(HERE, "x", NOW)
        trace_id = self.book.begin(HERE, NOW)
        self.assertEqual(len(self.what(trace_id)), MAXIMUM_RELATED)


class RestartTests(BookCase):
    """A later daemon goes on."""

    def test_keys_are_made_again(self) -> None:
        """From what the store has."""
        registered = self.book.begin(HERE, NOW)
        self.book.add(registered, step(StepName.REGISTER), client_id="c")
        going = self.book.begin(HERE, NOW)
        self.book.add(going, step(StepName.AUTHORIZE), client_id="c", pending_id="p")
        issued = self.issued()
        later = Book(Numbers(), maximum=10, maximum_of_a_network=4)
        later.load(self.book.take_changes(99).saved)
        self.assertFalse(later.take_changes(99))
        self.assertEqual(later.find(client_key("c")), registered)
        self.assertEqual(later.find(pending_key("p")), going)
        self.assertEqual(later.find(grant_key("g_1")), issued)
        self.assertEqual(later.awaits("g_1"), issued)

    def test_text_comes_back(self) -> None:
        """Steps and what may belong to them."""
        self.book.saw(HERE, "a look", NOW)
        attempt = self.book.get(self.issued())
        assert attempt is not None
        self.assertEqual(steps_from_json(steps_to_json(attempt.steps)), attempt.steps)
        related = related_from_json(related_to_json(attempt.related))
        self.assertEqual(related, attempt.related)
